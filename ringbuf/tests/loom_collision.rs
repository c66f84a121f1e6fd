//! Stale words that equal the stamp for which the consumer will wait next.
#![cfg(loom)]
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod loom_support;

use loom::sync::Arc;
use loom::thread;

use loom_support::{Blind, HEADER, fill, model, receive, ring, ring_with, send, stamp};
use memit_ringbuf::{HeapRing, Polled, RingWrite};

/// The second word of a frame of kind 9 without payload: what a phantom would look like.
const PHANTOM: u64 = 9 << 48;

/// Two threads send a frame of one line each. The lines behind hold what the consumer will wait for there.
fn two_threads_send_over_words_that_collide<M>(wrap: impl Fn(HeapRing) -> M + Send + Sync + 'static)
where
    M: RingWrite + Send + Sync + 'static,
{
    model(3, move || {
        let (producer, mut consumer, memory) = ring_with(512, 0, &wrap);
        for position in [64, 128, 256] {
            memory.store(position, stamp(position as u64));
            memory.store(position + 8, PHANTOM);
        }
        let other = Arc::clone(&producer);
        let first = thread::spawn(move || send(&*producer, 1, 8));
        let second = thread::spawn(move || send(&*other, 2, 8));

        let received = [receive(&mut consumer), receive(&mut consumer)];
        assert!(received == [1, 2] || received == [2, 1], "{received:?}");
        assert!(matches!(consumer.poll().unwrap(), Polled::Empty), "a frame that nobody sent");
        first.join().unwrap();
        second.join().unwrap();
        assert_eq!(consumer.head(), 320, "two frames and three lines that collided");
    });
}

#[test]
fn lines_that_collide_join_the_claim_before_them() {
    two_threads_send_over_words_that_collide(|memory| memory);
}

#[test]
#[should_panic(expected = "a frame that nobody sent")]
fn without_the_look_for_collisions_a_stale_word_is_taken_for_a_frame() {
    two_threads_send_over_words_that_collide(Blind);
}

/// The stale word is written while the model runs, by a claim that was open from the start. The
/// third thread learns that the line is free from the known head alone, which the second raised:
/// that must show it the word too.
#[test]
fn a_thread_that_goes_by_the_known_head_sees_the_words_before_it() {
    model(2, || {
        let (producer, mut consumer, memory) = ring(1024, 0);
        std::mem::forget(producer.try_claim(56).unwrap());
        for len in [112, 112, 112, 112, 112, 112, 48] {
            producer.try_claim(len).unwrap().abort();
        }
        assert_eq!(producer.tail(), 1024 - 64);

        let other = Arc::clone(&producer);
        let second = thread::spawn(move || {
            // Commits the claim at 0: 49 bytes, the word at 64 the stamp of the next lap there.
            memory.store(64, stamp(1024 + 64));
            memory.store(72, PHANTOM);
            memory.store(16, 5);
            memory.store(8, 56 | u64::from(HEADER.channel) << 32 | u64::from(HEADER.kind) << 48);
            memory.publish(0, stamp(0));
            send(&producer, 6, 8);
        });
        let third = thread::spawn(move || {
            // One try: whether it succeeds depends on how far the others are.
            other.try_claim(8).map(|claim| fill(claim, 7)).is_ok()
        });

        assert_eq!(receive(&mut consumer), 5);
        let next = receive(&mut consumer);
        second.join().unwrap();
        if third.join().unwrap() {
            let last = receive(&mut consumer);
            assert!([next, last] == [6, 7] || [next, last] == [7, 6], "{next} {last}");
        } else {
            assert_eq!(next, 6);
        }
        assert!(matches!(consumer.poll().unwrap(), Polled::Empty));
    });
}
