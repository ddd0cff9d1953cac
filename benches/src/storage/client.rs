//! A client of the file server or the directory server: a process that does one thing again and again for a while.
//!
//! Each is this program started again, so that clients share nothing but the servers. What it has made it takes away
//! again, when nobody measures any more.

use std::io::{BufRead, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use amoeba_cap::{Capability, CapabilitySet};
use amoeba_stubs::{bullet, bullet_file, bullet_stream, directory, standard};
use amoeba_world::World;
use anyhow::{Context, Result, anyhow, bail, ensure};

use super::bytes::{Random, touch};
use super::tree;
use crate::harness::Figures;
use crate::load::Histogram;
use crate::ours::System;
use crate::place::Use;

/// First argument of the program when it is a client of a storage server.
pub(crate) const CLIENT: &str = "storage-client";

/// Not measured, while caches, channels and flows come about.
const WARM: Duration = Duration::from_millis(150);
/// Bytes of the files that a reader chooses among.
const READ_BYTES_MAX: usize = 64 << 20;
const READ_FILES_MAX: usize = 1000;
/// Durable at its return.
const DURABLE: u16 = bullet::COMMIT | bullet::SAFETY;

/// What a client does again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// Makes a durable file of this size.
    Create(usize),
    /// Reads a whole file of this size that is in the cache, and looks at each byte.
    Read(usize),
    /// The same with nothing of it kept ([`amoeba_world::Kept`]): its memory is lent anew each time.
    Borrow(usize),
    /// Looks up a path of four names, the last one of many ([`tree`]).
    Lookup,
    /// Makes a durable row.
    Append,
    /// Makes ten durable rows at once.
    Install,
}

impl Work {
    fn words(self) -> [String; 2] {
        let (word, size) = match self {
            Work::Create(size) => ("create", size),
            Work::Read(size) => ("read", size),
            Work::Borrow(size) => ("borrow", size),
            Work::Lookup => ("lookup", 0),
            Work::Append => ("append", 0),
            Work::Install => ("install", 0),
        };
        [word.to_owned(), size.to_string()]
    }

    fn parse(word: &str, size: &str) -> Result<Work> {
        let size = size.parse().context("a size is a number")?;
        Ok(match word {
            "create" => Work::Create(size),
            "read" => Work::Read(size),
            "borrow" => Work::Borrow(size),
            "lookup" => Work::Lookup,
            "append" => Work::Append,
            "install" => Work::Install,
            other => bail!("no work `{other}`"),
        })
    }

    fn size(self) -> usize {
        match self {
            Work::Create(size) | Work::Read(size) | Work::Borrow(size) => size,
            Work::Lookup | Work::Append | Work::Install => 0,
        }
    }
}

/// What is to be measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    /// What each client does.
    pub(crate) work: Work,
    /// The host of the clients; the servers are on the first.
    pub(crate) host: usize,
    /// Client processes.
    pub(crate) clients: usize,
    /// How long.
    pub(crate) time: Duration,
}

struct Client {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Client {
    fn start(system: &System, load: &Load, number: usize) -> Result<Client> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg(CLIENT)
            .arg(system.socket(load.host)?)
            .args([system.directory(load.host), system.directory(0)])
            .args(load.work.words())
            .args([load.time.as_micros().to_string(), number.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().expect("stdout was piped"));
        Ok(Client { child, stdin, stdout })
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.stdout.read_line(&mut line)?;
        Ok(line.trim().to_owned())
    }

    fn finish(mut self) -> Result<()> {
        drop(self.stdin.take());
        let status = self.child.wait()?;
        ensure!(status.success(), "a client ended with {status}");
        Ok(())
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        drop(self.stdin.take());
        let _ = self.child.wait(); // it takes away what it made; without its parent it ends by itself
    }
}

/// Measures; `servers` are the processes that work for the clients.
pub(crate) fn measure(system: &System, servers: &[u32], load: &Load) -> Result<Figures> {
    let clients = (0..load.clients).map(|number| Client::start(system, load, number));
    let mut clients = clients.collect::<Result<Vec<_>>>()?;
    for client in &mut clients {
        ensure!(client.line()? == "ready", "a client failed to start");
    }
    let mut processes: Vec<u32> = clients.iter().map(|client| client.child.id()).collect();
    processes.extend(system.daemons());
    processes.extend(servers);
    let before = Use::of(&processes);
    for client in &mut clients {
        client.stdin.as_mut().expect("it is there until the end").write_all(b"go\n")?;
    }
    let mut all = Histogram::default();
    for client in &mut clients {
        all.add_all(&Histogram::parse(&client.line()?)?);
    }
    let used = Use::of(&processes).since(&before);
    clients.into_iter().try_for_each(Client::finish)?;
    ensure!(all.count > 0, "nothing was done");
    Ok(all.figures(load.clients, load.work.size(), &used))
}

/// What the program does when it was started as a client.
pub(crate) fn client(socket: &Path, host: &Path, state: &Path, words: &[&str]) -> Result<()> {
    let [work, size, time, number] = words else { bail!("a client needs four words") };
    crate::ours::enter(host)?;
    amoeba_linux::memory::keep_for_messages(); // as every server of ours does
    let world = amoeba_linux::connect(socket);
    let time = Duration::from_micros(time.parse()?);
    let mut job = job(Work::parse(work, size)?, world, state, number.parse()?)?;
    for _ in 0..3 {
        job.step()?;
    }
    println!("ready");
    std::io::stdin().read_line(&mut String::new())?;
    let start = Instant::now() + WARM;
    let mut histogram = Histogram::default();
    loop {
        let before = Instant::now();
        if before >= start + time && histogram.count > 0 {
            break;
        }
        job.step()?;
        if before >= start {
            histogram.add(before.elapsed());
        }
    }
    println!("{}", histogram.emit());
    std::io::stdin().read_line(&mut String::new())?; // until nobody measures any more
    job.clean()
}

/// One thing that is done again and again.
trait Job {
    fn step(&mut self) -> Result<()>;

    /// Takes away what the steps have made.
    fn clean(&mut self) -> Result<()> {
        Ok(())
    }
}

fn job(work: Work, world: World, state: &Path, number: u64) -> Result<Box<dyn Job>> {
    let capability = |name: &str| capability(&state.join(name));
    Ok(match work {
        Work::Create(size) => Box::new(Creator {
            server: capability("bullet.cap")?,
            data: Random::new(number + 1).bytes(size),
            made: Vec::new(),
            world,
        }),
        Work::Read(size) | Work::Borrow(size) => {
            let keeps = work == Work::Read(size);
            Box::new(Reader::new(world, capability("bullet.cap")?, size, number, keeps)?)
        }
        Work::Lookup => Box::new(Walker {
            root: capability("root.cap")?,
            count: tree::count(state)?,
            path: tree::path(0).into_bytes(),
            random: Random::new(number + 1),
            world,
        }),
        Work::Append | Work::Install => {
            let root = capability("root.cap")?;
            let parent = directory::create(&world, &root, &[b"owner".to_vec()])?;
            Box::new(Writer { world, parent, at_once: work == Work::Install, made: 0 })
        }
    })
}

/// The capability in a file of a state directory.
pub(crate) fn capability(path: &PathBuf) -> Result<Capability> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    text.trim().parse().map_err(|error| anyhow!("{}: {error}", path.display()))
}

struct Creator {
    world: World,
    server: Capability,
    data: Vec<u8>,
    made: Vec<Capability>,
}

impl Creator {
    fn create(&mut self, flags: u16) -> Result<Capability> {
        let number = (self.made.len() as u64).to_le_bytes();
        let changed = self.data.len().min(number.len());
        self.data[..changed].copy_from_slice(&number[..changed]); // no two files are equal
        let file = if self.data.len() <= bullet_stream::PIECE_SIZE {
            bullet::create(&self.world, &self.server, flags, self.data.clone())?
        } else {
            bullet_stream::write_file(&self.world, &self.server, flags, &mut self.data.as_slice())?
        };
        self.made.push(file);
        Ok(file)
    }
}

impl Job for Creator {
    fn step(&mut self) -> Result<()> {
        self.create(DURABLE).map(drop)
    }

    fn clean(&mut self) -> Result<()> {
        self.made.drain(..).try_for_each(|file| Ok(standard::destroy(&self.world, &file)?))
    }
}

struct Reader {
    creator: Creator,
    sum: u64,
    random: Random,
    /// Whether the library may keep what it was lent.
    keeps: bool,
    /// Where a file goes that is not in memory of this host.
    buffer: Vec<u8>,
}

impl Reader {
    fn new(world: World, server: Capability, size: usize, number: u64, keeps: bool) -> Result<Reader> {
        let data = Random::new(number + 1).bytes(size);
        let mut creator = Creator { world, server, data, made: Vec::new() };
        for _ in 0..(READ_BYTES_MAX / size.max(1)).clamp(1, READ_FILES_MAX) {
            creator.create(bullet::COMMIT)?;
        }
        bullet::sync(&creator.world, &server)?; // nothing is left to be written while somebody measures
        // The files differ in their first eight bytes only.
        let sum = touch(&creator.data[8..]);
        Ok(Reader { creator, sum, random: Random::new(number + 1), keeps, buffer: vec![0; size] })
    }

    /// The sum of a file's bytes but the first eight, read as small ones are.
    fn read_small(&self, file: &Capability) -> Result<u64> {
        let size = self.buffer.len();
        let data = bullet::read(&self.creator.world, file, 0, size as u32)?;
        ensure!(data.len() == size, "{} bytes came back, not {size}", data.len());
        Ok(touch(&data[8..]))
    }

    fn read_large(&mut self, file: &Capability) -> Result<u64> {
        let world = &self.creator.world;
        let file = bullet_file::open(world, file)?;
        if !self.keeps {
            world.transactions.forget_memory(file.capability());
        }
        ensure!(file.size() == self.buffer.len() as u64, "{} bytes are there", file.size());
        if let Some(bytes) = file.bytes() {
            return Ok(touch(&bytes[8..]));
        }
        let read = file.read_at(world, 0, &mut self.buffer)?;
        ensure!(read == self.buffer.len(), "{read} bytes came back");
        Ok(touch(&self.buffer[8..]))
    }
}

/// Files up to this size are read by one plain transaction.
const SMALL_MAX: usize = 64 << 10;

impl Job for Reader {
    fn step(&mut self) -> Result<()> {
        let file = self.creator.made[self.random.below(self.creator.made.len())];
        let sum =
            if self.buffer.len() <= SMALL_MAX { self.read_small(&file) } else { self.read_large(&file) };
        ensure!(sum? == self.sum, "what was read is not what was written");
        Ok(())
    }

    fn clean(&mut self) -> Result<()> {
        self.creator.clean()
    }
}

struct Walker {
    world: World,
    root: Capability,
    count: usize,
    path: Vec<u8>,
    random: Random,
}

impl Job for Walker {
    fn step(&mut self) -> Result<()> {
        tree::number(&mut self.path, self.random.below(self.count));
        let found = directory::lookup(&self.world, &self.root, &self.path)?;
        ensure!(found.tail.is_empty() && !found.set.is_empty(), "{} was not found", self.path.escape_ascii());
        Ok(())
    }
}

/// Makes rows in a directory of its own.
struct Writer {
    world: World,
    parent: Capability,
    /// Ten at once.
    at_once: bool,
    made: usize,
}

/// Rows of an install.
const AT_ONCE: usize = 10;

impl Writer {
    fn name(number: usize) -> Vec<u8> {
        format!("entry-{number:08}").into_bytes()
    }

    fn delete(&mut self) -> Result<()> {
        let names: Vec<Vec<u8>> = (0..self.made).map(Writer::name).collect();
        let row =
            |name: &Vec<u8>| tree::row(&self.parent, name.clone(), CapabilitySet::default(), self.parent);
        for names in names.chunks(tree::INSTALL_MAX) {
            let rows: Vec<_> = names.iter().map(row).collect();
            directory::install(&self.world, &self.parent, &rows)?;
        }
        Ok(())
    }
}

impl Job for Writer {
    fn step(&mut self) -> Result<()> {
        let set = CapabilitySet::singleton(self.parent);
        if self.at_once {
            let names = (self.made..self.made + AT_ONCE).map(Writer::name);
            let rows = names.map(|name| tree::row(&self.parent, name, set.clone(), Capability::NULL));
            directory::install(&self.world, &self.parent, &rows.collect::<Vec<_>>())?;
            self.made += AT_ONCE;
        } else {
            let name = Writer::name(self.made);
            directory::append(&self.world, &self.parent, &name, &set, &[0xFF; 4], &[])?;
            self.made += 1;
        }
        Ok(())
    }

    fn clean(&mut self) -> Result<()> {
        self.delete()?;
        Ok(directory::discard(&self.world, &self.parent)?)
    }
}
