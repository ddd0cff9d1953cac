//! What a file holds while a process writes it here.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use amoeba_volume::Time;

use super::store::Store;

/// A file without a name that has the contents.
pub(crate) struct Scratch {
    pub(crate) file: File,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    dirty: bool,
    modified: Option<Time>,
}

impl Scratch {
    pub(crate) fn new(store: &Store) -> io::Result<Scratch> {
        let (path, file) = store.begin()?;
        std::fs::remove_file(path)?;
        Ok(Scratch { file, state: Mutex::default() })
    }

    pub(crate) fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write_all_at(data, offset)?;
        self.touch();
        Ok(())
    }

    pub(crate) fn set_size(&self, size: u64) -> io::Result<()> {
        self.file.set_len(size)?;
        self.touch();
        Ok(())
    }

    pub(crate) fn size(&self) -> u64 {
        self.file.metadata().map_or(0, |facts| facts.len())
    }

    /// When it was written last, or what was set since.
    pub(crate) fn modified(&self) -> Time {
        use std::os::unix::fs::MetadataExt;
        let set = self.state().modified;
        set.unwrap_or_else(|| {
            self.file.metadata().map_or_else(
                |_| Time::default(),
                |facts| Time { seconds: facts.mtime(), nanoseconds: facts.mtime_nsec() as u32 },
            )
        })
    }

    pub(crate) fn set_modified(&self, time: Time) {
        self.state().modified = Some(time);
    }

    /// What it holds is not what the caller has.
    pub(crate) fn touch(&self) {
        let mut state = self.state();
        (state.dirty, state.modified) = (true, None);
    }

    pub(crate) fn is_dirty(&self) -> bool {
        self.state().dirty
    }

    /// Whether it was to be sent; from now on it is not, until it is written again.
    pub(crate) fn take_dirty(&self) -> bool {
        std::mem::take(&mut self.state().dirty)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
