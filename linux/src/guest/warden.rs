//! The warden: starts guests, one after the other, carries their streams, stops and continues them, and reports how they
//! ended.
//!
//! Two threads take turns: one obeys the process server, and when that brings a guest, has it started and waits for it,
//! while the other obeys. So nobody need be woken between the order and the guest but the thread that starts it, in which
//! guests are confined. Each stream has a thread of its own.
//!
//! When a guest has ended, nothing of it is left in the warden's namespaces, and the warden waits for the next. Where that
//! is not so, or not known, it says so with the guest's end and ends too ([`Warden::is_as_new`]).

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use amoeba_name::Environment;
use amoeba_process::status::NOLIMIT;
use amoeba_process::{Exit, ProcessDescriptor, Program};
use amoeba_wire::Status;
use amoeba_world::World;
use nix::libc;
use rustix::process::{Pid, WaitStatus};

use super::confine::Confinement;
use super::control::{Order, Report, Start, receive_order, send_report};
use super::image::Image;
use super::program::{self, Executable, Refusal};
use super::remote::fetch;
use super::root::{self, Ahead, Root};
use super::scratch;
use super::spawn::Birth;
use super::streams::{Pumps, Streams, Ways, set_window};
use super::tree::{self, Frozen, Reach};

/// How long a killed guest's last output may take to reach its caller.
const KILLED_DRAIN_TIMEOUT: Duration = Duration::from_secs(2);
/// How often we look whether it was killed while its output is waited for or being delivered.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// How often the descendants are killed when there is no namespace that dies with us: one may be forking meanwhile.
const KILL_ROUNDS: usize = 20;
/// The shell that runs what only a shell can.
const SHELL: &str = "/bin/sh";

/// Where a warden stands.
pub(super) struct Post {
    /// The socket pair to the process server.
    pub(super) control: UnixStream,
    /// Where the kernel daemon listens.
    pub(super) socket: Vec<u8>,
    pub(super) reach: Reach,
    /// The warden's number on the host.
    pub(super) number: u32,
    pub(super) confinement: Confinement,
}

/// What the threads share.
struct Shared {
    reach: Reach,
    control: UnixStream,
    state: Mutex<State>,
    /// Who holds this reads orders.
    turn: Mutex<()>,
}

/// One guest, from its START to its EXITED.
#[derive(Default)]
struct State {
    /// Whether there is one.
    busy: bool,
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

    /// Answers an order, unless the guest it was for has ended meanwhile; false when nobody hears.
    fn answer(&self, report: &Report, note: impl FnOnce(&mut State)) -> bool {
        let mut state = self.state();
        if !state.busy {
            return true;
        }
        note(&mut state);
        send_report(&self.control, report).is_ok()
    }
}

/// Runs guests to their ends. The result is the warden's exit code.
///
/// `life` is a pipe whose other end only the keeper holds: it ends when the keeper does.
pub(super) fn run(post: Post, life: File) -> i32 {
    // Without this a debugger of the same user could read the capabilities that the pumps hold.
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
    heed_signals();
    let Post { control, socket, reach, number, confinement } = post;
    let shared = Arc::new(Shared { reach, control, state: Mutex::default(), turn: Mutex::default() });
    let Ok(warden) = Warden::new(shared.clone(), socket, number, confinement) else { return 1 };
    let (warden, watching) = (Arc::new(Mutex::new(warden)), shared.clone());
    let (other, others) = (shared.clone(), warden.clone());
    let relief = move || std::process::exit(take_turns(&other, &others));
    let relief = thread::Builder::new().name("warden".into()).spawn(relief);
    let watch = thread::Builder::new().name("keeper".into()).spawn(move || outlive_nobody(&watching, life));
    if relief.is_err() || watch.is_err() {
        return 1;
    }
    take_turns(&shared, &warden)
}

/// What two threads do: one obeys the process server until it brings a guest, and serves that guest, while the other obeys.
/// The result is the warden's exit code.
fn take_turns(shared: &Shared, warden: &Mutex<Warden>) -> i32 {
    loop {
        let turn = shared.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(start) = obey(shared) else { end(shared) };
        drop(turn);
        match warden.lock().unwrap_or_else(PoisonError::into_inner).serve(start) {
            Ok(true) => {}
            Ok(false) => return 0,
            Err(_) => return 1,
        }
    }
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

/// What serves one guest after the other.
struct Warden {
    shared: Arc<Shared>,
    socket: Vec<u8>,
    number: u32,
    world: World,
    /// What reads as empty and takes everything.
    nowhere: File,
    /// The capability environment of a guest that is given nothing.
    no_capabilities: OwnedFd,
    confinement: Confinement,
    /// A file tree that waits for a guest.
    ahead: Option<Ahead>,
    /// Processor time of all earlier guests.
    used: (Duration, Duration),
}

impl Warden {
    fn new(
        shared: Arc<Shared>,
        socket: Vec<u8>,
        number: u32,
        mut confinement: Confinement,
    ) -> io::Result<Warden> {
        confinement.settle_in()?;
        Ok(Warden {
            confinement,
            ahead: None,
            shared,
            number,
            world: crate::connect(Path::new(OsStr::from_bytes(&socket))),
            socket,
            nowhere: File::options().read(true).write(true).open("/dev/null")?,
            no_capabilities: program::sealed_memory(b"amoeba-capabilities", &Environment::new().to_bytes())?,
            used: (Duration::ZERO, Duration::ZERO),
        })
    }

    /// Runs one guest and reports its end; whether the warden is as new.
    fn serve(&mut self, mut start: Start) -> io::Result<bool> {
        let mut pumps = None;
        start.log = self.confinement.way_to(&start.log);
        let mut exit = self.run_guest(&start, &mut pumps).unwrap_or_else(Refusal::into_exit);
        self.confinement.judge(&mut exit);
        let pumped = pumps.is_none_or(Pumps::join);
        self.confinement.take_back();
        let _ = std::env::set_current_dir("/");
        scratch::remove(&start.log);
        let stays = pumped && self.is_as_new();
        // Under the lock no answer to an order can come after this report.
        let mut state = self.shared.state();
        *state = State::default();
        send_report(&self.shared.control, &Report::Exited { exit, stays })?;
        Ok(stays)
    }

    /// Whether nothing of the last guest is left, as far as that was not seen to already: every process has been reaped
    /// and every thread of its streams has ended. It may have left memory that it shared; it cannot mount anything.
    fn is_as_new(&self) -> bool {
        self.shared.reach == Reach::Descendants || self.confinement.is_clean()
    }

    fn run_guest(&mut self, start: &Start, pumps: &mut Option<Pumps>) -> Result<Exit, Refusal> {
        let descriptor = ProcessDescriptor::parse(&start.descriptor)
            .map_err(|error| Refusal::new(Status::STD_ARGBAD, program::CODE_OUR_FAULT, error.to_string()))?;
        let is_apart = self.shared.reach == Reach::Namespace;
        let socket = PathBuf::from(OsStr::from_bytes(&self.socket));
        let (bytes, confinement, ahead) = (&start.descriptor, &self.confinement, &mut self.ahead);
        let mut root = root::make(&descriptor, bytes, &socket, is_apart, confinement, ahead)?;
        let scratch = match &descriptor.scratch {
            Some(scratch) => {
                Some(scratch::Directory::enter(scratch, &start.log, &self.world, &mut self.confinement)?)
            }
            None => None,
        };
        // One that waits for another guest has a thread, too.
        let of_tree = root.as_ref().map_or(0, root::Root::threads) + u32::from(self.ahead.is_some());
        self.confinement.expect(&descriptor.limits, descriptor.network, of_tree).map_err(|error| {
            Refusal::new(NOLIMIT, program::CODE_OUR_FAULT, format!("its limits: {error}"))
        })?;
        let ways = Ways {
            world: &self.world,
            log: &start.log,
            control: &self.shared.control,
            nowhere: &self.nowhere,
        };
        let streams =
            Streams::open(&descriptor, &ways).map_err(|error| Refusal::ours("standard streams", error))?;
        let guest = self.spawn(&descriptor, &streams, root.as_ref())?;
        let Streams { guests, ours: mut ends } = streams;
        drop(guests);
        let served = ends.served.take();
        self.announce(guest, ends.terminal.take());
        let pumping = pumps.insert(ends.pump(guest, descriptor.awaited));
        if let Some(root) = &mut root {
            root.look_ahead(&socket, &self.confinement);
        }
        let status = tree::wait_for(guest);
        pumping.ending.tell();
        self.shared.state().guest = None;
        if descriptor.terminal.is_none() {
            linger(pumping, &self.shared);
        }
        tree::kill_all(self.shared.reach);
        // Nobody is left who could write, so every pump reaches the end of what was written.
        self.shared.state().terminal = None;
        drain(pumping, &self.shared);
        if let Some(input) = served {
            input.refuse();
        }
        let mut exit = exit_of(status);
        (exit.user_time, exit.system_time) = self.times();
        if let Some(scratch) = scratch.filter(|_| !self.shared.state().killed) {
            exit.results = scratch.take(&self.world);
        }
        if let Some(root) = root {
            self.ahead = root.finish(&mut exit, &socket, &self.confinement);
        }
        Ok(exit)
    }

    /// Finds the guest's program, where the guest's files are, and starts it.
    fn spawn(
        &self,
        descriptor: &ProcessDescriptor,
        streams: &Streams,
        root: Option<&Root>,
    ) -> Result<Pid, Refusal> {
        let given = match descriptor.capabilities.is_empty() {
            true => None,
            false => Some(capability_environment(descriptor)?),
        };
        let capabilities = given.as_ref().unwrap_or(&self.no_capabilities).as_raw_fd().to_string();
        let mut environment: BTreeMap<&[u8], &[u8]> = descriptor
            .environment
            .iter()
            .filter_map(|string| {
                let equals = string.iter().position(|&byte| byte == b'=').filter(|&at| at > 0)?;
                Some((&string[..equals], &string[equals + 1..]))
            })
            .collect();
        environment.insert(b"AMOEBA_CAPS_FD", capabilities.as_bytes());
        let socket = root.map_or(&self.socket[..], |root| root.socket(&self.socket));
        environment.insert(b"AMOEBA_SOCKET", socket);
        let start = Launch {
            descriptor,
            environment: &environment,
            streams: streams.of_guest(),
            confinement: &self.confinement,
        };
        let fetch = || self.fetch_program(descriptor);
        let Some(root) = root else {
            let executable = find_program(descriptor)?.map_or_else(fetch, Ok)?;
            let started = self.confinement.start(descriptor.network, || start.program(&executable));
            return started.unwrap_or_else(|error| Err(program::exec_refused(&executable.path, &error)));
        };
        let died = |error| Refusal::ours("its file tree", error);
        // One order to the thread that is there, as a rule: waking it costs more than what it does.
        let find_and_start = || match find_program(descriptor)? {
            Some(executable) => start.program(&executable).map(Some),
            None => Ok(None),
        };
        if let Some(guest) = root.within(find_and_start).map_err(died)?? {
            return Ok(guest);
        }
        let executable = fetch()?;
        root.within(|| start.program(&executable)).map_err(died)?
    }

    /// The program of a descriptor that names no path.
    fn fetch_program(&self, descriptor: &ProcessDescriptor) -> Result<Executable, Refusal> {
        match &descriptor.program {
            Program::File(file) => {
                let name = descriptor.arguments.first().map_or(&b"program"[..], Vec::as_slice);
                program::from_bytes(name, |memory| fetch(&self.world, file, memory))
            }
            _ => Err(Refusal::new(
                Status::STD_ARGBAD,
                program::CODE_OUR_FAULT,
                "the descriptor names no program",
            )),
        }
    }

    /// The guest runs.
    fn announce(&self, guest: Pid, terminal: Option<OwnedFd>) {
        let number = guest.as_raw_nonzero().get();
        let early_kill = {
            let mut state = self.shared.state();
            state.guest = Some(guest);
            state.terminal = terminal;
            state.killed
        };
        if early_kill {
            tree::send(number, libc::SIGKILL);
        }
        let started = Report::Started { warden: self.number, guest: number.cast_unsigned() };
        let _ = send_report(&self.shared.control, &started);
    }

    /// Processor time of the guest that has been reaped whole: in its own code, in the kernel.
    fn times(&mut self) -> (Duration, Duration) {
        let (user, system) = reaped_times().unwrap_or(self.used);
        let used = std::mem::replace(&mut self.used, (user, system));
        (user.saturating_sub(used.0), system.saturating_sub(used.1))
    }
}

/// Processor time of all children that were reaped.
fn reaped_times() -> Option<(Duration, Duration)> {
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_CHILDREN).ok()?;
    let time = |value: nix::sys::time::TimeVal| {
        Duration::from_micros(u64::try_from(value.tv_sec() * 1_000_000 + value.tv_usec()).unwrap_or(0))
    };
    Some((time(usage.user_time()), time(usage.system_time())))
}

/// Enters the working directory and finds the program, where the calling thread is; `None` if it names no path.
fn find_program(descriptor: &ProcessDescriptor) -> Result<Option<Executable>, Refusal> {
    if descriptor.scratch.is_none() {
        enter_working_directory(descriptor)?;
    }
    match &descriptor.program {
        Program::HostPath(path) => program::find(path, descriptor.variable(b"PATH")).map(Some),
        _ => Ok(None),
    }
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

/// A guest that lacks nothing but its program.
struct Launch<'a> {
    descriptor: &'a ProcessDescriptor,
    environment: &'a BTreeMap<&'a [u8], &'a [u8]>,
    streams: [BorrowedFd<'a>; 3],
    confinement: &'a Confinement,
}

impl Launch<'_> {
    /// Starts it, on a thread that is confined as guests are.
    fn program(&self, executable: &Executable) -> Result<Pid, Refusal> {
        let path = &executable.path;
        match self.deliver(path, &self.descriptor.arguments) {
            // The C library does so with whatever the kernel does not know.
            Err(Unborn { is_for_shell: true, .. }) => {
                let script = [SHELL.as_bytes(), path.as_os_str().as_bytes()].map(<[u8]>::to_vec);
                let rest = self.descriptor.arguments.iter().skip(1).cloned();
                self.deliver(Path::new(SHELL), &script.into_iter().chain(rest).collect::<Vec<_>>())
            }
            delivered => delivered,
        }
        .map_err(|unborn| unborn.refusal)
    }

    fn deliver(&self, path: &Path, arguments: &[Vec<u8>]) -> Result<Pid, Unborn> {
        let image = Image::new(path, arguments, self.environment).map_err(|error| {
            Unborn::refused(Status::STD_ARGBAD, program::CODE_OUR_FAULT, error.to_string())
        })?;
        let birth = Birth {
            image: &image,
            streams: self.streams,
            terminal: self.descriptor.terminal.is_some(),
            confinement: Some(self.confinement),
        };
        birth.deliver().map_err(|error| Unborn::of(path, &error))
    }
}

/// Why a program could not be started.
struct Unborn {
    refusal: Refusal,
    /// Whether a shell may know what to do with it.
    is_for_shell: bool,
}

impl Unborn {
    fn refused(status: Status, code: u8, reason: String) -> Unborn {
        Unborn { refusal: Refusal::new(status, code, reason), is_for_shell: false }
    }

    /// The kernel has said this of the program at `path`.
    fn of(path: &Path, error: &io::Error) -> Unborn {
        let is_for_shell = error.raw_os_error() == Some(libc::ENOEXEC) && program::is_shell_text(path);
        Unborn { refusal: program::exec_refused(path, error), is_for_shell }
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

/// Waits until nobody holds the guest's output open any more, as whoever reads a pipe does: what it has left behind in
/// the background may still write. Whoever asks the guest to end, before or now, does not wait for that.
fn linger(pumps: &Pumps, shared: &Shared) {
    if shared.state().is_to_end() {
        return;
    }
    for output in &pumps.outputs {
        while output.drained.recv_timeout(LOOK_INTERVAL) == Err(mpsc::RecvTimeoutError::Timeout) {
            tree::reap_some();
            if shared.state().is_to_end() {
                return;
            }
        }
    }
}

/// Waits until the output was delivered: as long as the caller takes it, and once the process is killed not much
/// longer.
fn drain(pumps: &Pumps, shared: &Shared) {
    let mut patience = KILLED_DRAIN_TIMEOUT;
    for output in &pumps.outputs {
        while output.drained.recv_timeout(LOOK_INTERVAL) == Err(mpsc::RecvTimeoutError::Timeout) {
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
    exit
}

/// Obeys the process server until it brings a guest; `None` when it is gone.
fn obey(shared: &Shared) -> Option<Start> {
    while let Ok(order) = receive_order(&shared.control) {
        let busy = shared.state().busy;
        match order {
            Order::Start(_) if busy => break,
            Order::Start(start) => {
                *shared.state() = State { busy: true, ..State::default() };
                return Some(start);
            }
            // It is for a guest that has ended meanwhile.
            _ if !busy => {}
            Order::Signal(number) => signal(shared, i32::from(number)),
            Order::Freeze => {
                let frozen = tree::freeze(shared.reach);
                let all = frozen.is_some();
                if !shared.answer(&Report::Frozen(all), |state| state.frozen = frozen) {
                    break;
                }
            }
            Order::Thaw => {
                if let Some(frozen) = shared.state().frozen.take() {
                    tree::thaw(frozen);
                }
                if !shared.answer(&Report::Thawed, |_| {}) {
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
    None
}

/// Waits for the keeper's end, and then ends the guest.
fn outlive_nobody(shared: &Shared, mut life: File) {
    let _ = std::io::Read::read(&mut life, &mut [0]);
    end(shared);
}

/// Ends the guest and the warden. In a namespace our own end is everybody's.
fn end(shared: &Shared) -> ! {
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
