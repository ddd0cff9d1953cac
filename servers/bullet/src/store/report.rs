//! The status text.

use std::fmt::Write;
use std::sync::atomic::Ordering;

use super::contents::Contents;
use super::layout::BLOCK_SIZE;
use super::{Counter, Store, held};

/// Damaged files that the status names; more are only counted.
const DAMAGED_NAMED_MAX: usize = 8;

impl Store {
    /// Counts a standard operation that the store itself does not see.
    pub fn count_operation(&self, counter: Counter) {
        self.count(counter);
    }

    /// What a person wants to know of the store: the tables of the original's status, then the counters.
    pub fn status(&self) -> String {
        let (free_blocks, holes) = {
            let space = held(&self.volume.space);
            (self.volume.ahead.free_blocks(&space), space.hole_count())
        };
        let (inode_count, block_count) = {
            let superblock = self.superblock.lock();
            (u64::from(superblock.inode_count) - 1, superblock.block_count - superblock.data_start)
        };
        let mut text = String::new();
        let state = held(&self.state);
        let inodes_used = u64::from(state.table.len()) - 1 - state.table.free_count() as u64;
        let memory_used = state.cache.size() + state.dirty_size + state.drafts_size;
        let memory_free = self.settings.cache_size.saturating_sub(memory_used);
        let mut row = |name: &str, used: u64, free: u64, holes: String| {
            let _ = writeln!(text, "{name:<22}{used:>14}{free:>14}{holes:>10}");
        };
        row("Inodes", inodes_used, inode_count - inodes_used, String::new());
        row("Disk Blocks", block_count - free_blocks, free_blocks, holes.to_string());
        row("Cache Memory", memory_used, memory_free, String::new());
        let spilled = state
            .drafts
            .values()
            .filter(|draft| matches!(draft.contents, Some(Contents::Spilled(_))))
            .count();
        let numbers = [
            ("block size", BLOCK_SIZE),
            ("committed bytes in cache", state.cache.size()),
            ("of them in memory that can be lent", state.cache.lendable_size()),
            ("committed bytes not on disk yet", state.dirty_size),
            ("uncommitted bytes in memory", state.drafts_size),
            ("uncommitted files", state.drafts.len() as u64),
            ("uncommitted files on disk", spilled as u64),
            ("damaged files", state.damaged.len() as u64),
        ];
        let named: Vec<String> = state.damaged.iter().take(DAMAGED_NAMED_MAX).map(u32::to_string).collect();
        drop(state);
        let disk = [
            ("disk reads", self.volume.reads.load(Ordering::Relaxed)),
            ("disk writes", self.volume.writes.load(Ordering::Relaxed)),
            ("disk flushes", self.volume.flush.count()),
        ];
        let counters = self.counters();
        let (reads, others) = counters.split_at(Counter::DamagedReads as usize + 1);
        let counters = reads.iter().chain(&disk).chain(others);
        for (name, number) in numbers.iter().chain(counters) {
            let _ = writeln!(text, "{name:<36}{number:>14}");
        }
        if !named.is_empty() {
            let _ = writeln!(text, "damaged: {}", named.join(" "));
        }
        if self.volume.flush.is_broken() {
            let _ = writeln!(text, "WRITE PROTECTED: the disk failed or is truncated");
        }
        format!("{:<22}{:>14}{:>14}{:>10}\n{text}", "", "In Use", "Free", "Holes")
    }

    /// What the counters stand at, by name, in the order of the status.
    pub fn counters(&self) -> Vec<(&'static str, u64)> {
        self.counters.all().collect()
    }
}
