//! Threads at full speed on a small ring: every message arrives once, whole, and in its sender's
//! order, with payloads full of words that look like stamps.
#![cfg(not(loom))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::cast_possible_truncation)]

use std::hint;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use memit_ringbuf::{Capacity, Claim, ClaimError, Consumer, Header, HeapCursor, HeapRing, Key, Polled, Producer};

const CAPACITY: usize = 4096;
const SENDERS: u16 = 3;
const MESSAGES: u64 = 60_000;

/// A generator of numbers that anyone who knows the seed can repeat.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn one_in(&mut self, times: u64) -> bool {
        self.next().is_multiple_of(times)
    }
}

fn key() -> Key {
    Key::new(0x0123_4567_89AB_CDEF).unwrap()
}

/// The length of a sender's message with this number: mostly small.
fn length(sender: u16, number: u64) -> usize {
    let mut random = Random((u64::from(sender) << 40 | number) + 1);
    random.next();
    let limit = if random.one_in(4) { CAPACITY / 8 - 16 - 16 } else { 100 };
    16 + (random.next() % limit as u64) as usize
}

/// Set when a thread panics, so that the others end instead of waiting for it.
static FAILED: AtomicBool = AtomicBool::new(false);

struct Alarm;

impl Drop for Alarm {
    fn drop(&mut self) {
        FAILED.fetch_or(thread::panicking(), Ordering::Relaxed);
    }
}

fn wait(turns: &mut u32) {
    assert!(!FAILED.load(Ordering::Relaxed), "another thread failed");
    *turns += 1;
    if turns.is_multiple_of(64) { thread::yield_now() } else { hint::spin_loop() }
}

/// Number, a word that is repeated to the end, then that word: a likely stamp of the next lap.
fn fill(mut claim: Claim<'_, HeapRing, HeapCursor>, sender: u16, number: u64, word: u64) {
    let mut payload = [0; CAPACITY / 8];
    let payload = &mut payload[..claim.len()];
    for (chunk, word) in payload.chunks_mut(8).zip([number].into_iter().chain(std::iter::repeat(word))) {
        chunk.copy_from_slice(&word.to_le_bytes()[..chunk.len()]);
    }
    claim.write(0, payload);
    claim.commit(Header { channel: sender, kind: 1, flags: 0 });
}

fn send(producer: &Producer<HeapRing, HeapCursor>, sender: u16) {
    let _alarm = Alarm;
    let mut random = Random(u64::from(sender) + 77);
    let mut turns = 0;
    let mut number = 0;
    while number < MESSAGES {
        let guess = producer.tail().wrapping_add(CAPACITY as u64 + random.next() % 8 * 64) ^ key().get();
        if random.one_in(16)
            && let Ok(mut guard) = producer.exclusive()
        {
            let end = MESSAGES.min(number + random.next() % 20);
            while number < end {
                match guard.try_claim(length(sender, number)) {
                    Ok(claim) => {
                        fill(claim, sender, number, guess);
                        number += 1;
                    }
                    Err(ClaimError::Full { .. }) => wait(&mut turns),
                    Err(error) => panic!("{error}"),
                }
            }
            continue;
        }
        match producer.try_claim(length(sender, number)) {
            Ok(claim) if random.one_in(10) => claim.abort(),
            Ok(claim) => {
                fill(claim, sender, number, guess);
                number += 1;
            }
            Err(ClaimError::Full { .. } | ClaimError::Held) => wait(&mut turns),
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn every_message_arrives_once_whole_and_in_its_senders_order() {
    let memory = HeapRing::new(Capacity::new(CAPACITY).unwrap());
    let start = 0_u64.wrapping_sub(1000 * CAPACITY as u64);
    let head = HeapCursor::starting_at(start);
    let producer = Producer::starting_at(memory.clone(), head.clone(), key(), start);
    let mut consumer = Consumer::starting_at(memory, head, key(), start);

    thread::scope(|scope| {
        for sender in 0..SENDERS {
            let producer = &producer;
            scope.spawn(move || send(producer, sender));
        }
        let _alarm = Alarm;
        let mut expected = [0; SENDERS as usize];
        let mut payload = [0; CAPACITY / 8];
        let mut turns = 0;
        while expected.iter().any(|number| *number < MESSAGES) {
            let Some(frame) = consumer.poll().unwrap().frame() else {
                consumer.publish_head();
                wait(&mut turns);
                continue;
            };
            let sender = frame.header().channel;
            let number = &mut expected[usize::from(sender)];
            let payload = &mut payload[..frame.len()];
            frame.copy_to(payload);
            frame.release();
            assert_eq!(payload.len(), length(sender, *number), "message {number} of sender {sender}");
            assert_eq!(payload[..8], number.to_le_bytes(), "message {number} of sender {sender}");
            let word: [u8; 8] = payload[8..16].try_into().unwrap();
            for chunk in payload[8..].chunks(8) {
                assert_eq!(chunk, &word[..chunk.len()], "message {number} of sender {sender}");
            }
            *number += 1;
        }
        assert!(matches!(consumer.poll().unwrap(), Polled::Empty));
    });
}
