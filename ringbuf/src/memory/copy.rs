//! Copies between private bytes and shared words.

use crate::sync::real;

/// The longest copy that is made word by word; longer ones are faster as one string instruction.
#[cfg(all(target_arch = "x86_64", not(miri)))]
pub(super) const LONGEST_WORDWISE: usize = 256;
/// Elsewhere there is no such instruction, and all copies are made word by word.
#[cfg(not(all(target_arch = "x86_64", not(miri))))]
pub(super) const LONGEST_WORDWISE: usize = usize::MAX;

/// A shared word: the hardware's or loom's.
pub(super) trait Word {
    fn load_relaxed(&self) -> u64;
    fn store_relaxed(&self, word: u64);
}

impl Word for real::AtomicU64 {
    #[inline]
    fn load_relaxed(&self) -> u64 {
        self.load(real::Ordering::Relaxed)
    }
    #[inline]
    fn store_relaxed(&self, word: u64) {
        self.store(word, real::Ordering::Relaxed);
    }
}

#[cfg(loom)]
impl Word for crate::sync::AtomicU64 {
    fn load_relaxed(&self) -> u64 {
        self.load(crate::sync::Ordering::Relaxed)
    }
    fn store_relaxed(&self, word: u64) {
        self.store(word, crate::sync::Ordering::Relaxed);
    }
}

/// Copies `src` over the words from `dst`'s start. The rest of the last word becomes zero.
///
/// `dst` has at least as many words as `src` fills, in part or whole; what does not fit is left
/// out.
#[inline]
pub(super) fn store_words<W: Word>(dst: &[W], src: &[u8]) {
    let (chunks, rest) = src.as_chunks::<8>();
    for (word, chunk) in dst.iter().zip(chunks) {
        word.store_relaxed(u64::from_le_bytes(*chunk));
    }
    if !rest.is_empty()
        && let Some(word) = dst.get(chunks.len())
    {
        word.store_relaxed(partial_word(rest));
    }
}

/// Copies the words from `src`'s start over `dst`, each word loaded once.
///
/// `src` has at least as many words as `dst` takes, in part or whole; what has none is left alone.
#[inline]
pub(super) fn load_words<W: Word>(src: &[W], dst: &mut [u8]) {
    let (chunks, rest) = dst.as_chunks_mut::<8>();
    for (word, chunk) in src.iter().zip(&mut *chunks) {
        *chunk = word.load_relaxed().to_le_bytes();
    }
    if !rest.is_empty()
        && let Some(word) = src.get(chunks.len())
    {
        write_partial(rest, word.load_relaxed());
    }
}

/// The word that begins with these bytes (fewer than 8) and goes on with zeros.
///
/// In pieces of 4, 2 and 1, because a loop over bytes would become a call to memcpy.
#[inline]
fn partial_word(bytes: &[u8]) -> u64 {
    let (mut word, mut shift) = (0, 0);
    let (fours, rest) = bytes.as_chunks();
    if let [piece] = fours {
        word = u64::from(u32::from_le_bytes(*piece));
        shift = 32;
    }
    let (twos, ones) = rest.as_chunks();
    if let [piece] = twos {
        word |= u64::from(u16::from_le_bytes(*piece)) << shift;
        shift += 16;
    }
    if let [byte] = ones {
        word |= u64::from(*byte) << shift;
    }
    word
}

/// Writes the first bytes of a word over `bytes` (fewer than 8), in the same pieces.
#[inline]
#[allow(clippy::cast_possible_truncation)] // each cast takes the word's next bytes
fn write_partial(bytes: &mut [u8], mut word: u64) {
    let (fours, rest) = bytes.as_chunks_mut();
    if let [piece] = fours {
        *piece = (word as u32).to_le_bytes();
        word >>= 32;
    }
    let (twos, ones) = rest.as_chunks_mut();
    if let [piece] = twos {
        *piece = (word as u16).to_le_bytes();
        word >>= 16;
    }
    if let [byte] = ones {
        *byte = word as u8;
    }
}

/// Copies `len` bytes by one string instruction, which the compiler cannot look into.
///
/// The stores of one string instruction may become visible in any order among themselves, but
/// never after a later store (Intel SDM 3A, "Memory-Ordering Model for String Operations"; AMD64
/// APM 2, 7.1): a stamp that is stored behind it publishes all of it.
///
/// # Safety
/// `src` is valid for reads and `dst` for writes of `len` bytes, and the two do not overlap. Other
/// threads and processes may access the shared side meanwhile; the bytes copied are then any mix.
#[cfg(all(target_arch = "x86_64", not(miri)))]
#[inline]
#[allow(unsafe_code)]
pub(super) unsafe fn copy_opaque(src: *const u8, dst: *mut u8, len: usize) {
    // SAFETY: the caller vouches for both ranges; the direction flag is clear on entry to asm.
    unsafe {
        core::arch::asm!(
            "rep movsb",
            inout("rcx") len => _,
            inout("rsi") src => _,
            inout("rdi") dst => _,
            options(nostack, preserves_flags)
        );
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec::Vec;

    use super::*;

    #[test]
    fn words_carry_every_length_and_nothing_more() {
        let source: Vec<u8> = (1..=80).collect();
        for len in 0..=80 {
            let words: Vec<real::AtomicU64> =
                (0..11).map(|_| real::AtomicU64::new(u64::MAX)).collect();
            store_words(&words, &source[..len]);
            let filled: Vec<u8> = words
                .iter()
                .flat_map(|word| word.load_relaxed().to_le_bytes())
                .collect();
            assert_eq!(filled[..len], source[..len]);
            let whole = len.next_multiple_of(8);
            assert!(filled[len..whole].iter().all(|byte| *byte == 0));
            assert!(filled[whole..].iter().all(|byte| *byte == 0xFF));

            let mut back = [0xEE; 81];
            load_words(&words, &mut back[..len]);
            assert_eq!(back[..len], source[..len]);
            assert!(back[len..].iter().all(|byte| *byte == 0xEE));
        }
    }

    #[cfg(all(target_arch = "x86_64", not(miri)))]
    #[test]
    fn opaque_copy_moves_exactly_the_bytes() {
        let source: Vec<u8> = (0..=255).collect();
        for len in [0, 1, 7, 64, 255] {
            let mut target = [0xEE; 256];
            // SAFETY: both buffers hold 256 bytes and are distinct.
            #[allow(unsafe_code)]
            unsafe {
                copy_opaque(source.as_ptr(), target.as_mut_ptr(), len);
            }
            assert_eq!(target[..len], source[..len]);
            assert!(target[len..].iter().all(|byte| *byte == 0xEE));
        }
    }
}
