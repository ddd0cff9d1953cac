//! Changes that processes make: names at once at the caller, contents first here and with the last close at the caller.

use std::sync::Arc;
use std::time::Instant;

use amoeba_stubs::view::{
    CHANGE_CONTENTS, CHANGE_CREATE, CHANGE_DIRECTORY, CHANGE_HARD_LINK, CHANGE_LINK, CHANGE_MODE,
    CHANGE_REMOVE, CHANGE_REMOVE_DIRECTORY, CHANGE_RENAME, CHANGE_RENAME_NEW, CHANGE_TIME, ChangeRecord,
    KIND_FILE, NodeRecord, OutcomeRecord,
};
use amoeba_volume::{Change, ChangeTime, Entry, Error, Handle, Node, OpenMode, Opened, Rename, Time};
use amoeba_wire::Status;

use super::contents::Content;
use super::outbox::{Item, Outbox, Settled};
use super::scratch::Scratch;
use super::source::Source;
use super::visible::Visible;

/// Bytes of a new file up to which this host keeps what it has sent, so that it need not fetch it.
const KNOWN_SIZE_MAX: u64 = 4 << 20;
/// Bytes that are copied at once into what is to be written.
const COPY_SIZE: usize = 1 << 20;
/// Bytes that the set-id bits do not belong to.
const MODE_MASK: u16 = 0o1777;

/// What a file system that may be written has besides.
pub(super) struct Writing {
    pub(super) outbox: Outbox,
}

impl Writing {
    pub(super) fn new(source: Arc<Source>) -> Writing {
        Writing { outbox: Outbox::new(source) }
    }
}

fn change(kind: u8, path: Vec<u8>) -> ChangeRecord {
    ChangeRecord {
        kind,
        path,
        other: Vec::new(),
        mode: 0,
        seconds: 0,
        nanoseconds: 0,
        base: [0; 16],
        upload: 0,
        data: Vec::new(),
    }
}

impl Visible {
    /// Sends contents as they come: the body of a thread that [`Visible::retire`] ends.
    pub fn carry(&self) {
        if let Some(writing) = &self.writing {
            writing.outbox.carry(self);
        }
    }

    /// The process has ended: sends what it has written, and says how many changes did not become the caller's.
    pub fn finish(&self) -> u64 {
        let Some(writing) = &self.writing else { return 0 };
        let dirty: Vec<Node> = {
            let table = self.table();
            let is_dirty = |node: &Node| {
                table
                    .get(*node)
                    .is_ok_and(|known| known.scratch.as_ref().is_some_and(|scratch| scratch.is_dirty()))
            };
            table.by_use().into_iter().rev().filter(is_dirty).collect()
        };
        for node in dirty {
            self.commit(node);
        }
        writing.outbox.flush(self)
    }

    /// No process will see these files any more.
    pub fn retire(&self) {
        if let Some(writing) = &self.writing {
            writing.outbox.close();
        }
    }

    fn outbox(&self) -> Result<&Outbox, Error> {
        self.writing.as_ref().map(|writing| &writing.outbox).ok_or(Error::ReadOnly)
    }

    fn make(&self, change: ChangeRecord) -> Result<OutcomeRecord, Error> {
        Ok(self.outbox()?.make(change, self)?)
    }

    /// Makes something under a new name.
    pub(super) fn make_entry(
        &self,
        kind: u8,
        directory: Node,
        name: &[u8],
        mode: u16,
        text: &[u8],
    ) -> Result<Entry, Error> {
        self.outbox()?;
        let mut wanted = change(kind, self.child_path(directory, name)?);
        wanted.mode = mode & MODE_MASK;
        wanted.other = text.to_vec();
        let outcome = self.make(wanted)?;
        self.table().outdate(directory);
        Ok(self.remember(directory, name, &outcome.node, Instant::now()))
    }

    pub(super) fn make_directory(&self, directory: Node, name: &[u8], mode: u16) -> Result<Entry, Error> {
        self.make_entry(CHANGE_DIRECTORY, directory, name, mode, b"")
    }

    pub(super) fn make_link(&self, directory: Node, name: &[u8], text: &[u8]) -> Result<Entry, Error> {
        self.make_entry(CHANGE_LINK, directory, name, 0o777, text)
    }

    pub(super) fn make_file(&self, directory: Node, name: &[u8], mode: u16) -> Result<Entry, Error> {
        self.make_entry(CHANGE_CREATE, directory, name, mode, b"")
    }

    /// Makes a file and opens it, or opens the one that has the name.
    pub(super) fn create_file(
        &self,
        directory: Node,
        name: &[u8],
        permissions: u16,
        mode: OpenMode,
    ) -> Result<(Entry, Opened), Error> {
        let entry = match self.make_file(directory, name, permissions) {
            Ok(entry) => entry,
            Err(Error::Exists) if !mode.contains(OpenMode::EXCLUSIVE) => self.find(directory, name)?,
            Err(error) => return Err(error),
        };
        let node = entry.attributes.node;
        let opened = if entry.attributes.size == 0 {
            let record = self.current(node)?;
            self.fresh_scratch(node).and_then(|_| self.opened(node, Content::Local, true, &record))
        } else {
            self.open_file(node, mode)
        };
        match opened {
            Ok(opened) => Ok((entry, opened)),
            Err(error) => {
                self.table().forget(node, 1);
                Err(error)
            }
        }
    }

    /// One more name for a file.
    pub(super) fn make_hard_link(&self, node: Node, directory: Node, name: &[u8]) -> Result<Entry, Error> {
        self.commit(node);
        let mut wanted = change(CHANGE_HARD_LINK, self.table().path(node, &self.base)?);
        wanted.other = self.child_path(directory, name)?;
        let outcome = self.make(wanted)?;
        let mut table = self.table();
        table.outdate(directory);
        // It has one name more.
        table.get_mut(node)?.checked = None;
        drop(table);
        Ok(self.remember(directory, name, &outcome.node, Instant::now()))
    }

    /// Takes a name away.
    pub(super) fn remove(&self, directory: Node, name: &[u8], is_directory: bool) -> Result<(), Error> {
        self.outbox()?;
        let kind = if is_directory { CHANGE_REMOVE_DIRECTORY } else { CHANGE_REMOVE };
        self.make(change(kind, self.child_path(directory, name)?))?;
        let mut table = self.table();
        table.take_name(directory, name);
        table.outdate(directory);
        Ok(())
    }

    /// Moves a name. New contents arrive under the old one first, so that nobody sees half a file under the new one.
    pub(super) fn rename_entry(
        &self,
        from: (Node, &[u8]),
        to: (Node, &[u8]),
        how: Rename,
    ) -> Result<(), Error> {
        self.outbox()?;
        if how.contains(Rename::EXCHANGE) {
            return Err(Error::Invalid);
        }
        let node = self.table().child(from.0, from.1);
        if let Some(node) = node {
            self.commit(node);
        }
        let kind = if how.contains(Rename::KEEP) { CHANGE_RENAME_NEW } else { CHANGE_RENAME };
        let mut wanted = change(kind, self.child_path(from.0, from.1)?);
        wanted.other = self.child_path(to.0, to.1)?;
        let outcome = self.make(wanted)?;
        let mut table = self.table();
        table.rename(from, to);
        if let Some(known) = node.and_then(|node| table.get_mut(node).ok()) {
            (known.record, known.checked) = (outcome.node, Some(Instant::now()));
        }
        Ok(())
    }

    /// Changes attributes, and the size of what is written here.
    pub(super) fn set(&self, node: Node, wanted: &Change) -> Result<NodeRecord, Error> {
        self.outbox()?;
        let before = self.current(node)?;
        let shown = self.attributes(node, &before);
        let other = |wanted: Option<u32>, now: u32| wanted.is_some_and(|wanted| wanted != now);
        if other(wanted.user, shown.user) || other(wanted.group, shown.group) {
            return Err(Error::NotPermitted);
        }
        if let Some(size) = wanted.size {
            self.set_size(node, size)?;
        }
        if let Some(mode) = wanted.permissions {
            self.set_mode(node, mode & MODE_MASK)?;
        }
        if let Some(time) = wanted.modified {
            self.set_time(node, time)?;
        }
        self.current(node)
    }

    fn set_mode(&self, node: Node, mode: u16) -> Result<(), Error> {
        let mut wanted = change(CHANGE_MODE, Vec::new());
        wanted.mode = mode;
        if self.with_contents(node, |known, _| known.mode = mode)? {
            return Ok(());
        }
        self.set_attribute(node, wanted, |record| record.mode = mode)
    }

    fn set_time(&self, node: Node, time: ChangeTime) -> Result<(), Error> {
        let time = match time {
            ChangeTime::To(time) => time,
            ChangeTime::Now => now(),
        };
        if self.with_contents(node, |_, scratch| scratch.set_modified(time))? {
            return Ok(());
        }
        let mut wanted = change(CHANGE_TIME, Vec::new());
        (wanted.seconds, wanted.nanoseconds) = (time.seconds, time.nanoseconds);
        self.set_attribute(node, wanted, |record| {
            (record.modified_seconds, record.modified_nanoseconds) = (time.seconds, time.nanoseconds);
        })
    }

    /// Changes what goes along with contents that are still to be sent; whether there are any.
    fn with_contents(&self, node: Node, set: impl FnOnce(&mut NodeRecord, &Scratch)) -> Result<bool, Error> {
        let mut table = self.table();
        let known = table.get_mut(node)?;
        let Some(scratch) = known.scratch.clone().filter(|scratch| scratch.is_dirty()) else {
            return Ok(false);
        };
        set(&mut known.record, &scratch);
        Ok(true)
    }

    fn set_attribute(
        &self,
        node: Node,
        mut wanted: ChangeRecord,
        set: impl FnOnce(&mut NodeRecord),
    ) -> Result<(), Error> {
        wanted.path = self.table().path(node, &self.base)?;
        let outcome = self.make(wanted)?;
        let mut table = self.table();
        let known = table.get_mut(node)?;
        // The contents are the same, whatever the version is called now.
        let is_same = known.pages == known.record.version && outcome.node.size == known.record.size;
        set(&mut known.record);
        if outcome.node.kind == known.record.kind {
            if is_same {
                known.pages = outcome.node.version;
            }
            (known.record, known.checked) = (outcome.node, Some(Instant::now()));
        }
        Ok(())
    }

    fn set_size(&self, node: Node, size: u64) -> Result<(), Error> {
        let scratch = if size == 0 { self.fresh_scratch(node)? } else { self.scratch(node)? };
        scratch.set_size(size).map_err(|_| Error::NoSpace)?;
        if self.table().get(node)?.writers == 0 {
            self.commit(node);
        }
        Ok(())
    }

    /// Writes into a file, here.
    pub(super) fn write_file(&self, node: Node, offset: u64, data: &[u8]) -> Result<(), Error> {
        self.outbox()?;
        self.scratch(node)?.write(offset, data).map_err(|_| Error::NoSpace)
    }

    /// Makes a file at least so long.
    pub(super) fn lengthen(&self, node: Node, size: u64) -> Result<(), Error> {
        self.outbox()?;
        let scratch = self.scratch(node)?;
        if size > scratch.size() {
            scratch.set_size(size).map_err(|_| Error::NoSpace)?;
        }
        Ok(())
    }

    /// What is written here instead of a file, with what the file holds.
    fn scratch(&self, node: Node) -> Result<Arc<Scratch>, Error> {
        if let Some(scratch) = &self.table().get(node)?.scratch {
            return Ok(scratch.clone());
        }
        // What is copied is what the new contents are based on.
        let record = self.current(node)?;
        if record.kind != KIND_FILE {
            return Err(Error::Invalid);
        }
        let made = Scratch::new(&self.store).map_err(|_| Error::NoSpace)?;
        let path = self.table().path(node, &self.base)?;
        if record.size > 0 {
            let content = self.contents.open(&self.source, &path, &record)?;
            let mut offset = 0;
            while offset < record.size {
                let data = content.read(&self.source, &path, offset, COPY_SIZE)?;
                if data.is_empty() {
                    return Err(Error::Stale);
                }
                made.write(offset, &data).map_err(|_| Error::NoSpace)?;
                offset += data.len() as u64;
            }
            made.take_dirty();
        }
        self.settle_scratch(node, made)
    }

    /// An empty file in place of what a file holds.
    fn fresh_scratch(&self, node: Node) -> Result<Arc<Scratch>, Error> {
        if let Some(scratch) = &self.table().get(node)?.scratch {
            return Ok(scratch.clone());
        }
        self.current(node)?;
        let made = Scratch::new(&self.store).map_err(|_| Error::NoSpace)?;
        self.settle_scratch(node, made)
    }

    /// Of two that were made at the same time the first stays.
    fn settle_scratch(&self, node: Node, made: Scratch) -> Result<Arc<Scratch>, Error> {
        let mut table = self.table();
        let known = table.get_mut(node)?;
        Ok(known.scratch.get_or_insert_with(|| Arc::new(made)).clone())
    }

    /// A file was closed that might have been written.
    pub(super) fn closed(&self, node: Node, handle: Handle) {
        let wrote = self.close_file(node, handle);
        let last = self.table().get(node).is_ok_and(|known| known.writers == 0);
        if wrote && last {
            self.commit(node);
        }
        self.drop_scratch(node);
    }

    /// Lets new contents go to the caller, if there are any.
    pub(super) fn commit(&self, node: Node) {
        let Ok(outbox) = self.outbox() else { return };
        let item = {
            let table = self.table();
            let Ok(known) = table.get(node) else { return };
            let Some(scratch) = known.scratch.clone().filter(|scratch| scratch.take_dirty()) else { return };
            // What has no name any more nobody will read.
            let Ok(path) = table.path(node, &self.base) else { return };
            let time = scratch.modified();
            let mut wanted = change(CHANGE_CONTENTS, path);
            wanted.mode = known.record.mode;
            (wanted.seconds, wanted.nanoseconds) = (time.seconds, time.nanoseconds);
            Item::new(wanted, Some((node, scratch)))
        };
        outbox.push(item, self);
    }

    /// Commits, and waits until the caller has it.
    pub(super) fn sync(&self, node: Node) -> Result<(), Error> {
        let outbox = self.outbox()?;
        self.commit(node);
        let before = outbox.lost();
        if outbox.flush(self) > before { Err(Error::Io) } else { Ok(()) }
    }

    /// Gives up the scratch of a file that nobody has open and that the caller has.
    fn drop_scratch(&self, node: Node) {
        let mut table = self.table();
        let Ok(known) = table.get_mut(node) else { return };
        let waits = |scratch: &Arc<Scratch>| scratch.is_dirty() || Arc::strong_count(scratch) > 1;
        if known.plain == 0 && !known.scratch.as_ref().is_some_and(|scratch| waits(scratch) && !known.gone) {
            known.scratch = None;
            table.tidy(node);
        }
    }
}

impl Settled for Visible {
    fn base(&self, node: Node) -> [u8; 16] {
        self.table().get(node).map_or([0; 16], |known| known.record.version)
    }

    fn settled(&self, node: Node, scratch: &Arc<Scratch>, outcome: &OutcomeRecord) {
        let fine = !Status(outcome.status).is_error() && outcome.kept.is_empty();
        if fine && outcome.node.kind == KIND_FILE {
            if scratch.size() <= KNOWN_SIZE_MAX && !scratch.is_dirty() {
                let data = super::contents::read_at(&scratch.file, 0, scratch.size() as usize);
                // As long as it is what was sent.
                if let Some(data) = data.ok().filter(|data| data.len() as u64 == outcome.node.size) {
                    self.contents.know(&outcome.node.version, &data);
                }
            }
            if let Ok(known) = self.table().get_mut(node) {
                known.pages = outcome.node.version;
                (known.record, known.checked) = (outcome.node.clone(), Some(Instant::now()));
            }
        } else if let Ok(known) = self.table().get_mut(node) {
            // What the caller has instead is asked for.
            known.checked = None;
        }
        let mut table = self.table();
        if let Ok(known) = table.get_mut(node)
            && known.plain == 0
            && !scratch.is_dirty()
        {
            known.scratch = None;
            table.tidy(node);
        }
    }
}

/// The time of this host, for what is said to be modified now.
fn now() -> Time {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    Time::from(since.unwrap_or_default())
}
