//! A message on its way to one peer.

use memit_engine::{Announced, Link, Patience};

use crate::{
    EncodeAs, EncodeError, Payload, SendError,
    encode::{self, Bound, Encoded},
    outgoing::Outlet,
};

/// What is encoded to the thread's buffer and copied from there. Beyond the first number of bytes, which is what fits a
/// frame of the ring's default size, a piece of the second number or more ends that: the rest is only counted, and the
/// message encoded a second time, to where the peer reads it. Bulk in one piece costs nothing to count, and is then
/// copied once instead of twice; many small pieces cost more to encode again than to copy.
pub(crate) const COPIED: Bound = Bound::new(32 << 10, 1 << 10);

/// By what a thread sends to a peer: the connection, which it shares with others, or the guard of it.
pub(crate) trait Way {
    fn link(&self) -> &Link;

    /// Says that a message is about to be made and sent.
    fn prefetch(&self);

    /// Sends encoded bytes on an announced channel.
    fn send(&mut self, id: u16, bytes: &[u8], patience: Patience) -> Result<(), SendError>;

    /// Sends what was encoded to where the peer will read it.
    fn send_loan(&mut self, id: u16, loan: memit_engine::Loan, patience: Patience) -> Result<(), SendError>;

    /// Sends a channel's announcement, if the peer has not had it yet.
    fn announce(&mut self, outlet: &Outlet, patience: Patience) -> Result<(), SendError>;
}

impl Way for &Link {
    #[inline]
    fn link(&self) -> &Link {
        self
    }

    #[inline(always)]
    fn prefetch(&self) {
        Link::prefetch(self);
    }

    #[inline]
    fn send(&mut self, id: u16, bytes: &[u8], patience: Patience) -> Result<(), SendError> {
        Ok(Link::send(self, id, bytes, patience)?)
    }

    fn send_loan(&mut self, id: u16, loan: memit_engine::Loan, patience: Patience) -> Result<(), SendError> {
        Ok(Link::send_loan(self, id, loan, patience)?)
    }

    #[inline]
    fn announce(&mut self, outlet: &Outlet, patience: Patience) -> Result<(), SendError> {
        if self.is_announced(outlet.id) {
            return Ok(());
        }
        Ok(Link::announce(self, &announced(outlet), patience)?)
    }
}

impl Way for memit_engine::Exclusive<'_> {
    #[inline]
    fn link(&self) -> &Link {
        memit_engine::Exclusive::link(self)
    }

    #[inline(always)]
    fn prefetch(&self) {
        memit_engine::Exclusive::prefetch(self);
    }

    #[inline]
    fn send(&mut self, id: u16, bytes: &[u8], patience: Patience) -> Result<(), SendError> {
        Ok(memit_engine::Exclusive::send(self, id, bytes, patience)?)
    }

    fn send_loan(&mut self, id: u16, loan: memit_engine::Loan, patience: Patience) -> Result<(), SendError> {
        Ok(memit_engine::Exclusive::send_loan(self, id, loan, patience)?)
    }

    #[inline]
    fn announce(&mut self, outlet: &Outlet, patience: Patience) -> Result<(), SendError> {
        if Way::link(self).is_announced(outlet.id) {
            return Ok(());
        }
        Ok(memit_engine::Exclusive::announce(self, &announced(outlet), patience)?)
    }
}

fn announced(outlet: &Outlet) -> Announced<'_> {
    let Outlet { id, name, signature, .. } = outlet;
    Announced { channel: *id, name, message: &signature.message, reply: &signature.reply, error: &signature.error }
}

/// Encodes a message and sends it on the channel that `resolve` gives the number of, announced. It is called once, before
/// the message is encoded, so that it is built into each kind of send.
#[inline]
pub(crate) fn send<T, M, W>(
    way: &mut W,
    message: &M,
    patience: Patience,
    resolve: impl FnOnce(&mut W) -> Result<u16, SendError>,
) -> Result<(), SendError>
where
    T: Payload + ?Sized,
    M: EncodeAs<T> + ?Sized,
    W: Way,
{
    way.prefetch();
    let id = resolve(way)?;
    // Not through the encoder's hands: to move what says that nothing failed would wait until all that was just written
    // has reached the cache.
    let mut failed = None;
    let encoded = encode::with_encoded_or_sized::<T, M, _>(message, COPIED, |bytes| {
        if let Err(error) = way.send(id, bytes, patience) {
            failed = Some(error);
        }
    })?;
    match (encoded, failed) {
        (Encoded::Whole(()), None) => Ok(()),
        (Encoded::Whole(()), Some(error)) => Err(error),
        (Encoded::Sized(len), _) => send_large(way, message, len, patience, id),
    }
}

/// Sends a message whose encoding takes `len` bytes.
#[cold]
#[inline(never)]
fn send_large<T, M, W>(way: &mut W, message: &M, len: usize, patience: Patience, id: u16) -> Result<(), SendError>
where
    T: Payload + ?Sized,
    M: EncodeAs<T> + ?Sized,
    W: Way,
{
    if let Some(loan) = lend(way.link(), message, len)? {
        return way.send_loan(id, loan, patience);
    }
    encode::with_encoded(message, |bytes| way.send(id, bytes, patience))?
}

/// Encodes a message that takes `len` bytes to where the peer will read it. `None` if that is not to be had at once, or
/// not worth it: the bytes are then copied there from this side's own memory, now or when there is room.
pub(crate) fn lend<T, M>(link: &Link, message: &M, len: usize) -> Result<Option<memit_engine::Loan>, EncodeError>
where
    T: Payload + ?Sized,
    M: EncodeAs<T> + ?Sized,
{
    if len <= link.max_inline() || len > link.max_block() {
        return Ok(None);
    }
    let Ok(mut loan) = link.loan(len, Patience::Now) else { return Ok(None) };
    encode::encode_to(message, &mut loan)?;
    Ok(Some(loan))
}
