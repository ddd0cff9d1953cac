//! The store: group commit, checkpoints, recovery.
//!
//! Threads that want something changed queue up. The first of them leads: it takes the queue, plans and applies each
//! update in one redb write transaction, appends all their entries to the log with one flush, commits the
//! transaction without a flush (which makes it visible), and wakes the others. So nobody ever sees what is not
//! durable, and lookups, which read the last commit, never wait.
//!
//! When the generation's area of the log is full, or [`Options::checkpoint_entries`] were appended, the leader first
//! makes a checkpoint: a durable redb commit that names the next generation, brought to the disk and flushed. The
//! other area's contents are older than the checkpoint before, so the next generation takes it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use amoeba_cap::{Capability, CheckField, GetPort, ObjectNumber, PutPort, Rights, ServerSecret};
use amoeba_threads::{Condition, Mutex};
use amoeba_wire::Writer;
use amoeba_world::{Disk, DiskError, Entropy, World, random};
use redb::{Database, Durability, ReadableDatabase, WriteTransaction};

use crate::backend::Pages;
use crate::entry::Entry;
use crate::log::{BATCH_SIZE, LOG_SIZE_DEFAULT, Log, LogError};
use crate::row::{Directory, Row, columns_are_good};
use crate::tables::{self, State, TableError, TableWriter, View, contained};
use crate::update::{Outcome, PlanError, Planner, ROOT, Refusal, Update, is_expired};
use crate::walk::damaged;

pub use crate::tables::Identity;

/// Updates that one batch takes. Those that wait are bounded by the server's threads.
const BATCH_UPDATES_MAX: usize = 1024;
/// Bytes of the tables that may wait in memory before a checkpoint brings them to the disk.
const WAITING_MAX: u64 = 256 << 20;

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
    /// Bytes of the tables to keep in memory.
    pub cache_size: usize,
    /// Entries after which a checkpoint is made.
    pub checkpoint_entries: u64,
}

impl Default for Options {
    fn default() -> Options {
        Options { cache_size: 64 << 20, checkpoint_entries: 100_000 }
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
    let state = State { applied: 0, generation: 1, next_object: 1, tick: 0, directories: 0 };
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
    let mut writer = TableWriter::new(&transaction)?;
    let changes = vec![crate::entry::Change::Create(ROOT, root)];
    writer.apply(&Entry { sequence: 1, time, changes })?;
    writer.save()?;
    transaction.commit().map_err(TableError::from)?;
    pages.drain()?;
    Ok(Formatted { identity, root_random })
}

fn open_database(pages: &Pages, cache_size: usize) -> Result<Database, TableError> {
    let mut builder = Database::builder();
    builder.set_cache_size(cache_size);
    Ok(builder.create_with_backend(pages.clone())?)
}

/// A transaction whose commit is a checkpoint once it is drained. Opening after it needs no walk over the tables.
fn durable(database: &Database) -> Result<WriteTransaction, TableError> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(Durability::Immediate)?;
    transaction.set_quick_repair(true);
    Ok(transaction)
}

/// Directories and rows, durable. Any number of threads may use it.
pub struct Store {
    world: World,
    identity: Identity,
    port: PutPort,
    database: Database,
    options: Options,
    queue: Mutex<Queue>,
    answered: Condition,
    writer: Mutex<WriterState>,
    used: Used,
    /// What happened, for status.
    pub counters: Counters,
}

/// Everything as of one moment.
pub struct Snapshot {
    /// The state then.
    pub state: State,
    /// Directories and rows.
    pub view: View,
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

/// Threads that wait for their updates.
struct Queue {
    waiting: VecDeque<Waiting>,
    answers: std::collections::BTreeMap<u64, Result<Outcome, Refusal>>,
    next_ticket: u64,
    led: bool,
}

struct Waiting {
    ticket: u64,
    update: Update,
}

/// What only the leader uses.
struct WriterState {
    log: Log,
    pages: Pages,
    since_checkpoint: u64,
    state: State,
    /// Set for good when a flush failed or the tables did: from then on every update is refused.
    failed: bool,
    /// The checkpoint's commit is in the pages, but the disk was too full to take them.
    undrained: bool,
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
        let (database, identity, writer) = contained(|| {
            let pages = Pages::new(tables);
            let database = open_database(&pages, options.cache_size)?;
            let (identity, state) = tables::read_meta(&database.begin_read().map_err(TableError::from)?)?;
            let log = Log::open(log, &identity.volume)?;
            let mut writer =
                WriterState { log, pages, since_checkpoint: 0, state, failed: false, undrained: false };
            recover(&database, &mut writer)?;
            Ok::<_, StoreError>((database, identity, writer))
        })?;
        let port = world.transactions.put_port(&identity.get_port).map_err(StoreError::Port)?;
        Ok(Store {
            world: world.clone(),
            identity,
            port,
            database,
            options,
            queue: Mutex::new(
                &world.threads,
                Queue { waiting: VecDeque::new(), answers: Default::default(), next_ticket: 0, led: false },
            ),
            answered: Condition::new(&world.threads),
            writer: Mutex::new(&world.threads, writer),
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

    /// What is committed now. Drop it soon: while it lives, space of later commits is not reused.
    pub fn view(&self) -> Result<View, Refusal> {
        contained(|| View::new(&self.database.begin_read()?)).map_err(damaged)
    }

    /// A directory as it is now.
    pub fn directory(&self, object: ObjectNumber) -> Result<Option<Directory>, Refusal> {
        self.view()?.directory(object).map_err(damaged)
    }

    /// A row as it is now.
    pub fn row(&self, object: ObjectNumber, name: &crate::Name) -> Result<Option<Row>, Refusal> {
        self.view()?.row(object, name).map_err(damaged)
    }

    /// The number of the last entry, and how many directories there are.
    pub fn state(&self) -> Result<State, Refusal> {
        contained(|| Ok(tables::read_meta(&self.database.begin_read()?)?.1)).map_err(damaged)
    }

    /// Everything as of one moment, for as long as it is kept: what later commits free is not used again meanwhile.
    pub fn snapshot(&self) -> Result<Snapshot, Refusal> {
        let made = || {
            let transaction = self.database.begin_read()?;
            Ok(Snapshot { state: tables::read_meta(&transaction)?.1, view: View::new(&transaction)? })
        };
        contained(made).map_err(damaged)
    }

    /// How much room the service takes.
    pub fn usage(&self) -> Result<Usage, Refusal> {
        let state = self.state()?;
        let writer = self.writer.lock();
        let cache = self.options.cache_size as u64;
        Ok(Usage {
            state,
            tables: writer.pages.size(),
            log: writer.log.size(),
            log_used: writer.log.used(),
            cache,
            cache_used: 0,
            waiting: writer.pages.waiting(),
        })
    }

    /// A capability of one of our directories.
    pub fn capability(&self, object: ObjectNumber, rights: Rights, random: CheckField) -> Capability {
        self.identity.secret.capability(self.port, object, rights, random)
    }

    /// Remembers that a directory was used: the next [`Store::age`] makes it young.
    pub fn mark_used(&self, object: ObjectNumber) {
        self.used.mark(object);
    }

    /// Does `update`, durably, or says why not. Many threads' updates share one flush.
    pub fn update(&self, update: Update) -> Result<Outcome, Refusal> {
        let mut queue = self.queue.lock();
        let ticket = queue.next_ticket;
        queue.next_ticket += 1;
        queue.waiting.push_back(Waiting { ticket, update });
        loop {
            if let Some(answer) = queue.answers.remove(&ticket) {
                return answer;
            }
            if queue.led {
                queue = self.answered.wait(queue);
                continue;
            }
            queue.led = true;
            let count = queue.waiting.len().min(BATCH_UPDATES_MAX);
            let batch: Vec<Waiting> = queue.waiting.drain(..count).collect();
            drop(queue);
            let answers = Leading { store: self, batch }.run();
            queue = self.queue.lock();
            queue.answers.extend(answers);
            queue.led = false;
            self.answered.notify_all();
        }
    }

    /// One tick of ageing: what was used since the last one is young again, everything else is older, and what
    /// nobody touched for [`crate::row::LIFE_MAX`] ticks is removed.
    pub fn age(&self) -> Result<(), Refusal> {
        let used = self.used.take();
        for objects in used.chunks(crate::entry::CHANGES_MAX) {
            self.update(Update::Touch(objects.to_vec()))?;
        }
        self.update(Update::Tick)?;
        let tick = self.state()?.tick;
        let mut expired = Vec::new();
        self.view()?
            .directories_from(ROOT, |object, directory| {
                if is_expired(&directory, tick) && !self.used.is_marked(object) {
                    expired.push(object);
                }
                true
            })
            .map_err(damaged)?;
        for object in expired {
            let mut begun = false;
            while self.update(Update::Expire { object, begun })? == Outcome::More {
                begun = true;
            }
        }
        Ok(())
    }

    /// Makes the tables durable now, so that the next start has nothing to replay.
    pub fn checkpoint(&self) -> Result<(), Refusal> {
        let mut writer = self.writer.lock();
        if writer.failed {
            return Err(Refusal::ReadOnly);
        }
        self.make_checkpoint(&mut writer)
    }

    /// Does the updates of a batch; an answer for each.
    fn commit(&self, batch: &[Waiting]) -> Vec<Result<Outcome, Refusal>> {
        let mut writer = self.writer.lock();
        let mut answers = Vec::with_capacity(batch.len());
        while answers.len() < batch.len() {
            let rest = &batch[answers.len()..];
            let done = match self.make_room(&mut writer) {
                Ok(()) => self.commit_some(&mut writer, rest),
                Err(refusal) => vec![Err(refusal); rest.len()],
            };
            answers.extend(done);
        }
        answers
    }

    fn make_room(&self, writer: &mut WriterState) -> Result<(), Refusal> {
        if writer.failed {
            return Err(Refusal::ReadOnly);
        }
        let due = writer.since_checkpoint >= self.options.checkpoint_entries
            || !writer.log.has_room()
            || writer.pages.waiting() > WAITING_MAX;
        if due || writer.undrained { self.make_checkpoint(writer) } else { Ok(()) }
    }

    /// A checkpoint; on return the log's next generation has begun.
    fn make_checkpoint(&self, writer: &mut WriterState) -> Result<(), Refusal> {
        match contained(|| checkpoint(&self.database, writer)) {
            Ok(()) => {
                self.counters.checkpoints.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
            Err(StoreError::Disk(DiskError::Full)) => Err(Refusal::NoSpace),
            Err(_) => {
                writer.failed = true;
                Err(Refusal::ReadOnly)
            }
        }
    }

    /// Does as many updates of `batch` as one batch of the log takes, at least one.
    fn commit_some(&self, writer: &mut WriterState, batch: &[Waiting]) -> Vec<Result<Outcome, Refusal>> {
        match contained(|| self.try_commit_some(writer, batch)) {
            Ok(answers) => answers,
            Err(CommitFailure(refusal)) => {
                writer.failed = true;
                vec![Err(refusal); batch.len()]
            }
        }
    }

    fn try_commit_some(
        &self,
        writer: &mut WriterState,
        batch: &[Waiting],
    ) -> Result<Vec<Result<Outcome, Refusal>>, CommitFailure> {
        let mut transaction = self.database.begin_write().map_err(TableError::from)?;
        transaction.set_durability(Durability::None).expect("no savepoint is ever made");
        let first = writer.state.applied + 1;
        let planned = self.plan_all(&transaction, batch)?;
        let count = planned.state.applied + 1 - first;
        if count == 0 {
            transaction.abort().map_err(TableError::from)?;
            return Ok(planned.answers);
        }
        let count32 = u32::try_from(count).expect("a batch has at most BATCH_UPDATES_MAX updates");
        if writer.log.append(first, count32, &planned.entries).is_err() {
            return Err(CommitFailure(Refusal::Unknown)); // dropping the transaction undoes it in the tables
        }
        // From here on the log has it, whatever becomes of the tables: only a restart can show it.
        let shown = contained(|| transaction.commit().map_err(TableError::from));
        shown.map_err(|_| CommitFailure(Refusal::Unknown))?;
        writer.state = planned.state;
        writer.since_checkpoint += count;
        self.counters.updates.fetch_add(count, Ordering::Relaxed);
        self.counters.batches.fetch_add(1, Ordering::Relaxed);
        Ok(planned.answers)
    }

    /// Plans updates one after another and applies each to the transaction's tables.
    fn plan_all(&self, transaction: &WriteTransaction, batch: &[Waiting]) -> Result<Planned, TableError> {
        let mut tables = TableWriter::new(transaction)?;
        let mut entries = Writer::new();
        let mut answers = Vec::with_capacity(batch.len());
        for waiting in batch {
            if entries.len() >= BATCH_SIZE {
                break;
            }
            let time = unix_nanoseconds(&self.world);
            let planner = Planner {
                tables: &tables,
                identity: &self.identity,
                port: self.port,
                entropy: &*self.world.entropy,
                time,
                is_used: &|object| self.used.is_marked(object),
            };
            match planner.plan(&waiting.update) {
                Ok((changes, outcome)) => {
                    if !changes.is_empty() {
                        let entry = Entry { sequence: tables.state.applied + 1, time, changes };
                        tables.apply(&entry)?;
                        entry.emit(&mut entries);
                    }
                    answers.push(Ok(outcome));
                }
                Err(PlanError::Refused(refusal)) => answers.push(Err(refusal)),
                Err(PlanError::Tables(error)) => return Err(error),
            }
        }
        let state = tables.state;
        tables.save()?;
        Ok(Planned { entries: entries.finish(), answers, state })
    }
}

/// Nothing can be changed any more; what the clients of this batch hear.
struct CommitFailure(Refusal);

impl From<TableError> for CommitFailure {
    fn from(_: TableError) -> CommitFailure {
        CommitFailure(Refusal::ReadOnly) // nothing was appended to the log
    }
}

/// A batch that is applied but not yet committed.
struct Planned {
    entries: Vec<u8>,
    answers: Vec<Result<Outcome, Refusal>>,
    state: State,
}

/// A leader at work. If it panics, those it led must not wait for ever.
struct Leading<'a> {
    store: &'a Store,
    batch: Vec<Waiting>,
}

impl Leading<'_> {
    fn run(mut self) -> Vec<(u64, Result<Outcome, Refusal>)> {
        let answers = self.store.commit(&self.batch);
        let batch = std::mem::take(&mut self.batch);
        batch.iter().map(|waiting| waiting.ticket).zip(answers).collect()
    }
}

impl Drop for Leading<'_> {
    fn drop(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        let mut queue = self.store.queue.lock();
        queue.answers.extend(self.batch.iter().map(|waiting| (waiting.ticket, Err(Refusal::Unknown))));
        queue.led = false;
        self.store.answered.notify_all();
    }
}

/// Brings the tables up to the log's end and makes them durable.
fn recover(database: &Database, writer: &mut WriterState) -> Result<(), StoreError> {
    // What a killed server wrote may lie in the operating system's cache only; once shown it must be durable.
    writer.log.flush()?;
    let (generation, next) = (writer.state.generation, writer.state.applied + 1);
    let mut pending: Vec<Entry> = Vec::new();
    let mut apply = |entries: &mut Vec<Entry>| -> Result<(), StoreError> {
        let mut transaction = database.begin_write().map_err(TableError::from)?;
        transaction.set_durability(Durability::None).map_err(TableError::from)?;
        let mut tables = TableWriter::new(&transaction)?;
        entries.drain(..).try_for_each(|entry| tables.apply(&entry))?;
        writer.state = tables.state;
        tables.save()?;
        Ok(transaction.commit().map_err(TableError::from)?)
    };
    writer.log.replay(generation, next, |entry| {
        pending.push(entry);
        if pending.len() >= BATCH_UPDATES_MAX { apply(&mut pending) } else { Ok::<(), StoreError>(()) }
    })?;
    if !pending.is_empty() {
        apply(&mut pending)?;
    }
    match checkpoint(database, writer) {
        // Lookups need no room. Until a checkpoint succeeds updates are refused, and the log stays as it is.
        Err(StoreError::Disk(DiskError::Full)) => Ok(()),
        done => done,
    }
}

/// Commits durably with the next generation named, brings it to the disk, and begins that generation.
fn checkpoint(database: &Database, writer: &mut WriterState) -> Result<(), StoreError> {
    if !writer.undrained {
        let transaction = durable(database)?;
        let mut tables = TableWriter::new(&transaction)?;
        tables.state.generation += 1;
        let state = tables.state;
        tables.save()?;
        transaction.commit().map_err(TableError::from)?;
        writer.state = state;
        writer.undrained = true;
    }
    writer.pages.drain()?;
    writer.undrained = false;
    writer.log.start(writer.state.generation);
    writer.since_checkpoint = 0;
    Ok(())
}

/// The time of day in nanoseconds since 1970.
pub fn unix_nanoseconds(world: &World) -> u64 {
    u64::try_from(world.clock.unix_time().as_nanos()).unwrap_or(u64::MAX)
}

/// Which directories were used since the last tick: a bit for each object number.
struct Used(Vec<AtomicU64>);

impl Default for Used {
    fn default() -> Used {
        let words = (ObjectNumber::MAX.get() as usize + 1) / 64;
        Used((0..words).map(|_| AtomicU64::new(0)).collect())
    }
}

impl Used {
    fn mark(&self, object: ObjectNumber) {
        let (word, bit) = self.place(object);
        if word.load(Ordering::Relaxed) & bit == 0 {
            word.fetch_or(bit, Ordering::Relaxed);
        }
    }

    fn is_marked(&self, object: ObjectNumber) -> bool {
        let (word, bit) = self.place(object);
        word.load(Ordering::Relaxed) & bit != 0
    }

    fn take(&self) -> Vec<ObjectNumber> {
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
