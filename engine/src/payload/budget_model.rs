//! Whatever an honest sender lends, and in whatever order it is sent, taken and given back, the receiver's budget never
//! refuses it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proptest::prelude::*;

use super::budget::Budget;
use super::ledger::{Block, Ledger, Limits, Room};
use super::{MOST_MEMORIES, MOST_OUTSTANDING, PAGE, PayloadLimits};
use crate::outbox::GiveBack;

const PAGES: usize = 3;
const SIZE: usize = PAGES * PAGE;

/// Indices pick one of what there is, modulo its number.
#[derive(Clone, Debug)]
enum Operation {
    /// Room for this many bytes is taken, and nothing is sent yet.
    Take(usize),
    TakeSealed(usize),
    /// All that is left, in two pieces.
    TakeRestSealed,
    /// As many as there may be, and each is sent.
    SendManySealed,
    Send(usize),
    /// The descriptor is passed, and the ring is full.
    PassOnly(usize),
    /// An answer that its caller does not take.
    SendAbandoned(usize),
    Cancel(usize),
    /// Whether the peer can be told.
    Sweep(bool),
    RetireFreeFor(usize, bool),
    /// The receiver reads a packet from the socket.
    Hear,
    /// And a frame from the ring.
    Deliver,
    Drop(usize),
    /// The sender reads a give-back.
    Collect,
}

fn operation() -> impl Strategy<Value = Operation> {
    let index = any::<usize>;
    let sealed = || prop_oneof![4 => 1..=2 * SIZE, 2 => 1..=4 * SIZE, 1 => Just(100 * SIZE)];
    prop_oneof![
        6 => (1..=SIZE).prop_map(Operation::Take),
        6 => sealed().prop_map(Operation::TakeSealed),
        2 => Just(Operation::TakeRestSealed),
        1 => Just(Operation::SendManySealed),
        8 => index().prop_map(Operation::Send),
        1 => index().prop_map(Operation::PassOnly),
        1 => index().prop_map(Operation::SendAbandoned),
        1 => index().prop_map(Operation::Cancel),
        2 => any::<bool>().prop_map(Operation::Sweep),
        2 => (sealed(), any::<bool>()).prop_map(|(len, told)| Operation::RetireFreeFor(len, told)),
        2 => Just(Operation::Hear),
        8 => Just(Operation::Deliver),
        6 => index().prop_map(Operation::Drop),
        8 => Just(Operation::Collect),
    ]
}

#[derive(Clone, Copy, Debug)]
enum Payload {
    Block(Block),
    Sealed { number: u64, len: usize },
}

impl Payload {
    fn memory(self) -> u64 {
        match self {
            Self::Block(block) => block.memory,
            Self::Sealed { number, .. } => number,
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Frame {
    Payload(Payload),
    Retire(u64),
}

#[derive(Default)]
struct Extent {
    held: usize,
    retired: bool,
}

/// Both ends, and what is on its way between them.
struct Model {
    limits: PayloadLimits,
    ledger: Ledger,
    loans: Vec<Payload>,
    passed: BTreeSet<u64>,
    socket: VecDeque<u64>,
    ring: VecDeque<Frame>,
    budget: Budget,
    heard: BTreeSet<u64>,
    extents: BTreeMap<u64, Extent>,
    held: Vec<Payload>,
    given: VecDeque<GiveBack>,
}

fn pick<T>(index: usize, from: &mut Vec<T>) -> Option<T> {
    (!from.is_empty()).then(|| from.swap_remove(index % from.len()))
}

impl Model {
    fn new(arena_limit: usize) -> Self {
        let limits = PayloadLimits { extent_size: SIZE, arena_limit, message_limit: usize::MAX, sealed_from: SIZE };
        let ledger = Ledger::new(Limits {
            extent_size: SIZE,
            arena_limit,
            most_outstanding: MOST_OUTSTANDING,
            most_memories: MOST_MEMORIES,
            most_retired: u64::MAX,
        });
        Self {
            limits,
            ledger,
            loans: Vec::new(),
            passed: BTreeSet::new(),
            socket: VecDeque::new(),
            ring: VecDeque::new(),
            budget: Budget::default(),
            heard: BTreeSet::new(),
            extents: BTreeMap::new(),
            held: Vec::new(),
            given: VecDeque::new(),
        }
    }

    fn take(&mut self, len: usize) {
        let block = match self.ledger.allocate(len) {
            Err(Room::Extent) => {
                self.ledger.add_extent();
                self.ledger.allocate(len)
            }
            found => found,
        };
        self.loans.extend(block.map(Payload::Block));
    }

    fn take_sealed(&mut self, len: usize) -> bool {
        let number = self.ledger.admit_sealed(len);
        self.loans.extend(number.map(|number| Payload::Sealed { number, len }));
        number.is_ok()
    }

    fn pass(&mut self, memory: u64) {
        if self.passed.insert(memory) {
            self.socket.push_back(memory);
        }
    }

    fn lend(&mut self, payload: Payload) {
        match payload {
            Payload::Block(block) => self.ledger.lend(&block),
            Payload::Sealed { number, .. } => self.ledger.lend_sealed(number),
        }
        self.pass(payload.memory());
    }

    fn send(&mut self, index: usize) {
        if let Some(payload) = pick(index, &mut self.loans) {
            self.lend(payload);
            self.ring.push_back(Frame::Payload(payload));
        }
    }

    fn retire(&mut self, numbers: Vec<u64>, told: bool) {
        for number in numbers {
            if !self.passed.contains(&number) {
                assert!(self.ledger.discard(number));
            } else if told {
                self.ring.push_back(Frame::Retire(number));
            } else {
                assert!(self.ledger.unretire(number));
            }
        }
    }

    fn hear(&mut self) -> bool {
        let Some(number) = self.socket.pop_front() else { return false };
        assert_eq!(self.budget.pass(), Ok(()));
        self.heard.insert(number);
        true
    }

    fn deliver(&mut self) {
        let Some(frame) = self.ring.pop_front() else { return };
        // As the receiver does: only if the memory is not known yet.
        let (Frame::Retire(memory) | Frame::Payload(Payload::Block(Block { memory, .. }))) = frame else {
            let Frame::Payload(payload @ Payload::Sealed { number, len }) = frame else { unreachable!() };
            while !self.heard.contains(&number) && self.hear() {}
            assert!(self.heard.remove(&number), "a descriptor is sent before its frame");
            assert_eq!(self.budget.admit_sealed(len as u64, &self.limits), Ok(()));
            return self.held.push(payload);
        };
        while !self.extents.contains_key(&memory) && !self.heard.contains(&memory) && self.hear() {}
        match frame {
            Frame::Payload(payload) => {
                if self.heard.remove(&memory) {
                    assert_eq!(self.budget.admit_extent(&self.limits), Ok(()));
                    self.extents.insert(memory, Extent::default());
                }
                self.extents.get_mut(&memory).expect("a block lies in an extent that was passed").held += 1;
                self.held.push(payload);
            }
            Frame::Retire(_) if self.heard.remove(&memory) => {
                self.budget.forget();
                self.given.push_back(GiveBack::Memory { memory });
            }
            Frame::Retire(_) => {
                self.extents.get_mut(&memory).expect("an extent that was passed is retired").retired = true;
                self.unmap_if_unused(memory);
            }
        }
    }

    fn unmap_if_unused(&mut self, memory: u64) {
        if self.extents.get(&memory).is_some_and(|extent| extent.retired && extent.held == 0) {
            self.extents.remove(&memory);
            self.budget.end_extent();
            self.given.push_back(GiveBack::Memory { memory });
        }
    }

    fn drop_held(&mut self, payload: Payload) {
        match payload {
            Payload::Block(Block { memory, offset, generation, .. }) => {
                self.given.push_back(GiveBack::Block { memory, generation, offset: offset as u64 });
                self.extents.get_mut(&memory).expect("mapped while a block of it is held").held -= 1;
                self.unmap_if_unused(memory);
            }
            Payload::Sealed { number, len } => {
                self.budget.end_sealed(len as u64);
                self.given.push_back(GiveBack::Memory { memory: number });
            }
        }
    }

    fn collect(&mut self) {
        if let Some(given) = self.given.pop_front() {
            let result = self.ledger.give_back(given);
            assert!(result.is_ok(), "{given:?}: {result:?}");
        }
    }

    fn cancel(&mut self, payload: Payload) {
        assert!(match payload {
            Payload::Block(block) => self.ledger.cancel(&block),
            Payload::Sealed { number, .. } => self.ledger.cancel_sealed(number),
        });
    }

    fn run(&mut self, operation: Operation) {
        match operation {
            Operation::Take(len) => self.take(len),
            Operation::TakeSealed(len) => _ = self.take_sealed(len),
            Operation::TakeRestSealed => {
                let rest = self.limits.arena_limit.saturating_sub(self.ledger.bytes());
                if rest > 1 {
                    self.take_sealed(rest / 2);
                    self.take_sealed(rest - rest / 2);
                }
            }
            Operation::SendManySealed => {
                while self.take_sealed(1) {
                    self.send(self.loans.len() - 1);
                }
            }
            Operation::Send(index) => self.send(index),
            Operation::PassOnly(index) => {
                let blocks = self.loans.iter().filter(|loan| matches!(loan, Payload::Block(_)));
                if let Some(payload) = pick(index, &mut blocks.copied().collect()) {
                    self.pass(payload.memory());
                }
            }
            Operation::SendAbandoned(index) => {
                if let Some(payload) = pick(index, &mut self.loans) {
                    self.lend(payload);
                    match payload {
                        Payload::Block(_) => self.cancel(payload),
                        Payload::Sealed { number, .. } => self.ring.push_back(Frame::Retire(number)),
                    }
                }
            }
            Operation::Cancel(index) => {
                if let Some(payload) = pick(index, &mut self.loans) {
                    self.cancel(payload);
                }
            }
            Operation::Sweep(told) => {
                let idle = self.ledger.sweep();
                self.retire(idle, told);
            }
            Operation::RetireFreeFor(len, told) => {
                if !self.ledger.has_room_for_sealed(len) {
                    let unused = self.ledger.retire_free_for(len);
                    self.retire(unused, told);
                }
            }
            Operation::Hear => _ = self.hear(),
            Operation::Deliver => self.deliver(),
            Operation::Drop(index) => {
                if let Some(payload) = pick(index, &mut self.held) {
                    self.drop_held(payload);
                }
            }
            Operation::Collect => self.collect(),
        }
    }

    /// Ends everything, in order.
    fn end_all(&mut self) {
        while let Some(payload) = self.loans.pop() {
            self.cancel(payload);
        }
        while !self.ring.is_empty() {
            self.deliver();
        }
        while let Some(payload) = self.held.pop() {
            self.drop_held(payload);
        }
        while !self.given.is_empty() {
            self.collect();
        }
        assert_eq!(self.ledger.outstanding(), 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn an_honest_sender_never_overdraws(
        arena_limit in prop_oneof![SIZE..5 * SIZE, Just(70 * SIZE), Just(usize::MAX)],
        operations in prop::collection::vec(operation(), 0..200),
    ) {
        let mut model = Model::new(arena_limit);
        for operation in operations {
            model.run(operation);
        }
        model.end_all();
    }
}
