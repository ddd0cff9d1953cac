//! What `amoeba mount` needs of the program it is part of, and what other mounts of the graph need of it.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use amoeba_name::Account;
use amoeba_volume::FileSystem;

use crate::tree::accounts::Accounts;

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
    /// Whether a mount lies at `directory` whose process is gone: who uses it has an error.
    fn is_dead(&self, directory: &Path) -> bool;
    /// Ends the connection of the mount whose file system has this number if its process `server` was killed and is not gone yet,
    /// which it may else never be; whether that is so. The mount is asked nothing.
    ///
    /// # Errors
    /// It is another user's.
    fn end_of_dying(&self, device: &str, server: u32) -> io::Result<bool>;
}

/// A file system in the tree of files.
pub trait Mounted {
    /// Where.
    fn directory(&self) -> &Path;
    /// The number of the file system, as `major:minor`.
    fn device(&self) -> &str;
    /// Waits up to `wait` for somebody to take it out; whether that happened.
    ///
    /// # Errors
    /// It broke.
    fn ended(&self, wait: Duration) -> io::Result<bool>;
    /// Whether nobody uses it any more, nor can.
    fn is_gone(&self) -> bool;
}

/// The accounts of a mount, as the files of this host say.
pub struct HostAccounts {
    accounts: Accounts,
    own: (u32, u32),
}

impl HostAccounts {
    /// Those of this host; what has no owner belongs to `own`, a user and a group.
    pub fn read(own: (u32, u32)) -> HostAccounts {
        HostAccounts { accounts: Accounts::read(), own }
    }
}

impl amoeba_mount::Accounts for HostAccounts {
    fn own(&self) -> (u32, u32) {
        self.own
    }

    fn user_name(&self, number: u32) -> Vec<u8> {
        self.accounts.users.name(number)
    }

    fn group_name(&self, number: u32) -> Vec<u8> {
        self.accounts.groups.name(number)
    }

    fn user_number(&self, account: &Account) -> u32 {
        self.accounts.users.number(account)
    }

    fn group_number(&self, account: &Account) -> u32 {
        self.accounts.groups.number(account)
    }
}
