//! A file system with places in its root where others can be mounted, whether it has such names or not.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::{
    Allocation, Attributes, Caller, Change, DirectoryEntry, Entry, Error, FileSystem, Handle, Kind, Node,
    Notifier, OpenMode, Opened, Rename, Seek, SetAttribute, Space, Time,
};

/// The node of the first place; no other file system counts so far.
const FIRST_NODE: u64 = 1 << 63;
/// Where a listing of the root goes on with the first place.
const FIRST_OFFSET: u64 = 1 << 62;
/// How long a place is believed; it never changes.
const LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);
const PERMISSIONS: u16 = 0o755;

/// A file system whose root has some empty directories besides. What the file system itself has under these names is not
/// seen, and nothing can be put there.
pub struct Places<F> {
    files: F,
    names: &'static [&'static str],
    owner: (u32, u32),
    /// Releases of files that are under way.
    releasing: AtomicU64,
    /// How often a place was closed.
    closed: AtomicU64,
}

impl<F: FileSystem> Places<F> {
    /// `files` with these places, which belong to `owner`, a user and a group.
    pub fn new(files: F, names: &'static [&'static str], owner: (u32, u32)) -> Places<F> {
        Places { files, names, owner, releasing: AtomicU64::new(0), closed: AtomicU64::new(0) }
    }

    /// The file system without its places.
    pub fn files(&self) -> &F {
        &self.files
    }

    /// How often somebody has opened a place and closed it again. A mount closes in order, so that by then what was closed
    /// before is at least [being released](Places::is_releasing).
    pub fn places_closed(&self) -> u64 {
        self.closed.load(Ordering::Acquire)
    }

    /// Whether a file is being released at this moment.
    pub fn is_releasing(&self) -> bool {
        self.releasing.load(Ordering::Acquire) != 0
    }

    fn place(&self, directory: Node, name: &[u8]) -> Option<Node> {
        let index = self.names.iter().position(|place| place.as_bytes() == name);
        index.filter(|_| directory == Node::ROOT).map(|index| Node(FIRST_NODE + index as u64))
    }

    fn attributes(&self, place: Node) -> Attributes {
        let (user, group) = self.owner;
        let time = Time::default();
        Attributes {
            node: place,
            kind: Kind::Directory,
            permissions: PERMISSIONS,
            links: 1,
            user,
            group,
            device: 0,
            size: 0,
            allocated: 0,
            accessed: time,
            modified: time,
            changed: time,
        }
    }

    fn entry(&self, place: Node) -> Entry {
        let attributes = self.attributes(place);
        Entry { attributes, generation: 0, name_lifetime: LIFETIME, attributes_lifetime: LIFETIME }
    }

    /// Nothing is made in a place, or in its stead.
    fn free(&self, directory: Node, name: &[u8]) -> Result<(), Error> {
        if is_place(directory) {
            return Err(Error::AccessDenied);
        }
        self.place(directory, name).map_or(Ok(()), |_| Err(Error::Exists))
    }

    /// Nothing is taken from a place, nor the place itself.
    fn loose(&self, directory: Node, name: &[u8]) -> Result<(), Error> {
        if is_place(directory) {
            return Err(Error::NotFound);
        }
        self.place(directory, name).map_or(Ok(()), |_| Err(Error::Busy))
    }

    /// The lines of a place, which has none but those that every directory has.
    fn list_place(place: Node, offset: u64, take: &mut dyn FnMut(&DirectoryEntry<'_>) -> bool) {
        let lines = [(&b"."[..], place), (b"..", Node::ROOT)];
        for (next, (name, node)) in (1..).zip(lines).skip(offset.min(2) as usize) {
            if !take(&DirectoryEntry { name, node, kind: Kind::Directory, next, entry: None }) {
                return;
            }
        }
    }

    /// The lines of the places themselves, from one of them on.
    fn list_places(&self, first: u64, entries: bool, take: &mut dyn FnMut(&DirectoryEntry<'_>) -> bool) {
        for (index, name) in (0..).zip(self.names).skip(first as usize) {
            let entry = self.entry(Node(FIRST_NODE + index));
            let line = DirectoryEntry {
                name: name.as_bytes(),
                node: entry.attributes.node,
                kind: Kind::Directory,
                next: FIRST_OFFSET + index + 1,
                entry: entries.then_some(&entry),
            };
            if !take(&line) {
                return;
            }
        }
    }
}

fn is_place(node: Node) -> bool {
    node.0 >= FIRST_NODE
}

/// Everybody's, unless it is about a place.
fn no_place(node: Node, error: Error) -> Result<(), Error> {
    if is_place(node) { Err(error) } else { Ok(()) }
}

impl<F: FileSystem> FileSystem for Places<F> {
    fn mounted(&self, notifier: Arc<dyn Notifier>) {
        self.files.mounted(notifier);
    }

    fn lookup(&self, caller: &Caller, directory: Node, name: &[u8]) -> Result<Entry, Error> {
        no_place(directory, Error::NotFound)?;
        match self.place(directory, name) {
            Some(place) => Ok(self.entry(place)),
            None => self.files.lookup(caller, directory, name),
        }
    }

    fn absent_lifetime(&self) -> Duration {
        self.files.absent_lifetime()
    }

    fn forget(&self, node: Node, count: u64) {
        if !is_place(node) {
            self.files.forget(node, count);
        }
    }

    fn attributes_lifetime(&self, node: Node) -> Duration {
        if is_place(node) { LIFETIME } else { self.files.attributes_lifetime(node) }
    }

    fn getattr(&self, node: Node) -> Result<Attributes, Error> {
        if is_place(node) { Ok(self.attributes(node)) } else { self.files.getattr(node) }
    }

    fn setattr(&self, node: Node, handle: Option<Handle>, change: &Change) -> Result<Attributes, Error> {
        no_place(node, Error::NotPermitted)?;
        self.files.setattr(node, handle, change)
    }

    fn readlink(&self, node: Node) -> Result<Vec<u8>, Error> {
        no_place(node, Error::Invalid)?;
        self.files.readlink(node)
    }

    fn mknod(
        &self,
        caller: &Caller,
        directory: Node,
        name: &[u8],
        mode: u32,
        device: u32,
    ) -> Result<Entry, Error> {
        self.free(directory, name)?;
        self.files.mknod(caller, directory, name, mode, device)
    }

    fn mkdir(&self, caller: &Caller, directory: Node, name: &[u8], permissions: u16) -> Result<Entry, Error> {
        self.free(directory, name)?;
        self.files.mkdir(caller, directory, name, permissions)
    }

    fn symlink(&self, caller: &Caller, directory: Node, name: &[u8], text: &[u8]) -> Result<Entry, Error> {
        self.free(directory, name)?;
        self.files.symlink(caller, directory, name, text)
    }

    fn link(&self, node: Node, directory: Node, name: &[u8]) -> Result<Entry, Error> {
        no_place(node, Error::NotPermitted)?;
        self.free(directory, name)?;
        self.files.link(node, directory, name)
    }

    fn unlink(&self, directory: Node, name: &[u8]) -> Result<(), Error> {
        self.loose(directory, name)?;
        self.files.unlink(directory, name)
    }

    fn rmdir(&self, directory: Node, name: &[u8]) -> Result<(), Error> {
        self.loose(directory, name)?;
        self.files.rmdir(directory, name)
    }

    fn rename(
        &self,
        directory: Node,
        name: &[u8],
        new_directory: Node,
        new_name: &[u8],
        how: Rename,
    ) -> Result<(), Error> {
        self.loose(directory, name)?;
        no_place(new_directory, Error::AccessDenied)?;
        self.loose(new_directory, new_name)?;
        self.files.rename(directory, name, new_directory, new_name, how)
    }

    fn create(
        &self,
        caller: &Caller,
        directory: Node,
        name: &[u8],
        permissions: u16,
        mode: OpenMode,
    ) -> Result<(Entry, Opened), Error> {
        self.free(directory, name)?;
        self.files.create(caller, directory, name, permissions, mode)
    }

    fn open(&self, caller: &Caller, node: Node, mode: OpenMode) -> Result<Opened, Error> {
        no_place(node, Error::IsDirectory)?;
        self.files.open(caller, node, mode)
    }

    fn read(
        &self,
        node: Node,
        handle: Handle,
        offset: u64,
        size: usize,
        give: &mut dyn FnMut(&[u8]),
    ) -> Result<(), Error> {
        no_place(node, Error::IsDirectory)?;
        self.files.read(node, handle, offset, size, give)
    }

    fn write(&self, node: Node, handle: Handle, offset: u64, data: &[u8]) -> Result<(), Error> {
        no_place(node, Error::IsDirectory)?;
        self.files.write(node, handle, offset, data)
    }

    fn flush(&self, node: Node, handle: Handle) -> Result<(), Error> {
        if is_place(node) { Ok(()) } else { self.files.flush(node, handle) }
    }

    fn fsync(&self, node: Node, handle: Handle, data_only: bool) -> Result<(), Error> {
        no_place(node, Error::Invalid)?;
        self.files.fsync(node, handle, data_only)
    }

    fn release(&self, node: Node, handle: Handle) {
        self.releasing.fetch_add(1, Ordering::AcqRel);
        self.files.release(node, handle);
        self.releasing.fetch_sub(1, Ordering::AcqRel);
    }

    fn opendir(&self, node: Node) -> Result<Opened, Error> {
        if is_place(node) { Ok(Opened::kept(Handle(node.0))) } else { self.files.opendir(node) }
    }

    fn readdir(
        &self,
        node: Node,
        handle: Handle,
        offset: u64,
        entries: bool,
        take: &mut dyn FnMut(&DirectoryEntry<'_>) -> bool,
    ) -> Result<(), Error> {
        if is_place(node) {
            Self::list_place(node, offset, take);
            return Ok(());
        }
        if node != Node::ROOT {
            return self.files.readdir(node, handle, offset, entries, take);
        }
        if offset >= FIRST_OFFSET {
            self.list_places(offset - FIRST_OFFSET, entries, take);
            return Ok(());
        }
        let (mut is_full, mut hidden) = (false, Vec::new());
        self.files.readdir(node, handle, offset, entries, &mut |line| {
            if self.place(node, line.name).is_some() {
                hidden.extend(line.entry.map(|entry| entry.attributes.node));
                return true;
            }
            is_full = !take(line);
            !is_full
        })?;
        // They were remembered for being taken, and the kernel was never told of them.
        hidden.into_iter().for_each(|node| self.files.forget(node, 1));
        if !is_full {
            self.list_places(0, entries, take);
        }
        Ok(())
    }

    fn releasedir(&self, node: Node, handle: Handle) {
        if is_place(node) {
            self.closed.fetch_add(1, Ordering::AcqRel);
        } else {
            self.files.releasedir(node, handle);
        }
    }

    fn fsyncdir(&self, node: Node, handle: Handle) -> Result<(), Error> {
        if is_place(node) { Ok(()) } else { self.files.fsyncdir(node, handle) }
    }

    fn statfs(&self) -> Result<Space, Error> {
        self.files.statfs()
    }

    fn getxattr(&self, node: Node, name: &[u8]) -> Result<Vec<u8>, Error> {
        no_place(node, Error::NoAttribute)?;
        self.files.getxattr(node, name)
    }

    fn listxattr(&self, node: Node) -> Result<Vec<Vec<u8>>, Error> {
        if is_place(node) { Ok(Vec::new()) } else { self.files.listxattr(node) }
    }

    fn setxattr(&self, node: Node, name: &[u8], value: &[u8], how: SetAttribute) -> Result<(), Error> {
        no_place(node, Error::NotPermitted)?;
        self.files.setxattr(node, name, value, how)
    }

    fn removexattr(&self, node: Node, name: &[u8]) -> Result<(), Error> {
        no_place(node, Error::NoAttribute)?;
        self.files.removexattr(node, name)
    }

    fn fallocate(
        &self,
        node: Node,
        handle: Handle,
        offset: u64,
        size: u64,
        how: Allocation,
    ) -> Result<(), Error> {
        no_place(node, Error::IsDirectory)?;
        self.files.fallocate(node, handle, offset, size, how)
    }

    fn lseek(&self, node: Node, handle: Handle, offset: u64, what: Seek) -> Result<u64, Error> {
        no_place(node, Error::IsDirectory)?;
        self.files.lseek(node, handle, offset, what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemoryFileSystem;

    const ME: Caller = Caller { user: 0, group: 0, process: 1 };

    struct Noon;

    impl amoeba_world::Clock for Noon {
        fn unix_time(&self) -> Duration {
            Duration::from_secs(43_200)
        }
    }

    fn system() -> Places<MemoryFileSystem> {
        let memory = MemoryFileSystem::new(Arc::new(Noon), 1 << 20);
        for name in [&b"dev"[..], b"a", b"b"] {
            memory.mkdir(&ME, Node::ROOT, name, 0o755).unwrap();
        }
        Places::new(memory, &["dev", "proc"], (5, 6))
    }

    /// The names of the root, a few at a time.
    fn names(files: &impl FileSystem, at_once: usize, entries: bool) -> Vec<String> {
        let (mut names, mut offset) = (Vec::new(), 0);
        let opened = files.opendir(Node::ROOT).unwrap();
        loop {
            let mut room = at_once;
            let mut remembered = Vec::new();
            files
                .readdir(Node::ROOT, opened.handle, offset, entries, &mut |line| {
                    if room == 0 {
                        return false;
                    }
                    room -= 1;
                    names.push(String::from_utf8(line.name.to_vec()).unwrap());
                    remembered.extend(line.entry.map(|entry| entry.attributes.node));
                    offset = line.next;
                    true
                })
                .unwrap();
            remembered.into_iter().for_each(|node| files.forget(node, 1));
            if room == at_once {
                break;
            }
        }
        files.releasedir(Node::ROOT, opened.handle);
        names
    }

    #[test]
    fn a_listing_has_every_place_once_and_not_what_it_hides() {
        let files = system();
        for at_once in 1..8 {
            for entries in [false, true] {
                let mut names = names(&files, at_once, entries);
                assert_eq!(names[names.len() - 2..], ["dev", "proc"]);
                names.sort();
                assert_eq!(names, [".", "..", "a", "b", "dev", "proc"]);
            }
        }
    }

    #[test]
    fn a_place_is_an_empty_directory_that_stays() {
        let files = system();
        let place = files.lookup(&ME, Node::ROOT, b"proc").unwrap().attributes;
        assert_eq!((place.kind, place.user, place.group), (Kind::Directory, 5, 6));
        assert_eq!(files.getattr(place.node).unwrap(), place);
        assert_ne!(files.lookup(&ME, Node::ROOT, b"dev").unwrap().attributes.node, place.node);
        let how = Rename::empty();
        assert_eq!(files.mkdir(&ME, Node::ROOT, b"proc", 0o755).err(), Some(Error::Exists));
        assert_eq!(files.mkdir(&ME, place.node, b"x", 0o755).err(), Some(Error::AccessDenied));
        assert_eq!(files.lookup(&ME, place.node, b"x").err(), Some(Error::NotFound));
        assert_eq!(files.rmdir(Node::ROOT, b"dev").err(), Some(Error::Busy));
        for (from, to) in [(&b"a"[..], &b"dev"[..]), (b"dev", b"c")] {
            assert_eq!(files.rename(Node::ROOT, from, Node::ROOT, to, how).err(), Some(Error::Busy));
        }
        // Below the root the same names are anybody's.
        let a = files.lookup(&ME, Node::ROOT, b"a").unwrap().attributes.node;
        assert!(files.mkdir(&ME, a, b"proc", 0o755).is_ok());
        assert!(files.rename(a, b"proc", Node::ROOT, b"c", how).is_ok());
    }

    #[test]
    fn what_was_closed_before_a_place_is_released_by_then() {
        let files = system();
        let mode = OpenMode::WRITE;
        let (entry, opened) = files.create(&ME, Node::ROOT, b"f", 0o644, mode).unwrap();
        let place = files.lookup(&ME, Node::ROOT, b"dev").unwrap().attributes.node;
        assert_eq!((files.places_closed(), files.is_releasing()), (0, false));
        files.release(entry.attributes.node, opened.handle);
        let open = files.opendir(place).unwrap();
        files.releasedir(place, open.handle);
        assert_eq!((files.places_closed(), files.is_releasing()), (1, false));
    }
}
