//! The supervisor, the boot server's first form: starts the daemons of this host, restarts what dies, reports.
//!
//! It runs as one process (`amoeba boot`), holds the lock `run/boot.lock` for its life and keeps `run/boot.json` true.
//! Its daemons die with it, so that nothing of a system is left behind when it is killed.

use std::fs;
use std::io::{Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use amoeba_linux::{host, netns};
use amoeba_stubs::standard;
use amoeba_world::{TransOptions, World};
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::config::{Config, Service};
use crate::state::State;
use crate::{publish, setup};

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
/// A log larger than this is moved aside when its daemon starts.
const LOG_SIZE_MAX: u64 = 8 << 20;

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

/// The report of the supervisor that runs now, if one does. One that has just begun has nothing to say yet.
pub(crate) fn running(state: &State) -> Result<Option<Report>> {
    if !state.has("run/boot.lock") || state.lock("run/boot.lock")?.is_some() {
        return Ok(None);
    }
    let report = fs::read(state.path("run/boot.json")).unwrap_or_default();
    let report: Report = serde_json::from_slice(&report).unwrap_or_default();
    // A supervisor that was killed leaves its last report behind for the next one to replace.
    let is_its_own = host::runs(report.pid);
    Ok(Some(if is_its_own { report } else { Report::default() }))
}

enum Event {
    Exited(usize, ExitStatus),
    Stop,
}

struct Running {
    pid: u32,
    started: Instant,
    since: u64,
    restarts: u32,
    wait: Duration,
    restart_at: Option<Instant>,
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
    let Some(_lock) = take_lock(state)? else {
        bail!("another supervisor runs in {}", state.dir().display())
    };
    let _ = fs::remove_file(state.path("run/boot.json"));
    setup::ensure(state)?;
    let (events, incoming) = mpsc::channel();
    let mut signals = signal_hook::iterator::Signals::new([SIGTERM, SIGINT, SIGHUP])?;
    let stop = events.clone();
    std::thread::spawn(move || signals.forever().try_for_each(|_| stop.send(Event::Stop)));
    let roles = roles(&Config::read(state)?);
    let mut supervisor =
        Supervisor { state, events, roles, daemons: Vec::new(), since: unix_seconds(), ready: false };
    let result = supervisor.start_all().and_then(|()| supervisor.watch(&incoming));
    supervisor.stop_all(&incoming);
    let _ = fs::remove_file(state.path("run/boot.json"));
    result
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

/// The supervisor's lock; somebody who only looks whether it is held may hold it for a moment.
fn take_lock(state: &State) -> Result<Option<fs::File>> {
    for _ in 0..20 {
        if let Some(lock) = state.lock("run/boot.lock")? {
            return Ok(Some(lock));
        }
        std::thread::sleep(Duration::from_millis(25));
    }
    Ok(None)
}

impl Supervisor<'_> {
    fn start_all(&mut self) -> Result<()> {
        let world = amoeba_linux::connect(&self.state.socket());
        for index in 0..self.roles.len() {
            self.daemons.push(Running {
                pid: 0,
                started: Instant::now(),
                since: 0,
                restarts: 0,
                wait: RESTART_WAIT,
                restart_at: None,
            });
            self.start(index)?;
            if index == 0 {
                self.await_ready(&world, index)?;
            }
        }
        for index in 1..self.roles.len() {
            self.await_ready(&world, index)?;
        }
        if self.roles.iter().any(|(role, _)| *role == "directory") {
            publish::ensure(&world, self.state)?;
        } else {
            let state = self.state.clone();
            std::thread::spawn(move || publish::later(&world, &state)); // this host runs without its name, too
        }
        self.ready = true;
        self.report()
    }

    fn watch(&mut self, incoming: &Receiver<Event>) -> Result<()> {
        loop {
            let due = self.daemons.iter().filter_map(|daemon| daemon.restart_at).min();
            let wait =
                due.map_or(Duration::from_secs(3600), |due| due.saturating_duration_since(Instant::now()));
            match incoming.recv_timeout(wait) {
                Ok(Event::Stop) | Err(RecvTimeoutError::Disconnected) => return Ok(()),
                Ok(Event::Exited(index, status)) => self.exited(index, status)?,
                Err(RecvTimeoutError::Timeout) => {}
            }
            for index in 0..self.daemons.len() {
                if self.daemons[index].restart_at.is_some_and(|due| due <= Instant::now()) {
                    self.daemons[index].restart_at = None;
                    self.daemons[index].restarts += 1;
                    self.start(index)?;
                }
            }
        }
    }

    fn exited(&mut self, index: usize, status: ExitStatus) -> Result<()> {
        let daemon = &mut self.daemons[index];
        if daemon.started.elapsed() >= HEALTHY_AFTER {
            daemon.wait = RESTART_WAIT;
        }
        tracing::warn!(role = self.roles[index].0, pid = daemon.pid, %status, "a daemon ended; it is restarted");
        daemon.pid = 0;
        daemon.restart_at = Some(Instant::now() + daemon.wait);
        daemon.wait = (daemon.wait * 2).min(RESTART_WAIT_MAX);
        self.report()
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
        self.report()
    }

    /// Waits until the daemon's capability answers.
    fn await_ready(&self, world: &World, index: usize) -> Result<()> {
        let (role, capability) = self.roles[index];
        let capability = self.state.capability(capability)?;
        let deadline = Instant::now() + READY_TIMEOUT;
        let options = TransOptions { locate_timeout: Duration::from_millis(500), ..TransOptions::default() };
        loop {
            let client = amoeba_stubs::Client::new(&*world.transactions, &options);
            match standard::info(client, &capability, 0) {
                Ok(_) => return Ok(()),
                Err(error) if Instant::now() > deadline => {
                    return Err(error).with_context(|| format!("the {role} daemon does not answer"));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(5)),
            }
        }
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

    fn report(&self) -> Result<()> {
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
        self.state.write("run/boot.json", &serde_json::to_vec_pretty(&report)?)
    }
}

/// Waits until the daemon has ended, noting who else has.
fn wait_for(incoming: &Receiver<Event>, daemons: &mut [Running], index: usize, time: Duration) -> bool {
    let deadline = Instant::now() + time;
    while daemons[index].pid != 0 {
        match incoming.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(Event::Exited(ended, _)) => daemons[ended].pid = 0,
            Ok(Event::Stop) => {}
            Err(_) => return false,
        }
    }
    true
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn spawn(state: &State, role: &str) -> Result<Child> {
    let log = open_log(state, role)?;
    let program = std::env::current_exe().context("cannot find this program")?;
    Command::new(program)
        .arg(role)
        .env("AMOEBA_STATE", state.dir())
        .env("AMOEBA_SUPERVISOR", std::process::id().to_string())
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .with_context(|| format!("cannot start the {role} daemon"))
}

/// The log of a daemon, to be appended to; the last one is kept beside it.
pub(crate) fn open_log(state: &State, role: &str) -> Result<fs::File> {
    let path = state.path(&format!("log/{role}.log"));
    let open = || fs::OpenOptions::new().append(true).create(true).mode(0o600).open(&path);
    let mut log = open().with_context(|| format!("cannot open {}", path.display()))?;
    if log.seek(SeekFrom::End(0))? > LOG_SIZE_MAX {
        fs::rename(&path, path.with_extension("log.old"))?;
        log = open()?;
    }
    Ok(log)
}

/// Lets this daemon end with the supervisor that started it, if one did.
pub(crate) fn end_with_supervisor() -> Result<()> {
    let supervisor = std::env::var("AMOEBA_SUPERVISOR").ok().and_then(|pid| pid.parse().ok());
    supervisor.map_or(Ok(()), host::end_with).context("the supervisor")
}
