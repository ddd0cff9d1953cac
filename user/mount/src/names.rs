//! Names are made, moved and taken away: here at once, at the servers by the queue.

use std::sync::Arc;

use amoeba_cap::{Capability, CapabilitySet};
use amoeba_stubs::directory;
use amoeba_volume::{Caller, Entry, Error, Kind, LINK_TEXT_SIZE_MAX, NAME_SIZE_MAX, Node, Rename};

use crate::queue::{Change, Version};
use crate::rows::{error_of, kind_of_mode};
use crate::spares::Columns;
use crate::tree::{Born, Content, Folder, Local, Shown, Tree};
use crate::{Shared, file_system};

/// Names that a file may have: as many as fit into one install, with room for those of another.
pub(crate) const LINKS_MAX: usize = 48;
/// Bytes of the text of a symbolic link that is kept in the attributes too.
const LINK_KEPT_MAX: usize = 3000;
/// What is made in a directory with this bit belongs to the directory's group, and directories get the bit too.
const GROUP_OF_DIRECTORY: u32 = 0o2000;

/// What is to be made.
pub(crate) struct New {
    pub(crate) kind: Kind,
    pub(crate) permissions: u32,
    pub(crate) set: CapabilitySet,
    pub(crate) version: Option<Arc<Version>>,
    pub(crate) content: Content,
}

impl Shared {
    /// A new node under a new name, remembered once; `after` is done with it at the same moment.
    pub(crate) fn make(
        &self,
        caller: &Caller,
        directory: Node,
        name: &[u8],
        new: New,
        after: impl FnOnce(&mut Tree, Node),
    ) -> Result<Node, Error> {
        let now = self.now();
        let mut tree = self.tree.lock();
        tree.writable(directory)?;
        if !matches!(tree.shown(directory, name)?, Some(Shown::Nothing)) {
            return Err(Error::Exists);
        }
        let parent = tree.member(directory)?;
        let inherited = parent.attributes.mode.unwrap_or(0) & GROUP_OF_DIRECTORY;
        let group = if inherited == 0 { caller.group } else { parent.group };
        let New { kind, permissions, set, version, content } = new;
        let permissions = permissions | if kind == Kind::Directory { inherited } else { 0 };
        let node = tree.add(Born { kind, permissions, user: caller.user, group, now, set, version, content });
        tree.name(directory, name, node)?;
        tree.touch(directory, now);
        tree.remember(node);
        after(&mut tree, node);
        self.say_there_is_work(&tree);
        Ok(node)
    }

    /// Checks that there is room, and that a name is free.
    pub(crate) fn check_free(&self, directory: Node, name: &[u8]) -> Result<Capability, Error> {
        self.make_room()?;
        let capability = self.tree.lock().writable(directory);
        match self.find(directory, name)? {
            Some(_) => Err(Error::Exists),
            None => capability,
        }
    }

    pub(crate) fn mkdir(
        &self,
        caller: &Caller,
        at: Node,
        name: &[u8],
        permissions: u16,
    ) -> Result<Entry, Error> {
        let parent = self.check_free(at, name)?;
        let columns = self.columns(at, &parent)?;
        let made = match self.spare(&parent, &columns) {
            Some(spare) => spare,
            None => directory::create(self.client(), &parent, &columns).map_err(error_of)?,
        };
        let folder = Folder { complete: true, asked: true, columns: Some(columns), ..Folder::default() };
        let new = New {
            kind: Kind::Directory,
            permissions: permissions.into(),
            set: made.into(),
            version: None,
            content: Content::Directory(folder),
        };
        let node = self.make(caller, at, name, new, Tree::publish).inspect_err(|_| {
            // Where it fails, ageing takes what no name leads to.
            let _ = directory::discard(self.client(), &made);
        })?;
        self.entry(node)
    }

    /// The names of a directory's columns, which are those of directories in it too.
    fn columns(&self, node: Node, directory: &Capability) -> Result<Columns, Error> {
        if let Some(columns) = &self.tree.lock().folder(node)?.columns {
            return Ok(Arc::clone(columns));
        }
        let described = directory::describe(self.client(), directory).map_err(error_of)?;
        let columns = Arc::new(described.columns);
        self.tree.lock().folder_mut(node)?.columns = Some(Arc::clone(&columns));
        Ok(columns)
    }

    pub(crate) fn symlink(
        &self,
        caller: &Caller,
        at: Node,
        name: &[u8],
        link: &[u8],
    ) -> Result<Entry, Error> {
        if link.len() > LINK_TEXT_SIZE_MAX {
            return Err(Error::NameTooLong);
        }
        self.check_free(at, name)?;
        let scratch = self.scratches.make();
        scratch.write(0, link)?;
        let version = Some(Version::new(&self.world.threads, scratch));
        let content = Content::Link(link.to_vec());
        let kept = Some(link.to_vec()).filter(|link| link.len() <= LINK_KEPT_MAX);
        let set = CapabilitySet::default();
        let new = New { kind: Kind::SymbolicLink, permissions: 0o777, set, version, content };
        let node = self.make(caller, at, name, new, |tree, node| {
            if let Ok(member) = tree.member_mut(node) {
                member.attributes.link = kept;
            }
            tree.publish(node);
        })?;
        self.entry(node)
    }

    /// A file, pipe or socket.
    pub(crate) fn mknod(&self, caller: &Caller, at: Node, name: &[u8], mode: u32) -> Result<Entry, Error> {
        let kind = if mode & crate::rows::TYPE == 0 { Some(Kind::File) } else { kind_of_mode(mode) };
        let kind = match kind {
            Some(kind @ (Kind::File | Kind::Pipe | Kind::Socket)) => kind,
            // The number of a device means something on one host only.
            None => return Err(Error::NotPermitted),
            Some(_) => return Err(Error::Invalid),
        };
        self.check_free(at, name)?;
        let version = Some(Version::new(&self.world.threads, self.scratches.make()));
        let content = match kind {
            Kind::File => Content::File(self.tree.lock().new_file(0, None)),
            _ => Content::Special,
        };
        let set = CapabilitySet::default();
        let new = New { kind, permissions: mode & 0o7777, set, version, content };
        let node = self.make(caller, at, name, new, |tree, node| {
            let scratch =
                tree.member(node).ok().and_then(|member| Some(member.version.as_ref()?.scratch.clone()));
            if let Ok(file) = tree.file_mut(node) {
                file.scratch = scratch;
            }
            tree.publish(node);
        })?;
        self.entry(node)
    }

    pub(crate) fn link(&self, node: Node, at: Node, name: &[u8]) -> Result<Entry, Error> {
        self.check_free(at, name)?;
        let now = self.now();
        let mut tree = self.tree.lock();
        tree.writable(at)?;
        if !matches!(tree.shown(at, name)?, Some(Shown::Nothing)) {
            return Err(Error::Exists);
        }
        let member = tree.member_mut(node)?;
        match member.kind {
            Kind::Directory => return Err(Error::NotPermitted),
            _ if member.names.is_empty() => return Err(Error::NotFound),
            _ if member.names.len() >= LINKS_MAX => return Err(Error::TooManyLinks),
            _ => {}
        }
        let links = member.attributes.links.unwrap_or(1).max(member.names.len() as u32);
        (member.attributes.links, member.attributes.changed) = (Some(links + 1), Some(now));
        tree.name(at, name, node)?;
        tree.note_object(node);
        tree.touch(at, now);
        tree.publish(node);
        tree.remember(node);
        drop(tree);
        self.work.notify_all();
        self.entry(node)
    }

    /// Takes a name away from a directory (`is_directory`) or from anything else.
    pub(crate) fn remove(&self, at: Node, name: &[u8], is_directory: bool) -> Result<(), Error> {
        self.make_room()?;
        let node = self.find(at, name)?.ok_or(Error::NotFound)?;
        self.check_replaceable(node, is_directory)?;
        let now = self.now();
        let mut tree = self.tree.lock();
        tree.writable(at)?;
        if !matches!(tree.shown(at, name)?, Some(Shown::Node(now)) if now == node) {
            return Err(Error::NotFound);
        }
        check_empty(&tree, node, is_directory)?;
        let (mut changes, mut removed) = (Vec::new(), Vec::new());
        self.take_name(&mut tree, at, name, now, &mut changes, &mut removed)?;
        tree.touch(at, now);
        tree.enqueue(changes, removed);
        tree.drop_if_idle(node);
        drop(tree);
        self.work.notify_all();
        Ok(())
    }

    /// What is to be known before a name may be taken from a node.
    fn check_replaceable(&self, node: Node, by_directory: bool) -> Result<(), Error> {
        let kind = self.tree.lock().member(node)?.kind;
        match (kind, by_directory) {
            (Kind::Directory, true) => self.load_all(node),
            (Kind::Directory, false) => Err(Error::IsDirectory),
            (_, true) => Err(Error::NotDirectory),
            (_, false) => Ok(()),
        }
    }

    /// Takes a name from a node, and adds what that changes at the servers.
    fn take_name(
        &self,
        tree: &mut Tree,
        at: Node,
        name: &[u8],
        now: amoeba_name::Time,
        changes: &mut Vec<Change>,
        removed: &mut Vec<Capability>,
    ) -> Result<(), Error> {
        let node = tree.unname(at, name)?;
        changes.push(tree.gone(at, name));
        let member = tree.member_mut(node)?;
        member.attributes.changed = Some(now);
        if member.kind == Kind::Directory {
            let own = member.set.first().filter(|own| own.rights().contains(directory::DELETE));
            removed.extend(own.copied());
            return Ok(());
        }
        if let Some(links) = member.attributes.links {
            member.attributes.links = Some((links - 1).max(1));
        }
        changes.extend(tree.rows_of(node));
        if tree.member(node)?.names.is_empty() {
            self.forget_synced(tree, node);
        }
        Ok(())
    }

    pub(crate) fn rename(&self, from: (Node, &[u8]), to: (Node, &[u8]), how: Rename) -> Result<(), Error> {
        self.make_room()?;
        if to.1.len() > NAME_SIZE_MAX {
            return Err(Error::NameTooLong);
        }
        let node = self.find(from.0, from.1)?.ok_or(Error::NotFound)?;
        let other = self.find(to.0, to.1)?;
        let kind = {
            let tree = self.tree.lock();
            let kind = tree.member(node)?.kind;
            if kind == Kind::Directory && is_below(&tree, to.0, node) {
                return Err(Error::Invalid);
            }
            kind
        };
        if other.is_some() && how.contains(Rename::KEEP) {
            return Err(Error::Exists);
        }
        if let Some(other) = other.filter(|other| *other != node && !how.contains(Rename::EXCHANGE)) {
            self.check_replaceable(other, kind == Kind::Directory)?;
        }
        let now = self.now();
        let mut tree = self.tree.lock();
        let (one, two) = (tree.writable(from.0)?, tree.writable(to.0)?);
        if one.port != two.port {
            return Err(Error::CrossDevice);
        }
        let shown = |tree: &Tree, at: (Node, &[u8])| match tree.shown(at.0, at.1)? {
            Some(Shown::Node(node)) => Ok(Some(node)),
            _ => Ok::<_, Error>(None),
        };
        if shown(&tree, from)? != Some(node) || shown(&tree, to)? != other {
            return Err(Error::Busy); // somebody else was faster by a hair
        }
        if kind == Kind::Directory && is_below(&tree, to.0, node) {
            return Err(Error::Invalid);
        }
        if other == Some(node) {
            // Two names of one node: nothing is to be done, says POSIX.
        } else if how.contains(Rename::EXCHANGE) {
            let other = other.ok_or(Error::NotFound)?;
            if tree.member(other)?.kind == Kind::Directory && is_below(&tree, from.0, other) {
                return Err(Error::Invalid);
            }
            exchange(&mut tree, (from, node), (to, other), now)?;
        } else {
            self.move_name(&mut tree, (from, node), (to, other), now)?;
        }
        drop(tree);
        self.work.notify_all();
        self.note_again(node);
        Ok(())
    }

    fn move_name(
        &self,
        tree: &mut Tree,
        (from, node): ((Node, &[u8]), Node),
        (to, other): ((Node, &[u8]), Option<Node>),
        now: amoeba_name::Time,
    ) -> Result<(), Error> {
        let (mut changes, mut removed) = (Vec::new(), Vec::new());
        if let Some(other) = other {
            check_empty(tree, other, tree.member(node)?.kind == Kind::Directory)?;
            self.take_name(tree, to.0, to.1, now, &mut changes, &mut removed)?;
        }
        tree.unname(from.0, from.1)?;
        tree.name(to.0, to.1, node)?;
        if let Ok(file) = tree.file_mut(node) {
            file.exclusive = false;
        }
        tree.member_mut(node)?.attributes.changed = Some(now);
        tree.touch(from.0, now);
        tree.touch(to.0, now);
        let come = tree.rows_of(node);
        if come.is_empty() {
            // It was never committed: until it is, others see what was there.
            changes.retain(|change| (change.directory, change.name.as_slice()) != to);
        }
        changes.push(tree.gone(from.0, from.1));
        // Of several changes of one row the last counts.
        changes.extend(come);
        tree.enqueue(changes, removed);
        other.into_iter().for_each(|other| tree.drop_if_idle(other));
        Ok(())
    }

    pub(crate) fn entry(&self, node: Node) -> Result<Entry, Error> {
        Ok(file_system::entry_of(self.tree.lock().attributes(node)?))
    }
}

/// Both names at once.
fn exchange(
    tree: &mut Tree,
    (from, node): ((Node, &[u8]), Node),
    (to, other): ((Node, &[u8]), Node),
    now: amoeba_name::Time,
) -> Result<(), Error> {
    tree.unname(from.0, from.1)?;
    tree.unname(to.0, to.1)?;
    tree.name(from.0, from.1, other)?;
    tree.name(to.0, to.1, node)?;
    let mut changes = Vec::new();
    for one in [node, other] {
        tree.member_mut(one)?.attributes.changed = Some(now);
        changes.extend(tree.rows_of(one));
    }
    tree.touch(from.0, now);
    tree.touch(to.0, now);
    tree.enqueue(changes, Vec::new());
    Ok(())
}

/// Whether `directory` is `node`, or lies below it.
fn is_below(tree: &Tree, directory: Node, node: Node) -> bool {
    let mut at = directory;
    loop {
        if at == node {
            return true;
        }
        match tree.member(at).ok().and_then(|member| member.names.first()) {
            Some((parent, _)) => at = *parent,
            None => return false,
        }
    }
}

/// A directory whose name is taken away may have no names in it.
fn check_empty(tree: &Tree, node: Node, is_directory: bool) -> Result<(), Error> {
    if !is_directory {
        return Ok(());
    }
    let folder = tree.folder(node)?;
    let there = |slot: &crate::tree::Slot| match slot.local {
        Local::Node(_) => true,
        Local::Same => slot.server.is_some(),
        Local::Absent => false,
    };
    if folder.entries.values().any(there) { Err(Error::NotEmpty) } else { Ok(()) }
}
