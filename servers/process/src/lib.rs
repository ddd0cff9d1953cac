//! The process server and the process descriptor.
//!
//! - `descriptor`: [`ProcessDescriptor`], a process as data; `classic` the original's head of one.
//! - [`Limits`]: how much of its host a process may use, and what a host can enforce.
//! - `guests`: what the server needs of its host, as traits. `linux` implements them with shepherds.
//! - `view`: [`View`], the file tree of a process.
//! - `server`: [`ProcessServer`], the class `process`; `table` its processes; `owner` what their owners hear.
//! - [`status`]: why a process did not run.
//!
//! **Recovery.** The server keeps nothing on disk. When it dies its shepherds end their guests, because a guest that
//! nobody can name any more is an orphan; a restarted server has an empty table and, given the same secret, the same
//! super capability. Who waited hears "maybe executed".
#![forbid(unsafe_code)]

mod classic;
mod descriptor;
mod guests;
mod limits;
mod owner;
mod server;
pub mod status;
mod table;
mod view;

pub use classic::{ClassicHead, HEAD_SIZE};
pub use descriptor::*;
pub use guests::{Events, Exit, Guest, GuestError, Guests, HostLoad, Spec};
pub use limits::{CPU_THOUSANDTHS_PER_CPU, Enforced, Limits, PROCESSES_DEFAULT};
pub use owner::{
    HANG_UP_TIME, OWNER_ANSWER_TIMEOUT, OWNER_ATTEMPTS, OWNER_LOCATE_TIMEOUT, OWNER_LOOK_INTERVAL,
    OWNER_MISSES_MAX,
};
pub use server::{CONFINED, ProcessServer};
pub use table::{PROCESSES_MAX, REMEMBERED_MAX, WAITERS_MAX};
pub use view::{Mine, Tree, VIEW_PATH_SIZE_MAX, VIEW_TREES_MAX, View, is_tree_path};
