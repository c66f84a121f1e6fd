//! Arithmetic on positions: distance, free space, where a claim lies. Pure.
//!
//! A position counts bytes since the ring began, modulo 2^64: at 10 GB/s it wraps after 58 years.
//! Nothing here cares: every comparison is one of distances, and every capacity divides 2^64. Two
//! positions that are compared are always far less than 2^63 apart.

use crate::layout::{Capacity, LINE_STEP};

/// Whether a cursor at `position` has come to `wanted` or beyond it.
///
/// The comparison that goes with [`ClaimError::Full`](crate::ClaimError::Full): it also holds
/// when positions wrap at 2^64.
///
/// ```
/// use memit_ringbuf::reached;
/// assert!(reached(640, 640) && reached(704, 640) && !reached(576, 640));
/// assert!(reached(64, u64::MAX - 63));
/// ```
#[inline]
#[must_use]
pub const fn reached(position: u64, wanted: u64) -> bool {
    position.wrapping_sub(wanted) < 1 << 63
}

/// The stretch of the ring that one claim covers: `first..frame` is padding up to the ring's end,
/// the payload's frame begins at `frame`, and whatever follows it up to `end` are lines that
/// collided.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Span {
    pub(crate) first: u64,
    pub(crate) frame: u64,
    pub(crate) end: u64,
}

impl Span {
    /// Lays a frame of `size` bytes at `tail`, behind padding if it would straddle the end.
    #[inline]
    pub(crate) const fn lay(tail: u64, size: usize, capacity: Capacity) -> Self {
        let room = capacity.room(tail);
        let frame = if size <= room { tail } else { tail.wrapping_add(room as u64) };
        Self { first: tail, frame, end: frame.wrapping_add(size as u64) }
    }

    /// Whether the span is one frame of `size` bytes and nothing else.
    #[inline]
    pub(crate) const fn is_plain(&self, size: usize) -> bool {
        self.end.wrapping_sub(self.first) == size as u64
    }
}

/// Whether a claim may end at `end` while the consumer is at `head`: the line at `end` must be
/// free as well, because the claim looks at it.
#[inline]
pub(crate) const fn fits(end: u64, head: u64, capacity: Capacity) -> bool {
    end.wrapping_add(LINE_STEP).wrapping_sub(head) <= capacity.span()
}

/// The head that makes a claim ending at `end` fit.
#[inline]
pub(crate) const fn wanted(end: u64, capacity: Capacity) -> u64 {
    end.wrapping_add(LINE_STEP).wrapping_sub(capacity.span())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAPACITY: Capacity = match Capacity::new(4096) {
        Ok(capacity) => capacity,
        Err(_) => panic!(),
    };

    #[test]
    fn a_frame_that_would_straddle_the_end_goes_behind_padding() {
        for lap in [0, u64::MAX - 4095, u64::MAX - 2 * 4096 + 1] {
            let tail = lap.wrapping_add(4096 - 64);
            let plain = Span::lay(tail, 64, CAPACITY);
            assert_eq!(plain, Span { first: tail, frame: tail, end: lap.wrapping_add(4096) });
            assert!(plain.is_plain(64));
            let padded = Span::lay(tail, 128, CAPACITY);
            let start = lap.wrapping_add(4096);
            let expected = Span { first: tail, frame: start, end: start.wrapping_add(128) };
            assert_eq!(padded, expected);
            assert!(!padded.is_plain(128));
        }
    }

    #[test]
    fn a_claim_leaves_the_line_at_its_end_free() {
        for head in [0, 4096, u64::MAX - 63, u64::MAX - 4095 + 640] {
            assert!(fits(head.wrapping_add(4096 - 64), head, CAPACITY));
            assert!(!fits(head.wrapping_add(4096), head, CAPACITY));
        }
    }

    #[test]
    fn wanted_is_the_least_head_that_fits() {
        for end in [4096, 8192 + 64, 0, 64, u64::MAX - 63] {
            let head = wanted(end, CAPACITY);
            assert!(fits(end, head, CAPACITY));
            assert!(!fits(end, head.wrapping_sub(64), CAPACITY));
        }
    }
}
