//! What was placed on a host and its load does not show yet.
//!
//! A host tells its load as an average over a minute, so a process it has just got is seen in it only by and by; and one
//! that is still being fetched is not even among its guests. So a placement counts whole until the second answer after it
//! (a poll may be under way, a program on the way), and then less and less, as the average takes it up; of these older
//! ones no more count than the host has guests, since short processes have ended by then.

use std::time::Duration;

use amoeba_threads::Instant;

/// The time over which hosts average their load.
const LOAD_SHOWN: Duration = Duration::from_secs(60);
/// By then a process is taken to have got the memory it wants, so that the host tells of it.
const MEMORY_SHOWN: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Sum {
    count: f64,
    memory: f64,
}

impl Sum {
    fn add(&mut self, other: Sum) {
        self.count += other.count;
        self.memory += other.memory;
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Account {
    /// Since the host was last asked.
    fresh: Sum,
    /// Before it was asked, while no answer is there.
    asked: Sum,
    /// Before it was asked the last time but one.
    grace: Sum,
    /// Older ones, as of `settled_at`.
    settled: Sum,
    settled_at: Instant,
}

impl Account {
    pub(crate) fn new(now: Instant) -> Account {
        let none = Sum::default();
        Account { fresh: none, asked: none, grace: none, settled: none, settled_at: now }
    }

    /// A process was placed that is going to use so many bytes.
    pub(crate) fn place(&mut self, memory: u64) {
        self.fresh.add(Sum { count: 1.0, memory: memory as f64 });
    }

    /// A process has ended that was placed here and was going to use so many bytes. It is taken off the latest
    /// placements, since short processes are those whose ends are told.
    pub(crate) fn end(&mut self, now: Instant, memory: u64) {
        self.settled = self.settled(now);
        self.settled_at = now;
        let mut left = Sum { count: 1.0, memory: memory as f64 };
        for part in [&mut self.fresh, &mut self.asked, &mut self.grace, &mut self.settled] {
            let taken = Sum { count: part.count.min(left.count), memory: part.memory.min(left.memory) };
            for (sum, taken) in [(&mut *part, taken), (&mut left, taken)] {
                sum.count -= taken.count;
                sum.memory -= taken.memory;
            }
        }
    }

    /// The host is being asked.
    pub(crate) fn asked(&mut self) {
        self.asked.add(std::mem::take(&mut self.fresh));
    }

    /// It has answered.
    pub(crate) fn answered(&mut self, now: Instant) {
        self.settled = self.settled(now);
        self.settled_at = now;
        self.settled.add(std::mem::replace(&mut self.grace, std::mem::take(&mut self.asked)));
    }

    /// It has not answered.
    pub(crate) fn unanswered(&mut self) {
        self.fresh.add(std::mem::take(&mut self.asked));
    }

    /// Runnable processes and bytes to be added to what a host with so many guests tells.
    pub(crate) fn sums(&self, now: Instant, guests: u32) -> (f64, u64) {
        let settled = self.settled(now);
        // Of those that ended nothing is left to be added.
        let alive = if settled.count > 0.0 { (f64::from(guests) / settled.count).min(1.0) } else { 0.0 };
        let mut sum = Sum { count: settled.count * alive, memory: settled.memory * alive };
        for part in [self.fresh, self.asked, self.grace] {
            sum.add(part);
        }
        (sum.count, sum.memory as u64)
    }

    fn settled(&self, now: Instant) -> Sum {
        let age = now.since(self.settled_at).as_secs_f64();
        let left = |over: Duration| (-age / over.as_secs_f64()).exp();
        Sum { count: self.settled.count * left(LOAD_SHOWN), memory: self.settled.memory * left(MEMORY_SHOWN) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(milliseconds: u64) -> Instant {
        Instant::from_epoch(Duration::from_secs(1) + Duration::from_millis(milliseconds))
    }

    #[test]
    fn a_placement_counts_until_the_load_shows_it() {
        let mut account = Account::new(at(0));
        account.place(100);
        assert_eq!(account.sums(at(0), 0), (1.0, 100));
        account.asked();
        account.place(10);
        assert_eq!(account.sums(at(10), 0), (2.0, 110), "the question was under way");
        account.answered(at(20));
        assert_eq!(account.sums(at(20), 0), (2.0, 110), "the program may be on the way");
        account.asked();
        account.answered(at(1020));
        assert_eq!(account.sums(at(1020), 1), (2.0, 110));
        assert_eq!(account.sums(at(1020), 0), (1.0, 10), "the older one has ended");
        account.asked();
        account.answered(at(2020));
        let (count, memory) = account.sums(at(62_020), 2);
        assert!((0.7..0.75).contains(&count), "{count}");
        assert!(memory < 1, "{memory}");
        assert_eq!(account.sums(at(62_020), 0), (0.0, 0));
    }

    #[test]
    fn what_has_ended_counts_no_longer() {
        let mut account = Account::new(at(0));
        account.place(100);
        account.asked();
        account.answered(at(10));
        account.place(10);
        account.end(at(20), 10);
        assert_eq!(account.sums(at(20), 1), (1.0, 100), "the latest was taken");
        account.end(at(30), 100);
        account.end(at(40), 100);
        assert_eq!(account.sums(at(40), 1), (0.0, 0), "and no more than there was");
    }

    #[test]
    fn a_host_that_does_not_answer_keeps_its_placements() {
        let mut account = Account::new(at(0));
        account.place(1);
        account.asked();
        account.unanswered();
        account.asked();
        account.unanswered();
        assert_eq!(account.sums(at(9), 0), (1.0, 1));
    }
}
