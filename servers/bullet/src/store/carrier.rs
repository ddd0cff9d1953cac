//! Chunks of uncommitted files on their way to the disk, while their clients prepare what follows.
//!
//! A large file whose commit is to wait for the disk should not keep the disk waiting until then. So each chunk that is
//! complete is left to a thread that writes and hashes it, and the client has its answer at once. Whoever needs a chunk
//! to be there before the thread came to it carries it itself: so nothing depends on the thread, and it is never waited
//! for while it has other chunks to carry.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{self, Arc};

use amoeba_threads::{Mutex, Semaphore, Threads};

use super::error::StoreError;
use super::layout::{self, Hash};
use super::volume::Volume;
use super::{Store, held};

/// Chunks that the thread may have before it; past it whoever has one more carries it itself.
const QUEUE_MAX: usize = 16;

/// The chunks that wait for the thread.
pub(super) struct Carrier {
    threads: Threads,
    queue: sync::Mutex<VecDeque<Arc<Parcel>>>,
    wanted: Semaphore,
    /// Whether there is a thread.
    running: AtomicBool,
    over: AtomicBool,
}

/// One chunk, and where it is to lie.
pub(super) struct Parcel {
    block: u64,
    /// Held while it is carried.
    state: Mutex<Parcelled>,
}

enum Parcelled {
    /// A write that failed for want of space may be tried again.
    Waiting(Vec<u8>),
    Written(Hash),
    /// Nobody wants it any more, and its place may be another file's.
    Forgotten,
}

/// What makes a forgotten chunk final.
const ONCE: &str = "only its file takes a chunk back, and then asks no more for it";

impl Carrier {
    /// Without a thread yet.
    pub(super) fn new(threads: &Threads) -> Carrier {
        Carrier {
            threads: threads.clone(),
            queue: Default::default(),
            wanted: Semaphore::new(threads, 0),
            running: AtomicBool::new(false),
            over: AtomicBool::new(false),
        }
    }

    /// Leaves a chunk to the thread, if there is one that has time.
    pub(super) fn leave(&self, block: u64, chunk: Vec<u8>) -> Arc<Parcel> {
        let parcel = Arc::new(Parcel { block, state: Mutex::new(&self.threads, Parcelled::Waiting(chunk)) });
        if self.running.load(Ordering::Acquire) {
            let mut queue = held(&self.queue);
            if queue.len() < QUEUE_MAX {
                queue.push_back(parcel.clone());
                drop(queue);
                self.wanted.up();
            }
        }
        parcel
    }
}

impl Parcel {
    /// Sees to it that the chunk is written, and gives its hash. After an error the chunk is still here.
    ///
    /// # Errors
    /// NoSpace, DiskFailed, WriteProtected.
    pub(super) fn carry(&self, volume: &Volume) -> Result<Hash, StoreError> {
        self.carry_if_wanted(volume).map(|hash| hash.expect(ONCE))
    }

    /// The same for a chunk that perhaps nobody wants any more: that is left alone, and has no hash.
    fn carry_if_wanted(&self, volume: &Volume) -> Result<Option<Hash>, StoreError> {
        let mut state = self.state.lock();
        let hash = match &*state {
            Parcelled::Written(hash) => return Ok(Some(*hash)),
            Parcelled::Forgotten => return Ok(None),
            Parcelled::Waiting(chunk) => {
                volume.write_chunk(self.block, chunk)?;
                layout::hash(chunk)
            }
        };
        let chunk = std::mem::replace(&mut *state, Parcelled::Written(hash));
        drop((state, chunk));
        Ok(Some(hash))
    }

    /// Waits until nobody carries it; from then on nobody will. The chunk, or its hash if it is written.
    pub(super) fn take_back(&self) -> Result<Vec<u8>, Hash> {
        match std::mem::replace(&mut *self.state.lock(), Parcelled::Forgotten) {
            Parcelled::Waiting(chunk) => Ok(chunk),
            Parcelled::Written(hash) => Err(hash),
            Parcelled::Forgotten => unreachable!("{ONCE}"),
        }
    }
}

impl Store {
    /// Carries chunks until [`Store::stop_carrier`].
    pub fn run_carrier(&self) {
        let carrier = &self.volume.carrier;
        carrier.running.store(true, Ordering::Release);
        while !carrier.over.load(Ordering::Acquire) {
            carrier.wanted.down();
            let parcel = held(&carrier.queue).pop_front();
            if let Some(parcel) = parcel {
                // An error is for its file to find.
                let _ = parcel.carry_if_wanted(&self.volume);
            }
        }
        carrier.running.store(false, Ordering::Release);
    }

    /// Ends [`Store::run_carrier`], also one that has not begun.
    pub fn stop_carrier(&self) {
        self.volume.carrier.over.store(true, Ordering::Release);
        self.volume.carrier.wanted.up();
    }
}
