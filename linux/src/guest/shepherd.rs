//! The shepherds of one process server: processes of our binary, made before their guests come.
//!
//! ```text
//!            ┌──socket pair── keeper          (one for all)
//! process server               ├─fork─ warden (PID 1 of its own PID namespace) ─ guest ─ ...
//!            └──socket pairs───┴─fork─ warden (likewise, waits for its next guest)
//! ```
//!
//! The **keeper** is what the process server starts. It makes wardens as well isolated as the host allows, each for a
//! socket pair that it is sent, and waits for their ends. A **warden** ([`super::warden`]) does the work, for one guest
//! after the other. If a warden dies, the kernel ends its PID namespace; if the keeper dies, the kernel kills the
//! wardens; if the process server dies, the socket pairs close, and the keeper and the wardens end. So no guest is ever
//! orphaned. The keeper holds a warden's socket pair open until nothing of that warden's guest is left, so whoever finds
//! the pair closed knows it.
//!
//! Three ways, tried in this order:
//!
//! 1. PID and mount namespace, where there is the privilege for it (root).
//! 2. The same inside a user namespace that maps the user to itself.
//! 3. Neither: the keeper and the wardens are subreapers, a guest's processes are found by parentage, and keeper and
//!    warden end them when the other dies. A guest's children outlive both only if both are killed in one moment.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use nix::libc;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::net::RecvFlags;
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions, pidfd_open, wait};
use rustix::stdio;

use super::confine::groups::{Group, Groups};
use super::confine::{self, Apart, Confinement, Ours};
use super::control::{Isolation, MAKE_SIZE_MAX, Make};
use super::tree::{self, Reach};
use super::warden::{self, Post};
use crate::socket::receive_some;

/// The body of `amoeba shepherd`: keeps the wardens of a process server until that ends. Standard input is the socket
/// pair to it. Call it first thing in the process, while it has one thread. The result is the exit code.
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
    let requests = take_requests()?;
    let _life = take_life()?;
    // The terminal or the session of whoever started the process server is none of the guests' business.
    let _ = rustix::process::setsid();
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    let mut keeper = Keeper { groups: Groups::make(), ..Keeper::default() };
    loop {
        let (is_asked, has_ended) = keeper.look(&requests)?;
        if has_ended {
            keeper.reap();
        }
        if is_asked && !keeper.obey(&requests)? {
            break;
        }
    }
    let groups = std::mem::take(&mut keeper.groups);
    drop(keeper);
    tree::kill_all(Reach::Descendants);
    groups.remove();
    Ok(())
}

/// The socket pair came as standard input; a guest must not find it there.
fn take_requests() -> io::Result<OwnedFd> {
    let requests = rustix::io::fcntl_dupfd_cloexec(stdio::stdin(), 3)?;
    stdio::dup2_stdin(File::open("/dev/null")?)?;
    Ok(requests)
}

/// What the process server knows by that anything is left came as standard output; wardens inherit it, guests must not.
fn take_life() -> io::Result<OwnedFd> {
    let life = rustix::io::fcntl_dupfd_cloexec(stdio::stdout(), 3)?;
    stdio::dup2_stdout(File::options().write(true).open("/dev/null")?)?;
    Ok(life)
}

/// A warden and what the keeper holds for as long as anything of its guest may be left.
struct Kept {
    /// Readable when the warden has ended.
    ended: OwnedFd,
    /// Tells the process server by its end.
    _control: UnixStream,
    /// Tells the warden by its end that the keeper has ended, however it ended.
    _life: OwnedFd,
    /// The groups of its guests.
    group: Group,
}

/// See the module.
#[derive(Default)]
struct Keeper {
    wardens: BTreeMap<i32, Kept>,
    /// The way that has worked here; the same is tried first for the next warden.
    way: Option<Way>,
    /// Where the groups of guests are made.
    groups: Groups,
    /// Wardens that were tried to be made, so that each has groups of its own.
    made: u64,
}

impl Keeper {
    /// Waits until somebody asks for something or a warden has ended.
    fn look(&self, requests: &OwnedFd) -> io::Result<(bool, bool)> {
        let watched = std::iter::once(requests).chain(self.wardens.values().map(|kept| &kept.ended));
        let mut polled: Vec<PollFd<'_>> = watched.map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
        match poll(&mut polled, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let is_ready = |polled: &PollFd<'_>| !polled.revents().is_empty();
        Ok((is_ready(&polled[0]), polled[1..].iter().any(is_ready)))
    }

    /// Reaps wardens that have ended, with what their guests have left.
    fn reap(&mut self) {
        let mut ended = Vec::new();
        while let Ok(Some((pid, _))) = wait(WaitOptions::NOHANG) {
            ended.extend(self.wardens.remove(&pid.as_raw_nonzero().get()));
        }
        if self.way == Some(Way::Tree) && !ended.is_empty() {
            let wardens: Vec<i32> = self.wardens.keys().copied().collect();
            tree::kill_orphans(&wardens);
        }
        for kept in &ended {
            kept.group.remove();
        }
    }

    /// Makes what is asked for; false when nobody will ask any more.
    fn obey(&mut self, requests: &OwnedFd) -> io::Result<bool> {
        let mut packet = [0; MAKE_SIZE_MAX];
        let mut descriptors = Vec::new();
        let size = receive_some(requests, &mut packet, &mut descriptors, RecvFlags::empty())?;
        if size == 0 {
            return Ok(false);
        }
        let control = descriptors.pop().map(UnixStream::from);
        let (Ok(make), Some(control)) = (Make::parse(&packet[..size]), control) else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        // The socket pair closes with this if it fails, and that is the answer.
        if let Err(error) = self.make(&make, control) {
            tracing::error!("no shepherd can be made: {error}");
        }
        Ok(true)
    }

    fn make(&mut self, make: &Make, control: UnixStream) -> io::Result<()> {
        let ways = match self.way {
            Some(way) => vec![way],
            None => ways(make.isolation).to_vec(),
        };
        for way in ways {
            if self.fork_warden(way, make, &control)? {
                self.way = Some(way);
                return Ok(());
            }
        }
        Err(io::Error::other("no way to isolate a guest works here"))
    }

    /// Forks a warden; false when this way does not work on this host. The warden says so over a pipe before it has
    /// done anything that a second try would repeat.
    fn fork_warden(&mut self, way: Way, make: &Make, control: &UnixStream) -> io::Result<bool> {
        let (mut ready, tell_ready) = pipe().map(|(read, write)| (File::from(read), write))?;
        let (life, keep_alive) = pipe()?;
        let kept_control = control.try_clone()?;
        self.made += 1;
        let group = self.groups.group(&self.made.to_string())?;
        let (user, users_group) = (rustix::process::getuid(), rustix::process::getgid());
        // SAFETY: a null stack makes this a fork with flags. The keeper has one thread, so the child is a whole copy
        // of it and may do whatever the keeper may.
        let child = unsafe {
            libc::syscall(libc::SYS_clone, libc::c_long::from(way.clone_flags() | libc::SIGCHLD), 0, 0, 0, 0)
        };
        match child {
            -1 if way == Way::Tree => Err(io::Error::last_os_error()),
            -1 => Ok(false),
            0 => {
                // What the keeper holds for other wardens is not this one's.
                drop((ready, keep_alive, kept_control, std::mem::take(&mut self.wardens)));
                let ids = (user.as_raw(), users_group.as_raw());
                let ended = be_warden(way, ids, make, control, life, tell_ready, group);
                std::process::exit(ended.unwrap_or_else(|error| {
                    tracing::warn!("a shepherd cannot be set apart as {way:?}: {error}");
                    1
                }))
            }
            child => {
                drop((tell_ready, life));
                let warden =
                    i32::try_from(child).ok().and_then(Pid::from_raw).expect("fork gives a process number");
                let number = warden.as_raw_nonzero().get();
                let mut keep_alive = File::from(keep_alive);
                let mut byte = [0];
                if keep_alive
                    .write_all(&number.to_le_bytes())
                    .and_then(|()| ready.read_exact(&mut byte))
                    .is_err()
                {
                    tree::wait_for(warden);
                    group.remove();
                    return Ok(false);
                }
                let ended = pidfd_open(warden, PidfdFlags::empty())?;
                let kept = Kept { ended, _control: kept_control, _life: keep_alive.into(), group };
                self.wardens.insert(number, kept);
                Ok(true)
            }
        }
    }
}

fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?)
}

/// The ways that this isolation allows, the best first.
fn ways(isolation: Isolation) -> &'static [Way] {
    match isolation {
        Isolation::Best if rustix::process::geteuid().is_root() => {
            &[Way::Namespace, Way::UserNamespace, Way::Tree]
        }
        Isolation::Best => &[Way::UserNamespace, Way::Tree],
        Isolation::UserNamespace => &[Way::UserNamespace],
        Isolation::Tree => &[Way::Tree],
    }
}

/// How a warden is set apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Namespace,
    UserNamespace,
    Tree,
}

impl Way {
    fn clone_flags(self) -> i32 {
        match self {
            Way::Namespace => libc::CLONE_NEWPID | libc::CLONE_NEWNS | confine::NAMESPACES,
            Way::UserNamespace => libc::CLONE_NEWUSER | Way::Namespace.clone_flags(),
            Way::Tree => 0,
        }
    }

    fn apart(self) -> Apart {
        match self {
            Way::Namespace => Apart::Fully,
            Way::UserNamespace => Apart::AsUser,
            Way::Tree => Apart::Not,
        }
    }

    fn reach(self) -> Reach {
        match self {
            Way::Namespace | Way::UserNamespace => Reach::Namespace,
            Way::Tree => Reach::Descendants,
        }
    }
}

/// The body of a warden, in its new process. It first hears which number it has on the host, and says when it is set
/// apart. From then on it ends with the keeper: if that is gone already, saying so fails.
fn be_warden(
    way: Way,
    ids: (u32, u32),
    make: &Make,
    control: &UnixStream,
    life: OwnedFd,
    tell_ready: OwnedFd,
    group: Group,
) -> io::Result<i32> {
    let mut life = File::from(life);
    let mut number = [0; 4];
    life.read_exact(&mut number)?;
    isolate(way, ids)?;
    let path = |bytes: &[u8]| PathBuf::from(OsStr::from_bytes(bytes));
    let hidden: Vec<PathBuf> = make.hidden.iter().map(|directory| path(directory)).collect();
    let shown: Vec<PathBuf> = make.shown.iter().chain([&make.socket]).map(|file| path(file)).collect();
    let ours = Ours { hidden: &hidden, shown: &shown, logs: &path(&make.logs) };
    let confinement = Confinement::make(ours, way.apart(), group)?;
    File::from(tell_ready).write_all(&[1])?;
    let post = Post {
        control: control.try_clone()?,
        socket: make.socket.clone(),
        reach: way.reach(),
        number: u32::from_le_bytes(number),
        confinement,
    };
    Ok(warden::run(post, life))
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
