//! A private system of the built binary, and its mount.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::shell::{Script, sh};

/// No daemon takes this long to be there or gone but when it hangs.
const HANG: Duration = Duration::from_secs(60);

/// A running system with its state in a folder of its own; nobody of it is left at the end.
pub(crate) struct System {
    folder: PathBuf,
}

impl System {
    /// Starts one.
    pub(crate) fn up(folder: &Path) -> System {
        for part in ["state", "home"] {
            fs::create_dir(folder.join(part)).expect("the folder is new");
        }
        let system = System { folder: folder.to_owned() };
        system.amoeba("up");
        system
    }

    /// A line of the shell that is `amoeba` for this system, with these arguments.
    pub(crate) fn line(&self, arguments: &str) -> String {
        let (state, home) = (self.folder.join("state"), self.folder.join("home"));
        format!("AMOEBA_STATE={} HOME={} {} {arguments}", state.display(), home.display(), binary().display())
    }

    /// Runs `amoeba`, which must succeed; what it said.
    #[track_caller]
    pub(crate) fn amoeba(&self, arguments: &str) -> String {
        sh(&self.folder, &self.line(arguments))
    }

    /// Mounts the graph, perhaps for other users, too; the process that serves it.
    #[track_caller]
    pub(crate) fn mount(&self, directory: &Path, others: bool) -> i32 {
        let others = if others { "--allow-other" } else { "" };
        let said = self.amoeba(&format!("mount {others} --json {}", directory.display()));
        number(&serde_json::from_str(&said).expect("JSON was asked for"), "pid")
    }

    /// Unmounts it, when everything is committed.
    #[track_caller]
    pub(crate) fn umount(&self, directory: &Path) {
        self.amoeba(&format!("umount {}", directory.display()));
    }

    /// The process of a daemon.
    pub(crate) fn daemon(&self, role: &str) -> i32 {
        let status: Value = serde_json::from_str(&self.amoeba("status --json")).expect("JSON was asked for");
        let daemons = status["daemons"].as_array().expect("status lists daemons");
        let found = daemons.iter().find(|daemon| daemon["role"] == role);
        number(found.unwrap_or_else(|| panic!("no {role} in {status}")), "pid")
    }

    /// Processes of this system, by the state directory in their environment.
    fn processes(&self) -> Vec<i32> {
        let state = self.folder.join("state");
        let mark = [b"AMOEBA_STATE=", state.as_os_str().as_encoded_bytes(), b"\0"].concat();
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        pids.filter(|pid| {
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment.windows(mark.len()).any(|window| window == mark)
        })
        .collect()
    }
}

impl Drop for System {
    fn drop(&mut self) {
        Script::start(&self.folder, &self.line("down")).finish();
        // Whoever is still there must not outlive the test, even when the test found just that.
        self.processes().into_iter().for_each(kill);
    }
}

/// Sends a signal to a process, if it is there.
pub(crate) fn send(pid: i32, signal: Signal) {
    if let Some(process) = Pid::from_raw(pid) {
        let _ = kill_process(process, signal);
    }
}

/// Kills a process as nobody expects, and returns when it is gone.
pub(crate) fn kill(pid: i32) {
    send(pid, Signal::KILL);
    let start = Instant::now();
    let alive = || {
        // Where nobody waits for orphans they stay as zombies.
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        !stat.is_empty() && !stat.rsplit(')').next().is_some_and(|rest| rest.starts_with(" Z"))
    };
    while alive() {
        assert!(start.elapsed() < HANG, "{pid} does not die");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The built binary: where `cargo xtask test` says, or beside the test itself.
pub(crate) fn binary() -> PathBuf {
    let path = match std::env::var_os("AMOEBA_BIN") {
        Some(path) => PathBuf::from(path),
        None => {
            let test = std::env::current_exe().expect("a running test has a path");
            let profile = test.parent().and_then(Path::parent).expect("tests lie in target/PROFILE/deps");
            profile.join("amoeba")
        }
    };
    assert!(path.exists(), "{} is not built: run `cargo xtask test`", path.display());
    path
}

fn number(value: &Value, name: &str) -> i32 {
    let number = value[name].as_i64().and_then(|number| i32::try_from(number).ok());
    number.unwrap_or_else(|| panic!("no number {name} in {value}"))
}
