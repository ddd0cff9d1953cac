//! Ethernet-like networks between hosts, one unless a test wants more: seeded delay, loss, duplication, reordering, and
//! partitions that heal.

use std::collections::BTreeMap;
use std::time::Duration;

use amoeba_threads::Instant;

use crate::random::Prng;
use crate::trace::{Happening, Trace, digest};

/// The longest a packet may be on its way, over all networks that it crosses together. Below FLIP's packet life of 500 ms,
/// as the protocol assumes.
pub const DELAY_MAX: Duration = Duration::from_millis(450);
/// Packets on their way at once; more are lost, as in a full switch.
pub const FLYING_MAX: usize = 1 << 16;
/// Packets that a scribbler remembers.
const HEARD_MAX: usize = 64;

/// How the link misbehaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Faults {
    /// The shortest and the longest normal delay of a packet; what lies between reorders.
    pub delay: (Duration, Duration),
    /// Of a thousand packets, how many are lost.
    pub loss: u32,
    /// Of a thousand packets, how many arrive twice.
    pub duplicate: u32,
    /// Of a thousand packets, how many take up to [`DELAY_MAX`].
    pub late: u32,
}

impl Faults {
    /// A quiet local network.
    pub const NONE: Faults = Faults {
        delay: (Duration::from_micros(40), Duration::from_micros(120)),
        loss: 0,
        duplicate: 0,
        late: 0,
    };
    /// One packet in ten is lost, one in twenty doubled, and order means nothing.
    pub const STORM: Faults = Faults {
        delay: (Duration::from_micros(40), Duration::from_millis(10)),
        loss: 100,
        duplicate: 50,
        late: 50,
    };
}

/// A place on the link: hosts in the order they were added, scribblers among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Station(pub(crate) u16);

pub(crate) struct Flying {
    pub(crate) from: Station,
    pub(crate) to: Station,
    pub(crate) packet: Vec<u8>,
}

pub(crate) struct Network {
    pub(crate) faults: Faults,
    /// The side of each station; packets pass only within a side.
    sides: Vec<u32>,
    /// The network of each station.
    networks: Vec<u16>,
    /// How many networks there are.
    count: u16,
    flying: BTreeMap<(Instant, u64), Flying>,
    /// What a promiscuous listener heard last.
    heard: Vec<Vec<u8>>,
    random: Prng,
    scribble: Prng,
    next: u64,
}

impl Network {
    pub(crate) fn new(faults: Faults, random: Prng, scribble: Prng) -> Network {
        Network {
            faults,
            sides: Vec::new(),
            networks: Vec::new(),
            count: 1,
            flying: BTreeMap::new(),
            heard: Vec::new(),
            random,
            scribble,
            next: 0,
        }
    }

    /// A new station of network `network`, counted from 0.
    pub(crate) fn add_station(&mut self, network: u16) -> Station {
        self.sides.push(0);
        self.networks.push(network);
        self.count = self.count.max(network + 1);
        Station((self.sides.len() - 1) as u16)
    }

    pub(crate) fn set_faults(&mut self, faults: Faults) {
        assert!(faults.delay.0 <= faults.delay.1 && faults.delay.1 <= DELAY_MAX, "delays are bounded");
        self.faults = faults;
    }

    /// Cuts the link: a packet passes only between stations that `side` gives the same number.
    pub(crate) fn partition(&mut self, side: impl Fn(Station) -> u32) {
        for (index, place) in self.sides.iter_mut().enumerate() {
            *place = side(Station(index as u16));
        }
    }

    /// Puts a packet on the link; `to` is `None` for everybody else.
    pub(crate) fn send(
        &mut self,
        now: Instant,
        from: Station,
        to: Option<Station>,
        packet: &[u8],
        trace: &mut Trace,
    ) {
        self.hear(packet);
        let network = |station: Station| self.networks.get(usize::from(station.0));
        let near = |station: &Station| *station != from && network(*station) == network(from);
        let receivers: Vec<Station> = match to {
            Some(station) => vec![station],
            None => (0..self.sides.len() as u16).map(Station).collect(),
        };
        let receivers: Vec<Station> = receivers.into_iter().filter(near).collect();
        for to in receivers {
            let copies =
                match (self.random.chance(self.faults.loss), self.random.chance(self.faults.duplicate)) {
                    (true, _) => 0,
                    (false, false) => 1,
                    (false, true) => 2,
                };
            if copies == 0 || self.flying.len() + copies > FLYING_MAX {
                trace.add(now, Happening::Lost { from: from.0, to: to.0, size: packet.len() });
                continue;
            }
            for _ in 0..copies {
                let arrival = now + self.delay();
                self.flying.insert((arrival, self.next), Flying { from, to, packet: packet.to_vec() });
                self.next += 1;
            }
        }
    }

    fn delay(&mut self) -> Duration {
        let (low, high) = self.faults.delay;
        let high =
            if self.random.chance(self.faults.late) { DELAY_MAX / u32::from(self.count) } else { high };
        Duration::from_nanos(self.random.between(low.as_nanos() as u64, high.as_nanos() as u64))
    }

    pub(crate) fn next_arrival(&self) -> Option<Instant> {
        self.flying.first_key_value().map(|((arrival, _), _)| *arrival)
    }

    /// The next packet that arrives by `now`; a packet that meets a partition is lost.
    pub(crate) fn arrive(&mut self, now: Instant, trace: &mut Trace) -> Option<Flying> {
        while self.next_arrival()? <= now {
            let (_, flying) = self.flying.pop_first().expect("it was just seen");
            let side = |station: Station| self.sides.get(usize::from(station.0));
            let (from, to, size) = (flying.from.0, flying.to.0, flying.packet.len());
            if side(flying.from) != side(flying.to) || side(flying.to).is_none() {
                trace.add(now, Happening::Lost { from, to, size });
                continue;
            }
            trace.add(now, Happening::Packet { from, to, size, digest: digest(&flying.packet) });
            return Some(flying);
        }
        None
    }

    fn hear(&mut self, packet: &[u8]) {
        if self.heard.len() < HEARD_MAX {
            self.heard.push(packet.to_vec());
        } else {
            let index = self.scribble.below(HEARD_MAX as u64) as usize;
            self.heard[index] = packet.to_vec();
        }
    }

    /// A hostile packet of at most `size_max` bytes: noise, or something heard with a few changes.
    pub(crate) fn hostile_packet(&mut self, size_max: usize) -> Vec<u8> {
        let random = &mut self.scribble;
        if self.heard.is_empty() || random.chance(200) {
            let size = random.between(0, size_max as u64) as usize;
            return random.bytes(size);
        }
        let mut packet = random.pick(&self.heard).clone();
        for _ in 0..random.between(0, 4) {
            if let Some(last) = packet.len().checked_sub(1) {
                // The headers are where lies are worth telling.
                let reach = if random.chance(800) { last.min(95) } else { last };
                let index = random.between(0, reach as u64) as usize;
                let noise = random.word() as u8;
                packet[index] = *random.pick(&[0, 1, 0x7F, 0x80, 0xFF, noise]);
            }
        }
        match random.below(8) {
            0 => packet.truncate(random.between(0, packet.len() as u64) as usize),
            1 => packet.extend(random.bytes(32)),
            _ => {}
        }
        packet.truncate(size_max);
        packet
    }

    /// A station among all, for whoever sends to anybody.
    pub(crate) fn any_station(&mut self) -> Station {
        Station(self.scribble.below(self.sides.len() as u64) as u16)
    }
}
