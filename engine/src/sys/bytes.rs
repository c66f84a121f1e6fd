//! Copies into and out of memory that another process can see.
//!
//! # Invariants
//!
//! 1. A peer may change or read shared bytes at any moment, so no `&[u8]` or `&mut [u8]` to them is made here. They
//!    are touched as relaxed atomic words, or by one opaque instruction of which the compiler assumes nothing.
//! 2. Shared addresses are multiples of eight, and the last word of a copy belongs to it as a whole.
#![allow(unsafe_code)]

use std::sync::atomic::{AtomicU64, Ordering};

const WORD: usize = size_of::<u64>();

/// Up to this length words are the faster way; beyond, `rep movsb` is.
#[cfg(target_arch = "x86_64")]
const MOST_BY_WORDS: usize = 256;
#[cfg(not(target_arch = "x86_64"))]
const MOST_BY_WORDS: usize = usize::MAX;

/// Copies `to.len()` shared bytes into private memory.
///
/// # Safety
///
/// `from` is a multiple of eight, and `to.len()` bytes from it on, rounded up to a multiple of eight, can be read for
/// the length of the call.
pub(crate) unsafe fn copy_from_shared(from: *const u8, to: &mut [u8]) {
    if to.len() > MOST_BY_WORDS {
        // SAFETY: the caller's promise for `from`; `to` is a private slice of that length, so they do not overlap.
        unsafe { copy_opaquely(from, to.as_mut_ptr(), to.len()) };
        return;
    }
    let mut words = to.chunks_exact_mut(WORD);
    let mut offset = 0;
    for word in &mut words {
        // SAFETY: `offset + 8 <= to.len()`, within the caller's promise.
        let value = unsafe { load(from, offset) };
        word.copy_from_slice(&value.to_ne_bytes());
        offset += WORD;
    }
    let rest = words.into_remainder();
    if !rest.is_empty() {
        // SAFETY: `offset + 8` is `to.len()` rounded up, within the caller's promise.
        let value = unsafe { load(from, offset) };
        rest.copy_from_slice(&value.to_ne_bytes()[..rest.len()]);
    }
}

/// Copies private bytes into shared memory; what is left of the last word is zeroed, or keeps what it held.
///
/// # Safety
///
/// `to` is a multiple of eight, and `from.len()` bytes from it on, rounded up to a multiple of eight, can be written
/// for the length of the call. No other thread of this process writes them meanwhile.
pub(crate) unsafe fn copy_to_shared(from: &[u8], to: *mut u8) {
    if from.len() > MOST_BY_WORDS {
        // SAFETY: the caller's promise for `to`; `from` is a private slice of that length, so they do not overlap.
        unsafe { copy_opaquely(from.as_ptr(), to, from.len()) };
        return;
    }
    let (words, rest) = from.as_chunks::<WORD>();
    let mut offset = 0;
    for word in words {
        // SAFETY: `offset + 8 <= from.len()`, within the caller's promise.
        unsafe { store(to, offset, u64::from_ne_bytes(*word)) };
        offset += WORD;
    }
    if !rest.is_empty() {
        let mut word = [0; WORD];
        word[..rest.len()].copy_from_slice(rest);
        // SAFETY: `offset + 8` is `from.len()` rounded up, within the caller's promise.
        unsafe { store(to, offset, u64::from_ne_bytes(word)) };
    }
}

/// # Safety
///
/// `from + offset` is a multiple of eight, and eight bytes from it on can be read.
#[inline(always)]
unsafe fn load(from: *const u8, offset: usize) -> u64 {
    // SAFETY: within the caller's promise.
    let word = unsafe { from.add(offset) }.cast::<AtomicU64>();
    // SAFETY: aligned and readable by the caller's promise; read by a relaxed load alone (invariant 1).
    unsafe { &*word }.load(Ordering::Relaxed)
}

/// # Safety
///
/// `to + offset` is a multiple of eight, and eight bytes from it on can be written.
#[inline(always)]
unsafe fn store(to: *mut u8, offset: usize, value: u64) {
    // SAFETY: within the caller's promise.
    let word = unsafe { to.add(offset) }.cast::<AtomicU64>();
    // SAFETY: aligned and writable by the caller's promise; written as an atomic word (invariant 1).
    unsafe { &*word }.store(value, Ordering::Relaxed);
}

/// # Safety
///
/// `len` bytes can be read at `from` and written at `to`, and do not overlap.
#[cfg(target_arch = "x86_64")]
unsafe fn copy_opaquely(from: *const u8, to: *mut u8, len: usize) {
    // SAFETY: copies `len` bytes upwards (the direction flag is clear on entry to any asm block), within the
    // caller's promise. Being assembly, it makes no claim about the bytes' stability (invariant 1).
    unsafe {
        std::arch::asm!(
            "rep movsb",
            inout("rcx") len => _,
            inout("rdi") to => _,
            inout("rsi") from => _,
            options(nostack, preserves_flags)
        );
    }
}

/// Never called, since every length goes by words; there so that the callers read the same everywhere.
///
/// # Safety
///
/// As above.
#[cfg(not(target_arch = "x86_64"))]
unsafe fn copy_opaquely(_: *const u8, _: *mut u8, _: usize) {}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(len: usize) -> Vec<u8> {
        (0..len).map(|i| u8::try_from(i % 251).unwrap() + 1).collect()
    }

    #[test]
    fn every_length_survives_both_ways_and_touches_nothing_behind_its_last_word() {
        for len in (0_usize..600).chain([4096, 65_537]) {
            let shared: Vec<AtomicU64> = (0..len.div_ceil(WORD) + 1).map(|_| AtomicU64::new(u64::MAX)).collect();
            let base = shared.as_ptr().cast::<u8>().cast_mut();
            let sent = pattern(len);
            // SAFETY: `shared` holds `len` bytes rounded up, aligned, and only this thread uses it.
            unsafe { copy_to_shared(&sent, base) };
            let mut received = vec![0; len];
            // SAFETY: as above.
            unsafe { copy_from_shared(base, &mut received) };
            assert_eq!(received, sent, "{len} bytes");
            assert_eq!(shared.last().unwrap().load(Ordering::Relaxed), u64::MAX, "{len} bytes");
        }
    }
}
