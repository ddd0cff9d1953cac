//! Many packets over a network that drops what comes too fast: numbers, acknowledgements, a window.
//!
//! ```text
//! ACK  | held 4 | next 8 | bits, at most 1024 bytes |     little-endian
//! ```
//!
//! Every packet has a number and is kept by [`Outward`] until it is acknowledged; one that was sent again keeps its
//! number, so [`Inward`] knows every copy. Order does not matter to whoever receives. `next`: everything below it has
//! arrived; bit `i` of `bits` (least significant first) stands for `next + 1 + i`. `held`: microseconds from the arrival of
//! the newest to this acknowledgement. Packets that wait for a process to run are no queue of the network.
//!
//! How much may be under way follows loss and delay (`window`): it grows until something is lost, or until packets wait
//! in a queue of the network for longer than [`QUEUE_TARGET`]. So a null transaction that shares the way waits behind at
//! most that much, and several transfers come to equal shares.
//!
//! # Source
//! The window: LEDBAT++ (Balasubramanian, Ertugay, Havey, 2020), simplified; finding losses by order of sending: RFC
//! 9002. The rest is ours.

mod inward;
mod outward;
mod window;

pub use inward::{Ack, Inward};
pub use outward::Outward;
pub use window::QUEUE_TARGET;

/// Packets that may be under way to a peer, or be ahead of one that is missing.
pub const NUMBERS_MAX: u64 = 8192;
/// Bytes of an acknowledgement's bits.
pub const ACK_BITS_SIZE: usize = NUMBERS_MAX as usize / 8;
/// Bytes of the longest acknowledgement.
pub const ACK_SIZE_MAX: usize = 12 + ACK_BITS_SIZE;

#[cfg(test)]
mod tests;
