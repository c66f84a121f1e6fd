//! Where a payload lies that is too large for its frame, as the frame says.
//!
//! ```text
//!        +0          +8            +16         +24         +32
//! block  | memory    | generation  | offset    | len       |
//! sealed | memory    | len         |
//! ```
//! Each is a little-endian u64. A frame's flags, or a reply slot's place, tell which of the two it is.

use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Places, as two bits of a frame's flags or as a byte of a reply slot: the payload itself is there.
pub(crate) const INLINE: u8 = 0;
const BLOCK: u8 = 1;
const SEALED: u8 = 2;

/// Memory that holds a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Location {
    /// A part of an extent of the sender's arena.
    Block {
        memory: u64,
        /// Tells this use of these bytes from earlier ones: the peer names it when it gives the block back.
        generation: u64,
        offset: u64,
        len: u64,
    },
    /// All of a memfd that nobody can write any more.
    Sealed { memory: u64, len: u64 },
}

/// A location as it lies in a frame.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Encoded {
    bytes: BlockWire,
    len: usize,
}

/// What stands in the place of a location is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoLocation {
    #[error("a payload lies in the unknown place {found}; {BLOCK} and {SEALED} are known")]
    Place { found: u8 },
    #[error("a payload's location has {found} bytes, expected {expected}")]
    Len { found: usize, expected: usize },
}

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct BlockWire {
    memory: U64,
    generation: U64,
    offset: U64,
    len: U64,
}

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct SealedWire {
    memory: U64,
    len: U64,
}

impl Location {
    /// Bytes of the longest location.
    pub(crate) const MOST_BYTES: usize = size_of::<BlockWire>();

    /// What the frame's flags, or the slot's place, say.
    pub(crate) fn place(self) -> u8 {
        match self {
            Self::Block { .. } => BLOCK,
            Self::Sealed { .. } => SEALED,
        }
    }

    pub(crate) fn encode(self) -> Encoded {
        match self {
            Self::Block { memory, generation, offset, len } => {
                let bytes = BlockWire {
                    memory: memory.into(),
                    generation: generation.into(),
                    offset: offset.into(),
                    len: len.into(),
                };
                Encoded { bytes, len: size_of::<BlockWire>() }
            }
            Self::Sealed { memory, len } => {
                // The first words of the longer form.
                let bytes =
                    BlockWire { memory: memory.into(), generation: len.into(), offset: U64::ZERO, len: U64::ZERO };
                Encoded { bytes, len: size_of::<SealedWire>() }
            }
        }
    }

    /// Reads what a peer wrote. Any numbers are a location; whether there is such memory is still to be found out.
    pub(crate) fn parse(place: u8, bytes: &[u8]) -> Result<Self, NoLocation> {
        match place {
            BLOCK => {
                let BlockWire { memory, generation, offset, len } = *exactly(bytes)?;
                let (memory, generation) = (memory.get(), generation.get());
                Ok(Self::Block { memory, generation, offset: offset.get(), len: len.get() })
            }
            SEALED => {
                let SealedWire { memory, len } = *exactly(bytes)?;
                Ok(Self::Sealed { memory: memory.get(), len: len.get() })
            }
            found => Err(NoLocation::Place { found }),
        }
    }
}

fn exactly<T: FromBytes + KnownLayout + Immutable + Unaligned>(bytes: &[u8]) -> Result<&T, NoLocation> {
    T::ref_from_bytes(bytes).map_err(|_| NoLocation::Len { found: bytes.len(), expected: size_of::<T>() })
}

impl Encoded {
    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.bytes.as_bytes()[..self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_survives_the_wire_byte_for_byte() {
        let block = Location::Block { memory: 1, generation: 2, offset: 3 << 12, len: 4 };
        let mut golden = [0; 32];
        (golden[0], golden[8], golden[17], golden[24]) = (1, 2, 0x30, 4);
        assert_eq!(block.encode().as_slice(), golden);
        let sealed = Location::Sealed { memory: 0x0102, len: 9 };
        let mut golden = [0; 16];
        (golden[0], golden[1], golden[8]) = (2, 1, 9);
        assert_eq!(sealed.encode().as_slice(), golden);
        for location in [block, sealed] {
            assert_eq!(Location::parse(location.place(), location.encode().as_slice()), Ok(location));
        }
    }

    #[test]
    fn other_places_and_lengths_are_none() {
        for (place, expected) in [(BLOCK, 32), (SEALED, 16)] {
            for found in [0, 8, 15, 17, 31, 33, 64] {
                assert_eq!(Location::parse(place, &[0; 64][..found]), Err(NoLocation::Len { found, expected }));
            }
        }
        for found in [INLINE, 3, 255] {
            assert_eq!(Location::parse(found, &[0; 32]), Err(NoLocation::Place { found }));
        }
    }
}
