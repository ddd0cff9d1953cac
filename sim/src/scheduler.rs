//! The table of threads: who can run, who waits until when, who is to die. One thread runs at a time; which one is
//! drawn from the seed.

use std::collections::{BTreeMap, BTreeSet};

use amoeba_threads::Instant;

use crate::host::ProcessId;
use crate::random::Prng;

/// Threads one process may have.
pub(crate) const THREADS_MAX: usize = 1024;

/// A thread of the run; never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ThreadId(pub(crate) u64);

pub(crate) type Body = Box<dyn FnOnce() + Send>;

struct Thread {
    name: String,
    process: ProcessId,
    state: ThreadState,
    /// An unpark came before its park.
    token: bool,
    /// Its process is dead: it is only run to unwind.
    killed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ThreadState {
    Runnable,
    Running,
    Parked { deadline: Option<Instant> },
}

/// What a thread that wants to park has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Parking {
    /// Go on.
    Return,
    /// Give up the processor.
    Suspend,
    /// Unwind: the process is dead.
    Die,
}

pub(crate) struct Table {
    threads: BTreeMap<ThreadId, Thread>,
    runnable: Vec<ThreadId>,
    timers: BTreeSet<(Instant, ThreadId)>,
    /// The thread that runs now.
    pub(crate) current: Option<ThreadId>,
    /// Threads that were spawned and have no coroutine yet.
    pub(crate) bodies: Vec<(ThreadId, Body)>,
    /// Threads of dead processes that have not unwound yet.
    pub(crate) dying: Vec<ThreadId>,
    random: Prng,
    spurious: u32,
    next: u64,
}

impl Table {
    pub(crate) fn new(random: Prng, spurious: u32) -> Table {
        Table {
            threads: BTreeMap::new(),
            runnable: Vec::new(),
            timers: BTreeSet::new(),
            current: None,
            bodies: Vec::new(),
            dying: Vec::new(),
            random,
            spurious,
            next: 1,
        }
    }

    /// A new runnable thread; past [`THREADS_MAX`] the body comes back, to be dropped where no lock is held.
    pub(crate) fn add(&mut self, process: ProcessId, name: &str, body: Body) -> Result<ThreadId, Body> {
        if self.threads.values().filter(|thread| thread.process == process).count() >= THREADS_MAX {
            return Err(body);
        }
        let id = ThreadId(self.next);
        self.next += 1;
        let thread = Thread {
            name: name.to_owned(),
            process,
            state: ThreadState::Runnable,
            token: false,
            killed: false,
        };
        self.threads.insert(id, thread);
        self.runnable.push(id);
        self.bodies.push((id, body));
        Ok(id)
    }

    pub(crate) fn process_of(&self, id: ThreadId) -> Option<ProcessId> {
        self.threads.get(&id).map(|thread| thread.process)
    }

    pub(crate) fn is_killed(&self, id: ThreadId) -> bool {
        self.threads.get(&id).is_some_and(|thread| thread.killed)
    }

    pub(crate) fn is_parked(&self, id: ThreadId) -> bool {
        self.threads.get(&id).is_some_and(|thread| matches!(thread.state, ThreadState::Parked { .. }))
    }

    /// The running thread wants to park.
    pub(crate) fn park(&mut self, id: ThreadId, now: Instant, deadline: Option<Instant>) -> Parking {
        let spurious = self.spurious > 0 && self.random.chance(self.spurious);
        let thread = self.threads.get_mut(&id).expect("a running thread is in the table");
        if thread.killed {
            return Parking::Die;
        }
        if std::mem::take(&mut thread.token) {
            return Parking::Return;
        }
        // A park may return early for no reason, and a deadline that has passed is still a chance for others to run.
        if spurious || deadline.is_some_and(|deadline| deadline <= now) {
            thread.state = ThreadState::Runnable;
            self.runnable.push(id);
            return Parking::Suspend;
        }
        thread.state = ThreadState::Parked { deadline };
        if let Some(deadline) = deadline {
            self.timers.insert((deadline, id));
        }
        Parking::Suspend
    }

    pub(crate) fn unpark(&mut self, id: ThreadId) {
        let Some(thread) = self.threads.get_mut(&id) else {
            return;
        };
        if thread.killed {
            return;
        }
        match thread.state {
            ThreadState::Parked { deadline } => {
                thread.state = ThreadState::Runnable;
                if let Some(deadline) = deadline {
                    self.timers.remove(&(deadline, id));
                }
                self.runnable.push(id);
            }
            ThreadState::Runnable | ThreadState::Running => thread.token = true,
        }
    }

    /// The next deadline of a parked thread.
    pub(crate) fn next_timer(&self) -> Option<Instant> {
        self.timers.first().map(|(deadline, _)| *deadline)
    }

    /// Makes the threads whose deadline has come runnable.
    pub(crate) fn wake_due(&mut self, now: Instant) {
        while let Some(&(deadline, id)) = self.timers.first() {
            if deadline > now {
                return;
            }
            self.timers.remove(&(deadline, id));
            let thread = self.threads.get_mut(&id).expect("a timer belongs to a thread in the table");
            thread.state = ThreadState::Runnable;
            self.runnable.push(id);
        }
    }

    /// Draws the next thread to run, and makes it the running one.
    pub(crate) fn draw(&mut self) -> Option<ThreadId> {
        if self.runnable.is_empty() {
            return None;
        }
        let index = self.random.below(self.runnable.len() as u64) as usize;
        let id = self.runnable.swap_remove(index);
        self.set_running(id);
        Some(id)
    }

    pub(crate) fn set_running(&mut self, id: ThreadId) {
        let thread = self.threads.get_mut(&id).expect("a runnable thread is in the table");
        thread.state = ThreadState::Running;
        self.current = Some(id);
    }

    /// The thread has ended, or will never run again.
    pub(crate) fn remove(&mut self, id: ThreadId) {
        if let Some(thread) = self.threads.remove(&id) {
            self.forget_wakes(id, thread.state);
        }
    }

    /// Every thread of `process` shall unwind and never do anything else.
    pub(crate) fn kill(&mut self, process: ProcessId) {
        let victims: Vec<(ThreadId, ThreadState)> = self
            .threads
            .iter_mut()
            .filter(|(_, thread)| thread.process == process && !thread.killed)
            .map(|(id, thread)| {
                thread.killed = true;
                (*id, thread.state)
            })
            .collect();
        for (id, state) in victims {
            self.forget_wakes(id, state);
            self.dying.push(id);
        }
    }

    fn forget_wakes(&mut self, id: ThreadId, state: ThreadState) {
        match state {
            ThreadState::Runnable => self.runnable.retain(|other| *other != id),
            ThreadState::Parked { deadline: Some(deadline) } => {
                self.timers.remove(&(deadline, id));
            }
            ThreadState::Parked { deadline: None } | ThreadState::Running => {}
        }
    }

    /// The threads, a line each, for a failure's report.
    pub(crate) fn describe(&self, process_name: impl Fn(ProcessId) -> String) -> String {
        let line = |(id, thread): (&ThreadId, &Thread)| {
            let state = match thread.state {
                ThreadState::Parked { deadline: Some(deadline) } => {
                    format!("parked until {:.6}", deadline.since_epoch().as_secs_f64())
                }
                ThreadState::Parked { deadline: None } => "parked".to_owned(),
                ThreadState::Runnable => "runnable".to_owned(),
                ThreadState::Running => "running".to_owned(),
            };
            format!("  thread {} {:?} of {}: {state}\n", id.0, thread.name, process_name(thread.process))
        };
        self.threads.iter().map(line).collect()
    }
}
