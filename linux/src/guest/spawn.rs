//! Starting a guest's first process without copying its warden: the child borrows the warden's memory until its program
//! is loaded, as with `vfork`, on a stack of its own.

use std::ffi::{c_int, c_void};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use nix::libc;
use rustix::process::Pid;

use super::confine::Confinement;
use super::image::Image;

/// The child's stack: what it runs are system calls and the few functions around them.
const STACK_SIZE: usize = 64 << 10;
/// What no stack on any of our processors needs more of.
const STACK_ALIGNMENT: usize = 64;
/// The child's exit code when its program could not be loaded; nobody sees it.
const CODE_NOT_LOADED: c_int = 127;
/// The last signal there is.
const SIGNAL_MAX: c_int = 64;

/// A guest's first process, made ready to be started.
pub(super) struct Birth<'a> {
    pub(super) image: &'a Image,
    /// Its standard streams.
    pub(super) streams: [BorrowedFd<'a>; 3],
    /// Whether they are a terminal, which becomes that of its session.
    pub(super) terminal: bool,
    /// What holds it.
    pub(super) confinement: Option<&'a Confinement>,
}

/// What parent and child share while the parent waits.
struct Delivery<'a> {
    image: &'a Image,
    streams: [RawFd; 3],
    terminal: bool,
    confinement: Option<&'a Confinement>,
    /// Why the program could not be loaded.
    error: c_int,
}

impl Birth<'_> {
    /// Starts it; returns when its program is loaded. It ends with the thread that calls this.
    ///
    /// # Errors
    /// What the kernel says to the new process, or to its program.
    pub(super) fn deliver(&self) -> io::Result<Pid> {
        let streams = self.streams.map(|stream| stream.as_raw_fd());
        assert!(
            streams.iter().all(|stream| *stream > 2),
            "a stream in its place already would be closed on exec"
        );
        let mut delivery = Delivery {
            image: self.image,
            streams,
            terminal: self.terminal,
            confinement: self.confinement,
            error: 0,
        };
        let mut stack = Vec::<u8>::with_capacity(STACK_SIZE);
        let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
        let blocked = block_signals()?;
        // SAFETY: the stack is ours, large enough, and grows down from its aligned end. The kernel stops this thread
        // until the child has executed its program or has ended, so what the child borrows outlives it, and the child
        // alone writes to `delivery` meanwhile. No signal handler runs in either, because all signals are blocked.
        let child = unsafe {
            let end = stack.as_mut_ptr().add(STACK_SIZE);
            let end = end.sub(end as usize % STACK_ALIGNMENT);
            libc::clone(be_born, end.cast(), flags, (&raw mut delivery).cast())
        };
        let failed = (child == -1).then(io::Error::last_os_error);
        restore_signals(&blocked);
        if let Some(error) = failed {
            return Err(error);
        }
        let pid = Pid::from_raw(child).expect("clone gives a process number");
        // SAFETY: `delivery` is alive; the child wrote to it behind the compiler's back.
        match unsafe { (&raw const delivery.error).read_volatile() } {
            0 => Ok(pid),
            error => {
                let _ = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty());
                Err(io::Error::from_raw_os_error(error))
            }
        }
    }
}

fn block_signals() -> io::Result<libc::sigset_t> {
    // SAFETY: both sets are ours; an empty set is a valid one.
    unsafe {
        let (mut all, mut old) = (std::mem::zeroed(), std::mem::zeroed());
        libc::sigfillset(&raw mut all);
        match libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut old) {
            0 => Ok(old),
            error => Err(io::Error::from_raw_os_error(error)),
        }
    }
}

fn restore_signals(old: &libc::sigset_t) {
    // SAFETY: the set came from `block_signals`.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, old, std::ptr::null_mut()) };
}

/// The child. It allocates nothing, takes no lock and does not unwind: its memory is its parent's.
extern "C" fn be_born(delivery: *mut c_void) -> c_int {
    let delivery = delivery.cast::<Delivery<'_>>();
    // SAFETY: the parent keeps it alive, and does not touch it before the child is gone from this memory.
    unsafe {
        let error = match become_guest(&*delivery) {
            Ok(()) => (*delivery).image.execute(),
            Err(error) => error,
        };
        (&raw mut (*delivery).error).write_volatile(error.raw_os_error().unwrap_or(libc::EIO));
        libc::_exit(CODE_NOT_LOADED)
    }
}

/// In the guest, just before its program: its streams, a session of its own, its confinement, no life without its warden,
/// and signals as a program expects them.
fn become_guest(delivery: &Delivery<'_>) -> io::Result<()> {
    for (place, stream) in (0..).zip(delivery.streams) {
        // SAFETY: dup2 takes two numbers; what it closes in its place is this process's copy.
        if unsafe { libc::dup2(stream, place) } == -1 {
            return Err(io::Error::last_os_error());
        }
    }
    rustix::process::setsid()?;
    if delivery.terminal {
        rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())?;
    }
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    if let Some(confinement) = delivery.confinement {
        confinement.take_on()?;
    }
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    (1..=SIGNAL_MAX).for_each(|signal| dispose_of(signal, libc::SIG_DFL));
    // SAFETY: an empty set is a valid one.
    unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
    Ok(())
}

/// Says what a signal does to this process. Whoever started the system may have had any of them ignored, which programs
/// inherit; also the two that the C library keeps for itself, and therefore without its help.
fn dispose_of(signal: c_int, handler: libc::sighandler_t) {
    let mut action = [0usize; 8]; // the kernel's structure, whose first field this is, has at most so many
    action[0] = handler;
    const SIGNAL_SET_SIZE: usize = 8;
    // SAFETY: the kernel only reads the structure; no handler is a function of ours, and dispositions are not shared with
    // the parent. It refuses KILL and STOP, which can be nothing else.
    unsafe {
        libc::syscall(
            libc::SYS_rt_sigaction,
            signal,
            action.as_ptr(),
            std::ptr::null_mut::<c_void>(),
            SIGNAL_SET_SIZE,
        )
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::fs::File;
    use std::io::Read;
    use std::os::fd::AsFd;
    use std::path::Path;

    fn born(path: &str, arguments: &[&str]) -> (io::Result<Pid>, String) {
        let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let nowhere = File::options().read(true).write(true).open("/dev/null").unwrap();
        let arguments: Vec<Vec<u8>> = arguments.iter().map(|argument| argument.as_bytes().to_vec()).collect();
        let environment = BTreeMap::from([(&b"A"[..], &b"b"[..])]);
        let image = Image::new(Path::new(path), &arguments, &environment).unwrap();
        let streams = [nowhere.as_fd(), write.as_fd(), nowhere.as_fd()];
        let pid = Birth { image: &image, streams, terminal: false, confinement: None }.deliver();
        drop(write);
        let mut output = String::new();
        File::from(read).read_to_string(&mut output).unwrap();
        (pid, output)
    }

    fn exit_code(pid: Pid) -> Option<i32> {
        rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty()).unwrap()?.1.exit_status()
    }

    #[test]
    fn a_guest_has_its_streams_its_strings_and_a_session() {
        let script = "echo $0 $A; test $(ps -o sid= -p $$) = $$ && echo leads; exit 3";
        let (pid, output) = born("/bin/sh", &["name", "-c", script]);
        assert_eq!((exit_code(pid.unwrap()), output.as_str()), (Some(3), "name b\nleads\n"));
    }

    #[test]
    fn a_guest_can_be_ended_by_any_signal() {
        for ignored in [libc::SIGURG, 32, SIGNAL_MAX] {
            dispose_of(ignored, libc::SIG_IGN); // as some shells leave them behind
        }
        let (pid, output) = born("/bin/sh", &["sh", "-c", "grep -h 'Sig[BI]' /proc/self/status"]);
        assert_eq!(exit_code(pid.unwrap()), Some(0));
        for line in output.lines() {
            assert!(line.ends_with("\t0000000000000000"), "{output}");
        }
        assert_eq!(output.lines().count(), 2);
    }

    #[test]
    fn what_cannot_be_loaded_leaves_no_process() {
        let (refused, output) = born("/no/such/program", &["x"]);
        assert_eq!((refused.unwrap_err().raw_os_error(), output.as_str()), (Some(libc::ENOENT), ""));
    }
}
