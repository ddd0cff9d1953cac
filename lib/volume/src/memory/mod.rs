//! A file system that keeps everything in memory, and forgets it.
//!
//! It is whole: what a program may do to a local disk it may do here, up to what the trait leaves to the kernel. Time of
//! last reading is what was set: reading changes nothing.
//!
//! - [`data`]: contents with holes; [`node`]: a node; [`names`]: everything that changes which name stands for what.
//!
//! Locks: `tree` first, then that of one node, or of a directory and then of something in it.

mod data;
mod names;
mod node;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use amoeba_world::Clock;

use crate::{
    ATTRIBUTE_SIZE_MAX, Allocation, Attributes, Caller, Change, ChangeTime, DirectoryEntry, Entry, Error,
    FileSystem, Handle, Kind, NAME_SIZE_MAX, Node, OpenMode, Opened, Rename, Seek, SetAttribute, Space, Time,
    Writers,
};
use data::Data;
use node::{Content, FIRST_PLACE, Member, Names, State};

/// Bytes of the largest file: Linux's own bound.
pub const FILE_SIZE_MAX: u64 = i64::MAX as u64;
/// Names that a node may have.
pub const LINKS_MAX: u32 = 65_000;
/// Nodes in all; one more is [`Error::NoSpace`].
const NODES_MAX: usize = 16 << 20;
/// Extended attributes of a node; one more is [`Error::NoSpace`].
const EXTENDED_MAX: usize = 1024;
/// Bytes of a block in `statfs`.
const BLOCK_SIZE: u32 = 4096;
/// How long the mount may believe what it was told: nobody but the mount changes anything.
const LIFETIME: Duration = Duration::from_secs(3600);

/// Everything in memory.
pub struct MemoryFileSystem {
    clock: Arc<dyn Clock>,
    tree: RwLock<Tree>,
    /// Bytes of contents.
    held: AtomicU64,
    held_max: u64,
    /// Whether opens are answered, and not declared needless.
    asked: bool,
    /// Who tells of closes, where nothing else does: what he has told is given back.
    writers: OnceLock<Arc<dyn Writers>>,
}

/// All nodes. Who holds this for writing changes names, and is alone in it.
struct Tree {
    members: HashMap<Node, Arc<Member>>,
    next: u64,
}

impl MemoryFileSystem {
    /// An empty one, whose contents never take more than `size_max` bytes: what would is refused as [`Error::NoSpace`].
    pub fn new(clock: Arc<dyn Clock>, size_max: u64) -> MemoryFileSystem {
        let now = Time::from(clock.unix_time());
        let state = State {
            permissions: 0o755,
            links: 2,
            user: 0,
            group: 0,
            accessed: now,
            modified: now,
            changed: now,
            extended: Default::default(),
            content: Content::Directory(Names::new(Node::ROOT)),
        };
        let root = Arc::new(Member::new(Node::ROOT, Kind::Directory, state));
        let tree = Tree { members: HashMap::from([(Node::ROOT, root)]), next: Node::ROOT.0 + 1 };
        MemoryFileSystem {
            clock,
            tree: RwLock::new(tree),
            held: AtomicU64::new(0),
            held_max: size_max,
            asked: true,
            writers: OnceLock::new(),
        }
    }

    /// The same, but opening is [`Error::NotImplemented`], so that a mount does without it.
    pub fn without_opens(self) -> MemoryFileSystem {
        MemoryFileSystem { asked: false, ..self }
    }

    /// Nodes there are, with or without a name.
    pub fn node_count(&self) -> usize {
        self.tree().members.len()
    }

    fn now(&self) -> Time {
        self.clock.unix_time().into()
    }

    fn tree(&self) -> RwLockReadGuard<'_, Tree> {
        self.tree.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn tree_mut(&self) -> RwLockWriteGuard<'_, Tree> {
        self.tree.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn member(&self, node: Node) -> Result<Arc<Member>, Error> {
        self.tree().member(node).cloned()
    }

    /// Room for so many bytes more.
    fn hold(&self, more: u64) -> Result<(), Error> {
        let taken = self.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| {
            held.checked_add(more).filter(|held| *held <= self.held_max)
        });
        taken.map(drop).map_err(|_| Error::NoSpace)
    }

    /// Changes contents, which only get shorter or have room already.
    fn reshape(&self, data: &mut Data, how: impl FnOnce(&mut Data)) {
        let before = data.held();
        how(data);
        self.held.fetch_sub(before - data.held(), Ordering::Relaxed);
    }

    fn write_into(&self, data: &mut Data, offset: u64, bytes: &[u8]) -> Result<(), Error> {
        let end = offset.checked_add(bytes.len() as u64).filter(|end| *end <= FILE_SIZE_MAX);
        end.ok_or(Error::TooLarge)?;
        self.hold(data.growth(offset, bytes.len()))?;
        data.write(offset, bytes);
        Ok(())
    }
}

impl Tree {
    fn member(&self, node: Node) -> Result<&Arc<Member>, Error> {
        self.members.get(&node).ok_or(Error::NotFound)
    }
}

/// What is answered of a node, which is remembered from now on.
fn remembered(member: &Member) -> Entry {
    member.remembered.fetch_add(1, Ordering::Relaxed);
    entry_of(member)
}

fn entry_of(member: &Member) -> Entry {
    Entry {
        attributes: member.attributes(),
        generation: 0,
        name_lifetime: LIFETIME,
        attributes_lifetime: LIFETIME,
    }
}

fn opened() -> Opened {
    Opened::kept(Handle(0))
}

impl FileSystem for MemoryFileSystem {
    fn lookup(&self, _: &Caller, directory: Node, name: &[u8]) -> Result<Entry, Error> {
        let tree = self.tree();
        let node = tree.find(directory, name)?.ok_or(Error::NotFound)?;
        Ok(remembered(tree.member(node)?))
    }

    fn without_opens(&self, writers: Arc<dyn Writers>) {
        // Twice is never: a mount says so once.
        let _ = self.writers.set(writers);
    }

    fn look_at_writers(&self) -> Option<Duration> {
        let writers = self.writers.get()?;
        writers.closed().nodes.into_iter().for_each(|node| writers.done(node));
        None
    }

    fn absent_lifetime(&self) -> Duration {
        LIFETIME
    }

    fn attributes_lifetime(&self, _: Node) -> Duration {
        LIFETIME
    }

    fn forget(&self, node: Node, count: u64) {
        let Ok(member) = self.member(node) else { return };
        let before = member.remembered.fetch_sub(count, Ordering::Relaxed);
        if before == count && member.state().links == 0 {
            self.drop_if_lost(&mut self.tree_mut(), node);
        }
    }

    fn getattr(&self, node: Node) -> Result<Attributes, Error> {
        Ok(self.member(node)?.attributes())
    }

    fn setattr(&self, node: Node, _: Option<Handle>, change: &Change) -> Result<Attributes, Error> {
        let member = self.member(node)?;
        let now = self.now();
        let at = |time: ChangeTime| match time {
            ChangeTime::Now => now,
            ChangeTime::To(time) => time,
        };
        let mut state = member.state_mut();
        if let Some(size) = change.size {
            if size > FILE_SIZE_MAX {
                return Err(Error::TooLarge);
            }
            self.reshape(state.data_mut()?, |data| data.set_size(size));
            state.modified(now);
        }
        if change.size.is_some() || change.user.is_some() || change.group.is_some() {
            state.take_privileges();
        }
        state.permissions = change.permissions.unwrap_or(state.permissions);
        state.user = change.user.unwrap_or(state.user);
        state.group = change.group.unwrap_or(state.group);
        state.accessed = change.accessed.map_or(state.accessed, at);
        state.modified = change.modified.map_or(state.modified, at);
        state.changed = now;
        drop(state);
        Ok(member.attributes())
    }

    fn readlink(&self, node: Node) -> Result<Vec<u8>, Error> {
        match &self.member(node)?.state().content {
            Content::Link(text) => Ok(text.clone()),
            _ => Err(Error::Invalid),
        }
    }

    fn mknod(
        &self,
        caller: &Caller,
        directory: Node,
        name: &[u8],
        mode: u32,
        device: u32,
    ) -> Result<Entry, Error> {
        self.make_special(caller, directory, name, mode, device)
    }

    fn mkdir(&self, caller: &Caller, directory: Node, name: &[u8], permissions: u16) -> Result<Entry, Error> {
        let names = Content::Directory(Names::new(directory));
        self.make(caller, directory, name, permissions, Kind::Directory, names)
    }

    fn symlink(&self, caller: &Caller, directory: Node, name: &[u8], text: &[u8]) -> Result<Entry, Error> {
        if text.len() > crate::LINK_TEXT_SIZE_MAX {
            return Err(Error::NameTooLong);
        }
        self.make(caller, directory, name, 0o777, Kind::SymbolicLink, Content::Link(text.to_vec()))
    }

    fn link(&self, node: Node, directory: Node, name: &[u8]) -> Result<Entry, Error> {
        self.add_link(node, directory, name)
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
        self.move_name((directory, name), (new_directory, new_name), how)
    }

    fn create(
        &self,
        caller: &Caller,
        directory: Node,
        name: &[u8],
        permissions: u16,
        mode: OpenMode,
    ) -> Result<(Entry, Opened), Error> {
        match self.make(caller, directory, name, permissions, Kind::File, Content::File(Data::default())) {
            Err(Error::Exists) if !mode.contains(OpenMode::EXCLUSIVE) => {
                let entry = self.lookup(caller, directory, name)?;
                let opened = self.open(caller, entry.attributes.node, mode);
                opened.map(|opened| (entry, opened)).inspect_err(|_| self.forget(entry.attributes.node, 1))
            }
            made => Ok((made?, opened())),
        }
    }

    fn open(&self, _: &Caller, node: Node, mode: OpenMode) -> Result<Opened, Error> {
        if !self.asked {
            return Err(Error::NotImplemented);
        }
        let member = self.member(node)?;
        member.state().data()?;
        if mode.contains(OpenMode::TRUNCATE) {
            self.setattr(node, None, &Change { size: Some(0), ..Change::default() })?;
        }
        Ok(opened())
    }

    fn read(
        &self,
        node: Node,
        _: Handle,
        offset: u64,
        size: usize,
        give: &mut dyn FnMut(&[u8]),
    ) -> Result<(), Error> {
        self.member(node)?.state().data()?.read(offset, size, give);
        Ok(())
    }

    fn write(&self, node: Node, _: Handle, offset: u64, data: &[u8]) -> Result<(), Error> {
        let member = self.member(node)?;
        let now = self.now();
        let mut state = member.state_mut();
        self.write_into(state.data_mut()?, offset, data)?;
        state.take_privileges();
        state.modified(now);
        Ok(())
    }

    fn flush(&self, _: Node, _: Handle) -> Result<(), Error> {
        Err(Error::NotImplemented)
    }

    fn fsync(&self, _: Node, _: Handle, _: bool) -> Result<(), Error> {
        Ok(())
    }

    fn release(&self, _: Node, _: Handle) {}

    fn opendir(&self, node: Node) -> Result<Opened, Error> {
        self.member(node)?.state().names()?;
        Ok(opened())
    }

    fn readdir(
        &self,
        node: Node,
        _: Handle,
        offset: u64,
        entries: bool,
        take: &mut dyn FnMut(&DirectoryEntry<'_>) -> bool,
    ) -> Result<(), Error> {
        let tree = self.tree();
        let member = tree.member(node)?;
        let state = member.state();
        let names = state.names()?;
        for (place, name, node) in [(1, &b"."[..], node), (2, b"..", names.parent)] {
            let line = DirectoryEntry { name, node, kind: Kind::Directory, next: place, entry: None };
            if offset < place && !take(&line) {
                return Ok(());
            }
        }
        for (place, name, node) in names.from(FIRST_PLACE.max(offset.saturating_add(1))) {
            let member = tree.member(node)?;
            let entry = entries.then(|| entry_of(member));
            let line = DirectoryEntry { name, node, kind: member.kind, next: place, entry: entry.as_ref() };
            if !take(&line) {
                break;
            }
            if entries {
                member.remembered.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    fn releasedir(&self, _: Node, _: Handle) {}

    fn fsyncdir(&self, _: Node, _: Handle) -> Result<(), Error> {
        Ok(())
    }

    fn statfs(&self) -> Result<Space, Error> {
        let block = u64::from(BLOCK_SIZE);
        let nodes = self.node_count();
        Ok(Space {
            block_size: BLOCK_SIZE,
            blocks: self.held_max / block,
            blocks_free: (self.held_max - self.held.load(Ordering::Relaxed)) / block,
            nodes: NODES_MAX as u64,
            nodes_free: NODES_MAX.saturating_sub(nodes) as u64,
        })
    }

    fn getxattr(&self, node: Node, name: &[u8]) -> Result<Vec<u8>, Error> {
        self.member(node)?.state().extended.get(name).cloned().ok_or(Error::NoAttribute)
    }

    fn listxattr(&self, node: Node) -> Result<Vec<Vec<u8>>, Error> {
        Ok(self.member(node)?.state().extended.keys().cloned().collect())
    }

    fn setxattr(&self, node: Node, name: &[u8], value: &[u8], how: SetAttribute) -> Result<(), Error> {
        let member = self.member(node)?;
        let mut state = member.state_mut();
        let there = state.extended.contains_key(name);
        if name.len() > NAME_SIZE_MAX || value.len() > ATTRIBUTE_SIZE_MAX {
            return Err(Error::Invalid);
        }
        match () {
            () if there && how.contains(SetAttribute::CREATE) => return Err(Error::Exists),
            () if !there && how.contains(SetAttribute::REPLACE) => return Err(Error::NoAttribute),
            () if !there && state.extended.len() == EXTENDED_MAX => return Err(Error::NoSpace),
            () => {}
        }
        state.extended.insert(name.to_vec(), value.to_vec());
        state.changed = self.now();
        Ok(())
    }

    fn removexattr(&self, node: Node, name: &[u8]) -> Result<(), Error> {
        let member = self.member(node)?;
        let mut state = member.state_mut();
        state.extended.remove(name).ok_or(Error::NoAttribute)?;
        state.changed = self.now();
        Ok(())
    }

    fn fallocate(&self, node: Node, _: Handle, offset: u64, size: u64, how: Allocation) -> Result<(), Error> {
        let end = offset.checked_add(size).filter(|end| *end <= FILE_SIZE_MAX).ok_or(Error::TooLarge)?;
        let member = self.member(node)?;
        let mut state = member.state_mut();
        let data = state.data_mut()?;
        if how.intersects(Allocation::PUNCH | Allocation::ZERO) {
            self.reshape(data, |data| data.clear(offset, end));
        }
        // Room is not set aside: who writes finds it or not, as on any file system that shares it.
        if !how.contains(Allocation::KEEP_SIZE) && end > data.size() {
            self.reshape(data, |data| data.set_size(end));
        }
        state.modified(self.now());
        Ok(())
    }

    fn lseek(&self, node: Node, _: Handle, offset: u64, what: Seek) -> Result<u64, Error> {
        self.member(node)?.state().data()?.seek(offset, what)
    }
}
