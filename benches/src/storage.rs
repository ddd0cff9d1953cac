//! The benchmark `storage`: the file server and the directory server beside the disk under them, a local file system, and
//! the servers of others, at the same durability, everything in one run.
//!
//! - [`client`]: processes that make, read, look up; [`tree`]: the directories they look into; [`bytes`].
//! - [`limits`]: a flushed log and ext4, with no server; [`peers`]: other people's servers.
//! - [`restart`]: a server that was killed, until it answers again.

mod bytes;
pub(crate) mod client;
mod limits;
pub(crate) mod peers;
mod restart;
mod tree;

use std::cell::Cell;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use amoeba_cap::Capability;
use amoeba_stubs::bullet;
use amoeba_world::World;
use anyhow::{Result, anyhow};

use crate::harness::Figures;
use crate::load::{self, Load as NullLoad};
use crate::ours::System;
use crate::place::Placement;
use crate::report::{Report, Row, Unit, micros};
use crate::rounds::{Beside, Group, Scope, rounds};
use client::{Load, Work};
use limits::Limits;
use peers::{Peers, Table};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
/// Files, and rows, of a large system; a tenth of them in a quick run.
const MANY: usize = 1_000_000;
/// Bytes of a row in a log without names: about what an entry of one row has.
const ENTRY_SIZE: usize = 256;
/// Bytes of an inode record on the disk.
const INODE_SIZE: u64 = 64;
/// The first inode record lies behind two superblocks.
const INODES_FROM: u64 = 2 * 4096;
/// Memory for an inode, of which there are to be millions.
const INODE_MEMORY_MAX: f64 = 96.0;
/// The cache setting of the directory server of a host that says nothing else.
const DIRECTORY_CACHE: f64 = (256 << 20) as f64;
/// Counters of a kernel that show which way transactions went.
const PATH: &[&str] = &["channel", "introduc", "flow", "transactions", "revoked"];
/// Threads that make very many files.
const MAKERS: usize = 4;
const MADE_SIZE: usize = KIB;

/// Measures everything in `scope`.
pub(crate) fn run(scope: &Scope) -> Result<Report> {
    let system = System::of_environment()?;
    let bench = Bench::new(&system, scope)?;
    let mut rows_made = Vec::new();
    for group in bench.groups() {
        if group.name.contains(&scope.pattern) {
            bench.prepare(&group.name)?;
            rows_made.extend(rounds(&system, &group, scope.rounds)?);
        }
    }
    if let Some(peers) = &bench.peers {
        peers.stop();
    }
    if LARGE_ROWS.iter().any(|name| name.contains(&scope.pattern)) {
        rows_made.extend(bench.large()?);
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let method = format!(
        "medians of {} rounds of {:?} on {cores} cores, {}, {} rows and files where there are many; of one client the median \
         operation counts; ratio 1 is as good, 2 half as good, 0.5 twice as good",
        scope.rounds,
        scope.time,
        system.place(),
        bench.many
    );
    Ok(Report { name: "storage", method, rows: rows_made })
}

struct Bench<'a> {
    system: &'a System,
    world: World,
    limits: Limits,
    peers: Option<Peers>,
    time: Duration,
    /// Rows and files where there are many.
    many: usize,
    filled: Cell<bool>,
    /// Memory of Bullet and of the directory server, empty.
    memory: [u64; 2],
}

impl<'a> Bench<'a> {
    fn new(system: &'a System, scope: &Scope) -> Result<Bench<'a>> {
        let folder = system.directory(0).join("bench");
        let peers = Peers::find(folder.join("peers"));
        if peers.is_none() {
            eprintln!("the harness of peers is not there: ours is measured beside limits only");
        }
        Ok(Bench {
            system,
            world: amoeba_linux::connect(&system.socket(0)?),
            limits: Limits::new(folder.join("limits"))?,
            peers,
            time: scope.time,
            many: if scope.rounds == 1 { MANY / 10 } else { MANY },
            filled: Cell::new(false),
            memory: [
                restart::memory(restart::daemon(system, "bullet")?)?,
                restart::memory(restart::daemon(system, "directory")?)?,
            ],
        })
    }

    fn groups(&self) -> Vec<Group<'_>> {
        let mut groups = Vec::new();
        groups.extend([1, 8].map(|clients| self.small_create(clients)));
        groups.extend([MIB, 16 * MIB].map(|size| self.large_create(size)));
        groups.push(self.small_read());
        groups.extend([MIB, 16 * MIB].map(|size| self.large_read(size)));
        groups.extend([MIB, 16 * MIB].map(|size| self.borrowing_read(size)));
        groups.extend([MIB, 16 * MIB].map(|size| self.far_read(size)));
        groups.push(self.lookup());
        groups.extend([1, 8].map(|clients| self.append(clients)));
        groups.push(self.install());
        groups
    }

    fn small_create(&self, clients: usize) -> Group<'_> {
        let (log, target) = log_of(clients, 0.8);
        let mut besides = vec![
            self.log(log, target, KIB, clients),
            Beside {
                name: "ext4: create, fsync, rename",
                target: Some(0.5),
                measure: Box::new(move || self.limits.create(KIB, clients, self.time)),
            },
        ];
        for (name, peer, target) in FILE_PEERS {
            besides.push(self.peer(name, Some(target), Table::Files, peer, "create", (KIB, clients)));
        }
        self.rates(
            format!("durable create of 1 KiB, {}", people(clients)),
            (Work::Create(KIB), clients),
            besides,
        )
    }

    fn large_create(&self, size: usize) -> Group<'_> {
        let besides = vec![
            self.log("log: append, fdatasync", Some(1.0 / 0.7), size, 1),
            Beside {
                name: "ext4: create, fsync, rename",
                target: None,
                measure: Box::new(move || self.limits.create(size, 1, self.time)),
            },
        ];
        self.bulk(format!("durable create of {} MiB", size / MIB), self.load(Work::Create(size), 1), besides)
    }

    fn small_read(&self) -> Group<'_> {
        let besides = vec![
            self.ext4_read(KIB, Some(1.0 / 0.8)),
            self.peer("Redis GET", Some(0.1), Table::Files, "redis-always", "read", (KIB, 1)),
        ];
        self.rates("read of 1 KiB, warm".to_owned(), (Work::Read(KIB), 1), besides)
    }

    fn large_read(&self, size: usize) -> Group<'_> {
        let name = format!("read of {} MiB, warm, every byte touched", size / MIB);
        self.bulk(name, self.load(Work::Read(size), 1), vec![self.ext4_read(size, Some(1.0))])
    }

    fn borrowing_read(&self, size: usize) -> Group<'_> {
        let name = format!("read of {} MiB, lent anew, every byte touched", size / MIB);
        self.bulk(name, self.load(Work::Borrow(size), 1), vec![self.ext4_read(size, None)])
    }

    fn far_read(&self, size: usize) -> Group<'_> {
        // As much memory as our files, and fetched as they are: one of a MiB in one reply, a larger one in pieces.
        let null = NullLoad {
            server: 1,
            clients: 1,
            size,
            part: if size > MIB { MIB } else { 0 },
            files: (limits::READ_BYTES_MAX / size).max(1),
            time: self.time,
            placement: Placement::Free,
        };
        let besides = vec![Beside {
            name: "a server of memory, two hosts, sealed",
            target: Some(1.0 / 0.9),
            measure: Box::new(move || load::measure(self.system, &null)),
        }];
        let load = Load { host: 1, ..self.load(Work::Read(size), 1) };
        self.bulk(format!("read of {} MiB, two hosts, sealed", size / MIB), load, besides)
    }

    fn lookup(&self) -> Group<'_> {
        let null = NullLoad {
            server: 0,
            clients: 1,
            size: 0,
            part: 0,
            files: 0,
            time: self.time,
            placement: Placement::Free,
        };
        let besides = vec![
            Beside {
                name: "null transaction",
                target: Some(1.0 / 0.35),
                measure: Box::new(move || load::measure(self.system, &null)),
            },
            self.peer(
                "Redis HGET, 10,000 rows",
                Some(0.1),
                Table::Directory,
                "redis-always",
                "lookup",
                (0, 1),
            ),
            self.peer("etcd range, 10,000 rows", Some(0.02), Table::Directory, "etcd1", "lookup", (0, 1)),
        ];
        self.rates(LOOKUP.to_owned(), (Work::Lookup, 1), besides)
    }

    fn append(&self, clients: usize) -> Group<'_> {
        let (log, target) = log_of(clients, 0.7);
        let besides = vec![
            self.log(log, target, ENTRY_SIZE, clients),
            self.peer("etcd put", Some(0.5), Table::Directory, "etcd1", "create", (0, clients)),
            self.peer(
                "Redis HSET, AOF always",
                None,
                Table::Directory,
                "redis-always",
                "create",
                (0, clients),
            ),
        ];
        self.rates(format!("durable append of a row, {}", people(clients)), (Work::Append, clients), besides)
    }

    fn install(&self) -> Group<'_> {
        let load = self.load(Work::Append, 1);
        let besides = vec![Beside {
            name: "ours: append of one row",
            target: Some(1.5),
            measure: Box::new(move || self.ours(&load)),
        }];
        self.rates("install of 10 rows".to_owned(), (Work::Install, 1), besides)
    }

    fn load(&self, work: Work, clients: usize) -> Load {
        Load { work, host: 0, clients, time: self.time }
    }

    fn ours(&self, load: &Load) -> Result<Figures> {
        let servers = [restart::daemon(self.system, "bullet")?, restart::daemon(self.system, "directory")?];
        client::measure(self.system, &servers, load)
    }

    fn rates<'b>(
        &'b self,
        name: String,
        (work, clients): (Work, usize),
        besides: Vec<Beside<'b>>,
    ) -> Group<'b> {
        let load = self.load(work, clients);
        let ours = Box::new(move || self.ours(&load));
        let value = if clients == 1 { rate_of_median } else { |figures: &Figures| figures.rate };
        Group { name, unit: Unit::PerSecond, value, ours, path: PATH, besides }
    }

    fn bulk<'b>(&'b self, name: String, load: Load, besides: Vec<Beside<'b>>) -> Group<'b> {
        let ours = Box::new(move || self.ours(&load));
        // Bytes of a run over its operations are those of one; then as with rates.
        let value = |figures: &Figures| figures.megabytes / figures.rate * rate_of_median(figures);
        Group { name, unit: Unit::MegabytesPerSecond, value, ours, path: PATH, besides }
    }

    fn log(&self, name: &'static str, target: Option<f64>, size: usize, threads: usize) -> Beside<'_> {
        let measure = Box::new(move || self.limits.log(size, threads, self.time));
        Beside { name, target, measure }
    }

    fn ext4_read(&self, size: usize, target: Option<f64>) -> Beside<'_> {
        let measure = Box::new(move || self.limits.read(size, self.time));
        Beside { name: "ext4: open, read, close", target, measure }
    }

    fn peer(
        &self,
        name: &'static str,
        target: Option<f64>,
        table: Table,
        peer: &'static str,
        operation: &'static str,
        shape: (usize, usize),
    ) -> Beside<'_> {
        let measure = Box::new(move || {
            let peers = self.peers.as_ref().ok_or_else(|| anyhow!("the harness is not there"))?;
            peers.measure(table, peer, operation, shape, self.time)
        });
        Beside { name, target, measure }
    }

    /// What a group needs that takes long to make.
    fn prepare(&self, name: &str) -> Result<()> {
        if name == LOOKUP {
            self.fill()?;
        }
        self.limits.settle()
    }

    /// Makes very many rows, once.
    fn fill(&self) -> Result<()> {
        if self.filled.replace(true) {
            return Ok(());
        }
        eprintln!("making {} rows", self.many);
        tree::fill(&self.world, &self.capability("root.cap")?, self.system.directory(0), self.many)
    }

    fn capability(&self, name: &str) -> Result<Capability> {
        client::capability(&self.system.directory(0).join(name))
    }

    /// Both servers with very many files and rows: how they start after a crash, and what memory they have.
    fn large(&self) -> Result<Vec<Row>> {
        self.fill()?;
        self.make_files()?;
        let mut rows = Vec::new();
        let folder = self.system.directory(0);
        let path = |name: &str| -> PathBuf { folder.join(name) };

        let image = path("bullet.img");
        let server = self.capability("bullet.cap")?;
        let ours = restart::after_kill(self.system, &self.world, "bullet", &server, &[&image])?;
        let limit = limits::read_cold(&image, INODES_FROM, self.many as u64 * INODE_SIZE)?;
        rows.push(millis(LARGE_ROWS[0], ours, "reading the inode table from the disk", limit));

        let (tables, log) = (path("directory/tables"), path("directory/log"));
        let root = self.capability("root.cap")?;
        let ours = restart::after_kill(self.system, &self.world, "directory", &root, &[&tables, &log])?;
        let limit = limits::read_cold(&tables, 0, u64::MAX)?;
        rows.push(millis(LARGE_ROWS[1], ours, "reading the tables from the disk", limit));

        let [bullet, directory] =
            ["bullet", "directory"].map(|role| restart::daemon(self.system, role).and_then(restart::memory));
        let grown = |now: u64, before: u64| now.saturating_sub(before) as f64;
        let each = grown(bullet?, self.memory[0]) / self.many as f64;
        let mut row = Row::new(LARGE_ROWS[2], Unit::Bytes, each, "96 bytes", INODE_MEMORY_MAX);
        row.target = Some(1.0);
        rows.push(row);
        self.ours(&self.load(Work::Lookup, 4))?; // as much of the tables as the cache takes
        let _ = directory?;
        let now = restart::memory(restart::daemon(self.system, "directory")?)?;
        let mut row = Row::new(
            LARGE_ROWS[3],
            Unit::Bytes,
            grown(now, self.memory[1]),
            "the cache setting",
            DIRECTORY_CACHE,
        );
        row.target = Some(1.0);
        rows.push(row);
        Ok(rows)
    }

    /// Makes very many files of [`MADE_SIZE`] bytes, and has them written.
    fn make_files(&self) -> Result<()> {
        eprintln!("making {} files", self.many);
        let server = self.capability("bullet.cap")?;
        let (next, world, many) = (AtomicUsize::new(0), &self.world, self.many);
        let work = || -> Result<()> {
            let mut data = bytes::Random::new(5).bytes(MADE_SIZE);
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= many {
                    return Ok(());
                }
                data[..8].copy_from_slice(&number.to_le_bytes());
                bullet::create(world, &server, bullet::COMMIT, data.clone())?;
            }
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..MAKERS).map(|_| scope.spawn(work)).collect();
            threads.into_iter().try_for_each(|thread| thread.join().expect("a maker of files does not panic"))
        })?;
        Ok(bullet::sync(&self.world, &server)?)
    }
}

/// Other people's servers of files: the name in the table, and in the harness; what is to be reached. Redis, which keeps values
/// in memory and a log of them, is to be no faster; the others half as fast.
const FILE_PEERS: [(&str, &str, f64); 5] = [
    ("NFS v3 (ganesha)", "nfs3", 0.5),
    ("9P (diod)", "9p", 0.5),
    ("Redis SET, AOF always", "redis-always", 1.0),
    ("etcd put, one node", "etcd1", 0.5),
    ("garage (S3), fsync on", "garage", 0.5),
];
const LOOKUP: &str = "lookup of 4 components, many rows";
/// The rows of [`Bench::large`].
const LARGE_ROWS: [&str; 4] = [
    "start-up after a crash, many files",
    "start-up after a crash, many rows",
    "memory a file, many files",
    "memory of the directory server, many rows",
];

/// What one client could do in a second if all its operations took as long as the median one: a moment in which somebody else
/// has the machine costs a few operations, not the measurement.
fn rate_of_median(figures: &Figures) -> f64 {
    1e6 / figures.p50
}

/// The log that so many clients are measured beside, with what is to be reached of it.
fn log_of(clients: usize, alone: f64) -> (&'static str, Option<f64>) {
    match clients {
        1 => ("log: append, fdatasync", Some(1.0 / alone)),
        _ => ("log: append, fdatasync, group commit", Some(1.0 / (alone - 0.1))),
    }
}

fn people(clients: usize) -> String {
    if clients == 1 { "1 client".to_owned() } else { format!("{clients} clients") }
}

fn millis(name: &str, ours: Duration, beside: &str, limit: Duration) -> Row {
    let mut row = Row::new(name, Unit::Millis, micros(ours) / 1000.0, beside, micros(limit) / 1000.0);
    row.target = Some(3.0);
    row
}
