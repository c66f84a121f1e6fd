//! The serializer that rkyv writes through.
#![allow(unsafe_code)]

use std::{alloc::Layout, mem, process, ptr::NonNull};

use rkyv::{
    Archive, Serialize,
    rancor::Fallible,
    ser::{Allocator, Positional, Writer},
};

use super::{
    EncodeError,
    output::{Bound, Output},
    scratch::Scratch,
    twin::{BorrowedAs, Wrapped},
};
use crate::{
    Message,
    payload::{MAX_ALIGN, MAX_DEPTH},
    value::{MAX_NESTING, MAX_NODES},
};

/// The longest archive: rkyv's relative pointers are 32 bits wide and signed.
pub const MAX_ARCHIVE: usize = i32::MAX as usize;

/// How many parts of an archive may lead from one to the next below its root; see [`MAX_DEPTH`].
const LEVELS: usize = MAX_DEPTH - 2;

/// Where a message is written to: an output buffer and scratch space, both kept for the next message.
///
/// Users meet it only as an argument of [`Payload::encode`](crate::Payload::encode) and
/// [`EncodeAs::encode_as`](crate::EncodeAs::encode_as).
pub struct Encoder {
    out: Output,
    scratch: Scratch,
    nodes: u32,
    nesting: u32,
    /// Messages in a row that a much smaller buffer would have held.
    oversized_for: u32,
    /// Further idle encoders of this thread, for messages that are encoded while another one is open.
    pub(super) next: Option<Box<Encoder>>,
}

#[inline]
fn check_depth(fits: bool) -> Result<(), EncodeError> {
    #[allow(clippy::cast_possible_truncation)]
    const LIMIT: u32 = MAX_DEPTH as u32;
    if fits { Ok(()) } else { Err(EncodeError::TooDeep { limit: LIMIT }) }
}

/// More than this is given back when it has not been needed for a while.
const KEPT_CAPACITY: usize = 1 << 20;
const KEPT_FOR: u32 = 256;

impl Encoder {
    pub(super) fn new() -> Self {
        Encoder { out: Output::new(), scratch: Scratch::default(), nodes: 0, nesting: 0, oversized_for: 0, next: None }
    }

    /// Writes `value` and what it owns; its root ends the archive. How deep it nests is not looked at, but for the
    /// [`Value`](crate::Value)s in it. One whose archive is aligned to more than 16 bytes does not compile.
    ///
    /// # Errors
    ///
    /// When the archive would be longer than [`MAX_ARCHIVE`], a [`Value`](crate::Value) in it too deep or too large,
    /// or memory short.
    #[inline]
    pub fn archive<T: Serialize<Encoder>>(&mut self, value: &T) -> Result<(), EncodeError> {
        let resolver = value.serialize(self)?;
        self.out.resolve(value, resolver)
    }

    /// Writes a part of a twin as the whole message.
    #[doc(hidden)]
    #[inline]
    pub fn archive_as<T: Archive, U: BorrowedAs<T> + ?Sized>(&mut self, part: &U) -> Result<(), EncodeError> {
        check_depth(part.fits(LEVELS))?;
        self.archive(&Wrapped::<U, T>::new(part))
    }

    /// Writes a message.
    #[inline]
    pub(crate) fn message<T: Message>(&mut self, message: &T) -> Result<(), EncodeError> {
        check_depth(message.fits(LEVELS))?;
        self.archive(message)
    }

    /// Writes bytes as they are.
    ///
    /// # Errors
    ///
    /// When the message would be longer than [`MAX_ARCHIVE`].
    #[inline]
    pub fn bytes(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
        self.write(bytes)
    }

    #[inline]
    pub(super) fn clear(&mut self, bound: Bound) {
        self.out.clear(bound);
        self.scratch.reset();
        self.nodes = 0;
        self.nesting = 0;
    }

    /// The bytes that were written, unless some were only counted.
    #[inline]
    pub(super) fn written(&self) -> Option<&[u8]> {
        self.out.written()
    }

    /// How many bytes were written or counted.
    pub(super) fn len(&self) -> usize {
        self.out.len()
    }

    /// Has what `f` encodes written to `target`, which begins at a multiple of [`MAX_ALIGN`]; what comes beyond its end is
    /// counted only. Returns how many bytes that was.
    pub(super) fn write_to(
        &mut self,
        target: &mut [u8],
        f: impl FnOnce(&mut Self) -> Result<(), EncodeError>,
    ) -> Result<usize, EncodeError> {
        assert!(
            target.as_ptr().addr().is_multiple_of(MAX_ALIGN),
            "what is encoded to begins at a multiple of {MAX_ALIGN}"
        );
        self.clear(Bound::NONE);
        let target = NonNull::from(target);
        // SAFETY: the slice was just found aligned, is initialized, and borrowed by this function. The output is taken back, or the process
        // ended, before that borrow ends: by `lent`, also if `f` panics.
        let output = unsafe { Output::lent(target) };
        let own = mem::replace(&mut self.out, output);
        let lent = Lent { encoder: self, own, target };
        f(&mut *lent.encoder)?;
        Ok(lent.encoder.len())
    }

    /// Gives memory back that one large message left behind.
    #[inline]
    pub(super) fn settle(&mut self) {
        let held = self.out.capacity() + self.scratch.capacity();
        if held > KEPT_CAPACITY {
            self.settle_large(held);
        }
    }

    #[cold]
    fn settle_large(&mut self, held: usize) {
        if self.written().is_some_and(|written| written.len() > held / 4) {
            self.oversized_for = 0;
            return;
        }
        self.oversized_for += 1;
        if self.oversized_for >= KEPT_FOR {
            self.out = Output::new();
            self.scratch = Scratch::default();
            self.oversized_for = 0;
        }
    }
}

/// An encoder that writes to memory that is lent to it, until this is dropped.
struct Lent<'e> {
    encoder: &'e mut Encoder,
    own: Output,
    target: NonNull<[u8]>,
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        if !self.encoder.out.is_lent(self.target) {
            // A `Serialize` that has its hands on two encoders, one within the other, has exchanged them, so the other
            // one would go on writing to memory that is about to be somebody else's.
            process::abort();
        }
        mem::swap(&mut self.encoder.out, &mut self.own);
    }
}

impl Fallible for Encoder {
    type Error = EncodeError;
}

impl Positional for Encoder {
    #[inline]
    fn pos(&self) -> usize {
        self.out.len()
    }
}

impl Writer<EncodeError> for Encoder {
    #[inline(always)]
    fn write(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
        self.out.write(bytes)
    }
}

// SAFETY: `Scratch::push` returns space of the given layout that no other live allocation shares.
unsafe impl Allocator<EncodeError> for Encoder {
    #[inline]
    unsafe fn push_alloc(&mut self, layout: Layout) -> Result<NonNull<[u8]>, EncodeError> {
        self.scratch.push(layout)
    }

    #[inline]
    unsafe fn pop_alloc(&mut self, ptr: NonNull<u8>, _: Layout) -> Result<(), EncodeError> {
        self.scratch.pop(ptr);
        Ok(())
    }
}

/// What a message's `Serialize` needs of its serializer.
#[doc(hidden)]
pub trait Sink: Fallible + Writer<<Self as Fallible>::Error> + Allocator<<Self as Fallible>::Error> {
    /// Counts one dynamic value, as its receiver will.
    fn count_node(&mut self) -> Result<(), Self::Error>;
    /// A dynamic array or map begins, in which `nodes` values will be counted.
    fn enter(&mut self, nodes: usize) -> Result<(), Self::Error>;
    /// It ends.
    fn leave(&mut self);
}

impl Sink for Encoder {
    #[inline]
    fn count_node(&mut self) -> Result<(), EncodeError> {
        self.nodes += 1;
        if self.nodes > MAX_NODES { Err(EncodeError::TooManyNodes { limit: MAX_NODES }) } else { Ok(()) }
    }

    fn enter(&mut self, nodes: usize) -> Result<(), EncodeError> {
        self.nesting += 1;
        if self.nesting > MAX_NESTING {
            return Err(EncodeError::TooDeep { limit: MAX_NESTING });
        }
        // The scratch space for too many of them is better not asked for.
        let nodes = u32::try_from(nodes).unwrap_or(u32::MAX);
        if self.nodes.saturating_add(nodes) > MAX_NODES {
            return Err(EncodeError::TooManyNodes { limit: MAX_NODES });
        }
        Ok(())
    }

    fn leave(&mut self) {
        self.nesting -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_of_one_large_message_is_given_back_after_many_small_ones() {
        let mut encoder = Encoder::new();
        encoder.bytes(&vec![7; 8 << 20]).unwrap();
        encoder.settle();
        assert!(encoder.out.capacity() >= 8 << 20);
        for _ in 0..KEPT_FOR {
            encoder.clear(Bound::NONE);
            encoder.bytes(b"small").unwrap();
            encoder.settle();
        }
        assert_eq!(encoder.out.capacity(), 0);
    }

    #[test]
    fn a_buffer_that_stays_in_use_is_kept() {
        let mut encoder = Encoder::new();
        let large = vec![7; 8 << 20];
        for _ in 0..2 * KEPT_FOR {
            encoder.clear(Bound::NONE);
            encoder.bytes(&large).unwrap();
            encoder.settle();
        }
        assert!(encoder.out.capacity() >= large.len());
    }
}
