//! Lengths and places that point across an end.

use super::{Attack, Turn, Verdict, attack};
use crate::wire::Record;
use crate::wire::peer::{CALL, MESSAGE, NAMES, PING, Peer, block};

pub const ATTACKS: &[Attack] = &[
    attack("forges_the_length_of_a_frame", Verdict::Punished(&["frame"]), frame).in_forms(4),
    attack(
        "forges_the_place_of_a_block",
        Verdict::Punished(&["block", "message", "place", "memory", "location"]),
        place,
    )
    .in_forms(10),
    attack("forges_lengths_in_an_archive", Verdict::Punished(&["names"]), archive).in_forms(6),
];

fn frame(peer: &mut Peer, turn: &mut Turn) {
    let most = peer.shape.most();
    match turn.number % 4 {
        0 => peer.forge(most + 1, MESSAGE, PING, 0),
        1 => peer.forge(u32::MAX as usize, MESSAGE, PING, 0),
        2 => peer.forge(48, 6 + turn.random.below(250) as u8, PING, 0),
        _ => {
            // Up to the last line before the end of the ring, and over it.
            let capacity = peer.shape.capacity as u64;
            while peer.tail < capacity - 64 {
                let len = ((capacity - 64 - peer.tail) as usize - 16).min(most);
                if !peer.publish(MESSAGE, PING, 0, &vec![0; len]) {
                    return;
                }
                peer.keep_up();
            }
            peer.forge(49, MESSAGE, PING, 0);
        }
    }
}

fn place(peer: &mut Peer, turn: &mut Turn) {
    let (extent, _map) = peer.extent();
    let size = peer.limits.extent as u64;
    let random = &mut turn.random;
    let far = random.edgy() | 1 << 40;
    let location = match turn.number % 10 {
        0 => block(extent, 1, 0, size + 1),
        1 => block(extent, 1, size, 1),
        2 => block(extent, 1, size - 4096, 4097),
        3 => block(extent, 1, 4096u64.wrapping_neg(), 8192),
        4 => block(extent, 1, far & !4095, 16),
        5 => block(extent, 1, 1 + random.next() % 4095, 16),
        6 => block(extent, 1, 0, far),
        7 => block(extent + 1 + random.next() % 100, 1, 0, 16),
        8 => block(extent, 1, 0, 16)[..31].to_vec(),
        _ => Record::default().bytes(&block(extent, 1, 0, 16)).u64(0).0,
    };
    match turn.random.below(3) {
        0 => peer.publish(MESSAGE, PING, 1, &location),
        1 => peer.publish(CALL, crate::wire::peer::ASK, 1, &Record::default().u64(65).u64(0).bytes(&location).0),
        _ => peer.publish(MESSAGE, PING, 3, &location),
    };
}

/// An archive in order, but for one word: a length, an offset, or the root.
fn archive(peer: &mut Peer, turn: &mut Turn) {
    let mut names = super::payloads::names(&["a text that lies elsewhere", "and another one of them"]);
    let words = names.len() / 4;
    // The last six words: two strings and the root.
    let word = words - 6 + turn.number % 6;
    // Offsets and lengths that lead far out of the archive, before or behind it.
    let forged: u32 = match turn.number % 6 {
        0 | 2 => 128 | 63 | turn.random.one_of(&[0x00ff_ff00, 0x7fff_ff00, 0xffff_ff00]),
        5 => turn.random.one_of(&[0x1000, 0x7fff_ffff, u32::MAX]),
        _ => turn.random.one_of(&[0x1000, 0x7fff_ffff, 0x8000_0000, 0xffff_0000]),
    };
    names[4 * word..4 * word + 4].copy_from_slice(&forged.to_le_bytes());
    peer.publish(MESSAGE, NAMES, 0, &names);
}
