//! Directories and rows in redb, and `apply(entry)`, the one function that changes them.
//!
//! ```text
//! table "objects"  object number u32           -> check 8 | Directory
//! table "rows"     object number u32 BE | name -> check 8 | Row
//! table "meta"     "identity" -> check 8 | get-port 6 | server secret 32 | super random 6 | volume 16
//!                  "state"    -> check 8 | State
//! ```
//! The check is BLAKE3 over key and value. redb verifies its pages only when it repairs, and then panics or returns
//! an error as it likes; so values are checked here, and a panic inside redb is turned into [`TableError::Damaged`].

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use amoeba_cap::{CheckField, GetPort, ObjectNumber, ServerSecret};
use amoeba_wire::{Malformed, Reader, Writer};
use redb::{
    AccessGuard, ReadOnlyTable, ReadTransaction, ReadableTable, Table, TableDefinition, WriteTransaction,
};

use crate::entry::{Change, Entry};
use crate::log::Volume;
use crate::row::{Directory, Name, Row};

const OBJECTS: TableDefinition<'static, u32, &'static [u8]> = TableDefinition::new("objects");
const ROWS: TableDefinition<'static, &'static [u8], &'static [u8]> = TableDefinition::new("rows");
const META: TableDefinition<'static, &'static str, &'static [u8]> = TableDefinition::new("meta");
const IDENTITY: &str = "identity";
const STATE: &str = "state";
/// Bytes of the check before each value.
const CHECK_SIZE: usize = 8;

/// The tables cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TableError {
    /// The disk or the store failed.
    #[error("the tables failed")]
    Store(#[source] Box<redb::Error>),
    /// A value is not what this server wrote, or an entry does not fit the tables.
    #[error("the tables are damaged")]
    Damaged,
}

impl From<Malformed> for TableError {
    fn from(_: Malformed) -> TableError {
        TableError::Damaged
    }
}

/// Runs code that calls redb: a panic inside it means that the tables are damaged.
pub fn contained<T, E: From<TableError>>(work: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|payload| {
        // What panics without a message is a world that ends this thread.
        if !payload.is::<&str>() && !payload.is::<String>() {
            resume_unwind(payload);
        }
        Err(TableError::Damaged.into())
    })
}

/// `value` with its check before it.
fn sealed(key: &[u8], value: &[u8]) -> Vec<u8> {
    let mut sealed = Vec::with_capacity(CHECK_SIZE + value.len());
    sealed.extend_from_slice(&check(key, value));
    sealed.extend_from_slice(value);
    sealed
}

/// The value in what [`sealed`] made.
fn unsealed<'a>(key: &[u8], sealed: &'a [u8]) -> Result<Reader<'a>, TableError> {
    let (found, value) = sealed.split_at_checked(CHECK_SIZE).ok_or(TableError::Damaged)?;
    if found == check(key, value) { Ok(Reader::new(value)) } else { Err(TableError::Damaged) }
}

fn check(key: &[u8], value: &[u8]) -> [u8; CHECK_SIZE] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(key).update(value);
    *hasher.finalize().as_bytes().first_chunk().expect("a hash is longer than a check")
}

macro_rules! from_redb {
    ($($error:ty),*) => {
        $(impl From<$error> for TableError {
            fn from(error: $error) -> TableError {
                TableError::Store(Box::new(error.into()))
            }
        })*
    };
}
from_redb!(
    redb::StorageError,
    redb::TableError,
    redb::TransactionError,
    redb::CommitError,
    redb::DatabaseError,
    redb::SetDurabilityError
);

/// Who this service is: written at format, never changed.
#[derive(Clone)]
pub struct Identity {
    /// The port it listens on.
    pub get_port: GetPort,
    /// Makes its check fields.
    pub secret: ServerSecret,
    /// The random of object 0, the service itself.
    pub super_random: CheckField,
    /// Tells its disks from another service's.
    pub volume: Volume,
}

impl Identity {
    fn emit(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.raw(&self.get_port.to_bytes()).raw(&self.secret.to_bytes());
        writer.raw(&self.super_random.to_bytes()).raw(&self.volume);
        sealed(IDENTITY.as_bytes(), &writer.finish())
    }

    fn parse(bytes: &[u8]) -> Result<Identity, TableError> {
        let mut reader = unsealed(IDENTITY.as_bytes(), bytes)?;
        Ok(Identity {
            get_port: GetPort::from_bytes(reader.array()?),
            secret: ServerSecret::from_bytes(reader.array()?),
            super_random: CheckField::from_bytes(reader.array()?),
            volume: reader.array()?,
        })
    }
}

/// What the tables know of themselves. Part of every commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    /// The number of the last entry applied.
    pub applied: u64,
    /// The generation of the log that has the entries after it.
    pub generation: u64,
    /// Where to look for a free object number.
    pub next_object: u32,
    /// Ticks of ageing so far.
    pub tick: u64,
    /// How many directories there are.
    pub directories: u64,
}

impl State {
    fn emit(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.put_u64(self.applied).put_u64(self.generation).put_u32(self.next_object);
        writer.put_u64(self.tick).put_u64(self.directories);
        sealed(STATE.as_bytes(), &writer.finish())
    }

    fn parse(bytes: &[u8]) -> Result<State, TableError> {
        let mut reader = unsealed(STATE.as_bytes(), bytes)?;
        Ok(State {
            applied: reader.get_u64()?,
            generation: reader.get_u64()?,
            next_object: reader.get_u32()?,
            tick: reader.get_u64()?,
            directories: reader.get_u64()?,
        })
    }
}

/// Objects and rows at one moment: of a read transaction, or as the write transaction has them so far.
pub struct Tables<Objects, Rows> {
    objects: Objects,
    rows: Rows,
}

/// What a lookup sees: everything committed when it began, nothing later.
pub type View = Tables<ReadOnlyTable<u32, &'static [u8]>, ReadOnlyTable<&'static [u8], &'static [u8]>>;

impl View {
    /// What is committed now.
    pub fn new(transaction: &ReadTransaction) -> Result<View, TableError> {
        Ok(Tables { objects: transaction.open_table(OBJECTS)?, rows: transaction.open_table(ROWS)? })
    }
}

/// A row with its name.
pub type NamedRow = (Name, Row);

impl<Objects, Rows> Tables<Objects, Rows>
where
    Objects: ReadableTable<u32, &'static [u8]>,
    Rows: ReadableTable<&'static [u8], &'static [u8]>,
{
    /// A directory.
    pub fn directory(&self, object: ObjectNumber) -> Result<Option<Directory>, TableError> {
        contained(|| match self.objects.get(object.get())? {
            Some(value) => Ok(Some(parse_directory(object.get(), value.value())?)),
            None => Ok(None),
        })
    }

    /// A row of a directory.
    pub fn row(&self, object: ObjectNumber, name: &Name) -> Result<Option<Row>, TableError> {
        let key = row_key(object, name);
        contained(|| match self.rows.get(key.as_slice())? {
            Some(value) => Ok(Some(Row::parse(&mut unsealed(&key, value.value())?)?)),
            None => Ok(None),
        })
    }

    /// Rows of a directory in the order of their names, from the first one after `after` on; `each` says whether it
    /// wants another.
    pub fn rows_after(
        &self,
        object: ObjectNumber,
        after: Option<&Name>,
        mut each: impl FnMut(NamedRow) -> bool,
    ) -> Result<(), TableError> {
        let mut start = object.get().to_be_bytes().to_vec();
        if let Some(name) = after {
            start.extend_from_slice(name.as_bytes());
            start.push(0); // no name holds a NUL, so nothing lies between `name` and this
        }
        let end = (object.get() + 1).to_be_bytes();
        contained(|| {
            for item in self.rows.range::<&[u8]>(start.as_slice()..end.as_slice())? {
                if !each(named(item?)?) {
                    break;
                }
            }
            Ok(())
        })
    }

    /// Rows of all directories in the order of their numbers and names, from the first one after `after` on; `each`
    /// says whether it wants another.
    pub fn all_rows_after(
        &self,
        after: Option<(ObjectNumber, &Name)>,
        mut each: impl FnMut(ObjectNumber, Name, Row) -> bool,
    ) -> Result<(), TableError> {
        let mut start = Vec::new();
        if let Some((object, name)) = after {
            start = row_key(object, name);
            start.push(0);
        }
        contained(|| {
            for item in self.rows.range::<&[u8]>(start.as_slice()..)? {
                let item = item?;
                let object = item.0.value().first_chunk().map(|bytes| u32::from_be_bytes(*bytes));
                let object = object.and_then(ObjectNumber::new).ok_or(TableError::Damaged)?;
                let (name, row) = named(item)?;
                if !each(object, name, row) {
                    break;
                }
            }
            Ok(())
        })
    }

    /// Directories from a number on; `each` says whether it wants another.
    pub fn directories_from(
        &self,
        object: ObjectNumber,
        mut each: impl FnMut(ObjectNumber, Directory) -> bool,
    ) -> Result<(), TableError> {
        contained(|| {
            for item in self.objects.range(object.get()..)? {
                let (number, value) = item?;
                let directory = parse_directory(number.value(), value.value())?;
                let number = ObjectNumber::new(number.value()).ok_or(TableError::Damaged)?;
                if !each(number, directory) {
                    break;
                }
            }
            Ok(())
        })
    }
}

fn parse_directory(object: u32, value: &[u8]) -> Result<Directory, TableError> {
    Ok(Directory::parse(&mut unsealed(&object.to_be_bytes(), value)?)?)
}

fn named(item: (AccessGuard<'_, &[u8]>, AccessGuard<'_, &[u8]>)) -> Result<NamedRow, TableError> {
    let key = item.0.value();
    let name = key.get(4..).and_then(|bytes| Name::new(bytes).ok()).ok_or(TableError::Damaged)?;
    Ok((name, Row::parse(&mut unsealed(key, item.1.value())?)?))
}

fn row_key(object: ObjectNumber, name: &Name) -> Vec<u8> {
    let mut key = Vec::with_capacity(4 + name.as_bytes().len());
    key.extend_from_slice(&object.get().to_be_bytes());
    key.extend_from_slice(name.as_bytes());
    key
}

type WriteTables<'txn> = Tables<Table<'txn, u32, &'static [u8]>, Table<'txn, &'static [u8], &'static [u8]>>;

/// The tables in a write transaction.
pub struct TableWriter<'txn> {
    tables: WriteTables<'txn>,
    meta: Table<'txn, &'static str, &'static [u8]>,
    /// As it will be committed; [`TableWriter::save`] puts it into its table.
    pub state: State,
}

/// Makes empty tables that belong to `identity`.
pub fn create(transaction: &WriteTransaction, identity: &Identity, state: State) -> Result<(), TableError> {
    transaction.open_table(OBJECTS)?;
    transaction.open_table(ROWS)?;
    let mut meta = transaction.open_table(META)?;
    meta.insert(IDENTITY, identity.emit().as_slice())?;
    meta.insert(STATE, state.emit().as_slice())?;
    Ok(())
}

/// Who the tables belong to, and their state.
pub fn read_meta(transaction: &ReadTransaction) -> Result<(Identity, State), TableError> {
    let meta = transaction.open_table(META)?;
    let identity = meta.get(IDENTITY)?.ok_or(TableError::Damaged)?;
    let state = meta.get(STATE)?.ok_or(TableError::Damaged)?;
    Ok((Identity::parse(identity.value())?, State::parse(state.value())?))
}

impl<'txn> TableWriter<'txn> {
    /// The tables in `transaction`.
    pub fn new(transaction: &'txn WriteTransaction) -> Result<TableWriter<'txn>, TableError> {
        let tables =
            Tables { objects: transaction.open_table(OBJECTS)?, rows: transaction.open_table(ROWS)? };
        let meta = transaction.open_table(META)?;
        let state = State::parse(meta.get(STATE)?.ok_or(TableError::Damaged)?.value())?;
        Ok(TableWriter { tables, meta, state })
    }

    /// Puts the state into its table: the last thing before a commit.
    pub fn save(mut self) -> Result<(), TableError> {
        self.meta.insert(STATE, self.state.emit().as_slice())?;
        Ok(())
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
                self.put_directory(*object, &directory)?;
                self.state.next_object = object.get().wrapping_add(1) & ObjectNumber::MAX.get();
                self.state.directories += 1;
            }
            Change::Remove(object) => {
                self.tables.objects.remove(object.get())?.ok_or(TableError::Damaged)?;
                self.state.directories = self.state.directories.saturating_sub(1);
            }
            Change::Put(object, name, row) => {
                let (key, mut writer) = (row_key(*object, name), Writer::new());
                row.emit(&mut writer);
                let value = sealed(&key, &writer.finish());
                let new = self.tables.rows.insert(key.as_slice(), value.as_slice())?.is_none();
                self.changed(entry, *object, |directory| directory.rows += u64::from(new))?;
            }
            Change::Delete(object, name) => {
                let gone = self.tables.rows.remove(row_key(*object, name).as_slice())?.is_some();
                self.changed(entry, *object, |directory| {
                    directory.rows = directory.rows.saturating_sub(u64::from(gone));
                })?;
            }
            Change::Random(object, random) => {
                self.changed(entry, *object, |directory| directory.random = *random)?;
            }
            Change::Touch(object) => {
                // It may have been removed since it was used.
                if let Some(mut directory) = self.directory(*object)? {
                    directory.touched = self.state.tick;
                    self.put_directory(*object, &directory)?;
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
        let mut directory = self.directory(object)?.ok_or(TableError::Damaged)?;
        change(&mut directory);
        (directory.sequence, directory.time) = (entry.sequence, entry.time);
        self.put_directory(object, &directory)
    }

    fn put_directory(&mut self, object: ObjectNumber, directory: &Directory) -> Result<(), TableError> {
        let mut writer = Writer::new();
        directory.emit(&mut writer);
        let value = sealed(&object.get().to_be_bytes(), &writer.finish());
        self.tables.objects.insert(object.get(), value.as_slice())?;
        Ok(())
    }
}

impl<'txn> std::ops::Deref for TableWriter<'txn> {
    type Target = WriteTables<'txn>;
    fn deref(&self) -> &WriteTables<'txn> {
        &self.tables
    }
}
