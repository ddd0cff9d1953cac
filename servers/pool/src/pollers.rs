//! What the server knows, and the threads that keep it true: one reads the pool directory, some ask hosts.

use std::time::Duration;

use amoeba_name::NameError;
use amoeba_place::{Kind, Parameters, Roster, Survey};
use amoeba_stubs::pool::{BADPOOLDIR, NOPOOLDIR};
use amoeba_threads::{Condition, Instant, Mutex, MutexGuard};
use amoeba_wire::Status;
use amoeba_world::{Error, World};

use crate::decisions::Decisions;
use crate::start::Options;

/// Threads that ask hosts that answer: one may wait for seconds for a host that has just died.
pub(crate) const LIVE_POLLERS: usize = 6;
/// Threads that ask hosts that are down, so that these keep nobody from the others.
pub(crate) const DOWN_POLLERS: usize = 2;
/// When a pool directory without hosts is read again: in a system that is just starting they are about to come.
const EMPTY_RETRY: Duration = Duration::from_millis(200);
/// When a pool directory that could not be read is tried again.
const SCAN_RETRY: Duration = Duration::from_secs(1);
/// So long a request waits for the pool directory to be read for the first time.
const SCAN_WAIT_MAX: Duration = Duration::from_millis(1500);

/// The pool, shared by all threads of the server.
pub(crate) struct Shared {
    pub(crate) world: World,
    pub(crate) survey: Survey,
    pub(crate) options: Options,
    pub(crate) pool: Mutex<Pool>,
    /// There may be something to ask, or an end.
    pub(crate) work: Condition,
    /// Something became known.
    pub(crate) news: Condition,
}

/// What is known.
pub(crate) struct Pool {
    pub(crate) roster: Roster,
    pub(crate) parameters: Parameters,
    pub(crate) decisions: Decisions,
    /// When the pool directory was last read.
    pub(crate) read: Option<Instant>,
    /// What kept it from being read the last time.
    pub(crate) problem: Option<NameError>,
    /// Its rows past the bound.
    pub(crate) left_out: usize,
    pub(crate) stopped: bool,
}

impl Pool {
    /// Whether no host is known.
    fn is_empty(&self) -> bool {
        self.roster.records(Instant::default()).is_empty()
    }
}

impl Shared {
    pub(crate) fn new(world: &World, survey: Survey, options: Options) -> Shared {
        let pool = Pool {
            roster: Roster::new(options.interval),
            parameters: options.parameters.clone(),
            decisions: Decisions::new(u32::from_le_bytes(amoeba_world::random(&*world.entropy))),
            read: None,
            problem: None,
            left_out: 0,
            stopped: false,
        };
        Shared {
            world: world.clone(),
            survey,
            options,
            pool: Mutex::new(&world.threads, pool),
            work: Condition::new(&world.threads),
            news: Condition::new(&world.threads),
        }
    }

    pub(crate) fn now(&self) -> Instant {
        self.world.threads.now()
    }

    /// Asks hosts of one kind until the end.
    pub(crate) fn poll(&self, kind: Kind) {
        let mut pool = self.pool.lock();
        while !pool.stopped {
            let Some(ask) = pool.roster.due(kind, self.now()) else {
                let due = pool.roster.next_due(kind);
                pool = self.work.wait_until(pool, due).0;
                continue;
            };
            drop(pool);
            let answer = self.survey.ask(&ask);
            pool = self.pool.lock();
            let lost = answer.is_err();
            pool.roster.answered(&ask, self.now(), answer);
            self.news.notify_all();
            if lost || kind == Kind::Down {
                self.work.notify_all(); // other threads ask this host from now on
            }
        }
    }

    /// Reads the pool directory again and again until the end.
    pub(crate) fn scan_always(&self) {
        loop {
            let good = self.scan().is_ok();
            let mut pool = self.pool.lock();
            let pause = match good {
                true if pool.is_empty() => EMPTY_RETRY.min(self.options.scan_interval),
                true => self.options.scan_interval,
                false => SCAN_RETRY,
            };
            let next = self.now() + pause;
            while !pool.stopped && self.now() < next {
                pool = self.work.wait_until(pool, Some(next)).0;
            }
            if pool.stopped {
                return;
            }
        }
    }

    /// Reads the pool directory. Hosts outlive the directory server: when it cannot be read, they stay.
    pub(crate) fn scan(&self) -> Result<(), NameError> {
        let names = self.survey.scan();
        let now = self.now();
        let mut pool = self.pool.lock();
        let result = match names {
            Ok((names, left_out)) => {
                pool.roster.set_names(names, now);
                if pool.read.is_none() {
                    pool.roster.begin_round(now);
                }
                (pool.read, pool.left_out) = (Some(now), left_out);
                Ok(())
            }
            Err(error) => Err(error),
        };
        pool.problem = result.err();
        drop(pool);
        self.work.notify_all();
        self.news.notify_all();
        result
    }

    /// The pool, once as much of it is known as can be waited for.
    ///
    /// # Errors
    /// NOPOOLDIR, BADPOOLDIR: the pool directory could not be read yet.
    pub(crate) fn settled(&self) -> Result<MutexGuard<'_, Pool>, Status> {
        let latest = self.now() + SCAN_WAIT_MAX;
        let mut pool = self.pool.lock();
        // A client places by itself sooner than a directory that cannot be read comes back.
        while pool.is_empty() && pool.problem.is_none() && !pool.stopped && self.now() < latest {
            pool = self.news.wait_until(pool, Some(latest)).0;
        }
        if pool.read.is_none() {
            return Err(pool.problem.map_or(NOPOOLDIR, |problem| status(&problem)));
        }
        while let Some(deadline) = pool.roster.unsettled(self.now()).filter(|_| !pool.stopped) {
            pool = self.news.wait_until(pool, Some(deadline)).0;
        }
        Ok(pool)
    }
}

/// What a pool directory that cannot be read is to clients.
pub(crate) fn status(problem: &NameError) -> Status {
    match problem {
        NameError::NotADirectory | NameError::Path(_) => BADPOOLDIR,
        NameError::Transaction(Error::Refused(Status::STD_CAPBAD | Status::STD_DENIED)) => BADPOOLDIR,
        _ => NOPOOLDIR,
    }
}
