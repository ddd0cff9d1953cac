//! The shepherd of one guest: two processes of our binary.
//!
//! ```text
//! process server ──socket pair── keeper ─fork─ warden (PID 1 of its own PID namespace) ─fork─ guest ─ ...
//! ```
//!
//! The **keeper** is what the process server starts. It makes the warden as well isolated as the host allows, waits
//! for it, and removes what it may leave. The **warden** ([`super::warden`]) does the work. If the warden dies, the
//! kernel ends its PID namespace; if the keeper dies, the kernel kills the warden; if the process server dies, the
//! socket pair closes and the warden ends the guest. So no guest is ever orphaned.
//!
//! Three ways, tried in this order:
//!
//! 1. PID and mount namespace, where there is the privilege for it (root).
//! 2. The same inside a user namespace that maps the user to itself.
//! 3. Neither: the keeper and the warden are subreapers, the guest's processes are found by parentage, and each of
//!    the two ends them when the other dies. A guest's children outlive both only if both are killed in one moment.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use nix::libc;
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::process::{Pid, Signal};
use rustix::stdio;

use super::control::{Isolation, Order, receive_order};
use super::scratch;
use super::tree::{self, Reach};
use super::warden::{self, Start};

/// The body of `amoeba shepherd`: keeps one guest until it has ended. Standard input is the socket pair to the
/// process server. Call it first thing in the process, while it has one thread. The result is the exit code.
pub fn main() -> i32 {
    match keep() {
        Ok(()) => 0,
        Err(error) => {
            tracing::error!("shepherd: {error}");
            1
        }
    }
}

fn keep() -> io::Result<()> {
    let control = take_control()?;
    let Order::Start { isolation, socket, log, descriptor } = receive_order(&control)? else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    let start = Start { control, socket, log, descriptor };
    // The terminal or the session of whoever started the process server is none of the guest's business.
    let _ = rustix::process::setsid();
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    let ways: &[Way] = match isolation {
        Isolation::Best if rustix::process::geteuid().is_root() => {
            &[Way::Namespace, Way::UserNamespace, Way::Tree]
        }
        Isolation::Best => &[Way::UserNamespace, Way::Tree],
        Isolation::UserNamespace => &[Way::UserNamespace],
        Isolation::Tree => &[Way::Tree],
    };
    for way in ways {
        if let Some(warden) = fork_warden(*way, &start)? {
            let log = start.log.clone();
            drop(start);
            tree::wait_for(warden);
            tree::kill_all(Reach::Descendants);
            scratch::remove(&log);
            return Ok(());
        }
    }
    Err(io::Error::other("no way to isolate a guest works here"))
}

/// The socket pair came as standard input; a guest must not find it there.
fn take_control() -> io::Result<UnixStream> {
    let control = rustix::io::fcntl_dupfd_cloexec(stdio::stdin(), 3)?;
    stdio::dup2_stdin(File::open("/dev/null")?)?;
    Ok(UnixStream::from(control))
}

/// How the warden is set apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Namespace,
    UserNamespace,
    Tree,
}

impl Way {
    fn clone_flags(self) -> i32 {
        match self {
            Way::Namespace => libc::CLONE_NEWPID | libc::CLONE_NEWNS,
            Way::UserNamespace => libc::CLONE_NEWUSER | libc::CLONE_NEWPID | libc::CLONE_NEWNS,
            Way::Tree => 0,
        }
    }

    fn reach(self) -> Reach {
        match self {
            Way::Namespace | Way::UserNamespace => Reach::Namespace,
            Way::Tree => Reach::Descendants,
        }
    }
}

/// Forks the warden; `None` when this way does not work on this host. The warden says so over a pipe before it has
/// done anything that a second try would repeat.
fn fork_warden(way: Way, start: &Start) -> io::Result<Option<Pid>> {
    let (mut ready, tell_ready) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .map(|(read, write)| (File::from(read), write))?;
    let (life, keep_alive) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let (user, group) = (rustix::process::getuid(), rustix::process::getgid());
    // SAFETY: a null stack makes this a fork with flags. The keeper has one thread, so the child is a whole copy of
    // it and may do whatever the keeper may.
    let child = unsafe {
        libc::syscall(libc::SYS_clone, libc::c_long::from(way.clone_flags() | libc::SIGCHLD), 0, 0, 0, 0)
    };
    match child {
        -1 if way == Way::Tree => Err(io::Error::last_os_error()),
        -1 => Ok(None),
        0 => {
            drop((ready, keep_alive));
            let ids = (user.as_raw(), group.as_raw());
            std::process::exit(match isolate(way, ids).and_then(|()| say_ready(tell_ready)) {
                Ok(()) => warden::run(start, way.reach(), File::from(life)),
                Err(_) => 1,
            })
        }
        child => {
            drop(tell_ready);
            let warden =
                i32::try_from(child).ok().and_then(Pid::from_raw).expect("fork gives a process number");
            let mut byte = [0];
            if ready.read_exact(&mut byte).is_ok() {
                // Open until this process ends, however it ends.
                std::mem::forget(keep_alive);
                return Ok(Some(warden));
            }
            tree::wait_for(warden);
            Ok(None)
        }
    }
}

/// From here on the warden ends with the keeper: if the keeper is gone already, writing fails.
fn say_ready(pipe: OwnedFd) -> io::Result<()> {
    File::from(pipe).write_all(&[1])
}

/// In the new process: finishes what clone's flags began.
fn isolate(way: Way, (user, group): (u32, u32)) -> io::Result<()> {
    if way == Way::UserNamespace {
        std::fs::write("/proc/self/setgroups", "deny")?;
        std::fs::write("/proc/self/uid_map", format!("{user} {user} 1"))?;
        std::fs::write("/proc/self/gid_map", format!("{group} {group} 1"))?;
    }
    match way {
        // No death signal here: the warden must live long enough to end the guest's children itself.
        Way::Tree => rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?,
        Way::Namespace | Way::UserNamespace => {
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
            // What the host mounts later reaches the guest, what is mounted here stays here.
            mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)?;
            let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
            mount("proc", "/proc", "proc", flags, None::<&std::ffi::CStr>)?;
        }
    }
    Ok(())
}
