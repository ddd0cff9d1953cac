//! Large messages on their way out: cut into fragments only when a link takes them, in turn, so that a small message
//! never waits behind a large one and no fragment lies copied in a queue.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use amoeba_threads::Instant;
use amoeba_wire::packet::{Address, FLIP_HEADER_SIZE, FlipHeader};

use crate::{LinkId, Location, Transmit};

/// Bytes of messages that may wait to leave; past it a message is dropped, unless none waits.
pub(crate) const SENDING_SIZE_MAX: usize = 2 << 30;
/// Messages that may wait to leave for one location.
pub(crate) const SENDING_MAX: usize = 4096;
/// Messages to one location that take turns; the others wait, so that a receiver has few unfinished messages.
pub(crate) const TURNS_MAX: usize = 16;
/// A message that has not left after so long is dropped: whoever gets it later may have forgotten that it refused it.
pub(crate) const SENDING_LIFE: Duration = Duration::from_secs(120);

/// A message that leaves in fragments.
pub(crate) struct Sending {
    /// The header of every fragment, but for length and offset.
    pub(crate) header: FlipHeader,
    pub(crate) payload: Vec<u8>,
    /// Bytes of payload in a fragment.
    pub(crate) step: usize,
    /// Where the next fragment begins.
    pub(crate) offset: usize,
    pub(crate) since: Instant,
}

/// Messages by where they go.
#[derive(Default)]
pub(crate) struct Outbox {
    queues: BTreeMap<(LinkId, Location), VecDeque<Sending>>,
    size: usize,
}

impl Outbox {
    /// Takes in a message; false when there is no room.
    pub(crate) fn push(&mut self, link: LinkId, location: &Location, message: Sending) -> bool {
        let size = message.payload.len();
        if self.size > 0 && self.size + size > SENDING_SIZE_MAX {
            return false;
        }
        let queue = self.queues.entry((link, location.clone())).or_default();
        if queue.len() >= SENDING_MAX {
            return false;
        }
        self.size += size;
        queue.push_back(message);
        true
    }

    /// The next fragment for a location that is `ready`. Messages that have waited for too long are dropped on the way.
    pub(crate) fn next(
        &mut self,
        now: Instant,
        mut ready: impl FnMut(LinkId, &Location) -> bool,
    ) -> Option<Transmit> {
        loop {
            let mut queues = self.queues.iter_mut();
            let ((link, location), queue) = queues.find(|((link, location), _)| ready(*link, location))?;
            let (link, location) = (*link, location.clone());
            let mut message = queue.pop_front().expect("no queue is empty");
            let fresh = now.since(message.since) < SENDING_LIFE;
            let packet = fresh.then(|| message.fragment());
            if fresh && message.offset < message.payload.len() {
                queue.insert(queue.len().min(TURNS_MAX - 1), message);
            } else {
                self.size -= message.payload.len();
            }
            if queue.is_empty() {
                self.queues.remove(&(link, location.clone()));
            }
            if let Some(packet) = packet {
                return Some(Transmit { link, to: Some(location), packet, bulk: true });
            }
        }
    }

    /// Whether a message between these addresses that `matches` by its beginning has not left whole.
    pub(crate) fn has(&self, from: Address, to: Address, mut matches: impl FnMut(&[u8]) -> bool) -> bool {
        let mut messages = self.queues.values().flatten();
        messages.any(|message| {
            message.header.from == from && message.header.to == to && matches(&message.payload)
        })
    }

    /// Drops everything for a location; how many messages those were.
    pub(crate) fn forget(&mut self, link: LinkId, location: &Location) -> usize {
        let dropped = self.queues.remove(&(link, location.clone())).unwrap_or_default();
        self.size -= dropped.iter().map(|message| message.payload.len()).sum::<usize>();
        dropped.len()
    }
}

impl Sending {
    fn fragment(&mut self) -> Vec<u8> {
        let end = (self.offset + self.step).min(self.payload.len());
        let fragment = &self.payload[self.offset..end];
        let header = FlipHeader { length: fragment.len() as u32, offset: self.offset as u32, ..self.header };
        let mut packet = Vec::with_capacity(FLIP_HEADER_SIZE + fragment.len());
        packet.extend_from_slice(&header.to_bytes());
        packet.extend_from_slice(fragment);
        self.offset = end;
        packet
    }
}
