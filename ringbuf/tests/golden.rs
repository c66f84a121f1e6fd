//! The bytes of layout version 1. A change here is a change of the protocol.
#![cfg(not(loom))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::cast_possible_truncation)]

use memit_ringbuf::{Capacity, Header, HeapCursor, HeapRing, Key, Producer, RingRead, RingWrite};

const KEY: u64 = 0x8877_6655_4433_2211;

fn producer(position: u64) -> Producer<HeapRing, HeapCursor> {
    let memory = HeapRing::new(Capacity::new(4096).unwrap());
    Producer::starting_at(memory, HeapCursor::starting_at(position), Key::new(KEY).unwrap(), position)
}

fn bytes<const N: usize>(producer: &Producer<HeapRing, HeapCursor>, offset: usize) -> [u8; N] {
    let mut bytes = [0; N];
    producer.memory().copy_to(offset, &mut bytes);
    bytes
}

#[test]
fn a_frame_is_stamp_then_len_channel_kind_flags_then_payload() {
    let producer = producer(0x1_0000_0040);
    let mut claim = producer.try_claim(11).unwrap();
    claim.write(0, b"hello, ring");
    claim.commit(Header { channel: 0xB00C, kind: 0x2A, flags: 0x81 });
    #[rustfmt::skip]
    let expected = [
        0x51, 0x22, 0x33, 0x44, 0x54, 0x66, 0x77, 0x88, // 0x1_0000_0040 XOR key
        11, 0, 0, 0, 0x0C, 0xB0, 0x2A, 0x81,
        b'h', b'e', b'l', b'l', b'o', b',', b' ', b'r',
        b'i', b'n', b'g', 0, 0, 0, 0, 0,
    ];
    assert_eq!(bytes(&producer, 0x40), expected);
    assert_eq!(producer.tail(), 0x1_0000_0080);
}

#[test]
fn nothing_is_published_before_the_commit() {
    let producer = producer(0);
    let mut claim = producer.try_claim(8).unwrap();
    claim.write(0, b"withheld");
    assert_eq!(producer.memory().load(0), 0);
    claim.commit(Header { channel: 1, kind: 1, flags: 0 });
    assert_eq!(producer.memory().load(0), KEY);
}

#[test]
fn a_dropped_claim_becomes_padding_of_its_length() {
    let producer = producer(0);
    drop(producer.try_claim(100).unwrap());
    let expected = [0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 100, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(bytes(&producer, 0), expected);
    assert_eq!(producer.tail(), 128);
}

#[test]
fn a_frame_that_would_straddle_the_end_has_padding_before_it() {
    let producer = producer(4096 - 128);
    producer.try_claim(200).unwrap().commit(Header { channel: 2, kind: 1, flags: 0 });
    let padding = [0x91, 0x2D, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 112, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(bytes(&producer, 4096 - 128), padding);
    let frame = [0x11, 0x32, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 200, 0, 0, 0, 2, 0, 1, 0];
    assert_eq!(bytes(&producer, 0), frame);
    assert_eq!(producer.tail(), 4096 + 256);
}

#[test]
fn each_line_that_collides_becomes_a_padding_frame_of_one_line() {
    let producer = producer(0);
    for position in [64, 128] {
        producer.memory().store(position, position as u64 ^ KEY);
    }
    producer.try_claim(0).unwrap().commit(Header { channel: 2, kind: 1, flags: 0 });
    assert_eq!(producer.tail(), 192);
    let first = [0x51, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 48, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(bytes(&producer, 64), first);
    let second = [0x91, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 48, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(bytes(&producer, 128), second);
}
