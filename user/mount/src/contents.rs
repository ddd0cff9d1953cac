//! Files are opened, read and written.
//!
//! A file that nobody writes is read from the server of files; from the first write on there is a scratch, which all who have
//! it open share. Closing it makes a [`Version`] of the scratch; who writes again before that is a file of the server works on
//! a copy, or waits for it where a copy would be large.

use std::sync::Arc;

use amoeba_stubs::{bullet, bullet_file};
use amoeba_volume::{Allocation, Error, Handle, Node, OpenMode, Seek};

use crate::Shared;
use crate::queue::Version;
use crate::rows::error_of;
use crate::scratch::Scratch;
use crate::tree::{Content, Tree};

/// Bytes that are moved at once.
const PIECE_SIZE: usize = 1 << 20;
/// Bytes of a scratch of which a copy is made rather than waiting until it is committed.
const COPY_MAX: u64 = 4 << 20;
const SET_USER: u32 = 0o4000;
const SET_GROUP: u32 = 0o2000;
const GROUP_EXECUTES: u32 = 0o010;

/// A handle says whether it may write.
pub(crate) fn may_write(handle: Handle) -> bool {
    handle.0 & 1 == 1
}

impl Shared {
    pub(crate) fn open(&self, node: Node, mode: OpenMode) -> Result<Handle, Error> {
        let writes = mode.contains(OpenMode::WRITE);
        let handle = {
            let mut tree = self.tree.lock();
            let member = tree.member(node)?;
            if let Content::Object(_) = &member.content {
                return if writes { Err(Error::AccessDenied) } else { Ok(self.handle(false)) };
            }
            let readable = |set: &amoeba_cap::Capability| set.rights().contains(bullet::READ);
            if !member.set.is_empty() && !member.set.current().any(readable) {
                return Err(Error::AccessDenied);
            }
            if writes {
                // What is written becomes a file under this name.
                for (directory, _) in member.names.clone() {
                    tree.writable(directory)?;
                }
            }
            self.opened(&mut tree, node, writes)?
        };
        if mode.contains(OpenMode::TRUNCATE) {
            self.resize(node, 0, false).inspect_err(|_| self.release(node, handle))?;
        }
        Ok(handle)
    }

    /// Counts an opening.
    pub(crate) fn opened(&self, tree: &mut Tree, node: Node, writes: bool) -> Result<Handle, Error> {
        let file = tree.file_mut(node)?;
        if !self.closing.has_no_opens() {
            file.openers += 1;
            file.writers += u32::from(writes);
        } else if writes {
            self.somebody_writes(tree, node);
        }
        Ok(self.handle(writes))
    }

    pub(crate) fn handle(&self, writes: bool) -> Handle {
        let number = self.next_handle.fetch_add(2, std::sync::atomic::Ordering::Relaxed);
        Handle(number | u64::from(writes))
    }

    pub(crate) fn read(
        &self,
        node: Node,
        offset: u64,
        size: usize,
        give: &mut dyn FnMut(&[u8]),
    ) -> Result<(), Error> {
        let (scratch, opened, set) = {
            let mut tree = self.tree.lock();
            let member = tree.member(node)?;
            match &member.content {
                Content::File(file) => {
                    let found = (file.scratch.clone(), file.opened.clone(), member.set.clone());
                    tree.read_on(node, offset.saturating_add(size as u64));
                    found
                }
                Content::Object(bytes) => {
                    let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
                    let end = start.saturating_add(size).min(bytes.len());
                    give(&bytes[start..end]);
                    return Ok(());
                }
                Content::Directory(_) => return Err(Error::IsDirectory),
                _ => return Err(Error::Invalid),
            }
        };
        if let Some(scratch) = scratch {
            let left = scratch.size().saturating_sub(offset).min(size as u64);
            return self.buffers.with(left as usize, |bytes| {
                let read = scratch.read(offset, bytes)?;
                give(&bytes[..read]);
                Ok(())
            });
        }
        let opened = match opened {
            Some(opened) => opened,
            None => self.fetch(node, &set, offset.saturating_add(size as u64))?,
        };
        if offset >= opened.size() {
            give(&[]);
            return Ok(());
        }
        if opened.bytes().is_some() || size <= PIECE_SIZE {
            return opened.read_where_it_is(self.client(), offset, size, give).map_err(error_of);
        }
        let left = (opened.size() - offset).min(size as u64) as usize;
        self.buffers.with(left, |bytes| {
            let read = opened.read_at(self.client(), offset, bytes).map_err(error_of)?;
            give(&bytes[..read]);
            Ok(())
        })
    }

    /// Opens a committed file at its server, to read up to `end`. It is kept while somebody has the node open, as far as that is
    /// known, and there is more to read.
    fn fetch(
        &self,
        node: Node,
        set: &amoeba_cap::CapabilitySet,
        end: u64,
    ) -> Result<bullet_file::OpenFile, Error> {
        let mut failure = Error::Io;
        for copy in set.current() {
            match bullet_file::open(self.client(), copy) {
                Ok(opened) => {
                    let mut tree = self.tree.lock();
                    if end < opened.size() && self.closing.has_no_opens() {
                        tree.keep_opened(node, &opened);
                    } else if let Ok(file) = tree.file_mut(node) {
                        file.opened = Some(opened.clone()).filter(|_| file.openers > 0);
                    }
                    return Ok(opened);
                }
                Err(error) => failure = error_of(error),
            }
        }
        Err(failure)
    }

    /// Does something to the scratch of a file, and notes that it was changed. `keep`: so many bytes of what is committed matter.
    fn change<T>(
        &self,
        node: Node,
        keep: u64,
        how: impl FnOnce(&Scratch) -> Result<T, Error>,
    ) -> Result<T, Error> {
        if self.closing.has_no_opens() {
            self.begin_to_write(node)?;
        }
        let gate = Arc::clone(&self.tree.lock().file(node)?.gate);
        let _gate = gate.lock();
        let scratch = self.own_scratch(node, keep)?;
        let result = how(&scratch)?;
        let now = self.now();
        let mut tree = self.tree.lock();
        let member = tree.member_mut(node)?;
        (member.attributes.modified, member.attributes.changed) = (Some(now), Some(now));
        take_privileges(&mut member.attributes);
        if let Content::File(file) = &mut member.content {
            file.changed = true;
        }
        Ok(result)
    }

    /// What an open to write checks, where there is none.
    fn begin_to_write(&self, node: Node) -> Result<(), Error> {
        let mut tree = self.tree.lock();
        let member = tree.member_mut(node)?;
        match &mut member.content {
            Content::Object(_) => return Err(Error::AccessDenied),
            Content::File(file) => match file.failure.take() {
                Some(failure) => return Err(failure),
                None if file.changed => return Ok(()),
                None => {}
            },
            _ => {}
        }
        for (directory, _) in member.names.clone() {
            tree.writable(directory)?;
        }
        let full = tree.queue.len() >= crate::QUEUE_MAX;
        drop(tree);
        if full { self.make_room() } else { Ok(()) }
    }

    /// A scratch of a file that nobody but its writers sees.
    fn own_scratch(&self, node: Node, keep: u64) -> Result<Arc<Scratch>, Error> {
        let (scratch, version, set) = {
            let tree = self.tree.lock();
            let member = tree.member(node)?;
            let Content::File(file) = &member.content else { return Err(Error::Invalid) };
            match (&file.scratch, &member.version) {
                (Some(scratch), None) => return Ok(Arc::clone(scratch)),
                (scratch, version) => (scratch.clone(), version.clone(), member.set.clone()),
            }
        };
        let scratch = match (scratch, version) {
            (Some(scratch), Some(version)) if Arc::ptr_eq(&scratch, &version.scratch) => {
                return self.thaw(node, scratch, &version);
            }
            (Some(scratch), _) => return Ok(scratch),
            (None, _) => self.scratches.make(),
        };
        if !set.is_empty() && keep > 0 {
            let opened = self.fetch(node, &set, u64::MAX)?;
            let size = opened.size().min(keep);
            let mut buffer = vec![0; PIECE_SIZE.min(size as usize)];
            let mut at = 0;
            while at < size {
                let count = (size - at).min(buffer.len() as u64) as usize;
                let read = opened.read_at(self.client(), at, &mut buffer[..count]).map_err(error_of)?;
                scratch.write(at, &buffer[..read])?;
                at += read as u64;
            }
        }
        self.tree.lock().file_mut(node)?.scratch = Some(Arc::clone(&scratch));
        Ok(scratch)
    }

    /// A scratch of which a version waits is not written; a copy of it may be.
    fn thaw(&self, node: Node, scratch: Arc<Scratch>, version: &Version) -> Result<Arc<Scratch>, Error> {
        if version.is_made() {
            return Ok(scratch);
        }
        if scratch.size() > COPY_MAX {
            version.make(self.client(), &self.file_server()).map_err(error_of)?;
            return Ok(scratch);
        }
        let copy = self.scratches.make();
        let mut bytes = vec![0; scratch.size() as usize];
        scratch.read(0, &mut bytes)?;
        copy.write(0, &bytes)?;
        self.tree.lock().file_mut(node)?.scratch = Some(Arc::clone(&copy));
        Ok(copy)
    }

    pub(crate) fn write(&self, node: Node, offset: u64, data: &[u8]) -> Result<(), Error> {
        self.change(node, u64::MAX, |scratch| scratch.write(offset, data))?;
        self.somebody_writes(&mut self.tree.lock(), node);
        Ok(())
    }

    /// Gives a file another size; `by_name`: without an open. Where nobody has it open for writing that is all, and it is committed.
    pub(crate) fn resize(&self, node: Node, size: u64, by_name: bool) -> Result<(), Error> {
        if size > crate::scratch::SIZE_MAX {
            return Err(Error::TooLarge);
        }
        self.change(node, size, |scratch| scratch.set_size(size))?;
        // Where opens are not told, who empties a file as a rule opens it.
        let opens = by_name && size == 0 && self.closing.has_no_opens();
        let mut tree = self.tree.lock();
        let is_new = tree.file(node)?.writers == 0;
        if opens || !by_name {
            self.somebody_writes(&mut tree, node);
        }
        if tree.file(node)?.writers == 0 {
            self.commit(&mut tree, node);
        }
        drop(tree);
        if opens && is_new {
            self.somebody_may_write(node);
        }
        self.work.notify_all();
        Ok(())
    }

    pub(crate) fn allocate(&self, node: Node, offset: u64, size: u64, how: Allocation) -> Result<(), Error> {
        self.change(node, u64::MAX, |scratch| scratch.allocate(offset, size, how))?;
        self.somebody_writes(&mut self.tree.lock(), node);
        Ok(())
    }

    pub(crate) fn seek(&self, node: Node, offset: u64, what: Seek) -> Result<u64, Error> {
        let (scratch, size) = {
            let tree = self.tree.lock();
            (tree.file(node)?.scratch.clone(), tree.member(node)?.size())
        };
        match (scratch, what) {
            (Some(scratch), _) => scratch.seek(offset, what),
            (None, _) if offset >= size => Err(Error::NothingThere),
            (None, Seek::Data) => Ok(offset),
            (None, Seek::Hole) => Ok(size),
        }
    }

    /// Queues what was written as a new version of the file.
    pub(crate) fn commit(&self, tree: &mut Tree, node: Node) {
        let Ok(file) = tree.file_mut(node) else { return };
        if !file.changed {
            return;
        }
        let scratch = match &file.scratch {
            Some(scratch) => Arc::clone(scratch),
            None => {
                let scratch = self.scratches.make();
                file.scratch = Some(Arc::clone(&scratch));
                scratch
            }
        };
        file.changed = false;
        let version = Version::new(&self.world.threads, scratch);
        tree.take_names_back(node);
        if let Ok(member) = tree.member_mut(node)
            && !member.names.is_empty()
        {
            member.version = Some(version);
            tree.publish(node);
        }
    }

    /// A descriptor was closed: the last one of somebody who may write commits.
    pub(crate) fn flush(&self, node: Node, handle: Handle) -> Result<(), Error> {
        let (gate, full) = {
            let mut tree = self.tree.lock();
            let Content::File(file) = &mut tree.member_mut(node)?.content else { return Ok(()) };
            if !file.changed {
                return file.failure.take().map_or(Ok(()), Err);
            }
            (Arc::clone(&file.gate), tree.queue.len() >= crate::QUEUE_MAX)
        };
        if full {
            self.make_room()?;
        }
        let _gate = gate.lock();
        let mut tree = self.tree.lock();
        let file = tree.file_mut(node)?;
        if file.writers <= u32::from(may_write(handle)) {
            self.commit(&mut tree, node);
            self.work.notify_all();
        }
        tree.file_mut(node)?.failure.take().map_or(Ok(()), Err)
    }

    pub(crate) fn release(&self, node: Node, handle: Handle) {
        if self.closing.has_no_opens() {
            return;
        }
        let mut tree = self.tree.lock();
        let Ok(file) = tree.file_mut(node) else { return };
        file.openers = file.openers.saturating_sub(1);
        file.writers = file.writers.saturating_sub(u32::from(may_write(handle)));
        if file.writers == 0 {
            self.commit(&mut tree, node);
            self.work.notify_all();
        }
        tree.drop_scratch(node);
        tree.drop_if_idle(node);
    }

    /// What was written survives a kill of this process, and of the host.
    pub(crate) fn fsync(&self, node: Node) -> Result<(), Error> {
        let gate = match &mut self.tree.lock().member_mut(node)?.content {
            Content::File(file) => match file.failure.take() {
                Some(failure) => return Err(failure),
                None => Arc::clone(&file.gate),
            },
            _ => return Ok(()),
        };
        let gate = gate.lock();
        let (scratch, pending) = {
            let tree = self.tree.lock();
            let member = tree.member(node)?;
            let file = tree.file(node)?;
            let waits = file.changed || member.version.is_some();
            (file.scratch.clone().filter(|_| waits), member.pending)
        };
        match scratch {
            Some(scratch) => self.sync_scratch(node, &scratch),
            None => {
                drop(gate);
                self.wait_for(pending)
            }
        }
    }

    /// Whether somebody has a file or a directory open.
    pub(crate) fn is_used(&self) -> bool {
        if self.closing.has_no_opens() {
            // The kernel forgets what nobody uses once its name says nothing any more.
            let names = self.tree.lock().names_of_root();
            names.iter().for_each(|name| self.tell_name(Node::ROOT, name));
        }
        let untold = self.closing.has_no_opens();
        let tree = self.tree.lock();
        let opened = |node: &Node| match (tree.member(*node), tree.file(*node)) {
            (Ok(member), Ok(file)) => file.openers > 0 || (untold && member.remembered > 0),
            _ => false,
        };
        self.listings.is_used() || tree.nodes().iter().any(opened)
    }

    /// Queues what is open and was changed, at the end of a mount.
    pub(crate) fn commit_open_files(&self) {
        let mut tree = self.tree.lock();
        for node in tree.nodes() {
            self.commit(&mut tree, node);
        }
        self.work.notify_all();
    }
}

/// A file that was changed runs with nobody's privileges but its caller's.
pub(crate) fn take_privileges(attributes: &mut amoeba_name::Attributes) {
    if let Some(mode) = attributes.mode {
        // A set-group bit without the right to execute is no privilege.
        let group = if mode & GROUP_EXECUTES == 0 { 0 } else { SET_GROUP };
        attributes.mode = Some(mode & !(SET_USER | group));
    }
    attributes.extended.remove(&b"security.capability"[..]);
}
