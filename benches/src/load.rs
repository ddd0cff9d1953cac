//! Ours under load: a server process and client processes that make transactions for a while.
//!
//! Each is this program started again. A client says how long each of its transactions took, as a histogram; the parent
//! adds them up, and what all processes and both daemons used of the processors.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use amoeba_cap::{GetPort, PutPort};
use amoeba_wire::{Command as Number, DATA_SIZE_MAX, Header, Status};
use amoeba_world::{Message, TransOptions, World};
use anyhow::{Context, Result, anyhow, bail, ensure};

use crate::harness::Figures;
use crate::ours::System;
use crate::place::{Placement, Use};
use crate::transfer::{COMMAND_PART, File, Transfer};

/// First argument of the program when it is the server.
pub(crate) const SERVE: &str = "serve";
/// First argument of the program when it is a client.
pub(crate) const CLIENT: &str = "client";

/// Asks for as many bytes as the header's offset says.
const COMMAND_READ: Number = Number(9001);
/// Not measured, while caches, channels and flows come about.
const WARM: Duration = Duration::from_millis(150);
/// What every reply is made of; compared block by block, because that runs as fast as memory.
const BLOCK: [u8; 4096] = [7; 4096];
/// A larger reply is measured once at least, however long it takes, and is not asked for before.
const LARGE: usize = 1 << 24;
/// Threads of the server in getreq.
const SERVER_THREADS: usize = 4;

/// What is to be measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    /// The host of the server; the clients are on the first.
    pub(crate) server: usize,
    /// Client processes.
    pub(crate) clients: usize,
    /// Bytes of each reply, or of what is fetched in parts.
    pub(crate) size: usize,
    /// Bytes of each part, into a buffer that is posted; 0: each reply is a message of its own.
    pub(crate) part: usize,
    /// Of how many such things in the server's memory each client fetches one after the other; 0: each reply is made anew, of one
    /// byte.
    pub(crate) files: usize,
    /// How long.
    pub(crate) time: Duration,
    /// Where the processes and daemons run.
    pub(crate) placement: Placement,
}

/// A server process on a host of a system.
pub(crate) struct Server {
    port: String,
    child: Child,
}

impl Server {
    /// Starts a server on a host.
    pub(crate) fn start(system: &System, host: usize, placement: Placement) -> Result<Server> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg(SERVE)
            .arg(system.socket(host)?)
            .arg(system.directory(host))
            .arg(placement.server())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("stdout was piped")).read_line(&mut line)?;
        Ok(Server { port: line.trim().to_owned(), child })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A client process, connected and waiting for the word.
pub(crate) struct Client {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Client {
    /// Starts a client on the first host, and waits until it has made its first transaction.
    pub(crate) fn start(system: &System, server: &Server, load: &Load) -> Result<Client> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg(CLIENT)
            .arg(system.socket(0)?)
            .arg(system.directory(0))
            .arg(load.placement.client())
            .args([&server.port, &load.size.to_string(), &load.part.to_string(), &load.files.to_string()])
            .arg(load.time.as_micros().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdin = child.stdin.take().expect("stdin was piped");
        let stdout = BufReader::new(child.stdout.take().expect("stdout was piped"));
        let mut client = Client { child, stdin, stdout };
        ensure!(client.line()? == "ready", "a client failed to start");
        Ok(client)
    }

    /// Lets the client begin.
    pub(crate) fn go(&mut self) -> Result<()> {
        Ok(self.stdin.write_all(b"go\n")?)
    }

    /// What it has measured, once its time is over.
    pub(crate) fn finish(&mut self) -> Result<Histogram> {
        Histogram::parse(&self.line()?)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.stdout.read_line(&mut line)?;
        Ok(line.trim().to_owned())
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Measures.
pub(crate) fn measure(system: &System, load: &Load) -> Result<Figures> {
    let daemons = system.daemons();
    load.placement.pin_daemons(&daemons)?;
    let server = Server::start(system, load.server, load.placement)?;
    let clients = (0..load.clients).map(|_| Client::start(system, &server, load));
    let mut clients = clients.collect::<Result<Vec<_>>>()?;
    let mut processes: Vec<u32> = clients.iter().map(|client| client.child.id()).collect();
    processes.push(server.child.id());
    processes.extend(daemons.iter());
    let before = Use::of(&processes);
    for client in &mut clients {
        client.go()?;
    }
    let mut all = Histogram::default();
    let mut counts = Vec::new();
    for client in &mut clients {
        let histogram = client.finish()?;
        counts.push(histogram.count);
        all.add_all(&histogram);
    }
    let (least, most) = (counts.iter().min().unwrap_or(&0), counts.iter().max().unwrap_or(&0));
    if counts.len() > 1 {
        eprintln!("  the clients made {least} to {most} transactions each");
    }
    let evenness = *least as f64 / *most as f64;
    let used = Use::of(&processes).since(&before);
    Placement::Free.pin_daemons(&daemons)?;
    ensure!(all.count > 0, "no transaction was made");
    Ok(Figures { evenness, ..all.figures(load.clients, load.size, &used) })
}

/// Processor time that a server, a client that has made transactions, and the daemons use while nothing is asked, in
/// thousandths of a core.
pub(crate) fn idle(system: &System, time: Duration) -> Result<f64> {
    let load =
        Load { server: 0, clients: 1, size: 0, part: 0, files: 0, time: WARM, placement: Placement::Free };
    let server = Server::start(system, 0, Placement::Free)?;
    let mut client = Client::start(system, &server, &load)?;
    client.go()?;
    client.finish()?;
    let mut processes = system.daemons();
    processes.extend([server.child.id(), client.child.id()]);
    let before = Use::of(&processes);
    std::thread::sleep(time);
    let used = Use::of(&processes).since(&before);
    Ok(used.cpu.as_secs_f64() / time.as_secs_f64() * 1000.0)
}

/// What the program does when it was started as the server: it prints its put-port, then serves until it is killed.
pub(crate) fn serve(socket: &Path, host: &Path, cpu: &str) -> Result<()> {
    crate::ours::enter(host)?;
    crate::place::pin_self(cpu)?;
    amoeba_linux::memory::keep_for_messages(); // as every server of ours does
    let world = amoeba_linux::connect(socket);
    let port = GetPort::from_bytes(amoeba_world::random(world.entropy.as_ref()));
    let listener = world.transactions.listen(&port, DATA_SIZE_MAX)?;
    println!("{}", listener.put_port());
    let file = Arc::new(File::default());
    for _ in 1..SERVER_THREADS {
        let (listener, file) = (listener.clone(), file.clone());
        std::thread::spawn(move || answer(&*listener, &file));
    }
    answer(&*listener, &file);
    Ok(())
}

fn answer(listener: &dyn amoeba_world::Listen, file: &File) {
    while let Ok(incoming) = listener.getreq() {
        let header = &incoming.request.header;
        let reply = match (header.command(), usize::try_from(header.offset)) {
            (COMMAND_READ, Ok(size)) => {
                Message { data: vec![BLOCK[0]; size], ..Message::status(Status::STD_OK) }
            }
            (COMMAND_PART, _) => match file.part(&incoming.request.data) {
                Some(part) => {
                    incoming.reply.send_shared(Header::reply(Status::STD_OK), part);
                    continue;
                }
                None => Message::status(Status::STD_ARGBAD),
            },
            _ => Message::status(Status::STD_COMBAD),
        };
        incoming.reply.send(reply);
    }
}

/// What the program does when it was started as a client.
pub(crate) fn client(socket: &Path, host: &Path, words: &[&str]) -> Result<()> {
    let [cpu, port, size, part, files, time] = words else { bail!("a client needs six words") };
    crate::ours::enter(host)?;
    crate::place::pin_self(cpu)?;
    amoeba_linux::memory::keep_for_messages(); // as every server of ours does
    let world = amoeba_linux::connect(socket);
    let port: PutPort = port.parse().map_err(|error| anyhow!("{port}: {error}"))?;
    let (size, part, files): (usize, usize, usize) = (size.parse()?, part.parse()?, files.parse()?);
    let time = Duration::from_micros(time.parse()?);
    for _ in 0..3 {
        transaction(&world, port, size.min(LARGE))?; // until it takes the way that it will take
    }
    let mut transfer = (files > 0).then(|| Transfer::new(size, part, files));
    let mut once = || match &mut transfer {
        Some(transfer) => transfer.run(&world, port),
        None => transaction(&world, port, size),
    };
    if files > 0 {
        once()?; // until the server has the file, and all flows are there
    }
    println!("ready");
    std::io::stdin().read_line(&mut String::new())?;
    let start = Instant::now() + if size > LARGE { Duration::ZERO } else { WARM };
    let mut histogram = Histogram::default();
    loop {
        let before = Instant::now();
        if before >= start + time && (histogram.count > 0 || size <= LARGE) {
            break;
        }
        once()?;
        if before >= start {
            histogram.add(before.elapsed());
        }
    }
    println!("{}", histogram.emit());
    std::io::stdin().read_line(&mut String::new())?; // stays connected until the parent has counted
    Ok(())
}

/// One transaction whose reply has `size` bytes of data, each of which is looked at.
fn transaction(world: &World, port: PutPort, size: usize) -> Result<()> {
    let offset = i32::try_from(size).context("the size of a reply")?;
    let header = Header { port, command: COMMAND_READ.0, offset, ..Header::NULL };
    let reply = world.transactions.trans(Message { header, data: Vec::new() }, &TransOptions::default())?;
    ensure!(reply.header.status() == Status::STD_OK, "the server says {}", reply.header.status());
    ensure!(reply.data.len() == size, "{} bytes came back, not {size}", reply.data.len());
    let right = reply.data.chunks(BLOCK.len()).all(|chunk| *chunk == BLOCK[..chunk.len()]);
    ensure!(right, "the reply is not what was sent");
    Ok(())
}

/// Buckets for each doubling.
const STEPS: u32 = 32;

/// How often each length of time was seen, to 3 %.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Histogram {
    buckets: Vec<u64>,
    pub(crate) count: u64,
    sum: Duration,
}

impl Histogram {
    pub(crate) fn add(&mut self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let bucket = bucket(nanos);
        if self.buckets.len() <= bucket {
            self.buckets.resize(bucket + 1, 0);
        }
        self.buckets[bucket] += 1;
        self.count += 1;
        self.sum += time;
    }

    pub(crate) fn add_all(&mut self, other: &Histogram) {
        if self.buckets.len() < other.buckets.len() {
            self.buckets.resize(other.buckets.len(), 0);
        }
        for (mine, theirs) in self.buckets.iter_mut().zip(&other.buckets) {
            *mine += theirs;
        }
        self.count += other.count;
        self.sum += other.sum;
    }

    /// Microseconds below which this part of all times stays.
    pub(crate) fn quantile(&self, part: f64) -> f64 {
        let wanted = (self.count as f64 * part) as u64;
        let mut seen = 0;
        for (index, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen > wanted {
                return lowest(index) as f64 / 1000.0;
            }
        }
        0.0
    }

    /// Transactions a second of one client that made them one after the other.
    fn rate(&self) -> f64 {
        self.count as f64 / self.sum.as_secs_f64()
    }

    /// What `clients` that together saw these times, each for `size` bytes, have done.
    pub(crate) fn figures(&self, clients: usize, size: usize, used: &Use) -> Figures {
        let rate = self.rate() * clients as f64;
        let each = |value: f64| value / self.count as f64;
        Figures {
            p50: self.quantile(0.5),
            p99: self.quantile(0.99),
            megabytes: rate * size as f64 / 1e6,
            rate,
            cpu: each(used.cpu.as_secs_f64() * 1e6),
            switches: each(used.switches as f64),
            evenness: 0.0,
        }
    }

    pub(crate) fn emit(&self) -> String {
        let mut text = format!("{}", self.sum.as_nanos());
        for (index, count) in self.buckets.iter().enumerate().filter(|(_, count)| **count > 0) {
            write!(text, " {index}:{count}").expect("writing to a string cannot fail");
        }
        text
    }

    pub(crate) fn parse(text: &str) -> Result<Histogram> {
        let mut words = text.split(' ');
        let sum: u64 = words.next().unwrap_or_default().parse().context("a client failed")?;
        let mut histogram = Histogram { sum: Duration::from_nanos(sum), ..Histogram::default() };
        for word in words {
            let (index, count) = word.split_once(':').context("a bucket is INDEX:COUNT")?;
            let (index, count): (usize, u64) = (index.parse()?, count.parse()?);
            ensure!(index <= bucket(u64::MAX), "there is no bucket {index}");
            if histogram.buckets.len() <= index {
                histogram.buckets.resize(index + 1, 0);
            }
            histogram.buckets[index] += count;
            histogram.count += count;
        }
        Ok(histogram)
    }
}

fn bucket(nanos: u64) -> usize {
    let doublings = nanos.max(u64::from(STEPS)).ilog2() - STEPS.ilog2();
    (doublings * STEPS) as usize + (nanos >> doublings) as usize
}

/// The shortest time of a bucket, in nanoseconds.
fn lowest(bucket: usize) -> u64 {
    let (bucket, steps) = (bucket as u64, u64::from(STEPS));
    let doublings = (bucket / steps).saturating_sub(1);
    (bucket - doublings * steps) << doublings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_close_to_their_times() {
        let mut last = 0;
        for nanos in (0..200).chain((0..50).map(|step| 1000 + step * step * 997)).chain([u64::MAX]) {
            let low = lowest(bucket(nanos));
            assert!(low <= nanos && nanos - low <= nanos / 16, "{nanos} is in the bucket of {low}");
            assert!(bucket(nanos) >= last || nanos == 1000);
            last = bucket(nanos);
        }
    }

    #[test]
    fn what_a_client_says_is_understood() {
        let mut histogram = Histogram::default();
        for micros in 1..=100 {
            histogram.add(Duration::from_micros(micros));
        }
        let said = Histogram::parse(&histogram.emit()).unwrap();
        assert_eq!(said, histogram);
        let median = said.quantile(0.5);
        assert!((48.0..53.0).contains(&median), "{median}");
        let mut both = said.clone();
        both.add_all(&histogram);
        assert_eq!((both.count, both.quantile(0.5)), (200, median));
        assert!(Histogram::parse("").is_err() && Histogram::parse("5 9999999:1").is_err());
    }
}
