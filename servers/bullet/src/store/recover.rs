//! Making a volume, and opening one after a clean stop or a crash.

use std::ops::Range;
use std::sync::{self, Arc};

use amoeba_cap::{CheckField, GetPort, ServerSecret};
use amoeba_threads::{Mutex, Threads};
use amoeba_world::{Disk, DiskError, Entropy, random};

use super::cache::Cache;
use super::error::VolumeError;
use super::layout::{self, BLOCK_SIZE, FILE_SIZE_MAX, INODE_COUNT_MAX, RECORD_SIZE, Superblock};
use super::locks::Locks;
use super::scan::{Scanned, map_space, prove, read_table};
use super::space::Space;
use super::table::{Entry, FileState, TABLE_STEP, Table};
use super::volume::Volume;
use super::{CACHE_SIZE_MIN, Settings, State, Store};

/// Bytes of the disk per inode, unless told otherwise.
const FILE_SIZE_AVERAGE: u64 = 12 << 10;
/// The fewest inodes of a volume.
const INODE_COUNT_MIN: u32 = 64;

/// How to make a volume.
#[derive(Clone, Copy, Debug, Default)]
pub struct FormatOptions {
    /// Room for this many files and the server itself; by default one per 12 KiB. Rounded up to whole blocks.
    pub inode_count: Option<u32>,
    /// Destroy the volume that is there.
    pub force: bool,
}

/// A new volume.
#[derive(Clone, Debug)]
pub struct Formatted {
    /// The secret port its server listens on.
    pub get_port: GetPort,
    /// The random of object 0; with the put-port and the secret it gives the super capability.
    pub super_random: CheckField,
    /// The key of its check fields.
    pub secret: ServerSecret,
    /// Inodes, number 0 included.
    pub inode_count: u32,
}

/// Makes an empty volume that fills `disk`.
///
/// # Errors
/// AlreadyFormatted unless forced; TooSmall; the disk's.
pub fn format(
    disk: &dyn Disk,
    entropy: &dyn Entropy,
    options: &FormatOptions,
) -> Result<Formatted, VolumeError> {
    if !options.force && read_superblock(disk).is_ok() {
        return Err(VolumeError::AlreadyFormatted);
    }
    let block_count = (disk.size() / BLOCK_SIZE).min(FILE_SIZE_MAX / BLOCK_SIZE);
    let by_size = u32::try_from(disk.size() / FILE_SIZE_AVERAGE).unwrap_or(INODE_COUNT_MAX);
    let inode_count = options.inode_count.unwrap_or(by_size).clamp(INODE_COUNT_MIN, INODE_COUNT_MAX);
    let inode_count = inode_count.next_multiple_of(BLOCK_SIZE as u32 / RECORD_SIZE as u32);
    let data_start = layout::data_start(inode_count);
    if data_start >= block_count {
        return Err(VolumeError::TooSmall);
    }
    let mut get_port = GetPort::from_bytes(random(entropy));
    while get_port.is_null() {
        get_port = GetPort::from_bytes(random(entropy));
    }
    let mut superblock = Superblock {
        uuid: random(entropy),
        generation: 1,
        block_count,
        inode_count,
        inode_limit: inode_count.min(TABLE_STEP),
        data_start,
        checkpoint: 0,
        get_port,
        super_random: CheckField::from_bytes(random(entropy)),
        secret: ServerSecret::from_bytes(random(entropy)),
        moves: Vec::new(),
    };
    let zeros = vec![0; superblock.inode_limit as usize * RECORD_SIZE];
    disk.write(layout::record_offset(0), &zeros)?;
    for generation in [1, 2] {
        superblock.generation = generation;
        disk.write(generation % 2 * BLOCK_SIZE, &superblock.to_bytes())?;
    }
    disk.flush()?;
    Ok(Formatted {
        get_port: superblock.get_port,
        super_random: superblock.super_random,
        secret: superblock.secret,
        inode_count,
    })
}

fn read_superblock(disk: &dyn Disk) -> Result<Superblock, VolumeError> {
    let copy = |block: u64| -> Result<Option<Superblock>, DiskError> {
        let mut bytes = [0; BLOCK_SIZE as usize];
        match disk.read(block * BLOCK_SIZE, &mut bytes) {
            Ok(()) => Ok(Superblock::from_block(&bytes)),
            Err(DiskError::Full) => Ok(None), // shorter than that
            Err(error) => Err(error),
        }
    };
    match (copy(0), copy(1)) {
        (Ok(None), Ok(None)) => Err(VolumeError::NotBullet),
        (first, second) => {
            let newest =
                [first.clone(), second].into_iter().flatten().flatten().max_by_key(|copy| copy.generation);
            match (newest, first) {
                (Some(superblock), _) => Ok(superblock),
                (None, Err(error)) => Err(error.into()),
                (None, Ok(_)) => Err(DiskError::Failed.into()),
            }
        }
    }
}

impl Store {
    /// Opens the volume on `disk`: reads the inode table, and verifies the data of every record behind the checkpoint.
    /// What does not verify was never acknowledged and is forgotten. A truncated image opens write protected.
    ///
    /// # Errors
    /// NotBullet; the disk's, when superblock or inode table cannot be read.
    pub fn open(
        disk: Arc<dyn Disk>,
        threads: &Threads,
        entropy: Arc<dyn Entropy>,
        settings: Settings,
    ) -> Result<Store, VolumeError> {
        let mut superblock = read_superblock(&*disk)?;
        let truncated = disk.size() / BLOCK_SIZE < superblock.block_count;
        let mut scanned = read_table(&disk, threads, &superblock)?;
        let volume = Volume::new(threads, disk, superblock.record_key(), Space::new());
        if truncated {
            volume.flush.set_broken();
        }
        finish_moves(&volume, &mut superblock, &mut scanned);
        let forgotten = prove(&volume, &mut scanned);
        *super::held(&volume.space) = map_space(&superblock, &mut scanned);
        clear(&volume, &forgotten);
        let last = scanned.survey.sequence_max.max(superblock.checkpoint);
        let state = State {
            damaged: scanned.survey.bad.into_iter().collect(),
            table: Table::new(scanned.entries, scanned.survey.free.into()),
            cache: Cache::default(),
            dirty: Default::default(),
            dirty_size: 0,
            drafts: Default::default(),
            drafts_size: 0,
            making_size: 0,
            sequence_next: last + 1,
            inflight: Default::default(),
            checkpoint: superblock.checkpoint,
            unchecked_size: 0,
            adopted: false,
        };
        let settings = Settings { cache_size: settings.cache_size.max(CACHE_SIZE_MIN), ..settings };
        Ok(Store {
            threads: threads.clone(),
            entropy,
            settings,
            volume,
            locks: Locks::new(threads),
            large: Mutex::new(threads, ()),
            state: sync::Mutex::new(state),
            get_port: superblock.get_port.clone(),
            super_random: superblock.super_random,
            secret: superblock.secret.clone(),
            superblock: Mutex::new(threads, superblock),
            counters: Default::default(),
            compaction: Default::default(),
            replies: Arc::default(),
        })
    }
}

pub(super) fn lies_inside(blocks: Range<u64>, entry: &Entry) -> bool {
    if entry.size == 0 {
        return entry.first == 0;
    }
    entry.size <= FILE_SIZE_MAX
        && blocks.contains(&entry.first)
        && layout::file_blocks(entry.size) <= blocks.end - entry.first
}

/// Finishes a compaction's moves that a crash interrupted. Their data was flushed at the new place before they were
/// written down, and the old place was not free yet, so a file is whole at either; only its record may be torn.
fn finish_moves(volume: &Volume, superblock: &mut Superblock, scanned: &mut Scanned) {
    if superblock.moves.is_empty() {
        return;
    }
    let blocks = superblock.data_start..superblock.block_count.min(volume.disk_size() / BLOCK_SIZE);
    let moves = std::mem::take(&mut superblock.moves);
    let rewritten = moves.iter().try_for_each(|(number, record)| {
        let entry = &mut scanned.entries[*number];
        let moved = Entry::from_record(record);
        let same = (entry.random, entry.sequence) == (moved.random, moved.sequence);
        let is_its_file = match entry.state {
            FileState::Stored => same && entry.first != moved.first,
            FileState::Lost => true,
            _ => false,
        };
        if !is_its_file || !lies_inside(blocks.clone(), &moved) {
            return Ok(());
        }
        *entry = moved;
        volume.write_record(*number, record)
    });
    // From here on the moves must not be finished again: their numbers may come to mean other files. If this fails,
    // the volume is write protected, and nothing is destroyed.
    superblock.generation += 1;
    let block = superblock.generation % 2 * BLOCK_SIZE;
    let _ = rewritten
        .and_then(|()| volume.flush())
        .and_then(|()| volume.write_table(block, &superblock.to_block()))
        .and_then(|()| volume.flush());
    scanned.look_again(superblock.checkpoint);
}

/// Clears records that must never be believed again. If the disk fails, the volume is write protected.
fn clear(volume: &Volume, numbers: &[u32]) {
    let cleared = numbers.iter().try_for_each(|&number| volume.clear_record(number));
    if cleared.is_ok() && !numbers.is_empty() {
        // A failure is remembered by the volume itself.
        let _ = volume.flush();
    }
}
