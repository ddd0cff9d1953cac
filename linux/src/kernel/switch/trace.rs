//! Viewers of what passes: each is a connection of its own, and ends with it.
//!
//! While somebody looks on, no channel and no flow is introduced, so that transactions go through this daemon. Those that
//! are there already go on unseen, because ending one fails the transaction that is under way over it; a viewer that wants
//! to see everything asks for that. A viewer that reads too slowly loses records, and is told how many.

mod conversations;

use std::collections::BTreeMap;
use std::time::Duration;

use amoeba_cap::PutPort;
use amoeba_kernel::{LinkId, Location, ProcessId, RequestId, Slot};
use amoeba_threads::Instant;
use amoeba_wire::packet::{Address, FlipHeader};
use amoeba_wire::trace::{Event, NAME_SIZE_MAX, Outcome, PACKET_SEEN_MAX, Record, Seen, abridged};
use amoeba_wire::{Status, Writer};
use amoeba_world::{Caller, Error, Message};
use conversations::Conversations;

use super::super::table::{Member, Token};
use super::Switch;
use crate::link::Link;
use crate::socket::{Bad, TEXT_SIZE_MAX, ToProcess, TraceFilter};

/// Viewers at once; one more is told RPC_TRYAGAIN.
pub(in crate::kernel) const VIEWERS_MAX: usize = 8;
/// Bytes of records that wait for one viewer; past it new ones are dropped and counted. With one more they fit a frame.
const QUEUE_SIZE_MAX: usize = TEXT_SIZE_MAX - 3 * PACKET_SEEN_MAX;
/// Transactions whose beginning is remembered until their end; past it the oldest is forgotten.
const OPEN_MAX: usize = 16384;

/// Somebody who looks on.
struct Viewer {
    filter: TraceFilter,
    /// Whether it has asked for more.
    waiting: bool,
    records: Writer,
    dropped: u64,
}

/// A transaction that was seen to begin.
struct Begun {
    at: Instant,
    port: PutPort,
}

/// All viewers, and what they must remember of what has passed.
#[derive(Default)]
pub(super) struct Viewers {
    table: BTreeMap<Token, Viewer>,
    /// What time it was when this machine had been up for no time.
    epoch: Duration,
    begun: BTreeMap<(ProcessId, Slot), Begun>,
    delivered: BTreeMap<RequestId, PutPort>,
    conversations: Conversations,
    /// Packets that have come in during this turn of a link.
    packets: Vec<(Location, Vec<u8>)>,
    /// Records that some viewer had no room for, since the daemon was started.
    left_out: u64,
}

impl Viewers {
    /// Keeps a packet that has come in until its link has done its turn.
    pub(super) fn keep_packet(&mut self, from: &Location, packet: &[u8]) {
        if self.any() {
            self.packets.push((*from, packet.to_vec()));
        }
    }

    /// Counters, a line each.
    pub(super) fn status(&self) -> String {
        let rows = [("viewers", self.table.len() as u64), ("records left out", self.left_out)];
        rows.iter().map(|(name, value)| format!("{name:24} {value}\n")).collect()
    }

    /// Whether anybody looks on.
    pub(super) fn any(&self) -> bool {
        !self.table.is_empty()
    }

    /// Shows an event to every viewer that `wants` it; `event` makes it with data or without.
    fn show(&mut self, now: Instant, wants: impl Fn(&TraceFilter) -> bool, event: impl Fn(bool) -> Event) {
        let time = self.epoch + now.since_epoch();
        for viewer in self.table.values_mut().filter(|viewer| wants(&viewer.filter)) {
            if viewer.records.len() >= QUEUE_SIZE_MAX {
                viewer.dropped += 1;
                self.left_out += 1;
            } else {
                Record { time, event: event(viewer.filter.data) }.put(&mut viewer.records);
            }
        }
    }
}

/// Whether a viewer wants what a process does with a port.
fn concerns(filter: &TraceFilter, pid: u32, port: Option<PutPort>) -> bool {
    filter.pid.is_none_or(|wanted| wanted == pid) && filter.port.is_none_or(|wanted| port == Some(wanted))
}

impl Switch {
    /// Whether anybody looks on: then nothing may pass this daemon by.
    pub(in crate::kernel) fn is_traced(&self) -> bool {
        self.viewers.any()
    }

    /// TRACE. A guest may use the daemon's socket, but what others do is not its business.
    pub(super) fn trace(
        &mut self,
        now: Instant,
        token: Token,
        proved: &[u8; 16],
        filter: TraceFilter,
    ) -> Result<(), Bad> {
        let Some(connection) = self.table.get(token) else { return Ok(()) };
        if connection.is_waiting() || connection.endpoint.is_some() || !connection.executing.is_empty() {
            return Err(Bad::OutOfTurn);
        }
        if !self.hosts.proves(proved) {
            tracing::warn!(pid = connection.pid, "refused a process that wants to look on");
            self.send(token, ToProcess::Error { error: Error::Refused(Status::STD_DENIED) });
            return Ok(());
        }
        if self.viewers.table.len() >= VIEWERS_MAX {
            self.refuse(token, Status::RPC_TRYAGAIN);
            return Ok(());
        }
        tracing::info!(pid = connection.pid, "somebody looks on: {filter:?}");
        if !self.viewers.any() {
            self.viewers.epoch = crate::clock().unix_time().saturating_sub(now.since_epoch());
        }
        let viewer = Viewer { filter, waiting: false, records: Writer::new(), dropped: 0 };
        self.viewers.table.insert(token, viewer);
        if filter.all {
            for process in self.processes.keys().copied().collect::<Vec<_>>() {
                self.revoke(process);
                self.revoke_flows(now, process);
            }
        }
        self.send(token, ToProcess::Done);
        Ok(())
    }

    /// Whether this connection looks on, and does nothing else.
    pub(super) fn is_viewer(&self, token: Token) -> bool {
        self.viewers.table.contains_key(&token)
    }

    /// TRACE-NEXT: answered now or when something passes.
    pub(super) fn trace_next(&mut self, token: Token) -> Result<(), Bad> {
        let viewer = self.viewers.table.get_mut(&token).filter(|viewer| !viewer.waiting);
        viewer.ok_or(Bad::OutOfTurn)?.waiting = true;
        Ok(())
    }

    /// The connection is over.
    pub(super) fn trace_ended(&mut self, token: Token) {
        if self.viewers.table.remove(&token).is_some() && !self.viewers.any() {
            self.viewers = Viewers { left_out: self.viewers.left_out, ..Viewers::default() };
        }
    }

    /// Gives those who wait what there is.
    pub(super) fn show_traces(&mut self) {
        let mut ready = Vec::new();
        for (token, viewer) in &mut self.viewers.table {
            if viewer.waiting && (viewer.dropped > 0 || !viewer.records.is_empty()) {
                viewer.waiting = false;
                let records = std::mem::take(&mut viewer.records).finish();
                ready.push((
                    *token,
                    ToProcess::Traced { dropped: std::mem::take(&mut viewer.dropped), records },
                ));
            }
        }
        for (token, frame) in ready {
            self.send(token, frame);
        }
    }

    /// A process begins a transaction.
    pub(super) fn trace_trans(&mut self, now: Instant, token: Token, member: Member, message: &Message) {
        if !self.viewers.any() {
            return;
        }
        let pid = self.table.get(token).map_or(0, |connection| connection.pid.unsigned_abs());
        let port = message.header.port;
        let begun = &mut self.viewers.begun;
        if begun.len() >= OPEN_MAX {
            begun.pop_first();
        }
        begun.insert((member.process, member.slot), Begun { at: now, port });
        self.viewers.show(
            now,
            |filter| concerns(filter, pid, Some(port)),
            |data| Event::Request {
                pid,
                slot: member.slot.0,
                message: Seen::of(&message.header, &message.data, data),
            },
        );
    }

    /// A transaction has ended.
    pub(super) fn trace_ended_trans(
        &mut self,
        now: Instant,
        process: ProcessId,
        slot: Slot,
        result: &Result<Message, Error>,
    ) {
        if !self.viewers.any() {
            return;
        }
        let pid = self.pid_of(process);
        let begun = self.viewers.begun.remove(&(process, slot));
        let port = begun.as_ref().map(|begun| begun.port);
        let elapsed = begun.map(|begun| now.since(begun.at));
        self.viewers.show(
            now,
            |filter| concerns(filter, pid, port),
            |data| Event::Ended {
                pid,
                slot: slot.0,
                elapsed,
                outcome: match result {
                    Ok(reply) => Outcome::Reply(Seen::of(&reply.header, &reply.data, data)),
                    Err(error) if error.not_executed() => Outcome::NotSent(error.status().0),
                    Err(error) => Outcome::MaybeExecuted(error.status().0),
                },
            },
        );
    }

    /// A process is given a request.
    pub(super) fn trace_delivered(
        &mut self,
        now: Instant,
        process: ProcessId,
        request: RequestId,
        caller: &Caller,
        message: &Message,
    ) {
        if !self.viewers.any() {
            return;
        }
        let (pid, port, client) = (self.pid_of(process), message.header.port, caller.process);
        let delivered = &mut self.viewers.delivered;
        if delivered.len() >= OPEN_MAX {
            delivered.pop_first();
        }
        delivered.insert(request, port);
        self.viewers.show(
            now,
            |filter| concerns(filter, pid, Some(port)),
            |data| Event::Delivered {
                pid,
                request: request.0,
                client,
                message: Seen::of(&message.header, &message.data, data),
            },
        );
    }

    /// A process has answered a request, or given it up.
    pub(super) fn trace_answered(
        &mut self,
        now: Instant,
        process: ProcessId,
        request: RequestId,
        reply: Option<&Message>,
    ) {
        if !self.viewers.any() {
            return;
        }
        let pid = self.pid_of(process);
        let port = self.viewers.delivered.remove(&request);
        self.viewers.show(
            now,
            |filter| concerns(filter, pid, port),
            |data| Event::Answered {
                pid,
                request: request.0,
                reply: reply.map(|reply| Seen::of(&reply.header, &reply.data, data)),
            },
        );
    }

    /// A packet crosses a link; `peer` is `None` for one to everybody.
    pub(super) fn trace_packet(
        &mut self,
        now: Instant,
        inward: bool,
        link: LinkId,
        peer: Option<&Location>,
        packet: &[u8],
    ) {
        if !self.viewers.any() {
            return;
        }
        let Some((flip, payload, _)) = FlipHeader::parse(packet) else { return };
        let by_port = self.viewers.table.values().any(|viewer| viewer.filter.port.is_some());
        let port = by_port.then(|| self.viewers.conversations.port_of(&flip, payload)).flatten();
        let wanted: Vec<u32> = self.viewers.table.values().filter_map(|viewer| viewer.filter.pid).collect();
        let about: Vec<u32> =
            wanted.into_iter().filter(|pid| self.is_address_of(*pid, &[flip.from, flip.to])).collect();
        let network = self.links.get(usize::from(link.0));
        let name = || peer_name(now, network.map(|link| &**link), peer);
        let size = u32::try_from(packet.len()).unwrap_or(u32::MAX);
        self.viewers.show(
            now,
            |filter| {
                filter.pid.is_none_or(|pid| about.contains(&pid))
                    && filter.port.is_none_or(|wanted| port == Some(wanted))
            },
            |data| Event::Packet { inward, link: link.0, peer: name(), size, bytes: abridged(packet, data) },
        );
    }

    fn pid_of(&self, process: ProcessId) -> u32 {
        self.processes.get(&process).map_or(0, |process| process.pid.unsigned_abs())
    }

    fn is_address_of(&self, pid: u32, addresses: &[Address]) -> bool {
        self.processes.iter().any(|(id, process)| {
            process.pid.unsigned_abs() == pid
                && self.kernel.address(*id).is_some_and(|address| addresses.contains(&address))
        })
    }

    /// Shows what has come in over a link in its turn.
    pub(super) fn trace_kept_packets(&mut self, now: Instant, link: LinkId) {
        for (from, packet) in std::mem::take(&mut self.viewers.packets) {
            self.trace_packet(now, true, link, Some(&from), &packet);
        }
    }
}

/// What somebody on a link is called, for people; empty for everybody.
fn peer_name(now: Instant, link: Option<&dyn Link>, peer: Option<&Location>) -> Vec<u8> {
    let Some(peer) = peer else { return Vec::new() };
    let peers = link.map(|link| link.describe_peers(now));
    let found = peers.iter().flatten().find(|described| described.location == *peer);
    let mut name = match found {
        Some(peer) if peer.name.is_empty() => peer.address.clone(),
        Some(peer) => format!("{} {}", peer.name, peer.address),
        None => format!("{peer:?}"),
    };
    name.truncate(name.floor_char_boundary(NAME_SIZE_MAX));
    name.into_bytes()
}
