//! The bytes of an uncommitted file: in memory while it is small, in a reserved extent on disk once it is not.
//!
//! On disk, chunks that are complete are written with their hashes kept here; the last, incomplete chunk stays in
//! memory. No record on disk names such an extent, so a crash forgets it.

use super::error::StoreError;
use super::held;
use super::layout::{self, BLOCK_SIZE, CHUNK_SIZE, FILE_SIZE_MAX, HASH_SIZE, Hash};
use super::space::Extent;
use super::volume::{Volume, pad};

const CHUNK: usize = CHUNK_SIZE as usize;
const CHUNK_BLOCKS: u64 = CHUNK_SIZE / BLOCK_SIZE;
/// Memory counted for an uncommitted file besides its bytes.
const OVERHEAD: u64 = 256;

/// One change of an uncommitted file. Offsets are at most the file's size.
#[derive(Clone, Debug)]
pub enum Edit {
    /// Overwrites, and lengthens the file where it must.
    Modify {
        /// Where.
        offset: u64,
        /// What.
        data: Vec<u8>,
    },
    /// Moves what lies behind `offset` up and puts `data` there; not empty.
    Insert {
        /// Where.
        offset: u64,
        /// What.
        data: Vec<u8>,
    },
    /// Moves what lies behind the deleted bytes down; cut at the end of the file; not empty.
    Delete {
        /// Where.
        offset: u64,
        /// How many bytes.
        size: u64,
    },
}

impl Edit {
    /// The file's size after the edit, if the edit fits a file of `size` bytes.
    pub(crate) fn size_after(&self, size: u64) -> Result<u64, StoreError> {
        let (offset, empty) = match self {
            Edit::Modify { offset, .. } => (*offset, false),
            Edit::Insert { offset, data } => (*offset, data.is_empty()),
            Edit::Delete { offset, size } => (*offset, *size == 0),
        };
        if offset > size || empty {
            return Err(StoreError::BadArgument);
        }
        let after = match self {
            Edit::Modify { data, .. } => size.max(offset + data.len() as u64),
            Edit::Insert { data, .. } => size + data.len() as u64,
            Edit::Delete { size: count, .. } => size - (*count).min(size - offset),
        };
        if after > FILE_SIZE_MAX { Err(StoreError::TooLarge) } else { Ok(after) }
    }
}

/// See the module.
pub(crate) enum Contents {
    Memory(Vec<u8>),
    Spilled(Spill),
}

impl Contents {
    pub(crate) fn size(&self) -> u64 {
        match self {
            Contents::Memory(data) => data.len() as u64,
            Contents::Spilled(spill) => spill.size(),
        }
    }

    /// The memory it takes.
    pub(crate) fn memory(&self) -> u64 {
        OVERHEAD
            + match self {
                Contents::Memory(data) => data.capacity() as u64,
                Contents::Spilled(spill) => {
                    // The last chunk is counted whole: it grows without asking.
                    (spill.tail.capacity().max(CHUNK) + spill.hashes.capacity() * HASH_SIZE) as u64
                }
            }
    }

    /// Frees what it holds on disk.
    pub(crate) fn discard(self, volume: &Volume) {
        if let Contents::Spilled(spill) = self {
            volume.release(spill.extent);
        }
    }

    /// Moves it to disk.
    pub(crate) fn spill(&mut self, volume: &Volume) -> Result<(), StoreError> {
        if let Contents::Memory(data) = self {
            let mut spill = Spill::default();
            if let Err(error) = spill.append(volume, data) {
                volume.release(spill.extent);
                return Err(error);
            }
            *self = Contents::Spilled(spill);
        }
        Ok(())
    }

    /// Applies an edit that [`Edit::size_after`] has accepted. After an error the contents are as before, unless the
    /// disk failed.
    pub(crate) fn apply(&mut self, volume: &Volume, edit: Edit) -> Result<(), StoreError> {
        match self {
            Contents::Memory(data) => {
                apply_in_memory(data, edit);
                Ok(())
            }
            Contents::Spilled(spill) => match edit {
                Edit::Modify { offset, data } => spill.overwrite(volume, offset, &data),
                Edit::Insert { offset, data } => spill.splice(volume, offset, &data, offset),
                Edit::Delete { offset, size } => {
                    spill.splice(volume, offset, &[], offset.saturating_add(size))
                }
            },
        }
    }
}

fn apply_in_memory(bytes: &mut Vec<u8>, edit: Edit) {
    match edit {
        Edit::Modify { offset: 0, data } if data.len() >= bytes.len() && bytes.capacity() < data.len() => {
            *bytes = data
        }
        Edit::Modify { offset, data } => {
            let offset = offset as usize;
            let over = data.len().min(bytes.len() - offset);
            bytes[offset..offset + over].copy_from_slice(&data[..over]);
            bytes.extend_from_slice(&data[over..]);
        }
        Edit::Insert { offset, data } => {
            let offset = offset as usize;
            bytes.splice(offset..offset, data);
        }
        Edit::Delete { offset, size } => {
            let offset = offset as usize;
            let end = bytes.len().min(offset.saturating_add(size as usize));
            bytes.drain(offset..end);
        }
    }
}

/// An uncommitted file on disk.
#[derive(Default)]
pub(crate) struct Spill {
    extent: Extent,
    /// Of the complete chunks.
    hashes: Vec<Hash>,
    /// What is behind them: less than a chunk.
    tail: Vec<u8>,
}

/// A spill that is ready for its record.
pub(crate) struct Sealed {
    pub(crate) extent: Extent,
    pub(crate) size: u64,
    pub(crate) hash: Hash,
}

impl Spill {
    pub(crate) fn size(&self) -> u64 {
        self.hashes.len() as u64 * CHUNK_SIZE + self.tail.len() as u64
    }

    /// Adds bytes at the end. When there is no space, nothing is added.
    pub(crate) fn append(&mut self, volume: &Volume, mut data: &[u8]) -> Result<(), StoreError> {
        self.reserve(volume, self.size() + data.len() as u64)?;
        while !data.is_empty() {
            if self.tail.is_empty() && data.len() >= CHUNK {
                let (chunk, rest) = data.split_at(CHUNK);
                self.write_chunk(volume, self.hashes.len(), chunk)?;
                data = rest;
                continue;
            }
            let (more, rest) = data.split_at(data.len().min(CHUNK - self.tail.len()));
            self.tail.extend_from_slice(more);
            data = rest;
            if self.tail.len() == CHUNK {
                let chunk = std::mem::take(&mut self.tail);
                self.write_chunk(volume, self.hashes.len(), &chunk)?;
            }
        }
        Ok(())
    }

    /// Overwrites from `offset` on, lengthening the file where it must.
    fn overwrite(&mut self, volume: &Volume, mut offset: u64, mut data: &[u8]) -> Result<(), StoreError> {
        self.reserve(volume, self.size().max(offset + data.len() as u64))?;
        while !data.is_empty() && offset < self.size() {
            let (index, start) = ((offset / CHUNK_SIZE) as usize, (offset % CHUNK_SIZE) as usize);
            let room = if index < self.hashes.len() { CHUNK } else { self.tail.len() };
            let (part, rest) = data.split_at(data.len().min(room - start));
            if index == self.hashes.len() {
                self.tail[start..start + part.len()].copy_from_slice(part);
            } else if part.len() == CHUNK {
                self.write_chunk(volume, index, part)?;
            } else {
                let mut chunk = self.chunk(volume, index)?;
                chunk[start..start + part.len()].copy_from_slice(part);
                self.write_chunk(volume, index, &chunk)?;
            }
            offset += part.len() as u64;
            data = rest;
        }
        self.append(volume, data)
    }

    /// Makes a copy in which the bytes from `offset` to `resume` are replaced by `data`, and takes its place.
    fn splice(&mut self, volume: &Volume, offset: u64, data: &[u8], resume: u64) -> Result<(), StoreError> {
        let mut copy = Spill::default();
        let made = copy
            .append_from(volume, self, 0, offset)
            .and_then(|()| copy.append(volume, data))
            .and_then(|()| copy.append_from(volume, self, resume.min(self.size()), self.size()));
        if made.is_ok() {
            std::mem::swap(self, &mut copy);
        }
        volume.release(copy.extent);
        made
    }

    fn append_from(
        &mut self,
        volume: &Volume,
        from: &Spill,
        mut start: u64,
        end: u64,
    ) -> Result<(), StoreError> {
        while start < end {
            let (index, offset) = ((start / CHUNK_SIZE) as usize, (start % CHUNK_SIZE) as usize);
            let stop = ((index as u64 + 1) * CHUNK_SIZE).min(end);
            let last = offset + (stop - start) as usize;
            if index < from.hashes.len() {
                let chunk = from.chunk(volume, index)?;
                self.append(volume, &chunk[offset..last])?;
            } else {
                self.append(volume, &from.tail[offset..last])?;
            }
            start = stop;
        }
        Ok(())
    }

    /// Writes the rest and the table of hashes; what is left is to write the record. May be called again.
    pub(crate) fn seal(&mut self, volume: &Volume) -> Result<Sealed, StoreError> {
        let size = self.size();
        let mut hashes = self.hashes.clone();
        let mut end = Vec::new();
        if !self.tail.is_empty() {
            hashes.push(layout::hash(&self.tail));
            end.extend_from_slice(&self.tail);
            pad(&mut end);
        }
        let hash = layout::hash_of_hashes(&hashes);
        if hashes.len() > 1 {
            end.extend_from_slice(hashes.as_flattened());
            pad(&mut end);
        }
        if !end.is_empty() {
            volume.write_blocks(self.extent.first + self.hashes.len() as u64 * CHUNK_BLOCKS, &end)?;
        }
        held(&volume.space).trim(&mut self.extent, layout::file_blocks(size));
        Ok(Sealed { extent: self.extent, size, hash })
    }

    /// Reads a complete chunk back.
    fn chunk(&self, volume: &Volume, index: usize) -> Result<Vec<u8>, StoreError> {
        let chunk = volume.read_blocks(self.extent.first + index as u64 * CHUNK_BLOCKS, CHUNK)?;
        if layout::hash(&chunk) == self.hashes[index] { Ok(chunk) } else { Err(StoreError::Damaged) }
    }

    fn write_chunk(&mut self, volume: &Volume, index: usize, chunk: &[u8]) -> Result<(), StoreError> {
        volume.write_chunk(self.extent.first + index as u64 * CHUNK_BLOCKS, chunk)?;
        let hash = layout::hash(chunk);
        if index == self.hashes.len() {
            self.hashes.push(hash);
        } else {
            self.hashes[index] = hash;
        }
        Ok(())
    }

    /// Makes the extent large enough for a file of `size` bytes: in place, or by moving to one twice as large.
    fn reserve(&mut self, volume: &Volume, size: u64) -> Result<(), StoreError> {
        if size > FILE_SIZE_MAX {
            return Err(StoreError::TooLarge);
        }
        let needed = layout::file_blocks(size);
        let wanted = needed.saturating_mul(2);
        if held(&volume.space).extend(&mut self.extent, needed, wanted) {
            return Ok(());
        }
        let mut extent = volume.take(|space| space.allocate_growing(needed, wanted))?;
        for index in 0..self.hashes.len() {
            let moved = self
                .chunk(volume, index)
                .and_then(|chunk| volume.write_blocks(extent.first + index as u64 * CHUNK_BLOCKS, &chunk));
            if let Err(error) = moved {
                volume.release(extent);
                return Err(error);
            }
        }
        std::mem::swap(&mut self.extent, &mut extent);
        volume.release(extent);
        Ok(())
    }
}
