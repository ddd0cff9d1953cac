//! Destroying files, and what keeps them from it: touch and age.
//!
//! A destroyed file's record is cleared and flushed before the answer, so that no crash brings its capability back;
//! only then can its number and its blocks mean another file.

use amoeba_cap::ObjectNumber;

use super::space::Extent;
use super::table::{FileState, LIFETIME_MAX};
use super::{Counter, FileId, Store, StoreError};

/// A file that is gone but whose place is not free yet.
struct Condemned {
    number: u32,
    /// What to free; nothing of a damaged file, whose blocks may be another's.
    extent: Extent,
    /// Whether a cleared record must be flushed first.
    recorded: bool,
}

/// Entries looked at under one lock while ageing.
const AGE_STEP: u32 = 65536;

impl Store {
    /// Destroys a file, committed or not.
    ///
    /// # Errors
    /// NoSuchFile, DiskFailed, WriteProtected.
    pub fn destroy(&self, file: FileId) -> Result<(), StoreError> {
        self.count(Counter::Destroy);
        let condemned = self.condemn(file, false)?;
        self.bury(condemned.into_iter().collect())
    }

    /// Lets a committed file live on; does nothing for any other.
    pub fn touch(&self, object: ObjectNumber) {
        self.with(|state| match state.table.get(object.get()) {
            Some(entry) if entry.is_committed() => state.table.get_mut(object.get()).lifetime = LIFETIME_MAX,
            _ => {}
        });
    }

    /// Brings every committed file one age nearer to its end, and destroys those that reached it. Returns how many.
    ///
    /// # Errors
    /// DiskFailed, WriteProtected.
    pub fn age(&self) -> Result<usize, StoreError> {
        self.count(Counter::StdAge);
        self.volume.writable()?;
        let mut start = 1u32;
        let mut destroyed = 0;
        loop {
            let (dead, next) = self.with(|state| {
                let end = start.saturating_add(AGE_STEP).min(state.table.len());
                let mut dead = Vec::new();
                for number in start..end {
                    let entry = state.table.get_mut(number);
                    if entry.is_committed() {
                        entry.lifetime = entry.lifetime.saturating_sub(1);
                        if entry.lifetime == 0 {
                            let object = ObjectNumber::new(number).expect("the table has 2^24 entries");
                            dead.push(FileId { object, random: entry.random });
                        }
                    }
                }
                (dead, end)
            });
            let mut condemned = Vec::new();
            for file in dead {
                match self.condemn(file, true) {
                    Ok(found) => condemned.extend(found),
                    Err(StoreError::NoSuchFile) => {} // destroyed meanwhile
                    Err(error) => return Err(error),
                }
            }
            destroyed += condemned.len();
            condemned.iter().for_each(|_| self.count(Counter::Aged));
            self.bury(condemned)?;
            if next == start || next >= self.with(|state| state.table.len()) {
                return Ok(destroyed);
            }
            start = next;
        }
    }

    /// Makes a file invisible, waits for those who read it, and clears its record without a flush. With `if_dead`
    /// only when it was not touched since it died.
    fn condemn(&self, file: FileId, if_dead: bool) -> Result<Option<Condemned>, StoreError> {
        let number = file.number();
        let _lock = self.locks.exclusive(number);
        let (condemned, draft, forgotten) = self.with(|state| {
            let entry = *state.find(file)?;
            if if_dead && entry.lifetime > 0 {
                return Ok((None, None, Vec::new()));
            }
            let recorded = !matches!(entry.state, FileState::Draft | FileState::Dirty);
            if recorded {
                self.volume.writable()?;
            }
            let extent = match entry.state {
                FileState::Draft | FileState::Damaged => Extent::NONE,
                _ => entry.extent(),
            };
            state.table.get_mut(number).state = FileState::Condemned;
            state.damaged.remove(&number);
            let draft = state.remove_draft(number);
            Ok((Some(Condemned { number, extent, recorded }), draft, state.forget(number)))
        })?;
        drop(forgotten);
        if let Some(contents) = draft.and_then(|draft| draft.contents) {
            contents.discard(&self.volume);
        }
        if condemned.as_ref().is_some_and(|condemned| condemned.recorded) {
            self.volume.clear_record(number)?;
        }
        Ok(condemned)
    }

    /// Frees the places of condemned files once their cleared records are durable.
    fn bury(&self, condemned: Vec<Condemned>) -> Result<(), StoreError> {
        if condemned.iter().any(|condemned| condemned.recorded) {
            self.volume.flush().map_err(|_| StoreError::DiskFailed)?;
        }
        for Condemned { number, extent, .. } in condemned {
            self.volume.release(extent);
            self.with(|state| state.table.release(number));
        }
        Ok(())
    }
}
