//! The operations of [`FileSystem`] over the graph.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use amoeba_name::{Attributes as RowAttributes, Content as FileContent, Time};
use amoeba_stubs::bullet;
use amoeba_volume::{
    Allocation, Attributes, Caller, Change, ChangeTime, DirectoryEntry, Entry, Error, FileSystem, Handle,
    Kind, NAME_SIZE_MAX, Node, Notifier, OpenMode, Opened, Rename, Seek, SetAttribute, Space, Writers,
};

use crate::contents::{may_write, take_privileges};
use crate::names::New;
use crate::rows::error_of;
use crate::tree::{Content, Local, Tree};
use crate::{GraphFileSystem, Shared, classes};

/// How long the kernel may believe what it was told: until the mount says otherwise.
const LIFETIME: Duration = Duration::from_secs(3600);
/// And of objects whose servers were asked what they say of themselves.
const OBJECT_LIFETIME: Duration = Duration::from_secs(1);
/// The attribute that is the capability of a file.
const CAPABILITY: &[u8] = b"user.amoeba.capability";
/// Attributes with which programs ask for access lists, which there are none of.
const ACCESS_LISTS: &[u8] = b"system.";
/// Directories that may be open at once.
const LISTINGS_MAX: usize = 65_536;
/// Offsets of a listing below this are those of `.` and `..`.
const FIRST_PLACE: u64 = 3;
/// Nodes there may be, as `statfs` says: Bullet's files.
const NODES_MAX: u64 = 1 << 24;

/// What a listing has for a node of which nothing is known; Linux's own number for that.
const UNKNOWN: Node = Node(0xFFFF_FFFF);

/// The names of open directories, as they were at the beginning of a listing.
#[derive(Default)]
pub(crate) struct Listings(Mutex<HashMap<Handle, Arc<Vec<Vec<u8>>>>>);

impl Listings {
    /// Whether a directory is open.
    pub(crate) fn is_used(&self) -> bool {
        !self.0.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }
}

pub(crate) fn entry_of(attributes: Attributes) -> Entry {
    Entry { attributes, generation: 0, name_lifetime: LIFETIME, attributes_lifetime: LIFETIME }
}

fn lifetime(content: &Content) -> Duration {
    match content {
        Content::Object(_) => OBJECT_LIFETIME,
        _ => LIFETIME,
    }
}

fn told(tree: &Tree, node: Node) -> Result<Entry, Error> {
    let lifetime = lifetime(&tree.member(node)?.content);
    let entry = entry_of(tree.attributes(node)?);
    Ok(Entry { name_lifetime: lifetime, attributes_lifetime: lifetime, ..entry })
}

impl Shared {
    fn set_attributes(&self, node: Node, change: &Change) -> Result<(), Error> {
        let now = self.now();
        let at = |time: ChangeTime| match time {
            ChangeTime::Now => now,
            ChangeTime::To(time) => Time { seconds: time.seconds, nanoseconds: time.nanoseconds },
        };
        self.change_attributes(node, |tree| {
            let (user, group) = (change.user, change.group);
            let accounts = &self.options.accounts;
            let member = tree.member_mut(node)?;
            let is_file = member.kind == Kind::File;
            let attributes = &mut member.attributes;
            if is_file && (user.is_some() || group.is_some()) {
                take_privileges(attributes);
            }
            if let Some(user) = user {
                let name = accounts.user_name(user);
                (attributes.owner, member.user) = (Some(amoeba_name::Account { number: user, name }), user);
            }
            if let Some(group) = group {
                let name = accounts.group_name(group);
                (attributes.group, member.group) =
                    (Some(amoeba_name::Account { number: group, name }), group);
            }
            if let Some(permissions) = change.permissions {
                attributes.mode = Some(crate::rows::mode_of_kind(member.kind) | u32::from(permissions));
            }
            attributes.accessed = change.accessed.map(at).or(attributes.accessed);
            attributes.modified = change.modified.map(at).or(attributes.modified);
            attributes.changed = Some(now);
            Ok(())
        })
    }

    /// Changes what the rows of a node say of it.
    fn change_attributes(
        &self,
        node: Node,
        how: impl FnOnce(&mut Tree) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.make_room()?;
        let mut tree = self.tree.lock();
        let member = tree.member(node)?;
        if matches!(member.content, Content::Object(_)) {
            return Err(Error::AccessDenied);
        }
        for (directory, _) in &member.names {
            tree.writable(*directory)?;
        }
        let before = Some(&member.attributes).filter(|now| may_grow(now)).cloned();
        how(&mut tree)?;
        let now = &tree.member(node)?.attributes;
        if may_grow(now) && !fits(now) {
            tree.member_mut(node)?.attributes = before.unwrap_or_default();
            return Err(Error::NoSpace);
        }
        tree.publish(node);
        self.say_there_is_work(&tree);
        Ok(())
    }

    fn list(&self, node: Node, handle: Handle) -> Result<Arc<Vec<Vec<u8>>>, Error> {
        self.load_all(node)?;
        let tree = self.tree.lock();
        let there = |(name, slot): (&Vec<u8>, &crate::tree::Slot)| {
            let shown = match slot.local {
                Local::Node(_) => true,
                Local::Same => slot.server.is_some(),
                Local::Absent => false,
            };
            shown.then(|| name.clone())
        };
        let names: Vec<Vec<u8>> = tree.folder(node)?.entries.iter().filter_map(there).collect();
        drop(tree);
        let names = Arc::new(names);
        let mut listings = self.listings.0.lock().unwrap_or_else(PoisonError::into_inner);
        if listings.len() >= LISTINGS_MAX && !listings.contains_key(&handle) {
            return Err(Error::Busy);
        }
        listings.insert(handle, Arc::clone(&names));
        Ok(names)
    }

    fn forget(&self, node: Node, count: u64) {
        let mut tree = self.tree.lock();
        if let Ok(member) = tree.member_mut(node) {
            member.remembered = member.remembered.saturating_sub(count);
            if member.remembered == 0 && self.closing.has_no_opens() {
                // Nobody has it open: so it is not to be waited for that it is closed.
                self.nobody_writes(&mut tree, node);
            } else {
                tree.drop_if_idle(node);
            }
        }
    }
}

/// Whether attributes have parts of any size: without, a row has room for them.
fn may_grow(attributes: &RowAttributes) -> bool {
    !attributes.extended.is_empty() || !attributes.other.is_empty() || attributes.link.is_some()
}

/// Whether a row has room for attributes, contents said too.
fn fits(attributes: &RowAttributes) -> bool {
    let content = FileContent {
        port: amoeba_cap::PutPort::NULL,
        object: amoeba_cap::ObjectNumber::SUPER,
        size: 0,
        hash: [0; 32],
    };
    RowAttributes { content: Some(content), links: Some(1), ..attributes.clone() }.to_bytes().is_ok()
}

impl FileSystem for GraphFileSystem {
    fn mounted(&self, notifier: Arc<dyn Notifier>) {
        // A second mount of the same would hear nothing; there is none.
        drop(self.shared.notifier.set(notifier));
    }

    fn says_when_it_waits(&self) -> bool {
        true
    }

    fn without_opens(&self, writers: Arc<dyn Writers>) {
        self.shared.closing.without_opens(writers);
    }

    fn look_at_writers(&self) -> Option<Duration> {
        self.shared.look_at_writers()
    }

    fn lookup(&self, _: &Caller, directory: Node, name: &[u8]) -> Result<Entry, Error> {
        let node = self.shared.find_and_remember(directory, name)?.ok_or(Error::NotFound)?;
        told(&self.shared.tree.lock(), node)
    }

    fn absent_lifetime(&self) -> Duration {
        LIFETIME
    }

    fn forget(&self, node: Node, count: u64) {
        self.shared.forget(node, count);
    }

    fn attributes_lifetime(&self, node: Node) -> Duration {
        self.shared.tree.lock().member(node).map_or(Duration::ZERO, |member| lifetime(&member.content))
    }

    fn getattr(&self, node: Node) -> Result<Attributes, Error> {
        self.shared.tree.lock().attributes(node)
    }

    fn setattr(&self, node: Node, open: Option<Handle>, change: &Change) -> Result<Attributes, Error> {
        if let Some(size) = change.size {
            self.shared.resize(node, size, open.is_none())?;
        }
        let rest = Change { size: None, ..*change };
        if rest != Change::default() {
            if !self.shared.is_written_alone(node) {
                self.shared.take_closed();
            }
            self.shared.set_attributes(node, &rest)?;
        }
        self.getattr(node)
    }

    fn readlink(&self, node: Node) -> Result<Vec<u8>, Error> {
        match &self.shared.tree.lock().member(node)?.content {
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
        _: u32,
    ) -> Result<Entry, Error> {
        self.after_closes().mknod(caller, directory, name, mode)
    }

    fn mkdir(&self, caller: &Caller, directory: Node, name: &[u8], permissions: u16) -> Result<Entry, Error> {
        self.after_closes().mkdir(caller, directory, name, permissions)
    }

    fn symlink(&self, caller: &Caller, directory: Node, name: &[u8], text: &[u8]) -> Result<Entry, Error> {
        self.after_closes().symlink(caller, directory, name, text)
    }

    fn link(&self, node: Node, directory: Node, name: &[u8]) -> Result<Entry, Error> {
        self.after_closes().link(node, directory, name)
    }

    fn unlink(&self, directory: Node, name: &[u8]) -> Result<(), Error> {
        self.after_closes().remove(directory, name, false)
    }

    fn rmdir(&self, directory: Node, name: &[u8]) -> Result<(), Error> {
        self.after_closes().remove(directory, name, true)
    }

    fn rename(
        &self,
        directory: Node,
        name: &[u8],
        new_directory: Node,
        new_name: &[u8],
        how: Rename,
    ) -> Result<(), Error> {
        self.after_closes().rename((directory, name), (new_directory, new_name), how)
    }

    fn create(
        &self,
        caller: &Caller,
        directory: Node,
        name: &[u8],
        permissions: u16,
        mode: OpenMode,
    ) -> Result<(Entry, Opened), Error> {
        let shared = &self.shared;
        match shared.check_free(directory, name) {
            Err(Error::Exists) => return self.open_there(caller, directory, name, mode),
            free => free?,
        };
        let content = Content::File(shared.tree.lock().new_file(0, Some(shared.scratches.make())));
        let new = New {
            kind: Kind::File,
            permissions: permissions.into(),
            set: Default::default(),
            version: None,
            content,
        };
        let mut handle = Err(Error::Io);
        let made = shared.make(caller, directory, name, new, |tree, node| {
            // Another mount may make the same name meanwhile; what this one has removed itself does not count.
            let slot = tree.slot(directory, name).ok();
            let free = slot.is_some_and(|slot| slot.server.is_none() && slot.pending == 0);
            if let Ok(file) = tree.file_mut(node) {
                (file.changed, file.exclusive) = (true, free && mode.contains(OpenMode::EXCLUSIVE));
            }
            handle = shared.opened(tree, node, mode.contains(OpenMode::WRITE));
            if shared.closing.has_no_opens() && !mode.contains(OpenMode::WRITE) {
                // Nothing will be said of his close, and there is nothing to come.
                shared.commit(tree, node);
            }
        });
        match made {
            Ok(node) => Ok((shared.entry(node)?, Opened::kept(handle?))),
            Err(Error::Exists) => self.open_there(caller, directory, name, mode),
            Err(error) => Err(error),
        }
    }

    fn open(&self, _: &Caller, node: Node, mode: OpenMode) -> Result<Opened, Error> {
        if self.shared.closing.has_no_opens() {
            return Err(Error::NotImplemented);
        }
        self.shared.open(node, mode).map(Opened::kept)
    }

    fn read(
        &self,
        node: Node,
        _: Handle,
        offset: u64,
        size: usize,
        give: &mut dyn FnMut(&[u8]),
    ) -> Result<(), Error> {
        self.shared.read(node, offset, size, give)
    }

    fn write(&self, node: Node, handle: Handle, offset: u64, data: &[u8]) -> Result<(), Error> {
        if !self.may_write(handle) {
            return Err(Error::BadHandle);
        }
        self.shared.write(node, offset, data)
    }

    fn flush(&self, node: Node, handle: Handle) -> Result<(), Error> {
        if self.shared.closing.has_no_opens() {
            return Err(Error::NotImplemented);
        }
        self.shared.flush(node, handle)
    }

    fn fsync(&self, node: Node, _: Handle, _: bool) -> Result<(), Error> {
        self.shared.fsync(node)
    }

    fn release(&self, node: Node, handle: Handle) {
        self.shared.release(node, handle);
    }

    fn opendir(&self, node: Node) -> Result<Opened, Error> {
        self.shared.tree.lock().folder(node)?;
        Ok(Opened::kept(self.shared.handle(false)))
    }

    fn readdir(
        &self,
        node: Node,
        handle: Handle,
        offset: u64,
        entries: bool,
        take: &mut dyn FnMut(&DirectoryEntry<'_>) -> bool,
    ) -> Result<(), Error> {
        let shared = &self.shared;
        let listed = shared.listings.0.lock().unwrap_or_else(PoisonError::into_inner).get(&handle).cloned();
        let names = match listed {
            Some(names) if offset > 0 => names,
            _ => {
                let names = shared.list(node, handle)?;
                classes::meet(shared, node);
                names
            }
        };
        let parent = {
            let tree = shared.tree.lock();
            tree.member(node)?.names.first().map_or(Node::ROOT, |(parent, _)| *parent)
        };
        for (place, name, node) in [(1, &b"."[..], node), (2, b"..", parent)] {
            let line = DirectoryEntry { name, node, kind: Kind::Directory, next: place, entry: None };
            if offset < place && !take(&line) {
                return Ok(());
            }
        }
        let first = offset.saturating_sub(FIRST_PLACE - 1);
        for (index, name) in names.iter().enumerate().skip(first as usize) {
            let next = index as u64 + FIRST_PLACE;
            let child = match shared.find_and_remember(node, name) {
                Ok(Some(child)) => child,
                Ok(None) => continue,
                // The name is there, whatever it stands for.
                Err(Error::Io) => {
                    if take(&DirectoryEntry { name, node: UNKNOWN, kind: Kind::File, next, entry: None }) {
                        continue;
                    }
                    break;
                }
                Err(error) => return Err(error),
            };
            let told = told(&shared.tree.lock(), child);
            let taken = told.map(|entry| {
                let kind = entry.attributes.kind;
                let entry = entries.then_some(&entry);
                take(&DirectoryEntry { name, node: child, kind, next, entry })
            });
            if !matches!(taken, Ok(true)) || !entries {
                shared.forget(child, 1);
            }
            if !taken? {
                break;
            }
        }
        Ok(())
    }

    fn releasedir(&self, _: Node, handle: Handle) {
        self.shared.listings.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&handle);
    }

    fn fsyncdir(&self, _: Node, _: Handle) -> Result<(), Error> {
        let queued = self.after_closes().tree.lock().queued;
        self.shared.wait_for(queued)
    }

    fn statfs(&self) -> Result<Space, Error> {
        let usage = bullet::usage(self.shared.client(), &self.shared.file_server()).map_err(error_of)?;
        Ok(Space {
            block_size: usage.block_size,
            blocks: usage.blocks,
            blocks_free: usage.blocks_free,
            nodes: usage.files_max.min(NODES_MAX),
            nodes_free: usage.files_max.saturating_sub(usage.files).min(NODES_MAX),
        })
    }

    fn getxattr(&self, node: Node, name: &[u8]) -> Result<Vec<u8>, Error> {
        let tree = self.shared.tree.lock();
        let member = tree.member(node)?;
        if name == CAPABILITY && self.shared.options.show_capabilities {
            return member.set.first().map(|set| set.to_text().into_bytes()).ok_or(Error::NoAttribute);
        }
        if name.starts_with(ACCESS_LISTS) {
            return Err(Error::NotSupported);
        }
        member.attributes.extended.get(name).cloned().ok_or(Error::NoAttribute)
    }

    fn listxattr(&self, node: Node) -> Result<Vec<Vec<u8>>, Error> {
        Ok(self.shared.tree.lock().member(node)?.attributes.extended.keys().cloned().collect())
    }

    fn setxattr(&self, node: Node, name: &[u8], value: &[u8], how: SetAttribute) -> Result<(), Error> {
        if name.starts_with(ACCESS_LISTS) || name == CAPABILITY {
            return Err(Error::NotSupported);
        }
        if name.len() > NAME_SIZE_MAX {
            return Err(Error::Invalid);
        }
        let now = self.shared.now();
        self.after_closes().change_attributes(node, |tree| {
            let attributes = &mut tree.member_mut(node)?.attributes;
            let there = attributes.extended.contains_key(name);
            match () {
                () if there && how.contains(SetAttribute::CREATE) => return Err(Error::Exists),
                () if !there && how.contains(SetAttribute::REPLACE) => return Err(Error::NoAttribute),
                () => {}
            }
            attributes.extended.insert(name.to_vec(), value.to_vec());
            attributes.changed = Some(now);
            Ok(())
        })
    }

    fn removexattr(&self, node: Node, name: &[u8]) -> Result<(), Error> {
        let now = self.shared.now();
        self.after_closes().change_attributes(node, |tree| {
            let attributes = &mut tree.member_mut(node)?.attributes;
            attributes.extended.remove(name).ok_or(Error::NoAttribute)?;
            attributes.changed = Some(now);
            Ok(())
        })
    }

    fn fallocate(
        &self,
        node: Node,
        handle: Handle,
        offset: u64,
        size: u64,
        how: Allocation,
    ) -> Result<(), Error> {
        if !self.may_write(handle) {
            return Err(Error::BadHandle);
        }
        self.shared.allocate(node, offset, size, how)
    }

    fn lseek(&self, node: Node, _: Handle, offset: u64, what: Seek) -> Result<u64, Error> {
        self.shared.seek(node, offset, what)
    }
}

impl GraphFileSystem {
    /// For what is to come after everything that was closed.
    fn after_closes(&self) -> &Shared {
        self.shared.take_closed();
        &self.shared
    }

    /// Where opens are not told the kernel alone knows who may.
    fn may_write(&self, handle: Handle) -> bool {
        self.shared.closing.has_no_opens() || may_write(handle)
    }

    /// Opens what has a name that was to be made.
    fn open_there(
        &self,
        caller: &Caller,
        directory: Node,
        name: &[u8],
        mode: OpenMode,
    ) -> Result<(Entry, Opened), Error> {
        if mode.contains(OpenMode::EXCLUSIVE) {
            return Err(Error::Exists);
        }
        let entry = self.lookup(caller, directory, name)?;
        let node = entry.attributes.node;
        let opened = self.shared.open(node, mode).map(Opened::kept);
        opened.map(|opened| (entry, opened)).inspect_err(|_| self.shared.forget(node, 1))
    }
}
