//! A frame onto the ring.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use memit_ringbuf::{ClaimError, Header, reached};
use rustix::io::Errno;

use super::Link;
use super::exclusive::Claims;
use super::room::{Blocked, Room};
use crate::channels::{Announced, MAX_CHANNEL_NAME, MAX_CHANNELS, UnderWay};
use crate::error::{Disconnect, SendError};
use crate::frame::{ANNOUNCE, CALL, Content, MESSAGE, MORE, Outgoing, Parcel};
use crate::payload::arena::NoMemory;
use crate::payload::loan::{Loan, Staged};
use crate::payload::location::Location;
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
    /// No space now.
    Full(Room),
    TooLarge {
        max: usize,
    },
    /// The machine has no memory for it.
    NoMemory(Arc<str>),
    Ended(Disconnect),
}

/// The backlog waits.
struct Stuck {
    /// For what.
    room: Room,
    /// Its first frame has no memory for its payload yet. So nobody behind it may hold some, or both could wait for ever.
    wants_memory: bool,
}

/// There is no space for `len` bytes yet.
pub(super) struct NoSpace {
    room: Room,
    len: usize,
}

impl Link {
    /// Sends a message on an announced channel.
    ///
    /// # Errors
    /// Says why the message was not sent; nothing of it was, then.
    #[inline]
    pub fn send(&self, channel: u16, payload: &[u8], patience: Patience) -> Result<(), SendError> {
        self.send_by(&mut &self.producer, channel, payload, patience)
    }

    /// [`send`](Self::send), with the claims of `ring`.
    #[inline(always)]
    pub(super) fn send_by<R: Claims>(
        &self,
        ring: &mut R,
        channel: u16,
        payload: &[u8],
        patience: Patience,
    ) -> Result<(), SendError> {
        let frame = Outgoing { header: Header { channel, kind: MESSAGE, flags: 0 }, prefix: &[], payload };
        if payload.len() <= self.inline_limit
            && self.is_usable()
            && self.backlog.is_empty()
            && self.publish(ring, &frame).is_ok()
        {
            return Ok(());
        }
        self.transmit(ring, &mut Parcel::message(channel, payload), patience)
    }

    /// Sends a message that was written to a loan of this link.
    ///
    /// # Errors
    /// Says why the message was not sent; the loan is given back, then.
    ///
    /// # Panics
    /// If the loan is another link's.
    pub fn send_loan(&self, channel: u16, loan: Loan, patience: Patience) -> Result<(), SendError> {
        self.send_loan_by(&mut &self.producer, channel, loan, patience)
    }

    /// [`send_loan`](Self::send_loan), with the claims of `ring`.
    pub(super) fn send_loan_by<R: Claims>(
        &self,
        ring: &mut R,
        channel: u16,
        loan: Loan,
        patience: Patience,
    ) -> Result<(), SendError> {
        if let Some(refusal) = self.refusal() {
            return Err(refusal.into());
        }
        let content = self.stage(loan).map_err(SendError::NoMemory)?;
        self.transmit(ring, &mut Parcel::message(channel, content), patience)
    }

    /// Memory for a message of `len` bytes, to be written where the peer will read it.
    ///
    /// # Errors
    /// Says why there is none.
    pub fn loan(&self, len: usize, patience: Patience) -> Result<Loan, SendError> {
        let max = self.max_message();
        if len > max {
            return Err(SendError::TooLarge { len, max });
        }
        loop {
            if let Some(refusal) = self.refusal() {
                return Err(refusal.into());
            }
            match Loan::new(&self.arena, len) {
                Ok(loan) => return Ok(loan),
                Err(why) => match self.offer_without_memory(why) {
                    Offer::Full(_) if thread::dispatches(self.port_token) => return Err(SendError::Full { len }),
                    Offer::Full(room) => self.await_space(NoSpace { room, len }, patience)?,
                    Offer::NoMemory(text) => return Err(SendError::NoMemory(text)),
                    _ => return Err(SendError::Disconnected(self.ended().unwrap_or(Disconnect::Died))),
                },
            }
        }
    }

    /// What was written to a loan, as it is sent.
    pub(super) fn stage(&self, loan: Loan) -> Result<Content<'static>, Arc<str>> {
        assert!(loan.belongs_to(&self.arena), "a loan is sent to the peer for which it was taken");
        match loan.stage() {
            Ok(Some(staged)) => Ok(Content::Staged(staged)),
            Ok(None) => Ok(Content::from(&[][..])),
            Err(refused) => Err(refused.to_string().into()),
        }
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
        self.announce_by(&mut &self.producer, announced, patience)
    }

    /// [`announce`](Self::announce), with the claims of `ring`.
    pub(super) fn announce_by<R: Claims>(
        &self,
        ring: &mut R,
        announced: &Announced<'_>,
        patience: Patience,
    ) -> Result<(), SendError> {
        assert!(announced.channel < MAX_CHANNELS, "channel number {} is not below {MAX_CHANNELS}", announced.channel);
        loop {
            self.admit::<R>()?;
            // The lock is not held while this thread waits: the dispatching thread may want to announce, too.
            let Some(full) = self.offer_announcement(ring, announced)? else { return Ok(()) };
            self.await_space(full, patience)?;
        }
    }

    /// Sends what is left of the announcement that is under way, if any, and then this one, as far as there is space.
    fn offer_announcement<R: Claims>(
        &self,
        ring: &mut R,
        announced: &Announced<'_>,
    ) -> Result<Option<NoSpace>, SendError> {
        let most = self.max_inline();
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
                if let Some(full) = self.offer_or_queue(ring, &mut Parcel::new(header, piece))? {
                    return Ok(Some(full));
                }
                current.advance(len);
                crash_point!("announcement-piece");
            }
            crash_point!("announced");
            self.channels.insert(current.channel);
            *under_way = None;
        }
        Ok(None)
    }

    /// Says that a message is about to be sent, which is yet to be made: the processor fetches the memory that it will be
    /// written to meanwhile. Only a hint.
    #[inline(always)]
    pub fn prefetch(&self) {
        if self.epoch.is_current() {
            self.producer.prefetch();
        }
    }

    /// Neither ended nor inherited through a fork.
    #[inline(always)]
    pub(crate) fn is_usable(&self) -> bool {
        self.is_connected() && self.epoch.is_current()
    }

    /// Claims, writes, publishes, rings.
    #[inline(always)]
    pub(super) fn publish<R: Claims>(&self, ring: &mut R, frame: &Outgoing<'_>) -> Result<(), ClaimError> {
        let mut claim = ring.try_claim(frame.len())?;
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
    fn transmit<R: Claims>(&self, ring: &mut R, parcel: &mut Parcel<'_>, patience: Patience) -> Result<(), SendError> {
        loop {
            self.admit::<R>()?;
            if patience == Patience::Now && self.would_copy_in_vain(ring, parcel) {
                return Err(SendError::Full { len: parcel.len() });
            }
            let Some(full) = self.offer_or_queue(ring, parcel)? else { return Ok(()) };
            self.await_space(full, patience)?;
        }
    }

    /// Says what stands in the way of every send by this thread.
    fn admit<R: Claims>(&self) -> Result<(), SendError> {
        match self.refusal() {
            Some(refusal) => Err(refusal.into()),
            None if R::ARE_SHARED && self.is_held_here() => Err(SendError::WouldDeadlock),
            None => Ok(()),
        }
    }

    /// Whether a message is to be copied to where the peer will read it, and then there is no space to say where. Whoever
    /// waits or queues up needs the copy later, so this is for those who do neither.
    fn would_copy_in_vain<R: Claims>(&self, ring: &mut R, parcel: &Parcel<'_>) -> bool {
        let is_copied = matches!(parcel.content, Content::Bytes(_))
            && parcel.len() > self.max_inline()
            && parcel.len() <= self.max_message();
        is_copied
            && !thread::dispatches(self.port_token)
            && matches!(ring.check_room(Location::MOST_BYTES), Err(ClaimError::Full { .. } | ClaimError::Held))
    }

    /// Offers a frame to the ring; the dispatching thread's goes to the backlog when there is no space. Says if the
    /// thread may wait for some.
    fn offer_or_queue<R: Claims>(&self, ring: &mut R, parcel: &mut Parcel<'_>) -> Result<Option<NoSpace>, SendError> {
        let len = parcel.len();
        match self.offer(ring, parcel) {
            Offer::Sent => Ok(None),
            Offer::TooLarge { max } => Err(SendError::TooLarge { len, max }),
            Offer::NoMemory(text) => Err(SendError::NoMemory(text)),
            Offer::Ended(reason) => Err(SendError::Disconnected(reason)),
            Offer::Full(room) if !thread::dispatches(self.port_token) => Ok(Some(NoSpace { room, len })),
            Offer::Full(_) => {
                if !self.backlog.lock().push(parcel) {
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
        let NoSpace { room, len } = full;
        match patience {
            Patience::Now => return Err(SendError::Full { len }),
            Patience::Until(deadline) if Instant::now() >= deadline => return Err(SendError::Timeout { len }),
            _ => {}
        }
        if thread::dispatches(self.peer_token) {
            return Err(SendError::WouldDeadlock);
        }
        self.wait_for_room(room, patience.deadline(), || false);
        Ok(())
    }

    /// Offers a frame to the ring behind the backlog, without waiting. Until it was sent the parcel can be offered
    /// again.
    pub(super) fn offer<R: Claims>(&self, ring: &mut R, parcel: &mut Parcel<'_>) -> Offer {
        // The backlog's frames were checked when they came; a frame that never goes must not wait behind them.
        let max = self.max_message();
        if matches!(parcel.header.kind, MESSAGE | CALL) && parcel.len() > max {
            return Offer::TooLarge { max };
        }
        if let Err(stuck) = self.flush_frames(ring) {
            if stuck.wants_memory {
                // It may be the memory that this frame holds, which must not wait for who waits for it.
                parcel.content.unstage();
            }
            return Offer::Full(stuck.room);
        }
        self.publish_parcel(ring, parcel)
    }

    /// Publishes a frame, its payload in the ring if it fits there, and else where the peer will find it.
    fn publish_parcel<R: Claims>(&self, ring: &mut R, parcel: &mut Parcel<'_>) -> Offer {
        if let Content::Bytes(bytes) = &parcel.content {
            let frame = Outgoing { header: parcel.header, prefix: parcel.prefix(), payload: bytes };
            if frame.len() <= self.max_inline() {
                return match self.publish(ring, &frame) {
                    Ok(()) => Offer::Sent,
                    Err(refused) => self.offer_without_claim(&refused),
                };
            }
            match Staged::copy_of(&self.arena, bytes) {
                Ok(staged) => parcel.content = Content::Staged(staged),
                Err(why) => return self.offer_without_memory(why),
            }
        }
        self.publish_staged(ring, parcel)
    }

    /// Leaves frames of padding: claims that were given up.
    #[cfg(test)]
    pub(crate) fn pad(&self, frames: usize) {
        (0..frames).for_each(|_| self.producer.try_claim(0).unwrap().abort());
        self.ring_data();
    }

    /// Claims, has the peer get the descriptor if it needs one, and publishes where the payload lies.
    fn publish_staged<R: Claims>(&self, ring: &mut R, parcel: &mut Parcel<'_>) -> Offer {
        let Content::Staged(staged) = &parcel.content else { return Offer::Sent };
        if let Err(error) = staged.pass_extent(|number, kind, memory| self.pass(number, kind, memory)) {
            return self.offer_without_descriptor(error);
        }
        crash_point!("frame-of-memory-before");
        let (location, prefix) = (staged.location(), parcel.prefix());
        let encoded = location.encode();
        let mut claim = match ring.try_claim(prefix.len() + encoded.as_slice().len()) {
            Ok(claim) => claim,
            Err(refused) => return self.offer_without_claim(&refused),
        };
        if let Err(error) = staged.pass_sealed(|number, kind, memory| self.pass(number, kind, memory)) {
            // The frame becomes padding.
            drop(claim);
            self.ring_data();
            return self.offer_without_descriptor(error);
        }
        if !prefix.is_empty() {
            claim.write(0, prefix);
        }
        claim.write(prefix.len(), encoded.as_slice());
        staged.lend();
        let Header { channel, kind, flags } = parcel.header;
        claim.commit(Header { channel, kind, flags: flags | location.place() });
        self.ring_data();
        if let Content::Staged(staged) = parcel.content.take() {
            staged.sent();
        }
        Offer::Sent
    }

    fn offer_without_claim(&self, refused: &ClaimError) -> Offer {
        match refused {
            ClaimError::Full { wanted } => Offer::Full(Room::Ring(*wanted)),
            ClaimError::TooLarge { max, .. } => Offer::TooLarge { max: *max },
            ClaimError::Corrupt(found) => {
                self.disconnect(Disconnect::violation(found));
                Offer::Ended(self.ended().unwrap_or(Disconnect::Died))
            }
            // Held, then.
            _ => Offer::Full(Room::Guard),
        }
    }

    pub(super) fn offer_without_memory(&self, why: NoMemory) -> Offer {
        match why {
            NoMemory::Full(seen) => Offer::Full(Room::Arena(seen)),
            NoMemory::Later => Offer::Full(Room::later()),
            NoMemory::Refused(error) => Offer::NoMemory(error.to_string().into()),
            NoMemory::Violation(text) => {
                self.disconnect(Disconnect::violation(text));
                Offer::Ended(self.ended().unwrap_or(Disconnect::Died))
            }
            NoMemory::Ended => Offer::Ended(self.ended().unwrap_or(Disconnect::Died)),
        }
    }

    pub(super) fn offer_without_descriptor(&self, error: Errno) -> Offer {
        match error {
            // The peer, or another one that is sent descriptors, has not read enough of them; its library thread does,
            // unless it is stopped.
            Errno::AGAIN | Errno::TOOMANYREFS => Offer::Full(Room::later()),
            // The socket is gone, and with it the peer, or soon.
            Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN | Errno::BADF => {
                self.hung_up();
                Offer::Ended(self.ended().unwrap_or(Disconnect::Died))
            }
            error => Offer::NoMemory(format!("a descriptor could not be passed to the peer: {error}").into()),
        }
    }

    /// Sends what frames wait in the backlog; what would make space for the first, if any of them has to wait on.
    fn flush_frames<R: Claims>(&self, ring: &mut R) -> Result<(), Stuck> {
        if self.backlog.is_empty() {
            return Ok(());
        }
        let mut queue = self.backlog.lock();
        while let Some(front) = queue.front() {
            let room = match self.publish_parcel(ring, front) {
                Offer::Sent | Offer::TooLarge { .. } => {
                    crash_point!("backlog-sent");
                    queue.pop();
                    continue;
                }
                Offer::Ended(_) => {
                    queue.clear();
                    continue;
                }
                Offer::Full(room) => room,
                // Its sender was told that it will go out.
                Offer::NoMemory(_) => Room::later(),
            };
            let wants_memory = matches!(&front.content, Content::Bytes(bytes) if bytes.len() > self.max_inline());
            if !wants_memory || !queue.unstage_behind() {
                return Err(Stuck { room, wants_memory });
            }
        }
        Ok(())
    }

    /// Sends what waits in the backlog, frames and answers, as far as there is room.
    pub(crate) fn flush(&self) -> Blocked {
        let frames = self.flush_frames(&mut &self.producer).err().map(|stuck| stuck.room);
        let [arena, later] = self.flush_answers();
        Blocked([frames, arena, later])
    }

    /// Whether anything waits in the backlog.
    pub(crate) fn has_backlog(&self) -> bool {
        !self.backlog.is_empty() || !self.unsent_answers.is_empty()
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
        crash_point!("consumed-published");
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
