//! Scratch space for the serializer: a stack that grows and is kept.
//!
//! rkyv holds a resolver for each element of a vector while it writes the elements, so the space needed is not known
//! beforehand and may be large.
//!
//! Invariants:
//! 1. The heap block of a chunk never moves or shrinks while the chunk is in `current` or in `full`; chunks leave
//!    `full` only in [`Scratch::reset`], when no allocation is live.
//! 2. Bytes of `current` below `used` belong to live allocations, those above it to nobody.
#![allow(unsafe_code)]

use std::{alloc::Layout, mem::MaybeUninit, ptr::NonNull};

use super::EncodeError;

const FIRST_CHUNK: usize = 1024;

#[derive(Default)]
pub(super) struct Scratch {
    current: Vec<MaybeUninit<u8>>,
    used: usize,
    /// Outgrown chunks. They may hold live allocations, and no new ones are made there.
    full: Vec<Vec<MaybeUninit<u8>>>,
}

impl Scratch {
    /// Forgets all allocations. Of several chunks the largest is kept, so repeated work soon fits into one.
    pub(super) fn reset(&mut self) {
        self.used = 0;
        if !self.full.is_empty() {
            self.full.clear();
        }
    }

    pub(super) fn capacity(&self) -> usize {
        self.current.capacity()
    }

    /// Returns space for `layout` that no other live allocation shares.
    #[inline]
    pub(super) fn push(&mut self, layout: Layout) -> Result<NonNull<[u8]>, EncodeError> {
        if let Some(space) = self.push_in_current(layout) {
            return Ok(space);
        }
        self.add_chunk(layout)?;
        self.push_in_current(layout).ok_or(EncodeError::OutOfMemory { bytes: layout.size() })
    }

    #[inline]
    fn push_in_current(&mut self, layout: Layout) -> Option<NonNull<[u8]>> {
        let base = self.current.as_mut_ptr();
        let padding = base.addr().wrapping_add(self.used).wrapping_neg() & (layout.align() - 1);
        let start = self.used.checked_add(padding)?;
        let end = start.checked_add(layout.size())?;
        if end > self.current.capacity() {
            return None;
        }
        // SAFETY: `start <= end <= capacity`, so the pointer stays in the chunk's heap block.
        let space = unsafe { base.add(start) };
        self.used = end;
        // A block without capacity never gets here: layouts are not empty.
        Some(NonNull::slice_from_raw_parts(NonNull::new(space)?.cast(), layout.size()))
    }

    /// Gives back `at` and everything pushed after it.
    #[inline]
    pub(super) fn pop(&mut self, at: NonNull<u8>) {
        let offset = at.addr().get().wrapping_sub(self.current.as_ptr().addr());
        // Space in an outgrown chunk comes back at the reset.
        if offset < self.used {
            self.used = offset;
        }
    }

    #[cold]
    fn add_chunk(&mut self, layout: Layout) -> Result<(), EncodeError> {
        let out_of_memory = EncodeError::OutOfMemory { bytes: layout.size() };
        let Some(least) = layout.size().checked_add(layout.align()) else {
            return Err(out_of_memory);
        };
        let capacity = least.max(self.current.capacity().saturating_mul(2)).max(FIRST_CHUNK);
        let mut chunk = Vec::new();
        if chunk.try_reserve_exact(capacity).is_err() {
            return Err(out_of_memory);
        }
        let outgrown = std::mem::replace(&mut self.current, chunk);
        self.used = 0;
        if outgrown.capacity() > 0 {
            self.full.push(outgrown);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(size: usize, align: usize) -> Layout {
        Layout::from_size_align(size, align).unwrap()
    }

    #[test]
    fn allocations_do_not_overlap_across_chunks() {
        let mut scratch = Scratch::default();
        let mut live: Vec<(usize, usize)> = Vec::new();
        for round in 1..200 {
            let size = round * 7;
            let align = 1 << (round % 7);
            let space = scratch.push(bytes(size, align)).unwrap();
            let start = space.cast::<u8>().addr().get();
            assert_eq!(start % align, 0);
            assert_eq!(space.len(), size);
            assert!(live.iter().all(|&(s, e)| start + size <= s || e <= start), "overlap in round {round}");
            live.push((start, start + size));
        }
    }

    #[test]
    fn popped_space_is_used_again_and_one_chunk_remains() {
        let mut scratch = Scratch::default();
        let first = scratch.push(bytes(64, 8)).unwrap().cast::<u8>();
        scratch.pop(first);
        assert_eq!(scratch.push(bytes(64, 8)).unwrap().cast::<u8>(), first);
        scratch.push(bytes(100_000, 8)).unwrap();
        scratch.pop(first);
        scratch.reset();
        let capacity = scratch.capacity();
        assert!(capacity >= 100_000 && scratch.full.is_empty());
        scratch.push(bytes(100_000, 8)).unwrap();
        assert_eq!(scratch.capacity(), capacity);
    }
}
