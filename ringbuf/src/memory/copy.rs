//! Copies between private bytes and shared words.

use core::slice;

use crate::sync::real;

/// The longest copy that is made word by word; longer ones are faster in assembly.
#[cfg(all(target_arch = "x86_64", not(miri)))]
pub(super) const LONGEST_WORDWISE: usize = 63;
/// Elsewhere all copies are made word by word.
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

/// Copies `src` over the words from `dst`'s start, where a peer may read them at any moment. The rest of the last word
/// becomes zero, or keeps what it held. Bytes for which there are no words are left out.
///
/// Cut to the words, not checked: a copy that can panic would force open claims into memory.
#[inline(always)]
#[allow(unsafe_code)]
pub fn copy_to_words(dst: &[real::AtomicU64], src: &[u8]) {
    if src.len() > size_of_val(dst) {
        // SAFETY: there are bytes for each word.
        unsafe { copy_to_all_words(dst.as_ptr(), dst.len(), src.as_ptr()) };
    } else if src.len() <= LONGEST_WORDWISE {
        // SAFETY: `dst` has as many bytes as `src`, in whole words.
        unsafe { store_words(dst, src) };
    } else {
        // SAFETY: `dst` covers as many bytes as `src`, atomics all of them, so they may be written through a shared
        // borrow. They do not overlap `src`, which is borrowed as plain bytes and longer than what goes by words.
        unsafe { copy_opaque(src.as_ptr(), dst.as_ptr().cast_mut().cast(), src.len()) };
    }
}

/// # Safety
/// `dst` has `count` words, and `src` eight bytes for each.
// `extern "C"`, so that callers in other crates know that it never unwinds.
#[cold]
#[allow(unsafe_code)]
unsafe extern "C" fn copy_to_all_words(dst: *const real::AtomicU64, count: usize, src: *const u8) {
    // SAFETY: the caller vouches for them.
    let dst = unsafe { slice::from_raw_parts(dst, count) };
    // SAFETY: as above.
    let src = unsafe { slice::from_raw_parts(src, size_of_val(dst)) };
    copy_to_words(dst, src);
}

/// Copies the words from `src`'s start over `dst`, while a peer may write them at any moment. Bytes for which there are
/// no words are left alone.
#[inline(always)]
#[allow(unsafe_code)]
pub fn copy_from_words(src: &[real::AtomicU64], dst: &mut [u8]) {
    if dst.len() > size_of_val(src) {
        // SAFETY: there is room for each word.
        unsafe { copy_from_all_words(src.as_ptr(), src.len(), dst.as_mut_ptr()) };
    } else if dst.len() <= LONGEST_WORDWISE {
        // SAFETY: `src` has as many bytes as `dst`, in whole words.
        unsafe { load_words(src, dst) };
    } else {
        // SAFETY: `src` covers as many readable bytes as `dst` has, and a `&mut` to private bytes overlaps nothing. They
        // are more than what goes by words.
        unsafe { copy_opaque(src.as_ptr().cast(), dst.as_mut_ptr(), dst.len()) };
    }
}

/// # Safety
/// `src` has `count` words, and `dst` eight bytes for each.
#[cold]
#[allow(unsafe_code)]
unsafe extern "C" fn copy_from_all_words(src: *const real::AtomicU64, count: usize, dst: *mut u8) {
    // SAFETY: the caller vouches for them.
    let src = unsafe { slice::from_raw_parts(src, count) };
    // SAFETY: as above; they are the caller's `&mut`.
    let dst = unsafe { slice::from_raw_parts_mut(dst, size_of_val(src)) };
    copy_from_words(src, dst);
}

/// Copies `src` over the words from `dst`'s start. The rest of the last word becomes zero.
///
/// # Safety
/// `dst` has as many words as `src` fills, in part or whole.
#[inline(always)]
#[allow(unsafe_code)]
pub(super) unsafe fn store_words<W: Word>(dst: &[W], src: &[u8]) {
    let (chunks, rest) = src.as_chunks::<8>();
    each_below(chunks.len(), |at| {
        // SAFETY: `at` is below the number of these.
        let chunk = unsafe { chunks.get_unchecked(at) };
        // SAFETY: as many words are filled whole.
        unsafe { dst.get_unchecked(at) }.store_relaxed(u64::from_le_bytes(*chunk));
    });
    if !rest.is_empty() {
        // SAFETY: the caller vouches for the word that is filled in part, too.
        unsafe { dst.get_unchecked(chunks.len()) }.store_relaxed(partial_word(rest));
    }
}

/// Copies the words from `src`'s start over `dst`, each word loaded once.
///
/// # Safety
/// `src` has as many words as `dst` takes, in part or whole.
#[inline(always)]
#[allow(unsafe_code)]
pub(super) unsafe fn load_words<W: Word>(src: &[W], dst: &mut [u8]) {
    let (chunks, rest) = dst.as_chunks_mut::<8>();
    let whole = chunks.len();
    each_below(whole, |at| {
        // SAFETY: `at` is below the number of these.
        let chunk = unsafe { chunks.get_unchecked_mut(at) };
        // SAFETY: as many words are taken whole.
        *chunk = unsafe { src.get_unchecked(at) }.load_relaxed().to_le_bytes();
    });
    if !rest.is_empty() {
        // SAFETY: the caller vouches for the word that is taken in part, too.
        write_partial(rest, unsafe { src.get_unchecked(whole) }.load_relaxed());
    }
}

/// Calls `copy` with every number below `count`, in order: the last seven at most without a loop, of which most copies
/// would be.
#[inline(always)]
fn each_below(count: usize, mut copy: impl FnMut(usize)) {
    let mut at = 0;
    let mut next = |some: usize| {
        for ahead in 0..some {
            copy(at + ahead);
        }
        at += some;
    };
    for _ in 0..count / 8 {
        next(8);
    }
    for some in [4, 2, 1] {
        if count & some != 0 {
            next(some);
        }
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

/// Copies `len` bytes, 64 or more, in assembly that the compiler cannot look
/// into.
///
/// From 1 KiB on, one string instruction is the fastest, except where the target's place in its
/// page is 1 to 31 bytes behind the source's: processors take that for an overlap and copy byte by
/// byte. (Measured on a Zen 3, for 4,080 bytes: vector loop 80 ns, string instruction 50 to 70 ns,
/// and 1,400 ns or more in that case, which a payload 16 bytes behind its line meets all the time.)
///
/// All of it is visible to whoever sees a later release store: vector stores are ordinary stores,
/// and while those of a string instruction may be seen in any order among themselves, no later
/// store is seen before them (Intel SDM 3A, "Memory-Ordering Model for String Operations"; AMD64
/// APM 2, 7.1).
///
/// # Safety
/// `len` is 64 or more; `src` is valid for reads and `dst` for writes of `len`
/// bytes, and the two do not overlap. Other threads and processes may access the shared side
/// meanwhile; the bytes copied are then any mix.
// `extern "C"`, so that callers in other crates know that it never unwinds.
#[cfg(all(target_arch = "x86_64", not(miri)))]
#[inline(never)]
#[allow(unsafe_code)]
pub(super) unsafe extern "C" fn copy_opaque(src: *const u8, dst: *mut u8, len: usize) {
    const PAGE: usize = 4096;
    let behind = dst.addr().wrapping_sub(src.addr()) % PAGE;
    if len >= 1024 && !(1..64).contains(&behind) {
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
    } else {
        // The last 64 bytes are loaded first and stored last, wherever the loop ends before them.
        // SAFETY: the caller vouches for both ranges and for a length of 64 or more.
        unsafe {
            core::arch::asm!(
                "movups {t0}, [{src} + {left}]",
                "movups {t1}, [{src} + {left} + 16]",
                "movups {t2}, [{src} + {left} + 32]",
                "movups {t3}, [{src} + {left} + 48]",
                "add {left}, {dst}",
                "2:",
                "movups {v0}, [{src}]",
                "movups {v1}, [{src} + 16]",
                "movups {v2}, [{src} + 32]",
                "movups {v3}, [{src} + 48]",
                "movups [{dst}], {v0}",
                "movups [{dst} + 16], {v1}",
                "movups [{dst} + 32], {v2}",
                "movups [{dst} + 48], {v3}",
                "add {src}, 64",
                "add {dst}, 64",
                "cmp {dst}, {left}",
                "jb 2b",
                "movups [{left}], {t0}",
                "movups [{left} + 16], {t1}",
                "movups [{left} + 32], {t2}",
                "movups [{left} + 48], {t3}",
                src = inout(reg) src => _,
                dst = inout(reg) dst => _,
                left = inout(reg) len - 64 => _,
                v0 = out(xmm_reg) _,
                v1 = out(xmm_reg) _,
                v2 = out(xmm_reg) _,
                v3 = out(xmm_reg) _,
                t0 = out(xmm_reg) _,
                t1 = out(xmm_reg) _,
                t2 = out(xmm_reg) _,
                t3 = out(xmm_reg) _,
                options(nostack)
            );
        }
    }
}

/// Elsewhere no copy is too long for words.
///
/// # Safety
/// None: it is never called.
#[cfg(not(all(target_arch = "x86_64", not(miri))))]
#[allow(unsafe_code)]
pub(super) unsafe extern "C" fn copy_opaque(_src: *const u8, _dst: *mut u8, _len: usize) {
    unreachable!("copies longer than LONGEST_WORDWISE, which is the longest there are")
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec::Vec;

    use super::*;

    #[test]
    #[allow(unsafe_code)]
    fn words_carry_every_length_and_nothing_more() {
        let source: Vec<u8> = (1..=80).collect();
        for len in 0..=80 {
            let words: Vec<real::AtomicU64> = (0..11).map(|_| real::AtomicU64::new(u64::MAX)).collect();
            // SAFETY: there are 88 bytes of words.
            unsafe { store_words(&words, &source[..len]) };
            let filled: Vec<u8> = words.iter().flat_map(|word| word.load_relaxed().to_le_bytes()).collect();
            assert_eq!(filled[..len], source[..len]);
            let whole = len.next_multiple_of(8);
            assert!(filled[len..whole].iter().all(|byte| *byte == 0));
            assert!(filled[whole..].iter().all(|byte| *byte == 0xFF));

            let mut back = [0xEE; 81];
            // SAFETY: as above.
            unsafe { load_words(&words, &mut back[..len]) };
            assert_eq!(back[..len], source[..len]);
            assert!(back[len..].iter().all(|byte| *byte == 0xEE));
        }
    }

    #[test]
    fn bytes_for_which_there_are_no_words_are_left_out() {
        let source: Vec<u8> = (1..=80).collect();
        for count in 0..=9 {
            let words: Vec<real::AtomicU64> = (0..count).map(|_| real::AtomicU64::new(u64::MAX)).collect();
            copy_to_words(&words, &source);
            let mut back = [0xEE; 80];
            copy_from_words(&words, &mut back);
            assert_eq!(back[..8 * count], source[..8 * count]);
            assert!(back[8 * count..].iter().all(|byte| *byte == 0xEE));
        }
    }

    #[cfg(all(target_arch = "x86_64", not(miri)))]
    #[test]
    fn opaque_copy_moves_exactly_the_bytes_wherever_they_lie() {
        let source: Vec<u8> = (0..12_000_u32).map(|i| i.to_le_bytes()[i as usize % 2]).collect();
        let mut target = std::vec![0xEE; 12_000];
        let lengths = (64..=200).chain([255, 256, 1000, 1023, 1024, 1025, 2000, 4080, 5000]);
        for (case, len) in lengths.enumerate() {
            for from in [0, 1, 8, 16, 47] {
                let to = 16 + case % 70 * 8;
                // SAFETY: both buffers are long enough, and distinct.
                #[allow(unsafe_code)]
                unsafe {
                    copy_opaque(source[from..].as_ptr(), target[to..].as_mut_ptr(), len);
                }
                assert_eq!(target[to..to + len], source[from..from + len], "{len} from {from}");
                assert!(target[..to].iter().all(|byte| *byte == 0xEE));
                assert!(target[to + len..].iter().all(|byte| *byte == 0xEE));
                target[to..to + len].fill(0xEE);
            }
        }
    }
}
