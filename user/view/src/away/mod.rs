//! The end of the host where a process runs: its caller's files as a file system for a mount.
//!
//! - [`visible`]: what is shown and how long it is believed, start here; [`beginning`]: what of that the next process may believe;
//!   [`operations`]: the same as operations of a mount; [`nodes`]: what the mount's kernel remembers.
//! - [`contents`]: how bytes are had, [`store`]: where they are kept.
//! - [`writing`]: changes, [`scratch`]: a file that is being written, [`outbox`]: changes on their way.
//! - [`source`]: whom to ask.
//!
//! **The caller is not trusted** with anything but his own processes: what he says is looked at as any input is, and what
//! was fetched for him is found by nobody else but by what it holds.

mod beginning;
mod contents;
mod nodes;
mod operations;
mod outbox;
mod scratch;
mod source;
mod store;
mod visible;
mod writing;

pub use beginning::{REVALIDATED_MAX, begin};
pub use source::PATIENCE;
pub use store::Store;
pub use visible::{BELIEVED, Owner, Visible};
