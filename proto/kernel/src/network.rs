//! What comes from the FLIP box, and the search for ports.

use std::time::Duration;

use amoeba_cap::PutPort;
use amoeba_flip::{self as flip, HOPS_MAX, LOCATE_INTERVAL, LOCATE_INTERVAL_MAX, Manner, Undelivered};
use amoeba_rpc::{ClientKey, LOCATE_HEADER, Packet, Server, Verdict, emit, locate};
use amoeba_threads::Instant;
use amoeba_wire::packet::{Address, RpcHeader, RpcKind, rpc_flag};
use amoeba_world::Message;

use crate::serve::{Origin, too_large};
use crate::transact::ClientSlot;
use crate::{ANSWER_LOCATE_TIMEOUT, KEPT_REPLIES_SIZE_MAX, Kernel, ProcessId, Slot, Timer};

/// Hop limits of a port search, one after the other.
const RINGS: [u16; 5] = [1, 3, 7, 15, HOPS_MAX];
/// A round trip of more was not measured: the HEREIS answers an earlier search, or is made up.
const ROUND_TRIP_MAX: Duration = Duration::from_secs(1);

/// A search for a port, for as long as some transaction waits for it.
pub(crate) struct PortLocate {
    ring: usize,
    interval: Duration,
    next: Instant,
}

impl Kernel {
    /// A packet arrived on `link` from `from`.
    pub fn handle_packet(&mut self, now: Instant, link: flip::LinkId, from: &flip::Location, packet: &[u8]) {
        self.flip.handle_packet(now, link, from, packet);
        self.pump(now);
    }

    /// Handles everything the FLIP box has to say.
    pub(crate) fn pump(&mut self, now: Instant) {
        while let Some(event) = self.flip.poll_event() {
            match event {
                flip::Event::Message { to, from, head, data, total, .. } if self.endpoints.owns(to) => {
                    self.handle_datagram(now, to, from, &head, data, total);
                }
                flip::Event::Message { to, from, head, data, total, whole, safe } => {
                    let complete = head.len() + data.len() == total;
                    if complete && self.handle_report(now, to, from, &head, &data) {
                        continue;
                    }
                    if let Some(packet) = Packet::parse(&head, data) {
                        self.handle_message(now, to, from, packet, Arrived { complete, whole, safe });
                    }
                }
                flip::Event::Report { from, to, report } => self.send_report(now, from, to, &report),
                flip::Event::Broadcast { from, payload } => self.handle_broadcast(now, from, &payload),
                flip::Event::Undelivered { from, to, head, reason, safe } => {
                    self.handle_undelivered(now, from, to, &head, reason, safe);
                }
            }
        }
    }

    /// Begins a search for a port, unless one is going on or there is nowhere to search.
    pub(crate) fn search(&mut self, now: Instant, port: PutPort) {
        if self.flip.has_links() && !self.locates.contains_key(&port) && self.searchers(port).next().is_some()
        {
            self.counters.locates += 1;
            self.locates.insert(port, PortLocate { ring: 0, interval: LOCATE_INTERVAL, next: now });
            self.locate_again(now, port);
        }
    }

    /// One more LOCATE, a ring wider; or the end of the search when nobody waits for it.
    pub(crate) fn locate_again(&mut self, now: Instant, port: PutPort) {
        let asker = self.searchers(port).next().and_then(|(process, _)| self.address(process));
        let Some(search) = self.locates.get_mut(&port) else { return };
        let Some(asker) = asker else {
            let next = search.next;
            self.locates.remove(&port);
            return self.set_timer(Some(next), None, Timer::Locate(port));
        };
        let sent = microseconds(now);
        while !self.flip.broadcast(asker, RINGS[search.ring], &locate(port, sent)) {
            if search.ring + 1 == RINGS.len() {
                break;
            }
            search.ring += 1;
        }
        if search.ring + 1 < RINGS.len() {
            search.ring += 1;
        } else {
            search.interval = (search.interval * 2).min(LOCATE_INTERVAL_MAX);
        }
        search.next = now + search.interval;
        let next = search.next;
        self.timers.insert((next, Timer::Locate(port)));
    }

    pub(crate) fn clients_timeout(&mut self, now: Instant, id: ProcessId) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        process.clients_timer = None;
        let answers = process.clients.handle_timeout(now);
        for client in process.clients.take_doubts() {
            self.flip.doubt(client);
        }
        for (to, packet) in answers {
            if !self.still_leaving(now, id, to, &packet) {
                self.send(now, id, to, packet);
            }
        }
        self.rearm_clients(id);
    }

    pub(crate) fn rearm_clients(&mut self, id: ProcessId) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        let (old, new) = (process.clients_timer, process.clients.next_timeout());
        process.clients_timer = new;
        let kept_size = process.clients.kept_size();
        self.kept_size = self.kept_size - process.kept_size + kept_size;
        process.kept_size = kept_size;
        self.set_timer(old, new, Timer::Clients(id));
    }

    /// Drops kept replies until they are few enough, but not the one of `size` bytes that `server` has just given to
    /// `client`.
    pub(crate) fn bound_replies(&mut self, now: Instant, server: ProcessId, client: ClientKey, size: usize) {
        while self.kept_size > KEPT_REPLIES_SIZE_MAX {
            let droppable = |id: ProcessId, kept: usize| kept - if id == server { size.min(kept) } else { 0 };
            let kept = self.processes.iter().map(|(id, process)| (droppable(*id, process.kept_size), *id));
            let Some((1.., id)) = kept.max() else { return };
            let spared = (id == server).then_some(client);
            let Some(process) = self.processes.get_mut(&id) else { return };
            if !process.clients.drop_reply(now, spared) {
                return;
            }
            self.rearm_clients(id);
        }
    }

    fn handle_message(&mut self, now: Instant, to: Address, from: Address, packet: Packet, how: Arrived) {
        let Packet { header, message, next } = packet;
        let Some(&id) = self.addresses.get(&to) else {
            return self.answer_for_departed(now, to, from, &header);
        };
        let about_reply = header.flags & rpc_flag::REPLY != 0;
        if header.flags & rpc_flag::REPORTS != 0 {
            self.takes_reports(from);
        }
        if !how.safe && answers_a_client(&header) {
            return; // our requests keep off untrusted networks, and so do honest answers to them
        }
        match header.kind {
            RpcKind::Hereis => self.handle_hereis(now, from, &header),
            RpcKind::Request => self.handle_request(now, id, from, &header, message, how),
            RpcKind::Received if about_reply => self.reply_received(now, id, from, &header),
            RpcKind::Reply => self.handle_reply(now, id, from, &header, message, how),
            RpcKind::Fail => self.client_packet(now, id, from, &header, None),
            RpcKind::Alive if !about_reply => self.client_packet(now, id, from, &header, None),
            RpcKind::Received | RpcKind::Enquire if self.is_under_way(now, id, from, &header) => {
                self.answer_alive(now, id, from, &header, 0);
            }
            RpcKind::Ack | RpcKind::Nak if !about_reply => self.client_packet(now, id, from, &header, None),
            RpcKind::Ack | RpcKind::Nak | RpcKind::Alive | RpcKind::Received | RpcKind::Enquire => {
                let Some(process) = self.processes.get_mut(&id) else { return };
                if let Some((to, packet)) = process.clients.handle_control(now, from, &header) {
                    self.send(now, id, to, packet);
                }
                self.rearm_clients(id);
            }
            RpcKind::Forward => {
                let next = next.filter(|next| !next.is_null());
                let Some(next) = next else { return };
                let slot = Slot(header.dest);
                self.with_remote(now, id, slot, |trans| trans.forwarded(from, &header, next));
            }
            RpcKind::Locate | RpcKind::Report => {}
        }
    }

    fn client_packet(
        &mut self,
        now: Instant,
        id: ProcessId,
        from: Address,
        header: &RpcHeader,
        message: Option<Message>,
    ) {
        self.with_remote(now, id, Slot(header.dest), |trans| trans.handle_packet(now, from, header, message));
    }

    fn handle_reply(
        &mut self,
        now: Instant,
        id: ProcessId,
        from: Address,
        header: &RpcHeader,
        message: Option<Message>,
        how: Arrived,
    ) {
        let slot = Slot(header.dest);
        let waiting = self.processes.get(&id).and_then(|process| process.slots.get(&slot));
        if !matches!(waiting, Some(ClientSlot::Remote { .. })) {
            return self.acknowledge_reply(now, id, from, header, RpcKind::Ack); // a copy, or too late
        }
        if how.complete {
            self.client_packet(now, id, from, header, message);
        } else {
            self.with_remote(now, id, slot, |trans| trans.reply_too_large(from, header));
        }
    }

    /// A server asks whether its reply arrived: if the slot still waits for exactly that, it did not.
    fn reply_received(&mut self, now: Instant, id: ProcessId, from: Address, header: &RpcHeader) {
        let slot = self.processes.get(&id).and_then(|process| process.slots.get(&Slot(header.dest)));
        let waits =
            matches!(slot, Some(ClientSlot::Remote { trans, .. }) if trans.waits_for(from, header.tid));
        if waits && self.is_arriving(now, id, from, RpcKind::Reply, header) {
            return self.answer_alive(now, id, from, header, rpc_flag::REPLY);
        }
        let kind = if waits { RpcKind::Nak } else { RpcKind::Ack };
        self.acknowledge_reply(now, id, from, header, kind);
    }

    fn acknowledge_reply(
        &mut self,
        now: Instant,
        id: ProcessId,
        to: Address,
        header: &RpcHeader,
        kind: RpcKind,
    ) {
        let answer = RpcHeader {
            kid: [0; 8],
            port: PutPort::NULL,
            kind,
            flags: rpc_flag::REPLY,
            tid: header.tid,
            dest: header.from,
            from: header.dest,
        };
        self.send(now, id, to, emit(&answer, None));
    }

    fn handle_hereis(&mut self, now: Instant, from: Address, header: &RpcHeader) {
        let elapsed = microseconds(now).wrapping_sub(header.tid);
        let round_trip = Duration::from_micros(elapsed.into()).min(ROUND_TRIP_MAX);
        if self.locates.contains_key(&header.port) {
            self.cache.insert(header.port, Server { address: from, round_trip });
            self.port_found(now, header.port);
        }
    }

    fn handle_request(
        &mut self,
        now: Instant,
        id: ProcessId,
        from: Address,
        header: &RpcHeader,
        message: Option<Message>,
        how: Arrived,
    ) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        let Some(mut message) = message else { return };
        match process.clients.request(now, from, header) {
            Verdict::New => {}
            Verdict::Known(answer) => {
                self.counters.duplicates += 1;
                self.rearm_clients(id);
                if let Some((to, packet)) = answer {
                    self.send(now, id, to, packet);
                }
                return;
            }
        }
        message.header.port = header.port;
        if !how.safe {
            message.header.signature = PutPort::NULL; // anybody could have written it
        }
        let client = (from, header.from);
        let origin = Origin::Remote { server: id, client, tid: header.tid };
        let listening = self.ports.get(&header.port).and_then(|port| port.listening.get(&id));
        let Some(listening) = listening else { return self.refuse(now, id, client, header.tid) };
        if !how.complete || message.data.len() > listening.request_size_max {
            return self.refuse_too_large(now, id, from, header);
        }
        let Ok(request) = self.submit(origin, from, message) else {
            return self.refuse(now, id, client, header.tid);
        };
        self.counters.served += 1;
        let process = self.processes.get_mut(&id).expect("found above");
        if let Some((to, packet)) = process.clients.accept(now, client, header.tid, !how.whole) {
            self.send(now, id, to, packet);
        }
        self.rearm_clients(id);
        self.dispatch(request);
    }

    /// The request is larger than its port takes: the kernel answers in the server's stead.
    fn refuse_too_large(&mut self, now: Instant, id: ProcessId, from: Address, header: &RpcHeader) {
        let client = (from, header.from);
        let process = self.processes.get_mut(&id).expect("the caller found it");
        process.clients.accept(now, client, header.tid, false);
        if let Some((to, packet)) = process.clients.reply(now, client, header.tid, too_large()) {
            self.send(now, id, to, packet);
        }
        self.rearm_clients(id);
    }

    fn handle_broadcast(&mut self, now: Instant, from: Address, payload: &[u8]) {
        let Some(packet) = payload.strip_prefix(&LOCATE_HEADER) else {
            return self.handle_datagram_broadcast(now, from, payload);
        };
        let Some((header, _, _)) = RpcHeader::parse(packet) else { return };
        if header.kind != RpcKind::Locate {
            return;
        }
        let server = self.ports.get(&header.port).and_then(|port| port.answerer());
        let Some(id) = server else { return };
        if header.flags & rpc_flag::REPORTS != 0 {
            self.takes_reports(from);
        }
        let flags = rpc_flag::REPORTS;
        let answer = RpcHeader { kind: RpcKind::Hereis, flags, dest: header.from, from: 0, ..header };
        self.send(now, id, from, emit(&answer, None));
    }

    fn handle_undelivered(
        &mut self,
        now: Instant,
        from: Address,
        to: Address,
        head: &[u8],
        reason: Undelivered,
        safe: bool,
    ) {
        if self.datagram_undelivered(to, head) {
            return;
        }
        let Some(&id) = self.addresses.get(&from) else { return };
        let Some((header, _, _)) = RpcHeader::parse(head) else { return };
        let about_reply = header.kind == RpcKind::Reply || header.flags & rpc_flag::REPLY != 0;
        if !safe && matches!(header.kind, RpcKind::Request | RpcKind::Reply) {
            return; // it was not sent over untrusted networks, so it cannot come back from there
        }
        if about_reply {
            // Without a way the client may still be there: the next question about the reply looks for it.
            if reason != Undelivered::NoRoute
                && let Some(process) = self.processes.get_mut(&id)
            {
                process.clients.client_gone((to, header.dest), header.tid);
                self.rearm_clients(id);
            }
            return;
        }
        if !matches!(header.kind, RpcKind::Request | RpcKind::Received | RpcKind::Enquire) {
            return;
        }
        self.with_remote(now, id, Slot(header.from), |trans| match reason {
            Undelivered::NotHere => trans.not_here(now, to, header.kind, header.tid),
            Undelivered::NoRoute => trans.no_route(now, to, header.tid),
            Undelivered::Untrusted => trans.untrusted(to, header.tid),
        });
    }

    /// Answers for a process that has ended: what it may have executed has failed, the rest was certainly not executed.
    fn answer_for_departed(&mut self, now: Instant, to: Address, from: Address, header: &RpcHeader) {
        let Some(departed) = self.departed.get(&to) else { return };
        let asks = header.flags & rpc_flag::REPLY == 0;
        if !asks || !matches!(header.kind, RpcKind::Request | RpcKind::Received | RpcKind::Enquire) {
            return;
        }
        let not_executed = || {
            let header = RpcHeader {
                kind: RpcKind::Nak,
                flags: rpc_flag::REQUEST,
                dest: header.from,
                from: 0,
                ..*header
            };
            (from, emit(&header, None))
        };
        let (client, packet) = departed.clients.after_death(from, header).unwrap_or_else(not_executed);
        self.flip.unicast(now, to, client, packet, Manner::default(), ANSWER_LOCATE_TIMEOUT);
    }
}

/// The time that a LOCATE says and its HEREIS repeats: nobody but whoever has sent it looks at it, so it may be finer
/// than the original's milliseconds. It wraps around.
fn microseconds(now: Instant) -> u32 {
    now.since_epoch().as_micros() as u32
}

/// Whether a packet is said to a client about its request.
fn answers_a_client(header: &RpcHeader) -> bool {
    let about_reply = header.flags & rpc_flag::REPLY != 0;
    match header.kind {
        RpcKind::Reply | RpcKind::Fail | RpcKind::Forward => true,
        RpcKind::Ack | RpcKind::Nak | RpcKind::Alive => !about_reply,
        _ => false,
    }
}

/// How a message came.
#[derive(Clone, Copy)]
struct Arrived {
    /// All of it is here.
    complete: bool,
    /// It came in one fragment.
    whole: bool,
    /// It came over trusted networks only.
    safe: bool,
}
