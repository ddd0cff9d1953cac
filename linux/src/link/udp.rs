//! The UDP link: one socket, many hosts, everything sealed.
//!
//! What is sealed, and with whom, `peers` and `greeting` decide; how large a datagram may be, `path`; how much may be
//! under way, `amoeba_flow::bulk`. Here is what leaves when, and what arrives. Small packets leave before large ones.
//! Datagrams are sealed when they leave, many into one buffer that the operating system cuts: nothing is allocated for
//! a packet.

use std::collections::VecDeque;
use std::fmt::Write;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use amoeba_cap::SystemSecret;
use amoeba_kernel::{LinkConfig, Location, Packet};
use amoeba_seal::{
    CALL_KIND, Identity, REMOVED_KIND, SEALED_KIND, SEALED_OVERHEAD, STRANGER_KIND, STRANGER_KIND_MAX, Suite,
    Suites,
};
use amoeba_threads::Instant;
use amoeba_world::Entropy;
use nix::errno::Errno;

use super::admission::Row;
use super::contact::{Contact, PACKET_SIZE_MIN};
use super::content::{ACK_HEAD, CONTROL_HEAD, Content, PACKET_HEAD, bulk_head, probe, probed};
use super::endpoint::{DATAGRAM_SIZE_MAX, Endpoint, SEGMENTS_MAX};
use super::path::SIZE_MIN;
use super::peers::{Change, Changes, Peer, Peers, PeersConfig};
use super::{CONTROL_SIZE_MAX, FlowWay, Link, LinkDescription, LinkEvent, PeerDescription};
use crate::threads::now;

/// Datagrams that may wait for the socket, small and large ones apart; past it they are dropped.
const OUTGOING_MAX: usize = 4096;
/// Datagrams that may wait for the socket while large messages are still taken.
const OUTGOING_READY: usize = 128;
/// Reads in one turn.
const RECEIVES_PER_TURN: usize = 64;
/// Timeouts in a row after which numbered packets vanish because they are too large, perhaps.
const SILENT_MAX: u32 = 2;
/// What the operating system says when it cannot cut a buffer into datagrams.
const CANNOT_CUT: [Errno; 4] = [Errno::EINVAL, Errno::EIO, Errno::EOPNOTSUPP, Errno::ENOPROTOOPT];
/// What crossing a network of UDP adds to a hop count, as for an Ethernet.
const WEIGHT: u16 = 3;

/// How a UDP link is made. The hosts of the system are told by [`Link::set_members`].
pub struct UdpConfig {
    /// Where to listen: port 0 lets the operating system choose, `[::]` is everywhere, IPv4 too.
    pub listen: SocketAddr,
    /// Who this host is.
    pub identity: Identity,
    /// The system's secret.
    pub secret: SystemSecret,
    /// Keys, and numbers that cannot be guessed.
    pub entropy: Arc<dyn Entropy>,
}

/// The link cannot be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// The operating system refused.
    #[error("cannot listen on {address}")]
    Io {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
}

/// What waits for the socket.
enum Outgoing {
    /// To be sealed when it leaves, in the contact with this number, if it is still there.
    Sealed { slot: u16, number: u32, content: Outbound },
    /// As it is.
    Plain { to: SocketAddr, datagram: Vec<u8> },
}

enum Outbound {
    Packet(Packet),
    /// A FLIP packet for several.
    Shared(Arc<Packet>),
    Bulk(u64, Packet),
    Other(Vec<u8>),
}

impl Outbound {
    /// Bytes of the datagram that it will be. A BULK that has become too large for the way leaves without its packet.
    fn size(&self, path_size: usize) -> usize {
        let content = match self {
            Outbound::Packet(packet) => PACKET_HEAD.len() + packet.len(),
            Outbound::Shared(packet) => PACKET_HEAD.len() + packet.len(),
            Outbound::Bulk(number, packet) => {
                let head = bulk_head(*number).len();
                if head + packet.len() + SEALED_OVERHEAD > path_size { head } else { head + packet.len() }
            }
            Outbound::Other(content) => content.len(),
        };
        content + SEALED_OVERHEAD
    }

    /// Seals it into `out`; whether that worked.
    fn seal(&self, now: Instant, contact: &mut Contact, out: &mut Vec<u8>) -> bool {
        let path_size = usize::from(contact.path.size());
        let session = &mut contact.session;
        let sealed = match self {
            Outbound::Packet(packet) => {
                session.seal(now, &[&PACKET_HEAD, packet.front(), packet.body()], out)
            }
            Outbound::Shared(packet) => {
                session.seal(now, &[&PACKET_HEAD, packet.front(), packet.body()], out)
            }
            Outbound::Bulk(number, packet) => {
                let head = bulk_head(*number);
                match head.len() + packet.len() + SEALED_OVERHEAD > path_size {
                    true => session.seal(now, &[&head], out),
                    false => session.seal(now, &[&head, packet.front(), packet.body()], out),
                }
            }
            Outbound::Other(content) => session.seal(now, &[content], out),
        };
        sealed.is_ok()
    }
}

/// Datagrams for one receiver that are ready to be given to the operating system.
#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    /// Bytes of each but the last.
    segment: usize,
    count: u64,
    /// Whom it is for; the slot where it is sealed.
    to: Option<(SocketAddr, Option<u16>)>,
}

#[derive(Default)]
struct Counters {
    datagrams_in: u64,
    datagrams_out: u64,
    malformed: u64,
    overflowed: u64,
    unsendable: u64,
}

/// See the module's head.
pub struct UdpLink {
    endpoint: Endpoint,
    peers: Peers,
    /// Small datagrams, which go first.
    small: VecDeque<Outgoing>,
    large: VecDeque<Outgoing>,
    batch: Batch,
    blocked: bool,
    /// Whether the operating system cuts large buffers into datagrams.
    segments: bool,
    /// Peers with BULKs that are not acknowledged.
    flying: Vec<u16>,
    /// Peers that are owed an acknowledgement.
    owing: Vec<u16>,
    scratch: Vec<u8>,
    counters: Counters,
}

impl UdpLink {
    /// Binds the socket.
    ///
    /// # Errors
    /// See [`BindError`].
    pub fn bind(config: UdpConfig) -> Result<UdpLink, BindError> {
        let address = config.listen;
        let endpoint = Endpoint::bind(address).map_err(|source| BindError::Io { address, source })?;
        let peers = PeersConfig {
            identity: config.identity,
            secret: config.secret,
            entropy: config.entropy,
            clock: crate::clock(),
            suites: suites_here(),
            window: endpoint.buffer() / 4, // the bound counts what the system needs to keep a datagram, too
        };
        Ok(UdpLink {
            endpoint,
            peers: Peers::new(now(), peers),
            small: VecDeque::new(),
            large: VecDeque::new(),
            batch: Batch { bytes: Vec::with_capacity(1 << 16), ..Batch::default() },
            blocked: false,
            segments: true,
            flying: Vec::new(),
            owing: Vec::new(),
            scratch: vec![0; 1 << 16],
            counters: Counters::default(),
        })
    }

    /// Where it listens.
    pub fn local_address(&self) -> SocketAddr {
        self.endpoint.local()
    }

    fn handle_datagram(
        &mut self,
        now: Instant,
        from: SocketAddr,
        bytes: &mut [u8],
        events: &mut dyn FnMut(LinkEvent<'_>),
    ) {
        self.counters.datagrams_in += 1;
        let mut changes = Changes::default();
        match bytes.first().copied() {
            Some(SEALED_KIND) => {
                let arrived = self.peers.open(now, from, bytes, &mut changes);
                let arrived = arrived.map(|arrived| (arrived.slot, arrived.content));
                self.carry_out(now, changes, events); // a session may begin with this datagram
                if let Some((slot, content)) = arrived {
                    self.handle_content(now, slot, content, events);
                }
            }
            Some(CALL_KIND..=REMOVED_KIND) => {
                self.peers.handle_greeting(now, from, bytes, &mut changes);
                self.carry_out(now, changes, events);
            }
            Some(STRANGER_KIND..=STRANGER_KIND_MAX) => events(LinkEvent::Stranger { from, datagram: bytes }),
            _ => self.counters.malformed += 1,
        }
    }

    fn handle_content(
        &mut self,
        now: Instant,
        slot: u16,
        content: &[u8],
        events: &mut dyn FnMut(LinkEvent<'_>),
    ) {
        let Ok(content) = Content::parse(content) else {
            self.counters.malformed += 1;
            return;
        };
        let Some(peer) = self.peers.peer_if(slot) else { return };
        let Some(contact) = &mut peer.contact else { return };
        match content {
            Content::Packet(packet) => {
                peer.packets_in += 1;
                events(LinkEvent::Packet { from: &contact.location, packet });
            }
            Content::Bulk { number, packet } => {
                if contact.inward.owed() == 0 {
                    self.owing.push(slot);
                }
                if contact.inward.arrived(now, number) && !packet.is_empty() {
                    peer.packets_in += 1;
                    events(LinkEvent::Packet { from: &contact.location, packet });
                }
            }
            Content::Ack(ack) => {
                contact.outward.handle_ack(now, &ack);
                self.send_again(now, slot);
            }
            Content::Hello(hello) => contact.handle_hello(now, &hello),
            Content::Probe { size } => self.say(slot, probed(size)),
            Content::Probed { size } => {
                if contact.path.carried(now, size) {
                    tracing::debug!(address = %contact.address, size = contact.path.size(), "datagrams on this way");
                }
            }
            Content::Control(bytes) => events(LinkEvent::Control { from: &contact.location, bytes }),
        }
    }

    fn carry_out(&mut self, now: Instant, changes: Changes, events: &mut dyn FnMut(LinkEvent<'_>)) {
        for (to, datagram) in changes.datagrams {
            if self.endpoint.reaches(to) {
                self.queue(Outgoing::Plain { to, datagram });
            }
        }
        for change in changes.events {
            match change {
                Change::Lost(location) => events(LinkEvent::Lost { peer: &location }),
                Change::Round => {
                    let up = self.peers.iter().filter(|(_, peer)| peer.contact.is_some());
                    for slot in up.map(|(slot, _)| slot).collect::<Vec<_>>() {
                        self.greet(now, slot);
                    }
                }
                Change::Up(slot) => {
                    self.greet(now, slot);
                    let Some(peer) = self.peers.peer(slot) else { continue };
                    let Some(contact) = &peer.contact else { continue };
                    let Row { name, key, .. } = &peer.member;
                    events(LinkEvent::Up { peer: &contact.location, name, key, address: contact.address });
                }
            }
        }
    }

    /// Says HELLO to a peer that is up, and finds out how large datagrams to it may be.
    fn greet(&mut self, now: Instant, slot: u16) {
        let Some(contact) = self.peers.contact(slot) else { return };
        let hello = contact.hello(now).emit();
        let probes: Vec<u16> = contact.path.probes(now).collect();
        self.say(slot, hello);
        for size in probes {
            self.say(slot, probe(size));
        }
    }

    /// Queues something that is not a FLIP packet for a peer that is up.
    fn say(&mut self, slot: u16, content: Vec<u8>) {
        let Some(number) = self.peers.contact(slot).map(|contact| contact.number) else { return };
        self.queue(Outgoing::Sealed { slot, number, content: Outbound::Other(content) });
    }

    fn queue(&mut self, outgoing: Outgoing) {
        let queue = match &outgoing {
            Outgoing::Sealed { content: Outbound::Bulk(..), .. } => &mut self.large,
            _ => &mut self.small,
        };
        if queue.len() >= OUTGOING_MAX {
            self.counters.overflowed += 1;
        } else {
            queue.push_back(outgoing);
        }
    }

    /// Perhaps numbered packets to this peer were not acknowledged in time; and when that goes on, perhaps the way has
    /// become narrower.
    fn bulk_timeout(&mut self, now: Instant, slot: u16) {
        let Some(contact) = self.peers.contact(slot) else { return };
        if contact.outward.poll_timeout().is_none_or(|deadline| now < deadline) {
            return;
        }
        contact.outward.handle_timeout(now);
        if contact.outward.silent() >= SILENT_MAX
            && let Some(sizes) = contact.path.doubt()
        {
            for size in sizes {
                self.say(slot, probe(size));
            }
        }
    }

    /// Queues what this peer has not acknowledged in time.
    fn send_again(&mut self, now: Instant, slot: u16) {
        let Some(contact) = self.peers.contact(slot) else { return };
        let (number, mut again) = (contact.number, Vec::new());
        while let Some((bulk, packet)) = contact.outward.send_again(now) {
            again.push((bulk, packet.clone()));
        }
        for (bulk, packet) in again {
            self.queue(Outgoing::Sealed { slot, number, content: Outbound::Bulk(bulk, packet) });
        }
    }

    fn acknowledge(&mut self, now: Instant) {
        while let Some(slot) = self.owing.pop() {
            let Some(contact) = self.peers.contact(slot).filter(|contact| contact.inward.owed() > 0) else {
                continue;
            };
            let mut content = ACK_HEAD.to_vec();
            contact.inward.ack(now, &mut content);
            self.say(slot, content);
        }
    }

    /// Takes from the queues what can leave together: datagrams of one size to one peer, and perhaps a shorter last one.
    fn fill(&mut self, now: Instant) {
        self.batch.bytes.clear();
        (self.batch.count, self.batch.to) = (0, None);
        while self.batch.count == 0 {
            let queue = if self.small.is_empty() { &mut self.large } else { &mut self.small };
            let Some(first) = queue.pop_front() else { return };
            match first {
                Outgoing::Plain { to, datagram } => {
                    self.batch.bytes.extend_from_slice(&datagram);
                    (self.batch.segment, self.batch.count, self.batch.to) =
                        (datagram.len(), 1, Some((to, None)));
                }
                Outgoing::Sealed { slot, number, content } => {
                    let Some(contact) = self.peers.contact_of(slot, number) else { continue };
                    let size = content.size(usize::from(contact.path.size()));
                    if !content.seal(now, contact, &mut self.batch.bytes) {
                        continue; // its counters are used up, and it is lost in a moment
                    }
                    let to = Some((contact.address, Some(slot)));
                    (self.batch.segment, self.batch.count, self.batch.to) = (size, 1, to);
                    if self.segments {
                        extend(now, &mut self.batch, contact, (slot, number), queue);
                    }
                }
            }
        }
    }

    fn receive_some(&mut self, now: Instant, events: &mut dyn FnMut(LinkEvent<'_>)) -> nix::Result<()> {
        let mut scratch = std::mem::take(&mut self.scratch);
        let result = (0..RECEIVES_PER_TURN).try_for_each(|_| {
            let Some(received) = self.endpoint.receive(&mut scratch)? else { return Ok(()) };
            for datagram in scratch[..received.size].chunks_mut(received.segment) {
                self.handle_datagram(now, received.from, datagram, events);
            }
            Ok(())
        });
        self.scratch = scratch;
        result
    }

    /// The operating system did not take the batch. Whether it is to be tried again in another way.
    fn refused(&mut self, now: Instant, errno: Errno) -> bool {
        let to_slot = self.batch.to.and_then(|(_, slot)| slot);
        if errno == Errno::EMSGSIZE && self.batch.segment > usize::from(SIZE_MIN) {
            // A probe is refused where the next network is too narrow for it; anything else says that the way is.
            let contact = to_slot.and_then(|slot| self.peers.contact(slot));
            let within = contact.filter(|contact| self.batch.segment <= usize::from(contact.path.size()));
            if let Some(contact) = within {
                contact.path.shrink(now);
            }
        } else if self.batch.count > 1 && self.segments && CANNOT_CUT.contains(&errno) {
            tracing::info!("datagrams are sent one by one: {errno}");
            self.segments = false;
            return true;
        }
        self.counters.unsendable += self.batch.count;
        false
    }

    /// Gives the batch to the operating system. `Err` when it takes nothing more now.
    fn send_batch(&mut self, now: Instant) -> Result<(), ()> {
        let Some((to, _)) = self.batch.to else { return Ok(()) };
        loop {
            let (bytes, segment) = (&self.batch.bytes[..], self.batch.segment);
            let sent = match self.segments {
                true => self.endpoint.send(to, bytes, segment).map(|_| ()),
                // One by one; one that is not taken is lost, as any may be.
                false => {
                    bytes.chunks(segment).try_for_each(|one| self.endpoint.send(to, one, segment).map(|_| ()))
                }
            };
            match sent {
                Ok(()) => self.counters.datagrams_out += self.batch.count,
                Err(Errno::EAGAIN) => return Err(()),
                Err(Errno::EINTR) => continue,
                Err(errno) => {
                    if self.refused(now, errno) {
                        continue;
                    }
                }
            }
            self.batch.to = None;
            return Ok(());
        }
    }
}

/// Seals what follows in the queue into the batch, as far as it may leave together with what is there.
fn extend(
    now: Instant,
    batch: &mut Batch,
    contact: &mut Contact,
    whose: (u16, u32),
    queue: &mut VecDeque<Outgoing>,
) {
    let count_max = SEGMENTS_MAX.min(DATAGRAM_SIZE_MAX / batch.segment) as u64;
    let path_size = usize::from(contact.path.size());
    while batch.count < count_max {
        let Some(Outgoing::Sealed { slot, number, content }) = queue.front() else { return };
        let size = content.size(path_size);
        if (*slot, *number) != whose || size > batch.segment || !content.seal(now, contact, &mut batch.bytes)
        {
            return;
        }
        batch.count += 1;
        queue.pop_front();
        if size < batch.segment {
            return; // a shorter one ends the batch
        }
    }
}

impl Link for UdpLink {
    fn config(&self) -> LinkConfig {
        LinkConfig { packet_size_max: PACKET_SIZE_MIN, weight: WEIGHT, trusted: true, repairs: true }
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.endpoint.as_fd()
    }

    fn wants_write(&self) -> bool {
        self.blocked
    }

    fn is_ready(&self, peer: &Location) -> bool {
        let contact = self.peers.at(peer).and_then(|slot| self.peers.peer(slot)?.contact.as_ref());
        // What is for a peer that is gone is taken, and dropped.
        self.large.len() < OUTGOING_READY && contact.is_none_or(|contact| contact.outward.is_open())
    }

    fn packet_size(&self, peer: &Location) -> usize {
        let contact = self.peers.at(peer).and_then(|slot| self.peers.peer(slot)?.contact.as_ref());
        contact.map_or(PACKET_SIZE_MIN, Contact::packet_size)
    }

    fn send(&mut self, now: Instant, to: Option<&Location>, packet: Packet, bulk: bool) {
        let Some(to) = to else {
            let packet = Arc::new(packet);
            let up = |(slot, peer): (u16, &Peer)| Some((slot, peer.contact.as_ref()?.number));
            for (slot, number) in self.peers.iter().filter_map(up).collect::<Vec<_>>() {
                let content = Outbound::Shared(packet.clone());
                self.queue(Outgoing::Sealed { slot, number, content });
            }
            return;
        };
        let Some(slot) = self.peers.at(to) else { return };
        let Some(peer) = self.peers.peer_if(slot) else { return };
        peer.packets_out += 1;
        let Some(contact) = &mut peer.contact else { return };
        let number = contact.number;
        let content = if bulk {
            if contact.outward.is_empty() && !self.flying.contains(&slot) {
                self.flying.push(slot);
            }
            Outbound::Bulk(contact.outward.send(now, packet.len(), packet.clone()), packet)
        } else {
            Outbound::Packet(packet)
        };
        self.queue(Outgoing::Sealed { slot, number, content });
    }

    fn control(&mut self, _now: Instant, to: &Location, bytes: &[u8]) {
        assert!(bytes.len() <= CONTROL_SIZE_MAX, "who sends a control message keeps it small");
        let Some(slot) = self.peers.at(to) else { return };
        self.say(slot, [&CONTROL_HEAD[..], bytes].concat());
    }

    fn flow_way(&self, peer: &Location) -> Option<FlowWay> {
        let contact = self.peers.peer(self.peers.at(peer)?)?.contact.as_ref()?;
        Some(FlowWay {
            local: self.endpoint.local().ip(),
            peer: contact.address,
            datagram_size: contact.path.size().into(),
            suites: suites_here().bits(),
        })
    }

    fn flush(&mut self, now: Instant) {
        self.acknowledge(now);
        self.blocked = false;
        loop {
            if self.batch.to.is_none() {
                self.fill(now);
            }
            if self.batch.to.is_none() {
                return;
            }
            if self.send_batch(now).is_err() {
                self.blocked = true;
                return;
            }
        }
    }

    fn set_members(&mut self, now: Instant, members: &[Row], events: &mut dyn FnMut(LinkEvent<'_>)) {
        let mut changes = Changes::default();
        self.peers.set_members(now, members, &mut changes);
        self.carry_out(now, changes, events);
    }

    fn send_to_stranger(&mut self, to: SocketAddr, datagram: Vec<u8>) {
        self.queue(Outgoing::Plain { to, datagram });
    }

    fn receive(&mut self, now: Instant, events: &mut dyn FnMut(LinkEvent<'_>)) {
        match self.receive_some(now, events) {
            Ok(()) | Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(errno) => tracing::debug!("the link's socket reports: {errno}"),
        }
    }

    fn handle_timeout(&mut self, now: Instant, events: &mut dyn FnMut(LinkEvent<'_>)) {
        let mut changes = Changes::default();
        self.peers.handle_timeout(now, &mut changes);
        self.carry_out(now, changes, events);
        let mut flying = std::mem::take(&mut self.flying);
        flying.retain(|slot| self.peers.contact(*slot).is_some_and(|contact| !contact.outward.is_empty()));
        for slot in &flying {
            self.bulk_timeout(now, *slot);
            self.send_again(now, *slot);
        }
        self.flying.extend(flying);
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let contacts = self.flying.iter().filter_map(|slot| self.peers.peer(*slot)?.contact.as_ref());
        let flights = contacts.filter_map(|contact| contact.outward.poll_timeout());
        flights.chain([self.peers.poll_timeout()]).min()
    }

    fn describe(&self) -> LinkDescription {
        LinkDescription {
            kind: "udp",
            address: self.endpoint.local().to_string(),
            packet_size: PACKET_SIZE_MIN,
            sealing: Some(match suites_here().contains(Suites::AES) {
                true => name_of(Suite::Aes256Gcm),
                false => name_of(Suite::ChaCha20Poly1305),
            }),
            trusted: true,
        }
    }

    fn describe_peers(&self, now: Instant) -> Vec<PeerDescription> {
        self.peers.iter().map(|(_, peer)| describe(now, peer)).collect()
    }

    fn status(&self, now: Instant, text: &mut dyn Write) {
        // Writing to a string does not fail.
        let _ = writeln!(text, "link udp {} sealed", self.endpoint.local());
        let (counters, peers) = (&self.counters, &self.peers.counters);
        let rows = [
            ("datagrams in", counters.datagrams_in),
            ("datagrams out", counters.datagrams_out),
            ("datagrams malformed", counters.malformed),
            ("datagrams of strangers", peers.strange),
            ("datagrams forged", peers.forged),
            ("datagrams replayed", peers.replayed),
            ("datagrams without room", counters.overflowed),
            ("datagrams not sendable", counters.unsendable),
            ("greetings refused", peers.refused),
            ("greetings challenged", peers.challenged),
            ("handshakes", peers.handshakes),
            ("handshakes refused", peers.overflowed),
            ("not members, turned away", self.peers.turned_away.total()),
        ];
        for (name, value) in rows {
            let _ = writeln!(text, "{name:24} {value}");
        }
        if let Some((_, from)) = self.peers.removed {
            let _ = writeln!(text, "removed: {from} says that this host is not a member of the system");
        }
        if let Some(other) = self.peers.doubled(now) {
            let _ = writeln!(text, "identity copied: {other} has the identity of this host");
        }
        for (_, peer) in self.peers.iter() {
            status_of(now, peer, text);
        }
    }
}

fn status_of(now: Instant, peer: &Peer, text: &mut dyn Write) {
    let told = describe(now, peer);
    let state = if told.up { "up" } else { "down" };
    let heard = told.heard.map_or("never".to_owned(), |time| format!("{} ms ago", time.as_millis()));
    let (again, window) = peer
        .contact
        .as_ref()
        .map_or((0, 0), |contact| (contact.outward.sent_again(), contact.outward.window()));
    // Writing to a string does not fail.
    let _ = writeln!(
        text,
        "peer {} {} {state} heard {heard} in {} out {} again {again} window {window} packets of {}",
        told.name, told.address, peer.packets_in, peer.packets_out, told.packet_size,
    );
    if let Some(trouble) = told.trouble {
        let _ = writeln!(text, "{trouble}");
    }
}

fn describe(now: Instant, peer: &Peer) -> PeerDescription {
    let contact = peer.contact.as_ref();
    let listed = peer.member.addresses.first().map(SocketAddr::to_string).unwrap_or_default();
    let copied = peer.copied(now).map(|copied| {
        format!("identity copied: {} at {} and {}", peer.member.name, copied.kept, copied.other)
    });
    PeerDescription {
        location: contact.map_or(Location::new(&[]), |contact| contact.location),
        name: peer.member.name.clone(),
        address: contact.map_or(listed, |contact| contact.address.to_string()),
        up: contact.is_some(),
        heard: contact.map(|contact| contact.heard).or(peer.last_heard).map(|heard| now.since(heard)),
        packet_size: contact.map_or(PACKET_SIZE_MIN, Contact::packet_size),
        round_trip: contact.and_then(|contact| contact.round_trip),
        sealing: contact.map(|contact| name_of(contact.session.suite())),
        trouble: copied,
    }
}

fn name_of(suite: Suite) -> &'static str {
    match suite {
        Suite::Aes256Gcm => "AES-256-GCM",
        Suite::ChaCha20Poly1305 => "ChaCha20-Poly1305",
    }
}

/// What this processor has instructions for.
fn suites_here() -> Suites {
    #[cfg(target_arch = "x86_64")]
    let aes = std::arch::is_x86_feature_detected!("aes") && std::arch::is_x86_feature_detected!("pclmulqdq");
    #[cfg(target_arch = "aarch64")]
    let aes = std::arch::is_aarch64_feature_detected!("aes");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let aes = false;
    if aes { Suites::AES } else { Suites::empty() }
}
