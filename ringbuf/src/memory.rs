//! The one module that touches a ring's bytes.
//!
//! A ring's memory may belong to another process that writes it at any moment, so no `&[u8]` and
//! no `&mut [u8]` into it exists outside the trusted path ([`RingView`]). Its bytes are reached in
//! two ways only: as relaxed `AtomicU64` words, and by one opaque assembly copy for long payloads.
//! Neither is a data race, whatever a peer does; at worst the bytes read are nonsense.
//!
//! Loads from peer memory are relaxed and 8 bytes wide, and the algorithm puts `fence(Acquire)`
//! behind them: in Rust any other atomic access to a page that is mapped read-only is undefined.
//!
//! The algorithm is generic over these traits, so that the same code runs on mapped memory, on
//! the heap, and on loom's atomics. Every implementation here keeps its accesses inside the ring
//! whatever offset it is given; the safety of the crate rests on nothing outside this module.

// The unsafe trait below, and each file that touches bytes, opts in for itself.
#![allow(unsafe_code)]

mod copy;
mod heap;
mod mapped;
mod prefetch;

pub use copy::{copy_from_words, copy_to_words};
pub use heap::{HeapCursor, HeapRing};
pub use mapped::{MappedRing, MappedRingMut};
pub use prefetch::{each_line_to_prefetch, prefetch_to_write};

use crate::layout::Capacity;

/// Reads a ring's memory.
pub trait RingRead {
    /// The size of the ring. Always the same.
    fn capacity(&self) -> Capacity;

    /// Loads the word at `offset`, relaxed. The offset counts modulo the capacity and is rounded
    /// down to a whole word.
    fn load(&self, offset: usize) -> u64;

    /// Copies the bytes at `offset` to `dst`. The offset counts as in [`load`](Self::load).
    ///
    /// The bytes end within the ring: callers see to that, and what would lie behind its end is
    /// not copied.
    fn copy_to(&self, offset: usize, dst: &mut [u8]);
}

/// Writes a ring's memory. Only the process that owns the ring can.
pub trait RingWrite: RingRead {
    /// Stores the word at `offset`, relaxed. The offset counts as in [`RingRead::load`].
    fn store(&self, offset: usize, word: u64);

    /// Stores the word at `offset` with release ordering: whoever loads it and then passes an
    /// acquire fence sees all that this thread wrote before.
    fn publish(&self, offset: usize, word: u64);

    /// Copies `src` to `offset`, which counts as in [`RingRead::load`]. When `src` ends within a
    /// word, the rest of that word may be overwritten too.
    ///
    /// The bytes end within the ring: callers see to that, and what would lie behind its end is
    /// not copied.
    fn copy_from(&self, offset: usize, src: &[u8]);

    /// Says that the line at `offset`, which counts as in [`RingRead::load`], is about to be written. A hint that may be
    /// ignored.
    #[inline]
    fn prefetch(&self, offset: usize) {
        let _ = offset;
    }
}

/// Lends a ring's bytes out where they lie. For peers that are trusted in full.
///
/// # Safety
/// `view` returns exactly the `len` bytes at `offset` of the memory that `load` and `copy_to` read.
pub unsafe trait RingView: RingRead {
    /// The bytes at `offset`.
    ///
    /// # Safety
    /// `offset` is a multiple of 8, and the bytes end within the ring. Nobody, in any process,
    /// writes them while the slice lives.
    unsafe fn view(&self, offset: usize, len: usize) -> &[u8];
}

/// The consumer's head, as the producer reads it: another process's word.
pub trait PeerCursor {
    /// Loads the position, relaxed. The producer puts its own fence behind it and checks what it
    /// got.
    fn load(&self) -> u64;
}

/// The consumer's head, as the consumer itself publishes it.
pub trait OwnCursor {
    /// Stores the position with release ordering, so that the loads of the payloads before it
    /// come first.
    fn store(&self, position: u64);
}
