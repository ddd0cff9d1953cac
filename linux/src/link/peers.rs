//! Who is there: the daemons that this one greets, and those that greet it.
//!
//! ```text
//!            HELLO                 HELLO that echoes our contact
//!   Down ─────────────► Greeting ───────────────────────────────► Up
//!     ▲                    │  ▲       HELLO of a new contact        │
//!     │                    │  └─────────────────────────────────────┤
//!     └──── silence ───────┴──────────────── silence ───────────────┘
//! ```
//!
//! A contact is a number that each side draws for the other, and draws anew, larger, when it loses sight of it: so both
//! sides agree which packets belong together, a daemon that has started anew is never taken for its earlier life, a
//! HELLO that was overtaken is known as such, and a peer that does not hear us is not up although we hear it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use amoeba_cap::SystemSecret;
use amoeba_threads::Instant;
use amoeba_world::{Clock, Entropy, random};

use super::bulk::{Inward, Outward};
use super::datagram::{ADDRESSES_MAX, Hello, Session, session};

/// Peers that may be known; past it the one that is down for longest and not configured goes.
pub(crate) const PEERS_MAX: usize = 256;
/// Time between two HELLOs to a peer.
pub(crate) const HELLO_INTERVAL: Duration = Duration::from_secs(1);
/// A peer that was silent for so long is down.
pub(crate) const SILENCE_MAX: Duration = Duration::from_secs(4);
/// A peer that is not configured is forgotten when it was down for so long.
pub(crate) const FORGET_AFTER: Duration = Duration::from_secs(600);
/// A HELLO out of turn is sent at most so often.
const ANSWER_INTERVAL: Duration = Duration::from_millis(50);
/// Addresses of this daemon itself that may be known.
const OWN_MAX: usize = 16;
/// The smallest window a peer can announce that is believed.
const WINDOW_MIN: usize = 64 << 10;

/// How far the acquaintance goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Down,
    /// It is heard, and does not hear us yet.
    Greeting,
    Up,
}

/// One peer.
pub(crate) struct Peer {
    pub(crate) state: State,
    pub(crate) name: String,
    configured: bool,
    incarnation: u64,
    /// What we drew for it.
    contact: u64,
    /// What it drew for us; 0 when unknown.
    theirs: u64,
    pub(crate) heard: Option<Instant>,
    greeted: Option<Instant>,
    since: Instant,
    pub(crate) sessions: Option<Sessions>,
    pub(crate) outward: Outward,
    pub(crate) inward: Inward,
    pub(crate) packets_in: u64,
    pub(crate) packets_out: u64,
}

/// The two directions of a contact.
#[derive(Clone, Copy)]
pub(crate) struct Sessions {
    pub(crate) from_us: Session,
    pub(crate) to_us: Session,
}

/// Something that the daemon must know or do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// The peer is gone, or another contact has begun.
    Lost(SocketAddr),
    /// Send a HELLO to this address.
    Greet(SocketAddr),
}

/// All peers. Told the time and what arrives; says what to do.
pub(crate) struct Peers {
    secret: SystemSecret,
    clock: Arc<dyn Clock>,
    name: String,
    incarnation: u64,
    /// Bytes of BULKs that this host takes at once.
    window: usize,
    table: BTreeMap<SocketAddr, Peer>,
    own: BTreeSet<SocketAddr>,
    next_round: Instant,
    rounds: usize,
}

impl Peers {
    pub(crate) fn new(
        now: Instant,
        secret: SystemSecret,
        entropy: &dyn Entropy,
        clock: Arc<dyn Clock>,
        name: String,
        window: usize,
        configured: &[SocketAddr],
    ) -> Peers {
        let incarnation = u64::from_le_bytes(random(entropy));
        let (table, own) = (BTreeMap::new(), BTreeSet::new());
        let mut peers =
            Peers { secret, clock, name, incarnation, window, table, own, next_round: now, rounds: 0 };
        for &address in configured.iter().take(PEERS_MAX) {
            if let Some(peer) = peers.entry(now, address) {
                peer.configured = true;
            }
        }
        peers
    }

    pub(crate) fn get(&self, address: &SocketAddr) -> Option<&Peer> {
        self.table.get(address)
    }

    pub(crate) fn get_mut(&mut self, address: &SocketAddr) -> Option<&mut Peer> {
        self.table.get_mut(address)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&SocketAddr, &Peer)> {
        self.table.iter()
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (&SocketAddr, &mut Peer)> {
        self.table.iter_mut()
    }

    /// Peers that are up.
    pub(crate) fn up(&self) -> impl Iterator<Item = (&SocketAddr, &Peer)> {
        self.table.iter().filter(|(_, peer)| peer.state == State::Up)
    }

    /// Whether a host of this name is up, or is this host.
    pub(crate) fn is_taken(&self, name: &str) -> bool {
        self.name == name || self.up().any(|(_, peer)| peer.name == name)
    }

    /// The HELLO for a peer.
    pub(crate) fn hello_for(&mut self, now: Instant, address: &SocketAddr) -> Option<Vec<u8>> {
        let others = self.up().map(|(other, _)| *other).filter(|other| other != address);
        let mut others: Vec<SocketAddr> = others.collect();
        if others.len() > ADDRESSES_MAX {
            let turn = self.rounds * ADDRESSES_MAX % others.len();
            others.rotate_left(turn);
            others.truncate(ADDRESSES_MAX);
        }
        let (incarnation, name) = (self.incarnation, self.name.clone());
        let window = u32::try_from(self.window).unwrap_or(u32::MAX);
        let peer = self.table.get_mut(address)?;
        peer.greeted = Some(now);
        let hello =
            Hello { incarnation, contact: peer.contact, echo: peer.theirs, window, name, peers: others };
        Some(hello.emit(&self.secret))
    }

    /// A HELLO with the right tag arrived.
    pub(crate) fn handle_hello(&mut self, now: Instant, from: SocketAddr, hello: &Hello) -> Vec<Change> {
        if hello.incarnation == self.incarnation {
            self.is_own(from);
            return Vec::new();
        }
        let mut same = self.table.iter().filter(|(_, peer)| peer.incarnation == hello.incarnation);
        if same.any(|(address, peer)| *address != from && peer.state != State::Down) {
            return Vec::new(); // the same daemon under another address: one is enough
        }
        let secret = self.secret.clone();
        let Some(peer) = self.entry(now, from) else { return Vec::new() };
        if hello.contact < peer.theirs {
            return Vec::new(); // a later one has overtaken it
        }
        let (was_up, anew) = (peer.state == State::Up, peer.theirs != hello.contact);
        let hears_us = hello.echo == peer.contact;
        let mut changes = Vec::new();
        peer.heard = Some(now);
        peer.name.clone_from(&hello.name);
        peer.incarnation = hello.incarnation;
        if anew {
            if was_up {
                changes.push(Change::Lost(from));
            }
            peer.begin(now, hello, &secret);
        }
        if hears_us && peer.state != State::Up {
            (peer.state, peer.since) = (State::Up, now);
            tracing::info!(host = peer.name, address = %from, "a host is up");
        }
        let answered = |at: Instant| now.since(at) < ANSWER_INTERVAL;
        if anew || !hears_us && !peer.greeted.is_some_and(answered) {
            changes.push(Change::Greet(from));
        }
        for &rumour in &hello.peers {
            self.heard_of(now, rumour, &mut changes);
        }
        changes
    }

    /// Time has passed: who is down, and whom to greet.
    pub(crate) fn handle_timeout(&mut self, now: Instant) -> Vec<Change> {
        let mut changes = Vec::new();
        for (address, peer) in &mut self.table {
            let silent = peer.heard.is_some_and(|heard| now.since(heard) >= SILENCE_MAX);
            if silent && peer.state != State::Down {
                if peer.state == State::Up {
                    tracing::warn!(host = peer.name, %address, "a host is down");
                    changes.push(Change::Lost(*address));
                }
                peer.end(now, draw(&*self.clock, peer.contact));
            }
        }
        if self.next_round <= now {
            self.next_round = now + HELLO_INTERVAL;
            self.rounds = self.rounds.wrapping_add(1);
            self.table.retain(|_, peer| {
                peer.configured || peer.state != State::Down || now.since(peer.since) < FORGET_AFTER
            });
            changes.extend(self.table.keys().map(|address| Change::Greet(*address)));
        }
        changes
    }

    pub(crate) fn poll_timeout(&self) -> Instant {
        let up = self.table.values().filter(|peer| peer.state != State::Down);
        let silences = up.filter_map(|peer| peer.heard.map(|heard| heard + SILENCE_MAX));
        silences.chain([self.next_round]).min().expect("the next round is always there")
    }

    fn heard_of(&mut self, now: Instant, address: SocketAddr, changes: &mut Vec<Change>) {
        let usable = address.port() != 0 && !address.ip().is_unspecified() && !address.ip().is_multicast();
        if usable
            && !self.own.contains(&address)
            && !self.table.contains_key(&address)
            && self.entry(now, address).is_some()
        {
            changes.push(Change::Greet(address));
        }
    }

    fn is_own(&mut self, address: SocketAddr) {
        self.table.remove(&address);
        if self.own.len() < OWN_MAX {
            self.own.insert(address);
        }
    }

    /// The peer at this address, made if there is room.
    fn entry(&mut self, now: Instant, address: SocketAddr) -> Option<&mut Peer> {
        if !self.table.contains_key(&address) {
            if self.table.len() >= PEERS_MAX {
                let down =
                    self.table.iter().filter(|(_, peer)| peer.state == State::Down && !peer.configured);
                let oldest = down.min_by_key(|(_, peer)| peer.since).map(|(address, _)| *address)?;
                self.table.remove(&oldest);
            }
            let contact = draw(&*self.clock, 0);
            self.table.insert(address, Peer::new(now, contact));
        }
        self.table.get_mut(&address)
    }
}

impl Peer {
    fn new(now: Instant, contact: u64) -> Peer {
        Peer {
            state: State::Down,
            name: String::new(),
            configured: false,
            incarnation: 0,
            contact,
            theirs: 0,
            heard: None,
            greeted: None,
            since: now,
            sessions: None,
            outward: Outward::new(now, WINDOW_MIN),
            inward: Inward::default(),
            packets_in: 0,
            packets_out: 0,
        }
    }

    fn begin(&mut self, now: Instant, hello: &Hello, secret: &SystemSecret) {
        (self.state, self.theirs) = (State::Greeting, hello.contact);
        let from_us = session(secret, self.contact, self.theirs);
        let to_us = session(secret, self.theirs, self.contact);
        self.sessions = Some(Sessions { from_us, to_us });
        self.outward = Outward::new(now, (hello.window as usize).max(WINDOW_MIN));
        self.inward = Inward::default();
        self.since = now;
    }

    /// Loses sight: what is under way is forgotten, and both sides begin anew.
    fn end(&mut self, now: Instant, contact: u64) {
        (self.state, self.contact, self.theirs, self.sessions) = (State::Down, contact, 0, None);
        self.outward = Outward::new(now, WINDOW_MIN);
        self.inward = Inward::default();
        self.since = now;
    }
}

/// A contact larger than the one before it. The time of day makes it larger than those of earlier lives; should the
/// clock have been set back, the peers believe it once they have lost sight of the earlier life.
fn draw(clock: &dyn Clock, before: u64) -> u64 {
    let time = u64::try_from(clock.unix_time().as_nanos()).unwrap_or(u64::MAX - 1);
    time.max(before + 1)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::super::datagram::Datagram;
    use super::*;

    /// A clock that shows what it is told, and randomness that counts.
    struct Fake(AtomicU64);

    impl Clock for Fake {
        fn unix_time(&self) -> Duration {
            Duration::from_nanos(self.0.fetch_add(1, Ordering::SeqCst))
        }
    }

    impl Entropy for Fake {
        fn fill(&self, bytes: &mut [u8]) {
            bytes.fill(self.0.fetch_add(1, Ordering::SeqCst) as u8);
        }
    }

    fn at(millis: u64) -> Instant {
        Instant::from_epoch(Duration::from_millis(millis))
    }

    fn address(host: usize) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, host as u8 + 1], 5321))
    }

    fn peers(host: usize, seed: u64, knows: &[usize]) -> Peers {
        let fake = Arc::new(Fake(AtomicU64::new(seed)));
        let known: Vec<SocketAddr> = knows.iter().map(|host| address(*host)).collect();
        let secret = SystemSecret::from_bytes([5; 32]);
        Peers::new(at(0), secret, &*fake.clone(), fake, format!("host{host}"), 1 << 20, &known)
    }

    /// Hosts and the HELLOs between them.
    struct Net {
        now: u64,
        hosts: Vec<Peers>,
        lost: Vec<(usize, SocketAddr)>,
    }

    impl Net {
        fn new(hosts: Vec<Peers>) -> Net {
            Net { now: 0, hosts, lost: Vec::new() }
        }

        /// Lets time pass; `carries` says which HELLOs arrive, by sender and receiver.
        fn run(&mut self, millis: u64, carries: impl Fn(usize, usize) -> bool) {
            let end = self.now + millis;
            while self.now < end {
                for host in 0..self.hosts.len() {
                    let changes = self.hosts[host].handle_timeout(at(self.now));
                    self.carry_out(host, changes, &carries);
                }
                self.now += 10;
            }
        }

        fn carry_out(&mut self, host: usize, changes: Vec<Change>, carries: &impl Fn(usize, usize) -> bool) {
            for change in changes {
                match change {
                    Change::Lost(peer) => self.lost.push((host, peer)),
                    Change::Greet(peer) => self.greet(host, peer, carries),
                }
            }
        }

        fn greet(&mut self, host: usize, peer: SocketAddr, carries: &impl Fn(usize, usize) -> bool) {
            let Some(bytes) = self.hosts[host].hello_for(at(self.now), &peer) else { return };
            let Some(to) = (0..self.hosts.len()).find(|to| address(*to) == peer) else { return };
            if carries(host, to) {
                let Ok(Datagram::Hello { tag, body }) = Datagram::parse(&bytes) else { panic!("no HELLO") };
                let hello = Hello::parse(&SystemSecret::from_bytes([5; 32]), &tag, body).unwrap();
                let changes = self.hosts[to].handle_hello(at(self.now), address(host), &hello);
                self.carry_out(to, changes, carries);
            }
        }

        fn up(&self, host: usize) -> usize {
            self.hosts[host].up().count()
        }

        fn agree(&self, one: usize, other: usize) -> bool {
            let sessions = |host: usize, peer| self.hosts[host].get(&address(peer))?.sessions;
            let (Some(ours), Some(theirs)) = (sessions(one, other), sessions(other, one)) else {
                return false;
            };
            ours.from_us == theirs.to_us && ours.to_us == theirs.from_us && ours.from_us != ours.to_us
        }
    }

    #[test]
    fn everybody_meets_everybody_through_one() {
        let mut net =
            Net::new(vec![peers(0, 100, &[]), peers(1, 200, &[0]), peers(2, 300, &[0]), peers(3, 400, &[2])]);
        net.run(4000, |_, _| true);
        for host in 0..4 {
            assert_eq!(net.up(host), 3, "host {host}");
            assert!((0..4).all(|other| other == host || net.agree(host, other)));
        }
        assert!(net.lost.is_empty());
    }

    #[test]
    fn silence_is_noticed_within_five_seconds_and_the_return_at_once() {
        let mut net = Net::new(vec![peers(0, 100, &[]), peers(1, 200, &[0])]);
        net.run(2000, |_, _| true);
        net.run(5000, |_, _| false);
        assert_eq!(net.lost, [(0, address(1)), (1, address(0))]);
        net.run(1100, |_, _| true);
        assert!(net.up(0) == 1 && net.up(1) == 1 && net.agree(0, 1));
    }

    #[test]
    fn a_peer_that_does_not_hear_us_is_not_up() {
        let mut net = Net::new(vec![peers(0, 100, &[]), peers(1, 200, &[0])]);
        net.run(2000, |_, _| true);
        net.run(8000, |from, _| from == 0);
        assert_eq!((net.up(0), net.up(1)), (0, 0), "host 0 hears nothing; host 1 knows that it is not heard");
        net.run(1100, |_, _| true);
        assert!(net.up(0) == 1 && net.up(1) == 1 && net.agree(0, 1));
    }

    #[test]
    fn a_new_life_is_another_contact_and_a_late_word_of_the_old_one_is_not_heard() {
        let mut net = Net::new(vec![peers(0, 100, &[]), peers(1, 200, &[0])]);
        net.run(2000, |_, _| true);
        let old = net.hosts[1].hello_for(at(net.now), &address(0)).unwrap();
        net.hosts[1] = peers(1, 10_000, &[0]);
        net.run(1000, |_, _| true);
        assert_eq!(net.lost, [(0, address(1))]);
        assert!(net.up(0) == 1 && net.up(1) == 1 && net.agree(0, 1));
        let Ok(Datagram::Hello { tag, body }) = Datagram::parse(&old) else { panic!("no HELLO") };
        let hello = Hello::parse(&SystemSecret::from_bytes([5; 32]), &tag, body).unwrap();
        assert_eq!(net.hosts[0].handle_hello(at(net.now), address(1), &hello), []);
        assert!(net.up(0) == 1 && net.agree(0, 1));
    }

    #[test]
    fn the_table_is_bounded_and_keeps_who_is_up_and_who_is_configured() {
        let mut net = Net::new(vec![peers(0, 100, &[2]), peers(1, 200, &[0])]);
        net.run(1000, |_, _| true);
        let rumours =
            |from: u16| (0..20).map(move |at| SocketAddr::from(([10, 0, 0, 1], from * 20 + at + 1)));
        for round in 0..40 {
            let hello = Hello {
                incarnation: 77,
                contact: 1 + u64::from(round),
                echo: 0,
                window: 0,
                name: "liar".into(),
                peers: rumours(round).collect(),
            };
            net.hosts[0].handle_hello(at(net.now), "10.9.9.9:9".parse().unwrap(), &hello);
        }
        assert!(net.hosts[0].table.len() <= PEERS_MAX);
        assert!(net.hosts[0].get(&address(2)).is_some() && net.up(0) == 1);
    }
}
