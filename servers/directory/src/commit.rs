//! Updates: planned as they come, made durable in batches, answered together.
//!
//! A thread that wants something changed plans it at once, against the [`Draft`], and leaves it with the open batch. If
//! nobody writes, it leads: it takes the open batch, appends it to the log with one flush, makes its changes visible,
//! answers everybody, and goes on with what has gathered meanwhile. Otherwise it is free again: the leader will answer.
//! So no thread but the leader waits for the disk, planning goes on during a flush, and nobody sees what is not durable.
//!
//! A refusal may rest on something that is planned but not durable yet; so it waits for its batch too.

use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, PoisonError};

use amoeba_threads::{Condition, Threads};
use amoeba_wire::Writer;
use amoeba_world::DiskError;

use crate::draft::Draft;
use crate::entry::Entry;
use crate::log::{BATCH_SIZE, Log};
use crate::memory::{self, Overlay, Shared, write};
use crate::store::{Store, unix_nanoseconds};
use crate::tables::{State, contained};
use crate::update::{Outcome, PlanError, Planner, Refusal, Update};

/// Updates that one batch takes; who comes then waits until it is on its way.
const BATCH_UPDATES_MAX: usize = 1024;

/// Hears what became of an update. Called once, on any thread; it must not wait for another update.
pub type Answer = Box<dyn FnOnce(Result<Outcome, Refusal>) + Send>;

/// Where a thread waits for its answer.
struct Slot {
    answer: amoeba_threads::Mutex<Option<Result<Outcome, Refusal>>>,
    filled: Condition,
}

impl Slot {
    fn new(threads: &Threads) -> Slot {
        Slot { answer: amoeba_threads::Mutex::new(threads, None), filled: Condition::new(threads) }
    }

    fn put(&self, result: Result<Outcome, Refusal>) {
        *self.answer.lock() = Some(result);
        self.filled.notify_all();
    }
}

/// The duty to fill a slot. Dropped with the slot empty (its leader panicked) it says that nobody knows.
struct Filler(Arc<Slot>);

impl Drop for Filler {
    fn drop(&mut self) {
        if Arc::strong_count(&self.0) > 1 && self.0.answer.lock().is_none() {
            self.0.put(Err(Refusal::Unknown));
        }
    }
}

/// What is planned and not yet on its way to the log.
pub(crate) struct Planning {
    draft: Draft,
    entries: Writer,
    count: u64,
    answers: Vec<(Answer, Result<Outcome, Refusal>)>,
    /// Whether somebody leads, and will take what is here.
    led: bool,
    /// Set for good when a flush failed or the tables did: from then on every update is refused.
    pub(crate) failed: bool,
    /// Batches taken so far.
    batches: u64,
}

/// The log, and what a freeze is decided by.
pub(crate) struct Writing {
    pub(crate) log: Log,
    /// Entries since the last freeze.
    pub(crate) since_freeze: u64,
}

/// A batch on its way to the log.
struct Batch {
    changes: Arc<Overlay>,
    entries: Vec<u8>,
    count: u64,
    /// After its last entry.
    state: State,
    answers: Vec<(Answer, Result<Outcome, Refusal>)>,
}

/// Where threads wait until the open batch is taken.
pub(crate) struct Taken {
    batches: amoeba_threads::Mutex<u64>,
    changed: Condition,
}

impl Taken {
    pub(crate) fn new(threads: &Threads) -> Taken {
        Taken { batches: amoeba_threads::Mutex::new(threads, 0), changed: Condition::new(threads) }
    }

    fn set(&self, batches: u64) {
        *self.batches.lock() = batches;
        self.changed.notify_all();
    }

    fn wait_beyond(&self, batches: u64) {
        let mut taken = self.batches.lock();
        while *taken <= batches {
            taken = self.changed.wait(taken);
        }
    }
}

impl Planning {
    pub(crate) fn new(memory: &Shared) -> Planning {
        Planning {
            draft: Draft::new(memory),
            entries: Writer::new(),
            count: 0,
            answers: Vec::new(),
            led: false,
            failed: false,
            batches: 0,
        }
    }

    fn is_full(&self) -> bool {
        self.answers.len() >= BATCH_UPDATES_MAX || self.entries.len() >= BATCH_SIZE
    }

    /// Whether all that was planned is durable.
    fn is_durable(&self) -> bool {
        self.count == 0 && !self.draft.in_flight()
    }

    fn plan(&mut self, store: &Store, update: Update) -> Result<Outcome, Refusal> {
        let time = unix_nanoseconds(&store.world);
        let planner = Planner {
            tables: &self.draft,
            identity: &store.identity,
            port: store.port,
            entropy: &*store.world.entropy,
            time,
            is_used: &|object| store.used.is_marked(object),
        };
        let (changes, outcome) = planner.plan(update).map_err(|error| match error {
            PlanError::Refused(refusal) => refusal,
            PlanError::Tables(_) => Refusal::Damaged,
        })?;
        if !changes.is_empty() {
            let entry = Entry { sequence: self.draft.state.applied + 1, time, changes };
            if self.draft.apply(&entry).is_err() {
                self.failed = true; // half of it may be in the draft: nothing more may be built on that
                return Err(Refusal::ReadOnly);
            }
            entry.emit(&mut self.entries);
            self.count += 1;
        }
        Ok(outcome)
    }

    fn take(&mut self) -> Batch {
        self.batches += 1;
        let entries = std::mem::replace(&mut self.entries, Writer::new()).finish();
        let count = std::mem::take(&mut self.count);
        let answers = std::mem::take(&mut self.answers);
        Batch { changes: self.draft.take_off(), entries, count, state: self.draft.state, answers }
    }

    /// Forgets everything that is not durable; who is to hear of it.
    fn drop_all(&mut self, memory: &Shared) -> Vec<(Answer, Result<Outcome, Refusal>)> {
        self.draft = Draft::new(memory);
        (self.entries, self.count) = (Writer::new(), 0);
        std::mem::take(&mut self.answers)
    }
}

impl Store {
    /// Does `update`, durably, or says why not. Many threads' updates share one flush.
    pub fn update(&self, update: Update) -> Result<Outcome, Refusal> {
        let slot = Arc::new(Slot::new(&self.world.threads));
        let filler = Filler(slot.clone());
        self.update_then(update, Box::new(move |result| filler.0.put(result)));
        let mut answer = slot.answer.lock();
        loop {
            match answer.take() {
                Some(answer) => return answer,
                None => answer = slot.filled.wait(answer),
            }
        }
    }

    /// Does `update`, durably, and then calls `answer`, perhaps on another thread; or says why not.
    pub fn update_then(&self, update: Update, answer: Answer) {
        self.warm(&update);
        let mut planning = self.planning_with_room();
        let result = if planning.failed {
            Err(Refusal::ReadOnly)
        } else if self.full.load(Ordering::Relaxed) && !update.makes_room() {
            Err(Refusal::NoSpace)
        } else {
            planning.plan(self, update)
        };
        if planning.is_durable() || planning.failed {
            drop(planning);
            answer(result);
        } else {
            planning.answers.push((answer, result));
            let leads = !std::mem::replace(&mut planning.led, true);
            drop(planning);
            if leads {
                self.lead();
            }
        }
        self.checkpoint_if_due();
    }

    /// Brings what an update is planned with to memory, so that nobody waits for the disk while it is planned.
    fn warm(&self, update: &Update) {
        let concerns = update.concerns();
        // What cannot be read now cannot be read when it is planned, and is told then.
        let _ = memory::warm(&self.memory, |look| {
            // All of them, even if one is missed.
            for (object, name) in &concerns {
                let _ = look.directory(*object);
                let _ = name.map(|name| look.row_bytes(*object, name.as_bytes()));
            }
        });
    }

    fn planning(&self) -> MutexGuard<'_, Planning> {
        self.planning.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn planning_with_room(&self) -> MutexGuard<'_, Planning> {
        loop {
            let planning = self.planning();
            if !planning.is_full() || planning.failed {
                return planning;
            }
            let batches = planning.batches;
            drop(planning);
            self.taken.wait_beyond(batches);
        }
    }

    /// Writes batches until nothing is left to write.
    fn lead(&self) {
        let leading = Leading(self);
        while let Some(batch) = self.take_batch() {
            self.commit(batch);
        }
        std::mem::forget(leading);
    }

    fn take_batch(&self) -> Option<Batch> {
        let mut planning = self.planning();
        if planning.answers.is_empty() {
            planning.led = false;
            return None;
        }
        let batch = planning.take();
        let (full, batches) = (batch.answers.len() >= BATCH_UPDATES_MAX, planning.batches);
        drop(planning);
        if full || batch.entries.len() >= BATCH_SIZE {
            self.taken.set(batches);
        }
        Some(batch)
    }

    /// Makes a batch durable and visible, and answers.
    fn commit(&self, batch: Batch) {
        let mut writing = self.writing.lock();
        match self.append(&mut writing, &batch) {
            Ok(()) => {
                write(&self.memory).publish(&batch.changes, batch.state);
                self.planning().draft.landed();
                writing.since_freeze += batch.count;
                self.counters.updates.fetch_add(batch.count, Ordering::Relaxed);
                self.counters.batches.fetch_add(1, Ordering::Relaxed);
                self.freeze_if_due(&mut writing);
                drop(writing);
                batch.answers.into_iter().for_each(|(answer, result)| answer(result));
            }
            Err(refusal) => {
                drop(writing);
                self.refuse(batch, refusal);
            }
        }
    }

    fn append(&self, writing: &mut Writing, batch: &Batch) -> Result<(), Refusal> {
        if self.planning().failed {
            return Err(Refusal::ReadOnly);
        }
        if batch.count == 0 {
            return Ok(());
        }
        self.make_room(writing)?;
        let first = batch.state.applied + 1 - batch.count;
        let count = u32::try_from(batch.count).expect("a batch has at most BATCH_UPDATES_MAX updates");
        // A log that could not be written may have the batch all the same: only a restart can show it.
        writing.log.append(first, count, &batch.entries).map_err(|_: DiskError| Refusal::Unknown)
    }

    /// A batch did not get to the log, and what was planned after it rests on it: none of it is done.
    fn refuse(&self, batch: Batch, refusal: Refusal) {
        let later = {
            let mut planning = self.planning();
            planning.failed |= refusal != Refusal::NoSpace;
            planning.drop_all(&self.memory)
        };
        let later_refusal = if refusal == Refusal::NoSpace { refusal } else { Refusal::ReadOnly };
        batch.answers.into_iter().for_each(|(answer, _)| answer(Err(refusal)));
        later.into_iter().for_each(|(answer, _)| answer(Err(later_refusal)));
    }

    /// Refuses every update from now on.
    pub(crate) fn fail(&self) {
        self.planning().failed = true;
    }

    /// Whether no update can be done any more.
    pub(crate) fn has_failed(&self) -> bool {
        self.planning().failed
    }
}

/// A leader at work. If it panics, those it led must not wait for ever.
struct Leading<'a>(&'a Store);

impl Drop for Leading<'_> {
    fn drop(&mut self) {
        let later = {
            let mut planning = self.0.planning();
            (planning.failed, planning.led) = (true, false);
            planning.drop_all(&self.0.memory)
        };
        let _ = contained(|| {
            later.into_iter().for_each(|(answer, _)| answer(Err(Refusal::Unknown)));
            Ok::<(), crate::tables::TableError>(())
        });
    }
}
