//! The store: a volume of immutable, whole, contiguous files, and what is in memory of it.
//!
//! - `layout` of the image, `space` for its free blocks, `flush` shared by all who commit, joined in `volume`;
//! - `table`, `cache`, `contents`: what is in memory of files: entries, committed bytes, uncommitted bytes;
//! - `locks`: one for each object in use;
//! - operations: `create` (create, edit, commit), `read`, `destroy` (also touch and age), `upkeep` (sweep, sync,
//!   checkpoint, fsck), `ahead` (space made ready), `carrier` (chunks on their way to the disk), `recover` (format, open; `scan` reads what is there), `report` (status), `usage`,
//!   `transfer` (backup and restore), `compact`.
//!
//! The recovery story is in `docs/bullet.md`. In short: a record is believed if its commit sequence is at most the
//! superblock's checkpoint or if its data verifies, so data and record need no order between them and a commit costs
//! one flush. Locks are taken in this order: an uncommitted object's, a committed object's, then (never while parking)
//! `state`, `space`.

mod ahead;
mod cache;
mod carrier;
mod compact;
mod contents;
mod counters;
mod create;
mod destroy;
mod error;
mod flush;
mod layout;
mod locks;
mod read;
mod recover;
mod report;
mod scan;
mod sent;
mod space;
mod table;
mod transfer;
mod upkeep;
mod usage;
mod volume;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{self, Arc, MutexGuard, PoisonError};
use std::time::Duration;

use amoeba_cap::{CheckField, GetPort, ObjectNumber, Private, Rights, ServerSecret};
use amoeba_threads::{Instant, Mutex, Threads};
use amoeba_world::Entropy;

pub use cache::Bytes;
pub use compact::Compacted;
pub use contents::Edit;
pub use counters::Counter;
pub use create::Outcome;
pub use error::{StoreError, VolumeError};
pub use layout::{BLOCK_SIZE, CHUNK_SIZE, FILE_SIZE_MAX, INODE_COUNT_MAX};
pub use read::{MakeMemory, Whole};
pub use recover::{FormatOptions, Formatted, format};
pub use table::LIFETIME_MAX;
pub use transfer::{Identity, Listed};
pub use upkeep::Check;
pub use usage::Usage;

use cache::{Cache, Cached};
use compact::Compaction;
use contents::Contents;
use counters::Counters;
use layout::Superblock;
use locks::Locks;
use table::{Entry, FileState, Table};
use volume::Volume;

/// The smallest memory for files; a smaller setting is raised to it.
pub const CACHE_SIZE_MIN: u64 = 4 * CHUNK_SIZE;

/// What a server may be told about a store.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Bytes of memory for files: committed and cached, committed and not yet written (at most a quarter),
    /// uncommitted (at most half).
    pub cache_size: u64,
    /// How long an uncommitted file lives since its last edit.
    pub uncommitted_life: Duration,
    /// How often the sweeper comes round: the longest that a file committed without safety stays in memory only.
    pub sweep_interval: Duration,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            cache_size: 256 << 20,
            uncommitted_life: Duration::from_secs(600),
            sweep_interval: Duration::from_secs(60),
        }
    }
}

impl Settings {
    /// The largest file that is cached whole and the largest uncommitted file that is kept in memory.
    fn whole_max(&self) -> u64 {
        (self.cache_size / 4).max(CHUNK_SIZE)
    }

    fn drafts_max(&self) -> u64 {
        self.cache_size / 2
    }

    /// The most memory that may be lent to readers.
    fn lendable_max(&self) -> u64 {
        self.cache_size / 4
    }

    /// The most bytes, counted by whole files, that replies under way may keep.
    fn sent_max(&self) -> u64 {
        self.cache_size / 4
    }

    fn dirty_max(&self) -> u64 {
        self.cache_size / 4
    }
}

/// Names one file for good: its number, and the random that tells it from another file that had the number before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileId {
    /// Its object number, not 0.
    pub object: ObjectNumber,
    /// Its random.
    pub random: CheckField,
}

impl FileId {
    fn number(&self) -> u32 {
        self.object.get()
    }
}

/// The file that a new one is to be compared with when it is committed.
#[derive(Clone, Copy, Debug)]
pub struct Compare {
    /// The committed file.
    pub file: FileId,
    /// The rights of the capability that named it, to be returned unchanged.
    pub rights: Rights,
}

/// When an edit or a create is to make the file visible and immutable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Commit {
    /// Not yet.
    No,
    /// Not yet; its commit will wait for the disk, so a large file may be brought there meanwhile.
    Later,
    /// Now, in memory, with blocks reserved; written by the sweeper.
    Memory,
    /// Now, and on disk before the answer.
    Disk,
}

impl Commit {
    /// Whether the file is to be visible now.
    fn is_now(self) -> bool {
        matches!(self, Commit::Memory | Commit::Disk)
    }
}

/// See the module.
pub struct Store {
    threads: Threads,
    entropy: Arc<dyn Entropy>,
    settings: Settings,
    volume: Volume,
    locks: Locks,
    /// Held while a large file is brought into memory, or into other memory.
    large: Mutex<()>,
    state: sync::Mutex<State>,
    /// The superblock as last written; held while it is written again.
    superblock: Mutex<Superblock>,
    get_port: GetPort,
    super_random: CheckField,
    secret: ServerSecret,
    counters: Counters,
    compaction: Compaction,
    /// What replies under way keep.
    replies: Arc<sent::Replies>,
}

struct State {
    table: Table,
    cache: Cache,
    /// Committed bytes that are not durable yet.
    dirty: BTreeMap<u32, Bytes>,
    dirty_size: u64,
    drafts: BTreeMap<u32, Draft>,
    drafts_size: u64,
    /// Bytes of files that are being brought into memory and are not in the cache yet.
    making_size: u64,
    sequence_next: u64,
    /// Sequences whose records may have been written but were not flushed; the checkpoint stays below them.
    inflight: BTreeSet<u64>,
    /// As in the superblock, or about to be.
    checkpoint: u64,
    /// Bytes a restart would have to verify.
    unchecked_size: u64,
    /// Files whose data failed to verify, and records that were damaged at the start.
    damaged: BTreeSet<u32>,
    /// The volume has another identity than the one the server runs with: no files are made.
    adopted: bool,
}

/// An uncommitted file.
struct Draft {
    /// `None` while an operation that holds the object's lock works on them.
    contents: Option<Contents>,
    /// The memory that is counted for it in `drafts_size`.
    counted: u64,
    edited: Instant,
    compare: Option<Compare>,
}

/// The contents of a lock, whatever happened to its last holder.
pub(crate) fn held<T>(mutex: &sync::Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Store {
    /// The secret port the server listens on.
    pub fn get_port(&self) -> &GetPort {
        &self.get_port
    }

    /// The random of object 0, the server itself.
    pub fn super_random(&self) -> CheckField {
        self.super_random
    }

    /// The key of the server's check fields.
    pub fn secret(&self) -> &ServerSecret {
        &self.secret
    }

    /// The settings it runs with.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The file that has this number now, committed or not.
    pub fn file(&self, object: ObjectNumber) -> Option<FileId> {
        let state = held(&self.state);
        let entry = state.table.get(object.get())?;
        entry.has_capabilities().then_some(FileId { object, random: entry.random })
    }

    /// The file that the private part of a capability names, if this server made it and its file is still there.
    pub fn verified(&self, private: &Private) -> Option<FileId> {
        let number = private.object.get();
        let (file, is_known) = {
            let state = held(&self.state);
            let entry = state.table.get(number).filter(|entry| entry.has_capabilities())?;
            let (rights, check) = entry.verified;
            let is_known = check != CheckField::NULL && rights == private.rights && check == private.check;
            (FileId { object: private.object, random: entry.random }, is_known)
        };
        if is_known {
            return Some(file);
        }
        if !self.secret.verifies(private, file.random) {
            return None;
        }
        let mut state = held(&self.state);
        if let Ok(entry) = state.find(file) {
            entry.verified = (private.rights, private.check);
        }
        Some(file)
    }

    /// Bytes of a committed file.
    ///
    /// # Errors
    /// NoSuchFile; also for an uncommitted file.
    pub fn size(&self, file: FileId) -> Result<u64, StoreError> {
        self.with(|state| match state.find(file)? {
            entry if entry.state == FileState::Draft => Err(StoreError::NoSuchFile),
            entry => Ok(entry.size),
        })
    }

    /// Whether a read or a check found that the bytes of the file with this number are not what was committed.
    pub fn is_damaged(&self, object: ObjectNumber) -> bool {
        held(&self.state).damaged.contains(&object.get())
    }

    /// Runs a short critical section, and drops what the cache can no longer hold after it.
    fn with<T>(&self, section: impl FnOnce(&mut State) -> T) -> T {
        let mut state = held(&self.state);
        let result = section(&mut state);
        let others = state.drafts_size + state.dirty_size + state.making_size;
        let target = self.settings.cache_size.saturating_sub(others);
        let dropped = state.cache.shrink(target);
        drop(state);
        drop(dropped); // freeing megabytes takes time, so not under the lock
        result
    }

    fn count(&self, counter: Counter) {
        self.counters.add(counter);
    }

    /// Remembers that a file's bytes on disk are not what was committed.
    fn note_damage(&self, number: u32) -> StoreError {
        self.count(Counter::DamagedReads);
        held(&self.state).damaged.insert(number);
        StoreError::Damaged
    }
}

impl Entry {
    /// Whether capabilities for it are valid.
    fn has_capabilities(&self) -> bool {
        self.is_committed() || matches!(self.state, FileState::Draft | FileState::Damaged)
    }
}

impl State {
    /// The entry of a file whose capability is valid.
    fn find(&mut self, file: FileId) -> Result<&mut Entry, StoreError> {
        match self.table.get(file.number()) {
            Some(entry) if entry.has_capabilities() && entry.random == file.random => {
                Ok(self.table.get_mut(file.number()))
            }
            _ => Err(StoreError::NoSuchFile),
        }
    }

    /// The entry of a committed file that can be read; it counts as touched.
    fn committed(&mut self, file: FileId) -> Result<Entry, StoreError> {
        let entry = self.find(file)?;
        match entry.state {
            FileState::Draft => Err(StoreError::NoSuchFile),
            FileState::Damaged => Err(StoreError::Damaged),
            _ => {
                entry.lifetime = LIFETIME_MAX;
                Ok(*entry)
            }
        }
    }

    /// Forgets what is in memory of a file's committed bytes.
    fn forget(&mut self, number: u32) -> Vec<Cached> {
        let mut forgotten = self.cache.remove_file(number);
        if let Some(bytes) = self.dirty.remove(&number) {
            self.dirty_size -= cache::cost(&bytes);
            forgotten.push(bytes.into());
        }
        forgotten
    }

    /// Corrects what a draft is counted as.
    fn recount(&mut self, number: u32, memory: u64) {
        let draft = self.drafts.get_mut(&number).expect("a locked draft stays");
        self.drafts_size = self.drafts_size - draft.counted + memory;
        draft.counted = memory;
    }

    fn remove_draft(&mut self, number: u32) -> Option<Draft> {
        let draft = self.drafts.remove(&number)?;
        self.drafts_size -= draft.counted;
        Some(draft)
    }
}
