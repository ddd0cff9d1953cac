//! What arrives: for this host, or to be passed on to another link.
//!
//! | packet | what is done with it |
//! |---|---|
//! | LOCATE | the source is learnt. An address of ours, or one known on another link when the ring ends here, is answered; else the question goes on to the other links |
//! | HEREIS | the address is learnt; the answer goes on towards who asked |
//! | UNIDATA | the source is learnt. Ours is delivered; else it goes on, never back to the link it came from; without a way it comes back as NOTHERE, or as UNTRUSTED when there are only untrusted ways |
//! | MULTIDATA | delivered and passed on to every other link, once |
//! | NOTHERE | the way is forgotten; there is another, or it goes on towards its source |
//! | UNTRUSTED | the way is marked; there is a trusted one, or it goes on towards its source over trusted links |
//!
//! HEREIS, NOTHERE and UNTRUSTED travel backwards: addresses stay as they were, and each link subtracts from the hop
//! count what it had added. Every link weighs at least one, so every packet ends: forwards at its maximum, backwards at
//! zero.
//!
//! # Source
//! Amoeba 5.3. Ours: of a message without a way at most two fragments come back; and a NOTHERE from a host where the
//! message was not to end yet says so ([`flip_flag::NO_ROUTE`]), because then a copy of it may have gone another way.

use amoeba_threads::Instant;
use amoeba_wire::packet::{
    Address, ETHERNET_PAYLOAD_MAX, FLIP_HEADER_SIZE, FlipHeader, PacketKind, flip_flag,
};

use crate::payload::{Head, Packet, Payload};
use crate::reassembly::Progress;
use crate::sending::Sending;
use crate::{
    Arrival, BROADCASTS_PER_SECOND_MAX, Event, FlipBox, HEAD_SIZE_MAX, HOPS_MAX, Route, SECOND, SECURITY,
    TRANSMITS_MAX, Transmit, Undelivered, Wanted,
};

impl FlipBox {
    pub(crate) fn handle_locate(&mut self, arrival: &Arrival<'_>, header: &FlipHeader) {
        if header.to.is_null() || !self.is_first_copy(arrival, header) {
            return self.drop_packet();
        }
        // What is said on an untrusted network takes no trusted way from anybody.
        let safe = is_safe(header);
        self.routes.retain(header.from, |route| !safe && route.trusted);
        self.learn_source(arrival, header);
        if self.is_local(header.to) {
            return self.answer(arrival, header, 0, (1, 1));
        }
        if header.hops == header.hops_max {
            let secure = header.flags & SECURITY != 0;
            let wanted = Wanted {
                secure,
                not_over: Some(arrival.link),
                hops_max: HOPS_MAX - header.hops.min(HOPS_MAX),
            };
            let known = self.routes.choose(header.to, wanted).map(|route| route.hops);
            if let Some(hops) = known {
                let counts = self.counts(header.to, wanted);
                self.answer(arrival, header, hops, counts);
            }
            return;
        }
        self.routes.retain(header.to, |route| route.link == arrival.link || !safe && route.trusted);
        self.counters.forwarded += self.spread(Some(arrival.link), header, &[]) as u64;
    }

    /// Answers a LOCATE: the address is `hops` from here.
    fn answer(&mut self, arrival: &Arrival<'_>, header: &FlipHeader, hops: u16, counts: (u16, u16)) {
        let Some(back) = header.hops.checked_sub(arrival.config.weight) else { return self.drop_packet() };
        let answer = FlipHeader {
            kind: PacketKind::Hereis,
            flags: 0,
            hops: back,
            hops_max: header.hops + hops,
            length: 4,
            total: 4,
            offset: 0,
            ..*header
        };
        if answer.hops_max > HOPS_MAX {
            return self.drop_packet(); // no packet could go so far
        }
        self.transmit(arrival.link, Some(*arrival.location), &answer, &counts_to_bytes(counts));
    }

    pub(crate) fn handle_hereis(
        &mut self,
        arrival: &Arrival<'_>,
        header: &FlipHeader,
        payload: &[u8],
        big_endian: bool,
    ) {
        let Ok(&[c0, c1, t0, t1]) = <&[u8; 4]>::try_from(payload) else { return self.drop_packet() };
        let read = if big_endian { u16::from_be_bytes } else { u16::from_le_bytes };
        let (count, mut trusted) = (read([c0, c1]), read([t0, t1]));
        if header.to.is_null() || count == 0 || count < trusted || self.is_local(header.to) {
            return self.drop_packet();
        }
        if header.flags & flip_flag::UNSAFE != 0 {
            trusted = 0;
        }
        let route = Route {
            link: arrival.link,
            location: *arrival.location,
            hops: header.hops_max - header.hops,
            trusted: trusted > 0,
            count,
        };
        self.routes.learn(arrival.now, header.to, route);
        if self.is_local(header.from) {
            return self.located(arrival.now, header.to);
        }
        let wanted = Wanted { secure: false, not_over: Some(arrival.link), hops_max: header.hops };
        let Some(route) = self.routes.choose(header.from, wanted).copied() else { return self.drop_packet() };
        let counts =
            self.counts(header.to, Wanted { hops_max: u16::MAX, not_over: Some(route.link), ..wanted });
        let header = FlipHeader { length: 4, offset: 0, total: 4, ..*header };
        self.pass_back(&route, &header, &counts_to_bytes(counts));
    }

    pub(crate) fn handle_unidata(&mut self, arrival: &Arrival<'_>, header: &FlipHeader, payload: &[u8]) {
        self.learn_source(arrival, header);
        if self.is_local(header.to) {
            return self.deliver(arrival, header, payload);
        }
        let secure = header.flags & SECURITY != 0;
        let room = header.hops_max - header.hops;
        let wanted = Wanted { secure, not_over: Some(arrival.link), hops_max: room };
        if let Some(route) = self.routes.choose(header.to, wanted).copied() {
            return self.pass_on(arrival, &route, header, payload);
        }
        let unsafe_way =
            secure && self.routes.choose(header.to, Wanted { secure: false, ..wanted }).is_some();
        self.send_back(arrival, header, payload, unsafe_way);
    }

    /// A fragment cannot go on: it goes back to where it came from. Of every message the first fragment does, which
    /// tells the layer above what it was, and one other, in case that the way was lost later.
    fn send_back(&mut self, arrival: &Arrival<'_>, header: &FlipHeader, payload: &[u8], unsafe_way: bool) {
        let ends_here = header.hops == header.hops_max;
        let silent = ends_here && arrival.now < self.silent_until;
        let other = FlipHeader { offset: 1, ..*header };
        let again = header.offset != 0 && !self.told.insert(arrival.now, &other);
        let back = header.hops.checked_sub(arrival.config.weight);
        let Some(hops) = back.filter(|_| !silent && !again && !header.to.is_null()) else {
            return self.drop_packet();
        };
        let (kind, flag) = match (unsafe_way, ends_here) {
            (true, _) => (PacketKind::Untrusted, flip_flag::UNREACHABLE),
            (false, true) => (PacketKind::Nothere, 0),
            (false, false) => (PacketKind::Nothere, flip_flag::NO_ROUTE),
        };
        // No more of a large fragment than every link carries.
        let length =
            payload.len().min(ETHERNET_PAYLOAD_MAX.min(arrival.config.packet_size_max - FLIP_HEADER_SIZE));
        let flags = header.flags | flag;
        let answer = FlipHeader { kind, hops, flags, length: length as u32, ..*header };
        self.counters.returned += 1;
        self.transmit(arrival.link, Some(*arrival.location), &answer, &payload[..length]);
    }

    pub(crate) fn handle_multidata(&mut self, arrival: &Arrival<'_>, header: &FlipHeader, payload: &[u8]) {
        let broadcast = header.to.is_null();
        if !self.is_first_copy(arrival, header) {
            return self.drop_packet();
        }
        if header.offset == 0 {
            self.learn_source(arrival, header);
        }
        if broadcast {
            self.counters.forwarded += self.spread(Some(arrival.link), header, payload) as u64;
            // Nobody sends broadcasts of several fragments; what we cannot use may still be passed on.
            if header.length == header.total {
                self.events.push_back(Event::Broadcast { from: header.from, payload: payload.to_vec() });
            }
            return;
        }
        let routes: Vec<Route> = self.routes.to(header.to).copied().collect();
        for route in routes.iter().filter(|route| route.link != arrival.link) {
            if header.flags & SECURITY == 0 || route.trusted {
                self.pass_on(arrival, route, header, payload);
            }
        }
        if self.is_local(header.to) {
            self.deliver(arrival, header, payload);
        } else if routes.is_empty() {
            self.drop_packet();
        }
    }

    /// NOTHERE or UNTRUSTED has arrived.
    pub(crate) fn handle_returned(&mut self, arrival: &Arrival<'_>, header: &FlipHeader, payload: &[u8]) {
        let untrusted = header.kind == PacketKind::Untrusted;
        if untrusted {
            self.routes.distrust(header.to, arrival.link, arrival.location);
        } else {
            self.routes.remove(header.to, arrival.link, arrival.location);
        }
        if self.is_local(header.from) {
            return self.came_back(arrival.now, header, payload);
        }
        let secure = untrusted || header.flags & SECURITY != 0;
        let anywhere = Wanted { secure, not_over: None, hops_max: HOPS_MAX };
        let Some(back) = self.routes.choose(header.from, anywhere).copied() else {
            return self.drop_packet();
        };
        let room = header.hops_max - header.hops;
        let elsewhere = Wanted { secure, not_over: Some(back.link), hops_max: room };
        if let Some(route) = self.routes.choose(header.to, elsewhere).copied() {
            let flags = header.flags & !(flip_flag::NO_ROUTE | flip_flag::UNREACHABLE);
            let header = FlipHeader { kind: PacketKind::Unidata, flags, ..*header };
            return self.pass_on(arrival, &route, &header, payload);
        }
        self.pass_back(&back, header, payload);
    }

    /// A fragment of this host came back.
    fn came_back(&mut self, now: Instant, header: &FlipHeader, payload: &[u8]) {
        self.pacer.end(now, header.message_id);
        if header.offset != 0 {
            return; // the way is forgotten; the layer above will miss an answer
        }
        let reason = match header.kind {
            PacketKind::Untrusted => Undelivered::Untrusted,
            _ if header.flags & flip_flag::NO_ROUTE != 0 => Undelivered::NoRoute,
            _ => Undelivered::NotHere,
        };
        self.counters.undelivered += 1;
        let (from, to) = (header.from, header.to);
        let head = Head::new(&payload[..payload.len().min(HEAD_SIZE_MAX)]);
        self.events.push_back(Event::Undelivered { from, to, head, reason, safe: is_safe(header) });
    }

    fn deliver(&mut self, arrival: &Arrival<'_>, header: &FlipHeader, payload: &[u8]) {
        let size_max = self.local.get(&header.to).copied().unwrap_or(0);
        match self.reassembly.add(arrival.now, header, payload, size_max) {
            Progress::Complete(head, data) => self.events.push_back(Event::Message {
                to: header.to,
                from: header.from,
                whole: header.length == header.total,
                safe: is_safe(header),
                total: header.total as usize,
                head,
                data,
            }),
            Progress::Waiting => {}
            Progress::Dropped => self.drop_packet(),
        }
        self.report();
    }

    fn learn_source(&mut self, arrival: &Arrival<'_>, header: &FlipHeader) {
        let route = Route {
            link: arrival.link,
            location: *arrival.location,
            hops: header.hops,
            trusted: is_safe(header),
            count: 1,
        };
        self.routes.learn(arrival.now, header.from, route);
    }

    /// Whether a LOCATE or MULTIDATA is to be handled: it is no copy, and there are not too many of them on its link.
    fn is_first_copy(&mut self, arrival: &Arrival<'_>, header: &FlipHeader) -> bool {
        let link = &mut self.links[usize::from(arrival.link.0)];
        if arrival.now.since(link.second) >= SECOND {
            (link.second, link.broadcasts) = (arrival.now, 0);
        }
        link.broadcasts += 1;
        link.broadcasts <= BROADCASTS_PER_SECOND_MAX && self.seen.insert(arrival.now, header)
    }

    /// How many destinations of an address are known, and how many of them on trusted ways.
    fn counts(&self, address: Address, wanted: Wanted) -> (u16, u16) {
        let routes = self.routes.to(address).filter(|route| wanted.not_over != Some(route.link));
        let add = |(count, trusted): (u16, u16), route: &Route| {
            let safe = if route.trusted { route.count } else { 0 };
            (count.saturating_add(route.count), trusted.saturating_add(safe))
        };
        let (count, trusted) = routes.fold((0, 0), add);
        (count.max(1), trusted)
    }

    /// Sends a packet on along a route.
    fn pass_on(&mut self, arrival: &Arrival<'_>, route: &Route, header: &FlipHeader, payload: &[u8]) {
        let config = self.links[usize::from(route.link.0)].config;
        let hops = header.hops.saturating_add(config.weight);
        if hops > header.hops_max {
            return self.drop_packet();
        }
        let header = FlipHeader { hops, ..*header };
        self.counters.forwarded += 1;
        if header.total as usize <= ETHERNET_PAYLOAD_MAX && config.carries(payload.len()) {
            return self.transmit_if_room(route, &header, payload);
        }
        let payload = Payload::from(payload.to_vec());
        let fragment = Sending { header, payload, sent: 0, since: arrival.now };
        if !self.outbox.forward(route.link, &route.location, fragment) {
            self.drop_packet();
        }
    }

    /// Sends a packet on towards its source.
    fn pass_back(&mut self, route: &Route, header: &FlipHeader, payload: &[u8]) {
        let config = self.links[usize::from(route.link.0)].config;
        let Some(hops) = header.hops.checked_sub(config.weight) else { return self.drop_packet() };
        if !config.carries(payload.len()) {
            return self.drop_packet(); // it came from a link with larger packets; its source will miss an answer
        }
        self.counters.forwarded += 1;
        self.transmit_if_room(route, &FlipHeader { hops, ..*header }, payload);
    }

    /// What others have to say waits only while there is room.
    fn transmit_if_room(&mut self, route: &Route, header: &FlipHeader, payload: &[u8]) {
        if self.transmits.len() >= TRANSMITS_MAX {
            return self.drop_packet();
        }
        let packet = Packet::copied(header, payload);
        self.transmits.push_back(Transmit {
            link: route.link,
            to: Some(route.location),
            packet,
            bulk: false,
        });
    }
}

/// Whether a packet has crossed trusted networks only.
fn is_safe(header: &FlipHeader) -> bool {
    header.flags & flip_flag::UNSAFE == 0
}

fn counts_to_bytes((count, trusted): (u16, u16)) -> [u8; 4] {
    let ([c0, c1], [t0, t1]) = (count.to_be_bytes(), trusted.to_be_bytes());
    [c0, c1, t0, t1]
}
