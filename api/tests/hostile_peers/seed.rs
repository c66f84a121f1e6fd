//! Numbers that look random and can be had again: the same seed, the same attack.

/// Where a run begins if it is to be the same each time.
pub const FIXED: u64 = 0x6d65_6d69_7400_0001;

#[derive(Clone)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// SplitMix64.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Below `end`, which is not 0.
    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    pub fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    /// A number that lies near a border as often as not.
    pub fn edgy(&mut self) -> u64 {
        let near = [0, 1, 63, 64, 4096, 1 << 16, 1 << 31, u64::from(u32::MAX), 1 << 32, 1 << 63, u64::MAX];
        match self.below(3) {
            0 => self.next(),
            1 => self.one_of(&near),
            _ => self.one_of(&near).wrapping_add(self.next() % 129).wrapping_sub(64),
        }
    }

    pub fn fill(&mut self, bytes: &mut [u8]) {
        bytes.fill_with(|| self.next() as u8);
    }

    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.fill(&mut bytes);
        bytes
    }
}
