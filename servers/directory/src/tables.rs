//! Directories and rows in redb: reading them, and bringing changes to them.
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
use redb::{ReadOnlyTable, ReadTransaction, TableDefinition, WriteTransaction};

use crate::kept::KeptRow;
use crate::log::Volume;
use crate::memory::{Overlay, with_key};
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

/// The tables as of a commit.
pub struct View {
    objects: ReadOnlyTable<u32, &'static [u8]>,
    rows: ReadOnlyTable<&'static [u8], &'static [u8]>,
}

impl View {
    /// What is committed now. While it lives, space that later commits free is not used again.
    pub fn new(transaction: &ReadTransaction) -> Result<View, TableError> {
        Ok(View { objects: transaction.open_table(OBJECTS)?, rows: transaction.open_table(ROWS)? })
    }

    /// A directory.
    pub fn directory(&self, object: ObjectNumber) -> Result<Option<Directory>, TableError> {
        contained(|| match self.objects.get(object.get())? {
            Some(value) => Ok(Some(parse_directory(object.get(), value.value())?)),
            None => Ok(None),
        })
    }

    /// A row, whose bytes are known to be one.
    pub fn row(&self, key: &[u8]) -> Result<Option<KeptRow>, TableError> {
        contained(|| match self.rows.get(key)? {
            Some(value) => Ok(Some(kept_row(key, value.value())?)),
            None => Ok(None),
        })
    }

    /// At most `count` rows with keys from `start` up to `end`, in order.
    pub fn rows_between(&self, start: &[u8], end: &[u8], count: usize) -> Result<Vec<KeptRow>, TableError> {
        contained(|| {
            let mut rows = Vec::new();
            for item in self.rows.range::<&[u8]>(start..end)?.take(count) {
                let (key, value) = item?;
                rows.push(kept_row(key.value(), value.value())?);
            }
            Ok(rows)
        })
    }

    /// At most `count` directories from a number on.
    pub fn directories_between(
        &self,
        start: ObjectNumber,
        count: usize,
    ) -> Result<Vec<(ObjectNumber, Directory)>, TableError> {
        contained(|| {
            let mut directories = Vec::new();
            for item in self.objects.range(start.get()..)?.take(count) {
                let (number, value) = item?;
                let object = ObjectNumber::new(number.value()).ok_or(TableError::Damaged)?;
                directories.push((object, parse_directory(number.value(), value.value())?));
            }
            Ok(directories)
        })
    }
}

fn kept_row(key: &[u8], sealed: &[u8]) -> Result<KeptRow, TableError> {
    let value = unsealed(key, sealed)?.rest();
    Row::from_bytes(value)?;
    Ok(KeptRow::new(key, Some(value)))
}

fn parse_directory(object: u32, value: &[u8]) -> Result<Directory, TableError> {
    Ok(Directory::parse(&mut unsealed(&object.to_be_bytes(), value)?)?)
}

/// The key of a row: object number, big-endian, and name.
pub(crate) fn row_key(object: ObjectNumber, name: &Name) -> Vec<u8> {
    with_key(object, name.as_bytes(), <[u8]>::to_vec)
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

/// Brings changes to the tables, and the state after them: the last thing before a commit.
pub(crate) fn store(
    transaction: &WriteTransaction,
    changes: &Overlay,
    state: State,
) -> Result<(), TableError> {
    store_changes(transaction, changes)?;
    transaction.open_table(META)?.insert(STATE, state.emit().as_slice())?;
    Ok(())
}

/// Brings changes to the tables.
pub(crate) fn store_changes(transaction: &WriteTransaction, changes: &Overlay) -> Result<(), TableError> {
    let mut objects = transaction.open_table(OBJECTS)?;
    for (object, directory) in changes.directories() {
        match directory {
            Some(directory) => {
                let mut writer = Writer::new();
                directory.emit(&mut writer);
                let value = sealed(&object.get().to_be_bytes(), &writer.finish());
                objects.insert(object.get(), value.as_slice())?;
            }
            None => drop(objects.remove(object.get())?),
        }
    }
    let mut rows = transaction.open_table(ROWS)?;
    for row in changes.rows() {
        match row.value() {
            Some(value) => drop(rows.insert(row.key(), sealed(row.key(), value).as_slice())?),
            None => drop(rows.remove(row.key())?),
        }
    }
    Ok(())
}
