//! What the subcommands need of the program they are part of: the system to talk to, and the terminal they talk on.
//!
//! The binary implements [`System`] over the world `linux`; tests implement it with fakes. The subcommands make no
//! system call of their own but through `std::fs`, `std::io` and `std::env`.

use std::any::Any;
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use amoeba_cap::Capability;
use amoeba_threads::Threads;
use amoeba_world::World;
use serde::Serialize;

use crate::diagnosis::Diagnosis;
use crate::keeping::{Restoring, Secrets};
use crate::mounting::Mounting;
use crate::staying::Staying;

/// What to do when no system runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Fail, and say how to start one.
    Never,
    /// Start a private one-host system, and leave it running.
    IfNeeded,
}

/// How `amoeba up` is to start the system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UpOptions {
    /// Stay, supervise, and end with the first SIGINT or SIGTERM, instead of leaving a supervisor behind.
    pub foreground: bool,
}

/// What `amoeba dev` is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DevOptions {
    /// How many hosts, at least one.
    pub hosts: usize,
    /// On the loopback interface, also where network namespaces are possible.
    pub loopback: bool,
    /// What the wire between the hosts does to frames, as text; `None`: a bridge instead of such a wire.
    pub faults: Option<String>,
    /// The command and its arguments; empty for the user's shell.
    pub command: Vec<OsString>,
}

/// How this host is to join a system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinOptions {
    /// The token that somebody of the system has made.
    pub token: String,
    /// What this host is to be called; else as the machine is.
    pub name: Option<String>,
    /// Where this host is to listen for others: `ADDRESS:PORT`.
    pub listen: Option<String>,
}

/// The system that this host has joined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinedSystem {
    /// What this host is called there.
    pub name: String,
    /// The host that has let it in.
    pub inviter: String,
    /// Where it listens for the others: `ADDRESS:PORT`.
    pub listen: String,
}

/// How another host is invited.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InviteOptions {
    /// How long the token is good.
    pub time: Duration,
    /// What the new host is to be called; else as it likes.
    pub name: Option<String>,
    /// Where this host is to listen for others, if it does not yet: `ADDRESS:PORT`.
    pub listen: Option<String>,
}

/// An invitation that was just made. Its token is a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Invited {
    /// Its number, which is no secret.
    pub id: String,
    /// What the new host needs.
    pub token: String,
    /// What that host is to be called.
    pub name: Option<String>,
    /// How long the token is good.
    pub time: Duration,
    /// Where the new host will look for this one.
    pub addresses: Vec<String>,
}

/// An invitation, without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Invitation {
    /// Its number.
    pub id: String,
    /// What the new host is to be called.
    pub name: Option<String>,
    /// What has become of it.
    #[serde(flatten)]
    pub state: InvitationState,
}

/// What has become of an invitation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum InvitationState {
    /// It waits for a host.
    Open {
        /// For so long.
        seconds: u64,
    },
    /// A host has joined with it.
    Used {
        /// Which.
        host: String,
    },
    /// Its time is over.
    Expired,
    /// It was taken back.
    Revoked,
}

/// A connection to a running system, with the capabilities that everything else is reached by.
pub struct Session {
    /// Threads, clock, randomness and transactions of this process.
    pub world: World,
    /// The user's root directory.
    pub root: Capability,
    /// The same as processes get it that see no host's files, if it is kept: else it is asked for when it is needed.
    pub confined_root: Option<Capability>,
    /// This host's directory, with the entries `proc`, `ps`, `sys`, `random` and `tod`.
    pub host: Capability,
    /// What this host is called.
    pub host_name: String,
    /// Whether processes of this host run as the user of this program, so that they may see the same files.
    pub is_own: bool,
    /// Whether no other host can belong to the system, so that nobody need be asked.
    pub alone: bool,
}

/// A system, as the subcommands see it.
pub trait System {
    /// Connects to the system.
    ///
    /// # Errors
    /// None runs and `start` says to start none, or it cannot be started, or its state cannot be read.
    fn connect(&self, start: Start) -> anyhow::Result<Session>;
    /// Starts the system, unless it runs, and returns when all its servers answer.
    ///
    /// # Errors
    /// A server does not start; the error says which, and where its log is.
    fn up(&self, options: &UpOptions) -> anyhow::Result<ExitCode>;
    /// Makes this host one of a system that is there already, starts it, and returns when it answers.
    ///
    /// # Errors
    /// This host belongs to a system already, the host that invited it does not answer, or it refuses.
    fn join(&self, options: &JoinOptions) -> anyhow::Result<JoinedSystem>;
    /// Makes a token for another host, starts the system if it does not run, and opens the way to other hosts.
    ///
    /// # Errors
    /// Nobody can be reached here, or too many are invited.
    fn invite(&self, options: &InviteOptions) -> anyhow::Result<Invited>;
    /// The invitations of this host.
    ///
    /// # Errors
    /// The state cannot be read.
    fn invitations(&self) -> anyhow::Result<Vec<Invitation>>;
    /// Takes an invitation back.
    ///
    /// # Errors
    /// There is none of this number, or it was used.
    fn revoke(&self, id: &str) -> anyhow::Result<()>;
    /// Stops the system and returns when nothing of it runs. Nothing to stop is no error.
    ///
    /// # Errors
    /// Something still runs.
    fn down(&self) -> anyhow::Result<()>;
    /// What runs and what does not.
    ///
    /// # Errors
    /// The state cannot be read. A system that does not run is no error.
    fn status(&self) -> anyhow::Result<SystemStatus>;
    /// Makes throw-away hosts, runs a command among them, and returns its exit code when nothing of them is left.
    ///
    /// # Errors
    /// A host does not start, or something is left.
    fn dev(&self, options: &DevOptions) -> anyhow::Result<ExitCode>;
    /// What this host knows of its own services.
    ///
    /// # Errors
    /// The state cannot be read: it is another user's, or this is a process of the system.
    fn secrets(&self) -> anyhow::Result<Secrets>;
    /// Begins to make a system of an archive, where there is none.
    ///
    /// # Errors
    /// There is one, which is never touched.
    fn restore(&self) -> anyhow::Result<Box<dyn Restoring>>;
    /// Threads of this process, also where no system runs.
    fn threads(&self) -> Threads;
    /// Whether a job should run here at once, and what it is to hold on to while it does; see [`Turn`].
    fn turn(&self) -> Turn {
        Turn::Here(None)
    }
    /// What looks for faults on this host, where there is any.
    fn diagnosis(&self) -> Option<&dyn Diagnosis> {
        None
    }
    /// What mounts on this host, where anything can be mounted.
    fn mounting(&self) -> Option<&dyn Mounting> {
        None
    }
    /// What lets commands stay behind in the background, where they can.
    fn staying(&self) -> Option<&dyn Staying> {
        None
    }
    /// The terminal, if there is one, and the signals.
    fn console(&self) -> &dyn Console;
}

/// What a host says to a job that could run on it, or elsewhere. A slot counts as taken until it is dropped, or, when this
/// process has become another program, until that one and all its children have ended.
pub enum Turn {
    /// Run here: a processor is free, or there is nobody else who could do it.
    Here(Option<Slot>),
    /// Ask where.
    Ask {
        /// What runs here now, as far as slots tell.
        busy: u32,
        /// What it takes to run here all the same; none where too many run to be counted.
        slot: Option<Slot>,
    },
}

/// A place among the jobs of a host.
pub type Slot = Box<dyn Any + Send>;

/// Whose system it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SystemKind {
    /// The host's, run by root for everybody.
    Root,
    /// One user's own.
    Private,
}

/// How a system is doing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SystemStatus {
    /// Whether it runs: the kernel daemon answers.
    pub running: bool,
    /// Whose it is.
    pub kind: SystemKind,
    /// Where it keeps its state.
    pub state_directory: PathBuf,
    /// What this host is called.
    pub host: String,
    /// Its daemons, those that do not run now too.
    pub daemons: Vec<DaemonStatus>,
    /// What somebody should look at, a sentence each; empty when all is well.
    pub attention: Vec<String>,
}

/// One daemon of a system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DaemonStatus {
    /// `supervisor`, `kernel`, `bullet`, `directory`, `process`.
    pub role: String,
    /// Its process on this host, `None` while it does not run.
    pub pid: Option<u32>,
    /// When it was started: seconds since 1970-01-01 00:00 UTC. Programs see it as all times: `2026-11-21T22:44:17Z`.
    #[serde(serialize_with = "crate::shown::serialize_time")]
    pub since: Option<u64>,
    /// How often the supervisor had to start it again.
    pub restarts: u32,
}

/// One of the three streams that every program has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standard {
    /// Standard input.
    Input,
    /// Standard output.
    Output,
    /// Standard error.
    Error,
}

/// The terminal and the signals of this process.
pub trait Console: Send + Sync {
    /// Whether a stream is a terminal.
    fn is_terminal(&self, stream: Standard) -> bool;
    /// Rows and columns of the terminal; `None` when there is none.
    fn size(&self) -> Option<(u16, u16)>;
    /// Hands every key to this program as it is typed, signs of control too. Dropping the guard puts the terminal
    /// back as it was.
    ///
    /// # Errors
    /// Standard input is no terminal.
    fn raw_mode(&self) -> io::Result<Box<dyn Any + Send>>;
    /// Catches these signals from now on, for as long as the process runs; what they used to do no longer happens.
    ///
    /// # Errors
    /// A signal that cannot be caught.
    fn signals(&self, numbers: &[i32]) -> io::Result<Box<dyn Signals>>;
    /// Stops this process as an uncaught SIGTSTP would; returns when it is continued.
    fn suspend(&self);
}

/// Signals as they arrive.
pub trait Signals: Send {
    /// Waits for the next one. `None`: no more will come.
    fn next(&mut self) -> Option<i32>;
}
