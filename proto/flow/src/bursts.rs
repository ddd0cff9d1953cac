//! Whether pieces are sealed together, as a burst that travels as many datagrams.
//!
//! Sealing costs less where it is long. But a burst is opened when all of it has come at once, or never: so it is used where
//! that works, which only trying tells. One burst is sent first, and single pieces meanwhile; once it has arrived, whatever
//! is new is sent in bursts, until one fails. Pieces are sent again one by one.
//!
//! ```text
//!   Untried ── a burst is sent ──▶ Trying ── it arrived ──▶ Works
//!      ▲                              │ lost                  │ lost
//!      └───────── a pause is over ─── Fails ◀─────────────────┘
//! ```

use std::time::Duration;

use amoeba_threads::Instant;

/// No shorter burst is worth it: in pieces.
pub(crate) const BURST_MIN: usize = 4;
/// Bytes of the largest burst; the operating system takes no more at once.
pub(crate) const BURST_SIZE_MAX: usize = 65_000;
/// How long no burst is sent after one was lost.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
/// Where bursts were lost again and again.
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// A loss so soon after a pause doubles the next.
const SOON: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug)]
pub(crate) struct Bursts {
    state: State,
    pause: Duration,
    /// The end of the last pause.
    since: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Untried,
    /// The first burst is under way; its first piece has this place in its message.
    Trying(usize),
    Works,
    Fails,
}

impl Bursts {
    pub(crate) fn new(now: Instant) -> Bursts {
        Bursts { state: State::Untried, pause: Duration::ZERO, since: now }
    }

    /// Whether one may be sent now.
    pub(crate) fn may(&mut self, now: Instant) -> bool {
        if self.state == State::Fails && now >= self.since {
            self.state = State::Untried;
        }
        matches!(self.state, State::Untried | State::Works)
    }

    /// One is sent, whose first piece is there in its message.
    pub(crate) fn sent(&mut self, offset: usize) {
        if self.state == State::Untried {
            self.state = State::Trying(offset);
        }
    }

    /// A piece that was sent in a burst has arrived.
    pub(crate) fn arrived(&mut self, offset: usize) {
        if self.state == State::Trying(offset) {
            self.state = State::Works;
        }
    }

    /// A piece that was sent in a burst is lost.
    pub(crate) fn lost(&mut self, now: Instant) {
        if self.state == State::Fails {
            return;
        }
        let soon = now.since(self.since) < SOON;
        self.pause = if soon { (self.pause * 2).clamp(PAUSE_FIRST, PAUSE_MAX) } else { PAUSE_FIRST };
        (self.state, self.since) = (State::Fails, now + self.pause);
    }

    /// The message is over; what became of its burst will not be heard.
    pub(crate) fn forget(&mut self) {
        if matches!(self.state, State::Trying(_)) {
            self.state = State::Untried;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::from_epoch(Duration::from_millis(millis))
    }

    #[test]
    fn one_burst_is_tried_and_then_all_are_sent() {
        let mut bursts = Bursts::new(at(0));
        assert!(bursts.may(at(0)));
        bursts.sent(7);
        assert!(!bursts.may(at(0)));
        bursts.arrived(8);
        assert!(!bursts.may(at(0)));
        bursts.arrived(7);
        assert!(bursts.may(at(0)));
        bursts.sent(9);
        assert!(bursts.may(at(0)));
    }

    #[test]
    fn a_way_on_which_they_are_lost_again_and_again_is_left_alone_for_longer_and_longer() {
        let (mut bursts, mut now, mut tries) = (Bursts::new(at(0)), 0, 0);
        while now < 3_600_000 {
            if bursts.may(at(now)) {
                tries += 1;
                bursts.sent(0);
                bursts.lost(at(now + 5));
                bursts.lost(at(now + 6)); // another piece of the same
            }
            now += 10;
        }
        assert!((65..80).contains(&tries), "{tries} tries in an hour");
        assert!(bursts.may(at(now + 60_000)));
        bursts.sent(0);
        bursts.arrived(0);
        bursts.lost(at(now + 70_000));
        assert!(!bursts.may(at(now + 70_099)) && bursts.may(at(now + 70_100)), "it has worked for a while");
    }
}
