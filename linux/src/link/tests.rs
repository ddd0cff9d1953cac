//! Hosts that greet each other in virtual time, over a network that does as it is told.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use amoeba_cap::SystemSecret;
use amoeba_kernel::Location;
use amoeba_seal::{
    CALL_KIND, Call, Challenge, Gate, Identity, KNOCK_KIND, Knock, Lead, NO_COOKIE, SEALED_KIND, Suites,
};
use amoeba_threads::Instant;
use amoeba_world::{Clock, Entropy};

use super::admission::Row;
use super::content::Content;
use super::peers::{Change, Changes, Peers, PeersConfig};

/// A clock that counts how often it was asked, and randomness that follows from a seed.
struct Fake(AtomicU64);

impl Clock for Fake {
    fn unix_time(&self) -> Duration {
        Duration::from_nanos(self.0.fetch_add(1, Ordering::SeqCst))
    }
}

impl Entropy for Fake {
    fn fill(&self, bytes: &mut [u8]) {
        let mut state = self.0.fetch_add(1, Ordering::SeqCst).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        for byte in bytes {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            *byte = (state >> 56) as u8;
        }
    }
}

fn at(millis: u64) -> Instant {
    Instant::from_epoch(Duration::from_millis(millis))
}

fn address(place: usize) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, place as u8 + 1], 5321))
}

fn identity(host: usize) -> Identity {
    Identity::from_bytes([host as u8 + 1; 32])
}

fn secret(system: u8) -> SystemSecret {
    SystemSecret::from_bytes([system; 32])
}

fn row(host: usize) -> Row {
    Row { name: format!("host{host}"), key: identity(host).public(), addresses: vec![address(host)] }
}

/// A daemon with the identity of `host`; `seed` is larger in a later life.
fn daemon(host: usize, seed: u64, system: u8) -> Peers {
    let fake = Arc::new(Fake(AtomicU64::new(seed)));
    let config = PeersConfig {
        identity: identity(host),
        secret: secret(system),
        entropy: fake.clone(),
        clock: fake,
        suites: Suites::AES,
        window: 1 << 20,
    };
    Peers::new(at(0), config)
}

/// Who may be reached, by sender and receiver.
type Carries<'a> = &'a dyn Fn(usize, usize) -> bool;

/// Daemons by their places, which are addresses, and what is between them.
struct Net {
    now: u64,
    daemons: BTreeMap<usize, Peers>,
    under_way: Vec<(usize, usize, Vec<u8>)>,
    lost: Vec<(usize, Location)>,
    /// Everything that was ever sent.
    record: Vec<(usize, usize, Vec<u8>)>,
}

impl Net {
    /// Hosts that all know each other.
    fn new(count: usize) -> Net {
        let mut net = Net {
            now: 0,
            daemons: BTreeMap::new(),
            under_way: Vec::new(),
            lost: Vec::new(),
            record: Vec::new(),
        };
        for host in 0..count {
            net.start(host, daemon(host, 1000 * (host as u64 + 1), 5));
        }
        let rows: Vec<Row> = (0..count).map(row).collect();
        (0..count).for_each(|host| net.tell(host, &rows));
        net
    }

    fn start(&mut self, place: usize, daemon: Peers) {
        self.daemons.insert(place, daemon);
    }

    fn tell(&mut self, place: usize, rows: &[Row]) {
        let mut changes = Changes::default();
        self.daemons.get_mut(&place).unwrap().set_members(at(self.now), rows, &mut changes);
        self.carry_out(place, changes);
    }

    /// Lets time pass.
    fn run(&mut self, millis: u64, carries: Carries<'_>) {
        let end = self.now + millis;
        while self.now < end {
            for place in self.daemons.keys().copied().collect::<Vec<_>>() {
                let mut changes = Changes::default();
                self.daemons.get_mut(&place).unwrap().handle_timeout(at(self.now), &mut changes);
                self.carry_out(place, changes);
            }
            for (from, to, datagram) in std::mem::take(&mut self.under_way) {
                if carries(from, to) {
                    self.deliver(from, to, datagram);
                }
            }
            self.now += 10;
        }
    }

    fn deliver(&mut self, from: usize, to: usize, mut datagram: Vec<u8>) {
        let now = at(self.now);
        let Some(daemon) = self.daemons.get_mut(&to) else { return };
        let mut changes = Changes::default();
        if datagram.first() == Some(&SEALED_KIND) {
            let arrived = daemon.open(now, address(from), &mut datagram, &mut changes);
            let hello = arrived.map(|arrived| (arrived.slot, Content::parse(arrived.content)));
            self.carry_out(to, changes);
            if let Some((slot, Ok(Content::Hello(hello)))) = hello {
                self.daemons.get_mut(&to).unwrap().contact(slot).unwrap().handle_hello(now, &hello);
            }
        } else {
            daemon.handle_greeting(now, address(from), &datagram, &mut changes);
            self.carry_out(to, changes);
        }
    }

    fn carry_out(&mut self, place: usize, changes: Changes) {
        for (to, datagram) in changes.datagrams {
            self.send(place, to, datagram);
        }
        for change in changes.events {
            match change {
                Change::Lost(location) => self.lost.push((place, location)),
                Change::Up(slot) => self.hello(place, slot),
                Change::Round => {
                    let slots: Vec<u16> = self.daemons[&place].iter().map(|(slot, _)| slot).collect();
                    slots.into_iter().for_each(|slot| self.hello(place, slot));
                }
            }
        }
    }

    fn send(&mut self, place: usize, to: SocketAddr, datagram: Vec<u8>) {
        let SocketAddr::V4(to) = to else { unreachable!("all addresses are IPv4") };
        let to = usize::from(to.ip().octets()[3]) - 1;
        self.record.push((place, to, datagram.clone()));
        self.under_way.push((place, to, datagram));
    }

    fn hello(&mut self, place: usize, slot: u16) {
        let now = at(self.now);
        let Some(contact) = self.daemons.get_mut(&place).unwrap().contact(slot) else { return };
        let (hello, to, mut datagram) = (contact.hello(now).emit(), contact.address, Vec::new());
        contact.session.seal(now, &[&hello], &mut datagram).unwrap();
        self.send(place, to, datagram);
    }

    fn up(&self, place: usize) -> usize {
        self.daemons[&place].iter().filter(|(_, peer)| peer.contact.is_some()).count()
    }

    /// Where a daemon sees another's host, if it is up.
    fn sees(&self, place: usize, host: usize) -> Option<(Location, SocketAddr)> {
        let peer =
            self.daemons[&place].iter().find(|(_, peer)| peer.member.key == identity(host).public())?.1;
        peer.contact.as_ref().map(|contact| (contact.location, contact.address))
    }

    fn handshakes(&self, place: usize) -> u64 {
        self.daemons[&place].counters.handshakes
    }
}

fn everybody(_: usize, _: usize) -> bool {
    true
}

#[test]
fn everybody_meets_everybody_once() {
    let mut net = Net::new(5);
    net.run(1500, &everybody);
    for host in 0..5 {
        assert_eq!(net.up(host), 4, "host {host}");
        assert_eq!(net.handshakes(host), 4, "one handshake with each");
    }
    net.run(300_000, &everybody);
    assert!(net.lost.is_empty(), "keys roll and nobody is lost: {:?}", net.lost);
    assert!((0..5).all(|host| net.handshakes(host) == 4));
}

#[test]
fn nothing_is_computed_for_a_host_that_is_not_there() {
    let mut net = Net::new(3);
    net.daemons.remove(&1);
    net.run(20_000, &everybody);
    assert_eq!((net.up(0), net.handshakes(0), net.handshakes(2)), (1, 1, 1));
}

#[test]
fn silence_is_noticed_within_five_seconds_and_the_return_at_once() {
    let mut net = Net::new(2);
    net.run(2000, &everybody);
    net.run(5100, &|_, _| false);
    assert_eq!((net.lost.len(), net.up(0), net.up(1)), (2, 0, 0));
    net.run(1200, &everybody);
    assert_eq!((net.up(0), net.up(1)), (1, 1));
}

#[test]
fn a_peer_that_does_not_hear_us_is_not_up() {
    for deaf in [0, 1] {
        let mut net = Net::new(2);
        net.run(2000, &everybody);
        net.run(6000, &|_, to| to != deaf);
        assert_eq!((net.up(0), net.up(1)), (0, 0), "{deaf} hears nothing, and the other knows it");
        net.run(1200, &everybody);
        assert_eq!((net.up(0), net.up(1)), (1, 1));
    }
}

#[test]
fn a_new_life_at_the_same_address_is_a_death_and_a_return_at_once() {
    for restarted in [0, 1] {
        let mut net = Net::new(2);
        net.run(2000, &everybody);
        let before = net.sees(1 - restarted, restarted).unwrap();
        net.start(restarted, daemon(restarted, 50_000, 5));
        net.tell(restarted, &[row(0), row(1)]);
        net.run(200, &everybody);
        let after = net.sees(1 - restarted, restarted).unwrap();
        assert_eq!(net.lost, [(1 - restarted, before.0)]);
        assert_ne!(before.0, after.0, "a location is never given twice");
        assert_eq!(net.up(restarted), 1);
    }
}

#[test]
fn a_clock_that_was_set_back_is_believed_when_the_earlier_life_is_lost() {
    for restarted in [0, 1] {
        let mut net = Net::new(2);
        net.run(2000, &everybody);
        net.start(restarted, daemon(restarted, 3, 5));
        net.tell(restarted, &[row(0), row(1)]);
        net.run(6500, &everybody);
        assert_eq!((net.up(0), net.up(1)), (1, 1), "{restarted}");
    }
}

#[test]
fn a_host_that_moved_is_found_where_it_is() {
    for moved in [0, 1] {
        let mut net = Net::new(2);
        net.run(2000, &everybody);
        let daemon = net.daemons.remove(&moved).unwrap();
        net.start(7, daemon); // the same life at another address: nobody is lost
        net.run(2000, &everybody);
        assert_eq!(net.sees(1 - moved, moved).unwrap().1, address(7), "{moved}");
        assert!(net.lost.is_empty());
    }
}

#[test]
fn a_new_life_at_another_address_takes_the_place_of_a_dead_one() {
    for moved in [0, 1] {
        let mut net = Net::new(2);
        net.run(2000, &everybody);
        net.daemons.remove(&moved);
        net.start(7, daemon(moved, 50_000, 5));
        net.tell(7, &[row(0), row(1)]);
        net.run(3000, &everybody);
        assert_eq!(net.sees(1 - moved, moved).unwrap().1, address(7), "{moved}");
        assert!(net.daemons[&(1 - moved)].iter().all(|(_, peer)| peer.copied(at(net.now)).is_none()));
    }
}

#[test]
fn two_hosts_with_one_identity_are_named_and_the_first_stays() {
    for copied in [0, 1] {
        let mut net = Net::new(2);
        net.run(2000, &everybody);
        net.start(7, daemon(copied, 50_000, 5));
        net.tell(7, &[row(0), row(1)]);
        net.run(30_000, &everybody);
        let witness = &net.daemons[&(1 - copied)];
        let (_, peer) = witness.iter().next().unwrap();
        let told = peer.copied(at(net.now)).expect("two answer for one identity");
        assert_eq!((told.kept, told.other), (address(copied), address(7)));
        assert_eq!(net.sees(1 - copied, copied).unwrap().1, address(copied));
        assert!(net.lost.iter().all(|(place, _)| *place == 7), "only the copy is sent away: {:?}", net.lost);
        // When the first ends, the other may come.
        net.daemons.remove(&copied);
        net.run(8000, &everybody);
        assert_eq!(net.sees(1 - copied, copied).unwrap().1, address(7));
    }
}

#[test]
fn a_host_that_is_removed_loses_its_session_at_once_and_hears_why() {
    let mut net = Net::new(3);
    net.run(2000, &everybody);
    for place in [0, 1] {
        net.tell(place, &[row(0), row(1)]);
        assert_eq!(net.up(place), 1);
    }
    assert_eq!(net.lost.len(), 2);
    net.run(20_000, &everybody);
    assert_eq!((net.up(0), net.up(1), net.up(2)), (1, 1, 0));
    assert!(net.daemons[&2].removed.is_some(), "it is told");
    assert!(net.daemons[&0].removed.is_none());
}

#[test]
fn a_removed_host_that_knocks_for_another_keeps_nobody_apart() {
    let mut net = Net::new(2);
    let knocks = match Lead::between(&identity(0).public(), &identity(1).public()) {
        Lead::Calls => 1,
        Lead::Knocks => 0,
    };
    let (calls, mallory) = (1 - knocks, 9);
    let gate = Gate::of_system(at(0), &secret(5), &Fake(AtomicU64::new(99)));
    let tag = Knock::tag_of(&secret(5), &identity(knocks).public());
    let (mut cookie, mut asker, mut seen) = (NO_COOKIE, None, 0);
    for step in 0..800u64 {
        for (from, to, datagram) in net.record.split_off(seen) {
            if (from, to) == (calls, mallory) {
                cookie = Challenge::parse(&gate, &datagram).map_or(cookie, |challenge| challenge.cookie);
                asker = Call::parse(&gate, &datagram).ok().map(|call| call.caller).or(asker);
            }
        }
        seen = net.record.len();
        // As often as one source may, and a cookie for whatever asks for one.
        let knock = (step % 7 == 0)
            .then(|| Knock { asker: 1, tag, life: 7, stamp: 1 << 60 | step, cookie }.emit(&gate));
        let answer = asker.map(|asker| Challenge { asker, cookie: [3; 16] }.emit(&gate));
        let told = knock.into_iter().chain(answer).map(|datagram| (mallory, calls, datagram));
        net.under_way.splice(0..0, told);
        // For three seconds the other is away, then it is back.
        net.run(10, &|from, to| step > 300 || from != knocks && to != knocks);
    }
    assert!(asker.is_some() && cookie != NO_COOKIE, "mallory was heard");
    assert_eq!((net.up(calls), net.up(knocks)), (1, 1));
    assert!(net.handshakes(calls) < 30, "and costs little: {}", net.handshakes(calls));
}

#[test]
fn another_system_and_a_stranger_hear_nothing() {
    let mut net = Net::new(2);
    net.start(1, daemon(1, 5000, 6));
    net.tell(1, &[row(0), row(1)]);
    net.start(7, daemon(9, 6000, 7));
    net.tell(7, &[row(0), row(1)]);
    net.run(5000, &everybody);
    assert_eq!((net.up(0), net.up(1), net.up(7)), (0, 0, 0));
    assert_eq!((net.handshakes(0), net.handshakes(1)), (0, 0), "garbage costs no Diffie-Hellman");
    assert!(
        net.record.iter().all(|(from, to, _)| *from != 0 || *to == 1),
        "who is no member is not answered"
    );
    let asks = |datagram: &[u8]| [CALL_KIND, KNOCK_KIND].contains(&datagram[0]);
    assert!(net.record.iter().all(|(_, _, datagram)| asks(datagram)));
}

#[test]
fn everything_that_was_ever_sent_again_changes_nothing() {
    let mut net = Net::new(3);
    net.run(10_000, &everybody);
    let before: Vec<_> = (0..3).map(|host| net.sees(host, (host + 1) % 3)).collect();
    let (record, handshakes) =
        (net.record.clone(), net.handshakes(0) + net.handshakes(1) + net.handshakes(2));
    for _ in 0..3 {
        for (from, to, datagram) in record.clone() {
            net.deliver(from, to, datagram.clone()); // from where it came,
            net.deliver(7, to, datagram); // and from elsewhere
        }
        net.under_way.clear();
    }
    net.run(3000, &everybody);
    assert_eq!(before, (0..3).map(|host| net.sees(host, (host + 1) % 3)).collect::<Vec<_>>());
    assert!(net.lost.is_empty());
    assert_eq!(
        net.handshakes(0) + net.handshakes(1) + net.handshakes(2),
        handshakes,
        "copies are known as such"
    );
}

#[test]
fn a_network_that_loses_and_doubles_only_delays() {
    let mut state = 7u64;
    let mut net = Net::new(4);
    let fate = std::cell::RefCell::new(&mut state);
    net.run(30_000, &|_, _| {
        let mut state = fate.borrow_mut();
        **state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        !(**state >> 33).is_multiple_of(4)
    });
    assert!((0..4).all(|host| net.up(host) == 3));
}

#[test]
fn the_table_is_bounded_and_whoever_stays_keeps_its_contact() {
    let mut net = Net::new(2);
    net.run(2000, &everybody);
    let before = net.sees(0, 1);
    let mut rows = vec![row(0), row(1)];
    rows.extend((2..1000usize).map(|number| {
        let mut key = [0; 32];
        key[1..9].copy_from_slice(&number.to_le_bytes()); // the curve does not look at all bits of the first
        Row { name: number.to_string(), key: Identity::from_bytes(key).public(), addresses: vec![address(9)] }
    }));
    net.tell(0, &rows);
    assert_eq!(net.daemons[&0].iter().count(), super::PEERS_MAX);
    net.run(5000, &everybody);
    net.tell(0, &[row(0), row(1)]);
    assert_eq!((net.daemons[&0].iter().count(), net.sees(0, 1)), (1, before));
}

#[test]
fn who_calls_is_known_to_both() {
    for (one, other) in [(0, 1), (1, 0), (2, 5)] {
        let (one, other) = (identity(one).public(), identity(other).public());
        assert_ne!(Lead::between(&one, &other), Lead::between(&other, &one));
    }
}

#[test]
fn no_bytes_disturb_a_contact() {
    let mut net = Net::new(2);
    net.run(2000, &everybody);
    let honest =
        net.record.iter().rev().find(|(_, to, datagram)| *to == 0 && datagram[0] == SEALED_KIND).unwrap();
    let honest = honest.2.clone();
    let net = std::sync::Mutex::new(net);
    bolero::check!().for_each(|bytes: &[u8]| {
        let mut net = net.lock().unwrap();
        for kind in [CALL_KIND, CALL_KIND + 1, CALL_KIND + 2, KNOCK_KIND, KNOCK_KIND + 1, SEALED_KIND] {
            net.deliver(1, 0, [&[kind, 0, 0, 0][..], bytes].concat());
        }
        // Sealed datagrams with a head that is right, and what an enemy makes of the rest.
        let mut forged = honest.clone();
        forged[8..].iter_mut().zip(bytes).for_each(|(byte, change)| *byte ^= change);
        net.deliver(1, 0, forged);
        assert!(net.under_way.is_empty() && net.up(0) == 1 && net.lost.is_empty());
    });
}
