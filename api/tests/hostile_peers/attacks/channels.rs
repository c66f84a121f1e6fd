//! Announces what may not be announced.

use super::{Attack, Turn, Verdict, attack};
use crate::wire::Record;
use crate::wire::peer::{ANNOUNCE, MESSAGE, MORE, PING, Peer};

pub const ATTACKS: &[Attack] = &[
    attack(
        "announces_beyond_the_limits",
        Verdict::Punished(&["channel", "announce", "schema", "name", "UTF-8"]),
        beyond_the_limits,
    )
    .in_forms(12),
    attack("announces_without_end", Verdict::Punished(&["channel", "schema"]), without_end).in_forms(2),
    attack("sends_on_channels_not_announced", Verdict::Punished(&["not announced"]), not_announced),
];

fn beyond_the_limits(peer: &mut Peer, turn: &mut Turn) {
    const FREE: u16 = 9;
    let long = vec![b'x'; (64 << 10) + 1];
    let lengths = |name, message, reply, error| [name, message, reply, error];
    match turn.number % 12 {
        0 => peer.announce(crate::victim::CHANNELS + turn.random.below(60_000) as u16, b"a", b"str", b"()"),
        1 => peer.announce(PING, b"again", b"str", b"()"),
        2 => peer.announce(FREE, &long[..1025], b"str", b"()"),
        3 => peer.announce(FREE, b"a", &long, b"()"),
        4 => peer.announce(FREE, b"a", b"str", &long),
        5 => peer.announce(FREE, b"\xff\xfe", b"str", b"()"),
        // Lengths that promise more than comes, or less, or more than there is.
        6 => peer.announce_as(FREE, lengths(1, 100, 2, 0), b"astr()"),
        7 => peer.announce_as(FREE, lengths(1, 1, 0, 0), b"astr()"),
        8 => peer.announce_as(FREE, lengths(1, u32::MAX, u32::MAX, u32::MAX), b"a"),
        9 => peer.publish(ANNOUNCE, FREE, MORE, b""),
        10 => {
            let whole = Record::default().u32(1).u32(3).u32(2).u32(0).bytes(b"as").0;
            peer.publish(ANNOUNCE, FREE, MORE, &whole) && peer.publish(ANNOUNCE, FREE + 1, MORE, &whole)
        }
        // The reserved half of the name's length.
        _ => peer.announce_as(FREE, lengths(1 | 1 << 16, 3, 2, 0), b"astr()"),
    };
}

/// Channel after channel, each with as much text as one may have, until one limit or the other is met.
fn without_end(peer: &mut Peer, turn: &mut Turn) {
    let text = vec![b'x'; if turn.number.is_multiple_of(2) { 64 << 10 } else { 1 }];
    for channel in 10.. {
        if !peer.announce(channel, b"one more", &text, b"()") {
            return;
        }
        peer.keep_up();
    }
}

fn not_announced(peer: &mut Peer, turn: &mut Turn) {
    let channel = 3 + turn.random.below(60_000) as u16;
    peer.publish(MESSAGE, channel, 0, b"for nobody");
}
