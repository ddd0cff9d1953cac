//! A file of this host as hosts elsewhere are told of it.

use std::io;
use std::sync::OnceLock;

use amoeba_stubs::view::{
    BROKEN, CHANGED, CROSSDEVICE, ISDIR, KIND_DIRECTORY, KIND_FILE, KIND_LINK, NOTDIR, NOTEMPTY, NodeRecord,
    OWNER_CALLER, OWNER_OTHER, OWNER_ROOT, READONLY, TOOLARGE,
};
use amoeba_tree::{Facts, Kind};
use amoeba_wire::Status;
use rustix::io::Errno;

/// Permissions and the sticky bit, without set-id bits.
pub(crate) const MODE_MASK: u32 = 0o1777;

/// What stands for nothing.
pub(crate) fn nothing() -> NodeRecord {
    NodeRecord {
        kind: 0,
        mode: 0,
        owner: OWNER_OTHER,
        group: OWNER_OTHER,
        links: 0,
        size: 0,
        allocated: 0,
        modified_seconds: 0,
        modified_nanoseconds: 0,
        changed_seconds: 0,
        changed_nanoseconds: 0,
        version: [0; 16],
        text: Vec::new(),
    }
}

/// What is told of a file with these facts; `text` of a symbolic link.
pub(crate) fn of(facts: &Facts, text: Vec<u8>) -> NodeRecord {
    let (user, group) = ours();
    let owner = |number, own| match number {
        _ if number == own => OWNER_CALLER,
        0 => OWNER_ROOT,
        _ => OWNER_OTHER,
    };
    let kind = match facts.kind {
        Kind::File => KIND_FILE,
        Kind::Folder => KIND_DIRECTORY,
        _ => KIND_LINK,
    };
    NodeRecord {
        kind,
        mode: (facts.mode & MODE_MASK) as u16,
        owner: owner(facts.user, user),
        group: owner(facts.group, group),
        links: u32::try_from(facts.links).unwrap_or(u32::MAX),
        size: facts.size,
        allocated: facts.size.next_multiple_of(4096),
        modified_seconds: facts.modified.seconds,
        modified_nanoseconds: facts.modified.nanoseconds,
        changed_seconds: facts.changed.seconds,
        changed_nanoseconds: facts.changed.nanoseconds,
        version: version(facts),
        text,
    }
}

/// Another one for another file, other contents and other attributes.
pub(crate) fn version(facts: &Facts) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new();
    for number in [facts.device, facts.inode, facts.size, facts.mode.into()] {
        hasher.update(&number.to_le_bytes());
    }
    for time in [facts.modified, facts.changed] {
        hasher.update(&time.seconds.to_le_bytes()).update(&time.nanoseconds.to_le_bytes());
    }
    hasher.finalize().as_bytes()[..16].try_into().expect("a hash has 32 bytes")
}

/// The numbers of the user and the group that this process runs as.
fn ours() -> (u32, u32) {
    static OURS: OnceLock<(u32, u32)> = OnceLock::new();
    *OURS.get_or_init(amoeba_tree::account)
}

/// What a failure of a system call is on the wire.
pub(crate) fn status_of(error: &io::Error) -> Status {
    match error.kind() {
        io::ErrorKind::NotFound => Status::STD_NOTFOUND,
        io::ErrorKind::PermissionDenied => Status::STD_DENIED,
        io::ErrorKind::AlreadyExists => Status::STD_EXISTS,
        io::ErrorKind::NotADirectory => NOTDIR,
        io::ErrorKind::IsADirectory => ISDIR,
        io::ErrorKind::DirectoryNotEmpty => NOTEMPTY,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Status::STD_NOSPACE,
        io::ErrorKind::ReadOnlyFilesystem => READONLY,
        io::ErrorKind::FileTooLarge | io::ErrorKind::InvalidFilename => TOOLARGE,
        io::ErrorKind::StaleNetworkFileHandle => CHANGED,
        io::ErrorKind::CrossesDevices => CROSSDEVICE,
        io::ErrorKind::InvalidInput => Status::STD_ARGBAD,
        // A symbolic link where a file or a directory was to be.
        _ if error.raw_os_error() == Some(Errno::LOOP.raw_os_error()) => NOTDIR,
        _ => BROKEN,
    }
}
