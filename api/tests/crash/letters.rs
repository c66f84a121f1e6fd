//! Messages that say which they are and whether they are whole.
//!
//! ```text
//! stream u64 | number u64 | checksum of all else u64 | filling
//! ```

const HEADER: usize = 24;

/// What a letter says that it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Letter {
    pub stream: u64,
    pub seq: u64,
}

impl Letter {
    /// Writes the letter over `bytes`, `len` bytes long or a little less.
    pub fn write(self, bytes: &mut Vec<u8>, len: usize) {
        let Self { stream, seq } = self;
        bytes.clear();
        for word in [stream, seq, 0] {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        let mut filling = mixed(stream.rotate_left(32) ^ seq);
        while bytes.len() + size_of::<u64>() <= len {
            filling = filling.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29);
            bytes.extend_from_slice(&filling.to_le_bytes());
        }
        let checksum = checksum(bytes);
        bytes[16..HEADER].copy_from_slice(&checksum.to_le_bytes());
    }

    /// Writes the letter in one of the sizes of [`size`].
    pub fn write_mixed(self, bytes: &mut Vec<u8>) {
        self.write(bytes, size(mixed(self.stream << 32 | self.seq)));
    }

    /// Reads a letter; `None` unless it is whole.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let word = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
        let letter = Self { stream: word(0)?, seq: word(8)? };
        (word(16)? == checksum(bytes)).then_some(letter)
    }
}

/// The ring and the arena of every endpoint here: small, so that all of it is used up all the time.
pub const RING: usize = 16 << 10;
pub const EXTENT: usize = 64 << 10;
pub const ARENA: usize = 3 * EXTENT;

/// The size of a letter: in its frame, in a block, or in memory of its own.
fn size(random: u64) -> usize {
    let spread = (random >> 8) as usize;
    match random % 20 {
        0..=13 => HEADER + spread % 1500,
        14..=17 => 2500 + spread % (EXTENT - 2500),
        _ => EXTENT + 1 + spread % (EXTENT / 2),
    }
}

fn checksum(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let fold = |sum: u64, word: u64| (sum ^ word).wrapping_mul(0x0000_0100_0000_01B3).rotate_left(23);
    // The checksum's own place does not count.
    let sum =
        words.iter().enumerate().filter(|(at, _)| *at != 2).map(|(_, word)| u64::from_le_bytes(*word)).fold(1, fold);
    rest.iter().map(|byte| u64::from(*byte)).fold(fold(sum, bytes.len() as u64), fold)
}

/// One number made of another, with all bits mixed (the finalizer of MurmurHash3).
pub fn mixed(number: u64) -> u64 {
    let mut bits = number ^ 0x2545_F491_4F6C_DD1D;
    for factor in [0xFF51_AFD7_ED55_8CCD_u64, 0xC4CE_B9FE_1A85_EC53] {
        bits = (bits ^ bits >> 33).wrapping_mul(factor);
    }
    bits ^ bits >> 33
}

#[test]
fn a_letter_that_is_cut_changed_or_mixed_with_another_is_not_whole() {
    let (mut one, mut other) = (Vec::new(), Vec::new());
    for seq in 0..200 {
        let letter = Letter { stream: 3, seq };
        letter.write_mixed(&mut one);
        assert_eq!(Letter::read(&one), Some(letter));
        Letter { stream: 3, seq: seq + 1 }.write(&mut other, one.len());
        let half = one.len() / 2;
        let halves = [&one[..half], &other[half..]].concat();
        assert!(one.len() < 2 * HEADER || Letter::read(&halves).is_none());
        assert_eq!(Letter::read(&one[..one.len() - 1]), None);
        let last = one.len() - 1;
        one[last] ^= 1;
        assert_eq!(Letter::read(&one), None);
    }
}
