//! A producer that writes anything anywhere, and a consumer that says anything: each against an honest other half.

use arbitrary::{Arbitrary, Unstructured};

use crate::memory::{OwnCursor, RingWrite};
use crate::{Capacity, ClaimError, Consumer, Header, HeapCursor, HeapRing, Key, LINE, Polled, Producer, kind, reached};

const CAPACITY: u64 = 4096;

/// The frames of padding that one poll passes at most.
const PADDING: u64 = 4;

#[derive(Arbitrary, Debug)]
struct Case {
    lines_before_the_end: Option<u8>,
    key: u64,
    what: What,
}

#[derive(Arbitrary, Debug)]
enum What {
    Producer(Vec<Forgery>),
    Consumer(Vec<Step>),
}

/// What a hostile producer does, and when it is read.
#[derive(Arbitrary, Debug)]
enum Forgery {
    /// Bytes into the ring, from a word on.
    Bytes {
        word: u16,
        bytes: Vec<u8>,
    },
    /// A published frame, so many lines behind the head.
    Frame {
        lines: u8,
        len: u32,
        kind: u8,
    },
    /// One whose length may be right.
    SmallFrame {
        lines: u8,
        len: u16,
        kind: u8,
    },
    /// As many lines of padding.
    Padding {
        lines: u8,
        many: u8,
    },
    Poll {
        release: bool,
    },
    PublishHead,
}

/// A claim behind a head that was said to be anywhere.
#[derive(Arbitrary, Debug)]
struct Step {
    len: u16,
    head: Head,
    held: bool,
}

#[derive(Arbitrary, Debug)]
enum Head {
    Lines(u8),
    Bytes(u16),
    Any(u64),
}

/// Each half stays within its memory, ends, and says what was wrong.
pub fn ring_hostile(bytes: &[u8]) {
    let Ok(case) = Case::arbitrary_take_rest(Unstructured::new(bytes)) else { return };
    let start = case.lines_before_the_end.map_or(0, |lines| 0_u64.wrapping_sub(u64::from(lines) * LINE as u64));
    let Some(key) = Key::new(case.key) else { return };
    match case.what {
        What::Producer(forgeries) => consume(start, key, forgeries),
        What::Consumer(steps) => produce(start, key, steps),
    }
}

fn consume(start: u64, key: Key, forgeries: Vec<Forgery>) {
    let capacity = Capacity::new(CAPACITY as usize).unwrap();
    let memory = HeapRing::new(capacity);
    let mut consumer = Consumer::starting_at(memory.clone(), HeapCursor::starting_at(start), key, start);
    let forge = |position: u64, len: u32, kind: u8| {
        let offset = capacity.offset(position);
        memory.store(offset + 8, u64::from(len) | u64::from(kind) << 48);
        memory.publish(offset, key.stamp(position));
    };
    let mut payload = vec![0; capacity.max_payload()];
    for forgery in forgeries {
        let behind = |lines: u8| consumer.head().wrapping_add(u64::from(lines) * LINE as u64);
        match forgery {
            Forgery::Bytes { word, bytes } => {
                for (index, chunk) in bytes.chunks_exact(8).enumerate() {
                    let offset = (usize::from(word) + index) * 8 % CAPACITY as usize;
                    memory.store(offset, u64::from_le_bytes(chunk.try_into().unwrap()));
                }
            }
            Forgery::Frame { lines, len, kind } => forge(behind(lines), len, kind),
            Forgery::SmallFrame { lines, len, kind } => forge(behind(lines), u32::from(len % 600), kind),
            Forgery::Padding { lines, many } => {
                (0..u64::from(many)).for_each(|line| forge(behind(lines).wrapping_add(line * 64), 48, kind::PADDING));
            }
            Forgery::Poll { release } => {
                let (head, published) = (consumer.head(), consumer.published_head());
                match consumer.poll() {
                    Ok(Polled::Frame(frame)) => {
                        let len = frame.len();
                        assert_ne!(frame.header().kind, kind::PADDING);
                        assert!(capacity.offset(frame.position()) + 16 + len <= CAPACITY as usize);
                        frame.copy_to(&mut payload[..len]);
                        if release {
                            frame.release();
                        }
                    }
                    Ok(Polled::Padding) => assert!(consumer.is_ready() && consumer.head() != head),
                    Ok(Polled::Empty) => assert!(!consumer.is_ready()),
                    Err(error) => {
                        assert_eq!(consumer.published_head(), published, "nothing is given back to such a peer");
                        assert_eq!(consumer.poll().unwrap_err(), error, "it does not get better");
                        return;
                    }
                }
                assert!(consumer.head().wrapping_sub(head) <= (PADDING + 1) * CAPACITY / 8);
                assert!(consumer.head().wrapping_sub(consumer.published_head()) < CAPACITY / 4);
            }
            Forgery::PublishHead => {
                consumer.publish_head();
                assert_eq!(consumer.published_head(), consumer.head());
            }
        }
    }
}

fn produce(start: u64, key: Key, steps: Vec<Step>) {
    let capacity = Capacity::new(CAPACITY as usize).unwrap();
    let head = HeapCursor::starting_at(start);
    let producer = Producer::starting_at(HeapRing::new(capacity), head.clone(), key, start);
    // Every head that the producer has believed is this one or before it.
    let mut said = start;
    let mut believed = start;
    for Step { len, head: forged, held } in steps {
        said = match forged {
            Head::Lines(lines) => said.wrapping_add(u64::from(lines) * LINE as u64),
            Head::Bytes(bytes) => said.wrapping_add(u64::from(bytes)),
            Head::Any(position) => position,
        };
        head.store(said);
        let len = usize::from(len) % (capacity.max_payload() + 2);
        let tail = producer.tail();
        let header = Header { channel: 1, kind: 1, flags: 0 };
        let outcome = if held {
            let mut guard = producer.exclusive().unwrap();
            guard.try_claim(len).map(|claim| claim.commit(header))
        } else {
            producer.try_claim(len).map(|claim| claim.commit(header))
        };
        let can_be = said.is_multiple_of(LINE as u64) && reached(tail, said);
        match outcome {
            Ok(()) => {
                let end = producer.tail();
                assert!(reached(end, tail) && end.wrapping_sub(tail) <= CAPACITY * 3 / 8 + CAPACITY / 8);
                // Every claim fits some head that was said and could be.
                if can_be && reached(said, believed) {
                    believed = said;
                }
                assert!(end.wrapping_add(64).wrapping_sub(believed) <= CAPACITY);
            }
            Err(ClaimError::Full { wanted }) => {
                assert!(can_be && !reached(said, wanted) && reached(tail, wanted));
                believed = said;
            }
            Err(ClaimError::TooLarge { .. }) => assert!(len > capacity.max_payload()),
            Err(ClaimError::Corrupt(_)) => assert!(!can_be || !reached(said, believed) || said != believed),
            Err(ClaimError::Held) => panic!("nobody holds the tail"),
        }
        if !can_be {
            said = believed;
        }
    }
}
