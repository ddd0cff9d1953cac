//! Throw-away hosts: network namespaces of their own, joined by a bridge that is in a namespace of its own too.
//!
//! ```text
//!  namespace of a host      namespace of the bridge      namespace of a host
//!   lo   eth0 ─────────────── port1  bridge  port2 ─────────────── eth0   lo
//! ```
//! Instead of the bridge there can be a [`wire`] with faults, which is a thread of whoever holds the network.
//!
//! Nothing of it has a name outside: a namespace and what is in it vanish with the last process in it and the last
//! descriptor for it. The interfaces of the machine are never touched. All of it needs CAP_SYS_ADMIN and
//! CAP_NET_ADMIN.

mod message;
mod offload;
mod wire;

use std::fs::File;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::io::{Errno, retry_on_intr};
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, sendto, socket_with};
use rustix::thread::{UnshareFlags, move_into_link_name_space, unshare_unsafe};
use thiserror::Error;

use message::{Index, LOOPBACK, Message, Plug};
use wire::Wire;
pub use wire::{Faults, FaultsError};

use crate::packet::PacketSocket;

/// The bridge in its namespace, and the first interface in a host's; the ports of the bridge are numbered upwards from
/// it. A new namespace may hold a few interfaces that the operating system makes by itself, with small numbers.
const FIRST_INDEX: Index = 100;
/// The interface of a host.
const HOST_INTERFACE: &str = "eth0";
/// Every ethertype, for packet sockets.
const ALL: u16 = 3;
/// The network of the bridge has 254 addresses.
const PREFIX: u8 = 24;
/// The most hosts on one bridge.
pub const HOSTS_MAX: usize = 254;
/// Bytes of an answer that are looked at.
const ANSWER_SIZE_MAX: usize = 4096;

/// Why there are no namespaces.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum NetnsError {
    /// The process may not, or the operating system has none.
    #[error("a network namespace cannot be made: {0}")]
    Unshare(#[source] io::Error),
    /// There are namespaces, but no way into them.
    #[error("a network namespace cannot be used: {0}")]
    Use(#[source] io::Error),
    /// An interface that the operating system does not make.
    #[error("{what} cannot be made: {source}")]
    Interface {
        /// The interface or address.
        what: &'static str,
        /// What the operating system says.
        source: io::Error,
    },
}

/// The namespaces of one host: its own network, and its own host name.
#[derive(Debug)]
pub struct HostNamespaces {
    network: Namespace,
    name: OwnedFd,
}

impl HostNamespaces {
    /// The network namespace, for [`enter`] by whoever opens `/proc/PID/fd/N`.
    pub fn network(&self) -> BorrowedFd<'_> {
        self.network.namespace.as_fd()
    }

    /// The UTS namespace, likewise.
    pub fn name(&self) -> BorrowedFd<'_> {
        self.name.as_fd()
    }
}

/// Hosts on a bridge, or on a wire with faults. Dropping it lets everything go that no process is in.
#[derive(Debug)]
pub struct Network {
    /// Goes first: it uses the ports.
    _wire: Option<Wire>,
    middle: Namespace,
    hosts: Vec<HostNamespaces>,
}

impl Network {
    /// Makes a network: a host for each name (at most [`HOSTS_MAX`]), with [`Network::address`] on `eth0` and the
    /// name as its host name.
    ///
    /// # Errors
    /// The process may not make namespaces, or the operating system lacks bridges or pairs of Ethernet interfaces.
    pub fn new(names: &[String]) -> Result<Network, NetnsError> {
        let mut bridge = make_namespace(None)?.network;
        let new_bridge = |sequence| message::new_bridge(sequence, FIRST_INDEX, "bridge");
        bridge.ask("a bridge", new_bridge)?;
        let hosts = plug_in_all(&mut bridge, Some(FIRST_INDEX), names)?;
        Ok(Network { _wire: None, middle: bridge, hosts })
    }

    /// Makes a network as [`Network::new`] does, whose hosts are joined by a wire that can have faults. At first it has
    /// none; it takes orders, such as `faults loss=5%,seed=7`, from a new pipe `control` (see the chapter on throw-away
    /// hosts).
    ///
    /// # Errors
    /// As of [`Network::new`], or there are no packet sockets.
    pub fn on_wire(names: &[String], control: &Path) -> Result<Network, NetnsError> {
        let mut middle = make_namespace(None)?.network;
        let hosts = plug_in_all(&mut middle, None, names)?;
        for host in &hosts {
            // The wire is to see frames as they would be on a cable.
            offload::switch_off(&host.network.socket, HOST_INTERFACE).map_err(|source| {
                NetnsError::Interface { what: "an Ethernet interface without offload", source }
            })?;
        }
        let failed = |source| NetnsError::Interface { what: "a wire with faults", source };
        let ports = (0..names.len()).map(port_index);
        let sockets = middle.inside(|| ports.map(|index| PacketSocket::open(index, ALL)).collect());
        let sockets = sockets.map_err(failed)?;
        let wire = Wire::start(sockets, names, control).map_err(failed)?;
        Ok(Network { _wire: Some(wire), middle, hosts })
    }

    /// Lets frames have so many bytes behind their Ethernet header, in place of 1500.
    ///
    /// # Errors
    /// The operating system does not make interfaces so.
    pub fn set_mtu(&mut self, mtu: u32) -> Result<(), NetnsError> {
        let what = "an Ethernet interface with such frames";
        for (number, host) in self.hosts.iter_mut().enumerate() {
            host.network.ask(what, |sequence| message::set_mtu(sequence, FIRST_INDEX, mtu))?;
            self.middle.ask(what, |sequence| message::set_mtu(sequence, port_index(number), mtu))?;
        }
        Ok(())
    }

    /// The hosts, in the order of their names.
    pub fn hosts(&self) -> &[HostNamespaces] {
        &self.hosts
    }

    /// The address of a host, counted from 0.
    pub fn address(number: usize) -> Ipv4Addr {
        let last = u8::try_from(number + 1).expect("there are at most HOSTS_MAX hosts");
        Ipv4Addr::new(10, 77, 0, last)
    }
}

/// Makes the hosts, each with a cable to the middle.
fn plug_in_all(
    middle: &mut Namespace,
    master: Option<Index>,
    names: &[String],
) -> Result<Vec<HostNamespaces>, NetnsError> {
    assert!(names.len() <= HOSTS_MAX, "the caller knows the bound");
    names.iter().enumerate().map(|(number, name)| plug_in(middle, master, number, name)).collect()
}

/// The interface in the middle that a host's cable ends at.
fn port_index(number: usize) -> Index {
    FIRST_INDEX + 1 + Index::try_from(number).expect("there are at most HOSTS_MAX hosts")
}

/// Makes a host and its cable to the middle.
fn plug_in(
    middle: &mut Namespace,
    master: Option<Index>,
    number: usize,
    name: &str,
) -> Result<HostNamespaces, NetnsError> {
    let mut host = make_namespace(Some(name))?;
    let namespace = host.network().as_raw_fd();
    let port = format!("port{}", number + 1);
    let here = Plug { index: port_index(number), name: &port };
    let there = Plug { index: FIRST_INDEX, name: HOST_INTERFACE };
    let new_cable = |sequence| message::new_cable(sequence, here, master, there, namespace);
    middle.ask("a pair of Ethernet interfaces", new_cable)?;
    let network = &mut host.network;
    for (what, index) in [("the loopback interface", LOOPBACK), ("an Ethernet interface", FIRST_INDEX)] {
        network.ask(what, |sequence| message::set_up(sequence, index))?;
    }
    let address = Network::address(number);
    network.ask("an address", |sequence| message::new_address(sequence, FIRST_INDEX, address, PREFIX))?;
    Ok(host)
}

/// Takes the calling thread, and what it starts from now on, into a namespace: a link as in `/proc/PID/ns`, or the
/// `/proc/PID/fd/N` of somebody who has it open.
///
/// # Errors
/// It is gone, or this process may not.
pub fn enter(namespace: &Path) -> io::Result<()> {
    Ok(move_into_link_name_space(File::open(namespace)?.as_fd(), None)?)
}

/// A network namespace and a socket in it, through which it is set up from anywhere.
#[derive(Debug)]
struct Namespace {
    namespace: OwnedFd,
    socket: OwnedFd,
    sequence: u32,
}

impl Namespace {
    fn ask(&mut self, what: &'static str, request: impl FnOnce(u32) -> Message) -> Result<(), NetnsError> {
        self.sequence += 1;
        self.transact(&request(self.sequence)).map_err(|source| NetnsError::Interface { what, source })
    }

    /// What `run` makes on a thread that is in this namespace and ends there.
    fn inside<T: Send>(&self, run: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        std::thread::scope(|scope| {
            let inside = std::thread::Builder::new().spawn_scoped(scope, || {
                move_into_link_name_space(self.namespace.as_fd(), None)?;
                run()
            })?;
            inside.join().expect("the thread panics only where this one would")
        })
    }

    /// Sends a request; the operating system carries it out before it answers.
    fn transact(&self, request: &Message) -> io::Result<()> {
        let system = SocketAddrNetlink::new(0, 0);
        retry_on_intr(|| sendto(&self.socket, request.bytes(), SendFlags::empty(), &system))?;
        let mut buffer = [0; ANSWER_SIZE_MAX];
        loop {
            let (size, _) = retry_on_intr(|| recv(&self.socket, &mut buffer, RecvFlags::empty()))?;
            match message::answer(&buffer[..size], self.sequence) {
                Some(0) => return Ok(()),
                Some(error) => return Err(io::Error::from_raw_os_error(error)),
                None => {} // an answer to somebody who did not wait for it
            }
        }
    }
}

/// Makes the namespaces of a host on a thread that ends in them. With no name it keeps the machine's.
fn make_namespace(name: Option<&str>) -> Result<HostNamespaces, NetnsError> {
    std::thread::scope(|scope| {
        let maker = std::thread::Builder::new().name("new namespace".to_owned());
        let made = maker.spawn_scoped(scope, || {
            unshare(UnshareFlags::NEWNET | UnshareFlags::NEWUTS)
                .map_err(|error| NetnsError::Unshare(error.into()))?;
            open_namespaces(name).map_err(NetnsError::Use)
        });
        made.map_err(NetnsError::Use)?.join().expect("the thread panics only where this one would")
    })
}

fn unshare(namespaces: UnshareFlags) -> Result<(), Errno> {
    // SAFETY: namespaces of network and host name are no matter of memory; descriptors stay shared.
    unsafe { unshare_unsafe(namespaces) }
}

/// On the thread in the new namespaces.
fn open_namespaces(name: Option<&str>) -> io::Result<HostNamespaces> {
    if let Some(name) = name {
        rustix::system::sethostname(name.as_bytes())?;
    }
    let open = |kind: &str| File::open(format!("/proc/thread-self/ns/{kind}"));
    let flags = SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?; // protocol 0 is NETLINK_ROUTE
    let network = Namespace { namespace: open("net")?.into(), socket, sequence: 0 };
    Ok(HostNamespaces { network, name: open("uts")?.into() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;
    use std::thread;

    fn in_host<T: Send>(host: &HostNamespaces, run: impl FnOnce() -> T + Send) -> T {
        let path = |fd: BorrowedFd<'_>| format!("/proc/self/fd/{}", fd.as_raw_fd());
        let paths = [path(host.network()), path(host.name())];
        thread::scope(|scope| {
            let inside = scope.spawn(move || {
                paths.iter().for_each(|path| enter(Path::new(path)).unwrap());
                run()
            });
            inside.join().unwrap()
        })
    }

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

    fn sockets(network: &Network) -> (UdpSocket, UdpSocket) {
        let socket = |number: usize| {
            in_host(&network.hosts()[number], || UdpSocket::bind((Network::address(number), 5321)).unwrap())
        };
        (socket(0), socket(1))
    }

    #[test]
    fn hosts_hear_each_other_and_nobody_else_does() {
        let names = ["anvil".to_owned(), "bolt".to_owned()];
        let Some(network) = permitted(Network::new(&names)) else { return };
        let (anvil, bolt) = sockets(&network);
        anvil.send_to(b"hello", bolt.local_addr().unwrap()).unwrap();
        let mut buffer = [0; 16];
        let (size, from) = bolt.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..size], from), (b"hello".as_slice(), anvil.local_addr().unwrap()));
        assert!(UdpSocket::bind((Network::address(0), 5321)).is_err(), "the machine has this address");
        assert_eq!(in_host(&network.hosts()[1], crate::host::name), "bolt");
        assert_ne!(crate::host::name(), "bolt");
        assert!(in_host(&network.hosts()[0], || UdpSocket::bind("127.0.0.1:5321")).is_ok());
    }

    /// How often a test looks, with a millisecond between, before it gives up.
    const LOOKS: usize = 10_000;

    /// Lets the wire do what `order` says, and gives its state then.
    fn tell(control: &Path, order: &str) -> String {
        use std::io::Write;
        let state = control.with_extension("state");
        let orders = |text: &str| -> u64 { text.lines().next().unwrap()["orders ".len()..].parse().unwrap() };
        let before = orders(&std::fs::read_to_string(&state).unwrap());
        let mut pipe = std::fs::OpenOptions::new().write(true).open(control).unwrap();
        writeln!(pipe, "{order}").unwrap();
        for _ in 0..LOOKS {
            let text = std::fs::read_to_string(&state).unwrap();
            if orders(&text) > before {
                return text;
            }
            thread::sleep(std::time::Duration::from_millis(1));
        }
        panic!("the wire does not listen");
    }

    fn value(state: &str, name: &str) -> u64 {
        let line = state.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap().parse().unwrap()
    }

    #[test]
    fn a_wire_loses_cuts_and_damages_and_tells() {
        let directory = std::env::temp_dir().join(format!("amoeba-wire-{}", std::process::id()));
        std::fs::create_dir(&directory).unwrap();
        let control = directory.join("wire");
        let names = ["anvil".to_owned(), "bolt".to_owned()];
        let made = Network::on_wire(&names, &control);
        let Some(network) = permitted(made) else { return std::fs::remove_dir_all(&directory).unwrap() };
        let (anvil, bolt) = sockets(&network);
        let to = bolt.local_addr().unwrap();
        // Large datagrams are cut before the wire; their checksums are whole there.
        anvil.send_to(&[7; 4000], to).unwrap();
        let mut buffer = [0; 8192];
        assert_eq!(bolt.recv(&mut buffer).unwrap(), 4000);
        assert!(buffer[..4000].iter().all(|byte| *byte == 7));

        tell(&control, "faults loss=30%,seed=7");
        bolt.set_nonblocking(true).unwrap();
        let lost = |state: &str| value(state, "lost");
        for _ in 0..200 {
            anvil.send_to(b"some are lost", to).unwrap();
        }
        let state = settled(&control, |state| value(state, "frames") >= 203);
        let arrived = (0..).take_while(|_| bolt.recv(&mut buffer).is_ok()).count();
        assert!(lost(&state) >= 20 && (50..200).contains(&arrived), "{arrived} arrived: {state}");

        tell(&control, "faults corrupt=100%");
        anvil.send_to(&[0; 100], to).unwrap();
        settled(&control, |state| value(state, "damaged") >= 1);
        let size = (0..1000).find_map(|_| {
            thread::sleep(std::time::Duration::from_millis(1));
            bolt.recv(&mut buffer).ok()
        });
        assert_eq!(size, Some(100), "a damaged datagram has a right checksum");
        assert_eq!(buffer[..100].iter().map(|byte| byte.count_ones()).sum::<u32>(), 1);

        tell(&control, "faults");
        assert!(tell(&control, "cut anvil bolt").contains("cut anvil bolt"));
        anvil.send_to(b"nobody", to).unwrap();
        settled(&control, |state| value(state, "dropped at cuts") >= 1);
        assert!(bolt.recv(&mut buffer).is_err());
        assert!(!tell(&control, "heal").contains("cut anvil bolt"));
        assert!(tell(&control, "open sesame").contains("error "));
        bolt.set_nonblocking(false).unwrap();
        anvil.send_to(b"again", to).unwrap();
        assert_eq!(bolt.recv(&mut buffer).unwrap(), 5);
        drop(network);
        std::fs::remove_dir_all(&directory).unwrap();
    }

    /// The state once it is as wanted.
    fn settled(control: &Path, wanted: impl Fn(&str) -> bool) -> String {
        for _ in 0..LOOKS {
            let state = tell(control, "status");
            if wanted(&state) {
                return state;
            }
            thread::sleep(std::time::Duration::from_millis(1));
        }
        panic!("{}", tell(control, "status"));
    }
}
