//! Rows and directories in their order: what the tables have, with what memory has that is newer.
//!
//! A page is made without a lock while the tables are read, and is as of one moment all the same: the tables are a
//! snapshot, and the newer changes are taken only if it is still the one that memory rests on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use amoeba_cap::ObjectNumber;

use crate::guarded::Guarded;
use crate::kept::KeptRow;
use crate::memory::{Shared, read, replace_all};
use crate::row::{Directory, Name, Row};
use crate::tables::{TableError, row_key};

/// Directories that are read at once.
const CHUNK: usize = 1024;

/// Some rows.
pub(crate) struct Page {
    pub(crate) rows: Vec<KeptRow>,
    /// Where to go on, if there may be more.
    pub(crate) next: Option<Vec<u8>>,
}

/// At most `count` rows from `start` up to `end`. The page may be empty and yet not the last one.
pub(crate) fn rows_page(memory: &Shared, start: &[u8], end: &[u8], count: usize) -> Result<Page, TableError> {
    loop {
        let tables = read(memory).tables().clone();
        let mut below = tables.rows_between(start, end, count + 1)?;
        let mut limit = (below.len() > count).then(|| below.pop().expect("there is one"));
        let (changes, horizon) = {
            let memory = read(memory);
            if !Arc::ptr_eq(memory.tables(), &tables) {
                continue;
            }
            let end = limit.as_ref().map_or(end, KeptRow::key);
            memory.changes_between(start, end, 2 * count + 64)
        };
        limit = [limit, horizon].into_iter().flatten().min();
        let mut merged = BTreeSet::from_iter(below);
        replace_all(&mut merged, changes);
        let within = |row: &KeptRow| limit.as_ref().is_none_or(|limit| row < limit);
        let mut page = Vec::new();
        for row in merged.into_iter().filter(|row| within(row) && row.is_there()) {
            if page.len() == count {
                return Ok(Page { rows: page, next: Some(row.key().to_vec()) });
            }
            page.push(row);
        }
        return Ok(Page { rows: page, next: limit.map(|limit| limit.key().to_vec()) });
    }
}

/// Rows of one directory after a name, in pages of `chunk` rows that are of one moment each, until `each` wants no more.
pub(crate) fn rows_after(
    memory: &Shared,
    object: ObjectNumber,
    after: Option<&Name>,
    chunk: usize,
    mut each: impl FnMut(Name, Row) -> bool,
) -> Result<(), TableError> {
    let mut start = object.get().to_be_bytes().to_vec();
    if let Some(name) = after {
        start = row_key(object, name);
        start.push(0); // no name holds a NUL, so nothing lies between `name` and this
    }
    let end = (object.get() + 1).to_be_bytes();
    loop {
        let Page { rows, next } = rows_page(memory, &start, &end, chunk)?;
        for row in rows {
            let name = Name::new(&row.key()[4..]).map_err(|_| TableError::Damaged)?;
            if !each(name, Row::from_bytes(row.value().expect("a page has what is there"))?) {
                return Ok(());
            }
        }
        match next {
            Some(next) => start = next,
            None => return Ok(()),
        }
    }
}

/// Directories from a number on, in pages of one moment each, until `each` wants no more.
pub(crate) fn directories_from(
    memory: &Shared,
    object: ObjectNumber,
    mut each: impl FnMut(ObjectNumber, &Directory) -> bool,
) -> Result<(), TableError> {
    let mut start = object;
    loop {
        let (below, last, changes) = loop {
            let tables = read(memory).tables().clone();
            let below = tables.directories_between(start, CHUNK)?;
            let full = below.len() == CHUNK;
            let last = below.last().filter(|_| full).map_or(ObjectNumber::MAX, |(object, _)| *object);
            let memory = read(memory);
            if Arc::ptr_eq(memory.tables(), &tables) {
                break (below, last, memory.directories_between(start, last));
            }
        };
        let mut merged: BTreeMap<ObjectNumber, Option<Arc<Guarded>>> = below
            .into_iter()
            .map(|(object, directory)| (object, Some(Arc::new(Guarded::new(directory)))))
            .collect();
        merged.extend(changes);
        for (object, directory) in merged {
            if let Some(directory) = directory
                && !each(object, &directory)
            {
                return Ok(());
            }
        }
        match last.get().checked_add(1).and_then(ObjectNumber::new) {
            Some(next) if last < ObjectNumber::MAX => start = next,
            _ => return Ok(()),
        }
    }
}
