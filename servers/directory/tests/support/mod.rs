//! Disks that forget what was not flushed, and a service on two of them.
#![allow(dead_code, unreachable_pub, missing_docs)] // every test file uses a part

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use amoeba_cap::{Capability, PutPort, Rights};
use amoeba_directory::store::Formatted;
use amoeba_directory::{Format, Options, Store, StoreError, format};
use amoeba_world::{Disk, DiskError, World};

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
    /// Flushes that have had to wait so far.
    waited: AtomicU64,
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

    /// The same disk after its server was killed: what was not flushed is still with the operating system.
    pub fn killed(&self) -> Arc<CrashDisk> {
        let state = self.state.lock().unwrap();
        let state = DiskState {
            now: state.now.clone(),
            flushed: state.flushed.clone(),
            unflushed: state.unflushed.clone(),
        };
        Arc::new(CrashDisk { state: Mutex::new(state), ..CrashDisk::default() })
    }

    /// The disk after the power has failed, when nothing of what was not flushed got there.
    pub fn power_failed(&self) -> Arc<CrashDisk> {
        CrashDisk::of(self.state.lock().unwrap().flushed.clone())
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

    /// Whether a flush waits, or has waited.
    pub fn has_kept_waiting(&self) -> bool {
        self.waited.load(Ordering::SeqCst) > 0
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
        if *blocked {
            self.waited.fetch_add(1, Ordering::SeqCst);
        }
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

/// A new service on two new disks.
pub struct Service {
    pub world: World,
    pub tables: Arc<CrashDisk>,
    pub log: Arc<CrashDisk>,
    pub options: Options,
    pub formatted: Formatted,
}

impl Service {
    pub fn new() -> Service {
        Service::in_world(amoeba_loopback::world())
    }

    /// A new service in a world that may have others.
    pub fn in_world(world: World) -> Service {
        let (tables, log) = (CrashDisk::new(), CrashDisk::new());
        let small = Format { log_size: 0, ..Format::default() };
        let formatted = format(tables.clone(), &*log, &*world.entropy, 1, &small).unwrap();
        let options = Options { cache_size: 4 << 20, checkpoint_entries: 37 };
        Service { world, tables, log, options, formatted }
    }

    pub fn open(&self) -> Result<Store, StoreError> {
        Store::open(&self.world, self.tables.clone(), self.log.clone(), self.options)
    }

    pub fn port(&self) -> PutPort {
        self.world.transactions.put_port(&self.formatted.identity.get_port).unwrap()
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
