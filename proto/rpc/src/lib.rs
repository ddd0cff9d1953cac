//! Transactions over FLIP, at most once: the two halves of the protocol as state machines.
//!
//! [`RemoteTrans`] is one transaction of a client: it is told where a server is, what arrived and how late it is, and
//! says what to send and how it ended. [`Clients`] is what one server process remembers of its clients, so that no
//! request is executed twice and a lost reply is sent again. [`PortCache`] remembers who answered for a port. Nothing
//! here touches a packet queue or a clock: `proto/kernel` joins these with the FLIP box.
//!
//! At most once, and it says which:
//! - a request is executed only if its transaction identifier is newer than every other from the same client slot;
//! - whoever answers NAK remembers the identifier as refused, so that a late copy of the request is dropped: NAK means
//!   certainly not executed, and the client tries again under a *new* identifier;
//! - where the table is full, NAK is as true without that memory: for as long as a copy of the refused request may come,
//!   no client that is not in the table is served;
//! - an entry of the port cache only says whom to ask: a server that does not listen (any more) answers NAK, a process
//!   that is gone NOTHERE, and each host says that only of what it certainly never gave to a thread;
//! - a client that cannot prove that its request was not executed says MaybeExecuted.
//!
//! # Source
//! Amoeba 5.3, rpc(L) and its protocol over FLIP; the tombstones of refused requests and the exact duplicate table are
//! ours: the original could drop an entry and lie.
#![forbid(unsafe_code)]

mod cache;
mod client;
mod clients;
#[cfg(test)]
mod hostile;
mod message;

use std::time::Duration;

pub use cache::{PortCache, Server};
pub use client::{Action, RemoteTrans};
pub use clients::{Answer, ClientKey, Clients, Verdict};
pub use message::{LOCATE_HEADER, Packet, emit, locate};

/// Bytes before the data of a request or reply: RPC header and transaction header.
pub const HEADERS_SIZE: usize = 56;
/// How long a client waits for any answer before it asks RECEIVED; doubles to at most [`SERVE_TIMEOUT_MAX`].
pub const SERVE_TIMEOUT: Duration = Duration::from_millis(200);
/// The longest wait between two RECEIVEDs.
pub const SERVE_TIMEOUT_MAX: Duration = Duration::from_secs(1);
/// RECEIVEDs that may stay unanswered before a transaction fails: after 3.6 s and a round trip of at most a second.
pub const RECEIVED_MAX: u32 = 5;
/// Questions to a server that stay unanswered before another way to it is looked for.
pub const DOUBT_AFTER: u32 = 2;
/// Time between two ENQUIREs while a server works.
pub const ENQUIRE_INTERVAL: Duration = Duration::from_millis(600);
/// ENQUIREs that may stay unanswered: a dead host fails its transactions within 5 s.
pub const ENQUIRES_MAX: u32 = 7;
/// Servers in a row that may send a request on to the next; then its client is told to try again.
pub const FORWARDS_MAX: u32 = 16;
/// How long a client waits after a first refusal; doubles to at most [`REFUSED_WAIT_MAX`].
pub const REFUSED_WAIT: Duration = Duration::from_millis(5);
/// The longest wait after a refusal.
pub const REFUSED_WAIT_MAX: Duration = Duration::from_millis(320);
/// A search for a server that refused before must go unanswered for so long to mean that nobody serves any more.
pub const UNANSWERED_MIN: Duration = Duration::from_millis(100);
/// How long a server waits for the ACK of a reply before it asks RECEIVED; doubles to at most a second.
pub const REPLY_TIMEOUT: Duration = Duration::from_millis(200);
/// RECEIVEDs about a reply that may stay unanswered before the reply is dropped.
pub const REPLY_TRIES_MAX: u32 = 10;
/// How long a server remembers the last transaction of an idle client slot. Longer than any retry, and shorter than
/// any client takes to draw 2^31 identifiers, so that serial arithmetic never errs.
pub const DUPLICATE_LIFE: Duration = Duration::from_secs(300);
/// Client slots one server process remembers; past it new clients are refused until there has been room for a while.
pub const CLIENTS_MAX: usize = if cfg!(test) { 16 } else { 65536 };
/// Ports a cache may know.
pub const CACHE_MAX: usize = 4096;
/// Servers a cache keeps for one port.
pub const SERVERS_PER_PORT_MAX: usize = 4;
