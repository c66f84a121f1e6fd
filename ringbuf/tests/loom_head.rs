//! The way back: what the consumer has released is what the producers may claim.
#![cfg(loom)]
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod loom_support;

use loom::sync::Arc;
use loom::thread;

use loom_support::{Receiver, Shared, model, receive, ring, send};
use memit_ringbuf::HeapRing;

/// A ring of 8 lines whose producers know of no head yet, though seven frames have come and gone:
/// whoever claims must ask for the head first.
fn a_line_from_the_known_end() -> (Shared, Receiver, HeapRing) {
    let (producer, mut consumer, memory) = ring(512, 0);
    for value in 0..7 {
        send(&producer, value, 8);
        assert_eq!(receive(&mut consumer), value);
    }
    (producer, consumer, memory)
}

#[test]
fn an_honest_head_is_never_called_corrupt() {
    model(3, || {
        let (producer, mut consumer, _) = a_line_from_the_known_end();
        let other = Arc::clone(&producer);
        let first = thread::spawn(move || send(&producer, 10, 8));
        let second = thread::spawn(move || send(&other, 11, 8));

        let received = [receive(&mut consumer), receive(&mut consumer)];
        assert!(received == [10, 11] || received == [11, 10], "{received:?}");
        first.join().unwrap();
        second.join().unwrap();
    });
}

/// The ring is full of unread frames: the ninth overwrites the line of the first.
#[test]
fn a_full_ring_is_overwritten_only_behind_the_head() {
    model(3, || {
        let (producer, mut consumer, _) = ring(512, 0);
        for value in 0..7 {
            send(&producer, value, 8);
        }
        let sender = thread::spawn(move || {
            send(&producer, 7, 8);
            send(&producer, 8, 8);
        });
        for value in 0..9 {
            assert_eq!(receive(&mut consumer), value);
        }
        sender.join().unwrap();
    });
}
