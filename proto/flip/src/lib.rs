//! FLIP, the Fast Local Internet Protocol: messages to addresses, wherever they are.
//!
//! An address belongs to a process, not to a host: the [`FlipBox`] of a host knows which addresses are its own,
//! searches for others (LOCATE, HEREIS), keeps the routes it learns, cuts messages into fragments and puts them
//! together again. It never retransmits: a message arrives whole, or comes back ([`Event::Undelivered`]), or is lost.
//! A box with several links is a switch: it passes on what is not for its host.
//!
//! Sans I/O: time and packets in, packets and events out.
//!
//! Modules: [`routes`](RouteTable) what is known of addresses, `locate` the search for them, `switching` what is done with
//! a packet that arrives, `reassembly` fragments to messages, `sending` messages to fragments, `seen` which broadcasts
//! were seen already, [`payload`](Payload) bytes that are not copied on the way.
//!
//! # Source
//! Kaashoek, van Renesse, van Staveren, Tanenbaum: FLIP, ACM TOCS 11(1), 1993; Amoeba 5.3.
#![forbid(unsafe_code)]

mod locate;
mod location;
mod paced;
mod payload;
mod reassembly;
mod routes;
mod seen;
mod sending;
mod switching;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use amoeba_threads::Instant;
use amoeba_wire::packet::{
    Address, ETHERNET_PAYLOAD_MAX, FLIP_HEADER_SIZE, FlipHeader, PacketKind, RpcReport, flip_flag,
};

use locate::Searches;
pub use location::{LOCATION_SIZE_MAX, Location};
use paced::Pacer;
pub use payload::{HEAD_SIZE_MAX, Head, Packet, Payload};
use reassembly::Reassembly;
pub use routes::{ROUTE_LIFE, ROUTES_MAX, ROUTES_PER_ADDRESS_MAX, Route, RouteTable, Wanted};
use seen::Seen;
pub use sending::{FORWARD_QUEUE_SIZE_MAX, FORWARD_SIZE_MAX};
use sending::{Outbox, Sending};

/// The longest a packet may live in the network. A box that has just started answers no NOTHERE for as long, so that a
/// packet to an address of its earlier life cannot make anybody believe that it was never received.
pub const PACKET_LIFE_MAX: Duration = Duration::from_millis(500);
/// The largest hop count of a route.
pub const HOPS_MAX: u16 = 25;
/// LOCATEs and broadcasts that are taken from one link in a second (the original: 100, for ten times fewer hosts).
pub const BROADCASTS_PER_SECOND_MAX: u32 = 1000;
/// Small packets of others that may wait to be passed on; past it the newest is dropped.
pub const TRANSMITS_MAX: usize = 4096;
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
const SECURITY: u8 = flip_flag::SECURITY;
const SECOND: Duration = Duration::from_secs(1);

/// A network of this host, numbered by whoever drives the box.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u16);

/// What the box must know of a link.
#[derive(Clone, Copy, Debug)]
pub struct LinkConfig {
    /// The most bytes of a FLIP packet (header included) that the link carries to every location; at least
    /// [`PACKET_SIZE_MIN`]. Fragments of large messages may be larger where the link says so when it is asked.
    pub packet_size_max: usize,
    /// What crossing it adds to a hop count; at least 1.
    pub weight: u16,
    /// Whether SECURITY messages may use it.
    pub trusted: bool,
    /// Whether it repairs and paces by itself what it is given as [`Transmit::bulk`].
    pub repairs: bool,
}

impl LinkConfig {
    /// Whether a packet with so much payload fits everywhere.
    fn carries(&self, payload_size: usize) -> bool {
        FLIP_HEADER_SIZE + payload_size <= self.packet_size_max
    }
}

/// A packet to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// On which link.
    pub link: LinkId,
    /// To whom; `None` for everybody on the link.
    pub to: Option<Location>,
    /// A whole FLIP packet.
    pub packet: Packet,
    /// It is part of a message too large for one Ethernet frame: a link should neither lose it to its own haste nor let
    /// small packets wait for it.
    pub bulk: bool,
}

/// Why a message came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Undelivered {
    /// Nobody answers for the address, or the host that did says it is no longer there.
    NotHere,
    /// A host on the way knows no way on. A copy of the message may have gone another way.
    NoRoute,
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
        /// The first [`HEAD_SIZE_MAX`] bytes of the message.
        head: Head,
        /// What follows them; only the beginning when the message is larger than the address takes.
        data: Vec<u8>,
        /// Bytes of the whole message.
        total: usize,
        /// Whether it came in one fragment.
        whole: bool,
        /// Whether it came over trusted networks only.
        safe: bool,
    },
    /// A message for everybody.
    Broadcast {
        /// Who sent it.
        from: Address,
        /// The message.
        payload: Vec<u8>,
    },
    /// What an address of this host has of a message that another sends it, to be told to that one.
    Report {
        /// Whose message arrives.
        from: Address,
        /// Who sends it.
        to: Address,
        /// What has arrived.
        report: RpcReport,
    },
    /// The beginning of a message that an address of this host sent came back.
    Undelivered {
        /// Who sent it.
        from: Address,
        /// Whom it was for.
        to: Address,
        /// What it begins with.
        head: Head,
        /// Why.
        reason: Undelivered,
        /// Whether that was said over trusted networks only.
        safe: bool,
    },
}

/// How a message is to travel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Manner {
    /// Not over untrusted networks.
    pub secure: bool,
    /// Its receiver sends reports, so that of a large message only what is missing needs to be sent again.
    pub reported: bool,
}

/// A message that leaves.
#[derive(Clone, Debug)]
struct Outgoing {
    from: Address,
    to: Address,
    payload: Payload,
    manner: Manner,
}

/// A link, and how many broadcasts it brought in this second.
struct LinkState {
    config: LinkConfig,
    second: Instant,
    broadcasts: u32,
}

/// The FLIP box of a host.
pub struct FlipBox {
    links: Vec<LinkState>,
    /// Addresses of this host, and the largest message each takes.
    local: BTreeMap<Address, usize>,
    routes: RouteTable,
    searches: Searches,
    /// LOCATEs and MULTIDATA that were handled.
    seen: Seen,
    /// Messages of which a fragment was sent back.
    told: Seen,
    reassembly: Reassembly,
    outbox: Outbox,
    pacer: Pacer,
    /// Whether the outbox had the last turn, so that the pacer is next.
    outbox_last: bool,
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
    /// Packets passed on to another link.
    pub forwarded: u64,
    /// Packets sent back, because there was no way on.
    pub returned: u64,
    /// Packets that were missing and sent again.
    pub sent_again: u64,
}

impl FlipBox {
    /// A box with these links, numbered from 0, that starts at `now`. `message_id` is random, so that messages of an
    /// earlier life are not taken for new ones.
    pub fn new(links: Vec<LinkConfig>, message_id: u32, now: Instant) -> FlipBox {
        let mut flip = FlipBox {
            links: Vec::new(),
            local: BTreeMap::new(),
            routes: RouteTable::default(),
            searches: Searches::default(),
            seen: Seen::default(),
            told: Seen::default(),
            reassembly: Reassembly::default(),
            outbox: Outbox::default(),
            pacer: Pacer::default(),
            outbox_last: false,
            silent_until: now + PACKET_LIFE_MAX,
            message_id,
            events: VecDeque::new(),
            transmits: VecDeque::new(),
            counters: Counters::default(),
        };
        for link in links {
            flip.add_link(now, link);
        }
        flip
    }

    /// One more link of this host.
    pub fn add_link(&mut self, now: Instant, config: LinkConfig) -> LinkId {
        assert!(config.packet_size_max >= PACKET_SIZE_MIN, "a link carries at least a transaction's headers");
        assert!(config.weight >= 1, "every packet ends because every link weighs something");
        let id = LinkId(u16::try_from(self.links.len()).expect("a host has few links"));
        self.links.push(LinkState { config, second: now, broadcasts: 0 });
        id
    }

    /// Whether there is any link.
    pub fn has_links(&self) -> bool {
        !self.links.is_empty()
    }

    /// Whether a link may be used for SECURITY messages from now on. What was learnt before is forgotten.
    pub fn set_trusted(&mut self, link: LinkId, trusted: bool) {
        if let Some(link) = self.links.get_mut(usize::from(link.0)) {
            link.config.trusted = trusted;
            self.routes.purge();
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
        Counters { sent_again: self.pacer.sent_again, ..self.counters }
    }

    /// Bytes of messages that have not arrived whole, and of messages that have not left whole.
    pub fn held_sizes(&self) -> (usize, usize) {
        (self.reassembly.size(), self.outbox.size() + self.pacer.size())
    }

    /// Nothing is heard from an address: forgets the way there, so that another is taken, or searched for.
    pub fn doubt(&mut self, address: Address) {
        if let Some(route) = self.routes.choose(address, Wanted::from_here(false)).copied() {
            self.routes.remove(address, route.link, &route.location);
        }
    }

    /// Sends a message, after a search of at most `locate_timeout` if the address is not known.
    pub fn unicast(
        &mut self,
        now: Instant,
        from: Address,
        to: Address,
        payload: impl Into<Payload>,
        manner: Manner,
        locate_timeout: Duration,
    ) {
        self.send_to(now, Outgoing { from, to, payload: payload.into(), manner }, locate_timeout);
    }

    fn send_to(&mut self, now: Instant, message: Outgoing, locate_timeout: Duration) {
        let to = message.to;
        if self.is_local(to) {
            return self.deliver_here(message);
        }
        match self.routes.choose(to, Wanted::from_here(message.manner.secure)).copied() {
            Some(route) => self.send_message(now, &route, message),
            None if self.routes.knows(to) => self.undelivered(message, Undelivered::Untrusted),
            None => self.locate(now, message, locate_timeout),
        }
    }

    /// `from` reports what it has of a message that `to`, an address of this host, sends it.
    pub fn handle_report(&mut self, now: Instant, from: Address, to: Address, report: &RpcReport) {
        self.pacer.handle_report(now, from, to, report);
    }

    /// Sends a message of one packet to everybody within `hops_max`. Returns whether any link is that near.
    pub fn broadcast(&mut self, from: Address, hops_max: u16, payload: &[u8]) -> bool {
        let header = FlipHeader {
            kind: PacketKind::Multidata,
            flags: 0,
            hops: 0,
            hops_max,
            to: Address::NULL,
            from,
            message_id: self.next_message_id(),
            length: payload.len() as u32,
            offset: 0,
            total: payload.len() as u32,
        };
        self.spread(None, &header, payload) > 0
    }

    /// A packet arrived on `link` from `location`.
    pub fn handle_packet(&mut self, now: Instant, link: LinkId, location: &Location, packet: &[u8]) {
        self.counters.packets_in += 1;
        let Some(config) = self.links.get(usize::from(link.0)).map(|link| link.config) else {
            return self.drop_packet();
        };
        let Some((mut header, payload, big_endian)) = FlipHeader::parse(packet) else {
            return self.drop_packet();
        };
        let too_far = header.hops_max > HOPS_MAX && header.kind != PacketKind::Locate;
        if header.hops > header.hops_max || too_far || header.from.is_null() {
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
            PacketKind::Nothere | PacketKind::Untrusted => self.handle_returned(&arrival, &header, payload),
        }
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.reassembly.handle_timeout(now);
        self.report();
        self.pacer.handle_timeout(now);
        self.routes.expire(now);
        self.searches_timeout(now);
    }

    /// When [`FlipBox::handle_timeout`] is to be called next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let next = [
            self.searches.next_timeout(),
            self.reassembly.next_timeout(),
            self.pacer.next_timeout(),
            self.routes.next_timeout(),
        ];
        next.into_iter().flatten().min()
    }

    /// The next packet to send, over links that take everything.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<Transmit> {
        let sizes: Vec<usize> = self.links.iter().map(|link| link.config.packet_size_max).collect();
        self.poll_transmit_where(now, |link, _| sizes.get(usize::from(link.0)).copied())
    }

    /// The next packet to send; bulk only to locations that are `ready` for it: it says how many bytes a packet may have
    /// that goes there now, at least [`PACKET_SIZE_MIN`]. So a link may know a larger size for some locations.
    pub fn poll_transmit_where(
        &mut self,
        now: Instant,
        mut ready: impl FnMut(LinkId, &Location) -> Option<usize>,
    ) -> Option<Transmit> {
        let transmit = match self.transmits.pop_front() {
            Some(transmit) => transmit,
            None => {
                self.outbox_last = !self.outbox_last;
                let (outbox, pacer) = (&mut self.outbox, &mut self.pacer);
                match self.outbox_last {
                    true => outbox.next(now, &mut ready).or_else(|| pacer.next(now, ready)),
                    false => pacer.next(now, &mut ready).or_else(|| outbox.next(now, ready)),
                }?
            }
        };
        self.counters.packets_out += 1;
        Some(transmit)
    }

    /// Whether a message between these addresses is still leaving, or waits until its address is found: `matches` is
    /// given what it begins with.
    pub fn leaving(
        &self,
        now: Instant,
        from: Address,
        to: Address,
        mut matches: impl FnMut(&[u8]) -> bool,
    ) -> bool {
        let mut waiting = self.searches.waiting(to);
        waiting.any(|message| message.from == from && matches(message.payload.head()))
            || self.outbox.has(from, to, &mut matches)
            || self.pacer.has(now, from, to, matches)
    }

    /// What has not left yet of a message between these addresses is not to leave any more: `matches` is given what it
    /// begins with. What waits for its address to be found still leaves.
    pub fn withdraw(
        &mut self,
        now: Instant,
        from: Address,
        to: Address,
        mut matches: impl FnMut(&[u8]) -> bool,
    ) {
        self.outbox.withdraw(from, to, &mut matches);
        self.pacer.withdraw(now, from, to, matches);
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
    /// Returns, in order, the addresses that were there and to which no way is left. What lies behind that host is
    /// searched for again when it is needed.
    pub fn location_lost(&mut self, now: Instant, link: LinkId, location: &Location) -> Vec<Address> {
        self.counters.dropped += self.pacer.forget(now, link, location) as u64;
        self.counters.dropped += self.outbox.forget(link, location) as u64;
        let weight = self.links.get(usize::from(link.0)).map_or(0, |link| link.config.weight);
        self.routes.forget_location(link, location, weight)
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    fn deliver_here(&mut self, message: Outgoing) {
        let Outgoing { from, to, payload, .. } = message;
        let total = payload.len();
        let (head, data) = payload.into_parts();
        let (head, data) = joined(head, data);
        self.events.push_back(Event::Message { to, from, head, data, total, whole: true, safe: true });
    }

    fn send_message(&mut self, now: Instant, route: &Route, message: Outgoing) {
        let Some(config) = self.links.get(usize::from(route.link.0)).map(|link| link.config) else { return };
        let size = message.payload.len();
        let total = u32::try_from(size).expect("a message is at most 1 GiB and its headers");
        let header = FlipHeader {
            kind: PacketKind::Unidata,
            flags: if message.manner.secure { SECURITY } else { 0 },
            hops: config.weight,
            hops_max: route.hops.max(config.weight),
            to: message.to,
            from: message.from,
            message_id: self.next_message_id(),
            length: total,
            offset: 0,
            total,
        };
        if size <= ETHERNET_PAYLOAD_MAX && config.carries(size) {
            let packet = message.payload.packet(&header, 0..size);
            let (link, to) = (route.link, Some(route.location));
            return self.transmits.push_back(Transmit { link, to, packet, bulk: false });
        }
        let mut sending = Sending { header, payload: message.payload, sent: 0, since: now };
        let repaired = config.repairs && route.hops <= config.weight;
        if message.manner.reported && !repaired {
            sending.header.flags |= flip_flag::KEPT;
            if !self.pacer.push(now, route.link, &route.location, sending) {
                self.drop_packet();
            }
        } else if !self.outbox.push(route.link, &route.location, sending) {
            self.drop_packet();
        }
    }

    fn undelivered(&mut self, message: Outgoing, reason: Undelivered) {
        self.counters.undelivered += 1;
        let (from, to, head) = (message.from, message.to, *message.payload.head());
        self.events.push_back(Event::Undelivered { from, to, head, reason, safe: true });
    }

    fn transmit(&mut self, link: LinkId, to: Option<Location>, header: &FlipHeader, payload: &[u8]) {
        let packet = Packet::copied(header, payload);
        self.transmits.push_back(Transmit { link, to, packet, bulk: false });
    }

    /// Tells what the senders of messages that arrive are to know.
    fn report(&mut self) {
        while let Some(((to, from, ..), report)) = self.reassembly.poll_report() {
            self.events.push_back(Event::Report { from, to, report });
        }
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

/// The first [`HEAD_SIZE_MAX`] bytes and the rest, of a message whose head is perhaps shorter.
fn joined(mut head: Head, mut data: Vec<u8>) -> (Head, Vec<u8>) {
    let missing = (HEAD_SIZE_MAX - head.len()).min(data.len());
    head.push(&data[..missing]);
    data.drain(..missing);
    (head, data)
}

/// Whether packets of this kind travel away from their source address.
fn is_outward(kind: PacketKind) -> bool {
    matches!(kind, PacketKind::Locate | PacketKind::Unidata | PacketKind::Multidata)
}

#[cfg(test)]
mod tests;
