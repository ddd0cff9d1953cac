//! `amoeba dev N`: throw-away hosts on this machine, and nothing left of them.
//!
//! ```text
//! front: what was typed ── keeper ─┬─ supervisor of each host ── daemons ── guests
//!                                  └─ the command, or a shell
//! ```
//! Front and [`keeper`] both adopt orphans, and each clears up when the other was killed: every descendant is killed,
//! then the directory with the [`hosts`] is removed. The supervisors leave the terminal's session, so that Ctrl-C is
//! for the command alone.

mod hosts;
pub(crate) mod keeper;
mod prompt;

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use amoeba_cli::{DevOptions, Hint};
use amoeba_linux::netns::Faults;
use amoeba_linux::{family, host, terminal};
use amoeba_world::random;
use anyhow::{Context, Result, bail};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use hosts::Place;

/// What tells a program to end.
const STOPPING: [i32; 3] = [SIGTERM, SIGINT, SIGHUP];

/// The front: starts the keeper, hands it what it is told, and exits as it does.
pub(crate) fn main(options: &DevOptions) -> Result<ExitCode> {
    family::adopt_orphans().context("this system cannot keep track of processes")?;
    let mut signals = Signals::new(STOPPING)?;
    let place = place(options)?;
    let directory = directory()?;
    let program = std::env::current_exe().context("cannot find this program")?;
    let mut command = Command::new(program);
    command.arg("dev-keeper").arg(&directory).arg(options.hosts.to_string());
    command.arg(place.to_string()).args(&options.command);
    command.env("AMOEBA_SUPERVISOR", std::process::id().to_string());
    let mut keeper = command.spawn().context("cannot start the keeper of the hosts")?;
    let pid = keeper.id();
    std::thread::spawn(move || {
        for signal in signals.forever().filter(|signal| !is_for_command(*signal)) {
            tracing::debug!(signal, "handed to the keeper");
            host::terminate(pid);
        }
    });
    let status = keeper.wait();
    clear(&directory)?;
    match status?.code().and_then(|code| u8::try_from(code).ok()) {
        Some(code) => Ok(ExitCode::from(code)),
        None => bail!("the keeper of the hosts was killed; they are gone"),
    }
}

/// Where the hosts are to be.
fn place(options: &DevOptions) -> Result<Place> {
    let Some(faults) = &options.faults else {
        return Ok(if options.loopback { Place::Loopback } else { Place::Namespaces });
    };
    let mut faults: Faults = faults.parse()?;
    if !host::is_root() {
        let hint = "without faults, `amoeba dev` needs no privilege";
        return Err(anyhow::anyhow!("a wire with faults is only for root: it needs network namespaces"))
            .context(Hint(hint.to_owned()));
    }
    let drawn = || u32::from_ne_bytes(random(&*amoeba_linux::entropy())).into();
    faults.seed = Some(faults.seed.unwrap_or_else(drawn));
    eprintln!("faults of the wire: {faults}");
    Ok(Place::Wire(faults))
}

/// Whether the terminal has sent this signal to the command as well, which may have its own idea of Ctrl-C.
fn is_for_command(signal: i32) -> bool {
    signal == SIGINT && terminal::in_foreground()
}

/// Where the hosts are to be. Its name cannot be foretold, and the keeper makes it anew.
fn directory() -> Result<PathBuf> {
    let parent = std::env::temp_dir();
    let parent = std::path::absolute(&parent).context("TMPDIR")?;
    if parent.as_os_str().as_encoded_bytes().iter().any(|byte| b":=\n".contains(byte)) {
        let hint = "name a directory without these signs in TMPDIR";
        return Err(anyhow::anyhow!("{} has a colon or an equals sign in it", parent.display()))
            .context(Hint(hint.to_owned()));
    }
    let tag = u64::from_ne_bytes(random(&*amoeba_linux::entropy()));
    Ok(parent.join(format!("amoeba-dev-{}-{tag:016x}", std::process::id())))
}

/// Kills everybody who came of this process, then removes the directory. It may be gone already.
fn clear(directory: &Path) -> Result<()> {
    family::end_descendants();
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", directory.display()))
        }
        _ => Ok(()),
    }
}
