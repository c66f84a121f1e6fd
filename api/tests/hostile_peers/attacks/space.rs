//! Takes, and gives nothing back; or gives more than anybody can read.

use super::{Act, Attack, BOTH, Turn, Verdict, attack};
use crate::wire::handshake::Terms;
use crate::wire::peer::{CALL, MESSAGE, PADDING, PING, Peer};
use crate::wire::{Record, peer};

pub const ATTACKS: &[Attack] = &[
    attack("never_reads", Verdict::Ignored, never_reads),
    attack("never_reads_and_asks_for_more", Verdict::Ignored, asks_for_more),
    attack("never_gives_blocks_back", Verdict::Ignored, keeps_blocks),
    attack("sends_without_end", Verdict::Ignored, floods),
    Attack {
        name: "sends_padding_without_end",
        sides: BOTH,
        verdict: Verdict::Ignored,
        act: Act::ConnectedBy(|terms: &mut Terms| terms.shape.capacity = 8 << 20, pads),
        forms: 1,
    },
    Attack {
        name: "sends_a_ring_of_padding_at_once",
        sides: BOTH,
        verdict: Verdict::Ignored,
        act: Act::ConnectedBy(|terms: &mut Terms| terms.shape.capacity = 8 << 20, pads_at_once),
        forms: 1,
    },
];

fn never_reads(peer: &mut Peer, turn: &mut Turn) {
    turn.until_over(peer, |peer, _| peer.rest());
}

/// Every message and call is answered, into a ring that is full.
fn asks_for_more(peer: &mut Peer, turn: &mut Turn) {
    let mut calls = 0;
    turn.until_over(peer, |peer, random| {
        calls += 1;
        let call = Record::default().u64(calls << 6 | 1).u64(u64::MAX).bytes(&random.bytes(100)).0;
        if !peer.try_publish(MESSAGE, PING, 0, &random.bytes(2000)) || !peer.try_publish(CALL, peer::ASK, 0, &call) {
            peer.rest();
        }
    });
}

/// Reads the ring, but of what lies outside of it nothing is ever returned.
fn keeps_blocks(peer: &mut Peer, turn: &mut Turn) {
    turn.until_over(peer, |peer, _| {
        while peer.read().is_some() {}
        peer.hear();
        peer.rest();
    });
}

/// As many messages as fit, with as little in them as can be.
fn floods(peer: &mut Peer, turn: &mut Turn) {
    turn.until_over(peer, |peer, _| {
        // The victim may read as fast as this writes.
        for _ in 0..1000 {
            peer.try_publish(MESSAGE, PING, 0, b"");
        }
        peer.keep_up();
    });
}

/// Frames that say nothing, in a ring that is as large as none needs.
fn pads(peer: &mut Peer, turn: &mut Turn) {
    turn.until_over(peer, |peer, _| {
        for _ in 0..10_000 {
            peer.try_publish(PADDING, 0, 0, b"");
        }
        peer.keep_up();
    });
}

/// All that the ring holds becomes visible with one store, and nothing in it is for anybody.
fn pads_at_once(peer: &mut Peer, turn: &mut Turn) {
    turn.until_over(peer, |peer, _| {
        // It would write over what was not read yet, and hear no more of it.
        peer.until_read();
        let (begin, lines) = (peer.tail, peer.shape.capacity as u64 / 64 - 2);
        for line in (0..lines).rev() {
            peer.describe(begin + 64 * line, 48, PADDING, 0, 0);
            peer.stamp(begin + 64 * line);
        }
        peer.tail += 64 * lines;
        peer.ring_data();
        peer.until_read();
        peer.keep_up();
    });
}
