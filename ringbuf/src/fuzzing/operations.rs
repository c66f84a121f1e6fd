//! A list of operations on a ring, and on a plain queue beside it.

use std::collections::VecDeque;

use arbitrary::{Arbitrary, Unstructured};
#[cfg(test)]
use proptest::prelude::*;

use crate::{
    Capacity, Claim, ClaimError, Consumer, Header, HeapCursor, HeapRing, Key, LINE, Polled, Producer, kind, reached,
};

/// The length that stands for the longest payload of any ring.
const LONGEST: u16 = u16::MAX;

#[derive(Arbitrary, Debug)]
struct Case {
    is_large: bool,
    /// Positions wrap at 2^64: a start shortly before.
    lines_before_the_end: Option<u8>,
    key: u64,
    operations: Vec<Operation>,
}

#[derive(Arbitrary, Clone, Debug)]
enum Operation {
    Send(Message),
    Abort(u16),
    /// Claims, and commits or aborts only later.
    Open(Message),
    /// Ends the open claim with this index, modulo their number.
    Close {
        index: u8,
        commit: bool,
    },
    /// Sends through a guard; nothing else can be claimed meanwhile.
    Exclusive(Vec<Message>),
    Receive(u8),
    /// Polls, and drops the frame without releasing it.
    Peek,
    PublishHead,
}

#[derive(Arbitrary, Clone, Debug)]
struct Message {
    /// Modulo what a frame carries at most, and one more; [`LONGEST`] is that most.
    len: u16,
    channel: u16,
    /// That of padding gives the claim up.
    kind: u8,
    flags: u8,
    fill: Fill,
    /// Where the payload is cut into two writes, in words.
    cut: u8,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Fill {
    Byte(u8),
    /// Every word is the stamp that the consumer will await there, so many laps later.
    Stamps(u8),
}

/// One claim as the queue sees it.
enum Entry {
    Open(usize),
    Aborted,
    Committed(Header, Vec<u8>),
}

impl Entry {
    fn committed(header: Header, payload: Vec<u8>) -> Self {
        if header.kind == kind::PADDING { Self::Aborted } else { Self::Committed(header, payload) }
    }
}

/// A claim that was made and not ended yet, with what will be committed.
struct Pending<'p> {
    id: usize,
    claim: Claim<'p, HeapRing, HeapCursor>,
    header: Header,
    payload: Vec<u8>,
}

struct Model<'p> {
    producer: &'p Producer<HeapRing, HeapCursor>,
    consumer: Consumer<HeapRing, HeapCursor>,
    capacity: Capacity,
    key: Key,
    queue: VecDeque<Entry>,
    open: Vec<Pending<'p>>,
    next_open: usize,
}

/// The consumer gets what a queue would give it.
pub fn ring_operations(bytes: &[u8]) {
    let Ok(case) = Case::arbitrary_take_rest(Unstructured::new(bytes)) else { return };
    let capacity = Capacity::new(if case.is_large { 16 * 1024 } else { 4096 }).unwrap();
    let start = case.lines_before_the_end.map_or(0, |lines| 0_u64.wrapping_sub(u64::from(lines) * LINE as u64));
    let Some(key) = Key::new(case.key) else { return };
    run(capacity, start, key, case.operations);
}

fn run(capacity: Capacity, start: u64, key: Key, operations: Vec<Operation>) {
    let (memory, head) = (HeapRing::new(capacity), HeapCursor::starting_at(start));
    let producer = Producer::starting_at(memory.clone(), head.clone(), key, start);
    let consumer = Consumer::starting_at(memory, head, key, start);
    let (queue, open) = (VecDeque::new(), Vec::new());
    let mut model = Model { producer: &producer, consumer, capacity, key, queue, open, next_open: 0 };
    for operation in operations {
        model.apply(operation);
    }
    while !model.open.is_empty() {
        model.close(0, true);
    }
    model.drain();
    assert!(model.queue.is_empty(), "{} messages were lost", model.queue.len());
}

impl<'p> Model<'p> {
    fn len(&self, len: u16) -> usize {
        let most = self.capacity.max_payload();
        if len == LONGEST { most } else { usize::from(len) % (most + 1) }
    }

    /// What a message consists of whose claim began at `tail`.
    fn content(&self, tail: u64, message: &Message) -> (Header, Vec<u8>) {
        let span = self.capacity.get() as u64;
        let len = self.len(message.len);
        let size = (len as u64 + 16).next_multiple_of(LINE as u64);
        let room = span - tail % span;
        let frame = if size <= room { tail } else { tail.wrapping_add(room) };
        let words = (0..len.div_ceil(8) as u64).flat_map(|word| match message.fill {
            Fill::Byte(byte) => [byte; 8],
            Fill::Stamps(laps) => {
                let line = frame.wrapping_add((16 + word * 8) / 64 * 64);
                (line.wrapping_add(u64::from(laps) * span) ^ self.key.get()).to_le_bytes()
            }
        });
        let header = Header { channel: message.channel, kind: message.kind, flags: message.flags };
        (header, words.take(len).collect())
    }

    fn write(claim: &mut Claim<'_, HeapRing, HeapCursor>, message: &Message, payload: &[u8]) {
        let cut = (usize::from(message.cut) * 8).min(payload.len() / 8 * 8);
        claim.write(0, &payload[..cut]);
        claim.write(cut, &payload[cut..]);
    }

    /// Claims, after making room if need be; `None` when an open claim keeps the ring full.
    fn claim(&mut self, len: u16) -> Option<(u64, Claim<'p, HeapRing, HeapCursor>)> {
        let (tail, len) = (self.producer.tail(), self.len(len));
        // A hint, wherever the tail is.
        self.producer.prefetch();
        match self.producer.try_claim(len) {
            Ok(claim) => Some((tail, claim)),
            Err(ClaimError::Full { wanted }) => {
                self.check_wanted(tail, wanted);
                if !self.open.is_empty() {
                    return None;
                }
                self.drain();
                Some((tail, self.producer.try_claim(len).expect("an empty ring has room for any frame")))
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn check_wanted(&self, tail: u64, wanted: u64) {
        assert!(!reached(self.consumer.published_head(), wanted), "it was full though {wanted} had been reached");
        assert!(reached(tail, wanted), "the head can never come to {wanted}");
    }

    fn drain(&mut self) {
        while self.look(true) {}
        self.consumer.publish_head();
        assert_eq!(self.consumer.head(), self.consumer.published_head());
        if self.open.is_empty() {
            assert_eq!(self.consumer.head(), self.producer.tail());
        }
    }

    /// Polls once and compares with the queue's first message, if its turn has come.
    fn look(&mut self, release: bool) -> bool {
        while let Some(Entry::Aborted) = self.queue.front() {
            self.queue.pop_front();
        }
        while matches!(self.consumer.poll().expect("an honest producer"), Polled::Padding) {}
        let frame = self.consumer.poll().expect("an honest producer").frame();
        let Some(Entry::Committed(header, payload)) = self.queue.front() else {
            assert!(frame.is_none(), "{frame:?} was never sent");
            return false;
        };
        let frame = frame.expect("a committed frame is there");
        assert_eq!((frame.header(), frame.len()), (*header, payload.len()));
        let mut copy = vec![0xA5; payload.len()];
        frame.copy_to(&mut copy);
        assert_eq!(&copy, payload);
        let middle = payload.len() / 16 * 8;
        let mut part = vec![0x5A; payload.len() - middle];
        frame.copy_range_to(middle, &mut part);
        assert_eq!(part, payload[middle..]);
        if release {
            frame.release();
            self.queue.pop_front();
        }
        true
    }

    fn apply(&mut self, operation: Operation) {
        match operation {
            Operation::Send(message) => {
                let Some((tail, mut claim)) = self.claim(message.len) else { return };
                let (header, payload) = self.content(tail, &message);
                Self::write(&mut claim, &message, &payload);
                claim.commit(header);
                self.queue.push_back(Entry::committed(header, payload));
            }
            Operation::Abort(len) => {
                let Some((_, claim)) = self.claim(len) else { return };
                drop(claim);
                self.queue.push_back(Entry::Aborted);
            }
            Operation::Open(message) => {
                let Some((tail, mut claim)) = self.claim(message.len) else { return };
                let (header, payload) = self.content(tail, &message);
                Self::write(&mut claim, &message, &payload);
                self.queue.push_back(Entry::Open(self.next_open));
                self.open.push(Pending { id: self.next_open, claim, header, payload });
                self.next_open += 1;
            }
            Operation::Close { index, commit } => {
                if !self.open.is_empty() {
                    self.close(usize::from(index) % self.open.len(), commit);
                }
            }
            Operation::Exclusive(messages) => self.send_held(messages),
            Operation::Receive(times) => {
                for _ in 0..times {
                    self.look(true);
                }
            }
            Operation::Peek => {
                self.look(false);
            }
            Operation::PublishHead => {
                let behind = self.consumer.head() != self.consumer.published_head();
                assert_eq!(self.consumer.publish_head(), behind);
            }
        }
    }

    fn send_held(&mut self, messages: Vec<Message>) {
        let mut guard = self.producer.exclusive().expect("nobody holds it");
        assert!(matches!(self.producer.try_claim(0), Err(ClaimError::Held)));
        assert!(self.producer.exclusive().is_err());
        for message in messages {
            let tail = guard.tail();
            guard.prefetch();
            let mut claim = match guard.try_claim(self.len(message.len)) {
                Ok(claim) => claim,
                Err(ClaimError::Full { wanted }) => {
                    self.check_wanted(tail, wanted);
                    continue;
                }
                Err(error) => panic!("{error}"),
            };
            let (header, payload) = self.content(tail, &message);
            Self::write(&mut claim, &message, &payload);
            claim.commit(header);
            self.queue.push_back(Entry::committed(header, payload));
        }
        let tail = guard.tail();
        drop(guard);
        assert_eq!(self.producer.tail(), tail);
    }

    fn close(&mut self, index: usize, commit: bool) {
        let Pending { id, claim, header, payload } = self.open.swap_remove(index);
        let closed = if commit {
            claim.commit(header);
            Entry::committed(header, payload)
        } else {
            claim.abort();
            Entry::Aborted
        };
        let entry = self.queue.iter_mut().find(|entry| matches!(entry, Entry::Open(open) if *open == id));
        *entry.expect("an open claim is in the queue") = closed;
    }
}

#[cfg(test)]
fn message() -> impl Strategy<Value = Message> {
    let len = prop_oneof![4 => 0..=64_u16, 4 => any::<u16>(), 1 => Just(LONGEST)];
    let kind = prop_oneof![1 => Just(kind::PADDING), 6 => 1..=u8::MAX];
    let fill = prop_oneof![any::<u8>().prop_map(Fill::Byte), (1..4_u8).prop_map(Fill::Stamps)];
    (len, any::<u16>(), kind, any::<u8>(), fill, 0..8_u8).prop_map(|(len, channel, kind, flags, fill, cut)| Message {
        len,
        channel,
        kind,
        flags,
        fill,
        cut,
    })
}

#[cfg(test)]
fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        8 => message().prop_map(Operation::Send),
        1 => any::<u16>().prop_map(Operation::Abort),
        2 => message().prop_map(Operation::Open),
        3 => (any::<u8>(), any::<bool>()).prop_map(|(index, commit)| Operation::Close { index, commit }),
        2 => prop::collection::vec(message(), 0..8).prop_map(Operation::Exclusive),
        3 => (1..12_u8).prop_map(Operation::Receive),
        1 => Just(Operation::Peek),
        1 => Just(Operation::PublishHead),
    ]
}

/// A capacity and a first position, often just before positions wrap.
#[cfg(test)]
fn ring() -> impl Strategy<Value = (Capacity, u64)> {
    // Most often a small one, whose end comes soonest.
    let capacity = prop_oneof![4 => Just(12), 3 => 9..=17_u32].prop_map(|bits| 1_usize << bits);
    capacity.prop_flat_map(|bytes| {
        let laps = 0..4 * bytes as u64 / LINE as u64;
        let position = prop_oneof![
            Just(0),
            laps.prop_map(|lines| 0_u64.wrapping_sub(lines * LINE as u64)),
            any::<u64>().prop_map(|position| position & !63),
        ];
        (Just(Capacity::new(bytes).unwrap()), position)
    })
}

#[cfg(test)]
proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn the_consumer_gets_what_a_queue_would_give_it(
        (capacity, start) in ring(),
        key in any::<u64>().prop_filter_map("needs one of its low six bits", Key::new),
        operations in prop::collection::vec(operation(), 0..200),
    ) {
        run(capacity, start, key, operations);
    }
}
