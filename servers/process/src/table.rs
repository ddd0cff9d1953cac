//! The process table: every guest that runs, and the last that have ended.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use amoeba_cap::{Capability, CheckField, ObjectNumber, Rights};
use amoeba_server::Pending;
use amoeba_stubs::process::{self, COMMENT_SIZE_MAX, ExitRecord, ResultRecord, RunReply};
use amoeba_wire::Status;

use crate::owner::Mailbox;
use crate::{Exit, Guest, Limits};

/// The most processes that run at once. One more is STD_NOMEM.
pub const PROCESSES_MAX: usize = 4096;
/// How many processes are remembered after their end; then the one that ended first is forgotten.
pub const REMEMBERED_MAX: usize = 256;
/// The most clients that wait for one process. For one more the one that has waited longest is told STD_NOSPACE: a
/// client that has died leaves its place only so.
pub const WAITERS_MAX: usize = 1024;

/// 'P' in bits 16 to 23 of an object number.
const PROCESS_TYPE: u32 = 0x50 << 16;

/// The object number of the process at `index`.
pub(crate) fn object_of(index: u16) -> ObjectNumber {
    ObjectNumber::new(PROCESS_TYPE | u32::from(index)).expect("type and index have 24 bits")
}

/// The index of an object number, if it is that of a process.
pub(crate) fn index_of(object: ObjectNumber) -> Option<u16> {
    let (kind, index) = (object.get() & !0xFFFF, object.get() & 0xFFFF);
    if kind == PROCESS_TYPE { u16::try_from(index).ok() } else { None }
}

/// Where a process is in its life. Draw it so:
///
/// ```text
/// Starting -> Running -> Stunning -> Stunned -> Resuming -> Running
///     any of these -> Exited
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Its program is being fetched.
    Starting,
    /// It runs.
    Running,
    /// One thread of the server is stopping it.
    Stunning,
    /// It stands still.
    Stunned,
    /// One thread of the server is continuing it.
    Resuming,
    /// It has ended.
    Exited,
}

impl State {
    /// Its number in a list.
    pub(crate) fn number(self) -> u8 {
        match self {
            State::Starting => process::STATE_STARTING,
            State::Running | State::Stunning | State::Resuming => process::STATE_RUNNING,
            State::Stunned => process::STATE_STUNNED,
            State::Exited => process::STATE_EXITED,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            State::Starting => "starting",
            State::Running | State::Stunning | State::Resuming => "running",
            State::Stunned => "stunned",
            State::Exited => "ended",
        }
    }
}

/// Who started a process and has not been answered.
pub(crate) enum Starter {
    /// Hears when the program runs.
    Exec(Pending<Capability>),
    /// Hears when the process has ended.
    Run(Pending<RunReply>),
}

impl Starter {
    /// The program does not run.
    pub(crate) fn refuse(self, status: Status) {
        match self {
            Starter::Exec(exec) => exec.send(Err(status)),
            Starter::Run(run) => run.send(Err(status)),
        }
    }
}

/// One process.
pub(crate) struct Process {
    pub(crate) random: CheckField,
    pub(crate) state: State,
    pub(crate) architecture: Vec<u8>,
    pub(crate) owner: Capability,
    /// Whether the owner hears of the end because it waits for it.
    pub(crate) awaited: bool,
    pub(crate) detached: bool,
    pub(crate) limits: Limits,
    pub(crate) network: bool,
    /// What it sees as its file tree, as a list says it.
    pub(crate) view: u8,
    pub(crate) comment: Vec<u8>,
    /// Time of day.
    pub(crate) started_at: Duration,
    pub(crate) ended_at: Duration,
    /// `None` while the host has not answered, and after the end.
    pub(crate) guest: Option<Arc<dyn Guest>>,
    pub(crate) exit: Option<Exit>,
    /// Why the rest of its output is not in its log.
    pub(crate) output_lost: Option<String>,
    /// The duty to answer whoever started it.
    pub(crate) starter: Option<Starter>,
    pub(crate) waiters: VecDeque<Pending<ExitRecord>>,
    /// What is to be told to the owner; `None` as long as there never was one.
    pub(crate) mailbox: Option<Arc<Mailbox>>,
    /// How often it was stunned: tells an answer to an earlier stun from one to this.
    pub(crate) stuns: u64,
}

impl Process {
    /// Whether who has these rights to the server may have its capability. The output of a process that sees the host's files,
    /// and what it leaves, may be such files.
    pub(crate) fn is_for(&self, rights: Rights) -> bool {
        self.view != process::VIEW_HOST || rights.contains(process::HOST)
    }

    /// What a list says of it: the comment, and whether output was lost.
    pub(crate) fn shown(&self) -> Vec<u8> {
        let mut shown = self.comment.clone();
        if let Some(reason) = &self.output_lost {
            let mut mark = format!(" [output lost: {reason}]");
            while mark.len() > COMMENT_SIZE_MAX / 2 {
                mark.pop();
            }
            shown.truncate(COMMENT_SIZE_MAX - mark.len());
            shown.extend(mark.bytes());
        }
        shown
    }
}

/// Why the table takes no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full;

/// See the module.
pub(crate) struct Table {
    processes: BTreeMap<u16, Process>,
    ended: VecDeque<u16>,
    next: u16,
}

impl Table {
    /// A table whose first process has the number after `last`.
    pub(crate) fn after(last: u16) -> Table {
        Table { processes: BTreeMap::new(), ended: VecDeque::new(), next: last }
    }

    pub(crate) fn get(&self, index: u16) -> Option<&Process> {
        self.processes.get(&index)
    }

    pub(crate) fn get_mut(&mut self, index: u16) -> Option<&mut Process> {
        self.processes.get_mut(&index)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u16, &Process)> {
        self.processes.iter().map(|(index, process)| (*index, process))
    }

    /// Processes that have not ended.
    pub(crate) fn live(&self) -> usize {
        self.processes.len() - self.ended.len()
    }

    /// Processes that have ended and are remembered.
    pub(crate) fn remembered(&self) -> usize {
        self.ended.len()
    }

    /// Adds a process under an index that has not been used for as long as possible.
    pub(crate) fn insert(&mut self, process: Process) -> Result<u16, Full> {
        if self.live() >= PROCESSES_MAX {
            return Err(Full);
        }
        loop {
            self.next = self.next.checked_add(1).unwrap_or(1);
            // Ends: the bounds of the table are far below the number of indexes.
            if !self.processes.contains_key(&self.next) {
                self.processes.insert(self.next, process);
                return Ok(self.next);
            }
        }
    }

    /// Forgets a process at once.
    pub(crate) fn remove(&mut self, index: u16) -> Option<Process> {
        self.ended.retain(|ended| *ended != index);
        self.processes.remove(&index)
    }

    /// The process has ended: remembers it, and gives the index of one that is forgotten for it.
    pub(crate) fn remember(&mut self, index: u16) -> Option<u16> {
        self.ended.push_back(index);
        if self.ended.len() <= REMEMBERED_MAX {
            return None;
        }
        let forgotten = self.ended.pop_front()?;
        self.processes.remove(&forgotten);
        Some(forgotten)
    }
}
const _: () = assert!(PROCESSES_MAX + REMEMBERED_MAX < u16::MAX as usize);
const _: () = assert!(PROCESSES_MAX + REMEMBERED_MAX <= process::LIST_MAX);
const _: () = assert!(crate::SCRATCH_FILES_MAX == process::RESULTS_MAX);

/// The record of an end, as it travels.
pub(crate) fn exit_record(exit: &Exit) -> ExitRecord {
    let mut reason = exit.reason.replace('\0', " ");
    while reason.len() > process::REASON_SIZE_MAX {
        reason.pop();
    }
    ExitRecord {
        status: exit.status.0,
        code: exit.code,
        signal: exit.signal,
        core_dumped: exit.core_dumped,
        user_microseconds: microseconds(exit.user_time),
        system_microseconds: microseconds(exit.system_time),
        reason: reason.into_bytes(),
        results: exit
            .results
            .iter()
            .take(process::RESULTS_MAX)
            .map(|(name, file)| ResultRecord { name: name.clone(), file: *file })
            .collect(),
    }
}

pub(crate) fn microseconds(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
