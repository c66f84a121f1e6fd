//! What a sender without space waits for, and the wait.

use std::time::{Duration, Instant};

use super::Link;
use crate::doorbell::protocol::{Kinds, arm_shared};
use crate::payload::arena::Seen;
use crate::sys::barrier::Barrier;

/// What a sender without space waits for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Room {
    /// That the peer has consumed our ring up to this position.
    Ring(u64),
    /// That the peer gives payload memory back, or this side takes some back.
    Arena(Seen),
    /// That the thread that has the guard lets it go.
    Guard,
    /// Nothing that anybody tells: it is to be tried again at this instant.
    Later(Instant),
}

/// When to try again what nobody tells of.
const RETRY: Duration = Duration::from_millis(1);

impl Room {
    pub(super) fn later() -> Self {
        Self::Later(Instant::now() + RETRY)
    }

    /// The end of a wait for this.
    pub(crate) fn bounded(self, deadline: Option<Instant>) -> Option<Instant> {
        match self {
            Self::Later(at) => Some(deadline.map_or(at, |deadline| deadline.min(at))),
            Self::Ring(_) | Self::Arena(_) | Self::Guard => deadline,
        }
    }
}

/// What the backlog waits for: the frames in it, and the answers.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Blocked(pub(super) [Option<Room>; 3]);

impl Blocked {
    pub(crate) fn is_clear(self) -> bool {
        self.rooms().next().is_none()
    }

    fn rooms(self) -> impl Iterator<Item = Room> {
        self.0.into_iter().flatten()
    }

    /// The end of a wait for any of it.
    pub(crate) fn bounded(self, deadline: Option<Instant>) -> Option<Instant> {
        self.rooms().fold(deadline, |deadline, room| room.bounded(deadline))
    }

    /// Says in our outbox that the dispatching thread sleeps until there is room. The barrier to pass before its last
    /// look, if it would be `barrier` without that: whoever makes room is never asked for fences.
    pub(crate) fn arm(self, link: &Link, kinds: Kinds, barrier: Barrier) -> Barrier {
        self.rooms().for_each(|room| link.arm_room(room, kinds));
        if self.is_clear() { barrier } else { link.sleeping_barrier() }
    }

    /// Whether there may be room for any of it.
    pub(crate) fn may_go_on(self, link: &Link) -> bool {
        self.rooms().any(|room| link.has_room(room))
    }
}

impl Link {
    /// Waits until there may be room, or `crossing`, or the connection's end, or the deadline.
    pub(super) fn wait_for_room(&self, room: Room, deadline: Option<Instant>, crossing: impl Fn() -> bool) {
        if matches!(room, Room::Guard) {
            return self.wait_for_guard(deadline, crossing);
        }
        self.arena.own_room().wait(|| {
            self.wait(
                &self.space_spin,
                self.peer.space_bell(),
                room.bounded(deadline),
                || {
                    self.arm_room(room, Kinds::FUTEX);
                    self.sleeping_barrier()
                },
                || self.has_room(room) || crossing(),
            );
        });
    }

    /// Says in our outbox that somebody sleeps until there is room. The same bell rings for both kinds of it.
    fn arm_room(&self, room: Room, kinds: Kinds) {
        match room {
            Room::Ring(wanted) => self.arm_space(wanted, kinds),
            Room::Arena(_) => {
                arm_shared(self.own.blocks_armed(), kinds);
                crash_point!("blocks-armed");
            }
            // Its holder tells this side alone.
            Room::Guard | Room::Later(_) => {}
        }
    }

    /// Whether there may be room, as far as the peer has told.
    #[inline]
    fn has_room(&self, room: Room) -> bool {
        match room {
            Room::Ring(wanted) => self.has_space_at(wanted),
            Room::Arena(seen) => self.arena.has_changed(seen),
            Room::Guard => !self.producer.is_held(),
            Room::Later(at) => Instant::now() >= at,
        }
    }
}
