//! The rows of `mount` for the directory graph: a private system of the binary, its graph as files, beside the file system in
//! memory behind the same kernel, and beside the local one.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use crate::mount_programs;
use crate::report::{Row, Unit, megabytes_per_second};
use crate::rounds::Scope;

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
/// Files that are looked at in turn.
const FILES: usize = 1000;
/// The large file, in bytes.
const LARGE_SIZE: usize = 1 << 30;
/// Files of the archive that is unpacked, and directories they are in.
const ARCHIVE_FILES: usize = 20_000;
const ARCHIVE_DIRECTORIES: usize = 200;
const LOCAL: &str = "local file system";
const CEILING: &str = "file system in memory";

/// A private system whose graph is mounted.
pub(crate) struct Graph {
    binary: PathBuf,
    state: PathBuf,
    directory: PathBuf,
}

impl Graph {
    pub(crate) fn new(folder: &Path) -> Result<Graph> {
        let binary = std::env::var_os("AMOEBA_BIN").context("AMOEBA_BIN names the binary to measure")?.into();
        let (state, directory) = (folder.join("state"), folder.join("graph"));
        fs::create_dir_all(&directory)?;
        let graph = Graph { binary, state, directory };
        graph.run(&["up"])?;
        graph.run(&["mount", graph.directory.to_str().context("the folder is ASCII")?])?;
        Ok(graph)
    }

    /// Where files can be made.
    pub(crate) fn home(&self) -> PathBuf {
        self.directory.join("home")
    }

    fn run(&self, arguments: &[&str]) -> Result<()> {
        let mut command = Command::new(&self.binary);
        let status =
            command.args(arguments).env("AMOEBA_STATE", &self.state).stdout(Stdio::null()).status()?;
        ensure!(status.success(), "`amoeba {}` ended with {status}", arguments.join(" "));
        Ok(())
    }

    /// Returns when everything that was done is at the servers.
    fn settle(&self) -> Result<()> {
        Ok(File::open(self.home())?.sync_all()?)
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        // What goes wrong is said on standard error; nothing of it is measured.
        let _ = self.run(&["umount", &self.directory.to_string_lossy()]);
        let _ = self.run(&["down"]);
    }
}

/// Something that is done again and again, in a directory; it is told how often it was.
pub(crate) type Step = fn(&Path, usize) -> std::io::Result<()>;
/// Does steps with so many threads, and gives how many a second.
pub(crate) type Rate = fn(&Scope, &Path, usize, Step) -> Result<f64>;

/// All rows.
pub(crate) fn rows(
    scope: &Scope,
    graph: &Graph,
    memory: &Path,
    local: &Path,
    rate: Rate,
    fresh: fn(&Path) -> Result<PathBuf>,
) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let home = graph.home();
    for index in 0..FILES {
        fs::write(home.join(format!("f{index}")), [7; KIB])?;
    }
    graph.settle()?;
    let look: Step = |directory, index| fs::metadata(directory.join(format!("f{}", index % FILES))).map(drop);
    let (ours, beside) = (rate(scope, &home, 1, look)?, rate(scope, local, 1, look)?);
    rows.push(Row {
        target: Some(1.25),
        ..Row::new("graph: stat, warm", Unit::PerSecond, ours, LOCAL, beside)
    });
    let read: Step = |directory, index| {
        let mut bytes = [0; KIB];
        File::open(directory.join(format!("f{}", index % FILES)))?.read_exact(&mut bytes)
    };
    let (ours, ceiling) = (rate(scope, &home, 1, read)?, rate(scope, memory, 1, read)?);
    let beside = rate(scope, local, 1, read)?;
    let row = |beside_name, beside| {
        Row::new("graph: open, read 1 KiB, close", Unit::PerSecond, ours, beside_name, beside)
    };
    rows.push(Row { target: Some(1.11), ..row(CEILING, ceiling) });
    rows.push(Row { target: Some(2.0), ..row(LOCAL, beside) });
    rows.extend(creations(scope, graph, memory, rate, fresh)?);
    rows.extend(large(graph, local)?);
    rows.push(unpack(graph, &fresh(&home)?, &fresh(local)?)?);
    rows.extend(mount_programs::rows(&fresh(&home)?, &fresh(local)?)?);
    Ok(rows)
}

fn creations(
    scope: &Scope,
    graph: &Graph,
    memory: &Path,
    rate: Rate,
    fresh: fn(&Path) -> Result<PathBuf>,
) -> Result<Vec<Row>> {
    let create: Step = |directory, index| fs::write(directory.join(format!("new{index}")), [7; KIB]);
    let ceiling = rate(scope, &fresh(memory)?, 8, create)?;
    let start = Instant::now();
    let ours = rate(scope, &fresh(&graph.home())?, 8, create)?;
    let called = start.elapsed().as_secs_f64();
    graph.settle()?;
    let committed = ours * called / start.elapsed().as_secs_f64();
    let row = |name, ours| Row::new(name, Unit::PerSecond, ours, CEILING, ceiling);
    Ok(vec![
        Row { target: Some(2.0), ..row("graph: create, write 1 KiB, close, 8 writers", ours) },
        row("graph: the same, until all are at the servers", committed),
    ])
}

/// The large file, committed: read by nobody before, and again.
fn large(graph: &Graph, local: &Path) -> Result<Vec<Row>> {
    let path = graph.home().join("large");
    let data = vec![7; LARGE_SIZE];
    fs::write(&path, &data)?;
    graph.settle()?;
    drop(data);
    let mut buffer = vec![0; MIB];
    let mut read = |path: &Path| -> Result<f64> {
        let (mut file, start) = (File::open(path)?, Instant::now());
        while file.read(&mut buffer)? > 0 {}
        Ok(megabytes_per_second(LARGE_SIZE, start.elapsed()))
    };
    let file = File::open(&path)?;
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
    drop(file);
    let (first, second) = (read(&path)?, read(&path)?);
    read(&local.join("large"))?;
    let beside = read(&local.join("large"))?;
    let unit = Unit::MegabytesPerSecond;
    let row = |name, ours, target| Row {
        target: Some(target),
        ..Row::new(name, unit, ours, "local file system, its page cache", beside)
    };
    fs::remove_file(&path)?;
    Ok(vec![row("graph: read 1 GiB, first", first, 1.67), row("graph: read 1 GiB, second", second, 1.11)])
}

/// Many small files out of an archive, until all of them are at the servers; beside it, on the local disk, until they are synced.
fn unpack(graph: &Graph, ours: &Path, local: &Path) -> Result<Row> {
    let archive = local.join("archive.tar");
    if !archive.exists() {
        let tree = local.join("tree");
        for index in 0..ARCHIVE_FILES {
            let directory = tree.join(format!("d{}", index % ARCHIVE_DIRECTORIES));
            fs::create_dir_all(&directory)?;
            fs::write(directory.join(format!("f{index}")), vec![7; 100 + index % (4 * KIB)])?;
        }
        tar(local, &["cf", "archive.tar", "tree"])?;
    }
    let archive = archive.to_str().context("the folder is ASCII")?;
    let timed = |directory: &Path, settle: &dyn Fn() -> Result<()>| -> Result<f64> {
        let start = Instant::now();
        tar(directory, &["xf", archive])?;
        settle()?;
        Ok(ARCHIVE_FILES as f64 / start.elapsed().as_secs_f64())
    };
    let files = timed(ours, &|| graph.settle())?;
    let target = local.join("unpacked");
    fs::create_dir(&target)?;
    let beside = timed(&target, &|| Ok(rustix::fs::syncfs(File::open(&target)?)?))?;
    Ok(Row {
        target: Some(3.0),
        ..Row::new("graph: untar 20,000 files, until durable", Unit::PerSecond, files, LOCAL, beside)
    })
}

fn tar(directory: &Path, arguments: &[&str]) -> Result<()> {
    let status = Command::new("tar").args(arguments).current_dir(directory).status()?;
    ensure!(status.success(), "tar ended with {status}");
    Ok(())
}
