//! What a start reads: the inode table, the data of files behind the checkpoint, and where the holes are.
//!
//! A table of a million records is 64 MB, and checking it costs as much as reading it from a quick disk: so several
//! threads do both. Data is proven in the order of its places, in large reads.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{self, Arc};

use amoeba_threads::Threads;
use amoeba_world::{Disk, DiskError};

use super::error::{StoreError, VolumeError};
use super::held;
use super::layout::{self, BLOCK_SIZE, CHUNK_SIZE, RECORD_SIZE, RecordKey, Slot, Superblock};
use super::read::verify;
use super::recover::lies_inside;
use super::space::{Extent, Space};
use super::table::{Entry, FileState};
use super::volume::Volume;

/// Records read at once: a megabyte.
const PIECE_RECORDS: u32 = 16384;
/// Threads that read a table of several pieces.
const SCANNERS: u32 = 4;
/// Bytes of data read at once.
const SPAN_SIZE_MAX: u64 = 4 << 20;
/// Blocks of no interest that a read of data passes over rather than ending.
const GAP_BLOCKS_MAX: u64 = 16;

/// A table that is being read, by whoever takes the next piece.
struct Scan {
    disk: Arc<dyn Disk>,
    key: RecordKey,
    data_start: u64,
    block_count: u64,
    limit: u32,
    next: AtomicU32,
    failed: AtomicBool,
    found: sync::Mutex<Found>,
}

struct Found {
    entries: Vec<Entry>,
    error: Option<DiskError>,
}

/// The entries of the initialised part of the table.
pub(super) fn read_table(
    disk: &Arc<dyn Disk>,
    threads: &Threads,
    superblock: &Superblock,
) -> Result<Vec<Entry>, VolumeError> {
    let limit = superblock.inode_limit;
    if layout::record_offset(limit) > disk.size() {
        return Err(DiskError::Full.into()); // before memory is taken for so many
    }
    let scan = Arc::new(Scan {
        disk: disk.clone(),
        key: superblock.record_key(),
        data_start: superblock.data_start,
        block_count: superblock.block_count.min(disk.size() / BLOCK_SIZE),
        limit,
        next: AtomicU32::new(0),
        failed: AtomicBool::new(false),
        found: sync::Mutex::new(Found { entries: Vec::new(), error: None }),
    });
    let helpers: Vec<_> = (1..limit.div_ceil(PIECE_RECORDS).min(SCANNERS))
        .filter_map(|_| {
            let scan = scan.clone();
            threads.spawn("scan", move || scan.run()).ok() // with fewer threads it takes longer
        })
        .collect();
    held(&scan.found).entries.resize(limit as usize, Entry::FREE); // while the others read
    scan.run();
    for helper in helpers {
        helper.join().expect("no scanner panics");
    }
    let mut found = held(&scan.found);
    match found.error {
        Some(error) => Err(error.into()),
        None => Ok(std::mem::take(&mut found.entries)),
    }
}

impl Scan {
    /// Reads pieces until there are no more. A thread's memory is the same for all of its pieces.
    fn run(&self) {
        let (mut bytes, mut entries) = (Vec::new(), Vec::new());
        while !self.failed.load(Ordering::Relaxed) {
            let start = self.next.fetch_add(PIECE_RECORDS, Ordering::Relaxed);
            if start >= self.limit {
                return;
            }
            let count = (self.limit - start).min(PIECE_RECORDS);
            bytes.resize(count as usize * RECORD_SIZE, 0);
            if let Err(error) = self.disk.read(layout::record_offset(start), &mut bytes) {
                self.failed.store(true, Ordering::Relaxed);
                held(&self.found).error = Some(error);
                return;
            }
            let (records, _) = bytes.as_chunks::<RECORD_SIZE>();
            entries.clear();
            entries.extend((start..).zip(records).map(|(number, record)| self.entry(number, record)));
            let mut found = held(&self.found);
            found.entries.resize(self.limit as usize, Entry::FREE); // whoever comes first
            found.entries[start as usize..][..count as usize].copy_from_slice(&entries);
        }
    }

    fn entry(&self, number: u32, bytes: &[u8; RECORD_SIZE]) -> Entry {
        match self.key.slot(number, bytes) {
            Slot::File(record) if record.sequence < u64::MAX / 2 => {
                let mut entry = Entry::from_record(&record);
                if !lies_inside(self.data_start..self.block_count, &entry) {
                    entry.state = FileState::Damaged;
                }
                entry
            }
            Slot::Free => Entry::FREE,
            _ => Entry { state: FileState::Lost, ..Entry::FREE },
        }
    }
}

/// Verifies the data of files behind the checkpoint; those that fail are freed and returned.
pub(super) fn prove(volume: &Volume, superblock: &Superblock, entries: &mut [Entry]) -> Vec<u32> {
    let is_unproven =
        |entry: &Entry| entry.state == FileState::Stored && entry.sequence > superblock.checkpoint;
    let mut order: Vec<u32> =
        (0..entries.len() as u32).filter(|&number| is_unproven(&entries[number as usize])).collect();
    order.sort_unstable_by_key(|&number| entries[number as usize].first);
    let mut forgotten = Vec::new();
    let mut rest = &order[..];
    while !rest.is_empty() {
        let count = span(rest, entries);
        let (now, later) = rest.split_at(count);
        rest = later;
        for (&number, verdict) in now.iter().zip(verify_span(volume, now, entries)) {
            let entry = &mut entries[number as usize];
            match verdict {
                Ok(()) => {}
                Err(StoreError::Damaged) => {
                    // The sequence stays, so that it is not given twice while this record may still be on disk.
                    *entry = Entry { sequence: entry.sequence, ..Entry::FREE };
                    forgotten.push(number);
                }
                Err(_) => entry.state = FileState::Damaged, // unreadable is not the same as never written
            }
        }
    }
    forgotten
}

/// How many of these files, in the order of their places, one read takes; at least one.
fn span(order: &[u32], entries: &[Entry]) -> usize {
    let start = entries[order[0] as usize].first;
    let mut end = start;
    let fits = |&&number: &&u32| {
        let entry = &entries[number as usize];
        let extent = entry.extent();
        let near = extent.first <= end + GAP_BLOCKS_MAX || entry.size == 0;
        end = end.max(extent.end());
        near && entry.size <= CHUNK_SIZE && (end - start) * BLOCK_SIZE <= SPAN_SIZE_MAX
    };
    order.iter().take_while(fits).count().max(1)
}

/// What is true of each of these files, which one read takes.
fn verify_span(volume: &Volume, order: &[u32], entries: &[Entry]) -> Vec<Result<(), StoreError>> {
    let alone = || order.iter().map(|&number| verify(volume, &entries[number as usize])).collect();
    let files = || order.iter().map(|&number| &entries[number as usize]);
    if order.len() == 1 {
        return alone();
    }
    let start = files().map(|entry| entry.first).find(|&first| first > 0).unwrap_or(0);
    let end = files().map(|entry| entry.extent().end()).max().unwrap_or(start);
    let size = end.saturating_sub(start) * BLOCK_SIZE;
    let Ok(bytes) = volume.read_blocks(start, size as usize) else {
        return alone(); // one bad sector is one file's trouble
    };
    let check = |entry: &Entry| {
        let at = ((entry.extent().first.max(start) - start) * BLOCK_SIZE) as usize;
        let data = &bytes[at..at + entry.size as usize];
        if layout::hash(data) == entry.hash { Ok(()) } else { Err(StoreError::Damaged) }
    };
    files().map(check).collect()
}

/// The free space between the files. Of two files that overlap the later one counts; the blocks of both stay taken,
/// so that nothing more is lost before somebody has looked. So do those of a file that could not be read: it may be
/// there again after the next start.
pub(super) fn map_space(superblock: &Superblock, entries: &mut [Entry]) -> Space {
    let blocks = superblock.data_start..superblock.block_count;
    let unread = |entry: &Entry| entry.state == FileState::Damaged && lies_inside(blocks.clone(), entry);
    let placed = |entry: &Entry| entry.size > 0 && (entry.state == FileState::Stored || unread(entry));
    // Place and number in one word: sorting those is several times as quick as looking each place up.
    let word = |number: u32| layout::place_word(entries[number as usize].first, number);
    let mut order = Vec::with_capacity(entries.len());
    order.extend((0..entries.len() as u32).filter(|&number| placed(&entries[number as usize])).map(word));
    order.sort(); // mostly in order already: files that are made one after the other lie so
    let mut holes = Vec::new();
    let mut end = superblock.data_start;
    let mut last: Option<u32> = None;
    for number in order.into_iter().map(layout::number_of) {
        let (extent, sequence) = (entries[number as usize].extent(), entries[number as usize].sequence);
        if extent.first > end {
            holes.push(Extent { first: end, blocks: extent.first - end });
        }
        end = end.max(extent.end());
        if entries[number as usize].state == FileState::Damaged {
            continue;
        }
        if let Some(before) = last.map(|before| before as usize)
            && entries[before].extent().end() > extent.first
        {
            if entries[before].sequence > sequence {
                entries[number as usize].state = FileState::Damaged;
                continue;
            }
            entries[before].state = FileState::Damaged;
        }
        last = Some(number);
    }
    holes.push(Extent { first: end, blocks: superblock.block_count.saturating_sub(end) });
    Space::of(holes)
}
