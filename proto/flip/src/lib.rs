//! FLIP, the Fast Local Internet Protocol: messages to addresses, wherever they are.
//!
//! An address belongs to a process, not to a host: the [`FlipBox`] of a host knows which addresses are its own,
//! searches for others (LOCATE, HEREIS), keeps the routes it learns, cuts messages into fragments and puts them
//! together again. It never retransmits: a message arrives whole, or comes back ([`Event::Undelivered`]), or is lost.
//!
//! Sans I/O: time and packets in, packets and events out. This box is an end point; it does not yet forward between
//! two links of its host.
//!
//! Modules: [`routes`](RouteTable) what is known of addresses, `reassembly` fragments to messages, `sending` messages to
//! fragments, `seen` which broadcasts were seen already.
//!
//! # Source
//! Kaashoek, van Renesse, van Staveren, Tanenbaum: FLIP, ACM TOCS 11(1), 1993; Amoeba 5.3.
#![forbid(unsafe_code)]

mod reassembly;
mod routes;
mod seen;
mod sending;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use amoeba_threads::Instant;
use amoeba_wire::packet::{
    Address, ETHERNET_PAYLOAD_MAX, FLIP_HEADER_SIZE, FlipHeader, PacketKind, flip_flag,
};

use reassembly::{Progress, Reassembly};
pub use routes::{Route, RouteTable};
use seen::Seen;
use sending::{Outbox, Sending};

/// The longest a packet may live in the network. A box that has just started answers no NOTHERE for as long, so that a
/// packet to an address of its earlier life cannot make anybody believe that it was never received.
pub const PACKET_LIFE_MAX: Duration = Duration::from_millis(500);
/// The largest hop count of a route.
pub const HOPS_MAX: u16 = 25;
/// Time between two LOCATEs for one address; doubles once the ring has reached [`HOPS_MAX`], up to
/// [`LOCATE_INTERVAL_MAX`].
pub const LOCATE_INTERVAL: Duration = Duration::from_millis(100);
/// The longest time between two LOCATEs: a search that new messages keep alive must not fall asleep.
pub const LOCATE_INTERVAL_MAX: Duration = Duration::from_millis(800);
/// Messages that may wait for one address to be located.
pub const LOCATE_QUEUE_MAX: usize = 64;
/// Bytes of messages that may wait for addresses to be located in all; past it a message comes back, unless none waits.
pub const LOCATE_QUEUE_SIZE_MAX: usize = if cfg!(test) { 1 << 20 } else { 1280 << 20 };
/// Addresses that may be searched for at once.
pub const LOCATES_MAX: usize = 1024;
/// The smallest packet a link must carry: a header and the first fragment of a transaction (24 + 32 bytes).
pub const PACKET_SIZE_MIN: usize = FLIP_HEADER_SIZE + 56;
/// Bytes a location may have.
pub const LOCATION_SIZE_MAX: usize = 32;

/// A network of this host, numbered by whoever drives the box.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u16);

/// Where on a link: opaque here, compared byte by byte, at most [`LOCATION_SIZE_MAX`] bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Location(pub Vec<u8>);

/// What the box must know of a link.
#[derive(Clone, Copy, Debug)]
pub struct LinkConfig {
    /// The most bytes of a FLIP packet (header included) that the link carries; at least [`PACKET_SIZE_MIN`].
    pub packet_size_max: usize,
    /// What crossing it adds to a hop count.
    pub weight: u16,
    /// Whether SECURITY messages may use it.
    pub trusted: bool,
}

/// A packet to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// On which link.
    pub link: LinkId,
    /// To whom; `None` for everybody on the link.
    pub to: Option<Location>,
    /// A whole FLIP packet.
    pub packet: Vec<u8>,
    /// It is part of a message too large for one Ethernet frame: a link should neither lose it to its own haste nor let
    /// small packets wait for it.
    pub bulk: bool,
}

/// Why a message came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Undelivered {
    /// Nobody answers for the address, or the host that did says it is no longer there.
    NotHere,
    /// Only untrusted networks lead there.
    Untrusted,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A message for an address of this host.
    Message {
        /// Whom it is for.
        to: Address,
        /// Who sent it.
        from: Address,
        /// The message; only its beginning when it is larger than the address takes.
        payload: Vec<u8>,
        /// Bytes of the whole message.
        total: usize,
        /// Whether it came in one fragment.
        whole: bool,
    },
    /// A message for everybody.
    Broadcast {
        /// Who sent it.
        from: Address,
        /// The message.
        payload: Vec<u8>,
    },
    /// The beginning of a message that an address of this host sent came back.
    Undelivered {
        /// Who sent it.
        from: Address,
        /// Whom it was for.
        to: Address,
        /// Its first fragment.
        payload: Vec<u8>,
        /// Why.
        reason: Undelivered,
    },
}

/// A message that leaves.
#[derive(Clone, Debug)]
struct Outgoing {
    from: Address,
    to: Address,
    payload: Vec<u8>,
    secure: bool,
}

struct Locating {
    hops: u16,
    interval: Duration,
    next: Instant,
    deadline: Instant,
    waiting: Vec<Outgoing>,
}

/// The FLIP box of a host.
pub struct FlipBox {
    links: Vec<LinkConfig>,
    /// Addresses of this host, and the largest message each takes.
    local: BTreeMap<Address, usize>,
    routes: RouteTable,
    locating: BTreeMap<Address, Locating>,
    /// Bytes of messages that wait there.
    locating_size: usize,
    seen: Seen,
    reassembly: Reassembly,
    outbox: Outbox,
    silent_until: Instant,
    message_id: u32,
    events: VecDeque<Event>,
    transmits: VecDeque<Transmit>,
    counters: Counters,
}

/// What the box has done so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counters {
    /// Packets taken from links.
    pub packets_in: u64,
    /// Packets given to links.
    pub packets_out: u64,
    /// Packets dropped because they were not FLIP, duplicates, or too old.
    pub dropped: u64,
    /// Searches begun.
    pub locates: u64,
    /// Messages that came back.
    pub undelivered: u64,
}

impl FlipBox {
    /// A box with these links, numbered from 0, that starts at `now`. `message_id` is random, so that messages of an
    /// earlier life are not taken for new ones.
    pub fn new(links: Vec<LinkConfig>, message_id: u32, now: Instant) -> FlipBox {
        for link in &links {
            assert!(
                link.packet_size_max >= PACKET_SIZE_MIN,
                "a link carries at least a transaction's headers"
            );
        }
        FlipBox {
            links,
            local: BTreeMap::new(),
            routes: RouteTable::default(),
            locating: BTreeMap::new(),
            locating_size: 0,
            seen: Seen::default(),
            reassembly: Reassembly::default(),
            outbox: Outbox::default(),
            silent_until: now + PACKET_LIFE_MAX,
            message_id,
            events: VecDeque::new(),
            transmits: VecDeque::new(),
            counters: Counters::default(),
        }
    }

    /// `address` (a public one) is here from now on and takes messages of up to `message_size_max` bytes.
    pub fn register(&mut self, address: Address, message_size_max: usize) {
        self.local.insert(address, message_size_max);
    }

    /// `address` is no longer here.
    pub fn unregister(&mut self, address: Address) {
        self.local.remove(&address);
        self.reassembly.forget(address);
    }

    /// Whether the address is one of this host.
    pub fn is_local(&self, address: Address) -> bool {
        self.local.contains_key(&address)
    }

    /// Forgets where `address` is, so that the next message to it searches again.
    pub fn invalidate(&mut self, address: Address) {
        self.routes.forget(address);
    }

    /// The routes known now.
    pub fn routes(&self) -> &RouteTable {
        &self.routes
    }

    /// What was done so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Sends a message, after a search of at most `locate_timeout` if the address is not known. `secure` keeps it off
    /// untrusted networks.
    pub fn unicast(
        &mut self,
        now: Instant,
        from: Address,
        to: Address,
        payload: Vec<u8>,
        secure: bool,
        locate_timeout: Duration,
    ) {
        let message = Outgoing { from, to, payload, secure };
        if self.local.contains_key(&to) {
            return self.deliver_here(message);
        }
        match self.routes.best(to, secure) {
            Some(route) => {
                let route = route.clone();
                self.send_message(now, &route, message);
            }
            None if self.routes.knows(to) => self.undelivered(message, Undelivered::Untrusted),
            None => self.locate(now, message, locate_timeout),
        }
    }

    /// Sends a message of one packet to everybody within `hops_max`. Returns whether any link is that near.
    pub fn broadcast(&mut self, from: Address, hops_max: u16, payload: &[u8]) -> bool {
        let message_id = self.next_message_id();
        let mut sent = false;
        for index in 0..self.links.len() {
            let link = self.links[index];
            if link.weight > hops_max || FLIP_HEADER_SIZE + payload.len() > link.packet_size_max {
                continue;
            }
            let header = FlipHeader {
                kind: PacketKind::Multidata,
                flags: 0,
                hops: link.weight,
                hops_max,
                to: Address::NULL,
                from,
                message_id,
                length: payload.len() as u32,
                offset: 0,
                total: payload.len() as u32,
            };
            self.transmit(LinkId(index as u16), None, &header, payload);
            sent = true;
        }
        sent
    }

    /// A packet arrived on `link` from `location`.
    pub fn handle_packet(&mut self, now: Instant, link: LinkId, location: &Location, packet: &[u8]) {
        self.counters.packets_in += 1;
        let Some(config) = self.links.get(usize::from(link.0)).copied() else { return self.drop_packet() };
        let Some((mut header, payload, big_endian)) = FlipHeader::parse(packet) else {
            return self.drop_packet();
        };
        if header.hops > header.hops_max || header.from.is_null() || location.0.len() > LOCATION_SIZE_MAX {
            return self.drop_packet();
        }
        if self.local.contains_key(&header.from) && is_outward(header.kind) {
            return self.drop_packet(); // our own broadcast came round, or somebody lies
        }
        if !config.trusted {
            header.flags |= flip_flag::UNSAFE;
        }
        let arrival = Arrival { now, link, location, config };
        match header.kind {
            PacketKind::Locate => self.handle_locate(&arrival, &header),
            PacketKind::Hereis => self.handle_hereis(&arrival, &header, payload, big_endian),
            PacketKind::Unidata => self.handle_unidata(&arrival, &header, payload),
            PacketKind::Multidata => self.handle_multidata(&arrival, &header, payload),
            PacketKind::Nothere => self.handle_returned(&arrival, &header, payload, Undelivered::NotHere),
            PacketKind::Untrusted => self.handle_returned(&arrival, &header, payload, Undelivered::Untrusted),
        }
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.reassembly.expire(now);
        self.routes.expire(now);
        let due: Vec<Address> =
            self.locating.iter().filter(|(_, search)| search.next <= now).map(|(to, _)| *to).collect();
        for address in due {
            self.locate_again(now, address);
        }
    }

    /// When [`FlipBox::handle_timeout`] is to be called next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let searches = self.locating.values().map(|search| search.next).min();
        [searches, self.reassembly.next_timeout(), self.routes.next_timeout()].into_iter().flatten().min()
    }

    /// The next packet to send, over links that take everything.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<Transmit> {
        self.poll_transmit_where(now, |_, _| true)
    }

    /// The next packet to send; bulk only to locations that are `ready` for it.
    pub fn poll_transmit_where(
        &mut self,
        now: Instant,
        ready: impl FnMut(LinkId, &Location) -> bool,
    ) -> Option<Transmit> {
        let transmit = self.transmits.pop_front().or_else(|| self.outbox.next(now, ready))?;
        self.counters.packets_out += 1;
        Some(transmit)
    }

    /// Whether a message between these addresses is still leaving, or waits until its address is found: `matches` is
    /// given what it begins with.
    pub fn leaving(&self, from: Address, to: Address, mut matches: impl FnMut(&[u8]) -> bool) -> bool {
        let mut waiting = self.locating.get(&to).into_iter().flat_map(|search| &search.waiting);
        waiting.any(|message| message.from == from && matches(&message.payload))
            || self.outbox.has(from, to, matches)
    }

    /// Whether a message between these addresses is arriving, fragment by fragment: `matches` is given what it begins
    /// with.
    pub fn arriving(
        &self,
        now: Instant,
        from: Address,
        to: Address,
        matches: impl FnMut(&[u8]) -> bool,
    ) -> bool {
        self.reassembly.arriving(now, from, to, matches)
    }

    /// Nobody is at this location any more: drops what was to be sent there, and forgets every way through it.
    /// Returns the addresses to which no way is left.
    pub fn location_lost(&mut self, link: LinkId, location: &Location) -> Vec<Address> {
        self.counters.dropped += self.outbox.forget(link, location) as u64;
        self.routes.forget_location(link, location)
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    fn handle_locate(&mut self, arrival: &Arrival<'_>, header: &FlipHeader) {
        if header.to.is_null() || !self.seen.insert(arrival.now, header) {
            return self.drop_packet();
        }
        self.learn_source(arrival, header);
        if !self.local.contains_key(&header.to) {
            return;
        }
        let answer = FlipHeader {
            kind: PacketKind::Hereis,
            flags: 0,
            hops: header.hops.saturating_sub(arrival.config.weight),
            hops_max: header.hops,
            length: 4,
            total: 4,
            offset: 0,
            ..*header
        };
        let (count, trusted) = (1u16, u16::from(arrival.config.trusted));
        let mut payload = [0; 4];
        payload[..2].copy_from_slice(&count.to_be_bytes());
        payload[2..].copy_from_slice(&trusted.to_be_bytes());
        self.transmit(arrival.link, Some(arrival.location.clone()), &answer, &payload);
    }

    fn handle_hereis(
        &mut self,
        arrival: &Arrival<'_>,
        header: &FlipHeader,
        payload: &[u8],
        big_endian: bool,
    ) {
        let Ok(&[c0, c1, t0, t1]) = <&[u8; 4]>::try_from(payload) else { return self.drop_packet() };
        let read = if big_endian { u16::from_be_bytes } else { u16::from_le_bytes };
        let (count, trusted) = (read([c0, c1]), read([t0, t1]));
        let stray = !self.local.contains_key(&header.from) || self.local.contains_key(&header.to);
        if header.to.is_null() || count == 0 || count < trusted || stray {
            return self.drop_packet();
        }
        let route = Route {
            link: arrival.link,
            location: arrival.location.clone(),
            hops: header.hops_max - header.hops,
            trusted: trusted > 0 && header.flags & flip_flag::UNSAFE == 0,
        };
        self.routes.learn(arrival.now, header.to, route);
        if let Some(search) = self.locating.remove(&header.to) {
            for message in search.waiting {
                self.locating_size -= message.payload.len();
                self.unicast(
                    arrival.now,
                    message.from,
                    message.to,
                    message.payload,
                    message.secure,
                    Duration::ZERO,
                );
            }
        }
    }

    fn handle_unidata(&mut self, arrival: &Arrival<'_>, header: &FlipHeader, payload: &[u8]) {
        self.learn_source(arrival, header);
        let Some(&size_max) = self.local.get(&header.to) else {
            return self.not_here(arrival, header, payload);
        };
        match self.reassembly.add(arrival.now, header, payload, size_max) {
            Progress::Complete(message) => self.events.push_back(Event::Message {
                to: header.to,
                from: header.from,
                whole: header.length == header.total,
                total: header.total as usize,
                payload: message,
            }),
            Progress::Waiting => {}
            Progress::Dropped => self.counters.dropped += 1,
        }
    }

    fn not_here(&mut self, arrival: &Arrival<'_>, header: &FlipHeader, payload: &[u8]) {
        // Of a large message the first fragment, which names the transaction, tells enough.
        if arrival.now < self.silent_until || header.to.is_null() || header.offset != 0 {
            return self.drop_packet();
        }
        let answer = FlipHeader {
            kind: PacketKind::Nothere,
            hops: header.hops.saturating_sub(arrival.config.weight),
            ..*header
        };
        self.transmit(arrival.link, Some(arrival.location.clone()), &answer, payload);
    }

    fn handle_multidata(&mut self, arrival: &Arrival<'_>, header: &FlipHeader, payload: &[u8]) {
        let broadcast = header.to.is_null() && header.length == header.total;
        if !broadcast || !self.seen.insert(arrival.now, header) {
            return self.drop_packet();
        }
        self.learn_source(arrival, header);
        self.events.push_back(Event::Broadcast { from: header.from, payload: payload.to_vec() });
    }

    fn handle_returned(
        &mut self,
        arrival: &Arrival<'_>,
        header: &FlipHeader,
        payload: &[u8],
        reason: Undelivered,
    ) {
        if !self.local.contains_key(&header.from) {
            return self.drop_packet();
        }
        match reason {
            Undelivered::NotHere => self.routes.remove(header.to, arrival.link, arrival.location),
            Undelivered::Untrusted => self.routes.distrust(header.to, arrival.link, arrival.location),
        }
        if header.offset == 0 {
            self.counters.undelivered += 1;
            let (from, to) = (header.from, header.to);
            self.events.push_back(Event::Undelivered { from, to, payload: payload.to_vec(), reason });
        }
    }

    fn learn_source(&mut self, arrival: &Arrival<'_>, header: &FlipHeader) {
        let route = Route {
            link: arrival.link,
            location: arrival.location.clone(),
            hops: header.hops,
            trusted: header.flags & flip_flag::UNSAFE == 0,
        };
        self.routes.learn(arrival.now, header.from, route);
    }

    fn deliver_here(&mut self, message: Outgoing) {
        let total = message.payload.len();
        let (to, from, payload) = (message.to, message.from, message.payload);
        self.events.push_back(Event::Message { to, from, payload, total, whole: true });
    }

    fn send_message(&mut self, now: Instant, route: &Route, message: Outgoing) {
        let Some(link) = self.links.get(usize::from(route.link.0)).copied() else { return };
        let total = u32::try_from(message.payload.len()).expect("a message is at most 1 GiB and its headers");
        let header = FlipHeader {
            kind: PacketKind::Unidata,
            flags: if message.secure { flip_flag::SECURITY } else { 0 },
            hops: link.weight,
            hops_max: route.hops.max(link.weight),
            to: message.to,
            from: message.from,
            message_id: self.next_message_id(),
            length: total,
            offset: 0,
            total,
        };
        let step = link.packet_size_max - FLIP_HEADER_SIZE;
        if message.payload.len() <= step.min(ETHERNET_PAYLOAD_MAX) {
            return self.transmit(route.link, Some(route.location.clone()), &header, &message.payload);
        }
        let sending = Sending { header, payload: message.payload, step, offset: 0, since: now };
        if !self.outbox.push(route.link, &route.location, sending) {
            self.drop_packet();
        }
    }

    fn locate(&mut self, now: Instant, message: Outgoing, timeout: Duration) {
        let size = self.locating_size + message.payload.len();
        let full = self.locating.len() >= LOCATES_MAX && !self.locating.contains_key(&message.to)
            || self.locating_size > 0 && size > LOCATE_QUEUE_SIZE_MAX;
        if self.links.is_empty() || timeout.is_zero() || full {
            return self.undelivered(message, Undelivered::NotHere);
        }
        let address = message.to;
        let search = self.locating.entry(address).or_insert_with(|| Locating {
            hops: 0,
            interval: LOCATE_INTERVAL,
            next: now,
            deadline: now,
            waiting: Vec::new(),
        });
        search.deadline = search.deadline.max(now + timeout);
        if search.waiting.len() >= LOCATE_QUEUE_MAX {
            return self.undelivered(message, Undelivered::NotHere);
        }
        search.waiting.push(message);
        self.locating_size = size;
        if search.hops == 0 {
            self.locate_again(now, address);
        }
    }

    /// One more LOCATE, a step wider; or the end of the search.
    fn locate_again(&mut self, now: Instant, address: Address) {
        let nearest = self.links.iter().map(|link| link.weight).min().unwrap_or(HOPS_MAX);
        let Some(search) = self.locating.get_mut(&address) else { return };
        if now >= search.deadline {
            let search = self.locating.remove(&address).expect("found just now");
            for message in search.waiting {
                self.locating_size -= message.payload.len();
                self.undelivered(message, Undelivered::NotHere);
            }
            return;
        }
        if search.hops >= HOPS_MAX {
            search.interval = (search.interval * 2).min(LOCATE_INTERVAL_MAX);
        }
        search.hops = (search.hops + 1).max(nearest).min(HOPS_MAX);
        search.next = (now + search.interval).min(search.deadline);
        let (hops_max, from) = (search.hops, search.waiting[0].from);
        self.counters.locates += 1;
        let message_id = self.next_message_id();
        for index in 0..self.links.len() {
            let weight = self.links[index].weight;
            if weight <= hops_max {
                let header = FlipHeader {
                    kind: PacketKind::Locate,
                    flags: 0,
                    hops: weight,
                    hops_max,
                    to: address,
                    from,
                    message_id,
                    length: 0,
                    offset: 0,
                    total: 0,
                };
                self.transmit(LinkId(index as u16), None, &header, &[]);
            }
        }
    }

    fn undelivered(&mut self, message: Outgoing, reason: Undelivered) {
        self.counters.undelivered += 1;
        let (from, to, payload) = (message.from, message.to, message.payload);
        self.events.push_back(Event::Undelivered { from, to, payload, reason });
    }

    fn transmit(&mut self, link: LinkId, to: Option<Location>, header: &FlipHeader, payload: &[u8]) {
        let mut packet = Vec::with_capacity(FLIP_HEADER_SIZE + payload.len());
        packet.extend_from_slice(&header.to_bytes());
        packet.extend_from_slice(payload);
        self.transmits.push_back(Transmit { link, to, packet, bulk: false });
    }

    fn next_message_id(&mut self) -> u32 {
        self.message_id = self.message_id.wrapping_add(1);
        self.message_id
    }

    fn drop_packet(&mut self) {
        self.counters.dropped += 1;
    }
}

/// How a packet came.
struct Arrival<'a> {
    now: Instant,
    link: LinkId,
    location: &'a Location,
    config: LinkConfig,
}

/// Whether packets of this kind travel away from their source address.
fn is_outward(kind: PacketKind) -> bool {
    matches!(kind, PacketKind::Locate | PacketKind::Unidata | PacketKind::Multidata)
}

#[cfg(test)]
mod tests;
