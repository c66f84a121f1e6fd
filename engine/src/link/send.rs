//! A frame onto the ring.

use std::sync::atomic::Ordering;
use std::time::Instant;

use memit_ringbuf::{ClaimError, Header, reached};

use super::Link;
use crate::channels::{Announced, MAX_CHANNEL_NAME, MAX_CHANNELS, UnderWay};
use crate::doorbell::protocol::Kinds;
use crate::error::{Disconnect, SendError};
use crate::frame::{ANNOUNCE, MORE, Outgoing};
use crate::sys::barrier;
use crate::thread;

/// How long a sender waits for space. The dispatching thread never does, whatever it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// Not at all.
    Now,
    /// Until an instant.
    Until(Instant),
    /// For as long as the connection lasts.
    ByPolicy,
}

impl Patience {
    pub(super) fn deadline(self) -> Option<Instant> {
        if let Self::Until(deadline) = self { Some(deadline) } else { None }
    }
}

/// What came of offering a frame to the ring.
pub(super) enum Offer {
    Sent,
    /// No space: not before the peer has consumed up to this position.
    Full {
        wanted: u64,
    },
    TooLarge {
        max: usize,
    },
    Ended(Disconnect),
}

/// There is no space for `len` bytes before the peer has consumed up to `wanted`.
struct NoSpace {
    wanted: u64,
    len: usize,
}

impl Link {
    /// Sends a message on an announced channel.
    ///
    /// # Errors
    /// Says why the message was not sent; nothing of it was, then.
    #[inline]
    pub fn send(&self, channel: u16, payload: &[u8], patience: Patience) -> Result<(), SendError> {
        let frame = Outgoing::message(channel, payload);
        if self.is_usable() && self.backlog.is_empty() && self.publish(&frame).is_ok() {
            return Ok(());
        }
        self.transmit(&frame, patience)
    }

    /// Announces a channel to the peer, which has to come before the channel's first message. Does nothing for one
    /// that was announced.
    ///
    /// # Errors
    /// As for [`send`](Self::send). After `Full` or `Timeout` a part may have been sent; the next call goes on there,
    /// whichever channel it is for.
    ///
    /// # Panics
    /// If the channel's number is not below [`MAX_CHANNELS`].
    pub fn announce(&self, announced: &Announced<'_>, patience: Patience) -> Result<(), SendError> {
        assert!(announced.channel < MAX_CHANNELS, "channel number {} is not below {MAX_CHANNELS}", announced.channel);
        loop {
            if let Some(refusal) = self.refusal() {
                return Err(refusal.into());
            }
            // The lock is not held while this thread waits: the dispatching thread may want to announce, too.
            let Some(full) = self.offer_announcement(announced)? else { return Ok(()) };
            self.await_space(full, patience)?;
        }
    }

    /// Sends what is left of the announcement that is under way, if any, and then this one, as far as there is space.
    fn offer_announcement(&self, announced: &Announced<'_>) -> Result<Option<NoSpace>, SendError> {
        let most = self.max_payload();
        let mut under_way = self.channels.lock();
        while !self.channels.contains(announced.channel) {
            let current = match &mut *under_way {
                Some(current) => current,
                None => {
                    let max = MAX_CHANNEL_NAME;
                    let begun = UnderWay::begin(announced);
                    under_way.insert(begun.ok_or(SendError::TooLarge { len: announced.name.len(), max })?)
                }
            };
            while let Some((piece, more)) = current.piece(most) {
                let flags = if more { MORE } else { 0 };
                let header = Header { channel: current.channel, kind: ANNOUNCE, flags };
                let len = piece.len();
                if let Some(full) = self.offer_or_queue(&Outgoing { header, prefix: &[], payload: piece })? {
                    return Ok(Some(full));
                }
                current.advance(len);
            }
            self.channels.insert(current.channel);
            *under_way = None;
        }
        Ok(None)
    }

    /// Neither ended nor inherited through a fork.
    #[inline(always)]
    pub(crate) fn is_usable(&self) -> bool {
        self.is_connected() && self.epoch.is_current()
    }

    /// Claims, writes, publishes, rings.
    #[inline(always)]
    fn publish(&self, frame: &Outgoing<'_>) -> Result<(), ClaimError> {
        let mut claim = self.producer.try_claim(frame.len())?;
        if !frame.prefix.is_empty() {
            claim.write(0, frame.prefix);
        }
        claim.write(frame.prefix.len(), frame.payload);
        claim.commit(frame.header);
        self.ring_data();
        Ok(())
    }

    /// Sends a frame behind what waits in the backlog, by `patience`.
    #[cold]
    fn transmit(&self, frame: &Outgoing<'_>, patience: Patience) -> Result<(), SendError> {
        loop {
            if let Some(refusal) = self.refusal() {
                return Err(refusal.into());
            }
            let Some(full) = self.offer_or_queue(frame)? else { return Ok(()) };
            self.await_space(full, patience)?;
        }
    }

    /// Offers a frame to the ring; the dispatching thread's goes to the backlog when there is no space. Says if the
    /// thread may wait for some.
    fn offer_or_queue(&self, frame: &Outgoing<'_>) -> Result<Option<NoSpace>, SendError> {
        let len = frame.len();
        match self.offer(frame) {
            Offer::Sent => Ok(None),
            Offer::TooLarge { max } => Err(SendError::TooLarge { len, max }),
            Offer::Ended(reason) => Err(SendError::Disconnected(reason)),
            Offer::Full { wanted } if !thread::dispatches(self.port_token) => Ok(Some(NoSpace { wanted, len })),
            Offer::Full { .. } => {
                if !self.backlog.lock().push(frame.header, frame.prefix, frame.payload) {
                    return Err(SendError::Full { len });
                }
                // The peer may be one that this thread does not look at until it rings, which it has no reason to.
                if let Some(port) = self.port.upgrade() {
                    port.look_again();
                }
                Ok(None)
            }
        }
    }

    /// Waits for space once, by `patience`.
    fn await_space(&self, full: NoSpace, patience: Patience) -> Result<(), SendError> {
        let NoSpace { wanted, len } = full;
        match patience {
            Patience::Now => return Err(SendError::Full { len }),
            Patience::Until(deadline) if Instant::now() >= deadline => return Err(SendError::Timeout { len }),
            _ => {}
        }
        if thread::dispatches(self.peer_token) {
            return Err(SendError::WouldDeadlock);
        }
        self.wait_for_space(wanted, patience.deadline(), || false);
        Ok(())
    }

    /// Offers a frame to the ring behind the backlog, without waiting.
    pub(super) fn offer(&self, frame: &Outgoing<'_>) -> Offer {
        // The backlog's frames were checked when they came; a frame that never fits must not wait behind them.
        let max = self.max_payload();
        if frame.len() > max {
            return Offer::TooLarge { max: max - frame.prefix.len() };
        }
        if let Err(wanted) = self.flush_backlog() {
            return Offer::Full { wanted };
        }
        self.publish_or_say(frame)
    }

    fn publish_or_say(&self, frame: &Outgoing<'_>) -> Offer {
        match self.publish(frame) {
            Ok(()) => Offer::Sent,
            Err(ClaimError::Full { wanted }) => Offer::Full { wanted },
            Err(ClaimError::TooLarge { max, .. }) => Offer::TooLarge { max },
            Err(ClaimError::Corrupt(found)) => {
                self.disconnect(Disconnect::violation(found));
                Offer::Ended(self.ended().unwrap_or(Disconnect::Died))
            }
            // Held by an exclusive guard, for which there is no position to wait for.
            Err(_) => Offer::Full { wanted: self.peer.load_head() },
        }
    }

    /// Sends what waits in the backlog; the position that would make space for its front, if any of it has to wait on.
    pub(crate) fn flush_backlog(&self) -> Result<(), u64> {
        if self.backlog.is_empty() {
            return Ok(());
        }
        let mut queue = self.backlog.lock();
        while let Some(front) = queue.front() {
            let frame = Outgoing { header: front.header, prefix: &[], payload: &front.bytes };
            match self.publish_or_say(&frame) {
                Offer::Sent | Offer::TooLarge { .. } => queue.pop(),
                Offer::Full { wanted } => return Err(wanted),
                Offer::Ended(_) => queue.clear(),
            }
        }
        Ok(())
    }

    /// Waits until the peer has consumed up to `wanted`, or `crossing`, or the connection's end, or the deadline.
    pub(super) fn wait_for_space(&self, wanted: u64, deadline: Option<Instant>, crossing: impl Fn() -> bool) {
        self.wait(
            &self.space_spin,
            self.peer.space_bell(),
            deadline,
            || self.arm_space(wanted, Kinds::FUTEX),
            || self.has_space_at(wanted) || crossing(),
        );
    }

    /// Remembers how far the dispatching thread has consumed.
    #[inline(always)]
    pub(crate) fn note_consumed(&self, head: u64) {
        self.consumed.store(head, Ordering::Relaxed);
    }

    /// Tells the peer how far its ring has been consumed, before the dispatching thread waits for something else.
    /// The inbox is told with [`take_published`](Self::take_published).
    pub(super) fn publish_consumed(&self) {
        let head = self.consumed.load(Ordering::Relaxed);
        // Written by the dispatching thread alone, and never back: the inbox may have published more.
        if reached(self.own.head().load(Ordering::Relaxed), head) {
            return;
        }
        // SYNC head-release: pairs with the ring's producer.
        self.own.head().store(head, Ordering::Release);
        self.consumed_published.store(true, Ordering::Relaxed);
        barrier::light(self.outgoing);
        if let Some(armed) = self.space_armed() {
            self.ring_space(armed);
        }
    }

    /// Whether what was consumed has been published behind the inbox's back. Only for the dispatching thread.
    #[inline(always)]
    pub(crate) fn take_published(&self) -> bool {
        let published = self.consumed_published.load(Ordering::Relaxed);
        if published {
            self.consumed_published.store(false, Ordering::Relaxed);
        }
        published
    }

    /// The barrier between a published `head` and the look at who waits for space.
    #[inline(always)]
    pub(crate) fn light_barrier(&self) {
        barrier::light(self.outgoing);
    }
}
