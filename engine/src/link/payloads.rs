//! Payload memory on this connection: passing it, taking it in, giving it back, retiring it.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{PoisonError, Weak};
use std::time::Instant;

use memit_ringbuf::Header;
use rustix::io::Errno;

use super::{LentReply, Link};
use crate::call::CallId;
use crate::doorbell::sleep::change;
use crate::error::Disconnect;
use crate::frame::{ABANDON, Outgoing, Parcel, RETIRE};
use crate::payload::MOST_MEMORIES;
use crate::payload::arena::Lent;
use crate::payload::inbound::{Given, Held, NotTaken};
use crate::payload::location::Location;
use crate::sys::barrier;
use crate::sys::socket::{self, MemoryKind};
use crate::watcher::{self, Watched};

impl Link {
    /// Sends the descriptor of a payload's memory, without waiting.
    pub(super) fn pass(&self, number: u64, kind: MemoryKind, memory: BorrowedFd<'_>) -> Result<(), Errno> {
        crash_point!("descriptor-before");
        let sent = self.sockets.with(|open| socket::send_memory(open.socket.as_fd(), number, kind, memory));
        crash_point!("descriptor-sent");
        sent.unwrap_or(Err(Errno::PIPE))
    }

    /// Finds the payload that a frame or a reply says is at `location`.
    pub(crate) fn take_in(&self, location: Location) -> Result<Held, Disconnect> {
        self.after_hearing(|| self.inbound.take(location))
    }

    /// Forgets memory that the peer does not use any more.
    pub(crate) fn retire(&self, number: u64) -> Result<(), Disconnect> {
        crash_point!("retire-heard");
        self.after_hearing(|| self.inbound.retire(number, &self.own))?;
        crash_point!("retire-done");
        self.ring_given();
        Ok(())
    }

    /// Does something with the peer's memory. Its descriptor was sent before the frame that names it: if it has not
    /// been read from the socket it is there, or the peer broke the protocol.
    fn after_hearing<T>(&self, take: impl Fn() -> Result<T, NotTaken>) -> Result<T, Disconnect> {
        let taken = match take() {
            Err(NotTaken::Missing { .. }) => {
                self.hear();
                take()
            }
            taken => taken,
        };
        taken.map_err(|why| match why {
            NotTaken::Missing { memory } => self.ended().unwrap_or_else(|| {
                Disconnect::violation(format_args!("it named memory number {memory}, which it has not passed"))
            }),
            NotTaken::Wrong(text) => Disconnect::violation(text),
            NotTaken::NoResources(text) => Disconnect::NoResources(text.into()),
        })
    }

    /// Gives memory back to the peer.
    pub(crate) fn give_back(&self, given: Given) {
        if !self.epoch.is_current() {
            return;
        }
        self.inbound.give_back(given, &self.own);
        self.ring_given();
    }

    /// Tells the peer's senders that something was given back, if they sleep for it.
    fn ring_given(&self) {
        barrier::light(self.outgoing);
        let armed = self.peer.load_blocks_armed();
        if self.blocks_waker.due(armed) {
            self.ring(&self.blocks_waker, armed, self.own.space_bell());
        }
    }

    /// This side has taken memory back that the peer had not got: whoever waits for room looks again. `is_wanted`: a
    /// thread may sleep for it in `wait_for_room`.
    pub(crate) fn room_was_made(&self, is_wanted: bool) {
        if is_wanted {
            change(&self.control);
        }
        // SYNC room-released: behind the fence in `OwnRoom::make`, pairs with the heavy barrier that the dispatching
        // thread passes between queueing and sleeping.
        if self.has_backlog()
            && let Some(port) = self.port.upgrade()
        {
            port.news();
        }
    }

    /// Remembers what was lent with the answer to a call, in case its caller does not take it.
    pub(super) fn note_reply(&self, call: CallId, lent: Lent) {
        let mut replies = self.lent_replies.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(reply) = replies.get_mut(call.slot() as usize) {
            *reply = Some(LentReply { call, lent });
        }
    }

    /// The peer has given a call up: it is not answered any more, and what was lent with an answer comes back. `false`:
    /// there is no such reply slot.
    pub(crate) fn abandon(&self, call: CallId) -> bool {
        if !self.answers.abandon(call) {
            return false;
        }
        crash_point!("abandon-heard");
        let reply = {
            let mut replies = self.lent_replies.lock().unwrap_or_else(PoisonError::into_inner);
            replies.get_mut(call.slot() as usize).and_then(|reply| reply.take_if(|reply| reply.call == call))
        };
        if let Some(LentReply { lent, .. }) = reply {
            self.arena.abandon(lent, |number| self.publish_retirement(number));
        }
        true
    }

    /// Tells the peer that a memory is not used any more, if there is space in the ring.
    pub(crate) fn publish_retirement(&self, number: u64) -> bool {
        crash_point!("retire-before");
        let told = self.publish_number(RETIRE, number);
        crash_point!("retire-after");
        told
    }

    /// Tells the peer that a call was given up, now or from the backlog; `false` if that is full, too.
    pub(super) fn tell_abandonment(&self, call: CallId) -> bool {
        crash_point!("abandon-before");
        if self.publish_number(ABANDON, call.get()) {
            return true;
        }
        let number = call.get().to_le_bytes();
        let queued =
            self.backlog.lock().push(&mut Parcel::new(Header { channel: 0, kind: ABANDON, flags: 0 }, &number[..]));
        if queued && let Some(port) = self.port.upgrade() {
            port.news();
        }
        queued
    }

    fn publish_number(&self, kind: u8, number: u64) -> bool {
        let header = Header { channel: 0, kind, flags: 0 };
        self.publish(&mut &self.producer, &Outgoing { header, prefix: &[], payload: &number.to_le_bytes() }).is_ok()
    }

    /// Has [`sweep`](Self::sweep) run in a while; whether it will.
    pub(crate) fn sweep_later(&self) -> bool {
        let Some(due) = Instant::now().checked_add(self.arena_idle) else { return false };
        let target = Weak::clone(&self.me) as Weak<dyn Watched>;
        watcher::set_timer(due, target, 0).is_ok()
    }

    /// Retires the extents that have not been used for a while. Runs on the library's thread, so it does not wait: one
    /// that the peer cannot be told of now is retired next time.
    pub(super) fn sweep(&self) {
        if !self.is_usable() {
            return;
        }
        match self.arena.sweep(|number| self.publish_retirement(number)) {
            Ok(true) if !self.sweep_later() => self.arena.sweep_failed(),
            Ok(_) => {}
            Err(why) => {
                // Says so to nobody else than the connection, which has ended or ends here.
                let _ = self.offer_without_memory(why);
            }
        }
    }

    /// Reads what the peer has sent over the socket: descriptors, or its farewell.
    pub(super) fn hear(&self) {
        // One at a time: who reads the farewell also says why the connection ended, before another finds it gone.
        let _alone = self.sockets.hearing.lock().unwrap_or_else(PoisonError::into_inner);
        // As much as can be there of a peer that keeps the protocol. One that sends on and on holds up nobody.
        for _ in 0..=MOST_MEMORIES {
            let heard = self.sockets.with(|open| socket::hear(open.socket.as_fd()));
            if !heard.is_some_and(|heard| self.heed(heard)) {
                return;
            }
        }
    }
}
