//! Reading committed files. What comes from the disk is verified before anybody sees it.

use std::sync::Arc;

use super::cache::{Bytes, Key};
use super::layout::{self, BLOCK_SIZE, CHUNK_SIZE, HASH_SIZE};
use super::table::Entry;
use super::{Counter, FileId, State, Store, StoreError};

/// Where the bytes of a file are to be had.
enum Source {
    Memory(Bytes),
    Disk(Entry),
}

impl Store {
    /// Up to `size` bytes from `offset` on; fewer only at the end of the file.
    ///
    /// # Errors
    /// NoSuchFile (also an uncommitted one), BadArgument (an offset behind the end), Damaged, DiskFailed.
    pub fn read(&self, file: FileId, offset: u64, size: usize) -> Result<Vec<u8>, StoreError> {
        self.count(Counter::Read);
        let source = self.with(|state| state.source(file))?;
        let file_size = match &source {
            Source::Memory(bytes) => bytes.len() as u64,
            Source::Disk(entry) => entry.size,
        };
        if offset > file_size {
            return Err(StoreError::BadArgument);
        }
        let size = (file_size - offset).min(size as u64);
        if size == 0 {
            return Ok(Vec::new());
        }
        match source {
            Source::Memory(bytes) => {
                self.count(Counter::CacheHits);
                Ok(slice(&bytes, offset, size).to_vec())
            }
            Source::Disk(entry) if entry.size <= self.settings.whole_max() => {
                Ok(slice(&self.whole(file)?, offset, size).to_vec())
            }
            Source::Disk(_) => self.read_large(file, offset, size),
        }
    }

    /// A whole file that is small enough to be cached whole.
    pub(super) fn whole(&self, file: FileId) -> Result<Bytes, StoreError> {
        if let Source::Memory(bytes) = self.with(|state| state.source(file))? {
            self.count(Counter::CacheHits);
            return Ok(bytes);
        }
        // Exclusive, so that a file wanted by many at once is loaded once.
        let _lock = self.locks.exclusive(file.number());
        let entry = match self.with(|state| state.source(file))? {
            Source::Memory(bytes) => return Ok(bytes),
            Source::Disk(entry) => entry,
        };
        self.count(Counter::CacheMisses);
        let bytes = Arc::new(self.load(file.number(), &entry)?);
        self.with(|state| state.cache.insert(Key::whole(file.number()), bytes.clone()));
        Ok(bytes)
    }

    /// Reads data and hashes of a whole file in one go.
    fn load(&self, number: u32, entry: &Entry) -> Result<Vec<u8>, StoreError> {
        let extent = entry.extent();
        let mut bytes = self.volume.read_blocks(extent.first, (extent.blocks * BLOCK_SIZE) as usize)?;
        let size = entry.size as usize;
        let table_at = (layout::data_blocks(entry.size) * BLOCK_SIZE) as usize;
        let (hash, table) = layout::hash_contents(&bytes[..size]);
        if hash != entry.hash || !bytes[table_at..].starts_with(&table) {
            return Err(self.note_damage(number));
        }
        bytes.truncate(size);
        bytes.shrink_to_fit();
        Ok(bytes)
    }

    fn read_large(&self, file: FileId, offset: u64, size: u64) -> Result<Vec<u8>, StoreError> {
        let _lock = self.locks.shared(file.number());
        let entry = self.with(|state| state.committed(file))?;
        let mut bytes = Vec::with_capacity(size as usize);
        let (mut offset, end) = (offset, offset + size);
        while offset < end {
            let index = offset / CHUNK_SIZE;
            let stop = ((index + 1) * CHUNK_SIZE).min(end);
            let chunk = self.chunk(file.number(), &entry, index, true)?;
            bytes.extend_from_slice(slice(&chunk, offset - index * CHUNK_SIZE, stop - offset));
            offset = stop;
        }
        Ok(bytes)
    }

    /// Gives every piece of a committed file, in order, in pieces of a chunk.
    pub(super) fn each_piece(
        &self,
        file: FileId,
        mut take: impl FnMut(&[u8]) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let _lock = self.locks.shared(file.number());
        let entry = match self.with(|state| state.source(file))? {
            Source::Memory(bytes) => return bytes.chunks(CHUNK_SIZE as usize).try_for_each(take),
            Source::Disk(entry) => entry,
        };
        (0..layout::chunk_count(entry.size))
            .try_for_each(|index| take(&self.chunk(file.number(), &entry, index, false)?))
    }

    /// One verified chunk of a file; the caller holds the file's lock. A sequential pass over everything does not
    /// `keep` what it reads, so that it does not empty the cache.
    fn chunk(&self, number: u32, entry: &Entry, index: u64, keep: bool) -> Result<Bytes, StoreError> {
        let key = Key::chunk(number, index);
        if let Some(bytes) = self.with(|state| state.cache.get(key)) {
            self.count(Counter::CacheHits);
            return Ok(bytes);
        }
        let expected = if layout::table_size(entry.size) == 0 {
            entry.hash
        } else {
            let table = self.hashes(number, entry)?;
            let at = index as usize * HASH_SIZE;
            std::array::from_fn(|byte| table[at + byte])
        };
        self.count(Counter::CacheMisses);
        let start = index * CHUNK_SIZE;
        let size = (entry.size - start).min(CHUNK_SIZE) as usize;
        let bytes = self.volume.read_blocks(entry.first + start / BLOCK_SIZE, size)?;
        if layout::hash(&bytes) != expected {
            return Err(self.note_damage(number));
        }
        let bytes = Arc::new(bytes);
        if keep {
            self.with(|state| state.cache.insert(key, bytes.clone()));
        }
        Ok(bytes)
    }

    /// The verified hash table of a large file.
    fn hashes(&self, number: u32, entry: &Entry) -> Result<Bytes, StoreError> {
        let key = Key::hashes(number);
        if let Some(bytes) = self.with(|state| state.cache.get(key)) {
            return Ok(bytes);
        }
        let size = layout::table_size(entry.size) as usize;
        let table = self.volume.read_blocks(entry.first + layout::data_blocks(entry.size), size)?;
        if layout::hash(&table) != entry.hash {
            return Err(self.note_damage(number));
        }
        let table = Arc::new(table);
        self.with(|state| state.cache.insert(key, table.clone()));
        Ok(table)
    }

    /// Reads and verifies everything of a file on disk, past the cache. The caller holds the file's lock, or is alone.
    pub(super) fn verify(&self, number: u32, entry: &Entry) -> Result<(), StoreError> {
        verify(&self.volume, entry).inspect_err(|&error| {
            if error == StoreError::Damaged {
                self.note_damage(number);
            }
        })
    }
}

/// Whether the bytes on disk are those that the entry's hash covers.
pub(super) fn verify(volume: &super::Volume, entry: &Entry) -> Result<(), StoreError> {
    let table_size = layout::table_size(entry.size) as usize;
    let table = volume.read_blocks(entry.first + layout::data_blocks(entry.size), table_size)?;
    if table_size > 0 && layout::hash(&table) != entry.hash {
        return Err(StoreError::Damaged);
    }
    let count = layout::chunk_count(entry.size).max(1);
    for index in 0..count {
        let start = index * CHUNK_SIZE;
        let size = (entry.size - start).min(CHUNK_SIZE) as usize;
        let chunk = volume.read_blocks(entry.first + start / BLOCK_SIZE, size)?;
        let at = index as usize * HASH_SIZE;
        let expected = if table_size > 0 { &table[at..at + HASH_SIZE] } else { &entry.hash };
        if layout::hash(&chunk) != *expected {
            return Err(StoreError::Damaged);
        }
    }
    Ok(())
}

impl State {
    fn source(&mut self, file: FileId) -> Result<Source, StoreError> {
        let entry = self.committed(file)?;
        if let Some(bytes) = self.dirty.get(&file.number()) {
            return Ok(Source::Memory(bytes.clone()));
        }
        Ok(match self.cache.get(Key::whole(file.number())) {
            Some(bytes) => Source::Memory(bytes),
            None => Source::Disk(entry),
        })
    }
}

fn slice(bytes: &[u8], offset: u64, size: u64) -> &[u8] {
    &bytes[offset as usize..(offset + size) as usize]
}
