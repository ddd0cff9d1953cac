//! Making files: create, edit, commit.

use std::sync::Arc;

use amoeba_cap::{CheckField, ObjectNumber, Rights};
use amoeba_world::random;

use super::cache::{Key, cost};
use super::contents::{Contents, Edit, PENDING_MAX};
use super::layout::{self, BLOCK_SIZE, CHUNK_SIZE, FILE_SIZE_MAX, Hash, Record};
use super::space::Extent;
use super::table::{Entry, FileState, LIFETIME_MAX};
use super::{Commit, Compare, Counter, Draft, FileId, State, Store, StoreError};

/// Which capability names the result of a create or an edit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A new file's; its creator gets all rights.
    New(FileId),
    /// The one that named the uncommitted file.
    Same,
    /// The new file equals the one it was compared with and is gone; the old capability, with the rights it had.
    Equal(FileId, Rights),
}

/// Bytes of commits after which the checkpoint is advanced at once, so that a restart has little to verify.
const UNCHECKED_SIZE_MAX: u64 = 16 << 20;
/// Counted for an uncommitted file that lives on disk: its last chunk.
const SPILLED_MEMORY: u64 = CHUNK_SIZE + 256;
/// An uncommitted file whose commit will wait for the disk goes there from this size on. A smaller one is written at its
/// commit no later, and is in memory then.
const EARLY_SIZE_MIN: u64 = 2 * CHUNK_SIZE;

impl Store {
    /// A new file that holds `data`; with `compare`, possibly an old one.
    ///
    /// # Errors
    /// NoSpace, NoMemory (only without commit), NotNow (after an adoption), DiskFailed, WriteProtected.
    pub fn create(
        &self,
        data: Vec<u8>,
        commit: Commit,
        compare: Option<Compare>,
        owner: u64,
    ) -> Result<Outcome, StoreError> {
        self.count(Counter::Create);
        let mut contents = Contents::Memory(data);
        self.volume.writable()?;
        if contents.size() > self.settings.whole_max() {
            contents.spill(&self.volume, 0)?;
        }
        self.establish(contents, commit, compare, owner)
    }

    /// A new committed file of each of these, all or none; if they are to be `durable`, with one flush.
    ///
    /// # Errors
    /// NoSpace, NotNow (after an adoption), DiskFailed, WriteProtected.
    pub fn create_many(
        &self,
        all: Vec<Vec<u8>>,
        durable: bool,
        owner: u64,
    ) -> Result<Vec<FileId>, StoreError> {
        let mut files = Vec::with_capacity(all.len());
        let made = all.into_iter().try_for_each(|data| {
            match self.create(data, Commit::Memory, None, owner)? {
                Outcome::New(file) => files.push(file),
                Outcome::Same | Outcome::Equal(..) => unreachable!("it is new and compared with nothing"),
            }
            Ok(())
        });
        let numbers = files.iter().map(|file| file.number());
        let made = made.and_then(|()| if durable { self.write_dirty(numbers) } else { Ok(()) });
        if let Err(error) = made {
            for file in files {
                // One that cannot be destroyed either is left to ageing, as if its maker had died.
                let _ = self.destroy(file);
            }
            return Err(error);
        }
        Ok(files)
    }

    /// Changes an uncommitted file. A committed one is cloned first, and the clone is changed.
    ///
    /// # Errors
    /// NoSuchFile, BadArgument, TooLarge; those of [`Store::create`], after which the file is as before.
    pub fn edit(&self, file: FileId, edit: Edit, commit: Commit, owner: u64) -> Result<Outcome, StoreError> {
        self.count(match edit {
            Edit::Modify { .. } => Counter::Modify,
            Edit::Insert { .. } => Counter::Insert,
            Edit::Delete { .. } => Counter::Delete,
        });
        self.volume.writable()?;
        if self.with(|state| state.find(file).map(|entry| entry.state))? == FileState::Draft {
            let _lock = self.locks.exclusive(file.number());
            // It may have been committed while we waited.
            if self.with(|state| state.find(file).map(|entry| entry.state))? == FileState::Draft {
                return self.edit_draft(file, edit, commit);
            }
        }
        let contents = self.clone_edited(file, edit)?;
        self.establish(contents, commit, None, owner)
    }

    /// A committed copy of a committed file, on disk.
    ///
    /// # Errors
    /// NoSuchFile, Damaged; those of [`Store::create`].
    pub fn copy(&self, file: FileId, owner: u64) -> Result<FileId, StoreError> {
        self.count(Counter::CopyLocal);
        self.volume.writable()?;
        let unchanged = Edit::Modify { offset: 0, data: Vec::new() };
        let contents = self.clone_edited(file, unchanged)?;
        match self.establish(contents, Commit::Disk, None, owner)? {
            Outcome::New(copy) => Ok(copy),
            Outcome::Same | Outcome::Equal(..) => unreachable!("a copy is compared with nothing"),
        }
    }

    /// Makes a file of these contents. Discards them on an error.
    fn establish(
        &self,
        mut contents: Contents,
        commit: Commit,
        compare: Option<Compare>,
        owner: u64,
    ) -> Result<Outcome, StoreError> {
        let file = match self.take_number() {
            Ok(file) => file,
            Err(error) => {
                contents.discard(&self.volume);
                return Err(error);
            }
        };
        self.with(|state| state.table.get_mut(file.number()).owner = owner);
        let made = if !commit.is_now() {
            self.keep_draft(file, &mut contents, compare).map(|()| Outcome::New(file))
        } else {
            self.commit(file, &mut contents, commit, compare).map(|equal| equal.unwrap_or(Outcome::New(file)))
        };
        if !matches!(made, Ok(Outcome::New(_))) {
            self.abandon(file, contents, made.err());
        }
        made
    }

    /// Keeps the contents as an uncommitted file: in memory if there is room, else on disk. Takes them if it could.
    pub(super) fn keep_draft(
        &self,
        file: FileId,
        contents: &mut Contents,
        compare: Option<Compare>,
    ) -> Result<(), StoreError> {
        let edited = self.threads.now();
        let keep = |contents: &mut Contents| {
            self.with(|state| {
                let counted = contents.memory();
                if state.drafts_size + counted > self.settings.drafts_max() {
                    return Err(StoreError::NoMemory);
                }
                let contents = Some(std::mem::replace(contents, Contents::Memory(Vec::new())));
                state.drafts_size += counted;
                state.drafts.insert(file.number(), Draft { contents, counted, edited, compare });
                state.table.get_mut(file.number()).state = FileState::Draft;
                Ok(())
            })
        };
        match keep(contents) {
            Err(StoreError::NoMemory) if contents.size() > CHUNK_SIZE => {
                contents.spill(&self.volume, 0)?;
                keep(contents)
            }
            result => result,
        }
    }

    /// Gives back what an unfinished or needless file took.
    pub(super) fn abandon(&self, file: FileId, contents: Contents, error: Option<StoreError>) {
        if matches!(error, Some(StoreError::DiskFailed)) {
            // Its record may have reached the disk: number and blocks must mean nothing else until a restart.
            self.with(|state| state.table.get_mut(file.number()).state = FileState::Condemned);
            return;
        }
        contents.discard(&self.volume);
        self.with(|state| state.table.release(file.number()));
    }

    /// The caller holds the draft's lock.
    fn edit_draft(&self, file: FileId, edit: Edit, commit: Commit) -> Result<Outcome, StoreError> {
        let number = file.number();
        let now = self.threads.now();
        let (mut contents, compare, spill) = self.with(|state| {
            let draft = state.drafts.get_mut(&number).expect("a draft has contents");
            let size = draft.contents.as_ref().expect("its lock is ours").size();
            let after = edit.size_after(size)?;
            let spill = self.plan(state, number, after, commit)?;
            let draft = state.drafts.get_mut(&number).expect("a draft has contents");
            draft.edited = now;
            Ok((draft.contents.take().expect("its lock is ours"), draft.compare, spill))
        })?;
        let spilled = spill.map_or(Ok(()), |pending_max| contents.spill(&self.volume, pending_max));
        let result = spilled.and_then(|()| contents.apply(&self.volume, edit)).and_then(|()| match commit {
            Commit::No | Commit::Later => Ok(None),
            _ => self.commit(file, &mut contents, commit, compare),
        });
        match result {
            Ok(outcome) if commit.is_now() => {
                let mut contents = Some(contents);
                self.with(|state| state.remove_draft(number));
                if outcome.is_some() {
                    self.abandon(file, contents.take().expect("put there just now"), None);
                }
                Ok(outcome.unwrap_or(Outcome::Same))
            }
            result => {
                self.with(|state| {
                    state.recount(number, contents.memory());
                    state.drafts.get_mut(&number).expect("a locked draft stays").contents = Some(contents);
                });
                result.map(|_| Outcome::Same)
            }
        }
    }

    /// Counts the memory a draft will need at `after` bytes. If it must go to disk for that, or should: how many of its
    /// chunks may be on their way there.
    fn plan(
        &self,
        state: &mut State,
        number: u32,
        after: u64,
        commit: Commit,
    ) -> Result<Option<usize>, StoreError> {
        let draft = &state.drafts[&number];
        if matches!(draft.contents, Some(Contents::Spilled(_))) {
            return Ok(None);
        }
        let others = state.drafts_size - draft.counted;
        let room = self.settings.drafts_max().saturating_sub(others);
        let in_memory = draft.counted.max(after + 256);
        // What needs no more than it has already is never refused: so whoever has begun a file can commit it.
        let fits = in_memory <= room || in_memory == draft.counted;
        let pending = SPILLED_MEMORY + PENDING_MAX as u64 * CHUNK_SIZE;
        let early = commit == Commit::Later && after >= EARLY_SIZE_MIN && pending <= room;
        if after <= self.settings.whole_max() && fits && !early {
            state.recount(number, in_memory);
            return Ok(None);
        }
        // A file of less than a chunk takes as much memory on disk as in memory.
        if after <= CHUNK_SIZE || SPILLED_MEMORY > room {
            return Err(StoreError::NoMemory);
        }
        let (pending_max, memory) =
            if pending <= room { (PENDING_MAX, pending) } else { (0, SPILLED_MEMORY) };
        let memory = draft.counted.max(memory);
        state.recount(number, memory);
        Ok(Some(pending_max))
    }

    /// The contents of a committed file, changed.
    fn clone_edited(&self, file: FileId, edit: Edit) -> Result<Contents, StoreError> {
        let size = self.with(|state| state.committed(file))?.size;
        let after = edit.size_after(size)?;
        if size.max(after) <= self.settings.whole_max() {
            let bytes = self.whole(file)?;
            let mut contents = Contents::Memory(bytes.to_vec());
            contents.apply(&self.volume, edit)?;
            return Ok(contents);
        }
        let mut contents = Contents::Memory(Vec::new());
        let changed = contents
            .spill(&self.volume, 0)
            .and_then(|()| {
                let Contents::Spilled(spill) = &mut contents else { unreachable!("it was spilled just now") };
                self.each_piece(file, |piece| spill.append(&self.volume, piece))
            })
            .and_then(|()| contents.apply(&self.volume, edit));
        if let Err(error) = changed {
            contents.discard(&self.volume);
            return Err(error);
        }
        Ok(contents)
    }

    /// A free number with a fresh random.
    fn take_number(&self) -> Result<FileId, StoreError> {
        let random = CheckField::from_bytes(random(&*self.entropy));
        loop {
            let taken = self.with(|state| match state.adopted {
                true => Err(StoreError::NotNow),
                false => Ok(state.table.take(random)),
            });
            if let Some(number) = taken? {
                let object = ObjectNumber::new(number).expect("the table has at most 2^24 entries");
                return Ok(FileId { object, random });
            }
            self.grow_table()?;
        }
    }

    /// Makes a file visible and immutable, or finds that it equals the one it is compared with. On an error the
    /// contents stay what they were; on success they are part of the file, or (equal) the caller's to discard.
    fn commit(
        &self,
        file: FileId,
        contents: &mut Contents,
        commit: Commit,
        compare: Option<Compare>,
    ) -> Result<Option<Outcome>, StoreError> {
        if contents.size() > FILE_SIZE_MAX {
            return Err(StoreError::TooLarge);
        }
        match contents {
            Contents::Memory(data) => {
                if compare.is_some() {
                    let (hash, _) = layout::hash_contents(data);
                    if let Some(equal) = self.find_equal(compare, data.len() as u64, hash, commit)? {
                        return Ok(Some(equal));
                    }
                }
                self.commit_memory(file, data, commit)?;
            }
            Contents::Spilled(spill) => {
                let sealed = spill.seal(&self.volume)?;
                if let Some(equal) = self.find_equal(compare, sealed.size, sealed.hash, commit)? {
                    return Ok(Some(equal));
                }
                self.record(file, sealed.extent, sealed.size, sealed.hash)?;
            }
        }
        self.checkpoint_if_due();
        Ok(None)
    }

    /// The file to compare with, if it is there, equal, and as safe as the commit wants it.
    fn find_equal(
        &self,
        compare: Option<Compare>,
        size: u64,
        hash: Hash,
        commit: Commit,
    ) -> Result<Option<Outcome>, StoreError> {
        let Some(Compare { file, rights }) = compare else { return Ok(None) };
        let Ok(entry) = self.with(|state| state.committed(file)) else { return Ok(None) };
        if entry.size != size || entry.hash != hash {
            return Ok(None);
        }
        if commit == Commit::Disk && entry.state != FileState::Stored {
            self.write_dirty([file.number()])?;
            if self.with(|state| state.committed(file)).is_err() {
                return Ok(None); // destroyed meanwhile
            }
        }
        Ok(Some(Outcome::Equal(file, rights)))
    }

    fn commit_memory(&self, file: FileId, data: &mut Vec<u8>, commit: Commit) -> Result<(), StoreError> {
        let size = data.len() as u64;
        let extent = self.volume.allocate(layout::file_blocks(size))?;
        if commit == Commit::Memory && self.keep_dirty(file, extent, data) {
            return Ok(());
        }
        let hash = self.volume.write_file(extent.first, data).inspect_err(|&error| {
            if error == StoreError::NoSpace {
                self.volume.release(extent);
            }
        })?;
        self.record(file, extent, size, hash)?;
        let mut data = std::mem::take(data);
        if data.capacity() > data.len() + data.len() / 8 {
            data.shrink_to_fit();
        }
        if size > 0 && size <= self.settings.whole_max() {
            self.with(|state| {
                if state.committed(file).is_ok() {
                    state.cache.insert(Key::whole(file.number()), Arc::new(data));
                }
            });
        }
        Ok(())
    }

    /// Commits in memory, if there is room; takes the data if it did.
    fn keep_dirty(&self, file: FileId, extent: Extent, data: &mut Vec<u8>) -> bool {
        if self.with(|state| state.dirty_size + cost(data) > self.settings.dirty_max()) {
            return false;
        }
        let (hash, _) = layout::hash_contents(data);
        self.with(|state| {
            let memory = cost(data);
            if state.dirty_size + memory > self.settings.dirty_max() {
                return false;
            }
            let size = data.len() as u64;
            let entry = state.table.get_mut(file.number());
            *entry = Entry {
                size,
                first: extent.first,
                hash,
                state: FileState::Dirty,
                lifetime: LIFETIME_MAX,
                ..*entry
            };
            state.dirty_size += memory;
            state.dirty.insert(file.number(), Arc::new(std::mem::take(data)));
            true
        })
    }

    /// Writes the record of a file whose data has been written, waits for a flush, and makes the file visible.
    fn record(&self, file: FileId, extent: Extent, size: u64, hash: Hash) -> Result<(), StoreError> {
        let entry = self.with(|state| {
            let sequence = state.next_sequence(size);
            let owner = state.table.get_mut(file.number()).owner;
            let record = Record { random: file.random, size, first: extent.first, owner, sequence, hash };
            Entry::from_record(&record)
        });
        self.volume.write_record(file.number(), &entry.record())?;
        // From here on the record may be on disk, so a refusal would not undo it: it is the disk's failure.
        self.volume.flush().map_err(|_| StoreError::DiskFailed)?;
        self.with(|state| {
            state.inflight.remove(&entry.sequence);
            *state.table.get_mut(file.number()) = entry;
        });
        Ok(())
    }
}

impl State {
    /// A sequence for a record that is about to be written, with `size` bytes of data.
    pub(super) fn next_sequence(&mut self, size: u64) -> u64 {
        let sequence = self.sequence_next;
        self.sequence_next += 1;
        self.inflight.insert(sequence);
        self.unchecked_size += layout::file_blocks(size) * BLOCK_SIZE;
        sequence
    }

    /// Whether so much was committed that the checkpoint should follow.
    pub(super) fn is_checkpoint_due(&self) -> bool {
        self.unchecked_size > UNCHECKED_SIZE_MAX
    }
}
