//! Fragments to messages, in any order: each is put where it belongs as it comes, with memory bounded by what has
//! arrived and a little ahead of it. Of a message that its sender keeps, reports say what has arrived and what is missing.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use amoeba_threads::Instant;
use amoeba_wire::packet::{Address, FlipHeader, REPORT_RANGES_MAX, RpcReport, flip_flag};

use crate::payload::{HEAD_SIZE_MAX, Head};

/// An unfinished message that got no fragment for so long is given up.
pub(crate) const REASSEMBLY_LIFE: Duration = Duration::from_secs(4);
/// A message of which a fragment came within this time is arriving.
pub(crate) const ARRIVING_LIFE: Duration = Duration::from_millis(500);
/// Messages being put together at once; past it the one that began first is given up.
pub(crate) const REASSEMBLIES_MAX: usize = 1024;
/// How far ahead of the first gap of a message a fragment may begin; one that is further ahead is dropped.
pub(crate) const AHEAD_SIZE_MAX: usize = 4 << 20;
/// Separate pieces of a message that may lie ahead of its first gap; a fragment that makes one more is dropped.
pub(crate) const PIECES_MAX: usize = 1024;
/// Bytes of unfinished messages in all; past it fragments are dropped.
pub(crate) const REASSEMBLY_SIZE_MAX: usize = 1280 << 20;
/// Bytes that a message of which little has arrived may be given at once.
const RESERVE_SIZE_MIN: usize = 64 << 10;

/// Bytes that arrive between two reports.
const REPORT_SIZE: usize = 16 << 10;
/// A gap that is older is reported as missing: packets overtake each other by less, mostly.
const GAP_TIME: Duration = Duration::from_millis(10);
/// The longest wait before what is missing is reported again.
const GAP_TIME_MAX: Duration = Duration::from_millis(320);
/// When nothing has arrived for so long, everything that has not is missing.
const TAIL_TIME: Duration = Duration::from_millis(30);
/// Messages that have arrived and are remembered, so that a fragment that is sent again begins no new one; past it the
/// oldest is forgotten.
const FINISHED_MAX: usize = 1024;

/// Sender, receiver, message identifier, and whether it came over trusted networks only: what others put on an untrusted
/// one never becomes a part of a message that did not cross it.
pub(crate) type Key = (Address, Address, u32, bool);

/// What a fragment led to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// A whole message, or the first fragment of one that is too large.
    Complete(Head, Vec<u8>),
    Waiting,
    Dropped,
}

/// A message of which something has arrived.
pub(crate) struct Partial {
    total: usize,
    head: Head,
    /// What follows the head, up to the last byte that has arrived, zeros where nothing has.
    data: Vec<u8>,
    /// Everything below has arrived.
    front: usize,
    /// What else has arrived: sorted, apart from each other and from the front.
    pieces: Vec<(usize, usize)>,
    touched: Instant,
    watch: Option<Watch>,
}

/// What is to be reported of a message that its sender keeps.
struct Watch {
    /// Bytes that have come since the last report.
    fresh: usize,
    /// Gaps below this are old.
    limit: usize,
    /// The front when gaps were looked at last.
    front: usize,
    wait: Duration,
    due: Instant,
}

/// All unfinished messages.
#[derive(Default)]
pub(crate) struct Reassembly {
    partials: BTreeMap<Key, Partial>,
    /// When each is to be looked at; some later than they would have to be.
    due: BTreeSet<(Instant, Key)>,
    size: usize,
    /// Messages that their senders kept until they were here, and when that was reported.
    finished: BTreeMap<Key, Instant>,
    finished_order: VecDeque<Key>,
    reports: VecDeque<(Key, RpcReport)>,
}

impl Reassembly {
    pub(crate) fn add(
        &mut self,
        now: Instant,
        header: &FlipHeader,
        payload: &[u8],
        size_max: usize,
    ) -> Progress {
        let (total, offset) = (header.total as usize, header.offset as usize);
        if payload.len() == total || total > size_max && offset == 0 {
            return whole(payload);
        }
        if total > size_max || payload.is_empty() {
            return Progress::Dropped;
        }
        let safe = header.flags & flip_flag::UNSAFE == 0;
        let key = (header.from, header.to, header.message_id, safe);
        if self.is_finished(now, &key, total) {
            return Progress::Dropped;
        }
        if !self.partials.contains_key(&key) {
            self.make_room();
            let kept = header.flags & flip_flag::KEPT != 0;
            let partial = Partial::new(now, total, kept);
            self.due.insert((partial.due(), key));
            self.partials.insert(key, partial);
        }
        let partial = self.partials.get_mut(&key).expect("it is there now");
        let before = partial.size();
        let grown = (offset + payload.len()).saturating_sub(HEAD_SIZE_MAX + before);
        if partial.total != total || self.size + grown > REASSEMBLY_SIZE_MAX || !partial.add(offset, payload)
        {
            return Progress::Dropped;
        }
        partial.touched = now;
        self.size = self.size + partial.size() - before;
        if partial.front < total {
            if partial.is_report_due(payload.len()) {
                self.reports.push_back((key, partial.report(key.2, 0)));
            }
            return Progress::Waiting;
        }
        let partial = self.remove(&key).expect("found above");
        if partial.watch.is_some() {
            self.finish(now, key, total);
        }
        Progress::Complete(partial.head, partial.data)
    }

    /// Bytes that are kept of messages that have not arrived whole.
    pub(crate) fn size(&self) -> usize {
        self.size
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.partials.is_empty() && self.size == 0
    }

    /// The next report: from whom the message is, for whom, and what of it has arrived.
    pub(crate) fn poll_report(&mut self) -> Option<(Key, RpcReport)> {
        self.reports.pop_front()
    }

    /// Whether the message has arrived already; then its sender is told again.
    fn is_finished(&mut self, now: Instant, key: &Key, total: usize) -> bool {
        let Some(reported) = self.finished.get_mut(key) else { return false };
        if now.since(*reported) >= GAP_TIME {
            *reported = now;
            self.reports.push_back((*key, whole_report(key.2, total)));
        }
        true
    }

    fn finish(&mut self, now: Instant, key: Key, total: usize) {
        self.reports.push_back((key, whole_report(key.2, total)));
        if self.finished.insert(key, now).is_none() {
            self.finished_order.push_back(key);
        }
        if self.finished_order.len() > FINISHED_MAX
            && let Some(oldest) = self.finished_order.pop_front()
        {
            self.finished.remove(&oldest);
        }
    }

    /// Whether a message of which `matches` accepts the beginning is arriving.
    pub(crate) fn arriving(
        &self,
        now: Instant,
        from: Address,
        to: Address,
        mut matches: impl FnMut(&[u8]) -> bool,
    ) -> bool {
        let mut partials = self.partials.range((from, to, 0, false)..=(from, to, u32::MAX, true));
        partials
            .any(|(_, partial)| now.since(partial.touched) < ARRIVING_LIFE && matches(partial.beginning()))
    }

    /// Gives up everything for an address that is no longer here.
    pub(crate) fn forget(&mut self, to: Address) {
        let keys: Vec<Key> = self.partials.keys().filter(|key| key.1 == to).copied().collect();
        for key in keys {
            self.remove(&key);
        }
    }

    /// Reports what is missing; gives up what nothing came of for too long.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        while let Some(&(due, key)) = self.due.first()
            && due <= now
        {
            self.due.pop_first();
            let Some(partial) = self.partials.get_mut(&key) else { continue };
            if partial.touched + REASSEMBLY_LIFE <= now {
                self.remove(&key);
                continue;
            }
            if let Some(limit) = partial.look(now) {
                self.reports.push_back((key, partial.report(key.2, limit)));
            }
            self.due.insert((partial.due(), key));
        }
    }

    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.due.first().map(|(due, _)| *due)
    }

    fn remove(&mut self, key: &Key) -> Option<Partial> {
        let partial = self.partials.remove(key)?;
        self.size -= partial.size();
        Some(partial)
    }

    /// Past the bound the message that is to be looked at first goes. What is due and no longer there goes too, so that
    /// there are never many more times than messages.
    fn make_room(&mut self) {
        while self.partials.len() >= REASSEMBLIES_MAX
            && let Some((_, key)) = self.due.pop_first()
        {
            self.remove(&key);
        }
        if self.due.len() >= 4 * REASSEMBLIES_MAX {
            let partials = &self.partials;
            self.due.retain(|(_, key)| partials.contains_key(key));
        }
    }
}

impl Partial {
    fn new(now: Instant, total: usize, kept: bool) -> Partial {
        let watch = Watch { fresh: 0, limit: 0, front: 0, wait: GAP_TIME, due: now + GAP_TIME };
        let watch = kept.then_some(watch);
        let (head, data, pieces) = (Head::EMPTY, Vec::new(), Vec::new());
        Partial { total, head, data, front: 0, pieces, touched: now, watch }
    }

    /// When it is to be looked at; that may turn out to be too early.
    fn due(&self) -> Instant {
        let end = self.touched + REASSEMBLY_LIFE;
        self.watch.as_ref().map_or(end, |watch| watch.due.min(end))
    }

    /// Whether enough has come for another report, with this fragment.
    fn is_report_due(&mut self, size: usize) -> bool {
        let Some(watch) = &mut self.watch else { return false };
        watch.fresh += size;
        watch.fresh >= REPORT_SIZE
    }

    /// Time has passed: up to where what has not arrived is to be reported as missing, if anything is.
    fn look(&mut self, now: Instant) -> Option<usize> {
        let last = self.pieces.last().map_or(self.front, |&(_, end)| end);
        let watch = self.watch.as_mut().filter(|watch| watch.due <= now)?;
        let quiet = now.since(self.touched) >= TAIL_TIME;
        let missing =
            if quiet { Some(self.total) } else { Some(watch.limit).filter(|limit| *limit > self.front) };
        let moved = self.front > watch.front;
        watch.wait = if moved || missing.is_none() { GAP_TIME } else { (watch.wait * 2).min(GAP_TIME_MAX) };
        (watch.limit, watch.front, watch.due) = (last, self.front, now + watch.wait);
        missing
    }

    /// What has arrived, and what is missing below `limit`.
    fn report(&mut self, message_id: u32, limit: usize) -> RpcReport {
        if let Some(watch) = &mut self.watch {
            watch.fresh = 0;
        }
        let (mut missing, mut lost, mut start) = (Vec::new(), 0, self.front);
        for (piece, end) in self.pieces.iter().copied().chain([(self.total, self.total)]) {
            let gap = start.min(limit)..piece.min(limit);
            if !gap.is_empty() && missing.len() < REPORT_RANGES_MAX {
                missing.push((gap.start as u32, gap.end as u32));
            }
            (lost, start) = (lost + gap.len() as u32, end);
        }
        let ahead: usize = self.pieces.iter().map(|(start, end)| end - start).sum();
        let (total, front, arrived) = (self.total as u32, self.front as u32, (self.front + ahead) as u32);
        RpcReport { message_id, total, front, arrived, lost, missing }
    }

    /// Bytes it takes; the same bound holds for what it has reserved, within a factor of two.
    fn size(&self) -> usize {
        self.data.len()
    }

    /// What it begins with, as far as it has arrived.
    fn beginning(&self) -> &[u8] {
        &self.head[..self.front.min(self.head.len())]
    }

    /// Takes in a fragment that is not empty; false when it is too far ahead.
    fn add(&mut self, offset: usize, payload: &[u8]) -> bool {
        let end = offset + payload.len();
        if end <= self.front {
            return true;
        }
        if offset > self.front + AHEAD_SIZE_MAX || !self.note(offset, end) {
            return false;
        }
        let split = HEAD_SIZE_MAX.saturating_sub(offset).min(payload.len());
        if split > 0 {
            self.head.put(offset, &payload[..split]);
        }
        if split < payload.len() {
            self.put(offset + split - HEAD_SIZE_MAX, &payload[split..]);
        }
        true
    }

    /// Notes that these bytes have arrived; false when that makes too many pieces.
    fn note(&mut self, offset: usize, end: usize) -> bool {
        let (mut start, mut stop) = (offset, end);
        let first = self.pieces.partition_point(|&(_, piece_end)| piece_end < offset);
        let last = self.pieces.partition_point(|&(piece_start, _)| piece_start <= end);
        if offset > self.front && first == last && self.pieces.len() >= PIECES_MAX {
            return false;
        }
        if let Some(touching) = self.pieces.get(first..last).filter(|touching| !touching.is_empty()) {
            start = start.min(touching[0].0);
            stop = stop.max(touching[touching.len() - 1].1);
        }
        self.pieces.splice(first..last, [(start, stop)]);
        if start <= self.front {
            self.front = stop;
            self.pieces.drain(..=first);
        }
        true
    }

    /// Puts bytes where they belong behind the head.
    fn put(&mut self, at: usize, bytes: &[u8]) {
        let end = at + bytes.len();
        if end > self.data.capacity() {
            // No more than twice what has arrived is set aside for a message that may never come.
            let wanted = (2 * end).max(RESERVE_SIZE_MIN).min(self.total - HEAD_SIZE_MAX).max(end);
            self.data.reserve_exact(wanted - self.data.len());
        }
        if at > self.data.len() {
            self.data.resize(at, 0);
        }
        let known = self.data.len() - at;
        if known < bytes.len() {
            self.data[at..].copy_from_slice(&bytes[..known]);
            self.data.extend_from_slice(&bytes[known..]);
        } else {
            self.data[at..end].copy_from_slice(bytes);
        }
    }
}

fn whole_report(message_id: u32, total: usize) -> RpcReport {
    let total = total as u32;
    RpcReport { message_id, total, front: total, arrived: total, lost: 0, missing: Vec::new() }
}

/// A message, or the beginning of one, in one fragment.
fn whole(payload: &[u8]) -> Progress {
    let (head, data) = payload.split_at(payload.len().min(HEAD_SIZE_MAX));
    Progress::Complete(Head::new(head), data.to_vec())
}

#[cfg(test)]
mod tests {
    use amoeba_wire::packet::PacketKind;
    use proptest::prelude::*;

    use super::*;

    fn header(offset: usize, length: usize, total: usize) -> FlipHeader {
        FlipHeader {
            kind: PacketKind::Unidata,
            flags: 0,
            hops: 0,
            hops_max: 0,
            to: Address([1; 8]),
            from: Address([2; 8]),
            message_id: 3,
            length: length as u32,
            offset: offset as u32,
            total: total as u32,
        }
    }

    #[test]
    fn what_is_far_ahead_of_a_gap_takes_no_memory() {
        let (mut reassembly, now, total) = (Reassembly::default(), Instant::default(), 1 << 30);
        let mut add =
            |offset, length| reassembly.add(now, &header(offset, length, total), &vec![7; length], total);
        assert_eq!(add(total - 1, 1), Progress::Dropped);
        for number in 0..PIECES_MAX {
            assert_eq!(add(100 + 2 * number, 1), Progress::Waiting);
        }
        assert_eq!(add(100 + 2 * PIECES_MAX, 1), Progress::Dropped);
        assert_eq!(add(101, 1), Progress::Waiting, "two pieces become one");
        assert_eq!(add(AHEAD_SIZE_MAX, 1), Progress::Waiting);
        assert_eq!(add(AHEAD_SIZE_MAX + 2, 1), Progress::Dropped);
        assert!(reassembly.size <= AHEAD_SIZE_MAX + 1);
        reassembly.forget(Address([1; 8]));
        assert_eq!(reassembly.size, 0);
    }

    #[test]
    fn unfinished_messages_are_bounded_in_number_and_given_up_in_time() {
        let (mut reassembly, start) = (Reassembly::default(), Instant::default());
        let at = |millis| start + Duration::from_millis(millis);
        for number in 0..REASSEMBLIES_MAX as u32 + 10 {
            let header = FlipHeader { message_id: number, ..header(0, 10, 20) };
            assert_eq!(reassembly.add(at(number.into()), &header, &[1; 10], 20), Progress::Waiting);
        }
        assert_eq!(reassembly.partials.len(), REASSEMBLIES_MAX);
        assert!(!reassembly.partials.contains_key(&(Address([2; 8]), Address([1; 8]), 9, true)));
        let mut steps = 0;
        while let Some(next) = reassembly.next_timeout() {
            reassembly.handle_timeout(next);
            steps += 1;
        }
        assert!(reassembly.partials.is_empty() && reassembly.size == 0 && steps <= REASSEMBLIES_MAX);
    }

    proptest! {
        /// Against a plain array of bytes: whatever the order, the copies and the overlaps.
        #[test]
        fn fragments_in_any_order_make_the_message(
            total in 2usize..400,
            cuts in proptest::collection::vec((0usize..400, 1usize..90), 1..60),
        ) {
            let message: Vec<u8> = (0..total).map(|byte| (byte * 7) as u8).collect();
            let mut arrived = vec![false; total];
            let (mut reassembly, now) = (Reassembly::default(), Instant::default());
            for (offset, length) in cuts {
                let offset = offset % total;
                let end = (offset + length).min(total);
                if end - offset == total {
                    continue;
                }
                let progress =
                    reassembly.add(now, &header(offset, end - offset, total), &message[offset..end], total);
                arrived[offset..end].fill(true);
                if arrived.iter().all(|byte| *byte) {
                    let split = total.min(HEAD_SIZE_MAX);
                    let whole = Progress::Complete(Head::new(&message[..split]), message[split..].to_vec());
                    prop_assert_eq!(progress, whole);
                    prop_assert_eq!(reassembly.size, 0);
                    return Ok(());
                }
                prop_assert_eq!(progress, Progress::Waiting);
                let front = arrived.iter().position(|byte| !byte).unwrap_or(total);
                prop_assert_eq!(reassembly.partials.values().next().map(|partial| partial.front), Some(front));
            }
        }
    }
}
