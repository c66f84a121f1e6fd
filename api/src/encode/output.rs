//! What archives are written to: a buffer that grows, or memory that is lent for one message.
//!
//! rkyv writes an archive in small pieces, and the length of most is known when the program is compiled. `Vec` would
//! call `memcpy` for the others, and `memset` for each padding, which takes longer than the bytes are worth.
//!
//! There is a [`Bound`] on what is written. Beyond it nothing is, and only counted on: a serializer needs no more of its
//! writer than the position. So an archive that does not fit tells its length.
//!
//! Invariants:
//! 1. `base` is the start of `block` bytes, aligned to [`ALIGN`] and owned by this value; or, where `block` is 0, it
//!    is aligned memory of `room` bytes that whoever made this value lent to it, or dangles where that is 0, too.
//! 2. `most <= MAX_ARCHIVE`. As long as `len <= most`: `len <= room <= most`, `room` bytes from `base` on are there,
//!    and the first `len` of them are initialized.
//! 3. Beyond that, `room == len` and `bulk == 0`, so that whatever is to be written has no room, and gets none.
#![allow(unsafe_code)]

use std::{alloc, alloc::Layout, ptr, ptr::NonNull, slice};

use rkyv::{Archive, Place};

use super::{EncodeError, encoder::MAX_ARCHIVE};
use crate::payload::MAX_ALIGN as ALIGN;

const FIRST_CAPACITY: usize = 512;

/// How much of an archive is written before the rest is only counted: at least `most` bytes, and from there on until
/// the first piece of `bulk` bytes or more. To write such a piece and copy it takes longer than to encode it anew where
/// it goes; with small pieces it is the other way round.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound(u64);

impl Bound {
    /// Everything is written.
    pub(super) const NONE: Self = Self::new(MAX_ARCHIVE, 0);
    /// None that anybody sets.
    const UNSET: Self = Self(u64::MAX);

    /// A bound; above what an archive may have, a number is that.
    pub const fn new(most: usize, bulk: usize) -> Self {
        const fn clamp(number: usize) -> u64 {
            if number < MAX_ARCHIVE { number as u64 } else { MAX_ARCHIVE as u64 }
        }
        Self(clamp(most) << 32 | clamp(bulk))
    }

    #[allow(clippy::cast_possible_truncation, reason = "both halves are an archive's length at most")]
    const fn parts(self) -> (usize, usize) {
        ((self.0 >> 32) as usize, (self.0 & 0xffff_ffff) as usize)
    }
}

pub(super) struct Output {
    base: NonNull<u8>,
    len: usize,
    /// Up to where bytes are written before somebody looks.
    room: usize,
    /// Up to where bytes are written at all, unless the piece that would go beyond is shorter than `bulk`.
    most: usize,
    bulk: usize,
    /// The size of the block that this value owns.
    block: usize,
    /// What `most`, `bulk` and `room` were set by, if they are what they would be set to.
    set: Bound,
}

impl Output {
    pub(super) const fn new() -> Self {
        let base = NonNull::<Aligned>::dangling().cast();
        Output { base, len: 0, room: 0, most: MAX_ARCHIVE, bulk: 0, block: 0, set: Bound::UNSET }
    }

    /// Memory that is lent for one message.
    ///
    /// # Safety
    ///
    /// `target` begins at a multiple of [`ALIGN`] and is initialized, and nobody else reads or writes it for as long as this
    /// value lives.
    pub(super) unsafe fn lent(target: NonNull<[u8]>) -> Self {
        debug_assert!(target.cast::<u8>().addr().get().is_multiple_of(ALIGN));
        let room = target.len().min(MAX_ARCHIVE);
        Output { base: target.cast(), len: 0, room, most: room, bulk: 0, block: 0, set: Bound::UNSET }
    }

    /// Whether it writes to `target`.
    pub(super) fn is_lent(&self, target: NonNull<[u8]>) -> bool {
        self.block == 0 && self.base == target.cast()
    }

    #[inline(always)]
    pub(super) fn len(&self) -> usize {
        self.len
    }

    #[inline]
    pub(super) fn capacity(&self) -> usize {
        self.block
    }

    /// Begins anew in the block that it owns.
    #[inline(always)]
    pub(super) fn clear(&mut self, bound: Bound) {
        self.len = 0;
        if self.set != bound {
            self.set(bound);
        }
    }

    #[cold]
    #[inline(never)]
    fn set(&mut self, bound: Bound) {
        self.set = bound;
        (self.most, self.bulk) = bound.parts();
        self.room = self.block.min(self.most);
    }

    /// What was written, unless some of it was only counted.
    #[inline]
    pub(super) fn written(&self) -> Option<&[u8]> {
        if self.len > self.most {
            return None;
        }
        // SAFETY: by 1 and 2 the first `len` bytes are there and initialized.
        Some(unsafe { slice::from_raw_parts(self.base.as_ptr(), self.len) })
    }

    #[inline(always)]
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
        if !self.has_room(bytes.len())? {
            return Ok(());
        }
        let end = self.base.as_ptr().wrapping_add(self.len);
        // SAFETY: by 2 there is room for `bytes` behind `len`, in memory that is this value's alone; or, by 3, there
        // are none.
        unsafe { copy(bytes.as_ptr(), end, bytes.len()) };
        self.len += bytes.len();
        Ok(())
    }

    /// Writes the root of `value`'s archive, where it stays: made elsewhere and copied, as rkyv has it, it would be read
    /// back in pieces larger than it was written in, which processors wait for. `resolver` is of what was written so far.
    #[inline(always)]
    pub(super) fn resolve<T: Archive>(&mut self, value: &T, resolver: T::Resolver) -> Result<(), EncodeError> {
        const { assert!(align_of::<T::Archived>() <= ALIGN, "a message's alignment is at most 16") };
        let padding = self.len.wrapping_neg() % align_of::<T::Archived>();
        self.write(&[0; ALIGN][..padding])?;
        let size = size_of::<T::Archived>();
        if !self.has_room(size)? {
            return Ok(());
        }
        let root = self.base.as_ptr().wrapping_add(self.len).cast::<T::Archived>();
        // SAFETY: by 2 there is room for it behind `len`, in memory that is this value's alone; or, by 3, it takes none.
        // It is aligned, as `base` is to `ALIGN`, and `len` was just brought to a multiple.
        unsafe { root.write_bytes(0, 1) };
        // SAFETY: as above, and all its bytes were just initialized. That nobody writes to a place later is what rkyv asks
        // of every `Archive`.
        let place = unsafe { Place::new_unchecked(self.len, root) };
        value.resolve(resolver, place);
        self.len += size;
        Ok(())
    }

    /// Whether there is room for `additional` bytes, which is made, if need be; else they are counted.
    #[inline(always)]
    fn has_room(&mut self, additional: usize) -> Result<bool, EncodeError> {
        Ok(additional <= self.room - self.len || !self.is_only_counted(additional)?)
    }

    /// Makes room for `additional` bytes, or counts them where there is to be none.
    #[cold]
    #[inline(never)]
    fn is_only_counted(&mut self, additional: usize) -> Result<bool, EncodeError> {
        let too_large = EncodeError::TooLarge { limit: MAX_ARCHIVE };
        let needed = self.len.checked_add(additional).filter(|&needed| needed <= MAX_ARCHIVE).ok_or(too_large)?;
        if needed > self.most {
            self.set = Bound::UNSET;
            // To memory that is lent, everything is bulk.
            if additional >= self.bulk {
                // From here on, everything is.
                (self.len, self.room, self.bulk) = (needed, needed, 0);
                return Ok(true);
            }
            // Not by much, so that what is bulk soon comes here again.
            self.most = needed.saturating_mul(2).min(MAX_ARCHIVE);
            self.room = self.block.min(self.most);
        }
        if needed > self.room {
            // Memory that is lent has all its room from the start, so this is a block of its own.
            self.grow(needed)?;
        }
        Ok(false)
    }

    /// Makes room for `needed` bytes in all, no more than `most`.
    fn grow(&mut self, needed: usize) -> Result<(), EncodeError> {
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
        self.block = capacity;
        self.room = capacity.min(self.most);
        Ok(())
    }

    /// The layout of the block, if there is one.
    fn layout(&self) -> Option<Layout> {
        let layout = Layout::from_size_align(self.block, ALIGN).ok()?;
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
    use memit_engine::AlignedBytes;

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
                assert_eq!(output.written(), Some(&*expected));
            }
        }
        assert!(output.written().unwrap().as_ptr().addr().is_multiple_of(ALIGN));
        output.clear(Bound::NONE);
        assert_eq!(output.written(), Some(&[][..]));
        assert!(output.capacity() >= expected.len());
    }

    #[test]
    fn an_empty_buffer_is_aligned_too() {
        assert!(Output::new().written().unwrap().as_ptr().addr().is_multiple_of(ALIGN));
    }

    /// Writes pieces of these lengths; what was written, and how far it counted.
    fn write(output: &mut Output, pieces: &[usize]) -> (Option<Vec<u8>>, usize) {
        for (at, len) in pieces.iter().enumerate() {
            output.write(&vec![u8::try_from(at).unwrap(); *len]).unwrap();
        }
        (output.written().map(<[u8]>::to_vec), output.len())
    }

    #[test]
    fn what_a_payload_has_beyond_the_bound_is_counted_and_not_written() {
        let mut output = Output::new();
        output.write(&[7; 5000]).unwrap();
        for most in [0, 1, 99, 100, 4096, 1 << 20] {
            output.clear(Bound::new(most, 0));
            let fits = |len: usize| (len <= most).then_some(len);
            let (written, counted) = write(&mut output, &[1, 98, 0, 1]);
            assert_eq!((written.map(|bytes| bytes.len()), counted), (fits(100), 100), "{most}");
            let (written, counted) = write(&mut output, &[0, 5000, 0, 3]);
            assert_eq!((written.map(|bytes| bytes.len()), counted), (fits(5103), 5103), "{most}");
            assert!(output.capacity() <= (1 << 13).max(most), "no memory for what is only counted");
        }
        output.clear(Bound::NONE);
        assert_eq!(write(&mut output, &[2, 1]), (Some(vec![0, 0, 1]), 3));
    }

    #[test]
    fn a_payload_of_small_pieces_is_written_beyond_the_bound_until_a_large_one_comes() {
        let mut output = Output::new();
        // The second time, the block is there already.
        for _ in 0..2 {
            output.clear(Bound::new(100, 64));
            let expected: Vec<_> = (0..200u8).flat_map(|at| [at; 63]).collect();
            assert!(write(&mut output, &[63; 200]) == (Some(expected), 200 * 63));
            let (written, counted) = write(&mut output, &[1 << 15, 1, 1]);
            assert_eq!((written.is_none(), counted), (true, 200 * 63 + (1 << 15) + 2));
        }
        output.clear(Bound::new(100, 64));
        assert_eq!(write(&mut output, &[50, 64]), (None, 114), "what was written before does not count");
    }

    #[test]
    fn a_payload_goes_to_lent_memory_and_no_further() {
        let mut memory = AlignedBytes::new();
        for (room, pieces) in [(64, &[60, 3, 1][..]), (64, &[60, 3, 2]), (64, &[0, 65]), (0, &[0]), (0, &[1, 1])] {
            memory.resize(128);
            memory.fill(0xee);
            let target = NonNull::from(&mut memory[..room]);
            // SAFETY: it is initialized, and used below only after the output's last use.
            let mut output = unsafe { Output::lent(target) };
            let total: usize = pieces.iter().sum();
            let (written, counted) = write(&mut output, pieces);
            assert_eq!((written.as_ref().map(Vec::len), counted), ((total <= room).then_some(total), total));
            assert!(output.is_lent(target) && output.capacity() == 0);
            drop(output);
            assert!(memory[room..].iter().all(|byte| *byte == 0xee));
            if let Some(written) = written {
                assert_eq!(memory[..total], written);
            }
        }
    }

    #[test]
    fn a_payload_that_no_archive_can_be_is_refused_while_it_is_counted() {
        let mut output = Output::new();
        output.clear(Bound::new(16, 0));
        (output.len, output.room) = (MAX_ARCHIVE - 1, MAX_ARCHIVE - 1);
        output.write(&[1]).unwrap();
        assert_eq!(output.write(&[1]), Err(EncodeError::TooLarge { limit: MAX_ARCHIVE }));
        assert_eq!((output.len(), output.written()), (MAX_ARCHIVE, None));
    }
}
