//! An outbox's header: written once by its owner, checked once by its peer.

use memit_ringbuf::{Capacity, Key};

use super::layout::{Geometry, HEADER_WORDS, LEAST_SLOTS, MAGIC, MOST_SLOTS, VERSION, half, halves, pair};

impl Geometry {
    /// The header of an outbox of this geometry.
    pub(super) fn header(self, key: Key) -> [u64; HEADER_WORDS] {
        [
            MAGIC,
            pair(VERSION, half(self.control_size())),
            self.size() as u64,
            self.ring_offset() as u64,
            self.capacity.get() as u64,
            key.get(),
            self.slots_offset() as u64,
            pair(half(self.slot_stride()), self.slot_count),
            self.give_backs_offset() as u64,
        ]
    }
}

/// Why a peer's header is not that of an outbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HeaderRefused {
    /// It is something else.
    #[error(
        "the memory begins with {found:#018x}, and {expected:#018x} (\"MEMITOB1\") was \
         expected; the peer is not memit, or has not written its outbox's header"
    )]
    Magic {
        /// What it begins with.
        found: u64,
        /// What an outbox begins with.
        expected: u64,
    },
    /// Another version of the layout.
    #[error(
        "the outbox has layout version {found}, and {expected} was expected; build both \
         programs with the same version of memit"
    )]
    Version {
        /// The peer's.
        found: u32,
        /// Ours.
        expected: u32,
    },
    /// A ring's size that cannot be.
    #[error(
        "the ring's capacity is {found} bytes, and a power of two from {least} to {most} was \
         expected; the peer is at fault"
    )]
    Capacity {
        /// The size found.
        found: u64,
        /// The least.
        least: u64,
        /// The most.
        most: u64,
    },
    /// A number of slots that cannot be.
    #[error("there are {found} reply slots, and 2 to {most} were expected; the peer is at fault")]
    SlotCount {
        /// The number found.
        found: u32,
        /// The most.
        most: u32,
    },
    /// A ring without a usable key.
    #[error("the ring's key ends in six zero bits, and another was expected; the peer is at fault")]
    Key,
    /// A size or an offset that does not follow from the two sizes above.
    #[error(
        "the {field} is {found}, and {expected} was expected for a ring of {capacity} bytes \
         and {slot_count} reply slots; the peer is at fault"
    )]
    Field {
        /// Which.
        field: HeaderField,
        /// What it holds.
        found: u64,
        /// What it must hold.
        expected: u64,
        /// The header's ring capacity.
        capacity: u64,
        /// The header's slot count.
        slot_count: u32,
    },
}

/// The fields of a header that follow from the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HeaderField {
    /// The size of what comes before the ring.
    ControlSize,
    /// The size of the whole.
    OutboxSize,
    /// Where the ring begins.
    RingOffset,
    /// Where the slots begin.
    SlotsOffset,
    /// How far the slots are apart.
    SlotStride,
    /// Where the give-backs begin.
    GiveBacksOffset,
}

impl std::fmt::Display for HeaderField {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::ControlSize => "control size",
            Self::OutboxSize => "outbox size",
            Self::RingOffset => "ring offset",
            Self::SlotsOffset => "slots offset",
            Self::SlotStride => "slot stride",
            Self::GiveBacksOffset => "give-backs offset",
        })
    }
}

/// Checks a header that a peer wrote, for memory of `size` bytes. The words are read by then, each once.
pub(super) fn parse(words: [u64; HEADER_WORDS], size: usize) -> Result<(Geometry, Key), HeaderRefused> {
    let [magic, version, outbox_size, ring_offset, capacity, key, slots_offset, slots, give_backs_offset] = words;
    let (version, control_size) = halves(version);
    let (slot_stride, slot_count) = halves(slots);
    if magic != MAGIC {
        return Err(HeaderRefused::Magic { found: magic, expected: MAGIC });
    }
    if version != VERSION {
        return Err(HeaderRefused::Version { found: version, expected: VERSION });
    }
    let found = capacity;
    let Some(capacity) = usize::try_from(capacity).ok().and_then(|capacity| Capacity::new(capacity).ok()) else {
        return Err(HeaderRefused::Capacity { found, least: Capacity::MIN as u64, most: Capacity::MAX as u64 });
    };
    if !(LEAST_SLOTS..=MOST_SLOTS).contains(&slot_count) {
        return Err(HeaderRefused::SlotCount { found: slot_count, most: MOST_SLOTS });
    }
    let geometry = Geometry { capacity, slot_count };
    for (field, found, expected) in [
        (HeaderField::ControlSize, u64::from(control_size), geometry.control_size()),
        (HeaderField::OutboxSize, outbox_size, geometry.size()),
        (HeaderField::OutboxSize, size as u64, geometry.size()),
        (HeaderField::RingOffset, ring_offset, geometry.ring_offset()),
        (HeaderField::SlotsOffset, slots_offset, geometry.slots_offset()),
        (HeaderField::SlotStride, u64::from(slot_stride), geometry.slot_stride()),
        (HeaderField::GiveBacksOffset, give_backs_offset, geometry.give_backs_offset()),
    ] {
        let (expected, capacity) = (expected as u64, geometry.capacity.get() as u64);
        if found != expected {
            return Err(HeaderRefused::Field { field, found, expected, capacity, slot_count });
        }
    }
    let key = Key::new(key).ok_or(HeaderRefused::Key)?;
    Ok((geometry, key))
}

#[cfg(test)]
mod tests {
    use super::super::layout::geometry;
    use super::*;

    const GEOMETRY: Geometry = geometry(256 << 10, 8);

    fn key() -> Key {
        Key::new(0x0123_4567_89AB_CDEF).unwrap()
    }

    #[test]
    fn golden_header() {
        let bytes: Vec<u8> = GEOMETRY.header(key()).iter().flat_map(|word| word.to_le_bytes()).collect();
        #[rustfmt::skip]
        let golden: [u8; 72] = [
            b'M', b'E', b'M', b'I', b'T', b'O', b'B', b'1',
            2, 0, 0, 0,             0x00, 0x10, 0, 0,
            0x00, 0x90, 0x08, 0,    0, 0, 0, 0,
            0x00, 0x10, 0, 0,       0, 0, 0, 0,
            0x00, 0x00, 0x04, 0,    0, 0, 0, 0,
            0xEF, 0xCD, 0xAB, 0x89, 0x67, 0x45, 0x23, 0x01,
            0x00, 0x10, 0x04, 0,    0, 0, 0, 0,
            0x00, 0x80, 0, 0,       8, 0, 0, 0,
            0x00, 0x10, 0x08, 0,    0, 0, 0, 0,
        ];
        assert_eq!(bytes, golden);
    }

    #[test]
    fn a_header_is_read_as_it_was_written() {
        for slot_count in [2, 7, 23, 24, MOST_SLOTS] {
            for bits in 12..=30 {
                let geometry = geometry(1 << bits, slot_count);
                assert_eq!(parse(geometry.header(key()), geometry.size()), Ok((geometry, key())));
            }
        }
    }

    #[test]
    fn each_forged_field_is_refused_as_itself() {
        let honest = GEOMETRY.header(key());
        let forge = |word: usize, value: u64| {
            let mut words = honest;
            words[word] = value;
            parse(words, GEOMETRY.size()).unwrap_err()
        };
        let field_of = |error: HeaderRefused| match error {
            HeaderRefused::Field { field, .. } => field,
            other => panic!("{other}"),
        };
        assert_eq!(forge(0, 7), HeaderRefused::Magic { found: 7, expected: MAGIC });
        assert_eq!(forge(1, pair(1, 4096)), HeaderRefused::Version { found: 1, expected: 2 });
        assert_eq!(field_of(forge(1, pair(2, 8192))), HeaderField::ControlSize);
        for size in [0, GEOMETRY.size() as u64 - 4096, GEOMETRY.size() as u64 + 4096, u64::MAX] {
            assert_eq!(field_of(forge(2, size)), HeaderField::OutboxSize);
        }
        assert_eq!(field_of(forge(3, 8192)), HeaderField::RingOffset);
        for capacity in [0, 1, 2048, 4097, 3 << 16, (1 << 31), 1 << 63, u64::MAX] {
            assert!(matches!(forge(4, capacity), HeaderRefused::Capacity { found, .. } if found == capacity));
        }
        // A capacity that could be, but does not go with the rest.
        assert_eq!(field_of(forge(4, 128 << 10)), HeaderField::OutboxSize);
        for key in [0, 64, 0xFFC0] {
            assert_eq!(forge(5, key), HeaderRefused::Key);
        }
        assert_eq!(field_of(forge(6, 0)), HeaderField::SlotsOffset);
        assert_eq!(field_of(forge(7, pair(64, 8))), HeaderField::SlotStride);
        for count in [0, 1, MOST_SLOTS + 1, u32::MAX] {
            assert_eq!(forge(7, pair(32 << 10, count)), HeaderRefused::SlotCount { found: count, most: MOST_SLOTS });
        }
        let give_backs = GEOMETRY.give_backs_offset() as u64;
        for offset in [0, give_backs - 4096, give_backs + 64, u64::MAX] {
            assert_eq!(field_of(forge(8, offset)), HeaderField::GiveBacksOffset);
        }
    }

    #[test]
    fn a_header_for_memory_of_another_size_is_refused() {
        let error = parse(GEOMETRY.header(key()), GEOMETRY.size() + 4096).unwrap_err();
        assert!(matches!(error, HeaderRefused::Field { field: HeaderField::OutboxSize, .. }), "{error}");
    }

    #[test]
    fn a_refusal_says_what_was_found_and_what_was_expected() {
        let mut words = GEOMETRY.header(key());
        words[6] = 12;
        let text = parse(words, GEOMETRY.size()).unwrap_err().to_string();
        assert_eq!(
            text,
            "the slots offset is 12, and 266240 was expected for a ring of 262144 bytes and 8 reply slots; \
             the peer is at fault"
        );
    }
}
