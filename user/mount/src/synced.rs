//! What was synced, and what becomes of it: the journal is told when a file has another name, when an earlier version of it is
//! on its way to the servers, and when it is there.

use std::collections::BTreeSet;
use std::sync::Arc;

use amoeba_cap::Capability;
use amoeba_volume::{Error, Node};

use crate::Shared;
use crate::commit::Rows;
use crate::journal::{Place, Record};
use crate::scratch::Scratch;
use crate::tree::Tree;

impl Shared {
    /// Makes a scratch durable, with what is to become of it. The gate of the file is held.
    pub(crate) fn sync_scratch(&self, node: Node, scratch: &Arc<Scratch>) -> Result<(), Error> {
        let record = record_of(&self.tree.lock(), node)?;
        // What has no name is found by nobody.
        if let Some(record) = record {
            self.say_it_waits();
            self.journal.sync(scratch, record)?;
        }
        // It may have been committed, or have lost its name, while this was noted.
        self.forget_if_done(node, scratch);
        Ok(())
    }

    /// The scratch of a file, if the journal has it, and the file's gate.
    fn noted(&self, node: Node) -> Option<(Arc<Scratch>, Arc<amoeba_threads::Mutex<()>>)> {
        let tree = self.tree.lock();
        let file = tree.file(node).ok()?;
        let scratch = file.scratch.clone().filter(|scratch| scratch.has_note())?;
        Some((scratch, Arc::clone(&file.gate)))
    }

    /// Other rows are to be made of a file that was synced, or over others than before.
    pub(crate) fn note_again(&self, node: Node) {
        let Some((scratch, gate)) = self.noted(node) else { return };
        let _gate = gate.lock();
        let record = record_of(&self.tree.lock(), node).ok().flatten();
        let noted = record.map_or(Ok(()), |record| self.journal.rename(&scratch, record));
        if let Err(error) = noted {
            tracing::warn!("the journal still has an old name: {error}");
        }
        self.forget_if_done(node, &scratch);
    }

    /// Rows are about to be installed. What was synced of these files is to be redone over them from then on, and under the
    /// names that they have by now.
    pub(crate) fn note_coming(&self, rows: &Rows) {
        let noted = |node: &Node| self.noted(*node).is_some();
        let nodes: BTreeSet<Node> = rows.values().flatten().map(|target| target.node).filter(noted).collect();
        nodes.iter().for_each(|node| self.note_again(*node));
        if !nodes.is_empty()
            && let Err(error) = self.journal.flush()
        {
            tracing::warn!("the journal still has old names: {error}");
        }
    }

    /// Takes a scratch that does not wait for its commit out of the journal. The gate of the file is held, so that nobody syncs
    /// it meanwhile, or the node is gone.
    fn forget_if_done(&self, node: Node, scratch: &Arc<Scratch>) {
        let waits = self.tree.lock().waits(node, scratch);
        if !waits {
            self.journal.forget(scratch);
        }
    }

    /// A version of a scratch is at the servers: what was synced of it need not be redone.
    pub(crate) fn forget_committed(&self, node: Node, scratch: &Arc<Scratch>) {
        let gate = self.tree.lock().file(node).map(|file| Arc::clone(&file.gate));
        let _gate = gate.as_ref().map(|gate| gate.lock());
        self.forget_if_done(node, scratch);
    }

    /// A file that was synced has no name any more.
    pub(crate) fn forget_synced(&self, tree: &Tree, node: Node) {
        if let Ok(file) = tree.file(node)
            && let Some(scratch) = &file.scratch
        {
            self.journal.forget(scratch);
        }
    }
}

/// What the journal is to say of a file; nothing of one that has no name.
fn record_of(tree: &Tree, node: Node) -> Result<Option<Record>, Error> {
    let member = tree.member(node)?;
    // The version that waits, once it is a file. While it is being made nobody knows; then this is asked again.
    let made = member.version.as_ref().and_then(|version| version.made_by_now());
    let mut names = Vec::new();
    for (directory, name) in &member.names {
        let slot = tree.folder(*directory)?.entries.get(name);
        let old = slot.and_then(|slot| slot.server.as_ref()?.object().copied());
        let capability = *tree.member(*directory)?.set.first().ok_or(Error::Io)?;
        names.push(Place {
            directory: capability,
            name: name.clone(),
            old: old.unwrap_or(Capability::NULL),
            coming: made.as_ref().map_or(Capability::NULL, |made| made.file),
        });
    }
    let (masks, kind) = member.masks();
    let attributes = member.attributes.clone();
    Ok((!names.is_empty()).then_some(Record { names, masks, kind, attributes }))
}
