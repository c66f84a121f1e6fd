//! Claims, publication and consumption, with two producers across the end of the ring.
#![cfg(loom)]
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod loom_support;

use loom::sync::Arc;
use loom::thread;

use loom_support::{model, receive, ring, send};
use memit_ringbuf::Polled;

/// The first line of the model is the last of the ring, and the last of all positions: the frame
/// of two lines goes behind padding, or behind the frame of one line.
#[test]
fn two_producers_and_a_consumer_meet_at_the_end_of_the_ring() {
    model(3, || {
        let (producer, mut consumer, _) = ring(1024, u64::MAX - 63);
        let other = Arc::clone(&producer);
        let long = thread::spawn(move || send(&other, 1, 56));
        let short = thread::spawn(move || send(&producer, 2, 8));

        let received = [receive(&mut consumer), receive(&mut consumer)];
        assert!(received == [1, 2] || received == [2, 1], "{received:?}");
        long.join().unwrap();
        short.join().unwrap();
        assert!(matches!(consumer.poll().unwrap(), Polled::Empty));
    });
}

/// One thread's frames stay in order, another's abort leaves nothing behind.
#[test]
fn an_aborted_claim_between_two_frames_is_skipped() {
    model(3, || {
        let (producer, mut consumer, _) = ring(512, 0);
        let other = Arc::clone(&producer);
        let sender = thread::spawn(move || {
            send(&producer, 1, 8);
            send(&producer, 2, 8);
        });
        let aborter = thread::spawn(move || other.try_claim(8).unwrap().abort());

        assert_eq!(receive(&mut consumer), 1);
        assert_eq!(receive(&mut consumer), 2);
        sender.join().unwrap();
        aborter.join().unwrap();
        assert!(matches!(consumer.poll().unwrap(), Polled::Empty));
        assert_eq!(consumer.head(), 3 * 64);
    });
}
