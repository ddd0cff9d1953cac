//! What bytes mean: the transaction header, the FLIP and RPC packet headers, the codec for data inside
//! transactions, and the numbers of commands and statuses.
//!
//! Two faces everywhere: fixed layouts are zerocopy structures whose size is asserted; variable data goes through
//! [`Writer`] and [`Reader`]. Nothing here allocates before it has checked a bound, and nothing panics on input.
#![forbid(unsafe_code)]

mod codec;
mod header;
pub mod packet;
mod status;
pub mod trace;

pub use codec::{Malformed, Reader, Writer};
pub use header::{Command, HEADER_SIZE, Header};
pub use status::Status;

/// The most bytes of data in a request or a reply.
pub const DATA_SIZE_MAX: usize = 1 << 30;
