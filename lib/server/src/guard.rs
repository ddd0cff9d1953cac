//! Counts bad capabilities per client process and slows those who send many, so that a 48-bit check field can only be
//! guessed slowly.
//!
//! The first [`FAILURES_FREE`] are answered at once; then every further one delays its answer, longer each time up to
//! [`PENALTY_MAX`]. A thread that waits out such a delay holds one of a few places; when all are taken, requests of
//! callers with a penalty are answered STD_NOTNOW without a look at their capability, so a flood of guesses neither
//! learns anything nor stops the server for others. Failures are forgiven with time.
//!
//! A guesser may also come as ever new processes. So all failures are counted together too: while those not yet forgiven
//! are over [`FAILURES_FREE_ALL`], the server is alarmed, and a process is slowed from its second failure on, at once by
//! the most. Then a guess costs an attachment to a kernel or a second, and the 2^47 that are needed take centuries. Who
//! sends no bad capability never notices: neither rule looks at anybody without failures.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use amoeba_threads::{Instant, Threads};
use amoeba_wire::Status;
use amoeba_wire::packet::Address;
use amoeba_world::Caller;

/// Client processes that are remembered; past that the one that failed longest ago is forgotten.
/// As many as a kernel has processes, so that one host cannot make the guard forget it.
pub const CALLERS_MAX: usize = 16384;
/// Bad capabilities a process may send before it is slowed.
pub const FAILURES_FREE: u32 = 16;
/// Bad capabilities of all processes together before the server is alarmed.
pub const FAILURES_FREE_ALL: u32 = 256;
/// How long until one failure of all together is forgiven.
pub const FORGIVE_INTERVAL_ALL: Duration = Duration::from_millis(10);
/// The first delay; it doubles with every further failure.
pub const PENALTY_STEP: Duration = Duration::from_millis(1);
/// The longest delay.
pub const PENALTY_MAX: Duration = Duration::from_millis(100);
/// How long until one failure is forgiven.
pub const FORGIVE_INTERVAL: Duration = Duration::from_secs(1);

/// The client that sent the most bad capabilities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Worst {
    /// Which process.
    pub process: Address,
    /// How many failures are not yet forgiven.
    pub failures: u32,
}

/// What a guard has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuardReport {
    /// Bad capabilities so far.
    pub bad_capabilities: u64,
    /// Requests that were turned away because their caller was being slowed.
    pub turned_away: u64,
    /// Processes now remembered for bad capabilities.
    pub callers: usize,
    /// The worst of them.
    pub worst: Option<Worst>,
}

pub(crate) struct Guard {
    threads: Threads,
    waiting_max: usize,
    state: Mutex<State>,
    /// Whether there are failures that are not forgiven; else nobody need be looked up. Changed with `state` held.
    troubled: AtomicBool,
    bad_capabilities: AtomicU64,
    turned_away: AtomicU64,
}

#[derive(Default)]
struct State {
    callers: BTreeMap<Address, Failures>,
    /// The same callers by when they failed last.
    by_time: BTreeSet<(Instant, Address)>,
    /// Failures of all callers, also of those that are forgotten.
    all: Failures,
    waiting: usize,
}

#[derive(Clone, Copy, Default)]
struct Failures {
    count: u32,
    since: Instant,
}

/// Permission to look at one capability.
pub(crate) struct Pass<'a> {
    guard: &'a Guard,
    caller: Address,
    /// Whether it holds one of the places for waiting.
    place: bool,
}

impl Guard {
    /// A guard for a server with `server_threads` threads, at most half of which wait out delays at once.
    pub(crate) fn new(threads: Threads, server_threads: usize) -> Guard {
        Guard {
            threads,
            waiting_max: (server_threads / 2).max(1),
            state: Mutex::default(),
            troubled: AtomicBool::new(false),
            bad_capabilities: AtomicU64::new(0),
            turned_away: AtomicU64::new(0),
        }
    }

    /// Lets a caller's capability be looked at.
    pub(crate) fn admit(&self, caller: &Caller) -> Result<Pass<'_>, Status> {
        if !self.troubled.load(Ordering::Acquire) {
            return Ok(Pass { guard: self, caller: caller.process, place: false });
        }
        let mut state = self.state();
        let now = self.threads.now();
        if state.forget_forgiven(now) {
            self.troubled.store(false, Ordering::Release);
        }
        let slowed =
            state.failures(caller.process, now) >= if state.is_alarmed(now) { 1 } else { FAILURES_FREE };
        if slowed && state.waiting >= self.waiting_max {
            self.turned_away.fetch_add(1, Ordering::Relaxed);
            return Err(Status::STD_NOTNOW);
        }
        state.waiting += usize::from(slowed);
        Ok(Pass { guard: self, caller: caller.process, place: slowed })
    }

    pub(crate) fn report(&self) -> GuardReport {
        let now = self.threads.now();
        let state = self.state();
        let worst = state
            .callers
            .iter()
            .map(|(process, failures)| (failures.left(now, FORGIVE_INTERVAL), *process))
            .max();
        GuardReport {
            bad_capabilities: self.bad_capabilities.load(Ordering::Relaxed),
            turned_away: self.turned_away.load(Ordering::Relaxed),
            callers: state.callers.len(),
            worst: worst.map(|(failures, process)| Worst { process, failures }),
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes failures; how long the answer is to be delayed.
    fn note(&self, caller: Address, failures: u32) -> Duration {
        self.bad_capabilities.fetch_add(failures.into(), Ordering::Relaxed);
        let now = self.threads.now();
        let mut state = self.state();
        self.troubled.store(true, Ordering::Release);
        let alarmed = state.is_alarmed(now);
        state.all.add(failures, now, FORGIVE_INTERVAL_ALL);
        state.all.count = state.all.count.min(2 * FAILURES_FREE_ALL); // so that the alarm ends soon after its cause
        let count = state.add(caller, failures, now);
        if alarmed { PENALTY_MAX } else { penalty(count) }
    }
}

impl State {
    /// Whether failures of all callers are so many that somebody guesses under many names.
    fn is_alarmed(&self, now: Instant) -> bool {
        self.all.left(now, FORGIVE_INTERVAL_ALL) >= FAILURES_FREE_ALL
    }

    /// Forgets the caller that failed longest ago if it is forgiven; whether nothing is left.
    fn forget_forgiven(&mut self, now: Instant) -> bool {
        if let Some(&(_, oldest)) = self.by_time.first()
            && self.failures(oldest, now) == 0
        {
            self.by_time.pop_first();
            self.callers.remove(&oldest);
        }
        self.callers.is_empty() && self.all.left(now, FORGIVE_INTERVAL_ALL) == 0 && self.waiting == 0
    }

    fn failures(&self, caller: Address, now: Instant) -> u32 {
        self.callers.get(&caller).map_or(0, |failures| failures.left(now, FORGIVE_INTERVAL))
    }

    /// Adds failures to those of a caller; how many it has now.
    fn add(&mut self, caller: Address, failures: u32, now: Instant) -> u32 {
        if let Some(known) = self.callers.get(&caller) {
            self.by_time.remove(&(known.since, caller));
        } else if self.callers.len() == CALLERS_MAX
            && let Some((_, oldest)) = self.by_time.pop_first()
        {
            self.callers.remove(&oldest);
        }
        let entry = self.callers.entry(caller).or_default();
        entry.add(failures, now, FORGIVE_INTERVAL);
        self.by_time.insert((now, caller));
        entry.count
    }
}

impl Failures {
    /// What is not yet forgiven.
    fn left(&self, now: Instant, interval: Duration) -> u32 {
        let forgiven = now.since(self.since).as_nanos() / interval.as_nanos();
        self.count.saturating_sub(u32::try_from(forgiven).unwrap_or(u32::MAX))
    }

    fn add(&mut self, failures: u32, now: Instant, interval: Duration) {
        *self = Failures { count: self.left(now, interval).saturating_add(failures), since: now };
    }
}

impl Pass<'_> {
    /// The capability, or `failures` capabilities, were bad: waits out the penalty.
    pub(crate) fn fail(self, failures: u32) {
        let delay = self.guard.note(self.caller, failures);
        if self.place {
            self.guard.threads.sleep(delay);
        }
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if self.place {
            self.guard.state().waiting -= 1;
        }
    }
}

/// The delay of an answer when the caller has `count` failures.
fn penalty(count: u32) -> Duration {
    let doublings = count.saturating_sub(FAILURES_FREE).min(16);
    (PENALTY_STEP * (1 << doublings)).min(PENALTY_MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use amoeba_threads::{Scheduler, SpawnError, Unpark};

    use super::*;

    /// One thread whose time passes only while it sleeps.
    struct Sleeper(AtomicU64);

    struct Nobody;

    impl Unpark for Nobody {
        fn unpark(&self) {}
    }

    impl Scheduler for Sleeper {
        fn spawn(&self, _: &str, _: Box<dyn FnOnce() + Send>) -> Result<(), SpawnError> {
            Err(SpawnError)
        }

        fn current(&self) -> Arc<dyn Unpark> {
            Arc::new(Nobody)
        }

        fn park(&self, deadline: Option<Instant>) {
            let deadline = deadline.expect("only sleeps park here");
            self.0.store(deadline.since_epoch().as_nanos() as u64, Ordering::Relaxed);
        }

        fn now(&self) -> Instant {
            Instant::from_epoch(Duration::from_nanos(self.0.load(Ordering::Relaxed)))
        }
    }

    fn guard(threads: usize) -> Guard {
        Guard::new(Threads::new(Arc::new(Sleeper(AtomicU64::new(1)))), threads)
    }

    fn caller(number: u64) -> Caller {
        Caller { process: Address(number.to_le_bytes()), signature: None }
    }

    /// How long the answer to one bad capability takes.
    fn fail(guard: &Guard, number: u64) -> Duration {
        let before = guard.threads.now();
        guard.admit(&caller(number)).expect("a place is free").fail(1);
        guard.threads.now() - before
    }

    #[test]
    fn the_first_failures_are_free_and_then_each_takes_longer() {
        let guard = guard(2);
        for _ in 0..FAILURES_FREE {
            assert_eq!(fail(&guard, 1), Duration::ZERO);
        }
        let delays: Vec<Duration> = (0..12).map(|_| fail(&guard, 1)).collect();
        assert_eq!(delays[..3], [2, 4, 8].map(|times| PENALTY_STEP * times));
        assert!(delays.is_sorted() && delays[11] == PENALTY_MAX);
        assert_eq!(fail(&guard, 2), Duration::ZERO, "another process");
    }

    #[test]
    fn failures_are_forgiven_with_time() {
        let guard = guard(2);
        for _ in 0..FAILURES_FREE + 10 {
            fail(&guard, 1);
        }
        assert!(fail(&guard, 1) > Duration::ZERO);
        guard.threads.sleep(FORGIVE_INTERVAL * (FAILURES_FREE + 12));
        assert_eq!(fail(&guard, 1), Duration::ZERO);
        assert_eq!(guard.report().worst.unwrap().failures, 1);
    }

    #[test]
    fn when_every_place_is_taken_the_slowed_are_turned_away_and_the_others_are_not() {
        let guard = guard(4);
        for _ in 0..FAILURES_FREE {
            fail(&guard, 1);
        }
        let taken = [guard.admit(&caller(1)).unwrap(), guard.admit(&caller(1)).unwrap()];
        assert_eq!(guard.admit(&caller(1)).err(), Some(Status::STD_NOTNOW));
        assert!(guard.admit(&caller(2)).is_ok());
        assert_eq!(guard.report().turned_away, 1);
        drop(taken);
        assert!(guard.admit(&caller(1)).is_ok());
    }

    #[test]
    fn the_table_of_callers_is_bounded_and_forgets_the_oldest() {
        let guard = guard(2);
        for number in 0..=CALLERS_MAX as u64 {
            fail(&guard, number);
            guard.threads.sleep(Duration::from_nanos(1));
        }
        assert_eq!(guard.report().callers, CALLERS_MAX);
        assert!(!guard.state().callers.contains_key(&caller(0).process));
        assert_eq!(guard.report().bad_capabilities, CALLERS_MAX as u64 + 1);
        assert_eq!(guard.state().by_time.len(), CALLERS_MAX);
    }

    #[test]
    fn whoever_guesses_as_ever_new_processes_is_slowed_from_the_second_guess_on() {
        let guard = guard(4);
        for number in 0..2 * u64::from(FAILURES_FREE_ALL) {
            assert_eq!(fail(&guard, 1000 + number), Duration::ZERO);
        }
        assert_eq!(fail(&guard, 1), Duration::ZERO, "one guess for an attachment");
        assert_eq!(fail(&guard, 1), PENALTY_MAX);
        let taken = [guard.admit(&caller(1)).unwrap(), guard.admit(&caller(1)).unwrap()];
        assert_eq!(guard.admit(&caller(1)).err(), Some(Status::STD_NOTNOW));
        for number in 2..100 {
            assert!(guard.admit(&caller(number)).is_ok(), "who has no failures never notices");
        }
        drop(taken);
        guard.threads.sleep(FORGIVE_INTERVAL_ALL * 2 * FAILURES_FREE_ALL);
        assert_eq!(fail(&guard, 2), Duration::ZERO);
        assert_eq!(fail(&guard, 2), Duration::ZERO, "the alarm is over");
    }

    #[test]
    fn when_all_is_forgiven_nobody_is_looked_up_until_somebody_fails_again() {
        let guard = guard(2);
        assert!(!guard.troubled.load(Ordering::Acquire));
        for number in 0..3 {
            fail(&guard, number);
        }
        assert!(guard.troubled.load(Ordering::Acquire));
        guard.threads.sleep(FORGIVE_INTERVAL * 2);
        for _ in 0..3 {
            assert!(guard.admit(&caller(9)).is_ok()); // each forgets one
        }
        assert!(!guard.troubled.load(Ordering::Acquire));
        assert_eq!(guard.report().callers, 0);
        fail(&guard, 1);
        assert!(guard.troubled.load(Ordering::Acquire));
    }
}
