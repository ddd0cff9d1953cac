//! Chunks of an uncommitted file in memory that are on disk already.
//!
//! A large file comes in pieces. If nothing of it were written before its commit, the disk would have nothing to do as
//! long as the client sends, and the client would then wait for all of it. So complete chunks are written as they come,
//! to where the whole file is going to lie; at the commit the rest is left. No record on disk names them before, so a
//! crash forgets them, and an edit of what was written costs nothing but writing it again.

use super::held;
use super::layout::{self, CHUNK_SIZE, Hash};
use super::space::Extent;
use super::volume::Volume;

const CHUNK: usize = CHUNK_SIZE as usize;
/// Complete chunks from which on a file is worth it.
const CHUNKS_MIN: usize = 2;
/// Bytes of the first reservation; it doubles, in place.
const RESERVED_SIZE_MIN: u64 = 16 << 20;
/// A reservation is at most one part in so many of the free space: it must not be why another file finds none.
const FREE_PART: u64 = 16;

/// See the module. The default has nothing on disk.
#[derive(Default)]
pub(crate) struct Early {
    /// Where the file is going to lie, with room to grow.
    extent: Extent,
    /// Of the chunks that are written there, from the first on.
    hashes: Vec<Hash>,
    /// There was no place for it: the file is written at its commit.
    over: bool,
}

impl Early {
    /// Writes what is complete of `data` and not written yet. Where that fails nothing is lost: it is written at the commit, or
    /// fails there.
    pub(super) fn write(&mut self, volume: &Volume, data: &[u8]) {
        let chunks = data.len() / CHUNK;
        if self.over || chunks < CHUNKS_MIN || chunks <= self.hashes.len() {
            return;
        }
        if !self.reserve(volume, data.len() as u64) {
            return self.give_up(volume);
        }
        for chunk in data.chunks_exact(CHUNK).skip(self.hashes.len()) {
            match volume.write_whole_chunk(self.extent.first, self.hashes.len(), chunk) {
                Ok(hash) => self.hashes.push(hash),
                Err(_) => return self.give_up(volume),
            }
        }
    }

    /// The bytes from `offset` on are about to change.
    pub(super) fn forget_from(&mut self, offset: u64) {
        let unchanged = usize::try_from(offset / CHUNK_SIZE).unwrap_or(usize::MAX);
        self.hashes.truncate(unchanged);
    }

    /// Writes the rest of a file that is complete: where it lies, and its hash. `None`: nothing of it is on disk, and no
    /// blocks are taken.
    pub(super) fn finish(&mut self, volume: &Volume, data: &[u8]) -> Option<(Extent, Hash)> {
        let mut early = std::mem::take(self);
        let blocks = layout::file_blocks(data.len() as u64);
        let is_begun = !early.hashes.is_empty();
        if is_begun && held(&volume.space).extend(&mut early.extent, blocks, blocks) {
            let hashes = std::mem::take(&mut early.hashes);
            if let Ok(hash) = volume.write_rest(early.extent.first, data, hashes) {
                held(&volume.space).trim(&mut early.extent, blocks);
                return Some((early.extent, hash));
            }
        }
        early.discard(volume);
        None
    }

    /// Frees what it holds on disk.
    pub(super) fn discard(&mut self, volume: &Volume) {
        volume.release(std::mem::replace(&mut self.extent, Extent::NONE));
        self.hashes = Vec::new();
    }

    fn give_up(&mut self, volume: &Volume) {
        self.discard(volume);
        self.over = true;
    }

    /// Makes the extent large enough for a file of `size` bytes without moving it; whether it could.
    fn reserve(&mut self, volume: &Volume, size: u64) -> bool {
        let needed = layout::file_blocks(size);
        if self.extent.blocks >= needed {
            return true;
        }
        let mut space = held(&volume.space);
        let room = space.free_blocks() / FREE_PART;
        if needed > room {
            return false;
        }
        let wanted = needed.saturating_mul(2).max(layout::file_blocks(RESERVED_SIZE_MIN)).min(room);
        if self.extent.blocks > 0 {
            return space.extend(&mut self.extent, needed, wanted);
        }
        let taken = space.allocate_growing(needed, wanted);
        volume.ahead.used(&space);
        taken.inspect(|&extent| self.extent = extent).is_some()
    }
}
