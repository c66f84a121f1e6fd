//! One side of a connection, as far as its payload memory needs one. It stands where `crate::link` does, whose
//! `payloads.rs` and `send.rs` it follows: who gives back rings, who makes room wakes, and who finds none waits.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Weak};

use loom::sync::atomic::{AtomicU32, Ordering, fence};
use memit_ringbuf::Capacity;

use crate::doorbell::protocol::{Kinds, Waker, arm_shared};
use crate::doorbell::sleep::{change, sleep_once};
use crate::outbox::{Geometry, LEAST_SLOTS, Limits, OwnOutbox, PeerOutbox};
use crate::payload::arena::{Arena, Borrowed, NoMemory, Seen};
use crate::payload::inbound::{Given, Inbound};
use crate::payload::{PAGE, PayloadLimits};

pub(crate) struct Link {
    pub(super) own: Arc<OwnOutbox>,
    pub(super) peer: Arc<PeerOutbox>,
    pub(super) arena: Arc<Arena>,
    pub(super) inbound: Inbound,
    control: AtomicU32,
    blocks_waker: Waker,
    /// Stands for the backlog of the dispatching thread: whether something is in it; and for how that thread is told.
    pub(super) backlog: loom::sync::atomic::AtomicBool,
    pub(super) news: AtomicU32,
    /// Whether the library's thread is to come, for what idles.
    is_swept: AtomicBool,
}

/// An outbox of the one geometry that the models have, as its owner and as its peer has it.
pub(super) fn outbox() -> (Arc<OwnOutbox>, Arc<PeerOutbox>) {
    let geometry = Geometry { capacity: Capacity::new(Capacity::MIN).unwrap(), slot_count: LEAST_SLOTS };
    let (own, fd) = OwnOutbox::create(geometry).unwrap();
    (own, PeerOutbox::accept(fd, Limits { max_size: geometry.size() }).unwrap())
}

impl Link {
    /// Both sides of a connection, with extents of `pages` pages, and one of them at most in each direction.
    pub(super) fn pair(pages: usize) -> [Arc<Self>; 2] {
        let extent_size = pages * PAGE;
        let limits = PayloadLimits {
            extent_size,
            arena_limit: extent_size,
            message_limit: extent_size,
            sealed_from: usize::MAX,
        };
        let [ours, theirs] = [outbox(), outbox()];
        let side = |own: &Arc<OwnOutbox>, peer: &Arc<PeerOutbox>| {
            Arc::new_cyclic(|me: &Weak<Self>| Self {
                own: Arc::clone(own),
                peer: Arc::clone(peer),
                arena: Arena::new(limits, false, Arc::clone(peer), Weak::clone(me)),
                inbound: Inbound::new(limits, Weak::clone(me)),
                control: AtomicU32::new(0),
                blocks_waker: Waker::default(),
                backlog: loom::sync::atomic::AtomicBool::new(false),
                news: AtomicU32::new(0),
                is_swept: AtomicBool::new(false),
            })
        };
        [side(&ours.0, &theirs.1), side(&theirs.0, &ours.1)]
    }

    pub(crate) fn sweep_later(&self) -> bool {
        self.is_swept.store(true, std::sync::atomic::Ordering::Relaxed);
        true
    }

    pub(crate) fn publish_retirement(&self, _: u64) -> bool {
        unreachable!("no model has sealed memory")
    }

    pub(crate) fn room_was_made(&self, is_wanted: bool) {
        if is_wanted {
            change(&self.control);
        }
        if self.backlog.load(Ordering::Relaxed) {
            change(&self.news);
        }
    }

    pub(crate) fn give_back(&self, given: Given) {
        self.inbound.give_back(given, &self.own);
        self.ring_given();
    }

    pub(super) fn ring_given(&self) {
        fence(Ordering::SeqCst);
        let armed = self.peer.load_blocks_armed();
        if self.blocks_waker.due(armed) {
            self.blocks_waker.ring(armed, self.own.space_bell(), || unreachable!("nobody polls"));
        }
    }

    /// A block of `len` bytes, as soon as there is room.
    pub(super) fn borrow(&self, len: usize) -> Borrowed {
        loop {
            match self.arena.borrow(len) {
                Ok(block) => return block,
                Err(NoMemory::Full(seen)) => self.wait_for_room(seen),
                Err(error) => panic!("{error:?}"),
            }
        }
    }

    fn wait_for_room(&self, seen: Seen) {
        self.arena.own_room().wait(|| self.sleep(&self.control, seen));
    }

    /// Sleeps until there may be room, or `control` is changed.
    pub(super) fn sleep(&self, control: &AtomicU32, seen: Seen) {
        let arm = || arm_shared(self.own.blocks_armed(), Kinds::FUTEX);
        let barrier = |()| {
            fence(Ordering::SeqCst);
            None
        };
        sleep_once(self.peer.space_bell(), control, arm, barrier, || self.arena.has_changed(seen));
    }
}
