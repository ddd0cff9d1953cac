//! The port cache: who answered for a port.

use std::collections::BTreeMap;
use std::time::Duration;

use amoeba_cap::PutPort;
use amoeba_wire::packet::Address;

use crate::{CACHE_MAX, SERVERS_PER_PORT_MAX};

/// A server process that answered for a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Server {
    /// Its process.
    pub address: Address,
    /// Measured round trip.
    pub round_trip: Duration,
}

/// Below this, differences between round trips say more of who was asleep than of distance.
const NEAR: Duration = Duration::from_micros(500);
/// What the wire says of a round trip, in milliseconds: the original's bounds.
const ROUND_TRIP_MIN: u16 = 10;
const ROUND_TRIP_MAX: u16 = 1000;

impl Server {
    /// The round trip as the original says it, in whole milliseconds within its bounds.
    pub(crate) fn round_trip_millis(&self) -> u16 {
        let millis = u16::try_from(self.round_trip.as_millis()).unwrap_or(u16::MAX);
        millis.clamp(ROUND_TRIP_MIN, ROUND_TRIP_MAX)
    }
}

#[derive(Debug)]
struct Entry {
    servers: Vec<Server>,
    /// Requests that were given to these servers.
    turn: usize,
    used: u64,
}

/// Servers by port, bounded; the port unused for longest goes first. A hint: whoever is asked may be gone.
#[derive(Debug, Default)]
pub struct PortCache {
    entries: BTreeMap<PutPort, Entry>,
    clock: u64,
}

impl PortCache {
    /// The server that the next request for the port should go to: of those that are not known to be gone the nearest,
    /// and of several that are about as near (their round trips differ by a factor of less than two, or are all those of
    /// one room) each in turn.
    pub fn lookup(&mut self, port: PutPort) -> Option<Server> {
        self.clock += 1;
        let entry = self.entries.get_mut(&port)?;
        entry.used = self.clock;
        let nearest = entry.servers.iter().map(|server| server.round_trip).min()?;
        let near = |server: &&Server| server.round_trip / 2 < nearest.max(NEAR);
        let count = entry.servers.iter().filter(near).count();
        let chosen = entry.servers.iter().filter(near).nth(entry.turn % count).copied();
        entry.turn = entry.turn.wrapping_add(1);
        chosen
    }

    /// The servers that are known for a port, none of them used by asking.
    pub fn servers(&self, port: PutPort) -> &[Server] {
        self.entries.get(&port).map_or(&[], |entry| &entry.servers)
    }

    /// A server answered.
    pub fn insert(&mut self, port: PutPort, server: Server) {
        if !self.entries.contains_key(&port) && self.entries.len() >= CACHE_MAX {
            let oldest = self.entries.iter().min_by_key(|(_, entry)| entry.used).map(|(port, _)| *port);
            if let Some(oldest) = oldest {
                self.entries.remove(&oldest);
            }
        }
        self.clock += 1;
        let used = self.clock;
        let entry = self.entries.entry(port).or_insert_with(|| Entry { servers: Vec::new(), turn: 0, used });
        if let Some(known) = entry.servers.iter_mut().find(|known| known.address == server.address) {
            known.round_trip = server.round_trip;
        } else if entry.servers.len() < SERVERS_PER_PORT_MAX {
            entry.servers.push(server);
        }
    }

    /// That server does not, or no longer, serve the port.
    pub fn remove(&mut self, port: PutPort, address: Address) {
        if let Some(entry) = self.entries.get_mut(&port) {
            entry.servers.retain(|server| server.address != address);
            if entry.servers.is_empty() {
                self.entries.remove(&port);
            }
        }
    }

    /// This process is gone.
    pub fn forget(&mut self, address: Address) {
        self.entries.retain(|_, entry| {
            entry.servers.retain(|server| server.address != address);
            !entry.servers.is_empty()
        });
    }

    /// Ports known now.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_of_one_room_take_turns_and_those_beyond_are_left_alone() {
        let port = PutPort::from_bytes([1; 6]);
        let mut cache = PortCache::default();
        for (number, micros) in [(1, 80), (2, 300), (3, 900), (4, 9000)] {
            let (address, round_trip) = (Address([number; 8]), Duration::from_micros(micros));
            cache.insert(port, Server { address, round_trip });
        }
        let mut asked = || cache.lookup(port).map(|server| server.address.0[0]);
        let turns: Vec<_> = (0..6).filter_map(|_| asked()).collect();
        assert_eq!(turns, [1, 2, 3, 1, 2, 3], "9 ms are another site");
        for number in 1..=3 {
            cache.remove(port, Address([number; 8]));
        }
        assert_eq!(cache.lookup(port).map(|server| server.address.0[0]), Some(4));
    }

    #[test]
    fn the_wire_has_whole_milliseconds_within_the_originals_bounds() {
        let millis = |micros| {
            Server { address: Address([1; 8]), round_trip: Duration::from_micros(micros) }.round_trip_millis()
        };
        assert_eq!([0, 80, 12_900, 5_000_000, u64::MAX].map(millis), [10, 10, 12, 1000, 1000]);
    }
}
