//! The outside, as traits: transactions, disks, clocks, randomness and (from `amoeba-threads`) threads.
//!
//! A server or a stub receives a [`World`] and never asks the operating system for anything. Two worlds implement
//! these traits: `linux`, with real processes, and `sim`, where one seed decides everything.
#![forbid(unsafe_code)]

mod datagram;
mod disk;
mod kept;
mod memory;
mod transaction;

use std::sync::Arc;
use std::time::Duration;

pub use amoeba_threads::{Instant, Threads};
pub use datagram::{DATAGRAM_SIZE_MAX, Datagram, Datagrams, Destination, Endpoint};
pub use disk::{Disk, DiskError};
pub use kept::{KEPT_FILES_MAX, KEPT_SIZE_MAX, Kept};
pub use memory::{Memory, MemoryFile, SharedFile};
pub use transaction::{
    Caller, Error, Incoming, LOCATE_TIMEOUT_DEFAULT, Listen, ListenError, Listener, Message, Posted,
    PutReply, ReplyTo, Shared, TransOptions, Transactions,
};

/// Wall-clock time: since 1970-01-01 00:00 UTC. May jump; [`Instant`] does not.
pub trait Clock: Send + Sync {
    /// The time of day.
    fn unix_time(&self) -> Duration;
}

/// Randomness fit for secrets (in `sim`: from the seed).
pub trait Entropy: Send + Sync {
    /// Fills `bytes` with random ones.
    fn fill(&self, bytes: &mut [u8]);
}

/// `N` random bytes.
pub fn random<const N: usize>(entropy: &dyn Entropy) -> [u8; N] {
    let mut bytes = [0; N];
    entropy.fill(&mut bytes);
    bytes
}

/// Everything a server may use. Cheap to clone.
#[derive(Clone)]
pub struct World {
    /// Threads and monotonic time.
    pub threads: Threads,
    /// Time of day.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
    /// Transactions of this process.
    pub transactions: Arc<dyn Transactions>,
}
