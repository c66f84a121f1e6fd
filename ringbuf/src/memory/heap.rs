//! A ring and a cursor on the heap: for one process, for tests, and for models.
//!
//! In a model (`cfg(loom)`) both are made of loom's atomics; else a [`HeapRing`] is a
//! [`MappedRingMut`](super::MappedRingMut) on memory of its own, so that tests on the heap run the
//! code that runs on mapped memory.

use alloc::sync::Arc;
use core::fmt;

#[cfg(loom)]
use self::modelled as backing;
#[cfg(not(loom))]
use self::real as backing;
use super::{OwnCursor, PeerCursor, RingRead, RingWrite};
use crate::layout::Capacity;
use crate::sync::{AtomicU64, Ordering};

/// A zeroed ring on the heap. Clones share it.
#[derive(Clone)]
pub struct HeapRing(Arc<backing::Backing>);

impl HeapRing {
    /// Allocates a ring.
    #[must_use]
    pub fn new(capacity: Capacity) -> Self {
        Self(Arc::new(backing::Backing::new_zeroed(capacity)))
    }
}

impl RingRead for HeapRing {
    #[inline]
    fn capacity(&self) -> Capacity {
        self.0.capacity()
    }

    #[inline]
    fn load(&self, offset: usize) -> u64 {
        self.0.load(offset)
    }

    #[inline]
    fn copy_to(&self, offset: usize, dst: &mut [u8]) {
        self.0.copy_to(offset, dst);
    }
}

impl RingWrite for HeapRing {
    #[inline]
    fn store(&self, offset: usize, word: u64) {
        self.0.store(offset, word);
    }

    #[inline]
    fn publish(&self, offset: usize, word: u64) {
        self.0.publish(offset, word);
    }

    #[inline]
    fn copy_from(&self, offset: usize, src: &[u8]) {
        self.0.copy_from(offset, src);
    }

    #[inline(always)]
    fn prefetch(&self, offset: usize) {
        self.0.prefetch(offset);
    }
}

impl fmt::Debug for HeapRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HeapRing").field("capacity", &self.capacity()).finish_non_exhaustive()
    }
}

/// A consumer's head on the heap. Clones share it: one is the consumer's, one the producer's.
#[derive(Clone, Debug, Default)]
pub struct HeapCursor(Arc<AtomicU64>);

impl HeapCursor {
    /// A cursor at position 0.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A cursor at `position`: for tests, with [`Producer::starting_at`](crate::Producer).
    #[must_use]
    pub fn starting_at(position: u64) -> Self {
        Self(Arc::new(AtomicU64::new(position)))
    }
}

impl PeerCursor for HeapCursor {
    #[inline]
    fn load(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl OwnCursor for HeapCursor {
    #[inline]
    fn store(&self, position: u64) {
        // SYNC head-release: pairs with Producer::make_room.
        self.0.store(position, Ordering::Release);
    }
}

#[cfg(not(loom))]
mod real {
    //! Invariant: the lines live in a heap block of their own, which does not move with its `Box`,
    //! is read and written through `MappedRingMut` alone, and is freed with it.
    #![allow(unsafe_code)]

    use alloc::boxed::Box;
    use alloc::vec::Vec;
    use core::ptr::NonNull;

    use super::super::{MappedRingMut, RingView};
    use super::HeapRing;
    use crate::layout::{Capacity, LINE};
    use crate::sync::AtomicU64;

    #[repr(C, align(64))]
    pub(super) struct Line([AtomicU64; LINE / 8]);

    const _: () = assert!(size_of::<Line>() == LINE && align_of::<Line>() == LINE);

    pub(super) type Backing = MappedRingMut<Owned>;

    /// Frees the lines. A raw pointer, because a `Box` that moves would claim sole access.
    pub(super) struct Owned(NonNull<[Line]>);

    // SAFETY: it only owns a block of atomics, which any thread may free.
    unsafe impl Send for Owned {}
    // SAFETY: `&Owned` gives no access at all.
    unsafe impl Sync for Owned {}

    impl Drop for Owned {
        fn drop(&mut self) {
            // SAFETY: the pointer came from `Box::into_raw` and is freed once, here.
            drop(unsafe { Box::from_raw(self.0.as_ptr()) });
        }
    }

    impl MappedRingMut<Owned> {
        pub(super) fn new_zeroed(capacity: Capacity) -> Self {
            let line = || Line([const { AtomicU64::new(0) }; LINE / 8]);
            let lines: Vec<Line> = core::iter::repeat_with(line).take(capacity.get() / LINE).collect();
            let lines = NonNull::from(Box::leak(lines.into_boxed_slice()));
            // SAFETY: the block is aligned to lines, has `capacity` bytes, is read and written
            // through this value alone, and lives as long as `Owned`.
            unsafe { Self::new(lines.cast(), capacity, Owned(lines)) }
        }
    }

    // SAFETY: hands the call on to `MappedRingMut`, which reads the same memory.
    unsafe impl RingView for HeapRing {
        #[inline]
        unsafe fn view(&self, offset: usize, len: usize) -> &[u8] {
            // SAFETY: the caller promises the same.
            unsafe { self.0.view(offset, len) }
        }
    }
}

#[cfg(loom)]
#[allow(unsafe_code)]
mod modelled {
    use alloc::vec::Vec;

    use super::super::copy;
    use crate::layout::Capacity;
    use crate::sync::{AtomicU64, Ordering};

    pub(super) struct Backing {
        words: Vec<AtomicU64>,
        capacity: Capacity,
    }

    impl Backing {
        pub(super) fn new_zeroed(capacity: Capacity) -> Self {
            let words = (0..capacity.get() / 8).map(|_| AtomicU64::new(0)).collect();
            Self { words, capacity }
        }

        pub(super) fn capacity(&self) -> Capacity {
            self.capacity
        }

        fn word(&self, offset: usize) -> &AtomicU64 {
            &self.words[offset % self.capacity.get() / 8]
        }

        pub(super) fn load(&self, offset: usize) -> u64 {
            self.word(offset).load(Ordering::Relaxed)
        }

        pub(super) fn store(&self, offset: usize, word: u64) {
            self.word(offset).store(word, Ordering::Relaxed);
        }

        pub(super) fn publish(&self, offset: usize, word: u64) {
            self.word(offset).store(word, Ordering::Release);
        }

        pub(super) fn copy_to(&self, offset: usize, dst: &mut [u8]) {
            let words = &self.words[offset / 8..][..dst.len().div_ceil(8)];
            // SAFETY: as many words as `dst` takes.
            unsafe { copy::load_words(words, dst) };
        }

        pub(super) fn copy_from(&self, offset: usize, src: &[u8]) {
            let words = &self.words[offset / 8..][..src.len().div_ceil(8)];
            // SAFETY: as many words as `src` fills.
            unsafe { copy::store_words(words, src) };
        }

        /// Which is nothing that could be seen.
        pub(super) fn prefetch(&self, _: usize) {}
    }
}
