//! The tables as they will be once everything that was planned is durable, and `apply(entry)`, the one function that
//! changes them.
//!
//! Updates are planned one after another against the draft while the log still writes the ones before. `flight` has
//! the changes of the batch that is being written, `open` those of the next one.

use std::sync::Arc;

use amoeba_cap::ObjectNumber;

use crate::entry::{Change, Entry};
use crate::guarded::Guarded;
use crate::kept::KeptRow;
use crate::memory::{Overlay, Shared, directory_through, read, replace_all, row_through, with_key};
use crate::merged::{directories_from, rows_after};
use crate::row::{Directory, Name, Row};
use crate::tables::{State, TableError, row_key};

/// Candidates that are tried one by one before a free object number is searched for.
const PROBES_MAX: u32 = 64;

/// See the module.
pub struct Draft {
    memory: Shared,
    flight: Option<Arc<Overlay>>,
    open: Overlay,
    /// After the last entry that was applied.
    pub state: State,
}

impl Draft {
    /// What is visible now, nothing more.
    pub(crate) fn new(memory: &Shared) -> Draft {
        let state = read(memory).state();
        Draft { memory: memory.clone(), flight: None, open: Overlay::default(), state }
    }

    /// The changes so far go to the log, the next ones are another batch.
    pub(crate) fn take_off(&mut self) -> Arc<Overlay> {
        assert!(self.flight.is_none(), "one batch is written at a time");
        let flight = Arc::new(std::mem::take(&mut self.open));
        self.flight = Some(flight.clone());
        flight
    }

    /// What was on its way to the log is visible now.
    pub(crate) fn landed(&mut self) {
        self.flight = None;
    }

    /// Whether something is on its way to the log.
    pub(crate) fn in_flight(&self) -> bool {
        self.flight.is_some()
    }

    fn planned(&self) -> impl Iterator<Item = &Overlay> {
        [&self.open].into_iter().chain(self.flight.as_deref())
    }

    /// A row, if there is one.
    fn kept_row(&self, object: ObjectNumber, name: &Name) -> Result<Option<KeptRow>, TableError> {
        let row = with_key(object, name.as_bytes(), |key| {
            match self.planned().find_map(|overlay| overlay.row(key)) {
                Some(known) => Ok(Some(known.clone())),
                None => row_through(&read(&self.memory), key),
            }
        });
        Ok(row?.filter(KeptRow::is_there))
    }

    /// A row.
    pub fn row(&self, object: ObjectNumber, name: &Name) -> Result<Option<Row>, TableError> {
        let row = self.kept_row(object, name)?;
        row.as_ref().and_then(KeptRow::value).map(|value| Ok(Row::from_bytes(value)?)).transpose()
    }

    /// A directory.
    pub fn directory(&self, object: ObjectNumber) -> Result<Option<Arc<Guarded>>, TableError> {
        match self.planned().find_map(|overlay| overlay.directory(object)) {
            Some(known) => Ok(known.clone()),
            None => directory_through(&read(&self.memory), object),
        }
    }

    /// The names of at most `count` rows of a directory.
    pub fn names(&self, object: ObjectNumber, count: usize) -> Result<Vec<Name>, TableError> {
        let mut names: std::collections::BTreeSet<Name> = Default::default();
        let (start, end) = (object.get().to_be_bytes(), (object.get() + 1).to_be_bytes());
        let mut planned: std::collections::BTreeSet<KeptRow> = Default::default();
        for overlay in self.flight.as_deref().into_iter().chain([&self.open]) {
            replace_all(&mut planned, overlay.rows_between(&start, &end, usize::MAX));
        }
        for row in planned.iter().filter(|row| row.is_there()).take(count) {
            names.insert(Name::new(&row.key()[4..]).map_err(|_| TableError::Damaged)?);
        }
        rows_after(&self.memory, object, None, count, |name, _| {
            let gone = planned.get(&*row_key(object, &name)).is_some_and(|row| !row.is_there());
            if !gone && names.len() < count {
                names.insert(name);
            }
            names.len() < count
        })?;
        Ok(names.into_iter().collect())
    }

    /// The first free object number from the place where the last one was found; `None` when all are taken.
    pub fn free_object(&self) -> Result<Option<ObjectNumber>, TableError> {
        let first = self.state.next_object.max(1);
        for number in first..first.saturating_add(PROBES_MAX) {
            let Some(object) = ObjectNumber::new(number) else { break };
            if self.directory(object)?.is_none() {
                return Ok(Some(object));
            }
        }
        for start in [first, 1] {
            if let Some(object) = self.free_from(ObjectNumber::new(start).ok_or(TableError::Damaged)?)? {
                return Ok(Some(object));
            }
        }
        Ok(None)
    }

    /// The first free object number from `start` on.
    fn free_from(&self, start: ObjectNumber) -> Result<Option<ObjectNumber>, TableError> {
        let (mut free, mut found) = (start.get(), None);
        // Of what is not visible yet only new directories matter: a number that becomes free later is not needed now.
        let is_planned = |number: u32| {
            let object = ObjectNumber::new(number)?;
            let known = self.planned().find_map(|overlay| overlay.directory(object))?;
            known.as_ref().map(|_| ())
        };
        let mut skip_to = |taken: u32| {
            while free < taken && found.is_none() {
                if is_planned(free).is_none() {
                    found = ObjectNumber::new(free);
                } else {
                    free += 1;
                }
            }
            free = free.max(taken + 1);
            found.is_none()
        };
        directories_from(&self.memory, start, |object, _| skip_to(object.get()))?;
        skip_to(ObjectNumber::MAX.get() + 1);
        Ok(found)
    }

    /// Makes the changes of an entry. The same entries make the same tables everywhere.
    pub fn apply(&mut self, entry: &Entry) -> Result<(), TableError> {
        if entry.sequence != self.state.applied + 1 {
            return Err(TableError::Damaged);
        }
        entry.changes.iter().try_for_each(|change| self.apply_change(entry, change))?;
        self.state.applied = entry.sequence;
        Ok(())
    }

    fn apply_change(&mut self, entry: &Entry, change: &Change) -> Result<(), TableError> {
        match change {
            Change::Create(object, directory) => {
                let mut directory = directory.clone();
                (directory.sequence, directory.time) = (entry.sequence, entry.time);
                self.open.put_directory(*object, Some(Arc::new(Guarded::new(directory))));
                self.state.next_object = object.get().wrapping_add(1) & ObjectNumber::MAX.get();
                self.state.directories += 1;
            }
            Change::Remove(object) => {
                self.directory(*object)?.ok_or(TableError::Damaged)?;
                self.open.put_directory(*object, None);
                self.state.directories = self.state.directories.saturating_sub(1);
            }
            Change::Put(object, name, row) => {
                let new = self.kept_row(*object, name)?.is_none();
                self.open.put_row(KeptRow::of(*object, name, row));
                self.changed(entry, *object, |directory| directory.rows += u64::from(new))?;
            }
            Change::Delete(object, name) => {
                let gone = self.kept_row(*object, name)?.is_some();
                self.open.put_row(KeptRow::absent(*object, name.as_bytes()));
                self.changed(entry, *object, |directory| {
                    directory.rows = directory.rows.saturating_sub(u64::from(gone));
                })?;
            }
            Change::Random(object, random) => {
                self.changed(entry, *object, |directory| directory.random = *random)?;
            }
            Change::Touch(object) => {
                // It may have been removed since it was used.
                if let Some(known) = self.directory(*object)? {
                    let directory = Directory { touched: self.state.tick, ..(**known).clone() };
                    self.open.put_directory(*object, Some(Arc::new(known.changed(directory))));
                }
            }
            Change::Tick => self.state.tick += 1,
        }
        Ok(())
    }

    /// Changes a directory, and marks it as changed by `entry`.
    fn changed(
        &mut self,
        entry: &Entry,
        object: ObjectNumber,
        change: impl FnOnce(&mut Directory),
    ) -> Result<(), TableError> {
        let change = |directory: &mut Directory| {
            change(directory);
            (directory.sequence, directory.time) = (entry.sequence, entry.time);
        };
        if let Some(own) = self.open.own_directory(object) {
            own.change(change);
            return Ok(());
        }
        let known = self.directory(object)?.ok_or(TableError::Damaged)?;
        let mut directory = (**known).clone();
        change(&mut directory);
        self.open.put_directory(object, Some(Arc::new(known.changed(directory))));
        Ok(())
    }
}
