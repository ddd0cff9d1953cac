//! AMUTHR, Amoeba's threads: spawn, park and unpark, sleep; and what is built on them: [`Mutex`], [`Condition`],
//! [`Semaphore`], [`JoinHandle`].
//!
//! Servers are sequential blocking code over these, so the same server runs on operating-system threads
//! (`linux`) and on coroutines with virtual time (`sim`). A world implements [`Scheduler`]; everybody else holds a
//! [`Threads`]. Nothing here calls the operating system's blocking primitives, so nothing here can stop a simulated
//! world.
//!
//! One rule keeps it sound: code that holds a foreign lock (`std::sync::Mutex`) never parks.
//!
//! # Source
//! Amoeba 5.3, thread(L), mutex(L), semaphore(L). Conditions are ours.
#![forbid(unsafe_code)]

mod mutex;
mod semaphore;
mod time;

use std::sync::Arc;
use std::time::Duration;

pub use mutex::{Condition, Mutex, MutexGuard};
pub use semaphore::Semaphore;
pub use time::Instant;

/// Wakes one parked thread. A wake that comes before the park is kept: that park returns at once.
pub trait Unpark: Send + Sync {
    /// Ends the thread's current or next [`Scheduler::park`].
    fn unpark(&self);
}

/// A thread could not be started: the world's bound on threads or memory is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no more threads can be started")]
pub struct SpawnError;

/// What a world provides.
pub trait Scheduler: Send + Sync {
    /// Starts a thread that runs `body` to its end.
    fn spawn(&self, name: &str, body: Box<dyn FnOnce() + Send>) -> Result<(), SpawnError>;
    /// The calling thread's waker.
    fn current(&self) -> Arc<dyn Unpark>;
    /// Blocks the calling thread until it is unparked or `deadline` passes; may also return early for no reason.
    fn park(&self, deadline: Option<Instant>);
    /// The monotonic time.
    fn now(&self) -> Instant;
}

/// The threads of a world. Cheap to clone.
#[derive(Clone)]
pub struct Threads(Arc<dyn Scheduler>);

impl Threads {
    /// The threads that `scheduler` runs.
    pub fn new(scheduler: Arc<dyn Scheduler>) -> Threads {
        Threads(scheduler)
    }

    /// Starts a thread; its result waits in the handle. A panic in `body` ends the thread without a result.
    pub fn spawn<T: Send + 'static>(
        &self,
        name: &str,
        body: impl FnOnce() -> T + Send + 'static,
    ) -> Result<JoinHandle<T>, SpawnError> {
        let done = Arc::new((Mutex::new(self, JoinState::Running), Condition::new(self)));
        let ending = Ending { done: Some(done.clone()) };
        self.0.spawn(
            name,
            Box::new(move || {
                let mut ending = ending;
                let result = body();
                ending.finish(JoinState::Done(result));
            }),
        )?;
        Ok(JoinHandle { done })
    }

    /// The calling thread's waker.
    pub fn current(&self) -> Arc<dyn Unpark> {
        self.0.current()
    }

    /// Blocks until unparked or `deadline`; may return early for no reason.
    pub fn park(&self, deadline: Option<Instant>) {
        self.0.park(deadline);
    }

    /// The monotonic time.
    pub fn now(&self) -> Instant {
        self.0.now()
    }

    /// Blocks the calling thread for `time`.
    pub fn sleep(&self, time: Duration) {
        let deadline = self.now() + time;
        while self.now() < deadline {
            self.park(Some(deadline));
        }
    }
}

enum JoinState<T> {
    Running,
    Done(T),
    Panicked,
    Taken,
}

type Joint<T> = Arc<(Mutex<JoinState<T>>, Condition)>;

/// Tells the joiner how the thread ended, also when it ended by unwinding.
struct Ending<T> {
    done: Option<Joint<T>>,
}

impl<T> Ending<T> {
    fn finish(&mut self, state: JoinState<T>) {
        if let Some(done) = self.done.take() {
            *done.0.lock() = state;
            done.1.notify_all();
        }
    }
}

impl<T> Drop for Ending<T> {
    fn drop(&mut self) {
        self.finish(JoinState::Panicked);
    }
}

/// The result of a thread, to be waited for. Dropping it lets the thread run on.
pub struct JoinHandle<T> {
    done: Joint<T>,
}

impl<T> JoinHandle<T> {
    /// Waits for the thread and takes its result; `None` if it panicked.
    pub fn join(self) -> Option<T> {
        let (state, condition) = &*self.done;
        let mut state = state.lock();
        loop {
            match std::mem::replace(&mut *state, JoinState::Taken) {
                JoinState::Done(result) => return Some(result),
                JoinState::Panicked | JoinState::Taken => return None,
                JoinState::Running => {
                    *state = JoinState::Running;
                    state = condition.wait(state);
                }
            }
        }
    }
}
