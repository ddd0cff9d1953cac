//! What is to become of a scratch: a record of the journal. Integers are little-endian.
//!
//! ```text
//! count u32 | count times: directory 16, name, old 16, coming 16 | masks 4 | kind 16 | attributes
//! ```

use amoeba_cap::Capability;
use amoeba_name::{Attributes, Masks};
use amoeba_stubs::directory::{ATTRIBUTES_MAX, NAME_MAX};
use amoeba_wire::{Malformed, Reader, Writer};

/// Names of a file that a record has.
const NAMES_MAX: u32 = 100;
/// Bytes of the largest record.
pub(crate) const RECORD_SIZE_MAX: usize = 64 << 10;

/// A file that was synced: what its rows are to say.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Record {
    pub(crate) names: Vec<Place>,
    pub(crate) masks: Masks,
    pub(crate) kind: Capability,
    pub(crate) attributes: Attributes,
}

/// A name, and what it stood for when the file was synced.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Place {
    pub(crate) directory: Capability,
    pub(crate) name: Vec<u8>,
    pub(crate) old: Capability,
    /// What it may stand for by now: an earlier version of ours, which was on its way. Null: none was.
    pub(crate) coming: Capability,
}

impl Record {
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.put_u32(self.names.len() as u32);
        for place in &self.names {
            writer.put_cap(&place.directory).put_string(&place.name);
            writer.put_cap(&place.old).put_cap(&place.coming);
        }
        writer.raw(&self.masks).put_cap(&self.kind);
        writer.put_bytes(&self.attributes.to_bytes().unwrap_or_default());
        writer.finish()
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Record, Malformed> {
        let mut reader = Reader::new(bytes);
        let count = reader.get_u32()?;
        if count > NAMES_MAX {
            return Err(Malformed);
        }
        let mut names = Vec::new();
        for _ in 0..count {
            let directory = reader.get_cap()?;
            let name = reader.get_string(NAME_MAX)?.to_vec();
            let (old, coming) = (reader.get_cap()?, reader.get_cap()?);
            names.push(Place { directory, name, old, coming });
        }
        let (masks, kind) = (reader.array()?, reader.get_cap()?);
        let attributes = Attributes::from_bytes(reader.get_bytes(ATTRIBUTES_MAX)?).map_err(|_| Malformed)?;
        reader.end()?;
        Ok(Record { names, masks, kind, attributes })
    }

    /// Whether nothing but times differs: what nobody syncs a file for.
    pub(crate) fn differs_in_times_only(&self, other: &Record) -> bool {
        let timeless = |record: &Record| {
            let attributes =
                Attributes { modified: None, accessed: None, changed: None, ..record.attributes.clone() };
            Record { attributes, ..record.clone() }
        };
        timeless(self) == timeless(other)
    }
}

#[cfg(test)]
pub(crate) fn sample(name: &[u8]) -> Record {
    let capability = Capability::from_bytes([7; 16]);
    let (old, coming) = (Capability::NULL, capability);
    let place = Place { directory: capability, name: name.to_vec(), old, coming };
    let attributes = Attributes { mode: Some(0o100_644), ..Attributes::default() };
    Record { names: vec![place], masks: [1, 2, 3, 4], kind: capability, attributes }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_comes_back() {
        let bytes = sample(b"n").to_bytes();
        assert_eq!(Record::from_bytes(&bytes), Ok(sample(b"n")));
        for index in 0..bytes.len() {
            assert_eq!(Record::from_bytes(&bytes[..index]), Err(Malformed));
        }
    }

    #[test]
    fn any_bytes_are_a_record_or_none() {
        bolero::check!().for_each(|bytes: &[u8]| {
            if let Ok(record) = Record::from_bytes(bytes) {
                assert_eq!(Record::from_bytes(&record.to_bytes()), Ok(record));
            }
        });
    }
}
