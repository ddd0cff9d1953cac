//! The hosts of `amoeba dev`, and the programs of ours on them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

type Error = Box<dyn std::error::Error>;

/// A host.
pub struct Host {
    /// Its name.
    pub name: String,
    /// Its state directory.
    pub state: PathBuf,
}

/// The hosts there are, from the environment that `amoeba dev` gives.
///
/// # Errors
/// There are none.
pub fn all() -> Result<Vec<Host>, Error> {
    let listed = std::env::var("AMOEBA_DEV_HOSTS")?;
    let pairs = listed.split(':').filter_map(|pair| pair.split_once('='));
    Ok(pairs.map(|(name, state)| Host { name: name.to_owned(), state: state.into() }).collect())
}

impl Host {
    /// Starts this program on the host with other arguments.
    ///
    /// # Errors
    /// Those of the operating system.
    pub fn start(&self, arguments: &[&str]) -> Result<Child, Error> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(arguments).env("AMOEBA_STATE", &self.state).stdin(Stdio::null());
        Ok(command.spawn()?)
    }

    /// The supervisor and the daemons: role and process.
    pub fn daemons(&self) -> Vec<(String, i32)> {
        let text = fs::read(self.state.join("run/boot.json")).unwrap_or_default();
        let report: serde_json::Value = serde_json::from_slice(&text).unwrap_or_default();
        let pid = |value: &serde_json::Value| value["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok());
        let daemons = report["daemons"].as_array().cloned().unwrap_or_default();
        let named = daemons.iter().filter_map(|daemon| {
            Some((daemon["role"].as_str()?.to_owned(), pid(daemon).filter(|pid| *pid > 0)?))
        });
        let supervisor = pid(&report).filter(|pid| *pid > 0).map(|pid| ("supervisor".to_owned(), pid));
        supervisor.into_iter().chain(named).collect()
    }

    /// The kernel daemon's process, if it runs.
    pub fn kernel(&self) -> Option<i32> {
        self.daemons().into_iter().find(|(role, _)| role == "kernel").map(|(_, pid)| pid)
    }

    /// Kills the supervisor and then the daemons.
    pub fn lose(&self) {
        for (_, pid) in self.daemons() {
            kill(pid);
        }
    }

    /// `amoeba up` until it succeeds.
    ///
    /// # Errors
    /// It did not within `patience`.
    pub fn up(&self, patience: Duration) -> Result<(), Error> {
        let end = Instant::now() + patience;
        loop {
            let mut command = Command::new("amoeba");
            command.arg("up").env("AMOEBA_STATE", &self.state).stdin(Stdio::null()).stdout(Stdio::null());
            if command.status()?.success() {
                return Ok(());
            }
            if Instant::now() > end {
                return Err(format!("{} does not come back", self.name).into());
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

/// What every host says of itself, for who has to find out what went wrong.
pub fn report(hosts: &[Host]) -> String {
    let mut text = String::new();
    for host in hosts {
        for words in [&["host", "ls"][..], &["status", "-v"]] {
            let mut command = Command::new("timeout");
            command.args(["10", "amoeba"]).args(words).env("AMOEBA_STATE", &host.state).stdin(Stdio::null());
            let said = command.output().map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
            text += &format!("== {}: {}\n{}\n", host.name, words.join(" "), said.unwrap_or_default());
        }
        for entry in fs::read_dir(host.state.join("log")).into_iter().flatten().flatten() {
            let lines = fs::read_to_string(entry.path()).unwrap_or_default();
            let first = lines.lines().count().saturating_sub(40);
            let last: Vec<&str> = lines.lines().skip(first).collect();
            text += &format!("== {}\n{}\n", entry.path().display(), last.join("\n"));
        }
    }
    text
}

/// Kills a process that may have ended by itself.
pub fn kill(pid: i32) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _ = kill_process(pid, Signal::KILL);
    }
}

/// Waits for a child's end, at most until `end`.
///
/// # Errors
/// It did not end in time, or failed.
pub fn ends_well(child: &mut Child, what: &str, end: Instant) -> Result<(), Error> {
    loop {
        match child.try_wait()? {
            Some(status) if status.success() => return Ok(()),
            Some(status) => return Err(format!("{what} ended with {status}").into()),
            None if Instant::now() > end => {
                let _ = child.kill();
                return Err(format!("{what} hangs").into());
            }
            None => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}

/// Bytes of memory that a process has resident.
pub fn resident_size(pid: i32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()? << 10)
}

/// What the wire of `amoeba dev --faults` is told.
pub struct Wire(PathBuf);

impl Wire {
    /// The wire, if these hosts have one.
    pub fn find() -> Option<Wire> {
        std::env::var_os("AMOEBA_DEV_WIRE").map(|path| Wire(Path::new(&path).to_owned()))
    }

    /// Gives an order.
    ///
    /// # Errors
    /// Nobody reads it.
    pub fn order(&self, line: &str) -> Result<(), Error> {
        Ok(fs::write(&self.0, format!("{line}\n"))?)
    }
}
