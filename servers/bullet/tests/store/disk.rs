//! A disk in memory that can crash, fail and fill up.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use amoeba_world::{Disk, DiskError};

use super::world::Random;

const SECTOR: usize = 512;

/// Keeps what was not flushed apart, so that a crash can apply any of it.
pub(crate) struct CrashDisk {
    inner: Mutex<Inner>,
}

struct Inner {
    now: Vec<u8>,
    durable: Vec<u8>,
    unflushed: Vec<(usize, Vec<u8>)>,
    writes_left: Option<usize>,
    full_behind: Option<u64>,
    /// Blocks of 4096 bytes that were ever written; when the host is full, only these can be.
    written: Vec<bool>,
    host_is_full: bool,
    prepared: Vec<(u64, u64)>,
    flush_fails: bool,
    read_fails: bool,
    bad_sector: Option<u64>,
    flush_time: Duration,
    flushes: usize,
    writes: usize,
}

impl CrashDisk {
    pub(crate) fn new(size: usize) -> Arc<CrashDisk> {
        CrashDisk::with_image(vec![0; size])
    }

    pub(crate) fn with_image(image: Vec<u8>) -> Arc<CrashDisk> {
        Arc::new(CrashDisk {
            inner: Mutex::new(Inner {
                durable: image.clone(),
                unflushed: Vec::new(),
                writes_left: None,
                full_behind: None,
                written: vec![false; image.len().div_ceil(4096)],
                host_is_full: false,
                prepared: Vec::new(),
                now: image,
                flush_fails: false,
                read_fails: false,
                bad_sector: None,
                flush_time: Duration::ZERO,
                flushes: 0,
                writes: 0,
            }),
        })
    }

    /// After this many more writes and flushes the disk is dead.
    pub(crate) fn die_after(&self, writes: usize) {
        self.inner.lock().unwrap().writes_left = Some(writes);
    }

    /// Writes behind this offset find no space, as behind a sparse image on a full host.
    pub(crate) fn full_behind(&self, offset: Option<u64>) {
        self.inner.lock().unwrap().full_behind = offset;
    }

    /// From here on only blocks that were written before find space.
    pub(crate) fn fill_host(&self) {
        self.inner.lock().unwrap().host_is_full = true;
    }

    /// The ranges that were made ready so far.
    pub(crate) fn prepared(&self) -> Vec<(u64, u64)> {
        self.inner.lock().unwrap().prepared.clone()
    }

    pub(crate) fn fail_flushes(&self, fail: bool) {
        self.inner.lock().unwrap().flush_fails = fail;
    }

    pub(crate) fn fail_reads(&self, fail: bool) {
        self.inner.lock().unwrap().read_fails = fail;
    }

    /// Reads that touch this offset fail.
    pub(crate) fn bad_sector(&self, offset: Option<u64>) {
        self.inner.lock().unwrap().bad_sector = offset;
    }

    /// Makes a flush take so long that others come while it runs.
    pub(crate) fn slow_flushes(&self, time: Duration) {
        self.inner.lock().unwrap().flush_time = time;
    }

    pub(crate) fn flushes(&self) -> usize {
        self.inner.lock().unwrap().flushes
    }

    pub(crate) fn writes(&self) -> usize {
        self.inner.lock().unwrap().writes
    }

    /// What is on the disk now, as a clean stop would leave it.
    pub(crate) fn image(&self) -> Vec<u8> {
        self.inner.lock().unwrap().now.clone()
    }

    /// What a crash may leave: everything flushed, and of the rest what lies before `end`.
    pub(crate) fn crash_before(&self, end: usize) -> Vec<u8> {
        let inner = self.inner.lock().unwrap();
        let mut image = inner.durable.clone();
        for (offset, bytes) in inner.unflushed.iter().filter(|(offset, _)| *offset < end) {
            image[*offset..offset + bytes.len()].copy_from_slice(bytes);
        }
        image
    }

    /// What a crash leaves: everything flushed, and of the rest any sectors in any order, one of them torn.
    pub(crate) fn crash(&self, random: &mut Random) -> Vec<u8> {
        let inner = self.inner.lock().unwrap();
        let mut image = inner.durable.clone();
        let mut pieces: Vec<(usize, &[u8])> = Vec::new();
        for (offset, bytes) in &inner.unflushed {
            let (mut offset, mut bytes) = (*offset, &bytes[..]);
            while !bytes.is_empty() {
                let (piece, rest) = bytes.split_at(bytes.len().min(SECTOR - offset % SECTOR));
                pieces.push((offset, piece));
                offset += piece.len();
                bytes = rest;
            }
        }
        let survive = [0, 10, 50, 90, 100][random.below(5)];
        pieces.retain(|_| random.below(100) < survive);
        for index in (1..pieces.len()).rev() {
            pieces.swap(index, random.below(index + 1));
        }
        let torn = random.below(pieces.len().max(1));
        for (index, (offset, piece)) in pieces.into_iter().enumerate() {
            let size = if index == torn { random.below(piece.len() + 1) } else { piece.len() };
            image[offset..offset + size].copy_from_slice(&piece[..size]);
        }
        image
    }
}

impl Inner {
    fn is_dead(&mut self) -> bool {
        match &mut self.writes_left {
            Some(0) => true,
            Some(left) => {
                *left -= 1;
                false
            }
            None => false,
        }
    }
}

impl Disk for CrashDisk {
    fn size(&self) -> u64 {
        self.inner.lock().unwrap().now.len() as u64
    }

    fn set_size(&self, _: u64) -> Result<(), DiskError> {
        Err(DiskError::Full)
    }

    fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<(), DiskError> {
        let inner = self.inner.lock().unwrap();
        if inner.read_fails || inner.writes_left == Some(0) {
            return Err(DiskError::Failed);
        }
        if inner.bad_sector.is_some_and(|bad| (offset..offset + bytes.len() as u64).contains(&bad)) {
            return Err(DiskError::Failed);
        }
        let start = usize::try_from(offset).map_err(|_| DiskError::Full)?;
        let end = start.checked_add(bytes.len()).ok_or(DiskError::Full)?;
        bytes.copy_from_slice(inner.now.get(start..end).ok_or(DiskError::Full)?);
        Ok(())
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        let mut inner = self.inner.lock().unwrap();
        let start = offset as usize;
        let end = start + bytes.len();
        if end > inner.now.len() || inner.full_behind.is_some_and(|limit| end as u64 > limit) {
            return Err(DiskError::Full);
        }
        let blocks = start / 4096..end.div_ceil(4096);
        if inner.host_is_full && inner.written[blocks.clone()].contains(&false) {
            return Err(DiskError::Full);
        }
        inner.written[blocks].fill(true);
        let dead = inner.is_dead();
        if !dead
            || inner.writes_left.is_some() && inner.unflushed.last().is_none_or(|(last, _)| *last != start)
        {
            // The write at which the disk dies may still have reached it.
            inner.unflushed.push((start, bytes.to_vec()));
        }
        if dead {
            return Err(DiskError::Failed);
        }
        inner.now[start..end].copy_from_slice(bytes);
        inner.writes += 1;
        Ok(())
    }

    fn prepare(&self, offset: u64, size: u64) -> Result<bool, DiskError> {
        let mut inner = self.inner.lock().unwrap();
        let start = offset as usize;
        if inner.host_is_full {
            return Err(DiskError::Full);
        }
        inner.prepared.push((offset, size));
        inner.written[start / 4096..(start + size as usize) / 4096].fill(true);
        // Zeros may come or not come: what lies there is nobody's.
        inner.now[start..start + size as usize].fill(0);
        Ok(true)
    }

    /// Covers what was written before it began, and nothing that came while it ran.
    fn flush(&self) -> Result<(), DiskError> {
        let (covered, time) = {
            let mut inner = self.inner.lock().unwrap();
            inner.flushes += 1;
            (inner.unflushed.len(), inner.flush_time)
        };
        if !time.is_zero() {
            std::thread::sleep(time);
        }
        let mut inner = self.inner.lock().unwrap();
        if inner.is_dead() || inner.flush_fails {
            return Err(DiskError::Failed);
        }
        let covered: Vec<_> = inner.unflushed.drain(..covered).collect();
        for (offset, bytes) in covered {
            inner.durable[offset..offset + bytes.len()].copy_from_slice(&bytes);
        }
        Ok(())
    }
}

/// What a disk with another in it (`disk`) leaves to that one.
macro_rules! left_to_disk {
    ($($operation:ident)*) => { $(super::disk::left_to_disk!(@ $operation);)* };
    (@ size) => {
        fn size(&self) -> u64 {
            self.disk.size()
        }
        fn set_size(&self, size: u64) -> Result<(), amoeba_world::DiskError> {
            self.disk.set_size(size)
        }
    };
    (@ read) => {
        fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<(), amoeba_world::DiskError> {
            self.disk.read(offset, bytes)
        }
    };
    (@ write) => {
        fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), amoeba_world::DiskError> {
            self.disk.write(offset, bytes)
        }
    };
    (@ flush) => {
        fn flush(&self) -> Result<(), amoeba_world::DiskError> {
            self.disk.flush()
        }
    };
}
pub(crate) use left_to_disk;

/// A disk on which something else happens before the next write.
pub(crate) struct Interrupted {
    disk: Arc<CrashDisk>,
    before_write: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl Interrupted {
    pub(crate) fn new(disk: Arc<CrashDisk>) -> Arc<Interrupted> {
        Arc::new(Interrupted { disk, before_write: Mutex::new(None) })
    }

    pub(crate) fn before_write(&self, interruption: impl FnOnce() + Send + 'static) {
        *self.before_write.lock().unwrap() = Some(Box::new(interruption));
    }
}

impl Disk for Interrupted {
    left_to_disk!(size read flush);

    fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        let interruption = self.before_write.lock().unwrap().take();
        if let Some(interruption) = interruption {
            interruption();
        }
        self.disk.write(offset, bytes)
    }
}
