//! The messages that scenarios send: a struct with a number and a text, and a plain one of the same size.

use memit::encode::EncodeAs;
use memit::{Channel, Payload};

/// Bytes of a message, unless somebody sets another number.
pub const LEN: usize = 48;
/// The lengths that [`Tick`] may have: a shorter text is kept within the struct, and a longer message is no small one.
pub const LEAST: usize = 32;
/// See [`LEAST`].
pub const MOST: usize = 1 << 20;

/// A message with a number.
pub trait Sample: Payload + EncodeAs<Self> + Sized + Send + 'static {
    /// There and back again.
    const PING: Channel<Self>;
    /// See [`PING`](Self::PING).
    const PONG: Channel<Self>;
    /// Calls that are answered with the number.
    const CALL: Channel<Self, u64>;
    /// What the rows' names end with.
    const SUFFIX: &'static str;

    /// One that is `len` bytes long when it is encoded.
    fn new(len: usize) -> Self;
    /// Gives it another number.
    fn set(&mut self, number: u64);
    /// The number of one that came.
    fn number(view: &Self::View) -> u64;
}

/// The usual kind.
#[memit::message]
#[derive(Clone, Debug)]
pub struct Tick {
    /// The number.
    pub seq: u64,
    /// As much text as it takes.
    pub symbol: String,
}

impl Sample for Tick {
    const PING: Channel<Self> = Channel::new("ping");
    const PONG: Channel<Self> = Channel::new("pong");
    const CALL: Channel<Self, u64> = Channel::new("call");
    const SUFFIX: &'static str = "";

    fn new(len: usize) -> Self {
        Self { seq: 0, symbol: "s".repeat(len.max(LEAST) - 16) }
    }

    #[inline]
    fn set(&mut self, number: u64) {
        self.seq = number;
    }

    #[inline]
    fn number(view: &Self::View) -> u64 {
        view.seq.to_native()
    }
}

/// One that is sent as it is.
#[memit::message(plain)]
#[derive(Clone, Copy, Debug)]
pub struct PlainTick {
    /// The number.
    pub seq: u64,
    /// As much as a [`Tick`] of the usual length has.
    pub rest: [u64; 5],
}

impl Sample for PlainTick {
    const PING: Channel<Self> = Channel::new("plain-ping");
    const PONG: Channel<Self> = Channel::new("plain-pong");
    const CALL: Channel<Self, u64> = Channel::new("plain-call");
    const SUFFIX: &'static str = "-plain";

    /// It has one length.
    fn new(_: usize) -> Self {
        Self { seq: 0, rest: [7; 5] }
    }

    #[inline]
    fn set(&mut self, number: u64) {
        self.seq = number;
    }

    #[inline]
    fn number(view: &Self::View) -> u64 {
        view.seq
    }
}

/// Whether a message can have that length: the text's end is padded.
#[must_use]
pub const fn has(len: usize) -> bool {
    len >= LEAST && len <= MOST && len.is_multiple_of(8)
}

#[cfg(test)]
mod tests {
    use memit::encode::with_encoded;

    use super::*;

    #[test]
    fn a_message_is_as_long_as_it_is_asked_to_be_and_keeps_its_number() {
        for len in (LEAST..400).step_by(8).chain([MOST]) {
            assert!(has(len));
            let mut tick = Tick::new(len);
            tick.set(7);
            with_encoded::<Tick, _, _>(&tick, |bytes| {
                assert_eq!(bytes.len(), len);
                assert_eq!(Tick::number(Tick::view(bytes).unwrap()), 7);
            })
            .unwrap();
        }
        with_encoded::<PlainTick, _, _>(&PlainTick::new(LEN), |bytes| assert_eq!(bytes.len(), LEN)).unwrap();
        assert!(!has(LEAST - 8) && !has(50) && !has(MOST + 8));
    }
}
