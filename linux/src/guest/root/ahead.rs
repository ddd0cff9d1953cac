//! What a file tree leaves to the next guest that wants the same: itself, if the last guest left nothing in it; else another one,
//! which is made of the same mounts.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc;

use amoeba_process::{ProcessDescriptor, Tree, View};

use super::desk::Trees;
use super::layer::Layer;
use crate::guest::confine::{Confinement, Nest};

/// A file tree that waits for a guest.
pub(in crate::guest) struct Ahead {
    pub(super) like: Like,
    pub(super) trees: Trees,
    pub(super) place: Place,
    /// What another one can be made of; empty if that has been done.
    pub(super) more: Vec<OwnedFd>,
    /// Whether the last guest left something in its tree, so that one is expected to.
    pub(super) leaves: bool,
}

/// What a file tree of a caller's files depends on.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Like {
    identity: [u8; 32],
    trees: Vec<Tree>,
    network: bool,
    work: Vec<u8>,
}

/// A thread that has a file tree as its root, in which guests are started.
pub(super) enum Place {
    /// With what guests write privately there.
    Ready(Nest, Layer),
    /// It is being made.
    Begun(Nest, mpsc::Receiver<Layer>),
}

impl Like {
    /// What a descriptor wants; `None` if that is not its caller's files.
    pub(super) fn of(descriptor: &ProcessDescriptor) -> Option<Like> {
        let View::Mine(mine) = &descriptor.view else { return None };
        let (identity, trees) = (mine.identity, mine.trees.clone());
        Some(Like {
            identity,
            trees,
            network: descriptor.network,
            work: descriptor.working_directory.clone(),
        })
    }

    /// Begins to make such a file tree of these mounts; `None` if that cannot be.
    pub(super) fn begin(
        &self,
        mounts: Vec<OwnedFd>,
        socket: &Path,
        confinement: &Confinement,
    ) -> Option<Place> {
        if mounts.is_empty() {
            return None;
        }
        let (like, socket) = (self.clone(), socket.to_owned());
        let work = PathBuf::from(OsStr::from_bytes(&like.work));
        let furnish = move || super::build(&like.trees, mounts, &socket, &work);
        let (nest, told) = confinement.enclose_ahead(self.network, furnish).ok()?;
        Some(Place::Begun(nest, told))
    }
}

impl Place {
    /// When it is ready; `None` if it could not be made so.
    pub(super) fn ready(self) -> Option<(Nest, Layer)> {
        match self {
            Place::Ready(nest, layer) => Some((nest, layer)),
            Place::Begun(nest, told) => told.recv().ok().map(|layer| (nest, layer)),
        }
    }
}

impl Ahead {
    /// Whether it is what is wanted; then its trees are asked for again, for a descriptor, which `bytes` are.
    pub(super) fn ask(mut self, like: &Like, bytes: &[u8]) -> Option<Ahead> {
        let sets = if self.more.is_empty() { 1 } else { 2 };
        (self.like == *like && self.trees.ask(sets, bytes).is_ok()).then_some(self)
    }
}
