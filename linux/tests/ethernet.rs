//! Kernel daemons on a raw Ethernet, each in a network namespace of its own. Where that is not permitted they are skipped,
//! and say so.

mod common;

use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::Duration;

use amoeba_cap::{PutPort, SystemSecret};
use amoeba_linux::client::Client;
use amoeba_linux::kernel::{Config, Daemon, Stopper};
use amoeba_linux::link::{EthernetConfig, EthernetError, EthernetLink};
use amoeba_linux::netns::{HostNamespaces, NetnsError, Network, enter};
use amoeba_wire::Status;
use amoeba_world::{Error, Listener, Message, TransOptions, Transactions};
use common::{port, request};

/// The network, or `None` where this process may not make one.
fn permitted(made: Result<Network, NetnsError>) -> Option<Network> {
    match made {
        Ok(network) => Some(network),
        Err(NetnsError::Unshare(error)) => {
            eprintln!("SKIPPED: no network namespaces here: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

fn names() -> [String; 2] {
    ["anvil", "bolt"].map(str::to_owned)
}

/// The link on `eth0` of a host.
fn link(host: &HostNamespaces, trusted: bool, mtu: Option<usize>) -> EthernetLink {
    let namespace = format!("/proc/self/fd/{}", host.network().as_raw_fd());
    std::thread::spawn(move || {
        enter(Path::new(&namespace)).unwrap();
        EthernetLink::open(EthernetConfig { interface: "eth0".to_owned(), trusted, mtu }).unwrap()
    })
    .join()
    .unwrap()
}

/// A kernel daemon on an Ethernet; dropping it ends it without a word to anybody.
struct Host {
    home: PathBuf,
    running: Option<(Stopper, JoinHandle<()>)>,
}

impl Host {
    fn start(test: &str, number: usize, network: &Network, trusted: bool) -> Host {
        Host::start_with(test, number, network, trusted, None)
    }

    fn start_with(test: &str, number: usize, network: &Network, trusted: bool, mtu: Option<usize>) -> Host {
        let home = format!("amoeba-ethernet-{}-{test}-{number}", std::process::id());
        let home = std::env::temp_dir().join(home);
        let mut config = Config::new(SystemSecret::from_bytes([44; 32]), amoeba_linux::entropy());
        config.links.push(Box::new(link(&network.hosts()[number], trusted, mtu)));
        let mut daemon = Daemon::bind(&home.join("kernel.sock"), config).unwrap();
        let stopper = daemon.stopper();
        let running = Some((stopper, std::thread::spawn(move || daemon.run().unwrap())));
        Host { home, running }
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
}

impl Drop for Host {
    fn drop(&mut self) {
        self.die();
        let _ = std::fs::remove_dir_all(&self.home);
    }
}

/// Answers with what it was sent, until it is dropped.
struct Echo {
    port: PutPort,
    listener: Listener,
    threads: Vec<JoinHandle<()>>,
}

impl Echo {
    fn start(host: &Host) -> Echo {
        let listener = host.client().listen(&port(1), 64 << 20).unwrap();
        let serve = |listener: Listener| {
            std::thread::spawn(move || {
                while let Ok(incoming) = listener.getreq() {
                    let header = amoeba_wire::Header { extra: 1, ..amoeba_wire::Header::NULL };
                    incoming.reply.send(Message { header, data: incoming.request.data });
                }
            })
        };
        let threads = (0..4).map(|_| serve(listener.clone())).collect();
        Echo { port: listener.put_port(), listener, threads }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.listener.close();
        for thread in self.threads.drain(..) {
            thread.join().unwrap();
        }
    }
}

fn pattern(size: usize) -> Vec<u8> {
    (0..size).map(|index| (index % 249) as u8).collect()
}

fn ask(client: &Client, port: PutPort, data: Vec<u8>) -> Result<Vec<u8>, Error> {
    client.trans(request(port, data), &TransOptions::default()).map(|reply| reply.data)
}

/// The number behind a word in the line of the link.
fn count(host: &Host, word: &str) -> u64 {
    let status = host.client().kernel_status().unwrap();
    let line = status.lines().find(|line| line.starts_with("link ethernet")).unwrap();
    let rest = &line[line.find(word).unwrap() + word.len()..];
    rest.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn two_hosts_talk_both_ways_in_any_size() {
    let Some(network) = permitted(Network::new(&names())) else { return };
    let [anvil, bolt] = [0, 1].map(|number| Host::start("talk", number, &network, true));
    for (server, client) in [(&anvil, &bolt), (&bolt, &anvil)] {
        let echo = Echo::start(server);
        let client = client.client();
        for size in [0, 1, 1402, 1403, 1500, 66_000, 1 << 20, 16 << 20] {
            let data = pattern(size);
            assert!(ask(&client, echo.port, data.clone()).unwrap() == data, "{size} bytes came back changed");
        }
        let clients: Vec<_> = (0..8usize)
            .map(|number| {
                let (client, port) = (client.clone(), echo.port);
                std::thread::spawn(move || {
                    for round in 0..20 {
                        let data = pattern(if number == 0 { 1 << 20 } else { 100 * round });
                        assert!(ask(&client, port, data.clone()).unwrap() == data);
                    }
                })
            })
            .collect();
        clients.into_iter().for_each(|client| client.join().unwrap());
    }
    assert_eq!(count(&anvil, "dropped"), 0);
    let status = anvil.client().kernel_status().unwrap();
    assert_eq!(status.lines().filter(|line| line.starts_with("station ")).count(), 1, "{status}");
}

#[test]
fn lost_frames_are_made_good() {
    let control = std::env::temp_dir().join(format!("amoeba-ethernet-{}-wire", std::process::id()));
    let Some(network) = permitted(Network::on_wire(&names(), &control)) else { return };
    let [anvil, bolt] = [0, 1].map(|number| Host::start("lost", number, &network, true));
    let echo = Echo::start(&bolt);
    let client = anvil.client();
    assert_eq!(ask(&client, echo.port, vec![1]), Ok(vec![1]));
    std::fs::write(&control, "faults loss=2%,duplicate=2%,reorder=5%,seed=4\n").unwrap();
    let data = pattern(2 << 20);
    assert!(ask(&client, echo.port, data.clone()).unwrap() == data);
    for number in 0..100 {
        assert_eq!(ask(&client, echo.port, vec![number]), Ok(vec![number]));
    }
    std::fs::write(&control, "status\n").unwrap();
    let state = control.with_extension("state");
    let lost = |text: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix("lost "));
        line.unwrap().parse::<u64>().unwrap()
    };
    let mut looks = 0;
    while lost(&std::fs::read_to_string(&state).unwrap()) == 0 {
        looks += 1;
        assert!(looks < 10_000, "the wire loses nothing");
        std::thread::sleep(Duration::from_millis(1));
    }
    drop((echo, anvil, bolt, network));
    for path in [control, state] {
        let _ = std::fs::remove_file(path);
    }
}

#[test]
fn large_frames_carry_more() {
    let Some(mut network) = permitted(Network::new(&names())) else { return };
    network.set_mtu(9000).unwrap();
    let start = |number| Host::start_with("large", number, &network, true, Some(9000));
    let [anvil, bolt] = [0, 1].map(start);
    let echo = Echo::start(&bolt);
    let data = pattern(8 << 20);
    for size in [0, 1403, 8903, 8950, 9000, 8 << 20] {
        assert!(ask(&anvil.client(), echo.port, data[..size].to_vec()).unwrap() == data[..size], "{size}");
    }
    let frames = count(&anvil, "frames out");
    assert!(frames < 2500, "{frames} frames for 8 MiB");
}

#[test]
fn nothing_secure_crosses_an_ethernet_that_is_not_trusted() {
    let Some(network) = permitted(Network::new(&names())) else { return };
    let [anvil, bolt] = [0, 1].map(|number| Host::start("unsafe", number, &network, false));
    let echo = Echo::start(&bolt);
    let options = TransOptions { locate_timeout: Duration::from_secs(2), ..TransOptions::default() };
    let refused = anvil.client().trans(request(echo.port, vec![1]), &options).map(|reply| reply.data);
    assert_eq!(refused, Err(Error::NotSent(Status::RPC_UNSAFE)));
}

#[test]
fn the_death_of_a_host_is_noticed() {
    let Some(network) = permitted(Network::new(&names())) else { return };
    let [anvil, mut bolt] = [0, 1].map(|number| Host::start("death", number, &network, true));
    let server = bolt.client();
    let listener = server.listen(&port(1), 1 << 20).unwrap();
    let (client, put) = (anvil.client(), listener.put_port());
    let waiting = std::thread::spawn(move || ask(&client, put, vec![1]));
    let incoming = listener.getreq().unwrap();
    bolt.die();
    assert_eq!(waiting.join().unwrap(), Err(Error::MaybeExecuted(Status::RPC_FAILURE)));
    drop(incoming);
    let again = Host::start("death-again", 1, &network, true);
    let echo = Echo::start(&again);
    assert_eq!(ask(&anvil.client(), echo.port, vec![5]), Ok(vec![5]));
}

#[test]
fn what_cannot_be_a_link_is_told() {
    let open = |interface: &str, mtu| {
        EthernetLink::open(EthernetConfig { interface: interface.to_owned(), trusted: false, mtu }).err()
    };
    assert!(matches!(open("amoeba-none", None), Some(EthernetError::NoInterface(_))));
    assert!(matches!(open("", None), Some(EthernetError::NoInterface(_))));
    assert!(matches!(open("lo", None), Some(EthernetError::NotEthernet(_))));
    let Some(network) = permitted(Network::new(&names())) else { return };
    let namespace = format!("/proc/self/fd/{}", network.hosts()[0].network().as_raw_fd());
    let inside = std::thread::spawn(move || {
        enter(Path::new(&namespace)).unwrap();
        for mtu in [0, 100, 1499, 1501, 9000] {
            let config = EthernetConfig { interface: "eth0".to_owned(), trusted: false, mtu: Some(mtu) };
            assert!(matches!(EthernetLink::open(config), Err(EthernetError::Mtu { most: 1500, .. })));
        }
    });
    inside.join().unwrap();
}
