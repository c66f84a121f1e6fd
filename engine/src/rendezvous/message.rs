//! The packets of a handshake, byte for byte.
//!
//! ```text
//! every packet                            Hello (96 bytes, two descriptors) and the start of Welcome
//!  0       8           12       16         16        20              24             32
//!  +-------+-----------+--------+          +---------+---------------+--------------+
//!  | magic | protocol  | kind   |          | layout  | capabilities  | fingerprint  |
//!  +-------+-----------+--------+          +---------+---------------+--------------+
//!                                          32        40             48              56          60       64
//! Ready (24 bytes)                         +---------+--------------+---------------+-----------+--------+
//!  16            24                        | endpoint| outbox size  | ring capacity | slots     | zero   |
//!  +-------------+                         +---------+--------------+---------------+-----------+--------+
//!  | renderer id |                         64            72            80              88            96
//!  +-------------+                         +-------------+-------------+---------------+-------------+
//!                                          | extent size | arena limit | message limit | sealed from |
//!                                          +-------------+-------------+---------------+-------------+
//!
//! Refuse (40 to 256 bytes)                Welcome goes on (112 bytes, two descriptors)
//!  16     20         24      32         40 96            104       108      112
//!  +------+----------+-------+----------+  +-------------+---------+--------+
//!  | code | text len | found | expected |  | renderer id | granted | zero   |
//!  +------+----------+-------+----------+  +-------------+---------+--------+
//!  | text, UTF-8
//!  +--------------
//! ```
//! Numbers are little-endian. The first 16 bytes, and the whole of Refuse, are the same in every version of the
//! protocol, so that two versions can tell each other that they differ.

use std::fmt;

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::payloads::PayloadTerms;
use crate::outbox::OutboxRejected;

/// Starts every packet.
pub(super) const MAGIC: [u8; 8] = *b"MEMIT-HS";

/// The version that this code speaks.
pub(super) const PROTOCOL_VERSION: u32 = 4;

/// The version of the outbox's layout that this code makes and reads.
pub(super) const LAYOUT_VERSION: u32 = 2;

/// Descriptors that come with a Hello and with a Welcome: the sender's outbox, and the end of its bell that rings it.
pub(super) const DESCRIPTORS: usize = 2;

/// No packet of any version is longer.
pub(super) const MAX_PACKET: usize = 256;

/// Bits of [`Terms::capabilities`].
pub(super) mod capability {
    /// The sender takes part in membarrier: heavy barriers of others reach it.
    pub(in crate::rendezvous) const REGISTERED: u32 = 1 << 0;
    /// The sender would pay for both barriers when it sleeps.
    pub(in crate::rendezvous) const ASYMMETRIC_SLEEP: u32 = 1 << 1;
}

/// Bits of [`Welcome::granted`].
pub(super) mod grant {
    /// The renderer issues a membarrier before it sleeps, and main a compiler fence before it wakes it.
    pub(in crate::rendezvous) const RENDERER_SLEEPS_ASYMMETRICALLY: u32 = 1 << 0;
    /// The same with main and renderer exchanged.
    pub(in crate::rendezvous) const MAIN_SLEEPS_ASYMMETRICALLY: u32 = 1 << 1;
}

/// What a side says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Terms {
    pub(super) layout: u32,
    pub(super) capabilities: u32,
    pub(super) fingerprint: u64,
    /// Random for each endpoint, so that two in one process recognize each other.
    pub(super) endpoint: u64,
    pub(super) outbox_size: u64,
    pub(super) ring_capacity: u64,
    pub(super) slot_count: u32,
    pub(super) payloads: PayloadTerms,
}

/// Main's answer to a Hello that it accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Welcome {
    pub(super) terms: Terms,
    pub(super) renderer_id: u64,
    pub(super) granted: u32,
}

/// Why a side ends a handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// The version that the refusing side speaks.
    pub(super) protocol: u32,
    pub(super) code: RefusalCode,
    pub(super) found: u64,
    pub(super) expected: u64,
    pub(super) text: String,
}

/// What a refusal is about, and what its two numbers mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RefusalCode {
    /// Protocol versions.
    Version,
    /// Versions of the outbox's layout.
    Layout,
    /// Fingerprints of the payload format.
    Format,
    /// User ids: the peer's, and the one that would have been admitted.
    Unauthorized,
    /// Connections in all: how many there are, and how many there may be.
    TooMany,
    /// Connections of this user: how many there are, and how many there may be.
    TooManyOfUser,
    /// A packet that the protocol does not allow here, or terms that cannot be.
    BadMessage,
    /// An outbox that fails a check.
    BadOutbox,
    /// The refusing side is out of memory or descriptors.
    NoResources,
    /// The refusing side is about to close.
    ShuttingDown,
    /// The handshake took too long: milliseconds taken, and allowed.
    Deadline,
    /// A code of another version.
    Other(u32),
}

impl RefusalCode {
    const CODES: [(Self, u32); 11] = [
        (Self::Version, 1),
        (Self::Layout, 2),
        (Self::Format, 3),
        (Self::Unauthorized, 4),
        (Self::TooMany, 5),
        (Self::TooManyOfUser, 6),
        (Self::BadMessage, 7),
        (Self::BadOutbox, 8),
        (Self::NoResources, 9),
        (Self::ShuttingDown, 10),
        (Self::Deadline, 11),
    ];

    fn from_number(number: u32) -> Self {
        Self::CODES.iter().find(|(_, n)| *n == number).map_or(Self::Other(number), |(code, _)| *code)
    }

    fn number(self) -> u32 {
        match self {
            Self::Other(number) => number,
            code => Self::CODES.iter().find(|(c, _)| *c == code).map_or(0, |(_, number)| *number),
        }
    }
}

/// A packet that was understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Message {
    Hello(Terms),
    Welcome(Welcome),
    Ready { renderer_id: u64 },
    Refuse(Refusal),
}

/// A packet that was not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Malformed {
    #[error("a packet of {0} bytes is no handshake of memit's; is this the right socket?")]
    Foreign(usize),
    #[error(
        "the peer speaks protocol version {found}, expected {PROTOCOL_VERSION}; use the same version of memit on both sides"
    )]
    Version { found: u32 },
    #[error("a packet of unknown kind {0}")]
    Kind(u32),
    #[error("a packet of kind {kind} has {found} bytes, expected {expected}")]
    Length { kind: u32, found: usize, expected: usize },
    #[error("reserved bits of a packet of kind {kind} are {found:#x}, expected 0")]
    Reserved { kind: u32, found: u32 },
}

const HELLO: u32 = 1;
const WELCOME: u32 = 2;
const READY: u32 = 3;
const REFUSE: u32 = 4;

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct PrefixWire {
    magic: [u8; 8],
    protocol: U32,
    kind: U32,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct TermsWire {
    layout: U32,
    capabilities: U32,
    fingerprint: U64,
    endpoint: U64,
    outbox_size: U64,
    ring_capacity: U64,
    slot_count: U32,
    zero: U32,
    extent_size: U64,
    arena_limit: U64,
    message_limit: U64,
    sealed_from: U64,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct HelloWire {
    prefix: PrefixWire,
    terms: TermsWire,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct WelcomeWire {
    prefix: PrefixWire,
    terms: TermsWire,
    renderer_id: U64,
    granted: U32,
    zero: U32,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct ReadyWire {
    prefix: PrefixWire,
    renderer_id: U64,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RefuseWire {
    prefix: PrefixWire,
    code: U32,
    text_len: U32,
    found: U64,
    expected: U64,
}

const _: () = assert!(size_of::<PrefixWire>() == 16);
const _: () = assert!(size_of::<HelloWire>() == 96);
const _: () = assert!(size_of::<WelcomeWire>() == 112);
const _: () = assert!(size_of::<ReadyWire>() == 24);
const _: () = assert!(size_of::<RefuseWire>() == 40);

impl PrefixWire {
    fn new(kind: u32) -> Self {
        Self { magic: MAGIC, protocol: PROTOCOL_VERSION.into(), kind: kind.into() }
    }
}

impl From<&Terms> for TermsWire {
    fn from(terms: &Terms) -> Self {
        Self {
            layout: terms.layout.into(),
            capabilities: terms.capabilities.into(),
            fingerprint: terms.fingerprint.into(),
            endpoint: terms.endpoint.into(),
            outbox_size: terms.outbox_size.into(),
            ring_capacity: terms.ring_capacity.into(),
            slot_count: terms.slot_count.into(),
            zero: U32::ZERO,
            extent_size: terms.payloads.extent_size.into(),
            arena_limit: terms.payloads.arena_limit.into(),
            message_limit: terms.payloads.message_limit.into(),
            sealed_from: terms.payloads.sealed_from.into(),
        }
    }
}

impl TermsWire {
    fn parse(&self, kind: u32) -> Result<Terms, Malformed> {
        no_reserved_bits(kind, self.zero)?;
        Ok(Terms {
            layout: self.layout.get(),
            capabilities: self.capabilities.get(),
            fingerprint: self.fingerprint.get(),
            endpoint: self.endpoint.get(),
            outbox_size: self.outbox_size.get(),
            ring_capacity: self.ring_capacity.get(),
            slot_count: self.slot_count.get(),
            payloads: PayloadTerms {
                extent_size: self.extent_size.get(),
                arena_limit: self.arena_limit.get(),
                message_limit: self.message_limit.get(),
                sealed_from: self.sealed_from.get(),
            },
        })
    }
}

impl Message {
    /// Reads one packet. A Refuse is understood in every version.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let (prefix, _) = PrefixWire::read_from_prefix(bytes).map_err(|_| Malformed::Foreign(bytes.len()))?;
        if prefix.magic != MAGIC {
            return Err(Malformed::Foreign(bytes.len()));
        }
        let (protocol, kind) = (prefix.protocol.get(), prefix.kind.get());
        if kind == REFUSE {
            return Refusal::parse(bytes, protocol).map(Self::Refuse);
        }
        if protocol != PROTOCOL_VERSION {
            return Err(Malformed::Version { found: protocol });
        }
        match kind {
            HELLO => exactly::<HelloWire>(bytes, kind)?.terms.parse(kind).map(Self::Hello),
            WELCOME => {
                let wire = exactly::<WelcomeWire>(bytes, kind)?;
                no_reserved_bits(kind, wire.zero)?;
                let terms = wire.terms.parse(kind)?;
                Ok(Self::Welcome(Welcome { terms, renderer_id: wire.renderer_id.get(), granted: wire.granted.get() }))
            }
            READY => Ok(Self::Ready { renderer_id: exactly::<ReadyWire>(bytes, kind)?.renderer_id.get() }),
            kind => Err(Malformed::Kind(kind)),
        }
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::Hello(terms) => HelloWire { prefix: PrefixWire::new(HELLO), terms: terms.into() }.as_bytes().to_vec(),
            Self::Welcome(welcome) => WelcomeWire {
                prefix: PrefixWire::new(WELCOME),
                terms: (&welcome.terms).into(),
                renderer_id: welcome.renderer_id.into(),
                granted: welcome.granted.into(),
                zero: U32::ZERO,
            }
            .as_bytes()
            .to_vec(),
            Self::Ready { renderer_id } => {
                let wire = ReadyWire { prefix: PrefixWire::new(READY), renderer_id: (*renderer_id).into() };
                wire.as_bytes().to_vec()
            }
            Self::Refuse(refusal) => refusal.to_bytes(),
        }
    }
}

impl Refusal {
    pub(super) const MAX_TEXT: usize = MAX_PACKET - size_of::<RefuseWire>();

    /// What it means for the peer that its outbox was not accepted.
    pub(super) fn of_outbox(error: &OutboxRejected) -> Self {
        let is_ours = error.is_for_want_of_resources();
        Self::new(if is_ours { RefusalCode::NoResources } else { RefusalCode::BadOutbox }, 0, 0, error)
    }

    pub(super) fn new(code: RefusalCode, found: u64, expected: u64, text: impl fmt::Display) -> Self {
        Self { protocol: PROTOCOL_VERSION, code, found, expected, text: text.to_string() }
    }

    fn parse(bytes: &[u8], protocol: u32) -> Result<Self, Malformed> {
        let fixed = size_of::<RefuseWire>();
        let length = |expected| Malformed::Length { kind: REFUSE, found: bytes.len(), expected };
        let (wire, text) = RefuseWire::read_from_prefix(bytes).map_err(|_| length(fixed))?;
        let len = wire.text_len.get();
        if usize::try_from(len) != Ok(text.len()) || text.len() > Self::MAX_TEXT {
            return Err(length(fixed.saturating_add(len.try_into().unwrap_or(usize::MAX))));
        }
        Ok(Self {
            protocol,
            code: RefusalCode::from_number(wire.code.get()),
            found: wire.found.get(),
            expected: wire.expected.get(),
            text: String::from_utf8_lossy(text).into_owned(),
        })
    }

    /// The packet; a text that is too long is cut at the end of a character.
    fn to_bytes(&self) -> Vec<u8> {
        let end = (0..=Self::MAX_TEXT.min(self.text.len())).rev().find(|&end| self.text.is_char_boundary(end));
        let text = self.text.get(..end.unwrap_or(0)).unwrap_or_default();
        let wire = RefuseWire {
            prefix: PrefixWire { protocol: self.protocol.into(), ..PrefixWire::new(REFUSE) },
            code: self.code.number().into(),
            text_len: u32::try_from(text.len()).unwrap_or(0).into(),
            found: self.found.into(),
            expected: self.expected.into(),
        };
        [wire.as_bytes(), text.as_bytes()].concat()
    }
}

impl fmt::Display for Refusal {
    /// The peer's words, with nothing in them that could act on a terminal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.text.chars().filter(|c| !c.is_control()).try_for_each(|c| fmt::Write::write_char(f, c))
    }
}

fn exactly<T: FromBytes>(bytes: &[u8], kind: u32) -> Result<T, Malformed> {
    T::read_from_bytes(bytes).map_err(|_| Malformed::Length { kind, found: bytes.len(), expected: size_of::<T>() })
}

fn no_reserved_bits(kind: u32, bits: U32) -> Result<(), Malformed> {
    match bits.get() {
        0 => Ok(()),
        found => Err(Malformed::Reserved { kind, found }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TERMS: Terms = Terms {
        layout: 0x0102_0304,
        capabilities: 0x0506_0708,
        fingerprint: 0x1112_1314_1516_1718,
        endpoint: 0x2122_2324_2526_2728,
        outbox_size: 0x3132_3334_3536_3738,
        ring_capacity: 0x4142_4344_4546_4748,
        slot_count: 0x5152_5354,
        payloads: PayloadTerms {
            extent_size: 0x8182_8384_8586_8788,
            arena_limit: 0x9192_9394_9596_9798,
            message_limit: 0xA1A2_A3A4_A5A6_A7A8,
            sealed_from: 0xB1B2_B3B4_B5B6_B7B8,
        },
    };

    const TERMS_BYTES: [u8; 80] = [
        0x04, 0x03, 0x02, 0x01, // layout
        0x08, 0x07, 0x06, 0x05, // capabilities
        0x18, 0x17, 0x16, 0x15, 0x14, 0x13, 0x12, 0x11, // fingerprint
        0x28, 0x27, 0x26, 0x25, 0x24, 0x23, 0x22, 0x21, // endpoint
        0x38, 0x37, 0x36, 0x35, 0x34, 0x33, 0x32, 0x31, // outbox size
        0x48, 0x47, 0x46, 0x45, 0x44, 0x43, 0x42, 0x41, // ring capacity
        0x54, 0x53, 0x52, 0x51, // slots
        0, 0, 0, 0, //
        0x88, 0x87, 0x86, 0x85, 0x84, 0x83, 0x82, 0x81, // extent size
        0x98, 0x97, 0x96, 0x95, 0x94, 0x93, 0x92, 0x91, // arena limit
        0xA8, 0xA7, 0xA6, 0xA5, 0xA4, 0xA3, 0xA2, 0xA1, // message limit
        0xB8, 0xB7, 0xB6, 0xB5, 0xB4, 0xB3, 0xB2, 0xB1, // sealed from
    ];

    fn golden(message: &Message, parts: &[&[u8]]) {
        let bytes = parts.concat();
        assert_eq!(message.to_bytes(), bytes);
        assert_eq!(Message::parse(&bytes).as_ref(), Ok(message));
        assert!(bytes.len() <= MAX_PACKET);
    }

    #[test]
    fn the_bytes_of_hello_are_these() {
        golden(&Message::Hello(TERMS), &[b"MEMIT-HS\x04\0\0\0\x01\0\0\0", &TERMS_BYTES]);
    }

    #[test]
    fn the_bytes_of_welcome_are_these() {
        let welcome = Welcome { terms: TERMS, renderer_id: 0x6162_6364_6566_6768, granted: 0x7172_7374 };
        let rest = [0x68, 0x67, 0x66, 0x65, 0x64, 0x63, 0x62, 0x61, 0x74, 0x73, 0x72, 0x71, 0, 0, 0, 0];
        golden(&Message::Welcome(welcome), &[b"MEMIT-HS\x04\0\0\0\x02\0\0\0", &TERMS_BYTES, &rest]);
    }

    #[test]
    fn the_bytes_of_ready_are_these() {
        let ready = Message::Ready { renderer_id: 0x0102_0304_0506_0708 };
        golden(&ready, &[b"MEMIT-HS\x04\0\0\0\x03\0\0\0", &[8, 7, 6, 5, 4, 3, 2, 1]]);
    }

    #[test]
    fn the_bytes_of_refuse_are_these() {
        let refusal = Refusal::new(RefusalCode::Format, 0x0102_0304_0506_0708, 0x1112_1314_1516_1718, "\u{fc}ber");
        let head = b"MEMIT-HS\x04\0\0\0\x04\0\0\0\x03\0\0\0\x05\0\0\0";
        let numbers = [8, 7, 6, 5, 4, 3, 2, 1, 0x18, 0x17, 0x16, 0x15, 0x14, 0x13, 0x12, 0x11];
        golden(&Message::Refuse(refusal), &[head, &numbers, b"\xc3\xbcber"]);
    }

    #[test]
    fn every_code_has_its_number() {
        for (index, (code, number)) in RefusalCode::CODES.into_iter().enumerate() {
            assert_eq!((code.number(), RefusalCode::from_number(number)), (number, code));
            assert_eq!(number as usize, index + 1);
        }
        assert_eq!(RefusalCode::from_number(77).number(), 77);
    }

    #[test]
    fn a_packet_cut_or_lengthened_anywhere_is_refused() {
        let refusal = Refusal::new(RefusalCode::Version, 1, 2, "text");
        let welcome = Welcome { terms: TERMS, renderer_id: 1, granted: 0 };
        for message in [
            Message::Hello(TERMS),
            Message::Welcome(welcome),
            Message::Ready { renderer_id: 5 },
            Message::Refuse(refusal),
        ] {
            let bytes = message.to_bytes();
            for len in 0..bytes.len() {
                assert!(Message::parse(&bytes[..len]).is_err(), "{message:?} cut to {len}");
            }
            let longer = [&bytes[..], &[0]].concat();
            assert!(matches!(Message::parse(&longer), Err(Malformed::Length { .. })), "{message:?}");
        }
    }

    #[test]
    fn the_version_is_looked_at_before_anything_else_but_the_magic() {
        let mut bytes = Message::Hello(TERMS).to_bytes();
        bytes[8] = 9;
        bytes[12] = 200;
        bytes.truncate(16);
        assert_eq!(Message::parse(&bytes), Err(Malformed::Version { found: 9 }));
        bytes[0] = b'X';
        assert_eq!(Message::parse(&bytes), Err(Malformed::Foreign(16)));
    }

    #[test]
    fn a_refusal_of_another_version_is_understood() {
        let refusal = Refusal { protocol: 9, ..Refusal::new(RefusalCode::Version, 1, 9, "old") };
        assert_eq!(Message::parse(&refusal.to_bytes()), Ok(Message::Refuse(refusal)));
    }

    #[test]
    fn reserved_bits_are_refused() {
        let mut hello = Message::Hello(TERMS).to_bytes();
        hello[60] = 1;
        assert_eq!(Message::parse(&hello), Err(Malformed::Reserved { kind: HELLO, found: 1 }));
        let mut welcome = Message::Welcome(Welcome { terms: TERMS, renderer_id: 1, granted: 0 }).to_bytes();
        welcome[111] = 1;
        assert_eq!(Message::parse(&welcome), Err(Malformed::Reserved { kind: WELCOME, found: 1 << 24 }));
    }

    #[test]
    fn a_long_text_is_cut_between_characters_and_control_characters_are_not_shown() {
        let refusal = Refusal::new(RefusalCode::BadOutbox, 0, 0, "\u{fc}".repeat(500));
        let Ok(Message::Refuse(back)) = Message::parse(&refusal.to_bytes()) else { panic!() };
        assert_eq!(back.text, "\u{fc}".repeat(Refusal::MAX_TEXT / 2));
        let refusal = Refusal::new(RefusalCode::BadOutbox, 0, 0, "a\u{1b}[2Jb\n");
        assert_eq!(refusal.to_string(), "a[2Jb");
    }

    #[test]
    fn no_bytes_make_the_parser_panic() {
        // A small deterministic generator: valid prefixes with random tails and single flipped bits.
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        for _ in 0..20_000 {
            let len = usize::try_from(next() % 300).unwrap();
            let mut bytes: Vec<u8> = (0..len).map(|_| next().to_le_bytes()[0]).collect();
            let kind = u32::try_from(next() % 6).unwrap();
            let prefix = PrefixWire::new(kind);
            let keep = len.min(16);
            bytes[..keep].copy_from_slice(&prefix.as_bytes()[..keep]);
            if let Ok(message) = Message::parse(&bytes) {
                let _ = format!("{message:?}");
            }
        }
    }
}
