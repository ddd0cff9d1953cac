//! Everything a guest has started, as its shepherd sees it: found, stopped, continued, killed and reaped.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use nix::libc;
use rustix::process::{Pid, WaitOptions, WaitStatus, wait};

/// How long stopping every process of a guest may take before it is given up.
const FREEZE_TIMEOUT: Duration = Duration::from_secs(5);
/// How often the processes are looked at while they stop.
const LOOK_INTERVAL: Duration = Duration::from_millis(1);

/// How the shepherd knows its guest's processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// The shepherd is PID 1 of a PID namespace: everybody else in it.
    Namespace,
    /// The shepherd is a subreaper: all its descendants.
    Descendants,
}

/// One process as `/proc/PID/stat` tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Process {
    parent: i32,
    state: u8,
}

impl Process {
    fn is_stopped(self) -> bool {
        matches!(self.state, b'T' | b't')
    }

    /// Waits inside the kernel where no signal but SIGKILL reaches it.
    fn is_deep(self) -> bool {
        self.state == b'D'
    }

    fn is_dead(self) -> bool {
        matches!(self.state, b'Z' | b'X' | b'x')
    }
}

/// The processes that [`freeze`] stopped and [`thaw`] is to continue. Those that had stopped themselves stay stopped.
#[derive(Debug, Default)]
pub(super) struct Frozen(Vec<i32>);

/// Stops every process of the guest; `None` when some did not stop in time, and then all run on.
///
/// A process can be forking while it is looked for, so looking and stopping go on until one look finds everybody
/// stopped: from then on nobody is left who could start another. A parent in vfork cannot stop before its child has
/// gone on to another program, so a child that was stopped too early gets another moment.
pub(super) fn freeze(reach: Reach) -> Option<Frozen> {
    let deadline = Instant::now() + FREEZE_TIMEOUT;
    let before = processes(reach);
    let had_stopped: Vec<i32> =
        before.iter().filter(|(_, process)| process.is_stopped()).map(|(pid, _)| *pid).collect();
    let mut frozen = Frozen::default();
    loop {
        let mut all = true;
        let now = processes(reach);
        for (&pid, &process) in &now {
            if process.is_dead() {
                continue;
            }
            let in_vfork = now.get(&process.parent).is_some_and(|parent| parent.is_deep());
            if in_vfork && process.is_stopped() && !had_stopped.contains(&pid) {
                send(pid, libc::SIGCONT);
                all = false;
                continue;
            }
            if !had_stopped.contains(&pid) && !frozen.0.contains(&pid) {
                frozen.0.push(pid);
                all = false;
            }
            if !process.is_stopped() {
                send(pid, libc::SIGSTOP);
                all = false;
            }
        }
        if all {
            return Some(frozen);
        }
        if Instant::now() > deadline {
            thaw(frozen);
            return None;
        }
        thread::sleep(LOOK_INTERVAL);
    }
}

/// Continues what [`freeze`] stopped.
pub(super) fn thaw(frozen: Frozen) {
    for pid in frozen.0 {
        send(pid, libc::SIGCONT);
    }
}

/// Kills every process of the guest and reaps it. Returns when none is left.
pub(crate) fn kill_all(reach: Reach) {
    loop {
        kill_now(reach);
        if !reap_some() {
            return;
        }
        thread::sleep(LOOK_INTERVAL);
    }
}

/// Kills and reaps, among all descendants, those that are not among `spared`'s: what a warden has left that died. Returns
/// when none is left.
pub(super) fn kill_orphans(spared: &[i32]) {
    loop {
        let all = all_processes();
        let own = std::process::id() as i32;
        let is_orphan = |pid: &i32| {
            let under = |ancestor: &i32| pid == ancestor || is_descendant(&all, *pid, *ancestor);
            is_descendant(&all, *pid, own) && !spared.iter().any(under)
        };
        let orphans: Vec<i32> = all.keys().copied().filter(is_orphan).collect();
        if orphans.is_empty() {
            return;
        }
        for pid in orphans {
            send(pid, libc::SIGKILL);
            if let Some(pid) = Pid::from_raw(pid) {
                // It is a child of ours only once its parent has ended; then a later round reaps it.
                let _ = rustix::process::waitpid(Some(pid), WaitOptions::NOHANG);
            }
        }
        thread::sleep(LOOK_INTERVAL);
    }
}

/// Sends SIGKILL to every process of the guest, without waiting or reaping.
pub(super) fn kill_now(reach: Reach) {
    match reach {
        Reach::Namespace => {
            assert_eq!(std::process::id(), 1, "only PID 1 of a namespace may kill everybody in it");
            send(-1, libc::SIGKILL);
        }
        Reach::Descendants => {
            for (pid, process) in processes(reach) {
                if !process.is_dead() {
                    send(pid, libc::SIGKILL);
                }
            }
        }
    }
}

/// Reaps what is dead already; false when there is no child at all.
pub(super) fn reap_some() -> bool {
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some(_)) => {}
            Ok(None) => return true,
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return false,
        }
    }
}

/// Waits until `child` ends, reaping on the way whatever has become a child of ours.
pub(super) fn wait_for(child: Pid) -> Option<WaitStatus> {
    loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid == child && !status.stopped() => return Some(status),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return None,
        }
    }
}

/// Sends a signal by number, so that real-time signals are possible, to a process, a group (negative) or everybody
/// in reach (-1). A process that is gone is no error: it needs no signal any more.
pub(super) fn send(pid: i32, number: i32) {
    // SAFETY: kill takes two integers and touches no memory of ours.
    unsafe { libc::kill(pid, number) };
}

/// The guest's processes by number.
fn processes(reach: Reach) -> BTreeMap<i32, Process> {
    let all = all_processes();
    let own = std::process::id() as i32;
    match reach {
        Reach::Namespace => all.into_iter().filter(|(pid, _)| *pid != own).collect(),
        Reach::Descendants => {
            all.iter().filter(|(pid, _)| is_descendant(&all, **pid, own)).map(|(p, s)| (*p, *s)).collect()
        }
    }
}

/// The processes that have stopped among everything below the parent of `first`, a guest's first process: the parent is
/// the guest's warden, to which its orphans fall.
pub(super) fn stopped_beside(first: u32) -> Vec<u32> {
    let all = all_processes();
    let first = i32::try_from(first).ok().and_then(|first| all.get(&first));
    let Some(warden) = first.map(|process| process.parent) else { return Vec::new() };
    let stopped = all.iter().filter(|(_, process)| process.is_stopped());
    let below = stopped.filter(|(pid, _)| is_descendant(&all, **pid, warden));
    below.filter_map(|(pid, _)| u32::try_from(*pid).ok()).collect()
}

fn is_descendant(all: &BTreeMap<i32, Process>, pid: i32, ancestor: i32) -> bool {
    let mut at = pid;
    // The bound is on loops that a parent's death between two reads could fake.
    for _ in 0..all.len() {
        match all.get(&at) {
            Some(process) if process.parent == ancestor => return true,
            Some(process) => at = process.parent,
            None => return false,
        }
    }
    false
}

fn all_processes() -> BTreeMap<i32, Process> {
    let Ok(directory) = std::fs::read_dir("/proc") else { return BTreeMap::new() };
    directory
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter_map(|pid| {
            let stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
            Some((pid, parse_stat(&stat)?))
        })
        .collect()
}

/// State and parent from `PID (name) STATE PARENT ...`, where the name may hold anything.
fn parse_stat(stat: &[u8]) -> Option<Process> {
    let end_of_name = stat.iter().rposition(|&byte| byte == b')')?;
    let rest = std::str::from_utf8(stat.get(end_of_name + 1..)?).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    let state = *fields.next()?.as_bytes().first()?;
    Some(Process { parent: fields.next()?.parse().ok()?, state })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_confuse() {
        let stat = b"42 (a) Z 7 (b) S 17 42 42 0 -1";
        assert_eq!(parse_stat(stat), Some(Process { parent: 17, state: b'S' }));
        assert_eq!(parse_stat(b"42"), None);
        assert_eq!(parse_stat(b"42 (x)"), None);
    }

    #[test]
    fn our_own_children_are_descendants() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let found = processes(Reach::Descendants).contains_key(&(child.id() as i32));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(found);
    }
}
