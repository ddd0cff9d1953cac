//! Transactions of two processes on two hosts over sealed datagrams of their own, and what carries many packets to one
//! peer; no I/O.
//!
//! [`FlowClient`] and [`FlowServer`] are the two ends of a flow. Their kernels have introduced them: both have the same
//! fresh keys and a socket for nobody else. A flow carries one transaction at a time; a process whose threads call at
//! once has several. They are told the time and the datagrams that arrived, and give datagrams, requests and results; they
//! know no socket and no clock.
//!
//! At most once: the identifiers of a flow's transactions only grow, the server remembers the last one exactly and keeps
//! its reply until the client has gone on, so whatever the client sends again is known. The client drives recovery: it
//! sends a small request again, or asks ENQUIRE, until it hears ALIVE; then it asks now and then. When nothing is heard
//! it says MaybeExecuted, or NotSent if part of the request has never left.
//!
//! [`bulk`] is the lower half: packets that must arrive, over a network that drops what comes too fast. The link between
//! two kernels uses it too.
//!
//! Pieces of large messages are sealed together where that works (`bursts`).
//!
//! Start with `client` and `server`; `half` is what they have in common, `datagram` their bytes. The chapter is
//! `docs/flows.md`.
//!
//! # Source
//! Ours; the states are those of Amoeba's RPC over FLIP.
#![forbid(unsafe_code)]

pub mod bulk;
mod bursts;
mod client;
mod datagram;
mod half;
mod server;
#[cfg(test)]
mod tests;

use std::time::Duration;

pub use client::{FlowClient, SILENCE_MAX};
pub use datagram::cut;
pub use server::FlowServer;

/// How long a client waits for any answer before it sends its request again; doubles to at most [`ASK_MAX`].
pub const ASK_FIRST: Duration = Duration::from_millis(50);
/// The longest wait between two copies of a request.
pub const ASK_MAX: Duration = Duration::from_secs(1);
/// Copies that may stay unanswered: after 4.6 s a transaction fails.
pub const ASKS_MAX: u32 = 7;
/// Timeouts in a row after which a large message that nobody acknowledges is given up: after some 5 s.
pub const SILENT_MAX: u32 = 7;
/// Small datagrams that wait to be sent; past it the oldest is dropped, as a network would.
pub const SMALL_MAX: usize = 8;
/// No flow has smaller datagrams.
pub const DATAGRAM_SIZE_MIN: usize = 1200;

/// Makes memory of so many bytes, all zero, for a message that arrives: as `vec![0; size]` does, or better.
pub type Memory = fn(usize) -> Vec<u8>;

/// What is known of the way to the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// Bytes of the largest datagram; at least [`DATAGRAM_SIZE_MIN`].
    pub datagram_size: usize,
    /// Bytes that the other end takes at once.
    pub window: usize,
}
