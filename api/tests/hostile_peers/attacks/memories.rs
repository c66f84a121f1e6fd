//! Passes, retires and gives back what it should not.

use std::os::fd::AsFd;

use super::{Attack, Turn, Verdict, attack};
use crate::wire::outbox::{GIVEN, sealed as sealed_memory, write_sealed};
use crate::wire::peer::{EXTENT, MESSAGE, PING, Peer, RETIRE, SEALED, block, sealed};
use crate::wire::{Record, sys, u64_at};

pub const ATTACKS: &[Attack] = &[
    attack("retires_what_it_never_gave", Verdict::Punished(&["memory number", "number of 8"]), retires).in_forms(3),
    attack("passes_and_retires_without_end", Verdict::Ignored, passes_and_retires),
    attack("passes_memory_wrongly", Verdict::Punished(&["memory", "pieces of memory", "packet"]), passes_wrongly)
        .in_forms(9),
    attack("names_sealed_memory_wrongly", Verdict::Punished(&["memory", "message"]), names_wrongly).in_forms(6),
    attack("gives_back_what_it_does_not_have", Verdict::Punished(&["g", "back"]), gives_back_wrongly).in_forms(4),
    attack("gives_blocks_back_twice", Verdict::Punished(&["back"]), gives_back_twice).in_forms(3),
];

fn retires(peer: &mut Peer, turn: &mut Turn) {
    match turn.number % 3 {
        0 => peer.publish(RETIRE, 0, 0, &turn.random.next().to_le_bytes()),
        1 => peer.publish(RETIRE, 0, 0, &turn.random.bytes(turn.random.clone().below(8))),
        _ => {
            // The second time it is not known any more.
            let (extent, _map) = peer.extent();
            peer.publish(RETIRE, 0, 0, &extent.to_le_bytes()) && peer.publish(RETIRE, 0, 0, &extent.to_le_bytes())
        }
    };
}

/// Each is taken back at once, so no limit is ever met.
fn passes_and_retires(peer: &mut Peer, turn: &mut Turn) {
    turn.until_over(peer, |peer, _| {
        let (extent, _map) = peer.extent();
        peer.publish(RETIRE, 0, 0, &extent.to_le_bytes());
        peer.until_given(extent);
        peer.keep_up();
    });
}

fn passes_wrongly(peer: &mut Peer, turn: &mut Turn) {
    let (memory, _map) = sealed_memory(peer.limits.extent);
    let packet =
        |number: u64, kind: u32, zero: u32| Record::default().bytes(b"MEMITMEM").u64(number).u32(kind).u32(zero).0;
    let one = &[memory.as_fd()][..];
    let send = |bytes: &[u8], fds: &[_]| sys::send(&peer.socket, bytes, fds).unwrap();
    match turn.number % 9 {
        0 => send(&packet(0, EXTENT, 0), one),
        1 => send(&packet(1, 3, 0), one),
        2 => send(&packet(1, EXTENT, 1), one),
        3 => send(&packet(1, EXTENT, 0), &[]),
        4 => send(&packet(1, EXTENT, 0), &[memory.as_fd(), memory.as_fd()]),
        5 => send(&packet(1, EXTENT, 0)[..23], one),
        6 => {
            send(&packet(1, EXTENT, 0), one);
            send(&packet(1, SEALED, 0), one);
        }
        7 => {
            // More than anybody may have out.
            for number in 1..=65 {
                while peer.pass(number, EXTENT, &memory) == Err(rustix::io::Errno::AGAIN) {
                    peer.rest();
                }
            }
        }
        _ => send(&turn.random.bytes(1 + turn.random.clone().below(300)), one),
    }
}

fn names_wrongly(peer: &mut Peer, turn: &mut Turn) {
    let bytes = turn.random.bytes(5000);
    let memory = write_sealed(&bytes);
    let _ = peer.pass(1, SEALED, &memory);
    let publish = |peer: &mut Peer, number: u64, len: u64| peer.publish(MESSAGE, PING, 2, &sealed(number, len));
    match turn.number % 6 {
        0 => publish(peer, 1, 4999),
        1 => publish(peer, 1, 5001),
        2 => publish(peer, 1, turn.random.edgy() | 1 << 32),
        3 => publish(peer, 1, 5000) && publish(peer, 1, 5000),
        4 => publish(peer, 2, 5000),
        // As what it is not.
        _ => peer.publish(MESSAGE, PING, 1, &block(1, 1, 0, 5000)),
    };
}

fn gives_back_wrongly(peer: &mut Peer, turn: &mut Turn) {
    let random = &mut turn.random;
    match turn.number % 4 {
        0 => peer.give_back([random.next(), random.next(), random.next() & !4095, 1]),
        1 => peer.give_back([1 + random.next() % 4, 0, 0, 2]),
        2 => peer.give_back([1, 1, 0, random.one_of(&[0, 3, u64::MAX])]),
        _ => peer.own.store(GIVEN, 1025 + random.next() % (1 << 62)),
    }
    read_on(peer);
}

/// Goes on reading, so that the victim goes on sending, and looks.
fn read_on(peer: &mut Peer) {
    while !peer.is_over() {
        while peer.read().is_some() {}
        peer.hear();
        peer.rest();
    }
}

fn gives_back_twice(peer: &mut Peer, turn: &mut Turn) {
    while !peer.is_over() {
        let Some(frame) = peer.read() else {
            peer.rest();
            continue;
        };
        if frame.kind == MESSAGE && frame.flags == 1 {
            peer.give_back_block(&frame.payload);
            let [memory, generation, offset] = [0, 8, 16].map(|at| u64_at(&frame.payload, at));
            // Again; or as if the next, or a neighbour, had come back, too.
            match turn.number % 3 {
                0 => peer.give_back([memory, generation, offset, 1]),
                1 => peer.give_back([memory, generation + 1 + turn.random.next() % 100, offset, 1]),
                _ => peer.give_back([memory, generation, offset + 4096, 1]),
            }
            return read_on(peer);
        }
        peer.hear();
    }
}
