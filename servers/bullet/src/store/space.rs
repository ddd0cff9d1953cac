//! The free blocks of the data region: which are free, and which to take.
//!
//! A new file takes the smallest hole that holds it, the lowest of equal ones. (First fit, the original's rule, walks
//! the holes: with a million of them that costs more than the commit itself. Best fit is one search in a tree.)
//! A file that still grows takes the start of the largest hole, so that it can grow in place.

use std::collections::{BTreeMap, BTreeSet};

/// Contiguous blocks. An empty one has `blocks` 0 and `first` 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Extent {
    /// The first block.
    pub first: u64,
    /// How many.
    pub blocks: u64,
}

impl Extent {
    /// No blocks: where an empty file lies.
    pub(super) const NONE: Extent = Extent { first: 0, blocks: 0 };

    /// The first block behind it.
    pub(super) fn end(&self) -> u64 {
        self.first + self.blocks
    }
}

/// The holes of a data region.
#[derive(Default)]
pub(super) struct Space {
    by_first: BTreeMap<u64, u64>,
    by_size: BTreeSet<(u64, u64)>,
    free: u64,
}

impl Space {
    /// A region without free blocks; [`Space::release`] adds them.
    pub(super) fn new() -> Space {
        Space::default()
    }

    /// A region with these holes, which lie in order and do not touch.
    pub(super) fn of(mut holes: Vec<Extent>) -> Space {
        holes.retain(|hole| hole.blocks > 0);
        assert!(holes.windows(2).all(|pair| pair[0].end() < pair[1].first), "holes lie apart, in order");
        Space {
            by_first: holes.iter().map(|hole| (hole.first, hole.blocks)).collect(),
            by_size: holes.iter().map(|hole| (hole.blocks, hole.first)).collect(),
            free: holes.iter().map(|hole| hole.blocks).sum(),
        }
    }

    /// Free blocks.
    pub(super) fn free_blocks(&self) -> u64 {
        self.free
    }

    /// Holes.
    pub(super) fn hole_count(&self) -> usize {
        self.by_first.len()
    }

    /// Blocks of the largest hole.
    pub(super) fn hole_blocks_max(&self) -> u64 {
        self.by_size.last().map_or(0, |&(size, _)| size)
    }

    /// The lowest hole that starts at `first` or above.
    pub(super) fn hole_from(&self, first: u64) -> Option<Extent> {
        self.by_first.range(first..).next().map(|(&first, &blocks)| Extent { first, blocks })
    }

    /// The largest hole, the highest of equal ones.
    pub(super) fn largest(&self) -> Option<Extent> {
        self.by_size.last().map(|&(blocks, first)| Extent { first, blocks })
    }

    /// Takes blocks in the middle of a hole, which must be free.
    pub(super) fn claim_within(&mut self, extent: Extent) {
        let before = self.by_first.range(..=extent.first).next_back();
        let (&first, &blocks) = before.expect("blocks that are claimed lie in a hole");
        assert!(extent.end() <= first + blocks, "blocks that are claimed are free");
        self.remove(first, blocks);
        for (first, end) in [(first, extent.first), (extent.end(), first + blocks)] {
            if first < end {
                self.insert(first, end - first);
            }
        }
    }

    /// Takes the start of the hole that starts at `extent.first`; whether it is there and large enough.
    pub(super) fn claim(&mut self, extent: Extent) -> bool {
        match self.by_first.get(&extent.first) {
            Some(&size) if size >= extent.blocks => {
                self.take(extent.first, size, extent.blocks);
                true
            }
            _ => false,
        }
    }

    /// Takes `blocks` contiguous blocks from the best fitting hole.
    pub(super) fn allocate(&mut self, blocks: u64) -> Option<Extent> {
        if blocks == 0 {
            return Some(Extent::NONE);
        }
        let &(size, first) = self.by_size.range((blocks, 0)..).next()?;
        Some(self.take(first, size, blocks))
    }

    /// Takes up to `wanted` blocks, at least `needed`, from the start of the largest hole.
    pub(super) fn allocate_growing(&mut self, needed: u64, wanted: u64) -> Option<Extent> {
        let &(size, first) = self.by_size.last()?;
        // Of a hole that cannot hold all that is wanted, half stays for others if what is needed allows it.
        let blocks = if size >= wanted { wanted } else { needed.max(size / 2) };
        (size >= needed && blocks > 0).then(|| self.take(first, size, blocks))
    }

    /// Lengthens `extent` in place to at least `needed` and up to `wanted` blocks; whether it could.
    pub(super) fn extend(&mut self, extent: &mut Extent, needed: u64, wanted: u64) -> bool {
        if extent.blocks >= needed {
            return true;
        }
        let Some(&hole) = self.by_first.get(&extent.end()) else { return false };
        if extent.blocks + hole < needed {
            return false;
        }
        let more = (wanted.max(needed) - extent.blocks).min(hole);
        self.take(extent.end(), hole, more);
        extent.blocks += more;
        true
    }

    /// Cuts `extent` to its first `blocks` blocks and frees the rest.
    pub(super) fn trim(&mut self, extent: &mut Extent, blocks: u64) {
        assert!(blocks <= extent.blocks, "an extent is trimmed, not grown");
        self.release(Extent { first: extent.first + blocks, blocks: extent.blocks - blocks });
        *extent = if blocks == 0 { Extent::NONE } else { Extent { first: extent.first, blocks } };
    }

    /// Frees blocks, which must be taken.
    pub(super) fn release(&mut self, extent: Extent) {
        if extent.blocks == 0 {
            return;
        }
        let (mut first, mut size) = (extent.first, extent.blocks);
        if let Some((&before, &count)) = self.by_first.range(..=first).next_back() {
            assert!(before + count <= first, "a freed extent was taken");
            if before + count == first {
                self.remove(before, count);
                (first, size) = (before, count + size);
            }
        }
        if let Some((&after, &count)) = self.by_first.range(extent.first..).next() {
            assert!(extent.end() <= after, "a freed extent was taken");
            if extent.end() == after {
                self.remove(after, count);
                size += count;
            }
        }
        self.insert(first, size);
    }

    fn take(&mut self, first: u64, size: u64, blocks: u64) -> Extent {
        self.remove(first, size);
        if size > blocks {
            self.insert(first + blocks, size - blocks);
        }
        Extent { first, blocks }
    }

    fn insert(&mut self, first: u64, size: u64) {
        self.by_first.insert(first, size);
        self.by_size.insert((size, first));
        self.free += size;
    }

    fn remove(&mut self, first: u64, size: u64) {
        let was = self.by_first.remove(&first);
        assert_eq!(was, Some(size), "both orders hold the same holes");
        self.by_size.remove(&(size, first));
        self.free -= size;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_smallest_hole_that_fits_is_taken_and_neighbours_join() {
        let mut space = Space::new();
        space.release(Extent { first: 10, blocks: 5 });
        space.release(Extent { first: 20, blocks: 3 });
        assert_eq!(space.allocate(3), Some(Extent { first: 20, blocks: 3 }));
        assert_eq!(space.allocate(6), None);
        let mut a = space.allocate(2).unwrap();
        assert!(space.extend(&mut a, 3, 4));
        assert_eq!(a, Extent { first: 10, blocks: 4 });
        space.trim(&mut a, 1);
        space.release(a);
        assert_eq!((space.hole_count(), space.free_blocks()), (1, 5));
    }

    proptest! {
        /// Against a plain array of blocks.
        #[test]
        fn no_block_is_taken_twice(ops in proptest::collection::vec((0u8..5, 1u64..20), 1..200)) {
            let mut space = Space::new();
            space.release(Extent { first: 1, blocks: 99 });
            let mut taken = [false; 100];
            let mut held: Vec<Extent> = Vec::new();
            let set = |taken: &mut [bool; 100], extent: Extent, value: bool| {
                for block in extent.first..extent.end() {
                    assert_ne!(std::mem::replace(&mut taken[block as usize], value), value);
                }
            };
            for (op, blocks) in ops {
                let index = blocks as usize % held.len().max(1);
                match op {
                    0 | 1 => {
                        let got = if op == 0 { space.allocate(blocks) } else { space.allocate_growing(blocks, blocks * 2) };
                        if let Some(extent) = got {
                            set(&mut taken, extent, true);
                            held.push(extent);
                        } else {
                            let mut run = 0;
                            for &block in &taken[1..] {
                                run = if block { 0 } else { run + 1 };
                                prop_assert!(run < blocks);
                            }
                        }
                    }
                    2 if !held.is_empty() => {
                        let extent = held.swap_remove(index);
                        set(&mut taken, extent, false);
                        space.release(extent);
                    }
                    3 if !held.is_empty() => {
                        let old = held[index];
                        if space.extend(&mut held[index], old.blocks + 1, old.blocks + blocks) {
                            set(&mut taken, Extent { first: old.end(), blocks: held[index].blocks - old.blocks }, true);
                        }
                    }
                    4 if !held.is_empty() => {
                        let old = held[index];
                        space.trim(&mut held[index], old.blocks / 2);
                        let kept = old.blocks / 2;
                        set(&mut taken, Extent { first: old.first + kept, blocks: old.blocks - kept }, false);
                        if kept == 0 { held.swap_remove(index); }
                    }
                    _ => {}
                }
                prop_assert_eq!(space.free_blocks(), taken[1..].iter().filter(|taken| !**taken).count() as u64);
            }
        }
    }
}
