//! Counting semaphores.

use std::collections::VecDeque;
use std::sync::{self, Arc};

use crate::mutex::{Waiter, held, withdraw};
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
        // Whoever is no longer in the queue was taken out of it to be given a unit, even if it was not told so yet.
        !withdraw(&mut held(&self.state).waiters, &waiter)
    }

    /// The units that are free now.
    pub fn level(&self) -> usize {
        held(&self.state).level
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::time::Duration;

    use super::*;
    use crate::{Condition, Scheduler, SpawnError, Unpark};

    struct Nobody;

    impl Unpark for Nobody {
        fn unpark(&self) {}
    }

    /// One thread that is never woken in time: whoever parks finds the deadline over, and `meanwhile` done.
    struct Late {
        now: Mutex<Instant>,
        meanwhile: Mutex<Option<Box<dyn FnOnce() + Send>>>,
    }

    impl Scheduler for Late {
        fn spawn(&self, _: &str, _: Box<dyn FnOnce() + Send>) -> Result<(), SpawnError> {
            Err(SpawnError)
        }

        fn current(&self) -> Arc<dyn Unpark> {
            Arc::new(Nobody)
        }

        fn park(&self, deadline: Option<Instant>) {
            *self.now.lock().unwrap() = deadline.expect("every wait here has a deadline");
            if let Some(meanwhile) = self.meanwhile.lock().unwrap().take() {
                meanwhile();
            }
        }

        fn now(&self) -> Instant {
            *self.now.lock().unwrap()
        }
    }

    fn late() -> (Arc<Late>, Threads, Option<Instant>) {
        let late = Arc::new(Late { now: Mutex::default(), meanwhile: Mutex::new(None) });
        (late.clone(), Threads::new(late), Some(Instant::from_epoch(Duration::from_secs(1))))
    }

    /// `up` has chosen the waiter, and the deadline passes before it has said so.
    #[test]
    fn a_unit_on_its_way_to_a_waiter_whose_deadline_passes_is_not_lost() {
        let (late, threads, deadline) = late();
        let semaphore = Arc::new(Semaphore::new(&threads, 0));
        let other = semaphore.clone();
        *late.meanwhile.lock().unwrap() =
            Some(Box::new(move || drop(held(&other.state).waiters.pop_front())));
        assert!(semaphore.try_down(deadline));
        assert!(!semaphore.try_down(Some(deadline.unwrap() + Duration::from_secs(1))));
        assert!(held(&semaphore.state).waiters.is_empty());
    }

    #[test]
    fn a_notice_on_its_way_to_a_waiter_whose_deadline_passes_is_not_lost() {
        let (late, threads, deadline) = late();
        let (mutex, condition) = (crate::Mutex::new(&threads, ()), Arc::new(Condition::new(&threads)));
        let other = condition.clone();
        *late.meanwhile.lock().unwrap() = Some(Box::new(move || other.forget_first()));
        assert!(condition.wait_until(mutex.lock(), deadline).1);
    }
}
