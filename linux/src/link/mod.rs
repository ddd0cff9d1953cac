//! Links: what carries packets between the kernel daemons of hosts.
//!
//! A link moves FLIP packets and says which peers are gone; it knows nothing of addresses, ports or transactions. The
//! daemon polls its descriptor, never waits for it, and asks it before it cuts large messages into packets.
//!
//! - [`UdpLink`] is the link every pair of hosts has: one socket, everything sealed. `peers` is who is there, `greeting`
//!   how two hosts come to have a session, `contact` what is under way in it, [`content`] the bytes inside the sealed
//!   datagrams, `path` how large they may be, `endpoint` the socket.
//! - [`EthernetLink`] is FLIP on a raw Ethernet as the original spoke it, unsealed.
//! - [`admission`] takes hosts into a system: tokens, the desk of the inviter, the host that joins.

pub mod admission;
mod contact;
pub mod content;
mod describe;
mod endpoint;
mod ethernet;
mod greeting;
mod path;
mod peers;
#[cfg(test)]
mod tests;
mod turned;
mod udp;

use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::BorrowedFd;

use amoeba_kernel::{LinkConfig, Location, Packet};
use amoeba_seal::{PublicKey, Suite, Suites};
use amoeba_threads::Instant;

use admission::Row;
pub use describe::{LinkDescription, PeerDescription};
pub use ethernet::{EthernetConfig, EthernetError, EthernetLink};
pub use peers::PEERS_MAX;
pub use udp::{BindError, UdpConfig, UdpLink};

/// Bytes of a message of [`Link::control`].
pub const CONTROL_SIZE_MAX: usize = 1024;

/// What a link has to say.
#[derive(Debug)]
pub enum LinkEvent<'a> {
    /// A FLIP packet, or what claims to be one.
    Packet {
        /// Who sent it.
        from: &'a Location,
        /// Its bytes.
        packet: &'a [u8],
    },
    /// A host of the system is there. Its location is its own until it is lost, and is never given again.
    Up {
        /// Where the FLIP box sees it.
        peer: &'a Location,
        /// What it is called.
        name: &'a str,
        /// Who it is.
        key: &'a PublicKey,
        /// Where its datagrams come from now.
        address: SocketAddr,
    },
    /// Another part of that host's kernel has a word for this one ([`Link::control`]).
    Control {
        /// Who sent it.
        from: &'a Location,
        /// Its bytes.
        bytes: &'a [u8],
    },
    /// A peer is gone, or has started anew.
    Lost {
        /// Where it was.
        peer: &'a Location,
    },
    /// A datagram of a host that joins ([`amoeba_seal::STRANGER_KIND`]); nothing of it was looked at but its first byte.
    Stranger {
        /// Who sent it.
        from: SocketAddr,
        /// Its bytes.
        datagram: &'a [u8],
    },
}

/// Where the sockets of flows to a host can be connected: beside the link's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowWay {
    /// This host's address on the link; unspecified where it has several.
    pub local: IpAddr,
    /// Where the other host is.
    pub peer: SocketAddr,
    /// Bytes of the largest datagram on the way.
    pub datagram_size: usize,
    /// The suites ([`amoeba_seal::Suites`]) that this host is fast with.
    pub suites: u8,
}

impl FlowWay {
    /// The suite for this host and one that is fast with these.
    pub fn suite(&self, other: u8) -> Suite {
        Suite::agreed(Suites::from_bits_retain(self.suites), Suites::from_bits_retain(other))
    }
}

/// A network of this host. Nothing here blocks.
pub trait Link: Send {
    /// What the FLIP box must know of it.
    fn config(&self) -> LinkConfig;
    /// What becomes readable when packets have arrived.
    fn fd(&self) -> BorrowedFd<'_>;
    /// Whether [`Link::flush`] is to be called when the descriptor is writable.
    fn wants_write(&self) -> bool;
    /// Whether the link takes another bulk packet for this peer now.
    fn is_ready(&self, peer: &Location) -> bool;
    /// The most bytes of a bulk packet for this peer; no less than [`LinkConfig::packet_size_max`], which holds for all.
    fn packet_size(&self, _peer: &Location) -> usize {
        self.config().packet_size_max
    }
    /// Takes a packet for a peer, or for all of them. A packet that there is no room for is dropped and counted.
    fn send(&mut self, now: Instant, to: Option<&Location>, packet: Packet, bulk: bool);
    /// Gives what was taken to the operating system, as far as it takes it.
    fn flush(&mut self, now: Instant);
    /// The system has these hosts, this one perhaps among them: whoever is not loses its sessions at once.
    fn set_members(&mut self, _now: Instant, _members: &[Row], _events: &mut dyn FnMut(LinkEvent<'_>)) {}
    /// Sends a message of at most [`CONTROL_SIZE_MAX`] bytes to the kernel of a host that is up, sealed. It may be lost, and
    /// arrives at most once: who needs an answer repeats it. On a link without sealing it goes nowhere.
    fn control(&mut self, _now: Instant, _to: &Location, _bytes: &[u8]) {}
    /// The way for flows of processes to that host, if the link can have any.
    fn flow_way(&self, _peer: &Location) -> Option<FlowWay> {
        None
    }
    /// Sends a datagram to a host that joins as it is.
    fn send_to_stranger(&mut self, _to: SocketAddr, _datagram: Vec<u8>) {}
    /// Handles some of what has arrived.
    fn receive(&mut self, now: Instant, events: &mut dyn FnMut(LinkEvent<'_>));
    /// Time has passed.
    fn handle_timeout(&mut self, now: Instant, events: &mut dyn FnMut(LinkEvent<'_>));
    /// When [`Link::handle_timeout`] is to be called next.
    fn poll_timeout(&self) -> Option<Instant>;
    /// What people are told of the link.
    fn describe(&self) -> LinkDescription;
    /// What people are told of those on it.
    fn describe_peers(&self, now: Instant) -> Vec<PeerDescription>;
    /// Counters and peers, a line each.
    fn status(&self, now: Instant, text: &mut dyn Write);
}
