//! What was decided, and which processes came of it.

use std::collections::{BTreeMap, VecDeque};

use amoeba_cap::PutPort;
use amoeba_place::Decision;

/// Decisions that are remembered; the oldest makes room.
pub const DECISIONS_MAX: usize = 1000;
/// Hosts in all remembered decisions together: a large pool has fewer decisions remembered.
pub const ROWS_MAX: usize = 100_000;
/// Processes of which it is remembered where they come from; the oldest makes room.
pub const NOTES_MAX: usize = 16_384;

/// A process, as everybody may know it: the port and the object number of its capability.
type Process = (PutPort, u32);

/// The last decisions.
#[derive(Debug)]
pub(crate) struct Decisions {
    /// Makes the numbers of two copies of the server differ.
    series: u32,
    made: u32,
    decisions: BTreeMap<u64, Decision>,
    /// Oldest first.
    order: VecDeque<u64>,
    rows: usize,
    notes: BTreeMap<Process, u64>,
    /// Oldest first; a process that was noted again stands here more than once.
    noted: VecDeque<(Process, u64)>,
}

impl Decisions {
    pub(crate) fn new(series: u32) -> Decisions {
        Decisions {
            series,
            made: 0,
            decisions: BTreeMap::new(),
            order: VecDeque::new(),
            rows: 0,
            notes: BTreeMap::new(),
            noted: VecDeque::new(),
        }
    }

    /// Remembers a decision and gives its number.
    pub(crate) fn remember(&mut self, decision: Decision) -> u64 {
        self.made = self.made.wrapping_add(1);
        let number = u64::from(self.series) << 32 | u64::from(self.made);
        self.rows += rows(&decision);
        self.decisions.insert(number, decision);
        self.order.push_back(number);
        while self.order.len() > DECISIONS_MAX || (self.rows > ROWS_MAX && self.order.len() > 1) {
            let oldest = self.order.pop_front().expect("there are more than the bound");
            if let Some(forgotten) = self.decisions.remove(&oldest) {
                self.rows -= rows(&forgotten);
            }
        }
        number
    }

    pub(crate) fn get(&self, number: u64) -> Option<&Decision> {
        self.decisions.get(&number)
    }

    pub(crate) fn get_mut(&mut self, number: u64) -> Option<&mut Decision> {
        self.decisions.get_mut(&number)
    }

    /// Notes that a process came of a decision; whether that is remembered.
    pub(crate) fn note(&mut self, number: u64, process: Process) -> bool {
        if !self.decisions.contains_key(&number) {
            return false;
        }
        if self.notes.insert(process, number) != Some(number) {
            self.noted.push_back((process, number));
        }
        while self.noted.len() > NOTES_MAX {
            let (oldest, number) = self.noted.pop_front().expect("there are more than the bound");
            if self.notes.get(&oldest) == Some(&number) {
                self.notes.remove(&oldest);
            }
        }
        true
    }

    pub(crate) fn of_process(&self, process: Process) -> Option<&Decision> {
        self.get(*self.notes.get(&process)?)
    }

    pub(crate) fn len(&self) -> usize {
        self.order.len()
    }
}

fn rows(decision: &Decision) -> usize {
    decision.scored.len() + decision.rejected.len()
}

#[cfg(test)]
mod tests {
    use amoeba_place::{Need, Reason};

    use super::*;

    fn decision(count: u32, hosts: usize) -> Decision {
        let rejected = vec![("a".into(), Reason::New); hosts];
        let need = Need::default();
        Decision { need, count, equivalent_percent: 5, desperate: false, scored: Vec::new(), rejected }
    }

    fn process(number: u32) -> Process {
        (PutPort::from_bytes([1; 6]), number)
    }

    #[test]
    fn the_last_decisions_are_remembered() {
        let mut decisions = Decisions::new(7);
        let numbers: Vec<u64> = (0..1005).map(|count| decisions.remember(decision(count, 3))).collect();
        assert_eq!(numbers[0], 7 << 32 | 1);
        assert_eq!(
            numbers[4..6].iter().map(|&number| decisions.get(number).is_some()).collect::<Vec<_>>(),
            [false, true]
        );
        assert_eq!(decisions.get(numbers[1004]).map(|decision| decision.count), Some(1004));
        assert_eq!((decisions.len(), decisions.rows), (DECISIONS_MAX, 3 * DECISIONS_MAX));
    }

    #[test]
    fn large_pools_have_fewer_decisions_remembered() {
        let mut decisions = Decisions::new(0);
        for count in 0..500 {
            decisions.remember(decision(count, 256));
        }
        assert_eq!((decisions.len(), decisions.rows), (390, 390 * 256));
    }

    #[test]
    fn processes_lead_to_the_decision_they_were_last_noted_for() {
        let mut decisions = Decisions::new(0);
        let (one, two) = (decisions.remember(decision(1, 1)), decisions.remember(decision(2, 1)));
        assert!(!decisions.note(99, process(1)));
        assert!(decisions.note(one, process(1)));
        assert!(decisions.note(one, process(1)), "a note that is sent twice is one note");
        assert_eq!(decisions.noted.len(), 1);
        assert!(decisions.note(two, process(1)), "the number was used again");
        let count =
            |decisions: &Decisions, number| decisions.of_process(process(number)).map(|found| found.count);
        assert_eq!((count(&decisions, 1), count(&decisions, 2)), (Some(2), None));
        for number in 2..NOTES_MAX as u32 + 1 {
            decisions.note(one, process(number));
        }
        assert_eq!(count(&decisions, 1), Some(2), "only the older note of it was forgotten");
        decisions.note(one, process(NOTES_MAX as u32 + 1));
        assert_eq!(count(&decisions, 1), None);
        assert_eq!((decisions.notes.len(), decisions.noted.len()), (NOTES_MAX, NOTES_MAX));
    }
}
