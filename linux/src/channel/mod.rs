//! What two processes of one host share: memory that each maps, and bells.
//!
//! The protocol over it is `amoeba_channel`, which makes no system call; here are the regions, the bells and the way an
//! end waits: it looks, giving its processor away between two looks, for [`LOOK_TIME`], and then sleeps on its bell.

pub(crate) mod bell;
pub(crate) mod region;

use std::time::Duration;

use amoeba_threads::Instant;

use crate::threads::now;

/// How long an end looks before it sleeps: about what waking costs.
pub(crate) const LOOK_TIME: Duration = Duration::from_micros(20);

/// Looks that are taken without giving the processor away, when that has helped lately: about a microsecond.
const SPINS: u32 = 50;
/// Of the waits in which it has not helped lately, one in so many tries it again.
const TRY_INTERVAL: u32 = 16;
/// How much is remembered of whether it helped.
const MEMORY: u32 = 4;

/// Lets another thread run, if one wants to.
pub(crate) fn give_way() {
    rustix::thread::sched_yield();
}

/// What an end has learnt about its peer: one on another processor answers while this one spins; one on the same
/// processor cannot.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Habit {
    help: u32,
    waits: u32,
}

/// One wait of an end, from the moment at which there is nothing to do.
#[derive(Debug, Default)]
pub(crate) struct Look {
    spins: u32,
    given_way: u32,
    since: Option<Instant>,
}

impl Habit {
    /// The beginning of a wait.
    pub(crate) fn look(&mut self) -> Look {
        self.waits = self.waits.wrapping_add(1);
        let spin = self.help > 0 || self.waits.is_multiple_of(TRY_INTERVAL);
        Look { spins: if spin { SPINS } else { 0 }, ..Look::default() }
    }

    /// The end of a wait that was worth it.
    pub(crate) fn learn(&mut self, look: &Look) {
        if look.given_way == 0 {
            self.help = MEMORY;
        } else if look.spins == 0 {
            self.help = self.help.saturating_sub(1);
        }
    }
}

impl Look {
    /// Whether the next look is one without giving way; spins a moment.
    pub(crate) fn spin(&mut self) -> bool {
        if self.spins == 0 {
            return false;
        }
        self.spins -= 1;
        std::hint::spin_loop();
        true
    }

    /// Gives way; the time, or `None` once it has been looked for long enough.
    pub(crate) fn give_way(&mut self) -> Option<Instant> {
        let at = now();
        if at.since(*self.since.get_or_insert(at)) >= LOOK_TIME {
            return None;
        }
        self.given_way += 1;
        give_way();
        Some(at)
    }

    /// Whether it has given way so often.
    pub(crate) fn has_given_way(&self, count: u32) -> bool {
        self.given_way >= count
    }
}
