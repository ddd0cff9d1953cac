//! The UDP link: one socket, many peers.
//!
//! It carries packets between the daemons of one system until sealing does so. Because anybody on the way could read and
//! forge them, it is bound to a loopback address, or its owner has said that the network holds throw-away hosts only.

use std::collections::VecDeque;
use std::fmt::Write;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use amoeba_cap::SystemSecret;
use amoeba_kernel::{LinkConfig, Location, Packet};
use amoeba_threads::Instant;
use amoeba_world::Entropy;
use nix::errno::Errno;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg, setsockopt, sockopt,
};

use super::bulk::Numbered;
use super::datagram::{
    BULK_HEAD_SIZE, Datagram, Hello, Join, NAME_SIZE_MAX, Welcome, address_of, bulk_head, is_name,
    location_of, packet_head, refused,
};
use super::peers::{Change, Peer, Peers, State};
use super::{Link, LinkDescription, LinkEvent, PeerDescription, owner};
use crate::threads::now;

/// The largest datagram.
const DATAGRAM_SIZE_MAX: usize = 65_507;
/// The largest datagram that an Ethernet carries whole, under IPv6.
const ETHERNET_DATAGRAM_SIZE: usize = 1452;
/// Datagrams that may wait for the socket; past it small packets are dropped.
const OUTGOING_MAX: usize = 4096;
/// Datagrams that may wait for the socket while large messages are still taken.
const OUTGOING_READY: usize = 128;
/// Reads in one turn.
const RECEIVES_PER_TURN: usize = 64;
/// Datagrams that the operating system is given at once.
const SEGMENTS_MAX: usize = 60;
/// Bytes that the operating system may keep for this socket until they are read, if it allows so many.
const RECEIVE_BUFFER: usize = 4 << 20;
/// Questions of joining hosts are looked at once in this time: each costs more than other datagrams.
const JOIN_INTERVAL: Duration = Duration::from_millis(20);
/// What crossing a network of UDP adds to a hop count, as for an Ethernet.
const WEIGHT: u16 = 3;

/// How a UDP link is made.
pub struct UdpConfig {
    /// Where to listen. Port 0 lets the operating system choose.
    pub listen: SocketAddr,
    /// Peers to greet; those that they know are learnt.
    pub peers: Vec<SocketAddr>,
    /// The network holds throw-away hosts only: unsealed datagrams may leave this host.
    pub dev: bool,
    /// What this host is called.
    pub host_name: String,
    /// The system's secret.
    pub secret: SystemSecret,
    /// The system's root capability as text, for hosts that join; without it none can.
    pub root_capability: Option<String>,
    /// Identifiers.
    pub entropy: Arc<dyn Entropy>,
}

/// The link cannot be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// Unsealed datagrams would leave the host.
    #[error(
        "packets between hosts are not sealed yet, and {0} is not a loopback address: everybody on the way could read \
         and forge them. Listen on 127.0.0.1 (or another loopback address), or write `dev = true` into [link] if all \
         hosts on this network are throw-away hosts"
    )]
    Unsealed(SocketAddr),
    /// Not a name for a host.
    #[error(
        "{0:?} cannot be a host's name: it has 1 to {NAME_SIZE_MAX} bytes, without '/' or control characters"
    )]
    Name(String),
    /// The operating system refused.
    #[error("cannot listen on {address}: {source}")]
    Io {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
}

/// A datagram that waits for the socket.
struct Outgoing {
    to: SocketAddr,
    head: Vec<u8>,
    packet: Arc<Vec<u8>>,
}

impl Outgoing {
    fn size(&self) -> usize {
        self.head.len() + self.packet.len()
    }
}

#[derive(Default)]
struct Counters {
    datagrams_in: u64,
    datagrams_out: u64,
    malformed: u64,
    strange: u64,
    overflowed: u64,
    unsendable: u64,
}

/// See the module's head.
pub struct UdpLink {
    socket: UdpSocket,
    local: SocketAddr,
    datagram_size_max: usize,
    secret: SystemSecret,
    root_capability: Option<String>,
    peers: Peers,
    outgoing: VecDeque<Outgoing>,
    blocked: bool,
    last_join: Instant,
    /// Whether the operating system cuts large buffers into datagrams.
    segments: bool,
    scratch: Vec<u8>,
    counters: Counters,
}

impl UdpLink {
    /// Binds the socket.
    pub fn bind(config: UdpConfig) -> Result<UdpLink, BindError> {
        let address = config.listen;
        if !address.ip().is_loopback() && !config.dev {
            return Err(BindError::Unsealed(address));
        }
        if !is_name(&config.host_name) {
            return Err(BindError::Name(config.host_name));
        }
        let failed = |source| BindError::Io { address, source };
        let socket = UdpSocket::bind(address).map_err(failed)?;
        socket.set_nonblocking(true).map_err(failed)?;
        let local = socket.local_addr().map_err(failed)?;
        let window = enlarge(&socket) / 4; // the bound counts what the system needs to keep a datagram, too
        let _ = setsockopt(&socket, sockopt::UdpGroSegment, &true); // without it datagrams come one by one
        let peers = Peers::new(
            now(),
            config.secret.clone(),
            &*config.entropy,
            crate::clock(),
            config.host_name,
            window,
            &config.peers,
        );
        let loopback = local.ip().is_loopback();
        Ok(UdpLink {
            socket,
            local,
            datagram_size_max: if loopback { DATAGRAM_SIZE_MAX } else { ETHERNET_DATAGRAM_SIZE },
            secret: config.secret,
            root_capability: config.root_capability,
            peers,
            outgoing: VecDeque::new(),
            blocked: false,
            last_join: Instant::from_epoch(Duration::ZERO),
            segments: !loopback,
            scratch: vec![0; 1 << 16],
            counters: Counters::default(),
        })
    }

    /// Where it listens.
    pub fn local_address(&self) -> SocketAddr {
        self.local
    }

    fn handle_datagram(
        &mut self,
        now: Instant,
        from: SocketAddr,
        bytes: &[u8],
        events: &mut dyn FnMut(LinkEvent<'_>),
    ) {
        self.counters.datagrams_in += 1;
        let Ok(datagram) = Datagram::parse(bytes) else {
            self.counters.malformed += 1;
            return;
        };
        match datagram {
            Datagram::Packet { session, packet } => {
                if let Some(peer) = self.known(now, from, &session) {
                    peer.packets_in += 1;
                    events(LinkEvent::Packet { from: &location_of(from), packet });
                }
            }
            Datagram::Bulk { session, number, packet } => {
                if let Some(peer) = self.known(now, from, &session)
                    && peer.inward.arrived(number)
                {
                    peer.packets_in += 1;
                    events(LinkEvent::Packet { from: &location_of(from), packet });
                }
            }
            Datagram::Ack { session, ack } => {
                let mut again = Vec::new();
                if let Some(peer) = self.known(now, from, &session) {
                    peer.outward.handle_ack(now, &ack, &mut again);
                }
                self.send_again(from, again);
            }
            Datagram::Hello { tag, body } => match Hello::parse(&self.secret, &tag, body) {
                Ok(hello) => {
                    let changes = self.peers.handle_hello(now, from, &hello);
                    self.carry_out(now, changes, events);
                }
                Err(_) => self.counters.strange += 1,
            },
            Datagram::Join(join) => self.handle_join(now, from, &join),
            Datagram::Joined(_) | Datagram::Refused { .. } => self.counters.strange += 1,
        }
    }

    /// The peer that this datagram is from, if it is of the contact that we have with it.
    fn known(
        &mut self,
        now: Instant,
        from: SocketAddr,
        session: &[u8; 8],
    ) -> Option<&mut super::peers::Peer> {
        let peer = self.peers.get_mut(&from);
        let peer = peer.filter(|peer| peer.sessions.is_some_and(|sessions| sessions.to_us == *session));
        match peer {
            Some(peer) => {
                peer.heard = Some(now);
                Some(peer)
            }
            None => {
                self.counters.strange += 1;
                None
            }
        }
    }

    fn handle_join(&mut self, now: Instant, from: SocketAddr, join: &Join) {
        if now.since(self.last_join) < JOIN_INTERVAL {
            return self.counters.overflowed += 1; // it asks again
        }
        self.last_join = now;
        let reason = match &self.root_capability {
            _ if self.local.ip().is_loopback() && !owner::is_ours(from) => {
                "this system belongs to another user".to_owned()
            }
            _ if !is_name(&join.name) => format!("{:?} cannot be a host's name", join.name),
            _ if self.peers.is_taken(&join.name) => {
                format!("a host called {} is there already; choose another name with --name", join.name)
            }
            None => "this host does not know the system's root capability; ask another".to_owned(),
            Some(root) => {
                let mut peers = vec![];
                peers.extend(self.peers.up().map(|(address, _)| *address));
                let (nonce, secret) = (join.nonce, self.secret.to_bytes());
                tracing::info!(host = join.name, address = %from, "a host joins");
                let answer = Welcome { nonce, secret, root: root.clone(), peers }.emit();
                return self.queue(from, answer, Arc::default());
            }
        };
        tracing::warn!(address = %from, "refused a host that wants to join: {reason}");
        self.queue(from, refused(join.nonce, &reason), Arc::default());
    }

    fn carry_out(&mut self, now: Instant, changes: Vec<Change>, events: &mut dyn FnMut(LinkEvent<'_>)) {
        for change in changes {
            match change {
                Change::Lost(address) => {
                    self.outgoing.retain(|datagram| datagram.to != address);
                    events(LinkEvent::Lost { peer: &location_of(address) });
                }
                Change::Greet(address) => {
                    if let Some(hello) = self.peers.hello_for(now, &address) {
                        self.queue(address, hello, Arc::default());
                    }
                }
            }
        }
    }

    fn queue(&mut self, to: SocketAddr, head: Vec<u8>, packet: Arc<Vec<u8>>) {
        if self.outgoing.len() >= OUTGOING_MAX {
            self.counters.overflowed += 1;
        } else {
            self.outgoing.push_back(Outgoing { to, head, packet });
        }
    }

    fn send_again(&mut self, to: SocketAddr, packets: Vec<Numbered>) {
        let sessions = self.peers.get(&to).and_then(|peer| peer.sessions);
        let Some(sessions) = sessions else { return };
        for (number, packet) in packets {
            self.queue(to, bulk_head(&sessions.from_us, number), packet);
        }
    }

    fn acknowledge(&mut self) {
        let mut acks = Vec::new();
        for (address, peer) in self.peers.iter_mut() {
            if let Some(sessions) = peer.sessions.filter(|_| peer.inward.owes()) {
                acks.push((*address, peer.inward.ack().emit(&sessions.from_us)));
            }
        }
        for (address, ack) in acks {
            self.queue(address, ack, Arc::default());
        }
    }

    /// How many of the waiting datagrams can be given to the operating system at once, and the size of each but the
    /// last.
    fn next_batch(&self) -> (usize, usize) {
        let Some(first) = self.outgoing.front() else { return (0, 0) };
        let size = first.size();
        if !self.segments || size > ETHERNET_DATAGRAM_SIZE {
            return (1, size);
        }
        let count_max = SEGMENTS_MAX.min(DATAGRAM_SIZE_MAX / size);
        let mut count = 1;
        for datagram in self.outgoing.iter().take(count_max).skip(1) {
            if datagram.to != first.to || datagram.size() > size {
                break;
            }
            count += 1;
            if datagram.size() < size {
                break; // a shorter one ends the batch
            }
        }
        (count, size)
    }

    fn send_batch(&self, count: usize, size: usize) -> nix::Result<usize> {
        let batch = self.outgoing.iter().take(count);
        let slices: Vec<IoSlice<'_>> = batch
            .flat_map(|datagram| [IoSlice::new(&datagram.head), IoSlice::new(&datagram.packet)])
            .filter(|slice| !slice.is_empty())
            .collect();
        let to = SockaddrStorage::from(self.outgoing[0].to);
        let segment = u16::try_from(size).unwrap_or(u16::MAX);
        let control = [ControlMessage::UdpGsoSegments(&segment)];
        let control = if count > 1 { &control[..] } else { &[] };
        sendmsg(self.socket.as_raw_fd(), &slices, control, MsgFlags::MSG_DONTWAIT, Some(&to))
    }

    fn receive_some(&mut self, now: Instant, events: &mut dyn FnMut(LinkEvent<'_>)) -> nix::Result<()> {
        let mut scratch = std::mem::take(&mut self.scratch);
        let mut control = nix::cmsg_space!(i32);
        let result = (0..RECEIVES_PER_TURN).try_for_each(|_| {
            let (size, segment, from) = receive_one(&self.socket, &mut scratch, &mut control)?;
            let Some(from) = from else { return Ok(()) };
            for datagram in scratch[..size].chunks(segment.max(1)) {
                self.handle_datagram(now, from, datagram, events);
            }
            Ok(())
        });
        self.scratch = scratch;
        result
    }
}

impl Link for UdpLink {
    fn config(&self) -> LinkConfig {
        let packet_size_max = self.datagram_size_max - BULK_HEAD_SIZE;
        LinkConfig { packet_size_max, weight: WEIGHT, trusted: true, repairs: true }
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    fn wants_write(&self) -> bool {
        self.blocked
    }

    fn is_ready(&self, peer: &Location) -> bool {
        let peer = address_of(peer).and_then(|address| self.peers.get(&address));
        // What is for a peer that is gone is taken, and dropped.
        self.outgoing.len() < OUTGOING_READY
            && peer.is_none_or(|peer| peer.sessions.is_none() || peer.outward.is_open())
    }

    fn send(&mut self, now: Instant, to: Option<&Location>, packet: Packet, bulk: bool) {
        let packet = packet.to_vec();
        let Some(to) = to else {
            let packet = Arc::new(packet);
            let up = self.peers.up().filter_map(|(address, peer)| Some((*address, peer.sessions?)));
            for (address, sessions) in up.collect::<Vec<_>>() {
                self.queue(address, packet_head(&sessions.from_us), packet.clone());
            }
            return;
        };
        let Some(address) = address_of(to) else { return };
        let Some(peer) = self.peers.get_mut(&address) else { return };
        let Some(sessions) = peer.sessions else { return };
        peer.packets_out += 1;
        let (head, packet) = if bulk {
            let (number, packet) = peer.outward.send(now, packet);
            (bulk_head(&sessions.from_us, number), packet)
        } else {
            (packet_head(&sessions.from_us), Arc::new(packet))
        };
        self.queue(address, head, packet);
    }

    fn flush(&mut self, _now: Instant) {
        self.acknowledge();
        self.blocked = false;
        loop {
            let (count, size) = self.next_batch();
            if count == 0 {
                return;
            }
            match self.send_batch(count, size) {
                Ok(_) => self.counters.datagrams_out += count as u64,
                Err(Errno::EAGAIN) => {
                    self.blocked = true;
                    return;
                }
                Err(Errno::EINTR) => continue,
                Err(errno) if count > 1 && self.segments => {
                    tracing::info!("datagrams are sent one by one: {errno}");
                    self.segments = false;
                    continue;
                }
                Err(_) => self.counters.unsendable += count as u64,
            }
            self.outgoing.drain(..count);
        }
    }

    fn receive(&mut self, now: Instant, events: &mut dyn FnMut(LinkEvent<'_>)) {
        match self.receive_some(now, events) {
            Ok(()) | Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(errno) => tracing::debug!("the link's socket reports: {errno}"),
        }
    }

    fn handle_timeout(&mut self, now: Instant, events: &mut dyn FnMut(LinkEvent<'_>)) {
        let changes = self.peers.handle_timeout(now);
        self.carry_out(now, changes, events);
        let mut again = Vec::new();
        for (address, peer) in self.peers.iter_mut() {
            let mut packets = Vec::new();
            peer.outward.handle_timeout(now, &mut packets);
            if !packets.is_empty() {
                again.push((*address, packets));
            }
        }
        for (address, packets) in again {
            self.send_again(address, packets);
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let flights = self.peers.iter().filter_map(|(_, peer)| peer.outward.poll_timeout());
        flights.chain([self.peers.poll_timeout()]).min()
    }

    fn describe(&self) -> LinkDescription {
        LinkDescription {
            kind: "udp",
            address: self.local.to_string(),
            packet_size: self.config().packet_size_max,
            sealing: None,
            trusted: true,
        }
    }

    fn describe_peers(&self, now: Instant) -> Vec<PeerDescription> {
        let peer = |(address, peer): (&SocketAddr, &Peer)| PeerDescription {
            location: location_of(*address),
            name: peer.name.clone(),
            address: address.to_string(),
            up: peer.state == State::Up,
            heard: peer.heard.map(|heard| now.since(heard)),
            packet_size: self.config().packet_size_max,
            round_trip: None,
            sealing: None,
            trouble: None,
        };
        self.peers.iter().map(peer).collect()
    }

    fn status(&self, now: Instant, text: &mut dyn Write) {
        // Writing to a string does not fail.
        let _ = writeln!(text, "link udp {} datagrams of {}", self.local, self.datagram_size_max);
        let counters = &self.counters;
        let rows = [
            ("datagrams in", counters.datagrams_in),
            ("datagrams out", counters.datagrams_out),
            ("datagrams malformed", counters.malformed),
            ("datagrams of strangers", counters.strange),
            ("datagrams without room", counters.overflowed),
            ("datagrams not sendable", counters.unsendable),
        ];
        for (name, value) in rows {
            let _ = writeln!(text, "{name:24} {value}");
        }
        for (address, peer) in self.peers.iter() {
            let state = match peer.state {
                State::Up => "up",
                State::Greeting => "greeting",
                State::Down => "down",
            };
            let name = if peer.name.is_empty() { "?" } else { &peer.name };
            let heard =
                peer.heard.map_or("never".to_owned(), |at| format!("{} ms ago", now.since(at).as_millis()));
            let _ = writeln!(
                text,
                "peer {name} {address} {state} heard {heard} in {} out {} again {} window {}",
                peer.packets_in,
                peer.packets_out,
                peer.outward.sent_again(),
                peer.outward.window(),
            );
        }
    }
}

/// Reads once: how many bytes, how many each datagram in them has but the last, and who sent them.
fn receive_one(
    socket: &UdpSocket,
    scratch: &mut [u8],
    control: &mut Vec<u8>,
) -> nix::Result<(usize, usize, Option<SocketAddr>)> {
    let mut slices = [IoSliceMut::new(scratch)];
    let received = recvmsg::<SockaddrStorage>(
        socket.as_raw_fd(),
        &mut slices,
        Some(control.as_mut_slice()),
        MsgFlags::MSG_DONTWAIT,
    )?;
    let segment = received.cmsgs()?.find_map(|message| match message {
        ControlMessageOwned::UdpGroSegments(size) => usize::try_from(size).ok(),
        _ => None,
    });
    let from = received.address.as_ref().and_then(|address| {
        let v4 = address.as_sockaddr_in().map(|address| SocketAddr::V4((*address).into()));
        v4.or_else(|| address.as_sockaddr_in6().map(|address| SocketAddr::V6((*address).into())))
    });
    Ok((received.bytes, segment.unwrap_or(received.bytes), from.map(plain)))
}

/// An address without its flow label, so that it compares equal however it came.
fn plain(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V6(mut address) => {
            address.set_flowinfo(0);
            SocketAddr::V6(address)
        }
        v4 => v4,
    }
}

/// Lets the operating system keep more for the socket; how much it does.
fn enlarge(socket: &UdpSocket) -> usize {
    if setsockopt(socket, sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
        let _ = setsockopt(socket, sockopt::RcvBuf, &RECEIVE_BUFFER); // it does what it may
    }
    let _ = setsockopt(socket, sockopt::SndBuf, &RECEIVE_BUFFER);
    nix::sys::socket::getsockopt(socket, sockopt::RcvBuf).unwrap_or(0)
}

/// Whether unsealed datagrams may come from and go to this address.
pub(crate) fn stays_here(address: IpAddr) -> bool {
    address.is_loopback()
}
