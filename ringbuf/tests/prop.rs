//! Whatever is done to a ring, the consumer gets what a queue would give it.
#![cfg(not(loom))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::cast_possible_truncation)]

use std::collections::VecDeque;

use memit_ringbuf::{
    Capacity, Claim, ClaimError, Consumer, Header, HeapCursor, HeapRing, Key, LINE, Polled, Producer, reached,
};
use proptest::prelude::*;

type Sender = Producer<HeapRing, HeapCursor>;
type Receiver = Consumer<HeapRing, HeapCursor>;

#[derive(Clone, Debug)]
enum Operation {
    Send(Message),
    Abort(usize),
    /// Claims, and commits or aborts only later.
    Open(Message),
    /// Ends the open claim with this index, modulo their number.
    Close {
        index: usize,
        commit: bool,
    },
    /// Sends through a guard, or claims and aborts where the message comes with `false`; nothing else can be claimed
    /// meanwhile.
    Exclusive(Vec<(Message, bool)>),
    Receive(usize),
    /// Polls, and drops the frame without releasing it.
    Peek,
    PublishHead,
}

#[derive(Clone, Debug)]
struct Message {
    len: usize,
    header: Header,
    fill: Fill,
    /// Where the payload is cut into two writes, in words.
    cut: usize,
}

#[derive(Clone, Copy, Debug)]
enum Fill {
    Byte(u8),
    /// Every word is the stamp that the consumer will await there, this many laps later.
    Stamps(u64),
}

/// One claim as the queue sees it.
enum Entry {
    Open(usize),
    Aborted,
    Committed(Header, Vec<u8>),
}

/// A claim that was made and not ended yet, with what will be committed.
struct Pending<'p> {
    id: usize,
    claim: Claim<'p, HeapRing, HeapCursor>,
    header: Header,
    payload: Vec<u8>,
}

struct Model<'p> {
    producer: &'p Sender,
    consumer: Receiver,
    capacity: u64,
    key: Key,
    queue: VecDeque<Entry>,
    open: Vec<Pending<'p>>,
    next_open: usize,
}

impl<'p> Model<'p> {
    /// The payload of a message whose frame begins behind `tail`.
    fn payload(&self, tail: u64, message: &Message) -> Vec<u8> {
        let size = (message.len as u64 + 16).next_multiple_of(LINE as u64);
        let room = self.capacity - tail % self.capacity;
        let frame = if size <= room { tail } else { tail.wrapping_add(room) };
        let words = (0..message.len.div_ceil(8) as u64).flat_map(|word| match message.fill {
            Fill::Byte(byte) => [byte; 8],
            Fill::Stamps(laps) => {
                let line = frame.wrapping_add((16 + word * 8) / 64 * 64);
                (line.wrapping_add(laps * self.capacity) ^ self.key.get()).to_le_bytes()
            }
        });
        words.take(message.len).collect()
    }

    fn write(claim: &mut Claim<'_, HeapRing, HeapCursor>, message: &Message, payload: &[u8]) {
        let cut = (message.cut * 8).min(payload.len() / 8 * 8);
        claim.write(0, &payload[..cut]);
        claim.write(cut, &payload[cut..]);
    }

    /// Claims, after making room if need be; `None` when an open claim keeps the ring full.
    fn claim(&mut self, len: usize) -> Option<(u64, Claim<'p, HeapRing, HeapCursor>)> {
        let tail = self.producer.tail();
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
                assert_eq!(claim.len(), message.len);
                let payload = self.payload(tail, &message);
                Self::write(&mut claim, &message, &payload);
                claim.commit(message.header);
                self.queue.push_back(Entry::Committed(message.header, payload));
            }
            Operation::Abort(len) => {
                let Some((_, claim)) = self.claim(len) else { return };
                drop(claim);
                self.queue.push_back(Entry::Aborted);
            }
            Operation::Open(message) => {
                let Some((tail, mut claim)) = self.claim(message.len) else { return };
                let payload = self.payload(tail, &message);
                Self::write(&mut claim, &message, &payload);
                self.queue.push_back(Entry::Open(self.next_open));
                self.open.push(Pending { id: self.next_open, claim, header: message.header, payload });
                self.next_open += 1;
            }
            Operation::Close { index, commit } => {
                if !self.open.is_empty() {
                    self.close(index % self.open.len(), commit);
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

    fn send_held(&mut self, messages: Vec<(Message, bool)>) {
        let mut guard = self.producer.exclusive().expect("nobody holds it");
        assert!(matches!(self.producer.try_claim(0), Err(ClaimError::Held)));
        assert!(self.producer.exclusive().is_err());
        for (message, commit) in messages {
            let tail = guard.tail();
            let mut claim = match guard.try_claim(message.len) {
                Ok(claim) => claim,
                Err(ClaimError::Full { wanted }) => {
                    self.check_wanted(tail, wanted);
                    continue;
                }
                Err(error) => panic!("{error}"),
            };
            let payload = self.payload(tail, &message);
            Self::write(&mut claim, &message, &payload);
            self.queue.push_back(if commit {
                claim.commit(message.header);
                Entry::Committed(message.header, payload)
            } else {
                claim.abort();
                Entry::Aborted
            });
        }
        let tail = guard.tail();
        drop(guard);
        assert_eq!(self.producer.tail(), tail);
    }

    fn close(&mut self, index: usize, commit: bool) {
        let Pending { id, claim, header, payload } = self.open.swap_remove(index);
        let closed = if commit {
            claim.commit(header);
            Entry::Committed(header, payload)
        } else {
            claim.abort();
            Entry::Aborted
        };
        let entry = self.queue.iter_mut().find(|entry| matches!(entry, Entry::Open(open) if *open == id));
        *entry.expect("an open claim is in the queue") = closed;
    }
}

fn message(max: usize) -> impl Strategy<Value = Message> {
    let len = prop_oneof![4 => 0..=64.min(max), 4 => 0..=max, 1 => Just(max)];
    let fill = prop_oneof![any::<u8>().prop_map(Fill::Byte), (1..4_u64).prop_map(Fill::Stamps)];
    let header = (any::<u16>(), 1..=u8::MAX, any::<u8>());
    (len, fill, header, 0..8_usize).prop_map(|(len, fill, (channel, kind, flags), cut)| Message {
        len,
        fill,
        header: Header { channel, kind, flags },
        cut,
    })
}

fn operation(max: usize) -> impl Strategy<Value = Operation> {
    prop_oneof![
        8 => message(max).prop_map(Operation::Send),
        1 => (0..=max).prop_map(Operation::Abort),
        2 => message(max).prop_map(Operation::Open),
        3 => (any::<usize>(), any::<bool>()).prop_map(|(index, commit)| Operation::Close { index, commit }),
        2 => prop::collection::vec((message(max), prop::bool::weighted(0.8)), 0..8).prop_map(Operation::Exclusive),
        3 => (1..12_usize).prop_map(Operation::Receive),
        1 => Just(Operation::Peek),
        1 => Just(Operation::PublishHead),
    ]
}

/// A capacity, a first position (often just before positions wrap), a key, and what happens.
fn case() -> impl Strategy<Value = (Capacity, u64, Key, Vec<Operation>)> {
    // Most often the smallest, whose end comes soonest.
    let capacity = prop_oneof![4 => Just(12), 3 => 12..=17_u32].prop_map(|bits| 1_usize << bits);
    capacity.prop_flat_map(|bytes| {
        let capacity = Capacity::new(bytes).unwrap();
        let laps = 0..4 * bytes as u64 / 64;
        let position = prop_oneof![
            Just(0),
            laps.prop_map(|lines| 0_u64.wrapping_sub(lines * 64)),
            any::<u64>().prop_map(|position| position & !63),
        ];
        let key = any::<u64>().prop_filter_map("needs one of its low six bits", Key::new);
        let operations = prop::collection::vec(operation(capacity.max_payload()), 0..200);
        (Just(capacity), position, key, operations)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn the_consumer_gets_what_a_queue_would_give_it((capacity, position, key, operations) in case()) {
        let memory = HeapRing::new(capacity);
        let head = HeapCursor::starting_at(position);
        let producer = Producer::starting_at(memory.clone(), head.clone(), key, position);
        let consumer = Consumer::starting_at(memory, head, key, position);
        let mut model = Model {
            producer: &producer,
            consumer,
            capacity: capacity.get() as u64,
            key,
            queue: VecDeque::new(),
            open: Vec::new(),
            next_open: 0,
        };
        for operation in operations {
            model.apply(operation);
        }
        while !model.open.is_empty() {
            model.close(0, true);
        }
        model.drain();
        assert!(model.queue.is_empty(), "{} messages were lost", model.queue.len());
    }

    #[test]
    fn a_payload_beyond_the_limit_is_refused_and_takes_nothing(bits in 12..20_u32, over in 1..100_000_usize) {
        let capacity = Capacity::new(1 << bits).unwrap();
        let key = Key::new(1).unwrap();
        let producer = Producer::new(HeapRing::new(capacity), HeapCursor::new(), key);
        let (max, len) = (capacity.max_payload(), capacity.max_payload() + over);
        prop_assert_eq!(producer.max_payload(), max);
        prop_assert_eq!(producer.try_claim(len).unwrap_err(), ClaimError::TooLarge { len, max });
        prop_assert!(producer.try_claim(usize::MAX).is_err());
        prop_assert_eq!(producer.tail(), 0);
    }
}
