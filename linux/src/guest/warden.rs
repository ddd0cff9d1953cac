//! The warden: starts the guest, carries its streams, stops and continues it, and reports how it ended.
//!
//! The main thread starts the guest and waits for it, because the guest's death signal is bound to the thread that
//! forked it. A control thread obeys the process server; each stream has a thread of its own.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use amoeba_name::Environment;
use amoeba_process::{Exit, ProcessDescriptor, Program, WindowSize};
use amoeba_wire::Status;
use amoeba_world::World;
use nix::libc;
use rustix::process::{Pid, WaitStatus};
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;

use super::control::{Order, Report, receive_order, send_report};
use super::image::Image;
use super::log::{Log, LogSink};
use super::program::{self, Executable, Refusal};
use super::pump::{Drained, Sink, Source, pump_in, pump_out};
use super::remote::{RemoteSink, RemoteSource, ServedSource, fetch};
use super::scratch;
use super::tree::{self, Frozen, Reach};

/// How long a killed guest's last output may take to reach its caller.
const KILLED_DRAIN_TIMEOUT: Duration = Duration::from_secs(2);
/// How often we look whether it was killed while its output is waited for or being delivered.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// How often the descendants are killed when there is no namespace that dies with us: one may be forking meanwhile.
const KILL_ROUNDS: usize = 20;
/// Bytes we ask for in a pipe, so that a guest and its pump work at the same time.
const PIPE_SIZE: usize = 1 << 20;
/// The character that ends input on a terminal.
const TERMINAL_END: &[u8] = &[4];

/// What the keeper was told to start.
pub(super) struct Start {
    pub(super) control: UnixStream,
    pub(super) socket: Vec<u8>,
    pub(super) log: Vec<u8>,
    pub(super) descriptor: Vec<u8>,
}

/// What the control thread and the main thread share.
struct Shared {
    reach: Reach,
    control: UnixStream,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    guest: Option<Pid>,
    terminal: Option<OwnedFd>,
    frozen: Option<Frozen>,
    killed: bool,
    /// Somebody has asked it to end, so what it leaves behind is not waited for.
    hurried: bool,
}

impl State {
    fn is_to_end(&self) -> bool {
        self.killed || self.hurried
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs the guest to its end. The result is the warden's exit code.
///
/// `life` is a pipe whose other end only the keeper holds: it ends when the keeper does.
pub(super) fn run(start: &Start, reach: Reach, life: File) -> i32 {
    // Without this a debugger of the same user could read the capabilities that the pumps hold.
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
    heed_signals();
    let Ok(control) = start.control.try_clone() else { return 1 };
    let shared = Arc::new(Shared { reach, control, state: Mutex::default() });
    let obeying = shared.clone();
    let watching = shared.clone();
    let control = thread::Builder::new().name("control".into()).spawn(move || obey(&obeying));
    let watch = thread::Builder::new().name("keeper".into()).spawn(move || outlive_nobody(&watching, life));
    if control.is_err() || watch.is_err() {
        return 1;
    }
    let exit = run_guest(start, &shared).unwrap_or_else(Refusal::into_exit);
    let reported = send_report(&shared.control, &Report::Exited(exit));
    i32::from(reported.is_err())
}

/// Ends what the guest would inherit: a signal that the daemon was started to ignore (in the background of a script, or by
/// `nohup`) can be neither trapped nor heeded by a shell that finds it so.
fn heed_signals() {
    for number in (1..=libc::SIGRTMAX()).filter(|number| *number != libc::SIGPIPE) {
        // SAFETY: no handler is installed, and no thread of this process waits for a signal. SIGPIPE is left as the
        // standard library wants it, which gives it back to what it starts; what cannot be set is refused and stays.
        unsafe { libc::signal(number, libc::SIG_DFL) };
    }
}

fn run_guest(start: &Start, shared: &Arc<Shared>) -> Result<Exit, Refusal> {
    let descriptor = ProcessDescriptor::parse(&start.descriptor)
        .map_err(|error| Refusal::new(Status::STD_ARGBAD, program::CODE_OUR_FAULT, error.to_string()))?;
    let socket = Path::new(std::ffi::OsStr::from_bytes(&start.socket));
    let world = crate::connect(socket);
    let scratch = match &descriptor.scratch {
        Some(scratch) => Some(scratch::Directory::enter(scratch, &start.log, &world)?),
        None => enter_working_directory(&descriptor).map(|()| None)?,
    };
    let executable = find_program(&descriptor, &world)?;
    let streams = Streams::open(&descriptor, start, &world)?;
    let capabilities = capability_environment(&descriptor)?;
    let (ends, guest_ends) = (streams.ours, streams.guests);
    let served = ends.served.clone();
    let guest = spawn(&descriptor, &executable, guest_ends, &capabilities, start)?;
    drop(executable);
    drop(capabilities);
    let early_kill = {
        let mut state = shared.state();
        state.guest = Some(guest);
        state.terminal = ends.terminal;
        state.killed
    };
    if early_kill {
        tree::send(guest.as_raw_nonzero().get(), libc::SIGKILL);
    }
    let _ = send_report(&shared.control, &Report::Started(guest.as_raw_nonzero().get().cast_unsigned()));
    let drained = start_pumps(ends.input, ends.outputs, guest);
    let status = tree::wait_for(guest);
    shared.state().guest = None;
    if descriptor.terminal.is_none() {
        linger(&drained, shared);
    }
    tree::kill_all(shared.reach);
    // Nobody is left who could write, so every pump reaches the end of what was written.
    shared.state().terminal = None;
    drain(&drained, shared);
    if let Some(input) = served {
        input.refuse();
    }
    let mut exit = exit_of(status);
    if let Some(scratch) = scratch.filter(|_| !shared.state().killed) {
        exit.results = scratch.take(&world);
    }
    Ok(exit)
}

fn enter_working_directory(descriptor: &ProcessDescriptor) -> Result<(), Refusal> {
    if descriptor.working_directory.is_empty() {
        return Ok(());
    }
    let path = Path::new(std::ffi::OsStr::from_bytes(&descriptor.working_directory));
    std::env::set_current_dir(path).map_err(|error| {
        let reason = format!("{}: {error}", path.display());
        Refusal::new(amoeba_process::status::NOWORK, program::CODE_NOT_EXECUTABLE, reason)
    })
}

fn find_program(descriptor: &ProcessDescriptor, world: &World) -> Result<Executable, Refusal> {
    match &descriptor.program {
        Program::HostPath(path) => program::find(path, descriptor.variable(b"PATH")),
        Program::File(file) => {
            let name = descriptor.arguments.first().map_or(&b"program"[..], Vec::as_slice);
            program::from_bytes(name, |memory| fetch(world, file, memory))
        }
        _ => {
            Err(Refusal::new(Status::STD_ARGBAD, program::CODE_OUR_FAULT, "the descriptor names no program"))
        }
    }
}

/// The capability environment, in a sealed memory file that only the guest inherits.
fn capability_environment(descriptor: &ProcessDescriptor) -> Result<OwnedFd, Refusal> {
    let mut environment = Environment::new();
    for (name, capability) in &descriptor.capabilities {
        let set = std::str::from_utf8(name).map(|name| environment.set(name, *capability));
        if !matches!(set, Ok(Ok(()))) {
            let reason = format!("{:?} cannot name a capability", String::from_utf8_lossy(name));
            return Err(Refusal::new(Status::STD_ARGBAD, program::CODE_OUR_FAULT, reason));
        }
    }
    program::sealed_memory(b"amoeba-capabilities", &environment.to_bytes())
        .map_err(|error| Refusal::ours("capability environment", error))
}

/// The guest's standard streams: its ends, and ours.
struct Streams {
    guests: [Stdio; 3],
    ours: Ends,
}

#[derive(Default)]
struct Ends {
    input: Option<(Box<dyn Source>, File, &'static [u8])>,
    outputs: Vec<(File, Box<dyn Sink>)>,
    terminal: Option<OwnedFd>,
    /// The input, when it is served here.
    served: Option<amoeba_stream::Sink>,
}

impl Streams {
    fn open(descriptor: &ProcessDescriptor, start: &Start, world: &World) -> Result<Streams, Refusal> {
        let opened = match descriptor.terminal {
            Some(window) => Streams::terminal(descriptor, world, window),
            None => Streams::pipes(descriptor, start, world),
        };
        opened.map_err(|error| Refusal::ours("standard streams", error))
    }

    /// One terminal for all three. Its output goes to STDOUT.
    fn terminal(descriptor: &ProcessDescriptor, world: &World, window: WindowSize) -> io::Result<Streams> {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = rustix::pty::openpt(flags)?;
        rustix::pty::grantpt(&master)?;
        rustix::pty::unlockpt(&master)?;
        let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags)?;
        set_window(&master, window)?;
        let mut ours = Ends::default();
        if let Some(source) = RemoteSource::open(world, descriptor.capability(b"STDIN")) {
            ours.input = Some((Box::new(source), File::from(master.try_clone()?), TERMINAL_END));
        }
        let sink: Box<dyn Sink> = match RemoteSink::open(world, descriptor.capability(b"STDOUT")) {
            Some(sink) => Box::new(sink),
            None => Box::new(Nowhere),
        };
        ours.outputs.push((File::from(master.try_clone()?), sink));
        ours.terminal = Some(master);
        let guests = [slave.try_clone()?.into(), slave.try_clone()?.into(), slave.into()];
        Ok(Streams { guests, ours })
    }

    fn pipes(descriptor: &ProcessDescriptor, start: &Start, world: &World) -> io::Result<Streams> {
        let mut ours = Ends::default();
        let source: Option<Box<dyn Source>> = match &descriptor.served_input {
            Some(input) => {
                let source = ServedSource::serve(world, input).map_err(io::Error::other)?;
                ours.served = Some(source.sink());
                Some(Box::new(source))
            }
            None => RemoteSource::open(world, descriptor.capability(b"STDIN"))
                .map(|source| -> Box<dyn Source> { Box::new(source) }),
        };
        let input = match source {
            Some(source) => {
                let (read, write) = pipe()?;
                ours.input = Some((source, File::from(write), b""));
                Stdio::from(read)
            }
            None => Stdio::null(),
        };
        let named = [descriptor.capability(b"STDOUT"), descriptor.capability(b"STDERR")]
            .map(|stream| stream.filter(|stream| !stream.is_null()));
        let output = output(&mut ours, named[0], descriptor.detached, start, world)?;
        // One object for both means one pipe for both, which keeps the order in which the guest wrote.
        let errors = match &output {
            Some(pipe) if named[0] == named[1] => Some(pipe.try_clone()?),
            _ => self::output(&mut ours, named[1], descriptor.detached, start, world)?,
        };
        let stdio = |end: Option<OwnedFd>| end.map_or_else(Stdio::null, Stdio::from);
        Ok(Streams { guests: [input, stdio(output), stdio(errors)], ours })
    }
}

/// The guest's end of a pipe for output: to the stream object, else to the log if it is detached, else nowhere.
fn output(
    ours: &mut Ends,
    stream: Option<amoeba_cap::Capability>,
    detached: bool,
    start: &Start,
    world: &World,
) -> io::Result<Option<OwnedFd>> {
    let sink: Box<dyn Sink> = match RemoteSink::open(world, stream) {
        Some(sink) => Box::new(sink),
        None if detached && !start.log.is_empty() => {
            let log = Log::append_to(Path::new(std::ffi::OsStr::from_bytes(&start.log)))?;
            Box::new(LogSink { log, control: start.control.try_clone()? })
        }
        None => return Ok(None),
    };
    let (read, write) = pipe()?;
    ours.outputs.push((File::from(read), sink));
    Ok(Some(write))
}

fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let ends = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    // Refused where the user's pipes take too much memory already; a small pipe works as well, only slower.
    let _ = rustix::pipe::fcntl_setpipe_size(&ends.0, PIPE_SIZE);
    Ok(ends)
}

/// A terminal's output that nobody reads.
struct Nowhere;

impl Sink for Nowhere {
    fn write(&mut self, _position: u64, _bytes: &[u8]) -> Result<(), super::pump::Closed> {
        Ok(())
    }

    fn close(&mut self, _position: u64) {}
}

fn spawn(
    descriptor: &ProcessDescriptor,
    executable: &Executable,
    [input, output, errors]: [Stdio; 3],
    capabilities: &OwnedFd,
    start: &Start,
) -> Result<Pid, Refusal> {
    let text = std::ffi::OsStr::from_bytes;
    let mut command = Command::new(&executable.path);
    if let Some((name, arguments)) = descriptor.arguments.split_first() {
        command.arg0(text(name)).args(arguments.iter().map(|argument| text(argument)));
    }
    let mut environment: BTreeMap<&[u8], &[u8]> = descriptor
        .environment
        .iter()
        .filter_map(|string| {
            let equals = string.iter().position(|&byte| byte == b'=').filter(|&at| at > 0)?;
            Some((&string[..equals], &string[equals + 1..]))
        })
        .collect();
    let capabilities = capabilities.as_raw_fd().to_string();
    environment.insert(b"AMOEBA_CAPS_FD", capabilities.as_bytes());
    environment.insert(b"AMOEBA_SOCKET", &start.socket);
    command.env_clear();
    command.envs(environment.iter().map(|(name, value)| (text(name), text(value))));
    command.stdin(input).stdout(output).stderr(errors);
    let terminal = descriptor.terminal.is_some();
    let image = Image::new(&executable.path, &descriptor.arguments, &environment)
        .map_err(|error| Refusal::new(Status::STD_ARGBAD, program::CODE_OUR_FAULT, error.to_string()))?;
    let is_shell_text = program::is_shell_text(&executable.path);
    let become_program = move || {
        become_guest(terminal)?;
        let error = image.execute();
        // What goes on from here is run by the shell: the C library does so with whatever the kernel does not know.
        if is_shell_text && error.raw_os_error() == Some(libc::ENOEXEC) { Ok(()) } else { Err(error) }
    };
    // SAFETY: between fork and execve only system calls are made, nothing is allocated and no lock is taken.
    unsafe { command.pre_exec(become_program) };
    let child = command.spawn().map_err(|error| program::exec_refused(&executable.path, &error))?;
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    Ok(pid.expect("fork gives a process number"))
}

/// In the guest, just before its program: a session of its own, no way to more privilege, no life without its warden.
fn become_guest(terminal: bool) -> io::Result<()> {
    rustix::process::setsid()?;
    if terminal {
        rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())?;
    }
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    rustix::thread::set_no_new_privs(true)?;
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    Ok(())
}

/// Starts a thread for every stream; each output's thread says when it has delivered everything.
fn start_pumps(
    input: Option<(Box<dyn Source>, File, &'static [u8])>,
    outputs: Vec<(File, Box<dyn Sink>)>,
    guest: Pid,
) -> Vec<mpsc::Receiver<()>> {
    if let Some((mut source, to, at_end)) = input {
        // Without a thread the guest reads the end of its input at once: the pipe closes with the closure.
        let _ =
            thread::Builder::new().name("stdin".into()).spawn(move || pump_in(source.as_mut(), to, at_end));
    }
    let mut drained = Vec::new();
    for (from, mut sink) in outputs {
        let (tell, told) = mpsc::channel();
        let terminal = rustix::termios::isatty(&from);
        let pump = move || {
            let ended = pump_out(from, sink.as_mut());
            if ended == Drained::Refused && terminal {
                // A terminal cannot break like a pipe; its caller has hung up.
                tree::send(-guest.as_raw_nonzero().get(), libc::SIGHUP);
            }
            drop(tell);
        };
        let _ = thread::Builder::new().name("output".into()).spawn(pump);
        drained.push(told);
    }
    drained
}

/// Waits until nobody holds the guest's output open any more, as whoever reads a pipe does: what it has left behind in
/// the background may still write. Whoever asks the guest to end, before or now, does not wait for that.
fn linger(drained: &[mpsc::Receiver<()>], shared: &Shared) {
    if shared.state().is_to_end() {
        return;
    }
    for told in drained {
        while told.recv_timeout(LOOK_INTERVAL) == Err(mpsc::RecvTimeoutError::Timeout) {
            tree::reap_some();
            if shared.state().is_to_end() {
                return;
            }
        }
    }
}

/// Waits until the output was delivered: as long as the caller takes it, and once the process is killed not much
/// longer.
fn drain(drained: &[mpsc::Receiver<()>], shared: &Shared) {
    let mut patience = KILLED_DRAIN_TIMEOUT;
    for told in drained {
        while told.recv_timeout(LOOK_INTERVAL) == Err(mpsc::RecvTimeoutError::Timeout) {
            if shared.state().killed {
                patience = patience.saturating_sub(LOOK_INTERVAL);
            }
            if patience.is_zero() {
                return;
            }
        }
    }
}

fn exit_of(status: Option<WaitStatus>) -> Exit {
    let mut exit = Exit::default();
    if let Some(status) = status {
        if let Some(signal) = status.terminating_signal() {
            exit.signal = u8::try_from(signal).unwrap_or(u8::MAX);
            exit.code = exit.signal.saturating_add(128);
            exit.core_dumped = status.as_raw() & 0x80 != 0;
        } else {
            exit.code = status.exit_status().and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX);
        }
    }
    if let Ok(usage) = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_CHILDREN) {
        let time = |value: nix::sys::time::TimeVal| {
            Duration::from_micros(u64::try_from(value.tv_sec() * 1_000_000 + value.tv_usec()).unwrap_or(0))
        };
        exit.user_time = time(usage.user_time());
        exit.system_time = time(usage.system_time());
    }
    exit
}

fn set_window(terminal: impl AsFd, window: WindowSize) -> io::Result<()> {
    let size = Winsize { ws_row: window.rows, ws_col: window.columns, ws_xpixel: 0, ws_ypixel: 0 };
    Ok(rustix::termios::tcsetwinsize(terminal, size)?)
}

/// The control thread: obeys until the process server is gone, and then ends the guest.
fn obey(shared: &Shared) {
    while let Ok(order) = receive_order(&shared.control) {
        match order {
            Order::Start { .. } => break,
            Order::Signal(number) => signal(shared, i32::from(number)),
            Order::Freeze => {
                let frozen = tree::freeze(shared.reach);
                let all = frozen.is_some();
                shared.state().frozen = frozen;
                if send_report(&shared.control, &Report::Frozen(all)).is_err() {
                    break;
                }
            }
            Order::Thaw => {
                if let Some(frozen) = shared.state().frozen.take() {
                    tree::thaw(frozen);
                }
                if send_report(&shared.control, &Report::Thawed).is_err() {
                    break;
                }
            }
            Order::Resize(window) => {
                if let Some(terminal) = &shared.state().terminal {
                    let _ = set_window(terminal, window);
                }
            }
        }
    }
    end(shared);
}

/// Waits for the keeper's end, and then ends the guest.
fn outlive_nobody(shared: &Shared, mut life: File) {
    let _ = std::io::Read::read(&mut life, &mut [0]);
    end(shared);
}

/// Ends the guest and the warden. In a namespace our own end is everybody's.
fn end(shared: &Shared) {
    if shared.reach == Reach::Descendants {
        for _ in 0..KILL_ROUNDS {
            tree::kill_now(shared.reach);
            thread::sleep(Duration::from_millis(1));
        }
    }
    std::process::exit(1);
}

/// What a terminal sends goes to whoever is in the foreground, as a terminal does it; SIGKILL to everybody; anything
/// else to the guest's first process.
fn signal(shared: &Shared, number: i32) {
    let mut state = shared.state();
    if number == libc::SIGKILL {
        state.killed = true;
    }
    state.hurried |= matches!(number, libc::SIGINT | libc::SIGQUIT | libc::SIGTERM | libc::SIGHUP);
    let Some(guest) = state.guest else { return };
    let guest = guest.as_raw_nonzero().get();
    match number {
        libc::SIGKILL => {
            drop(state);
            tree::kill_now(shared.reach);
        }
        libc::SIGINT | libc::SIGQUIT | libc::SIGTSTP | libc::SIGHUP | libc::SIGCONT | libc::SIGWINCH => {
            let foreground = state
                .terminal
                .as_ref()
                .and_then(|terminal| rustix::termios::tcgetpgrp(terminal).ok())
                .map(|group| group.as_raw_nonzero().get());
            tree::send(-foreground.unwrap_or(guest), number);
        }
        _ => tree::send(guest, number),
    }
}
