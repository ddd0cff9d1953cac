//! Trees of local files, entered one name at a time, so that no link leads out of them.
//!
//! A [`Folder`] is an open directory. Everything in it is named by one [component](is_component) of a path, and no
//! symbolic link is followed: whoever writes a tree that others have named, or in a place that others change meanwhile,
//! writes nothing outside the folder it began with. `std::fs` only knows whole paths.
//!
//! It is not a world: it knows nothing of Amoeba. `linux` has the disks and sockets of servers.
#![forbid(unsafe_code)]

mod extended;
mod stat;

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{self, AtFlags, Dir, Mode, OFlags};
use rustix::io::Errno;

pub use extended::{EXTENDED_SIZE_MAX, extended, set_extended};
pub use stat::{Facts, Kind, Time};

/// Bytes of one name.
pub const NAME_MAX: usize = 255;
/// Bytes of the text of a symbolic link.
pub const LINK_MAX: usize = 4095;

/// An open directory. Nothing but its own entries is reached through it.
#[derive(Debug)]
pub struct Folder(OwnedFd);

/// Whether a name can be that of an entry: 1 to [`NAME_MAX`] bytes, none of them NUL or '/', not `.` and not `..`.
pub fn is_component(name: &[u8]) -> bool {
    !matches!(name, b"" | b"." | b"..")
        && name.len() <= NAME_MAX
        && !name.iter().any(|byte| matches!(byte, 0 | b'/'))
}

fn component(name: &[u8]) -> io::Result<&[u8]> {
    if is_component(name) {
        Ok(name)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidInput, "no name of a file"))
    }
}

impl Folder {
    /// The directory where a tree begins. Links in `path` are followed: it is the caller's own.
    ///
    /// # Errors
    /// It is not there, is no directory, or may not be entered.
    pub fn open(path: &Path) -> io::Result<Folder> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Folder(fs::open(path, flags, Mode::empty())?))
    }

    /// A directory in this one.
    ///
    /// # Errors
    /// It is not there, is no directory (a link to one is none), or may not be entered.
    pub fn enter(&self, name: &[u8]) -> io::Result<Folder> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(Folder(fs::openat(&self.0, component(name)?, flags, Mode::empty())?))
    }

    /// The same directory once more.
    ///
    /// # Errors
    /// Too many files are open.
    pub fn enter_again(&self) -> io::Result<Folder> {
        Ok(Folder(rustix::io::fcntl_dupfd_cloexec(&self.0, 0)?))
    }

    /// Makes a directory that only its owner may use, and enters it. One that is there is an error.
    ///
    /// # Errors
    /// Something has the name, or there is no room.
    pub fn make(&self, name: &[u8]) -> io::Result<Folder> {
        fs::mkdirat(&self.0, component(name)?, Mode::RWXU)?;
        self.enter(name)
    }

    /// The names of the entries, in no order.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn names(&self) -> io::Result<impl Iterator<Item = io::Result<Vec<u8>>> + use<>> {
        let entries = Dir::read_from(&self.0)?;
        Ok(entries.filter_map(|entry| match entry {
            Ok(entry) => Some(Ok(entry.file_name().to_bytes().to_vec())).filter(|name| match name {
                Ok(name) => is_component(name),
                Err(_) => true,
            }),
            Err(error) => Some(Err(error.into())),
        }))
    }

    /// What an entry is; a link is not followed. `None`: there is no such entry.
    ///
    /// # Errors
    /// It cannot be looked at.
    pub fn facts(&self, name: &[u8]) -> io::Result<Option<Facts>> {
        match fs::statat(&self.0, component(name)?, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(Facts::of(&stat))),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Opens a regular file to read it, and says what it is. Neither a link nor a pipe is waited for or followed.
    ///
    /// # Errors
    /// It is not there, is no regular file, or may not be read.
    pub fn read(&self, name: &[u8]) -> io::Result<(File, Facts)> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = fs::openat(&self.0, component(name)?, flags, Mode::empty())?;
        let facts = Facts::of(&fs::fstat(&file)?);
        match facts.kind {
            Kind::File => Ok((file.into(), facts)),
            _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")),
        }
    }

    /// Makes a file that only its owner may read, and opens it to read and write. One that is there is an error.
    ///
    /// # Errors
    /// Something has the name, or there is no room.
    pub fn create(&self, name: &[u8]) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(fs::openat(&self.0, component(name)?, flags, Mode::RUSR | Mode::WUSR)?.into())
    }

    /// The text of a symbolic link, at most [`LINK_MAX`] bytes.
    ///
    /// # Errors
    /// It is not there, or is no symbolic link.
    pub fn link_text(&self, name: &[u8]) -> io::Result<Vec<u8>> {
        Ok(fs::readlinkat(&self.0, component(name)?, Vec::new())?.into_bytes())
    }

    /// Makes a symbolic link with this text; nobody looks where it leads.
    ///
    /// # Errors
    /// Something has the name, or the text is empty, has a NUL, or is longer than [`LINK_MAX`].
    pub fn make_link(&self, name: &[u8], text: &[u8]) -> io::Result<()> {
        Ok(fs::symlinkat(text, &self.0, component(name)?)?)
    }

    /// Gives a file of this directory another name in `to`.
    ///
    /// # Errors
    /// Something has the name, or the file system makes no such links.
    pub fn hard_link(&self, name: &[u8], to: &Folder, to_name: &[u8]) -> io::Result<()> {
        Ok(fs::linkat(&self.0, component(name)?, &to.0, component(to_name)?, AtFlags::empty())?)
    }

    /// Moves an entry to `to`, in one step; a file or link that has the name there is replaced.
    ///
    /// # Errors
    /// A directory has the name, or `to` is on another file system.
    pub fn rename(&self, name: &[u8], to: &Folder, to_name: &[u8]) -> io::Result<()> {
        Ok(fs::renameat(&self.0, component(name)?, &to.0, component(to_name)?)?)
    }

    /// As [`Folder::rename`], but whatever has the name already is an error.
    ///
    /// # Errors
    /// Something has the name, or `to` is on another file system.
    pub fn rename_new(&self, name: &[u8], to: &Folder, to_name: &[u8]) -> io::Result<()> {
        let flags = fs::RenameFlags::NOREPLACE;
        match fs::renameat_with(&self.0, component(name)?, &to.0, component(to_name)?, flags) {
            // This file system cannot do both in one step.
            Err(Errno::INVAL | Errno::NOSYS) => match to.facts(to_name)? {
                Some(_) => Err(Errno::EXIST.into()),
                None => self.rename(name, to, to_name),
            },
            renamed => Ok(renamed?),
        }
    }

    /// Removes what is no directory.
    ///
    /// # Errors
    /// It is not there, or is a directory.
    pub fn remove(&self, name: &[u8]) -> io::Result<()> {
        Ok(fs::unlinkat(&self.0, component(name)?, AtFlags::empty())?)
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// It is not there, is no directory, or not empty.
    pub fn remove_folder(&self, name: &[u8]) -> io::Result<()> {
        Ok(fs::unlinkat(&self.0, component(name)?, AtFlags::REMOVEDIR)?)
    }

    /// When a symbolic link was last read and changed.
    ///
    /// # Errors
    /// The file system keeps no such times.
    pub fn set_link_times(&self, name: &[u8], accessed: Time, modified: Time) -> io::Result<()> {
        let times = stat::timestamps(accessed, modified);
        Ok(fs::utimensat(&self.0, component(name)?, &times, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// Whose a symbolic link is.
    ///
    /// # Errors
    /// Only root may give away.
    pub fn set_link_owner(&self, name: &[u8], user: Option<u32>, group: Option<u32>) -> io::Result<()> {
        let (user, group) = stat::accounts(user, group);
        Ok(fs::chownat(&self.0, component(name)?, user, group, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// Makes entries that were made and renamed here survive a crash of the machine.
    ///
    /// # Errors
    /// The disk fails.
    pub fn sync(&self) -> io::Result<()> {
        Ok(fs::fsync(&self.0)?)
    }
}

impl AsFd for Folder {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// What an open file or directory is.
///
/// # Errors
/// It cannot be looked at.
pub fn facts(file: impl AsFd) -> io::Result<Facts> {
    Ok(Facts::of(&fs::fstat(file)?))
}

/// Who may do what with a file or directory: the lower twelve bits of `st_mode`.
///
/// # Errors
/// It is somebody else's.
pub fn set_mode(file: impl AsFd, mode: u32) -> io::Result<()> {
    Ok(fs::fchmod(file, Mode::from_raw_mode(mode & 0o7777))?)
}

/// When a file or directory was last read and changed.
///
/// # Errors
/// It is somebody else's, or the file system keeps no such times.
pub fn set_times(file: impl AsFd, accessed: Time, modified: Time) -> io::Result<()> {
    Ok(fs::futimens(file, &stat::timestamps(accessed, modified))?)
}

/// Whose a file or directory is.
///
/// # Errors
/// Only root may give away.
pub fn set_owner(file: impl AsFd, user: Option<u32>, group: Option<u32>) -> io::Result<()> {
    let (user, group) = stat::accounts(user, group);
    Ok(fs::fchown(file, user, group)?)
}

/// A file without a name, in the directory for temporary files. It is gone with its last descriptor.
///
/// # Errors
/// There is no room.
pub fn nameless() -> io::Result<File> {
    let directory = std::env::temp_dir();
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    let mode = Mode::RUSR | Mode::WUSR;
    match fs::open(&directory, flags | OFlags::TMPFILE, mode) {
        // Some file systems can only forget the name of a file that had one.
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => {}
        opened => return Ok(opened?.into()),
    }
    let name = format!(".amoeba-{}-{:?}", std::process::id(), std::thread::current().id());
    let path = directory.join(name);
    let file = fs::open(&path, flags | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW, mode)?;
    fs::unlink(&path)?;
    Ok(file.into())
}

/// The numbers of the user and the group that this process acts as.
pub fn account() -> (u32, u32) {
    (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw())
}

/// Whether this process is root's, who may give files away.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[cfg(test)]
mod tests;
