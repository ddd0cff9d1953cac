//! The store: what is made at format, what is read at the start, and what lookups see.
//!
//! Updates are in `commit`: group commit, one flush for all who wait. How the tables follow the log is in
//! `checkpoint`. Lookups ask `memory`, which has all that is not in the tables and a cache of what is; they wait for
//! no disk that an update writes to.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};

use amoeba_cap::{Capability, CheckField, GetPort, ObjectNumber, PutPort, Rights, ServerSecret};
use amoeba_world::{Disk, DiskError, Entropy, World, random};
use redb::{Database, Durability, ReadableDatabase, WriteTransaction};

use crate::backend::Pages;
use crate::checkpoint::{Checkpointing, Frozen};
use crate::commit::{Planning, Taken, Writing};
use crate::draft::Draft;
use crate::guarded::Guarded;
use crate::log::{LOG_SIZE_DEFAULT, Log, LogError};
use crate::memory::{self, Look, Memory, Overlay, Shared, Stop, read, write};
use crate::merged;
use crate::row::{Directory, Name, Row, columns_are_good};
use crate::tables::{self, State, TableError, View, contained};
use crate::update::{Outcome, ROOT, Refusal, Update, is_expired};
use crate::walk::damaged;

pub use crate::tables::Identity;

/// Of the memory setting, one part in so many is redb's cache of pages, the rest is for rows and directories.
const PAGES_PART: usize = 8;

/// Why a store cannot be made or opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// See [`LogError`].
    #[error(transparent)]
    Log(#[from] LogError),
    /// See [`TableError`].
    #[error(transparent)]
    Tables(#[from] TableError),
    /// A disk failed or is full.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The kernel did not say which put-port belongs to the service's get-port.
    #[error("no put-port: {0}")]
    Port(amoeba_world::Error),
}

/// How a new service is to be.
#[derive(Clone, Debug)]
pub struct Format {
    /// Bytes of the log.
    pub log_size: u64,
    /// Names of the root directory's columns.
    pub columns: Vec<Vec<u8>>,
    /// The port to listen on; `None` for a random one.
    pub get_port: Option<GetPort>,
}

impl Default for Format {
    fn default() -> Format {
        let columns = ["owner", "group", "other"].map(|name| name.as_bytes().to_vec()).to_vec();
        Format { log_size: LOG_SIZE_DEFAULT, columns, get_port: None }
    }
}

/// How a service is to run.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Bytes of rows, directories and pages of the tables to keep in memory.
    pub cache_size: usize,
    /// Entries after which a checkpoint is made.
    pub checkpoint_entries: u64,
}

impl Default for Options {
    fn default() -> Options {
        Options { cache_size: 256 << 20, checkpoint_entries: 32_768 }
    }
}

impl Identity {
    /// The capability of the service itself (object 0) with all rights, given the image of its get-port.
    pub fn super_capability(&self, port: PutPort) -> Capability {
        self.secret.capability(port, ObjectNumber::SUPER, Rights::ALL, self.super_random)
    }
}

/// What the maker of a service needs: who it is, and the root directory's random.
#[derive(Clone)]
pub struct Formatted {
    /// Who the service is.
    pub identity: Identity,
    /// What the root directory's check fields are made of.
    pub root_random: CheckField,
}

impl Formatted {
    /// The root directory's capability with all rights, given the image of the service's get-port.
    pub fn root_capability(&self, port: PutPort) -> Capability {
        self.identity.secret.capability(port, ROOT, Rights::ALL, self.root_random)
    }
}

/// Makes two disks an empty directory service: whatever they held is gone.
///
/// `tables` must be able to grow. Returns once everything is durable.
pub fn format(
    tables: Arc<dyn Disk>,
    log: &dyn Disk,
    entropy: &dyn Entropy,
    time: u64,
    format: &Format,
) -> Result<Formatted, StoreError> {
    assert!(columns_are_good(&format.columns), "the caller chose one to four columns");
    let identity = Identity {
        get_port: format.get_port.clone().unwrap_or_else(|| GetPort::from_bytes(random(entropy))),
        secret: ServerSecret::from_bytes(random(entropy)),
        super_random: CheckField::from_bytes(random(entropy)),
        volume: random(entropy),
    };
    Log::format(log, &identity.volume, format.log_size)?;
    tables.set_size(0)?;
    tables.flush()?;
    let pages = Pages::new(tables);
    let database = open_database(&pages, 1 << 20)?;
    let state = State { applied: 1, generation: 1, next_object: 2, tick: 0, directories: 1 };
    let transaction = durable(&database)?;
    tables::create(&transaction, &identity, state)?;
    let root_random = CheckField::from_bytes(random(entropy));
    let root = Directory {
        random: root_random,
        sequence: 1,
        time,
        rows: 0,
        touched: 0,
        owner: PutPort::NULL,
        columns: format.columns.clone(),
    };
    let mut contents = Overlay::default();
    contents.put_directory(ROOT, Some(Arc::new(Guarded::new(root))));
    tables::store(&transaction, &contents, state)?;
    transaction.commit().map_err(TableError::from)?;
    pages.drain()?;
    Ok(Formatted { identity, root_random })
}

pub(crate) fn open_database(pages: &Pages, cache_size: usize) -> Result<Database, TableError> {
    let mut builder = Database::builder();
    builder.set_cache_size(cache_size);
    Ok(builder.create_with_backend(pages.clone())?)
}

/// A transaction whose commit is a checkpoint once it is drained. Opening after it needs no walk over the tables.
pub(crate) fn durable(database: &Database) -> Result<WriteTransaction, TableError> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(Durability::Immediate)?;
    transaction.set_quick_repair(true);
    Ok(transaction)
}

/// Directories and rows, durable. Any number of threads may use it.
pub struct Store {
    pub(crate) world: World,
    pub(crate) identity: Identity,
    pub(crate) port: PutPort,
    pub(crate) database: Contained,
    pub(crate) pages: Pages,
    pub(crate) options: Options,
    pub(crate) memory: Shared,
    /// What comes next. Held for moments only.
    pub(crate) planning: Mutex<Planning>,
    /// Where a full batch is waited for.
    pub(crate) taken: Taken,
    /// The log; whoever has it may wait for the disk.
    pub(crate) writing: amoeba_threads::Mutex<Writing>,
    pub(crate) checkpointing: Arc<Checkpointing>,
    /// The tables' disk was full at the last try.
    pub(crate) full: AtomicBool,
    pub(crate) used: Used,
    /// What happened, for status.
    pub counters: Counters,
}

/// A database whose end may find damage too: redb tidies up when it is dropped, and panics over pages that are none.
pub(crate) struct Contained(Option<Database>);

impl std::ops::Deref for Contained {
    type Target = Database;
    fn deref(&self) -> &Database {
        self.0.as_ref().expect("it is there until it is dropped")
    }
}

impl Drop for Contained {
    fn drop(&mut self) {
        let database = self.0.take();
        // What it writes now stays in memory: the disk is as of the last checkpoint, whatever becomes of this.
        let _ = contained(|| {
            drop(database);
            Ok::<(), TableError>(())
        });
    }
}

/// Everything as of one moment.
#[derive(Clone)]
pub struct Snapshot {
    /// The state then.
    pub state: State,
    /// Directories and rows.
    pub view: Arc<View>,
}

/// How much room a service takes.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    /// The state now.
    pub state: State,
    /// Bytes of the tables.
    pub tables: u64,
    /// Bytes of the log.
    pub log: u64,
    /// Bytes of it that the next start would read.
    pub log_used: u64,
    /// Bytes the caches may have.
    pub cache: u64,
    /// Bytes they have.
    pub cache_used: u64,
    /// Bytes that wait in memory until they are brought to the tables.
    pub waiting: u64,
}

/// Counted since the start.
#[derive(Default)]
pub struct Counters {
    /// Updates done.
    pub updates: AtomicU64,
    /// Flushes of the log: as many as batches.
    pub batches: AtomicU64,
    /// Checkpoints made.
    pub checkpoints: AtomicU64,
}

impl Store {
    /// The service on these disks, after recovery.
    ///
    /// # Errors
    /// Disks that are no service's, or of two; damage in acknowledged entries; a failing disk; no put-port.
    pub fn open(
        world: &World,
        tables: Arc<dyn Disk>,
        log: Arc<dyn Disk>,
        options: Options,
    ) -> Result<Store, StoreError> {
        let for_pages = options.cache_size / PAGES_PART;
        let pages = Pages::new(tables);
        let (database, identity, recovered) = contained(|| {
            let database = open_database(&pages, for_pages)?;
            let transaction = database.begin_read().map_err(TableError::from)?;
            let (identity, state) = tables::read_meta(&transaction)?;
            let view = Arc::new(View::new(&transaction)?);
            let log = Log::open(log, &identity.volume)?;
            let memory = Memory::new(options.cache_size - for_pages, view, state);
            let recovered = recover(log, Arc::new(RwLock::new(memory)), state)?;
            Ok::<_, StoreError>((database, identity, recovered))
        })?;
        let port = world.transactions.put_port(&identity.get_port).map_err(StoreError::Port)?;
        let Recovered { log, memory, frozen, entries } = recovered;
        Ok(Store {
            world: world.clone(),
            identity,
            port,
            database: Contained(Some(database)),
            pages,
            options,
            planning: Mutex::new(Planning::new(&memory)),
            taken: Taken::new(&world.threads),
            writing: amoeba_threads::Mutex::new(&world.threads, Writing { log, since_freeze: entries }),
            checkpointing: Arc::new(Checkpointing::new(&world.threads, frozen)),
            memory,
            full: AtomicBool::new(false),
            used: Used::default(),
            counters: Counters::default(),
        })
    }

    /// Who this service is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The put-port in its capabilities.
    pub fn port(&self) -> PutPort {
        self.port
    }

    /// The world it runs in.
    pub fn world(&self) -> &World {
        &self.world
    }

    /// What `with` sees at one moment. It may be called several times.
    pub fn look<T>(&self, with: impl Fn(&Look<'_>) -> Result<T, Stop>) -> Result<T, Refusal> {
        memory::look(&self.memory, with)
    }

    /// A directory as it is now.
    pub fn directory(&self, object: ObjectNumber) -> Result<Option<Arc<Guarded>>, Refusal> {
        self.look(|look| Ok(look.directory(object)?.clone()))
    }

    /// A row as it is now.
    pub fn row(&self, object: ObjectNumber, name: &Name) -> Result<Option<Row>, Refusal> {
        self.look(|look| {
            let row = look.row_bytes(object, name.as_bytes())?;
            Ok(row.bytes().map(Row::from_bytes).transpose().map_err(|_| Refusal::Damaged)?)
        })
    }

    /// Rows of a directory in the order of their names, from the first one after `after` on; `each` says whether it
    /// wants another. They come in pages of `chunk` rows, each as of one moment.
    pub fn rows_after(
        &self,
        object: ObjectNumber,
        after: Option<&Name>,
        chunk: usize,
        each: impl FnMut(Name, Row) -> bool,
    ) -> Result<(), Refusal> {
        merged::rows_after(&self.memory, object, after, chunk, each).map_err(damaged)
    }

    /// Directories from a number on; `each` says whether it wants another.
    pub fn directories_from(
        &self,
        object: ObjectNumber,
        each: impl FnMut(ObjectNumber, &Directory) -> bool,
    ) -> Result<(), Refusal> {
        merged::directories_from(&self.memory, object, each).map_err(damaged)
    }

    /// The number of the last entry, and how many directories there are.
    pub fn state(&self) -> State {
        read(&self.memory).state()
    }

    /// How much room the service takes.
    pub fn usage(&self) -> Usage {
        let (log, log_used) = {
            let writing = self.writing.lock();
            (writing.log.size(), writing.log.used())
        };
        let memory = read(&self.memory);
        Usage {
            state: memory.state(),
            tables: self.pages.size(),
            log,
            log_used,
            cache: self.options.cache_size as u64,
            cache_used: memory.cache_size() as u64,
            waiting: memory.waiting_size() as u64 + self.pages.waiting(),
        }
    }

    /// A capability of one of our directories.
    pub fn capability(&self, object: ObjectNumber, rights: Rights, random: CheckField) -> Capability {
        self.identity.secret.capability(self.port, object, rights, random)
    }

    /// Remembers that a directory was used: the next [`Store::age`] makes it young.
    pub fn mark_used(&self, object: ObjectNumber) {
        self.used.mark(object);
    }

    /// One tick of ageing: what was used since the last one is young again, everything else is older, and what
    /// nobody touched for [`crate::row::LIFE_MAX`] ticks is removed.
    pub fn age(&self) -> Result<(), Refusal> {
        let used = self.used.take();
        for objects in used.chunks(crate::entry::CHANGES_MAX) {
            self.update(Update::Touch(objects.to_vec()))?;
        }
        self.update(Update::Tick)?;
        let tick = self.state().tick;
        let mut expired = Vec::new();
        self.directories_from(ROOT, |object, directory| {
            if is_expired(directory, tick) && !self.used.is_marked(object) {
                expired.push(object);
            }
            true
        })?;
        for object in expired {
            let mut begun = false;
            while self.update(Update::Expire { object, begun })? == Outcome::More {
                begun = true;
            }
        }
        Ok(())
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.checkpointing.close();
    }
}

struct Recovered {
    log: Log,
    memory: Shared,
    frozen: Option<Frozen>,
    /// Entries since the freeze.
    entries: u64,
}

/// Reads what the log has and the tables have not.
fn recover(mut log: Log, memory: Shared, state: State) -> Result<Recovered, StoreError> {
    // What a killed server wrote may lie in the operating system's cache only; once shown it must be durable.
    log.flush()?;
    let (next, mut position) = replay(&log, &memory, state.generation, state.applied + 1)?;
    let (mut generation, mut frozen, mut entries) = (state.generation, None, next - 1 - state.applied);
    if log.has(generation + 1)? {
        // The crash came while a checkpoint brought the older generation to the tables.
        let changes = write(&memory).freeze();
        let state = read(&memory).state();
        generation += 1;
        frozen = Some(Frozen { changes, state: State { generation, ..state } });
        let end;
        (end, position) = replay(&log, &memory, generation, next)?;
        entries = end - next;
    }
    log.resume(generation, position);
    Ok(Recovered { log, memory, frozen, entries })
}

/// Makes the entries of a generation from number `next` on visible; gives the number and the place behind the last.
fn replay(log: &Log, memory: &Shared, generation: u64, next: u64) -> Result<(u64, u64), StoreError> {
    let mut draft = Draft::new(memory);
    let end = log.replay(generation, next, |entry| Ok::<(), StoreError>(draft.apply(&entry)?))?;
    let state = draft.state;
    write(memory).publish(&draft.take_off(), state);
    Ok(end)
}

/// The time of day in nanoseconds since 1970.
pub fn unix_nanoseconds(world: &World) -> u64 {
    u64::try_from(world.clock.unix_time().as_nanos()).unwrap_or(u64::MAX)
}

/// Which directories were used since the last tick: a bit for each object number.
pub(crate) struct Used(Vec<AtomicU64>);

impl Default for Used {
    fn default() -> Used {
        let words = (ObjectNumber::MAX.get() as usize + 1) / 64;
        Used((0..words).map(|_| AtomicU64::new(0)).collect())
    }
}

impl Used {
    pub(crate) fn mark(&self, object: ObjectNumber) {
        let (word, bit) = self.place(object);
        if word.load(Ordering::Relaxed) & bit == 0 {
            word.fetch_or(bit, Ordering::Relaxed);
        }
    }

    pub(crate) fn is_marked(&self, object: ObjectNumber) -> bool {
        let (word, bit) = self.place(object);
        word.load(Ordering::Relaxed) & bit != 0
    }

    pub(crate) fn take(&self) -> Vec<ObjectNumber> {
        let mut used = Vec::new();
        for (index, word) in self.0.iter().enumerate() {
            let mut bits = word.swap(0, Ordering::Relaxed);
            while bits != 0 {
                let number = index as u32 * 64 + bits.trailing_zeros();
                used.push(ObjectNumber::new(number).expect("there is a bit for each 24-bit number"));
                bits &= bits - 1;
            }
        }
        used
    }

    fn place(&self, object: ObjectNumber) -> (&AtomicU64, u64) {
        (&self.0[object.get() as usize / 64], 1 << (object.get() % 64))
    }
}
