//! The transactions of a process, through the kernel daemon of its host.
//!
//! Plain blocking code: a thread takes a connection for itself, says what it wants and waits for the answer. A
//! process attaches at its first use; when the daemon is restarted, the next use attaches again and a thread in
//! `getreq` listens again by itself. A child that was forked attaches for itself; listeners, endpoints and duties to reply
//! stay its parent's, and are closed for the child.

mod admin;
mod channel;
mod desk;
mod endpoint;
mod keeper;
mod lend;
mod listener;
mod look;
mod posted;
mod served;
mod session;
pub(crate) mod ways;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use amoeba_cap::{Capability, GetPort, PutPort};
use amoeba_threads::Instant;
use amoeba_wire::{DATA_SIZE_MAX, Status};
use amoeba_world::{
    Destination, Endpoint, Error, Listener, Memory, Message, Posted, TransOptions, Transactions,
};

use crate::fork::Origin;
use crate::socket::{Lost, ToKernel, ToProcess};
use crate::threads::now;
use channel::Outcome;
pub use channel::{CHANNELS_MAX, PORTS_MAX};
use keeper::Keeper;
pub use listener::CHANNELS_PER_LISTENER_MAX;
pub use look::{Passed, Trace};
pub use posted::UNDER_WAY_MAX;
use session::{Refused, Session};

/// How long a transaction waits for a kernel daemon that is not there (it may be restarting), at most.
pub const ABSENCE_MAX: Duration = Duration::from_secs(1);
/// How long a listener waits for one: a server survives a restart of its kernel.
pub const LISTENER_ABSENCE_MAX: Duration = Duration::from_secs(30);
/// Connections that a process keeps for its next transactions.
pub const IDLE_MAX: usize = 16;

const RETRY_FIRST: Duration = Duration::from_millis(5);
const RETRY_MAX: Duration = Duration::from_millis(320);

/// A process that has, or will have, a kernel. Cheap to clone.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    path: PathBuf,
    attached: Attached,
}

/// The session of one process. A child that was forked leaves its parent's alone, locks and all, and has one of its own.
struct Attached {
    origin: Origin,
    session: Mutex<Option<Arc<Session>>>,
    keeper: Keeper,
    in_child: OnceLock<Box<Attached>>,
}

impl Attached {
    fn new() -> Attached {
        Attached {
            origin: Origin::here(),
            session: Mutex::new(None),
            keeper: Keeper::default(),
            in_child: OnceLock::new(),
        }
    }

    /// That of this process.
    fn here(&self) -> &Attached {
        let mut attached = self;
        while !attached.origin.is_here() {
            attached = attached.in_child.get_or_init(|| Box::new(Attached::new()));
        }
        attached
    }
}

impl Client {
    /// The process as it is known to the daemon on `socket`. Connects when first used.
    pub fn new(socket: &Path) -> Client {
        Client(Arc::new(Inner { path: socket.into(), attached: Attached::new() }))
    }

    /// What the daemon says of itself: counters and tables, a line each.
    ///
    /// # Errors
    /// [`Error::NotSent`] when no daemon answers.
    pub fn kernel_status(&self) -> Result<String, Error> {
        match self.control(&ToKernel::Status)? {
            ToProcess::Text { text } => Ok(String::from_utf8_lossy(&text).into_owned()),
            _ => Err(Error::BadReply),
        }
    }

    /// The session with the daemon that runs now.
    fn session(&self) -> Result<Arc<Session>, Refused> {
        let mut session = lock(&self.0.attached.here().session);
        if let Some(session) = &*session
            && !session.is_over()
        {
            return Ok(session.clone());
        }
        let attached = Arc::new(Session::attach(&self.0.path)?);
        *session = Some(attached.clone());
        Ok(attached)
    }

    /// Asks something that may be asked twice.
    fn control(&self, frame: &ToKernel) -> Result<ToProcess, Error> {
        let mut absence = Absence::new(ABSENCE_MAX);
        loop {
            let refused = match self.session() {
                Ok(session) => match session.control(frame) {
                    Ok(answer) => return Ok(answer),
                    Err(Lost) => Refused::Absent,
                },
                Err(refused) => refused,
            };
            absence.wait_after(refused)?;
        }
    }

    /// A transaction over a channel, if there is one or can be; `None` when the request certainly was not executed and
    /// should go through the daemon.
    fn trans_channel(
        &self,
        request: &mut Message,
        options: &TransOptions,
        deadline: Option<Instant>,
    ) -> Option<Result<Message, Error>> {
        let (port, signature) = (request.header.port, options.signature.as_ref());
        if port.is_null() || request.header.status().0 < 0 {
            return None; // the daemon says what is wrong with it
        }
        let session = self.session().ok()?;
        let mut channel = session.channels.take(&session, port, signature)?;
        match channel.trans(request, options, deadline) {
            Outcome::Done(result) => {
                session.channels.give(port, signature, channel);
                Some(result)
            }
            Outcome::Last(result) => {
                session.channels.end(&session, port, signature, channel);
                Some(result)
            }
            Outcome::Elsewhere => {
                session.channels.end(&session, port, signature, channel);
                None
            }
        }
    }

    /// A transaction, tried again while the kernel is not there.
    fn trans_frame(&self, frame: &ToKernel, options: &TransOptions) -> Result<Message, Error> {
        let patience = options.locate_timeout.min(options.deadline.unwrap_or(Duration::MAX));
        let mut absence = Absence::new(ABSENCE_MAX.min(patience));
        loop {
            match self.try_trans(frame) {
                Ok(Ok(ToProcess::Reply { message })) => {
                    let fits = message.data.len() <= options.reply_size_max;
                    return Ok(if fits { message } else { Message::status(Status::STD_OVERFLOW) });
                }
                Ok(Ok(ToProcess::Error { error })) => return Err(error),
                Ok(Ok(_)) => return Err(Error::MaybeExecuted(Status::RPC_FAILURE)),
                Ok(Err(error)) => return Err(error),
                Err(refused) => absence.wait_after(refused)?,
            }
        }
    }

    /// One try of a transaction; `Ok(None)` when it was certainly not executed because the kernel went away.
    fn try_trans(&self, frame: &ToKernel) -> Result<Result<ToProcess, Error>, Refused> {
        let session = self.session()?;
        let stream = session.take()?;
        if stream.send(frame).is_err() {
            session.distrust();
            return Err(Refused::Absent);
        }
        match stream.receive() {
            Ok(answer) => {
                session.give(stream);
                Ok(Ok(answer))
            }
            Err(Lost) => {
                session.distrust();
                Ok(Err(Error::MaybeExecuted(Status::RPC_FAILURE)))
            }
        }
    }
}

impl Transactions for Client {
    fn trans(&self, mut request: Message, options: &TransOptions) -> Result<Message, Error> {
        self.trans_keeping(&mut request, options)
    }

    fn trans_keeping(&self, request: &mut Message, options: &TransOptions) -> Result<Message, Error> {
        if request.data.len() > DATA_SIZE_MAX {
            return Err(Error::NotSent(Status::RPC_BADADDRESS));
        }
        let deadline = options.deadline.map(|time| now() + time);
        if let Some(result) = self.trans_channel(request, options, deadline) {
            return result;
        }
        let deadline = deadline.map(|deadline| deadline.since(now()));
        let options = TransOptions { deadline, ..options.clone() };
        let (header, data) = (request.header, std::mem::take(&mut request.data));
        let frame = ToKernel::Trans { options: options.clone(), message: Message { header, data } };
        let result = self.trans_frame(&frame, &options);
        if let ToKernel::Trans { message, .. } = frame {
            *request = message;
        }
        result
    }

    fn trans_posted(&self, posts: &mut [Posted<'_>], options: &TransOptions) {
        posted::trans_posted(self, posts, options);
    }

    fn passage(&self, port: PutPort) -> Option<&'static str> {
        self.session().ok()?.channels.passage(port)
    }

    fn memory(&self, size: usize, fill: &mut dyn FnMut(&mut [u8])) -> Option<Memory> {
        crate::lent::make(self, size, fill)
    }

    fn borrow_memory(&self, ticket: u64) -> Result<Memory, Error> {
        self.borrow(ticket)
    }

    fn kept_memory(&self, file: &Capability) -> Option<Memory> {
        self.0.attached.here().keeper.find(file)
    }

    fn keep_memory(&self, file: &Capability, memory: &Memory) {
        self.0.attached.here().keeper.keep(file, memory);
    }

    fn forget_memory(&self, file: &Capability) {
        self.0.attached.here().keeper.forget(file);
    }

    fn listen(&self, port: &GetPort, request_size_max: usize) -> Result<Listener, Error> {
        if port.is_null() {
            return Err(Error::NotSent(Status::RPC_BADPORT));
        }
        let mut absence = Absence::new(ABSENCE_MAX);
        loop {
            match listener::listen(self, port, request_size_max) {
                Ok(listener) => return Ok(Arc::new(listener)),
                Err(refused) => absence.wait_after(refused)?,
            }
        }
    }

    fn put_port(&self, port: &GetPort) -> Result<PutPort, Error> {
        match self.control(&ToKernel::PutPort { port: port.clone() })? {
            ToProcess::Port { port } => Ok(port),
            ToProcess::Error { error } => Err(error),
            _ => Err(Error::BadReply),
        }
    }

    fn send(&self, to: Destination, data: Vec<u8>) -> Result<(), Error> {
        endpoint::send(self, to, data)
    }

    fn datagrams(&self, port: Option<&GetPort>) -> Result<Endpoint, Error> {
        Ok(Arc::new(endpoint::open(self, port)?))
    }
}

/// The contents of a lock, whatever happened to its last holder.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waiting for a daemon that is not there, a little longer each time, up to a bound.
struct Absence {
    deadline: Instant,
    pause: Duration,
}

impl Absence {
    fn new(longest: Duration) -> Absence {
        Absence { deadline: now() + longest, pause: RETRY_FIRST }
    }

    /// How long to wait before the next try; `None` when it was long enough.
    fn pause(&mut self) -> Option<Duration> {
        let left = self.deadline.since(now());
        let pause = self.pause.min(left);
        self.pause = (self.pause * 2).min(RETRY_MAX);
        (!left.is_zero()).then_some(pause)
    }

    /// Waits before the next try if a next try makes sense.
    fn wait_after(&mut self, refused: Refused) -> Result<(), Error> {
        if refused != Refused::Absent {
            return Err(refused.into());
        }
        std::thread::sleep(self.pause().ok_or(refused)?);
        Ok(())
    }
}
