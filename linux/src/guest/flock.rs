//! The process server's end of its shepherds: one [`Sheep`] a guest, one thread that hears its shepherd.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

use amoeba_process::{Events, Exit, Guest, GuestError, WindowSize};
use amoeba_wire::Status;
use amoeba_world::Threads;

use super::control::{Order, Report, receive_report, send_order};
use super::program::CODE_OUR_FAULT;
use super::{GuestConfig, host};

/// How long a shepherd may take to answer: longer than it tries to stop a guest.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// A guest as the process server sees it.
struct Sheep {
    control: UnixStream,
    /// The keeper's number on the host.
    keeper: u32,
    /// The guest's first process: its number in the warden's namespace, and on the host once somebody asked.
    inner_pid: AtomicU32,
    host_pid: AtomicU32,
    /// One order that wants an answer at a time, and where its answer goes.
    answers: Mutex<mpsc::Receiver<Report>>,
    /// One writer at a time, so that orders do not mix.
    writing: Mutex<()>,
}

/// Starts a shepherd and the thread that hears it.
pub(super) fn start(
    config: &GuestConfig,
    threads: &Threads,
    order: Order,
    events: Arc<dyn Events>,
) -> Result<Arc<dyn Guest>, GuestError> {
    let (ours, theirs) = UnixStream::pair().map_err(no_room)?;
    let child = Command::new(&config.program)
        .args(&config.arguments)
        .envs(config.environment.iter().cloned())
        .stdin(OwnedFd::from(theirs))
        .stdout(Stdio::null())
        .spawn()
        .map_err(no_room)?;
    let (tell, answers) = mpsc::sync_channel(1);
    let sheep = Arc::new(Sheep {
        control: ours,
        keeper: child.id(),
        inner_pid: AtomicU32::new(0),
        host_pid: AtomicU32::new(0),
        answers: Mutex::new(answers),
        writing: Mutex::new(()),
    });
    let shepherd = Shepherd { sheep: sheep.clone(), child: Some(child), answer: tell, events };
    // If no thread can be had the shepherd is dropped with the closure, and that ends it.
    threads
        .spawn("guest", move || shepherd.hear(&order))
        .map_err(|error| GuestError::NoRoom(error.to_string()))?;
    Ok(sheep)
}

fn no_room(error: io::Error) -> GuestError {
    match error.kind() {
        io::ErrorKind::OutOfMemory | io::ErrorKind::WouldBlock => GuestError::NoRoom(error.to_string()),
        _ => GuestError::Failed(error.to_string()),
    }
}

/// What the hearing thread holds.
struct Shepherd {
    sheep: Arc<Sheep>,
    child: Option<Child>,
    answer: mpsc::SyncSender<Report>,
    events: Arc<dyn Events>,
}

impl Shepherd {
    /// Hears the shepherd until it has ended, and then tells how the guest did.
    fn hear(mut self, order: &Order) {
        let mut exit = None;
        if send_order(&self.sheep.control, order).is_ok() {
            while let Ok(report) = receive_report(&self.sheep.control) {
                match report {
                    Report::Started(pid) => {
                        self.sheep.inner_pid.store(pid, Ordering::Relaxed);
                        self.events.started();
                    }
                    Report::OutputLost(reason) => self.events.output_lost(&reason),
                    Report::Exited(how) => exit = Some(how),
                    // A full channel holds an answer that nobody waited for; this one nobody waits for either.
                    answer => drop(self.answer.try_send(answer)),
                }
            }
        }
        self.reap();
        let started = self.sheep.inner_pid.load(Ordering::Relaxed) != 0;
        self.events.exited(exit.unwrap_or_else(|| vanished(started)));
    }

    /// The keeper ends after everything it kept, so when it is reaped nothing of the guest is left.
    fn reap(&mut self) {
        let _ = self.sheep.control.shutdown(std::net::Shutdown::Both);
        if let Some(mut child) = self.child.take() {
            let _ = child.wait();
        }
    }
}

impl Drop for Shepherd {
    fn drop(&mut self) {
        self.reap();
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

impl Sheep {
    fn order(&self, order: &Order) -> Result<(), GuestError> {
        let _writing = held(&self.writing);
        send_order(&self.control, order).map_err(|_| GuestError::Gone)
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
        let found = host::grandchild(self.keeper, inner).unwrap_or(0);
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
