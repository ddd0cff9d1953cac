//! Whether those who leave the desk with a request come back at once.
//!
//! Whoever leaves tells every client to ring, so that another thread is woken where the request takes long. Where requests
//! take less time than waking a thread, that costs more than all the rest: a word of every channel is written twice for
//! each request, and whoever asks meanwhile rings a bell that wakes somebody for nothing. So where the last requests were
//! brief, whoever leaves says nothing; and one of those who sleep wakes each [`WATCH_INTERVAL`], for the day on which one
//! of them does not come back.

use std::time::Duration;

/// A request is brief that is answered before another thread could have been woken.
const BRIEF: Duration = Duration::from_micros(10);
/// So many brief ones make a habit.
const RUN: u32 = 32;
/// No more count. A long one takes half of them: one is an exception, two within a few requests are none.
const RUN_MAX: u32 = 64;
/// How long clients wait, at most, when a request takes long where that was not expected.
pub(super) const WATCH_INTERVAL: Duration = Duration::from_micros(500);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Habit {
    /// Brief requests of late.
    brief: u32,
    /// Threads that sleep for no longer than [`WATCH_INTERVAL`].
    pub(super) watchers: usize,
    /// There is no channel but the one that was taken along: nobody else waits, and nobody need watch.
    pub(super) is_alone: bool,
    /// Whoever looked is away with a request, and has told nobody to ring.
    pub(super) is_away: bool,
}

impl Habit {
    /// Whether the last requests were brief, so that somebody should watch.
    pub(super) fn is_brief(&self) -> bool {
        self.brief >= RUN && !self.is_alone
    }

    /// Whether whoever leaves need tell nobody.
    pub(super) fn is_trusted(&self) -> bool {
        self.is_brief() && self.watchers > 0
    }

    /// A request was answered.
    pub(super) fn answered(&mut self, after: Duration) {
        self.brief = if after < BRIEF { (self.brief + 1).min(RUN_MAX) } else { self.brief / 2 };
    }

    /// There is nothing to do: nobody need watch.
    pub(super) fn quiet(&mut self) {
        self.brief = 0;
    }
}
