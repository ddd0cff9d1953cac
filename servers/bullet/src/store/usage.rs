//! How much of a volume and of its memory is in use.

use super::layout::BLOCK_SIZE;
use super::{Store, held};

/// What is in use and what is free.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Blocks of 4096 bytes that files can use.
    pub blocks: u64,
    /// Of them, free.
    pub blocks_free: u64,
    /// The pieces that the free blocks are in.
    pub hole_count: u64,
    /// Blocks of the largest.
    pub hole_blocks_max: u64,
    /// Inodes in use.
    pub files: u64,
    /// Inodes there are.
    pub files_max: u64,
    /// Bytes of memory for files.
    pub cache_size: u64,
    /// Of it: committed files.
    pub cached: u64,
    /// Of it: committed files that are not on disk yet.
    pub unwritten: u64,
    /// Of it: uncommitted files.
    pub uncommitted: u64,
    /// Uncommitted files, in memory and on disk.
    pub uncommitted_files: u64,
    /// Files whose bytes on disk are not what was committed, and records that are none.
    pub damaged_files: u64,
    /// The disk has failed, or is truncated.
    pub write_protected: bool,
    /// A compaction that runs: blocks it has passed, blocks it has to pass.
    pub compaction: Option<(u64, u64)>,
}

impl Store {
    /// What is in use now.
    pub fn usage(&self) -> Usage {
        let (inode_count, blocks) = {
            let superblock = self.superblock.lock();
            (superblock.inode_count, superblock.block_count - superblock.data_start)
        };
        let mut usage = Usage {
            blocks,
            files_max: u64::from(inode_count) - 1,
            cache_size: self.settings.cache_size,
            write_protected: self.volume.flush.is_broken(),
            compaction: self.compaction.progress(),
            ..Usage::default()
        };
        {
            let space = held(&self.volume.space);
            usage.blocks_free = self.volume.ahead.free_blocks(&space);
            usage.hole_count = space.hole_count() as u64;
            usage.hole_blocks_max = space.hole_blocks_max();
        }
        let state = held(&self.state);
        usage.files = u64::from(state.table.len()) - 1 - state.table.free_count() as u64;
        usage.cached = state.cache.size();
        usage.unwritten = state.dirty_size;
        usage.uncommitted = state.drafts_size;
        usage.uncommitted_files = state.drafts.len() as u64;
        usage.damaged_files = state.damaged.len() as u64;
        usage
    }

    /// Free bytes of the volume, and all that files can use.
    pub fn space(&self) -> (u64, u64) {
        let usage = self.usage();
        (usage.blocks_free * BLOCK_SIZE, usage.blocks * BLOCK_SIZE)
    }
}
