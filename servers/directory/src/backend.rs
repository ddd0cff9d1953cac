//! redb's file: writes wait in memory until the store, outside all of redb's locks, brings them to the disk.
//!
//! redb calls its backend while it holds locks that lookups need, so nothing in here may take long: a write goes
//! into the open segment, and `sync_data` only closes that segment. [`Pages::drain`] later writes the closed segments
//! in their order, with a flush after each: at every moment the disk is as redb's own file could be, the disk lags
//! behind, and a flush never makes a lookup wait. What is lost in a crash is in the log.
//!
//! It expects of the disk that `read` and `size` do not park; whatever [`Pages::drain`] does may.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use amoeba_world::{Disk, DiskError};
use redb::StorageBackend;

const PAGE_SIZE: u64 = 4096;
/// Bytes that one write to the disk joins.
const WRITE_SIZE_MAX: usize = 1 << 20;

type Page = Arc<[u8; PAGE_SIZE as usize]>;

/// Pages written between two syncs.
#[derive(Clone, Default)]
struct Segment {
    pages: BTreeMap<u64, Page>,
    /// Bytes of the file after this segment.
    length: u64,
}

struct State {
    closed: VecDeque<Arc<Segment>>,
    open: Segment,
}

/// The file that redb sees. Cheap to clone; all clones are one file.
#[derive(Clone)]
pub struct Pages(Arc<Inner>);

struct Inner {
    disk: Arc<dyn Disk>,
    state: Mutex<State>,
}

impl Pages {
    /// The file on `disk` as it is now.
    pub fn new(disk: Arc<dyn Disk>) -> Pages {
        let open = Segment { pages: BTreeMap::new(), length: disk.size() };
        Pages(Arc::new(Inner { disk, state: Mutex::new(State { closed: VecDeque::new(), open }) }))
    }

    /// Bytes of the file.
    pub fn size(&self) -> u64 {
        self.state().open.length
    }

    /// Bytes that wait in memory.
    pub fn waiting(&self) -> u64 {
        let state = self.state();
        let closed: usize = state.closed.iter().map(|segment| segment.pages.len()).sum();
        (closed + state.open.pages.len()) as u64 * PAGE_SIZE
    }

    /// Brings what was synced to the disk. One thread at a time; may park. After [`DiskError::Full`] it may be tried
    /// again, after [`DiskError::Failed`] not.
    pub fn drain(&self) -> Result<(), DiskError> {
        loop {
            let Some(segment) = self.state().closed.front().cloned() else { return Ok(()) };
            if segment.length != self.0.disk.size() {
                self.0.disk.set_size(segment.length)?;
            }
            write_runs(&segment, |offset, bytes| self.0.disk.write(offset, bytes))?;
            self.0.disk.flush()?;
            self.state().closed.pop_front();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The newest waiting pages of a range, and the file's length.
    fn overlay(&self, offset: u64, length: usize) -> (Vec<(u64, Page)>, u64) {
        let state = self.state();
        let range = offset / PAGE_SIZE..(offset + length as u64).div_ceil(PAGE_SIZE);
        let mut pages = BTreeMap::new();
        for segment in state.closed.iter().map(|segment| &**segment).chain([&state.open]) {
            pages.extend(segment.pages.range(range.clone()).map(|(&number, page)| (number, page.clone())));
        }
        (pages.into_iter().collect(), state.open.length)
    }

    fn read_range(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let (pages, length) = self.overlay(offset, out.len());
        if offset.checked_add(out.len() as u64).is_none_or(|end| end > length) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let covered =
            pages.len() as u64 == (offset + out.len() as u64).div_ceil(PAGE_SIZE) - offset / PAGE_SIZE;
        if !covered {
            // Without the lock: a page that is being drained meanwhile is in `pages` and covers what is read here.
            let there = self.0.disk.size().saturating_sub(offset).min(out.len() as u64) as usize;
            self.0.disk.read(offset, &mut out[..there]).map_err(io::Error::other)?;
            out[there..].fill(0);
        }
        for (number, page) in pages {
            let start = number * PAGE_SIZE;
            let from = start.max(offset);
            let to = (start + PAGE_SIZE).min(offset + out.len() as u64);
            out[(from - offset) as usize..(to - offset) as usize]
                .copy_from_slice(&page[(from - start) as usize..(to - start) as usize]);
        }
        Ok(())
    }

    fn write_range(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let end = offset + data.len() as u64;
        let mut at = offset;
        while at < end {
            let number = at / PAGE_SIZE;
            let start = number * PAGE_SIZE;
            let to = (start + PAGE_SIZE).min(end);
            let part = &data[(at - offset) as usize..(to - offset) as usize];
            let mut page = [0; PAGE_SIZE as usize];
            if part.len() < page.len() {
                let length = self.state().open.length;
                let there = length.saturating_sub(start).min(PAGE_SIZE) as usize;
                self.read_range(start, &mut page[..there])?;
            }
            page[(at - start) as usize..(to - start) as usize].copy_from_slice(part);
            let mut state = self.state();
            state.open.pages.insert(number, Arc::new(page));
            state.open.length = state.open.length.max(to);
            at = to;
        }
        Ok(())
    }
}

/// Gives the pages of a segment within its length to `write`, neighbours joined, a piece at a time: a copy of all of
/// them would double the memory that a checkpoint takes.
fn write_runs(
    segment: &Segment,
    mut write: impl FnMut(u64, &[u8]) -> Result<(), DiskError>,
) -> Result<(), DiskError> {
    let (mut begin, mut run) = (0, Vec::new());
    for (&number, page) in &segment.pages {
        let start = number * PAGE_SIZE;
        let length = segment.length.saturating_sub(start).min(PAGE_SIZE) as usize;
        let joins = begin + run.len() as u64 == start && run.len() < WRITE_SIZE_MAX;
        if !joins && !run.is_empty() {
            write(begin, &run)?;
            run.clear();
        }
        if run.is_empty() {
            begin = start;
        }
        run.extend_from_slice(&page[..length]);
    }
    if run.is_empty() { Ok(()) } else { write(begin, &run) }
}

impl StorageBackend for Pages {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state().open.length)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.read_range(offset, out)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let mut state = self.state();
        if length < state.open.length {
            // Pages beyond the end must not come back when the file grows again.
            let end = length.div_ceil(PAGE_SIZE);
            let old_end = state.open.length.div_ceil(PAGE_SIZE);
            (end..old_end).for_each(|number| {
                state.open.pages.insert(number, Arc::new([0; PAGE_SIZE as usize]));
            });
        }
        state.open.length = length;
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.state();
        let length = state.open.length;
        let segment = std::mem::replace(&mut state.open, Segment { pages: BTreeMap::new(), length });
        let before = state.closed.back().map_or(self.0.disk.size(), |segment| segment.length);
        if !segment.pages.is_empty() || segment.length != before {
            state.closed.push_back(Arc::new(segment));
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.write_range(offset, data)
    }
}

impl std::fmt::Debug for Pages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pages")
    }
}
