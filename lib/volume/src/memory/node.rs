//! A node in memory.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::AtomicU64;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::data::Data;
use crate::{Attributes, Error, Kind, Node, Time};

/// Offsets of a listing below this are those of `.` and `..`.
pub(super) const FIRST_PLACE: u64 = 3;

/// A node, whoever may be at it.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) node: Node,
    pub(super) kind: Kind,
    /// How often the mount was told of it and did not forget it.
    pub(super) remembered: AtomicU64,
    state: RwLock<State>,
}

impl Member {
    pub(super) fn new(node: Node, kind: Kind, state: State) -> Member {
        Member { node, kind, remembered: AtomicU64::new(0), state: RwLock::new(state) }
    }

    /// Whoever panicked here had changed nothing by halves that another could trip over.
    pub(super) fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn state_mut(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn attributes(&self) -> Attributes {
        let state = self.state();
        let (size, allocated) = match &state.content {
            Content::File(data) => (data.size(), data.held()),
            Content::Directory(names) => (names.len() as u64, 0),
            Content::Link(text) => (text.len() as u64, 0),
            Content::Special(_) => (0, 0),
        };
        let device = if let Content::Special(device) = state.content { device } else { 0 };
        Attributes {
            node: self.node,
            kind: self.kind,
            permissions: state.permissions,
            links: state.links,
            user: state.user,
            group: state.group,
            device,
            size,
            allocated,
            accessed: state.accessed,
            modified: state.modified,
            changed: state.changed,
        }
    }
}

/// What of a node can change.
#[derive(Debug)]
pub(super) struct State {
    pub(super) permissions: u16,
    pub(super) links: u32,
    pub(super) user: u32,
    pub(super) group: u32,
    pub(super) accessed: Time,
    pub(super) modified: Time,
    pub(super) changed: Time,
    pub(super) extended: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(super) content: Content,
}

impl State {
    pub(super) fn data(&self) -> Result<&Data, Error> {
        match &self.content {
            Content::File(data) => Ok(data),
            Content::Directory(_) => Err(Error::IsDirectory),
            _ => Err(Error::Invalid),
        }
    }

    pub(super) fn data_mut(&mut self) -> Result<&mut Data, Error> {
        match &mut self.content {
            Content::File(data) => Ok(data),
            Content::Directory(_) => Err(Error::IsDirectory),
            _ => Err(Error::Invalid),
        }
    }

    pub(super) fn names(&self) -> Result<&Names, Error> {
        match &self.content {
            Content::Directory(names) => Ok(names),
            _ => Err(Error::NotDirectory),
        }
    }

    pub(super) fn names_mut(&mut self) -> Result<&mut Names, Error> {
        match &mut self.content {
            Content::Directory(names) => Ok(names),
            _ => Err(Error::NotDirectory),
        }
    }

    /// A file that was changed runs with nobody's privileges but its caller's.
    pub(super) fn take_privileges(&mut self) {
        if matches!(self.content, Content::File(_)) {
            // A set-group bit without the right to execute is no privilege.
            let group = if self.permissions & 0o010 == 0 { 0 } else { 0o2000 };
            self.permissions &= !(0o4000 | group);
            self.extended.remove(&b"security.capability"[..]);
        }
    }

    /// Contents changed.
    pub(super) fn modified(&mut self, now: Time) {
        (self.modified, self.changed) = (now, now);
    }
}

/// What a node holds.
#[derive(Debug)]
pub(super) enum Content {
    File(Data),
    Directory(Names),
    Link(Vec<u8>),
    /// A pipe, a socket, or a device with its number.
    Special(u32),
}

/// The names in a directory. Each has a place that only grows, so that a listing finds its way whatever comes and goes.
#[derive(Debug)]
pub(super) struct Names {
    pub(super) parent: Node,
    by_name: HashMap<Vec<u8>, (u64, Node)>,
    by_place: BTreeMap<u64, Vec<u8>>,
    next: u64,
}

impl Names {
    pub(super) fn new(parent: Node) -> Names {
        Names { parent, by_name: HashMap::new(), by_place: BTreeMap::new(), next: FIRST_PLACE }
    }

    pub(super) fn len(&self) -> usize {
        self.by_place.len()
    }

    pub(super) fn get(&self, name: &[u8]) -> Option<Node> {
        self.by_name.get(name).map(|(_, node)| *node)
    }

    /// Lets `name` stand for `node`, in the place of what it stood for.
    pub(super) fn set(&mut self, name: &[u8], node: Node) {
        if let Some((_, known)) = self.by_name.get_mut(name) {
            *known = node;
            return;
        }
        self.by_name.insert(name.to_vec(), (self.next, node));
        self.by_place.insert(self.next, name.to_vec());
        self.next += 1;
    }

    pub(super) fn remove(&mut self, name: &[u8]) {
        if let Some((place, _)) = self.by_name.remove(name) {
            self.by_place.remove(&place);
        }
    }

    /// The names at `place` and behind it, with where each stands.
    pub(super) fn from(&self, place: u64) -> impl Iterator<Item = (u64, &[u8], Node)> {
        self.by_place.range(place..).map(|(place, name)| {
            let (_, node) = self.by_name.get(name).expect("a name that has a place stands for something");
            (*place, name.as_slice(), *node)
        })
    }
}
