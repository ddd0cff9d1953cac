//! What every world promises. `linux` and `sim` call the same functions from their tests, so that a server that works
//! in one works in the other.
//!
//! Each function panics where the promise is broken. No function asserts how long something took.
#![forbid(unsafe_code)]

mod disk;
mod memory;
mod threads;
mod transactions;

pub use disk::{a_disk_keeps_its_bytes, a_disk_refuses_what_lies_beyond_its_end};
pub use memory::memory_files_keep_their_promises;
pub use threads::threads_keep_their_promises;
pub use transactions::transactions_keep_their_promises;
