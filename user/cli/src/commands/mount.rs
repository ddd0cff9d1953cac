//! `amoeba mount`: the directory graph as a file system.

use std::ffi::OsString;
use std::fs::{self, File, TryLockError};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use amoeba_cap::Capability;
use amoeba_mount::{GraphFileSystem, Options};
use anyhow::{Context as _, anyhow, bail};
use clap::Args;

use crate::Context;
use crate::failure::{Advise, Hint};
use crate::graph::Graph;
use crate::mounting::{HostAccounts, MountOptions, Mounting};
use crate::place::Place;

use super::mounts::{self, LOCK, MountedAt, WHERE};

/// The largest number of mounts of one directory by one user.
const MOUNTS_MAX: usize = 256;
/// How often a mount looks whether it is to end.
const END_INTERVAL: Duration = Duration::from_millis(200);
/// How often it is looked whether somebody still has a file open.
const USED_INTERVAL: Duration = Duration::from_millis(20);
/// How long those who use a mount are waited for when it is to end.
const USERS_WAIT: Duration = Duration::from_secs(5);
/// And how long the servers, to take what is not committed yet.
const COMMIT_WAIT: Duration = Duration::from_secs(60);
/// How often the servers are asked what others have changed.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// What a mount in the background says when it is there.
const READY: &str = "ready";
const SIGINT: i32 = 2;
const SIGTERM: i32 = 15;
const SIGHUP: i32 = 1;
const LOG: &str = "log";

/// Mount the directory graph at a local directory
///
/// Every program can then use it as files. What is written becomes visible to others when it is closed, and to other hosts
/// within two seconds. The mount goes on in the background until `amoeba umount`; it needs root, or the program
/// fusermount3.
#[derive(Args)]
pub(crate) struct Arguments {
    /// The local directory
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// Mount this directory of the graph, instead of the root of your directories
    #[arg(long, value_name = "PATH")]
    root: Option<OsString>,
    /// Change nothing
    #[arg(long)]
    read_only: bool,
    /// Stay, and end with SIGINT or SIGTERM
    #[arg(long)]
    foreground: bool,
    /// Let other users look in
    #[arg(long)]
    allow_other: bool,
    /// Let programs read the capability of a file, a secret, as the attribute user.amoeba.capability
    #[arg(long)]
    show_capabilities: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Be what the same command has put into the background
    #[arg(long, hide = true)]
    detached: bool,
    /// What that was asked to mount
    #[arg(long, value_name = "TEXT", hide = true, allow_hyphen_values = true)]
    shows: Option<String>,
}

/// Whether something is mounted there: one that was just taken away may still be committing what was written.
fn is_mount(directory: &Path) -> anyhow::Result<bool> {
    let device = |path: &Path| fs::metadata(path).map(|facts| facts.dev());
    Ok(match directory.parent() {
        Some(parent) => device(parent)? != device(directory)?,
        None => true,
    })
}

impl Arguments {
    pub(crate) fn run(self, context: &mut Context<'_>) -> anyhow::Result<()> {
        let mounting = context.system.mounting().context("nothing can be mounted here")?;
        let graph = context.graph()?;
        let root = self.root(&graph)?;
        // Also ends what was killed there and hangs, so that it can be looked at.
        let running = mounts::running(mounting)?;
        // A dead one cannot be; it is cleared away before anything lies there again.
        if mounting.is_dead(&self.directory) {
            mounting.unmount(&self.directory).with_context(|| self.shown())?;
        }
        let directory = fs::canonicalize(&self.directory).with_context(|| self.shown())?;
        if !directory.is_dir() {
            bail!("{} is not a directory", self.shown());
        }
        if is_mount(&directory)? && running.iter().any(|(at, _)| at.directory == directory) {
            return Err(anyhow!("{} is a mount already", self.shown()))
                .hint(format!("`amoeba umount {}` ends it", self.shown()));
        }
        if self.foreground || self.detached {
            return self.serve(context, mounting, &graph, root, &directory);
        }
        let pid = self.go_to_background(mounting, &root, &directory)?;
        let at = self.mounted_at(directory, pid);
        if self.json { context.out.json(&at) } else { Ok(()) }
    }

    fn shown(&self) -> String {
        self.directory.display().to_string()
    }

    fn mounted_at(&self, directory: PathBuf, pid: u32) -> MountedAt {
        let root = || self.root.as_deref().map_or_else(|| "/".into(), Place::argument_shown);
        let shows = self.shows.clone().unwrap_or_else(root);
        MountedAt { directory, pid, shows, read_only: self.read_only, device: String::new() }
    }

    fn root(&self, graph: &Graph) -> anyhow::Result<Capability> {
        let Some(root) = &self.root else { return Ok(graph.session().root) };
        graph.directory(&Place::parse(root)?)
    }

    /// Starts the same in the background; returns when it is there.
    fn go_to_background(
        &self,
        mounting: &dyn Mounting,
        root: &Capability,
        directory: &Path,
    ) -> anyhow::Result<u32> {
        let folder = mounting.folder()?;
        make_folder(&folder)?;
        let mut log =
            File::options().read(true).append(true).create(true).mode(0o600).open(folder.join(LOG))?;
        let from = log.seek(SeekFrom::End(0))?;
        let mut command = mounting.background()?;
        let shows = self.mounted_at(directory.to_owned(), 0).shows;
        command.arg("mount").arg(directory).args(["--detached", "--root", "-", "--shows", &shows]);
        for (flag, set) in [
            ("--read-only", self.read_only),
            ("--allow-other", self.allow_other),
            ("--show-capabilities", self.show_capabilities),
        ] {
            command.args(set.then_some(flag));
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log.try_clone()?);
        let mut child = command.spawn().context("cannot start the mount")?;
        let mut input = child.stdin.take().expect("it was asked for");
        // If it ended already, it has said why.
        let _ = input.write_all(root.to_text().as_bytes());
        drop(input);
        let mut line = String::new();
        let output = child.stdout.take().expect("it was asked for");
        BufReader::new(output).read_line(&mut line)?;
        if line.trim() == READY {
            return Ok(child.id());
        }
        let status = child.wait()?;
        let mut said = String::new();
        log.seek(SeekFrom::Start(from))?;
        log.take(1 << 16).read_to_string(&mut said)?;
        let mut lines = said.lines();
        let Some(why) = lines.next() else { bail!("the mount ended ({status})") };
        let error = anyhow!("{}", why.trim_start_matches("amoeba: "));
        let hint = lines.map(|line| line.trim_start_matches("hint: ")).collect::<Vec<_>>().join("\n");
        Err(if hint.is_empty() { error } else { error.context(Hint(hint)) })
    }

    fn serve(
        &self,
        context: &Context<'_>,
        mounting: &dyn Mounting,
        graph: &Graph,
        root: Capability,
        directory: &Path,
    ) -> anyhow::Result<()> {
        let (folder, _lock) = take_folder(&mounting.folder()?, &root)?;
        // That of a process that is gone.
        let _ = fs::remove_file(folder.join(WHERE));
        let options = Options {
            root,
            file_server: graph.file_server()?,
            folder: folder.join("scratch"),
            accounts: Arc::new(accounts_at(directory)?),
            show_capabilities: self.show_capabilities,
            look_interval: LOOK_INTERVAL,
        };
        let (files, redone) =
            GraphFileSystem::new(graph.world(), options).with_context(|| folder.display().to_string())?;
        redone.iter().for_each(|line| eprintln!("amoeba: {line}"));
        let files = Arc::new(files);
        let options =
            MountOptions { name: "amoeba".into(), read_only: self.read_only, others: self.allow_other };
        let mounted = mounting.mount(Arc::clone(&files) as _, directory, &options)?;
        let at = self.mounted_at(mounted.directory().to_owned(), std::process::id());
        let at = MountedAt { device: mounted.device().to_owned(), ..at };
        fs::write(folder.join(WHERE), serde_json::to_vec(&at)?)?;
        let ending = end_with_signals(context)?;
        if self.detached {
            mounting.enter_background();
        }
        let mut stdout = std::io::stdout();
        // Nobody may be there to read it.
        let _ = writeln!(stdout, "{READY}").and_then(|()| stdout.flush());
        let told = || ending.load(Ordering::Relaxed);
        while !told() && !mounted.ended(END_INTERVAL)? {}
        if told() {
            // What cannot be taken out is out already; who still uses it is waited for below.
            let _ = mounting.unmount(mounted.directory());
        }
        let start = std::time::Instant::now();
        while files.is_used() && !mounted.is_gone() && !(told() && start.elapsed() > USERS_WAIT) {
            std::thread::sleep(USED_INTERVAL);
        }
        let _ = fs::remove_file(folder.join(WHERE));
        files.end(COMMIT_WAIT).map_err(|left| {
            anyhow!("{} updates could not be committed: the servers do not answer", left.0)
                .context(Hint("what was synced is committed by the next mount".to_owned()))
        })
    }
}

/// Set when SIGINT, SIGTERM or SIGHUP comes.
fn end_with_signals(context: &Context<'_>) -> anyhow::Result<Arc<AtomicBool>> {
    let mut signals = context.system.console().signals(&[SIGINT, SIGTERM, SIGHUP])?;
    let ending = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&ending);
    let wait = move || {
        signals.next();
        told.store(true, Ordering::Relaxed);
    };
    std::thread::Builder::new().name("signals".into()).spawn(wait)?;
    Ok(ending)
}

fn make_folder(folder: &Path) -> anyhow::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .with_context(|| folder.display().to_string())
}

/// A folder for a mount of `root` that no other one has, and the lock on it. The first that is free: it may have what a killed
/// mount has left.
fn take_folder(folder: &Path, root: &Capability) -> anyhow::Result<(PathBuf, File)> {
    let name = blake3::hash(&root.to_bytes()).to_hex();
    for number in 0..MOUNTS_MAX {
        let folder = folder.join(format!("{}-{number}", &name[..16]));
        make_folder(&folder)?;
        let lock =
            File::options().write(true).create(true).truncate(false).mode(0o600).open(folder.join(LOCK))?;
        match lock.try_lock() {
            Ok(()) => return Ok((folder, lock)),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
    }
    bail!("there are {MOUNTS_MAX} mounts of this directory")
}

/// Accounts of this host; what has no owner belongs to whom the place of the mount belongs.
fn accounts_at(directory: &Path) -> anyhow::Result<HostAccounts> {
    let place = fs::metadata(directory).with_context(|| directory.display().to_string())?;
    Ok(HostAccounts::read((place.uid(), place.gid())))
}
