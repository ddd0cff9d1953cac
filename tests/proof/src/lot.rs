//! Draws from a seed: the same seed does the same harm, though not at the same instant.

/// A generator (splitmix64).
#[derive(Clone, Debug)]
pub struct Lot(u64);

impl Lot {
    /// The generator of `seed` for the user `label`.
    pub fn new(seed: u64, label: u64) -> Lot {
        let mut lot = Lot(seed ^ label.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        lot.word();
        lot
    }

    /// 64 random bits.
    pub fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, which is not zero.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.word() % bound
    }

    /// A number from `least` to `most`.
    pub fn between(&mut self, least: u64, most: u64) -> u64 {
        least + self.below(most - least + 1)
    }
}
