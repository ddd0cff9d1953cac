//! Everything a run consists of, behind one lock, and its loop: deliver what is due, run one thread, repeat.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use amoeba_threads::Instant;

use crate::Config;
use crate::channel::Channels;
use crate::executor::{self, Ended, Executor};
use crate::host::{Host, HostId, OUTSIDE, Owner, Process, ProcessId};
use crate::network::{Network, Station};
use crate::random::Prng;
use crate::scheduler::{Body, Table, ThreadId};
use crate::trace::{Happening, Trace};

/// Where the virtual clock starts.
pub(crate) const EPOCH: Instant = Instant::from_epoch(Duration::from_secs(1));

/// One run.
pub(crate) struct Core {
    pub(crate) seed: u64,
    pub(crate) config: Config,
    state: Mutex<State>,
}

pub(crate) struct State {
    pub(crate) seed: u64,
    pub(crate) config: Config,
    pub(crate) now: Instant,
    pub(crate) trace: Trace,
    pub(crate) table: Table,
    pub(crate) network: Network,
    pub(crate) hosts: Vec<Host>,
    pub(crate) processes: BTreeMap<ProcessId, Process>,
    pub(crate) process_count: u64,
    pub(crate) channels: Channels,
    pub(crate) scribblers: BTreeMap<Station, Duration>,
    pub(crate) plans: BTreeSet<(Instant, Plan)>,
    /// What went wrong; the first ends the run.
    pub(crate) failures: Vec<String>,
    steps: u64,
    pace: Prng,
}

/// Something that will happen by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Plan {
    StartProgram { host: HostId, program: usize, life: u32 },
    Scribble { station: Station },
    ScribbleMemory { process: ProcessId, pause: Duration },
}

impl Core {
    pub(crate) fn new(seed: u64, config: Config) -> Core {
        let network =
            Network::new(config.faults, Prng::new(seed, "network", 0), Prng::new(seed, "scribble", 0));
        let state = State {
            seed,
            config,
            now: EPOCH,
            trace: Trace::new(),
            table: Table::new(Prng::new(seed, "schedule", 0), config.spurious_wakes),
            network,
            hosts: Vec::new(),
            processes: BTreeMap::new(),
            process_count: 0,
            channels: Channels::new(seed),
            scribblers: BTreeMap::new(),
            plans: BTreeSet::new(),
            failures: Vec::new(),
            steps: 0,
            pace: Prng::new(seed, "pace", 0),
        };
        Core { seed, config, state: Mutex::new(state) }
    }

    /// The state, for a short while: whoever holds it never parks and runs no foreign code but the kernel's.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The thread that calls.
    pub(crate) fn current(&self) -> Option<ThreadId> {
        self.state().table.current
    }

    /// Runs threads until `finished`, or until something goes wrong.
    pub(crate) fn run_until(&self, executor: &mut Executor, finished: impl Fn(&State) -> bool) {
        loop {
            self.bury(executor);
            let step = {
                let mut state = self.state();
                if !state.failures.is_empty() || finished(&state) {
                    return;
                }
                state.next_step()
            };
            match step {
                Step::Resume(thread) => self.resume(executor, thread),
                Step::Waited => {}
                Step::Failed(text) => self.state().failures.push(text),
            }
        }
    }

    fn resume(&self, executor: &mut Executor, thread: ThreadId) {
        self.adopt(executor);
        let ended = executor.resume(thread, false);
        let mut state = self.state();
        state.table.current = None;
        if let Some(ended) = ended {
            state.thread_ended(thread, ended);
        }
    }

    /// Gives coroutines to the threads that were spawned.
    fn adopt(&self, executor: &mut Executor) {
        let bodies: Vec<(ThreadId, Body)> = std::mem::take(&mut self.state().table.bodies);
        for (thread, body) in bodies {
            executor.start(thread, body);
        }
    }

    /// Unwinds the threads of dead processes. What cannot end, because it waits for the dead, is forgotten.
    fn bury(&self, executor: &mut Executor) {
        let mut dying = std::mem::take(&mut self.state().table.dying);
        while !dying.is_empty() {
            self.adopt(executor);
            let before = dying.len();
            dying.retain(|thread| executor.has(*thread) && self.unwind(executor, *thread));
            if dying.len() == before {
                break;
            }
        }
        for thread in dying {
            executor.forget(thread);
            self.state().table.remove(thread);
        }
    }

    /// Lets a killed thread run towards its end; true if it has not got there.
    fn unwind(&self, executor: &mut Executor, thread: ThreadId) -> bool {
        self.state().table.set_running(thread);
        let ended = executor.resume(thread, true);
        let mut state = self.state();
        state.table.current = None;
        if ended.is_some() {
            state.table.remove(thread);
        }
        ended.is_none()
    }

    /// Ends every process and unwinds every thread.
    pub(crate) fn clear(&self, executor: &mut Executor) {
        let all: Vec<ProcessId> = self.state().processes.keys().copied().collect();
        for process in all {
            self.state().end_process(process);
        }
        self.state().table.kill(OUTSIDE);
        self.bury(executor);
        let hosts = std::mem::take(&mut self.state().hosts);
        drop(hosts); // where no lock is held: programs own what they please
    }

    /// Blocks the calling thread.
    pub(crate) fn park(&self, deadline: Option<Instant>) {
        use crate::scheduler::Parking;
        let parking = {
            let mut state = self.state();
            let thread = state.table.current.expect("only threads of the simulated world park");
            let now = state.now;
            state.table.park(thread, now, deadline)
        };
        match parking {
            Parking::Return => {}
            Parking::Die => executor::die(),
            Parking::Suspend => {
                if executor::suspend() {
                    executor::die();
                }
            }
        }
    }

    /// Unwinds the calling thread if its process is dead. False if it is dead and unwinding already.
    pub(crate) fn check_alive(&self) -> bool {
        let killed = {
            let state = self.state();
            state.table.current.is_some_and(|thread| state.table.is_killed(thread))
        };
        if killed && !std::thread::panicking() {
            executor::die();
        }
        !killed
    }

    /// A thread of `host` is about to use a disk; a planned crash happens now.
    pub(crate) fn disk_operation(&self, host: HostId, operation: &'static str, offset: u64, size: u64) {
        let mut state = self.state();
        let now = state.now;
        state.trace.add(now, Happening::Disk { host: host.0, operation, offset, size });
        let fuse = &mut state.hosts[usize::from(host.0)].fuse;
        let burnt = match fuse {
            Some(0) => true,
            Some(left) => {
                *left -= 1;
                false
            }
            None => false,
        };
        if burnt {
            state.crash_host(host);
        }
    }
}

enum Step {
    Resume(ThreadId),
    Waited,
    Failed(String),
}

impl State {
    /// Delivers what is due; then draws a thread, or waits for what comes next.
    fn next_step(&mut self) -> Step {
        self.steps += 1;
        if self.steps > self.config.steps_max {
            return Step::Failed(format!("no end after {} steps", self.config.steps_max));
        }
        if self.now.since(EPOCH) > self.config.time_max {
            return Step::Failed(format!("no end after {:?} of virtual time", self.config.time_max));
        }
        self.deliver_due();
        if let Some(thread) = self.table.draw() {
            self.trace.add(self.now, Happening::Run { thread: thread.0 });
            self.now = self.now + Duration::from_nanos(self.pace.between(200, 20_000));
            return Step::Resume(thread);
        }
        let next = self
            .hosts
            .iter()
            .filter_map(|host| host.timeout)
            .chain(self.table.next_timer())
            .chain(self.network.next_arrival())
            .chain(self.plans.first().map(|(time, _)| *time))
            .min();
        match next {
            Some(next) => {
                self.now = self.now.max(next);
                Step::Waited
            }
            None => Step::Failed("deadlock: nothing will ever happen again".to_owned()),
        }
    }

    fn deliver_due(&mut self) {
        let now = self.now;
        self.table.wake_due(now);
        while let Some(flying) = self.network.arrive(now, &mut self.trace) {
            self.packet_arrived(flying);
        }
        for index in 0..self.hosts.len() {
            let host = HostId(index as u16);
            if self.hosts[index].timeout.is_some_and(|due| due <= now) {
                self.drive(host, |kernel, now| kernel.handle_timeout(now));
            }
        }
        while let Some(&(time, plan)) = self.plans.first() {
            if time > now {
                break;
            }
            self.plans.pop_first();
            self.carry_out(plan);
        }
    }

    fn carry_out(&mut self, plan: Plan) {
        match plan {
            Plan::StartProgram { host, program, life } => self.start_program(host, program, life),
            Plan::Scribble { station } => self.scribble(station),
            Plan::ScribbleMemory { process, pause } => {
                if self.processes.contains_key(&process) {
                    self.scribble_memory(process);
                    self.plans.insert((self.now + pause, plan));
                }
            }
        }
    }

    fn scribble(&mut self, station: Station) {
        let Some(&pause) = self.scribblers.get(&station) else {
            return;
        };
        let packet = self.network.hostile_packet(self.config.packet_size_max);
        let to = self.network.any_station();
        if to != station {
            self.network.send(self.now, station, Some(to), &packet, &mut self.trace);
        }
        self.plans.insert((self.now + pause, Plan::Scribble { station }));
    }

    fn thread_ended(&mut self, thread: ThreadId, ended: Ended) {
        let process = self.table.process_of(thread).expect("it ran a moment ago");
        let was_killed = self.table.is_killed(thread); // what is dead may fail as it likes
        self.table.remove(thread);
        self.table.dying.retain(|other| *other != thread);
        if let Ended::Panicked(text) = &ended
            && !self.config.panics_allowed
            && !was_killed
        {
            let name = self.process_name(process);
            self.failures.push(format!("a thread of {name} panicked: {text}"));
        }
        let is_main = self.processes.get(&process).is_some_and(|process| process.main == Some(thread));
        if is_main {
            self.exit(process);
        }
    }

    /// The process's main thread has ended: so does the process. A program is started again, as a supervisor would.
    fn exit(&mut self, process: ProcessId) {
        let owner = self.processes.get(&process).map(|process| process.owner);
        self.end_process(process);
        if let Some(Owner::Program { host, program, life }) = owner {
            let again = self.now + Duration::from_millis(100);
            self.plans.insert((again, Plan::StartProgram { host, program, life }));
        }
    }

    pub(crate) fn fault(&mut self, text: String) {
        self.trace.add(self.now, Happening::Fault { text });
    }

    /// Everything a person needs to see why it failed.
    pub(crate) fn report(&self) -> String {
        let threads = self.table.describe(|process| self.process_name(process));
        let kernels: String = self
            .hosts
            .iter()
            .enumerate()
            .filter_map(|(index, host)| Some((index, host.kernel.as_ref()?)))
            .map(|(index, kernel)| format!("kernel of host {index}:\n{}\n", kernel.status()))
            .collect();
        format!(
            "the last that happened:\n{}threads at {:.6}:\n{threads}{kernels}",
            self.trace.tail(),
            self.now.since_epoch().as_secs_f64()
        )
    }
}
