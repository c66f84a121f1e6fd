//! A call out, its reply back; and calls that cross.
//!
//! Only a dispatching thread that waits for a reply can close a cycle: the peer's call waits in the ring that nobody
//! reads. So each side shows in its outbox, in `waiting`, for which call its dispatching thread waits. Who is about
//! to wait stores that, passes a full fence and looks at the peer's word. Of two that do, at least one sees the
//! other. If it is the renderer, its call ends; if it is main, it rings the renderer, which looks again and ends its
//! call.
//!
//! The peer's word may be a little old: it may still name a call that we have answered. That is no cycle, and our
//! own slots tell.

use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::time::Instant;

use super::Link;
use super::send::Offer;
use crate::aligned::AlignedBytes;
use crate::call::{CallHeader, CallId, CallToken, ReplyStatus};
use crate::doorbell::protocol::{Kinds, arm};
use crate::error::{CallError, Disconnect, ReplyError};
use crate::frame::Outgoing;
use crate::rendezvous::Role;
use crate::thread;

/// Shows the peer, while it lives, for which call our dispatching thread waits.
struct Shown<'a>(&'a AtomicU64);

impl<'a> Shown<'a> {
    fn new(word: &'a AtomicU64, id: CallId) -> Self {
        word.store(id.get(), Ordering::Relaxed);
        // SYNC crossing-calls: SeqCst with the same fence in the peer's process.
        fence(Ordering::SeqCst);
        Self(word)
    }
}

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        self.0.store(0, Ordering::Release);
    }
}

impl Link {
    /// Calls on an announced channel and waits for the answer, until `deadline` if there is one. The value's bytes
    /// are in `reply` then.
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
    ) -> Result<(), CallError> {
        if let Some(refusal) = self.refusal() {
            return Err(refusal.into());
        }
        if thread::dispatches(self.peer_token) {
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
        self.transmit_call(id, channel, payload, deadline, dispatching)?;
        self.await_reply(id, deadline, dispatching, reply)
    }

    fn transmit_call(
        &self,
        id: CallId,
        channel: u16,
        payload: &[u8],
        deadline: Option<Instant>,
        dispatching: bool,
    ) -> Result<(), CallError> {
        let remaining = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let header = CallHeader { id, remaining }.to_bytes();
        let frame = Outgoing::call(channel, &header, payload);
        let crossing = || dispatching && self.is_crossing();
        loop {
            if crossing() {
                return Err(CallError::WouldDeadlock);
            }
            let wanted = match self.offer(&frame) {
                Offer::Sent => return Ok(()),
                Offer::Full { wanted } => wanted,
                Offer::TooLarge { max } => return Err(CallError::TooLarge { len: payload.len(), max }),
                Offer::Ended(reason) => return Err(CallError::Disconnected(reason)),
            };
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Err(CallError::Timeout);
            }
            self.wait_for_space(wanted, deadline, crossing);
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
    ) -> Result<(), CallError> {
        let slot = id.slot();
        let has_arrived = || self.peer.slot_id(slot) == id.get();
        let crossing = || dispatching && self.is_crossing();
        loop {
            // The end of the connection is read first: an answer that was published before it is still taken.
            let ended = self.ended();
            if has_arrived() {
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
                || arm(self.own.reply_armed(slot), Kinds::FUTEX),
                || has_arrived() || crossing(),
            );
        }
    }

    fn take_reply(&self, slot: u32, reply: &mut AlignedBytes) -> Result<(), CallError> {
        // SYNC reply-publish: pairs with the release store of the id in `OwnOutbox::write_slot`.
        fence(Ordering::Acquire);
        let violation = |text: &dyn std::fmt::Display| {
            self.disconnect(Disconnect::violation(text));
            CallError::Disconnected(self.ended().unwrap_or(Disconnect::Died))
        };
        let header = self.peer.read_slot(slot).map_err(|found| violation(&found))?;
        reply.resize(header.len);
        self.peer.copy_slot(slot, reply.as_mut_slice());
        let text = || String::from_utf8_lossy(reply.as_slice()).into_owned();
        match ReplyStatus::from_peer(header.status) {
            Some(ReplyStatus::Value) => Ok(()),
            Some(ReplyStatus::NoListener) => Err(CallError::NoListener),
            Some(ReplyStatus::NoReply) => Err(CallError::NoReply),
            Some(ReplyStatus::ListenerPanicked) => Err(CallError::ListenerPanicked(text())),
            Some(ReplyStatus::SchemaMismatch) => Err(CallError::SchemaMismatch(text())),
            Some(ReplyStatus::ReplyFailed) => Err(CallError::ReplyFailed(text())),
            None => Err(violation(&format_args!("a reply has the unknown status {}", header.status))),
        }
    }

    /// Answers a call. `payload` is the value's bytes, or a text that says what went wrong.
    ///
    /// # Errors
    /// The caller was not told, except after `TooLarge`.
    pub fn reply(&self, call: CallToken, status: ReplyStatus, payload: &[u8]) -> Result<(), ReplyError> {
        if let Some(refusal) = self.refusal() {
            return Err(refusal.into());
        }
        let max = self.own.geometry().max_reply();
        let too_large = payload.len() > max;
        if too_large && status == ReplyStatus::Value {
            let text = ReplyError::TooLarge { len: payload.len(), max };
            self.answer(call, ReplyStatus::ReplyFailed, text.to_string().as_bytes())?;
            return Err(text);
        }
        self.answer(call, status, payload.get(..max).unwrap_or(payload))
    }

    /// `payload` fits its slot.
    fn answer(&self, call: CallToken, status: ReplyStatus, payload: &[u8]) -> Result<(), ReplyError> {
        let slot = call.id.slot();
        let writing = self.answers.begin(call.id).ok_or(ReplyError::Late)?;
        self.own.write_slot(slot, payload, call.id.get(), status as u8);
        drop(writing);
        self.ring_reply(slot);
        Ok(())
    }

    /// Whether the peer's dispatching thread waits for us, who are about to wait for it, and we are the one to yield.
    fn is_crossing(&self) -> bool {
        if self.role == Role::Main {
            return false;
        }
        let theirs = self.peer.load_waiting();
        // SYNC crossing-calls: pairs with `Shown`. The peer's word may name a call that was answered a moment ago.
        theirs != 0 && !self.answers.has_answered(CallId::from_peer(theirs))
    }

    /// Main is about to wait: a renderer that waits already is to look again.
    fn alert_crossing(&self) {
        let theirs = self.peer.load_waiting();
        if theirs != 0 {
            self.ring_crossing(CallId::from_peer(theirs).slot());
        }
    }
}
