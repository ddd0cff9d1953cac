//! What the caches keep: rows and directories, each with its key in the same piece of memory.

use std::borrow::Borrow;
use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::Arc;

use amoeba_cap::ObjectNumber;

use crate::guarded::Guarded;

/// A row, or that there is none: length of the key u16, whether there is a row u8, key, bytes of the row.
#[derive(Clone)]
pub(crate) struct KeptRow(Arc<[u8]>);

const HEAD_SIZE: usize = 3;

impl KeptRow {
    pub(crate) fn new(key: &[u8], value: Option<&[u8]>) -> KeptRow {
        let length = u16::try_from(key.len()).expect("a key is an object number and a name").to_le_bytes();
        let head = [length[0], length[1], u8::from(value.is_some())];
        KeptRow([&head, key, value.unwrap_or_default()].concat().into())
    }

    fn key(&self) -> &[u8] {
        &self.0[HEAD_SIZE..self.value_start()]
    }

    fn value_start(&self) -> usize {
        HEAD_SIZE + usize::from(u16::from_le_bytes([self.0[0], self.0[1]]))
    }

    /// The bytes of the row, if there is one.
    pub(crate) fn value(&self) -> Option<&[u8]> {
        (self.0[2] != 0).then(|| &self.0[self.value_start()..])
    }

    /// Its bytes in memory.
    pub(crate) fn size(&self) -> usize {
        self.0.len()
    }
}

impl Borrow<[u8]> for KeptRow {
    fn borrow(&self) -> &[u8] {
        self.key()
    }
}

impl PartialEq for KeptRow {
    fn eq(&self, other: &KeptRow) -> bool {
        self.key() == other.key()
    }
}

impl Eq for KeptRow {}

impl Hash for KeptRow {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}

/// A directory, or that there is none.
#[derive(Clone)]
pub(crate) struct KeptDirectory {
    object: ObjectNumber,
    pub(crate) directory: Option<Arc<Guarded>>,
}

impl KeptDirectory {
    pub(crate) fn new(object: ObjectNumber, directory: Option<Arc<Guarded>>) -> KeptDirectory {
        KeptDirectory { object, directory }
    }
}

impl Borrow<ObjectNumber> for KeptDirectory {
    fn borrow(&self) -> &ObjectNumber {
        &self.object
    }
}

impl PartialEq for KeptDirectory {
    fn eq(&self, other: &KeptDirectory) -> bool {
        self.object == other.object
    }
}

impl Eq for KeptDirectory {}

impl Hash for KeptDirectory {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.object.hash(state);
    }
}

/// Hashes object numbers. The server gives them out, so nobody can choose many that collide.
#[derive(Clone, Copy, Default)]
pub(crate) struct NumberHash(u64);

impl BuildHasher for NumberHash {
    type Hasher = NumberHash;
    fn build_hasher(&self) -> NumberHash {
        NumberHash(0)
    }
}

impl Hasher for NumberHash {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.write_u32(u32::from(byte)));
    }

    fn write_u32(&mut self, number: u32) {
        // The product's high bits depend on all bits of the number, and so do, swapped, the low ones.
        self.0 = (self.0 ^ u64::from(number)).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(32);
    }
}
