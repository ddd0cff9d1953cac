//! A system in this process for the tests of subcommands: the real Bullet and directory servers on disks in memory, a
//! console that is no terminal.

use std::any::Any;
use std::ffi::OsString;
use std::io;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};

use amoeba_cap::{Capability, ObjectNumber, Rights};
use amoeba_name::Names;
use amoeba_world::{Disk, DiskError, World};
use anyhow::bail;

use crate::graph::Graph;
use crate::{
    Console, DevOptions, Invitation, InviteOptions, Invited, JoinOptions, JoinedSystem, Restoring, Secrets,
    Session, Signals, Standard, Start, System, SystemStatus, UpOptions,
};

const VOLUME_SIZE: u64 = 16 << 20;
const THREADS: usize = 4;

/// The system, and what it has for a state directory.
pub(crate) struct TestSystem {
    world: World,
    root: Capability,
    files: Capability,
    console: NoTerminal,
}

impl TestSystem {
    /// A system with the directories that commands expect.
    pub(crate) fn new() -> TestSystem {
        let world = amoeba_loopback::world();
        let files = start_bullet(&world);
        let root = start_directory(&world);
        let names = Names::new(&world, root);
        for path in ["/bin", "/home", "/profile", "/profile/cap", "/profile/cap/bulletsvr"] {
            names.mkdir(path.as_bytes()).expect("a new graph is empty");
        }
        names.append(b"/profile/cap/bulletsvr/default", files).expect("the directory is new");
        TestSystem { world, root, files, console: NoTerminal }
    }

    /// Runs a command line to its end.
    pub(crate) fn run(&self, line: &[&str]) -> Ran {
        let arguments = std::iter::once("amoeba").chain(line.iter().copied()).map(OsString::from);
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let code = crate::execute(arguments.collect(), self, &mut stdout, &mut stderr);
        let text = |bytes| String::from_utf8(bytes).expect("the tests print UTF-8");
        Ran { line: line.join(" "), code, stdout: text(stdout), stderr: text(stderr) }
    }

    /// The name space of the system.
    pub(crate) fn names(&self) -> Names {
        Names::new(&self.world, self.root)
    }

    /// The graph as commands see it.
    pub(crate) fn graph(&self) -> Graph {
        Graph::new(self.connect(Start::Never).expect("it always runs"))
    }

    /// One more file server, on a host of this name.
    pub(crate) fn add_file_server(&self, host: &str) {
        let path = format!("/profile/cap/bulletsvr/{host}");
        self.names().append(path.as_bytes(), start_bullet(&self.world)).expect("the name is free");
    }

    /// A file with these contents under a path from the root.
    pub(crate) fn file(&self, path: &str, contents: &[u8]) {
        let server = self.names().resolve(b"/profile/cap/bulletsvr/default").expect("it was made by `new`");
        let flags = amoeba_stubs::bullet::COMMIT;
        let file =
            amoeba_stubs::bullet::create(&self.world, &server, flags, contents).expect("there is room");
        self.names().append(path.as_bytes(), file).expect("the name is free");
    }
}

/// What a command did.
#[derive(Debug)]
pub(crate) struct Ran {
    line: String,
    code: ExitCode,
    stdout: String,
    stderr: String,
}

impl Ran {
    /// It exited with 0, said nothing and printed this.
    #[track_caller]
    pub(crate) fn printed(&self, expected: &str) {
        assert_eq!((self.stderr.as_str(), self.stdout.as_str()), ("", expected), "{}", self.line);
        assert_eq!(self.code, ExitCode::SUCCESS, "{}", self.line);
    }

    /// It exited with 0 and printed something, which this gives.
    #[track_caller]
    pub(crate) fn text(&self) -> &str {
        assert_eq!((self.stderr.as_str(), self.code), ("", ExitCode::SUCCESS), "{}", self.line);
        self.stdout.trim_end()
    }

    /// It exited with `code`, said nothing, and printed something, which this gives.
    #[track_caller]
    pub(crate) fn failed_with(&self, code: u8) -> &str {
        assert_eq!((self.stderr.as_str(), self.code), ("", ExitCode::from(code)), "{}", self.line);
        &self.stdout
    }

    /// It printed nothing, said this, and exited with `code`.
    #[track_caller]
    pub(crate) fn failed(&self, code: u8, expected: &str) {
        assert_eq!((self.stdout.as_str(), self.stderr.as_str()), ("", expected), "{}", self.line);
        assert_eq!(self.code, ExitCode::from(code), "{}", self.line);
    }
}

impl System for TestSystem {
    fn connect(&self, _: Start) -> anyhow::Result<Session> {
        // No test asks for the host's own directory.
        let host = Capability::NULL;
        Ok(Session {
            world: self.world.clone(),
            root: self.root,
            confined_root: None,
            host,
            host_name: "test".into(),
            is_own: true,
            alone: true,
        })
    }

    fn up(&self, _: &UpOptions) -> anyhow::Result<ExitCode> {
        Ok(ExitCode::SUCCESS)
    }

    fn down(&self) -> anyhow::Result<()> {
        bail!("something still runs")
    }

    fn status(&self) -> anyhow::Result<SystemStatus> {
        bail!("the state cannot be read")
    }

    fn join(&self, options: &JoinOptions) -> anyhow::Result<JoinedSystem> {
        match &*options.token {
            "am1good" => Ok(JoinedSystem {
                name: options.name.clone().unwrap_or_else(|| "bolt".to_owned()),
                inviter: "anvil".to_owned(),
                listen: "[::]:5321".to_owned(),
            }),
            token => bail!("nobody answers to {token}"),
        }
    }

    fn invite(&self, options: &InviteOptions) -> anyhow::Result<Invited> {
        let (name, time) = (options.name.clone(), options.time);
        Ok(Invited { id: "0a".into(), token: "am1test".into(), name, time, addresses: Vec::new() })
    }

    fn invitations(&self) -> anyhow::Result<Vec<Invitation>> {
        Ok(Vec::new())
    }

    fn revoke(&self, id: &str) -> anyhow::Result<()> {
        bail!("there is no invitation {id}")
    }

    fn dev(&self, _: &DevOptions) -> anyhow::Result<ExitCode> {
        bail!("a host does not start")
    }

    fn secrets(&self) -> anyhow::Result<Secrets> {
        Ok(Secrets { files: Some(self.files), directory: Some(self.root), state: Vec::new() })
    }

    fn restore(&self) -> anyhow::Result<Box<dyn Restoring>> {
        bail!("there is a system already")
    }

    fn threads(&self) -> amoeba_threads::Threads {
        self.world.threads.clone()
    }

    fn console(&self) -> &dyn Console {
        &self.console
    }
}

struct NoTerminal;

impl Console for NoTerminal {
    fn is_terminal(&self, _: Standard) -> bool {
        false
    }

    fn size(&self) -> Option<(u16, u16)> {
        None
    }

    fn raw_mode(&self) -> io::Result<Box<dyn Any + Send>> {
        Err(io::Error::from(io::ErrorKind::Unsupported))
    }

    fn signals(&self, _: &[i32]) -> io::Result<Box<dyn Signals>> {
        Ok(Box::new(NoTerminal))
    }

    fn suspend(&self) {}
}

impl Signals for NoTerminal {
    fn next(&mut self) -> Option<i32> {
        None
    }
}

fn start_bullet(world: &World) -> Capability {
    let disk = MemoryDisk::new(VOLUME_SIZE);
    let made = amoeba_bullet::format(&*disk, &*world.entropy, &Default::default()).expect("the disk is new");
    let port = world.transactions.put_port(&made.get_port).expect("F is always there");
    let running =
        amoeba_bullet::start(world, disk, Default::default(), THREADS).expect("it was just formatted");
    // It serves until the test's process ends.
    std::mem::forget(running);
    made.secret.capability(port, ObjectNumber::SUPER, Rights::ALL, made.super_random)
}

fn start_directory(world: &World) -> Capability {
    let (tables, log) = (MemoryDisk::new(0), MemoryDisk::new(0));
    let format = amoeba_directory::Format { log_size: 4 << 20, ..Default::default() };
    let made =
        amoeba_directory::format(tables.clone(), &*log, &*world.entropy, 0, &format).expect("disks are new");
    let port = world.transactions.put_port(&made.identity.get_port).expect("F is always there");
    let options = amoeba_directory::Options { cache_size: 1 << 20, ..Default::default() };
    let running =
        amoeba_directory::start(world, tables, log, options, THREADS).expect("it was just formatted");
    std::mem::forget(running);
    made.root_capability(port)
}

/// A disk that is as durable as the test needs.
struct MemoryDisk(Mutex<Vec<u8>>);

impl MemoryDisk {
    fn new(size: u64) -> Arc<MemoryDisk> {
        Arc::new(MemoryDisk(Mutex::new(vec![0; size as usize])))
    }

    fn with<T>(&self, use_bytes: impl FnOnce(&mut Vec<u8>) -> Result<T, DiskError>) -> Result<T, DiskError> {
        use_bytes(&mut self.0.lock().expect("no holder of this lock panics"))
    }
}

impl Disk for MemoryDisk {
    fn size(&self) -> u64 {
        self.with(|bytes| Ok(bytes.len() as u64)).unwrap_or(0)
    }

    fn set_size(&self, size: u64) -> Result<(), DiskError> {
        self.with(|bytes| {
            bytes.resize(size as usize, 0);
            Ok(())
        })
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), DiskError> {
        self.with(|bytes| {
            let from = bytes.get(offset as usize..).and_then(|bytes| bytes.get(..into.len()));
            into.copy_from_slice(from.ok_or(DiskError::Full)?);
            Ok(())
        })
    }

    fn write(&self, offset: u64, from: &[u8]) -> Result<(), DiskError> {
        self.with(|bytes| {
            let into = bytes.get_mut(offset as usize..).and_then(|bytes| bytes.get_mut(..from.len()));
            into.ok_or(DiskError::Full)?.copy_from_slice(from);
            Ok(())
        })
    }

    fn flush(&self) -> Result<(), DiskError> {
        Ok(())
    }
}
