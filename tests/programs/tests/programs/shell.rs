//! Scripts as people write them.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

/// No script takes this long but when it hangs: then it is killed and the test fails.
const HANG: Duration = Duration::from_secs(300);
/// Where Debian keeps its programs. Others of the same name that somebody installed beside them behave as they like.
const PATH: &str = "/usr/bin:/bin:/usr/sbin:/sbin";

/// A script that was started; it and what it started end with this.
pub(crate) struct Script {
    child: Child,
    said: PathBuf,
    text: String,
}

impl Script {
    /// Starts `text` in `directory`; what it says on both outputs goes to one file.
    pub(crate) fn start(directory: &Path, text: &str) -> Script {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("amoeba-programs-said-{}-{number}", std::process::id());
        let said = std::env::temp_dir().join(name);
        let output = File::create(&said).expect("the temporary folder is ours");
        let both = output.try_clone().expect("a descriptor is free");
        let mut command = Command::new("/bin/bash");
        command.args(["-e", "-u", "-o", "pipefail", "-c", text]).current_dir(directory).env_clear();
        command.env("PATH", PATH).env("HOME", "/nonexistent").env("LC_ALL", "C.UTF-8").env("TZ", "UTC");
        command.stdin(Stdio::null()).stdout(output).stderr(both).process_group(0);
        let child = command.spawn().expect("there is a shell");
        Script { child, said, text: text.to_owned() }
    }

    /// What it has said so far.
    pub(crate) fn said(&self) -> String {
        let said = fs::read(&self.said).expect("the file is there as long as this");
        String::from_utf8_lossy(&said).into_owned()
    }

    /// How it ended, or `None` when it goes on.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("our own child can be waited for")
    }

    /// Waits for its end.
    pub(crate) fn finish(&mut self) -> ExitStatus {
        self.finish_within(HANG)
    }

    /// Waits for its end; whoever takes longer hangs.
    pub(crate) fn finish_within(&mut self, hang: Duration) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.ended() {
                return status;
            }
            assert!(start.elapsed() < hang, "hangs:\n{}\n{}", self.text, self.said());
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Kills it and all that it started.
    pub(crate) fn kill(&mut self) {
        // Who was waited for is gone, and its number may be somebody else's.
        if self.ended().is_none() {
            let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
            let _ = self.child.wait();
        }
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        self.kill();
        let _ = fs::remove_file(&self.said);
    }
}

/// Runs a script that must succeed; what it said.
#[track_caller]
pub(crate) fn sh(directory: &Path, text: &str) -> String {
    let mut script = Script::start(directory, text);
    let status = script.finish();
    assert!(status.success(), "{status} in {}:\n{text}\n{}", directory.display(), script.said());
    script.said()
}

/// Whether all of these programs are installed; what is not is said, and the scenario skipped.
pub(crate) fn have(programs: &[&str]) -> bool {
    let missing = |program: &&&str| !PATH.split(':').any(|folder| Path::new(folder).join(program).exists());
    let missing: Vec<_> = programs.iter().filter(missing).collect();
    if !missing.is_empty() {
        eprintln!("SKIPPED: not installed: {missing:?}; `cargo xtask programs` installs what is needed");
    }
    missing.is_empty()
}

/// A program that `cargo xtask programs` has built; `None`, and said so, where it has not.
pub(crate) fn built(program: &str) -> Option<PathBuf> {
    let test = std::env::current_exe().expect("a running test has a path");
    let target = test.ancestors().nth(3).expect("tests lie in target/PROFILE/deps");
    let path = target.join("programs/bin").join(program);
    if !path.exists() {
        eprintln!("SKIPPED: {program} is not built; `cargo xtask programs` builds it");
    }
    path.exists().then_some(path)
}
