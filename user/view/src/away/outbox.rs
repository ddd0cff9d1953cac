//! Changes on their way to the caller, in the order in which they were made here.
//!
//! New contents wait a moment, so that several go in one transaction; whoever needs an answer takes what waits along. A
//! caller that does not answer is given up: from then on nothing can be changed, and it is told.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use amoeba_stubs::view::{self, CHANGES_MAX, ChangeRecord, OutcomeRecord, PIECE_SIZE_MAX};
use amoeba_volume::Node;
use amoeba_wire::Status;

use super::scratch::Scratch;
use super::source::{Failure, Source};

/// How long contents wait for others to go with.
const GATHERING: Duration = Duration::from_millis(10);
/// Bytes of contents in one request.
const BATCH_SIZE_MAX: u64 = 4 << 20;
/// The most changes that wait; who makes one more waits.
const WAITING_MAX: usize = 1024;

/// A change that waits.
pub(crate) struct Item {
    pub(crate) change: ChangeRecord,
    /// The node whose contents these are.
    pub(crate) contents: Option<(Node, Arc<Scratch>)>,
    /// Whether somebody waits for what becomes of it.
    answered: bool,
}

impl Item {
    /// A change that nobody waits for.
    pub(crate) fn new(change: ChangeRecord, contents: Option<(Node, Arc<Scratch>)>) -> Item {
        Item { change, contents, answered: false }
    }
}

/// Changes of one request, while it is put together.
#[derive(Default)]
struct Batch {
    changes: Vec<ChangeRecord>,
    contents: Vec<Option<(Node, Arc<Scratch>)>>,
    /// The one that somebody waits for.
    answered: Option<usize>,
}

/// What becomes of nodes when their contents have arrived.
pub(crate) trait Settled: Send + Sync {
    /// The version on which the contents of a node are based.
    fn base(&self, node: Node) -> [u8; 16];
    /// New contents of a node, and what the caller has made of them.
    fn settled(&self, node: Node, scratch: &Arc<Scratch>, outcome: &OutcomeRecord);
}

pub(crate) struct Outbox {
    source: Arc<Source>,
    waiting: Mutex<Waiting>,
    came: Condvar,
    /// One request at a time, so that they have an order.
    sending: Mutex<Sending>,
}

#[derive(Default)]
struct Waiting {
    items: VecDeque<Item>,
    closed: bool,
}

#[derive(Default)]
struct Sending {
    /// Which writer of its run this is.
    writer: u32,
    sequence: u64,
    uploads: u32,
    /// Nobody knows what the caller has done with the last request.
    broken: bool,
    /// Changes that did not arrive, or that the caller did not make.
    lost: u64,
}

impl Outbox {
    pub(crate) fn new(source: Arc<Source>) -> Outbox {
        let outbox =
            Outbox { source, waiting: Mutex::default(), came: Condvar::new(), sending: Mutex::default() };
        outbox.renew();
        outbox
    }

    /// Another process makes changes from now on, and nothing of the last one waits.
    pub(crate) fn renew(&self) {
        *held(&self.sending) = Sending { writer: self.source.random(), ..Sending::default() };
    }

    /// Whether every change has become the caller's.
    pub(crate) fn is_sound(&self) -> bool {
        let sending = held(&self.sending);
        !sending.broken && sending.lost == 0 && self.is_empty()
    }

    /// Sends what waits until [`Outbox::close`]: the body of a thread.
    pub(crate) fn carry(&self, settled: &dyn Settled) {
        loop {
            let mut waiting = held(&self.waiting);
            while waiting.items.is_empty() && !waiting.closed {
                waiting = self.came.wait(waiting).unwrap_or_else(PoisonError::into_inner);
            }
            if waiting.items.is_empty() {
                return;
            }
            drop(waiting);
            std::thread::sleep(GATHERING);
            self.flush(settled);
        }
    }

    /// No more is sent without being asked for.
    pub(crate) fn close(&self) {
        held(&self.waiting).closed = true;
        self.came.notify_all();
    }

    /// Lets a change go when there is time.
    pub(crate) fn push(&self, item: Item, settled: &dyn Settled) {
        let mut waiting = held(&self.waiting);
        waiting.items.push_back(item);
        let full = waiting.items.len() >= WAITING_MAX;
        drop(waiting);
        if full {
            self.flush(settled);
        } else {
            self.came.notify_all();
        }
    }

    /// Makes a change after all that wait, and says what became of it.
    pub(crate) fn make(&self, change: ChangeRecord, settled: &dyn Settled) -> Result<OutcomeRecord, Failure> {
        let mut sending = held(&self.sending);
        held(&self.waiting).items.push_back(Item { change, contents: None, answered: true });
        let outcome = self.send_all(&mut sending, settled)?.ok_or(Failure(view::BROKEN))?;
        match Status(outcome.status) {
            status if status.is_error() => Err(Failure(status)),
            _ => Ok(outcome),
        }
    }

    /// Sends all that wait, and says how many changes were lost so far.
    pub(crate) fn flush(&self, settled: &dyn Settled) -> u64 {
        let mut sending = held(&self.sending);
        // What was lost is counted.
        drop(self.send_all(&mut sending, settled));
        sending.lost
    }

    /// How many changes were lost so far.
    pub(crate) fn lost(&self) -> u64 {
        held(&self.sending).lost
    }

    pub(crate) fn is_empty(&self) -> bool {
        held(&self.waiting).items.is_empty()
    }

    /// Sends until nothing waits; gives what became of the one that somebody waits for.
    fn send_all(
        &self,
        sending: &mut Sending,
        settled: &dyn Settled,
    ) -> Result<Option<OutcomeRecord>, Failure> {
        let mut last = None;
        loop {
            let batch = self.batch();
            if batch.is_empty() {
                return Ok(last);
            }
            let count = batch.len() as u64;
            if sending.broken {
                sending.lost += count;
                continue;
            }
            match self.send(sending, batch, settled) {
                Ok(outcome) => last = last.or(outcome),
                Err(failure) => {
                    sending.broken = true;
                    sending.lost += count;
                    tracing::warn!("{count} changes of a process did not reach its caller: {}", failure.0);
                }
            }
        }
    }

    /// As many of the first that wait as go in one request.
    fn batch(&self) -> Vec<Item> {
        let mut waiting = held(&self.waiting);
        let (mut batch, mut size) = (Vec::new(), 0);
        while batch.len() < CHANGES_MAX && size < BATCH_SIZE_MAX {
            let Some(item) = waiting.items.pop_front() else { break };
            size +=
                item.contents.as_ref().map_or(0, |(_, scratch)| scratch.size().min(PIECE_SIZE_MAX as u64));
            batch.push(item);
        }
        batch
    }

    fn send(
        &self,
        sending: &mut Sending,
        items: Vec<Item>,
        settled: &dyn Settled,
    ) -> Result<Option<OutcomeRecord>, Failure> {
        let mut batch = Batch::default();
        let mut answer = None;
        let mut pending = Vec::new();
        for item in items {
            let mut change = item.change;
            if let Some((node, scratch)) = &item.contents {
                // Two versions of one file in one request: the second is based on what the first makes.
                if pending.contains(&node.0) {
                    answer = answer.or(self.apply(sending, std::mem::take(&mut batch), settled)?);
                    pending.clear();
                }
                pending.push(node.0);
                change.base = settled.base(*node);
                self.load(sending, &mut change, scratch)?;
            }
            if item.answered {
                batch.answered = Some(batch.changes.len());
            }
            batch.changes.push(change);
            batch.contents.push(item.contents);
        }
        Ok(answer.or(self.apply(sending, batch, settled)?))
    }

    /// Sends one request; gives what became of the change that somebody waits for.
    fn apply(
        &self,
        sending: &mut Sending,
        batch: Batch,
        settled: &dyn Settled,
    ) -> Result<Option<OutcomeRecord>, Failure> {
        if batch.changes.is_empty() {
            return Ok(None);
        }
        sending.sequence += 1;
        let (writer, sequence) = (sending.writer, sending.sequence);
        let mut outcomes =
            self.source.ask(|client, run| view::apply(client, run, writer, sequence, &batch.changes))?;
        if outcomes.len() != batch.changes.len() {
            return Err(Failure(view::BROKEN));
        }
        for (index, (contents, outcome)) in batch.contents.into_iter().zip(&outcomes).enumerate() {
            // Who waits for an answer hears himself that it went wrong.
            let wrong = Status(outcome.status).is_error() || !outcome.kept.is_empty();
            sending.lost += u64::from(wrong && batch.answered != Some(index));
            if let Some((node, scratch)) = contents {
                settled.settled(node, &scratch, outcome);
            }
        }
        Ok(batch.answered.map(|index| outcomes.swap_remove(index)))
    }

    /// Puts a file's contents into its change, or brings them before it.
    fn load(
        &self,
        sending: &mut Sending,
        change: &mut ChangeRecord,
        scratch: &Scratch,
    ) -> Result<(), Failure> {
        use std::os::unix::fs::FileExt;
        let size = scratch.size();
        let piece = |offset: u64| {
            let mut data = vec![0; (size - offset).min(PIECE_SIZE_MAX as u64) as usize];
            scratch.file.read_exact_at(&mut data, offset).map_err(|_| Failure(view::BROKEN))?;
            Ok(data)
        };
        if size <= PIECE_SIZE_MAX as u64 {
            change.data = piece(0)?;
            return Ok(());
        }
        sending.uploads += 1;
        change.upload = sending.uploads;
        let mut offset = 0;
        while offset < size {
            let data = piece(offset)?;
            self.source.ask(|client, run| {
                view::upload(client, run, sending.writer, change.upload, offset, data.clone())
            })?;
            offset += data.len() as u64;
        }
        Ok(())
    }
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
