//! What a file system says of its nodes.

use std::time::Duration;

/// The number of a node: a file, a directory, a symbolic link. It stays the node's as long as somebody remembers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Node(pub u64);

impl Node {
    /// The directory that is mounted.
    pub const ROOT: Node = Node(1);
}

/// On whose behalf an operation is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// User number.
    pub user: u32,
    /// Group number.
    pub group: u32,
    /// Process number, 0 where it is not known.
    pub process: u32,
}

/// A moment, in nanoseconds' resolution; also before 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time {
    /// Seconds since 1970-01-01 00:00 UTC, rounded down.
    pub seconds: i64,
    /// And so many nanoseconds; below a thousand million.
    pub nanoseconds: u32,
}

impl From<Duration> for Time {
    fn from(since_1970: Duration) -> Time {
        let seconds = i64::try_from(since_1970.as_secs()).unwrap_or(i64::MAX);
        Time { seconds, nanoseconds: since_1970.subsec_nanos() }
    }
}

/// What sort of thing a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Bytes.
    File,
    /// Names.
    Directory,
    /// A path in place of another.
    SymbolicLink,
    /// A named pipe; its bytes are the host's business.
    Pipe,
    /// A named socket; likewise.
    Socket,
    /// A device of characters, by its number.
    CharacterDevice,
    /// A device of blocks, by its number.
    BlockDevice,
}

/// What `stat` tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attributes {
    /// The node.
    pub node: Node,
    /// What it is.
    pub kind: Kind,
    /// Permissions with set-id and sticky bits: the lower twelve bits of a mode.
    pub permissions: u16,
    /// Names it has.
    pub links: u32,
    /// Owner.
    pub user: u32,
    /// Group.
    pub group: u32,
    /// Number of the device, for devices.
    pub device: u32,
    /// Bytes.
    pub size: u64,
    /// Bytes that it takes up.
    pub allocated: u64,
    /// When it was last read.
    pub accessed: Time,
    /// When its contents last changed.
    pub modified: Time,
    /// When contents or attributes last changed.
    pub changed: Time,
}

/// What a name stands for, and how long that may be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The node and what it is.
    pub attributes: Attributes,
    /// Tells nodes apart that had the same number one after the other.
    pub generation: u64,
    /// How long the name stands for this node without asking again, unless the [`crate::Notifier`] says otherwise.
    pub name_lifetime: Duration,
    /// How long the attributes hold.
    pub attributes_lifetime: Duration,
}

/// A new time of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeTime {
    /// The file system's present.
    Now,
    /// This one.
    To(Time),
}

/// What `setattr` changes; what is `None` stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Permissions, as in [`Attributes::permissions`].
    pub permissions: Option<u16>,
    /// Owner.
    pub user: Option<u32>,
    /// Group.
    pub group: Option<u32>,
    /// Cut to this, or lengthened with zeros.
    pub size: Option<u64>,
    /// Last read.
    pub accessed: Option<ChangeTime>,
    /// Last modified.
    pub modified: Option<ChangeTime>,
}

/// One line of a directory.
#[derive(Clone, Copy, Debug)]
pub struct DirectoryEntry<'a> {
    /// The name.
    pub name: &'a [u8],
    /// Its node.
    pub node: Node,
    /// What that is.
    pub kind: Kind,
    /// Where a listing goes on behind this line.
    pub next: u64,
    /// Everything of it, where the listing was asked for that. `.` and `..` never have it.
    pub entry: Option<&'a Entry>,
}

/// How much there is in a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Bytes of a block, in which the next three are counted.
    pub block_size: u32,
    /// Blocks in all.
    pub blocks: u64,
    /// Blocks that are free.
    pub blocks_free: u64,
    /// Nodes that there may be.
    pub nodes: u64,
    /// Nodes that there may be still.
    pub nodes_free: u64,
}
