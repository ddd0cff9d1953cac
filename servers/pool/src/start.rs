//! A run server at work.

use std::sync::Arc;
use std::time::Duration;

use amoeba_cap::{Capability, CheckField, GetPort, ObjectNumber, PutPort, Rights, ServerSecret};
use amoeba_name::Names;
use amoeba_place::{Kind, Parameters, Survey};
use amoeba_server::Running;
use amoeba_stubs::pool;
use amoeba_threads::{JoinHandle, SpawnError};
use amoeba_world::{Error, Listener, World};

use crate::confined::Confined;
use crate::pollers::{DOWN_POLLERS, LIVE_POLLERS, Shared};
use crate::serve::RunServer;

/// The random of the server itself: it is there for ever, and its key alone protects it.
pub(crate) const PERMANENT: CheckField = CheckField::NULL;

/// Where a run server listens and what protects its capability. Copies of one run server have the same.
pub struct Keys {
    /// Where it listens.
    pub get_port: GetPort,
    /// What makes and verifies its check field.
    pub secret: ServerSecret,
}

/// How it goes about its work.
#[derive(Clone, Debug)]
pub struct Options {
    /// How often a host that answers is asked. One that does not is asked after this, then half as often each time, but
    /// at least every eight seconds.
    pub interval: Duration,
    /// How often the pool directory is read.
    pub scan_interval: Duration,
    /// How long a host is searched for before it is down.
    pub locate_timeout: Duration,
    /// The parameters it starts with.
    pub parameters: Parameters,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            interval: Duration::from_secs(1),
            scan_interval: Duration::from_secs(2),
            locate_timeout: Duration::from_millis(700),
            parameters: Parameters::default(),
        }
    }
}

/// Why a run server does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The kernel does not let it listen.
    #[error("cannot listen: {0}")]
    Listen(Error),
    /// No room for its threads.
    #[error(transparent)]
    Threads(#[from] SpawnError),
}

/// Serves the pool whose directory is at `path` in the name space `names` on `threads` threads (at least two). Returns at
/// once: the directory need not be there yet. For a capability of the directory itself, `names` has it as its root and the
/// path is `/`.
///
/// # Errors
/// See [`StartError`].
pub fn start(
    world: &World,
    keys: Keys,
    names: &Names,
    path: &[u8],
    options: Options,
    threads: usize,
) -> Result<RunningPool, StartError> {
    let survey = Survey::new(world, names, path, options.locate_timeout);
    let confined = Confined::new(world, options.locate_timeout);
    let listener =
        world.transactions.listen(&keys.get_port, pool::REQUEST_SIZE_MAX).map_err(StartError::Listen)?;
    let shared = Arc::new(Shared::new(world, survey, options));
    let server = Arc::new(RunServer { shared: shared.clone(), secret: keys.secret.clone(), confined });
    let running = pool::start(world, listener.clone(), server, threads.max(2))?;
    let mut started =
        RunningPool { shared, secret: keys.secret, listener, running, pollers: Vec::with_capacity(9) };
    match started.start_pollers() {
        Ok(()) => Ok(started),
        Err(error) => {
            started.stop();
            Err(error.into())
        }
    }
}

/// A run server at work. Dropping it lets it run on.
pub struct RunningPool {
    shared: Arc<Shared>,
    secret: ServerSecret,
    listener: Listener,
    running: Running,
    pollers: Vec<JoinHandle<()>>,
}

impl RunningPool {
    fn start_pollers(&mut self) -> Result<(), SpawnError> {
        let threads = &self.shared.world.threads;
        let shared = self.shared.clone();
        self.pollers.push(threads.spawn("scanner", move || shared.scan_always())?);
        for (kind, count) in [(Kind::Live, LIVE_POLLERS), (Kind::Down, DOWN_POLLERS)] {
            for _ in 0..count {
                let shared = self.shared.clone();
                self.pollers.push(threads.spawn("poller", move || shared.poll(kind))?);
            }
        }
        Ok(())
    }

    /// The port of its capability.
    pub fn put_port(&self) -> PutPort {
        self.listener.put_port()
    }

    /// The capability of the server, with all rights.
    pub fn super_capability(&self) -> Capability {
        self.secret.capability(self.put_port(), ObjectNumber::SUPER, Rights::ALL, PERMANENT)
    }

    /// The capability for users: to have hosts chosen, for whatever processes, and to see.
    pub fn user_capability(&self) -> Capability {
        let rights = pool::FINDHOST | pool::STATUS | pool::HOST;
        self.secret.capability(self.put_port(), ObjectNumber::SUPER, rights, PERMANENT)
    }

    /// Its listener, which another thread may close to end [`RunningPool::join`].
    pub fn listener(&self) -> Listener {
        self.listener.clone()
    }

    /// Waits until the listener is closed and every request is answered, then ends the polling.
    pub fn join(self) {
        self.running.join();
        self.shared.pool.lock().stopped = true;
        self.shared.work.notify_all();
        self.shared.news.notify_all();
        for poller in self.pollers {
            poller.join();
        }
    }

    /// Stops taking requests, answers those it has, ends the polling.
    pub fn stop(self) {
        self.listener.close();
        self.join();
    }
}
