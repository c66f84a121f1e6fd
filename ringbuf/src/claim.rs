//! A stretch of the ring that belongs to one thread until it is committed or aborted.

use core::fmt;
use core::mem;

use crate::cursor::Span;
use crate::layout::{DESCRIPTOR_OFFSET, Descriptor, HEADER, Header, LINE_STEP, frame_size};
use crate::memory::{PeerCursor, RingWrite};
use crate::producer::Producer;

/// A claimed frame. Write the payload, then [`commit`](Self::commit); dropping it aborts, which
/// leaves padding that the consumer skips.
///
/// Until then the consumer cannot get past it, and neither can later claims. A claim that is
/// leaked stops its ring for good, though nothing worse.
///
/// A claim is used up by its commit:
/// ```compile_fail,E0382
/// # use memit_ringbuf::*;
/// # fn check(producer: &Producer<HeapRing, HeapCursor>) -> Result<(), ClaimError> {
/// let mut claim = producer.try_claim(8)?;
/// claim.commit(Header::default());
/// claim.write(0, &[1]); // use of moved value
/// # Ok(()) }
/// ```
/// and does not outlive its producer:
/// ```compile_fail,E0597
/// # use memit_ringbuf::*;
/// # fn check(ring: HeapRing, head: HeapCursor, key: Key) {
/// let claim = {
///     let producer = Producer::new(ring, head, key);
///     producer.try_claim(8) // `producer` does not live long enough
/// };
/// drop(claim);
/// # }
/// ```
#[must_use = "dropping a claim aborts it"]
pub struct Claim<'p, M: RingWrite, H: PeerCursor> {
    producer: &'p Producer<M, H>,
    span: Span,
    len: usize,
}

impl<'p, M: RingWrite, H: PeerCursor> Claim<'p, M, H> {
    #[inline]
    pub(crate) fn new(producer: &'p Producer<M, H>, span: Span, len: usize) -> Self {
        Self {
            producer,
            span,
            len,
        }
    }

    /// The length of the payload, as it was claimed.
    #[inline]
    #[allow(clippy::len_without_is_empty)] // whether a claim is empty is its claimer's choice
    pub fn len(&self) -> usize {
        self.len
    }

    /// Writes bytes of the payload at `offset`.
    ///
    /// A payload may be written in pieces, each at a multiple of 8. A piece whose end is not a
    /// multiple of 8 may overwrite the few bytes up to it, so write pieces in ascending order.
    /// What is never written carries stale bytes of earlier frames of this ring.
    ///
    /// # Panics
    /// Unless `offset` is a multiple of 8 and the bytes end within the payload.
    #[inline]
    pub fn write(&mut self, offset: usize, bytes: &[u8]) {
        if !offset.is_multiple_of(8) || offset > self.len || bytes.len() > self.len - offset {
            outside(offset, bytes.len(), self.len);
        }
        let memory = self.producer.memory();
        memory.copy_from(
            memory.capacity().offset(self.span.frame) + HEADER + offset,
            bytes,
        );
    }

    /// Publishes the frame. A header of kind [`PADDING`](crate::kind::PADDING) is an abort.
    #[inline]
    pub fn commit(self, header: Header) {
        self.publish(header);
        mem::forget(self);
    }

    /// Gives the frame up: the consumer will skip it. The same as dropping the claim.
    #[inline]
    pub fn abort(self) {}

    #[inline]
    fn publish(&self, header: Header) {
        #[allow(clippy::cast_possible_truncation)] // at most an eighth of Capacity::MAX
        let len = self.len as u32;
        let frame = self.span.frame;
        self.describe(frame, Descriptor { len, header });
        if self.span.is_plain(frame_size(self.len)) {
            self.publish_first();
        } else {
            self.publish_padded();
        }
    }

    /// Publishes a claim that has padding before or behind its frame, back to front: the consumer
    /// reaches none of it before the first stamp.
    #[cold]
    #[inline(never)]
    fn publish_padded(&self) {
        let Span { first, frame, end } = self.span;
        let mut line = frame.wrapping_add(frame_size(self.len) as u64);
        while line != end {
            self.describe_padding(line, LINE_STEP);
            self.stamp(line);
            line = line.wrapping_add(LINE_STEP);
        }
        if first != frame {
            self.stamp(frame);
            self.describe_padding(first, frame.wrapping_sub(first));
        }
        self.publish_first();
    }

    /// Makes the `size` bytes at `position`, at most a frame's, into padding.
    fn describe_padding(&self, position: u64, size: u64) {
        #[allow(clippy::cast_possible_truncation)] // at most an eighth of Capacity::MAX
        let size = size as u32;
        self.describe(position, Descriptor::padding(size - HEADER as u32));
    }

    #[inline]
    fn describe(&self, position: u64, descriptor: Descriptor) {
        let memory = self.producer.memory();
        let offset = memory
            .capacity()
            .offset(position.wrapping_add(DESCRIPTOR_OFFSET));
        memory.store(offset, descriptor.to_word());
    }

    #[inline]
    fn stamp(&self, position: u64) {
        let memory = self.producer.memory();
        memory.store(
            memory.capacity().offset(position),
            self.producer.key().stamp(position),
        );
    }

    #[inline]
    fn publish_first(&self) {
        let memory = self.producer.memory();
        let first = self.span.first;
        // SYNC frame-publish: pairs with Consumer::poll.
        memory.publish(
            memory.capacity().offset(first),
            self.producer.key().stamp(first),
        );
    }
}

impl<M: RingWrite, H: PeerCursor> Drop for Claim<'_, M, H> {
    fn drop(&mut self) {
        self.publish(Descriptor::padding(0).header);
    }
}

#[cold]
#[inline(never)]
fn outside(offset: usize, bytes: usize, len: usize) -> ! {
    panic!(
        "{bytes} bytes written at {offset} of a claim of {len} bytes: expected an offset that is \
         a multiple of 8, and an end within the claim"
    );
}

impl<M: RingWrite, H: PeerCursor> fmt::Debug for Claim<'_, M, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Claim")
            .field("span", &self.span)
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}
