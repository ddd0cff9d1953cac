//! Large messages over a link that drops what comes too fast: numbers, acknowledgements, a window.
//!
//! Every BULK has a number and is kept until it is acknowledged. One that was sent before another that has arrived, by
//! more than a margin, is lost; if nothing is acknowledged at all for a while, everything is. How much may be under way
//! grows until something is lost, and is then halved. Order does not matter: FLIP puts fragments together in any.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use amoeba_threads::Instant;

use super::datagram::{ACK_BITS_SIZE, Ack};

/// BULKs that may be under way to a peer, or be ahead of one that is missing.
pub(crate) const NUMBERS_MAX: u64 = ACK_BITS_SIZE as u64 * 8;
/// Bytes that may be under way to a new peer.
const WINDOW_FIRST: usize = 256 << 10;
/// BULKs that may be under way in any case.
const WINDOW_COUNT_MIN: usize = 2;
/// The shortest wait for an acknowledgement; the daemons of a busy host are not always awake.
const TIMEOUT_MIN: Duration = Duration::from_millis(50);
const TIMEOUT_FIRST: Duration = Duration::from_millis(200);
const TIMEOUT_MAX: Duration = Duration::from_secs(1);
/// How much a packet may be overtaken by another before it counts as lost.
const REORDER_MIN: Duration = Duration::from_millis(2);

/// A BULK to be sent: its number and its packet.
pub(crate) type Numbered = (u64, Arc<Vec<u8>>);

struct Flight {
    packet: Arc<Vec<u8>>,
    sent: Instant,
    again: bool,
}

/// What goes to one peer.
pub(crate) struct Outward {
    next: u64,
    /// Sent and neither acknowledged nor lost.
    flying: BTreeMap<u64, Flight>,
    /// Lost, to be sent again when the window allows it.
    lost: BTreeMap<u64, Arc<Vec<u8>>>,
    flying_size: usize,
    /// Bytes that may be flying.
    window: usize,
    /// Bytes the peer can take at once.
    window_max: usize,
    /// Below it the window grows fast.
    threshold: usize,
    /// Losses below this number are the same event.
    recovered_at: u64,
    round_trip: Option<(Duration, Duration)>,
    /// When the last of what has arrived was sent.
    newest: Instant,
    /// Timeouts in a row.
    silent: u32,
    deadline: Option<Instant>,
    pub(crate) sent_again: u64,
}

impl Outward {
    pub(crate) fn new(now: Instant, window_max: usize) -> Outward {
        Outward {
            next: 0,
            flying: BTreeMap::new(),
            lost: BTreeMap::new(),
            flying_size: 0,
            window: WINDOW_FIRST.min(window_max),
            window_max,
            threshold: usize::MAX,
            recovered_at: 0,
            round_trip: None,
            newest: now,
            silent: 0,
            deadline: None,
            sent_again: 0,
        }
    }

    /// Whether another BULK may be sent.
    pub(crate) fn is_open(&self) -> bool {
        let first = self.flying.first_key_value().map_or(self.next, |(number, _)| *number);
        self.lost.is_empty() && self.has_room() && self.next - first < NUMBERS_MAX
    }

    fn has_room(&self) -> bool {
        self.flying_size < self.window || self.flying.len() < WINDOW_COUNT_MIN
    }

    /// Numbers a packet that is sent now.
    pub(crate) fn send(&mut self, now: Instant, packet: Vec<u8>) -> Numbered {
        let number = self.next;
        self.next += 1;
        let packet = Arc::new(packet);
        self.fly(now, number, packet.clone(), false);
        (number, packet)
    }

    fn fly(&mut self, now: Instant, number: u64, packet: Arc<Vec<u8>>, again: bool) {
        self.flying_size += packet.len();
        self.flying.insert(number, Flight { packet, sent: now, again });
        if self.deadline.is_none() {
            self.deadline = Some(now + self.timeout());
        }
    }

    /// Some have arrived; what is to be sent again is put into `out`.
    pub(crate) fn handle_ack(&mut self, now: Instant, ack: &Ack, out: &mut Vec<Numbered>) {
        if ack.next > self.next {
            return; // about what was never sent
        }
        self.lost.retain(|number, _| !ack.has(*number));
        let arrived: Vec<u64> = self.flying.keys().copied().filter(|number| ack.has(*number)).collect();
        if !arrived.is_empty() {
            self.silent = 0;
            let mut size = 0;
            for number in arrived {
                let flight = self.flying.remove(&number).expect("found just now");
                size += flight.packet.len();
                self.newest = self.newest.max(flight.sent);
                if !flight.again {
                    self.measure(now.since(flight.sent));
                }
            }
            self.flying_size -= size;
            self.grow(size);
            self.deadline = (!self.flying.is_empty()).then(|| now + self.timeout());
        }
        self.find_lost(now);
        self.send_lost(now, out);
    }

    /// Nothing was heard for too long: everything under way is lost.
    pub(crate) fn handle_timeout(&mut self, now: Instant, out: &mut Vec<Numbered>) {
        if self.deadline.is_none_or(|deadline| now < deadline) {
            return;
        }
        self.silent = (self.silent + 1).min(8);
        self.deadline = None;
        self.threshold = self.window / 2;
        self.window = 0;
        self.recovered_at = self.next;
        for (number, flight) in std::mem::take(&mut self.flying) {
            self.lost.insert(number, flight.packet);
        }
        self.flying_size = 0;
        self.send_lost(now, out);
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.deadline
    }

    /// Bytes that may be under way now.
    pub(crate) fn window(&self) -> usize {
        self.window
    }

    fn find_lost(&mut self, now: Instant) {
        let margin = self.round_trip.map_or(REORDER_MIN, |(mean, _)| (mean / 4).max(REORDER_MIN));
        let late = |flight: &Flight| flight.sent + margin < self.newest;
        let lost: Vec<u64> =
            self.flying.iter().filter(|(_, flight)| late(flight)).map(|(number, _)| *number).collect();
        for number in lost {
            let flight = self.flying.remove(&number).expect("found just now");
            self.flying_size -= flight.packet.len();
            self.lost.insert(number, flight.packet);
            if number >= self.recovered_at {
                self.window /= 2;
                self.threshold = self.window;
                self.recovered_at = self.next;
            }
        }
        if self.deadline.is_none() && !self.flying.is_empty() {
            self.deadline = Some(now + self.timeout());
        }
    }

    fn send_lost(&mut self, now: Instant, out: &mut Vec<Numbered>) {
        while self.has_room()
            && let Some((number, packet)) = self.lost.pop_first()
        {
            self.sent_again += 1;
            self.fly(now, number, packet.clone(), true);
            out.push((number, packet));
        }
    }

    fn grow(&mut self, size: usize) {
        let fast = self.window < self.threshold;
        let step = if fast { size } else { size * (16 << 10) / self.window.max(16 << 10) };
        self.window = (self.window + step).min(self.window_max);
    }

    fn measure(&mut self, sample: Duration) {
        let (mean, deviation) = self.round_trip.unwrap_or((sample, sample / 2));
        let difference = sample.abs_diff(mean);
        self.round_trip = Some(((mean * 7 + sample) / 8, (deviation * 3 + difference) / 4));
    }

    fn timeout(&self) -> Duration {
        let base = match self.round_trip {
            Some((mean, deviation)) => (mean + deviation * 4).max(TIMEOUT_MIN),
            None => TIMEOUT_FIRST,
        };
        (base * (1 << self.silent)).min(TIMEOUT_MAX)
    }
}

/// What comes from one peer.
#[derive(Default)]
pub(crate) struct Inward {
    /// Everything below has arrived.
    next: u64,
    ahead: BTreeSet<u64>,
    /// Something arrived that was not acknowledged yet.
    pub(crate) owes: bool,
}

impl Inward {
    /// A BULK has arrived; false for a copy, and for one too far ahead.
    pub(crate) fn arrived(&mut self, number: u64) -> bool {
        if number >= self.next && number - self.next > NUMBERS_MAX {
            return false;
        }
        self.owes = true;
        if number < self.next || !self.ahead.insert(number) {
            return false;
        }
        while self.ahead.remove(&self.next) {
            self.next += 1;
        }
        true
    }

    /// What has arrived.
    pub(crate) fn ack(&mut self) -> Ack {
        self.owes = false;
        let mut bits = Vec::new();
        for number in &self.ahead {
            let bit = (number - self.next - 1) as usize;
            if bit / 8 >= bits.len() {
                bits.resize(bit / 8 + 1, 0);
            }
            bits[bit / 8] |= 1 << (bit % 8);
        }
        Ack { next: self.next, bits }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(micros: u64) -> Instant {
        Instant::from_epoch(Duration::from_micros(micros))
    }

    /// Sends `count` packets over a wire that takes `delay`, whose queue holds `queue` packets, and of which `fate` says
    /// what is lost; returns how long it took, in virtual milliseconds.
    fn carry(count: u64, queue: usize, mut fate: impl FnMut() -> bool) -> (u64, Outward) {
        let (mut outward, mut inward) = (Outward::new(at(0), 2 << 20), Inward::default());
        let mut arrived = BTreeSet::new();
        let mut wire: Vec<(u64, u64)> = Vec::new();
        let mut acks: Vec<(u64, Ack)> = Vec::new();
        let (mut sent, mut now) = (0, 0u64);
        while (arrived.len() as u64) < count {
            let mut out = Vec::new();
            while sent < count && outward.is_open() {
                out.push(outward.send(at(now), vec![0; 1400]));
                sent += 1;
            }
            outward.handle_timeout(at(now), &mut out);
            for (due, ack) in std::mem::take(&mut acks) {
                if due <= now { outward.handle_ack(at(now), &ack, &mut out) } else { acks.push((due, ack)) }
            }
            for (number, _) in out {
                if wire.len() < queue && !fate() {
                    wire.push((now + 500 + wire.len() as u64 * 10, number));
                }
            }
            wire.retain(|&(due, number)| {
                if due <= now && inward.arrived(number) {
                    assert!(arrived.insert(number), "{number} was given twice");
                }
                due > now
            });
            if inward.owes && !fate() {
                acks.push((now + 500, inward.ack()));
            }
            now += 100;
            assert!(now < 600_000_000, "{} of {count} have arrived", arrived.len());
        }
        assert!(outward.flying.len() as u64 <= NUMBERS_MAX);
        (now / 1000, outward)
    }

    #[test]
    fn everything_arrives_once_whatever_is_lost() {
        for (every, queue) in [(0, 10_000), (0, 100), (0, 8), (50, 1000), (5, 1000), (2, 1000)] {
            let mut state = 7u64;
            let (millis, outward) = carry(3000, queue, || {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                every != 0 && (state >> 33).is_multiple_of(every)
            });
            assert!(every != 0 || queue < 10_000 || outward.sent_again == 0, "nothing was lost");
            assert!(every != 0 || millis < 5000, "{millis} ms with a queue of {queue}");
        }
    }

    #[test]
    fn acknowledgements_of_anything_are_harmless() {
        bolero::check!().for_each(|bytes: &[u8]| {
            let mut outward = Outward::new(at(0), 1 << 20);
            let mut inward = Inward::default();
            let mut out = Vec::new();
            for (step, chunk) in bytes.chunks(8).enumerate() {
                let now = at(step as u64 * 10_000);
                if outward.is_open() {
                    outward.send(now, vec![0; 100]);
                }
                let next = u64::from(chunk[0]) % 16 + if chunk[0] > 250 { u64::MAX - 20 } else { 0 };
                let bits = chunk[1..].to_vec();
                outward.handle_ack(now, &Ack { next, bits }, &mut out);
                outward.handle_timeout(now, &mut out);
                let number = u64::from(chunk[0]) * u64::from(chunk[chunk.len() - 1]);
                inward.arrived(if chunk[0] == 7 { u64::MAX - 1 } else { number });
                let ack = inward.ack();
                assert!(ack.bits.len() <= ACK_BITS_SIZE + 1);
                let flying: usize = outward.flying.values().map(|flight| flight.packet.len()).sum();
                assert_eq!(flying, outward.flying_size);
            }
        });
    }
}
