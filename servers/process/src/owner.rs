//! What the owner of a process is told, and what its answer does.
//!
//! Every process that has, or once had, an owner has a thread of its own for this, so that an owner that does not
//! answer delays nobody. The same thread looks now and then whether the owner is still there: a process whose owner
//! is gone, and that was not started to run alone, is hung up and then ended.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use amoeba_cap::Capability;
use amoeba_stubs::{Client, owner, standard};
use amoeba_threads::{Condition, Mutex, Threads};
use amoeba_wire::Status;
use amoeba_world::{Error, TransOptions};

use crate::server::ProcessServer;
use crate::{ClassicHead, Exit};

/// How long an owner is searched for, each time.
pub const OWNER_LOCATE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an owner may take to answer, each time; also how long it may take to say that it is there.
pub const OWNER_ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// How often an owner is told the same before it counts as gone.
pub const OWNER_ATTEMPTS: usize = 3;
/// How often we look whether the owner is still there.
pub const OWNER_LOOK_INTERVAL: Duration = Duration::from_secs(10);
/// How many looks in a row must fail before the process is hung up.
pub const OWNER_MISSES_MAX: usize = 3;
/// How long a process may live on after it was hung up.
pub const HANG_UP_TIME: Duration = Duration::from_secs(5);
/// The most notices that wait for one owner; past it the oldest is dropped, because a later one tells more.
const NOTICES_MAX: usize = 8;

const SIGNAL_HANG_UP: u8 = 1;
const SIGNAL_KILL: u8 = 9;

/// What happened to a process.
#[derive(Clone, Debug)]
pub(crate) enum Notice {
    /// It was stunned with this code; the second number says which of its stuns this is.
    Stunned(i32, u64),
    /// It has ended.
    Exited(Exit),
}

/// The notices of one process, on their way to its owner's thread.
pub(crate) struct Mailbox {
    notices: Mutex<VecDeque<Notice>>,
    came: Condition,
}

impl Mailbox {
    pub(crate) fn new(threads: &Threads) -> Arc<Mailbox> {
        Arc::new(Mailbox { notices: Mutex::new(threads, VecDeque::new()), came: Condition::new(threads) })
    }

    pub(crate) fn post(&self, notice: Notice) {
        let mut notices = self.notices.lock();
        if notices.len() == NOTICES_MAX {
            notices.pop_front();
        }
        notices.push_back(notice);
        drop(notices);
        self.came.notify_one();
    }

    /// The next notice, `None` when none came for a while.
    fn take(&self, threads: &Threads) -> Option<Notice> {
        let deadline = threads.now() + OWNER_LOOK_INTERVAL;
        let mut notices = self.notices.lock();
        loop {
            if let Some(notice) = notices.pop_front() {
                return Some(notice);
            }
            let (again, notified) = self.came.wait_until(notices, Some(deadline));
            notices = again;
            if !notified && notices.is_empty() {
                return None;
            }
        }
    }
}

/// What an owner said to a stun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Resume,
    Leave,
    End,
}

/// The body of an owner's thread: from the first owner to the process's end.
pub(crate) fn attend(server: &ProcessServer, index: u16, mailbox: &Mailbox) {
    let threads = server.world().threads.clone();
    let mut misses = 0;
    loop {
        match mailbox.take(&threads) {
            Some(Notice::Stunned(code, stun)) => {
                let Some((owner, head)) = server.owner_of(index) else { return };
                match tell_stun(server, &owner, head, code) {
                    Answer::Resume => server.resume_stun(index, stun),
                    Answer::Leave => {}
                    Answer::End => server.end_stun(index, stun),
                }
            }
            Some(Notice::Exited(exit)) => {
                if let Some((owner, head)) = server.owner_of(index).filter(|_| server.tells_owner(index)) {
                    tell_exit(server, &owner, head, &exit);
                }
                return;
            }
            None => {
                let Some((owner, _)) = server.owner_of(index) else { return };
                misses = if !server.needs_owner(index) || is_there(server, &owner) { 0 } else { misses + 1 };
                if misses == OWNER_MISSES_MAX {
                    server.signal_quietly(index, SIGNAL_HANG_UP);
                    threads.sleep(HANG_UP_TIME);
                    server.signal_quietly(index, SIGNAL_KILL);
                }
            }
        }
    }
}

/// Without an owner a stunned process waits for whoever stunned it to resume it; a declared owner that does not
/// answer is gone, and so is its process.
fn tell_stun(server: &ProcessServer, owner: &Capability, head: ClassicHead, code: i32) -> Answer {
    if owner.is_null() {
        return Answer::Leave;
    }
    match checkpoint(server, owner, head, owner::TERM_STUNNED, code) {
        Ok(()) => Answer::Resume,
        Err(Error::Refused(Status::STD_NOTNOW)) => Answer::Leave,
        Err(_) => Answer::End,
    }
}

fn tell_exit(server: &ProcessServer, owner: &Capability, head: ClassicHead, exit: &Exit) {
    if owner.is_null() {
        return;
    }
    let (cause, detail) = match exit.signal {
        0 => (owner::TERM_NORMAL, i32::from(exit.code)),
        signal => (owner::TERM_EXCEPTION, i32::from(signal)),
    };
    // Nothing is left to be done when the owner does not listen: who waits hears of the end anyway.
    let _ = checkpoint(server, owner, head, cause, detail);
}

/// A checkpoint says how things are, so telling it again does no harm.
fn checkpoint(
    server: &ProcessServer,
    owner: &Capability,
    head: ClassicHead,
    cause: u16,
    detail: i32,
) -> Result<(), Error> {
    let options = options();
    let client = Client::new(&*server.world().transactions, &options);
    let mut attempt = 1;
    loop {
        match owner::checkpoint(client, owner, cause, detail, head.encode()) {
            Ok(_) => return Ok(()),
            Err(Error::NotSent(_) | Error::MaybeExecuted(_)) if attempt < OWNER_ATTEMPTS => attempt += 1,
            Err(error) => return Err(error),
        }
    }
}

/// Any answer, even an error, comes from somebody who is there.
fn is_there(server: &ProcessServer, owner: &Capability) -> bool {
    let options = TransOptions { locate_timeout: amoeba_world::LOCATE_TIMEOUT_DEFAULT, ..options() };
    let client = Client::new(&*server.world().transactions, &options);
    owner.is_null()
        || !matches!(standard::info(client, owner, 0), Err(Error::NotSent(_) | Error::MaybeExecuted(_)))
}

/// An owner that takes a question and never answers must not keep its thread.
fn options() -> TransOptions {
    TransOptions {
        locate_timeout: OWNER_LOCATE_TIMEOUT,
        deadline: Some(OWNER_ANSWER_TIMEOUT),
        ..TransOptions::default()
    }
}
