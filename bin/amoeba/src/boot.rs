//! The supervisor, the boot server's first form: starts the daemons of this host, restarts what dies, reports.
//!
//! It runs as one process (`amoeba boot`), holds the lock `run/boot.lock` for its life and keeps `run/boot.json` true.
//! Its daemons die with it, so that nothing of a system is left behind when it is killed.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use amoeba_cap::Capability;
use amoeba_linux::lock::Lock;
use amoeba_linux::{host, netns};
use amoeba_stubs::standard;
use amoeba_world::{TransOptions, World};
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::config::{Config, Service};
use crate::hosts::sync;
use crate::state::State;
use crate::{logs, publish, setup};

/// How long a daemon may take to answer after its start.
const READY_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a daemon may take to end when told to.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// The wait before a first restart; doubles to at most [`RESTART_WAIT_MAX`] while restarts follow each other.
const RESTART_WAIT: Duration = Duration::from_millis(50);
/// The longest wait before a restart.
const RESTART_WAIT_MAX: Duration = Duration::from_secs(5);
/// A daemon that has run for so long is healthy: its next restart is at once.
const HEALTHY_AFTER: Duration = Duration::from_secs(30);
/// A daemon that has ended so often while the system starts will not run.
const QUICK_ENDS_MAX: u32 = 3;
/// How long a search for a daemon takes that may not be there.
const LOCATE_TIMEOUT: Duration = Duration::from_millis(500);
/// Time between two looks at what is left of an earlier start.
const LEFTOVER_INTERVAL: Duration = Duration::from_millis(5);

/// Held by the supervisor for its life.
const LOCK: &str = "run/boot.lock";
/// What the supervisor says of its daemons.
pub(crate) const REPORT: &str = "run/boot.json";
/// The end of the name of a lock that a daemon holds for its life.
const DAEMON_LOCK: &str = ".daemon";

/// Where a throw-away host has links to its namespaces of network (`net`) and host name (`uts`).
pub(crate) const NAMESPACES: &str = "namespaces";

/// A daemon of a host: the name of the role, and the capability that answers when it is ready.
type Role = (&'static str, &'static str);

/// The daemons of a host, in the order they are started.
fn roles(config: &Config) -> Vec<Role> {
    let mut roles = vec![("kernel", "host.cap")];
    for (service, role) in
        [(Service::Bullet, ("bullet", "bullet.cap")), (Service::Directory, ("directory", "root.cap"))]
    {
        if config.services.contains(&service) {
            roles.push(role);
        }
    }
    if config.has_pool() {
        roles.push(("pool", "pool.cap"));
    }
    roles
}

/// What the supervisor says of itself in `run/boot.json`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Report {
    /// The supervisor.
    pub(crate) pid: u32,
    /// When it was started, in seconds since 1970.
    pub(crate) since: u64,
    /// Whether every daemon has answered and the names are published.
    pub(crate) ready: bool,
    /// The daemons.
    pub(crate) daemons: Vec<Daemon>,
}

/// One supervised process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Daemon {
    /// What it is.
    pub(crate) role: String,
    /// Its process; 0 while it is down.
    pub(crate) pid: u32,
    /// When it was started, in seconds since 1970.
    pub(crate) since: u64,
    /// How often it was restarted.
    pub(crate) restarts: u32,
}

/// The process that is this system's supervisor, or was and is just ending.
pub(crate) fn supervisor(state: &State) -> Result<Option<u32>> {
    state.holder(LOCK)
}

/// The report of the supervisor that runs now, if one does. One that has just begun has nothing to say yet.
pub(crate) fn running(state: &State) -> Result<Option<Report>> {
    let Some(pid) = supervisor(state)?.filter(|pid| host::runs(*pid)) else { return Ok(None) };
    let report = fs::read(state.path(REPORT)).unwrap_or_default();
    let report: Report = serde_json::from_slice(&report).unwrap_or_default();
    // A supervisor that was killed leaves its last report behind for the next one to replace.
    Ok(Some(if report.pid == pid { report } else { Report { pid, ..Report::default() } }))
}

/// Whether everything answers, whatever the report says: on a full disk there is none.
pub(crate) fn answers(state: &State) -> bool {
    let world = amoeba_linux::connect(&state.socket());
    let Ok(config) = Config::read(state) else { return false };
    roles(&config).iter().all(|(_, capability)| {
        state.capability(capability).is_ok_and(|capability| answers_now(&world, &capability).is_ok())
    })
}

/// Asks a server of this host for its information; who is not there is not waited for long.
pub(crate) fn answers_now(world: &World, capability: &Capability) -> Result<(), amoeba_world::Error> {
    let options = TransOptions { locate_timeout: LOCATE_TIMEOUT, ..TransOptions::default() };
    standard::info(amoeba_stubs::Client::new(&*world.transactions, &options), capability, 0).map(drop)
}

/// Ends the daemons that a supervisor which was killed has left behind: each is told, and killed when it takes too long.
/// Shepherds, whose processes nobody knows, end when their process server does, and are waited for.
///
/// # Errors
/// One does not end even then.
pub(crate) fn end_leftovers(state: &State) -> Result<()> {
    let deadline = Instant::now() + STOP_TIMEOUT;
    let mut told = BTreeSet::new();
    loop {
        let left = leftovers(state)?;
        let Some((name, pid)) = left.first() else { return Ok(()) };
        let late = Instant::now() > deadline;
        if Instant::now() > deadline + STOP_TIMEOUT {
            bail!("{name} (process {pid}) is left of an earlier start and cannot be killed");
        }
        for (name, pid) in left.iter().filter(|(_, pid)| *pid != 0) {
            if late {
                host::kill(*pid);
            } else if told.insert(*pid) {
                tracing::info!("{name} (process {pid}) is left of an earlier start; it is ended");
                host::terminate(*pid);
            }
        }
        std::thread::sleep(LEFTOVER_INTERVAL);
    }
}

/// The daemons that hold their locks, with their processes.
fn leftovers(state: &State) -> Result<Vec<(String, u32)>> {
    let entries = match fs::read_dir(state.path("run")) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.context("cannot look which daemons run")?,
    };
    let mut found = Vec::new();
    for name in entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()) {
        let Some(role) = name.strip_suffix(DAEMON_LOCK) else { continue };
        if let Some(pid) = state.holder(&format!("run/{name}"))? {
            found.push((format!("the {role} daemon"), pid));
        }
    }
    found.sort();
    Ok(found)
}

/// Says for the life of this process that it is the daemon of this role, so that it can be found when its supervisor is no
/// more.
///
/// # Errors
/// There is one already.
pub(crate) fn be_the(state: &State, role: &str) -> Result<Lock> {
    let name = lock_name(role);
    let lock = state.lock(&name)?;
    let other = || state.holder(&name).ok().flatten().unwrap_or_default();
    lock.with_context(|| format!("a {role} daemon runs already (process {})", other()))
}

/// The file that is locked while the daemon of this role runs.
pub(crate) fn lock_of(state: &State, role: &str) -> PathBuf {
    state.path(&lock_name(role))
}

fn lock_name(role: &str) -> String {
    format!("run/{role}{DAEMON_LOCK}")
}

pub(crate) enum Event {
    Exited(usize, ExitStatus),
    /// The daemon has answered for the first time.
    Ready(usize),
    /// There is a way to other hosts now.
    Linked,
    /// This host was removed from the system.
    Removed,
    Stop,
}

/// Whether nobody has told the supervisor to stop.
#[derive(PartialEq, Eq)]
enum GoOn {
    Yes,
    No,
}

struct Running {
    pid: u32,
    started: Instant,
    since: u64,
    restarts: u32,
    wait: Duration,
    restart_at: Option<Instant>,
    /// Whether it has answered once.
    ready: bool,
    /// Bytes of its log before this start of the system.
    log_from: u64,
    /// Whether it is not to run any more.
    ended: bool,
}

struct Supervisor<'a> {
    state: &'a State,
    events: Sender<Event>,
    roles: Vec<Role>,
    daemons: Vec<Running>,
    since: u64,
    ready: bool,
}

/// The program `amoeba boot`: supervises until it is told to stop.
pub(crate) fn main(state: &State) -> Result<()> {
    if std::env::var_os("AMOEBA_DETACHED").is_some() {
        host::leave_session().context("cannot leave the session")?;
    }
    end_with_supervisor()?; // only throw-away hosts have somebody above them
    enter_namespaces(state)?;
    state.create()?;
    let Some(_lock) = state.lock(LOCK)? else {
        bail!("another supervisor runs in {}", state.dir().display())
    };
    host::keep_descriptors().context("cannot keep descriptors from the daemons")?;
    let _ = fs::remove_file(state.path(REPORT));
    end_leftovers(state)?;
    setup::ensure(state)?;
    let (events, incoming) = mpsc::channel();
    let mut signals = signal_hook::iterator::Signals::new([SIGTERM, SIGINT, SIGHUP])?;
    let stop = events.clone();
    std::thread::spawn(move || signals.forever().try_for_each(|_| stop.send(Event::Stop)));
    let roles = roles(&Config::read(state)?);
    let mut supervisor =
        Supervisor { state, events, roles, daemons: Vec::new(), since: unix_seconds(), ready: false };
    let result = supervisor.start_all(&incoming).and_then(|go_on| match go_on {
        GoOn::Yes => supervisor.watch(&incoming),
        GoOn::No => Ok(()),
    });
    supervisor.stop_all(&incoming);
    let _ = fs::remove_file(state.path(REPORT));
    result.and(end_leftovers(state))
}

/// Goes where this host is, if it is one that has a network of its own.
fn enter_namespaces(state: &State) -> Result<()> {
    for kind in ["net", "uts"] {
        let namespace = state.path(NAMESPACES).join(kind);
        if namespace.is_symlink() {
            netns::enter(&namespace).context("this throw-away host is gone: cannot enter its namespaces")?;
        }
    }
    Ok(())
}

impl Supervisor<'_> {
    fn start_all(&mut self, incoming: &Receiver<Event>) -> Result<GoOn> {
        let world = amoeba_linux::connect(&self.state.socket());
        for index in 0..self.roles.len() {
            self.daemons.push(self.new_daemon(index));
            self.start(index)?;
            self.ask_for_answer(&world, index)?;
            if index == 0 && self.await_ready(index, incoming)? == GoOn::No {
                return Ok(GoOn::No);
            }
        }
        for index in 1..self.roles.len() {
            if self.await_ready(index, incoming)? == GoOn::No {
                return Ok(GoOn::No);
            }
        }
        if self.roles.iter().any(|(role, _)| *role == "directory") {
            publish::ensure(&world, self.state)?;
        } else {
            let (world, state) = (world.clone(), self.state.clone());
            std::thread::spawn(move || publish::later(&world, &state)); // this host runs without its name, too
        }
        sync::start(&world, self.state, self.events.clone()).context("cannot keep the list of hosts")?;
        self.ready = true;
        self.report();
        Ok(GoOn::Yes)
    }

    /// A daemon that was not started yet.
    fn new_daemon(&self, index: usize) -> Running {
        Running {
            pid: 0,
            started: Instant::now(),
            since: 0,
            restarts: 0,
            wait: RESTART_WAIT,
            restart_at: None,
            ready: false,
            log_from: logs::size(self.state, self.roles[index].0),
            ended: false,
        }
    }

    /// Starts one more daemon.
    fn add(&mut self, role: Role) -> Result<()> {
        let index = self.roles.len();
        self.roles.push(role);
        self.daemons.push(self.new_daemon(index));
        self.start(index)
    }

    /// Ends the run server: a host that was removed chooses for nobody.
    fn end_pool(&mut self) {
        let pool = self.roles.iter().position(|(role, _)| *role == "pool");
        if let Some(daemon) = pool.and_then(|index| self.daemons.get_mut(index)) {
            (daemon.ended, daemon.restart_at) = (true, None);
            if daemon.pid != 0 {
                host::terminate(daemon.pid);
            }
        }
    }

    fn watch(&mut self, incoming: &Receiver<Event>) -> Result<()> {
        loop {
            let due = self.next_restart().unwrap_or(Instant::now() + Duration::from_secs(3600));
            match incoming.recv_timeout(due.saturating_duration_since(Instant::now())) {
                Ok(Event::Stop) | Err(RecvTimeoutError::Disconnected) => return Ok(()),
                Ok(Event::Exited(index, status)) => self.exited(index, status),
                Ok(Event::Linked) => self.linked(),
                Ok(Event::Removed) => self.end_pool(),
                Ok(Event::Ready(_)) | Err(RecvTimeoutError::Timeout) => {}
            }
            self.restart_due();
        }
    }

    /// There is a way to other hosts now: whatever is of use only with one begins.
    fn linked(&mut self) {
        let world = amoeba_linux::connect(&self.state.socket());
        let state = self.state.clone();
        match self.start_new() {
            Ok(()) => drop(std::thread::spawn(move || publish::later(&world, &state))), // there may be a run server
            Err(error) => tracing::error!("not everything is started: {error:#}"),
        }
    }

    /// Starts what the configuration names now and did not before.
    fn start_new(&mut self) -> Result<()> {
        setup::ensure(self.state)?;
        let wanted = roles(&Config::read(self.state)?).into_iter();
        let new: Vec<Role> = wanted.filter(|role| !self.roles.contains(role)).collect();
        new.into_iter().try_for_each(|role| self.add(role))
    }

    fn exited(&mut self, index: usize, status: ExitStatus) {
        let daemon = &mut self.daemons[index];
        if daemon.ended {
            daemon.pid = 0;
            return self.report();
        }
        if daemon.started.elapsed() >= HEALTHY_AFTER {
            daemon.wait = RESTART_WAIT;
        }
        tracing::warn!(role = self.roles[index].0, pid = daemon.pid, %status, "a daemon ended; it is restarted");
        daemon.pid = 0;
        self.restart_later(index);
        self.report();
    }

    fn restart_later(&mut self, index: usize) {
        let daemon = &mut self.daemons[index];
        daemon.restart_at = Some(Instant::now() + daemon.wait);
        daemon.wait = (daemon.wait * 2).min(RESTART_WAIT_MAX);
    }

    fn next_restart(&self) -> Option<Instant> {
        self.daemons.iter().filter_map(|daemon| daemon.restart_at).min()
    }

    fn restart_due(&mut self) {
        for index in 0..self.daemons.len() {
            if self.daemons[index].restart_at.is_some_and(|due| due <= Instant::now()) {
                self.daemons[index].restart_at = None;
                self.daemons[index].restarts += 1;
                if let Err(error) = self.start(index) {
                    tracing::error!("{error:#}; tried again");
                    self.restart_later(index);
                }
            }
        }
    }

    fn start(&mut self, index: usize) -> Result<()> {
        let (role, _) = self.roles[index];
        let child = spawn(self.state, role)?;
        let daemon = &mut self.daemons[index];
        daemon.pid = child.id();
        daemon.started = Instant::now();
        daemon.since = unix_seconds();
        tracing::info!(role, pid = daemon.pid, "started");
        let events = self.events.clone();
        std::thread::spawn(move || {
            let mut child = child;
            if let Ok(status) = child.wait() {
                let _ = events.send(Event::Exited(index, status));
            }
        });
        self.report();
        Ok(())
    }

    /// Asks a daemon until it answers, on a thread: one that accepts and is silent must not make the supervisor deaf.
    fn ask_for_answer(&self, world: &World, index: usize) -> Result<()> {
        let capability = self.state.capability(self.roles[index].1)?;
        let (world, events) = (world.clone(), self.events.clone());
        let deadline = Instant::now() + READY_TIMEOUT;
        std::thread::spawn(move || {
            while Instant::now() < deadline {
                if answers_now(&world, &capability).is_ok() {
                    let _ = events.send(Event::Ready(index)); // nobody listens who is stopping
                    return;
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        Ok(())
    }

    /// Waits until the daemon has answered.
    ///
    /// # Errors
    /// It does not, or a daemon ends again and again; the error says why.
    fn await_ready(&mut self, index: usize, incoming: &Receiver<Event>) -> Result<GoOn> {
        let deadline = Instant::now() + READY_TIMEOUT;
        while !self.daemons[index].ready {
            if Instant::now() > deadline {
                bail!("the {} daemon does not answer", self.roles[index].0);
            }
            let due = self.next_restart().unwrap_or(deadline).min(deadline);
            match incoming.recv_timeout(due.saturating_duration_since(Instant::now())) {
                Ok(Event::Ready(ready)) => self.daemons[ready].ready = true,
                Ok(Event::Exited(ended, status)) => {
                    self.exited(ended, status);
                    if self.daemons[ended].restarts + 1 >= QUICK_ENDS_MAX {
                        let why = self.last_words(ended, status);
                        bail!("the {} daemon does not start: {why}", self.roles[ended].0);
                    }
                }
                Ok(Event::Stop) | Err(RecvTimeoutError::Disconnected) => return Ok(GoOn::No),
                Ok(Event::Linked | Event::Removed) | Err(RecvTimeoutError::Timeout) => {}
            }
            self.restart_due();
        }
        Ok(GoOn::Yes)
    }

    /// Why a daemon has ended, by its own log.
    fn last_words(&self, index: usize, status: ExitStatus) -> String {
        let (role, _) = self.roles[index];
        let path = self.state.path(&format!("log/{role}.log"));
        logs::why(&path, self.daemons[index].log_from)
            .unwrap_or_else(|| format!("{status}, and nothing in {}", path.display()))
    }

    /// Ends the daemons, servers first, so that the kernel is there for their last words.
    fn stop_all(&mut self, incoming: &Receiver<Event>) {
        let order = (0..self.daemons.len()).rev();
        for index in order.filter(|index| *index > 0).chain([0]) {
            let Some(daemon) = self.daemons.get_mut(index).filter(|daemon| daemon.pid != 0) else { continue };
            let pid = daemon.pid;
            host::terminate(pid);
            if !wait_for(incoming, &mut self.daemons, index, STOP_TIMEOUT) {
                tracing::warn!(role = self.roles[index].0, pid, "does not end; killed");
                host::kill(pid);
                wait_for(incoming, &mut self.daemons, index, STOP_TIMEOUT);
            }
        }
    }

    /// Replaces the report. It is for people and for `up`, which can do without: on a full disk the system goes on.
    fn report(&self) {
        let daemons = self.daemons.iter().zip(&self.roles).map(|(daemon, (role, _))| Daemon {
            role: (*role).to_owned(),
            pid: daemon.pid,
            since: daemon.since,
            restarts: daemon.restarts,
        });
        let report = Report {
            pid: std::process::id(),
            since: self.since,
            ready: self.ready,
            daemons: daemons.collect(),
        };
        let text = serde_json::to_vec_pretty(&report).expect("a report has nothing that JSON has not");
        if let Err(error) = self.state.write(REPORT, &text) {
            tracing::warn!("{error:#}");
            let _ = fs::remove_file(self.state.path(REPORT)); // no report is better than one that is not true
        }
    }
}

/// Waits until the daemon has ended, noting who else has.
fn wait_for(incoming: &Receiver<Event>, daemons: &mut [Running], index: usize, time: Duration) -> bool {
    let deadline = Instant::now() + time;
    while daemons[index].pid != 0 {
        match incoming.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(Event::Exited(ended, _)) => daemons[ended].pid = 0,
            Ok(Event::Ready(_) | Event::Linked | Event::Removed | Event::Stop) => {}
            Err(_) => return false,
        }
    }
    true
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// The variable that the C library reads before a program begins.
const ALLOCATOR: &str = "GLIBC_TUNABLES";
/// Has the heap in large pages, where the system gives them to those who ask.
const LARGE_PAGES: &str = "glibc.malloc.hugetlb=1";

/// What the C library is to do for a daemon. The directory server reads a few bytes here and there in a large heap: in small
/// pages most of these reads wait for their page to be looked up, too.
fn allocator(role: &str) -> Option<(&'static str, String)> {
    let ours = (role == "directory").then_some(LARGE_PAGES)?;
    let theirs = std::env::var(ALLOCATOR).unwrap_or_default(); // the last one counts
    Some((ALLOCATOR, format!("{ours}:{theirs}").trim_end_matches(':').to_owned()))
}

fn spawn(state: &State, role: &str) -> Result<Child> {
    let (out, error) = logs::streams(state, role);
    let program = std::env::current_exe().context("cannot find this program")?;
    Command::new(program)
        .arg(role)
        .envs(allocator(role))
        .env("AMOEBA_STATE", state.dir())
        .env("AMOEBA_SUPERVISOR", std::process::id().to_string())
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(error)
        .spawn()
        .with_context(|| format!("cannot start the {role} daemon"))
}

/// Lets this daemon end with the supervisor that started it, if one did.
pub(crate) fn end_with_supervisor() -> Result<()> {
    let supervisor = std::env::var("AMOEBA_SUPERVISOR").ok().and_then(|pid| pid.parse().ok());
    supervisor.map_or(Ok(()), host::end_with).context("the supervisor")
}
