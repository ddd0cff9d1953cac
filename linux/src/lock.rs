//! Lock files that say who holds them. Looking takes no lock, so whoever looks is in nobody's way.
//!
//! The locks are those of `fcntl`: one belongs to a process, a child does not inherit it, and it is gone when the process
//! is, or when that process closes *any* descriptor of the file. So a process takes a lock once and opens the file no more.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::{FlockOperation, fcntl_lock};
use rustix::io::Errno;
use rustix::process::{Flock, FlockType, fcntl_getlk};

/// A lock that this process holds until it drops this or ends.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// Takes the lock that the file stands for; `None` when another process has it. The file is made with mode 0600.
///
/// # Errors
/// The file cannot be opened for writing, or its file system has no locks.
pub fn take(path: &Path) -> io::Result<Option<Lock>> {
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
    match fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(Lock { _file: file })),
        Err(Errno::AGAIN | Errno::ACCESS) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The other process that holds the lock; 0 for one that cannot be seen from this PID namespace.
///
/// # Errors
/// The file is there and cannot be read.
pub fn holder(path: &Path) -> io::Result<Option<u32>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let held = fcntl_getlk(&file, &Flock::from(FlockType::WriteLock))?;
    Ok(held.map(|lock| lock.pid.map_or(0, |pid| pid.as_raw_nonzero().get().unsigned_abs())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_nobody_holds_is_free_and_what_we_hold_is_no_others() {
        let path = std::env::temp_dir().join(format!("amoeba-lock-{}", std::process::id()));
        assert_eq!(holder(&path).unwrap(), None);
        let lock = take(&path).unwrap();
        assert!(lock.is_some());
        drop(lock);
        assert_eq!(holder(&path).unwrap(), None);
        std::fs::remove_file(&path).unwrap();
    }
}
