//! The operations of a mount on a caller's files.

use std::sync::Arc;
use std::time::Duration;

use amoeba_stubs::view::KIND_LINK;
use amoeba_volume::{
    Allocation, Attributes, Caller, Change, DirectoryEntry, Entry, Error, FileSystem, Handle, Kind,
    NAME_SIZE_MAX, Node, Notifier, OpenMode, Opened, Rename, Seek, SetAttribute, Space,
};

use super::visible::{Visible, kind_of};

/// `S_IFMT` and the value of a regular file in it.
const KIND_MASK: u32 = 0o170_000;
const REGULAR: u32 = 0o100_000;
/// Lines of a directory that are looked at at once.
const LINES: usize = 256;
/// What a view says of its size, since nobody knows: a large disk, half full.
const BLOCKS: u64 = 1 << 28;

fn named(name: &[u8]) -> Result<(), Error> {
    if name.len() > NAME_SIZE_MAX { Err(Error::NameTooLong) } else { Ok(()) }
}

impl FileSystem for Visible {
    fn mounted(&self, notifier: Arc<dyn Notifier>) {
        self.set_notifier(notifier);
    }

    fn lookup(&self, _: &Caller, directory: Node, name: &[u8]) -> Result<Entry, Error> {
        named(name)?;
        self.find_or_miss(directory, name)
    }

    fn absent_lifetime(&self) -> Duration {
        self.absent()
    }

    fn forget(&self, node: Node, count: u64) {
        self.table().forget(node, count);
    }

    fn attributes_lifetime(&self, _: Node) -> Duration {
        self.lifetime()
    }

    fn getattr(&self, node: Node) -> Result<Attributes, Error> {
        let record = self.current(node)?;
        Ok(self.attributes(node, &record))
    }

    fn setattr(&self, node: Node, _: Option<Handle>, change: &Change) -> Result<Attributes, Error> {
        let record = self.set(node, change)?;
        Ok(self.attributes(node, &record))
    }

    fn readlink(&self, node: Node) -> Result<Vec<u8>, Error> {
        let record = self.current(node)?;
        if record.kind == KIND_LINK { Ok(record.text) } else { Err(Error::Invalid) }
    }

    fn mknod(&self, _: &Caller, directory: Node, name: &[u8], mode: u32, _: u32) -> Result<Entry, Error> {
        named(name)?;
        match mode & KIND_MASK {
            0 | REGULAR => self.make_file(directory, name, (mode & 0o7777) as u16),
            // A pipe, socket or device is of one host alone.
            _ => Err(Error::NotPermitted),
        }
    }

    fn mkdir(&self, _: &Caller, directory: Node, name: &[u8], permissions: u16) -> Result<Entry, Error> {
        named(name)?;
        self.make_directory(directory, name, permissions)
    }

    fn symlink(&self, _: &Caller, directory: Node, name: &[u8], text: &[u8]) -> Result<Entry, Error> {
        named(name)?;
        self.make_link(directory, name, text)
    }

    fn link(&self, node: Node, directory: Node, name: &[u8]) -> Result<Entry, Error> {
        named(name)?;
        self.make_hard_link(node, directory, name)
    }

    fn unlink(&self, directory: Node, name: &[u8]) -> Result<(), Error> {
        self.remove(directory, name, false)
    }

    fn rmdir(&self, directory: Node, name: &[u8]) -> Result<(), Error> {
        self.remove(directory, name, true)
    }

    fn rename(
        &self,
        directory: Node,
        name: &[u8],
        new_directory: Node,
        new_name: &[u8],
        how: Rename,
    ) -> Result<(), Error> {
        named(new_name)?;
        self.rename_entry((directory, name), (new_directory, new_name), how)
    }

    fn create(
        &self,
        _: &Caller,
        directory: Node,
        name: &[u8],
        permissions: u16,
        mode: OpenMode,
    ) -> Result<(Entry, Opened), Error> {
        named(name)?;
        self.create_file(directory, name, permissions, mode)
    }

    fn open(&self, _: &Caller, node: Node, mode: OpenMode) -> Result<Opened, Error> {
        self.open_file(node, mode)
    }

    fn read(
        &self,
        node: Node,
        handle: Handle,
        offset: u64,
        size: usize,
        give: &mut dyn FnMut(&[u8]),
    ) -> Result<(), Error> {
        give(&self.read_file(node, handle, offset, size)?);
        Ok(())
    }

    fn write(&self, node: Node, _: Handle, offset: u64, data: &[u8]) -> Result<(), Error> {
        self.write_file(node, offset, data)
    }

    fn flush(&self, _: Node, _: Handle) -> Result<(), Error> {
        // What counts is the last close of an open, which several processes may share.
        Err(Error::NotImplemented)
    }

    fn fsync(&self, node: Node, _: Handle, _: bool) -> Result<(), Error> {
        if self.writing.is_some() { self.sync(node) } else { Ok(()) }
    }

    fn release(&self, node: Node, handle: Handle) {
        self.closed(node, handle);
        self.table().tidy(node);
    }

    fn opendir(&self, node: Node) -> Result<Opened, Error> {
        Ok(Opened::kept(self.open_directory(node)?))
    }

    fn readdir(
        &self,
        node: Node,
        handle: Handle,
        offset: u64,
        entries: bool,
        take: &mut dyn FnMut(&DirectoryEntry<'_>) -> bool,
    ) -> Result<(), Error> {
        let parent = Node(self.table().get(node)?.parent.max(Node::ROOT.0));
        for (index, (name, of)) in [(&b"."[..], node), (b"..", parent)].into_iter().enumerate() {
            let next = index as u64 + 1;
            let line = DirectoryEntry { name, node: of, kind: Kind::Directory, next, entry: None };
            if offset < next && !take(&line) {
                return Ok(());
            }
        }
        let mut from = offset.saturating_sub(2) as usize;
        loop {
            let lines = self.lines(handle, from, LINES)?;
            if lines.is_empty() {
                return Ok(());
            }
            for line in lines {
                from += 1;
                if !self.give_line(node, &line.name, &line.record, from as u64 + 2, entries, take) {
                    return Ok(());
                }
            }
        }
    }

    fn releasedir(&self, _: Node, handle: Handle) {
        self.close_directory(handle);
    }

    fn fsyncdir(&self, _: Node, _: Handle) -> Result<(), Error> {
        // Names are the caller's at once.
        Ok(())
    }

    fn statfs(&self) -> Result<Space, Error> {
        Ok(Space {
            block_size: 4096,
            blocks: BLOCKS,
            blocks_free: BLOCKS / 2,
            nodes: BLOCKS,
            nodes_free: BLOCKS / 2,
        })
    }

    fn getxattr(&self, _: Node, _: &[u8]) -> Result<Vec<u8>, Error> {
        Err(Error::NotImplemented)
    }

    fn listxattr(&self, _: Node) -> Result<Vec<Vec<u8>>, Error> {
        Err(Error::NotImplemented)
    }

    fn setxattr(&self, _: Node, _: &[u8], _: &[u8], _: SetAttribute) -> Result<(), Error> {
        Err(Error::NotImplemented)
    }

    fn removexattr(&self, _: Node, _: &[u8]) -> Result<(), Error> {
        Err(Error::NotImplemented)
    }

    fn fallocate(&self, node: Node, _: Handle, offset: u64, size: u64, how: Allocation) -> Result<(), Error> {
        if how == Allocation::empty() {
            return self.lengthen(node, offset.checked_add(size).ok_or(Error::TooLarge)?);
        }
        if how == Allocation::KEEP_SIZE { Ok(()) } else { Err(Error::NotSupported) }
    }

    fn lseek(&self, _: Node, _: Handle, _: u64, _: Seek) -> Result<u64, Error> {
        // The kernel then takes a file for one without holes.
        Err(Error::NotImplemented)
    }
}

impl Visible {
    /// Gives one line of a listing; whether it was taken.
    fn give_line(
        &self,
        directory: Node,
        name: &[u8],
        record: &amoeba_stubs::view::NodeRecord,
        next: u64,
        entries: bool,
        take: &mut dyn FnMut(&DirectoryEntry<'_>) -> bool,
    ) -> bool {
        let kind = kind_of(record);
        if !entries {
            // A number that is no node's: only a lookup makes one.
            return take(&DirectoryEntry { name, node: Node(u64::MAX - next), kind, next, entry: None });
        }
        // What has gone since the directory was opened has no line any more.
        let Ok(entry) = self.find(directory, name) else { return true };
        let node = entry.attributes.node;
        let kind = entry.attributes.kind;
        let taken = take(&DirectoryEntry { name, node, kind, next, entry: Some(&entry) });
        if !taken {
            self.table().forget(node, 1);
        }
        taken
    }
}
