//! What a store does now and then: the sweeper's round, sync, the checkpoint, more inodes, and the check of a volume.

use super::cache::{Key, cost};
use super::layout::{self, BLOCK_SIZE, Slot, Superblock};
use super::table::{FileState, TABLE_STEP};
use super::{Counter, State, Store, StoreError};

/// Problems that a check describes; more are only counted.
const PROBLEMS_MAX: usize = 1000;

/// What a check of the volume found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Check {
    /// Files looked at.
    pub file_count: u64,
    /// Their bytes.
    pub size: u64,
    /// How many problems there are.
    pub problem_count: u64,
    /// The first thousand of them, one sentence each.
    pub problems: Vec<String>,
}

impl Check {
    fn problem(&mut self, text: String) {
        self.problem_count += 1;
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(text);
        }
    }
}

impl Store {
    /// One round of the sweeper: forgets uncommitted files nobody edits, writes what is in memory only, advances the
    /// checkpoint.
    ///
    /// # Errors
    /// NoSpace, DiskFailed, WriteProtected, of the writing.
    pub fn sweep(&self) -> Result<(), StoreError> {
        self.expire();
        drop(self.with(|state| state.cache.reap())); // freed without the lock
        self.replies.clear();
        if self.with(|state| state.dirty.is_empty() && !state.is_behind()) {
            return Ok(());
        }
        self.write_all_dirty()?;
        self.checkpoint()
    }

    /// Makes every committed file durable.
    ///
    /// # Errors
    /// NoSpace, DiskFailed, WriteProtected.
    pub fn sync(&self) -> Result<(), StoreError> {
        self.count(Counter::Sync);
        self.write_all_dirty()?;
        self.checkpoint_if_due();
        Ok(())
    }

    /// What a clean stop does last: nothing is left in memory only, and a restart has nothing to verify.
    ///
    /// # Errors
    /// As [`Store::sync`].
    pub fn close(&self) -> Result<(), StoreError> {
        self.write_all_dirty()?;
        self.checkpoint()
    }

    fn write_all_dirty(&self) -> Result<(), StoreError> {
        let numbers: Vec<u32> = self.with(|state| state.dirty.keys().copied().collect());
        self.write_dirty(numbers)
    }

    /// Forgets uncommitted files whose time is over.
    fn expire(&self) {
        let now = self.threads.now();
        let life = self.settings.uncommitted_life;
        let old: Vec<u32> = self.with(|state| {
            let drafts = state.drafts.iter();
            drafts.filter(|(_, draft)| now.since(draft.edited) >= life).map(|(&number, _)| number).collect()
        });
        for number in old {
            let _lock = self.locks.exclusive(number);
            let draft = self.with(|state| {
                let is_old = |draft: &super::Draft| now.since(draft.edited) >= life;
                if !state.drafts.get(&number).is_some_and(is_old) {
                    return None; // edited, committed or destroyed meanwhile
                }
                state.table.get_mut(number).state = FileState::Condemned;
                state.remove_draft(number)
            });
            if let Some(draft) = draft {
                if let Some(contents) = draft.contents {
                    contents.discard(&self.volume);
                } // else an operation that panicked took them along; the sweeper must live
                self.with(|state| state.table.release(number));
                self.count(Counter::TimedOut);
            }
        }
    }

    /// Writes these files if they are in memory only, and makes them durable with one flush.
    pub(super) fn write_dirty(&self, numbers: impl IntoIterator<Item = u32>) -> Result<(), StoreError> {
        let mut written = Vec::new();
        let mut refused = Ok(());
        for number in numbers {
            let _lock = self.locks.exclusive(number);
            match self.write_one(number) {
                Ok(sequence) => written.extend(sequence.map(|sequence| (number, sequence))),
                // The host's disk is full behind a sparse image: the file stays in memory and is tried again.
                Err(StoreError::NoSpace) => refused = Err(StoreError::NoSpace),
                Err(error) => return Err(error),
            }
        }
        self.volume.flush()?;
        for (number, sequence) in written {
            self.with(|state| state.became_durable(number, sequence, self.settings.whole_max()));
        }
        refused
    }

    /// Writes data and record of a dirty file; the caller holds its lock.
    fn write_one(&self, number: u32) -> Result<Option<u64>, StoreError> {
        let Some((entry, bytes)) = self.with(|state| {
            let entry = *state.table.get(number)?;
            let bytes = state.dirty.get(&number)?;
            (entry.state == FileState::Dirty).then(|| (entry, bytes.clone()))
        }) else {
            return Ok(None);
        };
        self.volume.write_file(entry.first, &bytes)?;
        let record = self.with(|state| {
            let sequence = state.next_sequence(entry.size);
            let entry = state.table.get_mut(number);
            entry.sequence = sequence;
            entry.state = FileState::Written;
            entry.record()
        });
        self.volume.write_record(number, &record)?;
        Ok(Some(record.sequence))
    }

    pub(super) fn checkpoint_if_due(&self) {
        if self.with(|state| state.is_checkpoint_due()) {
            // The commit has succeeded whatever becomes of this; a failed disk is remembered and named elsewhere.
            let _ = self.checkpoint();
        }
    }

    /// Remembers on disk up to which sequence everything was flushed.
    pub(super) fn checkpoint(&self) -> Result<(), StoreError> {
        let mut superblock = self.superblock.lock();
        let checkpoint = self.with(|state| {
            state.unchecked_size = 0;
            state.checkpoint = state.durable_sequence();
            state.checkpoint
        });
        if checkpoint <= superblock.checkpoint {
            return Ok(());
        }
        self.write_superblock(&mut superblock, |new| new.checkpoint = checkpoint)
    }

    /// Initialises another step of the inode table.
    ///
    /// # Errors
    /// NoSpace when the table has reached its full size.
    pub(super) fn grow_table(&self) -> Result<(), StoreError> {
        let mut superblock = self.superblock.lock();
        if self.with(|state| state.table.free_count() > 0) {
            return Ok(()); // somebody else did it while we waited
        }
        self.initialise_step(&mut superblock)
    }

    /// The same, whether or not there are free numbers.
    pub(super) fn grow_table_by_a_step(&self) -> Result<(), StoreError> {
        self.initialise_step(&mut self.superblock.lock())
    }

    fn initialise_step(&self, superblock: &mut Superblock) -> Result<(), StoreError> {
        let limit = superblock.inode_limit.saturating_add(TABLE_STEP).min(superblock.inode_count);
        if limit == superblock.inode_limit {
            return Err(StoreError::NoSpace);
        }
        let start = layout::record_offset(superblock.inode_limit);
        let zeros = vec![0; (layout::record_offset(limit) - start) as usize];
        self.volume.write_blocks(start / BLOCK_SIZE, &zeros)?;
        self.write_superblock(superblock, |new| new.inode_limit = limit)?;
        self.with(|state| state.table.grow(limit));
        Ok(())
    }

    /// Overwrites the older copy of the superblock, and flushes, so that one good copy is there at any time.
    pub(super) fn write_superblock(
        &self,
        superblock: &mut Superblock,
        change: impl FnOnce(&mut Superblock),
    ) -> Result<(), StoreError> {
        let mut new = superblock.clone();
        change(&mut new);
        new.generation += 1;
        self.volume.write_table(new.generation % 2 * BLOCK_SIZE, &new.to_block())?;
        self.volume.flush()?;
        *superblock = new;
        Ok(())
    }

    /// Compares every record and every byte on disk with what they should be. Changes no file; with `repair`, clears
    /// records that are no records, so that their numbers can be used again.
    ///
    /// # Errors
    /// WriteProtected and DiskFailed, of the repair.
    pub fn check(&self, repair: bool) -> Result<Check, StoreError> {
        self.count(Counter::Fsck);
        let mut check = Check::default();
        if self.volume.flush.is_broken() {
            check.problem("the disk failed or is truncated: the volume is write protected".to_string());
        }
        let mut lost = Vec::new();
        let mut number = 1;
        while number < self.with(|state| state.table.len()) {
            if self.check_inode(number, &mut check) {
                lost.push(number);
            }
            number += 1;
        }
        if repair {
            // Claimed first: to another repair at the same time the number may already be a new file's.
            lost.retain(|&number| self.with(|state| state.condemn_lost(number)));
            lost.iter().try_for_each(|&number| self.volume.clear_record(number))?;
            if !lost.is_empty() {
                self.volume.flush()?;
            }
            for number in lost {
                self.with(|state| state.table.release(number));
            }
        }
        Ok(check)
    }

    /// Checks one inode; whether its record is lost.
    fn check_inode(&self, number: u32, check: &mut Check) -> bool {
        let _lock = self.locks.shared(number);
        let Some(entry) = self.with(|state| state.table.get(number).copied()) else { return false };
        match entry.state {
            FileState::Stored => {
                check.file_count += 1;
                check.size += entry.size;
                match self.volume.read_record(number) {
                    Ok(Slot::File(record)) if record == entry.record() => {}
                    Ok(_) => {
                        check.problem(format!("file {number}: its record on disk is not what was written"))
                    }
                    Err(error) => check.problem(format!("file {number}: its record cannot be read: {error}")),
                }
                if let Err(error) = self.verify(number, &entry) {
                    check.problem(format!(
                        "file {number}: {} bytes at block {}: {error}",
                        entry.size, entry.first
                    ));
                }
            }
            FileState::Damaged => {
                check.file_count += 1;
                check.problem(format!(
                    "file {number}: {} bytes at block {} lie outside the volume, in a later file, or cannot be read",
                    entry.size, entry.first
                ));
            }
            FileState::Lost => {
                check.problem(format!("inode {number}: torn or damaged record"));
                return true;
            }
            _ => {}
        }
        false
    }
}

impl State {
    /// Up to here every record that was written is durable.
    fn durable_sequence(&self) -> u64 {
        self.inflight.first().copied().unwrap_or(self.sequence_next) - 1
    }

    fn is_behind(&self) -> bool {
        self.durable_sequence() > self.checkpoint
    }

    /// Takes a lost record for repair; whether it was still there.
    fn condemn_lost(&mut self, number: u32) -> bool {
        let lost = self.table.get(number).is_some_and(|entry| entry.state == FileState::Lost);
        if lost {
            self.table.get_mut(number).state = FileState::Condemned;
            self.damaged.remove(&number);
        }
        lost
    }

    /// A file that was written has been flushed: its bytes may leave the memory.
    fn became_durable(&mut self, number: u32, sequence: u64, whole_max: u64) {
        self.inflight.remove(&sequence);
        let entry = self.table.get_mut(number);
        if entry.state != FileState::Written || entry.sequence != sequence {
            return; // destroyed meanwhile
        }
        entry.state = FileState::Stored;
        if let Some(bytes) = self.dirty.remove(&number) {
            self.dirty_size -= cost(&bytes);
            if bytes.len() as u64 <= whole_max {
                self.cache.insert(Key::whole(number), bytes);
            }
        }
    }
}
