//! A call out, and its reply back.

use std::sync::atomic::{Ordering, fence};
use std::time::Instant;

use memit_ringbuf::Header;

use super::Link;
use super::room::Room;
use super::send::Offer;
use crate::aligned::AlignedBytes;
use crate::call::crossing::{self, Shown};
use crate::call::{CallHeader, CallId, CallToken, ReplyStatus};
use crate::config::Trust;
use crate::doorbell::protocol::{Kinds, unfence};
use crate::error::{CallError, Disconnect, ReplyError};
use crate::frame::{ABANDON, CALL, Content, Parcel};
use crate::payload::arena::NoMemory;
use crate::payload::inbound::Held;
use crate::payload::kept::Kept;
use crate::payload::loan::{Loan, Staged};
use crate::payload::location::{INLINE, Location};
use crate::rendezvous::Role;
use crate::thread;

/// A call was answered before, or its caller gave up.
struct Late;

impl Link {
    /// Calls on an announced channel and waits for the answer, until `deadline` if there is one. The value's bytes
    /// are in `reply` then, or, if the value is large and need not be copied, in what is returned.
    ///
    /// # Errors
    /// Says how the call ended without a value. After `Timeout` and `WouldDeadlock` the peer may still run the
    /// listeners; its answer is dropped.
    pub fn call(
        &self,
        channel: u16,
        payload: &[u8],
        deadline: Option<Instant>,
        reply: &mut AlignedBytes,
    ) -> Result<Option<Kept>, CallError> {
        self.call_with(channel, payload.into(), deadline, reply)
    }

    /// Calls with a message that was written to a loan of this link.
    ///
    /// # Errors
    /// As for [`call`](Self::call).
    ///
    /// # Panics
    /// If the loan is another link's.
    pub fn call_loan(
        &self,
        channel: u16,
        loan: Loan,
        deadline: Option<Instant>,
        reply: &mut AlignedBytes,
    ) -> Result<Option<Kept>, CallError> {
        if let Some(refusal) = self.refusal() {
            return Err(refusal.into());
        }
        let content = self.stage(loan).map_err(CallError::NoMemory)?;
        self.call_with(channel, content, deadline, reply)
    }

    fn call_with(
        &self,
        channel: u16,
        content: Content<'_>,
        deadline: Option<Instant>,
        reply: &mut AlignedBytes,
    ) -> Result<Option<Kept>, CallError> {
        if let Some(refusal) = self.refusal() {
            return Err(refusal.into());
        }
        if thread::dispatches(self.peer_token) || self.is_held_here() {
            return Err(CallError::WouldDeadlock);
        }
        let dispatching = thread::dispatches(self.port_token);
        let slot = if dispatching {
            self.caller.dispatcher()
        } else {
            match self.caller.acquire(deadline, &self.control, || !self.is_connected()) {
                Some(slot) => slot,
                None => return Err(self.refusal().map_or(CallError::Timeout, Into::into)),
            }
        };
        let id = slot.next_id();
        let _shown = dispatching.then(|| Shown::new(self.own.waiting(), id));
        if dispatching {
            self.publish_consumed();
            if self.role == Role::Main {
                self.alert_crossing();
            }
        }
        let remaining = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if let Some(abandoned) = slot.abandoned() {
            let number = abandoned.get().to_le_bytes();
            let header = Header { channel: 0, kind: ABANDON, flags: 0 };
            self.transmit_call(&mut Parcel::new(header, &number[..]), deadline, dispatching)?;
            slot.set_abandoned(None);
        }
        let mut parcel = Parcel {
            header: Header { channel, kind: CALL, flags: 0 },
            call: Some(CallHeader { id, remaining }.to_bytes()),
            content,
        };
        crash_point!("call-before-frame");
        self.transmit_call(&mut parcel, deadline, dispatching)?;
        crash_point!("call-after-frame");
        let answer = self.await_reply(id, deadline, dispatching, reply);
        crash_point!("call-ended");
        if matches!(answer, Err(CallError::Timeout | CallError::WouldDeadlock)) && !self.tell_abandonment(id) {
            // The peer is told before the slot's next call.
            slot.set_abandoned(Some(id));
        }
        answer
    }

    fn transmit_call(
        &self,
        parcel: &mut Parcel<'_>,
        deadline: Option<Instant>,
        dispatching: bool,
    ) -> Result<(), CallError> {
        let crossing = || dispatching && self.is_crossing();
        loop {
            if crossing() {
                return Err(CallError::WouldDeadlock);
            }
            let room = match self.offer(&mut &self.producer, parcel) {
                Offer::Sent => return Ok(()),
                Offer::Full(room) => room,
                Offer::TooLarge { max } => return Err(CallError::TooLarge { len: parcel.len(), max }),
                Offer::NoMemory(text) => return Err(CallError::NoMemory(text)),
                Offer::Ended(reason) => return Err(CallError::Disconnected(reason)),
            };
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Err(CallError::Timeout);
            }
            self.wait_for_room(room, deadline, crossing);
            if let Some(refusal) = self.refusal() {
                return Err(refusal.into());
            }
        }
    }

    fn await_reply(
        &self,
        id: CallId,
        deadline: Option<Instant>,
        dispatching: bool,
        reply: &mut AlignedBytes,
    ) -> Result<Option<Kept>, CallError> {
        let slot = id.slot();
        let has_arrived = || self.peer.slot_id(slot) == id.get();
        let crossing = || dispatching && self.is_crossing();
        loop {
            // The end of the connection is read first: an answer that was published before it is still taken.
            let ended = self.ended();
            if has_arrived() {
                if self.replies_fenced.load(Ordering::Relaxed) && !self.reply_spin.sleeps_often() {
                    unfence(self.own.reply_armed(slot));
                }
                return self.take_reply(slot, reply);
            }
            if let Some(reason) = ended {
                return Err(CallError::Disconnected(reason));
            }
            if crossing() {
                return Err(CallError::WouldDeadlock);
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Err(CallError::Timeout);
            }
            self.wait(
                &self.reply_spin,
                self.peer.reply_bell(slot),
                deadline,
                || {
                    let often = self.reply_spin.sleeps_often();
                    if often {
                        self.replies_fenced.store(true, Ordering::Relaxed);
                    }
                    let barrier = self.arm_alone(self.own.reply_armed(slot), Kinds::FUTEX, often);
                    crash_point!("reply-armed");
                    barrier
                },
                || has_arrived() || crossing(),
            );
        }
    }

    fn take_reply(&self, slot: u32, reply: &mut AlignedBytes) -> Result<Option<Kept>, CallError> {
        // SYNC reply-publish: pairs with the release store of the id in `OwnOutbox::write_slot`.
        fence(Ordering::Acquire);
        crash_point!("reply-found");
        let violation = |text: &dyn std::fmt::Display| {
            self.disconnect(Disconnect::violation(text));
            CallError::Disconnected(self.ended().unwrap_or(Disconnect::Died))
        };
        let header = self.peer.read_slot(slot).map_err(|found| violation(&found))?;
        reply.resize(header.len);
        self.peer.copy_slot(slot, reply.as_mut_slice());
        let kept = if header.place == INLINE {
            None
        } else {
            let location = Location::parse(header.place, reply.as_slice()).map_err(|found| violation(&found))?;
            self.take_value(location, reply).map_err(|reason| {
                self.disconnect(reason);
                CallError::Disconnected(self.ended().unwrap_or(Disconnect::Died))
            })?
        };
        let text = || String::from_utf8_lossy(reply.as_slice()).into_owned();
        match ReplyStatus::from_peer(header.status) {
            Some(ReplyStatus::Value) => Ok(kept),
            Some(ReplyStatus::NoListener) => Err(CallError::NoListener),
            Some(ReplyStatus::NoReply) => Err(CallError::NoReply),
            Some(ReplyStatus::ListenerPanicked) => Err(CallError::ListenerPanicked(text())),
            Some(ReplyStatus::SchemaMismatch) => Err(CallError::SchemaMismatch(text())),
            Some(ReplyStatus::ReplyFailed) => Err(CallError::ReplyFailed(text())),
            None => Err(violation(&format_args!("a reply has the unknown status {}", header.status))),
        }
    }

    /// A value that lies elsewhere: in place if it cannot change, and else copied to `reply`.
    fn take_value(&self, location: Location, reply: &mut AlignedBytes) -> Result<Option<Kept>, Disconnect> {
        let block = match self.take_in(location)? {
            Held::Sealed(sealed) => return Ok(Some(Kept::sealed(sealed))),
            Held::Block(block) => block,
        };
        if let Some(port) = self.port.upgrade()
            && let Trust::Full(promise) = port.trust()
        {
            return Ok(Some(Kept::trusted(promise, block)));
        }
        reply.resize(block.len());
        block.copy_to(reply.as_mut_slice());
        Ok(None)
    }

    /// Says that a call is about to be answered with a value that is yet to be made: the processor fetches the memory
    /// that it will be written to meanwhile. Only a hint.
    #[inline]
    pub fn prefetch_reply(&self, call: CallToken) {
        let slot = call.id.slot();
        if self.epoch.is_current() && self.own.geometry().has_slot(slot) {
            self.own.prefetch_slot(slot);
        }
    }

    /// Answers a call. `payload` is the value's bytes, or a text that says what went wrong.
    ///
    /// A large value for which there is no room now goes out when there is some: the caller waits as long as it said.
    ///
    /// # Errors
    /// The caller was not told, except after `TooLarge`, `Full` and `NoMemory`.
    pub fn reply(&self, call: CallToken, status: ReplyStatus, payload: &[u8]) -> Result<(), ReplyError> {
        if let Some(refusal) = self.refusal() {
            return Err(refusal.into());
        }
        let (len, max) = (payload.len(), self.own.geometry().max_reply());
        if status != ReplyStatus::Value {
            return self.answer(call, status, payload.get(..max).unwrap_or(payload));
        }
        if len > self.max_message() {
            return self.fail(call, ReplyError::TooLarge { len, max: self.max_message() });
        }
        if len <= max {
            return self.answer(call, status, payload);
        }
        self.answer_or_queue(call, payload.into())
    }

    /// Answers a call with a value that was written to a loan of this link.
    ///
    /// # Errors
    /// As for [`reply`](Self::reply).
    ///
    /// # Panics
    /// If the loan is another link's.
    pub fn reply_loan(&self, call: CallToken, loan: Loan) -> Result<(), ReplyError> {
        if let Some(refusal) = self.refusal() {
            return Err(refusal.into());
        }
        match self.stage(loan) {
            Ok(content) if content.len() == 0 => self.answer(call, ReplyStatus::Value, &[]),
            Ok(content) => self.answer_or_queue(call, content),
            Err(text) => self.fail(call, ReplyError::NoMemory(text)),
        }
    }

    /// Tells the caller why there is no value.
    fn fail(&self, call: CallToken, why: ReplyError) -> Result<(), ReplyError> {
        let text = why.to_string();
        let most = text.len().min(self.own.geometry().max_reply());
        self.answer(call, ReplyStatus::ReplyFailed, &text.as_bytes()[..most])?;
        Err(why)
    }

    /// `payload` fits its slot.
    fn answer(&self, call: CallToken, status: ReplyStatus, payload: &[u8]) -> Result<(), ReplyError> {
        let slot = call.id.slot();
        let writing = self.answers.begin(call.id).ok_or(ReplyError::Late)?;
        crash_point!("reply-before");
        self.own.write_slot(slot, payload, call.id.get(), status as u8, INLINE);
        drop(writing);
        self.ring_reply(slot);
        crash_point!("reply-after");
        Ok(())
    }

    /// Answers with a value that does not fit its slot, now or when there is room.
    fn answer_or_queue(&self, call: CallToken, mut content: Content<'_>) -> Result<(), ReplyError> {
        let len = content.len();
        match self.offer_answer(call, &mut content) {
            Ok(Offer::Sent) => Ok(()),
            Err(Late) => Err(ReplyError::Late),
            Ok(Offer::Full(_)) => {
                // Who would have to make the room waits for the answer.
                let waits_in_vain = matches!(content, Content::Bytes(_)) && self.is_dispatching_caller(call);
                if waits_in_vain || !self.unsent_answers.push(call, content) {
                    return self.fail(call, ReplyError::Full { len });
                }
                if let Some(port) = self.port.upgrade() {
                    port.news();
                }
                Ok(())
            }
            Ok(Offer::NoMemory(text)) => self.fail(call, ReplyError::NoMemory(text)),
            Ok(Offer::TooLarge { max }) => self.fail(call, ReplyError::TooLarge { len, max }),
            Ok(Offer::Ended(reason)) => Err(ReplyError::Disconnected(reason)),
        }
    }

    /// Writes a value to where the caller will find it, and says where in its slot, if there is room. Until then it can
    /// be offered again.
    fn offer_answer(&self, call: CallToken, content: &mut Content<'_>) -> Result<Offer, Late> {
        if !self.answers.is_pending(call.id) {
            return Err(Late);
        }
        if let Content::Bytes(bytes) = content {
            let staged = match Staged::copy_of(&self.arena, bytes) {
                // What fills the arena may lie in the ring that this very caller does not read meanwhile. One sealed
                // memory may always be out.
                Err(NoMemory::Full(_) | NoMemory::Later) if self.is_dispatching_caller(call) => {
                    Staged::sealed_copy_of(&self.arena, bytes)
                }
                outcome => outcome,
            };
            match staged {
                Ok(staged) => *content = Content::Staged(staged),
                Err(why) => return Ok(self.offer_without_memory(why)),
            }
        }
        let Content::Staged(staged) = content else { return Ok(Offer::Sent) };
        if let Err(error) = staged.pass_extent(|number, kind, memory| self.pass(number, kind, memory)) {
            return Ok(self.offer_without_descriptor(error));
        }
        let writing = self.answers.begin(call.id).ok_or(Late)?;
        // Only now: none is passed for an answer that is late.
        if let Err(error) = staged.pass_sealed(|number, kind, memory| self.pass(number, kind, memory)) {
            writing.put_off();
            return Ok(self.offer_without_descriptor(error));
        }
        let (slot, location) = (call.id.slot(), staged.location());
        // Before the answer is there, so that it is known of when the caller turns out not to take it.
        self.note_reply(call.id, staged.lend());
        crash_point!("reply-lent");
        let status = ReplyStatus::Value as u8;
        self.own.write_slot(slot, location.encode().as_slice(), call.id.get(), status, location.place());
        if let Content::Staged(staged) = content.take() {
            staged.sent();
        }
        drop(writing);
        self.ring_reply(slot);
        Ok(Offer::Sent)
    }

    /// Whether the call is one for whose answer the peer's dispatching thread waits.
    fn is_dispatching_caller(&self, call: CallToken) -> bool {
        // Shown before the call was published, so seen by whoever answers it.
        self.peer.load_waiting() == call.id.get()
    }

    /// Sends the answers that wait for room; what those wait for that still have to: room in the arena, and a time.
    pub(super) fn flush_answers(&self) -> [Option<Room>; 2] {
        let mut blocked = [None; 2];
        if self.unsent_answers.is_empty() {
            return blocked;
        }
        self.unsent_answers.retain(|call, content| {
            let len = content.len();
            let why = match self.offer_answer(call, content) {
                Ok(Offer::Full(room)) => {
                    blocked[usize::from(matches!(room, Room::Later(_)))].get_or_insert(room);
                    return true;
                }
                Ok(Offer::Sent | Offer::Ended(_)) | Err(Late) => return false,
                Ok(Offer::NoMemory(text)) => ReplyError::NoMemory(text),
                Ok(Offer::TooLarge { max }) => ReplyError::TooLarge { len, max },
            };
            let _ = self.fail(call, why);
            false
        });
        blocked
    }

    /// Whether the peer's dispatching thread waits for us, who are about to wait for it, and we are the one to yield.
    fn is_crossing(&self) -> bool {
        // SYNC crossing-calls: pairs with `Shown::new`, ours before and the peer's.
        self.role == Role::Renderer && crossing::is_crossing(self.peer.load_waiting(), &self.answers)
    }

    /// Main is about to wait: a renderer that waits already is to look again.
    fn alert_crossing(&self) {
        // SYNC crossing-calls: pairs with `Shown::new`, ours before and the peer's.
        if let Some(slot) = crossing::to_alert(self.peer.load_waiting()) {
            self.ring_crossing(slot);
        }
    }
}
