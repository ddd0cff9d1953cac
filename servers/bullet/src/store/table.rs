//! The inode table in memory: one small entry a file, indexed by object number.

use std::collections::VecDeque;

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

/// The table. Number 0 is the server itself and never free.
pub(crate) struct Table {
    entries: Vec<Entry>,
    /// First in, first out: a number rests as long as possible before it means another file.
    free: VecDeque<u32>,
}

impl Table {
    /// A table of these entries.
    pub(crate) fn new(entries: Vec<Entry>) -> Table {
        let free = (1..entries.len() as u32)
            .filter(|&number| entries[number as usize].state == FileState::Free)
            .collect();
        Table { entries, free }
    }

    /// Entries, number 0 included.
    pub(crate) fn len(&self) -> u32 {
        self.entries.len() as u32
    }

    pub(crate) fn free_count(&self) -> usize {
        self.free.len()
    }

    pub(crate) fn get(&self, number: u32) -> Option<&Entry> {
        if number == 0 { None } else { self.entries.get(number as usize) }
    }

    pub(crate) fn get_mut(&mut self, number: u32) -> &mut Entry {
        assert_ne!(number, 0, "number 0 is no file");
        &mut self.entries[number as usize]
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
        self.entries.resize(limit as usize, Entry::FREE);
    }
}
