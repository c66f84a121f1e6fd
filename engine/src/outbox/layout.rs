//! Where everything lies in an outbox, layout version 2. All numbers are little-endian; offsets are in bytes.
//!
//! ```text
//!        +0                 +8                 +16                +24
//!       +------------------+------------------+------------------+------------------+
//! 0x000 | magic "MEMITOB1" | version | csize  | outbox size      | ring offset      |
//! 0x020 | ring capacity    | ring key         | slots offset     | stride  | count  |
//! 0x040 | give-backs offset|
//!       +------------------+------------------+------------------+------------------+
//! 0x080 | head             |                      each of these on a line of its own
//! 0x100 | data armed       |
//! 0x180 | space armed      | space wanted     |
//! 0x200 | data bell, u32   |
//! 0x280 | space bell, u32  |
//! 0x300 | waiting          |
//! 0x380 | given            |
//! 0x400 | blocks armed     |
//!       +------------------+
//! 0x480 | reply armed [i]  |    i * 64, i < slot count
//!       | reply bell [i], u32    after them, i * 64
//!       +------------------+    rounded up to 4096: the control size, and the ring offset
//!       | ring             |    ring capacity
//!       +------------------+    the slots offset
//!       | slot [i]         |    i * stride
//!       +------------------+    rounded up to 4096: the give-backs offset
//!       | give-back [i]    |    i * 32, i < 1024
//!       +------------------+    the outbox size
//! ```
//!
//! `csize` is the control size, `stride` and `count` those of the slots, each a u32. A slot:
//!
//! ```text
//!      63       48 47   40 39    32 31                              0
//!     +--------------------------------------------------------------+
//! +0  | id of the call that it answers, stored last                  |
//!     +-----------+-------+--------+---------------------------------+
//! +8  | zero      | place | status | len of the payload              |
//!     +-----------+-------+--------+---------------------------------+
//! +16 | payload                                                      |
//!     +--------------------------------------------------------------+
//! ```
//!
//! A give-back, one word a line:
//!
//! ```text
//!     +--------------------------------------------------------------+
//! +0  | memory: its number                                           |
//! +8  | generation of the block; 0 for a whole memory                |
//! +16 | offset of the block; 0 for a whole memory                    |
//! +24 | kind: 1 a block, 2 a whole memory                            |
//!     +--------------------------------------------------------------+
//! ```
//!
//! Give-back `n`, counted from 0, lies at index `n % 1024`. It is there once `given` is more than `n`.
//!
//! Everything but the capacity, the slot count and the key follows from those two sizes, so a [`Geometry`] is all
//! that is kept of a header once it was checked.

use memit_ringbuf::Capacity;

/// What an outbox begins with.
pub(super) const MAGIC: u64 = u64::from_le_bytes(*b"MEMITOB1");

/// The version of this layout.
pub(super) const VERSION: u32 = 2;

/// The most reply slots that an outbox has.
pub(crate) const MOST_SLOTS: u32 = 64;
/// The fewest: the first belongs to the thread that dispatches, the others share the rest.
pub(crate) const LEAST_SLOTS: u32 = 2;

/// Sizes are multiples of this, whatever the machine's page size is.
const PAGE: usize = 4096;

/// Words that different threads poll, or write, are this far apart.
const LINE: usize = 64;

/// The header's words, from offset 0 on.
pub(super) const HEADER_WORDS: usize = 9;

/// Owner writes, peer's producers read: how far the owner has consumed the peer's ring. A position; only rises. The
/// peer's copy may be stale.
pub(super) const HEAD: usize = 0x080;
/// Owner writes, peer's producers read: the owner's dispatcher sleeps for frames. A generation above two bits of
/// kinds, see `doorbell::protocol`; never cached.
pub(super) const DATA_ARMED: usize = 0x100;
/// Owner's producers write, peer's dispatcher reads: they sleep for space. As `DATA_ARMED`.
pub(super) const SPACE_ARMED: usize = 0x180;
/// Beside it, written before it: the position that the peer's `head` must reach.
pub(super) const SPACE_WANTED: usize = 0x188;
/// Owner's producers bump, peer's dispatcher waits on it. Wraps.
pub(super) const DATA_BELL: usize = 0x200;
/// Owner's dispatcher bumps, peer's producers wait on it. Wraps.
pub(super) const SPACE_BELL: usize = 0x280;
/// Owner's dispatching thread writes, peer's reads: the id of the call for whose answer it waits; 0 for none.
pub(super) const WAITING: usize = 0x300;
/// Owner writes under a lock of its own, peer's senders read: how many give-backs the owner has ever published. Only
/// rises. The peer's copy may be stale.
pub(super) const GIVEN: usize = 0x380;
/// Owner's senders write, peer reads when it has given back: they sleep for blocks. As `DATA_ARMED`.
pub(super) const BLOCKS_ARMED: usize = 0x400;
/// Owner's callers write, peer's answering thread reads, one for each of the *peer's* slots: somebody sleeps for the
/// reply there. As `DATA_ARMED`.
const REPLIES_ARMED: usize = 0x480;

const _: () = {
    let words = [
        HEADER_WORDS * 8,
        HEAD,
        DATA_ARMED,
        SPACE_ARMED,
        DATA_BELL,
        SPACE_BELL,
        WAITING,
        GIVEN,
        BLOCKS_ARMED,
        REPLIES_ARMED,
    ];
    let mut i = 1;
    while i < words.len() {
        assert!(words[i].is_multiple_of(LINE) && words[i] >= words[i - 1] + LINE || i == 1 && words[i] >= words[0]);
        i += 1;
    }
    assert!(SPACE_WANTED == SPACE_ARMED + 8 && SPACE_WANTED < DATA_BELL);
};

/// Where a slot's id, its second word and its payload lie in it.
pub(super) const SLOT_ID: usize = 0;
pub(super) const SLOT_DESCRIPTOR: usize = 8;
pub(super) const SLOT_PAYLOAD: usize = 16;

/// Entries of the give-back ring. A sender never has more than this out, blocks and memories taken together, so there
/// is room for every give-back.
pub(crate) const GIVE_BACKS: u64 = GIVE_BACK_COUNT as u64;
const GIVE_BACK_COUNT: usize = 1024;

/// The words of a give-back, in this order.
pub(super) const GIVE_BACK_WORDS: usize = 4;

/// How far give-backs are apart: two share a line, and none lies in two.
const GIVE_BACK_STRIDE: usize = GIVE_BACK_WORDS * size_of::<u64>();

const _: () =
    assert!(LINE.is_multiple_of(GIVE_BACK_STRIDE) && (GIVE_BACK_COUNT * GIVE_BACK_STRIDE).is_multiple_of(PAGE));

/// The two sizes from which an outbox's layout follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Geometry {
    pub(crate) capacity: Capacity,
    /// [`LEAST_SLOTS`] to [`MOST_SLOTS`].
    pub(crate) slot_count: u32,
}

impl Geometry {
    pub(crate) const fn capacity(self) -> Capacity {
        self.capacity
    }

    pub(crate) const fn slot_count(self) -> u32 {
        self.slot_count
    }

    /// Whether there is a slot `i`: to be asked before an index that a peer named is used.
    pub(crate) const fn has_slot(self, i: u32) -> bool {
        i < self.slot_count
    }

    /// The longest payload that a reply slot holds.
    pub(crate) const fn max_reply(self) -> usize {
        self.slot_stride() - SLOT_PAYLOAD
    }

    /// The size of the whole outbox.
    pub(crate) const fn size(self) -> usize {
        self.give_backs_offset() + GIVE_BACK_COUNT * GIVE_BACK_STRIDE
    }

    pub(super) const fn control_size(self) -> usize {
        (REPLIES_ARMED + 2 * LINE * self.slot_count as usize).next_multiple_of(PAGE)
    }

    pub(super) const fn ring_offset(self) -> usize {
        self.control_size()
    }

    pub(super) const fn slots_offset(self) -> usize {
        self.ring_offset() + self.capacity.get()
    }

    /// A slot holds what a frame of the ring does.
    pub(super) const fn slot_stride(self) -> usize {
        (SLOT_PAYLOAD + self.capacity.max_payload()).next_multiple_of(LINE)
    }

    pub(super) const fn give_backs_offset(self) -> usize {
        (self.slots_offset() + self.slot_count as usize * self.slot_stride()).next_multiple_of(PAGE)
    }

    /// Where the words of give-back `n` begin, of all that were ever published.
    #[inline]
    pub(super) const fn give_back(self, n: u64) -> usize {
        self.give_backs_offset() + (n % GIVE_BACKS) as usize * GIVE_BACK_STRIDE
    }

    /// Where slot `i` begins.
    ///
    /// # Panics
    ///
    /// Unless there is such a slot. So for all that take an index here.
    #[inline]
    pub(super) const fn slot(self, i: u32) -> usize {
        self.slots_offset() + self.checked(i) * self.slot_stride()
    }

    #[inline]
    pub(super) const fn reply_armed(self, i: u32) -> usize {
        REPLIES_ARMED + self.checked(i) * LINE
    }

    #[inline]
    pub(super) const fn reply_bell(self, i: u32) -> usize {
        REPLIES_ARMED + (self.slot_count as usize + self.checked(i)) * LINE
    }

    #[inline]
    const fn checked(self, i: u32) -> usize {
        assert!(self.has_slot(i), "there is no such reply slot");
        i as usize
    }
}

/// The size of the smallest outbox, and of the largest.
pub(crate) const LEAST_SIZE: usize = geometry(Capacity::MIN, LEAST_SLOTS).size();
pub(crate) const MOST_SIZE: usize = geometry(Capacity::MAX, MOST_SLOTS).size();

pub(super) const fn geometry(capacity: usize, slot_count: u32) -> Geometry {
    match Capacity::new(capacity) {
        Ok(capacity) => Geometry { capacity, slot_count },
        Err(_) => panic!("the limits of a capacity are capacities"),
    }
}

/// The words of the smallest outbox that models use, and its bells: of the give-backs, a few.
#[cfg(loom)]
pub(crate) fn modelled_words() -> (Vec<usize>, Vec<usize>) {
    const WORD: usize = size_of::<u64>();
    let geometry = geometry(Capacity::MIN, LEAST_SLOTS);
    let header = (0..HEADER_WORDS).map(|i| i * WORD);
    let control = [HEAD, DATA_ARMED, SPACE_ARMED, SPACE_WANTED, WAITING, GIVEN, BLOCKS_ARMED];
    let slots = 0..geometry.slot_count;
    let replies = slots.clone().map(|i| geometry.reply_armed(i));
    let answers = slots.clone().flat_map(|i| [SLOT_ID, SLOT_DESCRIPTOR, SLOT_PAYLOAD].map(|at| geometry.slot(i) + at));
    let give_backs = (0..4).flat_map(|n| (0..GIVE_BACK_WORDS).map(move |i| geometry.give_back(n) + i * WORD));
    let words = header.chain(control).chain(replies).chain(answers).chain(give_backs).collect();
    (words, [DATA_BELL, SPACE_BELL].into_iter().chain(slots.map(|i| geometry.reply_bell(i))).collect())
}

/// Two u32 as they lie side by side.
pub(super) const fn pair(first: u32, second: u32) -> u64 {
    first as u64 | (second as u64) << 32
}

#[allow(clippy::cast_possible_truncation, reason = "each takes its own half")]
pub(super) const fn halves(word: u64) -> (u32, u32) {
    (word as u32, (word >> 32) as u32)
}

/// A length within an outbox's control part or slot, which is less than 2^30.
#[allow(clippy::cast_possible_truncation, reason = "see above")]
pub(super) const fn half(len: usize) -> u32 {
    assert!(len <= Capacity::MAX);
    len as u32
}

/// A slot's second word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SlotHeader {
    /// The payload's length: at most [`Geometry::max_reply`].
    pub(crate) len: usize,
    pub(crate) status: u8,
    /// Where the answer lies: in the slot, or where the slot's payload says. Any value, as the peer wrote it.
    pub(crate) place: u8,
}

/// A slot's second word that no honest peer writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CorruptSlot {
    #[error("a reply is {found} bytes long, and its slot holds {most}")]
    Len { found: u32, most: usize },
    #[error("a reply's header ends in {found:#06x}, and zeros were expected")]
    NotZero { found: u32 },
}

impl SlotHeader {
    /// The word for a payload that fits its slot.
    pub(super) const fn to_word(self) -> u64 {
        pair(half(self.len), u32::from_le_bytes([self.status, self.place, 0, 0]))
    }

    pub(super) fn parse(word: u64, geometry: Geometry) -> Result<Self, CorruptSlot> {
        let (found, rest) = halves(word);
        let most = geometry.max_reply();
        let len = found as usize;
        if len > most {
            return Err(CorruptSlot::Len { found, most });
        }
        let [status, place, zeros @ ..] = rest.to_le_bytes();
        if zeros != [0; 2] {
            return Err(CorruptSlot::NotZero { found: rest >> 16 });
        }
        Ok(Self { len, status, place })
    }
}

/// What the receiver of payloads returns to their sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GiveBack {
    /// A block that was sent: the number of its extent, and which of the blocks that ever began at `offset` it is.
    Block { memory: u64, generation: u64, offset: u64 },
    /// A sealed memory that was sent, or an extent that was retired.
    Memory { memory: u64 },
}

/// A give-back that no honest peer writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CorruptGiveBack {
    #[error("the peer gives back something of the unknown kind {found}, and 1, a block, or 2, a memory, was expected")]
    Kind { found: u64 },
    #[error(
        "the peer gives back a whole memory with generation {generation} and offset {offset}, and zeros were expected"
    )]
    NotZero { generation: u64, offset: u64 },
}

const BLOCK: u64 = 1;
const MEMORY: u64 = 2;

impl GiveBack {
    pub(super) const fn to_words(self) -> [u64; GIVE_BACK_WORDS] {
        match self {
            Self::Block { memory, generation, offset } => [memory, generation, offset, BLOCK],
            Self::Memory { memory } => [memory, 0, 0, MEMORY],
        }
    }

    /// Any memory, generation and offset may come of it: the sender knows what it has out.
    pub(super) const fn parse(words: [u64; GIVE_BACK_WORDS]) -> Result<Self, CorruptGiveBack> {
        match words {
            [memory, generation, offset, BLOCK] => Ok(Self::Block { memory, generation, offset }),
            [memory, 0, 0, MEMORY] => Ok(Self::Memory { memory }),
            [_, generation, offset, MEMORY] => Err(CorruptGiveBack::NotZero { generation, offset }),
            [.., found] => Err(CorruptGiveBack::Kind { found }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GEOMETRY: Geometry = geometry(256 << 10, 8);

    /// Every byte of the header for one geometry: a change here is a new layout version.
    #[test]
    fn golden_offsets() {
        assert_eq!([HEAD, DATA_ARMED, SPACE_ARMED, SPACE_WANTED], [0x080, 0x100, 0x180, 0x188]);
        assert_eq!([DATA_BELL, SPACE_BELL, WAITING, GIVEN, BLOCKS_ARMED], [0x200, 0x280, 0x300, 0x380, 0x400]);
        assert_eq!([GEOMETRY.reply_armed(7), GEOMETRY.reply_bell(0), GEOMETRY.reply_bell(7)], [0x640, 0x680, 0x840]);
        assert_eq!([GEOMETRY.slot(0), GEOMETRY.slot(1)], [0x4_1000, 0x4_9000]);
        assert_eq!([GEOMETRY.give_back(0), GEOMETRY.give_back(1), GEOMETRY.size()], [0x8_1000, 0x8_1020, 0x8_9000]);
        assert_eq!([GEOMETRY.give_back(1023), GEOMETRY.give_back(1024)], [0x8_8FE0, 0x8_1000]);
        assert_eq!(LEAST_SIZE, 45_056);
    }

    #[test]
    fn parts_follow_one_another_without_overlap() {
        for slot_count in [2, 22, 23, 24, MOST_SLOTS] {
            for bits in [12, 18, 30] {
                let g = geometry(1 << bits, slot_count);
                let last = slot_count - 1;
                assert_eq!(g.reply_armed(0), BLOCKS_ARMED + 2 * LINE);
                assert_eq!(g.reply_armed(last) + LINE, g.reply_bell(0));
                assert!(g.reply_bell(last) + LINE <= g.ring_offset());
                assert_eq!(g.ring_offset() + g.capacity.get(), g.slot(0));
                assert!(g.slot(last) + g.slot_stride() <= g.give_backs_offset());
                assert_eq!(g.give_back(0), g.give_backs_offset());
                assert_eq!(g.give_back(GIVE_BACKS - 1) + GIVE_BACK_STRIDE, g.size());
                assert!(g.slot_stride().is_multiple_of(LINE) && g.ring_offset().is_multiple_of(PAGE));
                assert!(g.give_backs_offset().is_multiple_of(PAGE) && g.size().is_multiple_of(PAGE));
                assert_eq!(g.slot_stride(), g.capacity.get() / 8);
                assert_eq!(g.max_reply(), g.capacity.max_payload());
                assert!((LEAST_SIZE..=MOST_SIZE).contains(&g.size()));
            }
        }
    }

    #[test]
    fn a_slot_header_is_read_as_it_was_written_and_checked() {
        let header = SlotHeader { len: GEOMETRY.max_reply(), status: 200, place: 201 };
        assert_eq!(SlotHeader::parse(header.to_word(), GEOMETRY), Ok(header));
        assert_eq!(header.to_word().to_le_bytes(), [0xF0, 0x7F, 0, 0, 200, 201, 0, 0]);
        let most = GEOMETRY.max_reply();
        assert_eq!(SlotHeader::parse(0x7FF1, GEOMETRY), Err(CorruptSlot::Len { found: 0x7FF1, most }));
        assert_eq!(SlotHeader::parse(1 << 48, GEOMETRY), Err(CorruptSlot::NotZero { found: 1 }));
        assert_eq!(SlotHeader::parse(1 << 63, GEOMETRY), Err(CorruptSlot::NotZero { found: 0x8000 }));
    }

    #[test]
    fn golden_give_backs() {
        let block = GiveBack::Block { memory: 3, generation: 4, offset: 8192 };
        let memory = GiveBack::Memory { memory: 5 };
        assert_eq!(block.to_words(), [3, 4, 8192, 1]);
        assert_eq!(memory.to_words(), [5, 0, 0, 2]);
        for entry in [block, memory] {
            assert_eq!(GiveBack::parse(entry.to_words()), Ok(entry));
        }
    }

    #[test]
    fn a_give_back_of_another_kind_or_with_more_than_its_kind_has_is_refused() {
        for found in [0, 3, 1 << 32, u64::MAX] {
            assert_eq!(GiveBack::parse([1, 0, 0, found]), Err(CorruptGiveBack::Kind { found }));
        }
        for (generation, offset) in [(1, 0), (0, 1), (u64::MAX, u64::MAX)] {
            let refused = Err(CorruptGiveBack::NotZero { generation, offset });
            assert_eq!(GiveBack::parse([1, generation, offset, MEMORY]), refused);
        }
    }

    #[test]
    #[should_panic(expected = "no such reply slot")]
    fn an_index_that_was_not_checked_panics() {
        let _ = GEOMETRY.slot(8);
    }
}
