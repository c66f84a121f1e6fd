//! One thread on both ends: what each call does to the positions, and what misuse does.
#![cfg(not(loom))]
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use memit_ringbuf::{
    Capacity, ClaimError, Consumer, Header, HeapCursor, HeapRing, Held, Key, MappedRing, MappedRingMut, PeerCursor,
    Polled, Producer,
};

const HEADER: Header = Header { channel: 1, kind: 1, flags: 0 };

/// Threads share a producer and hand a consumer on.
const _: fn() = || {
    fn shared<T: Send + Sync>() {}
    fn moved<T: Send>() {}
    shared::<Producer<MappedRingMut<Arc<()>>, HeapCursor>>();
    moved::<Consumer<MappedRing<Arc<()>>, HeapCursor>>();
};

fn ring() -> (Producer<HeapRing, HeapCursor>, Consumer<HeapRing, HeapCursor>, HeapCursor) {
    let memory = HeapRing::new(Capacity::new(4096).unwrap());
    let head = HeapCursor::new();
    let key = Key::new(0xF00D_0000_0000_0003).unwrap();
    let producer = Producer::new(memory.clone(), head.clone(), key);
    (producer, Consumer::new(memory, head.clone(), key), head)
}

fn send(producer: &Producer<HeapRing, HeapCursor>, payload: &[u8]) {
    let mut claim = producer.try_claim(payload.len()).unwrap();
    claim.write(0, payload);
    claim.commit(HEADER);
}

#[test]
fn the_head_is_published_once_a_quarter_of_the_ring_is_released() {
    let (producer, mut consumer, head) = ring();
    for lines in 1..=16 {
        send(&producer, &[]);
        consumer.poll().unwrap().frame().unwrap().release();
        assert_eq!(consumer.head(), lines * 64);
        let published = if lines == 16 { 1024 } else { 0 };
        assert_eq!((consumer.published_head(), head.load()), (published, published));
    }
    assert!(!consumer.publish_head());
    send(&producer, &[]);
    consumer.poll().unwrap().frame().unwrap().release();
    assert!(consumer.publish_head());
    assert_eq!(head.load(), 17 * 64);
}

#[test]
fn the_head_is_published_once_a_quarter_of_the_ring_was_padding() {
    let (producer, mut consumer, head) = ring();
    for _ in 0..16 {
        producer.try_claim(48).unwrap().abort();
    }
    while matches!(consumer.poll().unwrap(), Polled::Padding) {}
    assert_eq!((consumer.head(), head.load()), (1024, 1024));
}

#[test]
fn a_poll_passes_four_frames_of_padding_and_says_so_if_there_are_more() {
    for many in 0..=9 {
        let (producer, mut consumer, _) = ring();
        for _ in 0..many {
            producer.try_claim(0).unwrap().abort();
        }
        for passed in (4..many).step_by(4) {
            assert!(matches!(consumer.poll().unwrap(), Polled::Padding), "{passed} of {many}");
            assert_eq!(consumer.head(), passed * 64);
            assert!(consumer.is_ready());
        }
        assert!(matches!(consumer.poll().unwrap(), Polled::Empty), "{many}");
        assert_eq!(consumer.head(), many * 64);
        send(&producer, &[]);
        assert_eq!(consumer.poll().unwrap().frame().unwrap().position(), many * 64);
    }
}

#[test]
fn the_frame_behind_as_much_padding_as_an_honest_producer_leaves_is_found_at_once() {
    let (producer, mut consumer, _) = ring();
    (0..63).for_each(|_| producer.try_claim(0).unwrap().abort());
    while matches!(consumer.poll().unwrap(), Polled::Padding) {}
    consumer.publish_head();
    // Padding up to the ring's end, and a claim that was given up.
    producer.try_claim(49).unwrap().abort();
    send(&producer, &[7; 49]);
    let frame = consumer.poll().unwrap().frame().unwrap();
    assert_eq!(frame.position(), 4096 + 128);
}

#[test]
fn full_names_the_head_that_makes_room() {
    let (producer, mut consumer, _) = ring();
    for _ in 0..63 {
        send(&producer, &[]);
    }
    assert_eq!(producer.try_claim(48).unwrap_err(), ClaimError::Full { wanted: 64 });
    // At the end of the ring only one line is left: padding, then two lines behind it.
    assert_eq!(producer.try_claim(49).unwrap_err(), ClaimError::Full { wanted: 192 });
    consumer.poll().unwrap().frame().unwrap().release();
    consumer.publish_head();
    producer.try_claim(48).unwrap().abort();
    assert_eq!(producer.tail(), 4096);
}

#[test]
fn a_payload_beyond_the_limit_is_refused_and_takes_nothing() {
    for capacity in (12..20).map(|bits| Capacity::new(1 << bits).unwrap()) {
        let producer = Producer::new(HeapRing::new(capacity), HeapCursor::new(), Key::new(1).unwrap());
        let max = capacity.max_payload();
        assert_eq!(producer.max_payload(), max);
        for len in [max + 1, max + 64, capacity.get(), usize::MAX - 15, usize::MAX] {
            assert_eq!(producer.try_claim(len).unwrap_err(), ClaimError::TooLarge { len, max });
        }
        assert_eq!(producer.tail(), 0);
        producer.try_claim(max).unwrap().abort();
    }
}

#[test]
fn readiness_is_seen_without_side_effects() {
    let (producer, mut consumer, _) = ring();
    assert!(!consumer.is_ready());
    let claim = producer.try_claim(0).unwrap();
    assert!(!consumer.is_ready());
    claim.abort();
    assert!(consumer.is_ready() && consumer.is_ready());
    assert_eq!(consumer.head(), 0);
    assert!(matches!(consumer.poll().unwrap(), Polled::Empty));
    assert!(!consumer.is_ready());
    assert_eq!(consumer.head(), 64);
}

#[test]
fn a_guard_keeps_everyone_else_out_until_it_is_dropped() {
    let (producer, _, _) = ring();
    let mut guard = producer.exclusive().unwrap();
    guard.try_claim(0).unwrap().abort();
    assert_eq!(producer.exclusive().unwrap_err(), Held);
    assert_eq!(producer.try_claim(0).unwrap_err(), ClaimError::Held);
    assert_eq!((producer.tail(), guard.tail()), (0, 64));
    assert!(producer.is_held());
    drop(guard);
    assert_eq!(producer.tail(), 64);
    assert!(!producer.is_held());
    producer.try_claim(0).unwrap().abort();
    drop(producer.exclusive().unwrap());
}

#[test]
fn a_guard_says_whether_there_is_room_and_claims_nothing_by_that() {
    let (producer, mut consumer, _) = ring();
    let mut guard = producer.exclusive().unwrap();
    for _ in 0..62 {
        guard.try_claim(0).unwrap().abort();
    }
    assert_eq!(guard.check_room(48), Ok(()));
    assert!(matches!(guard.check_room(513), Err(ClaimError::TooLarge { .. })));
    guard.try_claim(48).unwrap().abort();
    assert_eq!(guard.check_room(48), Err(ClaimError::Full { wanted: 64 }));
    while matches!(consumer.poll().unwrap(), Polled::Padding) {}
    consumer.publish_head();
    assert_eq!(guard.check_room(48), Ok(()));
    assert_eq!(guard.tail(), 63 * 64);
}

#[test]
#[allow(unsafe_code)]
fn a_view_shows_the_payload_where_it_lies() {
    let (producer, mut consumer, _) = ring();
    for len in [0, 5, 48, 100, 496] {
        let payload: Vec<u8> = (0..len).collect::<Vec<u16>>().iter().map(|byte| byte.to_le_bytes()[0]).collect();
        send(&producer, &payload);
        let frame = consumer.poll().unwrap().frame().unwrap();
        // SAFETY: this thread is the producer, and writes nothing while the view lives.
        let view = unsafe { frame.view() };
        assert_eq!(view, payload);
        assert_eq!(view.as_ptr().addr() % 16, 0);
        frame.release();
    }
}

#[test]
fn a_write_outside_the_claim_panics_and_aborts_it() {
    for (offset, len) in [(0, 17), (8, 9), (24, 0), (4, 4), (usize::MAX & !7, 16)] {
        let (producer, mut consumer, _) = ring();
        let outside = catch_unwind(AssertUnwindSafe(|| {
            let mut claim = producer.try_claim(16).unwrap();
            claim.write(offset, &vec![0; len]);
            claim.commit(HEADER);
        }));
        assert!(outside.is_err(), "{len} bytes at {offset}");
        assert!(matches!(consumer.poll().unwrap(), Polled::Empty));
        assert_eq!(consumer.head(), 64, "the claim became padding");
    }
}

#[test]
fn a_read_outside_the_payload_panics_and_leaves_the_frame() {
    let (producer, mut consumer, _) = ring();
    send(&producer, &[7; 16]);
    for (offset, len) in [(0, 17), (8, 9), (24, 0), (4, 4), (usize::MAX & !7, 16)] {
        let outside = catch_unwind(AssertUnwindSafe(|| {
            consumer.poll().unwrap().frame().unwrap().copy_range_to(offset, &mut vec![0; len]);
        }));
        assert!(outside.is_err(), "{len} bytes at {offset}");
    }
    for len in [0, 15, 17] {
        let wrong =
            catch_unwind(AssertUnwindSafe(|| consumer.poll().unwrap().frame().unwrap().copy_to(&mut vec![0; len])));
        assert!(wrong.is_err(), "the whole payload into {len} bytes");
    }
    consumer.poll().unwrap().frame().unwrap().copy_to(&mut [0; 16]);
}

#[test]
fn room_is_checked_as_a_claim_would_find_it_and_nothing_is_claimed() {
    let (producer, mut consumer, _) = ring();
    assert_eq!(producer.check_room(513), Err(ClaimError::TooLarge { len: 513, max: producer.max_payload() }));
    loop {
        let (checked, tail) = (producer.check_room(100), producer.tail());
        match producer.try_claim(100) {
            Ok(claim) => {
                assert_eq!((checked, claim.abort()), (Ok(()), ()));
                assert_eq!(producer.tail(), tail + 128);
            }
            Err(refused) => {
                assert_eq!(checked, Err(refused));
                break;
            }
        }
    }
    while matches!(consumer.poll().unwrap(), Polled::Padding) {}
    consumer.publish_head();
    assert_eq!(producer.check_room(100), Ok(()));
    let guard = producer.exclusive().unwrap();
    assert_eq!(producer.check_room(100), Err(ClaimError::Held));
    drop(guard);
}
