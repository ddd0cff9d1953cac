//! One lock per object: many readers or one writer, first come, first served. Only objects in use take memory.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{self, Arc};

use amoeba_threads::{Semaphore, Threads};

use super::held;

/// The locks of all objects.
pub(super) struct Locks {
    threads: Threads,
    table: sync::Mutex<BTreeMap<u32, Lock>>,
}

#[derive(Default)]
struct Lock {
    readers: usize,
    writer: bool,
    queue: VecDeque<(bool, Arc<Semaphore>)>,
}

impl Lock {
    fn admits(&self, exclusive: bool) -> bool {
        !self.writer && (!exclusive || self.readers == 0)
    }

    fn enter(&mut self, exclusive: bool) {
        if exclusive {
            self.writer = true;
        } else {
            self.readers += 1;
        }
    }
}

/// A held lock; dropping it lets the next ones through.
pub(super) struct ObjectLock<'a> {
    locks: &'a Locks,
    number: u32,
    exclusive: bool,
}

impl Locks {
    /// No object is locked.
    pub(super) fn new(threads: &Threads) -> Locks {
        Locks { threads: threads.clone(), table: Default::default() }
    }

    /// Waits until nobody changes the object, and keeps it unchanged.
    pub(super) fn shared(&self, number: u32) -> ObjectLock<'_> {
        self.lock(number, false)
    }

    /// Waits until nobody uses the object, and keeps others away.
    pub(super) fn exclusive(&self, number: u32) -> ObjectLock<'_> {
        self.lock(number, true)
    }

    fn lock(&self, number: u32, exclusive: bool) -> ObjectLock<'_> {
        let turn = {
            let mut table = held(&self.table);
            let lock = table.entry(number).or_default();
            if lock.queue.is_empty() && lock.admits(exclusive) {
                lock.enter(exclusive);
                None
            } else {
                let turn = Arc::new(Semaphore::new(&self.threads, 0));
                lock.queue.push_back((exclusive, turn.clone()));
                Some(turn)
            }
        };
        if let Some(turn) = turn {
            turn.down(); // whoever lets us through has entered for us
        }
        ObjectLock { locks: self, number, exclusive }
    }
}

impl Drop for ObjectLock<'_> {
    fn drop(&mut self) {
        let mut table = held(&self.locks.table);
        let lock = table.get_mut(&self.number).expect("a held lock is in the table");
        if self.exclusive {
            lock.writer = false;
        } else {
            lock.readers -= 1;
        }
        while let Some(&(exclusive, _)) = lock.queue.front()
            && lock.admits(exclusive)
        {
            lock.enter(exclusive);
            let (_, turn) = lock.queue.pop_front().expect("the queue has a front");
            turn.up();
        }
        if lock.readers == 0 && !lock.writer {
            table.remove(&self.number);
        }
    }
}
