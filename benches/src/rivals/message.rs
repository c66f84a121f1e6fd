//! What the messages hold, so that a rival that loses, repeats, mixes up or tears one is found out.
//!
//! The first word is the message's number, the last one the number with a mark of its sender's side: both are looked at
//! in every round. So is a byte of each cache line between, by whoever does not make messages in place: one who need not
//! copy a message out would else be measured without the way of its bytes from core to core. Before anything is timed, messages are exchanged in which every byte depends on the number, and every
//! byte is looked at.

use std::hint::black_box;

use super::Side;
use crate::Result;

const WORD: usize = 8;
/// Bytes of a cache line.
const LINE: usize = 64;

/// A message to send.
#[derive(Debug)]
pub struct Outgoing {
    bytes: Vec<u8>,
    mark: u64,
    whole: bool,
}

impl Outgoing {
    /// Room for messages of `len` bytes, a multiple of 8 and at least 16, of that side.
    #[must_use]
    pub fn new(len: usize, side: Side) -> Self {
        assert!(len.is_multiple_of(WORD) && len >= 2 * WORD, "no message has {len} bytes");
        Self { bytes: vec![b'.'; len], mark: side.mark(), whole: false }
    }

    /// Makes it the message with that number; all of it, if it is to be looked at as a whole, and else the edges.
    #[inline]
    pub fn number(&mut self, number: u64, whole: bool) {
        self.whole = whole;
        if whole {
            let (_, inner, _) = parts(&mut self.bytes);
            for (at, byte) in inner.iter_mut().enumerate() {
                *byte = letter(number ^ self.mark, at);
            }
        }
        write_edges(&mut self.bytes, number, self.mark);
    }

    /// The message.
    #[inline]
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Writes the message where it is to be read, as a program that makes its messages there would: its edges, or all of
    /// it if it is to be looked at as a whole.
    #[inline]
    pub fn write_to(&self, memory: &mut [u8]) {
        if self.whole {
            memory.copy_from_slice(&self.bytes);
        } else {
            let len = memory.len();
            memory[..WORD].copy_from_slice(&self.bytes[..WORD]);
            memory[len - WORD..].copy_from_slice(&self.bytes[len - WORD..]);
        }
    }
}

/// The message that is to come.
#[derive(Debug)]
pub struct Expected {
    mark: u64,
    number: u64,
    whole: bool,
}

impl Expected {
    /// Messages of that side.
    #[must_use]
    pub fn new(side: Side) -> Self {
        Self { mark: side.mark(), number: 0, whole: false }
    }

    /// The next one has that number.
    #[inline]
    pub fn number(&mut self, number: u64, whole: bool) {
        (self.number, self.whole) = (number, whole);
    }

    /// Looks whether `bytes` are the message, and reads every cache line of them.
    #[inline]
    pub fn check(&self, bytes: &[u8]) -> Result<()> {
        black_box(bytes.iter().step_by(LINE).fold(0, |sum: u8, byte| sum.wrapping_add(*byte)));
        self.check_edges(bytes)
    }

    /// Looks whether `bytes` are the message, of which no more than the edges need have been written.
    #[inline]
    pub fn check_edges(&self, bytes: &[u8]) -> Result<()> {
        let (Some((first, inner)), Some(last)) = (bytes.split_first_chunk(), bytes.last_chunk()) else {
            return Err(format!("a message of {} bytes has come, which is too short", bytes.len()).into());
        };
        let inner = &inner[..inner.len().saturating_sub(WORD)];
        self.check_parts(u64::from_le_bytes(*first), inner, u64::from_le_bytes(*last))
    }

    /// Looks whether the first word, what lies between, and the last word are those of the message.
    #[inline]
    pub fn check_parts(&self, first: u64, inner: &[u8], last: u64) -> Result<()> {
        if first != self.number || last != self.number ^ self.mark {
            return Err(self.wrong(first, last));
        }
        if self.whole {
            for (at, byte) in inner.iter().enumerate() {
                if *byte != letter(self.number ^ self.mark, at) {
                    return Err(format!("byte {at} of message {} has changed on the way", self.number).into());
                }
            }
        }
        Ok(())
    }

    #[cold]
    fn wrong(&self, first: u64, last: u64) -> Box<dyn std::error::Error + Send + Sync> {
        let (number, expected) = (self.number, self.number ^ self.mark);
        format!("message {number} with the mark {expected:#x} was expected, and {first} with {last:#x} has come").into()
    }
}

/// The first word, what lies between, the last word.
fn parts(bytes: &mut [u8]) -> (&mut [u8], &mut [u8], &mut [u8]) {
    let (first, rest) = bytes.split_at_mut(WORD);
    let (inner, last) = rest.split_at_mut(rest.len() - WORD);
    (first, inner, last)
}

#[inline]
fn write_edges(bytes: &mut [u8], number: u64, mark: u64) {
    let (first, _, last) = parts(bytes);
    first.copy_from_slice(&number.to_le_bytes());
    last.copy_from_slice(&(number ^ mark).to_le_bytes());
}

/// A letter for each place, another one for each message; letters, so that text can carry them.
fn letter(seed: u64, at: usize) -> u8 {
    // The finalizer of splitmix64.
    let mut mixed = (seed ^ (at as u64 / 16).wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^= mixed >> 31;
    let [nibble, ..] = (mixed >> (4 * (at % 16))).to_le_bytes();
    b'a' + (nibble & 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(number: u64, whole: bool) -> Vec<u8> {
        let mut out = Outgoing::new(256, Side::Host);
        out.number(number, whole);
        let mut memory = vec![0; 256];
        out.write_to(&mut memory);
        if whole {
            assert_eq!(memory, out.bytes());
        }
        memory
    }

    #[test]
    fn a_message_is_known_by_its_number_and_its_side() {
        for whole in [false, true] {
            let bytes = sent(7, whole);
            let mut expected = Expected::new(Side::Host);
            expected.number(7, whole);
            expected.check(&bytes).unwrap();
            expected.number(8, whole);
            expected.check(&bytes).unwrap_err();
            let mut other = Expected::new(Side::Guest);
            other.number(7, whole);
            other.check(&bytes).unwrap_err();
            other.check(&bytes[..8]).unwrap_err();
        }
    }

    #[test]
    fn any_byte_that_changes_is_noticed_in_a_whole_message() {
        let mut expected = Expected::new(Side::Host);
        expected.number(7, true);
        for at in 0..256 {
            let mut bytes = sent(7, true);
            bytes[at] ^= 1;
            expected.check(&bytes).unwrap_err();
        }
        assert_ne!(sent(7, true)[8..248], sent(8, true)[8..248]);
    }
}
