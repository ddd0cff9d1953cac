//! Kernel daemons of several hosts in one process, each on a loopback address of its own.

mod common;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use amoeba_cap::{PutPort, SystemSecret};
use amoeba_linux::client::Client;
use amoeba_linux::kernel::{Config, Daemon, Stopper};
use amoeba_linux::link::admission::Row;
use amoeba_linux::link::{UdpConfig, UdpLink};
use amoeba_seal::Identity;
use amoeba_wire::Status;
use amoeba_world::{Error, Listener, TransOptions, Transactions};
use common::{port, request};

/// Hosts of one system: who they are, and where they will listen.
struct Plan(Vec<(Identity, Row)>);

impl Plan {
    fn new<const N: usize>(names: [&str; N]) -> Plan {
        Plan::at(names.map(|name| (name, address())))
    }

    fn at<const N: usize>(places: [(&str, SocketAddr); N]) -> Plan {
        let host = |(name, address): (&str, SocketAddr)| {
            let identity = Identity::generate(&*amoeba_linux::entropy());
            let row = Row { name: name.to_owned(), key: identity.public(), addresses: vec![address] };
            (identity, row)
        };
        Plan(places.map(host).into())
    }

    fn rows(&self) -> Vec<Row> {
        self.0.iter().map(|(_, row)| row.clone()).collect()
    }

    /// All hosts, started.
    fn start<const N: usize>(&self) -> [Host; N] {
        let hosts: Vec<Host> = (0..self.0.len()).map(|index| Host::start(self, index)).collect();
        hosts.try_into().ok().expect("as many hosts as were planned")
    }
}

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
    fn start(plan: &Plan, index: usize) -> Host {
        let listen = plan.0[index].1.addresses[0];
        Host::start_with(plan, index, listen, plan.rows())
    }

    fn start_with(plan: &Plan, index: usize, listen: SocketAddr, members: Vec<Row>) -> Host {
        let (identity, row) = &plan.0[index];
        let name = &row.name;
        let home = std::env::temp_dir().join(format!("amoeba-link-{}-{name}", listen.port()));
        let home = home.join(std::process::id().to_string());
        let link = UdpLink::bind(UdpConfig {
            listen,
            identity: identity.clone(),
            secret: secret(),
            entropy: amoeba_linux::entropy(),
        });
        let link = link.unwrap();
        let address = link.local_address();
        let mut config = Config::new(secret(), amoeba_linux::entropy());
        config.links.push(Box::new(link));
        config.members = members;
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
    let [one, two] = Plan::new(["one", "two"]).start();
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
fn hosts_share_the_work() {
    // Work goes to the nearest, and hosts count as equally near by what was measured when they were found: on a busy
    // machine one of them may have been late. So this may take several systems.
    let shared = (0..20).find(|_| {
        let [one, two, three] = Plan::new(["one", "two", "three"]).start();
        for host in [&one, &two, &three] {
            host.await_peers(2);
        }
        let servers = [Echo::start(&two, 2, 2), Echo::start(&three, 3, 2)];
        // A process stays with the server that it has a flow to; others are given others.
        let who = |_| ask(&one.client(), servers[0].port, Vec::new()).unwrap()[0];
        let answered: BTreeSet<u8> = (0..50).map(who).collect();
        servers[0].listener.close();
        let client = one.client();
        for _ in 0..10 {
            assert_eq!(ask(&client, servers[1].port, Vec::new()), Ok(vec![3]));
        }
        answered.len() == 2
    });
    assert!(shared.is_some(), "one server does everything, always");
}

#[test]
fn a_server_that_moved_to_another_host_is_found_there() {
    let [one, two, three] = Plan::new(["one", "two", "three"]).start();
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
    let plan = Plan::new(["one", "two"]);
    let [one, mut two] = plan.start();
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
    let again = Host::start(&plan, 1);
    one.await_peers(1);
    let echo = Echo::start(&again, 9, 1);
    assert_eq!(ask(&client, echo.port, vec![5]), Ok(vec![9, 5]));
}

#[test]
fn a_quick_restart_is_a_death_too() {
    let plan = Plan::new(["one", "two"]);
    let [one, mut two] = plan.start();
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
    let _again = Host::start(&plan, 1);
    assert_eq!(waiting.join().unwrap(), Err(Error::MaybeExecuted(Status::RPC_FAILURE)));
    drop(incoming);
}

/// Sends to `targets`, from sockets of its own, what `next` gives it, as fast as it can, until it is dropped.
struct Flood {
    done: Arc<AtomicBool>,
    thread: Option<JoinHandle<u64>>,
}

impl Flood {
    /// It has begun when this returns.
    fn start(targets: Vec<SocketAddr>, mut next: impl FnMut(u64) -> Vec<u8> + Send + 'static) -> Flood {
        let done = Arc::new(AtomicBool::new(false));
        let (started, is_started) = mpsc::channel();
        let ended = done.clone();
        let thread = std::thread::spawn(move || {
            let socket = UdpSocket::bind(SocketAddr::new(any_of(targets[0]), 0)).unwrap();
            let mut sent = 0u64;
            while !ended.load(Ordering::SeqCst) {
                let bytes = next(sent);
                let _ = socket.send_to(&bytes, targets[sent as usize % targets.len()]); // a full socket is fine
                sent += 1;
                if sent == 1000 {
                    started.send(()).unwrap();
                }
            }
            sent
        });
        is_started.recv().unwrap();
        Flood { done, thread: Some(thread) }
    }

    fn stop(mut self) -> u64 {
        self.done.store(true, Ordering::SeqCst);
        self.thread.take().unwrap().join().unwrap()
    }
}

fn any_of(address: SocketAddr) -> IpAddr {
    match address {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// Numbers that look random.
fn scramble(number: u64) -> u64 {
    let mixed = (number ^ number >> 31).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed ^ mixed >> 29).wrapping_mul(0xBF58_476D_1CE4_E5B9)
}

fn garbage(number: u64) -> Vec<u8> {
    let state = scramble(number);
    let mut bytes: Vec<u8> = (0..(state >> 33) % 300).map(|at| scramble(state ^ at) as u8).collect();
    let kinds = [0x10, 0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x20, state as u8];
    bytes.splice(..bytes.len().min(4), [kinds[(state >> 40) as usize % kinds.len()], 0, 0, 0]);
    bytes
}

#[test]
fn a_flood_of_garbage_stops_nobody() {
    let [one, two] = Plan::new(["one", "two"]).start();
    one.await_peers(1);
    two.await_peers(1);
    let echo = Echo::start(&one, 4, 2);
    let before = count_of(&one.client().kernel_status().unwrap(), "handshakes");
    let flood = Flood::start(vec![one.address, two.address], garbage);
    let client = two.client();
    for size in [0, 100, 1 << 20] {
        for _ in 0..5 {
            assert_eq!(ask(&client, echo.port, pattern(size)).unwrap().len(), size + 1);
        }
    }
    let sent = flood.stop();
    let status = one.client().kernel_status().unwrap();
    assert_eq!(peers_up(&status), 1, "{status}");
    assert_eq!(count_of(&status, "handshakes"), before, "garbage costs no Diffie-Hellman: {status}");
    println!("{sent} datagrams of garbage");
}

/// What a line of the status says.
fn count_of(status: &str, name: &str) -> u64 {
    let line = status.lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with("  ")));
    line.unwrap_or_else(|| panic!("no {name} in {status}"))
        .split_whitespace()
        .last()
        .unwrap()
        .parse()
        .unwrap()
}

/// Stands between two hosts, carries what they send, and keeps all of it.
struct Middle {
    record: Arc<Mutex<Vec<Vec<u8>>>>,
    /// Larger datagrams vanish.
    size_max: Arc<AtomicUsize>,
    done: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Middle {
    /// Carries what arrives at `outer` to `inner`, from one socket, and back.
    fn start(outer: SocketAddr, inner: SocketAddr) -> Middle {
        let (front, back) = (UdpSocket::bind(outer).unwrap(), UdpSocket::bind((inner.ip(), 0)).unwrap());
        for socket in [&front, &back] {
            socket.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        }
        let (record, done) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let size_max = Arc::new(AtomicUsize::new(usize::MAX));
        let (kept, ended, carried) = (record.clone(), done.clone(), size_max.clone());
        let thread = std::thread::spawn(move || {
            let (mut bytes, mut caller) = (vec![0; 1 << 16], None);
            while !ended.load(Ordering::SeqCst) {
                if let Ok((size, from)) = front.recv_from(&mut bytes) {
                    caller = Some(from);
                    kept.lock().unwrap().push(bytes[..size].to_vec());
                    if size <= carried.load(Ordering::SeqCst) {
                        let _ = back.send_to(&bytes[..size], inner);
                    }
                }
                if let Ok((size, _)) = back.recv_from(&mut bytes)
                    && let Some(caller) = caller
                    && size <= carried.load(Ordering::SeqCst)
                {
                    let _ = front.send_to(&bytes[..size], caller);
                }
            }
        });
        Middle { record, size_max, done, thread: Some(thread) }
    }
}

impl Drop for Middle {
    fn drop(&mut self) {
        self.done.store(true, Ordering::SeqCst);
        self.thread.take().unwrap().join().unwrap();
    }
}

/// Two hosts with somebody between them.
fn apart() -> (Host, Middle, Host) {
    let (middle, plan) = (address(), Plan::new(["one", "two"]));
    let mut seen_by_two = plan.rows();
    seen_by_two[0].addresses = vec![middle];
    let mut seen_by_one = plan.rows();
    seen_by_one[1].addresses.clear(); // it learns where two is
    let one = Host::start_with(&plan, 0, plan.0[0].1.addresses[0], seen_by_one);
    let between = Middle::start(middle, one.address);
    let two = Host::start_with(&plan, 1, plan.0[1].1.addresses[0], seen_by_two);
    one.await_peers(1);
    two.await_peers(1);
    (one, between, two)
}

#[test]
fn a_flood_of_recorded_and_of_forged_datagrams_stops_nobody() {
    let (one, between, two) = apart();
    let echo = Echo::start(&one, 4, 2);
    for _ in 0..20 {
        // The first transaction of a process goes through the kernels.
        ask(&two.client(), echo.port, pattern(200)).unwrap();
    }
    let before = one.client().kernel_status().unwrap();
    let record = between.record.lock().unwrap().clone();
    assert!(record.len() > 40);
    let flood = Flood::start(vec![one.address], move |number| {
        let mut datagram = record[scramble(number) as usize % record.len()].clone();
        if number.is_multiple_of(2) {
            let at = scramble(number) as usize / 7 % datagram.len();
            datagram[at] ^= 1 << (number / 2 % 8); // a session that is there, and a tag that is wrong
        }
        datagram
    });
    for _ in 0..20 {
        assert_eq!(ask(&two.client(), echo.port, pattern(300)).unwrap().len(), 301);
    }
    let sent = flood.stop();
    let after = one.client().kernel_status().unwrap();
    assert_eq!(count_of(&before, "handshakes"), count_of(&after, "handshakes"), "{after}");
    assert!(
        count_of(&after, "datagrams replayed") > 0 && count_of(&after, "datagrams forged") > 0,
        "{after}"
    );
    assert_eq!(count_of(&after, "requests from elsewhere"), 40, "each request ran once: {after}");
    println!("{sent} datagrams of the past");
}

#[test]
fn hosts_reach_each_other_under_ipv6_and_ipv4_at_once() {
    let port = |address: SocketAddr| address.port();
    let (six, four) = (address(), address());
    let everywhere = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port(six)));
    let plan = Plan::at([
        ("both", SocketAddr::from((Ipv6Addr::LOCALHOST, port(six)))),
        ("four", four),
        ("six", SocketAddr::from((Ipv6Addr::LOCALHOST, port(four)))),
    ]);
    let mut rows = plan.rows();
    rows[0].addresses.push(SocketAddr::from((Ipv4Addr::LOCALHOST, port(six))));
    let both = Host::start_with(&plan, 0, everywhere, rows.clone());
    let four = Host::start_with(&plan, 1, rows[1].addresses[0], rows.clone());
    let six = Host::start_with(&plan, 2, rows[2].addresses[0], rows.clone());
    both.await_peers(2);
    let echo = Echo::start(&both, 6, 2);
    for host in [&four, &six] {
        host.await_peers(1); // the other one speaks another family
        assert_eq!(ask(&host.client(), echo.port, pattern(1 << 20)).unwrap().len(), (1 << 20) + 1);
    }
}

#[test]
fn the_size_of_packets_is_found() {
    let [one, two] = Plan::new(["one", "two"]).start();
    for host in [&one, &two] {
        let client = host.client();
        await_that(|| client.kernel_status().unwrap().contains("packets of 65466"));
    }
}

#[test]
fn a_host_that_is_not_on_the_list_is_turned_away() {
    let plan = Plan::new(["one", "two", "three"]);
    let all = plan.rows();
    let one = Host::start_with(&plan, 0, all[0].addresses[0], all[..2].to_vec());
    let two = Host::start_with(&plan, 1, all[1].addresses[0], all[..2].to_vec());
    let three = Host::start_with(&plan, 2, all[2].addresses[0], all.clone());
    one.await_peers(1);
    two.await_peers(1);
    let client = three.client();
    await_that(|| client.kernel_status().unwrap().contains("removed: "));
    assert_eq!(peers_up(&client.kernel_status().unwrap()), 0);
    let echo = Echo::start(&one, 1, 1);
    assert_eq!(ask(&two.client(), echo.port, vec![5]), Ok(vec![1, 5]));
    let options = TransOptions { locate_timeout: Duration::from_millis(300), ..TransOptions::default() };
    let refused = client.trans(request(echo.port, vec![5]), &options).err();
    assert!(matches!(refused, Some(Error::NotSent(_))), "{refused:?}");
}

#[test]
fn a_way_that_becomes_narrower_is_found_out() {
    let (one, between, two) = apart();
    await_that(|| two.client().kernel_status().unwrap().contains("packets of 65466"));
    let echo = Echo::start(&one, 4, 2);
    // The first transaction of a process goes through the kernels.
    assert_eq!(ask(&two.client(), echo.port, pattern(1 << 20)).unwrap().len(), (1 << 20) + 1);
    between.size_max.store(2000, Ordering::SeqCst);
    assert_eq!(ask(&two.client(), echo.port, pattern(1 << 20)).unwrap().len(), (1 << 20) + 1);
    await_that(|| two.client().kernel_status().unwrap().contains("packets of 1411"));
}

#[test]
fn a_copied_identity_is_named() {
    let plan = Plan::new(["one", "two"]);
    let [one, two] = plan.start();
    one.await_peers(1);
    two.await_peers(1);
    let copy = Host::start_with(&plan, 1, address(), plan.rows());
    let told = format!("identity copied: two at {} and {}", two.address, copy.address);
    await_that(|| one.client().kernel_status().unwrap().contains(&told));
    let echo = Echo::start(&two, 2, 1);
    assert_eq!(ask(&one.client(), echo.port, vec![5]), Ok(vec![2, 5]), "the first is still talked to");
}
