//! A bounded cache: what was used lately stays (the clock algorithm, so that a hit writes nothing but one flag).

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::atomic::{AtomicBool, Ordering};

/// What an entry costs beside its key and value, in bytes: its slot, its place in the table, two allocations.
const ENTRY_COST: usize = 128;

/// Values by key, as many as fit into so many bytes.
pub(crate) struct Cache<K, V> {
    places: HashMap<K, usize>,
    slots: Vec<Option<Slot<K, V>>>,
    free: Vec<usize>,
    /// The slot that is looked at next when room is needed.
    hand: usize,
    size: usize,
    size_max: usize,
}

struct Slot<K, V> {
    key: K,
    value: V,
    cost: usize,
    used: AtomicBool,
}

impl<K: Clone + Eq + Hash, V> Cache<K, V> {
    /// An empty cache for `size_max` bytes.
    pub(crate) fn new(size_max: usize) -> Cache<K, V> {
        Cache { places: HashMap::new(), slots: Vec::new(), free: Vec::new(), hand: 0, size: 0, size_max }
    }

    /// Bytes in use.
    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// The value of `key`, which is thereby in use.
    pub(crate) fn get<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        let slot = self.slots[*self.places.get(key)?].as_ref().expect("a place leads to a full slot");
        if !slot.used.load(Ordering::Relaxed) {
            slot.used.store(true, Ordering::Relaxed);
        }
        Some(&slot.value)
    }

    /// Puts a value of `size` bytes, key included, in the place of what `key` had.
    pub(crate) fn insert(&mut self, key: K, value: V, size: usize) {
        let cost = size + ENTRY_COST;
        let slot = Slot { key: key.clone(), value, cost, used: AtomicBool::new(false) };
        self.size += cost;
        match self.places.get(&key) {
            Some(&place) => {
                let old = self.slots[place].replace(slot).expect("a place leads to a full slot");
                self.size -= old.cost;
            }
            None => {
                let place = self.free.pop().unwrap_or_else(|| {
                    self.slots.push(None);
                    self.slots.len() - 1
                });
                self.slots[place] = Some(slot);
                self.places.insert(key, place);
            }
        }
        self.make_room();
    }

    /// Forgets the value of `key`.
    pub(crate) fn remove<Q: Eq + Hash + ?Sized>(&mut self, key: &Q)
    where
        K: Borrow<Q>,
    {
        if let Some(place) = self.places.remove(key) {
            let slot = self.slots[place].take().expect("a place leads to a full slot");
            self.size -= slot.cost;
            self.free.push(place);
        }
    }

    fn make_room(&mut self) {
        while self.size > self.size_max {
            self.hand = if self.hand + 1 < self.slots.len() { self.hand + 1 } else { 0 };
            let Some(slot) = &mut self.slots[self.hand] else { continue };
            if !std::mem::take(slot.used.get_mut()) {
                let key = slot.key.clone();
                self.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_used_stays_and_the_rest_goes() {
        let mut cache = Cache::new(100 * (ENTRY_COST + 8));
        for key in 0..1000u32 {
            cache.insert(key, key, 8);
            assert!(cache.size() <= 100 * (ENTRY_COST + 8));
            let _ = cache.get(&3);
        }
        assert_eq!(cache.get(&3), Some(&3));
        assert_eq!(cache.get(&500), None);
        let kept = (0..1000).filter(|key| cache.get(key).is_some()).count();
        assert_eq!(kept, 100);
    }

    #[test]
    fn what_is_too_large_for_the_cache_is_not_kept() {
        let mut cache = Cache::new(10);
        cache.insert(1u32, 1, 8);
        assert_eq!((cache.get(&1), cache.size()), (None, 0));
    }

    proptest! {
        #[test]
        fn it_never_gives_another_value(steps in prop::collection::vec((0..40u32, any::<u32>(), 0..3u8), 1..300)) {
            let mut cache = Cache::new(20 * (ENTRY_COST + 4));
            let mut model = BTreeMap::new();
            for (key, value, what) in steps {
                match what {
                    0 => {
                        cache.insert(key, value, 4);
                        model.insert(key, value);
                    }
                    1 => {
                        cache.remove(&key);
                        model.remove(&key);
                    }
                    _ => prop_assert!(cache.get(&key).is_none_or(|found| model.get(&key) == Some(found))),
                }
                prop_assert!(cache.size() <= 20 * (ENTRY_COST + 4));
            }
        }
    }
}
