//! The two regions of a channel: what is where, and how an end reaches them.
//!
//! A region is a control page and a ring. The words of the control page lie [`WORD_STRIDE`] bytes apart, so that no two
//! share a cache line or a pair of lines that a processor fetches together. The head of a message lies behind the word
//! that announces it, in the same line: a small message costs its reader one miss.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Bytes of the control page.
pub const CONTROL_SIZE: usize = 4096;
/// Bytes between two words of the control page.
pub const WORD_STRIDE: usize = 128;
/// Where the head of a message lies: in the line of [`Word::Produced`].
pub const HEAD_OFFSET: usize = 8;
/// Where the ring begins.
pub const RING_OFFSET: usize = CONTROL_SIZE;
/// The smallest ring, in bytes.
pub const RING_SIZE_MIN: usize = 64;
/// The largest ring, in bytes.
pub const RING_SIZE_MAX: usize = 1 << 26;
/// A ring that the second-level cache of two cores holds, in bytes.
pub const RING_SIZE_DEFAULT: usize = 256 << 10;

/// Bytes of a region with a ring of `ring_size` bytes.
pub const fn region_size(ring_size: usize) -> usize {
    RING_OFFSET + ring_size
}

/// Whether a ring may have this size: a power of two between [`RING_SIZE_MIN`] and [`RING_SIZE_MAX`].
pub const fn is_ring_size(size: usize) -> bool {
    size.is_power_of_two() && RING_SIZE_MIN <= size && size <= RING_SIZE_MAX
}

/// A word of the control page, 64 bits in the machine's own order. Zero in a fresh region.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Word {
    /// Low half of the sequence number of the message in my ring, above the count of its bytes that I have put there.
    Produced,
    /// Low half of the sequence number of the message in the peer's ring, above the count of its bytes that I have
    /// copied. Only kept for messages larger than the ring.
    Consumed,
    /// How often I have said that I sleep, while I do; else zero.
    Sleeping,
    /// Server: sequence number of the last request that was, or was about to be, given to be executed.
    Taken,
    /// Client: sequence number of the last request that was withdrawn.
    Withdrawn,
}

impl Word {
    /// How many there are.
    pub const COUNT: usize = 5;

    /// Its place in the region, in bytes.
    pub const fn offset(self) -> usize {
        self as usize * WORD_STRIDE
    }
}

/// The region that this side alone writes.
///
/// # Contract
/// `store` releases all writes before it; `load` sees what was last stored. Offsets and sizes given to `write` lie
/// within [`region_size`] of [`Own::ring_size`].
pub trait Own {
    /// Bytes of the ring; see [`is_ring_size`]. Never changes.
    fn ring_size(&self) -> usize;
    /// A word, as I stored it.
    fn load(&self, word: Word) -> u64;
    /// Stores a word, and with it everything written before.
    fn store(&self, word: Word, value: u64);
    /// Copies bytes to an offset of the region.
    fn write(&self, offset: usize, bytes: &[u8]);
    /// A fence that is sequentially consistent with those of the peer.
    fn fence(&self);
}

/// The region of the peer, which may contain anything and change at any moment.
///
/// # Contract
/// `load` acquires what an honest peer wrote before it stored the word. Offsets and sizes given to the others lie within
/// [`region_size`] of [`Peer::ring_size`].
pub trait Peer {
    /// Bytes of the ring; see [`is_ring_size`]. Never changes, whatever the peer does.
    fn ring_size(&self) -> usize;
    /// A word, as it is now.
    fn load(&self, word: Word) -> u64;
    /// Copies bytes from an offset of the region.
    fn read(&self, offset: usize, into: &mut [u8]);
    /// Appends `size` bytes from an offset of the region; `into` has room for them.
    fn append(&self, offset: usize, size: usize, into: &mut Vec<u8>);
}

/// A region of plain memory, for worlds in which both ends live in one process.
pub struct Plain {
    words: [AtomicU64; Word::COUNT],
    bytes: Mutex<Vec<u8>>,
    ring_size: usize,
}

impl Plain {
    /// A fresh region.
    ///
    /// # Panics
    /// Unless [`is_ring_size`].
    pub fn new(ring_size: usize) -> Arc<Plain> {
        assert!(is_ring_size(ring_size), "a ring of {ring_size} bytes");
        let bytes = Mutex::new(vec![0; region_size(ring_size)]);
        Arc::new(Plain { words: Default::default(), bytes, ring_size })
    }

    fn bytes(&self) -> MutexGuard<'_, Vec<u8>> {
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Own for Arc<Plain> {
    fn ring_size(&self) -> usize {
        self.ring_size
    }

    fn load(&self, word: Word) -> u64 {
        self.words[word as usize].load(Ordering::Relaxed)
    }

    fn store(&self, word: Word, value: u64) {
        self.words[word as usize].store(value, Ordering::Release);
    }

    fn write(&self, offset: usize, bytes: &[u8]) {
        self.bytes()[offset..offset + bytes.len()].copy_from_slice(bytes);
    }

    fn fence(&self) {
        fence(Ordering::SeqCst);
    }
}

impl Peer for Arc<Plain> {
    fn ring_size(&self) -> usize {
        self.ring_size
    }

    fn load(&self, word: Word) -> u64 {
        self.words[word as usize].load(Ordering::Acquire)
    }

    fn read(&self, offset: usize, into: &mut [u8]) {
        into.copy_from_slice(&self.bytes()[offset..offset + into.len()]);
    }

    fn append(&self, offset: usize, size: usize, into: &mut Vec<u8>) {
        into.extend_from_slice(&self.bytes()[offset..offset + size]);
    }
}
