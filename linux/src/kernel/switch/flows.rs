//! Flows: a client of one host and a server of another, introduced by their kernels, which are then not on the way.
//!
//! ```text
//! ASK    | 1 | 1 | id 8 | put-port 6 | process 8 | signed 1 | signature 6 | suites 1 | port 2 | window 4 |
//! GIVE   | 1 | 2 | id 8 | port 2 | window 4 | datagram size 4 | receiver 4 | keys 65 |
//! REFUSE | 1 | 3 | id 8 |
//! END    | 1 | 4 | id 8 | of the client 1 |
//! ENDED  | 1 | 5 | id 8 | of the client 1 |
//! ```
//!
//! Little-endian, each a control message of the sealed link. The client's kernel counts the flows (`id`); with its
//! location the identifier names a flow to the other kernel. ASK is repeated until it is answered and END until it is
//! ENDED, each only so often. `port` is that of a socket which this kernel has made for the flow; the other connects its
//! own to it. The server's kernel draws the keys.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use amoeba_cap::{GetPort, PutPort};
use amoeba_flow::{DATAGRAM_SIZE_MIN, Way};
use amoeba_kernel::{Location, Path, ProcessId};
use amoeba_seal::{Keys, flow_keys};
use amoeba_threads::Instant;
use amoeba_wire::packet::Address;
use amoeba_wire::{Malformed, Reader, Status};
use amoeba_world::{Caller, random};

use super::super::table::{Member, Token};
use super::Switch;
use crate::channel::bell::{Bell, Keeper};
use crate::flow::handed::Handed;
use crate::flow::socket::Unconnected;
use crate::link::FlowWay;
use crate::socket::ToProcess;

/// The most flows of all processes of this host. Past it transactions go through the daemons.
pub const FLOWS_MAX: usize = 2048;
/// The most flows of one process as client. Past it it hears RPC_TRYAGAIN.
pub const FLOWS_PER_CLIENT_MAX: usize = 128;
/// Flows that are being asked for at once, at most.
const ASKING_MAX: usize = 64;
/// Time between two copies of ASK, and how many there are.
const ASK_INTERVAL: Duration = Duration::from_millis(60);
const ASKS_MAX: u32 = 5;
/// The same for END; what is forgotten then, the silence of the flow tells.
const END_INTERVAL: Duration = Duration::from_millis(250);
const ENDS_MAX: u32 = 8;
/// Ends that may wait to be confirmed; past it the oldest is forgotten.
const ENDING_MAX: usize = 4096;
/// Identifiers of flows, as processes know them, have this bit, so that they are none of channels; and are even.
const FLOW_BIT: u64 = 1 << 63;

/// Control messages that one turn of a link may bring; what comes beyond is repeated by whoever sent it.
const WORDS_PER_TURN: usize = 256;
/// What the control messages of flows begin with.
const FLOW_CONTROL: u8 = 1;
const ASK: u8 = 1;
const GIVE: u8 = 2;
const REFUSE: u8 = 3;
const END: u8 = 4;
const ENDED: u8 = 5;

/// Another kernel: which link, and where on it.
type Peer = (usize, Location);
/// A flow as both kernels know it: the peer, the client's kernel's number, and whether the client is here.
type Name = (Peer, u64, bool);

/// A flow of which one end is here.
struct Flow {
    name: Name,
    process: ProcessId,
    /// The port, at the server's kernel.
    served: Option<PutPort>,
    keeper: Keeper,
    /// What the server's kernel has answered, should the question come again.
    answer: Vec<u8>,
}

/// A flow that was asked for.
struct Asking {
    peer: Peer,
    client: Token,
    process: ProcessId,
    socket: Unconnected,
    message: Vec<u8>,
    way: FlowWay,
    tries: u32,
    next: Instant,
}

/// An end that the other kernel may not know of yet.
struct Ending {
    tries: u32,
    next: Instant,
}

/// All flows.
#[derive(Default)]
pub(super) struct Flows {
    last: u64,
    open: BTreeMap<u64, Flow>,
    by_name: BTreeMap<Name, u64>,
    asking: BTreeMap<u64, Asking>,
    ending: BTreeMap<Name, Ending>,
    /// When something may be due; never later than that.
    due: Option<Instant>,
    given: u64,
    taken: u64,
    refused: u64,
    revoked: u64,
}

/// A control message as it means.
#[derive(Debug)]
enum Word {
    Ask { id: u64, port: PutPort, caller: Caller, suites: u8, udp_port: u16, window: usize },
    Give { udp_port: u16, flow: Handed },
    Refuse { id: u64 },
    End { id: u64, of_client: bool },
    Ended { id: u64, of_client: bool },
}

impl Flows {
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.due
    }

    /// Counters and tables, a line each.
    pub(super) fn status(&self) -> String {
        let rows = [
            ("flows", self.open.len() as u64),
            ("flows given to clients", self.given),
            ("flows given to servers", self.taken),
            ("flows refused", self.refused),
            ("flows revoked", self.revoked),
        ];
        rows.iter().map(|(name, value)| format!("{name:24} {value}\n")).collect()
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty() && self.by_name.is_empty() && self.asking.is_empty()
    }

    fn draw(&mut self) -> u64 {
        self.last += 2;
        FLOW_BIT | self.last
    }

    fn due_at(&mut self, at: Instant) {
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
    }

    fn is_full(&self, client: ProcessId) -> bool {
        let of_client = |flow: &&Flow| flow.process == client && flow.name.2;
        self.open.len() >= FLOWS_MAX
            || self.asking.len() >= ASKING_MAX
            || self.open.values().filter(of_client).count() >= FLOWS_PER_CLIENT_MAX
    }

    fn insert(&mut self, id: u64, flow: Flow) {
        self.ending.remove(&flow.name);
        self.by_name.insert(flow.name, id);
        self.open.insert(id, flow);
    }
}

impl Switch {
    /// INTRODUCE of a port that no process here listens on: asks the kernel of one that does. False when there is none.
    pub(super) fn ask_flow(
        &mut self,
        now: Instant,
        token: Token,
        member: Member,
        port: PutPort,
        signature: Option<&GetPort>,
    ) -> bool {
        let Path::Elsewhere { route: Some(hop), .. } = self.kernel.path(port) else { return false };
        let link = usize::from(hop.link.0);
        let Some(way) = self.links.get(link).and_then(|link| link.flow_way(&hop.location)) else {
            return false;
        };
        let Some(caller) = self.kernel.caller(member.process, signature) else { return false };
        if self.flows.is_full(member.process) {
            self.flows.refused += 1;
            return false;
        }
        let made = Unconnected::bind(source(&way)).and_then(|socket| Ok((socket.port()?, socket)));
        let (udp_port, socket) = match made {
            Ok(made) => made,
            Err(error) => {
                tracing::warn!("cannot make a flow: {error}");
                return false;
            }
        };
        let id = self.flows.draw();
        let message =
            Word::Ask { id, port, caller, suites: way.suites, udp_port, window: socket.window() }.emit();
        let peer = (link, hop.location);
        let process = member.process;
        let asking = Asking { peer, client: token, process, socket, message, way, tries: 0, next: now };
        self.flows.asking.insert(id, asking);
        if let Some(connection) = self.table.get_mut(token) {
            connection.introducing = true;
        }
        self.ask(now, id);
        true
    }

    fn ask(&mut self, now: Instant, id: u64) {
        let Some(asking) = self.flows.asking.get_mut(&id) else { return };
        if asking.tries >= ASKS_MAX {
            tracing::debug!("the kernel of a server did not answer");
            return self.refused(now, id);
        }
        asking.tries += 1;
        asking.next = now + ASK_INTERVAL;
        let (next, (link, location)) = (asking.next, asking.peer);
        if let Some(link) = self.links.get_mut(link) {
            link.control(now, &location, &asking.message);
        }
        self.flows.due_at(next);
    }

    /// The flow does not come about: the client goes through the daemons.
    fn refused(&mut self, now: Instant, id: u64) {
        let Some(Asking { peer, client, .. }) = self.flows.asking.remove(&id) else { return };
        self.flows.refused += 1;
        self.tell_end(now, (peer, id, true));
        if let Some(connection) = self.table.get_mut(client) {
            connection.introducing = false;
            self.refuse(client, Status::RPC_TRYAGAIN);
        }
    }

    /// What other kernels have said.
    pub(super) fn flow_words(&mut self, now: Instant, link: usize, said: Said) {
        for (from, bytes) in said {
            self.flow_word(now, link, from, &bytes);
        }
    }

    fn flow_word(&mut self, now: Instant, link: usize, from: Location, bytes: &[u8]) {
        let peer = (link, from);
        match Word::parse(bytes) {
            Ok(Word::Ask { id, port, caller, suites, udp_port, window }) => {
                self.asked(now, peer, id, (port, caller), suites, (udp_port, window));
            }
            Ok(Word::Give { udp_port, flow }) => self.given(now, peer, udp_port, &flow),
            Ok(Word::Refuse { id }) => {
                if self.flows.asking.get(&id).is_some_and(|asking| asking.peer == peer) {
                    self.refused(now, id);
                }
            }
            Ok(Word::End { id, of_client }) => {
                // The end of the client is told to the server's kernel, which names the flow as not its client's.
                if let Some(&ours) = self.flows.by_name.get(&(peer, id, !of_client)) {
                    self.remove_flow(ours, true);
                }
                self.say(now, peer, &Word::Ended { id, of_client });
            }
            Ok(Word::Ended { id, of_client }) => {
                self.flows.ending.remove(&(peer, id, of_client));
            }
            Err(Malformed) => tracing::debug!("a malformed message about flows"),
        }
    }

    /// ASK: chooses a process that listens and gives it its end.
    fn asked(
        &mut self,
        now: Instant,
        peer: Peer,
        id: u64,
        (port, caller): (PutPort, Caller),
        suites: u8,
        (udp_port, window): (u16, usize),
    ) {
        let name = (peer, id, false);
        if let Some(flow) = self.flows.by_name.get(&name).and_then(|ours| self.flows.open.get(ours)) {
            let (link, location) = peer;
            return self.links[link].control(now, &location, &flow.answer);
        }
        let way = self.links.get(peer.0).and_then(|link| link.flow_way(&peer.1));
        let may = self.flows.open.len() < FLOWS_MAX && !self.is_traced();
        let Some(way) = way.filter(|_| may) else {
            return self.say(now, peer, &Word::Refuse { id });
        };
        let Ok(introduction) = self.kernel.introduce_as(port, caller) else {
            return self.say(now, peer, &Word::Refuse { id });
        };
        let server = Token::from_u64(introduction.getreq.0);
        if let Some(connection) = self.table.get_mut(server) {
            connection.getreq = None;
        }
        let suite = way.suite(suites);
        let (server_keys, client_keys) = flow_keys(&*self.entropy, suite);
        let receiver = u32::from_le_bytes(random(&*self.entropy));
        let made = Unconnected::bind(source(&way)).and_then(|socket| {
            let (own_port, own_window) = (socket.port()?, socket.window());
            let descriptor = socket.connect(SocketAddr::new(way.peer.ip(), udp_port))?;
            Ok((own_port, own_window, descriptor, Bell::new()?))
        });
        let (own_port, own_window, socket, bell) = match made {
            Ok(made) => made,
            Err(error) => {
                tracing::warn!("cannot make a flow: {error}");
                self.kernel.part(introduction.server, port);
                self.refuse(server, Status::RPC_TRYAGAIN); // its thread asks for a request again
                return self.say(now, peer, &Word::Refuse { id });
            }
        };
        let datagram_size = way.datagram_size.max(DATAGRAM_SIZE_MIN);
        let to_client = Way { datagram_size, window: own_window };
        let flow = Handed { id, receiver, way: to_client, keys: client_keys };
        let give = Word::Give { udp_port: own_port, flow };
        let ours = self.flows.draw();
        let to_server = Way { datagram_size, window };
        let handed = Handed { id: ours, receiver, way: to_server, keys: server_keys };
        let flow = Flow {
            name,
            process: introduction.server,
            served: Some(port),
            keeper: bell.keeper,
            answer: give.emit(),
        };
        self.links[peer.0].control(now, &peer.1, &flow.answer);
        self.flows.insert(ours, flow);
        self.flows.taken += 1;
        self.is_introduced(introduction.server);
        let frame = ToProcess::FlowIntroduced { caller, flow: handed.to_bytes() };
        self.send_with(server, frame, vec![socket, bell.ear]);
    }

    /// GIVE: the client gets its end.
    fn given(&mut self, now: Instant, peer: Peer, udp_port: u16, flow: &Handed) {
        let id = flow.id;
        let known = self.flows.by_name.contains_key(&(peer, id, true));
        let is_awaited = self.flows.asking.get(&id).is_some_and(|asking| asking.peer == peer);
        let asking = if is_awaited { self.flows.asking.remove(&id) } else { None };
        let Some(asking) = asking else {
            if !known {
                self.tell_end(now, (peer, id, true)); // too late: the client has been told otherwise
            }
            return;
        };
        let Asking { client, process, socket, way: between, .. } = asking;
        let address = SocketAddr::new(between.peer.ip(), udp_port);
        let made: io::Result<_> = socket.connect(address).and_then(|socket| Ok((socket, Bell::new()?)));
        if let Some(connection) = self.table.get_mut(client) {
            connection.introducing = false;
        }
        match made {
            Ok((socket, bell)) => {
                let given = Flow {
                    name: (peer, id, true),
                    process,
                    served: None,
                    keeper: bell.keeper,
                    answer: Vec::new(),
                };
                self.flows.insert(id, given);
                self.flows.given += 1;
                let flow = flow.to_bytes();
                self.send_with(client, ToProcess::Flow { flow }, vec![socket, bell.ear]);
            }
            Err(error) => {
                tracing::warn!("cannot make a flow: {error}");
                self.flows.refused += 1;
                self.tell_end(now, (peer, id, true));
                self.refuse(client, Status::RPC_TRYAGAIN);
            }
        }
    }

    /// CLOSE of a flow; false when this identifier is none of a flow.
    pub(super) fn close_flow(&mut self, now: Instant, member: Member, id: u64) -> bool {
        if self.flows.open.get(&id).is_some_and(|flow| flow.process == member.process) {
            self.end_flow(now, id, false);
        }
        id & FLOW_BIT != 0
    }

    /// Time has passed.
    pub(super) fn flows_timeout(&mut self, now: Instant) {
        if self.flows.due.is_none_or(|due| now < due) {
            return;
        }
        self.flows.due = None;
        let late = self.flows.asking.iter().filter(|(_, asking)| asking.next <= now).map(|(id, _)| *id);
        for id in late.collect::<Vec<_>>() {
            self.ask(now, id);
        }
        let late = self.flows.ending.iter().filter(|(_, ending)| ending.next <= now).map(|(name, _)| *name);
        for name in late.collect::<Vec<_>>() {
            self.tell_end_again(now, name);
        }
        let asking = self.flows.asking.values().map(|asking| asking.next);
        let next = asking.chain(self.flows.ending.values().map(|ending| ending.next)).min();
        next.into_iter().for_each(|next| self.flows.due_at(next));
    }

    /// What a connection asked for comes to nothing.
    pub(super) fn flows_disconnected(&mut self, now: Instant, token: Token) {
        let of_it = |(id, asking): (&u64, &Asking)| (asking.client == token).then_some(*id);
        for id in self.flows.asking.iter().filter_map(of_it).collect::<Vec<_>>() {
            self.refused(now, id);
        }
    }

    /// Ends all flows of a process at once: whoever waits at the other end is told. For its death, and for its stun.
    pub(super) fn revoke_flows(&mut self, now: Instant, process: ProcessId) {
        let of_it = |(id, flow): (&u64, &Flow)| (flow.process == process).then_some(*id);
        for id in self.flows.open.iter().filter_map(of_it).collect::<Vec<_>>() {
            self.flows.revoked += 1;
            self.end_flow(now, id, true);
        }
    }

    /// A host is gone: so are all flows to it.
    pub(super) fn flows_lost(&mut self, now: Instant, link: usize, location: Location) {
        let peer = (link, location);
        let gone = |(id, flow): (&u64, &Flow)| (flow.name.0 == peer).then_some(*id);
        for id in self.flows.open.iter().filter_map(gone).collect::<Vec<_>>() {
            self.flows.revoked += 1;
            self.remove_flow(id, true);
        }
        let gone = |(id, asking): (&u64, &Asking)| (asking.peer == peer).then_some(*id);
        for id in self.flows.asking.iter().filter_map(gone).collect::<Vec<_>>() {
            self.refused(now, id);
        }
        self.flows.ending.retain(|name, _| name.0 != peer);
    }

    fn end_flow(&mut self, now: Instant, id: u64, revoke: bool) {
        if let Some(name) = self.remove_flow(id, revoke) {
            self.tell_end(now, name);
        }
    }

    /// This kernel forgets the flow; `revoke`: and tells its own process.
    fn remove_flow(&mut self, id: u64, revoke: bool) -> Option<Name> {
        let flow = self.flows.open.remove(&id)?;
        self.flows.by_name.remove(&flow.name);
        if revoke {
            flow.keeper.revoke();
        }
        if let Some(port) = flow.served {
            self.kernel.part(flow.process, port);
        }
        Some(flow.name)
    }

    /// Tells the other kernel that this end of a flow is over, until it has understood.
    fn tell_end(&mut self, now: Instant, name: Name) {
        if self.flows.ending.len() >= ENDING_MAX {
            self.flows.ending.pop_first();
        }
        self.flows.ending.insert(name, Ending { tries: 0, next: now });
        self.tell_end_again(now, name);
    }

    fn tell_end_again(&mut self, now: Instant, name: Name) {
        let Some(ending) = self.flows.ending.get_mut(&name) else { return };
        if ending.tries >= ENDS_MAX {
            self.flows.ending.remove(&name);
            return;
        }
        ending.tries += 1;
        ending.next = now + END_INTERVAL;
        let next = ending.next;
        self.flows.due_at(next);
        let (peer, id, of_client) = name;
        self.say(now, peer, &Word::End { id, of_client });
    }

    fn say(&mut self, now: Instant, (link, location): Peer, word: &Word) {
        if let Some(link) = self.links.get_mut(link) {
            link.control(now, &location, &word.emit());
        }
    }
}

/// What other kernels have said, and which.
pub(super) type Said = Vec<(Location, Vec<u8>)>;

/// Keeps a control message until the link has done its work.
pub(super) fn keep(said: &mut Said, from: &Location, bytes: &[u8]) {
    if bytes.first() == Some(&FLOW_CONTROL) && said.len() < WORDS_PER_TURN {
        said.push((*from, bytes.to_vec()));
    }
}

/// What the socket of an end is bound to: the address that the link has, or any of the peer's family.
fn source(way: &FlowWay) -> IpAddr {
    match (way.local.is_unspecified(), way.peer) {
        (false, _) => way.local,
        (true, SocketAddr::V4(_)) => Ipv4Addr::UNSPECIFIED.into(),
        (true, SocketAddr::V6(_)) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

impl Word {
    fn emit(&self) -> Vec<u8> {
        let four = |size: usize| u32::try_from(size).unwrap_or(u32::MAX).to_le_bytes();
        let mut bytes = vec![FLOW_CONTROL];
        let mut put = |kind: u8, id: u64, parts: &[&[u8]]| {
            bytes.push(kind);
            bytes.extend_from_slice(&id.to_le_bytes());
            parts.iter().for_each(|part| bytes.extend_from_slice(part));
        };
        match self {
            Word::Ask { id, port, caller, suites, udp_port, window } => {
                let signature = caller.signature.map_or([0; 6], PutPort::to_bytes);
                let signed = u8::from(caller.signature.is_some());
                let parts: [&[u8]; 7] = [
                    &port.to_bytes(),
                    &caller.process.0,
                    &[signed],
                    &signature,
                    &[*suites],
                    &udp_port.to_le_bytes(),
                    &four(*window),
                ];
                put(ASK, *id, &parts);
            }
            Word::Give { udp_port, flow: Handed { id, receiver, way, keys } } => {
                let parts: [&[u8]; 5] = [
                    &udp_port.to_le_bytes(),
                    &four(way.window),
                    &four(way.datagram_size),
                    &receiver.to_le_bytes(),
                    &keys.to_bytes(),
                ];
                put(GIVE, *id, &parts);
            }
            Word::Refuse { id } => put(REFUSE, *id, &[]),
            Word::End { id, of_client } => put(END, *id, &[&[u8::from(*of_client)]]),
            Word::Ended { id, of_client } => put(ENDED, *id, &[&[u8::from(*of_client)]]),
        }
        bytes
    }

    /// The meaning of a control message that begins with [`FLOW_CONTROL`].
    fn parse(bytes: &[u8]) -> Result<Word, Malformed> {
        let mut reader = Reader::new(bytes);
        let (_, kind, id) = (reader.get_u8()?, reader.get_u8()?, reader.get_u64()?);
        let size = |value: u32| usize::try_from(value).map_err(|_| Malformed);
        let word = match kind {
            ASK => {
                let (port, process) = (reader.get_port()?, Address(reader.array()?));
                let (signed, signature) = (reader.get_bool()?, reader.get_port()?);
                let caller = Caller { process, signature: signed.then_some(signature) };
                let (suites, udp_port) = (reader.get_u8()?, reader.get_u16()?);
                Word::Ask { id, port, caller, suites, udp_port, window: size(reader.get_u32()?)? }
            }
            GIVE => {
                let udp_port = reader.get_u16()?;
                let (window, datagram_size) = (size(reader.get_u32()?)?, size(reader.get_u32()?)?);
                let receiver = reader.get_u32()?;
                let keys = Keys::from_bytes(&reader.array()?).ok_or(Malformed)?;
                let fits = (DATAGRAM_SIZE_MIN..=65_507).contains(&datagram_size);
                let way = Way { datagram_size, window };
                if !fits {
                    return Err(Malformed);
                }
                Word::Give { udp_port, flow: Handed { id, receiver, way, keys } }
            }
            REFUSE => Word::Refuse { id },
            END => Word::End { id, of_client: reader.get_bool()? },
            ENDED => Word::Ended { id, of_client: reader.get_bool()? },
            _ => return Err(Malformed),
        };
        if reader.rest().is_empty() { Ok(word) } else { Err(Malformed) }
    }
}

#[cfg(test)]
mod tests {
    use amoeba_seal::Suite;

    use super::*;
    use crate::OsEntropy;

    #[test]
    fn words_come_back_and_no_bytes_panic() {
        let (keys, _) = flow_keys(&OsEntropy, Suite::Aes256Gcm);
        let signature = Some(PutPort::from_bytes([4; 6]));
        let caller = Caller { process: Address([3; 8]), signature };
        let way = Way { datagram_size: 1452, window: 7 };
        let port = PutPort::from_bytes([2; 6]);
        let words = [
            Word::Ask { id: 1, port, caller, suites: 1, udp_port: 5, window: 6 },
            Word::Give { udp_port: 5, flow: Handed { id: 1, receiver: 8, way, keys } },
            Word::Refuse { id: 1 },
            Word::End { id: 1, of_client: true },
            Word::Ended { id: 1, of_client: false },
        ];
        for word in words {
            let bytes = word.emit();
            assert!(bytes.len() <= crate::link::CONTROL_SIZE_MAX);
            assert_eq!(Word::parse(&bytes).unwrap().emit(), bytes);
            assert!(Word::parse(&bytes[..bytes.len() - 1]).is_err());
        }
        bolero::check!().for_each(|bytes: &[u8]| {
            let _ = Word::parse(bytes);
        });
    }
}
