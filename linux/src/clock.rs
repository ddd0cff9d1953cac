//! Time of day and randomness of the host.

use std::time::{Duration, SystemTime};

use amoeba_world::{Clock, Entropy};

/// The host's time of day.
#[derive(Clone, Copy, Debug, Default)]
pub struct WallClock;

impl Clock for WallClock {
    fn unix_time(&self) -> Duration {
        // A clock set before 1970 is as good as one that was never set.
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
    }
}

/// The operating system's randomness.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsEntropy;

impl Entropy for OsEntropy {
    fn fill(&self, bytes: &mut [u8]) {
        getrandom::fill(bytes).expect("Linux gives randomness to whoever waits for it");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn randomness_differs_and_time_is_past_1970() {
        let (mut one, mut two) = ([0; 32], [0; 32]);
        OsEntropy.fill(&mut one);
        OsEntropy.fill(&mut two);
        assert_ne!(one, two);
        assert!(WallClock.unix_time() > Duration::ZERO);
    }
}
