//! One small error per operation. Each says what was found, what was expected and what to do.

use core::error::Error;
use core::fmt;

use crate::layout::{Capacity, LINE};

/// A size that no ring can have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct InvalidCapacity {
    /// The size in bytes.
    pub found: usize,
}

impl fmt::Display for InvalidCapacity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (found, min, max) = (self.found, Capacity::MIN, Capacity::MAX);
        let near = found.clamp(min, max).checked_next_power_of_two().unwrap_or(max);
        write!(
            f,
            "a ring cannot have {found} bytes: expected a power of two from {min} to {max}; \
             the next that fits is {near}"
        )
    }
}

impl Error for InvalidCapacity {}

/// Why a claim was not made. Nothing was taken from the ring.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ClaimError {
    /// The consumer has not released enough of the ring yet.
    Full {
        /// The head position that would have satisfied this claim; compare with
        /// [`reached`](crate::reached). A guess once other threads have claimed in between.
        wanted: u64,
    },
    /// The payload is larger than any frame of this ring.
    TooLarge {
        /// Its length in bytes.
        len: usize,
        /// The longest that fits.
        max: usize,
    },
    /// An [`Exclusive`](crate::Exclusive) guard holds the tail.
    Held,
    /// The consumer published a head that it cannot have.
    Corrupt(CorruptHead),
}

impl fmt::Display for ClaimError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full { wanted } => write!(
                f,
                "the ring is full: the consumer must come to position {wanted} first; \
                 wait for it, or try again later"
            ),
            Self::TooLarge { len, max } => write!(
                f,
                "a payload of {len} bytes does not fit a frame of this ring, which carries at \
                 most {max}; send less at once, or use a ring of at least eight times the payload"
            ),
            Self::Held => Held.fmt(f),
            Self::Corrupt(corrupt) => corrupt.fmt(f),
        }
    }
}

impl Error for ClaimError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Corrupt(corrupt) => Some(corrupt),
            Self::Full { .. } | Self::TooLarge { .. } | Self::Held => None,
        }
    }
}

/// An exclusive guard holds the tail already.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Held;

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "an exclusive guard holds the producer: expected it to be free; \
             drop the guard, or wait until its holder does",
        )
    }
}

impl Error for Held {}

/// A head that an honest consumer cannot have published. End the connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum CorruptHead {
    /// It is not at a line.
    Misaligned {
        /// What the consumer published.
        found: u64,
    },
    /// It lies before one that was seen earlier.
    Backwards {
        /// What the consumer published.
        found: u64,
        /// The position that it had reached before.
        known: u64,
    },
    /// It lies beyond everything that was ever claimed.
    Beyond {
        /// What the consumer published.
        found: u64,
        /// The end of the last claim.
        tail: u64,
    },
}

impl fmt::Display for CorruptHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the consumer published a corrupt head: ")?;
        match self {
            Self::Misaligned { found } => {
                write!(f, "position {found}, expected a multiple of {LINE}")?;
            }
            Self::Backwards { found, known } => {
                write!(f, "position {found}, expected {known} or more, where it had been before")?;
            }
            Self::Beyond { found, tail } => {
                write!(f, "position {found}, expected at most {tail}, where the last claim ends")?;
            }
        }
        f.write_str("; disconnect the peer")
    }
}

impl Error for CorruptHead {}

/// A frame that an honest producer cannot have published. End the connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum CorruptFrame {
    /// It says that it is longer than an eighth of the ring.
    TooLong {
        /// Where the frame begins.
        position: u64,
        /// The payload length that it claims.
        len: u32,
        /// The longest payload of this ring.
        max: usize,
    },
    /// It reaches over the end of the ring.
    Straddles {
        /// Where the frame begins.
        position: u64,
        /// The payload length that it claims.
        len: u32,
        /// The bytes from its payload to the ring's end.
        room: usize,
    },
}

impl fmt::Display for CorruptFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the producer published a corrupt frame: ")?;
        match self {
            Self::TooLong { position, len, max } => {
                write!(f, "at position {position} a payload of {len} bytes, expected at most {max}")?
            }
            Self::Straddles { position, len, room } => write!(
                f,
                "at position {position} a payload of {len} bytes, \
                 expected at most the {room} up to the end of the ring"
            )?,
        }
        f.write_str("; disconnect the peer")
    }
}

impl Error for CorruptFrame {}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::string::ToString;

    use super::*;

    #[test]
    fn invalid_capacity_names_a_size_that_fits() {
        for (found, near) in [(0, Capacity::MIN), (5000, 8192), (usize::MAX, Capacity::MAX)] {
            let text = InvalidCapacity { found }.to_string();
            assert!(text.ends_with(&std::format!("the next that fits is {near}")), "{text}");
        }
    }

    #[test]
    fn too_large_names_both_sizes() {
        let text = ClaimError::TooLarge { len: 70_000, max: 8176 }.to_string();
        assert!(text.contains("70000") && text.contains("8176"), "{text}");
    }
}
