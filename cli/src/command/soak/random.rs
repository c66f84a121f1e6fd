//! Numbers that look random and depend on a seed alone.

/// SplitMix64.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// One of `0..end`; 0 if there is none.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next().checked_rem(end).unwrap_or(0)
    }

    /// One of `from..=to`.
    pub(crate) fn between(&mut self, from: u64, to: u64) -> u64 {
        from + self.below(to.saturating_sub(from) + 1)
    }

    /// `true` once in `times`.
    pub(crate) fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }
}

/// A number that stands for the text and the seed.
pub(crate) fn of(seed: u64, text: &str) -> u64 {
    text.bytes().fold(seed, |sum, byte| mix(sum ^ u64::from(byte)))
}

/// Every bit of the result depends on every bit of `number`.
pub(crate) fn mix(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_gives_one_sequence_and_another_seed_another() {
        let take = |seed| {
            let mut random = Random::new(seed);
            [random.next(), random.below(1000), random.between(5, 9)]
        };
        assert_eq!(take(7), take(7));
        assert_ne!(take(7), take(8));
        assert!((5..=9).contains(&take(7)[2]));
        assert_ne!(of(1, "a"), of(1, "b"));
        assert_ne!(of(1, "a"), of(2, "a"));
    }

    #[test]
    fn a_choice_from_nothing_is_zero() {
        assert_eq!(Random::new(1).below(0), 0);
        assert_eq!(Random::new(1).between(3, 3), 3);
    }
}
