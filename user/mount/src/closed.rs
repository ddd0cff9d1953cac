//! Files that were closed, on a mount that is not told who opens and closes.
//!
//! There the host says which files somebody has closed who could write them, and whether somebody still can. A file counts as
//! being written from its first write on (or from when it was made) until the last one who can write has closed it: then
//! it is committed. Whoever does something that is to come after what was closed takes that first, so that the order is kept.
//!
//! A host counts a writer for a moment longer than it says that he has closed the file. What it still counts is a *suspect*,
//! and looked at again: at once by operations, which may come after the close, and later and later by a thread of the mount.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use amoeba_threads::{Instant, Mutex, Threads};
use amoeba_volume::{Node, Writers};

use crate::Shared;
use crate::tree::Tree;

/// How long after its close a file is a suspect that operations look at.
const FRESH: Duration = Duration::from_secs(1);
/// How long the thread waits at first, and at most, before it looks at a suspect again.
const PAUSE_FIRST: Duration = Duration::from_millis(1);
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// And with a file of which it was not said that it was closed.
const PAUSE_UNSAID: Duration = Duration::from_millis(20);
/// How often all files that are written are made suspects: some are closed by parts of the kernel that tell nobody.
const SUSPICION_INTERVAL: Duration = Duration::from_secs(10);

/// See the module.
pub(crate) struct Closing {
    writers: OnceLock<Arc<dyn Writers>>,
    /// No more than there are files that somebody writes.
    suspects: Mutex<BTreeMap<Node, Suspect>>,
    /// When all of them were made suspects.
    suspicion: Mutex<Instant>,
}

/// A file that may have been closed by the last who could write it.
struct Suspect {
    since: Instant,
    next: Instant,
    pause: Duration,
}

impl Suspect {
    fn new(now: Instant, pause: Duration) -> Suspect {
        Suspect { since: now, next: now + pause, pause }
    }
}

impl Closing {
    pub(crate) fn new(threads: &Threads) -> Closing {
        let suspects = Mutex::new(threads, BTreeMap::new());
        Closing { writers: OnceLock::new(), suspects, suspicion: Mutex::new(threads, threads.now()) }
    }

    /// From now on nothing is said of opens.
    pub(crate) fn without_opens(&self, writers: Arc<dyn Writers>) {
        // Twice is never: a mount says so once.
        let _ = self.writers.set(writers);
    }

    /// Whether nothing is said of opens.
    pub(crate) fn has_no_opens(&self) -> bool {
        self.writers.get().is_some()
    }
}

impl Shared {
    /// Commits what was closed. Before anything that is to come after it, and with nothing locked.
    pub(crate) fn take_closed(&self) {
        let Some(writers) = self.closing.writers.get() else { return };
        let now = self.world.threads.now();
        let mut suspects = self.closing.suspects.lock();
        let closed = writers.closed();
        suspects.retain(|node, suspect| {
            now.since(suspect.since) > FRESH || !self.close_if_last(&**writers, *node)
        });
        for node in closed.nodes {
            if self.close_if_last(&**writers, node) {
                suspects.remove(&node);
            } else {
                suspects.insert(node, Suspect::new(now, PAUSE_FIRST));
            }
        }
        if closed.any {
            for node in self.tree.lock().written() {
                suspects.entry(node).or_insert(Suspect::new(now, PAUSE_FIRST));
            }
        }
    }

    /// Whether nothing can have been closed that what is done to a node has to come after: no other file is written, and of this
    /// one nobody else has seen anything yet.
    pub(crate) fn is_written_alone(&self, node: Node) -> bool {
        let tree = self.tree.lock();
        let alone = tree.writing.len() == 1 && tree.writing.contains(&node);
        alone && tree.member(node).is_ok_and(|member| member.set.is_empty() && member.version.is_none())
    }

    /// Makes all files that are written suspects, now and then.
    pub(crate) fn suspect_all(&self) {
        let Some(writers) = self.closing.writers.get() else { return };
        let now = self.world.threads.now();
        let mut last = self.closing.suspicion.lock();
        if now.since(*last) < SUSPICION_INTERVAL {
            return;
        }
        *last = now;
        let mut suspects = self.closing.suspects.lock();
        for node in self.tree.lock().written() {
            suspects.entry(node).or_insert(Suspect::new(now, Duration::ZERO));
        }
        if !suspects.is_empty() {
            writers.wake();
        }
    }

    /// Commits a file that nobody can write any more; whether there is nothing left to do for it.
    fn close_if_last(&self, writers: &dyn Writers, node: Node) -> bool {
        let gate = match self.tree.lock().file(node) {
            Ok(file) if file.writers > 0 || file.changed => Some(Arc::clone(&file.gate)),
            _ => None,
        };
        if let Some(gate) = gate {
            // Who holds the gate may do it for long, and as a rule can write.
            let held = match gate.try_lock() {
                None if writers.is_written(node) != Some(false) => return false,
                None => gate.lock(),
                Some(held) => held,
            };
            // With the gate closed nobody writes who opens it from now on.
            if writers.is_written(node) != Some(false) {
                return false;
            }
            self.nobody_writes(&mut self.tree.lock(), node);
            drop(held);
        }
        writers.done(node);
        true
    }

    /// As [`amoeba_volume::FileSystem::look_at_writers`].
    pub(crate) fn look_at_writers(&self) -> Option<Duration> {
        let writers = self.closing.writers.get()?;
        self.take_closed();
        let now = self.world.threads.now();
        let due: Vec<(Node, Instant)> = {
            let suspects = self.closing.suspects.lock();
            let due = suspects.iter().filter(|(_, suspect)| suspect.next <= now);
            due.map(|(node, suspect)| (*node, suspect.since)).collect()
        };
        for (node, since) in due {
            // The host may wait for operations, which may wait for this lock.
            let is_untold = writers.is_written(node).is_none();
            if is_untold {
                writers.look_for(node);
            }
            let mut suspects = self.closing.suspects.lock();
            if self.close_if_last(&**writers, node) {
                suspects.remove(&node);
            } else if let Some(suspect) = suspects.get_mut(&node) {
                suspect.pause = (suspect.pause * 2).clamp(PAUSE_FIRST, PAUSE_MAX);
                suspect.next = now + suspect.pause;
                // What nobody has said is looked for anew each time: a host that is asked for long may wait for this mount at its end.
                if (is_untold && suspect.since == since) || now.since(suspect.since) > FRESH {
                    writers.done(node);
                }
            }
        }
        self.tell_untold();
        let suspects = self.closing.suspects.lock();
        let next = suspects.values().map(|suspect| suspect.next).min()?;
        Some(next.since(self.world.threads.now()))
    }

    /// Tells the kernel of names that were changed by a commit.
    pub(crate) fn tell_untold(&self) {
        let untold = std::mem::take(&mut self.tree.lock().untold);
        untold.iter().for_each(|(directory, name)| self.tell_name(*directory, name));
    }

    /// Somebody writes a file, and it will be said when he closes it.
    pub(crate) fn somebody_writes(&self, tree: &mut Tree, node: Node) {
        if self.closing.has_no_opens()
            && let Ok(file) = tree.file_mut(node)
        {
            (file.openers, file.writers) = (1, 1);
            tree.writing.insert(node);
        }
    }

    /// A file was emptied by its name: by somebody who opens it, or by somebody who does not, of whom nothing will be said.
    pub(crate) fn somebody_may_write(&self, node: Node) {
        let Some(writers) = self.closing.writers.get() else { return };
        let suspect = Suspect::new(self.world.threads.now(), PAUSE_UNSAID);
        self.closing.suspects.lock().entry(node).or_insert(suspect);
        writers.wake();
    }

    /// The last who could write a file has closed it.
    pub(crate) fn nobody_writes(&self, tree: &mut Tree, node: Node) {
        if let Ok(file) = tree.file_mut(node) {
            (file.openers, file.writers) = (0, 0);
        }
        tree.writing.remove(&node);
        self.commit(tree, node);
        self.work.notify_all();
        tree.drop_scratch(node);
        tree.drop_if_idle(node);
    }
}
