//! What a test holds: it adds hosts, starts programs, does harm, and looks on.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use amoeba_threads::{Instant, Threads};
use amoeba_world::{Disk, World};

use crate::Config;
use crate::core::{Core, Plan};
use crate::disk::Medium;
use crate::executor::Executor;
use crate::host::{HostId, OUTSIDE, Owner, ProcessId, Program};
use crate::network::Faults;
use crate::random::Prng;
use crate::scheduler::Body;
use crate::world::{threads_of, world_of};

/// A simulated system of hosts. Cheap to clone; the clones are one system.
#[derive(Clone)]
pub struct Sim(Arc<Core>);

/// Where a program finds itself.
#[derive(Clone)]
pub struct Place {
    /// Everything it may use.
    pub world: World,
    /// Its host.
    pub host: HostId,
    /// Its process.
    pub process: ProcessId,
    sim: Sim,
}

impl Place {
    /// The disk `name` of this host: made with `size` bytes of zeros when the host has none of that name. It survives
    /// crashes as far as it was flushed; this handle dies with the host.
    pub fn disk(&self, name: &str, size: u64) -> Arc<dyn Disk> {
        self.sim.medium(self.host, name, size).open(&self.sim.0, self.host, false)
    }

    /// As [`Place::disk`], but every operation parks for a while, as no code under a foreign lock may. Others run in
    /// the middle of a commit, and crashes come there.
    pub fn slow_disk(&self, name: &str, size: u64) -> Arc<dyn Disk> {
        self.sim.medium(self.host, name, size).open(&self.sim.0, self.host, true)
    }
}

impl Sim {
    /// A system without hosts, at the beginning of its time.
    pub fn new(seed: u64, config: Config) -> Sim {
        Sim(Arc::new(Core::new(seed, config)))
    }

    /// The seed that decides everything.
    pub fn seed(&self) -> u64 {
        self.0.seed
    }

    /// A generator of its own for `label`.
    pub fn random(&self, label: &str) -> Prng {
        Prng::new(self.0.seed, label, 1 << 63)
    }

    /// Two runs with equal hashes did the same.
    pub fn trace_hash(&self) -> u64 {
        self.0.state().trace.hash()
    }

    /// Virtual time.
    pub fn now(&self) -> Instant {
        self.0.state().now
    }

    /// The threads of the test itself: they are on no host and survive every crash.
    pub fn threads(&self) -> Threads {
        threads_of(&self.0, OUTSIDE)
    }

    /// Lets virtual time pass; for the test's own threads.
    pub fn sleep(&self, time: Duration) {
        self.threads().sleep(time);
    }

    /// Runs `root` as a thread outside all hosts, and everything else with it, until `root` returns.
    ///
    /// # Panics
    /// When a thread panicked, nothing can ever happen again, or the bounds of [`Config`] are passed; the text has the
    /// last happenings and all threads.
    pub fn run<T: Send + 'static>(&self, root: impl FnOnce(&Sim) -> T + Send + 'static) -> T {
        let result = Arc::new(Mutex::new(None));
        let body: Body = {
            let (sim, result) = (self.clone(), result.clone());
            Box::new(move || {
                let value = root(&sim);
                *result.lock().unwrap_or_else(PoisonError::into_inner) = Some(value);
            })
        };
        self.0.state().table.add(OUTSIDE, "root", body).ok().expect("the test has few threads");
        let mut executor = Executor::new(self.0.config.stack_size);
        let done = result.clone();
        self.0.run_until(&mut executor, |_| done.lock().unwrap_or_else(PoisonError::into_inner).is_some());
        let failure = {
            let state = self.0.state();
            state.failures.first().map(|failure| format!("{failure}\n{}", state.report()))
        };
        if let Some(failure) = failure {
            panic!("{failure}");
        }
        self.0.clear(&mut executor);
        result.lock().unwrap_or_else(PoisonError::into_inner).take().expect("the run ended with a result")
    }

    /// Adds a host and switches it on.
    pub fn add_host(&self) -> HostId {
        self.add_host_on(&[0])
    }

    /// Adds a host that is on several networks, numbered from 0, and switches it on. It is a switch between them.
    pub fn add_host_on(&self, networks: &[u16]) -> HostId {
        self.0.state().add_host(networks)
    }

    /// Starts `body` on `host` now, at every boot, and again 100 ms after it ended: a server.
    pub fn program(&self, host: HostId, name: &str, body: impl Fn(Place) + Send + Sync + 'static) {
        let sim = Arc::downgrade(&self.0);
        let body = Arc::new(body);
        let make: Program = Arc::new(move |process, skew| {
            let body = body.clone();
            let sim = Sim(sim.upgrade().expect("a run that starts programs exists"));
            Box::new(move || body(sim.place(process, host, skew)))
        });
        let mut state = self.0.state();
        let place = &mut state.hosts[usize::from(host.0)];
        let (program, life) = (place.programs.len(), place.life);
        place.programs.push((name.to_owned(), make));
        state.start_program(host, program, life);
    }

    /// Starts `body` on `host` once: a client. On a host that is down it has ended at once.
    pub fn spawn<T: Send + 'static>(
        &self,
        host: HostId,
        name: &str,
        body: impl FnOnce(Place) -> T + Send + 'static,
    ) -> Task<T> {
        let result = Arc::new(Mutex::new(None));
        let (sim, slot) = (self.clone(), result.clone());
        let process = self.0.state().start_process(host, name, Owner::Nobody, |process, skew| {
            Box::new(move || {
                let value = body(sim.place(process, host, skew));
                *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(value);
            })
        });
        Task { sim: self.clone(), process, result }
    }

    fn place(&self, process: ProcessId, host: HostId, skew: Duration) -> Place {
        let world = world_of(&self.0, process, skew);
        Place { world, host, process, sim: self.clone() }
    }

    fn medium(&self, host: HostId, name: &str, size: u64) -> Medium {
        let mut state = self.0.state();
        let place = &mut state.hosts[usize::from(host.0)];
        let label = u64::from(host.0) << 32 | place.media.len() as u64;
        let seed = self.0.seed;
        let fresh = || Medium::new(size, Prng::new(seed, "disk", label));
        place.media.entry(name.to_owned()).or_insert_with(fresh).clone()
    }

    /// Whether the host is on.
    pub fn is_up(&self, host: HostId) -> bool {
        self.0.state().hosts[usize::from(host.0)].kernel.is_some()
    }

    /// What a host's kernel says of itself; `None` while the host is down.
    pub fn kernel_status(&self, host: HostId) -> Option<String> {
        self.0.state().hosts[usize::from(host.0)].kernel.as_ref().map(amoeba_kernel::Kernel::status)
    }

    /// Cuts the power of a host: first of its disks, then of the rest.
    pub fn crash_host(&self, host: HostId) {
        self.0.state().crash_host(host);
    }

    /// As [`Sim::crash_host`], just before the disk operation after the next `operations`.
    pub fn crash_host_at_disk_operation(&self, host: HostId, operations: u64) {
        self.0.state().hosts[usize::from(host.0)].fuse = Some(operations);
    }

    /// Switches a host on again: a new kernel, and its programs from their disks.
    pub fn restart_host(&self, host: HostId) {
        self.0.state().boot_host(host);
    }

    /// The processes of a program or client `name` that live on `host`.
    pub fn processes(&self, host: HostId, name: &str) -> Vec<ProcessId> {
        let state = self.0.state();
        let living =
            state.processes.iter().filter(|(_, process)| process.host == host && process.name == name);
        living.map(|(id, _)| *id).collect()
    }

    /// Kills a process at once; a program's is started again after `restart_after`.
    pub fn crash_process(&self, process: ProcessId, restart_after: Duration) {
        let mut state = self.0.state();
        let Some(owner) = state.processes.get(&process).map(|process| process.owner) else {
            return;
        };
        let name = state.process_name(process);
        state.fault(format!("{name} is killed"));
        state.end_process(process);
        if let Owner::Program { host, program, life } = owner {
            let again = state.now + restart_after;
            state.plans.insert((again, Plan::StartProgram { host, program, life }));
        }
    }

    /// Changes how the link behaves.
    pub fn set_faults(&self, faults: Faults) {
        let mut state = self.0.state();
        state.fault(format!("network: {faults:?}"));
        state.network.set_faults(faults);
    }

    /// Cuts the link into those that `side` gives the same number.
    pub fn partition(&self, side: impl Fn(HostId) -> u32) {
        let mut state = self.0.state();
        let sides: Vec<(crate::network::Station, u32)> = state
            .hosts
            .iter()
            .enumerate()
            .flat_map(|(index, host)| {
                let side = side(HostId(index as u16));
                host.stations.iter().map(move |station| (*station, side))
            })
            .collect();
        state.fault(format!("partition: {:?}", sides.iter().map(|(_, side)| side).collect::<Vec<_>>()));
        state.network.partition(|station| {
            sides.iter().find(|(other, _)| *other == station).map_or(0, |(_, side)| *side)
        });
    }

    /// Ends every partition.
    pub fn heal(&self) {
        self.partition(|_| 0);
    }

    /// The next `count` flushes of a host's disk fail.
    pub fn fail_flushes(&self, host: HostId, disk: &str, count: u32) {
        let medium = self.0.state().hosts[usize::from(host.0)].media.get(disk).cloned();
        if let Some(medium) = medium {
            medium.fail_flushes(count);
        }
    }

    /// Adds a station that puts a hostile packet on the link every `pause`: noise, and lies made of what it hears.
    pub fn add_scribbler(&self, pause: Duration) {
        let mut state = self.0.state();
        let station = state.network.add_station(0);
        state.scribblers.insert(station, pause);
        let first = state.now + pause;
        state.plans.insert((first, Plan::Scribble { station }));
    }

    /// Requests that were executed by processes which took them from a channel, not from their kernel.
    pub fn requests_over_channels(&self) -> u64 {
        self.0.state().channels.taken
    }

    /// Makes a process hostile: from now on it scribbles over its own side of its channels every `pause`.
    pub fn scribble_channels(&self, process: ProcessId, pause: Duration) {
        let mut state = self.0.state();
        let first = state.now + pause;
        state.plans.insert((first, Plan::ScribbleMemory { process, pause }));
    }

    /// Ends all scribbling on the network.
    pub fn silence_scribblers(&self) {
        self.0.state().scribblers.clear();
    }
}

/// A process started by [`Sim::spawn`].
pub struct Task<T> {
    sim: Sim,
    process: Option<ProcessId>,
    result: Arc<Mutex<Option<T>>>,
}

impl<T> Task<T> {
    /// The process; `None` if it could not be started.
    pub fn process(&self) -> Option<ProcessId> {
        self.process
    }

    /// Whether it has ended, one way or another.
    pub fn has_ended(&self) -> bool {
        self.process.is_none_or(|process| !self.sim.0.state().processes.contains_key(&process))
    }

    /// Waits for its end and takes its result; `None` if it crashed.
    pub fn join(self) -> Option<T> {
        self.join_until(None).unwrap_or_else(|_| unreachable!("without a deadline it waits"))
    }

    /// As [`Task::join`], but at most until `deadline`: then the task comes back.
    pub fn join_until(self, deadline: Option<Instant>) -> Result<Option<T>, Task<T>> {
        loop {
            {
                let mut state = self.sim.0.state();
                let now = state.now;
                let thread = state.table.current.expect("only threads of the simulated world join");
                let living = self.process.and_then(|process| state.processes.get_mut(&process));
                match living {
                    None => break,
                    Some(_) if deadline.is_some_and(|deadline| deadline <= now) => {
                        drop(state);
                        return Err(self);
                    }
                    Some(process) if !process.joiners.contains(&thread) => process.joiners.push(thread),
                    Some(_) => {}
                }
            }
            self.sim.0.park(deadline);
        }
        Ok(self.result.lock().unwrap_or_else(PoisonError::into_inner).take())
    }
}
