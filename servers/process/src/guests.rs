//! What the process server needs of its host: [`Guests`] starts processes, a [`Guest`] is one of them.
//!
//! The server itself makes no system call: `linux` implements these traits with shepherds, tests with fakes.

use std::sync::Arc;
use std::time::Duration;

use amoeba_cap::Capability;
use amoeba_wire::Status;

use crate::status::NOVIEW;
use crate::{Enforced, ProcessDescriptor, WindowSize};

/// How a process ended, or why it never ran.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    /// STD_OK when it ran; otherwise why it did not: a status of the process class.
    pub status: Status,
    /// The exit code as a shell would give it: the process's own, 128 + signal, 127 or 126 when it never ran.
    pub code: u8,
    /// The signal that ended it, 0 for none.
    pub signal: u8,
    /// Whether it left a core dump on its host.
    pub core_dumped: bool,
    /// Processor time in its own code, with all its children's.
    pub user_time: Duration,
    /// Processor time in the host's kernel, with all its children's.
    pub system_time: Duration,
    /// One sentence for people when `status` is an error, or when it ran and met a limit; else empty.
    pub reason: String,
    /// Names of the files that were wanted of its scratch directory and were there at its end, and where they are
    /// stored; a null capability for one that could not be stored.
    pub results: Vec<(Vec<u8>, Capability)>,
}

impl Default for Exit {
    /// A process that ran and ended well.
    fn default() -> Exit {
        Exit {
            status: Status::STD_OK,
            code: 0,
            signal: 0,
            core_dumped: false,
            user_time: Duration::ZERO,
            system_time: Duration::ZERO,
            reason: String::new(),
            results: Vec::new(),
        }
    }
}

impl Exit {
    /// The end of a process that never ran, with the exit code a shell would give.
    pub fn not_started(status: Status, code: u8, reason: String) -> Exit {
        Exit { status, code, reason, ..Exit::default() }
    }
}

/// What the host can do and how busy it is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HostLoad {
    /// Processors that guests may use.
    pub cpus: u32,
    /// Runnable processes, averaged over a minute.
    pub load: f64,
    /// Bytes of memory that can still be given to processes.
    pub memory_free: u64,
    /// Bytes of memory.
    pub memory_total: u64,
    /// Speed of one processor in thousands of instructions a second, as the host estimates it.
    pub kips: u32,
}

/// A process to be started.
#[derive(Clone, Debug)]
pub struct Spec {
    /// What is to run; its `process` is the capability it has.
    pub descriptor: ProcessDescriptor,
    /// Names its log among the server's: the object number, unique among live and remembered processes.
    pub index: u16,
}

/// The host would not do it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GuestError {
    /// The host has no room for another process.
    #[error("the host cannot start another process: {0}")]
    NoRoom(String),
    /// The host shows nobody the file tree that was asked for.
    #[error("the host cannot show its file tree: {0}")]
    NoView(String),
    /// The process has ended.
    #[error("the process has ended")]
    Gone,
    /// Some of its processes could not be stopped in time; it runs on.
    #[error("the process could not be stopped in time")]
    NotStopped,
    /// The host failed inside.
    #[error("the host failed: {0}")]
    Failed(String),
}

impl GuestError {
    /// The status that a client hears.
    pub fn status(&self) -> Status {
        match self {
            GuestError::NoRoom(_) => Status::STD_NOMEM,
            GuestError::NoView(_) => NOVIEW,
            GuestError::Gone | GuestError::NotStopped => Status::STD_NOTNOW,
            GuestError::Failed(_) => Status::STD_SYSERR,
        }
    }
}

/// Hears what becomes of a guest. Called at most once each; `started` first unless the guest never ran, `exited` last.
pub trait Events: Send + Sync {
    /// The program runs.
    fn started(&self);
    /// The rest of a detached process's output is lost, for this reason.
    fn output_lost(&self, reason: &str);
    /// Everything the process was has ended, and its output has been delivered.
    fn exited(&self, exit: Exit);
}

/// A running process, with everything it started.
pub trait Guest: Send + Sync {
    /// The host's number of its first process, 0 while unknown.
    fn pid(&self) -> u32;
    /// Processor time so far, in its own code and in the host's kernel.
    fn times(&self) -> (Duration, Duration);
    /// Sends it a signal, 1 to 64. Signal 9 ends the whole tree.
    ///
    /// # Errors
    /// [`GuestError::Gone`].
    fn signal(&self, number: u8) -> Result<(), GuestError>;
    /// Stops every process of the tree, and returns when all have stopped.
    ///
    /// # Errors
    /// [`GuestError::NotStopped`], [`GuestError::Gone`].
    fn freeze(&self) -> Result<(), GuestError>;
    /// Lets them run on.
    ///
    /// # Errors
    /// [`GuestError::Gone`].
    fn thaw(&self) -> Result<(), GuestError>;
    /// Its terminal has a new size. Without a terminal nothing happens.
    ///
    /// # Errors
    /// [`GuestError::Gone`].
    fn resize(&self, window: WindowSize) -> Result<(), GuestError>;
}

/// The processes of a host.
pub trait Guests: Send + Sync {
    /// CPU type and system of what this host executes, as in `x86_64-linux`.
    fn architecture(&self) -> &str;
    /// Whether the processors have this option.
    fn has_option(&self, option: &[u8]) -> bool;
    /// Which limits it can enforce; none, unless it says so.
    fn enforced(&self) -> Enforced {
        Enforced::default()
    }
    /// How busy the host is.
    fn load(&self) -> HostLoad;
    /// Starts a process; `events` hears how that goes, perhaps before this returns.
    ///
    /// # Errors
    /// [`GuestError::NoRoom`], [`GuestError::NoView`], [`GuestError::Failed`]; then `events` hears nothing.
    fn start(&self, spec: Spec, events: Arc<dyn Events>) -> Result<Arc<dyn Guest>, GuestError>;
    /// Up to `size` bytes of a detached process's log from `offset`, and whether that is the end for now. Empty for
    /// a process that has none.
    fn read_log(&self, index: u16, offset: u64, size: u32) -> (Vec<u8>, bool);
    /// The process is forgotten: its log may go.
    fn forget(&self, index: u16);
}
