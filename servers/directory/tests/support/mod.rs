//! A world for tests: operating-system threads, a disk that forgets what was not flushed, a counter for time and
//! randomness.
#![allow(dead_code, unreachable_pub, missing_docs)] // every test file uses a part

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use amoeba_cap::{Capability, GetPort, PutPort, Rights, SystemSecret};
use amoeba_directory::store::Formatted;
use amoeba_directory::{Format, Options, Store, StoreError, format};
use amoeba_threads::{Instant, Scheduler, SpawnError, Threads, Unpark};
use amoeba_wire::Status;
use amoeba_world::{
    Clock, Disk, DiskError, Entropy, Error, ListenError, Listener, Message, TransOptions, Transactions, World,
};

const SECTOR: usize = 512;

/// Numbers from a seed (splitmix64).
#[derive(Clone)]
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// Bytes, of which only the flushed ones survive a crash.
#[derive(Default)]
pub struct CrashDisk {
    state: Mutex<DiskState>,
    /// Flushes fail from now on.
    pub failing: AtomicBool,
    /// Flushes wait while this is set.
    pub blocked: Mutex<bool>,
    pub unblocked: Condvar,
    /// The most bytes it can have; 0 for no bound.
    pub size_max: AtomicU64,
    /// Flushes so far.
    pub flushes: AtomicU64,
}

#[derive(Default)]
struct DiskState {
    now: Vec<u8>,
    flushed: Vec<u8>,
    /// What was written since the last flush, in the order of writing.
    unflushed: Vec<(usize, Vec<u8>)>,
}

impl CrashDisk {
    pub fn new() -> Arc<CrashDisk> {
        Arc::default()
    }

    /// What a crash leaves: of the sectors not flushed any subset in any order, and perhaps one torn.
    pub fn crash(&self, random: &mut Random) -> Arc<CrashDisk> {
        let state = self.state.lock().unwrap();
        let mut image = state.flushed.clone();
        image.resize(image.len().max(state.now.len()), 0);
        let mut writes: Vec<(usize, &[u8])> = Vec::new();
        for (offset, bytes) in &state.unflushed {
            let mut at = *offset;
            while at < offset + bytes.len() {
                let end = ((at / SECTOR + 1) * SECTOR).min(offset + bytes.len());
                writes.push((at, &bytes[at - offset..end - offset]));
                at = end;
            }
        }
        for index in (1..writes.len()).rev() {
            writes.swap(index, random.below(index as u64 + 1) as usize);
        }
        let keep = random.below(3); // none, some or all
        writes.retain(|_| keep == 2 || (keep == 1 && random.below(2) == 0));
        for (index, (offset, bytes)) in writes.iter().enumerate() {
            let torn = index + 1 == writes.len() && random.below(2) == 0;
            let length = if torn { random.below(bytes.len() as u64) as usize } else { bytes.len() };
            image[*offset..offset + length].copy_from_slice(&bytes[..length]);
        }
        CrashDisk::of(image)
    }

    /// A disk with these flushed bytes.
    pub fn of(image: Vec<u8>) -> Arc<CrashDisk> {
        let state = DiskState { now: image.clone(), flushed: image, unflushed: Vec::new() };
        Arc::new(CrashDisk { state: Mutex::new(state), ..CrashDisk::default() })
    }

    /// Everything written, flushed or not.
    pub fn image(&self) -> Vec<u8> {
        self.state.lock().unwrap().now.clone()
    }

    pub fn block(&self) {
        *self.blocked.lock().unwrap() = true;
    }

    pub fn unblock(&self) {
        *self.blocked.lock().unwrap() = false;
        self.unblocked.notify_all();
    }
}

impl Disk for CrashDisk {
    fn size(&self) -> u64 {
        self.state.lock().unwrap().now.len() as u64
    }

    fn set_size(&self, size: u64) -> Result<(), DiskError> {
        let max = self.size_max.load(Ordering::Relaxed);
        let mut state = self.state.lock().unwrap();
        if max > 0 && size > max && size > state.now.len() as u64 {
            return Err(DiskError::Full);
        }
        state.now.resize(size as usize, 0);
        state.flushed.resize(size as usize, 0);
        state.unflushed.retain(|(offset, bytes)| offset + bytes.len() <= size as usize);
        Ok(())
    }

    fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<(), DiskError> {
        let state = self.state.lock().unwrap();
        let from = state.now.get(offset as usize..offset as usize + bytes.len()).ok_or(DiskError::Full)?;
        bytes.copy_from_slice(from);
        Ok(())
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        let mut state = self.state.lock().unwrap();
        let range = offset as usize..offset as usize + bytes.len();
        state.now.get_mut(range.clone()).ok_or(DiskError::Full)?.copy_from_slice(bytes);
        state.unflushed.push((range.start, bytes.to_vec()));
        Ok(())
    }

    fn flush(&self) -> Result<(), DiskError> {
        let mut blocked = self.blocked.lock().unwrap();
        while *blocked {
            blocked = self.unblocked.wait(blocked).unwrap();
        }
        if self.failing.load(Ordering::Relaxed) {
            return Err(DiskError::Failed);
        }
        let mut state = self.state.lock().unwrap();
        let writes = std::mem::take(&mut state.unflushed);
        for (offset, bytes) in writes {
            state.flushed[offset..offset + bytes.len()].copy_from_slice(&bytes);
        }
        self.flushes.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

/// Threads of the operating system.
pub struct OsThreads;

struct OsUnpark(std::thread::Thread);

impl Unpark for OsUnpark {
    fn unpark(&self) {
        self.0.unpark();
    }
}

impl Scheduler for OsThreads {
    fn spawn(&self, name: &str, body: Box<dyn FnOnce() + Send>) -> Result<(), SpawnError> {
        std::thread::Builder::new().name(name.into()).spawn(body).map(|_| ()).map_err(|_| SpawnError)
    }

    fn current(&self) -> Arc<dyn Unpark> {
        Arc::new(OsUnpark(std::thread::current()))
    }

    fn park(&self, deadline: Option<Instant>) {
        match deadline {
            Some(deadline) => std::thread::park_timeout(deadline.since(self.now())),
            None => std::thread::park(),
        }
    }

    fn now(&self) -> Instant {
        static START: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
        Instant::from_epoch(START.get_or_init(std::time::Instant::now).elapsed())
    }
}

/// Time that advances by a microsecond a reading.
pub struct Ticking(AtomicU64);

impl Clock for Ticking {
    fn unix_time(&self) -> Duration {
        Duration::from_micros(self.0.fetch_add(1, Ordering::Relaxed))
    }
}

pub struct Seeded(Mutex<Random>);

impl Entropy for Seeded {
    fn fill(&self, bytes: &mut [u8]) {
        let mut random = self.0.lock().unwrap();
        bytes.iter_mut().for_each(|byte| *byte = random.next() as u8);
    }
}

type Serve = dyn Fn(Message) -> Result<Message, Error> + Send + Sync;

/// Transactions that end in functions of the test.
#[derive(Default)]
pub struct Fake {
    pub servers: Mutex<BTreeMap<PutPort, Arc<Serve>>>,
}

pub fn put_port(port: &GetPort) -> PutPort {
    SystemSecret::from_bytes([5; 32]).put_port(port)
}

impl Transactions for Fake {
    fn trans(&self, request: Message, _: &TransOptions) -> Result<Message, Error> {
        let server = self.servers.lock().unwrap().get(&request.header.port).cloned();
        server.ok_or(Error::NotSent(Status::RPC_NOTFOUND))?(request)
    }

    fn listen(&self, _: &GetPort, _: usize) -> Result<Listener, Error> {
        Err(Error::NotSent(Status::RPC_TRYAGAIN))
    }

    fn put_port(&self, port: &GetPort) -> Result<PutPort, Error> {
        Ok(put_port(port))
    }
}

/// A listener that was closed.
pub const CLOSED: ListenError = ListenError;

pub fn world(seed: u64) -> (World, Arc<Fake>) {
    let fake = Arc::new(Fake::default());
    let world = World {
        threads: Threads::new(Arc::new(OsThreads)),
        clock: Arc::new(Ticking(AtomicU64::new(1_000_000))),
        entropy: Arc::new(Seeded(Mutex::new(Random(seed)))),
        transactions: fake.clone(),
    };
    (world, fake)
}

/// A new service on two new disks.
pub struct Service {
    pub world: World,
    pub fake: Arc<Fake>,
    pub tables: Arc<CrashDisk>,
    pub log: Arc<CrashDisk>,
    pub options: Options,
    pub formatted: Formatted,
}

impl Service {
    pub fn new(seed: u64) -> Service {
        let (world, fake) = world(seed);
        let (tables, log) = (CrashDisk::new(), CrashDisk::new());
        let small = Format { log_size: 0, ..Format::default() };
        let formatted = format(tables.clone(), &*log, &*world.entropy, 1, &small).unwrap();
        let options = Options { cache_size: 4 << 20, checkpoint_entries: 37 };
        Service { world, fake, tables, log, options, formatted }
    }

    pub fn open(&self) -> Result<Store, StoreError> {
        Store::open(&self.world, self.tables.clone(), self.log.clone(), self.options)
    }

    pub fn port(&self) -> PutPort {
        put_port(&self.formatted.identity.get_port)
    }

    pub fn root(&self) -> Capability {
        self.formatted.root_capability(self.port())
    }

    /// The same service after a crash.
    pub fn crash(self, random: &mut Random) -> Service {
        Service { tables: self.tables.crash(random), log: self.log.crash(random), ..self }
    }
}

/// All rights in every column.
pub const OPEN: [Rights; 4] = [Rights::ALL; 4];
