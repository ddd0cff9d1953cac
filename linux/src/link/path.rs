//! How large a datagram the way to a peer carries.
//!
//! Every way carries [`SIZE_MIN`]. Larger sizes are tried with padded datagrams that no router may cut; what is answered
//! is carried. When numbered packets of a larger size vanish, the way has changed: back to the smallest, and try again.

use std::time::Duration;

use amoeba_threads::Instant;

/// What every network under IPv6 carries: 1280 bytes with the headers of IPv6 and UDP.
pub(crate) const SIZE_MIN: u16 = 1232;
/// What is tried: an Ethernet, an Ethernet with large frames, and the loopback network, all under IPv6.
pub(crate) const SIZES: [u16; 3] = [1452, 8952, 65_507];
/// How often each size is tried before it counts as too large.
const TRIES: u32 = 3;
/// Too large sizes are tried again after this time: ways change.
const AGAIN: Duration = Duration::from_secs(600);

/// See the module.
#[derive(Debug)]
pub(crate) struct Path {
    size: u16,
    tries: u32,
    again: Instant,
}

impl Path {
    pub(crate) fn new(now: Instant) -> Path {
        Path { size: SIZE_MIN, tries: 0, again: now + AGAIN }
    }

    /// Bytes of the largest datagram that is known to be carried.
    pub(crate) fn size(&self) -> u16 {
        self.size
    }

    /// The sizes to try now; to be asked about once a second.
    pub(crate) fn probes(&mut self, now: Instant) -> impl Iterator<Item = u16> + use<> {
        if self.again <= now {
            (self.tries, self.again) = (0, now + AGAIN);
        }
        let try_now = self.tries < TRIES;
        self.tries += u32::from(try_now);
        let size = self.size;
        SIZES.into_iter().filter(move |larger| try_now && *larger > size)
    }

    /// A datagram of this size was carried. Whether that is news.
    pub(crate) fn carried(&mut self, size: u16) -> bool {
        let news = size > self.size && SIZES.contains(&size);
        if news {
            self.size = size;
        }
        news
    }

    /// Datagrams larger than the smallest vanish. Whether that changes anything.
    pub(crate) fn shrink(&mut self, now: Instant) -> bool {
        let changes = self.size > SIZE_MIN;
        if changes {
            *self = Path::new(now);
        }
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::from_epoch(Duration::from_secs(seconds))
    }

    #[test]
    fn it_grows_to_what_is_carried_and_rests() {
        let mut path = Path::new(at(0));
        assert_eq!(path.probes(at(0)).collect::<Vec<_>>(), SIZES);
        assert!(
            path.carried(1452) && !path.carried(1452) && !path.carried(1300),
            "only what was tried counts"
        );
        assert_eq!(path.probes(at(1)).collect::<Vec<_>>(), [8952, 65_507]);
        assert_eq!(path.probes(at(2)).count(), 2);
        assert_eq!(path.probes(at(3)).count(), 0);
        assert_eq!(path.probes(at(601)).count(), 2);
        assert_eq!(path.size(), 1452);
    }

    #[test]
    fn a_way_that_got_narrower_is_tried_anew() {
        let mut path = Path::new(at(0));
        assert!(path.carried(8952) && path.shrink(at(5)) && !path.shrink(at(5)));
        assert_eq!((path.size(), path.probes(at(6)).count()), (SIZE_MIN, 3));
    }
}
