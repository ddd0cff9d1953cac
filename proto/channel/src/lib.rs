//! Transactions between two processes of one host over memory that they share; no I/O.
//!
//! Each side owns a region that it alone writes and that its peer reads: some control words and a ring of bytes, which
//! carries what this side sends. One transaction at a time goes over a channel: a request there, a reply back, each
//! streamed through its ring while the other side empties it, so that messages of any size need no more memory in
//! between than the ring. Whoever drives an end calls it, rings the peer's bell when [`ClientEnd::bell`] or
//! [`ServerEnd::bell`] says so, and sleeps between `before_sleep` and `after_sleep`.
//!
//! A peer may write any bytes into its region at any moment. Everything is copied before it is parsed, every number is
//! checked before it is used, and what does not fit is [`Broken`]: the end of this channel and of nothing else.
//!
//! Who the client is does not travel here: it was bound when the kernel introduced the two.
//!
//! Modules: [`memory`] is the regions and their layout, `head` the bytes that a message begins with, `stream` the way
//! of one message through a ring, `side` bells and sleeping, `client` and `server` the two ends. `docs/channels.md` has
//! the picture.
#![forbid(unsafe_code)]

mod client;
mod head;
pub mod memory;
mod server;
mod side;
mod stream;
#[cfg(test)]
mod tests;

use amoeba_wire::DATA_SIZE_MAX;
pub use client::{ClientEnd, End, Fate, Step};
pub use head::HEAD_SIZE;
pub use memory::{
    CONTROL_SIZE, HEAD_OFFSET, Own, Peer, RING_OFFSET, RING_SIZE_DEFAULT, RING_SIZE_MAX, RING_SIZE_MIN, Word,
    is_ring_size, region_size,
};
pub use server::{Receiving, Sending, ServerEnd, Service};
pub use stream::{CHUNK_SIZE, RESERVE_SIZE_MAX};

/// What a peer wrote is not what a peer writes; nothing more comes over this channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Broken {
    /// A message out of turn.
    #[error("a message out of turn")]
    Sequence,
    /// A message larger than it may be.
    #[error("a message larger than it may be")]
    Size,
    /// More bytes in the ring than it holds or the message has, or fewer than before.
    #[error("an impossible count of bytes in the ring")]
    Produced,
    /// More bytes taken from the ring than were in it, or fewer than before.
    #[error("an impossible count of bytes taken from the ring")]
    Consumed,
    /// A kind of message that does not exist.
    #[error("an unknown kind of message")]
    Kind,
    /// A request whose command is a status.
    #[error("a status in place of a command")]
    Command,
}
