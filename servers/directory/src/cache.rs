//! A bounded cache: what was used lately stays (the clock algorithm, so that a hit writes nothing but one bit).
//!
//! With a million entries each line of memory that is read costs more than all the code. So there is one table, whose
//! slots hold all that is known of an entry, and a hit reads its slot and the entry: an entry lies in the slot that its
//! hash names, or behind it with no empty slot between (linear probing). One that goes lets those behind it move up.

use std::borrow::Borrow;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::atomic::{AtomicU32, Ordering};

/// What an entry costs beside its contents, in bytes: its part of the table, its allocation.
const ENTRY_COST: usize = 104;
/// Slots of an empty cache.
const SLOTS_MIN: usize = 16;
/// In the mark of a slot: it was used since the hand passed. The rest is what its entry costs.
const USED: u32 = 1 << 31;

/// Entries, each of which knows its key, as many as fit into so many bytes.
pub(crate) struct Cache<E, S = RandomState> {
    /// A power of two of them; at most three of four are full.
    slots: Vec<Option<Slot<E>>>,
    count: usize,
    hasher: S,
    /// The slot that is looked at next when room is needed.
    hand: usize,
    size: usize,
    size_max: usize,
}

struct Slot<E> {
    entry: E,
    /// So that hardly any other entry is read on the way to one, and none when the table grows.
    hash: u32,
    mark: AtomicU32,
}

impl<E> Slot<E> {
    fn cost(&self) -> usize {
        (self.mark.load(Ordering::Relaxed) & !USED) as usize
    }
}

fn empty<E>(count: usize) -> Vec<Option<Slot<E>>> {
    std::iter::repeat_with(|| None).take(count).collect()
}

impl<E: Eq + Hash, S: BuildHasher + Default> Cache<E, S> {
    /// An empty cache for `size_max` bytes.
    pub(crate) fn new(size_max: usize) -> Cache<E, S> {
        Cache { slots: empty(SLOTS_MIN), count: 0, hasher: S::default(), hand: 0, size: 0, size_max }
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
        self.get_hashed(self.hash(key), key)
    }

    /// As [`Cache::get`], if the hash of the key is known.
    pub(crate) fn get_hashed<Q: Eq + ?Sized>(&self, hash: u32, key: &Q) -> Option<&E>
    where
        E: Borrow<Q>,
    {
        let slot = self.slots[self.find(hash, key)?].as_ref().expect("what was found is there");
        if slot.mark.load(Ordering::Relaxed) & USED == 0 {
            slot.mark.fetch_or(USED, Ordering::Relaxed);
        }
        Some(&slot.entry)
    }

    /// Puts an entry of `size` bytes in the place of what its key had.
    pub(crate) fn insert(&mut self, entry: E, size: usize) {
        let (hash, cost) = (self.hash(&entry), size + ENTRY_COST);
        let known = self.find(hash, &entry);
        let Some(mark) = u32::try_from(cost).ok().filter(|&mark| cost <= self.size_max && mark < USED) else {
            return known.map_or((), |at| self.vacate(at));
        };
        let slot = Slot { entry, hash, mark: AtomicU32::new(mark) };
        if let Some(at) = known {
            let old = self.slots[at].replace(slot).expect("what was found is there");
            self.size = self.size - old.cost() + cost;
            return self.make_room(0);
        }
        self.make_room(cost);
        if (self.count + 1) * 4 > self.slots.len() * 3 {
            self.grow();
        }
        self.place(slot);
        self.count += 1;
        self.size += cost;
    }

    /// Forgets the entry of `key`.
    pub(crate) fn remove<Q: Eq + Hash + ?Sized>(&mut self, key: &Q)
    where
        E: Borrow<Q>,
    {
        if let Some(at) = self.find(self.hash(key), key) {
            self.vacate(at);
        }
    }

    /// The hash of a key.
    pub(crate) fn hash<Q: Hash + ?Sized>(&self, key: &Q) -> u32 {
        self.hasher.hash_one(key) as u32
    }

    /// The slot that an entry with this hash is to have.
    fn home(&self, hash: u32) -> usize {
        hash as usize & (self.slots.len() - 1)
    }

    fn behind(&self, at: usize) -> usize {
        (at + 1) & (self.slots.len() - 1)
    }

    fn find<Q: Eq + ?Sized>(&self, hash: u32, key: &Q) -> Option<usize>
    where
        E: Borrow<Q>,
    {
        let mut at = self.home(hash);
        loop {
            let slot = self.slots[at].as_ref()?;
            if slot.hash == hash && slot.entry.borrow() == key {
                return Some(at);
            }
            at = self.behind(at);
        }
    }

    /// Puts an entry whose key is not there into the first empty slot from its own on. There is one.
    fn place(&mut self, slot: Slot<E>) {
        let mut at = self.home(slot.hash);
        while self.slots[at].is_some() {
            at = self.behind(at);
        }
        self.slots[at] = Some(slot);
    }

    /// Empties a full slot. An entry behind it that could not be found past an empty slot takes its place, and so on.
    fn vacate(&mut self, at: usize) {
        let gone = self.slots[at].take().expect("only a full slot is emptied");
        self.count -= 1;
        self.size -= gone.cost();
        let (mut hole, mut at, last) = (at, at, self.slots.len() - 1);
        loop {
            at = self.behind(at);
            let Some(slot) = &self.slots[at] else { return };
            let from_home = at.wrapping_sub(self.home(slot.hash)) & last;
            if from_home >= at.wrapping_sub(hole) & last {
                self.slots.swap(hole, at);
                hole = at;
            }
        }
    }

    /// Twice as many slots.
    fn grow(&mut self) {
        let larger = empty(self.slots.len() * 2);
        let slots = std::mem::replace(&mut self.slots, larger);
        slots.into_iter().flatten().for_each(|slot| self.place(slot));
    }

    /// Forgets what was not used lately until there is room for `cost` bytes more.
    fn make_room(&mut self, cost: usize) {
        while self.size + cost > self.size_max {
            self.hand = self.behind(self.hand);
            let Some(slot) = &mut self.slots[self.hand] else { continue };
            let mark = slot.mark.get_mut();
            if *mark & USED == 0 {
                self.vacate(self.hand);
            } else {
                *mark &= !USED;
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

    /// Many keys have one hash, and the hashes lie at the end of the table.
    #[derive(Clone, Default)]
    struct Crowded(u64);

    impl BuildHasher for Crowded {
        type Hasher = Crowded;
        fn build_hasher(&self) -> Crowded {
            Crowded(0)
        }
    }

    impl Hasher for Crowded {
        fn finish(&self) -> u64 {
            0xFFFF_FFFC + self.0 % 7
        }

        fn write(&mut self, bytes: &[u8]) {
            self.0 = u64::from(bytes[0]);
        }
    }

    proptest! {
        #[test]
        fn while_there_is_room_nothing_is_lost(steps in prop::collection::vec((0..60u32, any::<u32>(), 0..3u8), 1..150)) {
            let mut cache: Cache<Pair, Crowded> = Cache::new(usize::MAX);
            let mut model = BTreeMap::new();
            for (key, value, what) in steps {
                if what == 0 {
                    cache.remove(&key);
                    model.remove(&key);
                } else {
                    cache.insert(Pair(key, value), 4);
                    model.insert(key, value);
                }
                for key in 0..60 {
                    prop_assert_eq!(cache.get(&key).map(|pair| pair.1), model.get(&key).copied());
                }
                prop_assert_eq!(cache.size(), model.len() * (ENTRY_COST + 4));
            }
        }

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
