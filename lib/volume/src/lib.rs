//! What a mount serves: numbered nodes, and the operations over them.
//!
//! A [`FileSystem`] is what the kernel of Linux asks of a file system of a user, without the kernel: no descriptors of the
//! system, no threads and no clock of its own. `linux/fuse` puts one into the tree of files of a host; a test, or the
//! simulated world, calls its operations itself.
//!
//! - [`FileSystem`]: the operations, and what the caller promises. Start here.
//! - [`Attributes`], [`Entry`], [`Opened`]: what they answer; [`Error`]: how they refuse.
//! - [`Notifier`]: what a file system may tell its mount without being asked. [`Writers`]: what it may ask of its host, where
//!   opens are no operations.
//! - [`Places`]: a file system with room for others in its root.
//! - [`MemoryFileSystem`]: one that keeps everything in memory: for tests, and as the ceiling that others are measured by.
#![forbid(unsafe_code)]

mod attributes;
mod error;
mod file_system;
mod memory;
mod places;
mod writers;

pub use attributes::{
    Attributes, Caller, Change, ChangeTime, DirectoryEntry, Entry, Kind, Node, Space, Time,
};
pub use error::Error;
pub use file_system::{
    Allocation, Cached, FileSystem, Handle, Notifier, OpenMode, Opened, Rename, Seek, SetAttribute,
};
pub use memory::{FILE_SIZE_MAX, LINKS_MAX, MemoryFileSystem};
pub use places::Places;
pub use writers::{Closed, NoWriters, Writers};

/// The longest name of a directory entry, in bytes.
pub const NAME_SIZE_MAX: usize = 255;
/// The longest text of a symbolic link, in bytes.
pub const LINK_TEXT_SIZE_MAX: usize = 4095;
/// The largest value of an extended attribute, in bytes; Linux's own bound.
pub const ATTRIBUTE_SIZE_MAX: usize = 1 << 16;
