//! What the models of the ring share. No model has two threads that wait in loops for a third: loom
//! would let them yield to each other for ever.
#![allow(dead_code)] // each model uses its part

mod explore;

use loom::sync::Arc;
use loom::thread;
use memit_ringbuf::{
    Capacity, Claim, ClaimError, Consumer, Exclusive, Header, HeapCursor, HeapRing, Key, Polled, Producer, RingRead,
    RingWrite,
};

pub(crate) type Shared<M = HeapRing> = Arc<Producer<M, HeapCursor>>;
pub(crate) type Receiver = Consumer<HeapRing, HeapCursor>;

pub(crate) const HEADER: Header = Header { channel: 3, kind: 1, flags: 0 };

/// Checks a model with at most `preemptions` preemptions in each execution.
pub(crate) fn model(preemptions: usize, body: impl Fn() + Sync + Send + 'static) {
    explore::explore(Some(preemptions), body);
}

pub(crate) fn key() -> Key {
    Key::new(0x5EED_0000_0000_0021).unwrap()
}

/// What the first word of a frame at `position` holds once it is published.
pub(crate) fn stamp(position: u64) -> u64 {
    position ^ key().get()
}

/// A ring of `capacity` bytes that begins at `position`.
pub(crate) fn ring(capacity: usize, position: u64) -> (Shared, Receiver, HeapRing) {
    ring_with(capacity, position, |memory| memory)
}

/// [`ring`], whose producer has the memory as `wrap` makes it.
pub(crate) fn ring_with<M: RingWrite>(
    capacity: usize,
    position: u64,
    wrap: impl FnOnce(HeapRing) -> M,
) -> (Shared<M>, Receiver, HeapRing) {
    let memory = HeapRing::new(Capacity::new(capacity).unwrap());
    let head = HeapCursor::starting_at(position);
    let producer = Producer::starting_at(wrap(memory.clone()), head.clone(), key(), position);
    let consumer = Consumer::starting_at(memory.clone(), head, key(), position);
    (Arc::new(producer), consumer, memory)
}

/// The ring's memory as a producer has it that does not look for collisions: nothing else makes a
/// producer load a word of the ring.
pub(crate) struct Blind(pub(crate) HeapRing);

impl RingRead for Blind {
    fn capacity(&self) -> Capacity {
        self.0.capacity()
    }

    fn load(&self, _: usize) -> u64 {
        0
    }

    fn copy_to(&self, _: usize, _: &mut [u8]) {
        unreachable!("a producer reads no payload");
    }
}

impl RingWrite for Blind {
    fn store(&self, offset: usize, word: u64) {
        self.0.store(offset, word);
    }

    fn publish(&self, offset: usize, word: u64) {
        self.0.publish(offset, word);
    }

    fn copy_from(&self, offset: usize, src: &[u8]) {
        self.0.copy_from(offset, src);
    }
}

/// Writes `value` into a claim and commits it.
pub(crate) fn fill<M: RingWrite>(mut claim: Claim<'_, M, HeapCursor>, value: u64) {
    claim.write(0, &value.to_le_bytes());
    claim.commit(HEADER);
}

/// Sends `value` in a payload of `len` bytes, waiting for space and for the end of a guard.
pub(crate) fn send<M: RingWrite>(producer: &Producer<M, HeapCursor>, value: u64, len: usize) {
    loop {
        match producer.try_claim(len) {
            Ok(claim) => return fill(claim, value),
            Err(ClaimError::Full { .. } | ClaimError::Held) => thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    }
}

/// [`send`] through a guard.
pub(crate) fn send_held(guard: &mut Exclusive<'_, HeapRing, HeapCursor>, value: u64, len: usize) {
    loop {
        match guard.try_claim(len) {
            Ok(claim) => return fill(claim, value),
            Err(ClaimError::Full { .. }) => thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    }
}

/// Waits for the next frame, and publishes the head behind it.
pub(crate) fn receive(consumer: &mut Receiver) -> u64 {
    loop {
        match consumer.poll() {
            Ok(Polled::Frame(frame)) => {
                assert_eq!(frame.header(), HEADER, "a frame that nobody sent");
                let mut payload = [0; 8];
                frame.copy_range_to(0, &mut payload);
                frame.release();
                consumer.publish_head();
                return u64::from_le_bytes(payload);
            }
            Ok(Polled::Padding) => {}
            Ok(Polled::Empty) => thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    }
}
