//! The dispatching thread's own copy of a payload, which listeners may keep.
#![allow(unsafe_code)]

use std::cell::{Cell, UnsafeCell};
use std::fmt;
use std::sync::Arc;

use crate::aligned::AlignedBytes;

/// A buffer that is written again for each message, unless somebody keeps it.
pub(crate) struct PrivateBuffer {
    bytes: Arc<Shared>,
    /// Whether `bytes` may have another owner. Set by `keep`, the only place that makes one.
    is_kept: Cell<bool>,
}

/// Bytes that nobody writes while they have more than one owner.
pub(super) struct Shared(UnsafeCell<AlignedBytes>);

// SAFETY: `PrivateBuffer::fill` alone writes the bytes, when it is their only owner; others only read them.
unsafe impl Sync for Shared {}

/// A buffer that holds this many times more than the message is not kept: the message is copied.
const ROOMY: usize = 2;
/// Less than this is never too much.
const SMALL: usize = 4096;

impl PrivateBuffer {
    pub(crate) fn new() -> Self {
        Self { bytes: Shared::new(AlignedBytes::new()), is_kept: Cell::new(false) }
    }

    /// Makes it `len` bytes long and has `write` write them. What was kept before stays as it is.
    #[inline]
    pub(crate) fn fill(&mut self, len: usize, write: impl FnOnce(&mut [u8])) {
        if self.is_kept.get() {
            self.renew();
        }
        // SAFETY: this buffer is the only owner: `is_kept` is not set, and `keep`, which would set it, borrows the
        // buffer for no longer than its call. The reference ends with this function.
        let bytes = unsafe { &mut *self.bytes.0.get() };
        bytes.resize(len);
        write(bytes.as_mut_slice());
    }

    #[cold]
    fn renew(&mut self) {
        // `get_mut` also orders the reads of former owners before what is written next.
        if Arc::get_mut(&mut self.bytes).is_none() {
            self.bytes = Shared::new(AlignedBytes::new());
        }
        self.is_kept.set(false);
    }

    #[inline]
    pub(crate) fn as_slice(&self) -> &[u8] {
        self.bytes.as_slice()
    }

    /// The bytes, for as long as somebody wants them.
    pub(super) fn keep(&self) -> Arc<Shared> {
        // SAFETY: nobody writes the bytes while `self` is borrowed.
        let capacity = unsafe { &*self.bytes.0.get() }.capacity();
        if capacity > SMALL.max(ROOMY * self.as_slice().len()) {
            return Shared::copy_of(self.as_slice());
        }
        self.is_kept.set(true);
        Arc::clone(&self.bytes)
    }
}

impl Shared {
    fn new(bytes: AlignedBytes) -> Arc<Self> {
        Arc::new(Self(UnsafeCell::new(bytes)))
    }

    pub(super) fn copy_of(bytes: &[u8]) -> Arc<Self> {
        let mut copy = AlignedBytes::with_capacity(bytes.len());
        copy.extend_from_slice(bytes);
        Self::new(copy)
    }

    #[inline]
    pub(super) fn as_slice(&self) -> &[u8] {
        // SAFETY: whoever has a reference to these bytes is one of their owners, or borrows from one, and the only
        // writer is `PrivateBuffer::fill`, with a buffer borrowed mutably and no other owner.
        unsafe { &*self.0.get() }.as_slice()
    }
}

impl fmt::Debug for PrivateBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrivateBuffer").field("len", &self.as_slice().len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(buffer: &mut PrivateBuffer, byte: u8, len: usize) {
        buffer.fill(len, |bytes| bytes.fill(byte));
    }

    #[test]
    fn what_is_kept_is_not_written_over_and_what_is_not_is_written_again() {
        let mut buffer = PrivateBuffer::new();
        filled(&mut buffer, 1, 100);
        let first = buffer.as_slice().as_ptr();
        filled(&mut buffer, 2, 100);
        assert_eq!(buffer.as_slice().as_ptr(), first);
        let (kept, again) = (buffer.keep(), buffer.keep());
        assert_eq!(kept.as_slice().as_ptr(), first);
        filled(&mut buffer, 3, 100);
        assert_eq!(
            (kept.as_slice(), again.as_slice(), buffer.as_slice()),
            (&[2; 100][..], &[2; 100][..], &[3; 100][..])
        );
    }

    #[test]
    fn a_buffer_that_nobody_keeps_any_more_is_used_again() {
        let mut buffer = PrivateBuffer::new();
        filled(&mut buffer, 1, 100);
        let first = buffer.as_slice().as_ptr();
        drop(buffer.keep());
        filled(&mut buffer, 2, 100);
        assert_eq!(buffer.as_slice().as_ptr(), first);
    }

    #[test]
    fn a_small_message_does_not_keep_the_memory_of_a_large_one() {
        let mut buffer = PrivateBuffer::new();
        filled(&mut buffer, 1, 1 << 20);
        filled(&mut buffer, 2, 10);
        let kept = buffer.keep();
        assert_eq!(kept.as_slice(), [2; 10]);
        // SAFETY: nobody writes it.
        assert!(unsafe { &*kept.0.get() }.capacity() < 1 << 10);
    }

    #[test]
    fn bytes_are_kept_by_another_thread_while_the_buffer_goes_on() {
        let mut buffer = PrivateBuffer::new();
        std::thread::scope(|scope| {
            for round in 0..100_u8 {
                filled(&mut buffer, round, 1000);
                let kept = buffer.keep();
                scope.spawn(move || assert_eq!(kept.as_slice(), [round; 1000]));
            }
        });
    }
}
