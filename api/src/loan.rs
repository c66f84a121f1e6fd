//! Memory of a message to be.

use std::{
    fmt,
    marker::PhantomData,
    ops::{Deref, DerefMut},
};

use memit_engine::{Link, Patience};
use zerocopy::FromBytes;

use crate::{Plain, SendError, outgoing::Outlet, payload::plain, way::Way};

/// Memory that [`Sender::loan`](crate::Sender::loan) lent for a message, a slice of `P`.
///
/// It holds zeros, or what earlier messages to this same peer left there: never anything of another peer's, or of this
/// process's own. [`commit`](Self::commit) sends it; if it is dropped instead, the memory is given back and nothing is
/// sent. While it is lent it counts against [`arena_limit`](crate::Builder::arena_limit).
///
/// ```compile_fail,E0382
/// # use memit::Channel;
/// # const FRAME: Channel<[f32]> = Channel::new("frame");
/// # fn twice(sender: &memit::Sender) -> Result<(), memit::SendError> {
/// let mut frame = sender.loan(FRAME, 1000)?;
/// frame.commit()?;
/// frame[0] = 1.0; // the peer's now
/// # Ok(())
/// # }
/// ```
#[must_use = "it is not sent unless it is committed"]
pub struct Loan<'s, P> {
    link: &'s Link,
    outlet: &'s Outlet,
    memory: memit_engine::Loan,
    elements: PhantomData<[P]>,
}

impl<'s, P: Plain> Loan<'s, P> {
    /// The memory's length is a multiple of that of a `P`.
    pub(crate) fn new(link: &'s Link, outlet: &'s Outlet, memory: memit_engine::Loan) -> Self {
        plain::assert_aligned::<P>();
        Self { link, outlet, memory, elements: PhantomData }
    }

    /// Sends the message. Without space in the ring it waits, or not, as [`Sender::send`](crate::Sender::send) does.
    ///
    /// # Errors
    ///
    /// Says why the message was not sent. Its memory has been given back, then.
    pub fn commit(self) -> Result<(), SendError> {
        if self.link.is_forked() {
            return Err(SendError::Forked);
        }
        Way::announce(&mut &*self.link, self.outlet, Patience::ByPolicy)?;
        Ok(self.link.send_loan(self.outlet.id, self.memory, Patience::ByPolicy)?)
    }
}

impl<P: Plain> Deref for Loan<'_, P> {
    type Target = [P];

    #[inline]
    fn deref(&self) -> &[P] {
        // It is aligned, and its length fits, so there is no other case.
        <[P]>::ref_from_bytes(&self.memory).unwrap_or_default()
    }
}

impl<P: Plain> DerefMut for Loan<'_, P> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [P] {
        <[P]>::mut_from_bytes(&mut self.memory).unwrap_or_default()
    }
}

impl<P: Plain + fmt::Debug> fmt::Debug for Loan<'_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
