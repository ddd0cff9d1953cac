//! The inode table in memory: one small entry a file, indexed by object number.

use std::collections::VecDeque;
use std::ops::{Index, IndexMut};

use amoeba_cap::{CheckField, Rights};

use super::layout::{self, Hash, Record};
use super::space::Extent;

/// Ages a file survives without being touched.
pub const LIFETIME_MAX: u8 = 24;

/// How far a file has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileState {
    /// No file.
    Free,
    /// The number is taken by an operation that has not finished.
    Taken,
    /// Uncommitted.
    Draft,
    /// Committed, in memory only, with blocks reserved.
    Dirty,
    /// Committed; data and record were written but not flushed.
    Written,
    /// Committed and durable.
    Stored,
    /// Destroyed; its cleared record awaits a flush before number and blocks can be used again.
    Condemned,
    /// Its record holds but its place cannot be right (outside the image, or overlapping a later file).
    Damaged,
    /// Its record is torn or damaged; the number is set aside.
    Lost,
}

/// One file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub(crate) size: u64,
    pub(crate) first: u64,
    pub(crate) owner: u64,
    pub(crate) sequence: u64,
    pub(crate) hash: Hash,
    pub(crate) random: CheckField,
    pub(crate) state: FileState,
    pub(crate) lifetime: u8,
    /// The rights and the check field that were verified last, so that the next time they are only compared. The null
    /// check field: none yet.
    pub(crate) verified: (Rights, CheckField),
}
/// What a file costs in memory, with its place in the free list.
const _: () = assert!(size_of::<Entry>() + size_of::<u32>() <= 96);

impl Entry {
    pub(crate) const FREE: Entry = Entry {
        size: 0,
        first: 0,
        owner: 0,
        sequence: 0,
        hash: [0; layout::HASH_SIZE],
        random: CheckField::NULL,
        state: FileState::Free,
        lifetime: 0,
        verified: (Rights::NONE, CheckField::NULL),
    };

    pub(crate) fn from_record(record: &Record) -> Entry {
        Entry {
            size: record.size,
            first: record.first,
            owner: record.owner,
            sequence: record.sequence,
            hash: record.hash,
            random: record.random,
            state: FileState::Stored,
            lifetime: LIFETIME_MAX,
            ..Entry::FREE
        }
    }

    pub(crate) fn record(&self) -> Record {
        Record {
            random: self.random,
            size: self.size,
            first: self.first,
            owner: self.owner,
            sequence: self.sequence,
            hash: self.hash,
        }
    }

    pub(crate) fn extent(&self) -> Extent {
        match layout::file_blocks(self.size) {
            0 => Extent::NONE,
            blocks => Extent { first: self.first, blocks },
        }
    }

    pub(crate) fn is_committed(&self) -> bool {
        matches!(self.state, FileState::Dirty | FileState::Written | FileState::Stored)
    }
}

/// Entries that lie in one piece of memory: a megabyte, as their records do on disk.
pub(crate) const TABLE_STEP: u32 = 16384;

/// Entries by number, a step after the other: several threads make them at a start, and none is moved when more are added.
pub(crate) struct Entries {
    /// All but the last are full.
    steps: Vec<Vec<Entry>>,
}

impl Entries {
    /// Those of these steps, of which all but the last are full.
    pub(crate) fn of(steps: Vec<Vec<Entry>>) -> Entries {
        let full = steps.split_last().is_none_or(|(_, full)| full.iter().all(|step| step.len() == STEP));
        assert!(full, "only the last step is not full");
        Entries { steps }
    }

    pub(crate) fn len(&self) -> u32 {
        self.steps.last().map_or(0, |last| ((self.steps.len() - 1) * STEP + last.len()) as u32)
    }

    fn get(&self, number: u32) -> Option<&Entry> {
        self.steps.get(number as usize / STEP)?.get(number as usize % STEP)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.steps.iter().flatten()
    }

    /// Adds free entries up to `limit`.
    fn grow(&mut self, limit: u32) {
        while self.len() < limit {
            if self.steps.last().is_none_or(|last| last.len() == STEP) {
                self.steps.push(Vec::with_capacity(STEP));
            }
            let start = (self.steps.len() - 1) * STEP;
            let last = self.steps.last_mut().expect("there is one with room");
            last.resize(STEP.min(limit as usize - start), Entry::FREE);
        }
    }
}

const STEP: usize = TABLE_STEP as usize;

impl Index<u32> for Entries {
    type Output = Entry;

    fn index(&self, number: u32) -> &Entry {
        &self.steps[number as usize / STEP][number as usize % STEP]
    }
}

impl IndexMut<u32> for Entries {
    fn index_mut(&mut self, number: u32) -> &mut Entry {
        &mut self.steps[number as usize / STEP][number as usize % STEP]
    }
}

/// The table. Number 0 is the server itself and never free.
pub(crate) struct Table {
    entries: Entries,
    /// First in, first out: a number rests as long as possible before it means another file.
    free: VecDeque<u32>,
}

impl Table {
    /// A table of these entries, of which these are free.
    pub(crate) fn new(entries: Entries, free: VecDeque<u32>) -> Table {
        Table { entries, free }
    }

    /// Entries, number 0 included.
    pub(crate) fn len(&self) -> u32 {
        self.entries.len()
    }

    pub(crate) fn free_count(&self) -> usize {
        self.free.len()
    }

    pub(crate) fn get(&self, number: u32) -> Option<&Entry> {
        if number == 0 { None } else { self.entries.get(number) }
    }

    pub(crate) fn get_mut(&mut self, number: u32) -> &mut Entry {
        assert_ne!(number, 0, "number 0 is no file");
        &mut self.entries[number]
    }

    /// Takes a free number for a file with this random.
    pub(crate) fn take(&mut self, random: CheckField) -> Option<u32> {
        let number = self.free.pop_front()?;
        *self.get_mut(number) = Entry { random, state: FileState::Taken, ..Entry::FREE };
        Some(number)
    }

    /// Takes this number, if it is free, for a file with this random.
    pub(crate) fn take_this(&mut self, number: u32, random: CheckField) -> bool {
        // The numbers that were never used lie in order, so for a restore this is no search.
        let place = match self.free.binary_search(&number) {
            Ok(place) => Some(place),
            Err(_) => self.free.iter().position(|&free| free == number),
        };
        if let Some(place) = place {
            self.free.remove(place);
            *self.get_mut(number) = Entry { random, state: FileState::Taken, ..Entry::FREE };
        }
        place.is_some()
    }

    /// Gives a number back.
    pub(crate) fn release(&mut self, number: u32) {
        assert_ne!(self.get_mut(number).state, FileState::Free, "a number is freed once");
        *self.get_mut(number) = Entry::FREE;
        self.free.push_back(number);
    }

    /// Adds free numbers up to `limit`.
    pub(crate) fn grow(&mut self, limit: u32) {
        self.free.extend(self.len()..limit);
        self.entries.grow(limit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_grows_from_anywhere_and_every_number_is_one_entry() {
        let mut entries = Entries::of(Vec::new());
        for limit in [100, 101, TABLE_STEP, TABLE_STEP + 1, 3 * TABLE_STEP + 7] {
            entries.grow(limit);
            assert_eq!(entries.len(), limit);
            entries[limit - 1].size = u64::from(limit);
        }
        entries.grow(5);
        assert_eq!(entries.len(), 3 * TABLE_STEP + 7, "it never shrinks");
        let sizes: Vec<u64> = entries.iter().map(|entry| entry.size).filter(|&size| size > 0).collect();
        let step = u64::from(TABLE_STEP);
        assert_eq!(sizes, [100, 101, step, step + 1, 3 * step + 7]);
        assert!(entries.get(entries.len()).is_none());
    }
}
