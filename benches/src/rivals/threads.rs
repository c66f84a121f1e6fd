//! memit's raw ring and rtrb's, whose sides share head and tail, between two threads of one process. Rings of rtrb hold
//! values of one size: its messages have 48 bytes, and there is room for as many of them as in the raw ring.

use rtrb::{Consumer, PopError, Producer, PushError, RingBuffer};

use super::memit::ring::{Alone, CAPACITY, Ends, Out};
use super::{End, Expected, Outgoing, Place, Side};
use crate::Result;

/// Bytes of a message of rtrb's ring.
pub const LEN: usize = 48;
/// A frame of the raw ring with such a message is one cache line.
const MESSAGES: usize = CAPACITY / 64;

/// A way for two threads to exchange messages.
pub trait Threads {
    /// The host's end, which stays in the thread that makes it.
    type Host: End;
    /// The guest's end.
    type Guest: End + Send + 'static;

    /// Makes both.
    fn ends(place: &Place) -> Result<(Self::Host, Self::Guest)>;
}

/// The raw ring, claimed as every thread of a process may.
#[derive(Debug)]
pub struct Shared;

impl Threads for Shared {
    type Host = Ends<Out>;
    type Guest = Ends<Out>;

    fn ends(place: &Place) -> Result<(Self::Host, Self::Guest)> {
        Ok((Ends::new(place, Side::Host)?, Ends::new(place, Side::Guest)?))
    }
}

/// The raw ring, claimed by the host under the guard.
#[derive(Debug)]
pub struct Guarded;

impl Threads for Guarded {
    type Host = Ends<Alone>;
    type Guest = Ends<Out>;

    fn ends(place: &Place) -> Result<(Self::Host, Self::Guest)> {
        let (host, guest) = Shared::ends(place)?;
        Ok((host.exclusive()?, guest))
    }
}

/// rtrb's ring.
#[derive(Debug)]
pub struct Rtrb;

/// A side's ends of rtrb's.
#[derive(Debug)]
pub struct Halves {
    out: Producer<[u8; LEN]>,
    input: Consumer<[u8; LEN]>,
}

impl Threads for Rtrb {
    type Host = Halves;
    type Guest = Halves;

    fn ends(place: &Place) -> Result<(Halves, Halves)> {
        if place.len != LEN {
            return Err(format!("its messages are values of one size, {LEN} bytes here").into());
        }
        let (there, from_there) = RingBuffer::new(MESSAGES);
        let (back, from_back) = RingBuffer::new(MESSAGES);
        Ok((Halves { out: there, input: from_back }, Halves { out: back, input: from_there }))
    }
}

impl End for Halves {
    #[inline]
    fn send(&mut self, message: &Outgoing) -> Result<()> {
        let mut message: [u8; LEN] = message.bytes().try_into()?;
        while let Err(PushError::Full(back)) = self.out.push(message) {
            message = back;
        }
        Ok(())
    }

    #[inline]
    fn receive(&mut self, expected: &Expected) -> Result<()> {
        loop {
            match self.input.pop() {
                Ok(message) => return expected.check(&message),
                Err(PopError::Empty) => {}
            }
        }
    }
}
