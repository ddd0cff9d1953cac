//! What the server knows of its tables without reading them: changes that are not in the tables yet, and a cache of
//! what is.
//!
//! ```text
//!   active     changes since the last freeze; visible, durable in the log
//!   frozen     changes before it, which a checkpoint is bringing to the tables
//!   tables     redb as of the last checkpoint
//! ```
//! A lookup asks the caches, then `active`, `frozen`, `tables`. The caches are exact: a change that becomes visible
//! changes them under the same lock, and what is read from the tables gets into them only if the tables are still the
//! ones that were read and no newer change is known.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Bound, Deref};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use amoeba_cap::ObjectNumber;

use crate::cache::Cache;
use crate::filter::Filter;
use crate::guarded::Guarded;
use crate::kept::{KeptDirectory, KeptRow, KeyHash, NumberHash};
use crate::tables::{State, TableError, View};
use crate::update::Refusal;
use crate::walk::damaged;

/// What an entry of an overlay costs beside its contents, in bytes.
const OVERLAY_COST: usize = 128;
/// How often what a lookup lacks is brought to memory before the lookup reads the tables under the lock.
const LOOKS_MAX: usize = 64;
/// Of the caches' bytes, one part in so many is for directories, the rest for rows.
const DIRECTORIES_PART: usize = 8;

/// Changes of tables: what is in here counts, not what lies below. `None`: it is no more.
#[derive(Debug, Default)]
pub struct Overlay {
    rows: BTreeSet<KeptRow>,
    directories: BTreeMap<ObjectNumber, Option<Arc<Guarded>>>,
    size: usize,
}

impl Overlay {
    pub(crate) fn put_row(&mut self, row: KeptRow) {
        self.size += row.size() + OVERLAY_COST;
        if let Some(old) = self.rows.replace(row) {
            self.size -= old.size() + OVERLAY_COST;
        }
    }

    pub(crate) fn put_directory(&mut self, object: ObjectNumber, directory: Option<Arc<Guarded>>) {
        let cost = |directory: &Option<Arc<Guarded>>| directory.as_ref().map_or(0, |some| some.size());
        self.size += cost(&directory) + OVERLAY_COST;
        if let Some(old) = self.directories.insert(object, directory) {
            self.size -= cost(&old) + OVERLAY_COST;
        }
    }

    /// A directory that it alone has, to be changed in place; its size must stay.
    pub(crate) fn own_directory(&mut self, object: ObjectNumber) -> Option<&mut Guarded> {
        Arc::get_mut(self.directories.get_mut(&object)?.as_mut()?)
    }

    /// Bytes it takes in memory, about.
    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// What it says of a row, if it says anything.
    pub(crate) fn row(&self, key: &[u8]) -> Option<&KeptRow> {
        self.rows.get(key)
    }

    /// What it says of a directory, if it says anything.
    pub(crate) fn directory(&self, object: ObjectNumber) -> Option<&Option<Arc<Guarded>>> {
        self.directories.get(&object)
    }

    /// Its rows, in their order.
    pub(crate) fn rows(&self) -> impl Iterator<Item = &KeptRow> {
        self.rows.iter()
    }

    /// Its directories, in their order.
    pub(crate) fn directories(&self) -> impl Iterator<Item = (ObjectNumber, &Option<Arc<Guarded>>)> {
        self.directories.iter().map(|(&object, directory)| (object, directory))
    }

    /// Adds newer changes.
    pub(crate) fn add(&mut self, newer: &Overlay) {
        newer.rows().for_each(|row| self.put_row(row.clone()));
        newer.directories().for_each(|(object, directory)| self.put_directory(object, directory.clone()));
    }

    /// At most `count` of its rows from `start` up to `end`.
    pub(crate) fn rows_between(&self, start: &[u8], end: &[u8], count: usize) -> Vec<KeptRow> {
        let range = (Bound::Included(start), Bound::Excluded(end));
        self.rows.range::<[u8], _>(range).take(count).cloned().collect()
    }
}

/// See the module.
pub struct Memory {
    rows: Cache<KeptRow, KeyHash>,
    directories: Cache<KeptDirectory, NumberHash>,
    active: Overlay,
    frozen: Option<Arc<Overlay>>,
    /// Rows of `active`, by the hash of the cache.
    in_active: Filter,
    /// Rows of `frozen`.
    in_frozen: Filter,
    tables: Arc<View>,
    state: State,
    /// The last entry that is in the tables.
    in_tables: u64,
}

impl Memory {
    /// What there is when the tables were just opened; the caches may have `cache_size` bytes.
    pub(crate) fn new(cache_size: usize, tables: Arc<View>, state: State) -> Memory {
        let for_directories = cache_size / DIRECTORIES_PART;
        Memory {
            rows: Cache::new(cache_size - for_directories),
            directories: Cache::new(for_directories),
            active: Overlay::default(),
            frozen: None,
            in_active: Filter::default(),
            in_frozen: Filter::default(),
            tables,
            state,
            in_tables: state.applied,
        }
    }

    /// The state that lookups see.
    pub(crate) fn state(&self) -> State {
        self.state
    }

    /// The tables as of the last checkpoint.
    pub(crate) fn tables(&self) -> &Arc<View> {
        &self.tables
    }

    /// Whether everything is in the tables.
    pub(crate) fn is_in_tables(&self) -> bool {
        self.in_tables == self.state.applied
    }

    /// Bytes in the caches.
    pub(crate) fn cache_size(&self) -> usize {
        self.rows.size() + self.directories.size()
    }

    /// Bytes of changes since the last freeze.
    pub(crate) fn active_size(&self) -> usize {
        self.active.size()
    }

    /// Bytes of changes that are not in the tables.
    pub(crate) fn waiting_size(&self) -> usize {
        self.active.size() + self.frozen.as_ref().map_or(0, |frozen| frozen.size())
    }

    /// Makes changes visible.
    pub(crate) fn publish(&mut self, changes: &Overlay, state: State) {
        for row in changes.rows() {
            self.in_active.note(self.rows.hash(row.key()));
            if row.is_there() {
                self.fill_row(row.clone());
            } else {
                // The change itself says so until the tables do; a name that is gone for good is not asked for again.
                self.rows.remove(row.key());
            }
        }
        for (object, directory) in changes.directories() {
            match directory {
                Some(directory) => self.fill_directory(object, Some(directory.clone())),
                None => self.directories.remove(&object),
            }
        }
        self.active.add(changes);
        self.state = state;
    }

    /// Begins another set of changes; the one before is to be brought to the tables.
    pub(crate) fn freeze(&mut self) -> Arc<Overlay> {
        assert!(self.frozen.is_none(), "a freeze waits for the checkpoint before");
        let frozen = Arc::new(std::mem::take(&mut self.active));
        self.frozen = Some(frozen.clone());
        self.in_frozen = std::mem::take(&mut self.in_active);
        frozen
    }

    /// What was frozen is in the tables now.
    pub(crate) fn checkpointed(&mut self, tables: Arc<View>, applied: u64) {
        (self.tables, self.in_tables, self.frozen) = (tables, applied, None);
        self.in_frozen = Filter::default();
    }

    fn fill_row(&mut self, row: KeptRow) {
        let size = row.size();
        self.rows.insert(row, size);
    }

    fn fill_directory(&mut self, object: ObjectNumber, directory: Option<Arc<Guarded>>) {
        let size = directory.as_ref().map_or(0, |directory| directory.size());
        self.directories.insert(KeptDirectory::new(object, directory), size);
    }

    /// A row, as far as it is known without the tables.
    fn row(&self, key: &[u8]) -> Option<&KeptRow> {
        let hash = self.rows.hash(key);
        let active = || if self.in_active.may_have(hash) { self.active.row(key) } else { None };
        let frozen = || if self.in_frozen.may_have(hash) { self.frozen.as_ref()?.row(key) } else { None };
        self.rows.get_hashed(hash, key).or_else(active).or_else(frozen)
    }

    /// A directory, as far as it is known without the tables.
    fn directory(&self, object: ObjectNumber) -> Option<&Option<Arc<Guarded>>> {
        let below = || self.active.directory(object).or_else(|| self.frozen.as_ref()?.directory(object));
        self.directories.get(&object).map(|kept| &kept.directory).or_else(below)
    }

    /// The newest changes of rows in a range: at most `count` of each overlay, and the first key that may be missing.
    pub(crate) fn changes_between(
        &self,
        start: &[u8],
        end: &[u8],
        count: usize,
    ) -> (BTreeSet<KeptRow>, Option<KeptRow>) {
        let mut all = BTreeSet::new();
        let mut horizon: Option<KeptRow> = None;
        for overlay in self.frozen.as_deref().into_iter().chain([&self.active]) {
            let mut rows = overlay.rows_between(start, end, count + 1);
            if rows.len() > count {
                horizon = [horizon, rows.pop()].into_iter().flatten().min();
            }
            replace_all(&mut all, rows);
        }
        (all, horizon)
    }

    /// The newest changes of directories in a range of numbers.
    pub(crate) fn directories_between(
        &self,
        start: ObjectNumber,
        end: ObjectNumber,
    ) -> BTreeMap<ObjectNumber, Option<Arc<Guarded>>> {
        let overlays = self.frozen.as_deref().into_iter().chain([&self.active]);
        let range = |overlay: &Overlay| {
            let range = overlay.directories.range(start..=end);
            range.map(|(&object, directory)| (object, directory.clone())).collect::<Vec<_>>()
        };
        overlays.flat_map(range).collect()
    }
}

/// The newer ones take the places of those with the same keys.
pub(crate) fn replace_all(rows: &mut BTreeSet<KeptRow>, newer: impl IntoIterator<Item = KeptRow>) {
    newer.into_iter().for_each(|row| drop(rows.replace(row)));
}

/// The bytes of a row, or that there is none: in memory, or read just now.
pub enum SeenRow<'a> {
    /// It was in memory.
    Kept(&'a KeptRow),
    /// It was read from the tables.
    Read(Option<KeptRow>),
}

impl SeenRow<'_> {
    /// The bytes, if there is a row.
    pub fn bytes(&self) -> Option<&[u8]> {
        match self {
            SeenRow::Kept(kept) => kept.value(),
            SeenRow::Read(read) => read.as_ref()?.value(),
        }
    }
}

/// A directory, or that there is none: in memory, or read just now.
pub enum SeenDirectory<'a> {
    /// It was in memory.
    Kept(&'a Option<Arc<Guarded>>),
    /// It was read from the tables.
    Read(Option<Arc<Guarded>>),
}

impl Deref for SeenDirectory<'_> {
    type Target = Option<Arc<Guarded>>;
    fn deref(&self) -> &Option<Arc<Guarded>> {
        match self {
            SeenDirectory::Kept(kept) => kept,
            SeenDirectory::Read(read) => read,
        }
    }
}

/// Why a look did not end.
#[derive(Debug)]
pub enum Stop {
    /// Something has to be read first; the look begins again then.
    Missed,
    /// It is refused.
    Refused(Refusal),
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Stop {
        Stop::Refused(refusal)
    }
}

enum Miss {
    /// That there is none is what is known if the tables have none either.
    Row(KeptRow),
    Directory(ObjectNumber),
}

/// A look at directories and rows at one moment.
pub struct Look<'a> {
    memory: &'a Memory,
    /// Whether what is not in memory is read at once.
    through: bool,
    misses: Mutex<Vec<Miss>>,
}

impl Look<'_> {
    /// A directory.
    pub fn directory(&self, object: ObjectNumber) -> Result<SeenDirectory<'_>, Stop> {
        match self.memory.directory(object) {
            Some(kept) => Ok(SeenDirectory::Kept(kept)),
            None if self.through => {
                let read = self.memory.tables.directory(object).map_err(damaged)?;
                Ok(SeenDirectory::Read(read.map(|read| Arc::new(Guarded::new(read)))))
            }
            None => Err(self.miss(Miss::Directory(object))),
        }
    }

    /// The bytes of a row.
    pub fn row_bytes(&self, object: ObjectNumber, name: &[u8]) -> Result<SeenRow<'_>, Stop> {
        with_key(object, name, |key| match self.memory.row(key) {
            Some(kept) => Ok(SeenRow::Kept(kept)),
            None if self.through => Ok(SeenRow::Read(self.memory.tables.row(key).map_err(damaged)?)),
            None => Err(self.miss(Miss::Row(KeptRow::new(key, None)))),
        })
    }

    /// The state.
    pub fn state(&self) -> State {
        self.memory.state
    }

    fn miss(&self, miss: Miss) -> Stop {
        self.misses.lock().unwrap_or_else(PoisonError::into_inner).push(miss);
        Stop::Missed
    }
}

/// Bytes of a key that most keys have room in: clearing room for the longest takes longer than to copy one.
const KEY_SIZE_USUAL: usize = 64;

/// Calls `with` with the key of a row, which is made without an allocation.
pub(crate) fn with_key<T>(object: ObjectNumber, name: &[u8], with: impl FnOnce(&[u8]) -> T) -> T {
    if 4 + name.len() <= KEY_SIZE_USUAL {
        with(key_in(&mut [0; KEY_SIZE_USUAL], object, name))
    } else {
        with(key_in(&mut [0; 4 + crate::row::NAME_SIZE_MAX], object, name))
    }
}

fn key_in<'a>(room: &'a mut [u8], object: ObjectNumber, name: &[u8]) -> &'a [u8] {
    let length = 4 + name.len();
    room[..4].copy_from_slice(&object.get().to_be_bytes());
    room[4..length].copy_from_slice(name);
    &room[..length]
}

/// Memory that all threads share.
pub(crate) type Shared = Arc<RwLock<Memory>>;

/// For reading. The lock is held for a moment only: whoever has it neither parks nor, but for the last resort of
/// [`look`], reads a disk.
pub(crate) fn read(memory: &Shared) -> std::sync::RwLockReadGuard<'_, Memory> {
    memory.read().unwrap_or_else(PoisonError::into_inner)
}

/// For changing.
pub(crate) fn write(memory: &Shared) -> std::sync::RwLockWriteGuard<'_, Memory> {
    memory.write().unwrap_or_else(PoisonError::into_inner)
}

/// What `look` sees at one moment. It may be called several times: what it lacked is read in between, without a lock.
pub(crate) fn look<T>(memory: &Shared, look: impl Fn(&Look<'_>) -> Result<T, Stop>) -> Result<T, Refusal> {
    for _ in 0..LOOKS_MAX {
        match look_once(memory, &look) {
            (result, None) => return result.map_err(refusal),
            (_, Some(missed)) => load(memory, missed)?,
        }
    }
    let memory = read(memory);
    look(&Look { memory: &memory, through: true, misses: Mutex::default() }).map_err(refusal)
}

/// Brings what `look` lacks to memory, as far as one look tells.
pub(crate) fn warm(memory: &Shared, look: impl Fn(&Look<'_>)) -> Result<(), Refusal> {
    look_once(memory, look).1.map_or(Ok(()), |missed| load(memory, missed))
}

/// What a look lacked, and when it was.
struct Missed {
    misses: Vec<Miss>,
    tables: Arc<View>,
    /// The last entry that was visible.
    applied: u64,
}

fn look_once<T>(memory: &Shared, look: impl Fn(&Look<'_>) -> T) -> (T, Option<Missed>) {
    let memory = read(memory);
    let at = Look { memory: &memory, through: false, misses: Mutex::default() };
    let result = look(&at);
    let misses = at.misses.into_inner().unwrap_or_else(PoisonError::into_inner);
    let missed = (!misses.is_empty()).then(|| Missed {
        misses,
        tables: memory.tables.clone(),
        applied: memory.state.applied,
    });
    (result, missed)
}

fn refusal(stop: Stop) -> Refusal {
    match stop {
        Stop::Refused(refusal) => refusal,
        Stop::Missed => unreachable!("a look that missed something has said what"),
    }
}

/// Brings what was missed from the tables to the caches.
fn load(memory: &Shared, missed: Missed) -> Result<(), Refusal> {
    let Missed { misses, tables, applied } = missed;
    let read = |miss| match miss {
        Miss::Row(absent) => tables.row(absent.key()).map(|row| Loaded::Row(row.unwrap_or(absent))),
        Miss::Directory(object) => tables.directory(object).map(|directory| {
            Loaded::Directory(object, directory.map(|directory| Arc::new(Guarded::new(directory))))
        }),
    };
    let loaded = misses.into_iter().map(read).collect::<Result<Vec<_>, _>>().map_err(damaged)?;
    let mut memory = write(memory);
    if !Arc::ptr_eq(&memory.tables, &tables) {
        return Ok(()); // there are newer ones: the next look says what it lacks of them
    }
    // As long as nothing became visible since it was missed, no newer change can be known.
    let same = memory.state.applied == applied;
    for loaded in loaded {
        match loaded {
            Loaded::Row(row) if same || memory.row(row.key()).is_none() => memory.fill_row(row),
            Loaded::Directory(object, directory) if same || memory.directory(object).is_none() => {
                memory.fill_directory(object, directory);
            }
            _ => {}
        }
    }
    Ok(())
}

/// What was read.
enum Loaded {
    Row(KeptRow),
    Directory(ObjectNumber, Option<Arc<Guarded>>),
}

/// A row as it is now, whatever it takes.
pub(crate) fn row_through(memory: &Memory, key: &[u8]) -> Result<Option<KeptRow>, TableError> {
    match memory.row(key) {
        Some(known) => Ok(Some(known.clone())),
        None => memory.tables.row(key),
    }
}

/// A directory as it is now, whatever it takes.
pub(crate) fn directory_through(
    memory: &Memory,
    object: ObjectNumber,
) -> Result<Option<Arc<Guarded>>, TableError> {
    match memory.directory(object) {
        Some(known) => Ok(known.clone()),
        None => {
            let read = memory.tables.directory(object)?;
            Ok(read.map(|directory| Arc::new(Guarded::new(directory))))
        }
    }
}
