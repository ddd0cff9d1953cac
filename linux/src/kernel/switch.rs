//! What frames and packets mean: between the connections' queues, the links and the transaction kernel. No system call
//! is made here, but for the descriptors of introductions.

mod datagram;
mod flows;
mod introduce;
mod knock;
mod lend;
mod look;
mod members;
mod stun;
mod trace;

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use amoeba_cap::PutPort;
use amoeba_kernel::{
    EndpointId, Event, GetreqId, Kernel, LinkId, PACKET_SIZE_MIN, ProcessId, RequestId, Slot,
};
use amoeba_threads::Instant;
use amoeba_wire::Status;
use amoeba_world::{Entropy, Error, Message, TransOptions, random};

use super::table::{Connection, Member, Outgoing, Table, Token};
use super::{CONNECTIONS_PER_PROCESS_MAX, Config, EXECUTING_MAX, OUTGOING_FRAMES_MAX, STALL_TIME};
use crate::link::{Link, LinkEvent};
use crate::socket::{Assembled, Bad, Cookie, ToKernel, ToProcess, VERSION};

pub use flows::{FLOWS_MAX, FLOWS_PER_CLIENT_MAX};
pub(super) use introduce::DESCRIPTORS_PER_CHANNEL;
pub use introduce::{ACCEPT_TIME, CHANNELS_MAX, CHANNELS_PER_CLIENT_MAX};

/// A process that has attached.
struct Process {
    cookie: Cookie,
    pid: i32,
    /// Whether it was introduced to clients: its threads have work of which the daemon does not know.
    is_introduced: bool,
    /// Its connections; the index is the slot of each.
    slots: Vec<Option<Token>>,
}

/// Joins connections and kernel.
pub(super) struct Switch {
    kernel: Kernel,
    entropy: Arc<dyn Entropy>,
    /// The networks of this host, by their [`LinkId`]s.
    pub(super) links: Vec<Box<dyn Link>>,
    pub(super) table: Table,
    processes: BTreeMap<ProcessId, Process>,
    cookies: BTreeMap<Cookie, ProcessId>,
    /// The connections of endpoints.
    endpoints: BTreeMap<EndpointId, Token>,
    channels: introduce::Channels,
    flows: flows::Flows,
    knocks: knock::Knocks,
    tickets: lend::Tickets,
    /// The connection whose thread has just come for a request.
    asking: Option<Token>,
    hosts: members::Hosts,
    connections_max: usize,
    buffered_max: usize,
    /// Bytes of data held for all connections.
    buffered: usize,
    /// Connections with something new to send.
    pub(super) to_flush: Vec<Token>,
    /// Connections to be closed.
    pub(super) doomed: Vec<Token>,
    viewers: trace::Viewers,
}

impl Switch {
    pub(super) fn new(mut config: Config, now: Instant) -> Switch {
        let hosts = members::Hosts::new(&mut config);
        let kernel = amoeba_kernel::Config {
            secret: config.secret,
            entropy: config.entropy.clone(),
            links: config.links.iter().map(|link| link.config()).collect(),
        };
        Switch {
            kernel: Kernel::new(kernel, now),
            entropy: config.entropy,
            links: config.links,
            table: Table::default(),
            processes: BTreeMap::new(),
            cookies: BTreeMap::new(),
            endpoints: BTreeMap::new(),
            channels: introduce::Channels::new(config.channels_max),
            flows: flows::Flows::default(),
            knocks: knock::Knocks::default(),
            tickets: lend::Tickets::default(),
            asking: None,
            hosts,
            connections_max: config.connections_max,
            buffered_max: config.buffered_max,
            buffered: 0,
            to_flush: Vec::new(),
            doomed: Vec::new(),
            viewers: trace::Viewers::default(),
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let own = [self.channels.poll_timeout(), self.flows.poll_timeout(), self.knocks.poll_timeout()];
        self.kernel.poll_timeout().into_iter().chain(own.into_iter().flatten()).min()
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.kernel.handle_timeout(now);
        self.introductions_timeout(now);
        self.flows_timeout(now);
        self.knocks_timeout(now);
    }

    /// A new connection; one too many is told so and closed.
    pub(super) fn connected(&mut self, now: Instant, socket: OwnedFd, pid: i32) -> Token {
        let mut connection = Connection::new(socket, pid, now);
        connection.closing = self.table.len() >= self.connections_max;
        let refused = connection.closing;
        let token = self.table.insert(connection);
        if refused {
            tracing::warn!(pid, "refused a connection: there are {} already", self.connections_max);
            self.refuse(token, Status::RPC_TRYAGAIN);
        }
        token
    }

    /// Marks a connection to be closed.
    pub(super) fn doom(&mut self, token: Token) {
        self.doomed.push(token);
    }

    /// The connection is over: forget what it waited for, fail what it was executing.
    pub(super) fn disconnected(&mut self, now: Instant, token: Token) {
        let Some(connection) = self.table.remove(token) else { return };
        self.buffered -= connection.counted;
        self.trace_ended(token);
        let Some(Member { process, slot }) = connection.member else { return };
        self.introductions_disconnected(token);
        self.flows_disconnected(now, token);
        self.knock_over(now, token);
        if connection.trans.is_some() {
            self.kernel.abort(process, slot);
        }
        if connection.getreq.is_some() {
            self.kernel.cancel_getreq(process, GetreqId(token.to_u64()));
        }
        if let Some(endpoint) = connection.endpoint {
            self.endpoints.remove(&endpoint);
            self.kernel.close_endpoint(process, endpoint);
        }
        for &request in &connection.executing {
            self.kernel.fail(now, process, request);
        }
        let entry = self.processes.get_mut(&process).expect("members' processes are attached");
        entry.slots[usize::from(slot.0)] = None;
        if entry.slots.iter().all(Option::is_none) {
            self.cookies.remove(&entry.cookie);
            self.processes.remove(&process);
            self.revoke(process);
            self.revoke_flows(now, process);
            self.tickets.detached(process, self.kernel.address(process));
            self.kernel.detach(now, process);
        }
    }

    /// Queues a frame for a connection.
    pub(super) fn send(&mut self, token: Token, frame: ToProcess) {
        self.send_with(token, frame, Vec::new());
    }

    /// Queues a frame and the descriptors that go with it.
    fn send_with(&mut self, token: Token, frame: ToProcess, descriptors: Vec<OwnedFd>) {
        let Some(connection) = self.table.get_mut(token) else { return };
        if connection.outgoing.len() >= OUTGOING_FRAMES_MAX {
            tracing::warn!(pid = connection.pid, "closing a connection that does not read");
            return self.doom(token);
        }
        let (head, data) = frame.into_frame();
        connection.outgoing.push_back(Outgoing { head, data, sent: 0, descriptors });
        self.to_flush.push(token);
    }

    fn refuse(&mut self, token: Token, status: Status) {
        self.send(token, ToProcess::Error { error: Error::NotSent(status) });
    }

    /// A frame has arrived. What it sets off is queued before the next frame is looked at, so that no two answers
    /// ever meet on a connection.
    pub(super) fn frame(&mut self, now: Instant, token: Token, assembled: Assembled) -> Result<(), Bad> {
        let result = self.interpret(now, token, assembled);
        self.dispatch(now);
        self.asking = None;
        result
    }

    fn interpret(&mut self, now: Instant, token: Token, assembled: Assembled) -> Result<(), Bad> {
        let Some(connection) = self.table.get_mut(token) else { return Ok(()) };
        let descriptors = match assembled.parts.kind.descriptors() {
            0 => Vec::new(),
            _ => std::mem::take(&mut connection.descriptors),
        };
        if descriptors.len() != assembled.parts.kind.descriptors() {
            return Err(Bad::Descriptors);
        }
        let frame = ToKernel::parse(assembled.parts)?;
        match (connection.member, frame) {
            (None, ToKernel::Attach { version }) => self.attach(token, version),
            (None, ToKernel::Join { cookie }) => self.join(token, cookie),
            (None, _) => return Err(Bad::OutOfTurn),
            (Some(member), frame) if assembled.discarded => self.refuse_discarded(now, token, member, frame),
            (Some(member), frame) => return self.member_frame(now, token, member, frame, descriptors),
        }
        Ok(())
    }

    fn attach(&mut self, token: Token, version: u32) {
        if version != VERSION {
            return self.send(token, ToProcess::Error { error: Error::Refused(Status::STD_COMBAD) });
        }
        let process = match self.kernel.attach() {
            Ok(process) => process,
            Err(status) => return self.refuse(token, status),
        };
        let cookie = Cookie(random(&*self.entropy));
        let Some(connection) = self.table.get_mut(token) else { return };
        connection.member = Some(Member { process, slot: Slot(0) });
        let entry = Process { cookie, pid: connection.pid, is_introduced: false, slots: vec![Some(token)] };
        let address = self.kernel.address(process).expect("the process has just been attached");
        self.tickets.attached(process, address);
        self.processes.insert(process, entry);
        self.cookies.insert(cookie, process);
        self.send(token, ToProcess::Attached { cookie, address });
    }

    fn join(&mut self, token: Token, cookie: Cookie) {
        let Some(&process) = self.cookies.get(&cookie) else {
            return self.refuse(token, Status::RPC_NOTFOUND);
        };
        let entry = self.processes.get_mut(&process).expect("cookies are of attached processes");
        let slot = entry.slots.iter().position(Option::is_none).unwrap_or(entry.slots.len());
        if slot >= CONNECTIONS_PER_PROCESS_MAX {
            return self.refuse(token, Status::RPC_TRYAGAIN);
        }
        if slot == entry.slots.len() {
            entry.slots.push(None);
        }
        entry.slots[slot] = Some(token);
        let slot = Slot(u16::try_from(slot).expect("slots are below CONNECTIONS_PER_PROCESS_MAX"));
        if let Some(connection) = self.table.get_mut(token) {
            connection.member = Some(Member { process, slot });
        }
        self.send(token, ToProcess::Done);
    }

    /// There was no room for the data of this frame.
    fn refuse_discarded(&mut self, now: Instant, token: Token, member: Member, frame: ToKernel) {
        match frame {
            ToKernel::Putrep { request, .. } => self.answered(now, token, member, RequestId(request), None),
            _ => self.refuse(token, Status::RPC_TRYAGAIN),
        }
    }

    fn member_frame(
        &mut self,
        now: Instant,
        token: Token,
        member: Member,
        frame: ToKernel,
        descriptors: Vec<OwnedFd>,
    ) -> Result<(), Bad> {
        let mut descriptors = descriptors.into_iter();
        let mut region = || descriptors.next().ok_or(Bad::Descriptors);
        let process = member.process;
        if self.is_viewer(token) && frame != ToKernel::TraceNext {
            return Err(Bad::OutOfTurn);
        }
        match frame {
            ToKernel::Attach { .. } | ToKernel::Join { .. } => return Err(Bad::OutOfTurn),
            ToKernel::Trans { options, message } => {
                return self.trans(now, token, member, message, &options);
            }
            ToKernel::Listen { port, request_size_max } => {
                match self.kernel.listen(now, process, &port, request_size_max) {
                    Ok(port) => self.send(token, ToProcess::Port { port }),
                    Err(status) => self.refuse(token, status),
                }
            }
            ToKernel::Unlisten { port } => {
                self.kernel.unlisten(now, process, port);
                for waiting in self.waiting_for(process, port) {
                    self.refuse(waiting, Status::RPC_ABORTED);
                }
                self.send(token, ToProcess::Done);
            }
            ToKernel::Getreq { port } => return self.getreq(now, token, member, port),
            ToKernel::Putrep { request, message } => {
                self.answered(now, token, member, RequestId(request), Some(message));
            }
            ToKernel::Fail { request } => self.answered(now, token, member, RequestId(request), None),
            ToKernel::PutPort { port } => {
                let port = self.kernel.put_port(&port);
                self.send(token, ToProcess::Port { port });
            }
            ToKernel::Status => {
                let text = self.status(now).into_bytes();
                self.send(token, ToProcess::Text { text });
            }
            ToKernel::Look { port } => self.look(now, token, port),
            ToKernel::Trace { proof, filter } => return self.trace(now, token, &proof, filter),
            ToKernel::TraceNext => return self.trace_next(token),
            ToKernel::Open { port } => return self.open(token, member, port.as_ref()),
            ToKernel::Receive => return self.receive(token, member),
            ToKernel::Send { from, to, data } => {
                return self.send_datagram(now, token, member, from, to, &data);
            }
            ToKernel::Admin { proof, request } => self.admin(now, token, &proof, &request),
            ToKernel::Introduce { port, signature } => {
                return self.introduce(now, token, member, port, signature.as_ref(), region()?);
            }
            ToKernel::Accept { channel } => return self.accept(token, channel, region()?),
            ToKernel::Decline { channel } => self.decline(token, channel),
            ToKernel::Lend { to } => return self.lend(token, to, region()?),
            ToKernel::Borrow { ticket } => self.borrow_file(token, member, ticket),
            ToKernel::Close { channel } if self.close_flow(now, member, channel) => {
                self.send(token, ToProcess::Done);
            }
            ToKernel::Close { channel } => self.close_channel(token, member, channel),
            ToKernel::Ready => self.ready(now, token, member),
        }
        Ok(())
    }

    fn trans(
        &mut self,
        now: Instant,
        token: Token,
        member: Member,
        message: Message,
        options: &TransOptions,
    ) -> Result<(), Bad> {
        self.count(token); // the data have left the assembler
        let Some(connection) = self.table.get_mut(token) else { return Ok(()) };
        if connection.is_waiting() {
            return Err(Bad::OutOfTurn);
        }
        if !message.data.is_empty() && self.buffered + message.data.len() > self.buffered_max {
            self.refuse(token, Status::RPC_TRYAGAIN);
            return Ok(());
        }
        connection.trans = Some(message.data.len());
        self.trace_trans(now, token, member, &message);
        self.kernel.trans(now, member.process, member.slot, message, options);
        Ok(())
    }

    fn getreq(&mut self, now: Instant, token: Token, member: Member, port: PutPort) -> Result<(), Bad> {
        let Some(connection) = self.table.get_mut(token) else { return Ok(()) };
        if connection.is_waiting() {
            return Err(Bad::OutOfTurn);
        }
        if connection.executing.len() >= EXECUTING_MAX {
            self.refuse(token, Status::RPC_TRYAGAIN);
            return Ok(());
        }
        if self.introduce_wanting(now, token, member.process, port) {
            return Ok(());
        }
        let Some(connection) = self.table.get_mut(token) else { return Ok(()) };
        connection.getreq = Some(port);
        self.asking = Some(token);
        if let Err(status) = self.kernel.getreq(member.process, port, GetreqId(token.to_u64())) {
            connection.getreq = None;
            self.refuse(token, status);
        }
        Ok(())
    }

    /// A request has its reply, or is given up. What was not delivered over this connection is not answered over it.
    fn answered(
        &mut self,
        now: Instant,
        token: Token,
        member: Member,
        request: RequestId,
        reply: Option<Message>,
    ) {
        let Some(connection) = self.table.get_mut(token) else { return };
        if !connection.executing.remove(&request) {
            return tracing::debug!(pid = connection.pid, "an answer to a request that is not executing");
        }
        self.trace_answered(now, member.process, request, reply.as_ref());
        match reply {
            Some(reply) => self.kernel.putrep(now, member.process, request, reply),
            None => self.kernel.fail(now, member.process, request),
        }
    }

    /// The connections of a process that wait for a request on `port`; they wait no longer.
    fn waiting_for(&mut self, process: ProcessId, port: PutPort) -> Vec<Token> {
        let entry = self.processes.get(&process).expect("members' processes are attached");
        let mut waiting = Vec::new();
        for &token in entry.slots.iter().flatten() {
            let connection = self.table.get_mut(token).expect("slots name open connections");
            if connection.getreq == Some(port) {
                connection.getreq = None;
                waiting.push(token);
            }
        }
        waiting
    }

    /// Hands the kernel's events to their connections.
    pub(super) fn dispatch(&mut self, now: Instant) {
        self.show_traces();
        while let Some(event) = self.kernel.poll_event() {
            match event {
                Event::Reply { process, slot, result } => {
                    self.trace_ended_trans(now, process, slot, &result);
                    self.reply(process, slot, result);
                }
                Event::Datagram { process, endpoint } => self.datagram(process, endpoint),
                Event::Request { process, getreq, request, caller, message } => {
                    self.give(now, Token::from_u64(getreq.0), process, request, caller, message);
                }
            }
        }
    }

    /// Lets a link work, and hands what it has to say to the kernel.
    pub(super) fn link_work(
        &mut self,
        now: Instant,
        index: usize,
        work: impl FnOnce(&mut dyn Link, &mut dyn FnMut(LinkEvent<'_>)),
    ) {
        let (kernel, id) = (&mut self.kernel, LinkId(index as u16));
        let mut strangers = Vec::new();
        let (mut words, mut lost) = (Vec::new(), Vec::new());
        let viewers = &mut self.viewers;
        work(&mut *self.links[index], &mut |event| match event {
            LinkEvent::Packet { from, packet } => {
                viewers.keep_packet(from, packet);
                kernel.handle_packet(now, id, from, packet);
            }
            LinkEvent::Lost { peer } => {
                kernel.peer_lost(now, id, peer);
                lost.push(*peer);
            }
            LinkEvent::Stranger { from, datagram } => members::keep(&mut strangers, from, datagram),
            LinkEvent::Control { from, bytes } => flows::keep(&mut words, from, bytes),
            LinkEvent::Up { .. } => {}
        });
        self.strangers(now, index, strangers);
        self.flow_words(now, index, words);
        lost.into_iter().for_each(|peer| self.flows_lost(now, index, peer));
        self.trace_kept_packets(now, id);
    }

    /// Hands the kernel's packets to the links, as far as they take them.
    pub(super) fn transmit(&mut self, now: Instant) {
        loop {
            let links = &mut self.links;
            let link_of = |id: LinkId| usize::from(id.0);
            let ready = |id: LinkId, peer: &_| {
                // What is for a link that is not there is taken, and dropped.
                let Some(link) = links.get(link_of(id)) else { return Some(PACKET_SIZE_MIN) };
                link.is_ready(peer).then(|| link.packet_size(peer))
            };
            let Some(transmit) = self.kernel.poll_transmit_where(now, ready) else { return };
            if self.is_traced() {
                let packet = transmit.packet.to_vec();
                self.trace_packet(now, false, transmit.link, transmit.to.as_ref(), &packet);
            }
            if let Some(link) = self.links.get_mut(link_of(transmit.link)) {
                link.send(now, transmit.to.as_ref(), transmit.packet, transmit.bulk);
            }
        }
    }

    fn reply(&mut self, process: ProcessId, slot: Slot, result: Result<Message, Error>) {
        let entry = self.processes.get(&process);
        let Some(token) = entry.and_then(|entry| *entry.slots.get(usize::from(slot.0))?) else { return };
        if let Some(connection) = self.table.get_mut(token) {
            connection.trans = None;
        }
        let frame = match result {
            Ok(message) => ToProcess::Reply { message },
            Err(error) => ToProcess::Error { error },
        };
        self.send(token, frame);
    }

    /// Counts again what a connection holds, after bytes have moved. Over the bound, first whoever has stalled is
    /// closed, then this connection's unfinished frame is thrown away.
    pub(super) fn recount(&mut self, now: Instant, token: Token) {
        self.count(token);
        if self.buffered <= self.buffered_max {
            return;
        }
        let stalled = |connection: &Connection| {
            connection.assembler.held() > 0 || connection.outgoing.iter().any(|frame| !frame.data.is_empty())
        };
        for (other, connection) in self.table.iter() {
            if stalled(connection) && now.since(connection.progress) >= STALL_TIME {
                tracing::warn!(pid = connection.pid, "closing a stalled connection: memory is short");
                self.doomed.push(other);
            }
        }
        let Some(connection) = self.table.get_mut(token) else { return };
        if connection.assembler.held() > 0 && !connection.assembler.is_discarding() {
            tracing::warn!(pid = connection.pid, "no room for a frame: memory is short");
            connection.assembler.discard();
            self.count(token);
        }
    }

    fn count(&mut self, token: Token) {
        if let Some(connection) = self.table.get_mut(token) {
            let held = connection.held();
            self.buffered = self.buffered - connection.counted + held;
            connection.counted = held;
        }
    }

    /// Counters and tables, a line each.
    fn status(&self, now: Instant) -> String {
        use std::fmt::Write;
        let mut text = self.kernel.status();
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        text.push_str("# channels\n");
        text.push_str(&self.channels.status());
        text.push_str(&self.knocks.status());
        text.push_str(&self.tickets.status());
        text.push_str("# flows\n");
        text.push_str(&self.flows.status());
        text.push_str("# daemon\n");
        text.push_str(&self.viewers.status());
        let mut line = |name: &str, count: usize, max: usize| {
            let _ = writeln!(text, "{name:24} {count} of {max}"); // writing to a string does not fail
        };
        line("connections", self.table.len(), self.connections_max);
        line("bytes buffered", self.buffered, self.buffered_max);
        for link in &self.links {
            let _ = writeln!(text, "# link {}", link.describe().kind);
            link.status(now, &mut text);
        }
        text.push_str("# processes\n");
        for (id, process) in &self.processes {
            let connections = process.slots.iter().flatten().count();
            let _ = writeln!(text, "process {} pid {} connections {connections}", id.0, process.pid);
        }
        text.truncate(text.floor_char_boundary(crate::socket::TEXT_SIZE_MAX));
        text
    }
    /// The invariants that every frame must leave true.
    #[cfg(test)]
    pub(super) fn check(&self) {
        let held: usize = self.table.iter().map(|(_, connection)| connection.held()).sum();
        assert_eq!(self.buffered, held, "every byte is counted once");
        let mut members = 0;
        for (id, process) in &self.processes {
            assert_eq!(self.cookies.get(&process.cookie), Some(id));
            for (slot, &token) in
                process.slots.iter().enumerate().filter_map(|(slot, token)| Some((slot, token.as_ref()?)))
            {
                let member = self.table.get(token).and_then(|connection| connection.member);
                assert!(
                    member.is_some_and(|member| member.process == *id && usize::from(member.slot.0) == slot)
                );
                members += 1;
            }
        }
        assert_eq!(self.cookies.len(), self.processes.len());
        assert_eq!(self.table.iter().filter(|(_, connection)| connection.member.is_some()).count(), members);
    }

    /// Whether nobody is connected and nothing is remembered.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.table.len() == 0
            && self.processes.is_empty()
            && self.cookies.is_empty()
            && self.endpoints.is_empty()
            && !self.viewers.any()
            && self.channels.is_empty()
            && self.knocks.is_empty()
            && self.tickets.is_empty()
            && self.flows.is_empty()
            && self.buffered == 0
    }
}
