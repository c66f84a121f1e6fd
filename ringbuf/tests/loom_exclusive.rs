//! A guard and shared claims beside each other.
#![cfg(loom)]
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod loom_support;

use loom::sync::Arc;
use loom::thread;

use loom_support::{fill, model, receive, ring, send, send_held};
use memit_ringbuf::{ClaimError, Held, Polled};

/// The known head is too old for any claim, so the guard and the other thread both ask for the
/// head, and must not hold it against a tail that is out of date.
#[test]
fn a_guard_and_a_shared_producer_stay_out_of_each_others_way() {
    model(3, || {
        let (producer, mut consumer, _) = ring(512, 0);
        for value in 0..7 {
            send(&producer, value, 8);
            assert_eq!(receive(&mut consumer), value);
        }
        let other = Arc::clone(&producer);
        let shared = thread::spawn(move || match other.try_claim(8) {
            Ok(claim) => {
                fill(claim, 10);
                true
            }
            Err(ClaimError::Held) => false,
            Err(error) => panic!("{error}"),
        });
        let holder = thread::spawn(move || {
            let mut guard = producer.exclusive().unwrap();
            send_held(&mut guard, 20, 8);
            send_held(&mut guard, 21, 8);
        });

        let mut received = vec![receive(&mut consumer), receive(&mut consumer)];
        holder.join().unwrap();
        if shared.join().unwrap() {
            received.push(receive(&mut consumer));
            assert!(received == [10, 20, 21] || received == [20, 21, 10], "{received:?}");
        } else {
            assert_eq!(received, [20, 21]);
        }
        assert!(matches!(consumer.poll().unwrap(), Polled::Empty));
    });
}

#[test]
fn two_threads_never_have_the_guard_at_once() {
    model(4, || {
        let (producer, mut consumer, _) = ring(512, 0);
        let other = Arc::clone(&producer);
        let threads = [(producer, 1), (other, 2)].map(|(producer, value)| {
            thread::spawn(move || match producer.exclusive() {
                Ok(mut guard) => {
                    send_held(&mut guard, value, 8);
                    send_held(&mut guard, value, 8);
                    Some(value)
                }
                Err(Held) => None,
            })
        });
        let senders: Vec<u64> = threads.into_iter().filter_map(|thread| thread.join().unwrap()).collect();
        assert!(!senders.is_empty());
        let mut received = Vec::new();
        for _ in 0..2 * senders.len() {
            received.push(receive(&mut consumer));
        }
        assert!(received.chunks(2).all(|pair| pair[0] == pair[1]), "{received:?}");
        assert!(matches!(consumer.poll().unwrap(), Polled::Empty));
    });
}
