//! How large a datagram the way to a peer carries.
//!
//! Every way carries [`SIZE_MIN`]. Larger sizes are tried with padded datagrams that no router may cut; what is answered
//! is carried. When numbered packets vanish, a datagram of the size that was carried and one of the smallest are tried
//! together: if only the small one is answered, again and again, the way has changed. Then everything begins anew.

use std::time::Duration;

use amoeba_threads::Instant;

/// What every network under IPv6 carries: 1280 bytes with the headers of IPv6 and UDP.
pub(crate) const SIZE_MIN: u16 = 1232;
/// What is tried: an Ethernet, an Ethernet with large frames, and the loopback network, all under IPv6.
pub(crate) const SIZES: [u16; 3] = [1452, 8952, 65_507];
/// How often each size is tried before it counts as too large.
const TRIES: u32 = 3;
/// How often the smallest is answered and not the larger before the larger counts as not carried any more.
const DOUBTS_MAX: u32 = 3;
/// Too large sizes are tried again after this time: ways change.
const AGAIN: Duration = Duration::from_secs(600);

/// See the module.
#[derive(Debug)]
pub(crate) struct Path {
    size: u16,
    tries: u32,
    /// Answers to the smallest without one to the size that was carried.
    doubts: u32,
    again: Instant,
}

impl Path {
    pub(crate) fn new(now: Instant) -> Path {
        Path { size: SIZE_MIN, tries: 0, doubts: 0, again: now + AGAIN }
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

    /// A datagram of this size was carried. Whether that changes the size.
    pub(crate) fn carried(&mut self, now: Instant, size: u16) -> bool {
        if size >= self.size && SIZES.contains(&size) {
            let news = size > self.size;
            (self.size, self.doubts) = (size, 0);
            return news;
        }
        self.doubts += u32::from(size == SIZE_MIN);
        self.doubts >= DOUBTS_MAX && self.shrink(now)
    }

    /// Numbered packets vanish: what to try together, the largest first, if that can be on account of their size.
    pub(crate) fn doubt(&self) -> Option<[u16; 2]> {
        (self.size > SIZE_MIN).then_some([self.size, SIZE_MIN])
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
        assert!(path.carried(at(0), 1452) && !path.carried(at(0), 1452));
        assert!(!path.carried(at(0), 1300), "only what was tried counts");
        assert_eq!(path.probes(at(1)).collect::<Vec<_>>(), [8952, 65_507]);
        assert_eq!(path.probes(at(2)).count(), 2);
        assert_eq!(path.probes(at(3)).count(), 0);
        assert_eq!(path.probes(at(601)).count(), 2);
        assert_eq!(path.size(), 1452);
    }

    #[test]
    fn a_way_that_got_narrower_is_tried_anew() {
        let mut path = Path::new(at(0));
        assert!(path.carried(at(0), 8952) && path.shrink(at(5)) && !path.shrink(at(5)));
        assert_eq!((path.size(), path.probes(at(6)).count()), (SIZE_MIN, 3));
    }

    #[test]
    fn only_a_way_that_carries_small_ones_alone_is_narrower() {
        let mut path = Path::new(at(0));
        assert_eq!(path.doubt(), None);
        path.carried(at(0), 8952);
        for _ in 0..10 {
            assert_eq!(path.doubt(), Some([8952, SIZE_MIN]));
            assert!(
                !path.carried(at(1), SIZE_MIN)
                    && !path.carried(at(1), SIZE_MIN)
                    && !path.carried(at(1), 8952)
            );
        }
        assert!(
            !path.carried(at(2), SIZE_MIN) && !path.carried(at(2), SIZE_MIN) && path.carried(at(2), SIZE_MIN)
        );
        assert_eq!((path.size(), path.doubt()), (SIZE_MIN, None));
    }
}
