//! The log: batches of entries on a disk, one flush a batch.
//!
//! ```text
//! block 0, 1   header and its copy: magic 8 | version u32 | zero u32 | volume 16 | area size u64 | check 32
//! area 0       from block 2, `area size` bytes
//! area 1       behind it
//!
//! batch        magic u32 | size of entries u32 | generation u64 | first sequence u64 | count u32 | zero u32 | check 32
//!              entries ... zeros up to the next block
//! ```
//! Generation g lies in area g mod 2. A batch begins on a block of its own, so that writing it never touches a
//! sector of an acknowledged one. The check (BLAKE3 over the volume, the batch's head and its entries) tells a torn
//! tail, and what an older generation left, from a batch.
//!
//! A batch is written only after the one before it was flushed. So a good batch behind a bad one means that
//! acknowledged entries were damaged, and opening says so instead of dropping them.

use std::sync::Arc;

use amoeba_wire::{Reader, Writer};
use amoeba_world::{Disk, DiskError};

use crate::entry::{ENTRY_SIZE_MAX, Entry};

/// Bytes of a block; batches begin on blocks.
pub const BLOCK_SIZE: u64 = 4096;
/// Bytes of entries after which a batch takes no more.
pub const BATCH_SIZE: usize = 512 << 10;
/// The smallest log.
pub const LOG_SIZE_MIN: u64 = 4 << 20;
/// The size of a log that needs no other.
pub const LOG_SIZE_DEFAULT: u64 = 64 << 20;

/// Bytes that a search of an area reads at once.
const SCAN_SIZE: usize = 1 << 20;
const BATCH_SIZE_MAX: usize = BATCH_SIZE + ENTRY_SIZE_MAX;
const BATCH_HEAD_SIZE: usize = 64;
const BATCH_MAGIC: u32 = 0x3142_4441; // "ADB1"
const HEADER_MAGIC: &[u8; 8] = b"AMDIRLOG";
const HEADER_SIZE: usize = 72;
const VERSION: u32 = 1;
const CHECK_SIZE: usize = 32;

/// Random bytes that tell one directory service's disks from another's.
pub type Volume = [u8; 16];

/// Why a log cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// The disk failed or is full.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// Neither copy of the header is good.
    #[error("this is not the log of a directory server, or its header is damaged")]
    NotALog,
    /// It belongs to other tables.
    #[error("the log and the tables belong to different directory services")]
    OtherVolume,
    /// Good batches follow a bad one.
    #[error("the log is damaged: entry {sequence} is unreadable and later ones are not")]
    Damaged {
        /// The first entry that cannot be read.
        sequence: u64,
    },
}

/// The log of one directory service.
pub struct Log {
    disk: Arc<dyn Disk>,
    volume: Volume,
    area_size: u64,
    generation: u64,
    /// Where the next batch goes, from the start of the generation's area.
    position: u64,
}

impl Log {
    /// Makes `disk` an empty log of `size` bytes, at least [`LOG_SIZE_MIN`]. Every byte is written, so that a log
    /// never lacks room later.
    pub fn format(disk: &dyn Disk, volume: &Volume, size: u64) -> Result<(), LogError> {
        let area_size = (size.max(LOG_SIZE_MIN) - 2 * BLOCK_SIZE) / 2 / BLOCK_SIZE * BLOCK_SIZE;
        let size = 2 * BLOCK_SIZE + 2 * area_size;
        if disk.size() < size {
            disk.set_size(size)?;
        }
        let zeros = vec![0; 1 << 20];
        for offset in (0..size).step_by(zeros.len()) {
            let length = (size - offset).min(zeros.len() as u64) as usize;
            disk.write(offset, &zeros[..length])?;
        }
        let header = header(volume, area_size);
        disk.write(0, &header)?;
        disk.write(BLOCK_SIZE, &header)?;
        Ok(disk.flush()?)
    }

    /// The log on `disk`, which must belong to `volume`. Before the first append: [`Log::start`].
    pub fn open(disk: Arc<dyn Disk>, volume: &Volume) -> Result<Log, LogError> {
        let headers = [0, BLOCK_SIZE].map(|offset| read_header(&*disk, offset));
        let (found, area_size) = headers.into_iter().flatten().next().ok_or(LogError::NotALog)?;
        if found != *volume {
            return Err(LogError::OtherVolume);
        }
        Ok(Log { disk, volume: *volume, area_size, generation: 0, position: area_size })
    }

    /// Begins a generation: what its area held before is given up.
    pub fn start(&mut self, generation: u64) {
        self.generation = generation;
        self.position = 0;
    }

    /// Goes on with a generation behind what was read back of it.
    pub fn resume(&mut self, generation: u64, position: u64) {
        self.generation = generation;
        self.position = position;
    }

    /// The generation that is written to.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Whether there is anything of a generation.
    pub fn has(&self, generation: u64) -> Result<bool, LogError> {
        Ok(self.read_batch(generation, 0)?.is_some())
    }

    /// Bytes of the log.
    pub fn size(&self) -> u64 {
        2 * (BLOCK_SIZE + self.area_size)
    }

    /// Bytes of the batches of this generation.
    pub fn used(&self) -> u64 {
        self.position
    }

    /// Whether any batch still fits.
    pub fn has_room(&self) -> bool {
        self.area_size - self.position >= blocks(BATCH_HEAD_SIZE + BATCH_SIZE_MAX)
    }

    /// Writes a batch and flushes it. `entries` are `count` emitted entries, the first one with sequence number
    /// `first`. There must be room.
    pub fn append(&mut self, first: u64, count: u32, entries: &[u8]) -> Result<(), DiskError> {
        assert!(self.has_room() && entries.len() <= BATCH_SIZE_MAX, "the store makes room before it appends");
        let size = u32::try_from(entries.len()).expect("a batch is smaller than BATCH_SIZE_MAX");
        let head = Head { size, generation: self.generation, first, count };
        let length = blocks(BATCH_HEAD_SIZE + entries.len());
        let mut batch = Vec::with_capacity(length as usize);
        batch.extend_from_slice(&head.fields());
        batch.extend_from_slice(&head.check(&self.volume, entries));
        batch.extend_from_slice(entries);
        batch.resize(length as usize, 0);
        self.disk.write(self.offset(self.generation) + self.position, &batch)?;
        self.position += length;
        self.disk.flush()
    }

    /// Flushes what was read back: a killed server's last batch may lie in the operating system's cache only.
    pub fn flush(&self) -> Result<(), DiskError> {
        self.disk.flush()
    }

    /// Gives the entries of a generation from number `next` on, in order; ends with the first number it lacks, and
    /// the place behind the last batch.
    pub fn replay<E: From<LogError>>(
        &self,
        generation: u64,
        mut next: u64,
        mut each: impl FnMut(Entry) -> Result<(), E>,
    ) -> Result<(u64, u64), E> {
        let mut position = 0;
        while let Some((head, entries)) = self.read_batch(generation, position)? {
            let damaged = LogError::Damaged { sequence: next };
            if head.first > next {
                return Err(damaged.into());
            }
            let mut reader = Reader::new(&entries);
            for _ in 0..head.count {
                let entry = Entry::parse(&mut reader).map_err(|_| damaged)?;
                if entry.sequence == next {
                    each(entry)?;
                    next += 1;
                }
            }
            position += blocks(BATCH_HEAD_SIZE + entries.len());
        }
        self.expect_nothing_after(generation, position, next)?;
        Ok((next, position))
    }

    /// Checks that no good batch of the generation follows the bad one at `position`.
    fn expect_nothing_after(&self, generation: u64, position: u64, next: u64) -> Result<(), LogError> {
        let mut piece = vec![0; SCAN_SIZE];
        for start in (position..self.area_size).step_by(SCAN_SIZE) {
            let length = (self.area_size - start).min(SCAN_SIZE as u64) as usize;
            self.disk.read(self.offset(generation) + start, &mut piece[..length])?;
            for block in (0..length as u64).step_by(BLOCK_SIZE as usize) {
                let head = piece[block as usize..].first_chunk().and_then(Head::parse);
                let seems_good = head.is_some_and(|(head, _)| head.generation == generation);
                let at = start + block;
                if at > position && seems_good && self.read_batch(generation, at)?.is_some() {
                    return Err(LogError::Damaged { sequence: next });
                }
            }
        }
        Ok(())
    }

    /// The batch at `position`, `None` when there is no good one of this generation.
    fn read_batch(&self, generation: u64, position: u64) -> Result<Option<(Head, Vec<u8>)>, LogError> {
        let left = self.area_size.saturating_sub(position);
        if left < BLOCK_SIZE {
            return Ok(None);
        }
        let offset = self.offset(generation) + position;
        let mut bytes = [0; BATCH_HEAD_SIZE];
        self.disk.read(offset, &mut bytes)?;
        let Some((head, check)) = Head::parse(&bytes) else { return Ok(None) };
        let size = head.size as usize;
        if head.generation != generation || size > BATCH_SIZE_MAX || blocks(BATCH_HEAD_SIZE + size) > left {
            return Ok(None);
        }
        let mut entries = vec![0; size];
        self.disk.read(offset + BATCH_HEAD_SIZE as u64, &mut entries)?;
        Ok((head.check(&self.volume, &entries) == check).then_some((head, entries)))
    }

    fn offset(&self, generation: u64) -> u64 {
        2 * BLOCK_SIZE + generation % 2 * self.area_size
    }
}

/// What a batch begins with.
#[derive(Clone, Copy)]
struct Head {
    size: u32,
    generation: u64,
    first: u64,
    count: u32,
}

impl Head {
    fn fields(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.put_u32(BATCH_MAGIC).put_u32(self.size).put_u64(self.generation).put_u64(self.first);
        writer.put_u32(self.count).put_u32(0);
        writer.finish()
    }

    fn check(&self, volume: &Volume, entries: &[u8]) -> [u8; CHECK_SIZE] {
        let mut hasher = blake3::Hasher::new();
        hasher.update(volume).update(&self.fields()).update(entries);
        *hasher.finalize().as_bytes()
    }

    fn parse(bytes: &[u8; BATCH_HEAD_SIZE]) -> Option<(Head, [u8; CHECK_SIZE])> {
        let mut reader = Reader::new(bytes);
        if reader.get_u32() != Ok(BATCH_MAGIC) {
            return None;
        }
        let (size, generation) = (reader.get_u32().ok()?, reader.get_u64().ok()?);
        let (first, count) = (reader.get_u64().ok()?, reader.get_u32().ok()?);
        let zero = reader.get_u32().ok()?;
        let check = reader.array().ok()?;
        (zero == 0).then_some((Head { size, generation, first, count }, check))
    }
}

/// `bytes` rounded up to whole blocks.
fn blocks(bytes: usize) -> u64 {
    (bytes as u64).next_multiple_of(BLOCK_SIZE)
}

fn header(volume: &Volume, area_size: u64) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.raw(HEADER_MAGIC).put_u32(VERSION).put_u32(0).raw(volume).put_u64(area_size);
    let mut header = writer.finish();
    let check = blake3::hash(&header);
    header.extend_from_slice(check.as_bytes());
    header
}

fn read_header(disk: &dyn Disk, offset: u64) -> Option<(Volume, u64)> {
    let mut bytes = [0; HEADER_SIZE];
    disk.read(offset, &mut bytes).ok()?;
    let mut reader = Reader::new(&bytes);
    let magic: [u8; 8] = reader.array().ok()?;
    let (version, _) = (reader.get_u32().ok()?, reader.get_u32().ok()?);
    let (volume, area_size) = (reader.array().ok()?, reader.get_u64().ok()?);
    let good = magic == *HEADER_MAGIC && version == VERSION && header(&volume, area_size) == bytes;
    let fits = area_size.checked_mul(2)?.checked_add(2 * BLOCK_SIZE)? <= disk.size();
    (good && fits && area_size.is_multiple_of(BLOCK_SIZE)).then_some((volume, area_size))
}
