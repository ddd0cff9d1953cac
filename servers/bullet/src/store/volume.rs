//! The disk of a store with its free space: reads and writes of extents and records, and the shared flush.
//!
//! A failed write or flush is remembered: what the disk holds is unknown from then on, so every later write is
//! refused with [`StoreError::WriteProtected`].

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{self, Arc};

use amoeba_threads::Threads;
use amoeba_world::{Disk, DiskError};

use super::ahead::Ahead;
use super::carrier::Carrier;
use super::error::StoreError;
use super::flush::Flush;
use super::held;
use super::layout::{self, BLOCK_SIZE, CHUNK_SIZE, Hash, RECORD_SIZE, Record, RecordKey};
use super::space::{Extent, Space};

const BLOCK: usize = BLOCK_SIZE as usize;
/// Data from this size on is begun to be carried to the medium before the flush, piece by piece of this size: the disk works
/// on the first one while the next is copied. Below, the call costs more.
const BEGIN_SIZE: usize = 256 << 10;
/// Data up to this size is copied to fill its last block.
const COPIED_SIZE_MAX: usize = 64 << 10;

/// See the module.
pub(crate) struct Volume {
    disk: Arc<dyn Disk>,
    pub(crate) flush: Flush,
    pub(crate) space: sync::Mutex<Space>,
    key: RecordKey,
    pub(crate) reads: AtomicU64,
    pub(crate) writes: AtomicU64,
    pub(super) ahead: Ahead,
    pub(super) carrier: Carrier,
}

impl Volume {
    pub(crate) fn new(threads: &Threads, disk: Arc<dyn Disk>, key: RecordKey, space: Space) -> Volume {
        Volume {
            flush: Flush::new(threads, disk.clone()),
            disk,
            space: sync::Mutex::new(space),
            key,
            reads: AtomicU64::new(0),
            writes: AtomicU64::new(0),
            ahead: Ahead::new(threads),
            carrier: Carrier::new(threads),
        }
    }

    pub(crate) fn disk_size(&self) -> u64 {
        self.disk.size()
    }

    /// Whether anything can still be committed.
    pub(crate) fn writable(&self) -> Result<(), StoreError> {
        if self.flush.is_broken() { Err(StoreError::WriteProtected) } else { Ok(()) }
    }

    /// Takes contiguous blocks.
    pub(crate) fn allocate(&self, blocks: u64) -> Result<Extent, StoreError> {
        self.take(|space| space.allocate(blocks))
    }

    /// Takes blocks in some way; if that fails while some are being made ready, once more when they are.
    pub(crate) fn take(&self, way: impl Fn(&mut Space) -> Option<Extent>) -> Result<Extent, StoreError> {
        let attempt = || {
            let mut space = held(&self.space);
            let extent = way(&mut space);
            self.ahead.used(&space);
            extent
        };
        let again = || {
            let _pause = self.ahead.pause();
            attempt()
        };
        attempt().or_else(again).ok_or(StoreError::NoSpace)
    }

    /// See [`Disk::prepare`].
    pub(crate) fn prepare(&self, offset: u64, size: u64) -> Result<bool, DiskError> {
        self.disk.prepare(offset, size)
    }

    pub(crate) fn release(&self, extent: Extent) {
        held(&self.space).release(extent);
    }

    /// Writes data at a block. No room behind a sparse image is [`StoreError::NoSpace`] and harms nothing: no record
    /// names these blocks yet.
    pub(crate) fn write_blocks(&self, block: u64, bytes: &[u8]) -> Result<(), StoreError> {
        self.writable()?;
        self.writes.fetch_add(1, Ordering::Relaxed);
        self.disk.write(block * BLOCK_SIZE, bytes).map_err(|error| match error {
            DiskError::Full => StoreError::NoSpace,
            _ => self.broken(),
        })
    }

    /// Writes much data at a block, and has the disk begin with it at once: the processor is needed for its hash
    /// meanwhile, and the flush that follows finds less to do.
    pub(crate) fn write_chunk(&self, block: u64, bytes: &[u8]) -> Result<(), StoreError> {
        if bytes.len() as u64 == CHUNK_SIZE {
            self.ahead.note_chunk();
        }
        for (index, piece) in (0..).zip(bytes.chunks(BEGIN_SIZE)) {
            let block = block + index * (BEGIN_SIZE as u64 / BLOCK_SIZE);
            self.write_blocks(block, piece)?;
            if piece.len() == BEGIN_SIZE {
                self.disk.begin(block * BLOCK_SIZE, BEGIN_SIZE as u64);
            }
        }
        Ok(())
    }

    /// Writes a file's data and what goes behind it, chunk by chunk, each hashed while the disk is busy with it.
    pub(crate) fn write_file(&self, first: u64, data: &[u8]) -> Result<Hash, StoreError> {
        let mut hashes = Vec::new();
        let mut end = Vec::new();
        for (index, chunk) in data.chunks(CHUNK_SIZE as usize).enumerate() {
            let block = first + index as u64 * (CHUNK_SIZE / BLOCK_SIZE);
            // What is small is copied, so that it is one write.
            let whole = if chunk.len() < COPIED_SIZE_MAX { 0 } else { chunk.len() / BLOCK * BLOCK };
            if whole > 0 {
                self.write_chunk(block, &chunk[..whole])?;
            }
            end.extend_from_slice(&chunk[whole..]);
            hashes.push(layout::hash(chunk));
        }
        pad(&mut end);
        if hashes.len() > 1 {
            end.extend_from_slice(hashes.as_flattened());
            pad(&mut end);
        }
        if !end.is_empty() {
            let blocks = layout::file_blocks(data.len() as u64) - end.len() as u64 / BLOCK_SIZE;
            self.write_blocks(first + blocks, &end)?;
        }
        Ok(layout::hash_of_hashes(&hashes))
    }

    /// Writes what must not fail halfway: a record, a superblock, zeros into the table.
    pub(crate) fn write_table(&self, offset: u64, bytes: &[u8]) -> Result<(), StoreError> {
        self.writable()?;
        self.writes.fetch_add(1, Ordering::Relaxed);
        self.disk.write(offset, bytes).map_err(|_| self.broken())
    }

    pub(crate) fn write_record(&self, number: u32, record: &Record) -> Result<(), StoreError> {
        self.write_table(layout::record_offset(number), &self.key.to_bytes(number, record))
    }

    pub(crate) fn clear_record(&self, number: u32) -> Result<(), StoreError> {
        self.write_table(layout::record_offset(number), &[0; RECORD_SIZE])
    }

    /// What the table holds for inode `number` now.
    pub(crate) fn read_record(&self, number: u32) -> Result<layout::Slot, DiskError> {
        let mut bytes = [0; RECORD_SIZE];
        self.disk.read(layout::record_offset(number), &mut bytes)?;
        Ok(self.key.slot(number, &bytes))
    }

    /// Makes every finished write durable.
    pub(crate) fn flush(&self) -> Result<(), StoreError> {
        self.writable()?;
        self.flush.flush().map_err(|_| StoreError::DiskFailed)
    }

    /// Reads `size` bytes from a block on. A failure here is only this read's: it says nothing about writes.
    pub(crate) fn read_blocks(&self, block: u64, size: usize) -> Result<Vec<u8>, StoreError> {
        let mut bytes = vec![0; size];
        self.read_into(block, &mut bytes)?;
        Ok(bytes)
    }

    /// As [`Volume::read_blocks`], over what is in `bytes`.
    pub(crate) fn read_into(&self, block: u64, bytes: &mut [u8]) -> Result<(), StoreError> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.disk.read(block * BLOCK_SIZE, bytes).map_err(|_| StoreError::DiskFailed)
    }

    fn broken(&self) -> StoreError {
        self.flush.set_broken();
        StoreError::DiskFailed
    }
}

/// Lengthens data with zeros to whole blocks.
pub(crate) fn pad(bytes: &mut Vec<u8>) {
    let size = bytes.len().next_multiple_of(BLOCK_SIZE as usize);
    bytes.reserve_exact(size - bytes.len());
    bytes.resize(size, 0);
}
