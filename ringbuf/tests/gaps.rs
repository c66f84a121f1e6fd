//! Claims that are never ended, as by a process that died in the middle of them, hide nothing that was published behind.
#![cfg(not(loom))]
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::mem;

use memit_ringbuf::{Capacity, ClaimError, Consumer, Header, HeapCursor, HeapRing, Key, Polled, Producer};
use proptest::prelude::*;

#[derive(Clone, Copy, Debug)]
enum End {
    Commit,
    Abort,
    /// Half of it is written, and nothing more happens.
    Never,
}

#[derive(Clone, Debug)]
struct Claimed {
    len: usize,
    end: End,
    /// Its words are the stamps of their positions this many laps before. Not of this lap or a later one: nobody who
    /// chooses payloads knows the key.
    laps: u64,
}

fn claimed() -> impl Strategy<Value = Claimed> {
    let end = prop_oneof![4 => Just(End::Commit), 1 => Just(End::Abort), 2 => Just(End::Never)];
    (0..497_usize, end, 1..3_u64).prop_map(|(len, end, laps)| Claimed { len, end, laps })
}

/// What a consumer finds, over all gaps.
fn drain(consumer: &mut Consumer<HeapRing, HeapCursor>) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    loop {
        match consumer.poll().expect("an honest producer") {
            Polled::Frame(frame) => {
                let mut payload = vec![0; frame.len()];
                frame.copy_to(&mut payload);
                frame.release();
                found.push(payload);
            }
            Polled::Padding => {}
            Polled::Empty => {
                if !consumer.skip_gap() {
                    return found;
                }
            }
        }
    }
}

proptest! {
    #[test]
    fn everything_published_behind_a_claim_that_never_ends_is_found_once_and_in_order(
        start in any::<u64>(),
        before in 0..40_usize,
        claims in prop::collection::vec(claimed(), 0..40),
    ) {
        let (capacity, key) = (Capacity::new(4096).unwrap(), Key::new(0x9E37_79B9_7F4A_7C15).unwrap());
        let start = start & !63;
        let (ring, head) = (HeapRing::new(capacity), HeapCursor::starting_at(start));
        let producer = Producer::starting_at(ring.clone(), head.clone(), key, start);
        let mut consumer = Consumer::starting_at(ring, head, key, start);
        // Laps before, so that the gaps are full of old frames.
        for _ in 0..before {
            producer.try_claim(100).unwrap().commit(Header { channel: 1, kind: 1, flags: 0 });
            drain(&mut consumer);
            consumer.publish_head();
        }

        let mut published = Vec::new();
        for Claimed { len, end, laps } in claims {
            let words = (0..len.div_ceil(8) as u64).flat_map(|word| {
                let line = producer.tail().wrapping_add((16 + word * 8) / 64 * 64);
                (line.wrapping_sub(laps * 4096) ^ key.get()).to_le_bytes()
            });
            let payload: Vec<u8> = words.take(len).collect();
            let mut claim = match producer.try_claim(len) {
                Ok(claim) => claim,
                Err(ClaimError::Full { .. }) => break,
                Err(error) => panic!("{error}"),
            };
            match end {
                End::Commit => {
                    claim.write(0, &payload);
                    claim.commit(Header { channel: 1, kind: 1, flags: 0 });
                    published.push(payload);
                }
                End::Abort => drop(claim),
                End::Never => {
                    claim.write(0, &payload[..len / 2]);
                    mem::forget(claim);
                }
            }
        }
        prop_assert_eq!(drain(&mut consumer), published);
    }
}

#[test]
fn what_is_published_at_the_head_is_no_gap() {
    let (ring, head) = (HeapRing::new(Capacity::new(4096).unwrap()), HeapCursor::new());
    let key = Key::new(1).unwrap();
    let producer = Producer::new(ring.clone(), head.clone(), key);
    let mut consumer = Consumer::new(ring, head, key);
    assert!(!consumer.skip_gap(), "an empty ring has nothing behind any gap");
    for byte in 0..2 {
        let mut claim = producer.try_claim(1).unwrap();
        claim.write(0, &[byte]);
        claim.commit(Header { channel: 1, kind: 1, flags: 0 });
    }
    // It may come between a look at the ring and the news that the producer is gone.
    assert!(consumer.skip_gap());
    assert_eq!(drain(&mut consumer), [[0], [1]]);
}

#[test]
fn a_gap_may_take_all_of_the_ring_but_its_last_frame() {
    let (ring, head) = (HeapRing::new(Capacity::new(4096).unwrap()), HeapCursor::new());
    let key = Key::new(1).unwrap();
    let producer = Producer::new(ring.clone(), head.clone(), key);
    let mut consumer = Consumer::new(ring, head, key);
    // The ring has 64 lines, one of which stays free.
    (0..62).for_each(|_| mem::forget(producer.try_claim(1).unwrap()));
    let mut claim = producer.try_claim(1).unwrap();
    claim.write(0, &[7]);
    claim.commit(Header { channel: 1, kind: 1, flags: 0 });
    assert!(producer.try_claim(1).is_err());
    assert_eq!(drain(&mut consumer), [[7]]);
}
