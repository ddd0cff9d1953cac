//! The operations of a file system.

use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use bitflags::bitflags;

use crate::{Attributes, Caller, Change, DirectoryEntry, Entry, Error, Node, Space, Writers};

/// The number that an open gave; what it means is the file system's own business.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Handle(pub u64);

bitflags! {
    /// What a file is opened for.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct OpenMode: u32 {
        /// To be read.
        const READ = 1;
        /// To be written.
        const WRITE = 2;
        /// Every write goes to the end. The mount has found the end by itself already: for information.
        const APPEND = 4;
        /// Cut to nothing first. A mount may do this by `setattr` instead.
        const TRUNCATE = 8;
        /// With `create`: [`Error::Exists`] if the name is taken.
        const EXCLUSIVE = 16;
    }
}

bitflags! {
    /// How a name is moved.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Rename: u32 {
        /// [`Error::Exists`] if the new name is taken.
        const KEEP = 1;
        /// The two names change places; both must be there.
        const EXCHANGE = 2;
    }
}

bitflags! {
    /// How an extended attribute is set.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct SetAttribute: u32 {
        /// [`Error::Exists`] if it is there.
        const CREATE = 1;
        /// [`Error::NoAttribute`] if it is not.
        const REPLACE = 2;
    }
}

bitflags! {
    /// What becomes of a part of a file in `fallocate`; with no bit, room is made and the file lengthened.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Allocation: u32 {
        /// The size stays as it is.
        const KEEP_SIZE = 1;
        /// A hole: what was there is gone, and reads as zeros.
        const PUNCH = 2;
        /// Zeros, with room behind them.
        const ZERO = 4;
    }
}

/// What `lseek` looks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seek {
    /// The first byte at or behind the offset that is in no hole.
    Data,
    /// The first that is in a hole; the end of a file counts as one.
    Hole,
}

/// What the mount may do with the pages that it has of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cached {
    /// Keep those of earlier opens: nobody has written the file past this mount.
    Keep,
    /// Forget those of earlier opens.
    Drop,
    /// Have none: every read and write is an operation of its own.
    Never,
}

/// What an open gives.
#[derive(Clone, Debug)]
pub struct Opened {
    /// Comes back with every operation on what was opened.
    pub handle: Handle,
    /// What becomes of pages.
    pub cached: Cached,
    /// A file of the host that has the very contents: where the mount can, it reads and writes there and does not ask.
    ///
    /// Of a node that is open several times either all have the same file here or none has one.
    pub backing: Option<Arc<File>>,
}

impl Opened {
    /// An open whose pages are kept from one open to the next.
    pub fn kept(handle: Handle) -> Opened {
        Opened { handle, cached: Cached::Keep, backing: None }
    }
}

/// What a file system may tell its mount by itself.
///
/// Never from within an operation: the kernel may hold the directory or the file for that very operation, and would wait
/// for its end. From a thread of its own, with no lock held that an operation takes.
pub trait Notifier: Send + Sync {
    /// The name may stand for something else now, or for nothing. What is not known is ignored.
    fn name_changed(&self, directory: Node, name: &[u8]);
    /// Contents and attributes of the node are not what they were. What is not known is ignored.
    fn node_changed(&self, node: Node);
    /// An operation is about to wait for something that may take long, as for a server: told from within it, so that others are
    /// served meanwhile. Elsewhere it says nothing.
    fn waits(&self) {}
}

/// A file system: numbered nodes and what can be done to them. The operations are those of FUSE, under its names.
///
/// Called by several threads at once, each operation as sequential code that may take its time; it holds one thread of the
/// mount, so that slow operations want many. What the caller promises:
///
/// - A node is used only while it is remembered: an answered [`Entry`] (of `lookup`, `create`, `readdir` with entries, ...)
///   counts one, [`forget`](FileSystem::forget) takes back; the root is always remembered. A node without a name lives on
///   until it is forgotten, so that an unlinked file can be used while it is open.
/// - What was opened is released once, and before its node is forgotten.
/// - Permissions have been checked against the attributes, by the mount. `setattr`, too, is called only for who may.
/// - Locks (`flock`, `fcntl`) hold within the mount, are kept by the kernel, and are never seen here: they can be
///   interrupted and are given back when their process dies, which no server could promise.
/// - Writes to a file come one at a time where they append or lengthen it.
///
/// What a file system sees to itself: a write, a new size and a new owner take the set-id bits of a file away, and its
/// attribute `security.capability`; the mount does not ask about those before each write.
///
/// Names are any bytes but NUL and `/`, never empty; what is longer than [`crate::NAME_SIZE_MAX`] is refused here.
#[allow(clippy::too_many_arguments)]
pub trait FileSystem: Send + Sync {
    /// Called once, before any operation, with what to tell the mount by.
    fn mounted(&self, notifier: Arc<dyn Notifier>) {
        drop(notifier);
    }

    /// Whether every operation that waits for long, as for a server, says so before ([`Notifier::waits`]): then as few threads
    /// serve as are enough. What is not said costs others a millisecond or two.
    fn says_when_it_waits(&self) -> bool {
        false
    }

    /// Called at most once, before any open and create: the mount is to do without opens, and `writers` says who may write. From
    /// then on [`open`](FileSystem::open) and [`flush`](FileSystem::flush) answer [`Error::NotImplemented`], no release says
    /// anything, and [`look_at_writers`](FileSystem::look_at_writers) is called.
    fn without_opens(&self, writers: Arc<dyn Writers>) {
        drop(writers);
    }

    /// Somebody has closed a file that he could write, or the time is over that the last call has answered: how long it is until
    /// the next call at the latest. Called by a thread of its own, which may wait for operations.
    fn look_at_writers(&self) -> Option<Duration> {
        None
    }

    /// What stands under a name; remembers it.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::NotDirectory`].
    fn lookup(&self, caller: &Caller, directory: Node, name: &[u8]) -> Result<Entry, Error>;

    /// How long the mount may believe that there is no such name, after [`lookup`](FileSystem::lookup) has said so.
    fn absent_lifetime(&self) -> Duration {
        Duration::ZERO
    }

    /// Takes back `count` rememberings.
    fn forget(&self, node: Node, count: u64);

    /// How long the answers of [`getattr`](FileSystem::getattr) and [`setattr`](FileSystem::setattr) hold.
    fn attributes_lifetime(&self, node: Node) -> Duration {
        let _ = node;
        Duration::ZERO
    }

    /// What a node is.
    fn getattr(&self, node: Node) -> Result<Attributes, Error>;

    /// Changes what is given, all or nothing. `handle` where the caller has the node open.
    ///
    /// # Errors
    /// [`Error::TooLarge`]; [`Error::IsDirectory`] for the size of a directory, [`Error::Invalid`] for that of another thing.
    fn setattr(&self, node: Node, handle: Option<Handle>, change: &Change) -> Result<Attributes, Error>;

    /// The text of a symbolic link.
    fn readlink(&self, node: Node) -> Result<Vec<u8>, Error>;

    /// Makes a file, pipe, socket or device under a new name. `mode`: type and permissions, the caller's mask applied.
    fn mknod(
        &self,
        caller: &Caller,
        directory: Node,
        name: &[u8],
        mode: u32,
        device: u32,
    ) -> Result<Entry, Error>;

    /// Makes a directory under a new name.
    fn mkdir(&self, caller: &Caller, directory: Node, name: &[u8], permissions: u16) -> Result<Entry, Error>;

    /// Makes a symbolic link under a new name.
    fn symlink(&self, caller: &Caller, directory: Node, name: &[u8], text: &[u8]) -> Result<Entry, Error>;

    /// One more name for a node that is no directory.
    fn link(&self, node: Node, directory: Node, name: &[u8]) -> Result<Entry, Error>;

    /// Takes a name away from what is no directory.
    fn unlink(&self, directory: Node, name: &[u8]) -> Result<(), Error>;

    /// Takes away an empty directory.
    fn rmdir(&self, directory: Node, name: &[u8]) -> Result<(), Error>;

    /// Moves a name, over what has the new one: at every moment the new name stands for the old node or the moved one.
    fn rename(
        &self,
        directory: Node,
        name: &[u8],
        new_directory: Node,
        new_name: &[u8],
        how: Rename,
    ) -> Result<(), Error>;

    /// Makes a file under a new name and opens it. Where the name is taken by a file, that one is opened: two callers may
    /// have raced. The entry is remembered.
    fn create(
        &self,
        caller: &Caller,
        directory: Node,
        name: &[u8],
        permissions: u16,
        mode: OpenMode,
    ) -> Result<(Entry, Opened), Error>;

    /// Opens a file.
    ///
    /// # Errors
    /// [`Error::NotImplemented`] says for the whole mount that no open needs a message: from then on none comes, nor a release,
    /// every handle is 0, and pages are kept.
    fn open(&self, caller: &Caller, node: Node, mode: OpenMode) -> Result<Opened, Error>;

    /// Gives `size` bytes from `offset` on, or fewer where the file ends, by at most one call of `give`.
    ///
    /// `give` because the bytes may be part of something larger, which need not be copied.
    fn read(
        &self,
        node: Node,
        handle: Handle,
        offset: u64,
        size: usize,
        give: &mut dyn FnMut(&[u8]),
    ) -> Result<(), Error>;

    /// Writes all of `data`, or nothing.
    fn write(&self, node: Node, handle: Handle, offset: u64, data: &[u8]) -> Result<(), Error>;

    /// A descriptor of the file was closed, of which there may be several. What it answers is what `close` answers.
    ///
    /// # Errors
    /// [`Error::NotImplemented`] says for the whole mount that this need not be told.
    fn flush(&self, node: Node, handle: Handle) -> Result<(), Error>;

    /// Returns when what was written survives a crash; with `data_only`, attributes that do not matter for reading it may not.
    fn fsync(&self, node: Node, handle: Handle, data_only: bool) -> Result<(), Error>;

    /// The last descriptor of this open is closed, and the last page of a mapping written. Nobody hears how it went.
    fn release(&self, node: Node, handle: Handle);

    /// Opens a directory.
    ///
    /// # Errors
    /// [`Error::NotImplemented`] as for [`open`](FileSystem::open).
    fn opendir(&self, node: Node) -> Result<Opened, Error>;

    /// Gives the lines of a directory from `offset` on (0: from the beginning; else the [`next`](DirectoryEntry::next) of a
    /// line), until there are no more or `take` says that it did not take one. With `entries` each line has its entry, and
    /// what was taken is remembered.
    ///
    /// A name that is there from the first part of a listing to the last comes exactly once, whatever else comes and goes.
    fn readdir(
        &self,
        node: Node,
        handle: Handle,
        offset: u64,
        entries: bool,
        take: &mut dyn FnMut(&DirectoryEntry<'_>) -> bool,
    ) -> Result<(), Error>;

    /// Closes a directory.
    fn releasedir(&self, node: Node, handle: Handle);

    /// Returns when the names of the directory survive a crash.
    fn fsyncdir(&self, node: Node, handle: Handle) -> Result<(), Error>;

    /// How much there is.
    fn statfs(&self) -> Result<Space, Error>;

    /// The value of an extended attribute.
    fn getxattr(&self, node: Node, name: &[u8]) -> Result<Vec<u8>, Error>;

    /// The names of the extended attributes.
    fn listxattr(&self, node: Node) -> Result<Vec<Vec<u8>>, Error>;

    /// Sets an extended attribute.
    fn setxattr(&self, node: Node, name: &[u8], value: &[u8], how: SetAttribute) -> Result<(), Error>;

    /// Takes an extended attribute away.
    fn removexattr(&self, node: Node, name: &[u8]) -> Result<(), Error>;

    /// Makes or takes room for a part of a file.
    fn fallocate(
        &self,
        node: Node,
        handle: Handle,
        offset: u64,
        size: u64,
        how: Allocation,
    ) -> Result<(), Error>;

    /// Finds data or holes.
    ///
    /// # Errors
    /// [`Error::NothingThere`]: the offset is at or behind the end, or there is no data behind it.
    fn lseek(&self, node: Node, handle: Handle, offset: u64, what: Seek) -> Result<u64, Error>;
}
