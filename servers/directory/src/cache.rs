//! A bounded cache: what was used lately stays (the clock algorithm, so that a hit writes nothing but one bit).
//!
//! A hit reads the table, the entry, and one bit of a dense array: with a million entries each line of memory that is
//! read costs more than all the code.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hash};
use std::sync::atomic::{AtomicU64, Ordering};

/// What an entry costs beside its contents, in bytes: its places in the table and among the slots, its allocation.
const ENTRY_COST: usize = 104;

/// Entries, each of which knows its key, as many as fit into so many bytes.
pub(crate) struct Cache<E, S = RandomState> {
    places: HashMap<E, u32, S>,
    slots: Vec<Option<(E, u32)>>,
    /// A bit for each slot: whether it was used since the hand passed.
    used: Vec<AtomicU64>,
    free: Vec<u32>,
    /// The slot that is looked at next when room is needed.
    hand: usize,
    size: usize,
    size_max: usize,
}

impl<E: Clone + Eq + Hash, S: BuildHasher + Default> Cache<E, S> {
    /// An empty cache for `size_max` bytes.
    pub(crate) fn new(size_max: usize) -> Cache<E, S> {
        Cache {
            places: HashMap::default(),
            slots: Vec::new(),
            used: Vec::new(),
            free: Vec::new(),
            hand: 0,
            size: 0,
            size_max,
        }
    }

    /// Bytes in use.
    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// The entry of `key`, which is thereby in use.
    pub(crate) fn get<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> Option<&E>
    where
        E: Borrow<Q>,
    {
        let (entry, &place) = self.places.get_key_value(key)?;
        let (word, bit) = (&self.used[place as usize / 64], 1 << (place % 64));
        if word.load(Ordering::Relaxed) & bit == 0 {
            word.fetch_or(bit, Ordering::Relaxed);
        }
        Some(entry)
    }

    /// Puts an entry of `size` bytes in the place of what its key had.
    pub(crate) fn insert(&mut self, entry: E, size: usize) {
        self.remove(&entry);
        let cost = size + ENTRY_COST;
        if cost > self.size_max {
            return;
        }
        self.make_room(cost);
        let place = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.used.resize_with(self.slots.len().div_ceil(64), AtomicU64::default);
            u32::try_from(self.slots.len() - 1).expect("memory ends before 2^32 entries")
        });
        self.slots[place as usize] = Some((entry.clone(), cost as u32));
        *self.used[place as usize / 64].get_mut() &= !(1 << (place % 64));
        self.places.insert(entry, place);
        self.size += cost;
    }

    /// Forgets the entry of `key`.
    pub(crate) fn remove<Q: Eq + Hash + ?Sized>(&mut self, key: &Q)
    where
        E: Borrow<Q>,
    {
        if let Some(place) = self.places.remove(key) {
            let (_, cost) = self.slots[place as usize].take().expect("a place leads to a full slot");
            self.size -= cost as usize;
            self.free.push(place);
        }
    }

    /// Forgets what was not used lately until there is room for `cost` bytes more.
    fn make_room(&mut self, cost: usize) {
        while self.size + cost > self.size_max {
            self.hand = if self.hand + 1 < self.slots.len() { self.hand + 1 } else { 0 };
            let Some((entry, _)) = &self.slots[self.hand] else { continue };
            let (word, bit) = (self.used[self.hand / 64].get_mut(), 1 << (self.hand % 64));
            if *word & bit == 0 {
                let entry = entry.clone();
                self.remove(&entry);
            } else {
                *word &= !bit;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::hash::Hasher;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    struct Pair(u32, u32);

    impl PartialEq for Pair {
        fn eq(&self, other: &Pair) -> bool {
            self.0 == other.0
        }
    }

    impl Eq for Pair {}

    impl Hash for Pair {
        fn hash<H: Hasher>(&self, state: &mut H) {
            self.0.hash(state);
        }
    }

    impl Borrow<u32> for Pair {
        fn borrow(&self) -> &u32 {
            &self.0
        }
    }

    #[test]
    fn what_is_used_stays_and_the_rest_goes() {
        let mut cache: Cache<Pair> = Cache::new(100 * (ENTRY_COST + 8));
        for key in 0..1000u32 {
            cache.insert(Pair(key, key), 8);
            assert!(cache.size() <= 100 * (ENTRY_COST + 8));
            let _ = cache.get(&3);
        }
        assert_eq!(cache.get(&3).map(|pair| pair.1), Some(3));
        assert!(cache.get(&500).is_none());
        let kept = (0..1000).filter(|key| cache.get(key).is_some()).count();
        assert_eq!(kept, 100);
    }

    #[test]
    fn what_is_too_large_for_the_cache_is_not_kept() {
        let mut cache: Cache<Pair> = Cache::new(10);
        cache.insert(Pair(1, 1), 8);
        assert!(cache.get(&1).is_none());
        assert_eq!(cache.size(), 0);
    }

    proptest! {
        #[test]
        fn it_never_gives_another_value(steps in prop::collection::vec((0..90u32, any::<u32>(), 0..3u8), 1..400)) {
            let mut cache: Cache<Pair> = Cache::new(70 * (ENTRY_COST + 4));
            let mut model = BTreeMap::new();
            for (key, value, what) in steps {
                match what {
                    0 => {
                        cache.insert(Pair(key, value), 4);
                        model.insert(key, value);
                    }
                    1 => {
                        cache.remove(&key);
                        model.remove(&key);
                    }
                    _ => {
                        let found = cache.get(&key).map(|pair| pair.1);
                        prop_assert!(found.is_none_or(|found| model.get(&key) == Some(&found)));
                    }
                }
                prop_assert!(cache.size() <= 70 * (ENTRY_COST + 4));
            }
        }
    }
}
