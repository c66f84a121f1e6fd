//! Rings on raw memory: a shared mapping, or whatever else outlives a keep-alive value.
//!
//! Invariants, which the constructors' callers promise and nothing here gives up:
//!
//! 1. `base` is aligned to a line, and `capacity` bytes from it are readable while `keep_alive`
//!    lives; for [`MappedRingMut`] also writable.
//! 2. Nobody holds a `&[u8]` or `&mut [u8]` to these bytes; threads of this process reach them
//!    only through this module. Other processes may do what they like.
//! 3. Every index is reduced modulo the capacity, and every length cut to it, before it is used.

#![allow(unsafe_code)]

use core::fmt;
use core::ptr::NonNull;
use core::slice;

use super::copy;
use super::prefetch::prefetch_to_write;
use super::{RingRead, RingView, RingWrite};
use crate::layout::{Capacity, LINE};
use crate::sync::real::{AtomicU64, Ordering};

/// A ring in memory that this process can read: a peer's outbox.
///
/// `K` keeps the memory mapped, for example an `Arc` of the mapping.
pub struct MappedRing<K> {
    base: NonNull<AtomicU64>,
    capacity: Capacity,
    _keep_alive: K,
}

/// A ring in memory that this process can read and write: its own outbox.
///
/// `K` keeps the memory mapped, for example an `Arc` of the mapping.
pub struct MappedRingMut<K>(MappedRing<K>);

// SAFETY: the memory is reached through atomics and opaque copies alone (invariant 2), so any
// thread may do it; the pointer stays valid wherever `keep_alive` goes (invariant 1).
unsafe impl<K: Send> Send for MappedRing<K> {}
// SAFETY: as above; `&MappedRing` gives nothing more than such accesses.
unsafe impl<K: Sync> Sync for MappedRing<K> {}

impl<K> MappedRing<K> {
    /// Takes `capacity` bytes from `base` as a ring to read.
    ///
    /// # Safety
    /// `base` is aligned to 64 bytes. All `capacity` bytes from it are readable for as long as
    /// `keep_alive` lives, wherever it is moved, and no read of them can fail. While this value
    /// lives, this process accesses them only through types of this module, or as atomics.
    pub unsafe fn new(base: NonNull<u8>, capacity: Capacity, keep_alive: K) -> Self {
        debug_assert!(base.as_ptr().addr().is_multiple_of(LINE), "a ring must start on a line");
        Self { base: base.cast(), capacity, _keep_alive: keep_alive }
    }

    /// All words of the ring. Words of a read-only mapping are only ever loaded, relaxed.
    #[inline]
    fn words(&self) -> &[AtomicU64] {
        // SAFETY: readable and aligned (invariant 1); shared atomics may change under a shared
        // reference, and nothing else aliases them (invariant 2).
        unsafe { slice::from_raw_parts(self.base.as_ptr(), self.capacity.get() / 8) }
    }

    #[inline]
    fn word(&self, offset: usize) -> &AtomicU64 {
        let index = (offset & (self.capacity.get() - 1)) / 8;
        // SAFETY: the index was reduced modulo the capacity (invariant 3).
        unsafe { self.words().get_unchecked(index) }
    }

    /// The words from `offset` to the end of the ring, whose length bounds every copy.
    #[inline]
    fn words_from(&self, offset: usize) -> &[AtomicU64] {
        let index = (offset & (self.capacity.get() - 1)) / 8;
        // SAFETY: the index was reduced modulo the capacity (invariant 3).
        unsafe { self.words().get_unchecked(index..) }
    }
}

impl<K> RingRead for MappedRing<K> {
    #[inline]
    fn capacity(&self) -> Capacity {
        self.capacity
    }

    #[inline]
    fn load(&self, offset: usize) -> u64 {
        self.word(offset).load(Ordering::Relaxed)
    }

    #[inline(always)]
    fn copy_to(&self, offset: usize, dst: &mut [u8]) {
        let words = self.words_from(offset);
        debug_assert!(dst.len() <= size_of_val(words), "a copy reaches over the ring's end");
        copy::copy_from_words(words, dst);
    }
}

// SAFETY: callers ask for what lies within the ring, and get just that of what `load` reads.
unsafe impl<K> RingView for MappedRing<K> {
    #[inline]
    unsafe fn view(&self, offset: usize, len: usize) -> &[u8] {
        let words = self.words_from(offset);
        let len = len.min(size_of_val(words));
        // SAFETY: `words` covers `len` readable bytes (invariant 3); the caller promises that
        // nobody writes them while the slice lives.
        unsafe { slice::from_raw_parts(words.as_ptr().cast(), len) }
    }
}

impl<K> MappedRingMut<K> {
    /// Takes `capacity` bytes from `base` as a ring to write.
    ///
    /// # Safety
    /// As for [`MappedRing::new`]; the bytes are writable too.
    pub unsafe fn new(base: NonNull<u8>, capacity: Capacity, keep_alive: K) -> Self {
        // SAFETY: the caller promises the same and more.
        Self(unsafe { MappedRing::new(base, capacity, keep_alive) })
    }
}

impl<K> RingRead for MappedRingMut<K> {
    #[inline]
    fn capacity(&self) -> Capacity {
        self.0.capacity()
    }

    #[inline]
    fn load(&self, offset: usize) -> u64 {
        self.0.load(offset)
    }

    #[inline(always)]
    fn copy_to(&self, offset: usize, dst: &mut [u8]) {
        self.0.copy_to(offset, dst);
    }
}

impl<K> RingWrite for MappedRingMut<K> {
    #[inline]
    fn store(&self, offset: usize, word: u64) {
        self.0.word(offset).store(word, Ordering::Relaxed);
    }

    #[inline]
    fn publish(&self, offset: usize, word: u64) {
        self.0.word(offset).store(word, Ordering::Release);
    }

    #[inline(always)]
    fn copy_from(&self, offset: usize, src: &[u8]) {
        let words = self.0.words_from(offset);
        debug_assert!(src.len() <= size_of_val(words), "a copy reaches over the ring's end");
        copy::copy_to_words(words, src);
    }

    #[inline(always)]
    fn prefetch(&self, offset: usize) {
        prefetch_to_write(self.0.word(offset));
    }
}

// SAFETY: hands the call on to `MappedRing`, which reads the same memory.
unsafe impl<K> RingView for MappedRingMut<K> {
    #[inline]
    unsafe fn view(&self, offset: usize, len: usize) -> &[u8] {
        // SAFETY: the caller promises the same.
        unsafe { self.0.view(offset, len) }
    }
}

impl<K> fmt::Debug for MappedRing<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MappedRing").field("capacity", &self.capacity).finish_non_exhaustive()
    }
}

impl<K> fmt::Debug for MappedRingMut<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MappedRingMut").field("capacity", &self.0.capacity).finish_non_exhaustive()
    }
}
