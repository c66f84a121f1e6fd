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
    #[inline(always)]
    pub(crate) fn new(producer: &'p Producer<M, H>, span: Span, len: usize) -> Self {
        crash_point!("claim-taken");
        Self { producer, span, len }
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
    #[inline(always)]
    pub fn write(&mut self, offset: usize, bytes: &[u8]) {
        if !offset.is_multiple_of(8) || offset > self.len || bytes.len() > self.len - offset {
            outside(offset, bytes.len(), self.len);
        }
        let memory = self.producer.memory();
        let at = memory.capacity().offset(self.span.frame) + HEADER + offset;
        crash_point!("claim-half-written", after memory.copy_from(at, &bytes[..bytes.len() / 2]));
        memory.copy_from(at, bytes);
        crash_point!("claim-written");
    }

    /// Publishes the frame. A header of kind [`PADDING`](crate::kind::PADDING) is an abort.
    #[inline(always)]
    pub fn commit(self, header: Header) {
        self.publish(header);
        mem::forget(self);
    }

    /// Gives the frame up: the consumer will skip it. The same as dropping the claim.
    #[inline]
    pub fn abort(self) {}

    // Inlined, and handing on numbers alone: a claim whose address is taken lives in memory, and
    // reading it back there costs more than the whole rest of a claim.
    #[inline(always)]
    fn publish(&self, header: Header) {
        #[allow(clippy::cast_possible_truncation)] // at most an eighth of Capacity::MAX
        let len = self.len as u32;
        let size = frame_size(self.len);
        let (producer, span) = (self.producer, self.span);
        describe(producer, span.frame, Descriptor { len, header });
        if span.is_plain(size) {
            publish_first(producer, span.first);
        } else {
            let behind = span.frame.wrapping_add(size as u64);
            publish_padded(producer, span.first, span.frame, behind, span.end);
        }
    }
}

impl<M: RingWrite, H: PeerCursor> Drop for Claim<'_, M, H> {
    #[inline(always)]
    fn drop(&mut self) {
        self.publish(Descriptor::padding(0).header);
    }
}

/// Publishes a claim with padding up to its `frame`, or colliding lines from `behind` it to `end`.
/// Back to front: the consumer reaches none of it before the first stamp.
#[cold]
#[inline(never)]
fn publish_padded<M: RingWrite, H: PeerCursor>(
    producer: &Producer<M, H>,
    first: u64,
    frame: u64,
    behind: u64,
    end: u64,
) {
    let mut line = behind;
    while line != end {
        describe_padding(producer, line, LINE_STEP);
        stamp(producer, line);
        line = line.wrapping_add(LINE_STEP);
    }
    if first != frame {
        stamp(producer, frame);
        crash_point!("frame-stamped-behind-padding");
        describe_padding(producer, first, frame.wrapping_sub(first));
    }
    publish_first(producer, first);
}

/// Makes the `size` bytes at `position`, at most a frame's, into padding.
fn describe_padding<M: RingWrite, H: PeerCursor>(producer: &Producer<M, H>, position: u64, size: u64) {
    #[allow(clippy::cast_possible_truncation)] // at most an eighth of Capacity::MAX
    let len = (size - HEADER as u64) as u32;
    describe(producer, position, Descriptor::padding(len));
}

/// Writes the second word of the frame at `position`.
#[inline(always)]
fn describe<M: RingWrite, H: PeerCursor>(producer: &Producer<M, H>, position: u64, descriptor: Descriptor) {
    let memory = producer.memory();
    let offset = memory.capacity().offset(position) + DESCRIPTOR_OFFSET;
    memory.store(offset, descriptor.to_word());
}

/// Stamps a frame that the consumer cannot reach yet, unless this process ends before the claim's first one is stamped.
fn stamp<M: RingWrite, H: PeerCursor>(producer: &Producer<M, H>, position: u64) {
    let memory = producer.memory();
    // SYNC frame-publish: pairs with Consumer::poll, behind Consumer::skip_gap.
    memory.publish(memory.capacity().offset(position), producer.key().stamp(position));
}

/// Stamps a claim's first frame, by which all of the claim is published.
#[inline(always)]
fn publish_first<M: RingWrite, H: PeerCursor>(producer: &Producer<M, H>, first: u64) {
    let memory = producer.memory();
    crash_point!("publish-before");
    // SYNC frame-publish: pairs with Consumer::poll.
    memory.publish(memory.capacity().offset(first), producer.key().stamp(first));
    crash_point!("publish-after");
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
        f.debug_struct("Claim").field("span", &self.span).field("len", &self.len).finish_non_exhaustive()
    }
}
