//! A private system of its own for each test: a fresh state directory, an empty home, and nobody left at the end.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// No command of a test takes this long but when it hangs: then it is killed and the test fails.
const HANG: Duration = Duration::from_secs(120);
/// How long what hangs may take to clean up after itself.
const TERM_TIME: Duration = Duration::from_secs(10);

/// How often a condition is looked at while a test waits for it.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// One private system and the folder it lives in.
pub(crate) struct System {
    folder: PathBuf,
    binary: PathBuf,
    /// As whom the commands run; `None` for whoever runs the tests.
    user: Option<u32>,
}

/// What a command did.
pub(crate) struct Outcome {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
    line: String,
}

/// A daemon as `amoeba status --json` lists it.
#[derive(Clone, Debug)]
pub(crate) struct Daemon {
    pub(crate) role: String,
    pub(crate) pid: i32,
}

impl System {
    /// A folder for a system that does not run yet.
    pub(crate) fn new() -> System {
        System::named("")
    }

    /// The same with `suffix` at the end of the folder's name.
    pub(crate) fn named(suffix: &str) -> System {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let folder = loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let name = format!("amoeba-live-{}-{number}{suffix}", std::process::id());
            let folder = std::env::temp_dir().join(name);
            match std::fs::create_dir(&folder) {
                // What a run that was killed has left, whose number is ours now.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                made => break made.map(|()| folder).expect("the temporary folder is ours"),
            }
        };
        for part in ["state", "home", "work"] {
            std::fs::create_dir(folder.join(part)).expect("the folder is new");
        }
        System { folder, binary: binary(), user: None }
    }

    /// A folder for a system of somebody who is not root, whoever runs the tests.
    pub(crate) fn unprivileged() -> System {
        const NOBODY: u32 = 65534;
        let mut system = System::named("-nobody");
        if rustix::process::geteuid().is_root() {
            // The folder of the build may be closed to others.
            let binary = system.folder.join("amoeba");
            std::fs::copy(&system.binary, &binary).expect("the temporary folder has room");
            for part in ["", "state", "home", "work"] {
                let part = system.folder.join(part);
                std::os::unix::fs::chown(part, Some(NOBODY), Some(NOBODY)).expect("root may chown");
            }
            (system.binary, system.user) = (binary, Some(NOBODY));
        }
        system
    }

    /// A system that runs.
    pub(crate) fn up() -> System {
        let system = System::new();
        system.amoeba(&["up"]).ok();
        system
    }

    /// The same without root and without name spaces, as on a host that allows no user one; `None` where that cannot be had.
    pub(crate) fn without_name_spaces() -> Option<System> {
        const LIMIT: &str =
            "echo 0 > /proc/sys/user/max_user_namespaces && exec setpriv --ambient-caps=-all \"$0\" up";
        let system = System::unprivileged();
        let up = system.command(&["up"]);
        let mut command = Command::new("unshare");
        if let Some(user) = system.user {
            command.uid(user).gid(user);
        }
        command
            .args(["--user", "--map-current-user", "--keep-caps", "sh", "-c", LIMIT])
            .arg(up.get_program());
        command.env_clear().current_dir(system.work()).stdin(Stdio::null());
        command.envs(up.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let outcome = run_to_end(command, None, HANG).ok()?;
        outcome.status.success().then_some(system)
    }

    /// Where the system keeps its state.
    pub(crate) fn state(&self) -> PathBuf {
        self.folder.join("state")
    }

    /// The working directory of the commands.
    pub(crate) fn work(&self) -> PathBuf {
        self.folder.join("work")
    }

    /// Writes a file in the working directory.
    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.work().join(name);
        std::fs::write(&path, bytes).expect("the working directory is ours");
        path
    }

    /// `amoeba` with these arguments, nothing in its environment but what every login has, and the state of this test.
    pub(crate) fn command<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Command {
        let mut command = Command::new(&self.binary);
        if let Some(user) = self.user {
            command.uid(user).gid(user);
        }
        command.args(arguments).current_dir(self.work()).env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into()));
        command.env("HOME", self.folder.join("home")).env("AMOEBA_STATE", self.state());
        command.stdin(Stdio::null());
        command
    }

    /// Runs `amoeba` to its end, without input.
    pub(crate) fn amoeba<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Outcome {
        finish(self.command(arguments), None)
    }

    /// Runs `amoeba` to its end and feeds it `input`.
    pub(crate) fn amoeba_with<S: AsRef<OsStr>>(&self, arguments: &[S], input: &[u8]) -> Outcome {
        finish(self.command(arguments), Some(input.to_vec()))
    }

    /// Runs it with `--json` and parses what it prints.
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let outcome = self.amoeba(arguments).ok();
        serde_json::from_slice(&outcome.stdout)
            .unwrap_or_else(|error| panic!("`{}` printed no JSON: {error}\n{outcome:?}", outcome.line))
    }

    /// The daemons that run now.
    pub(crate) fn daemons(&self) -> Vec<Daemon> {
        let status = self.json(&["status", "--json"]);
        let listed = status["daemons"].as_array().cloned().unwrap_or_default();
        let daemon = |entry: Value| Daemon {
            role: entry["role"].as_str().unwrap_or_default().to_owned(),
            pid: entry["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok()).unwrap_or_default(),
        };
        listed.into_iter().map(daemon).filter(|daemon| daemon.pid > 0).collect()
    }

    /// Waits until `look` gives something; fails the test when it hangs.
    pub(crate) fn wait_for<T>(&self, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
        let start = Instant::now();
        loop {
            if let Some(found) = look() {
                return found;
            }
            assert!(start.elapsed() < HANG, "waited in vain for {what}");
            std::thread::sleep(LOOK_INTERVAL);
        }
    }

    /// Processes that carry this test's state directory in their environment.
    fn processes(&self) -> BTreeSet<i32> {
        let mark = [b"AMOEBA_STATE=", self.state().as_os_str().as_encoded_bytes(), b"\0"].concat();
        let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        pids.filter(|pid| {
            let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment.windows(mark.len()).any(|window| window == mark)
        })
        .collect()
    }
}

impl Drop for System {
    fn drop(&mut self) {
        let _ = run_to_end(self.command(&["down"]), None, Duration::from_secs(30));
        // Whatever is still there after `down` must not outlive the test, even when the test found just that.
        for pid in self.processes() {
            kill(pid, Signal::KILL);
        }
        if !std::thread::panicking() {
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }
}

impl Outcome {
    /// It exited with 0.
    #[track_caller]
    pub(crate) fn ok(self) -> Outcome {
        self.exit(0)
    }

    /// It exited with this code.
    #[track_caller]
    pub(crate) fn exit(self, code: i32) -> Outcome {
        assert_eq!(self.status.code(), Some(code), "{self:?}");
        self
    }

    /// The code that it exited with.
    pub(crate) fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// It printed exactly this on stdout.
    #[track_caller]
    pub(crate) fn printed(self, expected: &str) -> Outcome {
        assert_eq!(String::from_utf8_lossy(&self.stdout), expected, "{self:?}");
        self
    }

    /// It said exactly this on stderr.
    #[track_caller]
    pub(crate) fn said(self, expected: &str) -> Outcome {
        assert_eq!(self.error_text(), expected, "{self:?}");
        self
    }

    /// It gave one error, in plain words: something on stderr, no panic, nothing on stdout.
    #[track_caller]
    pub(crate) fn complained(self, about: &str) -> Outcome {
        let text = self.error_text();
        assert!(text.to_lowercase().contains(&about.to_lowercase()), "expected `{about}` in {self:?}");
        assert!(!text.contains("panicked"), "{self:?}");
        assert!(self.stdout.is_empty(), "an error printed data: {self:?}");
        self
    }

    /// It said this among other things on stderr, whatever it printed.
    #[track_caller]
    pub(crate) fn told(self, about: &str) -> Outcome {
        assert!(self.error_text().contains(about), "expected `{about}` in {self:?}");
        self
    }

    /// What it printed, without the last newline.
    #[track_caller]
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.stdout.clone()).expect("text was printed").trim_end().to_owned()
    }

    /// What it said on stderr.
    pub(crate) fn error_text(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }
}

impl std::fmt::Debug for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let short = |bytes: &[u8]| {
            let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(2000)]).into_owned();
            format!("{} bytes: {shown:?}", bytes.len())
        };
        write!(
            f,
            "`{}` -> {}\n  stdout {}\n  stderr {}",
            self.line,
            self.status,
            short(&self.stdout),
            short(&self.stderr)
        )
    }
}

/// Sends a signal; a process that is gone already is none of our business.
pub(crate) fn kill(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _ = kill_process(pid, signal);
    }
}

/// Kills a daemon and returns when it holds no file and no lock any more.
pub(crate) fn kill_daemon(daemon: &Daemon) {
    kill(daemon.pid, Signal::KILL);
    let folder = PathBuf::from(format!("/proc/{}", daemon.pid));
    let start = Instant::now();
    let gone = || {
        // Where nobody waits for orphans they stay as zombies, whose threads are what has to be gone.
        let threads = std::fs::read_dir(folder.join("task")).map_or(0, |threads| threads.count());
        let stat = std::fs::read_to_string(folder.join("stat")).unwrap_or_default();
        stat.is_empty()
            || (threads <= 1 && stat.rsplit(')').next().is_some_and(|rest| rest.starts_with(" Z")))
    };
    while !gone() {
        assert!(start.elapsed() < HANG, "{daemon:?} does not die");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Sends a signal to a child that a test started.
pub(crate) fn signal(child: &Child, signal: Signal) {
    kill(i32::try_from(child.id()).expect("Linux numbers processes with i32"), signal);
}

/// Bytes that no compression or text mode leaves unchanged by luck.
pub(crate) fn random(size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .expect("Linux has urandom");
    bytes
}

/// Runs a command to its end with `input` on its stdin; a hang fails the test.
#[track_caller]
pub(crate) fn finish(command: Command, input: Option<Vec<u8>>) -> Outcome {
    let outcome = run_to_end(command, input, HANG);
    outcome.unwrap_or_else(|line| panic!("`{line}` hangs: it was killed after {HANG:?}"))
}

/// The built binary: where `cargo xtask test` says, or beside the test itself.
fn binary() -> PathBuf {
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

/// The outcome, or the command's line, what it said so far and what it had started, when it was killed for taking longer than
/// `limit`.
fn run_to_end(mut command: Command, input: Option<Vec<u8>>, limit: Duration) -> Result<Outcome, String> {
    let words = command.get_args().map(|word| word.to_string_lossy().into_owned());
    let line = std::iter::once("amoeba".to_owned()).chain(words).collect::<Vec<_>>().join(" ");
    if input.is_some() {
        command.stdin(Stdio::piped());
    }
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary starts");
    if let Some(input) = input {
        let mut stdin = child.stdin.take().expect("stdin was piped");
        // A program that does not want all its input closes the pipe; that is its right.
        std::thread::spawn(move || stdin.write_all(&input));
    }
    let stdout = Drained::new(child.stdout.take().expect("stdout was piped"));
    let stderr = Drained::new(child.stderr.take().expect("stderr was piped"));
    let status = wait(&mut child, limit);
    let mut left = Vec::new();
    if status.is_none() {
        left = descendants(child.id());
        signal(&child, Signal::TERM);
        wait(&mut child, TERM_TIME);
        let _ = child.kill();
        let _ = child.wait();
    }
    match status {
        Some(status) if stdout.has_ended(limit) && stderr.has_ended(limit) => {
            Ok(Outcome { status, stdout: stdout.bytes(), stderr: stderr.bytes(), line })
        }
        _ => {
            let said = |drained: Drained| String::from_utf8_lossy(&drained.bytes()).into_owned();
            let left: String = left.iter().map(|line| format!("  left {line:?}\n")).collect();
            Err(format!("{line}\n  stdout {:?}\n  stderr {:?}\n{left}", said(stdout), said(stderr)))
        }
    }
}

/// The command lines of all that a process has started and that is still its own, or its children's.
fn descendants(of: u32) -> Vec<String> {
    let read = |path: String| String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned();
    let children = |pid: u32| {
        let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        let children = threads.map(|thread| read(format!("{}/children", thread.path().display())));
        children.collect::<String>().split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    let mut all = Vec::new();
    for child in children(of) {
        all.push(format!("{child} {}", read(format!("/proc/{child}/cmdline")).replace('\0', " ")));
        all.extend(child.parse().map(descendants).unwrap_or_default());
    }
    all
}

/// Waits for a child's end; `None` when it takes longer than `limit`.
pub(crate) fn wait(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let start = Instant::now();
    while start.elapsed() < limit {
        if let Some(status) = child.try_wait().expect("our own child can be waited for") {
            return Some(status);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    None
}

/// What is read to the end on a thread of its own. A daemon that inherited the pipe would keep it open: the reader gives up then.
struct Drained {
    bytes: Arc<Mutex<Vec<u8>>>,
    end: mpsc::Receiver<()>,
}

impl Drained {
    fn new(mut from: impl Read + Send + 'static) -> Drained {
        let (ended, end) = mpsc::channel();
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let drained = Drained { bytes: bytes.clone(), end };
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            loop {
                match from.read(&mut buffer) {
                    Ok(count @ 1..) => bytes.lock().unwrap().extend_from_slice(&buffer[..count]),
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Ok(_) | Err(_) => break,
                }
            }
            drop(ended);
        });
        drained
    }

    fn has_ended(&self, limit: Duration) -> bool {
        self.end.recv_timeout(limit) == Err(mpsc::RecvTimeoutError::Disconnected)
    }

    fn bytes(&self) -> Vec<u8> {
        std::mem::take(&mut self.bytes.lock().unwrap())
    }
}
