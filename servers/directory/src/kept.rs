//! What memory keeps: rows and directories, each with its key in the same piece of memory.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::iter::repeat_n;
use std::sync::Arc;

use amoeba_cap::ObjectNumber;

use crate::guarded::Guarded;
use crate::memory::with_key;
use crate::row::{Name, Row};

/// A row with its key, or that there is none with this key: length of the key u16, whether there is a row u8, key, bytes
/// of the row. The cache and all sets of changes share one piece of memory. Rows are ordered by their keys, and equal when
/// their keys are.
#[derive(Clone)]
pub struct KeptRow(Arc<[u8]>);

const HEAD_SIZE: usize = 3;

impl KeptRow {
    pub(crate) fn new(key: &[u8], value: Option<&[u8]>) -> KeptRow {
        let length = u16::try_from(key.len()).expect("a key is an object number and a name").to_le_bytes();
        let head = [length[0], length[1], u8::from(value.is_some())];
        let size = HEAD_SIZE + key.len() + value.map_or(0, <[u8]>::len);
        let mut bytes: Arc<[u8]> = repeat_n(0, size).collect();
        let all = Arc::get_mut(&mut bytes).expect("nobody else has it yet");
        all[..HEAD_SIZE].copy_from_slice(&head);
        all[HEAD_SIZE..][..key.len()].copy_from_slice(key);
        all[HEAD_SIZE + key.len()..].copy_from_slice(value.unwrap_or_default());
        KeptRow(bytes)
    }

    /// This row of a directory.
    pub(crate) fn of(object: ObjectNumber, name: &Name, row: &Row) -> KeptRow {
        with_key(object, name.as_bytes(), |key| KeptRow::new(key, Some(&row.to_bytes())))
    }

    /// That a directory has no such row.
    pub(crate) fn absent(object: ObjectNumber, name: &[u8]) -> KeptRow {
        with_key(object, name, |key| KeptRow::new(key, None))
    }

    /// Whether there is a row.
    pub(crate) fn is_there(&self) -> bool {
        self.0[2] != 0
    }

    /// Its key: object number, big-endian, and name.
    pub fn key(&self) -> &[u8] {
        &self.0[HEAD_SIZE..self.value_start()]
    }

    fn value_start(&self) -> usize {
        HEAD_SIZE + usize::from(u16::from_le_bytes([self.0[0], self.0[1]]))
    }

    /// The bytes of the row, if there is one.
    pub fn value(&self) -> Option<&[u8]> {
        self.is_there().then(|| &self.0[self.value_start()..])
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

impl Ord for KeptRow {
    fn cmp(&self, other: &KeptRow) -> Ordering {
        self.key().cmp(other.key())
    }
}

impl PartialOrd for KeptRow {
    fn partial_cmp(&self, other: &KeptRow) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl std::fmt::Debug for KeptRow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let there = if self.is_there() { "" } else { "no " };
        write!(f, "{there}row {}", self.key().escape_ascii())
    }
}

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

/// Hashes keys of rows, which clients choose, with seeds that nobody is told.
#[derive(Clone)]
pub(crate) struct KeyHash {
    state: u64,
    seed: u64,
}

impl Default for KeyHash {
    fn default() -> KeyHash {
        let [state, seed] = [0, 1].map(|number: u64| RandomState::new().hash_one(number));
        KeyHash { state, seed: seed | 1 }
    }
}

impl BuildHasher for KeyHash {
    type Hasher = KeyHash;
    fn build_hasher(&self) -> KeyHash {
        self.clone()
    }
}

impl KeyHash {
    fn mix(&mut self, word: u64) {
        // The halves of the product together depend on all bits of both factors.
        let product = u128::from(self.state ^ word) * u128::from(self.seed);
        self.state = (product as u64) ^ (product >> 64) as u64;
    }
}

impl Hasher for KeyHash {
    fn finish(&self) -> u64 {
        self.state.rotate_left(32)
    }

    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        words.iter().for_each(|word| self.mix(u64::from_le_bytes(*word)));
        // The length, which is written before the bytes, tells shorter keys from those that end in zeros.
        let last = rest.iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte));
        self.mix(last);
    }

    fn write_usize(&mut self, length: usize) {
        self.mix(length as u64);
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_row_keeps_key_and_value_and_is_found_by_its_key() {
        let (there, gone) =
            (KeptRow::new(b"\0\0\0\x07name", Some(b"value")), KeptRow::new(b"\0\0\0\x07name", None));
        assert_eq!((there.key(), there.value()), (&b"\0\0\0\x07name"[..], Some(&b"value"[..])));
        assert_eq!((gone.key(), gone.value(), gone.is_there()), (there.key(), None, false));
        let empty = KeptRow::new(b"k", Some(b""));
        assert_eq!((empty.value(), empty.size()), (Some(&b""[..]), 4));
        let mut rows = BTreeSet::from([there.clone()]);
        assert!(rows.contains(there.key()) && rows.replace(gone).is_some_and(|old| old.is_there()));
        assert!(rows.len() == 1 && !rows.first().expect("there is one").is_there());
    }

    #[test]
    fn keys_that_differ_little_are_spread_over_a_table() {
        let hash = KeyHash { state: 0x0123_4567_89AB_CDEF, seed: 0x9E37_79B9_7F4A_7C15 };
        let count = 1u32 << 16;
        let hashes: Vec<u64> =
            (0..count).map(|n| hash.hash_one(format!("entry-{n:08}").as_bytes())).collect();
        // Of so many balls thrown into as many boxes 0.632 of the boxes get one, whichever bits choose the box; keys that
        // are numbered may be spread more evenly.
        for shift in [0, 16, 24, 48] {
            let boxes: BTreeSet<u64> = hashes.iter().map(|hash| hash >> shift & 0xFFFF).collect();
            assert!(boxes.len() as f64 > f64::from(count) * 0.62, "{} at {shift}", boxes.len());
        }
        let zeros: BTreeSet<u64> = (0..64).map(|length| hash.hash_one(&[0u8; 64][..length])).collect();
        assert_eq!(zeros.len(), 64);
    }
}
