//! A guard for streaming: claims without a read-modify-write.

use core::fmt;

use crate::claim::Claim;
use crate::error::ClaimError;
use crate::layout::LINE;
use crate::memory::{PeerCursor, RingWrite};
use crate::producer::Producer;

/// Sole use of a [`Producer`], from [`Producer::exclusive`] until it is dropped.
///
/// While it lives, every other claim is [`ClaimError::Held`]. The frames are the same, and so is
/// the consumer. A guard that is leaked holds its producer for good.
///
/// Only one claim is open at a time:
/// ```compile_fail,E0499
/// # use memit_ringbuf::*;
/// # fn check(mut guard: Exclusive<'_, HeapRing, HeapCursor>) -> Result<(), ClaimError> {
/// let first = guard.try_claim(8)?;
/// let second = guard.try_claim(8)?; // cannot borrow as mutable more than once
/// drop(first);
/// # drop(second); Ok(()) }
/// ```
#[must_use = "dropping the guard lets the other producers in again"]
pub struct Exclusive<'p, M: RingWrite, H: PeerCursor> {
    producer: &'p Producer<M, H>,
    tail: u64,
    known_head: u64,
    last_size: usize,
}

impl<'p, M: RingWrite, H: PeerCursor> Exclusive<'p, M, H> {
    #[inline]
    pub(crate) fn new(producer: &'p Producer<M, H>, tail: u64, known_head: u64) -> Self {
        Self { producer, tail, known_head, last_size: LINE }
    }

    /// Has the processor fetch what the next claim will write, as [`Producer::prefetch`] does.
    #[inline(always)]
    pub fn prefetch(&self) {
        self.producer.prefetch_at(self.tail, self.last_size);
    }

    /// Claims a frame for a payload of exactly `len` bytes, as [`Producer::try_claim`] does.
    ///
    /// # Errors
    /// [`ClaimError`], but never `Held`; nothing is claimed then.
    #[inline(always)]
    pub fn try_claim(&mut self, len: usize) -> Result<Claim<'_, M, H>, ClaimError> {
        let size = self.producer.frame_size(len)?;
        loop {
            if let Ok(span) = self.producer.lay(self.tail, size, self.known_head) {
                self.tail = span.end;
                self.last_size = size;
                return Ok(Claim::new(self.producer, span, len));
            }
            self.known_head = self.producer.make_room_held(self.known_head, self.tail, size)?;
        }
    }

    /// Whether a claim for a payload of `len` bytes would find room now, as [`Producer::check_room`] does.
    ///
    /// # Errors
    /// What [`try_claim`](Self::try_claim) would say.
    pub fn check_room(&mut self, len: usize) -> Result<(), ClaimError> {
        let size = self.producer.frame_size(len)?;
        self.known_head = self.producer.make_room_held(self.known_head, self.tail, size)?;
        Ok(())
    }

    /// The end of the last claim.
    #[inline]
    pub fn tail(&self) -> u64 {
        self.tail
    }
}

impl<M: RingWrite, H: PeerCursor> Drop for Exclusive<'_, M, H> {
    #[inline]
    fn drop(&mut self) {
        self.producer.release_tail(self.tail);
    }
}

impl<M: RingWrite, H: PeerCursor> fmt::Debug for Exclusive<'_, M, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exclusive").field("tail", &self.tail).finish_non_exhaustive()
    }
}
