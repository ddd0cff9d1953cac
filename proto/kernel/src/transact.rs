//! The client side: starting transactions, finding servers, ending.

use std::time::Duration;

use amoeba_cap::PutPort;
use amoeba_flip::{Manner, Payload};
use amoeba_rpc::{Action, HEADERS_SIZE, RemoteTrans, Server};
use amoeba_threads::Instant;
use amoeba_wire::Status;
use amoeba_wire::packet::{Address, ETHERNET_PAYLOAD_MAX};
use amoeba_world::{Error, Message, TransOptions};

use crate::serve::Origin;
use crate::{ANSWER_LOCATE_TIMEOUT, Kernel, ProcessId, RequestId, Slot, Timer, check};

/// The transaction of a client thread.
pub(crate) enum ClientSlot {
    /// With a process of this host.
    Local(RequestId),
    /// With another host, or still without a server.
    Remote { trans: RemoteTrans, timer: Option<Instant> },
}

impl Kernel {
    /// Starts a transaction; one [`crate::Event::Reply`] for `slot` will end it, at once for a bad request. A
    /// transaction that the slot still has is forgotten.
    pub fn trans(
        &mut self,
        now: Instant,
        process: ProcessId,
        slot: Slot,
        mut request: Message,
        options: &TransOptions,
    ) {
        self.forget_slot(process, slot);
        let Some(kid) = self.processes.get(&process).map(|process| process.kid) else { return };
        if let Err(error) = check(&request) {
            return self.finish(process, slot, Err(error));
        }
        let signature = options.signature.as_ref().map(|port| self.secret.put_port(port));
        request.header.signature = signature.unwrap_or(PutPort::NULL);
        self.widen(process, options.reply_size_max);
        let deadline = now + options.locate_timeout;
        let trans = RemoteTrans::new(request, kid, slot.0, now, deadline, options.reply_size_max);
        self.put_remote(process, slot, trans);
        self.set_deadline(process, slot, options.deadline.map(|time| now + time));
        self.find_server(now, process, slot);
        self.pump(now);
    }

    /// The client thread is gone: forget its transaction, without an event.
    pub fn abort(&mut self, process: ProcessId, slot: Slot) {
        self.forget_slot(process, slot);
    }

    pub(crate) fn forget_slot(&mut self, process: ProcessId, slot: Slot) {
        self.clear_deadline(process, slot);
        let removed = self.processes.get_mut(&process).and_then(|process| process.slots.remove(&slot));
        match removed {
            Some(ClientSlot::Local(request)) => self.forget_request(request),
            Some(ClientSlot::Remote { trans, timer }) => {
                self.searching.remove(&(trans.port(), process, slot));
                self.set_timer(timer, None, Timer::Slot(process, slot));
            }
            None => {}
        }
    }

    fn set_deadline(&mut self, process: ProcessId, slot: Slot, deadline: Option<Instant>) {
        let Some(client) = self.processes.get_mut(&process) else { return };
        let old = match deadline {
            Some(deadline) => client.deadlines.insert(slot, deadline),
            None => client.deadlines.remove(&slot),
        };
        self.set_timer(old, deadline, Timer::Deadline(process, slot));
    }

    /// The transaction of this slot has ended or is forgotten.
    pub(crate) fn clear_deadline(&mut self, process: ProcessId, slot: Slot) {
        self.set_deadline(process, slot, None);
    }

    /// The transaction of this slot ends here: as one that was certainly not executed only if no server was given it.
    pub(crate) fn deadline_passed(&mut self, now: Instant, process: ProcessId, slot: Slot) {
        let error = match self.slot_mut(process, slot) {
            Some(ClientSlot::Remote { trans, .. }) => trans.give_up(now),
            Some(ClientSlot::Local(request)) => {
                let request = *request;
                if self.is_delivered(request) { SERVER_DIED } else { Error::NotSent(Status::RPC_TRYAGAIN) }
            }
            None => return self.clear_deadline(process, slot),
        };
        self.forget_slot(process, slot);
        self.finish(process, slot, Err(error));
    }

    pub(crate) fn slot_timeout(&mut self, now: Instant, process: ProcessId, slot: Slot) {
        let Some(ClientSlot::Remote { trans, timer, .. }) = self.slot_mut(process, slot) else { return };
        *timer = None;
        if trans.is_locating() && now < trans.locate_deadline() {
            self.find_server(now, process, slot);
        } else if self.slot_under_way(now, process, slot) {
            self.with_remote(now, process, slot, |trans| trans.still_under_way(now));
        } else {
            self.with_remote(now, process, slot, |trans| trans.handle_timeout(now));
        }
    }

    /// Gives a transaction that is locating to a server: one of this host, or one that is known elsewhere, or whoever
    /// will answer a search.
    pub(crate) fn find_server(&mut self, now: Instant, process: ProcessId, slot: Slot) {
        let Some(ClientSlot::Remote { trans, .. }) = self.slot_mut(process, slot) else { return };
        if !trans.is_locating() {
            return;
        }
        let port = trans.port();
        if self.ports.contains_key(&port) {
            return self.hand_over(process, slot);
        }
        if let Some(server) = self.cache.lookup(port) {
            self.counters.remote += 1;
            self.searching.remove(&(port, process, slot));
            self.pay(now, process, slot, Some(server.address));
            let tid = self.next_tid(process);
            return self.with_remote(now, process, slot, |trans| vec![trans.found(now, server, tid)]);
        }
        self.searching.insert((port, process, slot));
        self.with_remote(now, process, slot, |trans| trans.handle_timeout(now));
        self.search(now, port);
    }

    /// Every transaction that waits for this port tries again.
    pub(crate) fn port_found(&mut self, now: Instant, port: PutPort) {
        for (process, slot) in self.searchers(port).collect::<Vec<_>>() {
            self.find_server(now, process, slot);
        }
    }

    /// The client threads that wait for a search for this port.
    pub(crate) fn searchers(&self, port: PutPort) -> impl Iterator<Item = (ProcessId, Slot)> {
        let first = (port, ProcessId(0), Slot(0));
        let last = (port, ProcessId(u64::MAX), Slot(u16::MAX));
        self.searching.range(first..=last).map(|&(_, process, slot)| (process, slot))
    }

    /// Gives a transaction that is locating to a process of this host.
    fn hand_over(&mut self, process: ProcessId, slot: Slot) {
        let Some(client) = self.processes.get_mut(&process) else { return };
        let address = client.address;
        let Some(ClientSlot::Remote { trans, timer }) = client.slots.remove(&slot) else { return };
        self.searching.remove(&(trans.port(), process, slot));
        self.set_timer(timer, None, Timer::Slot(process, slot));
        let (locate_deadline, reply_size_max) = (trans.locate_deadline(), trans.reply_size_max());
        let origin = Origin::Local { process, slot, locate_deadline, reply_size_max };
        match self.submit(origin, address, trans.into_request()) {
            Ok(request) => {
                self.counters.local += 1;
                if let Some(client) = self.processes.get_mut(&process) {
                    client.slots.insert(slot, ClientSlot::Local(request));
                }
                self.dispatch(request);
            }
            Err(refused) => self.finish(process, slot, refused.result()),
        }
    }

    /// A request that waited for a process which no longer listens looks for another server.
    pub(crate) fn locate_afresh(&mut self, now: Instant, origin: Origin, request: Message) {
        let Origin::Local { process, slot, locate_deadline, reply_size_max } = origin else { return };
        let Some(client) = self.processes.get_mut(&process) else { return };
        let kid = client.kid;
        client.slots.remove(&slot);
        let trans = RemoteTrans::new(request, kid, slot.0, now, locate_deadline, reply_size_max);
        self.put_remote(process, slot, trans);
        self.find_server(now, process, slot);
    }

    /// Lets `step` advance a remote transaction and does what it asks for.
    pub(crate) fn with_remote(
        &mut self,
        now: Instant,
        process: ProcessId,
        slot: Slot,
        step: impl FnOnce(&mut RemoteTrans) -> Vec<Action>,
    ) {
        let Some(ClientSlot::Remote { trans, .. }) = self.slot_mut(process, slot) else { return };
        let (port, before) = (trans.port(), trans.server());
        let actions = step(trans);
        let ended = actions.iter().any(|action| matches!(action, Action::Done(_)));
        let large = trans.request_size() + HEADERS_SIZE > ETHERNET_PAYLOAD_MAX;
        let over = before.filter(|before| large && (ended || trans.server() != Some(*before)));
        if let Some((server, tid)) = over {
            self.withdraw_request(now, process, slot, server, tid);
        }
        let (mut done, mut next) = (None, None);
        for action in actions {
            match action {
                Action::Send(to, packet) => self.send(now, process, to, packet),
                Action::Acknowledge { server, ack, small } => {
                    self.acknowledge(now, process, slot, server, ack, small);
                }
                Action::Forward(server) => next = Some(server),
                Action::Doubt(server) => self.flip.doubt(server),
                Action::Forget(server) => self.cache.remove(port, server),
                Action::Locate => {}
                Action::Done(result) => done = Some(result),
            }
        }
        if let Some(address) = next {
            return self.send_on(now, process, slot, address);
        }
        match done {
            Some(result) => {
                self.forget_slot(process, slot);
                self.finish(process, slot, result);
            }
            None => self.rearm(process, slot),
        }
    }

    /// Gives a transaction to the server that another has named.
    fn send_on(&mut self, now: Instant, process: ProcessId, slot: Slot, address: Address) {
        let Some(ClientSlot::Remote { trans, .. }) = self.slot_mut(process, slot) else { return };
        let (port, server) = (trans.port(), Server { address, round_trip: ROUND_TRIP_FIRST });
        self.cache.insert(port, server);
        self.pay(now, process, slot, Some(address));
        let tid = self.next_tid(process);
        self.with_remote(now, process, slot, |trans| vec![trans.found(now, server, tid)]);
    }

    fn put_remote(&mut self, process: ProcessId, slot: Slot, trans: RemoteTrans) {
        if let Some(client) = self.processes.get_mut(&process) {
            client.slots.insert(slot, ClientSlot::Remote { trans, timer: None });
        }
    }

    fn rearm(&mut self, process: ProcessId, slot: Slot) {
        let Some(ClientSlot::Remote { trans, timer, .. }) = self.slot_mut(process, slot) else { return };
        let (old, new) = (*timer, Some(trans.timeout()));
        *timer = new;
        self.set_timer(old, new, Timer::Slot(process, slot));
    }

    fn slot_mut(&mut self, process: ProcessId, slot: Slot) -> Option<&mut ClientSlot> {
        self.processes.get_mut(&process)?.slots.get_mut(&slot)
    }

    fn next_tid(&mut self, process: ProcessId) -> u32 {
        let process = self.processes.get_mut(&process).expect("its slot was found just now");
        process.tid = process.tid.wrapping_add(1);
        process.tid
    }

    /// Sends an RPC packet of a process of this host. Only requests and replies must stay on trusted networks.
    pub(crate) fn send(&mut self, now: Instant, process: ProcessId, to: Address, packet: Payload) {
        let Some(from) = self.address(process) else { return };
        let secure = packet.len() >= amoeba_rpc::HEADERS_SIZE;
        let manner = Manner { secure, reported: self.reporting.contains(&to) };
        self.flip.unicast(now, from, to, packet, manner, ANSWER_LOCATE_TIMEOUT);
    }
}

/// What is taken for the round trip to a server that another named.
const ROUND_TRIP_FIRST: Duration = Duration::from_millis(10);

/// What a client hears when the process that had its request has ended, or the client will wait for it no longer.
pub(crate) const SERVER_DIED: Error = Error::MaybeExecuted(Status::RPC_FAILURE);
