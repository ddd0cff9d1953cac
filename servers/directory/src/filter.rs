//! Which keys are certainly not in a set of changes.
//!
//! A set of tens of thousands of rows, each of which lies somewhere else, takes dozens of reads to be searched, and most
//! keys that are searched for are not in it.

/// Bits of a filter: of the changes that wait for a checkpoint, twenty times as many as there are as a rule.
const BITS: usize = 1 << 20;
const WORDS: usize = BITS / 64;

/// A bit for each hash that was noted. Nothing is ever taken back: it goes with its set.
#[derive(Debug, Default)]
pub(crate) struct Filter {
    /// None at all as long as nothing was noted.
    words: Vec<u64>,
}

impl Filter {
    /// Notes the hash of a key.
    pub(crate) fn note(&mut self, hash: u32) {
        self.words.resize(WORDS, 0);
        let (word, bit) = place(hash);
        self.words[word] |= bit;
    }

    /// False: no key with this hash was noted.
    pub(crate) fn may_have(&self, hash: u32) -> bool {
        let (word, bit) = place(hash);
        self.words.get(word).is_some_and(|word| word & bit != 0)
    }
}

fn place(hash: u32) -> (usize, u64) {
    let bit = hash as usize / ((1 << 32) / BITS);
    (bit / 64, 1 << (bit % 64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_noted_may_be_there_and_the_rest_mostly_is_not() {
        let hash = |number: u32| number.wrapping_mul(0x9E37_79B1);
        let mut filter = Filter::default();
        assert!((0..1000).all(|number| !filter.may_have(hash(number))));
        (0..40_000).for_each(|number| filter.note(hash(number)));
        [0, u32::MAX].iter().for_each(|&hash| filter.note(hash));
        assert!((0..40_000).all(|number| filter.may_have(hash(number))));
        assert!(filter.may_have(0) && filter.may_have(u32::MAX));
        let wrong = (40_000..140_000).filter(|&number| filter.may_have(hash(number))).count();
        assert!(wrong < 10_000, "{wrong} of 100,000");
    }
}
