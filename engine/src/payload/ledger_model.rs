//! Whatever is done to a ledger, by its owner or by the peer, it does what a plain list of entries would.

#![allow(clippy::unwrap_used, reason = "these are tests")]

use std::collections::BTreeMap;

use arbitrary::{Arbitrary, Unstructured};
#[cfg(test)]
use proptest::prelude::*;

use super::{
    PAGE,
    ledger::{Block, Ledger, Limits, Room},
};
use crate::outbox::GiveBack;

const PAGES: usize = 6;
const SIZE: usize = PAGES * PAGE;

#[derive(Arbitrary, Clone, Debug)]
enum Operation {
    /// Bytes, whether an extent is made if one is wanted, whether the block is lent at once.
    Allocate(#[arbitrary(with = fuzzed_len)] usize, bool, bool),
    /// An index picks one entry of all those that there are, modulo their number.
    Lend(usize),
    Cancel(usize),
    /// Any block that there ever was.
    CancelAgain(usize),
    GiveBack(usize),
    /// Any give-back that ever counted, or any block that there ever was.
    GiveBackAgain(usize),
    /// A give-back of a live block, changed by these.
    GiveBackChanged(usize, u64, u64, u64),
    GiveBackWild(#[arbitrary(with = fuzzed_give_back)] GiveBack),
    AdmitSealed(#[arbitrary(with = fuzzed_sealed)] usize, bool),
    LendSealed(usize),
    CancelSealed(usize),
    GiveBackSealed(usize),
    Sweep,
    RetireFree(#[arbitrary(with = fuzzed_len)] usize),
    Acknowledge(usize),
    Unretire(usize),
    Discard(usize),
}

/// Small numbers, which hit something now and then, and any.
#[cfg(test)]
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![4 => 0..12_u64, 1 => any::<u64>()]
}

#[cfg(test)]
fn offset() -> impl Strategy<Value = u64> {
    prop_oneof![4 => (0..=PAGES as u64).prop_map(|page| page * PAGE as u64), 1 => 0..SIZE as u64, 1 => any::<u64>()]
}

#[cfg(test)]
fn operation() -> impl Strategy<Value = Operation> {
    let index = any::<usize>;
    let len = 1..=SIZE;
    let sealed = prop_oneof![1..=4 * SIZE, 1..=SIZE, (usize::MAX - SIZE)..=usize::MAX];
    let wild = prop_oneof![
        (number(), number(), offset()).prop_map(|(memory, generation, offset)| GiveBack::Block {
            memory,
            generation,
            offset
        }),
        number().prop_map(|memory| GiveBack::Memory { memory }),
    ];
    prop_oneof![
        8 => (len, prop::bool::weighted(0.8), any::<bool>()).prop_map(|(len, make, lend)| Operation::Allocate(len, make, lend)),
        4 => index().prop_map(Operation::Lend),
        2 => index().prop_map(Operation::Cancel),
        1 => index().prop_map(Operation::CancelAgain),
        6 => index().prop_map(Operation::GiveBack),
        2 => index().prop_map(Operation::GiveBackAgain),
        2 => (index(), 0..2_u64, 0..3_u64, offset()).prop_map(|(i, m, g, o)| Operation::GiveBackChanged(i, m, g, o)),
        2 => wild.prop_map(Operation::GiveBackWild),
        3 => (sealed, any::<bool>()).prop_map(|(len, lend)| Operation::AdmitSealed(len, lend)),
        1 => index().prop_map(Operation::LendSealed),
        1 => index().prop_map(Operation::CancelSealed),
        2 => index().prop_map(Operation::GiveBackSealed),
        5 => Just(Operation::Sweep),
        1 => (1..SIZE * 8).prop_map(Operation::RetireFree),
        2 => index().prop_map(Operation::Acknowledge),
        1 => index().prop_map(Operation::Unretire),
        1 => index().prop_map(Operation::Discard),
    ]
}

#[cfg(test)]
fn limits() -> impl Strategy<Value = Limits> {
    let most_retired = prop_oneof![Just(u64::MAX), 0..6 * SIZE as u64];
    let arena_limit = prop_oneof![4 => SIZE..5 * SIZE, 1 => Just(usize::MAX)];
    (arena_limit, 1..14_usize, 2..6_usize, most_retired).prop_map(
        |(arena_limit, most_outstanding, most_memories, most_retired)| Limits {
            extent_size: SIZE,
            arena_limit,
            most_outstanding,
            most_memories,
            most_retired,
        },
    )
}

#[derive(Clone, Copy)]
struct Piece {
    block: Block,
    lent: bool,
}

#[derive(Clone, Copy)]
struct Whole {
    len: usize,
    lent: bool,
}

#[derive(Clone, Copy)]
struct Extent {
    used: bool,
    retiring: bool,
}

struct Model {
    limits: Limits,
    ledger: Ledger,
    /// By generation.
    blocks: BTreeMap<u64, Piece>,
    sealed: BTreeMap<u64, Whole>,
    extents: BTreeMap<u64, Extent>,
    retired: u128,
    memories: u64,
    generations: u64,
    /// Every block that there ever was.
    all_blocks: Vec<Block>,
    /// Every give-back that counted.
    all_given: Vec<GiveBack>,
}

fn pick<T>(index: usize, mut all: Vec<T>) -> Option<T> {
    (!all.is_empty()).then(|| all.swap_remove(index % all.len()))
}

fn give_back_of(block: Block) -> GiveBack {
    GiveBack::Block { memory: block.memory, generation: block.generation, offset: block.offset as u64 }
}

impl Model {
    fn new(limits: Limits) -> Self {
        Self {
            limits,
            ledger: Ledger::new(limits),
            blocks: BTreeMap::new(),
            sealed: BTreeMap::new(),
            extents: BTreeMap::new(),
            retired: 0,
            memories: 0,
            generations: 0,
            all_blocks: Vec::new(),
            all_given: Vec::new(),
        }
    }

    fn outstanding(&self) -> usize {
        self.blocks.len() + self.sealed.len() + self.extents.values().filter(|extent| extent.retiring).count()
    }

    fn bytes(&self) -> u128 {
        (self.extents.len() * SIZE) as u128 + self.sealed.values().map(|sealed| sealed.len as u128).sum::<u128>()
    }

    /// The first place for a block, found page by page.
    fn place(&self, pages: usize) -> Option<(u64, usize)> {
        self.extents.iter().filter(|(_, extent)| !extent.retiring).find_map(|(number, _)| {
            let mut free = [true; PAGES];
            for piece in self.blocks.values().filter(|piece| piece.block.memory == *number) {
                for page in &mut free[piece.block.offset / PAGE..][..piece.block.pages as usize] {
                    assert!(*page, "two blocks overlap: {:?}", piece.block);
                    *page = false;
                }
            }
            let first = free.windows(pages).position(|window| window.iter().all(|free| *free))?;
            Some((*number, first * PAGE))
        })
    }

    fn expected_block(&self, len: usize) -> Result<Block, Room> {
        let pages = len.div_ceil(PAGE);
        if self.outstanding() == self.limits.most_outstanding {
            return Err(Room::Wait);
        }
        if let Some((memory, offset)) = self.place(pages) {
            return Ok(Block {
                memory,
                offset,
                pages: u32::try_from(pages).unwrap(),
                generation: self.generations + 1,
            });
        }
        let fits = self.extents.is_empty() || self.bytes() + SIZE as u128 <= self.limits.arena_limit as u128;
        let most = self.limits.most_memories;
        let countable = self.extents.len() + self.sealed.len() < most && self.extents.len() < most - 1;
        Err(if fits && countable { Room::Extent } else { Room::Wait })
    }

    fn allocate(&mut self, len: usize, make: bool) -> Option<Block> {
        let mut expected = self.expected_block(len);
        assert_eq!(self.ledger.allocate(len), expected);
        if expected == Err(Room::Extent) && make {
            self.memories += 1;
            assert_eq!(self.ledger.add_extent(), self.memories);
            self.extents.insert(self.memories, Extent { used: true, retiring: false });
            expected = self.expected_block(len);
            assert!(expected.is_ok(), "a new extent has room");
            assert_eq!(self.ledger.allocate(len), expected);
        }
        let block = expected.ok()?;
        self.generations += 1;
        self.blocks.insert(block.generation, Piece { block, lent: false });
        self.extents.get_mut(&block.memory).unwrap().used = true;
        self.all_blocks.push(block);
        Some(block)
    }

    fn lend(&mut self, block: Block) {
        self.ledger.lend(&block);
        self.blocks.get_mut(&block.generation).unwrap().lent = true;
    }

    fn remove_block(&mut self, generation: u64) -> bool {
        let Some(gone) = self.blocks.remove(&generation) else { return false };
        self.extents.get_mut(&gone.block.memory).unwrap().used = true;
        true
    }

    fn cancel(&mut self, block: Block) {
        assert_eq!(self.remove_block(block.generation), self.ledger.cancel(&block));
    }

    fn admit(&mut self, len: usize, lend: bool) {
        let fits = self.sealed.is_empty() || self.bytes() + len as u128 <= self.limits.arena_limit as u128;
        let countable = self.extents.len() + self.sealed.len() < self.limits.most_memories;
        if !fits || !countable || self.outstanding() == self.limits.most_outstanding {
            return assert_eq!(self.ledger.admit_sealed(len), Err(Room::Wait));
        }
        self.memories += 1;
        assert_eq!(self.ledger.admit_sealed(len), Ok(self.memories));
        self.sealed.insert(self.memories, Whole { len, lent: false });
        if lend {
            self.lend_sealed(self.memories);
        }
    }

    fn lend_sealed(&mut self, number: u64) {
        self.ledger.lend_sealed(number);
        self.sealed.get_mut(&number).unwrap().lent = true;
    }

    /// Takes a give-back, honest or not, and returns whether it counted.
    fn give_back(&mut self, given: GiveBack) -> bool {
        let expected = match given {
            GiveBack::Block { generation, .. } => self
                .blocks
                .get(&generation)
                .filter(|piece| piece.lent && give_back_of(piece.block) == given)
                .map(|_| None),
            GiveBack::Memory { memory } if self.sealed.get(&memory).is_some_and(|sealed| sealed.lent) => Some(None),
            GiveBack::Memory { memory } => {
                self.extents.get(&memory).filter(|extent| extent.retiring).map(|_| Some(memory))
            }
        };
        let before = self.ledger.clone();
        let result = self.ledger.give_back(given);
        assert_eq!(result.ok(), expected, "{given:?}: {result:?}");
        match given {
            _ if expected.is_none() => assert!(self.ledger == before, "{given:?} was refused and changed something"),
            GiveBack::Block { generation, .. } => assert!(self.remove_block(generation)),
            GiveBack::Memory { memory } => {
                self.sealed.remove(&memory);
                self.extents.remove(&memory);
            }
        }
        if expected.is_some() {
            self.all_given.push(given);
        }
        expected.is_some()
    }

    fn may_retire(&self) -> bool {
        self.retired + SIZE as u128 <= u128::from(self.limits.most_retired)
    }

    fn sweep(&mut self) {
        let expected = self.retire_where(|extent| !extent.used);
        self.extents.values_mut().for_each(|extent| extent.used = false);
        assert_eq!(self.ledger.sweep(), expected);
    }

    fn retire_where(&mut self, mut is_idle: impl FnMut(&Extent) -> bool) -> Vec<u64> {
        let mut expected = Vec::new();
        let numbers: Vec<_> = self.extents.keys().rev().copied().collect();
        for number in numbers {
            let free = self.blocks.values().all(|piece| piece.block.memory != number);
            let allowed = self.may_retire() && self.outstanding() < self.limits.most_outstanding;
            let extent = self.extents.get_mut(&number).unwrap();
            if free && !extent.retiring && is_idle(extent) && allowed {
                extent.retiring = true;
                self.retired += SIZE as u128;
                expected.push(number);
            }
        }
        expected
    }

    fn retiring(&self) -> Vec<u64> {
        self.extents.iter().filter(|(_, extent)| extent.retiring).map(|(number, _)| *number).collect()
    }

    fn pieces(&self, lent: bool) -> Vec<Block> {
        self.blocks.values().filter(|piece| piece.lent == lent).map(|piece| piece.block).collect()
    }

    fn wholes(&self, lent: bool) -> Vec<u64> {
        self.sealed.iter().filter(|(_, sealed)| sealed.lent == lent).map(|(number, _)| *number).collect()
    }

    /// Takes an extent out of retirement.
    fn withdraw(&mut self, number: u64) -> bool {
        let found = self.extents.get(&number).is_some_and(|extent| extent.retiring);
        self.retired -= if found { SIZE as u128 } else { 0 };
        found
    }

    fn run(&mut self, operation: Operation) {
        match operation {
            Operation::Allocate(len, make, lend) => {
                if let Some(block) = self.allocate(len, make)
                    && lend
                {
                    self.lend(block);
                }
            }
            Operation::Lend(index) => {
                if let Some(block) = pick(index, self.pieces(false)) {
                    self.lend(block);
                }
            }
            Operation::Cancel(index) => {
                let all = self.blocks.values().map(|piece| piece.block).collect();
                if let Some(block) = pick(index, all) {
                    self.cancel(block);
                }
            }
            Operation::CancelAgain(index) => {
                if let Some(block) = pick(index, self.all_blocks.clone()) {
                    self.cancel(block);
                }
            }
            Operation::GiveBack(index) => {
                if let Some(block) = pick(index, self.pieces(true)) {
                    assert!(self.give_back(give_back_of(block)));
                }
            }
            Operation::GiveBackAgain(index) => {
                let blocks = self.all_blocks.iter().map(|block| give_back_of(*block));
                let all = blocks.chain(self.all_given.iter().copied()).collect();
                if let Some(given) = pick(index, all) {
                    self.give_back(given);
                }
            }
            Operation::GiveBackChanged(index, memory, generation, offset) => {
                let all = self.blocks.values().map(|piece| piece.block).collect();
                if let Some(block) = pick(index, all) {
                    self.give_back(GiveBack::Block {
                        memory: block.memory.wrapping_add(memory),
                        generation: block.generation.wrapping_sub(generation),
                        offset: (block.offset as u64).wrapping_add(offset),
                    });
                }
            }
            Operation::GiveBackWild(given) => {
                self.give_back(given);
            }
            Operation::AdmitSealed(len, lend) => self.admit(len, lend),
            Operation::LendSealed(index) => {
                if let Some(number) = pick(index, self.wholes(false)) {
                    self.lend_sealed(number);
                }
            }
            // Every number there ever was, so that most have gone.
            Operation::CancelSealed(index) => {
                let number = index as u64 % (self.memories + 2);
                assert_eq!(self.ledger.cancel_sealed(number), self.sealed.remove(&number).is_some());
            }
            Operation::GiveBackSealed(index) => {
                if let Some(memory) = pick(index, self.wholes(true)) {
                    assert!(self.give_back(GiveBack::Memory { memory }));
                }
            }
            Operation::Sweep => self.sweep(),
            Operation::RetireFree(len) => {
                let bytes = (self.bytes() + len as u128).min(usize::MAX as u128);
                let limit = self.limits.arena_limit as u128;
                let needed =
                    bytes.saturating_sub(limit).div_ceil(SIZE as u128).saturating_sub(self.retiring().len() as u128);
                let is_free = |number| self.blocks.values().all(|piece| piece.block.memory != number);
                let free = self.extents.iter().filter(|(number, extent)| !extent.retiring && is_free(**number)).count();
                let mut left = if needed > free as u128 { 0 } else { needed };
                let expected = self.retire_where(|_| {
                    let is_wanted = left > 0;
                    left = left.saturating_sub(1);
                    is_wanted
                });
                assert_eq!(self.ledger.retire_free_for(len), expected);
            }
            Operation::Acknowledge(index) => {
                if let Some(memory) = pick(index, self.retiring()) {
                    assert!(self.give_back(GiveBack::Memory { memory }));
                }
            }
            Operation::Unretire(index) => {
                let number = index as u64 % (self.memories + 2);
                let found = self.withdraw(number);
                assert_eq!(self.ledger.unretire(number), found);
                if found {
                    self.extents.get_mut(&number).unwrap().retiring = false;
                }
            }
            Operation::Discard(index) => {
                let number = index as u64 % (self.memories + 2);
                let found = self.withdraw(number);
                assert_eq!(self.ledger.discard(number), found);
                if found {
                    self.extents.remove(&number);
                }
            }
        }
        self.check();
    }

    fn check(&self) {
        let Limits { arena_limit, most_outstanding, most_memories, most_retired, .. } = self.limits;
        self.place(PAGES);
        assert_eq!(self.ledger.outstanding(), self.outstanding());
        assert!(self.outstanding() <= most_outstanding);
        assert_eq!(self.ledger.bytes(), usize::try_from(self.bytes()).unwrap_or(usize::MAX));
        assert!(self.extents.len() * SIZE <= arena_limit);
        let is_first_extent_beyond = self.extents.len() == 1 && self.bytes() <= arena_limit as u128 + SIZE as u128;
        assert!(self.bytes() <= arena_limit as u128 || self.sealed.len() == 1 || is_first_extent_beyond);
        assert!(self.extents.len() < most_memories && self.extents.len() + self.sealed.len() <= most_memories);
        assert!(self.retired <= u128::from(most_retired));
        let open = self.extents.values().any(|extent| !extent.retiring);
        assert_eq!(self.ledger.wants_sweep(), open && self.may_retire());
    }

    /// Ends everything that is outstanding, from both sides.
    fn end_all(&mut self) {
        for block in self.pieces(true) {
            assert!(self.give_back(give_back_of(block)));
        }
        for block in self.pieces(false) {
            self.cancel(block);
        }
        for memory in self.wholes(true).into_iter().chain(self.retiring()) {
            assert!(self.give_back(GiveBack::Memory { memory }));
        }
        for number in self.wholes(false) {
            assert!(self.ledger.cancel_sealed(number) && self.sealed.remove(&number).is_some());
        }
        self.check();
        assert_eq!(self.ledger.outstanding(), 0);
    }

    /// Nothing is outstanding: all that the limits allow can be had.
    fn fill(&mut self) {
        let Limits { arena_limit, most_outstanding, most_memories, .. } = self.limits;
        let extents = (arena_limit / SIZE).min(most_memories - 1);
        for _ in 0..extents.min(most_outstanding) {
            assert!(self.allocate(SIZE, true).is_some());
            self.check();
        }
        assert_eq!(self.allocate(1, true), None);
    }
}

#[cfg(test)]
proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn a_ledger_is_a_list_of_what_was_lent(
        limits in limits(),
        operations in prop::collection::vec(operation(), 0..200),
        sealed_first in any::<bool>(),
    ) {
        let mut model = Model::new(limits);
        for operation in operations {
            model.run(operation);
        }
        model.end_all();
        if sealed_first {
            model.admit(usize::MAX, true);
            prop_assert_eq!(model.sealed.len(), 1, "one sealed memory alone is never refused");
            model.end_all();
        }
        model.fill();
        model.end_all();
    }
}

fn fuzzed_len(u: &mut Unstructured<'_>) -> arbitrary::Result<usize> {
    u.int_in_range(1..=SIZE)
}

/// As long as nothing is, too.
fn fuzzed_sealed(u: &mut Unstructured<'_>) -> arbitrary::Result<usize> {
    Ok(if u.arbitrary()? { u.int_in_range(1..=4 * SIZE)? } else { u.arbitrary::<usize>()?.max(1) })
}

fn fuzzed_give_back(u: &mut Unstructured<'_>) -> arbitrary::Result<GiveBack> {
    let memory = u64::from(u.arbitrary::<u8>()?);
    Ok(match u.arbitrary::<Option<(u8, u64)>>()? {
        Some((generation, offset)) => GiveBack::Block { memory, generation: generation.into(), offset },
        None => GiveBack::Memory { memory },
    })
}

/// Limits, operations by owner and peer, and the end of everything that is outstanding.
pub(crate) fn ledger(bytes: &[u8]) {
    let mut input = Unstructured::new(bytes);
    let Ok((arena, outstanding, memories, retired)) = input.arbitrary::<(Option<u16>, u8, u8, Option<u8>)>() else {
        return;
    };
    let limits = Limits {
        extent_size: SIZE,
        arena_limit: arena.map_or(usize::MAX, |bytes| SIZE + usize::from(bytes)),
        most_outstanding: 1 + usize::from(outstanding % 16),
        most_memories: 2 + usize::from(memories % 6),
        most_retired: retired.map_or(u64::MAX, |pages| u64::from(pages) * PAGE as u64),
    };
    let mut model = Model::new(limits);
    while let Ok(operation) = input.arbitrary::<Operation>()
        && !input.is_empty()
    {
        model.run(operation);
    }
    model.end_all();
    model.fill();
    model.end_all();
}
