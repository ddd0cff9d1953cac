//! Reading committed files. What comes from the disk is verified before anybody sees it.
//!
//! A large file that a reader of this host asks for becomes a memory file, once: the copy that this costs is the last one.

use std::ops::Range;
use std::sync::Arc;

use amoeba_server::Bulk;
use amoeba_threads::MutexGuard;
use amoeba_world::{Memory, Shared};

use super::cache::{Cached, Key};
use super::layout::{self, BLOCK_SIZE, CHUNK_SIZE, HASH_SIZE};
use super::sent::Sent;
use super::table::{Entry, FileState};
use super::{Counter, FileId, State, Store, StoreError, held};

/// Bytes from which on a reply is sent out of the cache; less is copied, and keeps nothing in memory.
const SHARED_SIZE_MIN: usize = 64 << 10;

/// Where the bytes of a file are to be had.
enum Source {
    Memory(Cached),
    Disk(Entry),
}

/// What a reader wanted of a file.
enum Part {
    Own(Vec<u8>),
    /// This range of what is in memory.
    Of(Cached, Range<usize>),
}

/// Room for a file that is being brought into memory.
struct Making<'s> {
    store: &'s Store,
    size: u64,
    _turn: Option<MutexGuard<'s, ()>>,
}

impl Drop for Making<'_> {
    fn drop(&mut self) {
        held(&self.store.state).making_size -= self.size;
    }
}

/// Makes a memory file of bytes, if the world has room for one.
pub type MakeMemory<'m> = dyn Fn(&[u8]) -> Option<Memory> + 'm;

/// A whole file, as a reader of this host may have it.
pub enum Whole {
    /// These are its bytes.
    Small(Vec<u8>),
    /// It is in memory that can be lent. As long as this is held, it counts as lent.
    Lendable(Memory),
    /// It has this size, and is to be read in pieces.
    Large(u64),
}

impl Store {
    /// Up to `size` bytes from `offset` on; fewer only at the end of the file.
    ///
    /// # Errors
    /// NoSuchFile (also an uncommitted one), BadArgument (an offset behind the end), Damaged, DiskFailed.
    pub fn read(&self, file: FileId, offset: u64, size: usize) -> Result<Vec<u8>, StoreError> {
        Ok(match self.part(file, offset, size)? {
            Part::Of(bytes, range) => bytes[range].to_vec(),
            Part::Own(bytes) => bytes,
        })
    }

    /// As [`Store::read`], for a reply: much of what is in memory is not copied, as long as replies that nobody has taken yet
    /// keep no more than a quarter of the memory for files.
    ///
    /// # Errors
    /// As [`Store::read`].
    pub fn read_bulk(&self, file: FileId, offset: u64, size: usize) -> Result<Bulk, StoreError> {
        let (bytes, range) = match self.part(file, offset, size)? {
            Part::Own(bytes) => return Ok(bytes.into()),
            Part::Of(bytes, range) => (bytes, range),
        };
        if range.len() < SHARED_SIZE_MIN {
            return Ok(bytes[range].to_vec().into());
        }
        Ok(match Sent::new(bytes, &self.replies, self.settings.sent_max()) {
            Ok(sent) => Bulk::Shared(Shared::new(Arc::new(sent), range)),
            Err(bytes) => bytes[range].to_vec().into(),
        })
    }

    fn part(&self, file: FileId, offset: u64, size: usize) -> Result<Part, StoreError> {
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
            return Ok(Part::Own(Vec::new()));
        }
        let range = offset as usize..(offset + size) as usize; // of what is in memory
        match source {
            Source::Memory(bytes) => {
                self.count(Counter::CacheHits);
                Ok(Part::Of(bytes, range))
            }
            Source::Disk(entry) if entry.size <= self.settings.whole_max() => {
                Ok(Part::Of(self.whole(file)?, range))
            }
            Source::Disk(_) => self.read_large(file, offset, size),
        }
    }

    /// A whole file: its bytes if they are at most `small_max`; else, for a reader of this host, a memory file made by
    /// `make`, if there may be another one and the file can be cached whole; else only its size.
    ///
    /// # Errors
    /// NoSuchFile (also an uncommitted one), Damaged, DiskFailed.
    pub fn read_whole(
        &self,
        file: FileId,
        small_max: u64,
        make: Option<&MakeMemory<'_>>,
    ) -> Result<Whole, StoreError> {
        let (entry, cached) = self.with(|state| {
            let entry = state.committed(file)?;
            let lends = make.is_some() && entry.size > small_max;
            Ok((entry, if lends { state.cache.get(Key::whole(file.number())) } else { None }))
        })?;
        let size = entry.size;
        if size <= small_max {
            return Ok(Whole::Small(self.read(file, 0, size as usize)?));
        }
        self.count(Counter::Read);
        if let Some(Cached::Lendable(memory)) = cached {
            self.count(Counter::CacheHits);
            return Ok(Whole::Lendable(memory));
        }
        let Some(make) = make.filter(|_| size <= self.settings.whole_max()) else {
            return Ok(Whole::Large(size));
        };
        if entry.state == FileState::Dirty {
            // What is lent may stay in memory for long, and what is not on disk must not. If it cannot be written, it is
            // read in pieces.
            let _ = self.write_dirty([file.number()]);
        }
        drop(cached);
        drop(self.whole(file)?); // it is in memory now, and may leave it before the next line
        Ok(self.make_lendable(file, size, make)?.map_or(Whole::Large(size), Whole::Lendable))
    }

    /// Turns a cached file into a memory file, if there may be another one.
    fn make_lendable(
        &self,
        file: FileId,
        size: u64,
        make: &MakeMemory<'_>,
    ) -> Result<Option<Memory>, StoreError> {
        // Exclusive, so that a file that many want is turned into one once.
        let _lock = self.locks.exclusive(file.number());
        let key = Key::whole(file.number());
        let entry = self.with(|state| state.committed(file))?;
        let bytes = match self.with(|state| state.cache.get(key)) {
            Some(Cached::Lendable(memory)) => return Ok(Some(memory)),
            Some(Cached::Own(bytes)) if entry.state == FileState::Stored => bytes,
            _ => return Ok(None),
        };
        let lendable_max = self.settings.lendable_max();
        let (fits, made_way) = self.with(|state| state.cache.make_lendable_room(size, lendable_max));
        drop(made_way); // to free megabytes takes time, so not under the lock
        let making = self.making(size);
        let Some(memory) = fits.then(|| make(&bytes)).flatten() else { return Ok(None) };
        drop((making, bytes));
        let (fits, made_way) = self.with(|state| {
            // Meanwhile another file may have taken the room.
            let (fits, mut made_way) = state.cache.make_lendable_room(size, lendable_max);
            if fits {
                made_way.extend(state.cache.insert(key, memory.clone()));
            }
            (fits, made_way)
        });
        drop(made_way);
        Ok(fits.then_some(memory))
    }

    /// A whole file that is small enough to be cached whole.
    pub(super) fn whole(&self, file: FileId) -> Result<Cached, StoreError> {
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
        let making = self.making(entry.size);
        let bytes = Cached::from(Arc::new(self.load(file.number(), &entry)?));
        drop(making);
        self.with(|state| state.cache.insert(Key::whole(file.number()), bytes.clone()));
        Ok(bytes)
    }

    /// Makes room for a file of `size` bytes that is about to be brought into memory; of large ones one at a time.
    fn making(&self, size: u64) -> Making<'_> {
        let turn = (size > self.settings.whole_max() / 4).then(|| self.large.lock());
        self.with(|state| state.making_size += size);
        Making { store: self, size, _turn: turn }
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

    fn read_large(&self, file: FileId, offset: u64, size: u64) -> Result<Part, StoreError> {
        let _lock = self.locks.shared(file.number());
        let entry = self.with(|state| state.committed(file))?;
        let (first, end) = (offset / CHUNK_SIZE, offset + size);
        if end <= (first + 1) * CHUNK_SIZE {
            // Who wants all of it at once reads on, and as a rule does not come back: what others have in the cache stays.
            let keep = size < CHUNK_SIZE.min(entry.size - first * CHUNK_SIZE);
            let chunk = self.chunk(file.number(), &entry, first, keep)?;
            let start = (offset % CHUNK_SIZE) as usize;
            return Ok(Part::Of(chunk, start..start + size as usize));
        }
        let mut bytes = Vec::with_capacity(size as usize);
        let mut offset = offset;
        while offset < end {
            let index = offset / CHUNK_SIZE;
            let stop = ((index + 1) * CHUNK_SIZE).min(end);
            let keep = stop - offset < CHUNK_SIZE.min(entry.size - index * CHUNK_SIZE);
            let chunk = self.chunk(file.number(), &entry, index, keep)?;
            bytes.extend_from_slice(slice(&chunk, offset - index * CHUNK_SIZE, stop - offset));
            offset = stop;
        }
        Ok(Part::Own(bytes))
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
    pub(super) fn chunk(
        &self,
        number: u32,
        entry: &Entry,
        index: u64,
        keep: bool,
    ) -> Result<Cached, StoreError> {
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
        let mut bytes = self.replies.room(size);
        self.volume.read_into(entry.first + start / BLOCK_SIZE, &mut bytes)?;
        if layout::hash(&bytes) != expected {
            return Err(self.note_damage(number));
        }
        let bytes = Cached::from(Arc::new(bytes));
        if keep {
            self.with(|state| state.cache.insert(key, bytes.clone()));
        }
        Ok(bytes)
    }

    /// The verified hash table of a large file.
    pub(super) fn hashes(&self, number: u32, entry: &Entry) -> Result<Cached, StoreError> {
        let key = Key::hashes(number);
        if let Some(bytes) = self.with(|state| state.cache.get(key)) {
            return Ok(bytes);
        }
        let size = layout::table_size(entry.size) as usize;
        let table = self.volume.read_blocks(entry.first + layout::data_blocks(entry.size), size)?;
        if layout::hash(&table) != entry.hash {
            return Err(self.note_damage(number));
        }
        let table = Cached::from(Arc::new(table));
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
            return Ok(Source::Memory(bytes.clone().into()));
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
