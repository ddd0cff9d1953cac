//! Kernel daemons of several hosts in one process, each on a loopback address of its own.

mod common;

use std::net::{SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use amoeba_cap::{PutPort, SystemSecret};
use amoeba_linux::client::Client;
use amoeba_linux::kernel::{Config, Daemon, Stopper};
use amoeba_linux::link::{BindError, JoinError, UdpConfig, UdpLink, join};
use amoeba_wire::Status;
use amoeba_world::{Error, Listener, TransOptions, Transactions};
use common::{port, request};

/// A kernel daemon with a link; dropping it ends it without a word to anybody.
struct Host {
    home: PathBuf,
    address: SocketAddr,
    running: Option<(Stopper, JoinHandle<()>)>,
}

fn secret() -> SystemSecret {
    SystemSecret::from_bytes([43; 32])
}

/// An address on the loopback network that no other test uses.
fn address() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let number = NEXT.fetch_add(1, Ordering::SeqCst);
    let [high, low] = (std::process::id() as u16).to_be_bytes();
    SocketAddr::from(([127, high | 1, low, 1], 20_000 + number))
}

impl Host {
    fn start(name: &str, peers: &[SocketAddr]) -> Host {
        Host::start_at(name, address(), peers)
    }

    fn start_at(name: &str, address: SocketAddr, peers: &[SocketAddr]) -> Host {
        let home = std::env::temp_dir().join(format!("amoeba-link-{}-{name}", address.port()));
        let home = home.join(std::process::id().to_string());
        let link = UdpLink::bind(UdpConfig {
            listen: address,
            peers: peers.to_vec(),
            dev: false,
            host_name: name.to_owned(),
            secret: secret(),
            root_capability: Some("the root".to_owned()),
            entropy: amoeba_linux::entropy(),
        });
        let mut config = Config::new(secret(), amoeba_linux::entropy());
        config.links.push(Box::new(link.unwrap()));
        let mut daemon = Daemon::bind(&home.join("kernel.sock"), config).unwrap();
        let stopper = daemon.stopper();
        let running = Some((stopper, std::thread::spawn(move || daemon.run().unwrap())));
        Host { home, address, running }
    }

    fn client(&self) -> Client {
        Client::new(&self.home.join("kernel.sock"))
    }

    fn die(&mut self) {
        if let Some((stopper, thread)) = self.running.take() {
            stopper.stop();
            thread.join().unwrap();
        }
    }

    /// Waits until this many peers are up.
    fn await_peers(&self, count: usize) {
        let client = self.client();
        await_that(|| peers_up(&client.kernel_status().unwrap()) == count);
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.die();
        let _ = std::fs::remove_dir_all(self.home.parent().unwrap());
    }
}

fn peers_up(status: &str) -> usize {
    status.lines().filter(|line| line.starts_with("peer ") && line.contains(" up ")).count()
}

/// The wait is bounded only so that a failing test ends.
fn await_that(mut what: impl FnMut() -> bool) {
    let patience = Instant::now();
    while !what() {
        assert!(patience.elapsed() < Duration::from_secs(60), "it never happens");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Answers with what it was sent and its own number in front, until its host dies or it is dropped.
struct Echo {
    port: PutPort,
    listener: Listener,
    _client: Client,
}

impl Echo {
    fn start(host: &Host, number: u8, threads: usize) -> Echo {
        let client = host.client();
        let listener = client.listen(&port(1), 64 << 20).unwrap();
        for _ in 0..threads {
            let listener = listener.clone();
            std::thread::spawn(move || {
                while let Ok(mut incoming) = listener.getreq() {
                    incoming.request.data.insert(0, number);
                    incoming.reply.send(incoming.request);
                }
            });
        }
        Echo { port: listener.put_port(), listener, _client: client }
    }
}

impl Drop for Echo {
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

#[test]
fn two_hosts_talk_both_ways_in_any_size() {
    let one = Host::start("one", &[]);
    let two = Host::start("two", &[one.address]);
    one.await_peers(1);
    two.await_peers(1);
    for (server, client) in [(&one, &two), (&two, &one)] {
        let echo = Echo::start(server, 7, 4);
        let client = client.client();
        for size in [0, 1, 1400, 1500, 65_000, 66_000, 1 << 20, 8 << 20] {
            let data = pattern(size);
            let reply = ask(&client, echo.port, data.clone()).unwrap();
            assert_eq!(reply.len(), size + 1);
            assert!(reply[0] == 7 && reply[1..] == data, "{size} bytes came back changed");
        }
        let threads: Vec<_> = (0..8usize)
            .map(|number| {
                let (client, port) = (client.clone(), echo.port);
                std::thread::spawn(move || {
                    for round in 0..5 {
                        let data = pattern(if number % 2 == 0 { 3 << 20 } else { 100 * round });
                        assert!(ask(&client, port, data.clone()).unwrap()[1..] == data);
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        echo.listener.close();
    }
    let status = one.client().kernel_status().unwrap();
    assert!(status.contains("peer two"), "{status}");
}

#[test]
fn peers_are_learnt_from_peers_and_share_the_work() {
    let one = Host::start("one", &[]);
    let two = Host::start("two", &[one.address]);
    let three = Host::start("three", &[one.address]);
    for host in [&one, &two, &three] {
        host.await_peers(2);
    }
    let servers = [Echo::start(&two, 2, 2), Echo::start(&three, 3, 2)];
    let client = one.client();
    let mut answered = [0; 4];
    let asked = Instant::now();
    while answered[2] == 0 || answered[3] == 0 {
        let reply = ask(&client, servers[0].port, Vec::new()).unwrap();
        answered[usize::from(reply[0])] += 1;
        assert!(asked.elapsed() < Duration::from_secs(60), "one server does everything: {answered:?}");
    }
    servers[0].listener.close();
    for _ in 0..10 {
        assert_eq!(ask(&client, servers[1].port, Vec::new()), Ok(vec![3]));
    }
}

#[test]
fn a_server_that_moved_to_another_host_is_found_there() {
    let one = Host::start("one", &[]);
    let two = Host::start("two", &[one.address]);
    let three = Host::start("three", &[one.address]);
    for host in [&one, &two, &three] {
        host.await_peers(2);
    }
    let client = one.client();
    let echo = Echo::start(&two, 2, 1);
    assert_eq!(ask(&client, echo.port, Vec::new()), Ok(vec![2]));
    drop(echo);
    let echo = Echo::start(&three, 3, 1);
    assert_eq!(ask(&client, echo.port, Vec::new()), Ok(vec![3]));
    drop(echo);
    let echo = Echo::start(&one, 1, 1);
    assert_eq!(ask(&client, echo.port, Vec::new()), Ok(vec![1]));
}

#[test]
fn the_death_of_a_host_ends_what_was_under_way_there_and_its_return_is_noticed() {
    let one = Host::start("one", &[]);
    let mut two = Host::start("two", &[one.address]);
    one.await_peers(1);
    two.await_peers(1);
    let server = two.client();
    let listener = server.listen(&port(1), 1 << 20).unwrap();
    let (client, put) = (one.client(), listener.put_port());
    let waiting = {
        let client = client.clone();
        std::thread::spawn(move || ask(&client, put, vec![1]))
    };
    let incoming = listener.getreq().unwrap();
    let dead = Instant::now();
    two.die();
    assert_eq!(waiting.join().unwrap(), Err(Error::MaybeExecuted(Status::RPC_FAILURE)));
    let took = dead.elapsed();
    println!("the client heard of the death after {took:?}");
    drop(incoming);
    one.await_peers(0);
    let again = Host::start_at("two", two.address, &[]);
    one.await_peers(1);
    let echo = Echo::start(&again, 9, 1);
    assert_eq!(ask(&client, echo.port, vec![5]), Ok(vec![9, 5]));
}

#[test]
fn a_quick_restart_is_a_death_too() {
    let one = Host::start("one", &[]);
    let mut two = Host::start("two", &[one.address]);
    one.await_peers(1);
    two.await_peers(1);
    let server = two.client();
    let listener = server.listen(&port(1), 1 << 20).unwrap();
    let (client, put) = (one.client(), listener.put_port());
    let waiting = {
        let client = client.clone();
        std::thread::spawn(move || ask(&client, put, vec![1]))
    };
    let incoming = listener.getreq().unwrap();
    two.die();
    let _again = Host::start_at("two", two.address, &[one.address]);
    assert_eq!(waiting.join().unwrap(), Err(Error::MaybeExecuted(Status::RPC_FAILURE)));
    drop(incoming);
}

#[test]
fn a_flood_of_garbage_stops_nobody() {
    let one = Host::start("one", &[]);
    let two = Host::start("two", &[one.address]);
    one.await_peers(1);
    two.await_peers(1);
    let echo = Echo::start(&one, 4, 2);
    let done = Arc::new(AtomicBool::new(false));
    let (started, is_started) = mpsc::channel();
    let flood = {
        let (done, targets) = (done.clone(), [one.address, two.address]);
        std::thread::spawn(move || {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            let mut state = 0x9E37_79B9_7F4A_7C15u64;
            let mut sent = 0u32;
            while !done.load(Ordering::SeqCst) {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                let mut bytes: Vec<u8> =
                    (0..(state >> 33) % 300).map(|at| (state >> (at % 57)) as u8).collect();
                if let Some(kind) = bytes.first_mut() {
                    *kind = (state >> 40) as u8 % 9;
                }
                let _ = socket.send_to(&bytes, targets[(state >> 20) as usize % 2]); // a full socket is fine
                sent += 1;
                if sent == 1000 {
                    started.send(()).unwrap();
                }
                if sent.is_multiple_of(16) {
                    std::thread::sleep(Duration::from_micros(200));
                }
            }
        })
    };
    is_started.recv().unwrap();
    let client = two.client();
    for size in [0, 100, 3 << 20] {
        for _ in 0..5 {
            assert_eq!(ask(&client, echo.port, pattern(size)).unwrap().len(), size + 1);
        }
    }
    done.store(true, Ordering::SeqCst);
    flood.join().unwrap();
    let status = one.client().kernel_status().unwrap();
    assert_eq!(peers_up(&status), 1, "{status}");
}

#[test]
fn a_host_joins_and_learns_what_it_needs() {
    let one = Host::start("one", &[]);
    let two = Host::start("two", &[one.address]);
    one.await_peers(1);
    let entropy = amoeba_linux::entropy();
    let joined = join(one.address, "three", false, &*entropy).unwrap();
    assert_eq!(joined.secret.to_bytes(), secret().to_bytes());
    assert_eq!(joined.root_capability, "the root");
    assert_eq!(joined.peers, [one.address, two.address]);
    let taken = join(one.address, "two", false, &*entropy).err();
    assert!(matches!(taken, Some(JoinError::Refused { .. })), "{taken:?}");
    let bad = join(one.address, "a/b", false, &*entropy).err();
    assert!(matches!(bad, Some(JoinError::Name(_))), "{bad:?}");
    let open = join("192.0.2.1:5321".parse().unwrap(), "four", false, &*entropy).err();
    assert!(matches!(open, Some(JoinError::Unsealed(_))), "{open:?}");
    let nobody = join(address(), "four", false, &*entropy).err();
    assert!(matches!(nobody, Some(JoinError::Silent(_))), "{nobody:?}");
}

#[test]
fn a_link_that_others_could_read_is_refused() {
    let refused = UdpLink::bind(UdpConfig {
        listen: "0.0.0.0:0".parse().unwrap(),
        peers: Vec::new(),
        dev: false,
        host_name: "one".to_owned(),
        secret: secret(),
        root_capability: None,
        entropy: amoeba_linux::entropy(),
    });
    let error = refused.err().unwrap();
    assert!(matches!(error, BindError::Unsealed(_)) && error.to_string().contains("dev = true"), "{error}");
}
