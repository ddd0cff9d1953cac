//! Large messages whose receiver says what has arrived: what is missing is sent again, and only that; how much may be
//! under way follows loss and delay.
//!
//! This is for ways on which no link repairs by itself: a raw Ethernet, or a way through other hosts. Both ends have
//! announced that they know REPORTs; to anybody else a message goes as the original sends it, and is sent again whole.
//!
//! A message is kept (it is shared with the layer above, not copied) until a REPORT says that all of it is there, or
//! REPORTs stay out for too long. Then the layer above finds out by its own questions.
//!
//! # Source
//! Ours; the window is that of TCP (slow start, halved by loss), held back where the round trip grows.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::time::Duration;

use amoeba_threads::Instant;
use amoeba_wire::packet::{Address, RpcReport};

use crate::sending::{SENDING_LIFE, SENDING_MAX, SENDING_SIZE_MAX, Sending, TURNS_MAX};
use crate::{LinkId, Location, Transmit};

/// Bytes that may be under way of a new message.
const WINDOW_FIRST: usize = 32 << 10;
/// Bytes that may be under way in any case: as many as a receiver lets arrive before it reports.
const WINDOW_MIN: usize = 16 << 10;
/// Bytes that may be under way at most: less than a receiver keeps ahead of a gap.
const WINDOW_MAX: usize = 2 << 20;
/// What the window grows by in a round trip once something was lost.
const WINDOW_STEP: usize = 4 << 10;
/// The shortest wait for a REPORT; each one in vain doubles it.
const TIMEOUT_MIN: Duration = Duration::from_millis(250);
/// Waits in vain after which a message is given up.
const SILENT_MAX: u32 = 3;
/// A message of which something left, or was reported, within this time is on its way.
const LEAVING_LIFE: Duration = Duration::from_millis(500);
/// A round trip that is longer than twice the shortest and this means that a queue has formed.
const QUEUE_TIME: Duration = Duration::from_millis(5);

type Place = (LinkId, Location);

/// Messages to one location.
#[derive(Default)]
struct Line {
    /// How many take turns.
    active: usize,
    waiting: VecDeque<Sending>,
}

/// A message that is leaving.
struct Paced {
    message: Sending,
    place: Place,
    /// Everything below has arrived.
    front: usize,
    /// Bytes that have arrived.
    arrived: usize,
    /// What was sent and is missing: sorted, apart.
    missing: VecDeque<(usize, usize)>,
    missing_size: usize,
    /// Other bytes that are no longer under way: missing, but where is not known yet.
    written_off: usize,
    window: usize,
    /// Below it the window doubles in a round trip.
    threshold: usize,
    /// What is lost below this was lost at the same time.
    recovered_at: usize,
    /// A byte whose arrival tells the round trip, and when it was sent; it was sent once.
    mark: Option<(usize, Instant)>,
    round_trip: Option<(Duration, Duration)>,
    round_trip_min: Duration,
    /// When something was heard of it last, or it began to leave.
    heard: Instant,
    silent: u32,
    due: Instant,
}

/// All of them, by message identifier.
#[derive(Default)]
pub(crate) struct Pacer {
    messages: BTreeMap<u32, Paced>,
    lines: BTreeMap<Place, Line>,
    /// Those that have something to send now.
    eligible: BTreeSet<u32>,
    due: BTreeSet<(Instant, u32)>,
    /// The one that had the last turn.
    turn: Option<u32>,
    size: usize,
    pub(crate) sent_again: u64,
}

impl Pacer {
    /// Takes in a message; false when there is no room.
    pub(crate) fn push(&mut self, now: Instant, link: LinkId, location: &Location, message: Sending) -> bool {
        let size = message.payload.len();
        if self.size > 0 && self.size + size > SENDING_SIZE_MAX {
            return false;
        }
        let line = self.lines.entry((link, *location)).or_default();
        if line.waiting.len() >= SENDING_MAX {
            return false;
        }
        self.size += size;
        line.waiting.push_back(message);
        self.admit(now, (link, *location));
        true
    }

    /// Lets messages to a location leave while there are turns.
    fn admit(&mut self, now: Instant, place: Place) {
        let Some(line) = self.lines.get_mut(&place) else { return };
        while line.active < TURNS_MAX
            && let Some(message) = line.waiting.pop_front()
        {
            if now.since(message.since) >= SENDING_LIFE {
                self.size -= message.payload.len();
                continue;
            }
            line.active += 1;
            let (id, due) = (message.header.message_id, now + TIMEOUT_MIN);
            self.eligible.insert(id);
            self.due.insert((due, id));
            self.messages.insert(id, Paced::new(now, message, place, due));
        }
        if line.active == 0 {
            self.lines.remove(&place);
        }
    }

    /// The next fragment for a location that takes packets of the size that `ready` says.
    pub(crate) fn next(
        &mut self,
        now: Instant,
        mut ready: impl FnMut(LinkId, &Location) -> Option<usize>,
    ) -> Option<Transmit> {
        let after = self.turn.map_or(Bound::Unbounded, Bound::Excluded);
        let mut turns = self.eligible.range((after, Bound::Unbounded)).chain(&self.eligible);
        let (id, size_max) = turns.find_map(|id| {
            let (link, location) = self.messages.get(id)?.place;
            ready(link, &location).map(|size_max| (*id, size_max))
        })?;
        self.turn = Some(id);
        let paced = self.messages.get_mut(&id).expect("who is eligible is there");
        self.sent_again += u64::from(!paced.missing.is_empty());
        let packet = paced.fragment(now, size_max);
        let (link, to) = (paced.place.0, Some(paced.place.1));
        if !paced.may_send() {
            self.eligible.remove(&id);
        }
        Some(Transmit { link, to, packet, bulk: true })
    }

    /// The receiver of a message says what it has of it.
    pub(crate) fn handle_report(&mut self, now: Instant, from: Address, to: Address, report: &RpcReport) {
        let Some(paced) = self.messages.get_mut(&report.message_id) else { return };
        let header = &paced.message.header;
        if header.to != from || header.from != to || header.total != report.total {
            return; // about something else, or a lie
        }
        if report.front >= report.total {
            return self.end(now, report.message_id);
        }
        self.due.remove(&(paced.due, report.message_id));
        paced.reported(now, report);
        paced.due = now + paced.timeout();
        self.due.insert((paced.due, report.message_id));
        if paced.may_send() {
            self.eligible.insert(report.message_id);
        }
    }

    /// Asks after messages of which nothing is heard, by a fragment that is sent again; gives them up in the end.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        while let Some(&(due, id)) = self.due.first()
            && due <= now
        {
            self.due.pop_first();
            let paced = self.messages.get_mut(&id).expect("who is due is there");
            if paced.silent >= SILENT_MAX || now.since(paced.message.since) >= SENDING_LIFE {
                self.end(now, id);
                continue;
            }
            paced.unheard(now);
            self.due.insert((paced.due, id));
            if paced.may_send() {
                self.eligible.insert(id);
            }
        }
    }

    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.due.first().map(|(due, _)| *due)
    }

    /// Drops a message that is leaving: it has arrived, or never will.
    pub(crate) fn end(&mut self, now: Instant, id: u32) {
        let Some(paced) = self.messages.remove(&id) else { return };
        self.eligible.remove(&id);
        self.due.remove(&(paced.due, id));
        self.size -= paced.message.payload.len();
        if let Some(line) = self.lines.get_mut(&paced.place) {
            line.active -= 1;
        }
        self.admit(now, paced.place);
    }

    /// Drops everything for a location; how many messages those were.
    pub(crate) fn forget(&mut self, now: Instant, link: LinkId, location: &Location) -> usize {
        let Some(line) = self.lines.get_mut(&(link, *location)) else { return 0 };
        let waiting = std::mem::take(&mut line.waiting);
        self.size -= waiting.iter().map(|message| message.payload.len()).sum::<usize>();
        let there = |(_, paced): &(&u32, &Paced)| paced.place == (link, *location);
        let active: Vec<u32> = self.messages.iter().filter(there).map(|(id, _)| *id).collect();
        for id in &active {
            self.end(now, *id);
        }
        waiting.len() + active.len()
    }

    /// Drops a message between these addresses that `matches` by its beginning.
    pub(crate) fn withdraw(
        &mut self,
        now: Instant,
        from: Address,
        to: Address,
        mut matches: impl FnMut(&[u8]) -> bool,
    ) {
        let mut is = |message: &Sending| {
            message.header.from == from && message.header.to == to && matches(message.payload.head())
        };
        let leaving = self.messages.iter().find(|(_, paced)| is(&paced.message)).map(|(id, _)| *id);
        for line in self.lines.values_mut() {
            line.waiting.retain(|message| {
                let withdrawn = is(message);
                self.size -= if withdrawn { message.payload.len() } else { 0 };
                !withdrawn
            });
        }
        leaving.into_iter().for_each(|id| self.end(now, id));
    }

    /// Whether a message between these addresses that `matches` by its beginning is on its way.
    pub(crate) fn has(
        &self,
        now: Instant,
        from: Address,
        to: Address,
        mut matches: impl FnMut(&[u8]) -> bool,
    ) -> bool {
        let mut is = |message: &Sending| {
            message.header.from == from && message.header.to == to && matches(message.payload.head())
        };
        let mut leaving = self.messages.values().filter(|paced| now.since(paced.heard) < LEAVING_LIFE);
        leaving.any(|paced| is(&paced.message))
            || self.lines.values().any(|line| line.waiting.iter().any(&mut is))
    }

    /// Bytes of the messages that have not left whole.
    pub(crate) fn size(&self) -> usize {
        self.size
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.messages.is_empty()
            && self.lines.is_empty()
            && self.eligible.is_empty()
            && self.due.is_empty()
            && self.size == 0
    }
}

impl Paced {
    fn new(now: Instant, message: Sending, place: Place, due: Instant) -> Paced {
        Paced {
            message,
            place,
            front: 0,
            arrived: 0,
            missing: VecDeque::new(),
            missing_size: 0,
            written_off: 0,
            window: WINDOW_FIRST,
            threshold: WINDOW_MAX,
            recovered_at: 0,
            mark: None,
            round_trip: None,
            round_trip_min: Duration::MAX,
            heard: now,
            silent: 0,
            due,
        }
    }

    fn may_send(&self) -> bool {
        let accounted = self.arrived + self.missing_size + self.written_off;
        let under_way = self.message.sent.saturating_sub(accounted);
        (!self.missing.is_empty() || !self.message.is_sent()) && under_way < self.window
    }

    /// What is missing goes first.
    fn fragment(&mut self, now: Instant, size_max: usize) -> crate::Packet {
        match self.missing.pop_front() {
            None => {
                let packet = self.message.fragment(size_max);
                self.mark.get_or_insert((self.message.sent - 1, now));
                packet
            }
            Some((start, end)) => {
                let (packet, stop) = self.message.part(start, end, size_max);
                self.missing_size -= stop - start;
                if stop < end {
                    self.missing.push_front((stop, end));
                }
                packet
            }
        }
    }

    fn reported(&mut self, now: Instant, report: &RpcReport) {
        let sent = self.message.sent;
        let (front, arrived) = ((report.front as usize).min(sent), (report.arrived as usize).min(sent));
        (self.heard, self.silent) = (now, 0);
        if (front, arrived) < (self.front, self.arrived) {
            return; // it was overtaken by another
        }
        let news = arrived.saturating_sub(self.arrived);
        (self.front, self.arrived) = (front, arrived);
        if let Some((byte, since)) = self.mark
            && self.front > byte
        {
            self.mark = None;
            self.measure(now.since(since));
        }
        if report.missing.is_empty() {
            let known = std::mem::take(&mut self.missing);
            self.set_missing(known.into_iter()); // without what has arrived
            return self.grow(news);
        }
        self.set_missing(report.missing.iter().map(|&(start, end)| (start as usize, end as usize)));
        self.written_off = (report.lost as usize).saturating_sub(self.missing_size);
        if let Some(&(first, _)) = self.missing.front() {
            if first >= self.recovered_at {
                self.shrink(self.window / 2);
            }
            self.mark = None; // a byte that is sent again tells nothing
        }
    }

    /// What was sent and is missing, as far as the receiver says it in a sensible way.
    fn set_missing(&mut self, ranges: impl Iterator<Item = (usize, usize)>) {
        (self.missing, self.missing_size) = (VecDeque::new(), 0);
        let mut last = self.front;
        for (start, end) in ranges {
            let (start, end) = (start.max(last), end.min(self.message.sent));
            if start < end {
                self.missing.push_back((start, end));
                self.missing_size += end - start;
                last = end;
            }
        }
    }

    /// Nothing was heard for too long: the first fragment that may be missing goes again, to be answered.
    fn unheard(&mut self, now: Instant) {
        self.silent += 1;
        self.mark = None;
        if self.message.sent > self.front {
            let end = (self.front + WINDOW_MIN / 16).min(self.message.sent);
            self.set_missing([(self.front, end)].into_iter());
            self.written_off = self.message.sent.saturating_sub(self.arrived + self.missing_size);
            self.shrink(WINDOW_MIN);
        }
        self.due = now + self.timeout();
    }

    fn shrink(&mut self, window: usize) {
        self.window = window.max(WINDOW_MIN);
        self.threshold = self.window;
        self.recovered_at = self.message.sent;
    }

    fn grow(&mut self, news: usize) {
        let step = if self.window < self.threshold {
            news
        } else {
            WINDOW_STEP * news / self.window.max(WINDOW_MIN)
        };
        self.window = (self.window + step).min(WINDOW_MAX);
    }

    fn measure(&mut self, sample: Duration) {
        self.round_trip_min = self.round_trip_min.min(sample);
        let (mean, deviation) = self.round_trip.unwrap_or((sample, sample / 2));
        let (mean, deviation) = ((mean * 7 + sample) / 8, (deviation * 3 + sample.abs_diff(mean)) / 4);
        self.round_trip = Some((mean, deviation));
        if sample > self.round_trip_min * 2 + QUEUE_TIME {
            self.shrink(self.window / 8 * 7);
        }
    }

    fn timeout(&self) -> Duration {
        let base = self.round_trip.map_or(TIMEOUT_MIN, |(mean, deviation)| mean + deviation * 4);
        base.max(TIMEOUT_MIN) * (1 << self.silent)
    }
}
