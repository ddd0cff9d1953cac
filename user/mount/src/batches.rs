//! Which updates are brought to the servers together. While one batch is [installed](crate::commit) the next is gathered, and
//! the files that its rows are to stand for are made: a server of files and one of directories each have a disk to wait for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use amoeba_stubs::directory::INSTALL_MAX;
use amoeba_threads::MutexGuard;

use crate::Shared;
use crate::queue::{Object, Update};
use crate::tree::Tree;

/// How long the first update of a batch waits for others.
const GATHER_TIME: Duration = Duration::from_millis(5);

/// Batches on their way from who gathers them to who installs them.
#[derive(Default)]
pub(crate) struct Batches {
    /// The next one, whose files are made if they could be.
    next: Option<Vec<Update>>,
    /// Whether one is being installed.
    installing: bool,
    /// Whether no more will come.
    over: bool,
}

/// Gathers batches until the mount ends.
pub(crate) fn run(shared: &Arc<Shared>) {
    loop {
        let mut tree = shared.tree.lock();
        while tree.queue.is_empty() {
            if shared.stopping.load(Ordering::Relaxed) {
                tree.batches.over = true;
                shared.handed.notify_all();
                return;
            }
            tree = shared.work.wait(tree);
        }
        let mut tree = shared.gathered(tree);
        while tree.batches.next.is_some() {
            tree = shared.handed.wait(tree);
        }
        let batch = take_batch(&mut tree);
        drop(tree);
        shared.make_ahead(&batch);
        shared.tree.lock().batches.next = Some(batch);
        shared.handed.notify_all();
    }
}

impl Shared {
    /// The next batch to install; none when the mount has ended.
    pub(crate) fn next_batch(&self) -> Option<Vec<Update>> {
        let mut tree = self.tree.lock();
        loop {
            tree.batches.installing = tree.batches.next.is_some();
            if let Some(batch) = tree.batches.next.take() {
                self.handed.notify_all();
                return Some(batch);
            }
            if tree.batches.over {
                return None;
            }
            self.hurry.notify_all();
            tree = self.handed.wait(tree);
        }
    }

    /// Waits a moment for company, unless there is enough or somebody waits: whatever is in a batch costs it two flushes. While
    /// another is installed there is time.
    fn gathered<'t>(&self, mut tree: MutexGuard<'t, Tree>) -> MutexGuard<'t, Tree> {
        let deadline = self.world.threads.now() + GATHER_TIME;
        while tree.queue.len() < INSTALL_MAX
            && tree.awaited <= tree.done
            && !self.stopping.load(Ordering::Relaxed)
        {
            let is_busy = tree.batches.installing || tree.batches.next.is_some();
            if !is_busy && self.world.threads.now() >= deadline {
                break;
            }
            tree = self.hurry.wait_until(tree, Some(deadline).filter(|_| !is_busy)).0;
        }
        tree
    }

    /// Makes the small files of a batch. Where that fails, whoever installs it does it, and knows what to do when it fails again.
    fn make_ahead(&self, batch: &[Update]) {
        let changes = batch.iter().flat_map(|update| &update.changes);
        // Of several changes of a row the last is made.
        let last: BTreeMap<_, _> =
            changes.map(|change| ((change.directory, change.name.as_slice()), change.to.as_ref())).collect();
        let versions = last.into_values().flatten().filter_map(|target| match &target.object {
            Object::Version(version) => Some((target.attributes.links.is_some(), version)),
            Object::Set(_) => None,
        });
        let _ = self.make_small(versions);
    }
}

/// As many updates as one install takes, all for directories of one service.
fn take_batch(tree: &mut Tree) -> Vec<Update> {
    let mut batch = Vec::new();
    let mut rows = BTreeSet::new();
    let mut port = None;
    while let Some(update) = tree.queue.front() {
        let service = update.changes.first().and_then(|change| {
            tree.member(change.directory).ok()?.set.first().map(|directory| directory.port)
        });
        let other = port.is_some() && service != port;
        let keys = update.changes.iter().map(|change| (change.directory, change.name.clone()));
        let new: Vec<_> = keys.filter(|key| !rows.contains(key)).collect();
        if !batch.is_empty() && (other || rows.len() + new.len() > INSTALL_MAX) {
            break;
        }
        rows.extend(new);
        port = service;
        batch.extend(tree.queue.pop_front());
    }
    let last = batch.last().map_or(0, |update: &Update| update.number);
    for (directory, _) in &rows {
        if let Ok(folder) = tree.folder_mut(*directory) {
            folder.in_flight = last;
        }
    }
    batch
}
