//! Handshakes that are no good. The victim refuses them, holds no place for them for long, and serves the others.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::{Act, Attack, BOTH, RENDERER, Turn, Verdict};
use crate::wire::handshake::{Terms, bell_pair, next, ready, refusal};
use crate::wire::outbox;
use crate::wire::peer::Side;
use crate::wire::{sys, u32_at};

const fn greeting(name: &'static str, sides: &'static [Side], act: fn(&OwnedFd, Side, &mut Turn)) -> Attack {
    Attack { name, sides, verdict: Verdict::Refused, act: Act::Greeting(act), forms: 1 }
}

pub const ATTACKS: &[Attack] = &[
    greeting("shakes_hands_byte_by_byte", BOTH, byte_by_byte),
    greeting("shakes_hands_by_halves", BOTH, by_halves),
    greeting("falls_silent_in_the_handshake", BOTH, silence).in_forms(2),
    greeting("leaves_in_the_handshake", BOTH, leaves).in_forms(3),
    greeting("opens_many_handshakes", RENDERER, many),
    greeting("lies_in_the_handshake", BOTH, lies).in_forms(12),
    greeting("says_noise_in_the_handshake", BOTH, noise).in_forms(2),
];

/// A packet that is not allowed, or terms that cannot be.
pub const BAD_MESSAGE: u32 = 7;
/// An outbox that fails a check.
pub const BAD_OUTBOX: u32 = 8;
const TOO_SLOW: u32 = 11;

/// What a side sends first, with its descriptors, once it is its turn.
pub struct First {
    pub bytes: Vec<u8>,
    pub outbox: OwnedFd,
    bell: OwnedFd,
}

impl First {
    pub fn new(socket: &OwnedFd, side: Side, terms: &Terms) -> Option<Self> {
        let (outbox, _map) = outbox::create(terms.shape, terms.key);
        let bytes = match side {
            Side::Renderer => terms.hello(),
            Side::Main => {
                next(socket)?;
                terms.welcome(1)
            }
        };
        Some(Self { bytes, outbox, bell: bell_pair().1 })
    }

    pub fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        vec![self.outbox.as_fd(), self.bell.as_fd()]
    }
}

/// The victim has refused for one of these reasons.
pub fn expect_refusal(socket: &OwnedFd, codes: &[u32], turn: &mut Turn) {
    let code = refusal(socket);
    assert!(code.is_some_and(|code| codes.contains(&code)), "turn {}: {code:?}, {codes:?} was expected", turn.number);
    turn.struck();
}

fn byte_by_byte(socket: &OwnedFd, side: Side, turn: &mut Turn) {
    let Some(first) = First::new(socket, side, &Terms::default()) else { return };
    let descriptors = first.descriptors();
    for (index, byte) in first.bytes.iter().enumerate() {
        let descriptors = if index == 0 { &descriptors[..] } else { &[] };
        if sys::send(socket, &[*byte], descriptors).is_err() {
            break;
        }
    }
    expect_refusal(socket, &[BAD_MESSAGE], turn);
}

fn by_halves(socket: &OwnedFd, side: Side, turn: &mut Turn) {
    let Some(first) = First::new(socket, side, &Terms::default()) else { return };
    let cut = 1 + turn.random.below(first.bytes.len() - 1);
    let _ = sys::send(socket, &first.bytes[..cut], &first.descriptors());
    let _ = sys::send(socket, &first.bytes[cut..], &[]);
    expect_refusal(socket, &[BAD_MESSAGE], turn);
}

/// Says nothing at all, or everything but the last word.
fn silence(socket: &OwnedFd, side: Side, turn: &mut Turn) {
    if side == Side::Renderer && turn.number.is_multiple_of(2) {
        let Some(first) = First::new(socket, side, &Terms::default()) else { return };
        sys::send(socket, &first.bytes, &first.descriptors()).unwrap();
    }
    match side {
        Side::Renderer => expect_refusal(socket, &[TOO_SLOW], turn),
        // A renderer just leaves, or says why.
        Side::Main => {
            assert!(matches!(refusal(socket), None | Some(TOO_SLOW)));
            turn.struck();
        }
    }
}

fn leaves(socket: &OwnedFd, side: Side, turn: &mut Turn) {
    if !turn.number.is_multiple_of(3) {
        let Some(first) = First::new(socket, side, &Terms::default()) else { return };
        let _ = sys::send(socket, &first.bytes, &first.descriptors());
        if turn.number % 3 == 2 && side == Side::Renderer {
            next(socket);
        }
    }
    turn.struck();
}

/// More than the victim carries on at once; each holds its place for as long as it may.
fn many(socket: &OwnedFd, _: Side, turn: &mut Turn) {
    let address = rustix::net::getpeername(socket).unwrap().unwrap();
    let open: Vec<OwnedFd> = (0..100)
        .map_while(|_| {
            let family = rustix::net::AddressFamily::UNIX;
            let flags = rustix::net::SocketFlags::CLOEXEC | rustix::net::SocketFlags::NONBLOCK;
            let socket = rustix::net::socket_with(family, rustix::net::SocketType::SEQPACKET, flags, None).unwrap();
            // The queue may be full.
            rustix::net::connect(&socket, &address).ok().map(|()| socket)
        })
        .collect();
    for socket in &open {
        assert!(matches!(refusal(socket), Some(TOO_SLOW)), "a silent client was not refused for being slow");
    }
    expect_refusal(socket, &[TOO_SLOW], turn);
}

/// One number of the terms is another.
fn lies(socket: &OwnedFd, side: Side, turn: &mut Turn) {
    let Some(mut first) = First::new(socket, side, &Terms::default()) else { return };
    // Neither the capabilities, which may be anything, nor the endpoint, nor the last number.
    let fields =
        [(0, 8), (8, 4), (12, 4), (16, 4), (24, 8), (40, 8), (48, 8), (56, 4), (60, 4), (64, 8), (72, 8), (80, 8)];
    let (at, len) = fields[turn.number % fields.len()];
    match at {
        // Within bounds, most numbers are good; these are not.
        64 => first.bytes[at] ^= 1,
        72 | 80 => first.bytes[at..at + len].fill(0),
        12 => first.bytes[at] = turn.random.one_of(&[0, 3, 5, 200]),
        _ => {
            let bit = turn.random.below(8 * len);
            first.bytes[at + bit / 8] ^= 1 << (bit % 8);
        }
    }
    if sys::send(socket, &first.bytes, &first.descriptors()).is_err() {
        return;
    }
    let expected = match at {
        8 => 1,
        16 => 2,
        24 => 3,
        _ => BAD_MESSAGE,
    };
    // Sizes are compared with each other and with the outbox.
    expect_refusal(socket, &[expected, BAD_OUTBOX], turn);
}

fn noise(socket: &OwnedFd, side: Side, turn: &mut Turn) {
    let Some(first) = First::new(socket, side, &Terms::default()) else { return };
    let mut bytes = turn.random.bytes(1 + turn.random.clone().below(400));
    if turn.number.is_multiple_of(2) {
        let most = bytes.len().min(16);
        bytes[..most].copy_from_slice(&first.bytes[..most]);
    }
    if sys::send(socket, &bytes, &first.descriptors()).is_ok() {
        expect_refusal(socket, &[BAD_MESSAGE], turn);
    }
    // What comes too late goes nowhere.
    let _ = sys::send(socket, &ready(u64::from(u32_at(&first.bytes, 8))), &[]);
}
