//! Synchronous calls: a frame that names a reply slot, and a reply slot that names its call.
//!
//! [`caller`] hands out slots and ids, [`answerer`] guards the slots that replies are written to, [`crossing`] tells of
//! two sides that wait for each other.

pub(crate) mod answerer;
pub(crate) mod caller;
pub(crate) mod crossing;
#[cfg(any(test, fuzzing))]
#[cfg(not(loom))]
pub(crate) mod fuzzing;

use std::time::Duration;

use crate::outbox::MOST_SLOTS;

/// A call's id: unique on its connection, never zero, its slot in the low six bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CallId(u64);

impl CallId {
    pub(crate) const fn new(counter: u64, slot: u32) -> Self {
        Self(counter << 6 | (slot & (MOST_SLOTS - 1)) as u64)
    }

    /// Takes an id that a peer wrote. Any value is an id; its slot is still to be checked against the slots there are.
    pub(crate) const fn from_peer(word: u64) -> Self {
        Self(word)
    }

    pub(crate) const fn get(self) -> u64 {
        self.0
    }

    #[allow(clippy::cast_possible_truncation, reason = "masked to six bits")]
    pub(crate) const fn slot(self) -> u32 {
        self.0 as u32 & (MOST_SLOTS - 1)
    }

    pub(crate) const fn counter(self) -> u64 {
        self.0 >> 6
    }
}

/// What stands before the payload of a call frame: the id, then the nanoseconds that the caller will still wait,
/// `u64::MAX` for ever; both little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CallHeader {
    pub(crate) id: CallId,
    pub(crate) remaining: Option<Duration>,
}

impl CallHeader {
    pub(crate) const LEN: usize = 16;

    pub(crate) fn to_bytes(self) -> [u8; Self::LEN] {
        let nanos = self.remaining.map_or(u64::MAX, |left| u64::try_from(left.as_nanos()).unwrap_or(u64::MAX - 1));
        let mut bytes = [0; Self::LEN];
        bytes[..8].copy_from_slice(&self.id.get().to_le_bytes());
        bytes[8..].copy_from_slice(&nanos.to_le_bytes());
        bytes
    }

    /// Splits a call frame's bytes; `None` where they are too short to hold a header.
    pub(crate) fn split(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (id, rest) = bytes.split_first_chunk::<8>()?;
        let (nanos, payload) = rest.split_first_chunk::<8>()?;
        let nanos = u64::from_le_bytes(*nanos);
        let header = Self {
            id: CallId::from_peer(u64::from_le_bytes(*id)),
            remaining: (nanos != u64::MAX).then(|| Duration::from_nanos(nanos)),
        };
        Some((header, payload))
    }
}

/// A call that waits for its answer: what [`Link::reply`](crate::Link::reply) takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallToken {
    pub(crate) id: CallId,
    remaining: Option<Duration>,
}

impl CallToken {
    pub(crate) fn new(header: CallHeader) -> Self {
        Self { id: header.id, remaining: header.remaining }
    }

    /// How long the caller was still going to wait when it sent the call; `None` for ever.
    pub fn remaining(&self) -> Option<Duration> {
        self.remaining
    }
}

/// How a call was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ReplyStatus {
    /// With a value: the payload is its archive.
    Value = 1,
    /// Nobody listens on the channel.
    NoListener = 2,
    /// The listeners ran, and none set a value.
    NoReply = 3,
    /// A listener panicked; the payload is a UTF-8 text.
    ListenerPanicked = 4,
    /// The channel is listened to with other schemas only; the payload is a UTF-8 text.
    SchemaMismatch = 5,
    /// The listener failed, or its value could not be sent; the payload is a UTF-8 text.
    ReplyFailed = 6,
}

impl ReplyStatus {
    pub(crate) fn from_peer(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Value,
            2 => Self::NoListener,
            3 => Self::NoReply,
            4 => Self::ListenerPanicked,
            5 => Self::SchemaMismatch,
            6 => Self::ReplyFailed,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_id_holds_its_slot() {
        let id = CallId::new(7, 63);
        assert_eq!((id.counter(), id.slot()), (7, 63));
        assert_eq!(CallId::from_peer(id.get()), id);
    }

    #[test]
    fn a_call_header_survives_the_wire() {
        for remaining in [None, Some(Duration::ZERO), Some(Duration::from_secs(5))] {
            let header = CallHeader { id: CallId::new(9, 3), remaining };
            let mut bytes = header.to_bytes().to_vec();
            bytes.extend_from_slice(b"payload");
            assert_eq!(CallHeader::split(&bytes), Some((header, &b"payload"[..])));
        }
        assert_eq!(CallHeader::split(&[0; 15]), None);
    }

    #[test]
    fn a_longer_wait_than_the_wire_can_say_is_not_read_as_for_ever() {
        let header = CallHeader { id: CallId::new(1, 0), remaining: Some(Duration::MAX) };
        let bytes = header.to_bytes();
        assert!(CallHeader::split(&bytes).is_some_and(|(read, _)| read.remaining.is_some()));
    }
}
