//! The system of this host, as the subcommands use it: starting, stopping, connecting.

use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use amoeba_cli::{
    Console, DaemonStatus, DevOptions, Hint, JoinOptions, Session, Start, SystemKind, SystemStatus, UpOptions,
};
use anyhow::{Context, Result, bail};

use crate::boot::{self, Report};
use crate::config::Config;
use crate::console::Terminal;
use crate::dev;
use crate::join;
use crate::state::State;

/// How long a system may take to start.
const UP_TIMEOUT: Duration = Duration::from_secs(90);
/// How long a system may take to stop.
const DOWN_TIMEOUT: Duration = Duration::from_secs(40);
/// Time between two looks at the supervisor's report.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);
/// Bytes of the end of a log that are shown when a start fails.
const LOG_TAIL: u64 = 2000;

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
        let state = State::find()?;
        if boot::running(&state)?.is_none_or(|report| !report.ready) {
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
        let state = State::find()?;
        if options.foreground {
            crate::log_to_standard_error();
            boot::main(&state)?;
        } else {
            start_detached(&state)?;
        }
        Ok(ExitCode::SUCCESS)
    }

    fn join(&self, options: &JoinOptions) -> Result<()> {
        let state = State::find()?;
        join::main(&state, options)?;
        start_detached(&state)
    }

    fn down(&self) -> Result<()> {
        let state = State::find()?;
        let deadline = Instant::now() + DOWN_TIMEOUT;
        let mut told = 0;
        while let Some(report) = boot::running(&state)? {
            if report.pid != told && report.pid != 0 {
                amoeba_linux::host::terminate(report.pid);
                told = report.pid;
            }
            if Instant::now() > deadline {
                bail!("the supervisor (process {}) does not end", report.pid);
            }
            std::thread::sleep(LOOK_INTERVAL);
        }
        Ok(())
    }

    fn status(&self) -> Result<SystemStatus> {
        let state = State::find()?;
        let report = boot::running(&state)?;
        let host = state.host_name().unwrap_or_else(|_| amoeba_linux::host::name());
        let kind = if state.of_host() { SystemKind::Root } else { SystemKind::Private };
        let running = report.is_some();
        let (daemons, attention) = report.as_ref().map(describe).unwrap_or_default();
        Ok(SystemStatus { running, kind, state_directory: state.dir().to_owned(), host, daemons, attention })
    }

    fn dev(&self, options: &DevOptions) -> Result<ExitCode> {
        dev::main(options)
    }

    fn console(&self) -> &dyn Console {
        &self.console
    }
}

fn session(state: &State) -> Result<Session> {
    Ok(Session {
        world: amoeba_linux::connect(&state.socket()),
        root: state.capability("root.cap")?,
        host: state.capability("host.cap")?,
        host_name: state.host_name()?,
        alone: Config::read(state)?.link.is_none(),
    })
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

/// A supervisor in the background, not started yet.
pub(crate) fn supervisor(state: &State) -> Result<Command> {
    let log = boot::open_log(state, "boot")?;
    let program = std::env::current_exe().context("cannot find this program")?;
    let mut command = Command::new(program);
    command.arg("boot").env("AMOEBA_STATE", state.dir()).env("AMOEBA_DETACHED", "1").current_dir("/");
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    Ok(command)
}

/// Starts the supervisor in the background, unless one runs, and waits until everything answers.
fn start_detached(state: &State) -> Result<()> {
    state.create()?;
    let mut command = self::supervisor(state)?;
    let mut supervisor = None;
    let deadline = Instant::now() + UP_TIMEOUT;
    loop {
        match boot::running(state)? {
            Some(report) if report.ready => return Ok(()),
            Some(_) => {}
            None if supervisor.is_none() => {
                supervisor = Some(command.spawn().context("cannot start the supervisor")?);
            }
            None => {}
        }
        if let Some(child) = &mut supervisor
            && let Some(status) = child.try_wait()?
            && boot::running(state)?.is_none()
        {
            bail!(
                "the system does not start ({status}); the end of its log:\n{}",
                tail(&state.path("log/boot.log"))
            );
        }
        if Instant::now() > deadline {
            bail!("the system does not answer; the end of its log:\n{}", tail(&state.path("log/boot.log")));
        }
        std::thread::sleep(LOOK_INTERVAL);
    }
}

/// The end of a log.
pub(crate) fn tail(path: &Path) -> String {
    let read = || -> std::io::Result<String> {
        let mut file = std::fs::File::open(path)?;
        let size = file.seek(SeekFrom::End(0))?;
        file.seek(SeekFrom::Start(size.saturating_sub(LOG_TAIL)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).trim_end().to_owned())
    };
    read().unwrap_or_else(|error| format!("{}: {error}", path.display()))
}
