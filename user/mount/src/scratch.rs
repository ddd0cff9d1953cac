//! The contents of a file that is being written: in memory while they are small, else in a file of the host.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use amoeba_volume::{Allocation, Error, Seek};
use rustix::fs::{FallocateFlags, SeekFrom};

use crate::journal::Note;

/// Bytes of a scratch that is kept in memory; what grows past it moves to a file.
const IN_MEMORY_MAX: u64 = 256 << 10;
/// Bytes of all scratches in memory together; past it the next ones are files from the beginning.
const ALL_IN_MEMORY_MAX: u64 = 64 << 20;
/// Bytes of the largest scratch: Linux's own bound.
pub(crate) const SIZE_MAX: u64 = i64::MAX as u64;

/// Where scratches lie. A folder that nobody else writes to.
#[derive(Debug)]
pub(crate) struct Scratches {
    folder: Arc<Path>,
    next: AtomicU64,
    in_memory: Arc<AtomicU64>,
}

impl Scratches {
    /// Scratches in `folder`, numbered from `first` on.
    pub(crate) fn new(folder: &Path, first: u64) -> Scratches {
        Scratches { folder: folder.into(), next: AtomicU64::new(first), in_memory: Arc::default() }
    }

    /// An empty one. Nothing is on the disk until it grows.
    pub(crate) fn make(&self) -> Arc<Scratch> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let body = Body::Memory(Vec::new());
        let place = Place::Numbered(Arc::clone(&self.folder));
        let in_memory = Arc::clone(&self.in_memory);
        Arc::new(Scratch {
            number,
            place,
            body: RwLock::new(body),
            size: AtomicU64::new(0),
            changes: AtomicU64::new(0),
            in_memory,
            note: Mutex::default(),
        })
    }
}

/// See the module. Its file, if it has one, goes with it unless it was [kept](Scratch::keep).
#[derive(Debug)]
pub(crate) struct Scratch {
    number: u64,
    place: Place,
    body: RwLock<Body>,
    size: AtomicU64,
    /// How often it was changed.
    changes: AtomicU64,
    /// Bytes of all in memory.
    in_memory: Arc<AtomicU64>,
    /// What the journal says of it.
    note: Mutex<Option<Note>>,
}

/// Where its file lies, if it has one.
#[derive(Debug)]
enum Place {
    /// In this folder, under its number.
    Numbered(Arc<Path>),
    Here(PathBuf),
}

#[derive(Debug)]
enum Body {
    Memory(Vec<u8>),
    OnDisk { file: File, keep: bool },
}

/// What the host said in place of doing it.
pub(crate) fn refused(error: &io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::StorageFull => Error::NoSpace,
        io::ErrorKind::QuotaExceeded => Error::QuotaExceeded,
        io::ErrorKind::FileTooLarge => Error::TooLarge,
        _ => {
            tracing::warn!("a scratch: {error}");
            Error::Io
        }
    }
}

impl Scratch {
    /// One that an earlier process has left.
    pub(crate) fn reopen(number: u64, path: &Path) -> io::Result<Scratch> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let size = AtomicU64::new(file.metadata()?.len());
        let body = RwLock::new(Body::OnDisk { file, keep: true });
        Ok(Scratch {
            number,
            place: Place::Here(path.to_owned()),
            body,
            size,
            changes: AtomicU64::new(0),
            in_memory: Arc::default(),
            note: Mutex::default(),
        })
    }

    /// One of an earlier process, whose contents are these.
    pub(crate) fn of(number: u64, path: &Path, data: Vec<u8>) -> Scratch {
        let size = AtomicU64::new(data.len() as u64);
        let in_memory = Arc::new(AtomicU64::new(data.len() as u64));
        let (body, place) = (RwLock::new(Body::Memory(data)), Place::Here(path.to_owned()));
        Scratch { number, place, body, size, changes: AtomicU64::new(0), in_memory, note: Mutex::default() }
    }

    /// Its number among those of its folder.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Bytes.
    pub(crate) fn size(&self) -> u64 {
        self.size.load(Ordering::Acquire)
    }

    fn body(&self) -> RwLockReadGuard<'_, Body> {
        self.body.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn body_mut(&self) -> RwLockWriteGuard<'_, Body> {
        self.body.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fills `bytes` from `offset` on; fewer than wanted only at the end.
    pub(crate) fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<usize, Error> {
        let left = self.size().saturating_sub(offset);
        let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
        let bytes = &mut bytes[..wanted];
        match &*self.body() {
            Body::Memory(data) => {
                let start = usize::try_from(offset).unwrap_or(usize::MAX).min(data.len());
                let there = data[start..].len().min(bytes.len());
                bytes[..there].copy_from_slice(&data[start..start + there]);
                Ok(there)
            }
            Body::OnDisk { file, .. } => {
                let mut done = 0;
                while done < bytes.len() {
                    match file.read_at(&mut bytes[done..], offset + done as u64) {
                        Ok(0) => break,
                        Ok(count) => done += count,
                        Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                        Err(error) => return Err(refused(&error)),
                    }
                }
                Ok(done)
            }
        }
    }

    /// All of it, which is small, and which nobody writes to.
    pub(crate) fn whole(&self) -> Result<Vec<u8>, Error> {
        let mut bytes = vec![0; self.size() as usize];
        let read = self.read(0, &mut bytes)?;
        // Less is there where the host has lost what it was given.
        if read == bytes.len() { Ok(bytes) } else { Err(Error::Io) }
    }

    /// Writes all of `data`.
    pub(crate) fn write(&self, offset: u64, data: &[u8]) -> Result<(), Error> {
        let end = offset.checked_add(data.len() as u64).filter(|end| *end <= SIZE_MAX);
        let end = end.ok_or(Error::TooLarge)?;
        self.make_room(end)?;
        self.changes.fetch_add(1, Ordering::AcqRel);
        let mut body = self.body_mut();
        match &mut *body {
            Body::Memory(bytes) => {
                let (start, end) = (offset as usize, end as usize); // in memory is only what is small
                if bytes.len() < end {
                    self.in_memory.fetch_add((end - bytes.len()) as u64, Ordering::Relaxed);
                    bytes.resize(end, 0);
                }
                bytes[start..end].copy_from_slice(data);
                self.size.store(bytes.len() as u64, Ordering::Release);
            }
            Body::OnDisk { file, .. } => {
                file.write_all_at(data, offset).map_err(|error| refused(&error))?;
                self.size.fetch_max(end, Ordering::AcqRel);
            }
        }
        Ok(())
    }

    /// Cuts it, or lengthens it with zeros.
    pub(crate) fn set_size(&self, size: u64) -> Result<(), Error> {
        if size > SIZE_MAX {
            return Err(Error::TooLarge);
        }
        self.make_room(size)?;
        self.changes.fetch_add(1, Ordering::AcqRel);
        let mut body = self.body_mut();
        match &mut *body {
            Body::Memory(bytes) => {
                let was = bytes.len() as u64;
                bytes.resize(size as usize, 0);
                self.in_memory.fetch_add(size, Ordering::Relaxed);
                self.in_memory.fetch_sub(was, Ordering::Relaxed);
            }
            Body::OnDisk { file, .. } => file.set_len(size).map_err(|error| refused(&error))?,
        }
        self.size.store(size, Ordering::Release);
        Ok(())
    }

    /// Moves it to a file if it is to be larger than what may stay in memory.
    fn make_room(&self, size: u64) -> Result<(), Error> {
        let others = self.in_memory.load(Ordering::Relaxed);
        let stays = size <= IN_MEMORY_MAX && others.saturating_add(size) <= ALL_IN_MEMORY_MAX;
        if stays { Ok(()) } else { self.move_to_disk() }
    }

    fn move_to_disk(&self) -> Result<(), Error> {
        let mut body = self.body_mut();
        let Body::Memory(bytes) = &mut *body else { return Ok(()) };
        let open = || -> io::Result<File> {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(true).mode(0o600);
            let file = options.open(self.path())?;
            file.write_all_at(bytes, 0)?;
            Ok(file)
        };
        let file = open().map_err(|error| refused(&error))?;
        self.in_memory.fetch_sub(bytes.len() as u64, Ordering::Relaxed);
        *body = Body::OnDisk { file, keep: false };
        Ok(())
    }

    /// As [`amoeba_volume::FileSystem::fallocate`].
    pub(crate) fn allocate(&self, offset: u64, size: u64, how: Allocation) -> Result<(), Error> {
        let end = offset.checked_add(size).filter(|end| *end <= SIZE_MAX).ok_or(Error::TooLarge)?;
        let (keep, zero) =
            (how.contains(Allocation::KEEP_SIZE), how.intersects(Allocation::PUNCH | Allocation::ZERO));
        if zero {
            self.clear(offset, end.min(self.size()))?;
        } else if end > IN_MEMORY_MAX {
            self.move_to_disk()?;
            if let Body::OnDisk { file, .. } = &*self.body() {
                let flags = FallocateFlags::KEEP_SIZE;
                rustix::fs::fallocate(file, flags, offset, size).map_err(|error| refused(&error.into()))?;
            }
        }
        if keep || end <= self.size() { Ok(()) } else { self.set_size(end) }
    }

    /// Zeros, with nothing behind them where the host can.
    fn clear(&self, from: u64, to: u64) -> Result<(), Error> {
        if from >= to {
            return Ok(());
        }
        self.changes.fetch_add(1, Ordering::AcqRel);
        match &mut *self.body_mut() {
            Body::Memory(bytes) => bytes[from as usize..to as usize].fill(0),
            Body::OnDisk { file, .. } => {
                let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                rustix::fs::fallocate(file, flags, from, to - from)
                    .map_err(|error| refused(&error.into()))?;
            }
        }
        Ok(())
    }

    /// As [`amoeba_volume::FileSystem::lseek`].
    pub(crate) fn seek(&self, offset: u64, what: Seek) -> Result<u64, Error> {
        let size = self.size();
        if offset >= size {
            return Err(Error::NothingThere);
        }
        match (&*self.body(), what) {
            (Body::Memory(_), Seek::Data) => Ok(offset),
            (Body::Memory(_), Seek::Hole) => Ok(size),
            (Body::OnDisk { file, .. }, what) => {
                let from = match what {
                    Seek::Data => SeekFrom::Data(offset),
                    Seek::Hole => SeekFrom::Hole(offset),
                };
                rustix::fs::seek(file, from).map_err(|error| match error {
                    rustix::io::Errno::NXIO => Error::NothingThere,
                    error => refused(&error.into()),
                })
            }
        }
    }

    /// Makes what was written survive a crash, in the file that [`Scratch::path`] names.
    pub(crate) fn sync(&self) -> Result<(), Error> {
        self.move_to_disk()?;
        match &*self.body() {
            Body::OnDisk { file, .. } => file.sync_data().map_err(|error| refused(&error)),
            Body::Memory(_) => unreachable!("it was just moved, and never comes back"),
        }
    }

    /// What the journal says of it.
    pub(crate) fn note(&self) -> MutexGuard<'_, Option<Note>> {
        self.note.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the journal has it.
    pub(crate) fn has_note(&self) -> bool {
        self.note().is_some()
    }

    /// How often it was changed so far.
    pub(crate) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// Whether nothing of it is in a file.
    pub(crate) fn is_in_memory(&self) -> bool {
        matches!(&*self.body(), Body::Memory(_))
    }

    /// Whether its file stays when this is dropped.
    pub(crate) fn keep(&self, keep: bool) {
        if let Body::OnDisk { keep: kept, .. } = &mut *self.body_mut() {
            *kept = keep;
        }
    }

    /// Its file, which is there once it was synced.
    pub(crate) fn path(&self) -> PathBuf {
        match &self.place {
            Place::Numbered(folder) => folder.join(format!("{}.data", self.number)),
            Place::Here(path) => path.clone(),
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let is_left = match self.body.get_mut().unwrap_or_else(PoisonError::into_inner) {
            Body::Memory(bytes) => {
                self.in_memory.fetch_sub(bytes.len() as u64, Ordering::Relaxed);
                false
            }
            Body::OnDisk { keep, .. } => !*keep,
        };
        if is_left {
            // Where it cannot be removed, the next mount of this folder does it.
            drop(std::fs::remove_file(self.path()));
        }
    }
}
