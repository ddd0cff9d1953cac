//! The end of a connection to the kernel that its own process cannot bring about.
//!
//! A process that is killed gives its descriptors back one by one, and its connection last of all. Where one of them is of a file
//! of its own mount whose pages are just being written, giving it back waits for that, and so for the process itself: then it
//! never ends, and everybody who asks the mount something hangs. Somebody else can end the connection:
//!
//! - a guard, which the mount has started: a process that hears of the kill, for a thread of the mount with a table of
//!   descriptors of its own has the other end of its standard input, and nothing else to wait for at its end;
//! - whoever finds that a process is [dying](is_dying) and does not get further.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::sync_channel;

use nix::libc;
use rustix::fs::{Mode, OFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

/// Where most hosts show the connections of FUSE, by the number of the file system.
const CONNECTIONS: &str = "/sys/fs/fuse/connections";
/// The file system that shows them, for who is root where it is not mounted.
const FILE_SYSTEM_TYPE: &str = "fusectl";
/// Descriptors above standard error.
const FIRST_OTHER: libc::c_uint = 3;
/// `SIGKILL` in a set of signals, and `PF_EXITING` in the flags of a process.
const KILL: u64 = 1 << (libc::SIGKILL - 1);
const EXITING: u64 = 4;

/// What ends a connection: that very one, and never another which gets its number when it is gone.
#[derive(Debug)]
pub(super) struct Abort(File);

impl Abort {
    /// That of the file system with this number, as `major:minor`.
    ///
    /// # Errors
    /// There is none, or it is another user's; this host shows no connections to who is not root.
    pub(super) fn of(device: &str) -> io::Result<Abort> {
        let number = device.strip_prefix("0:").and_then(|minor| minor.parse::<u32>().ok());
        let number = number.ok_or(io::ErrorKind::InvalidInput)?;
        let shown = File::options().write(true).open(format!("{CONNECTIONS}/{number}/abort"));
        match shown {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Ok(Abort(open_unmounted(number)?.into()))
            }
            shown => Ok(Abort(shown?)),
        }
    }

    /// Whoever waits for an answer hears `ECONNABORTED`, and whoever asks, `ENOTCONN`. Ending it twice is as good as once.
    pub(super) fn abort(mut self) -> io::Result<()> {
        self.0.write_all(b"1")
    }
}

/// The same file, of a file system that is mounted nowhere.
fn open_unmounted(number: u32) -> io::Result<OwnedFd> {
    let context = fsopen(FILE_SYSTEM_TYPE, FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(&context)?;
    let root = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
    let path = CString::new(format!("{number}/abort")).expect("numbers and words have no NUL");
    Ok(rustix::fs::openat(root, path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?)
}

/// Starts `guard`, a program that calls [`stand_guard`]: when this process is killed, it ends the connection of the file system with
/// this number. It ends with this process.
///
/// # Errors
/// The connection cannot be ended by who is not root; nothing can be started.
pub(super) fn guard(device: &str, guard: Command) -> io::Result<()> {
    let (tell, told) = sync_channel(1);
    let device = device.to_owned();
    let body = move || {
        let started = start_alone(&device, guard);
        // Who has begun this waits for it.
        drop(tell.send(started.as_ref().map(drop).map_err(|error| io::Error::from(error.kind()))));
        let Ok(_started) = started else { return };
        // With this thread ends the standard input of the guard.
        loop {
            std::thread::park();
        }
    };
    super::thread("guard", body)?;
    told.recv().unwrap_or_else(|_| Err(io::ErrorKind::BrokenPipe.into()))
}

/// Starts a program whose standard input only this thread holds, from here on with a table of descriptors of its own.
fn start_alone(device: &str, mut guard: Command) -> io::Result<Child> {
    let flags = libc::CLOSE_RANGE_UNSHARE.cast_signed();
    // SAFETY: closes descriptors in a table that is this thread's alone from here on, and it owns none of them.
    if unsafe { libc::close_range(FIRST_OTHER, libc::c_uint::MAX, flags) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let Abort(abort) = Abort::of(device)?;
    guard.stdin(Stdio::piped()).stdout(abort).spawn()
}

/// What a guard does: waits for the end of who has started it, and ends its connection.
///
/// # Errors
/// It cannot be ended; it was not started as a guard.
pub fn stand_guard() -> io::Result<()> {
    // A terminal that is closed must not end it.
    crate::host::leave_session()?;
    io::stdin().read_to_end(&mut Vec::new())?;
    // A connection that has ended meanwhile does not mind.
    let mut stdout = io::stdout();
    stdout.write_all(b"1")?;
    stdout.flush()
}

/// Ends the connection of the mount whose file system has this number ([`Mount::device`](super::Mount::device)), if process `server`,
/// which serves it, has been killed and is not gone yet: whether that is so. Nothing is asked of the mount, which may be out of the tree.
///
/// # Errors
/// The connection cannot be ended: it is another user's.
pub fn end_of_dying(device: &str, server: u32) -> io::Result<bool> {
    if !is_dying(server) {
        return Ok(false);
    }
    match Abort::of(device) {
        // As long as it is dying it has the connection: nobody else can have got the number.
        Ok(abort) if is_dying(server) => abort.abort()?,
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    Ok(true)
}

/// Whether a process is about to end, and will do nothing else any more: it was killed, or gives back what it has.
fn is_dying(process: u32) -> bool {
    let read = |name| std::fs::read(format!("/proc/{process}/{name}")).unwrap_or_default();
    is_ending(&read("stat")) || is_killed(&read("status"))
}

/// `pid (name) state parent group session terminal terminal's-group flags ...`, of a process of which other threads may be left
/// when its first is a zombie.
fn is_ending(stat: &[u8]) -> bool {
    let text = String::from_utf8_lossy(stat);
    // A name may have anything in it.
    let Some((_, rest)) = text.rsplit_once(')') else { return false };
    let mut words = rest.split_ascii_whitespace();
    let state = words.next();
    let flags = words.nth(5).and_then(|flags| flags.parse::<u64>().ok());
    matches!(state, Some("Z" | "X")) || flags.is_some_and(|flags| flags & EXITING != 0)
}

/// Whether the signal that cannot be caught waits for a process, or for its first thread: `SigPnd: 0000000000000100`.
fn is_killed(status: &[u8]) -> bool {
    let text = String::from_utf8_lossy(status);
    text.lines().any(|line| {
        let waiting = line.strip_prefix("SigPnd:").or_else(|| line.strip_prefix("ShdPnd:"));
        waiting
            .and_then(|signals| u64::from_str_radix(signals.trim(), 16).ok())
            .is_some_and(|signals| signals & KILL != 0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_dying_when_it_was_killed_or_ends() {
        assert!(!is_ending(b"7 (a) b) S 1 7 7 0 -1 4194560 1 0"));
        assert!(is_ending(b"7 (a) b) D 1 7 7 0 -1 4194564 1 0"));
        assert!(is_ending(b"7 (a) b) Z 1 7 7 0 -1 4194560 1 0"));
        assert!(is_killed(b"Name:\ta\nSigPnd:\t0000000000000000\nShdPnd:\t0000000000000100\n"));
        assert!(is_killed(b"SigPnd:\t0000000000004100\n"));
        assert!(!is_killed(b"SigPnd:\t0000000000004000\nSigBlk:\t0000000000000100\n"));
    }

    #[test]
    fn whoever_lives_is_not_dying() {
        assert!(!is_dying(std::process::id()));
        assert!(!is_dying(u32::MAX));
        assert!(!end_of_dying("0:1", std::process::id()).unwrap());
    }

    #[test]
    fn any_text_of_the_kernel_is_read_or_left() {
        bolero::check!().for_each(|bytes: &[u8]| {
            assert!(!is_ending(bytes) || bytes.contains(&b')'));
            assert!(!is_killed(bytes) || bytes.contains(&b':'));
        });
    }
}
