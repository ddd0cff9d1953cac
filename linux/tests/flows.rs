//! Flows between processes of two hosts: kernel daemons in one process, each on a loopback address of its own.

mod common;
#[path = "flows/posted.rs"]
mod posted;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use amoeba_cap::{PutPort, SystemSecret};
use amoeba_linux::client::Client;
use amoeba_linux::kernel::{Config, Daemon, Stopper};
use amoeba_linux::link::admission::Row;
use amoeba_linux::link::{UdpConfig, UdpLink};
use amoeba_seal::Identity;
use amoeba_wire::Status;
use amoeba_world::{Error, Listener, Message, TransOptions, Transactions};
use common::{port, request};

/// A kernel daemon with a link; dropping it ends it without a word to anybody.
struct Host {
    home: PathBuf,
    running: Option<(Stopper, JoinHandle<()>)>,
}

impl Host {
    /// Two hosts that know each other.
    fn pair(name: &str) -> [Host; 2] {
        let [one, two] =
            [1, 2].map(|number| (Identity::generate(&*amoeba_linux::entropy()), address(), number));
        let row = |(identity, address, number): &(Identity, SocketAddr, i32)| Row {
            name: format!("host{number}"),
            key: identity.public(),
            addresses: vec![*address],
        };
        let rows = vec![row(&one), row(&two)];
        let hosts = [one, two].map(|(identity, listen, number)| {
            let home = format!("amoeba-flows-{}-{name}-{number}", std::process::id());
            let secret = SystemSecret::from_bytes([44; 32]);
            let entropy = amoeba_linux::entropy();
            let config = UdpConfig { listen, identity, secret: secret.clone(), entropy: entropy.clone() };
            let mut kernel = Config::new(secret, entropy);
            kernel.links.push(Box::new(UdpLink::bind(config).unwrap()));
            kernel.members = rows.clone();
            Host::start(std::env::temp_dir().join(home), kernel)
        });
        hosts.iter().for_each(Host::await_peer);
        hosts
    }

    fn start(home: PathBuf, config: Config) -> Host {
        let mut daemon = Daemon::bind(&home.join("kernel.sock"), config).unwrap();
        let stopper = daemon.stopper();
        let running = Some((stopper, std::thread::spawn(move || daemon.run().unwrap())));
        Host { home, running }
    }

    /// A process of its own, as the daemon sees it.
    fn client(&self) -> Client {
        Client::new(&self.home.join("kernel.sock"))
    }

    fn await_peer(&self) {
        let client = self.client();
        await_that(|| {
            let status = client.kernel_status().unwrap();
            status.lines().any(|line| line.starts_with("peer ") && line.contains(" up "))
        });
    }

    /// What the daemon counts under this name.
    fn count(&self, name: &str) -> usize {
        let status = self.client().kernel_status().unwrap();
        let line =
            status.lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with("  ")));
        let line = line.unwrap_or_else(|| panic!("the daemon does not count {name}:\n{status}"));
        line.split_whitespace().last().unwrap().parse().unwrap()
    }

    fn die(&mut self) {
        if let Some((stopper, thread)) = self.running.take() {
            stopper.stop();
            thread.join().unwrap();
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.die();
        let _ = std::fs::remove_dir_all(&self.home);
    }
}

/// An address on the loopback network that no other test uses.
fn address() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let number = NEXT.fetch_add(1, Ordering::SeqCst);
    let [high, low] = (std::process::id() as u16).to_be_bytes();
    SocketAddr::from(([127, high | 1, low, 2], 21_000 + number))
}

/// The wait is bounded only so that a failing test ends.
fn await_that(mut what: impl FnMut() -> bool) {
    let patience = Instant::now();
    while !what() {
        assert!(patience.elapsed() < Duration::from_secs(60), "it never happens");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A server whose threads do what a function says with each request.
struct Server {
    port: PutPort,
    listener: Listener,
    executed: Arc<AtomicUsize>,
    _client: Client,
}

impl Server {
    fn start(
        host: &Host,
        threads: usize,
        serve: impl Fn(Message) -> Message + Send + Sync + 'static,
    ) -> Server {
        let client = host.client();
        let listener = client.listen(&port(1), 64 << 20).unwrap();
        let (serve, executed) = (Arc::new(serve), Arc::new(AtomicUsize::new(0)));
        for _ in 0..threads {
            let (listener, serve, executed) = (listener.clone(), serve.clone(), executed.clone());
            std::thread::spawn(move || {
                while let Ok(incoming) = listener.getreq() {
                    executed.fetch_add(1, Ordering::SeqCst);
                    incoming.reply.send(serve(incoming.request));
                }
            });
        }
        Server { port: listener.put_port(), listener, executed, _client: client }
    }

    fn echo(host: &Host, threads: usize) -> Server {
        Server::start(host, threads, |request| request)
    }

    fn executed(&self) -> usize {
        self.executed.load(Ordering::SeqCst)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.listener.close();
    }
}

fn pattern(size: usize) -> Vec<u8> {
    (0..size).map(|index| (index % 249) as u8).collect()
}

fn ask(client: &Client, port: PutPort, data: Vec<u8>) -> Result<Vec<u8>, Error> {
    client.trans(request(port, data), &TransOptions::default()).map(|reply| reply.data)
}

/// Null transactions until they go over a flow: then the daemons see no more of them.
fn use_flow(host: &Host, client: &Client, port: PutPort) {
    await_that(|| {
        let before = host.count("transactions elsewhere");
        for _ in 0..3 {
            ask(client, port, Vec::new()).unwrap();
        }
        host.count("transactions elsewhere") == before
    });
    assert!(host.count("flows") > 0);
}

#[test]
fn any_size_goes_over_a_flow_and_the_daemons_see_nothing_of_it() {
    let [one, two] = Host::pair("sizes");
    let (server, client) = (Server::echo(&one, 2), two.client());
    use_flow(&two, &client, server.port);
    let (packets, executed) =
        (one.count("transactions elsewhere") + two.count("transactions elsewhere"), server.executed());
    for size in [0, 1, 1000, 1400, 1500, 65_000, 66_000, 1 << 20, 9 << 20] {
        let data = pattern(size);
        let reply = ask(&client, server.port, data.clone()).unwrap();
        assert!(reply == data, "{size} bytes came back changed, or {} instead", reply.len());
    }
    assert_eq!(one.count("transactions elsewhere") + two.count("transactions elsewhere"), packets);
    assert_eq!(server.executed() - executed, 9, "each once");
}

#[test]
fn threads_have_flows_of_their_own() {
    let [one, two] = Host::pair("threads");
    let (server, client) = (Server::echo(&one, 3), two.client());
    let mut batches = 0;
    // How many flows there are by the end of a batch depends on when the server's threads had time for introductions.
    while batches == 0 || two.count("flows given to clients") < 2 && batches < 50 {
        batches += 1;
        let threads: Vec<_> = (0..6usize)
            .map(|number| {
                let (client, port) = (client.clone(), server.port);
                std::thread::spawn(move || {
                    for round in 0..40 {
                        let size = if number == 0 { 700_000 } else { 100 * round };
                        let data = pattern(size);
                        assert!(ask(&client, port, data.clone()).unwrap() == data);
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(server.executed(), 240 * batches);
    }
    assert!(two.count("flows given to clients") > 1);
}

#[test]
fn a_request_that_takes_long_is_executed_once_though_every_thread_is_busy() {
    let [one, two] = Host::pair("long");
    let server = Server::start(&one, 1, |request| {
        if !request.data.is_empty() {
            std::thread::sleep(Duration::from_secs(7)); // longer than any patience without a word
        }
        request
    });
    let client = two.client();
    use_flow(&two, &client, server.port);
    let executed = server.executed();
    assert_eq!(ask(&client, server.port, vec![1]), Ok(vec![1]));
    assert_eq!(server.executed() - executed, 1);
}

#[test]
fn a_request_that_no_thread_takes_leaves_the_flow_for_the_kernels_and_is_executed_once() {
    let [one, two] = Host::pair("busy");
    let (gate, opened) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let is_open = gate.clone();
    let server = Server::start(&one, 1, move |request| {
        if request.data == [0] {
            await_that(|| is_open.load(Ordering::SeqCst) > 0);
        }
        request
    });
    let (client, port) = (two.client(), server.port);
    use_flow(&two, &client, port);
    let executed = server.executed();
    let (other, done) = (two.client(), opened.clone());
    let holding = std::thread::spawn(move || ask(&other, port, vec![0]));
    await_that(|| server.executed() > executed);
    let through_kernels = two.count("transactions elsewhere");
    let asking = std::thread::spawn(move || {
        let reply = ask(&client, port, vec![3]);
        (reply, done.load(Ordering::SeqCst))
    });
    await_that(|| two.count("transactions elsewhere") > through_kernels);
    opened.store(1, Ordering::SeqCst);
    gate.store(1, Ordering::SeqCst);
    assert_eq!(holding.join().unwrap(), Ok(vec![0]));
    assert_eq!(asking.join().unwrap(), (Ok(vec![3]), 1), "it was answered only when the server had time");
    assert_eq!(server.executed() - executed, 2, "each once");
}

#[test]
fn the_end_of_a_server_is_heard_at_once_and_maybe_executed() {
    let [one, two] = Host::pair("server-ends");
    let (begun, gate) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let client = two.client();
    let server_client = one.client();
    let listener = server_client.listen(&port(1), 1 << 20).unwrap();
    let put_port = listener.put_port();
    let serving = {
        let (begun, gate) = (begun.clone(), gate.clone());
        std::thread::spawn(move || {
            let mut held = Vec::new();
            while let Ok(incoming) = listener.getreq() {
                if incoming.request.data.is_empty() {
                    incoming.reply.send(incoming.request);
                } else {
                    begun.fetch_add(1, Ordering::SeqCst);
                    held.push(incoming.reply);
                    await_that(|| gate.load(Ordering::SeqCst) > 0);
                    break;
                }
            }
            std::mem::forget(held); // a process that ends says nothing
        })
    };
    use_flow(&two, &client, put_port);
    let asking = {
        let client = client.clone();
        std::thread::spawn(move || ask(&client, put_port, vec![1]))
    };
    await_that(|| begun.load(Ordering::SeqCst) == 1);
    // The daemon of the server's host ends, and with it every process that it knew.
    let mut one = one;
    one.die();
    gate.store(1, Ordering::SeqCst);
    assert_eq!(asking.join().unwrap(), Err(Error::MaybeExecuted(Status::RPC_FAILURE)));
    serving.join().unwrap();
    await_that(|| two.count("flows") == 0);
}

#[test]
fn the_end_of_a_client_ends_its_flows_at_both_kernels() {
    let [one, two] = Host::pair("client-ends");
    let server = Server::echo(&one, 1);
    let client = two.client();
    use_flow(&two, &client, server.port);
    assert!(one.count("flows") > 0);
    drop(client);
    await_that(|| one.count("flows") == 0 && two.count("flows") == 0);
    let client = two.client();
    use_flow(&two, &client, server.port);
}

#[test]
fn who_listens_no_more_is_left_for_another_and_nothing_is_executed_twice() {
    let [one, two] = Host::pair("unlisten");
    let client = two.client();
    let first = Server::echo(&one, 1);
    use_flow(&two, &client, first.port);
    first.listener.close();
    let second = Server::echo(&one, 1);
    // What was sent to the first one just when it closed may be in doubt; nothing after that.
    let answers: Vec<_> = (0..10).map(|_| ask(&client, second.port, vec![3])).collect();
    let doubt = answers.iter().take_while(|answer| matches!(answer, Err(Error::MaybeExecuted(_)))).count();
    assert!(doubt <= 1 && answers[doubt..].iter().all(|answer| *answer == Ok(vec![3])), "{answers:?}");
    assert_eq!(second.executed(), 10 - doubt);
    await_that(|| {
        one.count("flows given to servers") > 1 || {
            ask(&client, second.port, vec![3]).unwrap();
            false
        }
    });
}

#[test]
fn bounds_and_deadlines_hold_over_a_flow() {
    let [one, two] = Host::pair("bounds");
    let client = two.client();
    let server = Server::start(&one, 1, |request| match request.data.len() {
        3 => {
            std::thread::sleep(Duration::from_millis(700));
            request
        }
        7 => Message { header: request.header, data: vec![0; 100_000] },
        _ => request,
    });
    use_flow(&two, &client, server.port);
    let small = TransOptions { reply_size_max: 1000, ..TransOptions::default() };
    let reply = client.trans(request(server.port, vec![0; 7]), &small).unwrap();
    assert_eq!((reply.header.status(), reply.data.len()), (Status::STD_OVERFLOW, 0));
    let hasty = TransOptions { deadline: Some(Duration::from_millis(50)), ..TransOptions::default() };
    let mut kept = request(server.port, vec![0; 3]);
    let late = client.trans_keeping(&mut kept, &hasty);
    assert_eq!(late, Err(Error::MaybeExecuted(Status::RPC_FAILURE)));
    assert_eq!(kept, request(server.port, vec![0; 3]), "the request is given back");
    assert_eq!(ask(&client, server.port, vec![5]), Ok(vec![5]));
}
