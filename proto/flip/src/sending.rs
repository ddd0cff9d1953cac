//! What leaves in fragments: large messages of this host, cut only when a link takes them, and fragments of others that
//! pass through. They leave in turn, so that a small message never waits behind a large one, no destination waits for
//! another, and no fragment of ours lies copied in a queue.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::time::Duration;

use amoeba_threads::Instant;
use amoeba_wire::packet::{Address, FLIP_HEADER_SIZE, FlipHeader};

use crate::payload::{Packet, Payload};
use crate::{LinkId, Location, PACKET_LIFE_MAX, Transmit};

/// Bytes of messages that may wait to leave; past it a message is dropped, unless none waits.
pub(crate) const SENDING_SIZE_MAX: usize = 2 << 30;
/// Messages that may wait to leave for one location.
pub(crate) const SENDING_MAX: usize = 4096;
/// Messages to one location that take turns; the others wait, so that a receiver has few unfinished messages.
pub(crate) const TURNS_MAX: usize = 16;
/// A message that has not left after so long is dropped: whoever gets it later may have forgotten that it refused it.
pub(crate) const SENDING_LIFE: Duration = Duration::from_secs(120);
/// Bytes of fragments that wait to be passed on to one address; past it the newest is dropped.
pub const FORWARD_QUEUE_SIZE_MAX: usize = 1 << 20;
/// Bytes of fragments that wait to be passed on in all; past it the newest is dropped.
pub const FORWARD_SIZE_MAX: usize = 64 << 20;
/// What is not passed on within this time is dropped, so that packets do not outlive [`PACKET_LIFE_MAX`].
const FORWARD_LIFE: Duration = PACKET_LIFE_MAX.checked_div(4).expect("four is not zero");

/// A message, or a fragment of another host's message, that leaves in fragments.
pub(crate) struct Sending {
    /// The header of the whole: where in its message it begins, and how long that is.
    pub(crate) header: FlipHeader,
    pub(crate) payload: Payload,
    /// Bytes of the payload that have left.
    pub(crate) sent: usize,
    pub(crate) since: Instant,
}

/// What goes to one location.
#[derive(Default)]
struct Queue {
    own: VecDeque<Sending>,
    /// Fragments of others, by destination.
    forwards: BTreeMap<Address, Forwards>,
    /// The destination that had the last turn.
    turn: Option<Address>,
    /// Whether something of this host left last.
    own_last: bool,
}

#[derive(Default)]
struct Forwards {
    fragments: VecDeque<Sending>,
    size: usize,
}

/// Everything that leaves in fragments, by where it goes.
#[derive(Default)]
pub(crate) struct Outbox {
    queues: BTreeMap<(LinkId, Location), Queue>,
    /// The location that had the last turn.
    turn: Option<(LinkId, Location)>,
    own_size: usize,
    forward_size: usize,
}

impl Outbox {
    /// Bytes of the messages that have not left whole.
    pub(crate) fn size(&self) -> usize {
        self.own_size + self.forward_size
    }

    /// Takes in a message of this host; false when there is no room.
    pub(crate) fn push(&mut self, link: LinkId, location: &Location, message: Sending) -> bool {
        let size = message.payload.len();
        if self.own_size > 0 && self.own_size + size > SENDING_SIZE_MAX {
            return false;
        }
        let queue = self.queues.entry((link, *location)).or_default();
        if queue.own.len() >= SENDING_MAX {
            return false;
        }
        self.own_size += size;
        queue.own.push_back(message);
        true
    }

    /// Takes in a fragment of another host; false when there is no room.
    pub(crate) fn forward(&mut self, link: LinkId, location: &Location, fragment: Sending) -> bool {
        let size = fragment.payload.len();
        let queue = self.queues.get(&(link, *location));
        let waiting = queue.and_then(|queue| queue.forwards.get(&fragment.header.to));
        let full = waiting.is_some_and(|waiting| waiting.size + size > FORWARD_QUEUE_SIZE_MAX);
        if full || self.forward_size + size > FORWARD_SIZE_MAX {
            return false;
        }
        self.forward_size += size;
        let queue = self.queues.entry((link, *location)).or_default();
        let waiting = queue.forwards.entry(fragment.header.to).or_default();
        waiting.size += size;
        waiting.fragments.push_back(fragment);
        true
    }

    /// The next fragment for a location that takes packets of the size that `ready` says. What has waited for too long
    /// is dropped on the way.
    pub(crate) fn next(
        &mut self,
        now: Instant,
        mut ready: impl FnMut(LinkId, &Location) -> Option<usize>,
    ) -> Option<Transmit> {
        loop {
            let after = self.turn.map_or(Bound::Unbounded, Bound::Excluded);
            let places = self.queues.range((after, Bound::Unbounded)).chain(&self.queues);
            let mut places = places.map(|(place, _)| *place);
            let (place, size_max) =
                places.find_map(|place| ready(place.0, &place.1).map(|size_max| (place, size_max)))?;
            self.turn = Some(place);
            let queue = self.queues.get_mut(&place).expect("found just now");
            let (own, packet, freed) = queue.next(now, size_max);
            *(if own { &mut self.own_size } else { &mut self.forward_size }) -= freed;
            if queue.is_empty() {
                self.queues.remove(&place);
            }
            if let Some(packet) = packet {
                return Some(Transmit { link: place.0, to: Some(place.1), packet, bulk: true });
            }
        }
    }

    /// Whether a message of this host between these addresses that `matches` by its beginning has not left whole.
    pub(crate) fn has(&self, from: Address, to: Address, mut matches: impl FnMut(&[u8]) -> bool) -> bool {
        let mut messages = self.queues.values().flat_map(|queue| &queue.own);
        messages.any(|message| {
            message.header.from == from && message.header.to == to && matches(message.payload.head())
        })
    }

    /// Drops the messages of this host between these addresses that `matches` by their beginning.
    pub(crate) fn withdraw(&mut self, from: Address, to: Address, mut matches: impl FnMut(&[u8]) -> bool) {
        for queue in self.queues.values_mut() {
            queue.own.retain(|Sending { header, payload, .. }| {
                let withdrawn = header.from == from && header.to == to && matches(payload.head());
                self.own_size -= if withdrawn { payload.len() } else { 0 };
                !withdrawn
            });
        }
        self.queues.retain(|_, queue| !queue.is_empty());
    }

    /// Drops everything for a location; how many messages and fragments those were.
    pub(crate) fn forget(&mut self, link: LinkId, location: &Location) -> usize {
        let dropped = self.queues.remove(&(link, *location)).unwrap_or_default();
        self.own_size -= dropped.own.iter().map(|message| message.payload.len()).sum::<usize>();
        self.forward_size -= dropped.forwards.values().map(|waiting| waiting.size).sum::<usize>();
        let fragments: usize = dropped.forwards.values().map(|waiting| waiting.fragments.len()).sum();
        dropped.own.len() + fragments
    }
}

impl Queue {
    fn is_empty(&self) -> bool {
        self.own.is_empty() && self.forwards.is_empty()
    }

    /// Whether the turn was this host's, the next packet unless it came too late, and the bytes that no longer wait.
    fn next(&mut self, now: Instant, size_max: usize) -> (bool, Option<Packet>, usize) {
        self.own_last = !self.own.is_empty() && (self.forwards.is_empty() || !self.own_last);
        if self.own_last {
            let (packet, freed) = self.next_own(now, size_max);
            (true, packet, freed)
        } else {
            let (packet, freed) = self.next_forward(now, size_max);
            (false, packet, freed)
        }
    }

    fn next_own(&mut self, now: Instant, size_max: usize) -> (Option<Packet>, usize) {
        let mut message = self.own.pop_front().expect("it has something to send");
        let fresh = now.since(message.since) < SENDING_LIFE;
        let packet = fresh.then(|| message.fragment(size_max));
        if fresh && !message.is_sent() {
            self.own.insert(self.own.len().min(TURNS_MAX - 1), message);
            return (packet, 0);
        }
        (packet, message.payload.len())
    }

    fn next_forward(&mut self, now: Instant, size_max: usize) -> (Option<Packet>, usize) {
        let after = self.turn.map_or(Bound::Unbounded, Bound::Excluded);
        let mut destinations = self.forwards.range((after, Bound::Unbounded)).chain(&self.forwards);
        let to = destinations.next().map(|(to, _)| *to).expect("there is something to pass on");
        self.turn = Some(to);
        let waiting = self.forwards.get_mut(&to).expect("found just now");
        let fragment = waiting.fragments.front_mut().expect("no queue is empty");
        let packet = (now.since(fragment.since) < FORWARD_LIFE).then(|| fragment.fragment(size_max));
        if packet.is_some() && !fragment.is_sent() {
            return (packet, 0);
        }
        let size = fragment.payload.len();
        waiting.size -= size;
        waiting.fragments.pop_front();
        if waiting.fragments.is_empty() {
            self.forwards.remove(&to);
        }
        (packet, size)
    }
}

impl Sending {
    pub(crate) fn is_sent(&self) -> bool {
        self.sent >= self.payload.len()
    }

    /// The next fragment.
    pub(crate) fn fragment(&mut self, size_max: usize) -> Packet {
        let (packet, end) = self.part(self.sent, self.payload.len(), size_max);
        self.sent = end;
        packet
    }

    /// As much of a part as one packet carries, and where that ends.
    pub(crate) fn part(&self, start: usize, end: usize, size_max: usize) -> (Packet, usize) {
        let end = end.min(start + size_max - FLIP_HEADER_SIZE);
        let header = FlipHeader {
            length: (end - start) as u32,
            offset: self.header.offset + start as u32,
            ..self.header
        };
        (self.payload.packet(&header, start..end), end)
    }
}
