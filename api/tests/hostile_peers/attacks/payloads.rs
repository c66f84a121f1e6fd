//! Changes what it has sent while it is being read.

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::{Attack, Turn, Verdict, attack};
use crate::seed::Random;
use crate::wire::Record;
use crate::wire::map::Map;
use crate::wire::outbox::write_sealed;
use crate::wire::peer::{MESSAGE, NAMES, PING, Peer, SEALED, block, sealed};

pub const ATTACKS: &[Attack] = &[
    attack("changes_a_payload_in_its_frame", Verdict::Either, in_the_frame),
    attack("changes_a_payload_in_its_block", Verdict::Either, in_the_block),
    attack("changes_a_payload_that_is_sealed", Verdict::Ignored, in_sealed_memory),
];

/// An archive of strings, all of which are long enough to lie outside of their field, or up to 8 bytes long.
pub fn names(texts: &[&str]) -> Vec<u8> {
    let mut archive = Vec::new();
    let mut fields = Vec::new();
    for text in texts {
        fields.push((archive.len(), text.len()));
        if text.len() > 8 {
            archive.extend_from_slice(text.as_bytes());
        }
    }
    archive.resize(archive.len().next_multiple_of(4), 0);
    let first = archive.len();
    for (text, (place, len)) in texts.iter().zip(fields) {
        let mut field = [0xff; 8];
        if len > 8 {
            let packed = (len as u32 & 63) | 128 | (len as u32 & !63) << 2;
            let offset = place as i32 - archive.len() as i32;
            field[..4].copy_from_slice(&packed.to_le_bytes());
            field[4..].copy_from_slice(&offset.to_le_bytes());
        } else {
            field[..len].copy_from_slice(text.as_bytes());
        }
        archive.extend_from_slice(&field);
    }
    let offset = first as i32 - archive.len() as i32;
    Record(archive).u32(offset as u32).u32(texts.len() as u32).0
}

/// Flips a word of `map` between two contents, as fast as it can, while `act` runs.
fn flickering(map: &Map, at: usize, len: usize, random: &mut Random, act: impl FnOnce()) {
    let done = AtomicBool::new(false);
    let mut random = Random::new(random.next());
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let word = map.word64((at + random.below(len)) & !7);
                let honest = word.load(Ordering::Relaxed);
                for _ in 0..16 {
                    word.store(random.edgy(), Ordering::Relaxed);
                    word.store(honest, Ordering::Relaxed);
                }
            }
        });
        act();
        done.store(true, Ordering::Relaxed);
    });
}

const TEXTS: [&str; 4] = ["a text that lies elsewhere", "short", "another one, somewhat longer than the first", "end"];

fn in_the_frame(peer: &mut Peer, turn: &mut Turn) {
    let archive = names(&TEXTS.repeat(20));
    turn.until_over(peer, |peer, random| {
        let at = peer.shape.ring() + peer.tail as usize % peer.shape.capacity + 16;
        if peer.shape.capacity - (peer.tail as usize % peer.shape.capacity) < 2 * peer.shape.stride() {
            // Where it would not be certain in which line it begins.
            peer.publish(MESSAGE, PING, 0, &vec![0; peer.shape.most()]);
            return;
        }
        peer.publish(MESSAGE, NAMES, 0, &archive);
        flickering(&peer.own, at, archive.len(), random, || peer.until_read());
        peer.keep_up();
    });
}

fn in_the_block(peer: &mut Peer, turn: &mut Turn) {
    let (extent, map) = peer.extent();
    let archive = names(&TEXTS.repeat(100));
    map.write(0, &archive);
    let mut generation = 0;
    turn.until_over(peer, |peer, random| {
        generation += 1;
        flickering(&map, 0, archive.len(), random, || {
            peer.publish(MESSAGE, NAMES, 1, &block(extent, generation, 0, archive.len() as u64));
            peer.until_given(generation);
        });
        peer.keep_up();
    });
}

/// The kernel lets nobody do it, which is what reading in place rests on.
fn in_sealed_memory(peer: &mut Peer, turn: &mut Turn) {
    let archive = names(&TEXTS.repeat(20));
    turn.until_over(peer, |peer, random| {
        let fd = write_sealed(&archive);
        peer.memories += 1;
        if peer.pass(peer.memories, SEALED, fd.as_fd()).is_err() {
            peer.memories -= 1;
            return peer.rest();
        }
        peer.publish(MESSAGE, NAMES, 2, &sealed(peer.memories, archive.len() as u64));
        assert!(rustix::io::pwrite(&fd, &random.bytes(64), random.below(64) as u64).is_err());
        assert!(Map::new(&fd, archive.len(), true).is_err(), "sealed memory was mapped for writing");
        // It counts against the arena until then.
        peer.until_given(peer.memories);
        peer.keep_up();
    });
}
