//! A connection that has been made: honest rings, bells, memories and give-backs for attacks to begin with.

use std::cell::Cell;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{Ordering, fence};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::handshake::{PATIENCE, Terms};
use super::map::Map;
use super::outbox::{self, Shape};
use super::{Record, sys, u32_at};

/// Which end of the connection the hostile process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Renderer,
    Main,
}

#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub extent: usize,
    pub arena: usize,
    pub message: usize,
}

impl Limits {
    pub fn lesser(self, other: Self) -> Self {
        Self {
            extent: self.extent.min(other.extent),
            arena: self.arena.min(other.arena),
            message: self.message.min(other.message),
        }
    }
}

pub const PADDING: u8 = 0;
pub const MESSAGE: u8 = 1;
pub const CALL: u8 = 2;
pub const ANNOUNCE: u8 = 3;
pub const RETIRE: u8 = 4;
pub const ABANDON: u8 = 5;
pub const MORE: u8 = 1;
const LINE: u64 = 64;

pub const EXTENT: u32 = 1;
pub const SEALED: u32 = 2;

/// The channels that every attacker announces.
pub const PING: u16 = 0;
pub const NAMES: u16 = 1;
pub const ASK: u16 = 2;
/// The schema of the errors of a channel that does not say otherwise.
pub const FAILURE: &[u8] = b"{text:string,causes:vec<string>}@16/4";

/// The descriptor bells' sockets that an attacker has.
pub struct Bells {
    /// Rings the victim's.
    pub theirs: OwnedFd,
    /// Is read when the victim rings.
    pub ours: OwnedFd,
    /// A copy of what the victim rings ours with.
    pub rings_ours: OwnedFd,
}

impl Bells {
    pub fn all(&self) -> [&OwnedFd; 3] {
        [&self.theirs, &self.ours, &self.rings_ours]
    }
}

pub struct Peer {
    pub socket: OwnedFd,
    pub bells: Bells,
    pub own: Map,
    pub shape: Shape,
    pub key: u64,
    pub theirs: Map,
    pub their_outbox: OwnedFd,
    pub their_shape: Shape,
    pub their_key: u64,
    pub limits: Limits,
    /// Where our next claim begins, and how far we have read.
    pub tail: u64,
    pub head: u64,
    rung_for: Cell<u64>,
    heard_farewell: Cell<bool>,
    pub memories: u64,
    pub given: u64,
}

pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub payload: Vec<u8>,
}

impl Peer {
    #[allow(clippy::too_many_arguments, reason = "what a handshake brings, all of it different")]
    pub fn new(
        socket: OwnedFd,
        bells: Bells,
        own: Map,
        terms: &Terms,
        theirs: Map,
        their_outbox: OwnedFd,
        their_shape: Shape,
        their_key: u64,
        limits: Limits,
    ) -> Self {
        let Terms { shape, key, .. } = *terms;
        Self {
            socket,
            bells,
            own,
            shape,
            key,
            theirs,
            their_outbox,
            their_shape,
            their_key,
            limits,
            tail: 0,
            head: 0,
            rung_for: Cell::new(0),
            heard_farewell: Cell::new(false),
            memories: 0,
            given: 0,
        }
    }

    /// Whether the victim has hung up.
    pub fn is_over(&self) -> bool {
        self.hung_up_within(Duration::ZERO)
    }

    fn hung_up_within(&self, time: Duration) -> bool {
        let time = Timespec::try_from(time).unwrap();
        let mut polled = [PollFd::new(&self.socket, PollFlags::empty())];
        matches!(poll(&mut polled, Some(&time)), Ok(1)) && polled[0].revents().contains(PollFlags::HUP)
    }

    /// Whether the victim has said that it leaves.
    pub fn has_left(&self) -> bool {
        self.heard_farewell.get() || self.hear_farewell()
    }

    fn hear_farewell(&self) -> bool {
        while let Ok(Some((packet, _))) = sys::receive(&self.socket) {
            if packet == b"MEMITBYE" {
                self.heard_farewell.set(true);
            }
        }
        self.heard_farewell.get()
    }

    /// Waits for the victim to hang up, which it must.
    pub fn is_punished(&self) -> bool {
        self.hung_up_within(PATIENCE)
    }

    /// Lets some time pass, or less if the victim hangs up.
    pub fn rest(&self) {
        self.hung_up_within(Duration::from_millis(1));
    }

    pub fn announce(&mut self, channel: u16, name: &[u8], message: &[u8], reply: &[u8]) -> bool {
        let text = [name, message, reply, FAILURE].concat();
        let lengths = [name.len(), message.len(), reply.len(), FAILURE.len()].map(|len| len as u32);
        self.announce_as(channel, lengths, &text)
    }

    /// An announcement that says these lengths, in as many pieces as it takes.
    pub fn announce_as(&mut self, channel: u16, lengths: [u32; 4], text: &[u8]) -> bool {
        let whole = lengths.into_iter().fold(Record::default(), Record::u32).bytes(text).0;
        let mut pieces = whole.chunks(self.shape.most()).peekable();
        while let Some(piece) = pieces.next() {
            let flags = if pieces.peek().is_some() { MORE } else { 0 };
            if !self.publish(ANNOUNCE, channel, flags, piece) {
                return false;
            }
        }
        true
    }

    /// Sends a frame by all the rules, waiting for space. `false` if the connection has ended.
    pub fn publish(&mut self, kind: u8, channel: u16, flags: u8, payload: &[u8]) -> bool {
        let deadline = Instant::now() + PATIENCE;
        while !self.try_publish(kind, channel, flags, payload) {
            if self.is_over() {
                return false;
            }
            assert!(Instant::now() < deadline, "the victim makes no space");
            self.rest();
        }
        true
    }

    fn at(&self, position: u64) -> usize {
        self.shape.ring() + position as usize % self.shape.capacity
    }

    /// Claims, checks for a collision, publishes back to front, rings. `false` if the ring is full.
    pub fn try_publish(&mut self, kind: u8, channel: u16, flags: u8, payload: &[u8]) -> bool {
        let capacity = self.shape.capacity as u64;
        let size = (16 + payload.len() as u64).next_multiple_of(LINE);
        let first = self.tail;
        let room = capacity - first % capacity;
        let frame = if size > room { first + room } else { first };
        let head = self.theirs.load(outbox::HEAD);
        fence(Ordering::Acquire);
        let fits = |end: u64| end + LINE - head <= capacity;
        let mut joined = Vec::new();
        let mut end = frame + size;
        loop {
            if !fits(end) {
                return false;
            }
            if self.own.load(self.at(end)) != end ^ self.key {
                break;
            }
            joined.push(end);
            end += LINE;
        }
        self.tail = end;
        self.own.write(self.at(frame) + 16, payload);
        self.describe(frame, payload.len(), kind, channel, flags);
        for line in joined {
            self.describe(line, 48, PADDING, 0, 0);
            self.stamp(line);
        }
        if frame != first {
            self.stamp(frame);
            self.describe(first, (frame - first - 16) as usize, PADDING, 0, 0);
        }
        self.stamp(first);
        self.ring_data();
        true
    }

    /// Waits until the victim has read all that was published.
    pub fn until_read(&self) {
        while self.theirs.load(outbox::HEAD) < self.tail && !self.is_over() {
            self.ring_data();
            self.rest();
        }
    }

    /// Waits until the victim has given back so much in all.
    pub fn until_given(&self, count: u64) {
        while self.theirs.load(outbox::GIVEN) < count && !self.is_over() {
            self.ring_data();
            self.rest();
        }
    }

    /// The second word of a frame.
    pub fn describe(&self, position: u64, len: usize, kind: u8, channel: u16, flags: u8) {
        let word = u64::from(len as u32) | u64::from(channel) << 32 | u64::from(kind) << 48 | u64::from(flags) << 56;
        self.own.store(self.at(position) + 8, word);
    }

    pub fn stamp(&self, position: u64) {
        self.own.store(self.at(position), position ^ self.key);
    }

    /// A frame where the victim reads next, of whatever length it says; the rest is as it was.
    pub fn forge(&mut self, len: usize, kind: u8, channel: u16, flags: u8) {
        self.describe(self.tail, len, kind, channel, flags);
        self.stamp(self.tail);
        self.tail += (16 + len as u64).next_multiple_of(LINE);
        self.ring_data();
    }

    pub fn ring_data(&self) {
        fence(Ordering::SeqCst);
        let armed = self.theirs.load(outbox::DATA_ARMED);
        if armed == self.rung_for.get() {
            return;
        }
        self.ring(outbox::DATA_BELL, armed);
        self.rung_for.set(armed);
    }

    /// Rings one bell, in the ways that `armed` names.
    pub fn ring(&self, bell: usize, armed: u64) {
        let word = self.own.word32(bell);
        word.fetch_add(1, Ordering::Release);
        sys::futex_wake(word);
        if armed & 2 != 0 {
            let _ = sys::send(&self.bells.theirs, &[1], &[]);
        }
    }

    /// The next frame that is not padding, if one is there. Tells the victim that it was read.
    pub fn read(&mut self) -> Option<Frame> {
        loop {
            let frame = self.peek()?;
            self.head += (16 + frame.payload.len() as u64).next_multiple_of(LINE);
            self.publish_head();
            if frame.kind != PADDING {
                return Some(frame);
            }
        }
    }

    /// The frame at the head, padding included, if one is there.
    pub fn peek(&self) -> Option<Frame> {
        let at = self.their_shape.ring() + self.head as usize % self.their_shape.capacity;
        if self.theirs.load(at) != self.head ^ self.their_key {
            return None;
        }
        fence(Ordering::Acquire);
        let [len, word] = [8, 12].map(|offset| u32_at(&self.theirs.read(at + offset, 4), 0));
        assert!(16 + len as usize <= self.their_shape.stride(), "the victim's frame is too long");
        let payload = self.theirs.read(at + 16, len as usize);
        Some(Frame { kind: (word >> 16) as u8, flags: (word >> 24) as u8, payload })
    }

    pub fn publish_head(&self) {
        self.own.store(outbox::HEAD, self.head);
        fence(Ordering::SeqCst);
        let armed = self.theirs.load(outbox::SPACE_ARMED);
        if armed != 0 {
            self.ring(outbox::SPACE_BELL, armed);
        }
    }

    /// Reads and gives back all that is there, answering no call. How many frames it was.
    pub fn keep_up(&mut self) -> usize {
        let mut count = 0;
        while let Some(frame) = self.read() {
            count += 1;
            if frame.kind == MESSAGE && frame.flags == 1 {
                self.give_back_block(&frame.payload);
            }
        }
        self.hear();
        count
    }

    /// Takes what descriptors the victim has passed, and forgets them.
    pub fn hear(&self) {
        self.hear_farewell();
    }

    /// Gives back the block that a descriptor in a frame names.
    pub fn give_back_block(&mut self, descriptor: &[u8]) {
        let [memory, generation, offset] = [0, 8, 16].map(|at| super::u64_at(descriptor, at));
        self.give_back([memory, generation, offset, 1]);
    }

    pub fn give_back(&mut self, entry: [u64; 4]) {
        let at = self.shape.give_backs() + outbox::GIVE_BACK * (self.given as usize % outbox::GIVE_BACKS);
        for (index, word) in entry.into_iter().enumerate() {
            self.own.store(at + 8 * index, word);
        }
        self.given += 1;
        self.own.store(outbox::GIVEN, self.given);
        fence(Ordering::SeqCst);
        let armed = self.theirs.load(outbox::BLOCKS_ARMED);
        if armed != 0 {
            self.ring(outbox::SPACE_BELL, armed);
        }
    }

    /// Passes a memory, under a number and kind that may be wrong.
    pub fn pass(&self, number: u64, kind: u32, memory: impl AsFd) -> Result<(), Errno> {
        let packet = Record::default().bytes(b"MEMITMEM").u64(number).u32(kind).u32(0).0;
        sys::send(&self.socket, &packet, &[memory.as_fd()])
    }

    /// A new extent, passed; its number and our map of it.
    pub fn extent(&mut self) -> (u64, Map) {
        let (fd, map) = outbox::sealed(self.limits.extent);
        self.memories += 1;
        // The victim's thread may not have read enough yet; or it has hung up, which whoever waits for it finds out.
        while self.pass(self.memories, EXTENT, &fd) == Err(Errno::AGAIN) {
            self.rest();
        }
        (self.memories, map)
    }

    /// Writes an answer into a slot of ours, and rings.
    pub fn answer(&self, slot: usize, id: u64, status: u8, place: u8, len: u32, payload: &[u8]) {
        let at = self.shape.slot(slot);
        self.own.write(at + 16, payload);
        self.own.store(at + 8, u64::from(len) | u64::from(status) << 32 | u64::from(place) << 40);
        self.own.store(at, id);
        fence(Ordering::SeqCst);
        let armed = self.theirs.load(self.their_shape.reply_armed(slot));
        self.ring(self.shape.reply_bell(slot), armed);
    }
}

/// Where a payload lies, for frames of place 1.
pub fn block(memory: u64, generation: u64, offset: u64, len: u64) -> Vec<u8> {
    Record::default().u64(memory).u64(generation).u64(offset).u64(len).0
}

/// The same for place 2.
pub fn sealed(memory: u64, len: u64) -> Vec<u8> {
    Record::default().u64(memory).u64(len).0
}
