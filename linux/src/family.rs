//! The processes that came of this one, however far away: orphans become its own children, and none outlives it.

use std::io;

use rustix::io::retry_on_intr;
use rustix::process::{WaitOptions, WaitStatus, getpid, set_child_subreaper, wait};

use crate::guest::tree::{Reach, kill_all};

/// Makes this process the parent of every descendant whose own parent ends. It must wait for them from then on.
///
/// # Errors
/// The operating system cannot.
pub fn adopt_orphans() -> io::Result<()> {
    Ok(set_child_subreaper(Some(getpid()))?)
}

/// Kills every descendant and returns when none is left. Only whoever has [adopted orphans](adopt_orphans) reaches
/// all of them.
pub fn end_descendants() {
    kill_all(Reach::Descendants);
}

/// How a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Which one it was.
    pub pid: u32,
    /// Its exit code as a shell tells it: 128 and the number of the signal that ended it.
    pub code: u8,
}

/// Waits until some child ends: one that this process started, or an orphan.
///
/// # Errors
/// There is none.
pub fn wait_for_child() -> io::Result<Ended> {
    loop {
        if let Some(ended) = ended(WaitOptions::empty())? {
            return Ok(ended);
        }
    }
}

/// A child that has ended and was not asked for yet.
///
/// # Errors
/// There is no child at all.
pub fn ended_child() -> io::Result<Option<Ended>> {
    ended(WaitOptions::NOHANG)
}

fn ended(options: WaitOptions) -> io::Result<Option<Ended>> {
    let child = retry_on_intr(|| wait(options))?;
    Ok(child
        .map(|(pid, status)| Ended { pid: pid.as_raw_nonzero().get().unsigned_abs(), code: code(status) }))
}

fn code(status: WaitStatus) -> u8 {
    let code = status.exit_status().or_else(|| Some(128 + status.terminating_signal()?));
    // Linux has codes to 255 and signals to 64; without the flags nothing but an end is told.
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
}
