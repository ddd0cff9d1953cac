//! One attachment of this process to a daemon: its cookie and its connections.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use amoeba_wire::Status;
use amoeba_world::Error;
use rustix::io::Errno;

use super::channel::Channels;
use super::ways::{Inwards, Outwards};
use super::{IDLE_MAX, lock};
use crate::socket::{Cookie, Lost, Stream, ToKernel, ToProcess, VERSION, connect};

/// Why there is no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// There is no daemon, or the one that was there has gone: trying again may help.
    Absent,
    /// The daemon said no.
    Status(Status),
}

impl From<Lost> for Refused {
    fn from(_: Lost) -> Refused {
        Refused::Absent
    }
}

impl From<Refused> for Error {
    fn from(refused: Refused) -> Error {
        Error::NotSent(match refused {
            Refused::Absent => Status::RPC_NOTFOUND,
            Refused::Status(status) => status,
        })
    }
}

/// See the module.
pub(super) struct Session {
    /// Tells this attachment from the ones before it.
    pub(super) number: u64,
    path: PathBuf,
    cookie: Cookie,
    /// The first connection: it stays open as long as the session, so that the process lives, and asks what is
    /// answered at once.
    control: Mutex<Stream>,
    idle: Mutex<Vec<Arc<Stream>>>,
    over: AtomicBool,
    pub(super) channels: Channels,
    pub(super) outwards: Outwards,
    pub(super) inwards: Inwards,
}

static NUMBERS: AtomicU64 = AtomicU64::new(1);

impl Session {
    /// Attaches this process as a new one.
    pub(super) fn attach(path: &Path) -> Result<Session, Refused> {
        let control = open(path)?;
        match control.ask(&ToKernel::Attach { version: VERSION })? {
            ToProcess::Attached { cookie, .. } => Ok(Session {
                number: NUMBERS.fetch_add(1, Ordering::Relaxed),
                path: path.into(),
                cookie,
                control: Mutex::new(control),
                idle: Mutex::new(Vec::new()),
                over: AtomicBool::new(false),
                channels: Channels::default(),
                outwards: Outwards::default(),
                inwards: Inwards::default(),
            }),
            answer => Err(refusal(answer)),
        }
    }

    /// Whether the daemon of this session is gone.
    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    /// Asks what the daemon answers at once.
    pub(super) fn control(&self, frame: &ToKernel) -> Result<ToProcess, Lost> {
        let control = lock(&self.control);
        control.ask(frame).inspect_err(|_| self.over.store(true, Ordering::Release))
    }

    /// A connection for the calling thread alone.
    pub(super) fn take(&self) -> Result<Arc<Stream>, Refused> {
        let idle = lock(&self.idle).pop();
        if let Some(stream) = idle {
            return Ok(stream);
        }
        let stream = open(&self.path).inspect_err(|refused| self.end_if_absent(*refused))?;
        match stream.ask(&ToKernel::Join { cookie: self.cookie })? {
            ToProcess::Done => Ok(Arc::new(stream)),
            answer => {
                let refused = refusal(answer);
                self.end_if_absent(refused);
                Err(refused)
            }
        }
    }

    fn end_if_absent(&self, refused: Refused) {
        if refused == Refused::Absent {
            self.over.store(true, Ordering::Release);
        }
    }

    /// Gives a connection back on which nothing is awaited.
    pub(super) fn give(&self, stream: Arc<Stream>) {
        let mut idle = lock(&self.idle);
        if idle.len() < IDLE_MAX {
            idle.push(stream);
        }
    }

    /// A connection broke: the idle ones are as old, so the next one is made anew and finds out.
    pub(super) fn distrust(&self) {
        lock(&self.idle).clear();
    }
}

fn open(path: &Path) -> Result<Stream, Refused> {
    connect(path).map(Stream::new).map_err(|error| {
        tracing::debug!("cannot connect to {}: {error}", path.display());
        match error.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM) => Refused::Status(Status::RPC_TRYAGAIN),
            Some(Errno::ACCESS | Errno::PERM) => Refused::Status(Status::RPC_NOTFOUND),
            _ => Refused::Absent,
        }
    })
}

/// What a refused ATTACH or JOIN means. A daemon that does not know our cookie is another one than attached us.
fn refusal(answer: ToProcess) -> Refused {
    match answer {
        ToProcess::Error { error: Error::NotSent(Status::RPC_NOTFOUND) } => Refused::Absent,
        ToProcess::Error { error } => Refused::Status(error.status()),
        _ => Refused::Absent,
    }
}
