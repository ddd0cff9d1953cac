//! World one: real processes on Linux.
//!
//! Threads of the operating system, its clocks and randomness, disks in image files or on block devices, and
//! transactions over a Unix socket through the kernel daemon of the host. All system calls and all `unsafe` of the
//! system lie here; nothing here knows what a server does.
//!
//! - [`connect`] gives a program its [`World`]; [`threads()`], [`clock()`], [`entropy`] give the parts that need no kernel.
//! - [`FileDisk`] is a [`amoeba_world::Disk`] in a file or on a block device.
//! - [`socket`] describes the bytes between a process and its kernel, [`client`] is the process's end,
//!   [`kernel`] the daemon's; [`link`] is what carries packets between daemons.
//! - `look` is how an end waits for another: it spins, gives way, sleeps.
//! - [`facts`] is what this machine is and allows.
//! - [`lock`] says which process is the one, [`host`] ends processes and keeps descriptors from them.
//! - [`slots`] counts the jobs that run on this host's processors.
//! - [`netns`] and [`family`] are for throw-away hosts: a network of their own, and no process that stays behind.

mod channel;
pub mod client;
mod clock;
mod disk;
pub mod facts;
pub mod family;
mod flow;
mod fork;
pub mod fuse;
pub mod guest;
pub mod host;
pub mod kernel;
mod lent;
pub mod link;
pub mod lock;
mod look;
pub mod memory;
pub mod netns;
mod packet;
mod place;
pub mod slots;
pub mod socket;
pub mod terminal;
mod threads;

use std::path::Path;
use std::sync::Arc;

use amoeba_world::{Clock, Entropy, Threads, World};

pub use clock::{OsEntropy, WallClock};
pub use disk::{FileDisk, OpenError};
pub use place::{HOST_STATE, Place, given_environment};
pub use threads::{OsThreads, THREADS_MAX};

/// Threads of the operating system.
pub fn threads() -> Threads {
    Threads::new(Arc::new(OsThreads))
}

/// The host's time of day.
pub fn clock() -> Arc<dyn Clock> {
    Arc::new(WallClock)
}

/// The operating system's randomness.
pub fn entropy() -> Arc<dyn Entropy> {
    Arc::new(OsEntropy)
}

/// The world of a process whose kernel daemon listens, or will listen, on `socket`.
///
/// Nothing is connected yet: the first transaction does that, so that a program may start before its kernel.
pub fn connect(socket: &Path) -> World {
    World {
        threads: threads(),
        clock: clock(),
        entropy: entropy(),
        transactions: Arc::new(client::Client::new(socket)),
    }
}
