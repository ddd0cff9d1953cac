//! Which broadcasts were seen already: a packet that comes round twice is handled once.

use std::collections::{BTreeMap, VecDeque};

use amoeba_threads::Instant;
use amoeba_wire::packet::{Address, FlipHeader};

use crate::PACKET_LIFE_MAX;

/// Broadcasts remembered; past it the oldest is forgotten, and a copy of it may be handled again.
const SEEN_MAX: usize = 4096;

type Key = (Address, u32, u32);

#[derive(Default)]
pub(crate) struct Seen {
    keys: BTreeMap<Key, Instant>,
    order: VecDeque<Key>,
}

impl Seen {
    /// Remembers the packet; false when it was there.
    pub(crate) fn insert(&mut self, now: Instant, header: &FlipHeader) -> bool {
        let key = (header.from, header.message_id, header.offset);
        if self.keys.get(&key).is_some_and(|since| now.since(*since) <= PACKET_LIFE_MAX * 2) {
            return false;
        }
        if self.keys.insert(key, now).is_none() {
            self.order.push_back(key);
        }
        if self.order.len() > SEEN_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.keys.remove(&oldest);
        }
        true
    }
}
