//! What a frame looks like in memory, and which sizes are allowed.
//!
//! A frame starts on a 64-byte line and occupies whole lines. Numbers are little-endian.
//!
//! ```text
//!       63      56 55      48 47              32 31                               0
//!      +-----------------------------------------------------------------------------+
//!  +0  |                        stamp = position XOR key                             |
//!      +----------+----------+------------------+------------------------------------+
//!  +8  |  flags   |   kind   |     channel      |                len                 |
//!      +----------+----------+------------------+------------------------------------+
//! +16  |  payload, len bytes                                                         |
//!      :                                                                             :
//!      +-----------------------------------------------------------------------------+
//!      |  unspecified bytes up to the end of the line                                |
//!      +-----------------------------------------------------------------------------+
//! ```
//!
//! `len` is the exact length of the payload; the frame's size is `16 + len`, rounded up to lines.
//! So a payload of up to 48 bytes is one cache line with its header. A frame is at most an eighth
//! of the ring and never straddles its end. A frame of kind [`kind::PADDING`] carries nothing: a
//! consumer checks its size like any other's and skips it.

use crate::error::InvalidCapacity;

/// The unit in which a ring is handed out: one cache line.
pub const LINE: usize = 64;

/// The bytes before a frame's payload: the stamp and the second word.
pub const HEADER: usize = 16;

/// Where the second word (len, channel, kind, flags) stands in a frame.
pub(crate) const DESCRIPTOR_OFFSET: usize = 8;

/// [`LINE`] as a distance between positions.
pub(crate) const LINE_STEP: u64 = LINE as u64;

const _: () = assert!(LINE.is_power_of_two() && HEADER < LINE && HEADER.is_multiple_of(8));
const _: () = assert!(HEADER == DESCRIPTOR_OFFSET + 8);

#[cfg(not(target_endian = "little"))]
compile_error!("memit-ringbuf writes little-endian words as they lie: big-endian targets are not supported");
#[cfg(not(target_pointer_width = "64"))]
compile_error!("memit-ringbuf needs 64-bit atomics and 64-bit offsets: only 64-bit targets are supported");

/// Frame kinds that ringbuf itself uses.
pub mod kind {
    /// Filler, which a consumer skips. All other kinds are the user's.
    pub const PADDING: u8 = 0;
}

/// The size of a ring in bytes: a power of two within [`Capacity::MIN`] and [`Capacity::MAX`].
///
/// ```
/// use memit_ringbuf::Capacity;
/// let capacity = Capacity::new(64 * 1024)?;
/// assert_eq!(capacity.max_payload(), 8 * 1024 - 16);
/// assert!(Capacity::new(65_000).is_err());
/// # Ok::<(), memit_ringbuf::InvalidCapacity>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Capacity(usize);

impl Capacity {
    /// The smallest ring. Models and unit tests use smaller ones, which wrap sooner.
    pub const MIN: usize = if cfg!(any(loom, test)) { 512 } else { 4096 };

    /// The largest ring: `len` and every padding then fit in 32 bits by far.
    pub const MAX: usize = 1 << 30;

    /// Checks a size in bytes.
    ///
    /// # Errors
    /// [`InvalidCapacity`] unless `bytes` is a power of two from [`MIN`](Self::MIN) to
    /// [`MAX`](Self::MAX).
    pub const fn new(bytes: usize) -> Result<Self, InvalidCapacity> {
        if bytes.is_power_of_two() && bytes >= Self::MIN && bytes <= Self::MAX {
            Ok(Self(bytes))
        } else {
            Err(InvalidCapacity { found: bytes })
        }
    }

    /// The size in bytes.
    #[inline]
    #[must_use]
    pub const fn get(self) -> usize {
        self.0
    }

    /// The largest frame in bytes, its header included: an eighth of the ring.
    #[inline]
    #[must_use]
    pub const fn max_frame(self) -> usize {
        self.0 / 8
    }

    /// The largest payload in bytes.
    #[inline]
    #[must_use]
    pub const fn max_payload(self) -> usize {
        self.max_frame() - HEADER
    }

    /// The size as a distance between positions.
    #[inline]
    pub(crate) const fn span(self) -> u64 {
        self.0 as u64
    }

    /// The place of a position in the ring, in bytes from its start.
    #[inline]
    #[allow(clippy::cast_possible_truncation)] // usize is 64 bits wide, see above
    pub(crate) const fn offset(self, position: u64) -> usize {
        position as usize & (self.0 - 1)
    }

    /// The bytes from a position to the end of the ring: 1 to the whole capacity.
    #[inline]
    pub(crate) const fn room(self, position: u64) -> usize {
        self.0 - self.offset(position)
    }
}

/// What a frame says about itself besides its length. All of it is the user's, except that
/// `kind` 0 is [`kind::PADDING`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Header {
    /// Which channel the payload belongs to.
    pub channel: u16,
    /// What the payload is.
    pub kind: u8,
    /// Bits whose meaning depends on `kind`.
    pub flags: u8,
}

/// The second word of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Descriptor {
    pub(crate) len: u32,
    pub(crate) header: Header,
}

impl Descriptor {
    /// A padding frame with `len` bytes behind its header.
    pub(crate) const fn padding(len: u32) -> Self {
        let header = Header { channel: 0, kind: kind::PADDING, flags: 0 };
        Self { len, header }
    }

    #[inline]
    pub(crate) const fn to_word(self) -> u64 {
        self.len as u64
            | (self.header.channel as u64) << 32
            | (self.header.kind as u64) << 48
            | (self.header.flags as u64) << 56
    }

    #[inline]
    #[allow(clippy::cast_possible_truncation)] // each cast takes its own field out of the word
    pub(crate) const fn from_word(word: u64) -> Self {
        let header = Header { channel: (word >> 32) as u16, kind: (word >> 48) as u8, flags: (word >> 56) as u8 };
        Self { len: word as u32, header }
    }

    /// The bytes that the frame occupies. Cannot overflow: `len` has 32 bits.
    #[inline]
    pub(crate) const fn frame_size(self) -> usize {
        frame_size(self.len as usize)
    }
}

/// The bytes that a frame with this payload occupies. `len` is at most `u32::MAX`.
#[inline]
pub(crate) const fn frame_size(len: usize) -> usize {
    (len + HEADER + LINE - 1) & !(LINE - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capacity_takes_only_powers_of_two_within_its_limits() {
        for good in [Capacity::MIN, 4096, 1 << 16, Capacity::MAX] {
            assert_eq!(Capacity::new(good).map(Capacity::get), Ok(good));
        }
        for bad in [0, 1, Capacity::MIN / 2, 4097, 3 << 12, Capacity::MAX * 2, usize::MAX] {
            assert_eq!(Capacity::new(bad), Err(InvalidCapacity { found: bad }));
        }
    }

    #[test]
    fn one_line_carries_48_bytes() {
        assert_eq!(frame_size(0), 64);
        assert_eq!(frame_size(48), 64);
        assert_eq!(frame_size(49), 128);
        assert_eq!(frame_size(112), 128);
    }

    #[test]
    fn the_largest_payload_makes_the_largest_frame() {
        for bits in 9..=30 {
            let capacity = Capacity::new(1 << bits).unwrap();
            assert_eq!(frame_size(capacity.max_payload()), capacity.max_frame());
        }
    }

    #[test]
    fn second_word_has_each_field_where_the_drawing_says() {
        let header = Header { channel: 0x2211, kind: 0x33, flags: 0x44 };
        let descriptor = Descriptor { len: 0xDDCC_BBAA, header };
        let bytes = [0xAA, 0xBB, 0xCC, 0xDD, 0x11, 0x22, 0x33, 0x44];
        assert_eq!(descriptor.to_word().to_le_bytes(), bytes);
        assert_eq!(Descriptor::from_word(u64::from_le_bytes(bytes)), descriptor);
    }

    #[test]
    fn the_longest_len_a_peer_can_write_has_a_size() {
        let descriptor = Descriptor::from_word(u64::MAX);
        assert_eq!(descriptor.frame_size(), (1 << 32) + 64);
    }
}
