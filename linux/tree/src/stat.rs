//! What Linux says of a file.

use rustix::fs::{FileType, Gid, Stat, Timespec, Timestamps, Uid};

/// A moment: seconds since 1970 and nanoseconds below 1,000,000,000.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time {
    /// Whole seconds; negative before 1970.
    pub seconds: i64,
    /// What comes on top.
    pub nanoseconds: u32,
}

/// What kind of thing an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Folder,
    /// A symbolic link.
    Link,
    /// Anything else, by what people call it.
    Other(&'static str),
}

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// What it is.
    pub kind: Kind,
    /// Type and permissions: `st_mode`.
    pub mode: u32,
    /// The number of its owner.
    pub user: u32,
    /// The number of its group.
    pub group: u32,
    /// Bytes.
    pub size: u64,
    /// How many names it has.
    pub links: u64,
    /// With [`Facts::inode`], which file it is.
    pub device: u64,
    /// With [`Facts::device`], which file it is.
    pub inode: u64,
    /// When it was last read.
    pub accessed: Time,
    /// When its contents last changed.
    pub modified: Time,
    /// When contents or attributes last changed.
    pub changed: Time,
}

impl Facts {
    #[allow(
        clippy::unnecessary_cast,
        clippy::useless_conversion,
        reason = "the integers of `stat` have other sizes on other architectures"
    )]
    pub(crate) fn of(stat: &Stat) -> Facts {
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Kind::File,
            FileType::Directory => Kind::Folder,
            FileType::Symlink => Kind::Link,
            FileType::Fifo => Kind::Other("pipe"),
            FileType::Socket => Kind::Other("socket"),
            FileType::CharacterDevice | FileType::BlockDevice => Kind::Other("device"),
            FileType::Unknown => Kind::Other("file of an unknown kind"),
        };
        let time = |seconds: i64, nanoseconds: u64| Time {
            seconds,
            nanoseconds: u32::try_from(nanoseconds).unwrap_or_default(),
        };
        Facts {
            kind,
            mode: stat.st_mode as u32,
            user: stat.st_uid,
            group: stat.st_gid,
            size: u64::try_from(stat.st_size).unwrap_or_default(),
            links: stat.st_nlink as u64,
            device: stat.st_dev as u64,
            inode: stat.st_ino as u64,
            accessed: time(stat.st_atime as i64, stat.st_atime_nsec as u64),
            modified: time(stat.st_mtime as i64, stat.st_mtime_nsec as u64),
            changed: time(stat.st_ctime as i64, stat.st_ctime_nsec as u64),
        }
    }
}

pub(crate) fn timestamps(accessed: Time, modified: Time) -> Timestamps {
    let time = |time: Time| Timespec { tv_sec: time.seconds, tv_nsec: time.nanoseconds.into() };
    Timestamps { last_access: time(accessed), last_modification: time(modified) }
}

pub(crate) fn accounts(user: Option<u32>, group: Option<u32>) -> (Option<Uid>, Option<Gid>) {
    (user.map(Uid::from_raw), group.map(Gid::from_raw))
}
