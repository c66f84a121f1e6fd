//! Stamps: how a consumer knows that the frame at its head has been published.

use core::fmt;

use crate::layout::LINE;

/// The secret of one ring, by which positions become stamps.
///
/// Random per ring, so that nobody who cannot read the ring can aim a payload at a stamp. Its low
/// six bits are not all zero; those of a position are, so no stamp is ever zero and zeroed memory
/// never looks published.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Key(u64);

impl Key {
    /// Takes a random number, or `None` if its low six bits are all zero: draw again then.
    ///
    /// ```
    /// use memit_ringbuf::Key;
    /// assert!(Key::new(0x9E37_79B9_7F4A_7C15).is_some());
    /// assert!(Key::new(0x9E37_79B9_7F4A_7C00).is_none());
    /// ```
    #[inline]
    #[must_use]
    pub const fn new(random: u64) -> Option<Self> {
        if random & (LINE as u64 - 1) == 0 { None } else { Some(Self(random)) }
    }

    /// The number, as it travels in an outbox header.
    #[inline]
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// What the first word of the frame at `position` holds once it is published.
    #[inline]
    pub(crate) const fn stamp(self, position: u64) -> u64 {
        position ^ self.0
    }
}

/// Does not show the number: a log is no place for it.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_stamp_is_zero_and_no_two_positions_share_one() {
        for low in 1..64 {
            let key = Key::new(0xFFFF_0000_ABCD_0000 & !63 | low).unwrap();
            for position in [0, 64, 0xFFFF_0000_ABCD_0000 & !63, u64::MAX - 63] {
                assert_ne!(key.stamp(position), 0);
                assert_ne!(key.stamp(position), key.stamp(position.wrapping_add(64)));
            }
        }
    }

    #[test]
    fn debug_output_hides_the_key() {
        extern crate std;
        let shown = std::format!("{:?}", Key::new(12_345_677).unwrap());
        assert_eq!(shown, "Key(..)");
    }
}
