//! Committed bytes in memory: whole files, and of files too large for that their hash tables and chunks.
//! Least recently used ones go first.

use std::collections::BTreeMap;
use std::sync::Arc;

/// Bytes that many may hold. What is handed out stays whole when the cache drops it.
pub type Bytes = Arc<Vec<u8>>;

/// Memory counted for an item besides its bytes.
const OVERHEAD: u64 = 128;

/// Which part of which file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    number: u32,
    part: u64,
}

impl Key {
    /// A whole file.
    pub(super) fn whole(number: u32) -> Key {
        Key { number, part: 0 }
    }

    /// The hash table of a large file.
    pub(super) fn hashes(number: u32) -> Key {
        Key { number, part: 1 }
    }

    /// A chunk of a large file.
    pub(super) fn chunk(number: u32, index: u64) -> Key {
        Key { number, part: index + 2 }
    }
}

/// The cache. Its owner says when it must shrink.
#[derive(Default)]
pub(super) struct Cache {
    items: BTreeMap<Key, (u64, Bytes)>,
    by_age: BTreeMap<u64, Key>,
    clock: u64,
    size: u64,
}

impl Cache {
    /// Bytes in the cache, overhead included.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// The bytes under `key`, which are now the most recently used.
    pub(super) fn get(&mut self, key: Key) -> Option<Bytes> {
        let (age, bytes) = self.items.get_mut(&key)?;
        if *age != self.clock {
            self.by_age.remove(age);
            self.clock += 1;
            *age = self.clock;
            self.by_age.insert(self.clock, key);
        }
        Some(bytes.clone())
    }

    /// Puts bytes in, as the most recently used.
    pub(super) fn insert(&mut self, key: Key, bytes: Bytes) {
        self.clock += 1;
        self.size += cost(&bytes);
        if let Some((age, old)) = self.items.insert(key, (self.clock, bytes)) {
            self.by_age.remove(&age);
            self.size -= cost(&old);
        }
        self.by_age.insert(self.clock, key);
    }

    /// Takes every part of a file out.
    pub(super) fn remove_file(&mut self, number: u32) -> Vec<Bytes> {
        let keys: Vec<Key> = self
            .items
            .range(Key::whole(number)..=Key { number, part: u64::MAX })
            .map(|(key, _)| *key)
            .collect();
        keys.into_iter().filter_map(|key| self.remove(key)).collect()
    }

    /// Takes out least recently used bytes until at most `size` are left. The caller drops them without a lock.
    pub(super) fn shrink(&mut self, size: u64) -> Vec<Bytes> {
        let mut out = Vec::new();
        while self.size > size
            && let Some((_, &key)) = self.by_age.first_key_value()
        {
            out.extend(self.remove(key));
        }
        out
    }

    fn remove(&mut self, key: Key) -> Option<Bytes> {
        let (age, bytes) = self.items.remove(&key)?;
        self.by_age.remove(&age);
        self.size -= cost(&bytes);
        Some(bytes)
    }
}

/// The memory that cached bytes are counted as.
pub(super) fn cost(bytes: &Vec<u8>) -> u64 {
    bytes.capacity() as u64 + OVERHEAD
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_goes_first_and_a_file_goes_whole() {
        let mut cache = Cache::default();
        for number in 1..=3 {
            cache.insert(Key::whole(number), Arc::new(vec![0; 100]));
        }
        cache.insert(Key::chunk(3, 7), Arc::new(vec![0; 100]));
        assert_eq!(cache.size(), 4 * (100 + OVERHEAD));
        assert!(cache.get(Key::whole(1)).is_some());
        assert_eq!(cache.shrink(3 * (100 + OVERHEAD)).len(), 1);
        assert!(cache.get(Key::whole(2)).is_none());
        assert!(cache.get(Key::whole(1)).is_some());
        assert_eq!(cache.remove_file(3).len(), 2);
        assert_eq!(cache.size(), 100 + OVERHEAD);
    }
}
