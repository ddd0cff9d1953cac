//! Other hosts: what follows when one is gone, and messages that take long to cross the network.
//!
//! A large request or reply may be under way for longer than the timers of RPC allow for silence. Whoever is asked about
//! a message that is arriving, or still leaving, says ALIVE, and nobody asks about what has not left yet. So no message
//! is sent twice because it is large, and silence always means loss or death.

use amoeba_flip::{LinkId, Location, Payload};
use amoeba_rpc::emit;
use amoeba_threads::Instant;
use amoeba_wire::packet::{Address, RpcHeader, RpcKind, rpc_flag};

use crate::transact::ClientSlot;
use crate::{Kernel, ProcessId, Slot};

impl Kernel {
    /// The host at this location is gone, or has started anew: forgets every way through it and every server there, and
    /// ends the transactions under way with its processes, which may have been executed. Transactions that still look
    /// for a server go on. What executes here for clients there goes on too, but their replies are not kept.
    pub fn peer_lost(&mut self, now: Instant, link: LinkId, location: &Location) {
        let lost = self.flip.location_lost(now, link, location);
        for &address in &lost {
            self.cache.forget(address);
            self.reporting.remove(&address);
            self.endpoints.forget(address);
            for process in self.processes.values_mut() {
                process.clients.host_lost(address);
            }
        }
        self.forget_owed(&lost);
        for (process, slot) in self.slots_with(&lost) {
            self.with_remote(now, process, slot, |trans| trans.server_lost());
        }
        for id in self.processes.keys().copied().collect::<Vec<_>>() {
            self.rearm_clients(id);
        }
        self.pump(now);
    }

    /// The client threads whose transactions are with one of these processes; `servers` is sorted.
    fn slots_with(&self, servers: &[Address]) -> Vec<(ProcessId, Slot)> {
        let mut found = Vec::new();
        for (id, process) in &self.processes {
            for (slot, client) in &process.slots {
                let ClientSlot::Remote { trans, .. } = client else { continue };
                if trans.server().is_some_and(|(server, _)| servers.binary_search(&server).is_ok()) {
                    found.push((*id, *slot));
                }
            }
        }
        found
    }

    /// Whether a message of transaction `header.tid` from `from` to this process is arriving.
    pub(crate) fn is_arriving(
        &self,
        now: Instant,
        id: ProcessId,
        from: Address,
        kind: RpcKind,
        header: &RpcHeader,
    ) -> bool {
        let Some(here) = self.address(id) else { return false };
        self.flip.arriving(now, from, here, |front| is_of(front, kind, header.tid, header.from, header.dest))
    }

    /// A client asks about its request: whether the request is arriving, or its reply is leaving.
    pub(crate) fn is_under_way(
        &self,
        now: Instant,
        id: ProcessId,
        from: Address,
        header: &RpcHeader,
    ) -> bool {
        if header.flags & rpc_flag::REPLY != 0 {
            return false;
        }
        let Some(process) = self.processes.get(&id) else { return false };
        if process.clients.is_new((from, header.from), header.tid) {
            return self.is_arriving(now, id, from, RpcKind::Request, header);
        }
        let reply = |front: &[u8]| is_of(front, RpcKind::Reply, header.tid, 0, header.from);
        self.flip.leaving(now, process.address, from, reply)
    }

    /// Whether this question of a server, whether its reply arrived, is about a reply that has not left yet: then the
    /// server goes on waiting.
    pub(crate) fn still_leaving(
        &mut self,
        now: Instant,
        id: ProcessId,
        to: Address,
        question: &Payload,
    ) -> bool {
        let Some((asked, _, _)) = RpcHeader::parse(question.head()) else { return false };
        let Some(process) = self.processes.get_mut(&id) else { return false };
        let reply = |front: &[u8]| is_of(front, RpcKind::Reply, asked.tid, 0, asked.dest);
        let leaving = self.flip.leaving(now, process.address, to, reply);
        if leaving {
            process.clients.still_leaving(now, (to, asked.dest), asked.tid);
        }
        leaving
    }

    /// Whether the transaction of this slot waits for a request that is still leaving or a reply that is arriving.
    pub(crate) fn slot_under_way(&self, now: Instant, id: ProcessId, slot: Slot) -> bool {
        let Some(process) = self.processes.get(&id) else { return false };
        let Some(ClientSlot::Remote { trans, .. }) = process.slots.get(&slot) else { return false };
        let Some((server, tid)) = trans.server() else { return false };
        let request = |front: &[u8]| is_of(front, RpcKind::Request, tid, slot.0, 0);
        let reply = |front: &[u8]| is_of(front, RpcKind::Reply, tid, 0, slot.0);
        self.flip.leaving(now, process.address, server, request)
            || self.flip.arriving(now, server, process.address, reply)
    }

    /// A request was refused or has its answer: no more of it is to leave. Its receiver may forget that it refused it
    /// before the last of a long message would be there.
    pub(crate) fn withdraw_request(
        &mut self,
        now: Instant,
        id: ProcessId,
        slot: Slot,
        server: Address,
        tid: u32,
    ) {
        let Some(here) = self.address(id) else { return };
        let request = |front: &[u8]| is_of(front, RpcKind::Request, tid, slot.0, 0);
        self.flip.withdraw(now, here, server, request);
    }

    /// Tells whoever asked that what it asks about is under way.
    pub(crate) fn answer_alive(
        &mut self,
        now: Instant,
        id: ProcessId,
        to: Address,
        asked: &RpcHeader,
        flags: u8,
    ) {
        let kind = RpcKind::Alive;
        let answer = RpcHeader { kid: [0; 8], kind, flags, dest: asked.from, from: asked.dest, ..*asked };
        self.send(now, id, to, emit(&answer, None));
    }
}

/// Whether a message begins with the header of this request (named by its source slot) or reply (by its destination).
fn is_of(front: &[u8], kind: RpcKind, tid: u32, from: u16, dest: u16) -> bool {
    RpcHeader::parse(front).is_some_and(|(header, _, _)| {
        let slots = if kind == RpcKind::Request { header.from == from } else { header.dest == dest };
        header.kind == kind && header.tid == tid && slots
    })
}
