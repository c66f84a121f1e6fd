//! The armed word and the waker's memory of it: the part of a doorbell that decides whether to ring.
//!
//! ```text
//!  63                                                              2 1 0
//! +-----------------------------------------------------------------+-+-+
//! |                           generation                            |D|F|
//! +-----------------------------------------------------------------+-+-+
//!  F: somebody waits on the bell's futex word     D: somebody polls the bell's descriptor
//! ```
//!
//! Memory ordering. A sleeper *arms* (a new generation), passes the heavy barrier, and looks for what it waits for
//! once more. A waker publishes, passes the light barrier, and loads the armed word. The two barriers order each
//! side's store before its load, so at least one side sees the other's store: either the sleeper finds what was
//! published, or the waker finds a generation that it has not rung yet. That is all that a wake-up needs; the armed
//! word carries no other message, so its own accesses are `Relaxed`.
//!
//! The waker remembers a generation only after it has rung for it. Two wakers may ring for one generation, which
//! costs a spurious wake-up; a generation that no waker has rung always differs from the remembered one, since each
//! value is stored into the armed word once. What is remembered is `Relaxed`, too. A waker that skips its ring has
//! loaded an armed word that another waker rings for; so that sleeper wakes, and before it sleeps again it arms anew.
//! The barriers hold then, too: it finds what the one who skipped had published, or that one would have loaded the
//! newer armed word.

use crate::sync::{AtomicU64, Ordering, fence};

/// How a sleeper can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kinds(u64);

impl Kinds {
    /// On the futex word of the bell.
    pub(crate) const FUTEX: Self = Self(0b01);
    /// Through the bell's socket.
    pub(crate) const DESCRIPTOR: Self = Self(0b10);
    const MASK: u64 = 0b11;
    const GENERATION: u64 = 0b100;

    /// The kinds that an armed word names.
    pub(crate) const fn of(armed: u64) -> Self {
        Self(armed & Self::MASK)
    }

    /// Whether `self` and `other` share a kind.
    pub(crate) const fn contains(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

/// Arms for the only thread that ever sleeps on this word: the new kinds replace the old ones.
pub(crate) fn arm(word: &AtomicU64, kinds: Kinds) {
    // SYNC doorbell-arm: pairs with `Waker::due`, through the barriers on both sides.
    let armed = word.load(Ordering::Relaxed);
    let next = (armed & !Kinds::MASK).wrapping_add(Kinds::GENERATION) | kinds.0;
    word.store(next, Ordering::Relaxed);
}

/// Arms where several threads sleep on one word: kinds once named stay named, since others may sleep that way.
pub(crate) fn arm_shared(word: &AtomicU64, kinds: Kinds) {
    let _ = word.fetch_or(kinds.0, Ordering::Relaxed);
    // SYNC doorbell-arm: pairs with `Waker::due`, through the barriers on both sides.
    // SYNC space-wanted: release pairs with `wanted_by_armed`. The position was stored before, in `arm_at`.
    let _ = word.fetch_add(Kinds::GENERATION, Ordering::Release);
}

/// [`arm_shared`] for a thread that waits until a cursor has come to `position`. The last one's position stands in
/// `wanted`.
pub(crate) fn arm_at(word: &AtomicU64, wanted: &AtomicU64, position: u64, kinds: Kinds) {
    wanted.store(position, Ordering::Relaxed);
    crash_point!("space-wanted");
    arm_shared(word, kinds);
}

/// The position of those that were found armed, as `load` finds it.
pub(crate) fn wanted_by_armed(load: impl FnOnce() -> u64) -> u64 {
    // SYNC space-wanted: pairs with `arm_shared`, before which the position was stored.
    fence(Ordering::Acquire);
    load()
}

/// What a waker remembers: the armed word it rang for last.
#[derive(Debug)]
pub(crate) struct Waker(AtomicU64);

impl Default for Waker {
    fn default() -> Self {
        Self(AtomicU64::new(0))
    }
}

impl Waker {
    /// Whether the bell is to be rung for `armed`, which was loaded behind the light barrier.
    #[inline(always)]
    pub(crate) fn due(&self, armed: u64) -> bool {
        // SYNC doorbell-arm: pairs with `arm`.
        armed != self.0.load(Ordering::Relaxed)
    }

    /// Remembers that the bell has been rung for `armed`. Only to be called once every waiter has been woken.
    pub(crate) fn rang(&self, armed: u64) {
        self.0.store(armed, Ordering::Relaxed);
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    #[test]
    fn arming_makes_a_ring_due_until_it_was_rung() {
        let (word, waker) = (AtomicU64::new(0), Waker::default());
        assert!(!waker.due(word.load(Ordering::Relaxed)));
        arm(&word, Kinds::FUTEX);
        let armed = word.load(Ordering::Relaxed);
        assert!(waker.due(armed));
        waker.rang(armed);
        assert!(!waker.due(armed));
        arm(&word, Kinds::FUTEX);
        assert!(waker.due(word.load(Ordering::Relaxed)));
    }

    #[test]
    fn a_lone_sleeper_replaces_its_kinds_and_shared_sleepers_add_theirs() {
        let word = AtomicU64::new(0);
        arm(&word, Kinds::FUTEX);
        arm(&word, Kinds::DESCRIPTOR);
        let kinds = Kinds::of(word.load(Ordering::Relaxed));
        assert!(kinds.contains(Kinds::DESCRIPTOR) && !kinds.contains(Kinds::FUTEX));
        arm_shared(&word, Kinds::FUTEX);
        let kinds = Kinds::of(word.load(Ordering::Relaxed));
        assert!(kinds.contains(Kinds::DESCRIPTOR) && kinds.contains(Kinds::FUTEX));
    }

    #[test]
    fn the_generation_wraps_without_touching_the_kinds() {
        let word = AtomicU64::new(u64::MAX);
        arm(&word, Kinds::FUTEX);
        assert_eq!(word.load(Ordering::Relaxed), 0b01);
        let word = AtomicU64::new(u64::MAX);
        arm_shared(&word, Kinds::DESCRIPTOR);
        assert_eq!(word.load(Ordering::Relaxed), 0b11);
    }
}
