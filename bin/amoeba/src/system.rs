//! The system of this host, as the subcommands use it: starting, stopping, connecting.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use amoeba_cli::{
    Console, DaemonStatus, DevOptions, Diagnosis, Hint, Invitation, InviteOptions, Invited, JoinOptions,
    JoinedSystem, Restoring, Secrets, Session, Start, SystemKind, SystemStatus, Turn, UpOptions,
};
use amoeba_linux::host;
use amoeba_world::Threads;
use anyhow::{Context, Result, bail};

use crate::boot::{self, Report};
use crate::config::Config;
use crate::console::Terminal;
use crate::dev;
use crate::diagnosis::{self, Doctor};
use crate::hosts::sync::REMOVED;
use crate::inside;
use crate::invite;
use crate::join;
use crate::keeping;
use crate::logs;
use crate::mounting::Mounts;
use crate::publish::CONFINED;
use crate::state::State;
use crate::staying::Background;

/// How long a system may take to start.
const UP_TIMEOUT: Duration = Duration::from_secs(90);
/// How long a system may take to stop by itself, before it is killed.
const DOWN_TIMEOUT: Duration = Duration::from_secs(40);
/// Time between two looks at the supervisor's report.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);
/// How long `up` waits for a report before it asks the daemons themselves: on a full disk there is none.
const REPORT_TIMEOUT: Duration = Duration::from_secs(3);
/// Held by whoever starts or stops the system.
const STARTING: &str = "run/start.lock";
/// What stands between an error and its next step in a log.
const HINT: &str = " (hint) ";

/// The system of this host and user.
pub(crate) struct Local {
    console: Terminal,
}

impl Local {
    /// The system that [`State::find`] names.
    pub(crate) fn new() -> Local {
        Local { console: Terminal }
    }
}

impl amoeba_cli::System for Local {
    fn connect(&self, start: Start) -> Result<Session> {
        if let Some(inside) = inside::find() {
            return inside.session();
        }
        let state = State::find()?;
        if !runs(&state)? {
            match start {
                Start::Never => {
                    return Err(anyhow::anyhow!("no system runs in {}", state.dir().display())
                        .context(Hint("start one with `amoeba up`".to_owned())));
                }
                Start::IfNeeded => start_detached(&state)?,
            }
        }
        session(&state)
    }

    fn up(&self, options: &UpOptions) -> Result<ExitCode> {
        if let Some(inside) = inside::find() {
            let there = !options.foreground && inside.status()?.running;
            return if there { Ok(ExitCode::SUCCESS) } else { Err(inside.refuse("up")) };
        }
        let state = State::find()?;
        if options.foreground {
            logs::to_standard_error();
            boot::main(&state)?;
        } else {
            start_detached(&state)?;
        }
        Ok(ExitCode::SUCCESS)
    }

    fn join(&self, options: &JoinOptions) -> Result<JoinedSystem> {
        let state = outside("join")?;
        let (joined, _listening) = join::main(&state, options)?;
        start_detached(&state).with_context(|| {
            let JoinedSystem { name, listen, .. } = &joined;
            format!(
                "this host is {name}, one of the system, but does not start (it is to listen on {listen})"
            )
        })?;
        Ok(joined)
    }

    fn invite(&self, options: &InviteOptions) -> Result<Invited> {
        let state = outside("invite")?;
        invite::check(options)?;
        if !runs(&state)? {
            start_detached(&state)?;
        }
        invite::make(&state, options)
    }

    fn invitations(&self) -> Result<Vec<Invitation>> {
        invite::list(&outside("invite")?)
    }

    fn revoke(&self, id: &str) -> Result<()> {
        invite::revoke(&outside("invite")?, id)
    }

    fn down(&self) -> Result<()> {
        let state = outside("down")?;
        if state.has(STARTING) || boot::supervisor(&state)?.is_some() { stop(&state) } else { Ok(()) }
    }

    fn status(&self) -> Result<SystemStatus> {
        if let Some(inside) = inside::find() {
            return inside.status();
        }
        let state = State::find()?;
        let mut report = boot::running(&state)?;
        let unreported = report.as_ref().is_some_and(|report| !report.ready) && runs(&state)?;
        if let Some(report) = report.as_mut().filter(|_| unreported) {
            report.ready = true;
        }
        let host = state.host_name().unwrap_or_else(|_| amoeba_linux::host::name());
        let kind = if state.of_host() { SystemKind::Root } else { SystemKind::Private };
        let running = report.is_some();
        let (daemons, mut attention) = report.as_ref().map(describe).unwrap_or_default();
        if unreported {
            attention.push("the supervisor cannot write its report: is the disk full?".to_owned());
        }
        attention.extend(diagnosis::full_disk(&state));
        if state.open_to_others() != 0 {
            let dir = state.dir().display();
            attention
                .push(format!("others may look into {dir}, which has secrets: `chmod 700 {dir}` closes it"));
        }
        if state.has(REMOVED) {
            attention.push(
                "this host was removed from its system: the others refuse it. To join one, move the state directory \
                 away first"
                    .to_owned(),
            );
        }
        Ok(SystemStatus { running, kind, state_directory: state.dir().to_owned(), host, daemons, attention })
    }

    fn dev(&self, options: &DevOptions) -> Result<ExitCode> {
        dev::main(options)
    }

    fn secrets(&self) -> Result<Secrets> {
        keeping::secrets(&outside("backup")?)
    }

    fn restore(&self) -> Result<Box<dyn Restoring>> {
        let state = outside("restore")?;
        if boot::supervisor(&state)?.is_some() {
            let dir = state.dir().display();
            return Err(anyhow::anyhow!("a system runs in {dir}")).context(Hint(
                "restore into another AMOEBA_STATE, or stop that system and move it away".to_owned(),
            ));
        }
        keeping::restore(state)
    }

    fn threads(&self) -> Threads {
        amoeba_linux::threads()
    }

    fn turn(&self) -> Turn {
        crate::turn::turn()
    }

    fn diagnosis(&self) -> Option<&dyn Diagnosis> {
        Some(&Doctor)
    }

    fn mounting(&self) -> Option<&dyn amoeba_cli::Mounting> {
        Some(&Mounts)
    }

    fn staying(&self) -> Option<&dyn amoeba_cli::Staying> {
        Some(&Background)
    }

    fn console(&self) -> &dyn Console {
        &self.console
    }
}

fn session(state: &State) -> Result<Session> {
    if state.has(REMOVED) {
        let next =
            "to join a system, move the state directory away first, and use a new token of `amoeba invite`";
        let error = anyhow::anyhow!("this host was removed from its system: the others refuse it");
        return Err(error.context(Hint(next.to_owned())));
    }
    Ok(Session {
        world: amoeba_linux::connect(&state.socket()),
        root: state.capability("root.cap")?,
        confined_root: state.capability(CONFINED).ok(),
        host: state.capability("host.cap")?,
        host_name: state.host_name()?,
        is_own: is_own(&state.socket()),
        alone: Config::read(state)?.is_alone(),
    })
}

/// Whether the daemons behind a socket run as the user of this program.
pub(crate) fn is_own(socket: &Path) -> bool {
    std::fs::metadata(socket).is_ok_and(|facts| facts.uid() == amoeba_tree::account().0)
}

/// The daemons, the supervisor first, and what is not as it should be.
fn describe(report: &Report) -> (Vec<DaemonStatus>, Vec<String>) {
    let mut daemons =
        vec![DaemonStatus { role: "supervisor".to_owned(), pid: Some(report.pid), since: None, restarts: 0 }];
    let mut attention = Vec::new();
    if !report.ready {
        attention.push("the system is starting".to_owned());
    }
    for daemon in &report.daemons {
        if daemon.pid == 0 {
            attention.push(format!("the {} daemon is down and will be started again", daemon.role));
        }
        daemons.push(DaemonStatus {
            role: daemon.role.clone(),
            pid: Some(daemon.pid).filter(|pid| *pid != 0),
            since: Some(daemon.since),
            restarts: daemon.restarts,
        });
    }
    (daemons, attention)
}

/// The state directory, for what cannot be done from inside a process of the system.
fn outside(command: &str) -> Result<State> {
    inside::find().map_or_else(State::find, |inside| Err(inside.refuse(command)))
}

/// Whether a system runs that has started. One that could not write its report, on a full disk, is asked.
fn runs(state: &State) -> Result<bool> {
    let report = boot::running(state)?;
    Ok(report.is_some_and(|report| report.ready || (!state.has(boot::REPORT) && boot::answers(state))))
}

/// A supervisor in the background, not started yet.
pub(crate) fn supervisor(state: &State) -> Result<Command> {
    let (out, error) = logs::streams(state, "boot");
    let program = std::env::current_exe().context("cannot find this program")?;
    let mut command = Command::new(program);
    command.arg("boot").env("AMOEBA_STATE", state.dir()).env("AMOEBA_DETACHED", "1").current_dir("/");
    command.stdin(Stdio::null()).stdout(out).stderr(error);
    Ok(command)
}

/// Starts the supervisor in the background, unless one runs, and waits until everything answers.
fn start_detached(state: &State) -> Result<()> {
    state.create()?;
    let deadline = Instant::now() + UP_TIMEOUT;
    // One starts; others wait for that one, so that there is never a second supervisor in reserve.
    let _starting = loop {
        if boot::running(state)?.is_some_and(|report| report.ready) && boot::answers(state) {
            return Ok(());
        }
        if let Some(lock) = state.lock(STARTING)? {
            break lock;
        }
        if Instant::now() > deadline {
            bail!("another start or stop of this system does not come to an end");
        }
        std::thread::sleep(LOOK_INTERVAL);
    };
    host::keep_descriptors().context("cannot keep descriptors from the daemons")?;
    let log_from = logs::size(state, "boot");
    let mut supervisor = None;
    let unreported = Instant::now() + REPORT_TIMEOUT;
    loop {
        let report = boot::running(state)?;
        let reported = report.as_ref().is_some_and(|report| report.ready);
        let silent = report.is_some() && Instant::now() > unreported && !state.has(boot::REPORT);
        if (reported || silent) && boot::answers(state) {
            return Ok(());
        }
        // A supervisor that was killed may hold the lock until the last of it has gone.
        let held = boot::supervisor(state)?.is_some();
        match &mut supervisor {
            None if held => {}
            None => {
                supervisor = Some(self::supervisor(state)?.spawn().context("cannot start the supervisor")?);
            }
            Some(child) => match child.try_wait()? {
                Some(_) if held => supervisor = None, // another one was faster
                Some(status) => return Err(failure(state, log_from, status)),
                None => {}
            },
        }
        if Instant::now() > deadline {
            bail!("the system does not answer; the end of its log:\n{}", logs::tail(&log(state), log_from));
        }
        std::thread::sleep(LOOK_INTERVAL);
    }
}

fn log(state: &State) -> PathBuf {
    state.path("log/boot.log")
}

/// Why a supervisor has ended before the system ran.
fn failure(state: &State, log_from: u64, status: ExitStatus) -> anyhow::Error {
    if status.success() {
        return anyhow::anyhow!("the system was stopped while it started");
    }
    let why = logs::why(&log(state), log_from).unwrap_or_else(|| format!("its supervisor ended ({status})"));
    let (why, hint) = match why.split_once(HINT) {
        Some((why, hint)) => (why.to_owned(), hint.to_owned()),
        None => (why, format!("the whole story is in {}", state.path("log").display())),
    };
    anyhow::anyhow!("the system does not start: {why}").context(Hint(hint))
}

/// An error on a line of the log, with its next step.
pub(crate) fn for_log(error: &anyhow::Error) -> String {
    let causes: Vec<String> =
        error.chain().map(ToString::to_string).filter(|text| !text.is_empty()).collect();
    let hint = error.downcast_ref::<Hint>().map(|hint| format!("{HINT}{}", hint.0)).unwrap_or_default();
    format!("{}{hint}", causes.join(": ")).replace('\n', " ")
}

/// Ends the supervisor and what is left of others before it; nobody starts one meanwhile.
fn stop(state: &State) -> Result<()> {
    let late = Instant::now() + DOWN_TIMEOUT;
    let mut told = BTreeSet::new();
    let mut starting = None;
    loop {
        if starting.is_none() {
            starting = state.lock(STARTING)?;
        }
        match boot::supervisor(state)? {
            Some(0) => {
                bail!("the supervisor runs where it cannot be seen from here, in another PID namespace")
            }
            Some(pid) if Instant::now() > late => host::kill(pid),
            Some(pid) if told.insert(pid) => host::terminate(pid),
            None if starting.is_some() => return boot::end_leftovers(state),
            _ => {}
        }
        if Instant::now() > late + DOWN_TIMEOUT {
            bail!("the supervisor does not end, or another `amoeba up` or `down` does not");
        }
        std::thread::sleep(LOOK_INTERVAL);
    }
}

/// The end of a log.
pub(crate) fn tail(path: &Path) -> String {
    logs::tail(path, 0)
}
