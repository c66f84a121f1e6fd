//! memit's raw ring, one for each direction: claim, write, commit; poll, read, release. It has no bell, so it only spins.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use memit_ringbuf::{
    Capacity, ClaimError, Consumer, Exclusive, Header, Key, MappedRing, MappedRingMut, OwnCursor, PeerCursor, Producer,
};

use crate::rivals::{End, Expected, Outgoing, Place, Rival, Side, Wait};
use crate::shared::Shared;
use crate::{Result, board};

/// Bytes of a ring.
pub(in crate::rivals) const CAPACITY: usize = 64 << 10;
/// Bytes of the board and the two rings.
pub(in crate::rivals) const LEN: usize = board::LEN + 2 * CAPACITY;
const RINGS: [usize; 2] = [board::LEN, board::LEN + CAPACITY];
const KEY: u64 = 0x9e37_79b9_7f4a_7c15;
const HEADER: Header = Header { channel: 1, kind: 1, flags: 0 };

/// The head of a ring, in memory that both sides write.
pub struct Head(Arc<Shared>, usize);

impl PeerCursor for Head {
    fn load(&self) -> u64 {
        self.0.word(self.1).load(Ordering::Relaxed)
    }
}

impl OwnCursor for Head {
    fn store(&self, position: u64) {
        self.0.word(self.1).store(position, Ordering::Release);
    }
}

/// Writes a ring.
pub type Out = Producer<MappedRingMut<Arc<Shared>>, Head>;
/// Reads a ring.
pub type In = Consumer<MappedRing<Arc<Shared>>, Head>;

/// The ends of a side: it writes one ring, and reads the other.
#[allow(unsafe_code)]
fn ends(shared: &Arc<Shared>, side: Side) -> Result<(Out, In)> {
    let capacity = Capacity::new(CAPACITY)?;
    let key = Key::new(KEY).ok_or("the key's low bits are zero")?;
    let (own, other) = if side == Side::Host { (0, 1) } else { (1, 0) };
    // SAFETY: the ring's bytes lie within the mapping, which the Arc keeps alive, and only this side writes them.
    let out = unsafe { MappedRingMut::new(shared.at(RINGS[own]), capacity, Arc::clone(shared)) };
    // SAFETY: as above; this side only reads them.
    let input = unsafe { MappedRing::new(shared.at(RINGS[other]), capacity, Arc::clone(shared)) };
    let producer = Producer::new(out, Head(Arc::clone(shared), board::HEADS[own]), key);
    let consumer = Consumer::new(input, Head(Arc::clone(shared), board::HEADS[other]), key);
    Ok((producer, consumer))
}

/// Writes a ring and nothing else does.
pub type Alone = Exclusive<'static, MappedRingMut<Arc<Shared>>, Head>;

/// Puts messages into a ring.
pub trait Put {
    /// Puts a message into the ring, as soon as there is room.
    fn put(&mut self, bytes: &[u8]) -> Result<()>;
}

macro_rules! put {
    ($type:ty) => {
        impl Put for $type {
            #[inline]
            fn put(&mut self, bytes: &[u8]) -> Result<()> {
                loop {
                    match self.try_claim(bytes.len()) {
                        Ok(mut claim) => {
                            claim.write(0, bytes);
                            claim.commit(HEADER);
                            return Ok(());
                        }
                        Err(ClaimError::Full { .. }) => {}
                        Err(error) => return Err(error.into()),
                    }
                }
            }
        }
    };
}
put!(Out);
put!(Alone);

/// A side's ends.
pub struct Ends<P> {
    out: P,
    input: In,
    received: Vec<u8>,
}

impl Ends<Out> {
    pub(in crate::rivals) fn new(place: &Place, side: Side) -> Result<Self> {
        if place.wait == Wait::Block {
            return Err("the raw ring has no bell to sleep on".into());
        }
        let (out, input) = ends(&place.shared, side)?;
        Ok(Self { out, input, received: vec![0; place.len] })
    }

    /// Takes the guard. The ring stays until the process ends.
    pub(in crate::rivals) fn exclusive(self) -> Result<Ends<Alone>> {
        let out: &'static Out = Box::leak(Box::new(self.out));
        Ok(Ends { out: out.exclusive()?, input: self.input, received: self.received })
    }
}

impl<P: Put> End for Ends<P> {
    #[inline]
    fn send(&mut self, message: &Outgoing) -> Result<()> {
        self.out.put(message.bytes())
    }

    #[inline]
    fn receive(&mut self, expected: &Expected) -> Result<()> {
        loop {
            if let Some(frame) = self.input.poll()?.frame() {
                frame.copy_to(&mut self.received);
                frame.release();
                return expected.check(&self.received);
            }
        }
    }
}

/// The rival that claims as every thread of a process may.
#[derive(Debug)]
pub struct Rings;

impl Rival for Rings {
    type Offer = ();
    type Host = Ends<Out>;
    type Guest = Ends<Out>;

    fn offer(_: &Place) -> Result<()> {
        Ok(())
    }

    fn host((): (), place: &Place) -> Result<Ends<Out>> {
        Ends::new(place, Side::Host)
    }

    fn guest(place: &Place) -> Result<Ends<Out>> {
        Ends::new(place, Side::Guest)
    }
}

/// The rival whose host claims under the guard.
#[derive(Debug)]
pub struct ExclusiveRings;

impl Rival for ExclusiveRings {
    type Offer = ();
    type Host = Ends<Alone>;
    type Guest = Ends<Out>;

    fn offer(_: &Place) -> Result<()> {
        Ok(())
    }

    fn host((): (), place: &Place) -> Result<Ends<Alone>> {
        Ends::new(place, Side::Host)?.exclusive()
    }

    fn guest(place: &Place) -> Result<Ends<Out>> {
        Ends::new(place, Side::Guest)
    }
}
