//! The buffer that archives are written to.
//!
//! rkyv writes an archive in small pieces, and the length of most is known when the program is compiled. `Vec` would
//! call `memcpy` for the others, and `memset` for each padding, which takes longer than the bytes are worth.
//!
//! Invariants:
//! 1. `base` is the start of a block of `capacity` bytes, aligned to [`ALIGN`] and owned by this value, or dangles
//!    where `capacity` is 0.
//! 2. `len <= capacity <= MAX_ARCHIVE`, and the first `len` bytes of the block are initialized.
#![allow(unsafe_code)]

use std::{alloc, alloc::Layout, ptr, ptr::NonNull, slice};

use super::{EncodeError, encoder::MAX_ARCHIVE};
use crate::payload::MAX_ALIGN as ALIGN;

const FIRST_CAPACITY: usize = 512;

pub(super) struct Output {
    base: NonNull<u8>,
    len: usize,
    capacity: usize,
}

impl Output {
    pub(super) const fn new() -> Self {
        Output { base: NonNull::<Aligned>::dangling().cast(), len: 0, capacity: 0 }
    }

    #[inline(always)]
    pub(super) fn len(&self) -> usize {
        self.len
    }

    #[inline]
    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    #[inline(always)]
    pub(super) fn clear(&mut self) {
        self.len = 0;
    }

    #[inline]
    pub(super) fn as_slice(&self) -> &[u8] {
        // SAFETY: by 1 and 2 the first `len` bytes of the block are there and initialized.
        unsafe { slice::from_raw_parts(self.base.as_ptr(), self.len) }
    }

    #[inline(always)]
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
        if bytes.len() > self.capacity - self.len {
            self.grow(bytes.len())?;
        }
        // SAFETY: by 2, `len` is in the block or at its end.
        let end = unsafe { self.base.as_ptr().add(self.len) };
        // SAFETY: there is room for `bytes` behind `len`, in a block that is this value's alone.
        unsafe { copy(bytes.as_ptr(), end, bytes.len()) };
        self.len += bytes.len();
        Ok(())
    }

    /// Makes room for `additional` bytes.
    #[cold]
    #[inline(never)]
    fn grow(&mut self, additional: usize) -> Result<(), EncodeError> {
        let too_large = EncodeError::TooLarge { limit: MAX_ARCHIVE };
        let needed = self.len.checked_add(additional).filter(|&needed| needed <= MAX_ARCHIVE).ok_or(too_large)?;
        let capacity = needed.next_power_of_two().clamp(FIRST_CAPACITY, MAX_ARCHIVE);
        let out_of_memory = EncodeError::OutOfMemory { bytes: capacity };
        let Ok(layout) = Layout::from_size_align(capacity, ALIGN) else { return Err(out_of_memory) };
        let block = match self.layout() {
            // SAFETY: by 1 the block was allocated with this layout; `capacity` is above 0, and no more than
            // `MAX_ARCHIVE`, so that rounding it up does not overflow.
            Some(old) => unsafe { alloc::realloc(self.base.as_ptr(), old, capacity) },
            // SAFETY: `capacity` is at least `FIRST_CAPACITY`, not 0.
            None => unsafe { alloc::alloc(layout) },
        };
        self.base = NonNull::new(block).ok_or(out_of_memory)?;
        self.capacity = capacity;
        Ok(())
    }

    /// The layout of the block, if there is one.
    fn layout(&self) -> Option<Layout> {
        let layout = Layout::from_size_align(self.capacity, ALIGN).ok()?;
        (layout.size() > 0).then_some(layout)
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if let Some(layout) = self.layout() {
            // SAFETY: by 1 the block was allocated with this layout, and it is this value's.
            unsafe { alloc::dealloc(self.base.as_ptr(), layout) };
        }
    }
}

/// Gives the dangling start of an empty buffer its alignment.
#[repr(align(16))]
struct Aligned;

const _: () = assert!(align_of::<Aligned>() == ALIGN);

/// Copies `len` bytes, without a call where there are few.
///
/// # Safety
///
/// `from` is valid for reads of `len` bytes and `to` for writes, and they do not overlap.
#[inline(always)]
unsafe fn copy(from: *const u8, to: *mut u8, len: usize) {
    match len {
        0 => {}
        // SAFETY: the caller promises the same, and 1 is `len`.
        1 => unsafe { ptr::copy_nonoverlapping(from, to, 1) },
        // SAFETY: the caller promises the same, and `len` is between N and 2 N.
        2..=3 => unsafe { copy_ends::<2>(from, to, len) },
        // SAFETY: as before.
        4..=7 => unsafe { copy_ends::<4>(from, to, len) },
        // SAFETY: as before.
        8..=16 => unsafe { copy_ends::<8>(from, to, len) },
        // SAFETY: as before.
        17..=32 => unsafe { copy_ends::<16>(from, to, len) },
        // SAFETY: the caller promises the same.
        _ => unsafe { ptr::copy_nonoverlapping(from, to, len) },
    }
}

/// Copies the first and the last `N` of `len` bytes, which is all of them.
///
/// # Safety
///
/// As for [`copy`]; and `N <= len <= 2 * N`.
#[inline(always)]
unsafe fn copy_ends<const N: usize>(from: *const u8, to: *mut u8, len: usize) {
    // SAFETY: `N <= len`, and the caller promises the rest.
    unsafe { ptr::copy_nonoverlapping(from, to, N) };
    // SAFETY: `N <= len`, so this is inside of what the caller says may be read.
    let from = unsafe { from.add(len - N) };
    // SAFETY: `N <= len`, so this is inside of what the caller says may be written.
    let to = unsafe { to.add(len - N) };
    // SAFETY: `N` bytes from here are the last of the `len`.
    unsafe { ptr::copy_nonoverlapping(from, to, N) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_of_every_length_are_written_whole() {
        let source: Vec<u8> = (0..=255).collect();
        let mut output = Output::new();
        let mut expected = Vec::new();
        for round in 0..3 {
            for len in 0..200 {
                output.write(&source[round..round + len]).unwrap();
                expected.extend_from_slice(&source[round..round + len]);
                assert_eq!(output.as_slice(), expected);
            }
        }
        assert!(output.as_slice().as_ptr().addr().is_multiple_of(ALIGN));
        output.clear();
        assert_eq!(output.as_slice(), []);
        assert!(output.capacity() >= expected.len());
    }

    #[test]
    fn an_empty_buffer_is_aligned_too() {
        assert!(Output::new().as_slice().as_ptr().addr().is_multiple_of(ALIGN));
    }
}
