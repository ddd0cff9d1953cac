//! Checkpoints: how the tables follow the log, while updates go on.
//!
//! When the area of the log is full, or enough has gathered in memory, the leader **freezes**: the changes so far are
//! set aside, and the log goes on in its other area with the next generation. Then the **checkpointer**, a thread of its
//! own (so that the memory this takes is taken once and not once by every thread), brings what was frozen to the tables:
//! one durable redb transaction, which also names the next generation, and the disk's flush. Only then the older area may
//! be used again. A leader that needs it sooner waits. A store without a checkpointer does this on the thread of whoever
//! was just served.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use amoeba_threads::{Condition, Instant, SpawnError, Threads};
use amoeba_world::DiskError;
use redb::ReadableDatabase;

use crate::commit::Writing;
use crate::memory::{Overlay, read, write};
use crate::store::{Snapshot, Store, StoreError, durable};
use crate::tables::{self, State, TableError, View, contained};
use crate::update::Refusal;

/// Bytes of changes in memory after which a checkpoint is made: about 32,000 rows, each of which may change a page of
/// its own, so that its pages take about 128 MiB until they are on the disk.
const CHANGES_SIZE: usize = 8 << 20;
/// Bytes of changes in memory beside those of a checkpoint that runs, past which updates wait for it.
const CHANGES_SIZE_MAX: usize = 24 << 20;
/// How long a full disk is left alone.
const FULL_TIME: Duration = Duration::from_secs(1);

/// Changes that are to be brought to the tables, and the state after them.
#[derive(Clone)]
pub(crate) struct Frozen {
    pub(crate) changes: Arc<Overlay>,
    /// With the generation of the log that has what follows.
    pub(crate) state: State,
}

/// The checkpoint that is wanted or runs.
pub(crate) struct Checkpointing {
    threads: Threads,
    at: amoeba_threads::Mutex<At>,
    ended: Condition,
    wanted: Condition,
}

struct At {
    frozen: Option<Frozen>,
    /// There is a checkpointer: nobody else does it.
    attended: bool,
    /// The store is no more.
    closed: bool,
    /// A thread is at it.
    running: bool,
    /// redb has it; the disk was too full to take it.
    committed: bool,
    /// The disk has failed: nobody tries again.
    failed: bool,
    /// When to try a full disk again.
    again: Option<Instant>,
    /// What the last one made.
    last: Option<Snapshot>,
}

impl Checkpointing {
    pub(crate) fn new(threads: &Threads, frozen: Option<Frozen>) -> Checkpointing {
        let at = At {
            frozen,
            attended: false,
            closed: false,
            running: false,
            committed: false,
            failed: false,
            again: None,
            last: None,
        };
        Checkpointing {
            threads: threads.clone(),
            at: amoeba_threads::Mutex::new(threads, at),
            ended: Condition::new(threads),
            wanted: Condition::new(threads),
        }
    }

    /// The store is no more.
    pub(crate) fn close(&self) {
        self.at.lock().closed = true;
        self.wanted.notify_all();
    }

    /// Waits for the next work of the checkpointer; `None` when the store is no more.
    fn next(&self) -> Option<(Frozen, bool)> {
        let mut at = self.at.lock();
        loop {
            if at.closed || at.failed {
                return None;
            }
            let now = self.threads.now();
            let waits = at.again.filter(|again| now < *again);
            if let Some(frozen) = at.frozen.clone().filter(|_| waits.is_none()) {
                at.running = true;
                return Some((frozen, at.committed));
            }
            at = self.wanted.wait_until(at, waits).0;
        }
    }

    /// The work, if there is some that nobody does, and whether redb has it already. A full disk is only tried again
    /// after a while.
    fn take(&self) -> Option<(Frozen, bool)> {
        let mut at = self.at.lock();
        let waits = at.again.is_some_and(|again| self.threads.now() < again);
        if at.attended || at.running || at.failed || waits {
            return None;
        }
        let frozen = at.frozen.clone()?;
        at.running = true;
        Some((frozen, at.committed))
    }

    /// Waits until whoever is at it has ended.
    fn wait(&self) {
        let mut at = self.at.lock();
        let will_end =
            |at: &At| at.running || (at.attended && at.frozen.is_some() && at.again.is_none() && !at.failed);
        while will_end(&at) {
            at = self.ended.wait(at);
        }
    }
}

/// Starts the checkpointer of a store. It ends with the store.
///
/// # Errors
/// The world has no room for the thread.
pub fn attend(store: &Arc<Store>) -> Result<(), SpawnError> {
    let checkpointing = store.checkpointing.clone();
    checkpointing.at.lock().attended = true;
    let weak = Arc::downgrade(store);
    let spawned = store.world.threads.spawn("checkpoint", move || run(&weak, &checkpointing));
    if spawned.is_err() {
        store.checkpointing.at.lock().attended = false;
    }
    spawned.map(drop)
}

fn run(store: &Weak<Store>, checkpointing: &Checkpointing) {
    while let Some((frozen, committed)) = checkpointing.next() {
        let Some(store) = store.upgrade() else { return };
        // Who asks for room hears of it; see `make_room`.
        let _ = store.run_checkpoint(&frozen, committed);
    }
}

impl Store {
    /// Does the checkpoint that waits for somebody to do it, if there is one.
    pub(crate) fn checkpoint_if_due(&self) {
        if let Some((frozen, committed)) = self.checkpointing.take() {
            // Who asks for room hears of it; see `make_room`.
            let _ = self.run_checkpoint(&frozen, committed);
        }
    }

    /// After a batch: sets the changes so far aside when there are enough and the checkpoint before has ended.
    pub(crate) fn freeze_if_due(&self, writing: &mut Writing) {
        let due = writing.since_freeze >= self.options.checkpoint_entries
            || !writing.log.has_room()
            || read(&self.memory).active_size() >= CHANGES_SIZE;
        if due {
            self.try_freeze(writing);
        }
    }

    /// Before a batch: makes sure that the log has room for it.
    pub(crate) fn make_room(&self, writing: &mut Writing) -> Result<(), Refusal> {
        while !writing.log.has_room() || read(&self.memory).active_size() >= CHANGES_SIZE_MAX {
            if !self.try_freeze(writing) {
                self.end_checkpoint()?;
            }
        }
        Ok(())
    }

    /// Sets the changes so far aside, unless those before are not in the tables yet.
    fn try_freeze(&self, writing: &mut Writing) -> bool {
        let mut at = self.checkpointing.at.lock();
        if at.frozen.is_some() {
            return false;
        }
        let generation = writing.log.generation() + 1;
        let (changes, state) = {
            let mut memory = write(&self.memory);
            (memory.freeze(), memory.state())
        };
        writing.log.start(generation);
        writing.since_freeze = 0;
        at.frozen = Some(Frozen { changes, state: State { generation, ..state } });
        drop(at);
        self.checkpointing.wanted.notify_all();
        true
    }

    /// Waits until nothing is frozen; does it, if nobody else does.
    fn end_checkpoint(&self) -> Result<(), Refusal> {
        loop {
            match self.checkpointing.take() {
                Some((frozen, committed)) => return self.run_checkpoint(&frozen, committed),
                None => {
                    self.checkpointing.wait();
                    let at = self.checkpointing.at.lock();
                    if at.frozen.is_none() {
                        return Ok(());
                    }
                    if at.again.is_some() && !at.running {
                        return Err(Refusal::NoSpace);
                    }
                    drop(at);
                    if self.has_failed() {
                        return Err(Refusal::ReadOnly);
                    }
                }
            }
        }
    }

    /// Brings what is frozen to the tables' disk.
    fn run_checkpoint(&self, frozen: &Frozen, committed: bool) -> Result<(), Refusal> {
        let mut committed = committed;
        let done = contained(|| {
            if !committed {
                let transaction = durable(&self.database)?;
                tables::store(&transaction, &frozen.changes, frozen.state)?;
                transaction.commit().map_err(TableError::from)?;
                committed = true;
            }
            self.pages.drain()?;
            let transaction = self.database.begin_read().map_err(TableError::from)?;
            Ok::<_, StoreError>(Arc::new(View::new(&transaction)?))
        });
        let result = match done {
            Ok(view) => {
                write(&self.memory).checkpointed(view.clone(), frozen.state.applied);
                self.full.store(false, Ordering::Relaxed);
                self.counters.checkpoints.fetch_add(1, Ordering::Relaxed);
                Ok(view)
            }
            Err(StoreError::Disk(DiskError::Full)) => {
                self.full.store(true, Ordering::Relaxed);
                Err(Refusal::NoSpace)
            }
            Err(_) => {
                self.fail();
                Err(Refusal::ReadOnly)
            }
        };
        let mut at = self.checkpointing.at.lock();
        (at.running, at.again) = (false, None);
        match &result {
            Ok(view) => {
                (at.frozen, at.committed) = (None, false);
                at.last = Some(Snapshot { state: frozen.state, view: view.clone() });
            }
            Err(Refusal::NoSpace) => {
                at.committed = committed;
                at.again = Some(self.checkpointing.threads.now() + FULL_TIME);
            }
            Err(_) => at.failed = true,
        }
        drop(at);
        self.checkpointing.ended.notify_all();
        result.map(drop)
    }

    /// Makes the tables durable now, so that the next start has nothing to replay.
    pub fn checkpoint(&self) -> Result<(), Refusal> {
        self.snapshot().map(drop)
    }

    /// Everything as of one moment, for as long as it is kept: what later commits free is not used again meanwhile.
    pub fn snapshot(&self) -> Result<Snapshot, Refusal> {
        let wanted = {
            let mut writing = self.writing.lock();
            if self.has_failed() {
                return Err(Refusal::ReadOnly);
            }
            {
                let memory = read(&self.memory);
                if memory.is_in_tables() {
                    return Ok(Snapshot { state: memory.state(), view: memory.tables().clone() });
                }
            }
            while !self.try_freeze(&mut writing) {
                self.end_checkpoint()?;
            }
            read(&self.memory).state().applied
        };
        loop {
            self.end_checkpoint()?;
            let at = self.checkpointing.at.lock();
            if let Some(last) = at.last.as_ref().filter(|last| last.state.applied >= wanted) {
                return Ok(last.clone());
            }
            drop(at);
            if self.has_failed() {
                return Err(Refusal::ReadOnly);
            }
        }
    }
}
