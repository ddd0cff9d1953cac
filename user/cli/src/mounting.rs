//! What `amoeba mount` needs of the program it is part of.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use amoeba_volume::FileSystem;

/// How a file system is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountOptions {
    /// What `mount` shows as its source.
    pub name: String,
    /// Nothing can be changed through it.
    pub read_only: bool,
    /// Whether other users than the one who mounts may look in.
    pub others: bool,
}

/// Mounts on this host.
pub trait Mounting {
    /// The folder in which mounts keep what is not committed yet; only this user may look in.
    ///
    /// # Errors
    /// There is no place for state.
    fn folder(&self) -> anyhow::Result<PathBuf>;
    /// This program, to be started in the background; it goes on without a terminal.
    ///
    /// # Errors
    /// It cannot be found.
    fn background(&self) -> anyhow::Result<Command>;
    /// Goes on in the background, as whoever started it with [`Mounting::background`] expects.
    fn enter_background(&self);
    /// Puts a file system into the tree of files at `directory`. From here on the log goes to standard error.
    ///
    /// # Errors
    /// The place is no directory or not this user's; nothing can be mounted on this host.
    fn mount(
        &self,
        files: Arc<dyn FileSystem>,
        directory: &Path,
        options: &MountOptions,
    ) -> anyhow::Result<Box<dyn Mounted>>;
    /// Takes a mount of ours at `directory` out of the tree, also a dead one; whether there was one.
    ///
    /// # Errors
    /// It is another user's.
    fn unmount(&self, directory: &Path) -> io::Result<bool>;
}

/// A file system in the tree of files.
pub trait Mounted {
    /// Where.
    fn directory(&self) -> &Path;
    /// Waits up to `wait` for somebody to take it out; whether that happened.
    ///
    /// # Errors
    /// It broke.
    fn ended(&self, wait: Duration) -> io::Result<bool>;
    /// Whether nobody uses it any more, nor can.
    fn is_gone(&self) -> bool;
}
