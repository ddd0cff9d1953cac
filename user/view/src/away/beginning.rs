//! A process begins to see a caller's files, some of which this host knows from earlier ones, and ends.

use std::time::Instant;

use amoeba_cap::Capability;
use amoeba_stubs::view::{self, KnownRecord};
use amoeba_volume::Node;

use super::visible::{Visible, held};

/// The most nodes that are compared with the caller's when a process begins: those that were used last. Others are asked
/// for again when they are used.
pub const REVALIDATED_MAX: usize = 1024;
/// The most nodes of what may be written that is given to another process: so it leaves room for what is only read.
const REUSED_MAX: usize = 256;

/// A process begins to see these files, which are of one caller, through this capability: compares what is known with what is.
///
/// Nothing fails: what could not be compared is asked for when it is used.
pub fn begin(all: &[&Visible], run: Capability) {
    for files in all {
        files.source.add(run);
        files.renew();
    }
    let begun = Instant::now();
    let (mut which, mut known) = (Vec::new(), Vec::new());
    // What may be written is little, and first.
    for (index, files) in all.iter().enumerate().rev() {
        let (nodes, records) = files.recent(REVALIDATED_MAX - known.len());
        which.extend(nodes.into_iter().map(|node| (index, node)));
        known.extend(records);
    }
    if let Some(any) = all.first().filter(|_| !known.is_empty()) {
        let answer = any.source.ask(|client, run| view::revalidate(client, run, &known));
        let bits = answer.unwrap_or_default();
        for (at, (index, node)) in which.iter().enumerate() {
            let same = bits.get(at / 8).is_some_and(|byte| byte >> (at % 8) & 1 == 0);
            if same && let Ok(known) = all[*index].table().get_mut(*node) {
                known.checked = Some(begun);
            }
        }
    }
    for files in all {
        *held(&files.since) = begun;
        files.tell_kernel(begun);
    }
}

impl Visible {
    /// A process that has begun has ended.
    pub fn end(&self, run: &Capability) {
        self.source.remove(run);
    }

    /// Changes when names that were not there when they were looked for may be there for the process that has begun. What lies
    /// above this mount, and has kept that they are absent, is not fit for it.
    pub fn absences(&self) -> u64 {
        self.table().given_up()
    }

    /// Whether no process sees these files.
    pub fn is_idle(&self) -> bool {
        self.source.is_empty()
    }

    /// Whether what may be written might be given to another process: every change has become the caller's, and he can be
    /// asked about all that is known, at once.
    pub fn is_sound(&self) -> bool {
        let is_sound = self.writing.as_ref().is_some_and(|writing| writing.outbox.is_sound());
        is_sound && self.table().by_use().len() <= REUSED_MAX
    }

    /// Whether it can be given to another process: no process has it, and none has left anything open.
    pub fn is_as_new(&self) -> bool {
        let is_written = || {
            let table = self.table();
            table.by_use().iter().any(|node| table.get(*node).is_ok_and(|known| known.scratch.is_some()))
        };
        self.is_sound() && self.is_idle() && !self.has_open() && !is_written()
    }

    /// What was learnt of how the last process changed these files is no reason to treat them otherwise for the next.
    fn renew(&self) {
        let Some(writing) = &self.writing else { return };
        writing.outbox.renew();
        self.table().foresee();
    }

    /// The nodes that were used last, at most so many, and what is believed of them.
    fn recent(&self, max: usize) -> (Vec<Node>, Vec<KnownRecord>) {
        let table = self.table();
        let nodes = table.by_use();
        let known = |node: &Node| {
            let record = &table.get(*node).ok()?.record;
            // Of a new mount not even the root is known.
            (record.kind != 0).then_some(())?;
            let path = table.path(*node, &self.base).ok()?;
            Some((*node, KnownRecord { path, version: record.version }))
        };
        nodes.iter().filter_map(known).take(max).unzip()
    }

    /// Tells the kernel which nodes are to be asked for again, and which names that were not there.
    fn tell_kernel(&self, begun: Instant) {
        let Some(notifier) = self.notifier.get() else { return };
        let (stale, missed) = {
            let mut table = self.table();
            let old = |node: &Node| table.get(*node).is_ok_and(|known| known.checked < Some(begun));
            let stale: Vec<Node> = table.by_use().into_iter().filter(old).collect();
            (stale, table.give_up_missed(begun))
        };
        for (directory, name) in missed {
            notifier.name_changed(directory, &name);
        }
        for node in stale {
            notifier.node_changed(node);
        }
    }
}
