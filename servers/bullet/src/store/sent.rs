//! Replies that are sent out of memory that others hold too, and the buffers that are left of them.
//!
//! What the cache drops stays in memory until the last reply that is sent from it has been taken, so it is counted. A whole
//! chunk that nobody has any more is room for the next one: to get fresh memory from the system, and to fill it with zeros,
//! takes as long as to read the chunk.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::cache::Cached;
use super::held;
use super::layout::CHUNK_SIZE;

/// Chunks that are kept as room for the next ones; what is more is given back to the system.
const SPARE_MAX: usize = 8;
const CHUNK: usize = CHUNK_SIZE as usize;

/// See the module.
#[derive(Default)]
pub(super) struct Replies {
    /// Bytes, by whole files and chunks, that replies under way keep.
    size: AtomicU64,
    /// Chunks of anything.
    spare: Mutex<Vec<Vec<u8>>>,
}

impl Replies {
    /// Room for `size` bytes, in which anything may be.
    pub(super) fn room(&self, size: usize) -> Vec<u8> {
        let spare = if size == CHUNK { held(&self.spare).pop() } else { None };
        spare.unwrap_or_else(|| vec![0; size])
    }

    /// Gives back to the system what no reply needs now.
    pub(super) fn clear(&self) {
        let spare = std::mem::take(&mut *held(&self.spare));
        drop(spare); // without the lock
    }

    fn leave(&self, bytes: Cached) {
        if let Cached::Own(bytes) = bytes
            && bytes.len() == CHUNK
            && let Some(bytes) = Arc::into_inner(bytes)
        {
            let mut spare = held(&self.spare);
            if spare.len() < SPARE_MAX {
                spare.push(bytes);
            }
        }
    }
}

/// Bytes in memory that a reply is sent from.
pub(super) struct Sent {
    /// There until it is dropped.
    bytes: Option<Cached>,
    size: u64,
    replies: Arc<Replies>,
}

impl Sent {
    /// The bytes come back when with them replies would keep more than `max` bytes.
    pub(super) fn new(bytes: Cached, replies: &Arc<Replies>, max: u64) -> Result<Sent, Cached> {
        let size = bytes.len() as u64;
        let fits = |counted: u64| counted.checked_add(size).filter(|&sum| sum <= max);
        match replies.size.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits) {
            Ok(_) => Ok(Sent { bytes: Some(bytes), size, replies: replies.clone() }),
            Err(_) => Err(bytes),
        }
    }
}

impl Drop for Sent {
    fn drop(&mut self) {
        self.replies.size.fetch_sub(self.size, Ordering::Relaxed);
        if let Some(bytes) = self.bytes.take() {
            self.replies.leave(bytes);
        }
    }
}

impl AsRef<[u8]> for Sent {
    fn as_ref(&self) -> &[u8] {
        self.bytes.as_deref().expect("they are there until it is dropped")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk() -> Cached {
        Cached::Own(Arc::new(vec![3; CHUNK]))
    }

    #[test]
    fn a_chunk_that_nobody_has_is_room_for_the_next_and_no_other_is() {
        let replies = Arc::new(Replies::default());
        let kept = chunk();
        drop(Sent::new(kept.clone(), &replies, u64::MAX).unwrap_or_else(|_| panic!("it fits")));
        assert_eq!(replies.room(CHUNK)[0], 0, "the cache has it still");
        drop(Sent::new(kept, &replies, u64::MAX));
        assert_eq!(replies.room(CHUNK - 1), vec![0; CHUNK - 1], "a shorter one has room of its own");
        assert_eq!(replies.room(CHUNK), vec![3; CHUNK]);
        assert_eq!(replies.room(CHUNK)[0], 0, "it is used once");
    }

    #[test]
    fn replies_keep_no_more_than_the_bound_and_leave_no_more_than_theirs() {
        let replies = Arc::new(Replies::default());
        let max = (SPARE_MAX as u64 + 2) * CHUNK_SIZE;
        let sent: Vec<_> = (0..SPARE_MAX + 2).map(|_| Sent::new(chunk(), &replies, max)).collect();
        assert!(sent.iter().all(Result::is_ok));
        assert!(Sent::new(chunk(), &replies, max).is_err());
        drop(sent);
        assert_eq!(replies.size.load(Ordering::Relaxed), 0);
        assert_eq!(held(&replies.spare).len(), SPARE_MAX);
        replies.clear();
        assert_eq!(held(&replies.spare).len(), 0);
    }
}
