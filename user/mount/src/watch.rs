//! What others change is seen here: the servers are asked which directories have changed, and the kernel is told.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use amoeba_cap::{Capability, Private, PutPort};
use amoeba_stubs::directory::{self, CHANGES_MAX};
use amoeba_volume::{Error, Node};

use crate::rows::{self, Row};
use crate::tree::{Local, Slot, Tree};
use crate::{GraphFileSystem, Shared};

/// Rows that a directory of which not all is known is asked for one by one; past it everything is forgotten.
const ROWS_MAX: usize = 256;

/// Looks again and again until the mount ends.
pub(crate) fn run(shared: &Arc<Shared>) {
    // What each service last said, so that a quiet one costs one question.
    let mut seen: BTreeMap<PutPort, u64> = BTreeMap::new();
    loop {
        let deadline = shared.world.threads.now() + shared.options.look_interval;
        let mut tree = shared.tree.lock();
        while shared.world.threads.now() < deadline && !shared.looks.is_asked() {
            if shared.stopping.load(Ordering::Relaxed) {
                return;
            }
            // Whoever ends the mount notifies too.
            tree = shared.progress.wait_until(tree, Some(deadline)).0;
        }
        let asked = shared.looks.asked.load(Ordering::Relaxed);
        let directories = tree.directories();
        tree.close_unread();
        drop(tree);
        shared.tell_untold();
        shared.suspect_all();
        let mut services: BTreeMap<PutPort, Vec<(Node, Capability)>> = BTreeMap::new();
        for (node, capability) in directories {
            services.entry(capability.port).or_default().push((node, capability));
        }
        for (port, directories) in services {
            let now = shared.look(&directories, seen.get(&port).copied().unwrap_or(0));
            seen.extend(now.map(|now| (port, now)));
        }
        // Locked: else somebody who has just looked would wait all the same.
        let tree = shared.tree.lock();
        shared.looks.done.store(asked, Ordering::Relaxed);
        drop(tree);
        shared.progress.notify_all();
    }
}

/// Who wants to know at once what others have changed.
#[derive(Debug, Default)]
pub(crate) struct Looks {
    asked: AtomicU64,
    done: AtomicU64,
}

impl Looks {
    fn is_asked(&self) -> bool {
        self.done.load(Ordering::Relaxed) < self.asked.load(Ordering::Relaxed)
    }
}

impl GraphFileSystem {
    /// Looks at once what others have changed, and waits until it is seen, for at most `wait`.
    pub fn look(&self, wait: Duration) {
        let shared = &self.shared;
        let deadline = shared.world.threads.now() + wait;
        let mut tree = shared.tree.lock();
        let number = shared.looks.asked.fetch_add(1, Ordering::Relaxed) + 1;
        shared.progress.notify_all();
        while shared.looks.done.load(Ordering::Relaxed) < number && shared.world.threads.now() < deadline {
            tree = shared.progress.wait_until(tree, Some(deadline)).0;
        }
    }
}

impl Shared {
    /// Asks one service about directories, and takes what is new; the number of the service's last change, if all of that is here.
    fn look(&self, directories: &[(Node, Capability)], seen: u64) -> Option<u64> {
        let (_, any) = directories.first()?;
        // A service that does not answer says nothing of changes; that it is gone is found by who uses it.
        let now = directory::changes(self.client(), any, &[]).ok()?.now;
        if now == seen {
            return Some(now);
        }
        let mut all = true;
        for some in directories.chunks(CHANGES_MAX) {
            let privates: Vec<Private> = some.iter().map(|(_, capability)| capability.private).collect();
            let sequences = directory::changes(self.client(), any, &privates).ok()?.sequences;
            for ((node, capability), sequence) in some.iter().zip(sequences) {
                all &= self.look_at(*node, capability, sequence);
            }
        }
        all.then_some(now)
    }

    /// Takes what has changed in a directory; whether everything up to `sequence` is here.
    fn look_at(&self, node: Node, capability: &Capability, sequence: u64) -> bool {
        let (commits, complete) = {
            let tree = self.tree.lock();
            match tree.folder(node) {
                Ok(folder) if folder.sequence == sequence => return true,
                Ok(folder) if folder.in_flight > tree.done => return false,
                Ok(folder) => (folder.commits, folder.complete),
                Err(_) => return true,
            }
        };
        let fresh = if complete { self.all_rows(capability) } else { self.known_rows(node, capability) };
        let Ok((fresh, before)) = fresh else { return false };
        let mut tree = self.tree.lock();
        let done = tree.done;
        let Ok(folder) = tree.folder_mut(node) else { return true };
        if folder.in_flight > done || folder.commits != commits {
            return false; // what was read may be from before our own change
        }
        folder.sequence = before;
        let changed = differences(&mut tree, node, fresh);
        drop(tree);
        for change in changed {
            match change {
                Told::Name(name) => self.tell_name(node, &name),
                Told::Node(node) => self.tell_node(node),
            }
        }
        before >= sequence
    }

    /// All rows of a directory, and the number of the last change that is surely in them.
    fn all_rows(&self, capability: &Capability) -> Result<(Fresh, u64), Error> {
        let (mut rows, mut after, mut sequence) = (BTreeMap::new(), Vec::new(), None);
        loop {
            let page = rows::page(self.client(), capability, &after, rows::PAGE)?;
            let sequence = *sequence.get_or_insert(page.sequence);
            if let Some((last, _)) = page.rows.last() {
                after.clone_from(last);
            } else if page.more {
                return Err(Error::Io);
            }
            rows.extend(page.rows.into_iter().map(|(name, row)| (name, Some(row))));
            if !page.more {
                return Ok((Fresh { rows, complete: true }, sequence));
            }
        }
    }

    /// Those rows of a directory that are known.
    fn known_rows(&self, node: Node, capability: &Capability) -> Result<(Fresh, u64), Error> {
        let sequence = rows::page(self.client(), capability, b"", 1)?.sequence;
        let names: Vec<Vec<u8>> = {
            let mut tree = self.tree.lock();
            let folder = tree.folder_mut(node)?;
            if folder.entries.len() > ROWS_MAX {
                // Those that the kernel was never told of are asked for when they are used.
                folder
                    .entries
                    .retain(|_, slot| slot.pending > 0 || slot.server.is_none() || slot.local != Local::Same);
            }
            folder.entries.keys().cloned().collect()
        };
        let mut rows = BTreeMap::new();
        for name in names {
            let row = rows::row(self.client(), capability, &name)?;
            rows.insert(name, row);
        }
        Ok((Fresh { rows, complete: false }, sequence))
    }
}

/// Rows as their server has them now.
struct Fresh {
    rows: BTreeMap<Vec<u8>, Option<Row>>,
    /// Whether there are no others.
    complete: bool,
}

/// What the kernel is to be told.
enum Told {
    Name(Vec<u8>),
    Node(Node),
}

/// Takes rows as they are now, and finds what that changes of what is shown.
fn differences(tree: &mut Tree, directory: Node, mut fresh: Fresh) -> Vec<Told> {
    let mut told = Vec::new();
    let Ok(folder) = tree.folder(directory) else { return told };
    if fresh.complete {
        for name in folder.entries.keys() {
            fresh.rows.entry(name.clone()).or_insert(None);
        }
    }
    for (name, row) in fresh.rows {
        let Ok(folder) = tree.folder_mut(directory) else { return told };
        let slot = folder.entries.entry(name.clone());
        let slot = slot.or_insert(Slot { server: None, local: Local::Same, pending: 0 });
        let same = match (&slot.server, &row) {
            (Some(old), Some(new)) => old.says_the_same(new),
            (None, None) => true,
            _ => false,
        };
        if same {
            continue;
        }
        let before = std::mem::replace(&mut slot.server, row.clone());
        let (local, waits) = (slot.local, slot.pending > 0);
        match local {
            // What is done here comes later, and counts.
            _ if waits => {}
            Local::Absent => {}
            Local::Same => {
                tree.note_row(directory, &name);
                told.push(Told::Name(name));
            }
            Local::Node(node) => {
                let same_object =
                    before.as_ref().zip(row.as_ref()).is_some_and(|(old, new)| old.set == new.set);
                let in_use = tree.file(node).is_ok_and(|file| file.writers > 0 || file.changed);
                if same_object && let Some(row) = &row {
                    tree.take_attributes(node, row);
                    told.push(Told::Node(node));
                } else if !in_use || row.is_none() {
                    // Whoever has the old version open goes on with it.
                    let _ = tree.unname(directory, &name);
                    if row.is_some()
                        && let Ok(member) = tree.member_mut(node)
                    {
                        member.former.push((directory, name.clone()));
                    }
                    if let Ok(slot) = tree.slot(directory, &name) {
                        slot.local = Local::Same;
                    }
                    tree.drop_if_idle(node);
                    tree.note_row(directory, &name);
                    told.push(Told::Name(name));
                }
            }
        }
    }
    told
}
