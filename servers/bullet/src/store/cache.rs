//! Committed bytes in memory: whole files, and of files too large for that their hash tables and chunks.
//! Least recently used ones go first.
//!
//! A large file that a reader on this host wants is kept as a memory file, which the reader gets itself. Memory that
//! somebody else still has is not free when the cache drops it: so such a file stays, or, when it is destroyed, is
//! counted until the world says that nobody has it. What may be lent is bounded (`lendable_max` below); past it readers
//! get copies.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Deref;
use std::sync::Arc;

use amoeba_world::Memory;

/// Bytes that many may hold. What is handed out stays whole when the cache drops it.
pub type Bytes = Arc<Vec<u8>>;

/// Memory counted for an item besides its bytes.
const OVERHEAD: u64 = 128;
/// The unit in which the world gives memory files.
const PAGE_SIZE: u64 = 4096;
/// Memory files that the cache has at most.
pub(super) const LENDABLE_MAX: usize = 1024;
/// No slot.
const NONE: u32 = u32::MAX;

/// Committed bytes, however they are in memory.
#[derive(Clone)]
pub(super) enum Cached {
    /// For this server alone.
    Own(Bytes),
    /// In a memory file, which may be lent.
    Lendable(Memory),
}

impl Cached {
    /// The memory they are counted as.
    fn cost(&self) -> u64 {
        match self {
            Cached::Own(bytes) => cost(bytes),
            Cached::Lendable(memory) => lendable_cost(memory.bytes().len() as u64),
        }
    }

    /// Whether somebody else may have them still when the cache drops them.
    fn is_lent(&self) -> bool {
        match self {
            Cached::Own(_) => false,
            // A thread of this server that is about to lend it counts as well.
            Cached::Lendable(memory) => Arc::strong_count(memory) > 1 || memory.is_lent(),
        }
    }

    fn is_lendable(&self) -> bool {
        matches!(self, Cached::Lendable(_))
    }
}

impl Deref for Cached {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Cached::Own(bytes) => bytes,
            Cached::Lendable(memory) => memory.bytes(),
        }
    }
}

impl AsRef<[u8]> for Cached {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl From<Bytes> for Cached {
    fn from(bytes: Bytes) -> Cached {
        Cached::Own(bytes)
    }
}

impl From<Memory> for Cached {
    fn from(memory: Memory) -> Cached {
        Cached::Lendable(memory)
    }
}

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

struct Slot {
    key: Key,
    bytes: Cached,
    newer: u32,
    older: u32,
}

/// The cache. Its owner says when it must shrink.
pub(super) struct Cache {
    /// The slots of whole files by object number, so that to find one takes no search.
    whole: Vec<u32>,
    /// Those of parts of large files.
    parts: BTreeMap<Key, u32>,
    slots: Vec<Option<Slot>>,
    free: Vec<u32>,
    newest: u32,
    oldest: u32,
    /// Bytes of everything here, `orphans` included.
    size: u64,
    /// Numbers of files that became memory files, the first ones first; some of them are gone by now.
    lendable: VecDeque<u32>,
    /// Bytes of memory files, `orphans` included.
    lendable_size: u64,
    /// Memory files of destroyed files that somebody may still have.
    orphans: Vec<Memory>,
}

impl Default for Cache {
    fn default() -> Cache {
        Cache {
            whole: Vec::new(),
            parts: BTreeMap::new(),
            slots: Vec::new(),
            free: Vec::new(),
            newest: NONE,
            oldest: NONE,
            size: 0,
            lendable: VecDeque::new(),
            lendable_size: 0,
            orphans: Vec::new(),
        }
    }
}

impl Cache {
    /// Bytes in the cache, overhead included, and those that others still have of files that are gone.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Of them: bytes that are, or may be, lent.
    pub(super) fn lendable_size(&self) -> u64 {
        self.lendable_size
    }

    /// The bytes under `key`, which are now the most recently used.
    pub(super) fn get(&mut self, key: Key) -> Option<Cached> {
        let index = self.find(key)?;
        if self.newest != index {
            self.unlink(index);
            self.link(index);
        }
        Some(self.slot(index).bytes.clone())
    }

    /// Puts bytes in, as the most recently used; what was there before, to be dropped without a lock.
    pub(super) fn insert(&mut self, key: Key, bytes: impl Into<Cached>) -> Option<Cached> {
        let bytes = bytes.into();
        let before = self.remove(key);
        self.size += bytes.cost();
        if bytes.is_lendable() {
            self.lendable_size += bytes.cost();
            self.lendable.push_back(key.number);
        }
        let slot = Some(Slot { key, bytes, newer: NONE, older: NONE });
        let index = match self.free.pop() {
            Some(index) => {
                self.slots[index as usize] = slot;
                index
            }
            None => {
                self.slots.push(slot);
                u32::try_from(self.slots.len() - 1).expect("items take more memory than a machine has")
            }
        };
        self.link(index);
        match key.part {
            0 => {
                let number = key.number as usize;
                if self.whole.len() <= number {
                    self.whole.resize((number + 1).next_power_of_two(), NONE);
                }
                self.whole[number] = index;
            }
            _ => {
                self.parts.insert(key, index);
            }
        }
        before
    }

    /// Takes every part of a file out.
    pub(super) fn remove_file(&mut self, number: u32) -> Vec<Cached> {
        let parts = self.parts.range(Key::whole(number)..=Key { number, part: u64::MAX });
        let keys: Vec<Key> = std::iter::once(Key::whole(number)).chain(parts.map(|(key, _)| *key)).collect();
        keys.into_iter().filter_map(|key| self.remove(key)).collect()
    }

    /// Takes out least recently used bytes until at most `size` are left, or until only such are left that somebody else
    /// has. The caller drops them without a lock.
    pub(super) fn shrink(&mut self, size: u64) -> Vec<Cached> {
        let mut out = Vec::new();
        if self.size > size {
            out.extend(self.reap());
        }
        let mut lent = 0;
        while self.size > size && self.oldest != NONE && lent <= self.lendable.len() {
            let index = self.oldest;
            if self.slot(index).bytes.is_lent() {
                // It is in use, and to drop it would free nothing.
                lent += 1;
                self.unlink(index);
                self.link(index);
                continue;
            }
            out.extend(self.remove(self.slot(index).key));
        }
        out
    }

    /// Makes room for a memory file of `size` bytes if memory files are to have at most `lendable_max` of memory: the oldest
    /// that nobody has make way. Whether there is room, and what made way.
    pub(super) fn make_lendable_room(&mut self, size: u64, lendable_max: u64) -> (bool, Vec<Cached>) {
        let wanted = lendable_cost(size);
        let mut out = Vec::new();
        if self.lendable_size + wanted > lendable_max {
            out.extend(self.reap());
        }
        for _ in 0..self.lendable.len() {
            if self.lendable_size + wanted <= lendable_max && self.lendable.len() < LENDABLE_MAX {
                break;
            }
            let Some(number) = self.lendable.pop_front() else { break };
            let index = self.find(Key::whole(number));
            let Some(index) = index.filter(|&index| self.slot(index).bytes.is_lendable()) else { continue };
            if self.slot(index).bytes.is_lent() {
                self.lendable.push_back(number);
            } else {
                out.extend(self.remove(Key::whole(number)));
            }
        }
        let fits = self.lendable_size + wanted <= lendable_max && self.lendable.len() < LENDABLE_MAX;
        (fits, out)
    }

    /// Takes out what was kept for others and that they no longer have.
    pub(super) fn reap(&mut self) -> Vec<Cached> {
        let orphans = std::mem::take(&mut self.orphans).into_iter().map(Cached::Lendable);
        let (lent, gone): (Vec<_>, Vec<_>) = orphans.partition(Cached::is_lent);
        let freed: u64 = gone.iter().map(Cached::cost).sum();
        self.size -= freed;
        self.lendable_size -= freed;
        for bytes in lent {
            if let Cached::Lendable(memory) = bytes {
                self.orphans.push(memory);
            }
        }
        gone
    }

    fn find(&self, key: Key) -> Option<u32> {
        let index = match key.part {
            0 => *self.whole.get(key.number as usize)?,
            _ => *self.parts.get(&key)?,
        };
        (index != NONE).then_some(index)
    }

    fn slot(&self, index: u32) -> &Slot {
        self.slots[index as usize].as_ref().expect("what is linked and found is there")
    }

    fn slot_mut(&mut self, index: u32) -> &mut Slot {
        self.slots[index as usize].as_mut().expect("what is linked and found is there")
    }

    /// Takes one item out. What somebody else has of it stays counted.
    fn remove(&mut self, key: Key) -> Option<Cached> {
        let index = self.find(key)?;
        self.unlink(index);
        let slot = self.slots[index as usize].take().expect("it was found");
        self.free.push(index);
        match key.part {
            0 => self.whole[key.number as usize] = NONE,
            _ => {
                self.parts.remove(&key);
            }
        }
        let bytes = slot.bytes;
        if bytes.is_lent()
            && let Cached::Lendable(memory) = bytes
        {
            self.orphans.push(memory);
            return None;
        }
        self.size -= bytes.cost();
        if bytes.is_lendable() {
            self.lendable_size -= bytes.cost();
        }
        Some(bytes)
    }

    /// Makes an item the newest.
    fn link(&mut self, index: u32) {
        let older = self.newest;
        let slot = self.slot_mut(index);
        (slot.older, slot.newer) = (older, NONE);
        match older {
            NONE => self.oldest = index,
            older => self.slot_mut(older).newer = index,
        }
        self.newest = index;
    }

    fn unlink(&mut self, index: u32) {
        let (older, newer) = (self.slot(index).older, self.slot(index).newer);
        match older {
            NONE => self.oldest = newer,
            older => self.slot_mut(older).newer = newer,
        }
        match newer {
            NONE => self.newest = older,
            newer => self.slot_mut(newer).older = older,
        }
    }
}

/// The memory that cached bytes are counted as.
pub(super) fn cost(bytes: &Vec<u8>) -> u64 {
    bytes.capacity() as u64 + OVERHEAD
}

/// The memory that a memory file of `size` bytes is counted as.
fn lendable_cost(size: u64) -> u64 {
    size.next_multiple_of(PAGE_SIZE) + OVERHEAD
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use amoeba_wire::packet::Address;
    use amoeba_world::{Error, MemoryFile};

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
        assert_eq!(cache.shrink(0).len(), 1);
        assert_eq!((cache.size(), cache.newest, cache.oldest), (0, NONE, NONE));
    }

    /// A memory file of which the test says whether somebody has it.
    struct File(Vec<u8>, Arc<AtomicBool>);

    impl MemoryFile for File {
        fn bytes(&self) -> &[u8] {
            &self.0
        }

        fn is_lent(&self) -> bool {
            self.1.load(Ordering::Relaxed)
        }

        fn lend(&self, _: Address) -> Result<u64, Error> {
            self.1.store(true, Ordering::Relaxed);
            Ok(1)
        }
    }

    fn lendable(cache: &mut Cache, number: u32) -> Arc<AtomicBool> {
        let lent = Arc::new(AtomicBool::new(true));
        let memory: Memory = Arc::new(File(vec![0; 4096], lent.clone()));
        cache.insert(Key::whole(number), memory);
        lent
    }

    const COST: u64 = 4096 + OVERHEAD;

    #[test]
    fn what_somebody_has_stays_counted_until_nobody_has_it() {
        let mut cache = Cache::default();
        let first = lendable(&mut cache, 1);
        let second = lendable(&mut cache, 2);
        cache.insert(Key::whole(3), Arc::new(vec![0; 100]));
        assert_eq!(cache.shrink(0).len(), 1, "only what is the server's own can go");
        assert_eq!(cache.size(), 2 * COST);
        assert!(cache.remove_file(1).is_empty(), "destroyed, but not gone");
        assert!(cache.get(Key::whole(1)).is_none());
        assert_eq!((cache.size(), cache.lendable_size()), (2 * COST, 2 * COST));
        second.store(false, Ordering::Relaxed);
        assert_eq!(cache.shrink(COST).len(), 1, "the second can go");
        assert_eq!(cache.size(), COST);
        first.store(false, Ordering::Relaxed);
        assert_eq!(cache.shrink(COST).len(), 0, "nothing need go");
        assert_eq!(cache.shrink(0).len(), 1);
        assert_eq!((cache.size(), cache.lendable_size()), (0, 0));
    }

    #[test]
    fn past_the_bound_nothing_is_lent_and_what_nobody_has_makes_way() {
        let mut cache = Cache::default();
        let lent: Vec<_> = (1..=3).map(|number| lendable(&mut cache, number)).collect();
        assert!(cache.make_lendable_room(4096, 4 * COST).0, "there is room for four");
        assert!(!cache.make_lendable_room(4096, 3 * COST).0, "somebody has all three");
        lent[1].store(false, Ordering::Relaxed);
        let (fits, gone) = cache.make_lendable_room(4096, 3 * COST);
        assert!(fits && gone.len() == 1);
        assert!(cache.get(Key::whole(2)).is_none());
        assert!(cache.get(Key::whole(1)).is_some() && cache.get(Key::whole(3)).is_some());
        assert!(cache.remove_file(1).is_empty());
        assert!(!cache.make_lendable_room(4096 * 2, 3 * COST).0, "the destroyed one still takes its part");
        lent[0].store(false, Ordering::Relaxed);
        assert!(cache.make_lendable_room(4096 * 2, 3 * COST).0);
        assert_eq!(cache.lendable_size(), COST);
    }
}
