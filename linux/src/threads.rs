//! AMUTHR over threads of the operating system.
//!
//! A thread parks on a word of its own (a futex) and not on `std::thread::park`, whose token the standard library
//! also uses for itself: a wake must never be eaten by somebody else's wait.

use std::cell::OnceCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use amoeba_threads::{Instant, Scheduler, SpawnError, Unpark};
use rustix::thread::futex;
use rustix::time::{ClockId, Timespec, clock_gettime};

/// The most threads that one process may have started through [`OsThreads`] at once.
pub const THREADS_MAX: usize = 4096;

/// A park never sleeps longer than this in one piece: a futex does not count the time the machine was suspended,
/// [`Instant`] does.
const PARK_PIECE_MAX: Duration = Duration::from_secs(60);

static THREADS: AtomicUsize = AtomicUsize::new(0);

/// The threads of this process.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsThreads;

impl Scheduler for OsThreads {
    fn spawn(&self, name: &str, body: Box<dyn FnOnce() + Send>) -> Result<(), SpawnError> {
        let counted = Counted::new().ok_or(SpawnError)?;
        std::thread::Builder::new()
            .name(name.replace('\0', "?"))
            .spawn(move || {
                let _counted = counted;
                body();
            })
            .map(drop)
            .map_err(|_| SpawnError)
    }

    fn current(&self) -> Arc<dyn Unpark> {
        PARKER.with(|parker| parker.get_or_init(Default::default).clone())
    }

    fn park(&self, deadline: Option<Instant>) {
        let timeout = match deadline {
            Some(deadline) => deadline.since(self.now()).min(PARK_PIECE_MAX),
            None => PARK_PIECE_MAX,
        };
        PARKER.with(|parker| parker.get_or_init(Default::default).park(timeout));
    }

    fn now(&self) -> Instant {
        now()
    }
}

/// The monotonic time: since boot, suspended time included.
pub(crate) fn now() -> Instant {
    let time = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).expect("time since boot is positive");
    let nanoseconds = u32::try_from(time.tv_nsec).expect("nanoseconds are below a second");
    Instant::from_epoch(Duration::new(seconds, nanoseconds))
}

/// One of the [`THREADS_MAX`] places, given back when its thread ends.
struct Counted;

impl Counted {
    fn new() -> Option<Counted> {
        let below = |count| (count < THREADS_MAX).then_some(count + 1);
        THREADS.fetch_update(Ordering::Relaxed, Ordering::Relaxed, below).ok().map(|_| Counted)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        THREADS.fetch_sub(1, Ordering::Relaxed);
    }
}

thread_local! {
    static PARKER: OnceCell<Arc<Parker>> = const { OnceCell::new() };
}

const EMPTY: u32 = 0;
const NOTIFIED: u32 = 1;
const PARKED: u32 = 2;

/// EMPTY --park--> PARKED --unpark--> NOTIFIED --park returns--> EMPTY; an unpark before the park leaves NOTIFIED.
#[derive(Default)]
struct Parker {
    state: AtomicU32,
}

impl Parker {
    fn park(&self, timeout: Duration) {
        let empty = self.state.compare_exchange(EMPTY, PARKED, Ordering::Acquire, Ordering::Acquire);
        if empty.is_ok() && !timeout.is_zero() {
            let timeout = Timespec {
                tv_sec: timeout.as_secs() as i64, // at most PARK_PIECE_MAX
                tv_nsec: timeout.subsec_nanos().into(),
            };
            // Whatever ends the wait (a wake, a signal, the timeout), a park may return early.
            let _ = futex::wait(&self.state, futex::Flags::PRIVATE, PARKED, Some(&timeout));
        }
        self.state.swap(EMPTY, Ordering::Acquire);
    }
}

impl Unpark for Parker {
    fn unpark(&self) {
        if self.state.swap(NOTIFIED, Ordering::Release) == PARKED {
            let _ = futex::wake(&self.state, futex::Flags::PRIVATE, 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use amoeba_threads::{Condition, Mutex, Semaphore, Threads};

    fn threads() -> Threads {
        Threads::new(Arc::new(OsThreads))
    }

    #[test]
    fn a_wake_before_the_park_is_kept_and_only_one() {
        let threads = threads();
        let me = threads.current();
        me.unpark();
        me.unpark();
        threads.park(None);
        let deadline = threads.now() + Duration::from_millis(5);
        while threads.now() < deadline {
            threads.park(Some(deadline));
        }
    }

    #[test]
    fn wakes_are_never_lost() {
        let threads = threads();
        let (ping, pong) = (Arc::new(Semaphore::new(&threads, 0)), Arc::new(Semaphore::new(&threads, 0)));
        let (theirs, answers) = (ping.clone(), pong.clone());
        let other = threads
            .spawn("pong", move || {
                for _ in 0..10_000 {
                    theirs.down();
                    answers.up();
                }
            })
            .unwrap();
        for _ in 0..10_000 {
            ping.up();
            pong.down();
        }
        assert_eq!(other.join(), Some(()));
    }

    #[test]
    fn a_mutex_excludes_and_a_condition_wakes() {
        let threads = threads();
        let shared = Arc::new((Mutex::new(&threads, 0), Condition::new(&threads)));
        let adders: Vec<_> = (0..8)
            .map(|_| {
                let shared = shared.clone();
                threads
                    .spawn("adder", move || {
                        for _ in 0..1000 {
                            *shared.0.lock() += 1;
                        }
                        shared.1.notify_all();
                    })
                    .unwrap()
            })
            .collect();
        let mut sum = shared.0.lock();
        while *sum < 8000 {
            sum = shared.1.wait(sum);
        }
        drop(sum);
        assert!(adders.into_iter().all(|adder| adder.join().is_some()));
    }

    #[test]
    fn a_panic_ends_only_its_thread() {
        let threads = threads();
        let thread = threads
            .spawn("panics", || {
                if true {
                    std::panic::resume_unwind(Box::new(()))
                }
            })
            .unwrap();
        assert_eq!(thread.join(), None);
    }
}
