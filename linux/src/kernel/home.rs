//! Where a daemon listens: the directory, the lock that one daemon holds, the socket.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::socket;

/// A daemon could not take its socket.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// Another daemon serves this socket.
    #[error("a kernel daemon (pid {pid}) already serves {path}")]
    InUse {
        /// The socket.
        path: PathBuf,
        /// What the other daemon wrote into the lock.
        pid: String,
    },
    /// Others could replace the socket.
    #[error("{0} belongs to or can be written by another user")]
    Unsafe(PathBuf),
    /// Something that is not a socket has the socket's name.
    #[error("{0} exists and is not a socket")]
    NotASocket(PathBuf),
    /// The operating system refused.
    #[error("cannot listen on {path}: {source}")]
    Io {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A socket that this process alone serves. Dropping it removes the socket and keeps the lock file.
pub(super) struct Home {
    pub(super) socket: OwnedFd,
    path: PathBuf,
    _lock: File,
}

impl Home {
    pub(super) fn take(path: &Path, backlog: i32) -> Result<Home, BindError> {
        let failed = |source| BindError::Io { path: path.into(), source };
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed)?;
        let owned = directory.metadata().map_err(failed)?;
        if owned.uid() != rustix::process::geteuid().as_raw() || owned.mode() & 0o022 != 0 {
            return Err(BindError::Unsafe(directory.into()));
        }
        let lock = take_lock(path)?;
        remove_stale(path)?;
        let socket = socket::bind(path, backlog).map_err(failed)?;
        Ok(Home { socket, path: path.into(), _lock: lock })
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path); // the next daemon replaces it if this does not
    }
}

fn take_lock(path: &Path) -> Result<File, BindError> {
    let failed = |source| BindError::Io { path: path.into(), source };
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let mut lock = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&name)
        .map_err(failed)?;
    match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => {
            let mut pid = String::new();
            let _ = lock.take(16).read_to_string(&mut pid); // only for the message
            return Err(BindError::InUse { path: path.into(), pid: pid.trim().into() });
        }
        Err(errno) => return Err(failed(errno.into())),
    }
    lock.set_len(0).map_err(failed)?;
    lock.write_all(format!("{}\n", std::process::id()).as_bytes()).map_err(failed)?;
    Ok(lock)
}

/// Whoever holds the lock may replace what a dead daemon left.
fn remove_stale(path: &Path) -> Result<(), BindError> {
    match path.symlink_metadata() {
        Ok(found) if found.file_type().is_socket() => {
            std::fs::remove_file(path).map_err(|source| BindError::Io { path: path.into(), source })
        }
        Ok(_) => Err(BindError::NotASocket(path.into())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(BindError::Io { path: path.into(), source }),
    }
}
