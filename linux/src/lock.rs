//! Lock files that say who holds them. Looking takes no lock, so whoever looks is in nobody's way.
//!
//! The locks are those of `fcntl`: one belongs to a process, a child does not inherit it, and it is gone when the process
//! is, or when that process closes *any* descriptor of the file. So a process takes a lock once and opens the file no more.
//! [`share`] takes one that processes do inherit, and that nobody has once all of them have ended.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use rustix::fs::{FlockOperation, fcntl_lock};
use rustix::io::Errno;

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
    let file = open(path)?;
    match fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(Lock { _file: file })),
        Err(Errno::AGAIN | Errno::ACCESS) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// A lock that the open file itself holds, with others of its kind: it is held until every process that has inherited the
/// descriptor has closed it. The file is made with mode 0600.
///
/// # Errors
/// The file cannot be opened for writing, its file system has no locks, or a process has [taken](take) it alone.
pub fn share(path: &Path) -> io::Result<File> {
    let file = open(path)?;
    fcntl(&file, FcntlArg::F_OFD_SETLK(&whole_file(libc::F_RDLCK)))?;
    Ok(file)
}

/// The other process that holds the lock; 0 for one that cannot be seen from this PID namespace, and for those that
/// [`share`] it.
///
/// # Errors
/// The file is there and cannot be read.
pub fn holder(path: &Path) -> io::Result<Option<u32>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let mut held = whole_file(libc::F_WRLCK);
    fcntl(&file, FcntlArg::F_GETLK(&mut held))?;
    let is_held = i32::from(held.l_type) != libc::F_UNLCK;
    Ok(is_held.then(|| held.l_pid.try_into().unwrap_or(0)))
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

fn whole_file(kind: i32) -> libc::flock {
    let l_type = kind.try_into().expect("kinds of locks are small numbers");
    libc::flock { l_type, l_whence: 0, l_start: 0, l_len: 0, l_pid: 0 }
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

    #[test]
    fn a_shared_lock_is_held_by_all_who_inherit_it() {
        let path = std::env::temp_dir().join(format!("amoeba-shared-lock-{}", std::process::id()));
        let (first, second) = (share(&path).unwrap(), share(&path).unwrap());
        let heir = first.try_clone().unwrap();
        for holds in [first, second] {
            drop(holds);
            assert_eq!(holder(&path).unwrap(), Some(0));
        }
        assert!(take(&path).unwrap().is_none());
        drop(heir);
        assert_eq!(holder(&path).unwrap(), None);
        std::fs::remove_file(&path).unwrap();
    }
}
