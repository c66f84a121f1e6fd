//! Flips one bit at a time.

use std::sync::atomic::Ordering;

use super::{Attack, Turn, Verdict, attack};
use crate::wire::outbox;
use crate::wire::peer::{MESSAGE, NAMES, PING, Peer};

pub const ATTACKS: &[Attack] = &[
    attack("flips_a_bit_of_a_control_word", Verdict::Either, control_word),
    attack("flips_a_bit_of_a_frame", Verdict::Either, frame),
    attack("flips_a_bit_of_an_archive", Verdict::Either, archive),
    attack("flips_a_bit_anywhere_and_back", Verdict::Either, anywhere),
];

/// One bit, of one word of the control page or header; then some honest traffic over it.
fn control_word(peer: &mut Peer, turn: &mut Turn) {
    let words = peer.shape.ring() / 8;
    let bit = (turn.number * 61) % (words * 64);
    turn.until_over(peer, |peer, _| {
        let at = bit / 64 * 8;
        let flipped = peer.own.load(at) ^ 1 << (bit % 64);
        peer.own.store(at, flipped);
        for _ in 0..8 {
            peer.try_publish(MESSAGE, PING, 0, b"as it should be");
        }
        peer.keep_up();
        peer.rest();
    });
}

/// Each bit of the first two words of a frame in turn.
fn frame(peer: &mut Peer, turn: &mut Turn) {
    let bit = turn.number % 128;
    let at = peer.shape.ring() + peer.tail as usize % peer.shape.capacity + bit / 64 * 8;
    peer.describe(peer.tail, 48, MESSAGE, PING, 0);
    peer.stamp(peer.tail);
    peer.own.store(at, peer.own.load(at) ^ 1 << (bit % 64));
    peer.ring_data();
    turn.struck();
    peer.rest();
}

/// One bit of an archive that is in order otherwise.
fn archive(peer: &mut Peer, turn: &mut Turn) {
    turn.until_over(peer, |peer, random| {
        let mut names = super::payloads::names(&["hello, world, and more", "short", "another that lies elsewhere"]);
        let bit = random.below(names.len() * 8);
        names[bit / 8] ^= 1 << (bit % 8);
        peer.publish(MESSAGE, NAMES, 0, &names);
        peer.keep_up();
    });
}

/// A bit of the ring, the slots, the give-backs, or of any word that is there; and the same bit again.
fn anywhere(peer: &mut Peer, turn: &mut Turn) {
    turn.until_over(peer, |peer, random| {
        let bit = random.below((peer.own.len() - outbox::HEAD) * 8);
        let at = outbox::HEAD + bit / 32 * 4;
        peer.own.word32(at).fetch_xor(1 << (bit % 32), Ordering::Relaxed);
        peer.try_publish(MESSAGE, PING, 0, b"as it should be");
        peer.own.word32(at).fetch_xor(1 << (bit % 32), Ordering::Relaxed);
        peer.keep_up();
    });
}
