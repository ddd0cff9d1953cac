//! What daemons ask of the host they run on.

use std::io;
use std::os::fd::BorrowedFd;

use nix::libc;
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::{Pid, Signal, getppid, kill_process, set_parent_process_death_signal, setsid};

/// What this host is called, without its domain.
pub fn name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let short = name.split('.').next().unwrap_or_default();
    if short.is_empty() { "localhost".to_owned() } else { short.to_owned() }
}

/// Whether this process may do everything on the host that root may.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Asks a process to end. It may have ended already.
pub fn terminate(pid: u32) {
    send(pid, Signal::TERM);
}

/// Ends a process. It may have ended already.
pub fn kill(pid: u32) {
    send(pid, Signal::KILL);
}

/// Whether a process with this number is there and has not ended.
pub fn runs(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The state is the first letter behind the name, which stands in parentheses and may hold anything.
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    !matches!(state, None | Some('Z' | 'X'))
}

fn send(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

/// Leaves the session of whoever started this process, so that closing a terminal does not end it.
///
/// # Errors
/// It leads a session already.
pub fn leave_session() -> io::Result<()> {
    setsid()?;
    Ok(())
}

/// Marks every descriptor above standard error to be closed in the programs that this process starts: whoever started
/// this process may have left some of its own open, and a daemon would keep them so for as long as it runs.
///
/// # Errors
/// The operating system cannot, nor can it list the descriptors.
pub fn keep_descriptors() -> io::Result<()> {
    let flags = libc::CLOSE_RANGE_CLOEXEC.cast_signed();
    // SAFETY: sets a flag of descriptors, and closes none.
    if unsafe { libc::close_range(3, libc::c_uint::MAX, flags) } == 0 {
        return Ok(());
    }
    // A kernel before 5.11, or a sandbox without the call.
    let names = std::fs::read_dir("/proc/self/fd")?.flatten().map(|entry| entry.file_name());
    let numbers: Vec<i32> = names.filter_map(|name| name.to_str()?.parse().ok()).collect();
    for number in numbers.into_iter().filter(|number| *number > 2) {
        // SAFETY: borrowed for one call, which fails without harm when the descriptor is closed by now.
        let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
        let _ = fcntl_setfd(descriptor, FdFlags::CLOEXEC);
    }
    Ok(())
}

/// Lets this process hear SIGTERM when the process `parent`, which started it, ends.
///
/// # Errors
/// That process has ended already.
pub fn end_with(parent: u32) -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::TERM))?;
    let now = getppid().map(|pid| pid.as_raw_nonzero().get().unsigned_abs());
    if now == Some(parent) { Ok(()) } else { Err(io::Error::other("the parent process has ended already")) }
}
