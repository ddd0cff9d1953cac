//! The one source of chance: xoshiro256**, seeded by splitmix64. Every subsystem has a generator of its own, made from
//! the seed and a label, so that one more draw here shifts nothing there.

use std::sync::{Mutex, PoisonError};

use amoeba_world::Entropy;

/// A deterministic generator. Not for secrets outside a simulation.
#[derive(Clone, Debug)]
pub struct Prng([u64; 4]);

fn splitmix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

impl Prng {
    /// The generator of `label` number `index` under `seed`.
    pub fn new(seed: u64, label: &str, index: u64) -> Prng {
        let mut state = seed;
        for byte in label.bytes() {
            state = splitmix(&mut state) ^ u64::from(byte);
        }
        state = splitmix(&mut state) ^ index;
        Prng(std::array::from_fn(|_| splitmix(&mut state)))
    }

    /// 64 random bits.
    pub fn word(&mut self) -> u64 {
        let [a, b, c, d] = &mut self.0;
        let result = b.wrapping_mul(5).rotate_left(7).wrapping_mul(9);
        let shifted = *b << 17;
        *c ^= *a;
        *d ^= *b;
        *b ^= *c;
        *a ^= *d;
        *c ^= shifted;
        *d = d.rotate_left(45);
        result
    }

    /// A number below `bound`, which is not zero.
    pub fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "nothing is below zero");
        ((u128::from(self.word()) * u128::from(bound)) >> 64) as u64
    }

    /// A number from `low` to `high`, both included.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        assert!(low <= high, "an empty range");
        match (high - low).checked_add(1) {
            Some(bound) => low + self.below(bound),
            None => self.word(),
        }
    }

    /// True `per_mille` times in a thousand.
    pub fn chance(&mut self, per_mille: u32) -> bool {
        self.below(1000) < u64::from(per_mille)
    }

    /// One of `items`, which is not empty.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len() as u64) as usize]
    }

    /// Fills `bytes`.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let word = self.word().to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
    }

    /// `size` random bytes.
    pub fn bytes(&mut self, size: usize) -> Vec<u8> {
        let mut bytes = vec![0; size];
        self.fill(&mut bytes);
        bytes
    }
}

/// [`Entropy`] from the seed.
pub(crate) struct SeededEntropy(Mutex<Prng>);

impl SeededEntropy {
    pub(crate) fn new(random: Prng) -> SeededEntropy {
        SeededEntropy(Mutex::new(random))
    }
}

impl Entropy for SeededEntropy {
    fn fill(&self, bytes: &mut [u8]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).fill(bytes);
    }
}

/// As [`SeededEntropy`], but what is four bytes long, the first of a run of serial numbers, lies just before their end.
pub(crate) struct NearWrap(SeededEntropy);

impl NearWrap {
    pub(crate) fn new(random: Prng) -> NearWrap {
        NearWrap(SeededEntropy::new(random))
    }
}

impl Entropy for NearWrap {
    fn fill(&self, bytes: &mut [u8]) {
        self.0.fill(bytes);
        if let Ok(number) = <&mut [u8; 4]>::try_from(bytes) {
            let before = u32::from_le_bytes(*number) % 32;
            *number = (u32::MAX - before).to_le_bytes();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_independent_and_repeatable() {
        let draws = |label, index| {
            let mut random = Prng::new(7, label, index);
            [random.word(), random.word(), random.word()]
        };
        assert_eq!(draws("network", 0), draws("network", 0));
        assert_ne!(draws("network", 0), draws("network", 1));
        assert_ne!(draws("network", 0), draws("disk", 0));
    }

    #[test]
    fn numbers_stay_in_their_range_and_reach_its_ends() {
        let mut random = Prng::new(1, "test", 0);
        let draws: Vec<u64> = (0..1000).map(|_| random.between(3, 6)).collect();
        assert_eq!((draws.iter().min(), draws.iter().max()), (Some(&3), Some(&6)));
        assert!((0..1000).all(|_| !random.chance(0)));
        assert!((0..1000).all(|_| random.chance(1000)));
    }
}
