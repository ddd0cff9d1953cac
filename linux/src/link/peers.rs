//! Who is there: the hosts of the system, and the contact that this one has with each.
//!
//! ```text
//!            greeting done (greet)               another life, of which the last is dead
//!   Down ─────────────────────────► Up ──────────────────────────────────────────┐
//!     ▲                             │ ▲                                          │
//!     └── 4 s without a word, or ───┘ └──────────────────────────────────────────┘
//!         not a member any more
//! ```
//!
//! A contact is one session with one life of a peer's daemon: it ends with either, so both sides agree which packets
//! belong together, and a daemon that has started anew is never taken for its earlier life. A peer that does not hear us
//! is not up although we hear it: each says how long ago it heard the other.
//!
//! No I/O: told the time and what arrives; says what to send and what has changed.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use amoeba_cap::SystemSecret;
use amoeba_kernel::Location;
use amoeba_seal::{
    Gate, Handshake, Identity, Knock, Lead, Psk, PublicKey, Suites, Tag, Unopened, receiver_of,
};
use amoeba_threads::Instant;
use amoeba_world::{Clock, Entropy, random};

use super::admission::Row;
use super::contact::Contact;
use super::turned::TurnedAway;

/// Hosts of a system besides this one; past it the rest of the list is not used.
pub const PEERS_MAX: usize = 256;
/// Time between two words to every peer.
pub(crate) const HELLO_INTERVAL: Duration = Duration::from_secs(1);
/// How long a contact is watched before another life takes its place that comes from elsewhere: if it is heard in this
/// time, there are two hosts with one identity. Longer than [`HELLO_INTERVAL`].
pub(crate) const TRIAL: Duration = Duration::from_millis(1500);
/// What was sent before a host died may still arrive for so long.
pub(crate) const TRIAL_GRACE: Duration = Duration::from_millis(150);
/// A copied identity is told for so long after it was last seen.
pub(crate) const COPY_LIFE: Duration = Duration::from_secs(60);
/// Addresses of one host that are tried.
pub(super) const ADDRESSES_MAX: usize = 16;
/// The lower bits of a number that say where in the table it is.
const NUMBER_BITS: u32 = 11;

/// One host of the system.
pub(crate) struct Peer {
    pub(crate) member: Row,
    pub(super) tag: Tag,
    pub(super) lead: Lead,
    pub(crate) contact: Option<Contact>,
    /// A session that the peer began and has not used yet, or whose place is still taken.
    pub(super) fresh: Option<Contact>,
    pub(super) asking: Option<Asking>,
    pub(super) trial: Option<Trial>,
    pub(super) copied: Option<Copied>,
    /// When it was last heard in a contact that is over.
    pub(crate) last_heard: Option<Instant>,
    pub(crate) packets_in: u64,
    pub(crate) packets_out: u64,
}

/// A greeting that we have begun.
pub(super) struct Asking {
    pub(super) number: u32,
    /// Our CALL that waits for its ANSWER, since when, and where it went.
    pub(super) call: Option<(Handshake, Instant, SocketAddr)>,
}

/// Another life of a peer wants the place of the one that is there.
pub(super) struct Trial {
    pub(super) since: Instant,
    /// Where it is.
    pub(super) from: SocketAddr,
}

/// Two hosts have the identity of this peer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Copied {
    /// The one that was there first, and is still talked to.
    pub(crate) kept: SocketAddr,
    /// The other.
    pub(crate) other: SocketAddr,
    pub(super) seen: Instant,
}

/// What has changed, and what is to be sent.
#[derive(Default)]
pub(crate) struct Changes {
    pub(crate) events: Vec<Change>,
    pub(crate) datagrams: Vec<(SocketAddr, Vec<u8>)>,
}

/// See [`Changes`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// The contact at this location is over.
    Lost(Location),
    /// A contact with the peer at this place of the table has begun.
    Up(u16),
    /// It is time to say HELLO to everybody who is up.
    Round,
}

/// A datagram that was opened.
pub(crate) struct Arrived<'a> {
    /// Whose it is: its place in the table.
    pub(crate) slot: u16,
    pub(crate) content: &'a [u8],
}

/// What the peers of a link are made with.
pub(crate) struct PeersConfig {
    pub(crate) identity: Identity,
    pub(crate) secret: SystemSecret,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) suites: Suites,
    /// Bytes of BULKs that this host takes at once.
    pub(crate) window: usize,
}

/// All peers.
pub(crate) struct Peers {
    pub(super) config: PeersConfig,
    pub(super) psk: Psk,
    pub(super) gate: Gate,
    pub(super) life: u64,
    pub(super) stamp: u64,
    slots: Vec<Option<Peer>>,
    pub(super) by_key: BTreeMap<PublicKey, u16>,
    pub(super) by_tag: BTreeMap<Tag, u16>,
    /// What the numbers that we gave out belong to: the whole number, and the place of the peer.
    numbers: Vec<Option<(u32, u16)>>,
    contacts: u32,
    next_round: Instant,
    /// The earliest time at which something may be due; never later than that.
    due: Instant,
    /// Our own, in knocks.
    pub(super) own_tag: Tag,
    /// Who said, and when, that this host is not on its list, since the last contact began.
    pub(crate) removed: Option<(Instant, SocketAddr)>,
    /// Where somebody has this host's own identity, and when that was seen.
    pub(super) doubled: Option<(Instant, SocketAddr)>,
    pub(crate) counters: Counters,
    pub(crate) turned_away: TurnedAway,
}

/// What was refused so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counters {
    /// Datagrams of sessions that are not there.
    pub(crate) strange: u64,
    /// Sealed datagrams that the peer did not seal.
    pub(crate) forged: u64,
    /// Sealed datagrams that were here already.
    pub(crate) replayed: u64,
    /// Greetings without the right MAC, or that make no sense.
    pub(crate) refused: u64,
    /// Greetings that were asked for a cookie.
    pub(crate) challenged: u64,
    /// Handshakes computed.
    pub(crate) handshakes: u64,
    /// Handshakes not computed: copies, or too many at once.
    pub(crate) overflowed: u64,
}

impl Peers {
    pub(crate) fn new(now: Instant, config: PeersConfig) -> Peers {
        let gate = Gate::of_system(now, &config.secret, &*config.entropy);
        Peers {
            psk: Psk::of_system(&config.secret),
            gate,
            life: u64::from_le_bytes(random(&*config.entropy)),
            stamp: 0,
            slots: Vec::new(),
            by_key: BTreeMap::new(),
            by_tag: BTreeMap::new(),
            numbers: vec![None; 1 << NUMBER_BITS],
            contacts: 0,
            next_round: now,
            due: now,
            own_tag: Knock::tag_of(&config.secret, &config.identity.public()),
            removed: None,
            doubled: None,
            counters: Counters::default(),
            turned_away: TurnedAway::default(),
            config,
        }
    }

    /// The hosts of the system are these; this one may be among them. One that is not on the list any more loses its
    /// contact at once.
    pub(crate) fn set_members(&mut self, now: Instant, members: &[Row], changes: &mut Changes) {
        let own = self.config.identity.public();
        let others = || members.iter().filter(|member| member.key != own).take(PEERS_MAX);
        let gone: Vec<u16> = self
            .by_key
            .iter()
            .filter(|(key, _)| others().all(|member| member.key != **key))
            .map(|(_, slot)| *slot)
            .collect();
        for slot in gone {
            self.forget(slot, changes);
        }
        for member in others() {
            let known = self.by_key.get(&member.key).copied();
            if known.and_then(|slot| self.peer(slot)).is_some_and(|peer| peer.member == *member) {
                continue;
            }
            match known {
                Some(slot) => self.peer_mut(slot).member = member.clone(),
                None => self.insert(member.clone()),
            }
            // Who is new, or somewhere else, is greeted at once.
            (self.due, self.next_round) = (now, now);
        }
    }

    fn insert(&mut self, member: Row) {
        let slot = self.slots.iter().position(Option::is_none).unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        let tag = Knock::tag_of(&self.config.secret, &member.key);
        let place = u16::try_from(slot).expect("there are at most PEERS_MAX peers");
        self.by_key.insert(member.key, place);
        self.by_tag.insert(tag, place);
        self.slots[slot] = Some(Peer {
            tag,
            lead: Lead::between(&self.config.identity.public(), &member.key),
            member,
            contact: None,
            fresh: None,
            asking: None,
            trial: None,
            copied: None,
            last_heard: None,
            packets_in: 0,
            packets_out: 0,
        });
    }

    fn forget(&mut self, slot: u16, changes: &mut Changes) {
        let peer = self.slots[usize::from(slot)].take().expect("the tables name peers that are there");
        tracing::warn!(host = peer.member.name, "a host is no longer a member");
        self.by_key.remove(&peer.member.key);
        self.by_tag.remove(&peer.tag);
        for contact in [&peer.contact, &peer.fresh].into_iter().flatten() {
            self.release(contact.number);
        }
        if let Some(asking) = &peer.asking {
            self.release(asking.number);
        }
        changes.events.extend(peer.contact.map(|contact| Change::Lost(contact.location)));
    }

    /// The peer at this place, which holds one.
    pub(super) fn peer_mut(&mut self, slot: u16) -> &mut Peer {
        self.slots[usize::from(slot)].as_mut().expect("the tables name peers that are there")
    }

    /// Where somebody has this host's own identity, while that is news.
    pub(crate) fn doubled(&self, now: Instant) -> Option<SocketAddr> {
        self.doubled.filter(|(seen, _)| now.since(*seen) < COPY_LIFE).map(|(_, from)| from)
    }

    /// The peer at this place, if there is one.
    pub(crate) fn peer_if(&mut self, slot: u16) -> Option<&mut Peer> {
        self.slots.get_mut(usize::from(slot))?.as_mut()
    }

    /// The peer at this place.
    pub(crate) fn peer(&self, slot: u16) -> Option<&Peer> {
        self.slots.get(usize::from(slot))?.as_ref()
    }

    /// The peer that the FLIP box sees at this location.
    pub(crate) fn at(&self, location: &Location) -> Option<u16> {
        let (slot, _) = places(location)?;
        let contact = self.peer(slot)?.contact.as_ref()?;
        (contact.location == *location).then_some(slot)
    }

    /// The contact with the peer at this place.
    pub(crate) fn contact(&mut self, slot: u16) -> Option<&mut Contact> {
        self.slots.get_mut(usize::from(slot))?.as_mut()?.contact.as_mut()
    }

    /// The same, if it has this number.
    pub(crate) fn contact_of(&mut self, slot: u16, number: u32) -> Option<&mut Contact> {
        self.contact(slot).filter(|contact| contact.number == number)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u16, &Peer)> {
        self.slots.iter().enumerate().filter_map(|(slot, peer)| Some((slot as u16, peer.as_ref()?)))
    }

    /// Opens a sealed datagram.
    pub(crate) fn open<'a>(
        &mut self,
        now: Instant,
        from: SocketAddr,
        datagram: &'a mut [u8],
        changes: &mut Changes,
    ) -> Option<Arrived<'a>> {
        let number = receiver_of(datagram);
        let Some((number, slot)) = number.and_then(|number| Some((number, self.owner(number)?))) else {
            self.counters.strange += 1;
            return None;
        };
        let peer = self.slots[usize::from(slot)].as_mut().expect("the tables name peers that are there");
        let is_fresh = peer.fresh.as_ref().is_some_and(|fresh| fresh.number == number);
        let contact = if is_fresh { &mut peer.fresh } else { &mut peer.contact };
        let Some(contact) = contact.as_mut().filter(|contact| contact.number == number) else {
            self.counters.strange += 1;
            return None;
        };
        let content = match contact.session.open(now, datagram) {
            Ok(opened) => {
                contact.heard(now, from, opened.newest);
                opened.content
            }
            Err(Unopened::Replayed) => {
                self.counters.replayed += 1;
                return None;
            }
            Err(_) => {
                self.counters.forged += 1;
                return None;
            }
        };
        if is_fresh && !self.confirm(now, slot, changes) {
            return None;
        }
        Some(Arrived { slot, content })
    }

    /// Time has passed.
    pub(crate) fn handle_timeout(&mut self, now: Instant, changes: &mut Changes) {
        if now < self.due {
            return;
        }
        for slot in 0..self.slots.len() as u16 {
            self.end_silent(now, slot, changes);
            self.end_trial(now, slot, changes);
        }
        if self.next_round <= now {
            self.next_round = now + HELLO_INTERVAL;
            changes.events.push(Change::Round);
            for slot in 0..self.slots.len() as u16 {
                if self.peer(slot).is_some_and(|peer| peer.contact.is_none()) {
                    self.ask(now, slot, None, changes);
                }
            }
        }
        self.due = self.next_due();
    }

    fn next_due(&self) -> Instant {
        let peers = self.slots.iter().flatten();
        let times = peers.flat_map(|peer| {
            let trial = peer.trial.as_ref().map(|trial| trial.since + TRIAL);
            [peer.contact.as_ref().map(Contact::lost_at), trial]
        });
        times.flatten().chain([self.next_round]).min().expect("the next round is always there")
    }

    /// Something is due earlier than was thought.
    pub(super) fn hurry(&mut self, at: Instant) {
        self.due = self.due.min(at);
    }

    /// When [`Peers::handle_timeout`] is to be called next.
    pub(crate) fn poll_timeout(&self) -> Instant {
        self.due
    }

    fn end_silent(&mut self, now: Instant, slot: u16, changes: &mut Changes) {
        let Some(peer) = self.slots[usize::from(slot)].as_mut() else { return };
        let Some(contact) = peer.contact.take_if(|contact| contact.lost_at() <= now) else { return };
        tracing::warn!(host = peer.member.name, address = %contact.address, "a host is down");
        peer.last_heard = Some(contact.heard);
        self.release(contact.number);
        changes.events.push(Change::Lost(contact.location));
        self.promote(now, slot, changes);
    }

    /// The fresh session takes the place of the contact, if there is one that was used.
    pub(super) fn promote(&mut self, now: Instant, slot: u16, changes: &mut Changes) {
        let peer = self.peer_mut(slot);
        peer.trial = None;
        let Some(fresh) = peer.fresh.take() else { return };
        if !fresh.is_used() {
            peer.fresh = Some(fresh);
            return;
        }
        self.establish(now, slot, fresh, changes);
    }

    /// A contact begins, and the last one with this peer ends.
    pub(super) fn establish(&mut self, now: Instant, slot: u16, contact: Contact, changes: &mut Changes) {
        let peer = self.peer_mut(slot);
        tracing::info!(host = peer.member.name, address = %contact.address, "a host is up");
        let last = peer.contact.replace(contact);
        let asking = peer.asking.take();
        if let Some(last) = last {
            changes.events.push(Change::Lost(last.location));
            self.release(last.number);
        }
        if let Some(asking) = asking {
            self.release(asking.number);
        }
        self.removed = None;
        changes.events.push(Change::Up(slot));
        self.hurry(now);
    }

    /// A location for a new contact: no other contact of this daemon ever has it.
    pub(super) fn new_location(&mut self, slot: u16) -> Location {
        self.contacts += 1;
        let mut name = [0; 6];
        name[..2].copy_from_slice(&slot.to_le_bytes());
        name[2..].copy_from_slice(&self.contacts.to_le_bytes());
        Location::new(&name)
    }

    /// A number that nobody can guess by which what arrives is known to belong to this peer. There is always a free
    /// place: a peer has at most three numbers.
    pub(super) fn new_number(&mut self, slot: u16) -> u32 {
        loop {
            let number = u32::from_le_bytes(random(&*self.config.entropy));
            let entry = &mut self.numbers[place(number)];
            if entry.is_none() {
                *entry = Some((number, slot));
                return number;
            }
        }
    }

    pub(super) fn release(&mut self, number: u32) {
        self.numbers[place(number)].take_if(|(entry, _)| *entry == number);
    }

    /// Whose number this is.
    pub(super) fn owner(&self, number: u32) -> Option<u16> {
        self.numbers[place(number)].filter(|(entry, _)| *entry == number).map(|(_, slot)| slot)
    }

    /// A stamp larger than all before it; the time of day makes it larger than those of earlier lives. Should the clock
    /// have been set back, the peers believe it once they have lost the earlier life.
    pub(super) fn new_stamp(&mut self) -> u64 {
        let time = u64::try_from(self.config.clock.unix_time().as_nanos()).unwrap_or(u64::MAX - 1);
        self.stamp = time.max(self.stamp + 1);
        self.stamp
    }
}

impl Peer {
    /// Whether the list says that it is there, or it was heard from there.
    pub(super) fn is_expected_at(&self, ip: IpAddr) -> bool {
        let listed = self.member.addresses.iter().any(|address| address.ip() == ip);
        listed || self.contact.as_ref().is_some_and(|contact| contact.address.ip() == ip)
    }

    /// Whether the one at this address is known to have a copied identity, while the other is still there.
    pub(super) fn is_known_copy(&mut self, now: Instant, from: SocketAddr) -> bool {
        let there = self.contact.is_some();
        let copied =
            self.copied.as_mut().filter(|copied| copied.other == from && now.since(copied.seen) < COPY_LIFE);
        match copied.filter(|_| there) {
            Some(copied) => {
                copied.seen = now;
                true
            }
            None => false,
        }
    }

    /// Who else has this host's identity, while that is news.
    pub(crate) fn copied(&self, now: Instant) -> Option<Copied> {
        self.copied.filter(|copied| now.since(copied.seen) < COPY_LIFE)
    }
}

fn place(number: u32) -> usize {
    number as usize & ((1 << NUMBER_BITS) - 1)
}

/// The place in the table of peers that a location tells, and its contact.
fn places(location: &Location) -> Option<(u16, u32)> {
    let (slot, contact) = location.as_bytes().split_first_chunk::<2>()?;
    Some((u16::from_le_bytes(*slot), u32::from_le_bytes(*contact.first_chunk()?)))
}
