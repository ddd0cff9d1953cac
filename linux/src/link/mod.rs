//! Links: what carries packets between the kernel daemons of hosts.
//!
//! A link moves FLIP packets and says which peers are gone; it knows nothing of addresses, ports or transactions. The
//! daemon polls its descriptor, never waits for it, and asks it before it cuts large messages into packets.
//!
//! - [`UdpLink`] is the link every pair of hosts has: one socket, every peer greeted each second. [`datagram`] is its
//!   bytes, `peers` who is there, `bulk` how much may be under way. Sealing will wrap the datagrams of this link.
//! - [`join()`] asks a host to be taken into its system.

pub(crate) mod bulk;
pub mod datagram;
mod describe;
mod join;
mod owner;
mod peers;
mod udp;

use std::fmt::Write;
use std::os::fd::BorrowedFd;

use amoeba_kernel::{LinkConfig, Location, Packet};
use amoeba_threads::Instant;

pub use describe::{LinkDescription, PeerDescription};
pub use join::{JOIN_TIME, JoinError, Joined, join};
pub use udp::{BindError, UdpConfig, UdpLink};

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
    /// A peer is gone, or has started anew.
    Lost {
        /// Where it was.
        peer: &'a Location,
    },
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
