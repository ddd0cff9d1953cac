//! The process server's end of its shepherds. Some wait, made before anybody needs them, so that a guest's start costs no
//! more than its own process; one whose guest has ended waits for the next.
//!
//! - [`Flock`] has the keeper and the shepherds that wait.
//! - [`Shepherd`] is one of them, with a thread that hears it.
//! - [`Sheep`] is a guest: it is with a shepherd from its start to its end.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak, mpsc};
use std::time::Duration;

use amoeba_process::{Events, Exit, Guest, GuestError, WindowSize};
use amoeba_wire::Status;
use amoeba_world::Threads;

use super::control::{HIDDEN_MAX, Make, Order, Report, Start, receive_report, send_make, send_order};
use super::program::CODE_OUR_FAULT;
use super::{GuestConfig, host, scratch};
use crate::lock;

/// How long a shepherd may take to answer: longer than it tries to stop a guest.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Shepherds that are made before anybody needs them, and kept: at least one waits while another is being made.
const PREPARED: usize = 2;
/// The most shepherds that wait; one more whose guest has ended is ended too.
const WAITING_MAX: usize = 32;
/// How long a shepherd beyond [`PREPARED`] waits for a guest before it is ended.
const WAITING_TIME: Duration = Duration::from_secs(10);

/// All shepherds of a process server.
pub(super) struct Flock {
    config: GuestConfig,
    threads: Threads,
    inner: Mutex<Inner>,
    me: Weak<Flock>,
}

#[derive(Default)]
struct Inner {
    keeper: Option<Keeper>,
    /// Without a guest, the one that has waited longest first.
    waiting: Vec<Arc<Shepherd>>,
}

/// The process that makes shepherds.
struct Keeper {
    child: Child,
    requests: OwnedFd,
}

impl Drop for Keeper {
    fn drop(&mut self) {
        // It ends when it finds the socket closed, and everything it kept has ended then.
        let _ = rustix::net::shutdown(&self.requests, rustix::net::Shutdown::Both);
        let _ = self.child.wait();
    }
}

impl Flock {
    /// The shepherds of a host, some of which are being made from now on.
    pub(super) fn new(config: GuestConfig, threads: Threads) -> Arc<Flock> {
        let flock = Arc::new_cyclic(|me| Flock { config, threads, inner: Mutex::default(), me: me.clone() });
        flock.prepare();
        flock
    }

    /// Starts a guest with a shepherd that waits, or else with a new one.
    pub(super) fn start(
        &self,
        mut start: Start,
        events: Arc<dyn Events>,
    ) -> Result<Arc<dyn Guest>, GuestError> {
        let sheep = loop {
            let waiting = held(&self.inner).waiting.pop();
            let is_last = waiting.is_none();
            let shepherd = waiting.map_or_else(|| self.make(), Ok).map_err(no_room)?;
            start = match shepherd.take(start, &events) {
                Ok(sheep) => break sheep,
                Err(_) if is_last => return Err(GuestError::Failed("no shepherd can be made".into())),
                // It died while it waited.
                Err(start) => start,
            };
        };
        if held(&self.inner).waiting.is_empty() {
            // The next guest may come before this one ends.
            self.prepare();
        }
        Ok(sheep)
    }

    /// Makes shepherds until enough wait. What cannot be made now is made when it is needed, or that fails too.
    fn prepare(&self) {
        let waiting = held(&self.inner).waiting.len();
        for _ in waiting..PREPARED {
            match self.make() {
                Ok(shepherd) => self.keep(shepherd),
                Err(error) => return tracing::warn!("no shepherd can be prepared: {error}"),
            }
        }
    }

    /// A new shepherd waits, unless it has ended already.
    fn keep(&self, shepherd: Arc<Shepherd>) {
        let mut inner = held(&self.inner);
        // Once it is among those that wait, its end takes it away.
        if !held(&shepherd.state).ended {
            inner.waiting.push(shepherd);
        }
    }

    /// Asks the keeper for a shepherd, which need not be ready to be given a guest.
    fn make(&self) -> io::Result<Arc<Shepherd>> {
        let (ours, theirs) = UnixStream::pair()?;
        self.ask_keeper(&theirs)?;
        drop(theirs);
        let shepherd = Arc::new(Shepherd { control: ours, flock: self.me.clone(), state: Mutex::default() });
        let heard = shepherd.clone();
        // If no thread can be had the socket pair closes with the shepherd, and that ends it.
        self.threads.spawn("guest", move || heard.hear()).map_err(io::Error::other)?;
        Ok(shepherd)
    }

    /// Hands the keeper one end of a new shepherd's socket pair; there is another keeper when the last one has died.
    fn ask_keeper(&self, theirs: &UnixStream) -> io::Result<()> {
        let bytes = |path: &Path| path.as_os_str().as_bytes().to_vec();
        let paths = |paths: &[PathBuf]| paths.iter().take(HIDDEN_MAX).map(|path| bytes(path)).collect();
        let make = Make {
            isolation: self.config.isolation,
            socket: bytes(&self.config.socket),
            logs: bytes(&self.config.log_directory),
            hidden: paths(&self.config.hidden),
            shown: paths(&self.config.shown),
        };
        let mut inner = held(&self.inner);
        if let Some(keeper) = &inner.keeper
            && send_make(&keeper.requests, &make, theirs).is_ok()
        {
            return Ok(());
        }
        inner.keeper = None;
        let keeper = inner.keeper.insert(start_keeper(&self.config)?);
        send_make(&keeper.requests, &make, theirs)
    }

    /// A shepherd's guest has ended: the shepherd waits, or ends if enough do.
    fn put_back(&self, shepherd: &Arc<Shepherd>) {
        let mut inner = held(&self.inner);
        if inner.waiting.len() >= WAITING_MAX {
            drop(inner);
            return shepherd.end();
        }
        let timeout = (inner.waiting.len() >= PREPARED).then_some(WAITING_TIME);
        let _ = shepherd.control.set_read_timeout(timeout);
        inner.waiting.push(shepherd.clone());
    }

    /// A shepherd has waited for [`WAITING_TIME`]; whether it is not needed.
    fn is_spare(&self, shepherd: &Arc<Shepherd>) -> bool {
        let mut inner = held(&self.inner);
        if inner.waiting.len() <= PREPARED {
            let _ = shepherd.control.set_read_timeout(None);
            return false;
        }
        let place = inner.waiting.iter().position(|waiting| Arc::ptr_eq(waiting, shepherd));
        place.map(|place| inner.waiting.remove(place)).is_some()
    }

    /// A shepherd has ended.
    fn forget(&self, shepherd: &Arc<Shepherd>) {
        held(&self.inner).waiting.retain(|waiting| !Arc::ptr_eq(waiting, shepherd));
    }
}

impl Drop for Flock {
    fn drop(&mut self) {
        for shepherd in &held(&self.inner).waiting {
            shepherd.end();
        }
    }
}

fn start_keeper(config: &GuestConfig) -> io::Result<Keeper> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    let (requests, theirs) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    let life = config.life.as_deref().map(lock::share).transpose()?;
    let child = Command::new(&config.program)
        .args(&config.arguments)
        .envs(config.environment.iter().cloned())
        .stdin(theirs)
        .stdout(life.map_or_else(Stdio::null, Stdio::from))
        .spawn()?;
    Ok(Keeper { child, requests })
}

fn no_room(error: io::Error) -> GuestError {
    match error.kind() {
        io::ErrorKind::OutOfMemory | io::ErrorKind::WouldBlock => GuestError::NoRoom(error.to_string()),
        _ => GuestError::Failed(error.to_string()),
    }
}

/// One shepherd. Its thread holds it until it has ended.
struct Shepherd {
    control: UnixStream,
    flock: Weak<Flock>,
    /// Orders are written under this lock, so they do not mix and none comes to another guest.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The guest it has.
    with: Option<With>,
    /// Nobody hears it any more: it takes no guest.
    ended: bool,
}

/// A guest that a shepherd has.
struct With {
    sheep: Weak<Sheep>,
    events: Arc<dyn Events>,
    answer: mpsc::SyncSender<Report>,
    log: Vec<u8>,
    started: bool,
}

impl Shepherd {
    /// Gives a waiting shepherd a guest; gives that back if the shepherd has ended.
    fn take(self: &Arc<Self>, start: Start, events: &Arc<dyn Events>) -> Result<Arc<Sheep>, Start> {
        let (answer, answers) = mpsc::sync_channel(1);
        let sheep = Arc::new(Sheep {
            shepherd: self.clone(),
            warden: AtomicU32::new(0),
            inner_pid: AtomicU32::new(0),
            host_pid: AtomicU32::new(0),
            answers: Mutex::new(answers),
        });
        let mut state = held(&self.state);
        if state.ended {
            return Err(start);
        }
        let (log, events) = (start.log.clone(), events.clone());
        state.with = Some(With { sheep: Arc::downgrade(&sheep), events, answer, log, started: false });
        let _ = self.control.set_read_timeout(None);
        // If it has died, its thread finds that out and tells of the guest's end.
        let _ = send_order(&self.control, &Order::Start(start));
        Ok(sheep)
    }

    /// Hears the shepherd until it has ended. The keeper closes the socket pair when nothing of a guest is left, so that
    /// is when the end of one whose shepherd does not stay is told.
    fn hear(self: Arc<Self>) {
        let (mut last, mut was_of_use) = (None, false);
        loop {
            match receive_report(&self.control) {
                Ok(Report::Exited { exit, stays }) => {
                    was_of_use = true;
                    let with = held(&self.state).with.take();
                    match self.flock.upgrade().filter(|_| stays) {
                        Some(flock) => {
                            flock.put_back(&self);
                            with.inspect(|with| with.events.exited(exit));
                        }
                        None => last = with.map(|with| (with, exit)),
                    }
                }
                Ok(report) => self.note(report),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if self.flock.upgrade().is_none_or(|flock| flock.is_spare(&self)) {
                        self.end();
                    }
                }
                Err(_) => break,
            }
        }
        let killed = {
            let mut state = held(&self.state);
            state.ended = true;
            state.with.take().map(|with| {
                let exit = vanished(with.started);
                (with, exit)
            })
        };
        if let Some(flock) = self.flock.upgrade() {
            flock.forget(&self);
        }
        if let Some((with, exit)) = last.or(killed) {
            was_of_use |= with.started;
            scratch::remove(&with.log);
            with.events.exited(exit);
        }
        // Where none can be made, making more would go on for ever.
        if let Some(flock) = self.flock.upgrade().filter(|_| was_of_use) {
            flock.prepare();
        }
    }

    fn note(&self, report: Report) {
        let mut state = held(&self.state);
        let Some(with) = &mut state.with else { return };
        let events = with.events.clone();
        match report {
            Report::Started { warden, guest } => {
                with.started = true;
                if let Some(sheep) = with.sheep.upgrade() {
                    sheep.warden.store(warden, Ordering::Relaxed);
                    sheep.inner_pid.store(guest, Ordering::Relaxed);
                }
                events.started();
            }
            Report::OutputLost(reason) => events.output_lost(&reason),
            // A full channel holds an answer that nobody waited for; this one nobody waits for either.
            answer => drop(with.answer.try_send(answer)),
        }
    }

    fn end(&self) {
        let _ = self.control.shutdown(std::net::Shutdown::Both);
    }
}

/// The shepherd ended without a word: somebody killed it, and the guest with it.
fn vanished(started: bool) -> Exit {
    if started {
        Exit { code: 137, signal: 9, reason: "its shepherd was killed".into(), ..Exit::default() }
    } else {
        let reason = "its shepherd ended before the program ran".into();
        Exit::not_started(Status::STD_SYSERR, CODE_OUR_FAULT, reason)
    }
}

/// A guest as the process server sees it.
struct Sheep {
    shepherd: Arc<Shepherd>,
    /// The warden's number on the host.
    warden: AtomicU32,
    /// The guest's first process: its number in the warden's namespace, and on the host once somebody asked.
    inner_pid: AtomicU32,
    host_pid: AtomicU32,
    /// One order that wants an answer at a time, and where its answer comes.
    answers: Mutex<mpsc::Receiver<Report>>,
}

impl Sheep {
    fn order(&self, order: &Order) -> Result<(), GuestError> {
        let state = held(&self.shepherd.state);
        let is_mine = |with: &With| std::ptr::eq(with.sheep.as_ptr(), self);
        if !state.with.as_ref().is_some_and(is_mine) {
            return Err(GuestError::Gone);
        }
        send_order(&self.shepherd.control, order).map_err(|_| GuestError::Gone)
    }

    fn ask(&self, order: &Order) -> Result<Report, GuestError> {
        let answers = held(&self.answers);
        while answers.try_recv().is_ok() {}
        self.order(order)?;
        answers.recv_timeout(ANSWER_TIMEOUT).map_err(|error| match error {
            mpsc::RecvTimeoutError::Timeout => GuestError::Failed("the shepherd does not answer".into()),
            mpsc::RecvTimeoutError::Disconnected => GuestError::Gone,
        })
    }
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Guest for Sheep {
    fn pid(&self) -> u32 {
        let known = self.host_pid.load(Ordering::Relaxed);
        let inner = self.inner_pid.load(Ordering::Relaxed);
        if known != 0 || inner == 0 {
            return known;
        }
        let found = host::child(self.warden.load(Ordering::Relaxed), inner).unwrap_or(0);
        self.host_pid.store(found, Ordering::Relaxed);
        found
    }

    fn times(&self) -> (Duration, Duration) {
        host::times(self.pid()).unwrap_or_default()
    }

    fn signal(&self, number: u8) -> Result<(), GuestError> {
        self.order(&Order::Signal(number))
    }

    fn freeze(&self) -> Result<(), GuestError> {
        match self.ask(&Order::Freeze)? {
            Report::Frozen(true) => Ok(()),
            Report::Frozen(false) => Err(GuestError::NotStopped),
            _ => Err(GuestError::Failed("the shepherd gave another answer".into())),
        }
    }

    fn thaw(&self) -> Result<(), GuestError> {
        self.ask(&Order::Thaw).map(drop)
    }

    fn resize(&self, window: WindowSize) -> Result<(), GuestError> {
        self.order(&Order::Resize(window))
    }
}
