use std::collections::BTreeSet;
use std::time::Duration;

use amoeba_threads::Instant;
use proptest::prelude::*;

use super::*;

const PACKET: usize = 1400;

fn at(micros: u64) -> Instant {
    Instant::from_epoch(Duration::from_micros(micros))
}

/// One sender and its receiver.
struct Pair {
    outward: Outward<u64>,
    inward: Inward,
    sent: u64,
    count: u64,
    arrived: BTreeSet<u64>,
    ended: Option<u64>,
}

impl Pair {
    fn new(count: u64) -> Pair {
        let outward = Outward::new(at(0), 8 << 20);
        Pair { outward, inward: Inward::default(), sent: 0, count, arrived: BTreeSet::new(), ended: None }
    }
}

/// A wire with one queue: a packet each `per_packet` µs, at most `queue` of them, then `delay` µs.
struct Wire {
    queue: usize,
    per_packet: u64,
    delay: u64,
    free_at: u64,
    flying: std::collections::VecDeque<(u64, usize, u64)>,
    acks: std::collections::VecDeque<(u64, usize, Vec<u8>)>,
    /// The longest that a packet waited in the queue, of each 100 ms.
    waited: Vec<u64>,
}

impl Wire {
    fn new(queue: usize, per_packet: u64, delay: u64) -> Wire {
        let (flying, acks) = Default::default();
        Wire { queue, per_packet, delay, free_at: 0, flying, acks, waited: Vec::new() }
    }

    fn put(&mut self, now: u64, pair: usize, number: u64) {
        let wait = self.free_at.saturating_sub(now);
        let slot = (now / 100_000) as usize;
        self.waited.resize((slot + 1).max(self.waited.len()), 0);
        self.waited[slot] = self.waited[slot].max(wait);
        if wait / self.per_packet < self.queue as u64 {
            self.free_at = self.free_at.max(now) + self.per_packet;
            self.flying.push_back((self.free_at + self.delay, pair, number));
        }
    }
}

/// Runs pairs over one wire until `until`, or until each has carried all; `fate` says what is lost.
fn run(pairs: &mut [(u64, Pair)], wire: &mut Wire, until: u64, mut fate: impl FnMut() -> bool) {
    let mut now = 0;
    while now < until && pairs.iter().any(|(_, pair)| pair.ended.is_none()) {
        while wire.acks.front().is_some_and(|(due, ..)| *due <= now) {
            let (_, pair, bytes) = wire.acks.pop_front().expect("seen just now");
            pairs[pair].1.outward.handle_ack(at(now), &Ack::parse(&bytes).unwrap());
        }
        for (index, (begin, pair)) in pairs.iter_mut().enumerate() {
            if now < *begin {
                continue;
            }
            pair.outward.handle_timeout(at(now));
            while let Some((number, &content)) = pair.outward.send_again(at(now)) {
                assert_eq!(number, content);
                if !fate() {
                    wire.put(now, index, number);
                }
            }
            while pair.sent < pair.count && pair.outward.is_open() {
                let number = pair.outward.send(at(now), PACKET, pair.sent);
                assert_eq!(number, pair.sent);
                pair.sent += 1;
                if !fate() {
                    wire.put(now, index, number);
                }
            }
        }
        while wire.flying.front().is_some_and(|(due, ..)| *due <= now) {
            let (_, index, number) = wire.flying.pop_front().expect("seen just now");
            let pair = &mut pairs[index].1;
            if pair.inward.arrived(at(now), number) {
                assert!(pair.arrived.insert(number), "{number} was given twice");
            }
            if pair.arrived.len() as u64 == pair.count {
                pair.ended.get_or_insert(now);
            }
        }
        for (index, (_, pair)) in pairs.iter_mut().enumerate() {
            if pair.inward.owed() > 0 {
                let mut bytes = Vec::new();
                pair.inward.ack(at(now), &mut bytes);
                if !fate() {
                    wire.acks.push_back((now + wire.delay, index, bytes));
                }
            }
        }
        now += 50;
    }
}

fn chance(seed: u64, every: u64) -> impl FnMut() -> bool {
    let mut state = seed;
    move || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        every != 0 && (state >> 33).is_multiple_of(every)
    }
}

#[test]
fn everything_arrives_once_whatever_is_lost() {
    for (every, queue) in [(0, 10_000), (0, 100), (0, 8), (50, 1000), (5, 1000), (2, 1000)] {
        let mut pairs = [(0, Pair::new(3000))];
        run(&mut pairs, &mut Wire::new(queue, 10, 500), 600_000_000, chance(7, every));
        let pair = &pairs[0].1;
        let ended = pair.ended.unwrap_or_else(|| panic!("{} of 3000 have arrived", pair.arrived.len()));
        assert!(every != 0 || queue < 10_000 || pair.outward.sent_again() == 0, "nothing was lost");
        assert!(every != 0 || ended < 5_000_000, "{ended} µs with a queue of {queue}");
    }
}

#[test]
fn a_wire_is_used_and_its_queue_stays_short() {
    // 116 MB/s with a queue that could hold 100 ms.
    for delay in [100, 1000, 10_000] {
        let mut pairs = [(0, Pair::new(400_000))];
        let mut wire = Wire::new(8000, 12, delay);
        run(&mut pairs, &mut wire, 60_000_000, chance(1, 0));
        let ended = pairs[0].1.ended.expect("there is time enough");
        let alone = 400_000 * 12 + 2 * delay;
        assert!(ended < alone * 5 / 4, "{ended} µs instead of {alone} with a delay of {delay}");
        wire.waited.sort_unstable();
        let most = wire.waited[wire.waited.len() * 9 / 10];
        assert!(most < 30_000, "packets wait {most} µs with a delay of {delay}");
    }
}

#[test]
fn two_transfers_share_a_wire_whoever_came_first() {
    for (delay, late) in [(200, 0), (200, 1_000_000), (5000, 1_000_000)] {
        let mut pairs = [(0, Pair::new(u64::MAX)), (late, Pair::new(u64::MAX))];
        let mut wire = Wire::new(4000, 12, delay);
        run(&mut pairs, &mut wire, 8_000_000 + late, chance(3, 0));
        let before = [pairs[0].1.arrived.len(), pairs[1].1.arrived.len()];
        let (first, second) = (before[0] as u64 - late / 12 * 9 / 10, before[1] as u64);
        assert!(first * 4 > second && second * 4 > first, "{first} and {second} with {delay}, {late}");
        assert!((first + second) * 12 > 8_000_000 * 7 / 10, "{first} and {second} are little");
    }
}

#[test]
fn acknowledgements_of_anything_are_harmless() {
    bolero::check!().for_each(|bytes: &[u8]| {
        let mut outward = Outward::new(at(0), 1 << 20);
        let mut inward = Inward::default();
        for (step, chunk) in bytes.chunks(8).enumerate() {
            let now = at(step as u64 * 10_000);
            if outward.is_open() {
                outward.send(now, 100, ());
            }
            let next = u64::from(chunk[0]) % 16 + if chunk[0] > 250 { u64::MAX - 20 } else { 0 };
            outward.handle_ack(now, &Ack { held: Duration::from_millis(next % 99), next, bits: &chunk[1..] });
            outward.handle_timeout(now);
            while outward.send_again(now).is_some() {}
            let number = u64::from(chunk[0]) * u64::from(chunk[chunk.len() - 1]);
            inward.arrived(now, if chunk[0] == 7 { u64::MAX - 1 } else { number });
            let mut ack = Vec::new();
            inward.ack(now, &mut ack);
            assert!(Ack::parse(&ack).is_ok());
            assert!(outward.flying_size() <= 100 * (step + 1));
        }
        let _ = Ack::parse(bytes);
    });
}

proptest! {
    /// Whatever arrives, in whatever order, is told once, and the acknowledgement says exactly what has arrived.
    #[test]
    fn an_acknowledgement_says_what_has_arrived(numbers in prop::collection::vec(0u64..300, 1..400)) {
        let (mut inward, mut seen) = (Inward::default(), BTreeSet::new());
        for number in numbers {
            prop_assert_eq!(inward.arrived(at(7), number), seen.insert(number));
        }
        let mut bytes = Vec::new();
        inward.ack(at(9), &mut bytes);
        let ack = Ack::parse(&bytes).unwrap();
        prop_assert_eq!(ack.held, Duration::from_micros(2));
        let said: BTreeSet<u64> = (0..ack.next).chain(ack.ahead()).collect();
        prop_assert_eq!(said, seen);
        prop_assert_eq!(inward.owed(), 0);
    }
}
