//! The status text.

use std::fmt::Write;
use std::sync::atomic::Ordering;

use super::contents::Contents;
use super::layout::BLOCK_SIZE;
use super::{Counter, Draft, Store, held};

/// Damaged files that the status names; more are only counted.
const DAMAGED_NAMED_MAX: usize = 8;

impl Store {
    /// Counts a standard operation that the store itself does not see.
    pub fn count_operation(&self, counter: Counter) {
        self.count(counter);
    }

    /// What a person wants to know of the store: the tables of the original's status, then the counters.
    pub fn status(&self) -> String {
        let usage = self.usage();
        let memory_used = usage.cached + usage.unwritten + usage.uncommitted;
        let memory_free = usage.cache_size.saturating_sub(memory_used);
        let mut text = format!("{:<22}{:>14}{:>14}{:>10}\n", "", "In Use", "Free", "Holes");
        let mut row = |name: &str, used: u64, free: u64, holes: String| {
            let _ = writeln!(text, "{name:<22}{used:>14}{free:>14}{holes:>10}");
        };
        row("Inodes", usage.files, usage.files_max - usage.files, String::new());
        row("Disk Blocks", usage.blocks - usage.blocks_free, usage.blocks_free, usage.hole_count.to_string());
        row("Cache Memory", memory_used, memory_free, String::new());
        let state = held(&self.state);
        let is_spilled = |draft: &&Draft| matches!(draft.contents, Some(Contents::Spilled(_)));
        let spilled = state.drafts.values().filter(is_spilled).count() as u64;
        let lendable = state.cache.lendable_size();
        let named: Vec<String> = state.damaged.iter().take(DAMAGED_NAMED_MAX).map(u32::to_string).collect();
        drop(state);
        let numbers = [
            ("block size", BLOCK_SIZE),
            ("committed bytes in cache", usage.cached),
            ("of them in memory that can be lent", lendable),
            ("committed bytes not on disk yet", usage.unwritten),
            ("uncommitted bytes in memory", usage.uncommitted),
            ("uncommitted files", usage.uncommitted_files),
            ("uncommitted files on disk", spilled),
            ("damaged files", usage.damaged_files),
        ];
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
        if usage.write_protected {
            let _ = writeln!(text, "WRITE PROTECTED: the disk failed or is truncated");
        }
        text
    }

    /// What the counters stand at, by name, in the order of the status.
    pub fn counters(&self) -> Vec<(&'static str, u64)> {
        self.counters.all().collect()
    }
}
