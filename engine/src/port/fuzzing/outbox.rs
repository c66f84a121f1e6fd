//! A peer that writes anything anywhere, while this side reads, sends, calls and answers.

use std::os::fd::AsFd;
use std::time::Instant;

use arbitrary::{Arbitrary, Unstructured};
use memit_ringbuf::LINE;

use super::{EXTENT, MESSAGE_LIMIT, Rig};
use crate::aligned::AlignedBytes;
use crate::call::{CallId, ReplyStatus};
use crate::channels::Announced;
use crate::error::{CallError, SendError};
use crate::link::Patience;
use crate::outbox::fuzzing::{Area, GEOMETRY};
use crate::rendezvous::Role;
use crate::sys::memfd;
use crate::sys::socket::{self, MemoryKind};
use crate::thread::Marked;

#[derive(Arbitrary, Debug)]
struct Case {
    is_main: bool,
    /// Words of the header that are not what they should be.
    header: Option<Vec<(u8, u64)>>,
    operations: Vec<Operation>,
}

#[derive(Arbitrary, Debug)]
enum Operation {
    Scribble {
        area: Area,
        index: u16,
        words: Vec<u64>,
    },
    /// A frame as an honest peer publishes it, of any content.
    Frame {
        channel: u8,
        kind: u8,
        flags: u8,
        payload: Vec<u8>,
    },
    /// A stamp at the tail, before whatever bytes are there.
    Forge {
        lines: u8,
        second: u64,
    },
    Announce {
        channel: u8,
    },
    /// So many lines before or behind where we are, or at any place.
    Head {
        lines: i8,
        exact: Option<u64>,
    },
    GiveBack {
        n: u16,
        words: [Small; 4],
        given: Small,
    },
    /// An answer to a call that was made, or that will be.
    Reply {
        slot: u8,
        off: i8,
        answer: Answer,
    },
    Pass {
        number: Small,
        is_sealed: bool,
        pages: u8,
    },
    Packet {
        bytes: Vec<u8>,
    },
    Drain {
        most: u8,
    },
    Send {
        len: u32,
    },
    /// With the answer that is there at once, if any.
    Call {
        len: u16,
        dispatching: bool,
        answer: Option<Answer>,
    },
    /// To one of the calls that came.
    Answer {
        call: u8,
        len: u32,
        status: u8,
    },
    Flush,
    Shutdown,
}

/// What stands in a reply slot.
#[derive(Arbitrary, Debug)]
struct Answer {
    len: Small,
    status: u8,
    place: u8,
    /// What should be zero, mostly is.
    rest: Option<u16>,
    words: Vec<Small>,
}

/// A number that hits something now and then, or any.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum Small {
    Byte(u8),
    Pages(u8),
    Any(u64),
}

impl Small {
    fn get(self) -> u64 {
        match self {
            Self::Byte(byte) => byte.into(),
            Self::Pages(pages) => u64::from(pages) << 12,
            Self::Any(any) => any,
        }
    }
}

const OURS: Announced<'static> = Announced { channel: 1, name: "ours", message: b"m", reply: b"r", error: b"" };

/// Nothing waits, nothing is read outside of its place, nothing takes more memory than was agreed on, and a peer that
/// was found to break the protocol is not heard any more.
pub(crate) fn outbox(bytes: &[u8]) {
    let Ok(case) = Case::arbitrary_take_rest(Unstructured::new(bytes)) else { return };
    let role = if case.is_main { Role::Main } else { Role::Renderer };
    let Ok(mut rig) = Rig::with_header(role, &case.header.unwrap_or_default()) else { return };
    // Calls take their ids from one count.
    let mut calls = 0;
    for operation in case.operations {
        apply(&mut rig, operation, &mut calls);
    }
    // What is there ends, and so does what such a peer still pretends to say.
    let most = GEOMETRY.capacity().get() / LINE;
    while rig.drain(1 + most) > most {}
    rig.link.disconnect(crate::error::Disconnect::Died);
    let after_the_end = (0..3).map(|_| rig.drain(2 * most)).sum::<usize>();
    assert!(after_the_end <= most, "{after_the_end} frames after the end");
}

fn apply(rig: &mut Rig, operation: Operation, calls: &mut u64) {
    match operation {
        Operation::Scribble { area, index, words } => {
            for (at, word) in words.into_iter().enumerate() {
                rig.peer.scribble(area, index.wrapping_add(at as u16), word);
            }
        }
        Operation::Frame { channel, kind, flags, payload } => rig.peer.publish(channel.into(), kind, flags, &payload),
        Operation::Forge { lines, second } => rig.peer.forge(lines, second),
        Operation::Announce { channel } => rig.announce(channel.into()),
        Operation::Head { lines, exact } => rig.peer.say_head(lines, exact),
        Operation::GiveBack { n, words, given } => rig.peer.give_back(n.into(), words.map(Small::get), given.get()),
        Operation::Reply { slot, off, answer } => {
            let id = CallId::new((*calls + 1).wrapping_add_signed(off.into()), u32::from(slot) % GEOMETRY.slot_count());
            reply(rig, id, answer);
        }
        Operation::Pass { number, is_sealed, pages } => {
            let (number, len) = (number.get().max(1), (usize::from(pages).max(1) << 12).min(2 * EXTENT));
            let memory = if is_sealed {
                memfd::Unsealed::with_bytes("memit-fuzz", &vec![7; len]).unwrap().seal().unwrap()
            } else {
                memfd::create("memit-fuzz", len).unwrap().0
            };
            let kind = if is_sealed { MemoryKind::Sealed } else { MemoryKind::Extent };
            let _ = socket::send_memory(rig.socket.as_fd(), number, kind, memory.as_fd());
        }
        Operation::Packet { bytes } => rig.say(&bytes, &[]),
        Operation::Drain { most } => {
            rig.drain(most.into());
        }
        Operation::Send { len } => send(rig, len as usize % (MESSAGE_LIMIT + 2)),
        Operation::Call { len, dispatching, answer } => {
            if let Some(answer) = answer {
                // The slot of the thread that dispatches, or the only other one.
                reply(rig, CallId::new(*calls + 1, u32::from(!dispatching)), answer);
            }
            call(rig, len.into(), dispatching, calls);
        }
        Operation::Answer { call, len, status } => {
            let tokens: Vec<_> = rig.heard.messages.iter().filter_map(|message| message.call).collect();
            if let Some(token) = (!tokens.is_empty()).then(|| tokens[usize::from(call) % tokens.len()]) {
                let status = ReplyStatus::from_peer(status).unwrap_or(ReplyStatus::Value);
                let _ = rig.link.reply(token, status, &vec![1; len as usize % (MESSAGE_LIMIT + 2)]);
            }
        }
        Operation::Flush => {
            rig.link.flush();
        }
        Operation::Shutdown => rig.link.disconnect(crate::error::Disconnect::ShutDown),
    }
    // Lest the list of what was heard be the fault that is found.
    rig.heard.messages.iter_mut().for_each(|message| message.bytes = Vec::new());
    if rig.heard.messages.len() > 256 {
        rig.heard.messages.drain(..128);
    }
}

fn reply(rig: &Rig, id: CallId, answer: Answer) {
    let Answer { len, status, place, rest, words } = answer;
    let (len, rest) = (len.get() & 0xFFFF_FFFF, u64::from(rest.unwrap_or(0)));
    let second = len | u64::from(status) << 32 | u64::from(place) << 40 | rest << 48;
    let payload: Vec<u8> = words.into_iter().flat_map(|word| word.get().to_le_bytes()).collect();
    rig.peer.answer(id.slot(), id.get(), second, &payload);
}

fn send(rig: &Rig, len: usize) {
    let announced = rig.link.announce(&OURS, Patience::Now);
    match announced.and_then(|()| rig.link.send(OURS.channel, &vec![3; len], Patience::Now)) {
        Ok(()) | Err(SendError::Full { .. }) => {}
        Err(SendError::TooLarge { max, .. }) => assert!(len > max && max == MESSAGE_LIMIT),
        Err(SendError::Disconnected(_)) => assert!(!rig.link.is_connected()),
        Err(error) => panic!("{error}"),
    }
}

fn call(rig: &Rig, len: usize, dispatching: bool, calls: &mut u64) {
    // Whether or not it gets that far.
    let announced = rig.link.announce(&OURS, Patience::Now).is_ok();
    if !announced || !rig.link.is_connected() {
        return;
    }
    let _here = dispatching.then(|| Marked::dispatching(rig.core.token()));
    *calls += 1;
    let mut reply = AlignedBytes::new();
    match rig.link.call(OURS.channel, &vec![5; len], Some(Instant::now()), &mut reply) {
        Ok(kept) => {
            let len = kept.as_ref().map_or(reply.len(), |kept| kept.len());
            assert!(len <= MESSAGE_LIMIT.max(GEOMETRY.max_reply()));
        }
        Err(CallError::Disconnected(_)) => assert!(!rig.link.is_connected()),
        Err(CallError::TooLarge { .. } | CallError::NoMemory(_) | CallError::Forked) => panic!("it is small"),
        Err(_) => assert!(reply.len() <= GEOMETRY.max_reply()),
    }
}
