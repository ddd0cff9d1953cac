//! A Bullet server at work: store, request threads and sweeper.

use std::sync::Arc;

use amoeba_cap::{Capability, ObjectNumber, PutPort, Rights};
use amoeba_server::Running;
use amoeba_stubs::bullet;
use amoeba_threads::{Condition, JoinHandle, Mutex, SpawnError, Threads};
use amoeba_world::{Disk, Error, Listener, World};

use crate::serve::{BulletServer, THREADS_MIN};
use crate::store::{Settings, Store, StoreError, VolumeError};

/// Why a Bullet server does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// Its disk cannot be used.
    #[error(transparent)]
    Volume(#[from] VolumeError),
    /// The kernel does not let it listen.
    #[error("cannot listen: {0}")]
    Listen(Error),
    /// No room for its threads.
    #[error(transparent)]
    Threads(#[from] SpawnError),
}

/// Opens the volume on `disk` and serves it on `threads` threads (at least four). Returns once requests are taken.
///
/// # Errors
/// See [`StartError`].
pub fn start(
    world: &World,
    disk: Arc<dyn Disk>,
    settings: Settings,
    threads: usize,
) -> Result<RunningBullet, StartError> {
    let store = Arc::new(Store::open(disk, &world.threads, world.entropy.clone(), settings)?);
    let listener =
        world.transactions.listen(store.get_port(), bullet::REQUEST_SIZE_MAX).map_err(StartError::Listen)?;
    let server = Arc::new(BulletServer::new(world, store.clone()));
    let running = bullet::start(world, listener.clone(), server, threads.max(THREADS_MIN))?;
    match Sweeper::start(&world.threads, &store) {
        Ok(sweeper) => {
            let helpers = Helpers::start(&world.threads, &store);
            Ok(RunningBullet { helpers, store, listener, running, sweeper })
        }
        Err(error) => {
            running.stop();
            Err(error.into())
        }
    }
}

/// A Bullet server at work. Dropping it lets the server run on.
pub struct RunningBullet {
    store: Arc<Store>,
    listener: Listener,
    running: Running,
    sweeper: Sweeper,
    helpers: Helpers,
}

impl RunningBullet {
    /// What it serves.
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// The port of its files' capabilities.
    pub fn put_port(&self) -> PutPort {
        self.listener.put_port()
    }

    /// The capability of the server itself, with all rights.
    pub fn super_capability(&self) -> Capability {
        let random = self.store.super_random();
        self.store.secret().capability(self.put_port(), ObjectNumber::SUPER, Rights::ALL, random)
    }

    /// Its listener, which another thread may close to end [`RunningBullet::join`].
    pub fn listener(&self) -> Listener {
        self.listener.clone()
    }

    /// Waits until the listener is closed and every request is answered, then writes what is in memory only.
    ///
    /// # Errors
    /// Those of [`Store::close`]: what was committed without safety may be lost.
    pub fn join(self) -> Result<(), StoreError> {
        self.running.join();
        self.sweeper.stop();
        self.helpers.stop(&self.store);
        self.store.close()
    }

    /// Stops taking requests, answers those it has, writes what is in memory only.
    ///
    /// # Errors
    /// As [`RunningBullet::join`].
    pub fn stop(self) -> Result<(), StoreError> {
        self.listener.close();
        self.join()
    }
}

/// The threads that make space ready and carry chunks to the disk; without them commits only cost more.
struct Helpers {
    ahead: Option<JoinHandle<()>>,
    carrier: Option<JoinHandle<()>>,
}

impl Helpers {
    fn start(threads: &Threads, store: &Arc<Store>) -> Helpers {
        let (ahead, carrier) = (store.clone(), store.clone());
        Helpers {
            ahead: threads.spawn("ahead", move || ahead.run_ahead()).ok(),
            carrier: threads.spawn("carrier", move || carrier.run_carrier()).ok(),
        }
    }

    fn stop(self, store: &Store) {
        store.stop_ahead();
        store.stop_carrier();
        self.ahead.map(JoinHandle::join);
        self.carrier.map(JoinHandle::join);
    }
}

/// The thread that comes round to sweep.
struct Sweeper {
    stopped: Arc<(Mutex<bool>, Condition)>,
    thread: JoinHandle<()>,
}

impl Sweeper {
    fn start(threads: &Threads, store: &Arc<Store>) -> Result<Sweeper, SpawnError> {
        let stopped = Arc::new((Mutex::new(threads, false), Condition::new(threads)));
        let (store, threads_of, watched) = (store.clone(), threads.clone(), stopped.clone());
        let thread = threads.spawn("sweeper", move || {
            let (is_stopped, change) = &*watched;
            loop {
                let round = threads_of.now() + store.settings().sweep_interval;
                let mut guard = is_stopped.lock();
                while !*guard && threads_of.now() < round {
                    guard = change.wait_until(guard, Some(round)).0;
                }
                if *guard {
                    return;
                }
                drop(guard);
                // A failed disk is remembered by the store, which says so in its status and to everyone who commits.
                let _ = store.sweep();
            }
        })?;
        Ok(Sweeper { stopped, thread })
    }

    fn stop(self) {
        *self.stopped.0.lock() = true;
        self.stopped.1.notify_all();
        self.thread.join();
    }
}
