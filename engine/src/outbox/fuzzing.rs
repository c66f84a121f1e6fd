//! An outbox that is written word by word, by a peer that keeps no rule.
#![allow(clippy::unwrap_used, reason = "these are tests")]

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use memit_ringbuf::{Capacity, HEADER, Key, LINE};

use super::layout::{GIVEN, Geometry, GiveBack, HEAD, HEADER_WORDS, LEAST_SLOTS};
use super::{Limits, OutboxRejected, OwnOutbox, PeerOutbox};
use crate::sys::map::ReadWriteMap;
use crate::sys::memfd;

/// The smallest ring, and the fewest slots.
pub(crate) const GEOMETRY: Geometry = match Capacity::new(4096) {
    Ok(capacity) => Geometry { capacity, slot_count: LEAST_SLOTS },
    Err(_) => panic!("the smallest ring has 4,096 bytes"),
};

const KEY: u64 = 0x0123_4567_89AB_CDEF;

/// A peer's outbox as the peer has it.
#[derive(Debug)]
pub(crate) struct Forged {
    map: ReadWriteMap,
    key: u64,
    /// Where its next frame begins.
    tail: u64,
    /// How far it last said that it had consumed our ring.
    head: u64,
}

/// A part of an outbox that is written to.
#[derive(Clone, Copy, Debug, arbitrary::Arbitrary)]
pub(crate) enum Area {
    Whole,
    Control,
    Ring,
    Slots,
    GiveBacks,
}

impl Forged {
    /// An honest outbox, but for these words of its header; and what its peer makes of it.
    pub(crate) fn create(header: &[(u8, u64)]) -> (Self, Result<Arc<PeerOutbox>, OutboxRejected>) {
        let (fd, map) = memfd::create("memit-fuzz", GEOMETRY.size()).unwrap();
        let mut words = GEOMETRY.header(Key::new(KEY).unwrap());
        for (index, word) in header {
            words[usize::from(*index) % HEADER_WORDS] = *word;
        }
        let key = words[5];
        let forged = Self { map, key, tail: 0, head: 0 };
        for (index, word) in words.into_iter().enumerate() {
            forged.store(index * 8, word);
        }
        (forged, PeerOutbox::accept(fd, Limits { max_size: 1 << 20 }))
    }

    /// An honest one of ours, and how the peer sees it.
    pub(crate) fn own() -> (Arc<OwnOutbox>, Arc<PeerOutbox>) {
        let (own, fd): (_, OwnedFd) = OwnOutbox::create(GEOMETRY).unwrap();
        let seen = PeerOutbox::accept(fd, Limits { max_size: 1 << 20 }).unwrap();
        (own, seen)
    }

    pub(crate) fn store(&self, offset: usize, word: u64) {
        self.map.word64(offset).store(word, Ordering::Release);
    }

    /// Writes a word of an area, at an index modulo their number.
    pub(crate) fn scribble(&self, area: Area, index: u16, word: u64) {
        let g = GEOMETRY;
        let (from, to) = match area {
            Area::Whole => (0, g.size()),
            Area::Control => (HEAD, g.ring_offset()),
            Area::Ring => (g.ring_offset(), g.slots_offset()),
            Area::Slots => (g.slots_offset(), g.give_backs_offset()),
            Area::GiveBacks => (g.give_backs_offset(), g.size()),
        };
        self.store(from + usize::from(index) * 8 % (to - from), word);
    }

    /// Publishes a frame at the tail, as an honest producer would but for what it says of itself. It overwrites what was
    /// not read yet: the peer has to read first. Pads where the frame would reach over the ring's end.
    pub(crate) fn publish(&mut self, channel: u16, kind: u8, flags: u8, payload: &[u8]) {
        let most = GEOMETRY.capacity().max_payload();
        let payload = &payload[..payload.len().min(most)];
        let (capacity, size) = (GEOMETRY.capacity().get(), (HEADER + payload.len()).next_multiple_of(LINE));
        let room = capacity - self.place();
        if size > room {
            // An honest claim of both stamps the padding last.
            self.describe(u32::try_from(room - HEADER).unwrap(), 0, 0, 0);
            self.stamp(room);
        }
        let len = u32::try_from(payload.len()).unwrap();
        self.map.write(GEOMETRY.ring_offset() + self.place() + HEADER, payload);
        self.describe(len, channel, kind, flags);
        self.stamp(size);
    }

    /// Publishes a frame at the tail that says so of itself, over whatever bytes are there, and goes on `lines` behind.
    pub(crate) fn forge(&mut self, lines: u8, second: u64) {
        self.store(GEOMETRY.ring_offset() + self.place() + 8, second);
        self.stamp(usize::from(lines) * LINE);
    }

    /// Says that it has consumed our ring up to there, or so far from where it last said.
    pub(crate) fn say_head(&mut self, lines: i8, exact: Option<u64>) {
        let head = exact.unwrap_or_else(|| self.head.wrapping_add_signed(i64::from(lines) * LINE as i64));
        self.head = head;
        self.store(HEAD, head);
    }

    /// Writes give-back `n`, and that there are as many as `given`.
    pub(crate) fn give_back(&self, n: u64, words: [u64; 4], given: u64) {
        for (index, word) in words.into_iter().enumerate() {
            self.store(GEOMETRY.give_back(n) + index * 8, word);
        }
        self.store(GIVEN, given);
    }

    /// Writes a reply slot of ours: its second word, what follows, and the id.
    pub(crate) fn answer(&self, slot: u32, id: u64, second: u64, payload: &[u8]) {
        let slot = GEOMETRY.slot(slot % GEOMETRY.slot_count);
        self.map.write(slot + 16, &payload[..payload.len().min(GEOMETRY.max_reply())]);
        self.store(slot + 8, second);
        self.store(slot, id);
    }

    fn place(&self) -> usize {
        usize::try_from(self.tail).unwrap() % GEOMETRY.capacity().get()
    }

    fn describe(&self, len: u32, channel: u16, kind: u8, flags: u8) {
        let word = u64::from(len) | u64::from(channel) << 32 | u64::from(kind) << 48 | u64::from(flags) << 56;
        self.store(GEOMETRY.ring_offset() + self.place() + 8, word);
    }

    fn stamp(&mut self, size: usize) {
        self.store(GEOMETRY.ring_offset() + self.place(), self.tail ^ self.key);
        self.tail += size as u64;
    }
}

/// What give-back `n` of ours says, if it is there.
pub(crate) fn given(seen: &PeerOutbox, n: u64) -> Option<GiveBack> {
    (seen.load_given() > n).then(|| seen.read_give_back(n).unwrap())
}
