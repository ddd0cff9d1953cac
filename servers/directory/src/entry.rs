//! Entries: what one update changes, complete. Applying the same entries in the same order to the same tables gives
//! the same tables, because every time and every random number lies in the entry.
//!
//! ```text
//! entry    version u8 = 1 | sequence u64 | time u64 | count u32 | changes
//! change   1 Create  object u32 | directory        2 Remove  object u32
//!          3 Put     object u32 | name | row       4 Delete  object u32 | name
//!          5 Random  object u32 | 6 bytes          6 Touch   object u32
//!          7 Tick
//! ```
//! Integers are little-endian; a name is a length (u32) and bytes.

use amoeba_cap::{CheckField, ObjectNumber};
use amoeba_wire::{Malformed, Reader, Writer};

use crate::row::{Directory, Name, Row, emit_name, parse_name};

/// Changes one entry may hold.
pub const CHANGES_MAX: usize = 1024;
/// Bytes one entry may have.
pub const ENTRY_SIZE_MAX: usize = 512 << 10;

const VERSION: u8 = 1;

/// One change of the tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A new directory.
    Create(ObjectNumber, Directory),
    /// A directory is no more. Its rows went before.
    Remove(ObjectNumber),
    /// A row, new or in place of the one with this name.
    Put(ObjectNumber, Name, Row),
    /// A row is no more.
    Delete(ObjectNumber, Name),
    /// The directory's random is another: all its capabilities are dead.
    Random(ObjectNumber, CheckField),
    /// The directory was used or touched: it is as young as a new one.
    Touch(ObjectNumber),
    /// Every directory is one tick older.
    Tick,
}

/// What one update changes: all of it or nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// One more than the entry before.
    pub sequence: u64,
    /// When it was made: nanoseconds since 1970.
    pub time: u64,
    /// In this order.
    pub changes: Vec<Change>,
}

impl Entry {
    /// Appends the bytes of this entry.
    pub fn emit(&self, writer: &mut Writer) {
        let count = u32::try_from(self.changes.len()).expect("an entry holds at most CHANGES_MAX changes");
        writer.put_u8(VERSION).put_u64(self.sequence).put_u64(self.time).put_u32(count);
        self.changes.iter().for_each(|change| change.emit(writer));
    }

    /// Takes an entry.
    pub fn parse(reader: &mut Reader<'_>) -> Result<Entry, Malformed> {
        if reader.get_u8()? != VERSION {
            return Err(Malformed);
        }
        let (sequence, time, count) = (reader.get_u64()?, reader.get_u64()?, reader.get_u32()?);
        if count as usize > CHANGES_MAX {
            return Err(Malformed);
        }
        let changes = (0..count).map(|_| Change::parse(reader)).collect::<Result<_, _>>()?;
        Ok(Entry { sequence, time, changes })
    }
}

impl Change {
    fn emit(&self, writer: &mut Writer) {
        let mut head = |kind: u8, object: ObjectNumber| {
            writer.put_u8(kind).put_u32(object.get());
        };
        match self {
            Change::Create(object, directory) => {
                head(1, *object);
                directory.emit(writer);
            }
            Change::Remove(object) => head(2, *object),
            Change::Put(object, name, row) => {
                head(3, *object);
                emit_name(name, writer);
                row.emit(writer);
            }
            Change::Delete(object, name) => {
                head(4, *object);
                emit_name(name, writer);
            }
            Change::Random(object, random) => {
                head(5, *object);
                writer.raw(&random.to_bytes());
            }
            Change::Touch(object) => head(6, *object),
            Change::Tick => {
                writer.put_u8(7);
            }
        }
    }

    fn parse(reader: &mut Reader<'_>) -> Result<Change, Malformed> {
        let kind = reader.get_u8()?;
        if kind == 7 {
            return Ok(Change::Tick);
        }
        let object = ObjectNumber::new(reader.get_u32()?).ok_or(Malformed)?;
        match kind {
            1 => Ok(Change::Create(object, Directory::parse(reader)?)),
            2 => Ok(Change::Remove(object)),
            3 => Ok(Change::Put(object, parse_name(reader)?, Row::parse(reader)?)),
            4 => Ok(Change::Delete(object, parse_name(reader)?)),
            5 => Ok(Change::Random(object, CheckField::from_bytes(reader.array()?))),
            6 => Ok(Change::Touch(object)),
            _ => Err(Malformed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use amoeba_cap::{Capability, CapabilitySet, PutPort, Rights};

    fn sample() -> Entry {
        let object = ObjectNumber::new(7).unwrap();
        let name = Name::new(b"etc").unwrap();
        let directory = Directory {
            random: CheckField::from_bytes([9; 6]),
            sequence: 1,
            time: 2,
            rows: 0,
            touched: 3,
            owner: PutPort::NULL,
            columns: vec![b"owner".to_vec(), b"other".to_vec()],
        };
        let row = Row {
            time: 5,
            kind: Capability::NULL,
            masks: [Rights::ALL; 4],
            set: CapabilitySet::singleton(Capability::from_bytes([3; 16])),
            attributes: b"mode=755".to_vec(),
        };
        let changes = vec![
            Change::Create(object, directory),
            Change::Put(object, name.clone(), row),
            Change::Delete(object, name),
            Change::Random(object, CheckField::from_bytes([1; 6])),
            Change::Touch(object),
            Change::Tick,
            Change::Remove(object),
        ];
        Entry { sequence: 11, time: 12, changes }
    }

    #[test]
    fn an_entry_comes_back() {
        let mut writer = Writer::new();
        sample().emit(&mut writer);
        let bytes = writer.finish();
        assert_eq!(Entry::parse(&mut Reader::new(&bytes)), Ok(sample()));
        for length in 0..bytes.len() {
            assert_eq!(Entry::parse(&mut Reader::new(&bytes[..length])), Err(Malformed));
        }
    }

    #[test]
    fn no_bytes_panic() {
        bolero::check!().for_each(|bytes: &[u8]| {
            let _ = Entry::parse(&mut Reader::new(bytes)).is_ok();
        });
    }
}
