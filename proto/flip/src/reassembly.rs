//! Fragments to messages, in any order, with memory bounded by what has arrived.

use std::collections::BTreeMap;
use std::time::Duration;

use amoeba_threads::Instant;
use amoeba_wire::packet::{Address, FlipHeader};

/// An unfinished message that got no fragment for so long is given up.
pub(crate) const REASSEMBLY_LIFE: Duration = Duration::from_secs(4);
/// A message of which a fragment came within this time is arriving.
pub(crate) const ARRIVING_LIFE: Duration = Duration::from_millis(500);
/// Messages being put together at once; past it the one that waits longest is given up.
pub(crate) const REASSEMBLIES_MAX: usize = 1024;
/// What a fragment that lies ahead of a gap costs beside its bytes.
pub(crate) const FRAGMENT_COST: usize = 64;
/// Bytes of fragments that may lie ahead of a gap in one message, with what each costs beside them.
pub(crate) const AHEAD_SIZE_MAX: usize = 4 << 20;
/// Bytes of unfinished messages in all.
pub(crate) const REASSEMBLY_SIZE_MAX: usize = 1280 << 20;

type Key = (Address, Address, u32);

/// What a fragment led to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// A whole message, or the first fragment of one that is too large.
    Complete(Vec<u8>),
    Waiting,
    Dropped,
}

struct Partial {
    total: usize,
    /// The message up to the first gap.
    front: Vec<u8>,
    /// Fragments past the gap, by offset.
    ahead: BTreeMap<usize, Vec<u8>>,
    /// What they cost.
    ahead_size: usize,
    touched: Instant,
}

#[derive(Default)]
pub(crate) struct Reassembly {
    partials: BTreeMap<Key, Partial>,
    size: usize,
}

impl Reassembly {
    pub(crate) fn add(
        &mut self,
        now: Instant,
        header: &FlipHeader,
        payload: &[u8],
        size_max: usize,
    ) -> Progress {
        let total = header.total as usize;
        if payload.len() == total {
            return Progress::Complete(payload.to_vec());
        }
        if total > size_max {
            let first = header.offset == 0;
            return if first { Progress::Complete(payload.to_vec()) } else { Progress::Dropped };
        }
        if self.size + cost(payload) > REASSEMBLY_SIZE_MAX || payload.is_empty() {
            return Progress::Dropped;
        }
        let key = (header.from, header.to, header.message_id);
        self.make_room(key);
        let partial = self.partials.entry(key).or_insert_with(|| Partial {
            total,
            front: Vec::new(),
            ahead: BTreeMap::new(),
            ahead_size: 0,
            touched: now,
        });
        if partial.total != total {
            return Progress::Dropped;
        }
        partial.touched = now;
        let before = partial.size();
        let progress = partial.add(header.offset as usize, payload);
        self.size = self.size + partial.size() - before;
        if partial.front.len() < total {
            return progress;
        }
        let partial = self.partials.remove(&key).expect("found just now");
        self.size -= partial.size();
        Progress::Complete(partial.front)
    }

    /// Whether a message of which `matches` accepts the beginning is arriving.
    pub(crate) fn arriving(
        &self,
        now: Instant,
        from: Address,
        to: Address,
        mut matches: impl FnMut(&[u8]) -> bool,
    ) -> bool {
        let mut partials = self.partials.range((from, to, 0)..=(from, to, u32::MAX));
        partials.any(|(_, partial)| now.since(partial.touched) < ARRIVING_LIFE && matches(&partial.front))
    }

    /// Gives up everything for an address that is no longer here.
    pub(crate) fn forget(&mut self, to: Address) {
        self.retain(|key, _| key.1 != to);
    }

    pub(crate) fn expire(&mut self, now: Instant) {
        self.retain(|_, partial| now.since(partial.touched) < REASSEMBLY_LIFE);
    }

    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.partials.values().map(|partial| partial.touched + REASSEMBLY_LIFE).min()
    }

    fn retain(&mut self, keep: impl Fn(&Key, &Partial) -> bool) {
        self.partials.retain(|key, partial| keep(key, partial));
        self.size = self.partials.values().map(Partial::size).sum();
    }

    fn make_room(&mut self, key: Key) {
        if self.partials.len() < REASSEMBLIES_MAX || self.partials.contains_key(&key) {
            return;
        }
        let oldest = self.partials.iter().min_by_key(|(_, partial)| partial.touched).map(|(key, _)| *key);
        if let Some(partial) = oldest.and_then(|oldest| self.partials.remove(&oldest)) {
            self.size -= partial.size();
        }
    }
}

impl Partial {
    fn size(&self) -> usize {
        self.front.len() + self.ahead_size
    }

    fn add(&mut self, offset: usize, payload: &[u8]) -> Progress {
        if offset > self.front.len() {
            if self.ahead_size + cost(payload) > AHEAD_SIZE_MAX {
                return Progress::Dropped;
            }
            if self.ahead.insert(offset, payload.to_vec()).is_none() {
                self.ahead_size += cost(payload);
            } else {
                self.ahead_size = self.ahead.values().map(|fragment| cost(fragment)).sum();
            }
            return Progress::Waiting;
        }
        self.append(offset, payload);
        while let Some(entry) = self.ahead.first_entry()
            && *entry.key() <= self.front.len()
        {
            let (offset, fragment) = entry.remove_entry();
            self.ahead_size -= cost(&fragment);
            self.append(offset, &fragment);
        }
        Progress::Waiting
    }

    /// Adds what of the fragment is new; it begins inside the front or just behind it.
    fn append(&mut self, offset: usize, payload: &[u8]) {
        let known = self.front.len() - offset;
        if let Some(new) = payload.get(known..) {
            self.front.extend_from_slice(new);
        }
    }
}

/// Bytes of memory that a fragment ahead of a gap takes.
fn cost(fragment: &[u8]) -> usize {
    fragment.len() + FRAGMENT_COST
}

#[cfg(test)]
mod tests {
    use amoeba_wire::packet::PacketKind;

    use super::*;

    #[test]
    fn tiny_fragments_ahead_of_a_gap_cost_what_they_take() {
        let mut reassembly = Reassembly::default();
        let total = 1 << 20;
        let header = |offset| FlipHeader {
            kind: PacketKind::Unidata,
            flags: 0,
            hops: 0,
            hops_max: 0,
            to: Address([1; 8]),
            from: Address([2; 8]),
            message_id: 3,
            length: 1,
            offset,
            total,
        };
        let kept_max = AHEAD_SIZE_MAX / (1 + FRAGMENT_COST);
        for number in 0..=kept_max as u32 {
            let progress = reassembly.add(Instant::default(), &header(1 + 2 * number), &[7], total as usize);
            let full = number as usize == kept_max;
            assert_eq!(progress, if full { Progress::Dropped } else { Progress::Waiting });
        }
        assert!(reassembly.size <= AHEAD_SIZE_MAX);
        let all = vec![7; total as usize - 1];
        assert_eq!(reassembly.add(Instant::default(), &header(0), &all, 1 << 20), Progress::Waiting);
        let last = reassembly.add(Instant::default(), &header(total - 1), &[7], 1 << 20);
        assert_eq!(last, Progress::Complete(vec![7; total as usize]));
        assert_eq!(reassembly.size, 0);
    }
}
