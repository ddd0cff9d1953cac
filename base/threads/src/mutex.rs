//! Mutual exclusion and conditions that park. Waiters are served first come, first served.
//!
//! The value lies in a `std::sync::Mutex` that is only ever taken by the thread the gate let through, so taking it
//! never blocks: it is there because it lends the value without `unsafe`.

use std::collections::VecDeque;
use std::ops::{Deref, DerefMut};
use std::sync::{self, Arc, PoisonError};

use crate::{Instant, Threads, Unpark};

/// A mutex whose waiters park. Fair: first come, first served. A panic of the holder releases it unpoisoned.
pub struct Mutex<T> {
    threads: Threads,
    gate: sync::Mutex<Gate>,
    value: sync::Mutex<T>,
}

#[derive(Default)]
struct Gate {
    locked: bool,
    waiters: VecDeque<Arc<Waiter>>,
}

/// One thread in a queue. `granted` is set by whoever lets it through.
pub(crate) struct Waiter {
    granted: sync::Mutex<bool>,
    thread: Arc<dyn Unpark>,
}

impl Waiter {
    pub(crate) fn new(threads: &Threads) -> Arc<Waiter> {
        Arc::new(Waiter { granted: sync::Mutex::new(false), thread: threads.current() })
    }

    pub(crate) fn grant(&self) {
        *held(&self.granted) = true;
        self.thread.unpark();
    }

    pub(crate) fn is_granted(&self) -> bool {
        *held(&self.granted)
    }

    /// Parks until granted; false when `deadline` passed first.
    pub(crate) fn wait(&self, threads: &Threads, deadline: Option<Instant>) -> bool {
        loop {
            if self.is_granted() {
                return true;
            }
            if deadline.is_some_and(|deadline| threads.now() >= deadline) {
                return false;
            }
            threads.park(deadline);
        }
    }
}

/// Takes a waiter whose deadline has passed out of its queue; whether it was still there.
pub(crate) fn withdraw(queue: &mut VecDeque<Arc<Waiter>>, waiter: &Arc<Waiter>) -> bool {
    let place = queue.iter().position(|other| Arc::ptr_eq(other, waiter));
    place.and_then(|place| queue.remove(place)).is_some()
}

/// The contents of a short critical section, whatever happened to its last holder.
pub(crate) fn held<T>(mutex: &sync::Mutex<T>) -> sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T> Mutex<T> {
    /// An unlocked mutex around `value`.
    pub fn new(threads: &Threads, value: T) -> Mutex<T> {
        Mutex { threads: threads.clone(), gate: Default::default(), value: sync::Mutex::new(value) }
    }

    /// Waits for the mutex and takes it.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        let waiter = {
            let mut gate = held(&self.gate);
            if gate.locked {
                let waiter = Waiter::new(&self.threads);
                gate.waiters.push_back(waiter.clone());
                Some(waiter)
            } else {
                gate.locked = true;
                None
            }
        };
        if let Some(waiter) = waiter {
            waiter.wait(&self.threads, None); // the gate stays locked; it is handed to us
        }
        MutexGuard { mutex: self, value: Some(held(&self.value)) }
    }

    /// Takes the mutex if nobody holds it.
    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        let mut gate = held(&self.gate);
        if gate.locked {
            return None;
        }
        gate.locked = true;
        drop(gate);
        Some(MutexGuard { mutex: self, value: Some(held(&self.value)) })
    }

    /// The value, when the mutex is no longer shared.
    pub fn into_inner(self) -> T {
        self.value.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    fn unlock(&self) {
        let next = {
            let mut gate = held(&self.gate);
            let next = gate.waiters.pop_front();
            gate.locked = next.is_some();
            next
        };
        if let Some(next) = next {
            next.grant();
        }
    }
}

/// The right to use a [`Mutex`]'s value; dropping it lets the next waiter through.
pub struct MutexGuard<'a, T> {
    mutex: &'a Mutex<T>,
    value: Option<sync::MutexGuard<'a, T>>,
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        self.value.as_ref().expect("held until dropped")
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.value.as_mut().expect("held until dropped")
    }
}

impl<T> Drop for MutexGuard<'_, T> {
    fn drop(&mut self) {
        self.value = None;
        self.mutex.unlock();
    }
}

/// A place to wait for a change of what a [`Mutex`] protects. Wakes first come, first served; may wake for no reason
/// only at a deadline.
pub struct Condition {
    threads: Threads,
    waiters: sync::Mutex<VecDeque<Arc<Waiter>>>,
}

impl Condition {
    /// A condition nobody waits for.
    pub fn new(threads: &Threads) -> Condition {
        Condition { threads: threads.clone(), waiters: Default::default() }
    }

    /// Releases the mutex, waits to be notified, takes the mutex again.
    pub fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        self.wait_until(guard, None).0
    }

    /// As [`Condition::wait`], but at most until `deadline`; the flag says whether it was notified.
    pub fn wait_until<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        deadline: Option<Instant>,
    ) -> (MutexGuard<'a, T>, bool) {
        let waiter = Waiter::new(&self.threads);
        held(&self.waiters).push_back(waiter.clone());
        let mutex = guard.mutex;
        drop(guard);
        let mut notified = waiter.wait(&self.threads, deadline);
        if !notified {
            // Whoever is no longer in the queue was taken out of it to be woken, even if it was not told so yet.
            notified = !withdraw(&mut held(&self.waiters), &waiter);
        }
        (mutex.lock(), notified)
    }

    /// Wakes the thread that has waited longest.
    pub fn notify_one(&self) {
        let first = held(&self.waiters).pop_front();
        if let Some(waiter) = first {
            waiter.grant();
        }
    }

    /// Wakes every waiting thread.
    pub fn notify_all(&self) {
        let all = std::mem::take(&mut *held(&self.waiters));
        for waiter in all {
            waiter.grant();
        }
    }

    /// What `notify_one` does before it wakes the thread.
    #[cfg(test)]
    pub(crate) fn forget_first(&self) {
        held(&self.waiters).pop_front();
    }
}
