//! What a sender has lent out on one connection.
//!
//! The books alone: whoever drives them holds the memory, the lock and the clock. They have three kinds of entries.
//!
//! | entry  | state    | meaning                                              | who ends it                       |
//! |--------|----------|------------------------------------------------------|-----------------------------------|
//! | block  | held     | being written                                        | `cancel`                          |
//! | block  | lent     | published, or about to be: the peer uses it          | the peer; `cancel`                |
//! | sealed | held     | being written                                        | `cancel_sealed`                   |
//! | sealed | lent     | published, or about to be                            | the peer; `cancel_sealed`         |
//! | extent | open     | blocks are allocated in it                           | `sweep`, once it is wholly free   |
//! | extent | retiring | no block is in it, none will be; the peer may map it | the peer; `unretire`, `discard`   |
//!
//! A held, lent or retiring entry is *outstanding*. No more of them exist than the peer's ring of give-backs has room
//! for, and each ends once: a block's generation is its own, a memory's number as well, so a give-back that comes twice
//! or too late finds nothing. All of a give-back is hostile until it was found here.

use std::fmt::{self, Debug, Formatter};

use super::{PAGE, runs::Runs};
use crate::outbox::GiveBack;

/// What a connection agreed on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Bytes of one extent: a multiple of [`PAGE`], at least one.
    pub(crate) extent_size: usize,
    /// Bytes of extents and of sealed memory that is outstanding; at least one extent. One sealed memory that is
    /// outstanding alone may pass it.
    pub(crate) arena_limit: usize,
    /// Entries outstanding at once; at least one.
    pub(crate) most_outstanding: usize,
    /// Extents, and sealed memories outstanding, at once; at least two. Extents leave one to sealed memory.
    pub(crate) most_memories: usize,
    /// Bytes of extents ever retired: a peer that lies keeps what it says it gave back.
    pub(crate) most_retired: u64,
}

/// Pages of an extent that are held or lent. It stands for them until they are given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Block {
    /// The extent's number.
    pub(crate) memory: u64,
    /// Where the block begins in the extent, in bytes: a multiple of [`PAGE`].
    pub(crate) offset: usize,
    pub(crate) pages: u32,
    /// No other block of the connection ever has the same.
    pub(crate) generation: u64,
}

/// Why there is no memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    /// None is free, and there may be one more extent.
    Extent,
    /// There is none before something outstanding ends.
    Wait,
}

/// A give-back of something that the peer does not hold. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Wrong {
    #[error("it gave back memory {memory}, and the number of one lent to it was expected")]
    NoMemory { memory: u64 },
    #[error("it gave back memory {memory} as a whole, and this extent was not retired: a block was expected")]
    NotRetired { memory: u64 },
    #[error("it gave back a block of memory {memory}, and this one is lent as a whole")]
    NoBlocks { memory: u64 },
    #[error("it gave back a block at {offset} of memory {memory}, and a multiple of {PAGE} below {size} was expected")]
    Offset { memory: u64, offset: u64, size: usize },
    #[error("it gave back block {generation} at {offset} of memory {memory}, and none is lent there")]
    NotLent { memory: u64, offset: u64, generation: u64 },
    #[error("it gave back block {found} at {offset} of memory {memory}, and the one lent there is {expected}")]
    Generation { memory: u64, offset: u64, found: u64, expected: u64 },
}

/// The books of one connection, in one direction.
#[cfg_attr(any(test, fuzzing), derive(Clone, PartialEq))]
pub(crate) struct Ledger {
    extent_size: usize,
    /// Pages of an extent.
    pages: u32,
    arena_limit: usize,
    most_outstanding: usize,
    most_memories: usize,
    most_retired: u64,
    /// By age, and so by number.
    extents: Vec<Extent>,
    sealed: Vec<Sealed>,
    /// Bytes of `sealed`.
    sealed_bytes: usize,
    /// Blocks, `sealed`, and extents that are retiring.
    outstanding: usize,
    /// Bytes of the extents that were ever retired.
    retired: u64,
    next_memory: u64,
    next_generation: u64,
}

#[cfg_attr(any(test, fuzzing), derive(Clone, PartialEq))]
struct Extent {
    number: u64,
    runs: Runs,
    /// What begins at each page.
    places: Box<[Place]>,
    /// Whether a block ended here since the last sweep, or the extent is younger than that. That a block lies here
    /// the runs tell.
    used: bool,
    retiring: bool,
}

/// The block that begins at a page.
#[derive(Clone, Copy)]
#[cfg_attr(any(test, fuzzing), derive(PartialEq))]
struct Place {
    generation: u64,
    pages: u32,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// No block begins here; the other fields say nothing.
    None,
    Held,
    Lent,
}

#[cfg_attr(any(test, fuzzing), derive(Clone, PartialEq))]
struct Sealed {
    number: u64,
    len: usize,
    lent: bool,
}

impl Ledger {
    pub(crate) fn new(limits: Limits) -> Self {
        let Limits { extent_size, arena_limit, most_outstanding, most_memories, most_retired } = limits;
        debug_assert!(extent_size > 0 && extent_size.is_multiple_of(PAGE) && extent_size <= arena_limit, "{limits:?}");
        debug_assert!(most_outstanding >= 1 && most_memories >= 2, "{limits:?}");
        Self {
            extent_size,
            pages: u32::try_from(extent_size / PAGE).unwrap_or(u32::MAX),
            arena_limit,
            most_outstanding,
            most_memories,
            most_retired,
            extents: Vec::new(),
            sealed: Vec::new(),
            sealed_bytes: 0,
            outstanding: 0,
            retired: 0,
            next_memory: 1,
            next_generation: 1,
        }
    }

    /// Finds `len` bytes, 1 to those of an extent, in the oldest extent that has them. They are held, not lent: the
    /// peer cannot give them back.
    pub(crate) fn allocate(&mut self, len: usize) -> Result<Block, Room> {
        debug_assert!((1..=self.extent_size).contains(&len), "{len} bytes in an extent of {}", self.extent_size);
        let pages = match u32::try_from(len.div_ceil(PAGE)) {
            Ok(pages) if (1..=self.pages).contains(&pages) => pages,
            // No extent has room for it, so none must be made for it.
            _ => return Err(Room::Wait),
        };
        if self.outstanding >= self.most_outstanding {
            return Err(Room::Wait);
        }
        let generation = self.next_generation;
        for extent in self.extents.iter_mut().filter(|extent| !extent.retiring) {
            if let Some(first) = extent.runs.take(pages) {
                extent.places[first as usize] = Place { generation, pages, state: State::Held };
                self.outstanding += 1;
                self.next_generation += 1;
                return Ok(Block { memory: extent.number, offset: first as usize * PAGE, pages, generation });
            }
        }
        Err(if self.may_add_extent() { Room::Extent } else { Room::Wait })
    }

    /// Whether there may be one more extent.
    ///
    /// One place is left to sealed memory: extents go only when they are idle, and it would wait for that. And the
    /// first extent is not kept out by sealed memory, or all that is too large for a frame would wait for it.
    pub(crate) fn may_add_extent(&self) -> bool {
        (self.extents.is_empty() || self.bytes_with(self.extent_size).is_some())
            && self.memories() < self.most_memories
            && self.extents.len() + 1 < self.most_memories
    }

    /// Enters an extent and returns its number. Only if [`Ledger::may_add_extent`].
    pub(crate) fn add_extent(&mut self) -> u64 {
        debug_assert!(self.may_add_extent(), "there may be no more extents: {self:?}");
        let number = self.number_memory();
        self.extents.push(Extent {
            number,
            runs: Runs::new(self.pages),
            places: vec![Place { generation: 0, pages: 0, state: State::None }; self.pages as usize].into(),
            used: true,
            retiring: false,
        });
        number
    }

    /// The block is written and about to be published: from now on the peer may give it back.
    pub(crate) fn lend(&mut self, block: &Block) {
        let place = self.place(block);
        debug_assert!(place.as_ref().is_some_and(|place| place.state == State::Held), "{block:?} is not held");
        if let Some(place) = place {
            place.state = State::Lent;
        }
    }

    /// Frees a block that was not published, or that the peer never took. `false`: it was given back already, as a
    /// peer can do that guessed at it.
    pub(crate) fn cancel(&mut self, block: &Block) -> bool {
        let outstanding = self.place(block).is_some();
        if outstanding && let Some(index) = self.extent(block.memory) {
            self.free(index, block.offset / PAGE);
        }
        outstanding
    }

    /// Enters sealed memory of `len` bytes and returns its number. It is held until [`Ledger::lend_sealed`]. If it may
    /// not be, the error is [`Room::Wait`].
    pub(crate) fn admit_sealed(&mut self, len: usize) -> Result<u64, Room> {
        if !self.has_room_for_sealed(len) {
            return Err(Room::Wait);
        }
        let number = self.number_memory();
        self.sealed.push(Sealed { number, len, lent: false });
        self.sealed_bytes += len;
        self.outstanding += 1;
        Ok(number)
    }

    /// Whether [`Ledger::admit_sealed`] would admit it.
    pub(crate) fn has_room_for_sealed(&self, len: usize) -> bool {
        // However large it is, one alone must be possible, or it would wait for ever.
        let fits = self.sealed.is_empty() || self.bytes_with(len).is_some();
        fits && self.outstanding < self.most_outstanding && self.memories() < self.most_memories
    }

    /// As [`Ledger::lend`], for sealed memory.
    pub(crate) fn lend_sealed(&mut self, number: u64) {
        let sealed = self.sealed.iter_mut().find(|sealed| sealed.number == number);
        debug_assert!(sealed.as_ref().is_some_and(|sealed| !sealed.lent), "sealed memory {number} is not held");
        if let Some(sealed) = sealed {
            sealed.lent = true;
        }
    }

    /// As [`Ledger::cancel`], for sealed memory.
    pub(crate) fn cancel_sealed(&mut self, number: u64) -> bool {
        let index = self.sealed.iter().position(|sealed| sealed.number == number);
        if let Some(index) = index {
            self.end_sealed(index);
        }
        index.is_some()
    }

    /// Takes a give-back, exactly as the peer wrote it. It counts if it names something that the peer may hold; after
    /// an error the peer is to be disconnected. Returns the number of an extent that is in the books no more: its memory
    /// can be dropped.
    pub(crate) fn give_back(&mut self, given: GiveBack) -> Result<Option<u64>, Wrong> {
        match given {
            GiveBack::Block { memory, generation, offset } => {
                self.give_back_block(memory, generation, offset).map(|()| None)
            }
            GiveBack::Memory { memory } => self.give_back_memory(memory),
        }
    }

    fn give_back_block(&mut self, memory: u64, generation: u64, offset: u64) -> Result<(), Wrong> {
        let Some(index) = self.extent(memory) else {
            let sealed = self.sealed.iter().any(|sealed| sealed.number == memory && sealed.lent);
            return Err(if sealed { Wrong::NoBlocks { memory } } else { Wrong::NoMemory { memory } });
        };
        let page =
            usize::try_from(offset).ok().filter(|offset| offset.is_multiple_of(PAGE)).map(|offset| offset / PAGE);
        let Some((page, place)) = page.and_then(|page| Some((page, self.extents[index].places.get(page)?))) else {
            return Err(Wrong::Offset { memory, offset, size: self.extent_size });
        };
        match *place {
            Place { state: State::None | State::Held, .. } => Err(Wrong::NotLent { memory, offset, generation }),
            Place { generation: expected, .. } if expected != generation => {
                Err(Wrong::Generation { memory, offset, found: generation, expected })
            }
            Place { .. } => {
                self.free(index, page);
                Ok(())
            }
        }
    }

    fn give_back_memory(&mut self, memory: u64) -> Result<Option<u64>, Wrong> {
        if let Some(index) = self.sealed.iter().position(|sealed| sealed.number == memory && sealed.lent) {
            self.end_sealed(index);
            return Ok(None);
        }
        match self.extent(memory) {
            Some(index) if self.extents[index].retiring => {
                self.end_extent(index);
                Ok(Some(memory))
            }
            Some(_) => Err(Wrong::NotRetired { memory }),
            None => Err(Wrong::NoMemory { memory }),
        }
    }

    /// Retires the extents that no block began, lay or ended in since the last sweep, the youngest first, as far as
    /// the limits go. Returns their numbers: the peer is to be told of each.
    ///
    /// Called once every period, it retires what was unused for one to two periods.
    pub(crate) fn sweep(&mut self) -> Vec<u64> {
        self.retire_where(|extent, is_free| !std::mem::take(&mut extent.used) && is_free)
    }

    /// Retires as many extents without a block as sealed memory of `len` bytes needs, as far as the limits go, and those
    /// that retire already count; none if that would not be enough. Returns their numbers, as [`Ledger::sweep`] does.
    pub(crate) fn retire_free_for(&mut self, len: usize) -> Vec<u64> {
        let retiring = self.extents.iter().filter(|extent| extent.retiring).count();
        let free = self.extents.iter().filter(|extent| !extent.retiring && extent.runs.is_whole()).count();
        let excess = self.bytes().saturating_add(len).saturating_sub(self.arena_limit);
        let mut needed = excess.div_ceil(self.extent_size).saturating_sub(retiring);
        if needed > free {
            return Vec::new();
        }
        self.retire_where(|_, is_free| {
            let is_wanted = is_free && needed > 0;
            needed -= usize::from(is_wanted);
            is_wanted
        })
    }

    fn retire_where(&mut self, mut is_idle: impl FnMut(&mut Extent, bool) -> bool) -> Vec<u64> {
        let mut retire = Vec::new();
        for index in (0..self.extents.len()).rev() {
            let retired = self.retired_with_one_more();
            let extent = &mut self.extents[index];
            let is_free = !extent.retiring && extent.runs.is_whole();
            let idle = is_idle(extent, is_free);
            if let Some(retired) = retired
                && idle
                && self.outstanding < self.most_outstanding
            {
                extent.retiring = true;
                retire.push(extent.number);
                self.retired = retired;
                self.outstanding += 1;
            }
        }
        retire
    }

    /// Whether a later sweep can retire an extent, even if none is added before it.
    pub(crate) fn wants_sweep(&self) -> bool {
        self.retired_with_one_more().is_some() && self.extents.iter().any(|extent| !extent.retiring)
    }

    /// Whether an extent is retiring: its memory goes when the peer has given it back.
    pub(crate) fn awaits_extents(&self) -> bool {
        self.extents.iter().any(|extent| extent.retiring)
    }

    /// The peer could not be told that the extent retires: it is open again, and the next sweep may retire it.
    /// `false`: it is not retiring any more, since the peer gave it back without having been told.
    pub(crate) fn unretire(&mut self, number: u64) -> bool {
        let size = self.extent_size as u64;
        let Some(extent) = self.extents.iter_mut().find(|extent| extent.number == number && extent.retiring) else {
            return false;
        };
        extent.retiring = false;
        self.outstanding -= 1;
        self.retired -= size;
        true
    }

    /// Forgets an extent that is retiring and whose descriptor the peer was never sent, so that it needs not be told
    /// and can have kept nothing. `false` as with [`Ledger::unretire`].
    pub(crate) fn discard(&mut self, number: u64) -> bool {
        let Some(index) = self.extent(number).filter(|index| self.extents[*index].retiring) else {
            return false;
        };
        self.end_extent(index);
        self.retired -= self.extent_size as u64;
        true
    }

    /// Entries outstanding.
    #[cfg(any(test, fuzzing))]
    pub(crate) const fn outstanding(&self) -> usize {
        self.outstanding
    }

    /// Bytes that count against the arena's limit.
    pub(crate) fn bytes(&self) -> usize {
        // The extents alone are within the limit; one sealed memory may be of any length.
        (self.extents.len() * self.extent_size).saturating_add(self.sealed_bytes)
    }

    /// What [`Ledger::bytes`] would be with `more`, if the limit allows it.
    fn bytes_with(&self, more: usize) -> Option<usize> {
        self.bytes().checked_add(more).filter(|bytes| *bytes <= self.arena_limit)
    }

    fn memories(&self) -> usize {
        self.extents.len() + self.sealed.len()
    }

    const fn number_memory(&mut self) -> u64 {
        let number = self.next_memory;
        self.next_memory += 1;
        number
    }

    /// What `retired` would be with one more extent, if the limit allows it.
    fn retired_with_one_more(&self) -> Option<u64> {
        self.retired.checked_add(self.extent_size as u64).filter(|retired| *retired <= self.most_retired)
    }

    /// Where an extent is in the list.
    fn extent(&self, number: u64) -> Option<usize> {
        self.extents.binary_search_by_key(&number, |extent| extent.number).ok()
    }

    /// The place of a block that is held or lent; `None` if it is not any more.
    fn place(&mut self, block: &Block) -> Option<&mut Place> {
        let index = self.extent(block.memory)?;
        let place = self.extents[index].places.get_mut(block.offset / PAGE)?;
        (place.state != State::None && place.generation == block.generation).then_some(place)
    }

    /// Ends the block that begins at a page: there must be one.
    fn free(&mut self, extent: usize, page: usize) {
        let extent = &mut self.extents[extent];
        let place = &mut extent.places[page];
        debug_assert!(place.state != State::None, "no block begins at page {page}");
        place.state = State::None;
        #[expect(clippy::cast_possible_truncation, reason = "an extent has at most u32::MAX pages")]
        extent.runs.give(page as u32, place.pages);
        extent.used = true;
        self.outstanding -= 1;
    }

    fn end_sealed(&mut self, index: usize) {
        let gone = self.sealed.swap_remove(index);
        self.sealed_bytes -= gone.len;
        self.outstanding -= 1;
    }

    /// Ends an extent that is retiring.
    fn end_extent(&mut self, index: usize) {
        let gone = self.extents.remove(index);
        debug_assert!(gone.retiring && gone.runs.is_whole(), "extent {} is in use", gone.number);
        self.outstanding -= 1;
    }
}

impl Debug for Ledger {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ledger")
            .field("extents", &self.extents.len())
            .field("retiring", &self.extents.iter().filter(|extent| extent.retiring).count())
            .field("sealed", &self.sealed.len())
            .field("outstanding", &self.outstanding)
            .field("bytes", &self.bytes())
            .field("retired", &self.retired)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: usize = 8 * PAGE;
    const LIMITS: Limits = Limits {
        extent_size: SIZE,
        arena_limit: 3 * SIZE,
        most_outstanding: 16,
        most_memories: 8,
        most_retired: u64::MAX,
    };

    /// Allocates, with one more extent if that is wanted.
    fn allocate(ledger: &mut Ledger, len: usize) -> Result<Block, Room> {
        match ledger.allocate(len) {
            Err(Room::Extent) => {
                ledger.add_extent();
                ledger.allocate(len)
            }
            result => result,
        }
    }

    fn lent(ledger: &mut Ledger, len: usize) -> Block {
        let block = allocate(ledger, len).unwrap();
        ledger.lend(&block);
        block
    }

    fn lent_sealed(ledger: &mut Ledger, len: usize) -> u64 {
        let number = ledger.admit_sealed(len).unwrap();
        ledger.lend_sealed(number);
        number
    }

    fn given(block: Block) -> GiveBack {
        GiveBack::Block { memory: block.memory, generation: block.generation, offset: block.offset as u64 }
    }

    /// Expects the refusal, and nothing else of it.
    fn refused(ledger: &mut Ledger, given: GiveBack, wrong: Wrong) {
        let before = ledger.clone();
        assert_eq!(ledger.give_back(given), Err(wrong));
        assert!(*ledger == before, "{given:?} was refused and changed something");
    }

    #[test]
    fn a_block_takes_up_whole_pages_and_has_a_generation_of_its_own() {
        let mut ledger = Ledger::new(LIMITS);
        assert_eq!(ledger.allocate(1), Err(Room::Extent));
        assert_eq!(ledger.add_extent(), 1);
        let one = Block { memory: 1, offset: 0, pages: 1, generation: 1 };
        assert_eq!(ledger.allocate(PAGE), Ok(one));
        assert_eq!(ledger.allocate(PAGE + 1), Ok(Block { offset: PAGE, pages: 2, generation: 2, ..one }));
        assert!(ledger.cancel(&one));
        assert_eq!(ledger.allocate(1), Ok(Block { generation: 3, ..one }));
    }

    #[test]
    fn a_block_is_given_back_once() {
        let mut ledger = Ledger::new(LIMITS);
        let block = lent(&mut ledger, SIZE);
        assert_eq!(ledger.give_back(given(block)), Ok(None));
        assert_eq!(ledger.outstanding(), 0);
        refused(&mut ledger, given(block), Wrong::NotLent { memory: 1, offset: 0, generation: 1 });
        let next = lent(&mut ledger, SIZE);
        refused(&mut ledger, given(block), Wrong::Generation { memory: 1, offset: 0, found: 1, expected: 2 });
        assert_eq!(ledger.give_back(given(next)), Ok(None));
    }

    #[test]
    fn a_held_block_cannot_be_given_back() {
        let mut ledger = Ledger::new(LIMITS);
        let block = allocate(&mut ledger, 1).unwrap();
        refused(&mut ledger, given(block), Wrong::NotLent { memory: 1, offset: 0, generation: 1 });
        ledger.lend(&block);
        assert_eq!(ledger.give_back(given(block)), Ok(None));
    }

    #[test]
    fn an_offset_where_no_block_can_begin_is_refused() {
        let mut ledger = Ledger::new(LIMITS);
        lent(&mut ledger, SIZE);
        for offset in [1, 8, PAGE as u64 - 1, PAGE as u64 + 1, SIZE as u64, 1 << 44, u64::MAX - 4095, u64::MAX] {
            let given = GiveBack::Block { memory: 1, generation: 1, offset };
            refused(&mut ledger, given, Wrong::Offset { memory: 1, offset, size: SIZE });
        }
        let inside = GiveBack::Block { memory: 1, generation: 1, offset: PAGE as u64 };
        refused(&mut ledger, inside, Wrong::NotLent { memory: 1, offset: PAGE as u64, generation: 1 });
    }

    #[test]
    fn a_memory_that_was_not_lent_cannot_be_given_back() {
        let mut ledger = Ledger::new(LIMITS);
        lent(&mut ledger, 1);
        let sealed = ledger.admit_sealed(5).unwrap();
        for memory in [0, sealed, sealed + 1, u64::MAX] {
            refused(&mut ledger, GiveBack::Memory { memory }, Wrong::NoMemory { memory });
            let block = GiveBack::Block { memory, generation: 1, offset: 0 };
            refused(&mut ledger, block, Wrong::NoMemory { memory });
        }
        refused(&mut ledger, GiveBack::Memory { memory: 1 }, Wrong::NotRetired { memory: 1 });
    }

    #[test]
    fn sealed_memory_is_given_back_once_and_whole() {
        let mut ledger = Ledger::new(LIMITS);
        let memory = lent_sealed(&mut ledger, 5);
        let block = GiveBack::Block { memory, generation: 0, offset: 0 };
        refused(&mut ledger, block, Wrong::NoBlocks { memory });
        assert_eq!(ledger.give_back(GiveBack::Memory { memory }), Ok(None));
        assert_eq!((ledger.outstanding(), ledger.bytes()), (0, 0));
        refused(&mut ledger, GiveBack::Memory { memory }, Wrong::NoMemory { memory });
        assert_eq!(ledger.admit_sealed(5), Ok(memory + 1), "numbers are not used again");
    }

    #[test]
    fn a_cancelled_block_or_memory_is_gone() {
        let mut ledger = Ledger::new(LIMITS);
        let (held, lent) = (allocate(&mut ledger, 1).unwrap(), lent(&mut ledger, 1));
        let (held_sealed, sealed) = (ledger.admit_sealed(5).unwrap(), lent_sealed(&mut ledger, 5));
        for _ in 0..2 {
            assert!(ledger.outstanding() == 0 || ledger.outstanding() == 4);
            let first = ledger.outstanding() == 4;
            assert_eq!([ledger.cancel(&held), ledger.cancel(&lent)], [first; 2]);
            assert_eq!([ledger.cancel_sealed(held_sealed), ledger.cancel_sealed(sealed)], [first; 2]);
            assert_eq!((ledger.outstanding(), ledger.bytes()), (0, SIZE));
        }
        refused(&mut ledger, GiveBack::Memory { memory: sealed }, Wrong::NoMemory { memory: sealed });
        let wrong = Wrong::NotLent { memory: 1, offset: lent.offset as u64, generation: lent.generation };
        refused(&mut ledger, given(lent), wrong);
    }

    #[test]
    fn cancelling_a_block_that_was_given_back_spares_the_next_one() {
        let mut ledger = Ledger::new(LIMITS);
        let block = lent(&mut ledger, 1);
        ledger.give_back(given(block)).unwrap();
        let next = lent(&mut ledger, 1);
        assert_eq!(next.offset, block.offset);
        assert!(!ledger.cancel(&block));
        assert_eq!(ledger.give_back(given(next)), Ok(None));
    }

    #[test]
    fn extents_are_added_up_to_the_limit_in_bytes() {
        let mut ledger = Ledger::new(Limits { arena_limit: 3 * SIZE - 1, ..LIMITS });
        let first = lent(&mut ledger, SIZE);
        lent(&mut ledger, SIZE);
        assert_eq!(ledger.allocate(1), Err(Room::Wait));
        ledger.give_back(given(first)).unwrap();
        assert_eq!(ledger.allocate(1).map(|block| block.memory), Ok(1));
    }

    #[test]
    fn no_more_is_outstanding_than_can_be_given_back() {
        let mut ledger = Ledger::new(Limits { most_outstanding: 2, ..LIMITS });
        let block = lent(&mut ledger, 1);
        let sealed = lent_sealed(&mut ledger, 1);
        assert_eq!((ledger.allocate(1), ledger.admit_sealed(1)), (Err(Room::Wait), Err(Room::Wait)));
        ledger.give_back(given(block)).unwrap();
        let held = ledger.allocate(1).unwrap();
        assert_eq!(ledger.allocate(1), Err(Room::Wait), "a block that is held will be lent");
        assert!(ledger.cancel(&held));
        // Nothing was used since, and only sealed memory is outstanding.
        ledger.sweep();
        assert_eq!(ledger.sweep(), [1]);
        assert_eq!(ledger.allocate(1), Err(Room::Wait), "the peer will give the extent back");
        ledger.give_back(GiveBack::Memory { memory: sealed }).unwrap();
        assert!(allocate(&mut ledger, 1).is_ok());
    }

    #[test]
    fn an_extent_is_not_retired_if_the_peer_could_not_give_it_back() {
        let mut ledger = Ledger::new(Limits { most_outstanding: 1, ..LIMITS });
        let block = lent(&mut ledger, 1);
        ledger.give_back(given(block)).unwrap();
        let sealed = lent_sealed(&mut ledger, 1);
        ledger.sweep();
        assert!(ledger.sweep().is_empty() && ledger.wants_sweep());
        ledger.give_back(GiveBack::Memory { memory: sealed }).unwrap();
        assert_eq!(ledger.sweep(), [1]);
    }

    #[test]
    fn one_sealed_memory_of_any_length_may_be_outstanding() {
        let mut ledger = Ledger::new(LIMITS);
        lent(&mut ledger, SIZE);
        let large = lent_sealed(&mut ledger, usize::MAX);
        assert_eq!(ledger.bytes(), usize::MAX);
        assert_eq!((ledger.admit_sealed(1), ledger.allocate(1)), (Err(Room::Wait), Err(Room::Wait)));
        ledger.give_back(GiveBack::Memory { memory: large }).unwrap();
        assert!(ledger.admit_sealed(2 * SIZE).is_ok(), "it fits beside the extent");
        assert_eq!((ledger.admit_sealed(1), ledger.allocate(1)), (Err(Room::Wait), Err(Room::Wait)));
    }

    #[test]
    fn extents_leave_a_place_to_sealed_memory() {
        let mut ledger = Ledger::new(Limits { arena_limit: usize::MAX, most_memories: 3, ..LIMITS });
        let blocks = [(); 2].map(|()| lent(&mut ledger, SIZE));
        assert_eq!(ledger.allocate(1), Err(Room::Wait));
        let sealed = lent_sealed(&mut ledger, 1);
        assert_eq!(ledger.admit_sealed(1), Err(Room::Wait));
        ledger.give_back(GiveBack::Memory { memory: sealed }).unwrap();
        for block in blocks {
            ledger.give_back(given(block)).unwrap();
        }
        assert!(ledger.admit_sealed(1).is_ok());
    }

    #[test]
    fn sealed_memories_count_as_memories() {
        let mut ledger = Ledger::new(Limits { most_memories: 2, ..LIMITS });
        let first = lent_sealed(&mut ledger, 1);
        lent_sealed(&mut ledger, 1);
        assert_eq!((ledger.admit_sealed(1), ledger.allocate(1)), (Err(Room::Wait), Err(Room::Wait)));
        ledger.give_back(GiveBack::Memory { memory: first }).unwrap();
        assert_eq!(ledger.allocate(1), Err(Room::Extent));
    }

    #[test]
    fn an_extent_retires_when_no_block_was_in_it_for_a_whole_period() {
        let mut ledger = Ledger::new(LIMITS);
        assert!(!ledger.wants_sweep(), "there is no extent");
        let block = lent(&mut ledger, 1);
        assert!((0..3).all(|_| ledger.sweep().is_empty() && ledger.wants_sweep()));
        ledger.give_back(given(block)).unwrap();
        assert!(ledger.sweep().is_empty(), "a block was in it since the last sweep");
        let block = ledger.allocate(1).unwrap();
        assert!(ledger.cancel(&block));
        assert!(ledger.sweep().is_empty(), "and another one");
        assert!(ledger.wants_sweep());
        assert_eq!(ledger.sweep(), [1]);
        assert!(ledger.sweep().is_empty() && !ledger.wants_sweep(), "it retires already");
        assert!(ledger.awaits_extents());
        ledger.give_back(GiveBack::Memory { memory: 1 }).unwrap();
        assert!(!ledger.awaits_extents());
    }

    #[test]
    fn a_retiring_extent_takes_no_block_and_counts_until_it_is_given_back() {
        let mut ledger = Ledger::new(Limits { arena_limit: SIZE, ..LIMITS });
        let block = lent(&mut ledger, 1);
        ledger.give_back(given(block)).unwrap();
        ledger.sweep();
        assert_eq!(ledger.sweep(), [1]);
        assert_eq!((ledger.allocate(1), ledger.outstanding(), ledger.bytes()), (Err(Room::Wait), 1, SIZE));
        refused(&mut ledger, given(block), Wrong::NotLent { memory: 1, offset: 0, generation: 1 });
        assert_eq!(ledger.give_back(GiveBack::Memory { memory: 1 }), Ok(Some(1)));
        refused(&mut ledger, GiveBack::Memory { memory: 1 }, Wrong::NoMemory { memory: 1 });
        assert_eq!(allocate(&mut ledger, 1).map(|block| block.memory), Ok(2));
    }

    #[test]
    fn what_was_ever_retired_is_capped() {
        let mut ledger = Ledger::new(Limits { most_retired: 2 * SIZE as u64, ..LIMITS });
        let blocks = [(); 3].map(|()| lent(&mut ledger, SIZE));
        for block in blocks {
            ledger.give_back(given(block)).unwrap();
        }
        ledger.sweep();
        let retiring = ledger.sweep();
        assert_eq!(retiring, [3, 2], "two, and the oldest is not among them");
        for memory in retiring {
            ledger.give_back(GiveBack::Memory { memory }).unwrap();
        }
        assert!(ledger.sweep().is_empty() && !ledger.wants_sweep(), "what was given back counts as well");
        assert!(allocate(&mut ledger, SIZE).is_ok());
    }

    #[test]
    fn an_extent_that_the_peer_could_not_be_told_of_is_open_again_and_not_counted() {
        let mut ledger = Ledger::new(Limits { most_retired: SIZE as u64, ..LIMITS });
        let block = allocate(&mut ledger, 1).unwrap();
        assert!(ledger.cancel(&block) && !ledger.unretire(1));
        ledger.sweep();
        for _ in 0..2 {
            assert_eq!(ledger.sweep(), [1]);
            assert!(!ledger.wants_sweep());
            assert!(ledger.unretire(1) && !ledger.unretire(1));
            assert!(ledger.wants_sweep());
            assert_eq!(ledger.outstanding(), 0);
        }
        assert_eq!(ledger.allocate(1).map(|block| block.memory), Ok(1));
    }

    #[test]
    fn an_extent_that_was_never_sent_is_discarded_and_not_counted() {
        let mut ledger = Ledger::new(Limits { most_retired: SIZE as u64, ..LIMITS });
        for number in 1..4 {
            let block = allocate(&mut ledger, 1).unwrap();
            assert!(ledger.cancel(&block) && !ledger.discard(number));
            ledger.sweep();
            assert_eq!(ledger.sweep(), [number]);
            assert!(ledger.discard(number) && !ledger.discard(number));
            assert_eq!((ledger.outstanding(), ledger.bytes()), (0, 0));
        }
    }
}
