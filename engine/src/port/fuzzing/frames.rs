//! Single frames, honestly published, of any content; compared with what the protocol's document says of each.

use std::os::fd::AsFd;

use super::{EXTENT, MAX_CHANNELS, MESSAGE_LIMIT, Rig};
use crate::call::CallId;
use crate::frame::{ABANDON, ANNOUNCE, CALL, MESSAGE, RETIRE};
use crate::outbox::GiveBack;
use crate::outbox::fuzzing::{GEOMETRY, given};
use crate::payload::PAGE;
use crate::rendezvous::Role;
use crate::sys::memfd;
use crate::sys::socket::{self, MemoryKind};

const SEALED_LEN: usize = 5000;

/// What a frame must lead to.
enum Expected {
    Nothing,
    Violation,
    /// An announcement, or a piece of one, is its own test.
    Any,
    Message {
        call: Option<u64>,
        bytes: Vec<u8>,
    },
}

/// Which of the memories 1, an extent, and 2, a sealed one, are there.
struct Model {
    extent: bool,
    sealed: bool,
    given: Vec<GiveBack>,
}

/// A list of frames: channel, kind, flags, length in two bytes, payload. The peer has announced channel 3 and passed an
/// extent, memory 1, and a sealed memory, 2.
pub(crate) fn frames(mut bytes: &[u8]) {
    let mut rig = Rig::new(Role::Main);
    rig.announce(3);
    rig.drain(1);
    let mut pattern = Vec::new();
    let mut model = Model { extent: true, sealed: true, given: Vec::new() };
    while let Some(([channel, kind, flags, low, high], rest)) = bytes.split_first_chunk::<5>() {
        let most = GEOMETRY.capacity().max_payload();
        let len = usize::from(u16::from_le_bytes([*low, *high])).min(rest.len()).min(most);
        let (payload, rest) = rest.split_at(len);
        bytes = rest;
        let (channel, heard, announced) = (u16::from(*channel), rig.heard.messages.len(), rig.heard.announced.len());
        let is_announced = rig.heard.numbers.contains(&channel);
        if pattern.is_empty() && (*flags != 0 || *kind == RETIRE) {
            pattern = pass(&rig);
        }
        rig.peer.publish(channel, *kind, *flags, payload);
        rig.drain(1);
        match model.expected(*kind, *flags, is_announced, payload, &pattern) {
            Expected::Nothing => assert!(rig.link.is_connected() && rig.heard.messages.len() == heard),
            Expected::Violation => assert!(rig.is_broken() && rig.heard.messages.len() == heard),
            Expected::Any => assert!(channel < MAX_CHANNELS || rig.is_broken()),
            Expected::Message { call, bytes } => {
                assert!(rig.link.is_connected(), "{:?}", rig.link.ended());
                let [message] = &rig.heard.messages[heard..] else { panic!("it was not heard once") };
                assert_eq!((message.channel, message.call.map(|call| call.id.get())), (channel, call));
                assert!(message.bytes == bytes, "something else was heard");
            }
        }
        if *kind != ANNOUNCE {
            assert_eq!(rig.heard.announced.len(), announced);
        }
        for (n, expected) in model.given.iter().enumerate() {
            assert_eq!(given(&rig.ours, n as u64), Some(*expected));
        }
        assert_eq!(rig.ours.load_given(), model.given.len() as u64);
        if !rig.link.is_connected() {
            return;
        }
    }
}

/// Passes both memories; what is in them. That costs more than all else, so only those frames have it that may ask.
fn pass(rig: &Rig) -> Vec<u8> {
    let pattern: Vec<u8> = (0..EXTENT).map(|at| (at / 8 % 251) as u8).collect();
    let (extent, map) = memfd::create("memit-fuzz", EXTENT).unwrap();
    map.write(0, &pattern);
    let sealed = memfd::Unsealed::with_bytes("memit-fuzz", &pattern[..SEALED_LEN]).unwrap().seal().unwrap();
    for (number, kind, memory) in [(1, MemoryKind::Extent, extent), (2, MemoryKind::Sealed, sealed)] {
        socket::send_memory(rig.socket.as_fd(), number, kind, memory.as_fd()).unwrap();
    }
    pattern
}

impl Model {
    fn expected(&mut self, kind: u8, flags: u8, is_announced: bool, payload: &[u8], pattern: &[u8]) -> Expected {
        let number = || payload.try_into().map(u64::from_le_bytes);
        let has_slot = |call| GEOMETRY.has_slot(CallId::from_peer(call).slot());
        match kind {
            0 => Expected::Nothing,
            ANNOUNCE => Expected::Any,
            RETIRE => match number() {
                Ok(memory @ 1) if std::mem::take(&mut self.extent) => self.gives(GiveBack::Memory { memory }),
                Ok(memory @ 2) if std::mem::take(&mut self.sealed) => self.gives(GiveBack::Memory { memory }),
                _ => Expected::Violation,
            },
            ABANDON => match number() {
                Ok(call) if has_slot(call) => Expected::Nothing,
                _ => Expected::Violation,
            },
            MESSAGE | CALL if !is_announced || flags > 2 => Expected::Violation,
            MESSAGE => self.payload(None, flags, payload, pattern),
            CALL => match payload.split_first_chunk::<16>() {
                Some((header, rest)) => {
                    let call = u64::from_le_bytes(header[..8].try_into().unwrap());
                    if !has_slot(call) {
                        return Expected::Violation;
                    }
                    self.payload(Some(call), flags, rest, pattern)
                }
                None => Expected::Violation,
            },
            _ => Expected::Violation,
        }
    }

    fn gives(&mut self, given: GiveBack) -> Expected {
        self.given.push(given);
        Expected::Nothing
    }

    fn payload(&mut self, call: Option<u64>, place: u8, payload: &[u8], pattern: &[u8]) -> Expected {
        let words: Vec<u64> =
            payload.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().unwrap())).collect();
        match (place, payload.len(), &words[..]) {
            (0, ..) => Expected::Message { call, bytes: payload.to_vec() },
            (1, 32, &[memory @ 1, generation, offset, len]) if self.extent => {
                let end = offset.checked_add(len).filter(|end| *end <= EXTENT as u64);
                let is_page = offset.is_multiple_of(PAGE as u64);
                let Some(end) = end.filter(|_| is_page && len > 0 && len <= MESSAGE_LIMIT as u64) else {
                    return Expected::Violation;
                };
                self.given.push(GiveBack::Block { memory, generation, offset });
                Expected::Message { call, bytes: pattern[offset as usize..end as usize].to_vec() }
            }
            (2, 16, &[memory @ 2, len]) if self.sealed && len == SEALED_LEN as u64 => {
                self.sealed = false;
                self.given.push(GiveBack::Memory { memory });
                Expected::Message { call, bytes: pattern[..SEALED_LEN].to_vec() }
            }
            // It counts as given back, though nobody listens any more.
            (2, 16, &[memory @ 2, len]) if self.sealed && len <= MESSAGE_LIMIT as u64 => {
                self.given.push(GiveBack::Memory { memory });
                Expected::Violation
            }
            _ => Expected::Violation,
        }
    }
}

/// A frame of each kind, and some that are not right.
#[cfg(test)]
pub(crate) fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let frame_on = |channel: u8, kind: u8, flags: u8, payload: &[u8]| {
        let len = u16::try_from(payload.len()).unwrap().to_le_bytes();
        [&[channel, kind, flags, len[0], len[1]], payload].concat()
    };
    let frame = |kind, flags, payload: &[u8]| frame_on(3, kind, flags, payload);
    let words = |words: &[u64]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
    let call = |place, rest: &[u64]| frame(CALL, place, &words(&[&[0x41, 5_000_000_000], rest].concat()));
    let page = PAGE as u64;
    let pieces: [(u8, &[u8]); 2] = [(1, &[4, 0, 0, 0, 1, 0, 0, 0]), (0, b"\x02\0\0\0\x01\0\0\0nameabbc")];
    let announcement = pieces.map(|(more, piece)| frame_on(4, ANNOUNCE, more, piece)).concat();
    vec![
        ("message", frame(MESSAGE, 0, b"hello")),
        ("message_empty", frame(MESSAGE, 0, b"")),
        ("call", call(0, &[1, 2, 3])),
        ("call_of_no_slot", frame(CALL, 0, &words(&[0x42, 0, 1]))),
        ("call_too_short", frame(CALL, 0, &words(&[0x41]))),
        ("message_on_no_channel", frame_on(5, MESSAGE, 0, b"x")),
        ("call_in_a_block", call(1, &[1, 7, page, 100])),
        ("message_in_a_block", frame(MESSAGE, 1, &words(&[1, 1, 0, EXTENT as u64]))),
        ("message_beyond_the_extent", frame(MESSAGE, 1, &words(&[1, 1, 15 * page, page + 1]))),
        ("message_in_sealed_memory", frame(MESSAGE, 2, &words(&[2, SEALED_LEN as u64])).repeat(2)),
        ("sealed_of_another_length", frame(MESSAGE, 2, &words(&[2, 5001]))),
        ("announcement_in_pieces", announcement),
        ("announcement_of_too_high_a_number", frame_on(8, ANNOUNCE, 0, &[0; 16])),
        ("retirements", [frame(RETIRE, 0, &words(&[1])), frame(RETIRE, 0, &words(&[2]))].concat()),
        ("retirement_twice", frame(RETIRE, 0, &words(&[1])).repeat(2)),
        ("abandonment", [call(0, &[]), frame(ABANDON, 0, &words(&[0x41]))].concat()),
        ("abandonment_of_no_slot", frame(ABANDON, 0, &words(&[2]))),
        ("padding_and_message", [frame(0, 0, &[9; 300]), frame(MESSAGE, 0, &[8; 200])].concat()),
        ("unknown_kind", frame(6, 0, b"")),
        ("unknown_flags", frame(MESSAGE, 4, b"x")),
    ]
}
