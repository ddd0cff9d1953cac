//! Threads and randomness for tests: operating-system threads, and a generator whose seed is printed by the test.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use amoeba_bullet::store::{FormatOptions, Settings, Store, VolumeError, format};
use amoeba_threads::{Instant, Scheduler, SpawnError, Threads, Unpark};
use amoeba_world::{Disk, Entropy};

struct OsThreads(std::time::Instant);

struct OsThread(std::thread::Thread);

impl Unpark for OsThread {
    fn unpark(&self) {
        self.0.unpark();
    }
}

impl Scheduler for OsThreads {
    fn spawn(&self, name: &str, body: Box<dyn FnOnce() + Send>) -> Result<(), SpawnError> {
        std::thread::Builder::new().name(name.to_string()).spawn(body).map(drop).map_err(|_| SpawnError)
    }

    fn current(&self) -> Arc<dyn Unpark> {
        Arc::new(OsThread(std::thread::current()))
    }

    fn park(&self, deadline: Option<Instant>) {
        match deadline {
            None => std::thread::park(),
            Some(deadline) => std::thread::park_timeout(deadline.since(self.now())),
        }
    }

    fn now(&self) -> Instant {
        Instant::from_epoch(self.0.elapsed())
    }
}

pub(crate) fn threads() -> Threads {
    Threads::new(Arc::new(OsThreads(std::time::Instant::now())))
}

/// A small generator (splitmix64): the same seed gives the same test.
#[derive(Clone)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    pub(crate) fn bytes(&mut self, size: usize) -> Vec<u8> {
        let mut bytes: Vec<u8> = (0..size.div_ceil(8)).flat_map(|_| self.next().to_le_bytes()).collect();
        bytes.truncate(size);
        bytes
    }
}

pub(crate) struct SeededEntropy(Mutex<Random>);

impl SeededEntropy {
    pub(crate) fn new(seed: u64) -> Arc<SeededEntropy> {
        Arc::new(SeededEntropy(Mutex::new(Random(seed))))
    }
}

impl Entropy for SeededEntropy {
    fn fill(&self, bytes: &mut [u8]) {
        let mut random = self.0.lock().unwrap();
        bytes.iter_mut().for_each(|byte| *byte = random.next() as u8);
    }
}

/// The smallest memory, and a sweeper that forgets uncommitted files at once.
pub(crate) const SMALL: Settings =
    Settings { cache_size: 0, uncommitted_life: Duration::ZERO, sweep_interval: Duration::from_secs(60) };

pub(crate) fn open(disk: Arc<dyn Disk>, seed: u64) -> Result<Store, VolumeError> {
    open_with(disk, seed, Settings { uncommitted_life: Duration::from_secs(3600), ..SMALL })
}

pub(crate) fn open_with(disk: Arc<dyn Disk>, seed: u64, settings: Settings) -> Result<Store, VolumeError> {
    Store::open(disk, &threads(), SeededEntropy::new(seed), settings)
}

pub(crate) fn format_small(disk: &dyn Disk, inode_count: u32) {
    let options = FormatOptions { inode_count: Some(inode_count), force: false };
    format(disk, &*SeededEntropy::new(1), &options).expect("the disk is large enough");
}
