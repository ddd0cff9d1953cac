//! The transaction kernel of one host: F-box, port table, RPC endpoints of the attached processes, and the FLIP box,
//! joined into one state machine.
//!
//! Sans I/O: it is told the time, the packets that arrived and what processes ask for; it gives packets to send and
//! events for processes. It opens no socket, reads no clock and starts no thread, so `linux` and `sim` drive the same
//! code. Whoever drives it calls in, then empties [`Kernel::poll_event`] and [`Kernel::poll_transmit`], then sleeps
//! until [`Kernel::poll_timeout`].
//!
//! A transaction between two processes of this host is handed over directly (`serve`); one with another host goes
//! through the state machines of `amoeba-rpc` (`transact`, `network`). Both have the same semantics.
//!
//! Modules: this one holds the types and the table of processes, [`transact`] the client side, [`serve`] the server
//! side, [`network`] what comes from and goes to the FLIP box, [`introduce`] who is to talk directly, [`peers`] hosts
//! that are gone and messages that take long, [`ports`] who listens where, [`owed`] acknowledgements that wait,
//! [`datagram`] what goes without a transaction.
#![forbid(unsafe_code)]

mod datagram;
mod introduce;
mod network;
mod owed;
mod path;
mod peers;
mod ports;
mod reports;
mod serve;
mod transact;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use amoeba_cap::{GetPort, PutPort, SystemSecret};
use amoeba_flip::{FlipBox, PACKET_LIFE_MAX};
pub use amoeba_flip::{LOCATION_SIZE_MAX, LinkConfig, LinkId, Location, PACKET_SIZE_MIN, Packet, Transmit};
use amoeba_rpc::{Clients, HEADERS_SIZE, PortCache};
use amoeba_threads::Instant;
use amoeba_wire::packet::Address;
use amoeba_wire::{Command, Status};
use amoeba_world::{Caller, Entropy, Error, Message, random};
pub use datagram::{
    DATAGRAMS_MAX, DATAGRAMS_SIZE_MAX, ENDPOINTS_PER_PROCESS_MAX, EndpointId, Opened, SEARCH_INTERVAL,
    SEARCH_LOCATES, SEARCH_QUEUE_MAX, SEARCHES_MAX,
};

pub use introduce::Introduction;
use network::PortLocate;
pub use path::{Hop, Path};
use ports::Port;
use serve::Request;
use transact::ClientSlot;

/// Processes that may be attached at once.
pub const PROCESSES_MAX: usize = 16384;
/// Ports that one process may listen on.
pub const PORTS_PER_PROCESS_MAX: usize = 1024;
/// Calls of getreq that one process may have waiting.
pub const GETREQS_MAX: usize = 4096;
/// Requests that may wait for a server thread, per port and process.
pub const QUEUE_MAX: usize = 1024;
/// Bytes of requests that may wait for server threads in all, unless the queue is empty.
pub const QUEUED_SIZE_MAX: usize = 1 << 30;

/// Bytes of replies to other hosts that are kept until they are acknowledged, in all, unless it is a single one. Past it
/// the process that keeps the most loses its oldest.
pub const KEPT_REPLIES_SIZE_MAX: usize = if cfg!(test) { 4 << 20 } else { 1 << 30 };

/// A process attached to this kernel; never used again in the kernel's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProcessId(pub u64);

/// A client thread of a process: at most one transaction at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub u16);

/// One call of getreq, named by the process that made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GetreqId(pub u64);

/// A request that was delivered to a process and awaits its reply; never used again in the kernel's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// What a process is to be told.
#[derive(Debug)]
pub enum Event {
    /// The transaction of this slot has ended.
    Reply {
        /// The client.
        process: ProcessId,
        /// Its thread.
        slot: Slot,
        /// How it ended.
        result: Result<Message, Error>,
    },
    /// A request for this call of getreq.
    Request {
        /// The server.
        process: ProcessId,
        /// Its call of getreq, which is thereby over.
        getreq: GetreqId,
        /// Names the request in [`Kernel::putrep`].
        request: RequestId,
        /// Who sent it.
        caller: Caller,
        /// What it says.
        message: Message,
    },
    /// [`Kernel::receive`] has something, after it had nothing.
    Datagram {
        /// Whose endpoint.
        process: ProcessId,
        /// Which.
        endpoint: EndpointId,
    },
}

/// How a kernel is made.
pub struct Config {
    /// The system's secret: the key of F and of FLIP addresses.
    pub secret: SystemSecret,
    /// Identifiers, addresses.
    pub entropy: Arc<dyn Entropy>,
    /// Links, in the order of their [`LinkId`]s from 0.
    pub links: Vec<LinkConfig>,
}

/// What the kernel has done so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counters {
    /// Transactions between processes of this host.
    pub local: u64,
    /// Transactions with other hosts.
    pub remote: u64,
    /// Requests of other hosts given to processes here.
    pub served: u64,
    /// Copies of requests that were dropped.
    pub duplicates: u64,
    /// Searches for ports begun.
    pub locates: u64,
    /// Transactions that ended as "may have been executed".
    pub failures: u64,
    /// Introductions of two processes of this host.
    pub introductions: u64,
}

/// An attached process.
struct Process {
    address: Address,
    kid: [u8; 8],
    /// The last transaction identifier it used; serial arithmetic.
    tid: u32,
    slots: BTreeMap<Slot, ClientSlot>,
    /// When transactions end however far they are, for those that have such a time.
    deadlines: BTreeMap<Slot, Instant>,
    ports: BTreeSet<PutPort>,
    getreqs: BTreeMap<GetreqId, PutPort>,
    executing: BTreeSet<RequestId>,
    clients: Clients,
    clients_timer: Option<Instant>,
    /// What its kept replies count in [`Kernel::kept_size`].
    kept_size: usize,
    message_size_max: usize,
}

/// A process that has ended, for as long as copies of packets to it may be under way.
struct Departed {
    clients: Clients,
}

/// What is to be done at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Slot(ProcessId, Slot),
    Deadline(ProcessId, Slot),
    Clients(ProcessId),
    Locate(PutPort),
    Departed(Address),
    Datagrams(PutPort),
    Owed(ProcessId, Slot),
}

/// The state machine. See the crate's head for how it is driven.
pub struct Kernel {
    secret: SystemSecret,
    entropy: Arc<dyn Entropy>,
    flip: FlipBox,
    processes: BTreeMap<ProcessId, Process>,
    addresses: BTreeMap<Address, ProcessId>,
    departed: BTreeMap<Address, Departed>,
    ports: BTreeMap<PutPort, Port>,
    requests: BTreeMap<RequestId, Request>,
    queued_size: usize,
    /// Bytes of replies that all processes keep.
    kept_size: usize,
    cache: PortCache,
    locates: BTreeMap<PutPort, PortLocate>,
    /// Client threads whose transactions wait for their port to be found.
    searching: BTreeSet<(PutPort, ProcessId, Slot)>,
    endpoints: datagram::Endpoints,
    /// Processes elsewhere whose kernels send reports of what has arrived.
    reporting: BTreeSet<Address>,
    /// Acknowledgements of replies that wait for the next request of their client thread.
    owed: BTreeMap<(ProcessId, Slot), owed::Owed>,
    timers: BTreeSet<(Instant, Timer)>,
    events: VecDeque<Event>,
    counters: Counters,
    last_process: u64,
    last_request: u64,
}

impl Kernel {
    /// A kernel with no process. It boots at `now`: for [`PACKET_LIFE_MAX`] it answers no NOTHERE.
    pub fn new(config: Config, now: Instant) -> Kernel {
        let message_id = u32::from_le_bytes(random(&*config.entropy));
        let searcher = public_address(&config.secret, &*config.entropy);
        let mut flip = FlipBox::new(config.links, message_id, now);
        flip.register(searcher, HEADERS_SIZE);
        Kernel {
            flip,
            secret: config.secret,
            entropy: config.entropy,
            processes: BTreeMap::new(),
            addresses: BTreeMap::new(),
            departed: BTreeMap::new(),
            ports: BTreeMap::new(),
            requests: BTreeMap::new(),
            queued_size: 0,
            kept_size: 0,
            cache: PortCache::default(),
            locates: BTreeMap::new(),
            searching: BTreeSet::new(),
            endpoints: datagram::Endpoints::new(searcher),
            reporting: BTreeSet::new(),
            owed: BTreeMap::new(),
            timers: BTreeSet::new(),
            events: VecDeque::new(),
            counters: Counters::default(),
            last_process: 0,
            last_request: 0,
        }
    }

    /// A new process. `Err(RPC_TRYAGAIN)` when the host has its most processes.
    pub fn attach(&mut self) -> Result<ProcessId, Status> {
        if self.processes.len() >= PROCESSES_MAX {
            return Err(Status::RPC_TRYAGAIN);
        }
        self.last_process += 1;
        let id = ProcessId(self.last_process);
        let address = self.new_address();
        let tid = u32::from_le_bytes(random(&*self.entropy));
        let process = Process {
            address,
            kid: random(&*self.entropy),
            tid,
            slots: BTreeMap::new(),
            deadlines: BTreeMap::new(),
            ports: BTreeSet::new(),
            getreqs: BTreeMap::new(),
            executing: BTreeSet::new(),
            clients: Clients::default(),
            clients_timer: None,
            kept_size: 0,
            message_size_max: HEADERS_SIZE,
        };
        self.flip.register(address, process.message_size_max);
        self.addresses.insert(address, id);
        self.processes.insert(id, process);
        Ok(id)
    }

    /// The process's public FLIP address.
    pub fn address(&self, process: ProcessId) -> Option<Address> {
        self.processes.get(&process).map(|process| process.address)
    }

    /// The process has ended: what it was executing fails at its clients, what it had asked for is forgotten.
    pub fn detach(&mut self, now: Instant, process: ProcessId) {
        let Some(slots) = self.processes.get(&process).map(|process| process.slots.keys().copied()) else {
            return;
        };
        for slot in slots.collect::<Vec<_>>() {
            self.forget_slot(process, slot);
        }
        self.pay_all(now, process);
        self.stop_serving(now, process);
        self.close_endpoints(process);
        let mut process = self.processes.remove(&process).expect("found above");
        self.kept_size -= process.kept_size;
        process.clients.end(now);
        self.addresses.remove(&process.address);
        let until = now + PACKET_LIFE_MAX;
        self.departed.insert(process.address, Departed { clients: process.clients });
        self.timers.insert((until, Timer::Departed(process.address)));
        self.pump(now);
    }

    /// F: the put-port of a get-port.
    pub fn put_port(&self, port: &GetPort) -> PutPort {
        self.secret.put_port(port)
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.flip.handle_timeout(now);
        self.pump(now);
        while let Some(&(due, timer)) = self.timers.first()
            && due <= now
        {
            self.timers.pop_first();
            match timer {
                Timer::Slot(process, slot) => self.slot_timeout(now, process, slot),
                Timer::Deadline(process, slot) => self.deadline_passed(now, process, slot),
                Timer::Clients(process) => self.clients_timeout(now, process),
                Timer::Locate(port) => self.locate_again(now, port),
                Timer::Datagrams(port) => self.search_on(now, port),
                Timer::Owed(process, slot) => self.pay(now, process, slot, None),
                Timer::Departed(address) => {
                    self.departed.remove(&address);
                    self.flip.unregister(address);
                }
            }
            self.pump(now);
        }
    }

    /// When [`Kernel::handle_timeout`] is to be called next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let timer = self.timers.first().map(|(due, _)| *due);
        [timer, self.flip.poll_timeout()].into_iter().flatten().min()
    }

    /// The next packet to send, over links that take everything.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<Transmit> {
        self.flip.poll_transmit(now)
    }

    /// One more link of this host, from now on.
    pub fn add_link(&mut self, now: Instant, config: LinkConfig) -> LinkId {
        self.flip.add_link(now, config)
    }

    /// Whether requests and replies may use a link from now on; the routes learnt before are forgotten.
    pub fn set_trusted(&mut self, link: LinkId, trusted: bool) {
        self.flip.set_trusted(link, trusted);
    }

    /// The next packet to send; [`Transmit::bulk`] only to locations that are `ready` for it: it says how many bytes a
    /// packet may have that goes there now, `None` for none.
    pub fn poll_transmit_where(
        &mut self,
        now: Instant,
        ready: impl FnMut(LinkId, &Location) -> Option<usize>,
    ) -> Option<Transmit> {
        self.flip.poll_transmit_where(now, ready)
    }

    /// The next event for a process.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// What was done so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Counters and tables, a line each, for `std_status`; each layer begins with a line `# NAME`.
    pub fn status(&self) -> String {
        let (flip, done) = (self.flip.counters(), &self.counters);
        let processes = [
            ("processes", self.processes.len() as u64),
            ("ports", self.ports.len() as u64),
            ("requests under way", self.requests.len() as u64),
            ("bytes queued", self.queued_size as u64),
            ("bytes of replies kept", self.kept_size as u64),
            ("clients remembered", self.processes.values().map(|process| process.clients.len() as u64).sum()),
        ];
        let transactions = [
            ("transactions here", done.local),
            ("transactions elsewhere", done.remote),
            ("requests from elsewhere", done.served),
            ("copies dropped", done.duplicates),
            ("transactions failed", done.failures),
            ("introductions here", done.introductions),
            ("port searches", done.locates),
            ("ports cached", self.cache.len() as u64),
        ];
        let (arriving, leaving) = self.flip.held_sizes();
        let packets = [
            ("bytes arriving", arriving as u64),
            ("bytes leaving", leaving as u64),
            ("routes", self.flip.routes().len() as u64),
            ("packets in", flip.packets_in),
            ("packets out", flip.packets_out),
            ("packets dropped", flip.dropped),
            ("packets passed on", flip.forwarded),
            ("packets sent back", flip.returned),
            ("packets sent again", flip.sent_again),
            ("address searches", flip.locates),
            ("messages undelivered", flip.undelivered),
        ];
        let sections = [
            ("kernel", &processes[..]),
            ("transactions", &transactions),
            ("flip", &packets),
            ("datagrams", &self.endpoints.status()),
        ];
        let row = |(name, value): &(&str, u64)| format!("{name:24} {value}\n");
        let section = |(name, rows): &(&str, &[(&str, u64)])| {
            format!("# {name}\n{}", rows.iter().map(row).collect::<String>())
        };
        sections.iter().map(section).collect()
    }

    fn new_address(&self) -> Address {
        loop {
            let address = public_address(&self.secret, &*self.entropy);
            if !self.flip.is_local(address) {
                return address;
            }
        }
    }

    /// Lets messages of this size reach the process.
    fn widen(&mut self, process: ProcessId, data_size_max: usize) {
        let Some(process) = self.processes.get_mut(&process) else { return };
        let size_max = data_size_max.min(amoeba_wire::DATA_SIZE_MAX) + HEADERS_SIZE;
        if size_max > process.message_size_max {
            process.message_size_max = size_max;
            self.flip.register(process.address, size_max);
        }
    }

    fn set_timer(&mut self, old: Option<Instant>, new: Option<Instant>, timer: Timer) {
        if old != new {
            old.map(|old| self.timers.remove(&(old, timer)));
            new.map(|new| self.timers.insert((new, timer)));
        }
    }

    /// Ends a transaction: tells its client.
    fn finish(&mut self, process: ProcessId, slot: Slot, result: Result<Message, Error>) {
        if matches!(result, Err(Error::MaybeExecuted(_))) {
            self.counters.failures += 1;
        }
        self.clear_deadline(process, slot);
        self.events.push_back(Event::Reply { process, slot, result });
    }
}

/// A new FLIP address.
fn public_address(secret: &SystemSecret, entropy: &dyn Entropy) -> Address {
    let mut private: [u8; 8] = random(entropy);
    private[7] = 0;
    Address(secret.public_address(private))
}

/// Why a request cannot be sent at all.
fn check(request: &Message) -> Result<(), Error> {
    let Command(command) = request.header.command();
    if request.header.port.is_null() {
        Err(Error::NotSent(Status::RPC_BADPORT))
    } else if (command as i16) < 0 {
        Err(Error::NotSent(Status::RPC_COMBAD))
    } else if request.data.len() > amoeba_wire::DATA_SIZE_MAX {
        Err(Error::NotSent(Status::RPC_BADADDRESS))
    } else {
        Ok(())
    }
}

/// How long the FLIP box may search for the address of an answer.
const ANSWER_LOCATE_TIMEOUT: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests;
