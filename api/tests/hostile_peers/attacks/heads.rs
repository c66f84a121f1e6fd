//! Lies about how far it has read.

use super::{Attack, Turn, Verdict, attack};
use crate::wire::outbox::{self, HEAD};
use crate::wire::peer::Peer;

/// What the victim's producers say about a head that cannot be.
const IMPOSSIBLE: Verdict = Verdict::Punished(&["head"]);

pub const ATTACKS: &[Attack] = &[
    attack("head_moves_back", IMPOSSIBLE, back),
    attack("head_moves_ahead", IMPOSSIBLE, ahead),
    attack("head_is_off_by_one", IMPOSSIBLE, by_one),
    attack("head_frees_an_unpublished_claim", Verdict::Either, onto_a_claim),
];

/// Reads honestly until the victim must have looked at the head: more than a ring has come.
fn read_more_than_a_ring(peer: &mut Peer) {
    while peer.head < 2 * peer.their_shape.capacity as u64 && !peer.is_over() {
        if peer.keep_up() == 0 {
            peer.rest();
        }
    }
}

/// Leaves this in the head. The victim looks there when its ring is full, so it may go on until then.
fn leave(peer: &mut Peer, head: u64) {
    peer.own.store(HEAD, head);
    peer.ring(outbox::SPACE_BELL, 1);
}

fn back(peer: &mut Peer, turn: &mut Turn) {
    read_more_than_a_ring(peer);
    let lines = peer.head / 64;
    let by = 1 + turn.random.below(lines as usize) as u64;
    // A ring behind at least is what the victim has certainly seen already.
    let by = by.max(peer.their_shape.capacity as u64 / 64);
    leave(peer, peer.head.wrapping_sub(64 * by));
}

fn ahead(peer: &mut Peer, turn: &mut Turn) {
    read_more_than_a_ring(peer);
    let lines = turn.random.one_of(&[1_u64 << 20, 1 << 40, 1 << 56]) + turn.random.below(1000) as u64;
    leave(peer, peer.head.wrapping_add(64 * lines));
}

fn by_one(peer: &mut Peer, turn: &mut Turn) {
    read_more_than_a_ring(peer);
    let by = turn.random.one_of(&[1_u64, 63, 65, 8, u64::MAX]);
    leave(peer, peer.head.wrapping_add(by));
}

/// Always a few lines beyond what is published: onto a claim that is being written, if one is. The frames that are
/// overwritten then are the attacker's own.
fn onto_a_claim(peer: &mut Peer, turn: &mut Turn) {
    turn.until_over(peer, |peer, random| {
        for _ in 0..64 {
            while let Some(frame) = peer.peek() {
                peer.head += (16 + frame.payload.len() as u64).next_multiple_of(64);
            }
            peer.own.store(HEAD, peer.head + 64 * (1 + random.below(3) as u64));
        }
    });
}
