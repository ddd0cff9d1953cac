//! How one end waits for another, which may be about to answer on this processor, on another one, or not for long.
//!
//! One wait is: **spin** for about a microsecond, where looking is a load from memory and where that has helped lately;
//! then look and **give way** in turns, for [`LOOK_TIME`]; then **sleep**, on whatever tells of an answer. Whoever looks at
//! memory says [`Look::at_memory`], whoever looks by a system call [`Look::default`], which does not spin.
//!
//! Where spinning has helped, both ends run, each on a processor of its own. There a sleep costs more than itself: who is
//! woken is put on the processor of whoever woke it, and the two share that one until the scheduler parts them, many
//! milliseconds later. So each wait that ended while spinning buys [`CREDIT`] of patience, up to [`CREDIT_MAX`], for the
//! one wait in which the peer is held up for a moment. A sleep takes it all, and so does somebody else who needs the
//! processor. What is looked in vain is never more than a part of what was done meanwhile.
//!
//! ```text
//!            spin ──────▶ give way ──────▶ sleep
//!              │ found        │ found        │ woken
//!              ▼              ▼              ▼
//!            helped         helped       was it long?
//! ```
//! An end gives way where both may need the same processor: there, spinning keeps the other from answering. It sleeps at
//! once, in place of looking:
//!
//! - where its last waits were so long that nobody's looking could have spared the sleep ([`WORTH_TIME`]). A wait that
//!   was short, even asleep, ends this: had both ends looked, neither would have slept;
//! - where processors are short, so that giving way takes longer than being woken, and what it waits for comes through the
//!   operating system: whoever is woken is preferred to those who compute, whoever gave way is not. This lasts for
//!   [`CROWD_TIME`]. Two ends that share memory still do better by giving way to each other: what they lose to those
//!   who compute is less than waking each other every time.

use std::time::Duration;

use amoeba_threads::Instant;

use crate::threads::now;

/// How long an end looks before it sleeps: about what waking costs.
pub(crate) const LOOK_TIME: Duration = Duration::from_micros(20);

/// Patience that a wait buys which ended while spinning.
const CREDIT: Duration = Duration::from_micros(1);
/// The most of it.
const CREDIT_MAX: Duration = Duration::from_micros(180);
/// Where giving way takes longer, somebody else needs the processor: there it is no place for patience.
const SHARED: Duration = Duration::from_micros(3);

/// A wait of more than this had to be slept through: two ends that both sleep wake each other in less.
const WORTH_TIME: Duration = Duration::from_micros(500);
/// After so many waits of more than that, one after the other, an end no longer looks.
const LONG_WAITS: u32 = 8;

/// Giving the processor away for so long means that processors are short.
const CROWD: Duration = Duration::from_micros(150);
/// Then an end sleeps at once for a while.
const CROWD_TIME: Duration = Duration::from_millis(20);

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

/// What to do where nothing has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Look again; hardly any time has passed.
    Spun,
    /// Look again; the time after giving way.
    GaveWay(Instant),
    /// Sleep, after a last look; the time.
    Sleep(Instant),
}

/// How one end waits, and what it has learnt about its peers.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Look {
    /// Looking is a load from memory.
    at_memory: bool,
    /// Above zero where spinning has helped lately: the peer runs on another processor.
    help: u32,
    waits: u32,
    /// How many of the last waits were too long, one after the other.
    long: u32,
    crowded_until: Instant,
    /// How much longer than [`LOOK_TIME`] it looks before the next sleep.
    credit: Duration,
    wait: Option<Wait>,
}

/// One wait, from the moment at which there was nothing.
#[derive(Clone, Copy, Debug)]
struct Wait {
    spun: bool,
    spins_left: u32,
    given_way: u32,
    /// When spinning was over, and when it gave way last.
    since: Option<(Instant, Instant)>,
}

impl Look {
    /// For an end whose looks cost nothing but a load from memory.
    pub(crate) fn at_memory() -> Look {
        Look { at_memory: true, ..Look::default() }
    }

    /// Nothing has come: spins or gives way, and says what is to be done next.
    pub(crate) fn again(&mut self) -> Next {
        if self.spin() {
            std::hint::spin_loop();
            return Next::Spun;
        }
        let at = self.wait.and_then(|wait| wait.since).map_or_else(now, |(_, last)| last);
        if !self.is_worth_it(at) {
            return Next::Sleep(at);
        }
        give_way();
        let after = now();
        self.gave_way(at, after);
        Next::GaveWay(after)
    }

    /// Something has come: this wait is over.
    pub(crate) fn found(&mut self) {
        let Some(wait) = self.wait.take() else { return };
        self.long = 0;
        let helped = wait.spun && wait.given_way == 0;
        if helped {
            self.help = MEMORY;
            self.credit = CREDIT_MAX.min(self.credit + CREDIT);
        } else {
            self.help = self.help.saturating_sub(1);
        }
    }

    /// Whoever was to sleep has slept: this wait is over, if there was one.
    pub(crate) fn slept(&mut self) {
        if let Some((since, _)) = self.wait.take().and_then(|wait| wait.since) {
            self.woken(now().since(since));
        }
    }

    /// How often this wait has given way.
    pub(crate) fn given_way(&self) -> u32 {
        self.wait.map_or(0, |wait| wait.given_way)
    }

    /// Whether to spin, and look again.
    fn spin(&mut self) -> bool {
        let wait = match &mut self.wait {
            Some(wait) => wait,
            None => {
                self.waits = self.waits.wrapping_add(1);
                let helps = self.help > 0 || self.waits.is_multiple_of(TRY_INTERVAL);
                let spun = self.at_memory && helps && self.long < LONG_WAITS;
                let spins_left = if spun { SPINS } else { 0 };
                self.wait.insert(Wait { spun, spins_left, given_way: 0, since: None })
            }
        };
        let spin = wait.spins_left > 0;
        wait.spins_left = wait.spins_left.saturating_sub(1);
        spin
    }

    /// Whether to look on after this moment.
    fn is_worth_it(&mut self, at: Instant) -> bool {
        let Some(wait) = &mut self.wait else { return true };
        let (since, _) = *wait.since.get_or_insert((at, at));
        self.long < LONG_WAITS && at >= self.crowded_until && at.since(since) < LOOK_TIME + self.credit
    }

    fn gave_way(&mut self, before: Instant, after: Instant) {
        if !self.at_memory && after.since(before) >= CROWD {
            self.crowded_until = after + CROWD_TIME;
        }
        if after.since(before) > SHARED {
            self.credit = Duration::ZERO;
        }
        if let Some(wait) = &mut self.wait {
            wait.given_way += 1;
            wait.since = wait.since.map(|(since, _)| (since, after));
        }
    }

    fn woken(&mut self, lasted: Duration) {
        self.long = if lasted < WORTH_TIME { 0 } else { (self.long + 1).min(LONG_WAITS) };
        self.credit = Duration::ZERO;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: Duration = Duration::from_micros(1);

    /// A wait in which nothing comes, giving way for a microsecond at a time: how often it spun and gave way. It
    /// began at `at`, which is afterwards when it slept.
    fn wait(look: &mut Look, at: &mut Instant) -> (u32, u32) {
        let mut spins = 0;
        while look.spin() {
            spins += 1;
        }
        while look.is_worth_it(*at) {
            look.gave_way(*at, *at + STEP);
            *at = *at + STEP;
        }
        (spins, look.given_way())
    }

    fn sleep(look: &mut Look, lasted: Duration) {
        look.wait = None;
        look.woken(lasted);
    }

    #[test]
    fn an_end_looks_for_twenty_microseconds_and_then_sleeps() {
        let (mut look, mut at) = (Look::default(), Instant::default());
        for _ in 0..100 {
            assert_eq!(wait(&mut look, &mut at), (0, 20));
            sleep(&mut look, STEP * 50);
        }
    }

    /// A wait that ends after the first spin, if there is one, or after giving way, if `late`; whether it spun.
    fn short_wait(look: &mut Look, late: bool) -> bool {
        let spun = look.spin();
        while late && look.spin() {}
        if late || !spun {
            assert!(look.is_worth_it(Instant::default()));
            look.gave_way(Instant::default(), Instant::default() + STEP);
        }
        look.found();
        spun
    }

    #[test]
    fn spinning_goes_on_where_it_helps_and_is_tried_now_and_then_where_it_does_not() {
        let mut look = Look::at_memory();
        assert_eq!((1..TRY_INTERVAL).filter(|_| short_wait(&mut look, false)).count(), 0);
        assert_eq!((0..100).filter(|_| short_wait(&mut look, false)).count(), 100, "the first try helped");
        let tries = (0..16 * TRY_INTERVAL).filter(|_| short_wait(&mut look, true)).count();
        assert!((16..=16 + MEMORY as usize).contains(&tries), "{tries} tries");
        assert!(!short_wait(&mut Look::default(), true), "a look that costs a system call is no spin");
    }

    #[test]
    fn waits_that_ended_while_spinning_buy_patience_for_one_sleep() {
        let (mut look, mut at) = (Look::at_memory(), Instant::default());
        while !short_wait(&mut look, false) {}
        assert_eq!(wait(&mut look, &mut at).1, 21);
        sleep(&mut look, STEP * 50);
        assert_eq!(wait(&mut look, &mut at).1, 20, "the sleep took it");
        look.found();
        assert_eq!((0..1000).filter(|_| short_wait(&mut look, false)).count(), 1000);
        assert_eq!(wait(&mut look, &mut at).1, 200);
        look.found();
        assert!(short_wait(&mut look, false) && look.spin() && look.is_worth_it(at));
        look.gave_way(at, at + SHARED + STEP);
        look.found();
        assert_eq!(wait(&mut look, &mut at).1, 20, "somebody else needs the processor");
    }

    #[test]
    fn who_waits_long_again_and_again_no_longer_looks_until_a_wait_is_short() {
        let (mut look, mut at) = (Look::at_memory(), Instant::default());
        for _ in 0..LONG_WAITS {
            assert_eq!(wait(&mut look, &mut at).1, 20);
            sleep(&mut look, WORTH_TIME);
        }
        for _ in 0..100 {
            assert_eq!(wait(&mut look, &mut at), (0, 0));
            sleep(&mut look, WORTH_TIME * 10);
        }
        wait(&mut look, &mut at);
        sleep(&mut look, STEP * 100);
        assert_eq!(wait(&mut look, &mut at).1, 20, "both ends slept through what was worth a look");
    }

    #[test]
    fn where_processors_are_short_an_end_of_a_socket_sleeps_at_once_for_a_while() {
        let (mut look, mut at) = (Look::default(), Instant::default());
        assert!(!look.spin() && look.is_worth_it(at));
        look.gave_way(at, at + CROWD);
        at = at + CROWD;
        look.found();
        assert_eq!(wait(&mut look, &mut at), (0, 0));
        sleep(&mut look, STEP);
        at = at + CROWD_TIME;
        assert_eq!(wait(&mut look, &mut at), (0, 20));
        let mut look = Look::at_memory();
        assert!(!look.spin() && look.is_worth_it(at));
        look.gave_way(at, at + CROWD);
        look.found();
        assert_eq!(wait(&mut look, &mut at), (0, 20));
    }
}
