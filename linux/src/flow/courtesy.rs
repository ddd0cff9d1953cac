//! Giving way to whoever wants little.
//!
//! A thread that moves a long message keeps its processor for as long as the scheduler lets it: milliseconds, in which a
//! null transaction of somebody else waits. So it gives its processor away now and then. Where that takes long, others
//! compute too, and would be given everything: then it does not for a while, and the scheduler shares.

use std::time::Duration;

use amoeba_threads::Instant;

use crate::look::give_way;
use crate::threads::now;

/// How long a thread keeps its processor at a time.
const TURN: Duration = Duration::from_micros(100);
/// Giving way for so long means that others compute.
const CROWD: Duration = Duration::from_micros(300);
/// Then it does not give way for so long.
const CROWD_TIME: Duration = Duration::from_millis(50);

/// See the module.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Courtesy {
    /// When the next time to give way is.
    next: Instant,
}

impl Courtesy {
    /// To be called between two pieces of work.
    pub(crate) fn busy(&mut self) {
        let before = now();
        if self.is_due(before) {
            give_way();
            self.gave_way(before, now());
        }
    }

    fn is_due(&self, at: Instant) -> bool {
        at >= self.next
    }

    fn gave_way(&mut self, before: Instant, after: Instant) {
        let pause = if after.since(before) >= CROWD { CROWD_TIME } else { TURN };
        self.next = after + pause;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_gives_way_each_turn_and_not_to_those_who_compute() {
        let (mut courtesy, start) = (Courtesy::default(), Instant::from_epoch(Duration::from_secs(1)));
        assert!(courtesy.is_due(start));
        courtesy.gave_way(start, start + TURN / 10);
        assert!(!courtesy.is_due(start + TURN) && courtesy.is_due(start + TURN * 2));
        courtesy.gave_way(start, start + CROWD);
        assert!(!courtesy.is_due(start + CROWD_TIME) && courtesy.is_due(start + CROWD + CROWD_TIME));
    }
}
