//! One flush for all who wait.
//!
//! Whoever has written something durable calls [`Flush::flush`]. If no flush runs, the caller leads: it flushes once
//! for everybody whose writes were done before it started. Those who come while a flush runs wait for the next one,
//! which one of them leads. So a commit costs one flush alone, and a fraction of one in company.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use amoeba_threads::{Condition, Mutex, Threads};
use amoeba_world::{Disk, DiskError};

/// The disk with its flushes shared, and the memory of whether it ever failed.
pub(super) struct Flush {
    disk: Arc<dyn Disk>,
    turns: Mutex<Turns>,
    done: Condition,
    broken: AtomicBool,
    count: AtomicU64,
}

struct Turns {
    running: bool,
    started: u64,
    finished: u64,
}

impl Flush {
    /// Shares the flushes of `disk`.
    pub(super) fn new(threads: &Threads, disk: Arc<dyn Disk>) -> Flush {
        Flush {
            disk,
            turns: Mutex::new(threads, Turns { running: false, started: 0, finished: 0 }),
            done: Condition::new(threads),
            broken: AtomicBool::new(false),
            count: AtomicU64::new(0),
        }
    }

    /// Whether a write or a flush has failed. What the disk holds since is unknown, so nothing is committed any more.
    pub(super) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Acquire)
    }

    /// Remembers that the disk failed, until the server is started again.
    pub(super) fn set_broken(&self) {
        self.broken.store(true, Ordering::Release);
    }

    /// Flushes done.
    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Makes every write that has returned durable.
    ///
    /// # Errors
    /// The disk's; and [`DiskError::Failed`] ever after.
    pub(super) fn flush(&self) -> Result<(), DiskError> {
        let mut turns = self.turns.lock();
        let mine = turns.started + 1; // a flush that already runs may have missed our writes
        loop {
            if self.is_broken() {
                return Err(DiskError::Failed);
            }
            if turns.finished >= mine {
                return Ok(());
            }
            if turns.running {
                turns = self.done.wait(turns);
                continue;
            }
            turns.running = true;
            turns.started += 1;
            let number = turns.started;
            drop(turns);
            let result = self.disk.flush();
            self.count.fetch_add(1, Ordering::Relaxed);
            if result.is_err() {
                self.set_broken();
            }
            turns = self.turns.lock();
            turns.running = false;
            if result.is_ok() {
                turns.finished = number;
            }
            self.done.notify_all();
        }
    }
}
