//! The bytes of an uncommitted file: in memory while it is small, in a reserved extent on disk once it is not.
//!
//! On disk, chunks that are complete are written with their hashes kept here; the last, incomplete chunk stays in
//! memory, and so do a few complete ones that the carrier has not brought to the disk yet. No record on disk names such
//! an extent, so a crash forgets it.

use std::collections::VecDeque;
use std::sync::Arc;

use super::carrier::Parcel;
use super::error::StoreError;
use super::held;
use super::layout::{self, BLOCK_SIZE, CHUNK_SIZE, FILE_SIZE_MAX, HASH_SIZE, Hash};
use super::space::Extent;
use super::volume::{Volume, pad};

const CHUNK: usize = CHUNK_SIZE as usize;
const CHUNK_BLOCKS: u64 = CHUNK_SIZE / BLOCK_SIZE;
/// Memory counted for an uncommitted file besides its bytes.
const OVERHEAD: u64 = 256;
/// Chunks of one file that may be on their way to the disk: one that is carried, one that waits.
pub(super) const PENDING_MAX: usize = 2;
/// Blocks that a file on disk has from the beginning, where there are as many: so that few have to move while they grow.
const FIRST_BLOCKS: u64 = 16 * CHUNK_BLOCKS;

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
                    // The last chunk and those under way are counted whole: they come without asking.
                    let chunks = spill.tail.capacity().max(CHUNK) + spill.pending_max * CHUNK;
                    (chunks + spill.hashes.capacity() * HASH_SIZE) as u64
                }
            }
    }

    /// Frees what it holds on disk.
    pub(crate) fn discard(self, volume: &Volume) {
        if let Contents::Spilled(spill) = self {
            spill.discard(volume);
        }
    }

    /// Moves it to disk; from then on so many of its chunks may be under way.
    pub(crate) fn spill(&mut self, volume: &Volume, pending_max: usize) -> Result<(), StoreError> {
        if let Contents::Memory(data) = self {
            let mut spill = Spill { pending_max, ..Spill::default() };
            if let Err(error) = spill.append(volume, data) {
                spill.discard(volume);
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
                Edit::Modify { offset, data } => spill.overwrite(volume, offset, data),
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
    /// Of the complete chunks that are there.
    hashes: Vec<Hash>,
    /// The complete chunks behind them, at most `pending_max`: on their way.
    pending: VecDeque<Arc<Parcel>>,
    pending_max: usize,
    /// What is behind those: less than a chunk.
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
        self.chunk_count() as u64 * CHUNK_SIZE + self.tail.len() as u64
    }

    /// Complete chunks.
    fn chunk_count(&self) -> usize {
        self.hashes.len() + self.pending.len()
    }

    /// Frees its place, in which nothing is written any more.
    fn discard(self, volume: &Volume) {
        self.pending.iter().for_each(|parcel| drop(parcel.take_back()));
        volume.release(self.extent);
    }

    /// Adds bytes at the end. After an error nothing is added, unless the disk failed.
    pub(crate) fn append(&mut self, volume: &Volume, data: &[u8]) -> Result<(), StoreError> {
        self.reserve(volume, self.size() + data.len() as u64)?;
        let before = self.size();
        self.append_reserved(volume, data).or_else(|error| {
            self.cut(volume, before)?;
            Err(error)
        })
    }

    fn append_reserved(&mut self, volume: &Volume, mut data: &[u8]) -> Result<(), StoreError> {
        while !data.is_empty() {
            if self.tail.is_empty() && data.len() >= CHUNK && self.pending_max == 0 {
                let (chunk, rest) = data.split_at(CHUNK);
                self.write_chunk(volume, self.hashes.len(), chunk)?;
                data = rest;
                continue;
            }
            let (more, rest) = data.split_at(data.len().min(CHUNK - self.tail.len()));
            self.tail.extend_from_slice(more);
            data = rest;
            if self.tail.len() == CHUNK {
                self.complete(volume)?;
            }
        }
        Ok(())
    }

    /// Brings the full tail on its way.
    fn complete(&mut self, volume: &Volume) -> Result<(), StoreError> {
        if self.pending_max > 0 {
            self.make_room(volume)?;
            let chunk = std::mem::take(&mut self.tail);
            self.leave(volume, chunk);
            return Ok(());
        }
        let mut chunk = std::mem::take(&mut self.tail);
        let written = self.write_chunk(volume, self.hashes.len(), &chunk);
        if written.is_ok() {
            chunk.clear();
        }
        self.tail = chunk;
        written
    }

    /// The same for bytes that need not be copied if they are a chunk.
    fn append_owned(&mut self, volume: &Volume, data: Vec<u8>) -> Result<(), StoreError> {
        if data.len() != CHUNK || !self.tail.is_empty() || self.pending_max == 0 {
            return self.append(volume, &data);
        }
        self.reserve(volume, self.size() + CHUNK_SIZE)?;
        self.make_room(volume)?;
        self.leave(volume, data);
        Ok(())
    }

    /// Sees to it that one more chunk may be under way.
    fn make_room(&mut self, volume: &Volume) -> Result<(), StoreError> {
        while self.pending.len() >= self.pending_max {
            let Some(first) = self.pending.front() else { break };
            let hash = first.carry(volume)?;
            self.hashes.push(hash);
            self.pending.pop_front();
        }
        Ok(())
    }

    fn leave(&mut self, volume: &Volume, chunk: Vec<u8>) {
        let block = self.extent.first + self.chunk_count() as u64 * CHUNK_BLOCKS;
        self.pending.push_back(volume.carrier.leave(block, chunk));
    }

    /// Brings everything complete to the disk. After an error nothing is lost.
    fn settle(&mut self, volume: &Volume) -> Result<(), StoreError> {
        // The last one first: the carrier may be at the first.
        self.pending.iter().rev().try_for_each(|parcel| parcel.carry(volume).map(drop))?;
        while let Some(parcel) = self.pending.pop_front() {
            self.hashes.push(parcel.carry(volume)?);
        }
        Ok(())
    }

    /// Takes the bytes behind `size` away.
    fn cut(&mut self, volume: &Volume, size: u64) -> Result<(), StoreError> {
        let (count, rest) = ((size / CHUNK_SIZE) as usize, (size % CHUNK_SIZE) as usize);
        while self.chunk_count() > count {
            let index = self.chunk_count() - 1;
            let last = match self.pending.pop_back() {
                Some(parcel) => parcel.take_back(),
                None => Err(self.hashes.pop().expect("a chunk is under way or written")),
            };
            self.tail = match last {
                _ if index > count || rest == 0 => Vec::new(),
                Ok(chunk) => chunk,
                Err(hash) => self.read_chunk(volume, index, hash)?,
            };
        }
        self.tail.truncate(rest);
        Ok(())
    }

    /// Overwrites from `offset` on, lengthening the file where it must.
    fn overwrite(&mut self, volume: &Volume, mut offset: u64, data: Vec<u8>) -> Result<(), StoreError> {
        if offset == self.size() {
            return self.append_owned(volume, data);
        }
        self.reserve(volume, self.size().max(offset + data.len() as u64))?;
        self.settle(volume)?;
        let mut data = &data[..];
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
        self.settle(volume)?;
        let mut copy = Spill { pending_max: self.pending_max, ..Spill::default() };
        let made = copy
            .append_from(volume, self, 0, offset)
            .and_then(|()| copy.append(volume, data))
            .and_then(|()| copy.append_from(volume, self, resume.min(self.size()), self.size()));
        if made.is_ok() {
            std::mem::swap(self, &mut copy);
        }
        copy.discard(volume);
        made
    }

    /// Adds part of another one, whose complete chunks are all written.
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
        self.settle(volume)?;
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

    /// Reads back a complete chunk that is written.
    fn chunk(&self, volume: &Volume, index: usize) -> Result<Vec<u8>, StoreError> {
        self.read_chunk(volume, index, self.hashes[index])
    }

    fn read_chunk(&self, volume: &Volume, index: usize, hash: Hash) -> Result<Vec<u8>, StoreError> {
        let chunk = volume.read_blocks(self.extent.first + index as u64 * CHUNK_BLOCKS, CHUNK)?;
        if layout::hash(&chunk) == hash { Ok(chunk) } else { Err(StoreError::Damaged) }
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
        let wanted = needed.saturating_mul(2).max(FIRST_BLOCKS);
        if held(&volume.space).extend(&mut self.extent, needed, wanted) {
            return Ok(());
        }
        self.settle(volume)?;
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
