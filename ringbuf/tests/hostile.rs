//! A peer may write anything into its memory: each side stays within its own, and says what was
//! wrong.
#![cfg(not(loom))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::cast_possible_truncation)]

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use memit_ringbuf::{
    Capacity, ClaimError, Consumer, CorruptFrame, CorruptHead, Header, HeapCursor, HeapRing, Key, OwnCursor, Polled,
    Producer, RingWrite, kind, reached,
};
use proptest::prelude::*;

const CAPACITY: u64 = 4096;
const MAX_PAYLOAD: usize = CAPACITY as usize / 8 - 16;

fn key() -> Key {
    Key::new(0x0BAD_CAFE_0000_0015).unwrap()
}

fn memory() -> HeapRing {
    HeapRing::new(Capacity::new(CAPACITY as usize).unwrap())
}

fn consumer(memory: &HeapRing, position: u64) -> Consumer<HeapRing, HeapCursor> {
    Consumer::starting_at(memory.clone(), HeapCursor::starting_at(position), key(), position)
}

/// Forges a published frame.
fn forge(memory: &HeapRing, position: u64, len: u32, kind: u8) {
    let offset = (position % CAPACITY) as usize;
    memory.store(offset + 8, u64::from(len) | u64::from(kind) << 48);
    memory.publish(offset, position ^ key().get());
}

#[test]
fn a_frame_longer_than_an_eighth_is_too_long() {
    for kind in [kind::PADDING, 1] {
        for len in [MAX_PAYLOAD as u32 + 1, 4096, 0x7FFF_FFFF, u32::MAX] {
            let memory = memory();
            forge(&memory, 64, len, kind);
            let found = consumer(&memory, 64).poll().unwrap_err();
            assert_eq!(found, CorruptFrame::TooLong { position: 64, len, max: MAX_PAYLOAD });
        }
    }
}

#[test]
fn a_frame_over_the_end_of_the_ring_straddles() {
    for lap in [0, 0_u64.wrapping_sub(CAPACITY)] {
        let position = lap.wrapping_add(CAPACITY - 64);
        for kind in [kind::PADDING, 1] {
            let memory = memory();
            forge(&memory, position, 49, kind);
            let found = consumer(&memory, position).poll().unwrap_err();
            assert_eq!(found, CorruptFrame::Straddles { position, len: 49, room: 48 });
        }
    }
}

#[test]
fn a_poll_ends_however_much_padding_there_is() {
    let memory = memory();
    let mut consumer = consumer(&memory, 640);
    for line in 0..CAPACITY / 64 {
        forge(&memory, 640 + line * 64, 48, kind::PADDING);
    }
    for polls in 1..16 {
        assert!(matches!(consumer.poll().unwrap(), Polled::Padding));
        assert_eq!(consumer.head(), 640 + polls * 4 * 64);
    }
    // Each line was read where it lies, and none of the lap behind is there.
    assert!(matches!(consumer.poll().unwrap(), Polled::Empty));
    assert_eq!(consumer.head(), 640 + CAPACITY);
}

#[test]
fn a_poll_stays_within_the_lap_of_the_head_that_was_published() {
    let memory = memory();
    let mut consumer = consumer(&memory, 0);
    // As far beyond the published head as can be, and then the longest padding that there is.
    forge(&memory, 0, 512 - 16, 1);
    forge(&memory, 512, 448 - 16, 1);
    let mut position = 960;
    for _ in 0..6 {
        forge(&memory, position, 512 - 16, kind::PADDING);
        position += 512;
    }
    consumer.poll().unwrap().frame().unwrap().release();
    consumer.poll().unwrap().frame().unwrap().release();
    assert_eq!((consumer.head(), consumer.published_head()), (960, 0));
    assert!(matches!(consumer.poll().unwrap(), Polled::Padding));
    assert_eq!((consumer.head(), consumer.published_head()), (960 + 4 * 512, 960 + 4 * 512));
}

#[test]
fn what_is_corrupt_behind_padding_is_found_before_anything_is_given_back() {
    let memory = memory();
    let mut consumer = consumer(&memory, 0);
    for line in 0..3 {
        forge(&memory, line * 512, 512 - 16, kind::PADDING);
    }
    forge(&memory, 3 * 512, 513, 1);
    let found = consumer.poll().unwrap_err();
    assert_eq!(found, CorruptFrame::TooLong { position: 3 * 512, len: 513, max: MAX_PAYLOAD });
    assert_eq!((consumer.published_head(), consumer.poll().unwrap_err()), (0, found));
}

#[test]
fn each_impossible_head_is_named() {
    for start in [0, 6400, 0_u64.wrapping_sub(128)] {
        let head = HeapCursor::starting_at(start);
        let producer = Producer::starting_at(memory(), head.clone(), key(), start);
        let at = |distance: u64| start.wrapping_add(distance);
        let claim_until_it_asks = |forged: u64| {
            head.store(forged);
            loop {
                match producer.try_claim(MAX_PAYLOAD) {
                    Ok(claim) => claim.abort(),
                    Err(error) => return error,
                }
            }
        };
        let corrupt = claim_until_it_asks(at(4096));
        let tail = producer.tail();
        assert_eq!(corrupt, ClaimError::Corrupt(CorruptHead::Beyond { found: at(4096), tail }));
        let corrupt = claim_until_it_asks(at(65));
        assert_eq!(corrupt, ClaimError::Corrupt(CorruptHead::Misaligned { found: at(65) }));
        assert!(matches!(claim_until_it_asks(at(1024)), ClaimError::Full { .. }));
        let corrupt = claim_until_it_asks(at(960));
        assert_eq!(corrupt, ClaimError::Corrupt(CorruptHead::Backwards { found: at(960), known: at(1024) }));
        let mut guard = producer.exclusive().unwrap();
        assert_eq!(guard.try_claim(MAX_PAYLOAD).unwrap_err(), corrupt, "the guard says the same");
    }
}

proptest! {
    /// The memory is noise, with forged frames among it so that the consumer gets somewhere.
    #[test]
    fn a_consumer_takes_any_memory(
        start in prop_oneof![Just(0), Just(0_u64.wrapping_sub(1024)), any::<u64>().prop_map(|start| start & !63)],
        noise in any::<u64>(),
        forged in prop::collection::vec((0..64_u64, prop_oneof![0..600_u32, any::<u32>()], 0..3_u8), 0..80),
    ) {
        let memory = memory();
        for offset in (0..CAPACITY).step_by(8) {
            memory.store(offset as usize, (noise ^ offset).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        }
        for (line, len, kind) in forged {
            forge(&memory, start.wrapping_add(line * 64), len, kind);
        }
        let mut consumer = consumer(&memory, start);
        let mut payload = vec![0; MAX_PAYLOAD];
        // Each round consumes at least a line of the one lap that is forged, or changes nothing.
        for _ in 0..=CAPACITY / 64 {
            let frame = match consumer.poll() {
                Ok(Polled::Frame(frame)) => frame,
                Ok(Polled::Padding) => continue,
                Ok(Polled::Empty) | Err(_) => break,
            };
            prop_assert!(frame.len() <= MAX_PAYLOAD);
            prop_assert_ne!(frame.header().kind, kind::PADDING);
            let len = frame.len();
            frame.copy_to(&mut payload[..len]);
            frame.release();
        }
        prop_assert!(consumer.head().wrapping_sub(start) <= CAPACITY);
        prop_assert!(matches!(consumer.poll(), Ok(Polled::Empty) | Err(_)));
    }

    #[test]
    fn a_producer_takes_any_head(
        start in prop_oneof![Just(0), Just(0_u64.wrapping_sub(4096)), any::<u64>().prop_map(|start| start & !63)],
        steps in prop::collection::vec(
            (0..=MAX_PAYLOAD, prop_oneof![3 => (0..128_u64).prop_map(|lines| lines * 64), 1 => any::<u64>()], any::<bool>()),
            0..100,
        ),
    ) {
        let head = HeapCursor::starting_at(start);
        let producer = Producer::starting_at(memory(), head.clone(), key(), start);
        let mut known = start;
        for (len, forged, held) in steps {
            let found = known.wrapping_add(forged);
            head.store(found);
            let tail = producer.tail();
            let outcome = if held {
                let mut guard = producer.exclusive().unwrap();
                guard.try_claim(len).map(|claim| claim.commit(Header { channel: 1, kind: 1, flags: 0 }))
            } else {
                producer.try_claim(len).map(|claim| claim.commit(Header { channel: 1, kind: 1, flags: 0 }))
            };
            let honest = found % 64 == 0 && reached(found, known) && reached(tail, found);
            match outcome {
                Ok(()) => prop_assert!(producer.tail().wrapping_sub(tail) < 2 * CAPACITY),
                Err(ClaimError::Full { wanted }) => {
                    prop_assert!(honest && !reached(found, wanted));
                    known = found;
                }
                Err(ClaimError::Corrupt(_)) => prop_assert!(!honest),
                Err(error) => prop_assert!(false, "{error}"),
            }
            prop_assert!(reached(producer.tail(), tail));
            if honest && forged != 0 && producer.tail() != tail {
                // It may have asked for the head or not; go on from where it would be if it had.
                known = found;
            }
        }
    }
}

/// A producer that rewrites its ring while it is read: every poll ends, and no frame is longer
/// than its limit.
#[test]
fn a_consumer_survives_a_ring_that_changes_under_it() {
    let memory = memory();
    let mut consumer = consumer(&memory, 0);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut seed = 1_u64;
            let mut position = 0_u64;
            while !done.load(Ordering::Relaxed) {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let (len, kind) = ((seed >> 40) as u32 % 700, (seed >> 33) as u8 % 3);
                forge(&memory, position, len, kind);
                memory.store((seed >> 20) as usize % CAPACITY as usize, seed);
                position = position.wrapping_add(64) % (8 * CAPACITY);
            }
        });
        let mut payload = vec![0; MAX_PAYLOAD];
        for _ in 0..200_000 {
            match consumer.poll() {
                Ok(Polled::Frame(frame)) => {
                    let len = frame.len();
                    assert!(len <= MAX_PAYLOAD);
                    frame.copy_to(&mut payload[..len]);
                    frame.release();
                }
                Ok(Polled::Padding | Polled::Empty) => {}
                Err(_) => consumer = self::consumer(&memory, consumer.head() % (8 * CAPACITY)),
            }
        }
        done.store(true, Ordering::Relaxed);
    });
}
