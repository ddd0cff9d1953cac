//! Space is made ready ahead of its use.
//!
//! The image is sparse: what was never written costs the host's file system a commit of its own at the first flush,
//! which doubles the price of a small durable file. So a thread keeps the start of the largest hole, which is where
//! new files go, written with zeros. It takes the blocks as a file would, and gives them back.
//!
//! To a large file the commit of the host's file system means nothing, and zeros that are written where it will lie mean
//! that everything is written twice. So the thread rests while large files are written.

use std::sync;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use amoeba_threads::{Instant, Mutex, MutexGuard, Semaphore, Threads};

use super::layout::BLOCK_SIZE;
use super::space::{Extent, Space};
use super::{Store, held};

/// Blocks that are kept ready: 256 MiB.
const READY_BLOCKS: u64 = 65536;
/// Blocks made ready at once: 8 MiB.
const STEP_BLOCKS: u64 = 2048;
/// How long no chunk of a large file must have been written.
const REST: Duration = Duration::from_millis(50);

/// How far space is ready.
pub(super) struct Ahead {
    /// Blocks below this one are ready.
    frontier: AtomicU64,
    /// The disk gains nothing, or has no space to spare; or the server stops.
    over: AtomicBool,
    wanted: Semaphore,
    /// Told once, so that a commit raises the semaphore only then.
    asked: AtomicBool,
    /// Held while blocks are taken to be made ready.
    taking: Mutex<()>,
    /// How many are; changed with the lock of the space, so that whoever has it counts them as the free blocks they are.
    taken: AtomicU64,
    threads: Threads,
    /// When a chunk of a large file was written last.
    chunk_written: sync::Mutex<Option<Instant>>,
}

impl Ahead {
    /// Nothing is known to be ready.
    pub(super) fn new(threads: &Threads) -> Ahead {
        Ahead {
            frontier: AtomicU64::new(0),
            over: AtomicBool::new(false),
            wanted: Semaphore::new(threads, 0),
            asked: AtomicBool::new(false),
            taking: Mutex::new(threads, ()),
            taken: AtomicU64::new(0),
            threads: threads.clone(),
            chunk_written: Default::default(),
        }
    }

    /// What is to be made ready next, if less is ready than should be.
    fn next(&self, space: &Space) -> Option<Extent> {
        let hole = space.largest()?;
        let first = self.frontier.load(Ordering::Relaxed).max(hole.first);
        let ready = first - hole.first;
        // The step must leave room on either side: a hole that is cut in two is none for a large file.
        let step = ready < READY_BLOCKS && hole.end() >= first + 4 * STEP_BLOCKS;
        step.then_some(Extent { first, blocks: STEP_BLOCKS })
    }

    /// After blocks were taken: asks for more to be made ready, once half of what was is used.
    pub(super) fn used(&self, space: &Space) {
        if self.over.load(Ordering::Relaxed) || self.asked.load(Ordering::Relaxed) {
            return;
        }
        let ready = space
            .largest()
            .map_or(0, |hole| self.frontier.load(Ordering::Relaxed).saturating_sub(hole.first));
        if ready < READY_BLOCKS / 2 && self.next(space).is_some() && !self.asked.swap(true, Ordering::Relaxed)
        {
            self.wanted.up();
        }
    }

    /// A chunk of a large file is written now.
    pub(super) fn note_chunk(&self) {
        *held(&self.chunk_written) = Some(self.threads.now());
    }

    /// Sleeps while large files are written.
    fn rest(&self) {
        while !self.over.load(Ordering::Acquire) {
            let written = *held(&self.chunk_written);
            let passed = written.map_or(REST, |written| self.threads.now().since(written));
            if passed >= REST {
                return;
            }
            self.threads.sleep(REST - passed);
        }
    }

    /// The free blocks of this space, with those that are being made ready.
    pub(super) fn free_blocks(&self, space: &Space) -> u64 {
        space.free_blocks() + self.taken.load(Ordering::Relaxed)
    }

    /// Keeps blocks from being taken to be made ready.
    pub(super) fn pause(&self) -> MutexGuard<'_, ()> {
        self.taking.lock()
    }
}

impl Store {
    /// Keeps space ready until [`Store::stop_ahead`]; returns at once where the disk gains nothing by it.
    pub fn run_ahead(&self) {
        let ahead = &self.volume.ahead;
        while !ahead.over.load(Ordering::Acquire) {
            ahead.rest();
            if !self.step_ahead() {
                ahead.asked.store(false, Ordering::Relaxed);
                ahead.wanted.down();
            }
        }
    }

    /// Ends [`Store::run_ahead`], also one that has not begun to wait.
    pub fn stop_ahead(&self) {
        self.volume.ahead.over.store(true, Ordering::Release);
        self.volume.ahead.wanted.up();
    }

    /// Makes a step ready; false when nothing is to be done now.
    fn step_ahead(&self) -> bool {
        let ahead = &self.volume.ahead;
        let taking = ahead.taking.lock();
        let step = {
            let mut space = held(&self.volume.space);
            let step = ahead.next(&space);
            step.inspect(|step| {
                space.claim_within(*step);
                ahead.taken.store(step.blocks, Ordering::Relaxed);
            })
        };
        let Some(step) = step else { return false };
        let prepared = self.volume.prepare(step.first * BLOCK_SIZE, step.blocks * BLOCK_SIZE);
        {
            let mut space = held(&self.volume.space);
            space.release(step);
            ahead.taken.store(0, Ordering::Relaxed);
        }
        drop(taking);
        ahead.frontier.store(step.end(), Ordering::Relaxed);
        if prepared != Ok(true) {
            ahead.over.store(true, Ordering::Release);
        }
        true
    }
}
