//! The link on a raw Ethernet: [`amoeba_ethernet`] on a packet socket.
//!
//! Nothing on it is sealed, and whoever is on the cable can be whoever he likes: so it is untrusted, and carries no
//! transaction whose message is secure, unless the administrator says that it may. There are no sessions either. Who is
//! there is known from packets: a station that stops giving credits is lost, and for the rest RPC asks.

use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write;
use std::io::{self, ErrorKind, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use amoeba_ethernet::frame::{ETHERNET_HEADER_SIZE, ETHERTYPE, Mac};
use amoeba_ethernet::{Config, Ethernet, Event, LOCATION_LIFE, LOCATIONS_MAX, Outgoing, To, packet_size_max};
use amoeba_kernel::{LinkConfig, Location, Packet};
use amoeba_threads::Instant;

use super::{Link, LinkDescription, LinkEvent, PeerDescription};
use crate::packet::{BATCH, Batch, Interface, PacketSocket};

/// What crossing an Ethernet adds to a hop count.
const WEIGHT: u16 = 3;
/// Bytes behind the Ethernet header of a classic frame.
const CLASSIC_MTU: usize = 1500;
/// Large packets that one station may send here before they are taken.
const WINDOW: u8 = 128;
/// How long a sender waits for credits before it first asks.
const PATIENCE: Duration = Duration::from_millis(20);
/// Batches of frames read in one turn.
const BATCHES_PER_TURN: usize = 4;

/// How a link is made.
#[derive(Clone, Debug)]
pub struct EthernetConfig {
    /// The interface, such as `eth0`.
    pub interface: String,
    /// Whether secure messages may use it: everybody on it is trusted with everything.
    pub trusted: bool,
    /// Bytes behind the Ethernet header of the largest frame; 1500, the original's, when nothing is said. All hosts of the
    /// Ethernet must take as much.
    pub mtu: Option<usize>,
}

/// The link cannot be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EthernetError {
    /// There is no such interface here.
    #[error("there is no interface {0:?} here; `ip link` shows those that there are")]
    NoInterface(String),
    /// It is of another kind.
    #[error("the interface {0} is no Ethernet")]
    NotEthernet(String),
    /// The process may not.
    #[error(
        "raw Ethernet needs the capability CAP_NET_RAW: start the system as root, or give it to the program with \
         `setcap cap_net_raw+ep PROGRAM`"
    )]
    NotPermitted,
    /// Frames of that size do not fit.
    #[error("frames of {wanted} bytes do not fit the interface {interface}: it takes {least} to {most}")]
    Mtu {
        /// The interface.
        interface: String,
        /// What the configuration says.
        wanted: usize,
        /// The least that FLIP needs.
        least: usize,
        /// What the interface takes.
        most: usize,
    },
    /// The operating system refused.
    #[error("cannot use the interface {interface}: {source}")]
    Io {
        /// The interface.
        interface: String,
        /// Why.
        source: io::Error,
    },
}

#[derive(Default)]
struct Counters {
    packets_in: u64,
    packets_out: u64,
    /// Frames that the operating system did not take.
    unsent: u64,
}

/// See the module's head.
pub struct EthernetLink {
    name: String,
    interface: Interface,
    trusted: bool,
    packet_size: usize,
    socket: PacketSocket,
    machine: Ethernet,
    batch: Batch,
    /// Frames that have left the machine and wait for the socket: at most a batch.
    outgoing: VecDeque<Outgoing>,
    blocked: bool,
    /// When each station was last heard; past [`LOCATIONS_MAX`] others are not remembered.
    heard: BTreeMap<Mac, Instant>,
    counters: Counters,
    /// Frames that came too fast, as far as the operating system has been asked.
    overruns: Cell<u64>,
}

impl EthernetLink {
    /// Opens the interface.
    pub fn open(config: EthernetConfig) -> Result<EthernetLink, EthernetError> {
        let name = config.interface;
        let failed = |source: io::Error| match source.kind() {
            ErrorKind::PermissionDenied => EthernetError::NotPermitted,
            _ => EthernetError::Io { interface: name.clone(), source },
        };
        let interface = Interface::find(&name).map_err(|_| EthernetError::NoInterface(name.clone()))?;
        if !interface.ethernet {
            return Err(EthernetError::NotEthernet(name));
        }
        let mtu = config.mtu.unwrap_or(CLASSIC_MTU);
        if !(CLASSIC_MTU..=interface.mtu).contains(&mtu) {
            let (least, most) = (CLASSIC_MTU, interface.mtu);
            return Err(EthernetError::Mtu { interface: name, wanted: mtu, least, most });
        }
        let socket = PacketSocket::open(interface.index, ETHERTYPE).map_err(failed)?;
        let machine = Config { mac: Mac(interface.mac), window: WINDOW, patience: PATIENCE };
        Ok(EthernetLink {
            name,
            interface,
            trusted: config.trusted,
            packet_size: packet_size_max(mtu),
            socket,
            machine: Ethernet::new(machine),
            batch: Batch::new(ETHERNET_HEADER_SIZE + mtu),
            outgoing: VecDeque::new(),
            blocked: false,
            heard: BTreeMap::new(),
            counters: Counters::default(),
            overruns: Cell::new(0),
        })
    }

    /// Hands on what the machine has to say.
    fn tell(&mut self, events: &mut dyn FnMut(LinkEvent<'_>)) {
        while let Some(event) = self.machine.poll_event() {
            match event {
                Event::Lost(mac) => {
                    self.heard.remove(&mac);
                    events(LinkEvent::Lost { peer: &Location::new(&mac.0) });
                }
                Event::Listen(mac) => self.listen_to(mac, true),
                Event::Ignore(mac) => self.listen_to(mac, false),
            }
        }
    }

    fn listen_to(&self, group: Mac, listen: bool) {
        if let Err(error) = self.socket.listen_to(self.interface.index, group.0, listen) {
            tracing::debug!(interface = self.name, %group, listen, "a multicast group: {error}");
        }
    }

    /// Sends what waits. Frames that the operating system refuses are lost, as on any Ethernet; when it has no room, they
    /// wait.
    fn send_waiting(&mut self) {
        while !self.outgoing.is_empty() {
            let parts: Vec<_> = self.outgoing.iter().map(parts).collect();
            match self.socket.send(&parts) {
                Ok(count) => drop(self.outgoing.drain(..count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return self.blocked = true,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    tracing::debug!(interface = self.name, "a frame was not taken: {error}");
                    self.counters.unsent += 1;
                    self.outgoing.pop_front();
                }
            }
        }
    }

    fn overruns(&self) -> u64 {
        self.overruns.set(self.overruns.get() + self.socket.take_overruns());
        self.overruns.get()
    }
}

/// The parts of a frame.
fn parts(frame: &Outgoing) -> [IoSlice<'_>; 3] {
    let packet = frame.packet.as_ref();
    let (front, body) = packet.map_or((&[][..], &[][..]), |packet| (packet.front(), packet.body()));
    [IoSlice::new(frame.head.bytes()), IoSlice::new(front), IoSlice::new(body)]
}

/// The station that a location stands for.
fn station(location: &Location) -> Option<Mac> {
    location.as_bytes().try_into().ok().map(Mac)
}

impl Link for EthernetLink {
    fn config(&self) -> LinkConfig {
        let (packet_size_max, trusted) = (self.packet_size, self.trusted);
        LinkConfig { packet_size_max, weight: WEIGHT, trusted, repairs: false }
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    fn wants_write(&self) -> bool {
        self.blocked
    }

    fn is_ready(&self, peer: &Location) -> bool {
        station(peer).is_none_or(|mac| self.machine.is_ready(mac))
    }

    fn send(&mut self, now: Instant, to: Option<&Location>, packet: Packet, _bulk: bool) {
        let to = match to.map(station) {
            None => To::Everybody,
            Some(Some(mac)) => To::Station(mac),
            Some(None) => return,
        };
        self.counters.packets_out += 1;
        self.machine.send(now, to, packet);
    }

    fn flush(&mut self, now: Instant) {
        self.blocked = false;
        while !self.blocked {
            let room = BATCH - self.outgoing.len();
            self.outgoing.extend(std::iter::from_fn(|| self.machine.poll_transmit(now)).take(room));
            if self.outgoing.is_empty() {
                return;
            }
            self.send_waiting();
        }
    }

    fn receive(&mut self, now: Instant, events: &mut dyn FnMut(LinkEvent<'_>)) {
        for _ in 0..BATCHES_PER_TURN {
            let count = match self.socket.receive(&mut self.batch) {
                Ok(count) => count,
                Err(error) => {
                    tracing::debug!(interface = self.name, "the link's socket reports: {error}");
                    break;
                }
            };
            for number in 0..count {
                let Some((mac, packet)) = self.machine.handle_frame(now, self.batch.frame(number)) else {
                    continue;
                };
                self.counters.packets_in += 1;
                if self.heard.len() < LOCATIONS_MAX || self.heard.contains_key(&mac) {
                    self.heard.insert(mac, now);
                }
                events(LinkEvent::Packet { from: &Location::new(&mac.0), packet });
            }
            if count < BATCH {
                break;
            }
        }
        self.tell(events);
    }

    fn handle_timeout(&mut self, now: Instant, events: &mut dyn FnMut(LinkEvent<'_>)) {
        self.machine.handle_timeout(now);
        self.heard.retain(|_, heard| now.since(*heard) < LOCATION_LIFE);
        self.tell(events);
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.machine.poll_timeout()
    }

    fn describe(&self) -> LinkDescription {
        LinkDescription {
            kind: "ethernet",
            address: format!("{} {}", self.name, Mac(self.interface.mac)),
            packet_size: self.packet_size,
            sealing: None,
            trusted: self.trusted,
        }
    }

    fn describe_peers(&self, now: Instant) -> Vec<PeerDescription> {
        let describe = |(mac, heard): (&Mac, &Instant)| PeerDescription {
            location: Location::new(&mac.0),
            name: String::new(),
            address: mac.to_string(),
            up: true,
            heard: Some(now.since(*heard)),
            packet_size: self.packet_size,
            round_trip: None,
            sealing: None,
            trouble: None,
        };
        self.heard.iter().map(describe).collect()
    }

    fn status(&self, now: Instant, text: &mut dyn Write) {
        let trusted = if self.trusted { "trusted" } else { "untrusted" };
        let (machine, ours) = (self.machine.counters(), &self.counters);
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "link ethernet {} {} {trusted} packet size {} packets in {} out {} frames in {} frames out {} foreign {} dropped {} \
             unsent {} overruns {} starved {}",
            self.name,
            Mac(self.interface.mac),
            self.packet_size,
            ours.packets_in,
            ours.packets_out,
            machine.frames_in,
            machine.frames_out,
            machine.foreign,
            machine.dropped,
            ours.unsent,
            self.overruns(),
            machine.starved,
        );
        for (mac, heard) in &self.heard {
            let waiting =
                self.machine.stations().find(|(station, _)| station == mac).map_or(0, |(_, count)| count);
            let _ =
                writeln!(text, "station {mac} heard {:.1?} ago, {waiting} packets wait", now.since(*heard));
        }
    }
}
