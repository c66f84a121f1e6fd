//! Writes over its whole outbox for as long as it lives.

use super::{Attack, Turn, Verdict, attack};
use crate::seed::Random;
use crate::wire::outbox::{self, GIVEN};
use crate::wire::peer::{PING, Peer};

pub const ATTACKS: &[Attack] = &[
    attack("scribbles_noise", Verdict::Either, noise),
    attack("scribbles_patterns", Verdict::Either, patterns),
    attack("scribbles_plausible_frames", Verdict::Either, frames),
    attack("scribbles_plausible_words", Verdict::Either, words),
];

/// Any word, anywhere, ringing all the while.
fn noise(peer: &mut Peer, turn: &mut Turn) {
    turn.until_over(peer, |peer, random| {
        for _ in 0..256 {
            let at = random.below(peer.own.len() / 8) * 8;
            peer.own.store(at, random.next());
        }
        peer.ring_data();
    });
}

/// Everything zero, everything ones, every word its own address.
fn patterns(peer: &mut Peer, turn: &mut Turn) {
    turn.until_over(peer, |peer, random| {
        let pattern = random.below(3);
        for at in (0..peer.own.len()).step_by(8) {
            let word = match pattern {
                0 => 0,
                1 => u64::MAX,
                _ => at as u64,
            };
            peer.own.store(at, word);
        }
        peer.ring_data();
    });
}

/// A frame where the victim may be reading, of any kind and shape.
fn frames(peer: &mut Peer, turn: &mut Turn) {
    turn.until_over(peer, |peer, random| {
        // The victim has read up to its head at least, and publishes it lazily.
        peer.tail = peer.theirs.load(outbox::HEAD) + 64 * random.below(8) as u64;
        for _ in 0..16 {
            let len = if random.below(16) == 0 { random.edgy() as usize } else { random.below(256) };
            let channel = if random.below(16) == 0 { random.next() as u16 } else { PING };
            let (kind, flags) = (random.below(7) as u8, if random.below(8) == 0 { random.next() as u8 } else { 0 });
            peer.describe(peer.tail, len, kind, channel, flags);
            peer.stamp(peer.tail);
            peer.tail += (16 + (len as u64 & 0xff)).next_multiple_of(64);
        }
        peer.ring_data();
    });
}

/// What each word of the control page could hold, and a little more or less.
fn words(peer: &mut Peer, turn: &mut Turn) {
    turn.until_over(peer, |peer, random| {
        let near = |random: &mut Random, honest: u64| match random.below(4) {
            0 => random.edgy(),
            1 => honest.wrapping_add(random.edgy() % 4096),
            2 => honest.wrapping_sub(random.edgy() % 4096),
            _ => honest,
        };
        while peer.read().is_some() {}
        for at in (outbox::HEAD..peer.shape.ring()).step_by(64) {
            let honest = match at {
                outbox::HEAD => peer.head,
                GIVEN => peer.given,
                _ => peer.own.load(at),
            };
            // Most rounds leave most words as they are, so that some of this lives for a while.
            if random.below(64) == 0 {
                peer.own.store(at, near(random, honest));
            }
        }
        peer.ring_data();
    });
}
