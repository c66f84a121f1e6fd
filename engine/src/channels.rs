//! Announcing channels: what a sender says of a channel before it uses its number.
//!
//! ```text
//!  0        2        4            8            12           16
//! +--------+--------+------------+------------+------------+------+---------+-------+-------+
//! | name   | zero   | message    | reply      | error      | name | message | reply | error |
//! | u16    | u16    | length u32 | length u32 | length u32 |      | schema  | schema| schema|
//! +--------+--------+------------+------------+------------+------+---------+-------+-------+
//! ```
//! Little-endian lengths in bytes. An announcement that is longer than a frame comes in pieces, each but the last
//! with the flag `MORE`; the pieces of one announcement follow one another among the announcements of a connection.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::error::Disconnect;

const HEADER: usize = 16;
/// The most channels that one side may announce on a connection; a receiver may allow fewer.
pub const MAX_CHANNELS: u16 = 4096;
/// The longest name of a channel, in bytes.
pub const MAX_CHANNEL_NAME: usize = 1024;

/// What a channel is: its number on this connection, its name, and the schemas of what it carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Announced<'a> {
    /// The number that the sender gave it.
    pub channel: u16,
    /// The channel's name.
    pub name: &'a str,
    /// The schema of its messages. Opaque to the engine.
    pub message: &'a [u8],
    /// The schema of the values that answer its calls.
    pub reply: &'a [u8],
    /// The schema of the errors that answer its calls.
    pub error: &'a [u8],
}

impl<'a> Announced<'a> {
    fn encode(&self) -> Option<Vec<u8>> {
        if self.name.len() > MAX_CHANNEL_NAME {
            return None;
        }
        let mut bytes = Vec::with_capacity(HEADER + self.name.len() + self.message.len());
        bytes.extend_from_slice(&u16::try_from(self.name.len()).ok()?.to_le_bytes());
        bytes.extend_from_slice(&[0; 2]);
        for schema in [self.message, self.reply, self.error] {
            bytes.extend_from_slice(&u32::try_from(schema.len()).ok()?.to_le_bytes());
        }
        bytes.extend_from_slice(self.name.as_bytes());
        for schema in [self.message, self.reply, self.error] {
            bytes.extend_from_slice(schema);
        }
        Some(bytes)
    }

    fn decode(channel: u16, bytes: &'a [u8], max_schema: usize) -> Result<Self, Disconnect> {
        let short = || Disconnect::violation("an announcement is shorter than its lengths say");
        let (name, rest) = bytes.split_first_chunk::<2>().ok_or_else(short)?;
        let (reserved, mut rest) = rest.split_first_chunk::<2>().ok_or_else(short)?;
        if *reserved != [0; 2] {
            return Err(Disconnect::violation("an announcement's reserved bytes are not zero"));
        }
        let mut lengths = [0; 3];
        for length in &mut lengths {
            let (word, after) = rest.split_first_chunk::<4>().ok_or_else(short)?;
            *length = u32::from_le_bytes(*word) as usize;
            if *length > max_schema {
                return Err(Disconnect::violation(format_args!(
                    "an announced schema has {length} bytes, at most {max_schema} are allowed"
                )));
            }
            rest = after;
        }
        let name_len = usize::from(u16::from_le_bytes(*name));
        if name_len > MAX_CHANNEL_NAME {
            return Err(Disconnect::violation(format_args!(
                "an announced name has {name_len} bytes, at most {MAX_CHANNEL_NAME} are allowed"
            )));
        }
        let mut take = |len: usize| {
            let (part, after) = rest.split_at_checked(len).ok_or_else(short)?;
            rest = after;
            Ok::<_, Disconnect>(part)
        };
        let name = take(name_len)?;
        let [message, reply, error] = lengths;
        let (message, reply, error) = (take(message)?, take(reply)?, take(error)?);
        if !rest.is_empty() {
            return Err(Disconnect::violation("an announcement is longer than its lengths say"));
        }
        let name = str::from_utf8(name).map_err(|_| Disconnect::violation("an announced name is not UTF-8"))?;
        Ok(Self { channel, name, message, reply, error })
    }
}

/// Which channels this side has announced on a connection, and the announcement that is under way.
#[derive(Debug)]
pub(crate) struct OutgoingChannels {
    announced: Box<[AtomicU64]>,
    under_way: Mutex<Option<UnderWay>>,
}

/// An announcement of which some pieces are not sent yet.
#[derive(Debug)]
pub(crate) struct UnderWay {
    pub(crate) channel: u16,
    bytes: Vec<u8>,
    sent: usize,
}

impl UnderWay {
    /// Starts to announce; `None` if the name is too long, or a schema does not fit its field.
    pub(crate) fn begin(announced: &Announced<'_>) -> Option<Self> {
        Some(Self { channel: announced.channel, bytes: announced.encode()?, sent: 0 })
    }

    /// The next piece, of at most `most` bytes, and whether more follow; `None` when all are sent.
    pub(crate) fn piece(&self, most: usize) -> Option<(&[u8], bool)> {
        let left = self.bytes.get(self.sent..).filter(|left| !left.is_empty())?;
        let (piece, rest) = left.split_at(left.len().min(most));
        Some((piece, !rest.is_empty()))
    }

    pub(crate) fn advance(&mut self, by: usize) {
        self.sent += by;
    }
}

impl OutgoingChannels {
    pub(crate) fn new() -> Self {
        let words = usize::from(MAX_CHANNELS / 64);
        Self { announced: (0..words).map(|_| AtomicU64::new(0)).collect(), under_way: Mutex::default() }
    }

    #[inline]
    pub(crate) fn contains(&self, channel: u16) -> bool {
        // SYNC channel-announced: acquire pairs with `insert`, so that a frame on the channel is claimed behind its
        // announcement.
        self.announced
            .get(usize::from(channel >> 6))
            .is_some_and(|word| word.load(Ordering::Acquire) >> (channel & 63) & 1 == 1)
    }

    pub(crate) fn insert(&self, channel: u16) {
        if let Some(word) = self.announced.get(usize::from(channel >> 6)) {
            // SYNC channel-announced: release pairs with `contains`.
            word.fetch_or(1 << (channel & 63), Ordering::Release);
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Option<UnderWay>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Which channels the peer has announced, and the announcement that is arriving.
#[derive(Debug)]
pub(crate) struct IncomingChannels {
    announced: Vec<u64>,
    arriving: Option<(u16, Vec<u8>)>,
    max_channels: u16,
    max_schema: usize,
}

impl IncomingChannels {
    pub(crate) fn new(max_channels: u16, max_schema: usize) -> Self {
        Self { announced: Vec::new(), arriving: None, max_channels, max_schema }
    }

    #[inline]
    pub(crate) fn contains(&self, channel: u16) -> bool {
        self.announced.get(usize::from(channel >> 6)).is_some_and(|word| word >> (channel & 63) & 1 == 1)
    }

    /// Takes a piece; calls `complete` with the announcement when it was the last one.
    pub(crate) fn piece<T>(
        &mut self,
        channel: u16,
        piece: &[u8],
        more: bool,
        complete: impl FnOnce(Announced<'_>) -> T,
    ) -> Result<Option<T>, Disconnect> {
        if channel >= self.max_channels {
            return Err(Disconnect::violation(format_args!(
                "channel number {channel} was announced, at most {} channels are allowed",
                self.max_channels
            )));
        }
        if self.contains(channel) {
            return Err(Disconnect::violation(format_args!("channel number {channel} was announced twice")));
        }
        let (at, mut bytes) = self.arriving.take().unwrap_or((channel, Vec::new()));
        if at != channel {
            return Err(Disconnect::violation(format_args!(
                "the announcement of channel number {at} was interrupted by that of {channel}"
            )));
        }
        let most = HEADER + MAX_CHANNEL_NAME + 3 * self.max_schema;
        if bytes.len() + piece.len() > most {
            return Err(Disconnect::violation(format_args!("an announcement is longer than {most} bytes")));
        }
        bytes.extend_from_slice(piece);
        if more {
            if piece.is_empty() {
                return Err(Disconnect::violation("an announcement has an empty piece"));
            }
            self.arriving = Some((at, bytes));
            return Ok(None);
        }
        let announced = Announced::decode(channel, &bytes, self.max_schema)?;
        let word = usize::from(channel >> 6);
        if self.announced.len() <= word {
            self.announced.resize(word + 1, 0);
        }
        if let Some(word) = self.announced.get_mut(word) {
            *word |= 1 << (channel & 63);
        }
        Ok(Some(complete(announced)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Announced<'_> =
        Announced { channel: 65, name: "tick", message: b"message", reply: b"reply", error: b"error" };

    fn send(incoming: &mut IncomingChannels, announced: &Announced<'_>, most: usize) -> Result<bool, Disconnect> {
        let mut under_way = UnderWay::begin(announced).unwrap();
        while let Some((piece, more)) = under_way.piece(most) {
            let len = piece.len();
            let done = incoming.piece(announced.channel, piece, more, |arrived| assert_eq!(arrived, *announced))?;
            if done.is_some() {
                return Ok(true);
            }
            under_way.advance(len);
        }
        Ok(false)
    }

    #[test]
    fn an_announcement_arrives_whole_whatever_its_pieces() {
        for most in [1, 7, 16, 1000] {
            let mut incoming = IncomingChannels::new(128, 100);
            assert!(!incoming.contains(65));
            assert_eq!(send(&mut incoming, &TICK, most), Ok(true));
            assert!(incoming.contains(65) && !incoming.contains(1));
        }
    }

    #[test]
    fn what_passes_a_limit_or_comes_twice_is_a_violation() {
        let mut incoming = IncomingChannels::new(128, 100);
        send(&mut incoming, &TICK, 1000).unwrap();
        assert!(send(&mut incoming, &TICK, 1000).is_err(), "twice");
        assert!(send(&mut incoming, &Announced { channel: 128, ..TICK }, 1000).is_err(), "number");
        let long = [b'x'; 101];
        assert!(send(&mut incoming, &Announced { channel: 2, message: &long, ..TICK }, 1000).is_err(), "schema");
        let name = "n".repeat(MAX_CHANNEL_NAME + 1);
        assert!(UnderWay::begin(&Announced { channel: 3, name: &name, ..TICK }).is_none(), "name");
        let mut forged = TICK.encode().unwrap();
        forged[..2].copy_from_slice(&u16::MAX.to_le_bytes());
        assert!(incoming.piece(3, &forged, false, |_| ()).is_err(), "forged name");
    }

    #[test]
    fn malformed_announcements_are_violations() {
        let whole = TICK.encode().unwrap();
        for len in 0..whole.len() {
            let mut incoming = IncomingChannels::new(128, 100);
            assert!(incoming.piece(1, &whole[..len], false, |_| ()).is_err(), "cut at {len}");
        }
        let mut longer = whole.clone();
        longer.push(0);
        assert!(IncomingChannels::new(128, 100).piece(1, &longer, false, |_| ()).is_err());
        let mut reserved = whole.clone();
        reserved[2] = 1;
        assert!(IncomingChannels::new(128, 100).piece(1, &reserved, false, |_| ()).is_err());
        let mut incoming = IncomingChannels::new(128, 100);
        incoming.piece(1, &whole[..5], true, |_| ()).unwrap();
        assert!(incoming.piece(2, &whole, false, |_| ()).is_err(), "interrupted");
    }

    #[test]
    fn endless_pieces_are_cut_off() {
        let mut incoming = IncomingChannels::new(1, 100);
        let outcome = (0..100).try_for_each(|_| incoming.piece(0, &[0; 64], true, |_| ()).map(|_| ()));
        assert!(outcome.is_err());
    }

    #[test]
    fn announced_channels_are_remembered_by_their_number() {
        let channels = OutgoingChannels::new();
        assert!(!channels.contains(4095));
        channels.insert(4095);
        assert!(channels.contains(4095) && !channels.contains(63) && !channels.contains(u16::MAX));
    }
}
