//! What is made ready for the next guest while one runs: the same file tree once more, in case the next wants the same.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use amoeba_process::{ProcessDescriptor, Tree, View};

use super::desk::{Granted, Trees};
use crate::guest::confine::{Confinement, Nest};

/// A file tree that no guest has had yet.
pub(in crate::guest) struct Ahead {
    like: Like,
    trees: Trees,
    nest: Nest,
}

/// What a file tree of a caller's files depends on.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Like {
    identity: [u8; 32],
    trees: Vec<Tree>,
    network: bool,
    work: Vec<u8>,
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
    ) -> Option<Nest> {
        let (like, socket) = (self.clone(), socket.to_owned());
        let work = PathBuf::from(OsStr::from_bytes(&like.work));
        let furnish = move || super::build(&like.trees, mounts, &socket, &work);
        confinement.enclose_ahead(self.network, furnish).ok()
    }
}

impl Ahead {
    pub(super) fn new(like: Like, trees: Trees, nest: Nest) -> Ahead {
        Ahead { like, trees, nest }
    }

    /// Asks for the trees of a descriptor, which `bytes` are, and for it gives those that were made ready, if that is what it
    /// wants and the viewer says that they are right. What is given with mounts in `Granted` was not.
    pub(super) fn take(self, like: &Like, bytes: &[u8]) -> Option<(Granted, Nest)> {
        // Where something went wrong the thread has ended.
        if self.like != *like || self.nest.run(|| ()).is_none() {
            return None;
        }
        let granted = self.trees.ask_again(bytes).ok()?;
        Some((granted, self.nest))
    }
}
