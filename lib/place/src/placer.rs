//! Placement inside a client, without a run server.

use std::sync::Arc;
use std::time::Duration;

use amoeba_cap::Capability;
use amoeba_name::{NameError, Names};
use amoeba_threads::{Condition, Instant, Mutex, MutexGuard};
use amoeba_world::World;

use crate::ask::Survey;
use crate::decision::{Choice, Decision, choose};
use crate::need::{Bad, FIND_MAX, Need};
use crate::parameters::Parameters;
use crate::roster::{Kind, Record, Roster};

/// The pool directory when nobody says another: all hosts of the system.
pub const POOL_DEFAULT: &[u8] = b"/profile/hosts";

/// How long what a host said holds.
const LOAD_AGE_MAX: Duration = Duration::from_secs(1);
/// How long the list of hosts holds.
const NAMES_AGE_MAX: Duration = Duration::from_secs(10);
/// How long a host is searched for.
const LOCATE_TIMEOUT: Duration = Duration::from_millis(700);
/// How long a run server that did not answer is left alone.
const SHUNNED: Duration = Duration::from_secs(5);
/// Hosts asked at the same time.
const WORKERS_MAX: usize = 32;

/// A host for a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its name in the pool directory.
    pub host: String,
    /// Its process server, with rights to start processes and to look.
    pub server: Capability,
}

/// A client's own view of a pool: asks its hosts when it must know, and remembers for a second. Cheap to clone.
#[derive(Clone)]
pub struct Placer(Arc<Shared>);

struct Shared {
    world: World,
    survey: Survey,
    parameters: Parameters,
    state: Mutex<View>,
    changed: Condition,
}

struct View {
    roster: Roster,
    /// When the pool directory was last read.
    read: Option<Instant>,
    workers: usize,
    /// Until when no run server is asked, because the last one did not answer.
    shunned: Option<Instant>,
}

impl Placer {
    /// The pool directory at `path` in the name space `names`. Nothing is asked yet.
    pub fn new(world: &World, names: &Names, path: &[u8], parameters: Parameters) -> Placer {
        let view = View { roster: Roster::new(LOAD_AGE_MAX), read: None, workers: 0, shunned: None };
        Placer(Arc::new(Shared {
            world: world.clone(),
            survey: Survey::new(world, names, path, LOCATE_TIMEOUT),
            parameters,
            state: Mutex::new(&world.threads, view),
            changed: Condition::new(&world.threads),
        }))
    }

    /// Chooses hosts for `count` processes: fewer than that when no memory is left, none when no host can take any; the
    /// decision says why.
    ///
    /// # Errors
    /// The pool directory cannot be read, and never was.
    pub fn find(&self, need: &Need, count: u32) -> Result<(Vec<Place>, Decision), NameError> {
        let mut view = self.up_to_date()?;
        let candidates = view.roster.candidates(need, self.0.world.threads.now());
        let mut random = || u64::from_le_bytes(amoeba_world::random(&*self.0.world.entropy));
        let Choice { hosts, decision } =
            choose(&candidates, need, count.min(FIND_MAX), &self.0.parameters, &mut random);
        view.roster.decided(&decision);
        let place = |host: Arc<str>| {
            let server = view.roster.server(&host).expect("only hosts that have answered are chosen");
            Place { host: host.to_string(), server }
        };
        Ok((hosts.into_iter().map(place).collect(), decision))
    }

    /// Every host of the pool, by name.
    ///
    /// # Errors
    /// As [`Placer::find`].
    pub fn hosts(&self) -> Result<Vec<Record>, NameError> {
        let view = self.up_to_date()?;
        Ok(view.roster.records(self.0.world.threads.now()))
    }

    /// The client could not reach a host: it is not chosen before it has answered again.
    pub fn doubt(&self, host: &str) {
        self.0.state.lock().roster.doubt(host, self.0.world.threads.now());
    }

    /// Processes of a decision of this client have ended. Nobody else counts them, so each is told once.
    pub(crate) fn ended(&self, decision: &Decision, host: &str, count: u32) {
        let now = self.0.world.threads.now();
        self.0.state.lock().roster.ended(&mut decision.clone(), host, count, now);
    }

    /// A run server did not answer: none is asked for a while.
    pub(crate) fn shun(&self) {
        self.0.state.lock().shunned = Some(self.0.world.threads.now() + SHUNNED);
    }

    pub(crate) fn shuns(&self) -> bool {
        self.0.state.lock().shunned.is_some_and(|until| self.0.world.threads.now() < until)
    }

    /// Whether a need can be meant at all.
    ///
    /// # Errors
    /// See [`Bad`].
    pub(crate) fn check(need: &Need, count: u32) -> Result<(), Bad> {
        if !(1..=FIND_MAX).contains(&count) {
            return Err(Bad::Count);
        }
        need.check()
    }

    /// The view when the hosts that were due have answered, or have had their time.
    fn up_to_date(&self) -> Result<MutexGuard<'_, View>, NameError> {
        self.read_names()?;
        let threads = &self.0.world.threads;
        let mut view = self.0.state.lock();
        let now = threads.now();
        if view.roster.next_due(Kind::Any).is_some_and(|due| due <= now) {
            view.roster.begin_round(now);
            self.hire(&mut view);
        }
        while let Some(deadline) = view.roster.unsettled(threads.now()) {
            if view.workers == 0 {
                break; // the world has no thread for us: what is known must do
            }
            view = self.0.changed.wait_until(view, Some(deadline)).0;
        }
        Ok(view)
    }

    /// Reads the pool directory, unless that was done a moment ago.
    fn read_names(&self) -> Result<(), NameError> {
        let threads = &self.0.world.threads;
        let recent = |read: Instant| threads.now().since(read) < NAMES_AGE_MAX;
        if self.0.state.lock().read.is_some_and(recent) {
            return Ok(());
        }
        let names = self.0.survey.scan();
        let now = threads.now();
        let mut view = self.0.state.lock();
        match names {
            Ok((names, _)) => view.roster.set_names(names, now),
            // Hosts outlive the directory server: what was read before will do.
            Err(error) if view.read.is_none() => return Err(error),
            Err(_) => {}
        }
        view.read = Some(now);
        Ok(())
    }

    /// Starts as many workers as there are hosts to ask.
    fn hire(&self, view: &mut View) {
        let due = view.roster.count_due(self.0.world.threads.now());
        for _ in 0..due.min(WORKERS_MAX.saturating_sub(view.workers)) {
            let shared = self.0.clone();
            let hired = self.0.world.threads.spawn("placer", move || shared.work());
            if hired.is_err() {
                break;
            }
            view.workers += 1;
        }
    }
}

impl Shared {
    /// Asks hosts until none is due.
    fn work(&self) {
        let mut view = self.state.lock();
        while let Some(ask) = view.roster.due(Kind::Any, self.world.threads.now()) {
            drop(view);
            let answer = self.survey.ask(&ask);
            view = self.state.lock();
            view.roster.answered(&ask, self.world.threads.now(), answer);
            self.changed.notify_all();
        }
        view.workers -= 1;
        self.changed.notify_all();
    }
}
