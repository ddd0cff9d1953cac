//! Which name stands for what: everything that changes it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::data::Data;
use super::node::{Content, Member, State};
use super::{LINKS_MAX, MemoryFileSystem, NODES_MAX, Tree, remembered};
use crate::{Caller, Entry, Error, Kind, NAME_SIZE_MAX, Node, Rename};

/// Set-group bit of a directory: what is made in it gets its group.
const GROUP_OF_DIRECTORY: u16 = 0o2000;
/// The type in a mode, and its values.
const TYPE: u32 = 0o170_000;

impl Tree {
    /// What stands under a name.
    pub(super) fn find(&self, directory: Node, name: &[u8]) -> Result<Option<Node>, Error> {
        if name.len() > NAME_SIZE_MAX {
            return Err(Error::NameTooLong);
        }
        Ok(self.member(directory)?.state().names()?.get(name))
    }

    /// A directory in which something new may be named: one that has a name itself.
    fn living(&self, directory: Node) -> Result<&Arc<Member>, Error> {
        let member = self.member(directory)?;
        if member.state().links == 0 { Err(Error::NotFound) } else { Ok(member) }
    }

    /// Whether `directory` is `node`, or lies below it.
    fn below(&self, directory: Node, node: Node) -> Result<bool, Error> {
        let mut at = directory;
        while at != node {
            let parent = self.member(at)?.state().names()?.parent;
            if parent == at {
                return Ok(false);
            }
            at = parent;
        }
        Ok(true)
    }
}

impl MemoryFileSystem {
    pub(super) fn make(
        &self,
        caller: &Caller,
        directory: Node,
        name: &[u8],
        permissions: u16,
        kind: Kind,
        content: Content,
    ) -> Result<Entry, Error> {
        let now = self.now();
        let mut tree = self.tree_mut();
        if tree.find(directory, name)?.is_some() {
            return Err(Error::Exists);
        }
        let parent = Arc::clone(tree.living(directory)?);
        if tree.members.len() >= NODES_MAX {
            return Err(Error::NoSpace);
        }
        let node = Node(tree.next);
        let mut state = parent.state_mut();
        let is_directory = kind == Kind::Directory;
        let inherited = state.permissions & GROUP_OF_DIRECTORY;
        let made = State {
            permissions: permissions | if is_directory { inherited } else { 0 },
            links: if is_directory { 2 } else { 1 },
            user: caller.user,
            group: if inherited == 0 { caller.group } else { state.group },
            accessed: now,
            modified: now,
            changed: now,
            extended: Default::default(),
            content,
        };
        state.names_mut()?.set(name, node);
        state.links += u32::from(is_directory);
        state.modified(now);
        let made = Arc::new(Member::new(node, kind, made));
        let entry = remembered(&made);
        tree.next += 1;
        tree.members.insert(node, made);
        Ok(entry)
    }

    pub(super) fn make_special(
        &self,
        caller: &Caller,
        directory: Node,
        name: &[u8],
        mode: u32,
        device: u32,
    ) -> Result<Entry, Error> {
        let (kind, content) = match mode & TYPE {
            0 | 0o100_000 => (Kind::File, Content::File(Data::default())),
            0o010_000 => (Kind::Pipe, Content::Special(0)),
            0o140_000 => (Kind::Socket, Content::Special(0)),
            0o020_000 => (Kind::CharacterDevice, Content::Special(device)),
            0o060_000 => (Kind::BlockDevice, Content::Special(device)),
            _ => return Err(Error::Invalid),
        };
        self.make(caller, directory, name, (mode & 0o7777) as u16, kind, content)
    }

    pub(super) fn add_link(&self, node: Node, directory: Node, name: &[u8]) -> Result<Entry, Error> {
        let now = self.now();
        let tree = self.tree_mut();
        if tree.find(directory, name)?.is_some() {
            return Err(Error::Exists);
        }
        let (parent, member) = (tree.living(directory)?, tree.member(node)?);
        if member.kind == Kind::Directory {
            return Err(Error::NotPermitted);
        }
        let mut state = member.state_mut();
        match state.links {
            0 => return Err(Error::NotFound),
            LINKS_MAX => return Err(Error::TooManyLinks),
            _ => state.links += 1,
        }
        state.changed = now;
        drop(state);
        let mut state = parent.state_mut();
        state.names_mut()?.set(name, node);
        state.modified(now);
        Ok(remembered(member))
    }

    /// Takes a name away, from a directory or from anything else.
    pub(super) fn remove(&self, directory: Node, name: &[u8], is_directory: bool) -> Result<(), Error> {
        let mut tree = self.tree_mut();
        let node = tree.find(directory, name)?.ok_or(Error::NotFound)?;
        check_replaceable(&tree, node, is_directory)?;
        let mut state = tree.member(directory)?.state_mut();
        state.names_mut()?.remove(name);
        state.links -= u32::from(is_directory);
        state.modified(self.now());
        drop(state);
        self.unname(&mut tree, node);
        Ok(())
    }

    pub(super) fn move_name(&self, from: (Node, &[u8]), to: (Node, &[u8]), how: Rename) -> Result<(), Error> {
        let mut tree = self.tree_mut();
        let node = tree.find(from.0, from.1)?.ok_or(Error::NotFound)?;
        let other = tree.find(to.0, to.1)?;
        tree.living(to.0)?;
        let is_directory = tree.member(node)?.kind == Kind::Directory;
        if is_directory && tree.below(to.0, node)? {
            return Err(Error::Invalid);
        }
        if how.contains(Rename::EXCHANGE) {
            return self.exchange(&tree, (from, node), (to, other.ok_or(Error::NotFound)?));
        }
        match other {
            Some(_) if how.contains(Rename::KEEP) => return Err(Error::Exists),
            // Two names of one node: nothing is to be done, says POSIX.
            Some(other) if other == node => return Ok(()),
            Some(other) => {
                check_replaceable(&tree, other, is_directory)?;
                self.unname(&mut tree, other);
                if is_directory {
                    tree.member(to.0)?.state_mut().links -= 1;
                }
            }
            None => {}
        }
        let now = self.now();
        {
            let mut state = tree.member(from.0)?.state_mut();
            state.names_mut()?.remove(from.1);
            state.links -= u32::from(is_directory);
            state.modified(now);
        }
        self.place(&tree, to, node, is_directory)?;
        tree.member(to.0)?.state_mut().links += u32::from(is_directory);
        Ok(())
    }

    fn exchange(
        &self,
        tree: &Tree,
        one: ((Node, &[u8]), Node),
        other: ((Node, &[u8]), Node),
    ) -> Result<(), Error> {
        let is_directory = |node| Ok::<bool, Error>(tree.member(node)?.kind == Kind::Directory);
        let (one_is, other_is) = (is_directory(one.1)?, is_directory(other.1)?);
        if other_is && tree.below(one.0.0, other.1)? {
            return Err(Error::Invalid);
        }
        self.place(tree, one.0, other.1, other_is)?;
        self.place(tree, other.0, one.1, one_is)?;
        if one_is != other_is {
            let (gains, loses) = if other_is { (one.0.0, other.0.0) } else { (other.0.0, one.0.0) };
            tree.member(gains)?.state_mut().links += 1;
            tree.member(loses)?.state_mut().links -= 1;
        }
        Ok(())
    }

    /// Lets a name stand for a node that has been somewhere else.
    fn place(&self, tree: &Tree, at: (Node, &[u8]), node: Node, is_directory: bool) -> Result<(), Error> {
        let now = self.now();
        {
            let mut state = tree.member(at.0)?.state_mut();
            state.names_mut()?.set(at.1, node);
            state.modified(now);
        }
        let mut state = tree.member(node)?.state_mut();
        if is_directory {
            state.names_mut()?.parent = at.0;
        }
        state.changed = now;
        Ok(())
    }

    /// A node has lost a name; a directory with it all it had.
    fn unname(&self, tree: &mut Tree, node: Node) {
        let member = tree.member(node).expect("what has a name is there");
        let mut state = member.state_mut();
        state.links = if member.kind == Kind::Directory { 0 } else { state.links - 1 };
        state.changed = self.now();
        drop(state);
        self.drop_if_lost(tree, node);
    }

    /// Drops a node that nothing leads to any more.
    pub(super) fn drop_if_lost(&self, tree: &mut Tree, node: Node) {
        let Ok(member) = tree.member(node) else { return };
        let state = member.state();
        if state.links > 0 || member.remembered.load(Ordering::Relaxed) > 0 {
            return;
        }
        if let Content::File(data) = &state.content {
            self.held.fetch_sub(data.held(), Ordering::Relaxed);
        }
        drop(state);
        tree.members.remove(&node);
    }
}

/// Whether a name of `node` may be taken away, or given to a directory or to something else.
fn check_replaceable(tree: &Tree, node: Node, by_directory: bool) -> Result<(), Error> {
    let member = tree.member(node)?;
    match (&member.state().content, by_directory) {
        (Content::Directory(names), true) if names.len() > 0 => Err(Error::NotEmpty),
        (Content::Directory(_), true) => Ok(()),
        (Content::Directory(_), false) => Err(Error::IsDirectory),
        (_, true) => Err(Error::NotDirectory),
        (_, false) => Ok(()),
    }
}
