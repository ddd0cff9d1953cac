//! What a start reads: the inode table, the data of files behind the checkpoint, and where the holes are.
//!
//! A table of a million records is 64 MB, and checking it costs as much as reading it from a quick disk: so several
//! threads do both. Data is proven in the order of its places, in large reads.

use std::collections::BTreeMap;
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
use super::table::{Entries, Entry, FileState, TABLE_STEP};
use super::volume::Volume;

/// Threads that read a table of several steps.
const SCANNERS: u32 = 4;
/// Bytes of data read at once: little enough that the heap has it for the next read.
const SPAN_SIZE_MAX: u64 = 2 << 20;
/// Blocks of no interest that a read of data passes over rather than ending.
const GAP_BLOCKS_MAX: u64 = 16;

/// A table that is being read, by whoever takes the next step.
struct Scan {
    disk: Arc<dyn Disk>,
    key: RecordKey,
    data_start: u64,
    block_count: u64,
    limit: u32,
    checkpoint: u64,
    next: AtomicU32,
    failed: AtomicBool,
    found: sync::Mutex<Found>,
}

#[derive(Default)]
struct Found {
    /// By the first number of each.
    steps: BTreeMap<u32, (Vec<Entry>, Survey)>,
    error: Option<DiskError>,
}

/// What a start wants to know of the entries, noted while each is at hand: to look through a table of a million again takes
/// as long as to check its records.
#[derive(Default)]
pub(super) struct Survey {
    /// Files behind the checkpoint.
    unproven: Vec<u32>,
    /// Place and number of every file that has a place.
    places: Vec<u64>,
    /// Free numbers.
    pub(super) free: Vec<u32>,
    /// Files that are damaged, and records that are none.
    pub(super) bad: Vec<u32>,
    /// The last commit.
    pub(super) sequence_max: u64,
}

impl Survey {
    fn note(&mut self, number: u32, entry: &Entry, checkpoint: u64) {
        self.sequence_max = self.sequence_max.max(entry.sequence);
        match entry.state {
            FileState::Stored => {
                if entry.size > 0 {
                    // Place and number in one word: sorting those is several times as quick as looking each place up.
                    self.places.push(layout::place_word(entry.first, number));
                }
                if entry.sequence > checkpoint {
                    self.unproven.push(number);
                }
            }
            _ if number == 0 => {} // the server itself
            FileState::Free => self.free.push(number),
            _ => self.bad.push(number),
        }
    }

    /// What was noted of several steps. Each list is made in one piece: one that grows leaves holes in the heap.
    fn join(steps: Vec<Survey>) -> Survey {
        Survey {
            unproven: concat(&steps, |step| &step.unproven),
            places: concat(&steps, |step| &step.places),
            free: concat(&steps, |step| &step.free),
            bad: concat(&steps, |step| &step.bad),
            sequence_max: steps.iter().map(|step| step.sequence_max).max().unwrap_or(0),
        }
    }
}

fn concat<T: Copy>(steps: &[Survey], list: impl Fn(&Survey) -> &Vec<T>) -> Vec<T> {
    let mut all = Vec::with_capacity(steps.iter().map(|step| list(step).len()).sum());
    steps.iter().for_each(|step| all.extend_from_slice(list(step)));
    all
}

/// The initialised part of a table.
pub(super) struct Scanned {
    pub(super) entries: Entries,
    pub(super) survey: Survey,
}

impl Scanned {
    /// After entries were changed.
    pub(super) fn look_again(&mut self, checkpoint: u64) {
        self.survey = Survey::default();
        for (number, entry) in (0..).zip(self.entries.iter()) {
            self.survey.note(number, entry, checkpoint);
        }
    }
}

/// Reads the initialised part of the table.
pub(super) fn read_table(
    disk: &Arc<dyn Disk>,
    threads: &Threads,
    superblock: &Superblock,
) -> Result<Scanned, VolumeError> {
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
        checkpoint: superblock.checkpoint,
        next: AtomicU32::new(0),
        failed: AtomicBool::new(false),
        found: Default::default(),
    });
    let helpers: Vec<_> = (1..limit.div_ceil(TABLE_STEP).min(SCANNERS))
        .filter_map(|_| {
            let scan = scan.clone();
            threads.spawn("scan", move || scan.run()).ok() // with fewer threads it takes longer
        })
        .collect();
    scan.run();
    for helper in helpers {
        helper.join().expect("no scanner panics");
    }
    let found = std::mem::take(&mut *held(&scan.found));
    if let Some(error) = found.error {
        return Err(error.into());
    }
    let (steps, surveys) = found.steps.into_values().unzip();
    let (entries, survey) = (Entries::of(steps), Survey::join(surveys));
    Ok(Scanned { entries, survey })
}

impl Scan {
    /// Reads steps until there are no more. What a thread reads into is the same for all of them.
    fn run(&self) {
        let mut bytes = Vec::new();
        while !self.failed.load(Ordering::Relaxed) {
            let start = self.next.fetch_add(TABLE_STEP, Ordering::Relaxed);
            if start >= self.limit {
                return;
            }
            let count = (self.limit - start).min(TABLE_STEP);
            bytes.resize(count as usize * RECORD_SIZE, 0);
            if let Err(error) = self.disk.read(layout::record_offset(start), &mut bytes) {
                self.failed.store(true, Ordering::Relaxed);
                held(&self.found).error = Some(error);
                return;
            }
            let step = self.step(start, &bytes);
            held(&self.found).steps.insert(start, step);
        }
    }

    fn step(&self, start: u32, bytes: &[u8]) -> (Vec<Entry>, Survey) {
        let (records, _) = bytes.as_chunks::<RECORD_SIZE>();
        let mut survey = Survey::default();
        let entry = |(number, record)| {
            let entry = self.entry(number, record);
            survey.note(number, &entry, self.checkpoint);
            entry
        };
        let entries = (start..).zip(records).map(entry).collect();
        survey.places.sort_unstable();
        (entries, survey)
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
pub(super) fn prove(volume: &Volume, scanned: &mut Scanned) -> Vec<u32> {
    let Scanned { entries, survey } = scanned;
    let mut order = std::mem::take(&mut survey.unproven);
    order.sort_unstable_by_key(|&number| entries[number].first);
    let mut forgotten = Vec::new();
    let mut rest = &order[..];
    while !rest.is_empty() {
        let count = span(rest, entries);
        let (now, later) = rest.split_at(count);
        rest = later;
        for (&number, verdict) in now.iter().zip(verify_span(volume, now, entries)) {
            let entry = &mut entries[number];
            match verdict {
                Ok(()) => {}
                Err(StoreError::Damaged) => {
                    // The sequence stays, so that it is not given twice while this record may still be on disk.
                    *entry = Entry { sequence: entry.sequence, ..Entry::FREE };
                    forgotten.push(number);
                    survey.free.extend((number != 0).then_some(number));
                }
                Err(_) => {
                    entry.state = FileState::Damaged; // unreadable is not the same as never written
                    survey.bad.extend((number != 0).then_some(number));
                }
            }
        }
    }
    forgotten
}

/// How many of these files, in the order of their places, one read takes; at least one.
fn span(order: &[u32], entries: &Entries) -> usize {
    let start = entries[order[0]].first;
    let mut end = start;
    let fits = |&&number: &&u32| {
        let entry = &entries[number];
        let extent = entry.extent();
        let near = extent.first <= end + GAP_BLOCKS_MAX || entry.size == 0;
        end = end.max(extent.end());
        near && entry.size <= CHUNK_SIZE && (end - start) * BLOCK_SIZE <= SPAN_SIZE_MAX
    };
    order.iter().take_while(fits).count().max(1)
}

/// What is true of each of these files, which one read takes.
fn verify_span(volume: &Volume, order: &[u32], entries: &Entries) -> Vec<Result<(), StoreError>> {
    let alone = || order.iter().map(|&number| verify(volume, &entries[number])).collect();
    let files = || order.iter().map(|&number| &entries[number]);
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
pub(super) fn map_space(superblock: &Superblock, scanned: &mut Scanned) -> Space {
    let blocks = superblock.data_start..superblock.block_count;
    let Scanned { entries, survey } = scanned;
    let mut order = std::mem::take(&mut survey.places);
    order.sort(); // each step is in order already, and mostly one lies behind the other
    let mut holes = Vec::new();
    let mut end = superblock.data_start;
    let mut last: Option<u32> = None;
    let mut damage = |entry: &mut Entry, number: u32| {
        entry.state = FileState::Damaged;
        survey.bad.extend((number != 0).then_some(number));
    };
    for number in order.into_iter().map(layout::number_of) {
        let entry = entries[number];
        // One that was forgotten meanwhile has no place any more.
        let is_placed = match entry.state {
            FileState::Stored => true,
            FileState::Damaged => lies_inside(blocks.clone(), &entry), // it could not be read
            _ => false,
        };
        if !is_placed {
            continue;
        }
        let extent = entry.extent();
        if extent.first > end {
            holes.push(Extent { first: end, blocks: extent.first - end });
        }
        end = end.max(extent.end());
        if entry.state == FileState::Damaged {
            continue;
        }
        if let Some(before) = last
            && entries[before].extent().end() > extent.first
        {
            if entries[before].sequence > entry.sequence {
                damage(&mut entries[number], number);
                continue;
            }
            damage(&mut entries[before], before);
        }
        last = Some(number);
    }
    holes.push(Extent { first: end, blocks: superblock.block_count.saturating_sub(end) });
    Space::of(holes)
}
