//! How many bytes may be under way: by loss and by delay.
//!
//! Once a round trip the shortest delay of that round is compared with the shortest ever measured: the difference is
//! what a queue of the network adds. Below [`QUEUE_TARGET`] the window grows, by doubling at first and then by a step;
//! above it, the window shrinks by what is too much. A loss halves it. Now and then a window that keeps a queue is made
//! small for two rounds, so that everybody on the way measures the delay without one: whoever came late would else take
//! the queue of the others for the way.

use std::time::Duration;

use amoeba_threads::Instant;

/// How long packets may wait in a queue of the network on our account.
pub const QUEUE_TARGET: Duration = Duration::from_millis(4);
/// Bytes that may be under way to a new peer.
const FIRST: usize = 256 << 10;
/// What a window has left when it is made small.
const SMALL: usize = 8 << 10;
/// How much a window grows in a round trip after the first doublings. The same for all: that makes their shares equal.
const STEP: usize = 8 << 10;
/// A shortest delay is believed for one to two of these.
const BASE_LIFE: Duration = Duration::from_secs(10);
/// Time between two moments with a small window, at least, and as a multiple of how long the last one took.
const SLOW_INTERVAL_MIN: Duration = Duration::from_secs(1);
const SLOW_SHARE: u32 = 15;
/// How much a packet may be overtaken by another before it counts as lost.
const REORDER_MIN: Duration = Duration::from_millis(1);
/// The shortest wait for an acknowledgement; the processes of a busy host are not always awake.
const TIMEOUT_MIN: Duration = Duration::from_millis(50);
const TIMEOUT_FIRST: Duration = Duration::from_millis(200);
const TIMEOUT_MAX: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug)]
pub(super) struct Window {
    size: usize,
    max: usize,
    /// Below it the window doubles.
    threshold: usize,
    round_trip: Option<(Duration, Duration)>,
    /// The shortest delays of this and of the last [`BASE_LIFE`].
    base: [Duration; 2],
    base_since: Instant,
    /// The shortest delay of this round.
    shortest: Duration,
    /// The round is over when a packet sent after this arrives.
    round: Instant,
    slow: Slow,
}

/// Moments with a small window.
#[derive(Debug)]
enum Slow {
    /// The next is due then.
    Due(Instant),
    /// It is on since then; so many rounds are left; then the window grows to this again.
    On { since: Instant, rounds: u32, size: usize },
    /// The window grows to what it was, since that moment began.
    Recovering { since: Instant, size: usize },
}

impl Window {
    pub(super) fn new(now: Instant, max: usize) -> Window {
        Window {
            size: FIRST.min(max),
            max,
            threshold: usize::MAX,
            round_trip: None,
            base: [Duration::MAX; 2],
            base_since: now,
            shortest: Duration::MAX,
            round: now,
            slow: Slow::Due(now + SLOW_INTERVAL_MIN),
        }
    }

    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// How long to wait for an acknowledgement, after `silent` waits in vain.
    pub(super) fn timeout(&self, silent: u32) -> Duration {
        let base = match self.round_trip {
            Some((mean, deviation)) => (mean + deviation * 4).max(TIMEOUT_MIN),
            None => TIMEOUT_FIRST,
        };
        (base * (1 << silent.min(8))).min(TIMEOUT_MAX)
    }

    /// How far a packet may be overtaken by others before it counts as lost.
    pub(super) fn reorder_margin(&self) -> Duration {
        self.round_trip.map_or(REORDER_MIN, |(mean, _)| (mean / 4).max(REORDER_MIN))
    }

    /// The mean time from a packet to its acknowledgement.
    pub(super) fn round_trip(&self) -> Option<Duration> {
        self.round_trip.map(|(mean, _)| mean)
    }

    /// A packet that was sent once, then, has arrived, and was held for so long at most before that was said. Timeouts
    /// count that too, the delay of the network does not.
    pub(super) fn measure(&mut self, now: Instant, sent: Instant, held: Duration) {
        let whole = now.since(sent);
        let (mean, deviation) = self.round_trip.unwrap_or((whole, whole / 2));
        let difference = whole.abs_diff(mean);
        self.round_trip = Some(((mean * 7 + whole) / 8, (deviation * 3 + difference) / 4));
        let sample = whole.saturating_sub(held);
        self.shortest = self.shortest.min(sample);
        if now.since(self.base_since) >= BASE_LIFE {
            self.base = [sample, self.base[0]];
            self.base_since = now;
        }
        self.base[0] = self.base[0].min(sample);
    }

    /// `size` bytes have arrived, the newest of them sent at `newest`; `full`: the window was what held us back.
    pub(super) fn acknowledged(&mut self, now: Instant, size: usize, newest: Instant, full: bool) {
        let doubling = self.size < self.threshold && !matches!(self.slow, Slow::On { .. });
        if doubling && full {
            self.size = (self.size + size).min(self.max);
        }
        if newest < self.round || self.shortest == Duration::MAX {
            return;
        }
        let base = self.base[0].min(self.base[1]);
        let queue = self.shortest.saturating_sub(base);
        (self.round, self.shortest) = (now, Duration::MAX);
        if self.slow_down(now, queue) {
            return;
        }
        if queue > QUEUE_TARGET {
            let excess = (queue - QUEUE_TARGET / 2).as_secs_f64() / (base + queue).as_secs_f64();
            self.shrink(self.size - (self.size as f64 * excess.min(0.5)) as usize);
        } else if doubling && queue > QUEUE_TARGET / 2 {
            self.threshold = self.size;
        } else if !doubling && full {
            self.size = (self.size + STEP).min(self.max);
        }
    }

    /// Makes the window small when it is time; whether it is.
    fn slow_down(&mut self, now: Instant, queue: Duration) -> bool {
        match &mut self.slow {
            Slow::Due(due) if now < *due => false,
            Slow::Due(due) if queue < QUEUE_TARGET / 4 || self.size <= 2 * SMALL => {
                *due = now + SLOW_INTERVAL_MIN / 4;
                false
            }
            Slow::Due(_) => {
                self.slow = Slow::On { since: now, rounds: 2, size: self.size };
                self.size = SMALL;
                true
            }
            Slow::On { rounds: 1.., .. } => {
                if let Slow::On { rounds, .. } = &mut self.slow {
                    *rounds -= 1;
                }
                true
            }
            Slow::On { since, size, .. } => {
                let (since, size) = (*since, *size);
                self.threshold = size;
                self.slow = Slow::Recovering { since, size };
                false
            }
            Slow::Recovering { since, size } => {
                if self.size >= *size || self.size >= self.threshold {
                    let took = now.since(*since);
                    self.slow = Slow::Due(now + (took * SLOW_SHARE).max(SLOW_INTERVAL_MIN));
                }
                false
            }
        }
    }

    /// Something was lost.
    pub(super) fn lost(&mut self) {
        self.shrink(self.size / 2);
    }

    /// Nothing was heard for too long.
    pub(super) fn silent(&mut self) {
        self.threshold = self.size / 2;
        self.size = 0;
    }

    fn shrink(&mut self, size: usize) {
        if !matches!(self.slow, Slow::On { .. }) {
            self.size = size.max(SMALL.min(self.max));
            self.threshold = self.size;
        }
    }
}
