//! Counting semaphores.

use std::collections::VecDeque;
use std::sync::{self, Arc};

use crate::mutex::{Waiter, held};
use crate::{Instant, Threads};

/// A counting semaphore. Fair: first come, first served.
pub struct Semaphore {
    threads: Threads,
    state: sync::Mutex<State>,
}

struct State {
    level: usize,
    waiters: VecDeque<Arc<Waiter>>,
}

impl Semaphore {
    /// A semaphore with `level` units.
    pub fn new(threads: &Threads, level: usize) -> Semaphore {
        Semaphore {
            threads: threads.clone(),
            state: sync::Mutex::new(State { level, waiters: VecDeque::new() }),
        }
    }

    /// Adds a unit, or hands it to the thread that has waited longest.
    pub fn up(&self) {
        let mut state = held(&self.state);
        match state.waiters.pop_front() {
            Some(waiter) => {
                drop(state);
                waiter.grant();
            }
            None => state.level += 1,
        }
    }

    /// Waits for a unit and takes it.
    pub fn down(&self) {
        self.try_down(None);
    }

    /// Waits for a unit at most until `deadline` (`None`: for ever); whether it got one.
    pub fn try_down(&self, deadline: Option<Instant>) -> bool {
        let waiter = {
            let mut state = held(&self.state);
            if state.level > 0 {
                state.level -= 1;
                return true;
            }
            let waiter = Waiter::new(&self.threads);
            state.waiters.push_back(waiter.clone());
            waiter
        };
        if waiter.wait(&self.threads, deadline) {
            return true;
        }
        let mut state = held(&self.state);
        state.waiters.retain(|other| !Arc::ptr_eq(other, &waiter));
        waiter.is_granted() // it may have come between the deadline and the removal
    }

    /// The units that are free now.
    pub fn level(&self) -> usize {
        held(&self.state).level
    }
}
