//! Hosts that are not members and come nevertheless: one that was removed tries again every second until somebody stops
//! it. Each is told of in the log once, and then once in a while with how often it has come.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use amoeba_threads::Instant;

/// How long one that comes again and again is only counted.
const TELL_INTERVAL: Duration = Duration::from_secs(3600);
/// Addresses that are remembered; past it, one that was told of longest ago is forgotten, and none before its time: others
/// are only counted.
const ADDRESSES_MAX: usize = if cfg!(test) { 4 } else { 256 };

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct TurnedAway {
    /// When each was told of last, and how often it came since.
    known: BTreeMap<IpAddr, (Instant, u64)>,
    total: u64,
}

impl TurnedAway {
    /// One more; how often this one has come since it was told of last, itself included, if it is to be told of now.
    pub(crate) fn count(&mut self, now: Instant, from: SocketAddr) -> Option<u64> {
        self.total += 1;
        let ip = from.ip().to_canonical();
        if let Some((told, count)) = self.known.get_mut(&ip) {
            *count += 1;
            if now.since(*told) < TELL_INTERVAL {
                return None;
            }
            *told = now;
            return Some(std::mem::take(count));
        }
        if self.known.len() >= ADDRESSES_MAX {
            let (oldest, told) =
                self.known.iter().map(|(ip, (told, _))| (*ip, *told)).min_by_key(|(_, told)| *told)?;
            if now.since(told) < TELL_INTERVAL {
                return None;
            }
            self.known.remove(&oldest);
        }
        self.known.insert(ip, (now, 0));
        Some(1)
    }

    /// How often anybody was turned away.
    pub(crate) fn total(&self) -> u64 {
        self.total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::from_epoch(Duration::from_secs(seconds))
    }

    fn from(number: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, number], 5321 + u16::from(number)))
    }

    #[test]
    fn one_that_comes_every_second_is_told_of_once_and_then_with_a_count() {
        let mut turned = TurnedAway::default();
        let told: Vec<_> = (0..=3600).filter_map(|second| turned.count(at(second), from(1))).collect();
        assert_eq!(told, [1, 3600]);
        assert_eq!(turned.count(at(3601), SocketAddr::from(([10, 0, 0, 1], 9))), None, "the port may change");
        assert_eq!((turned.count(at(3601), from(2)), turned.total()), (Some(1), 3603));
    }

    #[test]
    fn many_addresses_are_counted_and_only_some_told_of() {
        let mut turned = TurnedAway::default();
        let told = (0..100).filter(|number| turned.count(at(1), from(*number)).is_some()).count();
        assert_eq!((told, turned.total()), (ADDRESSES_MAX, 100));
        assert_eq!(turned.count(at(3601), from(99)), Some(1), "the others have had their time");
        assert_eq!(turned.known.len(), ADDRESSES_MAX);
    }
}
