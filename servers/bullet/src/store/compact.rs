//! Compaction on line: files move down into the holes below them until the free blocks are in few pieces.
//!
//! From the lowest hole up, the files behind a hole slide down into it; a file is never copied onto itself, so only as
//! much slides at once as the hole holds. A small hole is widened first: the files behind it go up, to the largest
//! hole, and are met again later. What would cost far more copying than it frees stays where it is.
//!
//! A file is copied and the copy is flushed before anything names it. Then the records change: those of a batch are
//! written behind the superblock first, so that a record torn by a crash can be written again (`recover` finishes such
//! moves). The old places are free only when all that has been flushed. Readers and editors of other files never
//! wait; those of a file that moves wait for the change of its record, not for the copy.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::layout::{self, BLOCK_SIZE, CHUNK_SIZE, MOVES_MAX, Record};
use super::locks::ObjectLock;
use super::space::Extent;
use super::table::{Entry, FileState};
use super::{Counter, Store, StoreError, held};

/// Blocks that a hole is widened to, so that files slide in large batches.
const WINDOW_BLOCKS: u64 = 2048;
/// A file goes up only if it is at most so many times as large as the hole it widens.
const WIDEN_RATIO_MAX: u64 = 64;
/// The longest rest between two batches.
const REST_MAX: Duration = Duration::from_millis(100);

/// What a compaction did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compacted {
    /// Files that were moved; one that went up first counts twice.
    pub moved_files: u64,
    /// Their bytes.
    pub moved_size: u64,
    /// Holes that are left.
    pub hole_count: u64,
    /// Bytes of the largest.
    pub hole_size_max: u64,
}

/// The compaction that runs, if one does.
#[derive(Default)]
pub(super) struct Compaction {
    running: AtomicBool,
    passed: AtomicU64,
    all: AtomicU64,
}

impl Compaction {
    /// Blocks it has passed, blocks it has to pass.
    pub(super) fn progress(&self) -> Option<(u64, u64)> {
        let all = self.all.load(Ordering::Relaxed);
        let running = self.running.load(Ordering::Relaxed);
        running.then(|| (self.passed.load(Ordering::Relaxed).min(all), all))
    }
}

/// Says that the compaction is over, however it ended.
struct Running<'a>(&'a Compaction);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.store(false, Ordering::Release);
    }
}

/// A file on its way to a place that is taken for it.
struct Move {
    number: u32,
    entry: Entry,
    to: Extent,
}

/// The files of a volume by place, as they lay when the compaction began, and those that went up since: 8 bytes a file.
struct Places {
    /// First block and number in one word, in order.
    files: Vec<u64>,
    next: usize,
    raised: std::collections::BTreeMap<u64, u32>,
}

impl Places {
    /// The file that lies at `block`; what is asked for never goes down.
    fn at(&mut self, block: u64) -> Option<u32> {
        while self.files.get(self.next).is_some_and(|&word| layout::first_of(word) < block) {
            self.next += 1;
        }
        self.peek(self.next, block)
    }

    fn peek(&self, index: usize, block: u64) -> Option<u32> {
        match self.files.get(index) {
            Some(&word) if layout::first_of(word) == block => Some(layout::number_of(word)),
            _ => self.raised.get(&block).copied(),
        }
    }
}

impl Store {
    /// Moves files down into holes; see the module.
    ///
    /// # Errors
    /// NotNow, while another one runs; NoSpace (the host's disk behind a sparse image is full), DiskFailed,
    /// WriteProtected: what was moved until then stays moved.
    pub fn compact(&self) -> Result<Compacted, StoreError> {
        self.count(Counter::Compact);
        self.volume.writable()?;
        if self.compaction.running.swap(true, Ordering::AcqRel) {
            return Err(StoreError::NotNow);
        }
        let _running = Running(&self.compaction);
        let mut places = self.places();
        let mut done = Compacted::default();
        let mut cursor = 0;
        self.compaction.passed.store(0, Ordering::Relaxed);
        loop {
            let Some(hole) = held(&self.volume.space).hole_from(cursor) else { break };
            let began = (self.threads.now(), self.activity());
            let moves = self.plan_moves(hole, &mut places);
            self.compaction.passed.store(hole.first.saturating_sub(self.data_start()), Ordering::Relaxed);
            if moves.is_empty() {
                cursor = hole.end();
                continue;
            }
            let count = moves.len() as u64;
            let (moved, size) = self.carry_out(moves)?;
            done.moved_files += moved;
            done.moved_size += size;
            if moved < count {
                cursor = hole.end(); // something there does not move
            }
            self.rest(began);
        }
        let space = held(&self.volume.space);
        done.hole_count = space.hole_count() as u64;
        done.hole_size_max = space.hole_blocks_max() * BLOCK_SIZE;
        Ok(done)
    }

    fn data_start(&self) -> u64 {
        self.superblock.lock().data_start
    }

    fn places(&self) -> Places {
        let mut files: Vec<u64> = self.with(|state| {
            let stored = |number: &u32| {
                let entry = state.table.get(*number)?;
                let placed = entry.state == FileState::Stored && entry.size > 0;
                placed.then(|| layout::place_word(entry.first, *number))
            };
            (1..state.table.len()).filter_map(|number| stored(&number)).collect()
        });
        files.sort_unstable();
        let end = files.last().map_or(0, |&word| layout::first_of(word));
        self.compaction.all.store(end.saturating_sub(self.data_start()), Ordering::Relaxed);
        Places { files, next: 0, raised: Default::default() }
    }

    /// What to do about a hole: slide down what fits, or first widen it, or nothing.
    fn plan_moves(&self, hole: Extent, places: &mut Places) -> Vec<Move> {
        let behind = self.files_behind(hole, places);
        let sliding: u64 = behind
            .iter()
            .map(|(_, entry)| entry.extent().blocks)
            .scan(0, |sum, blocks| {
                *sum += blocks;
                Some(*sum)
            })
            .take_while(|&sum| sum <= hole.blocks)
            .last()
            .unwrap_or(0);
        let widen = hole.blocks < WINDOW_BLOCKS && sliding < WINDOW_BLOCKS / 2;
        let raised = if widen { self.raise(hole, &behind, places) } else { Vec::new() };
        if raised.is_empty() { self.slide(hole, &behind) } else { raised }
    }

    /// The files that lie behind a hole without a gap, as many as one batch may move.
    fn files_behind(&self, hole: Extent, places: &mut Places) -> Vec<(u32, Entry)> {
        let mut files = Vec::new();
        let mut block = hole.end();
        let mut number = places.at(block);
        let mut index = places.next;
        while let Some(found) = number
            && files.len() < MOVES_MAX
        {
            let entry = self.with(|state| state.table.get(found).copied());
            let Some(entry) = entry
                .filter(|entry| entry.state == FileState::Stored && entry.size > 0 && entry.first == block)
            else {
                break; // destroyed since the compaction began; perhaps another lies there
            };
            files.push((found, entry));
            block = entry.extent().end();
            if places.files.get(index).is_some_and(|&word| layout::first_of(word) == entry.first) {
                index += 1;
            }
            number = places.peek(index, block);
        }
        files
    }

    /// Takes places at the start of the hole for the files behind it that fit.
    fn slide(&self, hole: Extent, behind: &[(u32, Entry)]) -> Vec<Move> {
        let mut space = held(&self.volume.space);
        let mut first = hole.first;
        let mut moves = Vec::new();
        for &(number, entry) in behind {
            let to = Extent { first, blocks: entry.extent().blocks };
            if to.end() > hole.end() || !space.claim(to) {
                break;
            }
            first = to.end();
            moves.push(Move { number, entry, to });
        }
        moves
    }

    /// Takes places in the largest hole, mostly far above, for files behind a hole that is too small. A file goes up once.
    fn raise(&self, hole: Extent, behind: &[(u32, Entry)], places: &mut Places) -> Vec<Move> {
        let mut space = held(&self.volume.space);
        let mut widened = hole.blocks;
        let mut moves = Vec::new();
        for &(number, entry) in behind {
            let from = entry.extent();
            let once = !places.raised.contains_key(&from.first);
            let worth = from.blocks <= widened.saturating_mul(WIDEN_RATIO_MAX);
            if widened >= WINDOW_BLOCKS || !once || !worth {
                break;
            }
            let Some(to) = space.allocate_growing(from.blocks, from.blocks) else { break };
            if to.first == hole.first {
                space.release(to); // there is no larger one
                break;
            }
            places.raised.insert(to.first, number);
            widened += from.blocks;
            moves.push(Move { number, entry, to });
        }
        moves
    }

    /// Copies the files and changes their records. How many were moved, and their bytes; the others stay.
    fn carry_out(&self, moves: Vec<Move>) -> Result<(u64, u64), StoreError> {
        let mut copied = Vec::new();
        let mut failed = Ok(());
        for step in moves {
            let result = if failed.is_ok() { self.copy_to(&step) } else { Err(StoreError::NotNow) };
            match result {
                Ok(()) => copied.push(step),
                Err(error) => {
                    self.volume.release(step.to);
                    if matches!(
                        error,
                        StoreError::NoSpace | StoreError::DiskFailed | StoreError::WriteProtected
                    ) {
                        failed = Err(error);
                    }
                }
            }
        }
        let flushed = failed.and_then(|()| self.volume.flush());
        if let Err(error) = flushed {
            copied.iter().for_each(|step| self.volume.release(step.to));
            return Err(error);
        }
        copied.sort_unstable_by_key(|step| step.number);
        let locks: Vec<ObjectLock<'_>> =
            copied.iter().map(|step| self.locks.exclusive(step.number)).collect();
        let (staying, moving): (Vec<Move>, Vec<Move>) =
            copied.into_iter().partition(|step| !self.is_as_planned(step));
        staying.iter().for_each(|step| self.volume.release(step.to));
        self.change_records(&moving)?;
        drop(locks);
        Ok((moving.len() as u64, moving.iter().map(|step| step.entry.size).sum()))
    }

    fn is_as_planned(&self, step: &Move) -> bool {
        let same = |entry: &Entry| {
            entry.state == FileState::Stored
                && (entry.random, entry.sequence, entry.first)
                    == (step.entry.random, step.entry.sequence, step.entry.first)
        };
        self.with(|state| state.table.get(step.number).is_some_and(same))
    }

    /// Copies a file's blocks, each chunk verified. The file may be destroyed meanwhile, between two chunks.
    fn copy_to(&self, step: &Move) -> Result<(), StoreError> {
        let entry = &step.entry;
        for index in 0..layout::chunk_count(entry.size) {
            let _lock = self.locks.shared(step.number);
            if !self.is_as_planned(step) {
                return Err(StoreError::NoSuchFile);
            }
            let chunk = self.chunk(step.number, entry, index, false)?;
            let mut bytes = chunk.to_vec();
            super::volume::pad(&mut bytes);
            self.volume.write_blocks(step.to.first + index * (CHUNK_SIZE / BLOCK_SIZE), &bytes)?;
        }
        if layout::table_size(entry.size) > 0 {
            let _lock = self.locks.shared(step.number);
            if !self.is_as_planned(step) {
                return Err(StoreError::NoSuchFile);
            }
            let mut table = self.hashes(step.number, entry)?.to_vec();
            super::volume::pad(&mut table);
            self.volume.write_blocks(step.to.first + layout::data_blocks(entry.size), &table)?;
        }
        Ok(())
    }

    /// Gives files whose locks are held, and whose copies are flushed, their new places. If the disk fails here, nobody
    /// knows which place a record names: both stay taken, and the volume is write protected.
    fn change_records(&self, moving: &[Move]) -> Result<(), StoreError> {
        if moving.is_empty() {
            return Ok(());
        }
        let records: Vec<(u32, Record)> = moving
            .iter()
            .map(|step| (step.number, Entry { first: step.to.first, ..step.entry }.record()))
            .collect();
        let mut superblock = self.superblock.lock();
        self.write_superblock(&mut superblock, |new| new.moves = records.clone())?;
        records.iter().try_for_each(|(number, record)| self.volume.write_record(*number, record))?;
        self.volume.flush()?;
        // Before the locks go: a move that was still written down would bring a destroyed file back.
        self.write_superblock(&mut superblock, |new| new.moves.clear())?;
        drop(superblock);
        self.with(|state| {
            for step in moving {
                state.table.get_mut(step.number).first = step.to.first;
            }
        });
        for step in moving {
            self.count(Counter::MovedFiles);
            self.volume.release(step.entry.extent());
        }
        Ok(())
    }

    /// Requests so far.
    fn activity(&self) -> u64 {
        let own = [Counter::MovedFiles, Counter::CacheMisses, Counter::CacheHits];
        let own: u64 = own.into_iter().map(|counter| self.counters.get(counter)).sum();
        self.counters.all().map(|(_, count)| count).sum::<u64>() - own
    }

    /// When others asked for something meanwhile, leaves the disk to them for as long as the batch took.
    fn rest(&self, (began, activity): (amoeba_threads::Instant, u64)) {
        if self.activity() != activity {
            let time = self.threads.now().since(began);
            self.threads.sleep(time.min(REST_MAX));
        }
    }
}
