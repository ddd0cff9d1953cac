//! Values of the kernel's requests as a file system takes them, and back.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use amoeba_volume::{
    Allocation, Attributes, Cached, Caller, ChangeTime, Error, Kind, Node, OpenMode, Rename, Seek,
    SetAttribute, Time,
};
use fuser::{Errno, FileAttr, FileType, FopenFlags, INodeNo, RenameFlags, Request, TimeOrNow};
use nix::libc;

/// Bytes that programs are told to read and write at once.
const BLOCK_SIZE: u32 = 4096;

pub(super) fn caller(request: &Request) -> Caller {
    Caller { user: request.uid(), group: request.gid(), process: request.pid() }
}

pub(super) fn errno(error: Error) -> Errno {
    match error {
        Error::NotFound => Errno::ENOENT,
        Error::Exists => Errno::EEXIST,
        Error::NotDirectory => Errno::ENOTDIR,
        Error::IsDirectory => Errno::EISDIR,
        Error::NotEmpty => Errno::ENOTEMPTY,
        Error::NotPermitted => Errno::EPERM,
        Error::AccessDenied => Errno::EACCES,
        Error::Invalid => Errno::EINVAL,
        Error::NameTooLong => Errno::ENAMETOOLONG,
        Error::NoSpace => Errno::ENOSPC,
        Error::QuotaExceeded => Errno::from_i32(libc::EDQUOT),
        Error::ReadOnly => Errno::EROFS,
        Error::CrossDevice => Errno::EXDEV,
        Error::TooManyLinks => Errno::EMLINK,
        Error::TooLarge => Errno::EFBIG,
        Error::NoAttribute => Errno::from_i32(libc::ENODATA),
        Error::NothingThere => Errno::ENXIO,
        Error::BadHandle => Errno::EBADF,
        Error::Busy => Errno::EBUSY,
        Error::NotSupported => Errno::from_i32(libc::EOPNOTSUPP),
        Error::NotImplemented => Errno::ENOSYS,
        Error::Stale => Errno::from_i32(libc::ESTALE),
        _ => Errno::EIO,
    }
}

pub(super) fn file_type(kind: Kind) -> FileType {
    match kind {
        Kind::File => FileType::RegularFile,
        Kind::Directory => FileType::Directory,
        Kind::SymbolicLink => FileType::Symlink,
        Kind::Pipe => FileType::NamedPipe,
        Kind::Socket => FileType::Socket,
        Kind::CharacterDevice => FileType::CharDevice,
        Kind::BlockDevice => FileType::BlockDevice,
    }
}

pub(super) fn attributes(of: &Attributes) -> FileAttr {
    FileAttr {
        ino: INodeNo(of.node.0),
        size: of.size,
        blocks: of.allocated.div_ceil(512),
        atime: system_time(of.accessed),
        mtime: system_time(of.modified),
        ctime: system_time(of.changed),
        crtime: UNIX_EPOCH,
        kind: file_type(of.kind),
        perm: of.permissions,
        nlink: of.links,
        uid: of.user,
        gid: of.group,
        rdev: of.device,
        blksize: BLOCK_SIZE,
        flags: 0,
    }
}

/// What is said of a node of which nothing is said.
pub(super) fn untold(node: Node, kind: Kind) -> FileAttr {
    let nothing = Attributes {
        node,
        kind,
        permissions: 0,
        links: 0,
        user: 0,
        group: 0,
        device: 0,
        size: 0,
        allocated: 0,
        accessed: Time::default(),
        modified: Time::default(),
        changed: Time::default(),
    };
    attributes(&nothing)
}

fn system_time(time: Time) -> SystemTime {
    let seconds = Duration::from_secs(time.seconds.unsigned_abs());
    let whole =
        if time.seconds < 0 { UNIX_EPOCH.checked_sub(seconds) } else { UNIX_EPOCH.checked_add(seconds) };
    whole
        .and_then(|whole| whole.checked_add(Duration::from_nanos(time.nanoseconds.into())))
        .unwrap_or(UNIX_EPOCH)
}

/// A time that a request sets. One before 1970 comes as its whole seconds and its nanoseconds both taken back from 1970,
/// where the kernel counts nanoseconds onward from the whole second.
fn time(given: SystemTime) -> Time {
    match given.duration_since(UNIX_EPOCH) {
        Ok(since) => since.into(),
        Err(before) => {
            let before = Time::from(before.duration());
            Time { seconds: -before.seconds, ..before }
        }
    }
}

pub(super) fn change_time(of: TimeOrNow) -> ChangeTime {
    match of {
        TimeOrNow::Now => ChangeTime::Now,
        TimeOrNow::SpecificTime(at) => ChangeTime::To(time(at)),
    }
}

pub(super) fn permissions(mode: u32) -> u16 {
    (mode & 0o7777) as u16
}

pub(super) fn open_mode(flags: i32) -> OpenMode {
    let mut mode = match flags & libc::O_ACCMODE {
        libc::O_RDONLY => OpenMode::READ,
        libc::O_WRONLY => OpenMode::WRITE,
        _ => OpenMode::READ | OpenMode::WRITE,
    };
    mode.set(OpenMode::APPEND, flags & libc::O_APPEND != 0);
    mode.set(OpenMode::TRUNCATE, flags & libc::O_TRUNC != 0);
    mode.set(OpenMode::EXCLUSIVE, flags & libc::O_EXCL != 0);
    mode
}

pub(super) fn open_flags(cached: Cached) -> FopenFlags {
    match cached {
        Cached::Keep => FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_CACHE_DIR,
        Cached::Drop => FopenFlags::empty(),
        Cached::Never => FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_PARALLEL_DIRECT_WRITES,
    }
}

/// `None` for ways that only stacked file systems know.
pub(super) fn rename(flags: RenameFlags) -> Option<Rename> {
    let mut how = Rename::empty();
    how.set(Rename::KEEP, flags.contains(RenameFlags::RENAME_NOREPLACE));
    how.set(Rename::EXCHANGE, flags.contains(RenameFlags::RENAME_EXCHANGE));
    (RenameFlags::RENAME_NOREPLACE | RenameFlags::RENAME_EXCHANGE).contains(flags).then_some(how)
}

pub(super) fn set_attribute(flags: i32) -> SetAttribute {
    let mut how = SetAttribute::empty();
    how.set(SetAttribute::CREATE, flags & libc::XATTR_CREATE != 0);
    how.set(SetAttribute::REPLACE, flags & libc::XATTR_REPLACE != 0);
    how
}

/// Access control lists are for file systems that keep to them: who copies one must hear that it is not kept, and sets the
/// mode instead.
pub(super) fn attribute_name(name: &OsStr) -> Result<&[u8], Error> {
    let name = name.as_bytes();
    if name.starts_with(b"system.posix_acl_") { Err(Error::NotSupported) } else { Ok(name) }
}

/// `None` for what has no meaning here, as collapsing a range.
pub(super) fn allocation(mode: i32) -> Option<Allocation> {
    const PUNCH: i32 = libc::FALLOC_FL_PUNCH_HOLE;
    const ZERO: i32 = libc::FALLOC_FL_ZERO_RANGE;
    const KEEP: i32 = libc::FALLOC_FL_KEEP_SIZE;
    let mut how = Allocation::empty();
    how.set(Allocation::PUNCH, mode & PUNCH != 0);
    how.set(Allocation::ZERO, mode & ZERO != 0);
    how.set(Allocation::KEEP_SIZE, mode & KEEP != 0);
    (mode & !(PUNCH | ZERO | KEEP) == 0).then_some(how)
}

/// `None` for what the kernel finds by itself.
pub(super) fn seek(whence: i32) -> Option<Seek> {
    match whence {
        libc::SEEK_DATA => Some(Seek::Data),
        libc::SEEK_HOLE => Some(Seek::Hole),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ways_that_have_no_meaning_here_are_refused() {
        assert_eq!(rename(RenameFlags::RENAME_WHITEOUT), None);
        assert_eq!(rename(RenameFlags::RENAME_NOREPLACE), Some(Rename::KEEP));
        assert_eq!(allocation(libc::FALLOC_FL_COLLAPSE_RANGE), None);
        assert_eq!(allocation(0), Some(Allocation::empty()));
    }
}
