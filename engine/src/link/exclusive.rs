//! The ring for one thread alone: a guard, by which frames are claimed without a read-modify-write.
//!
//! Frames in the backlog go before the guard's, as they go before everybody's; while another thread has the guard, they
//! go with its next frame, or when it is let go.
//!
//! The holder is known by its thread: what it sends past its guard would wait for itself.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use memit_ringbuf::{Claim, ClaimError, MappedRingMut, Producer};

use super::Link;
use super::send::Patience;
use crate::channels::Announced;
use crate::error::{ExclusiveError, SendError};
use crate::outbox::{OwnOutbox, PeerHead};
use crate::payload::loan::Loan;
use crate::thread::{self, Marked};

type Memory = MappedRingMut<Arc<OwnOutbox>>;
type RingGuard<'l> = memit_ringbuf::Exclusive<'l, Memory, PeerHead>;

/// Who claims frames of the ring: any thread, or the one that has the guard.
pub(super) trait Claims {
    /// Whether other threads claim beside it, and a guard keeps it out.
    const ARE_SHARED: bool;

    /// Claims a frame for a payload of exactly `len` bytes.
    fn try_claim(&mut self, len: usize) -> Result<Claim<'_, Memory, PeerHead>, ClaimError>;

    /// Whether such a claim would find room.
    fn check_room(&mut self, len: usize) -> Result<(), ClaimError>;
}

impl Claims for &Producer<Memory, PeerHead> {
    const ARE_SHARED: bool = true;

    #[inline(always)]
    fn try_claim(&mut self, len: usize) -> Result<Claim<'_, Memory, PeerHead>, ClaimError> {
        Producer::try_claim(self, len)
    }

    fn check_room(&mut self, len: usize) -> Result<(), ClaimError> {
        Producer::check_room(self, len)
    }
}

impl Claims for RingGuard<'_> {
    const ARE_SHARED: bool = false;

    #[inline(always)]
    fn try_claim(&mut self, len: usize) -> Result<Claim<'_, Memory, PeerHead>, ClaimError> {
        RingGuard::try_claim(self, len)
    }

    fn check_room(&mut self, len: usize) -> Result<(), ClaimError> {
        RingGuard::check_room(self, len)
    }
}

/// Sole use of a link's ring, by the thread that took it, until it is dropped.
///
/// Other threads wait for it as they wait for space; what the dispatching thread sends meanwhile goes to the backlog. The
/// holder's own thread cannot send or call past it: that is `WouldDeadlock`. A guard that is leaked holds the ring until
/// the connection ends.
#[must_use = "dropping the guard lets the other threads in again"]
pub struct Exclusive<'l> {
    link: &'l Link,
    // In this order: the ring is free before anybody is told.
    ring: RingGuard<'l>,
    _tell: Tell<'l>,
    _holding: Marked,
}

/// Tells those who wait, when dropped.
struct Tell<'l>(&'l Link);

impl Drop for Tell<'_> {
    fn drop(&mut self) {
        self.0.guard_released();
    }
}

impl<'l> Exclusive<'l> {
    /// The link whose ring this is.
    #[inline]
    pub fn link(&self) -> &'l Link {
        self.link
    }

    /// As [`Link::prefetch`].
    #[inline(always)]
    pub fn prefetch(&self) {
        if self.link.epoch.is_current() {
            self.ring.prefetch();
        }
    }

    /// [`Link::send`], by the guard.
    ///
    /// # Errors
    /// As there.
    #[inline]
    pub fn send(&mut self, channel: u16, payload: &[u8], patience: Patience) -> Result<(), SendError> {
        self.link.send_by(&mut self.ring, channel, payload, patience)
    }

    /// [`Link::send_loan`], by the guard.
    ///
    /// # Errors
    /// As there.
    ///
    /// # Panics
    /// As there.
    pub fn send_loan(&mut self, channel: u16, loan: Loan, patience: Patience) -> Result<(), SendError> {
        self.link.send_loan_by(&mut self.ring, channel, loan, patience)
    }

    /// [`Link::announce`], by the guard.
    ///
    /// # Errors
    /// As there.
    ///
    /// # Panics
    /// As there.
    pub fn announce(&mut self, announced: &Announced<'_>, patience: Patience) -> Result<(), SendError> {
        self.link.announce_by(&mut self.ring, announced, patience)
    }
}

impl fmt::Debug for Exclusive<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exclusive").field("link", &self.link).finish_non_exhaustive()
    }
}

impl Link {
    /// Takes the ring for this thread alone. Waits until no other thread has it, by the connection's strategy; the
    /// dispatching thread does not wait.
    ///
    /// # Errors
    /// Says why it cannot be had.
    pub fn exclusive(&self) -> Result<Exclusive<'_>, ExclusiveError> {
        loop {
            if let Some(refusal) = self.refusal() {
                return Err(refusal.into());
            }
            if let Ok(ring) = self.producer.exclusive() {
                return Ok(Exclusive { link: self, ring, _tell: Tell(self), _holding: Marked::holding(self.serial) });
            }
            // Who dispatches the peer makes the space that the holder may wait for.
            if self.is_held_here() || thread::dispatches(self.peer_token) {
                return Err(ExclusiveError::WouldDeadlock);
            }
            if thread::dispatches(self.port_token) {
                return Err(ExclusiveError::Held);
            }
            self.wait_for_guard(None, || false);
        }
    }

    /// Whether this very thread has the guard.
    pub(super) fn is_held_here(&self) -> bool {
        self.producer.is_held() && thread::holds(self.serial)
    }

    /// Waits until the guard is let go, or `crossing`, or the connection's end, or the deadline; may return sooner.
    pub(super) fn wait_for_guard(&self, deadline: Option<Instant>, crossing: impl Fn() -> bool) {
        let ready = || !self.producer.is_held() || !self.is_connected() || crossing();
        if self.spin(&self.guard_spin, deadline, &ready) {
            return;
        }
        let began = Instant::now();
        // Only the dispatching thread's call can cross another, of which the peer tells by this bell.
        let bell = thread::dispatches(self.port_token).then(|| self.peer.space_bell());
        self.releases.sleep(bell, &self.control, deadline, ready);
        self.guard_spin.slept(began.elapsed());
    }

    /// The ring is free again.
    fn guard_released(&self) {
        if !self.epoch.is_current() {
            return;
        }
        self.releases.tell();
        // SYNC guard-released: behind the fence in `Releases::tell`, pairs with the heavy barrier that the dispatching
        // thread passes between queueing and sleeping.
        if !self.backlog.is_empty()
            && let Some(port) = self.port.upgrade()
        {
            if thread::dispatches(self.port_token) { port.look_again() } else { port.news() }
        }
    }
}
