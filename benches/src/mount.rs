//! The benchmark `mount`: what FUSE leaves of a file system that costs nothing, the one in memory, beside the file system
//! under the temporary files of this host.
//!
//! This is the ceiling that the mount of the directory graph is measured by: the same calls, the same kernel, and behind
//! it as little as can be. The file system is served by another process, as a mount always is.

use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use amoeba_linux::fuse::{Mount, MountOptions};
use amoeba_volume::MemoryFileSystem;
use anyhow::{Context, Result, anyhow};

use crate::graph_mount::{self, Graph};
use crate::mount_peers::FilePeers;
use crate::report::{Report, Row, Unit, median_of_runs, megabytes_per_second};
use crate::rounds::Scope;

/// The word by which this program serves a file system at a directory until its standard input ends.
pub(crate) const SERVE: &str = "serve-memory-files";

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
/// The large file, in bytes.
const LARGE_SIZE: usize = 1 << 30;
/// What is written in small blocks, in bytes.
const BLOCKS_SIZE: usize = 64 * MIB;
/// Bytes that the file system may hold.
const HELD_MAX: u64 = 8 << 30;
/// Files that are looked at in turn.
const FILES: usize = 1000;
const BESIDE: &str = "local file system";

/// Serves, in a process of its own.
pub(crate) fn serve(directory: &Path, kind: &str) -> Result<()> {
    let files = MemoryFileSystem::new(amoeba_linux::clock(), HELD_MAX);
    let files = if kind == Kind::WithoutOpens.word() { files.without_opens() } else { files };
    let mut options = MountOptions::new("memory");
    options.write_back = kind == Kind::WriteBack.word();
    let mount = Mount::new(Arc::new(files), directory, &options)?;
    println!("ready");
    std::io::stdin().read_to_end(&mut Vec::new())?;
    mount.unmount(Duration::from_secs(5))?;
    Ok(())
}

/// How the file system is served.
#[derive(Clone, Copy)]
enum Kind {
    Plain,
    WithoutOpens,
    WriteBack,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Kind::Plain => "plain",
            Kind::WithoutOpens => "without-opens",
            Kind::WriteBack => "write-back",
        }
    }
}

/// A served file system; ends with this.
struct Served {
    child: Child,
    directory: PathBuf,
}

impl Served {
    fn new(folder: &Path, kind: Kind) -> Result<Served> {
        let directory = folder.join(kind.word());
        fs::create_dir_all(&directory)?;
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(SERVE).arg(&directory).arg(kind.word()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let output = child.stdout.take().context("its output was asked for")?;
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(output), &mut line)?;
        (line == "ready\n").then_some(Served { child, directory }).context("nothing can be mounted here")
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        // It unmounts and ends; what it has to say is on standard error.
        drop(self.child.wait());
    }
}

/// Measures every row.
pub(crate) fn run(scope: &Scope) -> Result<Report> {
    let folder = std::env::temp_dir().join(format!("amoeba-bench-mount-{}", std::process::id()));
    let local = folder.join("local");
    fs::create_dir_all(&local)?;
    let [plain, without, back] =
        [Kind::Plain, Kind::WithoutOpens, Kind::WriteBack].map(|kind| Served::new(&folder, kind));
    let (plain, without, back) = (plain?, without?, back?);
    let graph = Graph::new(&folder)?;
    let peers = FilePeers::start(folder.join("peers"));
    let (rows, method) = median_of_runs(|| {
        let mut rows = Vec::new();
        rows.extend(small(scope, &plain.directory, &without.directory, &local)?);
        rows.extend(large(&plain.directory, &local)?);
        rows.extend(blocks(&plain.directory, &back.directory, &local)?);
        rows.extend(graph_mount::rows(scope, &graph, &plain.directory, &local, rate, fresh)?);
        rows.extend(peers.rows(scope, &fresh(&graph.home())?, &fresh(&local)?, rate)?);
        Ok(rows)
    })?;
    drop((plain, without, back, graph, peers));
    fs::remove_dir_all(&folder)?;
    Ok(Report { name: "mount", method: format!("{method}; `local` is {}", local.display()), rows })
}

fn small(scope: &Scope, plain: &Path, without: &Path, local: &Path) -> Result<Vec<Row>> {
    for directory in [plain, without, local] {
        for index in 0..FILES {
            fs::write(directory.join(format!("f{index}")), [7; KIB])?;
        }
    }
    let mut rows = Vec::new();
    let look: Step = |directory, index| fs::metadata(directory.join(format!("f{}", index % FILES))).map(drop);
    let (ours, beside) = (rate(scope, plain, 1, look)?, rate(scope, local, 1, look)?);
    rows.push(Row { target: Some(1.25), ..Row::new("stat, warm", Unit::PerSecond, ours, BESIDE, beside) });
    let read: Step = |directory, index| {
        let file = File::open(directory.join(format!("f{}", index % FILES)))?;
        file.read_exact_at(&mut [0; KIB], 0)
    };
    let (asked, unasked) = (rate(scope, plain, 1, read)?, rate(scope, without, 1, read)?);
    let beside = rate(scope, local, 1, read)?;
    rows.push(Row::new("open, read 1 KiB, close", Unit::PerSecond, asked, BESIDE, beside));
    let row = Row::new("the same, opens without a message", Unit::PerSecond, unasked, BESIDE, beside);
    rows.push(Row { target: Some(2.0), ..row });
    let create: Step = |directory, index| fs::write(directory.join(format!("new{index}")), [7; KIB]);
    let (ours, beside) = (rate(scope, &fresh(plain)?, 8, create)?, rate(scope, &fresh(local)?, 8, create)?);
    rows.push(Row::new("create, write 1 KiB, close, 8 writers", Unit::PerSecond, ours, BESIDE, beside));
    Ok(rows)
}

type Step = fn(&Path, usize) -> std::io::Result<()>;

/// Steps a second of all threads.
fn rate(scope: &Scope, directory: &Path, threads: usize, step: Step) -> Result<f64> {
    let next = AtomicU64::new(0);
    let start = Instant::now();
    let results = std::thread::scope(|threads_of| {
        let handles: Vec<_> = (0..threads)
            .map(|_| {
                threads_of.spawn(|| {
                    while start.elapsed() < scope.time {
                        step(directory, next.fetch_add(1, Ordering::Relaxed) as usize)?;
                    }
                    Ok::<(), std::io::Error>(())
                })
            })
            .collect();
        handles.into_iter().map(|handle| handle.join()).collect::<Vec<_>>()
    });
    let time = start.elapsed();
    for result in results {
        result.map_err(|_| anyhow!("a thread of the load has panicked"))??;
    }
    Ok(next.into_inner() as f64 / time.as_secs_f64())
}

/// A directory for one run. Nothing is deleted before the end: ext4 walks past deleted inodes at each create.
fn fresh(directory: &Path) -> Result<PathBuf> {
    let number = fs::read_dir(directory)?.count();
    let made = directory.join(format!("run{number}"));
    fs::create_dir(&made)?;
    Ok(made)
}

/// The large file: as if just committed, and read again.
fn large(plain: &Path, local: &Path) -> Result<Vec<Row>> {
    for directory in [plain, local] {
        let path = directory.join("large");
        if !path.exists() {
            write_blocks(&path, LARGE_SIZE, MIB)?;
        }
    }
    let mut buffer = vec![0; MIB];
    let mut read = |path: &Path| -> Result<f64> {
        let (mut file, start) = (File::open(path)?, Instant::now());
        while file.read(&mut buffer)? > 0 {}
        Ok(megabytes_per_second(LARGE_SIZE, start.elapsed()))
    };
    let file = File::open(plain.join("large"))?;
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
    let (first, second) = (read(&plain.join("large"))?, read(&plain.join("large"))?);
    read(&local.join("large"))?;
    let beside = read(&local.join("large"))?;
    let unit = Unit::MegabytesPerSecond;
    let row = |name, ours| Row::new(name, unit, ours, "local file system, its page cache", beside);
    Ok(vec![row("read 1 GiB, first", first), Row { target: Some(1.1), ..row("read 1 GiB, second", second) }])
}

/// Small blocks, each a message or gathered by the kernel.
fn blocks(plain: &Path, back: &Path, local: &Path) -> Result<Vec<Row>> {
    let write = |directory: &Path| write_blocks(&directory.join("blocks"), BLOCKS_SIZE, 4 * KIB);
    let (through, gathered, beside) = (write(plain)?, write(back)?, write(local)?);
    let row = |name, ours| Row::new(name, Unit::MegabytesPerSecond, ours, BESIDE, beside);
    Ok(vec![row("write 4 KiB blocks", through), row("the same, gathered by the kernel", gathered)])
}

/// Writes a file anew, and closes it; how fast.
fn write_blocks(path: &Path, size: usize, block: usize) -> Result<f64> {
    let data = vec![7; block];
    let start = Instant::now();
    let file = OpenOptions::new().create(true).truncate(true).write(true).open(path)?;
    for index in 0..size / block {
        file.write_all_at(&data, (index * block) as u64)?;
    }
    drop(file);
    Ok(megabytes_per_second(size, start.elapsed()))
}
