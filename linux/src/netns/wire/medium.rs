//! What becomes of frames between ports: where each goes, and what happens to it on the way. No system call.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use amoeba_threads::Instant;

use super::damage::damage;
use super::faults::{Dice, Faults};
use crate::packet::ETHERNET_HEADER_SIZE;

/// Ethernet addresses whose port is remembered; frames to others go to every port.
const ADDRESSES_MAX: usize = 1024;
/// Bytes of frames that may be on the way; past it frames are lost.
pub(super) const UNDER_WAY_MAX: usize = 64 << 20;
/// How long a frame may queue for a host whose rate is bounded; past it it is lost.
const QUEUE_MAX: Duration = Duration::from_millis(100);

/// What happened so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counters {
    pub(super) frames: u64,
    pub(super) delivered: u64,
    pub(super) lost: u64,
    pub(super) duplicated: u64,
    pub(super) held_back: u64,
    pub(super) damaged: u64,
    pub(super) cut: u64,
    pub(super) overflowed: u64,
}

/// The way from one port to another.
struct Path {
    dice: Dice,
    /// When the last frame that stays in order arrives.
    last: Instant,
}

/// Joins ports, which are numbered from 0.
pub(super) struct Medium {
    /// With a seed.
    faults: Faults,
    ports: usize,
    /// From port a to port b at `a * ports + b`.
    paths: Vec<Path>,
    /// When each port has taken what is under way to it.
    busy_until: Vec<Instant>,
    addresses: BTreeMap<[u8; 6], usize>,
    cut: BTreeSet<(usize, usize)>,
    /// Frames on their way by when they arrive; those of one moment in the order they were sent.
    under_way: BTreeMap<Instant, VecDeque<(usize, Vec<u8>)>>,
    under_way_size: usize,
    pub(super) counters: Counters,
}

impl Medium {
    /// A medium without faults.
    pub(super) fn new(ports: usize) -> Medium {
        let start = Instant::from_epoch(Duration::ZERO);
        Medium {
            faults: Faults { seed: Some(0), ..Faults::default() },
            ports,
            paths: paths(ports, 0, start),
            busy_until: vec![start; ports],
            addresses: BTreeMap::new(),
            cut: BTreeSet::new(),
            under_way: BTreeMap::new(),
            under_way_size: 0,
            counters: Counters::default(),
        }
    }

    /// From now on these faults; without a seed that of the earlier ones. The dice begin anew.
    pub(super) fn set_faults(&mut self, now: Instant, faults: Faults) {
        let seed = faults.seed.or(self.faults.seed).expect("a medium's faults have a seed");
        let last = self.paths.iter().map(|path| path.last).max().unwrap_or(now);
        self.paths = paths(self.ports, seed, last);
        self.faults = Faults { seed: Some(seed), ..faults };
    }

    pub(super) fn faults(&self) -> &Faults {
        &self.faults
    }

    /// Lets nothing through between two ports, or lets it through again.
    pub(super) fn cut(&mut self, a: usize, b: usize, cut: bool) {
        let pair = (a.min(b), a.max(b));
        if cut && a != b {
            self.cut.insert(pair);
        } else {
            self.cut.remove(&pair);
        }
    }

    /// The pairs of ports between which nothing goes through.
    pub(super) fn cuts(&self) -> impl Iterator<Item = (usize, usize)> {
        self.cut.iter().copied()
    }

    /// A frame has come from a port. `at_once` is given the ports that get it as it is and now; what else becomes of it
    /// is in [`Medium::arrivals`] later.
    pub(super) fn frame(&mut self, now: Instant, from: usize, frame: &[u8], mut at_once: impl FnMut(usize)) {
        let Some((to, source)) = addresses_of(frame) else { return };
        self.counters.frames += 1;
        if self.addresses.len() < ADDRESSES_MAX || self.addresses.contains_key(&source) {
            self.addresses.insert(source, from);
        }
        match self.addresses.get(&to) {
            Some(&port) if port != from => self.carry(now, from, port, frame, &mut at_once),
            Some(_) => {}
            None => {
                for port in (0..self.ports).filter(|port| *port != from) {
                    self.carry(now, from, port, frame, &mut at_once);
                }
            }
        }
    }

    fn carry(&mut self, now: Instant, from: usize, to: usize, frame: &[u8], at_once: &mut impl FnMut(usize)) {
        let path = &mut self.paths[from * self.ports + to];
        let fate = path.dice.fate(&self.faults);
        if self.cut.contains(&(from.min(to), from.max(to))) {
            return self.counters.cut += 1;
        }
        if fate.lost {
            return self.counters.lost += 1;
        }
        let mut arrival = now + fate.delay;
        match fate.held_back {
            Some(longer) => {
                self.counters.held_back += 1;
                arrival = arrival + longer;
            }
            None => {
                arrival = arrival.max(path.last);
                path.last = arrival;
            }
        }
        let Some(arrival) = self.queued(now, to, arrival, frame.len()) else {
            return self.counters.overflowed += 1;
        };
        if let Some(later) = fate.copy {
            self.counters.duplicated += 1;
            self.send(arrival + later, to, frame.to_vec());
        }
        if let Some(bit) = fate.damage {
            self.counters.damaged += 1;
            let mut damaged = frame.to_vec();
            if damage(&mut damaged, bit) {
                self.send(arrival, to, damaged);
            }
        } else if arrival <= now {
            self.counters.delivered += 1;
            at_once(to);
        } else {
            self.send(arrival, to, frame.to_vec());
        }
    }

    /// When a frame arrives that may have to queue for its host; `None`: the queue is full.
    fn queued(&mut self, now: Instant, to: usize, arrival: Instant, size: usize) -> Option<Instant> {
        let Some(rate) = self.faults.rate else { return Some(arrival) };
        let begin = self.busy_until[to].max(now);
        if begin.since(now) > QUEUE_MAX {
            return None;
        }
        let end = begin + Duration::from_secs_f64(size as f64 * 8.0 / rate as f64);
        self.busy_until[to] = end;
        Some(end + arrival.since(now))
    }

    fn send(&mut self, arrival: Instant, to: usize, frame: Vec<u8>) {
        if self.under_way_size + frame.len() > UNDER_WAY_MAX {
            return self.counters.overflowed += 1;
        }
        self.under_way_size += frame.len();
        self.under_way.entry(arrival).or_default().push_back((to, frame));
    }

    /// When the next frame arrives.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.under_way.first_key_value().map(|(arrival, _)| *arrival)
    }

    /// The frames that have arrived by now and their ports, in order.
    pub(super) fn arrivals(&mut self, now: Instant) -> Vec<(usize, Vec<u8>)> {
        let mut arrived = Vec::new();
        while let Some(entry) = self.under_way.first_entry().filter(|entry| *entry.key() <= now) {
            arrived.extend(entry.remove());
        }
        self.under_way_size -= arrived.iter().map(|(_, frame)| frame.len()).sum::<usize>();
        self.counters.delivered += arrived.len() as u64;
        arrived
    }
}

fn paths(ports: usize, seed: u64, last: Instant) -> Vec<Path> {
    (0..ports * ports).map(|path| Path { dice: Dice::new(seed, path / ports, path % ports), last }).collect()
}

/// Destination and source of a frame. A group as the source is nobody's address.
fn addresses_of(frame: &[u8]) -> Option<([u8; 6], [u8; 6])> {
    let header = frame.first_chunk::<ETHERNET_HEADER_SIZE>()?;
    let to: [u8; 6] = *header.first_chunk().expect("a header begins with six bytes");
    let source: [u8; 6] = *header[6..].first_chunk().expect("six more bytes follow");
    (source[0] & 1 == 0).then_some((to, source))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(to: u8, from: u8, number: u8) -> Vec<u8> {
        let mac = |last| [2, 0, 0, 0, 0, last];
        [&mac(to)[..], &mac(from), &[0x81, 0x46], &[number; 46]].concat()
    }

    fn at(milliseconds: u64) -> Instant {
        Instant::from_epoch(Duration::from_millis(1000 + milliseconds))
    }

    fn carried(medium: &mut Medium, now: Instant, from: usize, frame: &[u8]) -> Vec<usize> {
        let mut ports = Vec::new();
        medium.frame(now, from, frame, |port| ports.push(port));
        ports
    }

    #[test]
    fn frames_go_to_everybody_until_their_port_is_known() {
        let mut medium = Medium::new(3);
        assert_eq!(carried(&mut medium, at(0), 0, &frame(2, 1, 0)), [1, 2]);
        assert_eq!(carried(&mut medium, at(0), 1, &frame(1, 2, 0)), [0]);
        assert_eq!(carried(&mut medium, at(0), 0, &frame(2, 1, 0)), [1]);
        assert_eq!(carried(&mut medium, at(0), 0, &[0xff; 20]), [0; 0], "a group sends nothing");
        assert_eq!(carried(&mut medium, at(0), 0, &[2; 13]), [0; 0], "no header");
        let everybody = [&[0xff; 6][..], &frame(2, 3, 0)[6..]].concat();
        assert_eq!(carried(&mut medium, at(0), 2, &everybody), [0, 1]);
        for host in 0..=u8::MAX {
            for number in 0..=u8::MAX {
                let mut frame = frame(1, host, 0);
                frame[7] = number;
                carried(&mut medium, at(0), 1, &frame);
            }
        }
        assert!(medium.addresses.len() <= ADDRESSES_MAX);
    }

    #[test]
    fn nothing_crosses_a_cut_until_it_heals() {
        let mut medium = Medium::new(3);
        medium.cut(1, 0, true);
        assert_eq!(medium.cuts().collect::<Vec<_>>(), [(0, 1)]);
        assert_eq!(carried(&mut medium, at(0), 0, &frame(9, 1, 0)), [2]);
        assert_eq!(carried(&mut medium, at(0), 1, &frame(9, 2, 0)), [2]);
        assert_eq!(medium.counters.cut, 2);
        medium.cut(0, 1, false);
        assert_eq!(carried(&mut medium, at(0), 0, &frame(9, 1, 0)), [1, 2]);
    }

    /// The numbers of the frames that arrive when those from `0..count` are sent, one each millisecond.
    fn numbers(faults: &str, count: u8) -> (Vec<u8>, Counters) {
        let faults: Faults = faults.parse().unwrap();
        let mut medium = Medium::new(2);
        medium.set_faults(at(0), faults);
        let mut arrived = Vec::new();
        for number in 0..count {
            let now = at(number.into());
            arrived.extend(medium.arrivals(now).into_iter().map(|(_, frame)| frame[20]));
            if !carried(&mut medium, now, 0, &frame(2, 1, number)).is_empty() {
                arrived.push(number);
            }
        }
        arrived.extend(medium.arrivals(at(100_000)).into_iter().map(|(_, frame)| frame[20]));
        assert_eq!((medium.under_way_size, medium.poll_timeout()), (0, None));
        (arrived, medium.counters)
    }

    #[test]
    fn delayed_frames_stay_in_order_and_others_are_overtaken() {
        let all: Vec<u8> = (0..200).collect();
        assert_eq!(numbers("", 200).0, all);
        assert_eq!(numbers("delay=1ms..50ms", 200).0, all);
        let (mut arrived, counters) = numbers("reorder=20%,seed=3", 200);
        assert_ne!(arrived, all);
        arrived.sort_unstable();
        assert_eq!(arrived, all);
        assert!((20..60).contains(&counters.held_back));
    }

    #[test]
    fn frames_are_lost_doubled_and_damaged() {
        let (arrived, counters) = numbers("loss=10%,duplicate=10%,corrupt=10%", 250);
        assert!(counters.lost > 10 && counters.duplicated > 10 && counters.damaged > 10);
        let gone = counters.lost + counters.damaged; // what is not UDP is dropped when it is damaged
        assert_eq!(arrived.len() as u64, 250 - gone + counters.duplicated);
        assert_eq!(arrived.len() as u64, counters.delivered);
        assert_eq!(numbers("loss=10%,duplicate=10%,corrupt=10%", 250).0, arrived);
    }

    #[test]
    fn a_rate_spreads_frames_and_bounds_their_queue() {
        // 60 bytes take 48 ms; the fourth would wait for more than 100.
        let mut medium = Medium::new(2);
        medium.set_faults(at(0), "rate=10kbit".parse().unwrap());
        for number in 0..5 {
            carried(&mut medium, at(0), 0, &frame(2, 1, number));
        }
        assert_eq!(medium.poll_timeout(), Some(at(48)));
        assert_eq!(medium.arrivals(at(100)).len(), 2);
        assert_eq!((medium.arrivals(at(1000)).len(), medium.counters.overflowed), (1, 2));
    }

    #[test]
    fn what_is_under_way_is_bounded() {
        let mut medium = Medium::new(2);
        medium.set_faults(at(0), "delay=1s".parse().unwrap());
        let large = [&frame(2, 1, 0)[..], &[0; 1440]].concat();
        for _ in 0..50_000 {
            carried(&mut medium, at(0), 0, &large);
        }
        assert!(medium.under_way_size <= UNDER_WAY_MAX && medium.counters.overflowed > 0);
        let arrived = medium.arrivals(at(1000));
        assert_eq!(arrived.len(), UNDER_WAY_MAX / large.len());
        assert_eq!(medium.under_way_size, 0);
    }
}
