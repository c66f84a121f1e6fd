//! Calls and answers that do not belong together.

use super::{Attack, Turn, Verdict, attack};
use crate::wire::peer::{ABANDON, ASK, CALL, MESSAGE, PING, Peer};
use crate::wire::{Record, u64_at};

pub const ATTACKS: &[Attack] = &[
    attack("answers_calls_never_made", Verdict::Ignored, unasked),
    attack("answers_twice", Verdict::Ignored, twice),
    attack("answers_in_the_wrong_slot", Verdict::Ignored, wrong_slot),
    attack("answers_badly", Verdict::Punished(&["reply", "answer", "place", "location", "memory"]), badly).in_forms(10),
    attack("abandons_calls_never_made", Verdict::Ignored, abandons),
    attack("calls_again_before_the_answer", Verdict::Ignored, calls_again),
    attack("calls_wrongly", Verdict::Punished(&["call", "slot", "number of 8"]), calls_wrongly).in_forms(5),
];

/// The slots that both sides have.
fn slots(peer: &Peer) -> usize {
    peer.shape.slots.min(peer.their_shape.slots)
}

/// The id of the victim's next call, while it waits for the answer.
fn next_call(peer: &mut Peer) -> Option<u64> {
    let frame = peer.read()?;
    if frame.kind == MESSAGE && frame.flags == 1 {
        peer.give_back_block(&frame.payload);
    }
    peer.hear();
    (frame.kind == CALL).then(|| u64_at(&frame.payload, 0))
}

/// Waits for the victim to call.
fn await_call(peer: &mut Peer) -> Option<u64> {
    while !peer.is_over() {
        match next_call(peer) {
            Some(id) => return Some(id),
            None => peer.rest(),
        }
    }
    None
}

/// Ids around those that the victim gives out, before it has called.
fn unasked(peer: &mut Peer, turn: &mut Turn) {
    turn.until_over(peer, |peer, random| {
        let slot = random.below(peer.shape.slots);
        // Of another slot than the one it lies in, or of a call that will not come for long.
        let id = (random.next() | 1 << 40) << 6 | slot as u64;
        let payload = random.bytes(random.clone().below(100));
        peer.answer(slot, id, random.next() as u8, random.next() as u8, random.next() as u32, &payload);
        peer.keep_up();
    });
}

/// The second answer comes while the first is being read, or after it was.
fn twice(peer: &mut Peer, turn: &mut Turn) {
    turn.until_over(peer, |peer, random| {
        let Some(id) = next_call(peer) else { return peer.rest() };
        for _ in 0..2 + random.below(20) {
            let payload = random.bytes(random.clone().below(1000));
            peer.answer(id as usize & 63, id, 1, 0, payload.len() as u32, &payload);
        }
    });
}

fn wrong_slot(peer: &mut Peer, turn: &mut Turn) {
    turn.until_over(peer, |peer, _| {
        let Some(id) = next_call(peer) else { return peer.rest() };
        let slots = slots(peer);
        peer.answer(((id as usize & 63) + 1) % slots, id, 1, 0, 3, b"yes");
    });
}

fn badly(peer: &mut Peer, turn: &mut Turn) {
    let most = peer.shape.most() as u32;
    let forms = [
        (1, 0, most + 1),
        (1, 0, u32::MAX),
        (0, 0, 0),
        (7, 0, 0),
        (255, 0, 3),
        (1, 3, 3),
        (1, 255, 32),
        (1, 1, 31),
        (1, 2, 17),
        (1, 1, 32),
    ];
    let (status, place, len) = forms[turn.number % forms.len()];
    // The first may come too late for its call.
    while let Some(id) = await_call(peer) {
        peer.answer(id as usize & 63, id, status, place, len, &turn.random.bytes(32));
    }
}

/// Slots that exist, calls that never were.
fn abandons(peer: &mut Peer, turn: &mut Turn) {
    turn.until_over(peer, |peer, random| {
        let id = random.next() << 6 | random.below(slots(peer)) as u64;
        peer.publish(ABANDON, random.next() as u16, random.next() as u8, &id.to_le_bytes());
        peer.keep_up();
    });
}

/// Each call takes the slot from the one before, and is abandoned or repeated as it comes.
fn calls_again(peer: &mut Peer, turn: &mut Turn) {
    let mut calls = 0_u64;
    turn.until_over(peer, |peer, random| {
        for _ in 0..8 {
            calls += u64::from(random.below(4) != 0);
            let id = calls << 6 | random.below(slots(peer)) as u64;
            let call = Record::default().u64(id).u64(random.edgy()).bytes(&random.bytes(100)).0;
            peer.publish(CALL, ASK, 0, &call);
            if random.below(3) == 0 {
                peer.publish(ABANDON, 0, 0, &id.to_le_bytes());
            }
        }
        peer.keep_up();
    });
}

fn calls_wrongly(peer: &mut Peer, turn: &mut Turn) {
    let outside = slots(peer) as u64 + turn.random.next() % (64 - slots(peer) as u64);
    let id = 1 << 6 | outside;
    let header = Record::default().u64(id).u64(u64::MAX).0;
    match turn.number % 5 {
        0 => peer.publish(CALL, ASK, 0, &header),
        1 => peer.publish(CALL, ASK, 0, &header[..turn.random.below(16)]),
        2 => peer.publish(ABANDON, 0, 0, &id.to_le_bytes()),
        3 => peer.publish(ABANDON, 0, 0, &header[..turn.random.below(8)]),
        _ => peer.publish(CALL, PING, 0, &Record::default().u64(63).u64(0).0),
    };
}
