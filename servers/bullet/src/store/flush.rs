//! One flush for all who wait.
//!
//! Whoever has written something durable calls [`Flush::flush`]. If no flush runs, the caller leads: it flushes once
//! for everybody who waits when it starts. Those who come while a flush runs wait for the next one, which one of them
//! leads. So a commit costs one flush alone, and a fraction of one in company. The leader tells everyone what came of
//! it, and nobody needs a lock to hear it: where many wait, waking them is what a commit costs.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{self, Arc};

use amoeba_threads::{Threads, Unpark};
use amoeba_world::{Disk, DiskError};

use super::held;

/// The disk with its flushes shared, and the memory of whether it ever failed.
pub(super) struct Flush {
    disk: Arc<dyn Disk>,
    threads: Threads,
    turns: sync::Mutex<Turns>,
    broken: AtomicBool,
    count: AtomicU64,
}

#[derive(Default)]
struct Turns {
    running: bool,
    /// Those who came while it ran: at most as many as there are threads.
    waiting: VecDeque<Arc<Turn>>,
}

/// One who waits.
struct Turn {
    verdict: AtomicU8,
    thread: Arc<dyn Unpark>,
}

const WAIT: u8 = 0;
const DURABLE: u8 = 1;
const FAILED: u8 = 2;
const LEAD: u8 = 3;

impl Turn {
    fn tell(&self, verdict: u8) {
        self.verdict.store(verdict, Ordering::Release);
        self.thread.unpark();
    }

    fn wait(&self, threads: &Threads) -> u8 {
        loop {
            match self.verdict.load(Ordering::Acquire) {
                WAIT => threads.park(None),
                verdict => return verdict,
            }
        }
    }
}

impl Flush {
    /// Shares the flushes of `disk`.
    pub(super) fn new(threads: &Threads, disk: Arc<dyn Disk>) -> Flush {
        Flush {
            disk,
            threads: threads.clone(),
            turns: Default::default(),
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
        let turn = {
            let mut turns = held(&self.turns);
            // A flush that already runs may have missed our writes.
            std::mem::replace(&mut turns.running, true).then(|| {
                let turn = Arc::new(Turn { verdict: AtomicU8::new(WAIT), thread: self.threads.current() });
                turns.waiting.push_back(turn.clone());
                turn
            })
        };
        match turn.map_or(LEAD, |turn| turn.wait(&self.threads)) {
            LEAD => self.lead(),
            DURABLE => Ok(()),
            _ => Err(DiskError::Failed),
        }
    }

    /// Flushes for all who wait now, tells them, and lets one of those who came meanwhile lead the next.
    fn lead(&self) -> Result<(), DiskError> {
        let covered = std::mem::take(&mut held(&self.turns).waiting);
        let mut result = Err(DiskError::Failed);
        if !self.is_broken() {
            result = self.disk.flush();
            self.count.fetch_add(1, Ordering::Relaxed);
            if result.is_err() {
                self.set_broken();
            }
        }
        if self.is_broken() {
            result = Err(DiskError::Failed); // also if a write has failed meanwhile
        }
        let next = {
            let mut turns = held(&self.turns);
            let next = turns.waiting.pop_front();
            turns.running = next.is_some();
            next
        };
        // The next first: the disk works while the others wake.
        next.inspect(|next| next.tell(LEAD));
        let verdict = if result.is_ok() { DURABLE } else { FAILED };
        covered.iter().for_each(|turn| turn.tell(verdict));
        result
    }
}
