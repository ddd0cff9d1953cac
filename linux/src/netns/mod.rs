//! Throw-away hosts: network namespaces of their own, joined by a bridge that is in a namespace of its own too.
//!
//! ```text
//!  namespace of a host      namespace of the bridge      namespace of a host
//!   lo   eth0 ─────────────── port1  bridge  port2 ─────────────── eth0   lo
//! ```
//! Nothing of it has a name outside: a namespace and what is in it vanish with the last process in it and the last
//! descriptor for it. The interfaces of the machine are never touched. All of it needs CAP_SYS_ADMIN and
//! CAP_NET_ADMIN.

mod message;

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

/// The bridge in its namespace, and the first interface in a host's; the ports of the bridge are numbered upwards from
/// it. A new namespace may hold a few interfaces that the operating system makes by itself, with small numbers.
const FIRST_INDEX: Index = 100;
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

/// Hosts on a bridge. Dropping it lets everything go that no process is in.
#[derive(Debug)]
pub struct Network {
    _bridge: Namespace,
    hosts: Vec<HostNamespaces>,
}

impl Network {
    /// Makes a network: a host for each name (at most [`HOSTS_MAX`]), with [`Network::address`] on `eth0` and the
    /// name as its host name.
    ///
    /// # Errors
    /// The process may not make namespaces, or the operating system lacks bridges or pairs of Ethernet interfaces.
    pub fn new(names: &[String]) -> Result<Network, NetnsError> {
        assert!(names.len() <= HOSTS_MAX, "the caller knows the bound");
        let mut bridge = make_namespace(None)?.network;
        let new_bridge = |sequence| message::new_bridge(sequence, FIRST_INDEX, "bridge");
        bridge.ask("a bridge", new_bridge)?;
        let mut hosts = Vec::new();
        for (number, name) in names.iter().enumerate() {
            hosts.push(plug_in(&mut bridge, number, name)?);
        }
        Ok(Network { _bridge: bridge, hosts })
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

/// Makes a host and its cable to the bridge.
fn plug_in(bridge: &mut Namespace, number: usize, name: &str) -> Result<HostNamespaces, NetnsError> {
    let mut host = make_namespace(Some(name))?;
    let namespace = host.network().as_raw_fd();
    let port = format!("port{}", number + 1);
    let place = Index::try_from(number).expect("there are at most HOSTS_MAX hosts");
    let here = Plug { index: FIRST_INDEX + 1 + place, name: &port };
    let there = Plug { index: FIRST_INDEX, name: "eth0" };
    let new_cable = |sequence| message::new_cable(sequence, here, FIRST_INDEX, there, namespace);
    bridge.ask("a pair of Ethernet interfaces", new_cable)?;
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

    #[test]
    fn hosts_hear_each_other_and_nobody_else_does() {
        let names = ["anvil".to_owned(), "bolt".to_owned()];
        let network = match Network::new(&names) {
            Ok(network) => network,
            Err(NetnsError::Unshare(_)) => return, // not permitted here, and then `amoeba dev` does without
            Err(error) => panic!("{error}"),
        };
        let socket = |number: usize| {
            in_host(&network.hosts()[number], || UdpSocket::bind((Network::address(number), 5321)).unwrap())
        };
        let (anvil, bolt) = (socket(0), socket(1));
        anvil.send_to(b"hello", bolt.local_addr().unwrap()).unwrap();
        let mut buffer = [0; 16];
        let (size, from) = bolt.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..size], from), (b"hello".as_slice(), anvil.local_addr().unwrap()));
        assert!(UdpSocket::bind((Network::address(0), 5321)).is_err(), "the machine has this address");
        assert_eq!(in_host(&network.hosts()[1], crate::host::name), "bolt");
        assert_ne!(crate::host::name(), "bolt");
        assert!(in_host(&network.hosts()[0], || UdpSocket::bind("127.0.0.1:5321")).is_ok());
    }
}
