//! Hosts and processes: each host has a kernel of its own, driven here, and dies with everything on it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use amoeba_cap::{PutPort, SystemSecret};
use amoeba_kernel::{
    self as kernel, EndpointId, Event, GetreqId, Kernel, LinkConfig, LinkId, Location, RequestId, Slot,
};
use amoeba_threads::Instant;
use amoeba_world::{Caller, Entropy, Error, Message};

use crate::channel::Key;
use crate::core::State;
use crate::disk::Medium;
use crate::network::{Flying, Station};
use crate::random::{NearWrap, Prng, SeededEntropy};
use crate::scheduler::{Body, ThreadId};
use crate::trace::Happening;

/// A simulated host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostId(pub(crate) u16);

/// A simulated process; never used again in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProcessId(pub(crate) u64);

/// The process of the test itself: on no host, never killed.
pub(crate) const OUTSIDE: ProcessId = ProcessId(0);

/// Makes the body of a program's main thread, given its process and what the host's wall clock is ahead.
pub(crate) type Program = Arc<dyn Fn(ProcessId, Duration) -> Body + Send + Sync>;

pub(crate) struct Host {
    /// Its station on each network that it is on; the index is the number of its kernel's link.
    pub(crate) stations: Vec<Station>,
    /// `None` while the host is down.
    pub(crate) kernel: Option<Kernel>,
    /// When the kernel wants to be called.
    pub(crate) timeout: Option<Instant>,
    attached: BTreeMap<kernel::ProcessId, ProcessId>,
    pub(crate) media: BTreeMap<String, Medium>,
    /// What is started at boot, by name.
    pub(crate) programs: Vec<(String, Program)>,
    /// Counts boots.
    pub(crate) life: u32,
    /// Disk operations until it crashes.
    pub(crate) fuse: Option<u64>,
    /// What its wall clock is ahead of others.
    pub(crate) skew: Duration,
}

/// Who starts a process again when it has ended.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Owner {
    Nobody,
    Program { host: HostId, program: usize, life: u32 },
}

pub(crate) struct Process {
    pub(crate) name: String,
    pub(crate) host: HostId,
    /// Its name at its kernel.
    pub(crate) attached: kernel::ProcessId,
    pub(crate) main: Option<ThreadId>,
    pub(crate) owner: Owner,
    pub(crate) transactions: BTreeMap<Slot, Pending<Result<Message, Error>>>,
    pub(crate) getreqs: BTreeMap<GetreqId, (PutPort, Pending<Arrived>)>,
    pub(crate) getreq_count: u64,
    /// The ports it listens on, and how large requests may be.
    pub(crate) listening: BTreeMap<PutPort, usize>,
    /// What it has asked for before: from now on over channels.
    pub(crate) asked: BTreeSet<Key>,
    /// Threads that wait for a datagram.
    pub(crate) endpoints: BTreeMap<EndpointId, Vec<ThreadId>>,
    /// Memory files that were lent to it, by their tickets, and the last ticket.
    pub(crate) lent: (BTreeMap<u64, Arc<Vec<u8>>>, u64),
    /// Threads that wait for its end.
    pub(crate) joiners: Vec<ThreadId>,
}

/// A thread waits for this.
pub(crate) struct Pending<T> {
    pub(crate) thread: ThreadId,
    pub(crate) state: PendingState<T>,
}

pub(crate) enum PendingState<T> {
    Waiting,
    Ready(T),
    /// There will be no answer; it must be asked again.
    Over,
    Cancelled,
}

/// A request, as the kernel gave it.
pub(crate) struct Arrived {
    pub(crate) request: RequestId,
    pub(crate) caller: Caller,
    pub(crate) message: Message,
}

impl State {
    pub(crate) fn add_host(&mut self, networks: &[u16]) -> HostId {
        let id = HostId(u16::try_from(self.hosts.len()).expect("fewer hosts than 2^16"));
        let stations = networks.iter().map(|network| self.network.add_station(*network)).collect();
        let mut random = Prng::new(self.seed, "host", u64::from(id.0));
        self.hosts.push(Host {
            stations,
            kernel: None,
            timeout: None,
            attached: BTreeMap::new(),
            media: BTreeMap::new(),
            programs: Vec::new(),
            life: 0,
            fuse: None,
            skew: Duration::from_micros(random.below(2_000_000)),
        });
        self.boot_host(id);
        id
    }

    fn host(&mut self, id: HostId) -> &mut Host {
        &mut self.hosts[usize::from(id.0)]
    }

    /// Switches a host on: a new kernel, and its programs again.
    pub(crate) fn boot_host(&mut self, id: HostId) {
        if self.host(id).kernel.is_some() {
            return;
        }
        let (seed, now, packet_size_max) = (self.seed, self.now, self.config.packet_size_max);
        let wraps = self.config.numbers_wrap;
        let host = self.host(id);
        host.life += 1;
        let life = host.life;
        let label = u64::from(id.0) << 32 | u64::from(life);
        let link = LinkConfig { packet_size_max, weight: 1, trusted: true, repairs: false };
        let random = Prng::new(seed, "kernel", label);
        let entropy: Arc<dyn Entropy> =
            if wraps { Arc::new(NearWrap::new(random)) } else { Arc::new(SeededEntropy::new(random)) };
        let config =
            kernel::Config { secret: system_secret(seed), entropy, links: vec![link; host.stations.len()] };
        host.kernel = Some(Kernel::new(config, now));
        let programs = host.programs.len();
        self.fault(format!("host {} boots, life {life}", id.0));
        for program in 0..programs {
            self.start_program(id, program, life);
        }
        self.pump(id);
    }

    /// Cuts a host's power: first its disks, then everything else, and nobody on it does anything any more.
    pub(crate) fn crash_host(&mut self, id: HostId) {
        if self.host(id).kernel.is_none() {
            return;
        }
        self.fault(format!("host {} crashes", id.0));
        let host = self.host(id);
        host.fuse = None;
        host.media.values().for_each(Medium::crash);
        host.kernel = None;
        host.timeout = None;
        host.attached.clear();
        let dead: Vec<ProcessId> =
            self.processes.iter().filter(|(_, process)| process.host == id).map(|(id, _)| *id).collect();
        for process in dead {
            self.end_process(process);
        }
    }

    /// Starts a program of a host, if the host still lives the life in which that was planned.
    pub(crate) fn start_program(&mut self, host: HostId, program: usize, life: u32) {
        let place = self.host(host);
        if place.life != life || place.kernel.is_none() {
            return;
        }
        let Some((name, make)) = place.programs.get(program).cloned() else {
            return;
        };
        let owner = Owner::Program { host, program, life };
        self.start_process(host, &name, owner, |process, skew| make(process, skew));
    }

    /// Starts a process; `None` on a host that is down or full.
    pub(crate) fn start_process(
        &mut self,
        host: HostId,
        name: &str,
        owner: Owner,
        body: impl FnOnce(ProcessId, Duration) -> Body,
    ) -> Option<ProcessId> {
        let attached = self.drive(host, |kernel, _| kernel.attach())?.ok()?;
        self.process_count += 1;
        let id = ProcessId(self.process_count);
        let skew = self.host(host).skew;
        self.host(host).attached.insert(attached, id);
        let main = self.table.add(id, name, body(id, skew)).ok().expect("a process may have one thread");
        self.trace.add(self.now, Happening::Start { thread: main.0, process: id.0 });
        let process = Process {
            name: name.to_owned(),
            host,
            attached,
            main: Some(main),
            owner,
            transactions: BTreeMap::new(),
            getreqs: BTreeMap::new(),
            getreq_count: 0,
            listening: BTreeMap::new(),
            asked: BTreeSet::new(),
            endpoints: BTreeMap::new(),
            lent: Default::default(),
            joiners: Vec::new(),
        };
        self.processes.insert(id, process);
        Some(id)
    }

    /// The process is no more: its kernel hears of it, its threads will unwind.
    pub(crate) fn end_process(&mut self, id: ProcessId) {
        let Some(process) = self.processes.remove(&id) else {
            return;
        };
        self.table.kill(id);
        for joiner in process.joiners {
            self.table.unpark(joiner);
        }
        self.end_channels_of(id);
        self.host(process.host).attached.remove(&process.attached);
        self.drive(process.host, |kernel, now| kernel.detach(now, process.attached));
    }

    /// Calls a kernel and carries out what it then wants; `None` if the host is down.
    pub(crate) fn drive<R>(
        &mut self,
        host: HostId,
        call: impl FnOnce(&mut Kernel, Instant) -> R,
    ) -> Option<R> {
        let now = self.now;
        let result = call(self.host(host).kernel.as_mut()?, now);
        self.pump(host);
        Some(result)
    }

    fn pump(&mut self, host: HostId) {
        while let Some(event) = self.host(host).kernel.as_mut().and_then(Kernel::poll_event) {
            self.deliver(host, event);
        }
        let now = self.now;
        let next = |kernel: &mut Kernel| kernel.poll_transmit(now);
        while let Some(transmit) = self.host(host).kernel.as_mut().and_then(next) {
            let size = transmit.packet.len();
            assert!(
                size <= self.config.packet_size_max,
                "the kernel sent {size} bytes: more than the link carries"
            );
            let to = transmit.to.map(|location| station_at(&location).expect("it came from this link"));
            let from = self.host(host).stations[usize::from(transmit.link.0)];
            self.network.send(self.now, from, to, &transmit.packet.to_vec(), &mut self.trace);
        }
        let host = self.host(host);
        host.timeout = host.kernel.as_ref().and_then(Kernel::poll_timeout);
    }

    fn deliver(&mut self, host: HostId, event: Event) {
        match event {
            Event::Reply { process, slot, result } => {
                let process = self.attached(host, process);
                let pending = process.and_then(|process| process.transactions.get_mut(&slot));
                let thread = pending.map(|pending| pending.fulfil(result));
                self.wake(thread);
            }
            Event::Request { process, getreq, request, caller, message } => {
                let process = self.attached(host, process);
                let pending = process.and_then(|process| process.getreqs.get_mut(&getreq));
                let thread = pending.map(|(_, pending)| pending.fulfil(Arrived { request, caller, message }));
                self.wake(thread);
            }
            Event::Datagram { process, endpoint } => {
                let process = self.attached(host, process);
                let threads = process.and_then(|process| process.endpoints.remove(&endpoint));
                threads.into_iter().flatten().for_each(|thread| self.table.unpark(thread));
            }
        }
    }

    fn wake(&mut self, thread: Option<ThreadId>) {
        if let Some(thread) = thread {
            self.table.unpark(thread);
        }
    }

    fn attached(&mut self, host: HostId, process: kernel::ProcessId) -> Option<&mut Process> {
        let id = self.process_at(host, process)?;
        self.processes.get_mut(&id)
    }

    /// The process that a kernel knows under this name.
    pub(crate) fn process_at(&mut self, host: HostId, process: kernel::ProcessId) -> Option<ProcessId> {
        self.host(host).attached.get(&process).copied()
    }

    /// A packet is at its station.
    pub(crate) fn packet_arrived(&mut self, flying: Flying) {
        let link = |host: &Host| host.stations.iter().position(|station| *station == flying.to);
        let found = self.hosts.iter().enumerate().find_map(|(index, host)| Some((index, link(host)?)));
        if let Some((index, link)) = found {
            let (from, link) = (location_of(flying.from), LinkId(link as u16));
            self.drive(HostId(index as u16), |kernel, now| {
                kernel.handle_packet(now, link, &from, &flying.packet);
            });
        }
    }

    pub(crate) fn process_name(&self, id: ProcessId) -> String {
        match self.processes.get(&id) {
            Some(process) => format!("process {} {:?} on host {}", id.0, process.name, process.host.0),
            None if id == OUTSIDE => "the test".to_owned(),
            None => format!("process {} (ended)", id.0),
        }
    }
}

impl<T> Pending<T> {
    pub(crate) fn new(thread: ThreadId) -> Pending<T> {
        Pending { thread, state: PendingState::Waiting }
    }

    fn fulfil(&mut self, value: T) -> ThreadId {
        self.state = PendingState::Ready(value);
        self.thread
    }
}

fn system_secret(seed: u64) -> SystemSecret {
    let mut bytes = [0; 32];
    Prng::new(seed, "secret", 0).fill(&mut bytes);
    SystemSecret::from_bytes(bytes)
}

fn location_of(station: Station) -> Location {
    Location::new(&station.0.to_be_bytes())
}

fn station_at(location: &Location) -> Option<Station> {
    Some(Station(u16::from_be_bytes(location.as_bytes().try_into().ok()?)))
}
