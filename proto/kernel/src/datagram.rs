//! Datagrams: endpoints with FLIP addresses of their own, and the search for a port of theirs.
//!
//! Everything here begins with a header of its own, which is no RPC header: the byte that would be the kind of an RPC
//! packet is zero. So whatever a program puts into a datagram, no kernel takes it for a part of a transaction, and an
//! endpoint takes nothing else.
//!
//! ```text
//!  0            4      5      8           14     16
//!  +------------+------+------+-----------+------+-------
//!  | "\0\0DG"   | kind | zero | put-port  | zero | data
//!  +------------+------+------+-----------+------+-------
//! ```
//!
//! DATA (1) goes to an endpoint, its port null when it was sent to the address. LOCATE (2) is a FLIP broadcast of a
//! kernel's own address, HEREIS (3) an endpoint's answer to it.
//!
//! # Source
//! Ours. Amoeba's FLIP interface gave programs `flip_unicast` itself; here the kernel writes the source.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use amoeba_cap::{GetPort, PutPort};
use amoeba_flip::{HOPS_MAX, Head, Manner};
use amoeba_rpc::{PortCache, Server};
use amoeba_threads::Instant;
use amoeba_wire::Status;
use amoeba_wire::packet::Address;
use amoeba_world::{DATAGRAM_SIZE_MAX, Datagram, Destination};

use crate::{ANSWER_LOCATE_TIMEOUT, Event, Kernel, ProcessId, Timer};

/// Endpoints that one process may have.
pub const ENDPOINTS_PER_PROCESS_MAX: usize = 256;
/// Datagrams that wait at one endpoint; past it the oldest is dropped.
pub const DATAGRAMS_MAX: usize = 64;
/// Bytes of datagrams that wait at all endpoints; past it the newest is dropped.
pub const DATAGRAMS_SIZE_MAX: usize = 64 << 20;
/// Ports that may be searched for at once; past it what is sent to another is lost.
pub const SEARCHES_MAX: usize = 64;
/// Datagrams that wait for the same search; past it the newest is lost.
pub const SEARCH_QUEUE_MAX: usize = 16;
/// LOCATEs that are sent in search of a port, unless it is found before.
pub const SEARCH_LOCATES: u32 = 4;
/// Time between two of them, and after the last: what still waits then is lost.
pub const SEARCH_INTERVAL: Duration = Duration::from_millis(250);

const HEADER_SIZE: usize = 16;
/// The protocol's number, as the first bytes of a FLIP message.
const PROTOCOL: [u8; 4] = *b"\0\0DG";

/// An endpoint of a process; never used again in the kernel's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointId(pub u64);

/// An endpoint that was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Names it to the kernel.
    pub id: EndpointId,
    /// Names it to everybody.
    pub address: Address,
    /// The image of its port, if it has one.
    pub put_port: Option<PutPort>,
}

/// What datagrams have done so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counters {
    sent: u64,
    received: u64,
    dropped: u64,
}

/// An endpoint.
struct Endpoint {
    process: ProcessId,
    address: Address,
    put_port: Option<PutPort>,
    queue: VecDeque<Datagram>,
    /// Its process is to be told of the next datagram.
    waits: bool,
}

/// Datagrams that wait until their port is found.
struct Search {
    /// LOCATEs sent so far.
    locates: u32,
    /// Senders, and messages that lack only where to go.
    waiting: Vec<(Address, Vec<u8>)>,
}

/// All endpoints of a host, and what is known of those elsewhere.
pub(crate) struct Endpoints {
    /// The kernel's own address, from which it searches.
    searcher: Address,
    table: BTreeMap<EndpointId, Endpoint>,
    addresses: BTreeMap<Address, EndpointId>,
    /// The endpoints of a port here; the first is the next to get a datagram.
    ports: BTreeMap<PutPort, VecDeque<EndpointId>>,
    cache: PortCache,
    searches: BTreeMap<PutPort, Search>,
    /// Bytes that wait at all endpoints.
    queued_size: usize,
    last: u64,
    counters: Counters,
}

impl Endpoints {
    /// None yet.
    pub(crate) fn new(searcher: Address) -> Endpoints {
        Endpoints {
            searcher,
            table: BTreeMap::new(),
            addresses: BTreeMap::new(),
            ports: BTreeMap::new(),
            cache: PortCache::default(),
            searches: BTreeMap::new(),
            queued_size: 0,
            last: 0,
            counters: Counters::default(),
        }
    }

    /// Whether messages to this address are datagrams or answers to searches for them.
    pub(crate) fn owns(&self, address: Address) -> bool {
        address == self.searcher || self.addresses.contains_key(&address)
    }

    /// This address is gone.
    pub(crate) fn forget(&mut self, address: Address) {
        self.cache.forget(address);
    }

    /// Rows for `std_status`.
    pub(crate) fn status(&self) -> [(&'static str, u64); 4] {
        [
            ("datagram endpoints", self.table.len() as u64),
            ("datagrams sent", self.counters.sent),
            ("datagrams received", self.counters.received),
            ("datagrams dropped", self.counters.dropped),
        ]
    }

    /// Queues what has arrived; the endpoint's process if it is to be told.
    fn arrived(&mut self, id: EndpointId, datagram: Datagram) -> Option<ProcessId> {
        if self.queued_size + datagram.data.len() > DATAGRAMS_SIZE_MAX {
            self.counters.dropped += 1;
            return None;
        }
        let endpoint = self.table.get_mut(&id)?;
        if endpoint.queue.len() >= DATAGRAMS_MAX
            && let Some(oldest) = endpoint.queue.pop_front()
        {
            self.queued_size -= oldest.data.len();
            self.counters.dropped += 1;
        }
        self.queued_size += datagram.data.len();
        endpoint.queue.push_back(datagram);
        std::mem::take(&mut endpoint.waits).then_some(endpoint.process)
    }

    /// The endpoint here that is to get the next datagram for a port.
    fn turn(&mut self, port: PutPort) -> Option<Address> {
        let endpoints = self.ports.get_mut(&port)?;
        let id = *endpoints.front()?;
        endpoints.rotate_left(1);
        self.table.get(&id).map(|endpoint| endpoint.address)
    }

    fn has_port(&self, id: EndpointId, port: PutPort) -> bool {
        port.is_null() || self.table.get(&id).is_some_and(|endpoint| endpoint.put_port == Some(port))
    }
}

impl Kernel {
    /// A new endpoint of the process.
    ///
    /// # Errors
    /// RPC_BADPORT for the null port, RPC_TRYAGAIN when the process has too many.
    pub fn open_endpoint(&mut self, process: ProcessId, port: Option<&GetPort>) -> Result<Opened, Status> {
        if port.is_some_and(GetPort::is_null) {
            return Err(Status::RPC_BADPORT);
        }
        let own = self.endpoints.table.values().filter(|endpoint| endpoint.process == process).count();
        if !self.processes.contains_key(&process) || own >= ENDPOINTS_PER_PROCESS_MAX {
            return Err(Status::RPC_TRYAGAIN);
        }
        let (address, put_port) = (self.new_address(), port.map(|port| self.secret.put_port(port)));
        self.endpoints.last += 1;
        let id = EndpointId(self.endpoints.last);
        self.flip.register(address, HEADER_SIZE + DATAGRAM_SIZE_MAX);
        self.endpoints.addresses.insert(address, id);
        if let Some(port) = put_port {
            self.endpoints.ports.entry(port).or_default().push_back(id);
        }
        let endpoint = Endpoint { process, address, put_port, queue: VecDeque::new(), waits: false };
        self.endpoints.table.insert(id, endpoint);
        Ok(Opened { id, address, put_port })
    }

    /// The endpoint is no more; what waits at it is lost.
    pub fn close_endpoint(&mut self, process: ProcessId, id: EndpointId) {
        let endpoints = &mut self.endpoints;
        if endpoints.table.get(&id).is_none_or(|endpoint| endpoint.process != process) {
            return;
        }
        let endpoint = endpoints.table.remove(&id).expect("found just now");
        endpoints.addresses.remove(&endpoint.address);
        endpoints.queued_size -= endpoint.queue.iter().map(|datagram| datagram.data.len()).sum::<usize>();
        if let Some(port) = endpoint.put_port
            && let Some(others) = endpoints.ports.get_mut(&port)
        {
            others.retain(|other| *other != id);
            if others.is_empty() {
                endpoints.ports.remove(&port);
            }
        }
        self.flip.unregister(endpoint.address);
    }

    /// The process has ended.
    pub(crate) fn close_endpoints(&mut self, process: ProcessId) {
        let own = self.endpoints.table.iter().filter(|(_, endpoint)| endpoint.process == process);
        for id in own.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.close_endpoint(process, id);
        }
    }

    /// The oldest datagram that waits at an endpoint of the process; `Ok(None)` when none does: then one
    /// [`Event::Datagram`] will say that there is one.
    ///
    /// # Errors
    /// RPC_BADPORT when the process has no such endpoint.
    pub fn receive(&mut self, process: ProcessId, id: EndpointId) -> Result<Option<Datagram>, Status> {
        let endpoint = self.endpoints.table.get_mut(&id).filter(|endpoint| endpoint.process == process);
        let endpoint = endpoint.ok_or(Status::RPC_BADPORT)?;
        let datagram = endpoint.queue.pop_front();
        endpoint.waits = datagram.is_none();
        if let Some(datagram) = &datagram {
            self.endpoints.queued_size -= datagram.data.len();
            self.endpoints.counters.received += 1;
        }
        Ok(datagram)
    }

    /// Sends a datagram of the process, from one of its endpoints or (`None`) from nowhere that hears an answer.
    ///
    /// # Errors
    /// RPC_BADPORT for a null destination, or a source that is no endpoint of the process; RPC_BADADDRESS for more than
    /// [`DATAGRAM_SIZE_MAX`] bytes.
    pub fn send_datagram(
        &mut self,
        now: Instant,
        process: ProcessId,
        from: Option<Address>,
        to: Destination,
        data: &[u8],
    ) -> Result<(), Status> {
        let own = |address: &Address| {
            let id = self.endpoints.addresses.get(address);
            id.and_then(|id| self.endpoints.table.get(id)).is_some_and(|endpoint| endpoint.process == process)
        };
        let from = match from {
            Some(address) => Some(address).filter(own),
            None => self.address(process),
        };
        let from = from.ok_or(Status::RPC_BADPORT)?;
        if data.len() > DATAGRAM_SIZE_MAX {
            return Err(Status::RPC_BADADDRESS);
        }
        match to {
            Destination::Address(address) if address.is_null() => return Err(Status::RPC_BADPORT),
            Destination::Port(port) if port.is_null() => return Err(Status::RPC_BADPORT),
            Destination::Address(address) => {
                self.send_data(now, from, address, message(Kind::Data, PutPort::NULL, data));
            }
            Destination::Port(port) => self.send_to_port(now, from, port, data),
        }
        self.endpoints.counters.sent += 1;
        self.pump(now);
        Ok(())
    }

    fn send_data(&mut self, now: Instant, from: Address, to: Address, payload: Vec<u8>) {
        let manner = Manner { secure: true, reported: false };
        self.flip.unicast(now, from, to, payload, manner, ANSWER_LOCATE_TIMEOUT);
    }

    fn send_to_port(&mut self, now: Instant, from: Address, port: PutPort, data: &[u8]) {
        let payload = message(Kind::Data, port, data);
        let known = self.endpoints.turn(port);
        let known = known.or_else(|| self.endpoints.cache.lookup(port).map(|server| server.address));
        match known {
            Some(to) => self.send_data(now, from, to, payload),
            None => self.wait_for_port(now, port, from, payload),
        }
    }

    /// Keeps a datagram until its port is found; the first one begins the search.
    fn wait_for_port(&mut self, now: Instant, port: PutPort, from: Address, payload: Vec<u8>) {
        let endpoints = &mut self.endpoints;
        if let Some(search) = endpoints.searches.get_mut(&port) {
            match search.waiting.len() < SEARCH_QUEUE_MAX {
                true => search.waiting.push((from, payload)),
                false => endpoints.counters.dropped += 1,
            }
            return;
        }
        if !self.flip.has_links() || endpoints.searches.len() >= SEARCHES_MAX {
            endpoints.counters.dropped += 1;
            return;
        }
        endpoints.searches.insert(port, Search { locates: 0, waiting: vec![(from, payload)] });
        self.search_on(now, port);
    }

    /// One more LOCATE, or the end of the search.
    pub(crate) fn search_on(&mut self, now: Instant, port: PutPort) {
        let Some(search) = self.endpoints.searches.get_mut(&port) else { return };
        if search.waiting.is_empty() || search.locates >= SEARCH_LOCATES {
            self.endpoints.counters.dropped += search.waiting.len() as u64;
            self.endpoints.searches.remove(&port);
            return;
        }
        search.locates += 1;
        self.timers.insert((now + SEARCH_INTERVAL, Timer::Datagrams(port)));
        self.flip.broadcast(self.endpoints.searcher, HOPS_MAX, &message(Kind::Locate, port, &[]));
    }

    /// A message for an endpoint of this host, or for its searches.
    pub(crate) fn handle_datagram(
        &mut self,
        now: Instant,
        to: Address,
        from: Address,
        head: &Head,
        data: Vec<u8>,
        total: usize,
    ) {
        let parsed = (head.len() + data.len() == total).then(|| parse(head)).flatten();
        match (parsed, self.endpoints.addresses.get(&to).copied()) {
            (Some((Kind::Data, port)), Some(id)) if self.endpoints.has_port(id, port) => {
                let datagram = Datagram { from, data: [&head[HEADER_SIZE..], &data].concat() };
                if let Some(process) = self.endpoints.arrived(id, datagram) {
                    self.events.push_back(Event::Datagram { process, endpoint: id });
                }
            }
            (Some((Kind::Hereis, port)), None) => self.datagram_port_found(now, port, from),
            _ => self.endpoints.counters.dropped += 1,
        }
    }

    fn datagram_port_found(&mut self, now: Instant, port: PutPort, address: Address) {
        // Only who was asked is believed, and the answers of others to the same question are welcome while it is open.
        let Some(search) = self.endpoints.searches.get_mut(&port) else { return };
        let waiting = std::mem::take(&mut search.waiting);
        self.endpoints.cache.insert(port, Server { address, round_trip: Duration::ZERO });
        for (from, payload) in waiting {
            self.send_data(now, from, address, payload);
        }
    }

    /// A FLIP broadcast: a search for a port of ours, or none of our business.
    pub(crate) fn handle_datagram_broadcast(&mut self, now: Instant, from: Address, payload: &[u8]) {
        let Some((Kind::Locate, port)) = parse(payload) else { return };
        if let Some(address) = self.endpoints.turn(port) {
            self.send_data(now, address, from, message(Kind::Hereis, port, &[]));
        }
    }

    /// A message came back: whether it was one of ours. Its receiver is gone.
    pub(crate) fn datagram_undelivered(&mut self, to: Address, payload: &[u8]) -> bool {
        let ours = payload.starts_with(&PROTOCOL) && parse(payload).is_some();
        if ours {
            self.endpoints.cache.forget(to);
            self.endpoints.counters.dropped += 1;
        }
        ours
    }
}

/// What a message of this protocol says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Kind {
    Data = 1,
    Locate = 2,
    Hereis = 3,
}

fn message(kind: Kind, port: PutPort, data: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_SIZE + data.len());
    bytes.extend_from_slice(&PROTOCOL);
    bytes.extend_from_slice(&[kind as u8, 0, 0, 0]);
    bytes.extend_from_slice(&port.to_bytes());
    bytes.extend_from_slice(&[0; 2]);
    bytes.extend_from_slice(data);
    bytes
}

/// Kind and port of a message; `None` when it is none of this protocol.
fn parse(payload: &[u8]) -> Option<(Kind, PutPort)> {
    let (header, _) = payload.split_first_chunk::<HEADER_SIZE>()?;
    let [p0, p1, p2, p3, kind, 0, 0, 0, port @ .., 0, 0] = *header else { return None };
    let kind = [Kind::Data, Kind::Locate, Kind::Hereis].into_iter().find(|known| *known as u8 == kind)?;
    ([p0, p1, p2, p3] == PROTOCOL).then(|| (kind, PutPort::from_bytes(port)))
}

#[cfg(test)]
mod tests {
    use amoeba_wire::packet::RpcHeader;

    use super::*;

    #[test]
    fn no_datagram_can_be_taken_for_a_part_of_a_transaction() {
        bolero::check!().for_each(|bytes: &[u8]| {
            let (port, data) = bytes.split_at(bytes.len().min(6));
            let mut six = [0; 6];
            six[..port.len()].copy_from_slice(port);
            let port = PutPort::from_bytes(six);
            for kind in [Kind::Data, Kind::Locate, Kind::Hereis] {
                let message = message(kind, port, data);
                assert_eq!(parse(&message), Some((kind, port)));
                assert_eq!(&message[HEADER_SIZE..], data);
                assert!(RpcHeader::parse(&message).is_none());
            }
            if RpcHeader::parse(bytes).is_some() {
                assert!(parse(bytes).is_none());
            }
        });
    }
}
