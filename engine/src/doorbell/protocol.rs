//! The armed word and the waker's memory of it: the part of a doorbell that decides whether to ring.
//!
//! ```text
//!  63                                                            3 2 1 0
//! +---------------------------------------------------------------+-+-+-+
//! |                          generation                           |B|D|F|
//! +---------------------------------------------------------------+-+-+-+
//!  F: somebody waits on the bell's futex word     D: somebody polls the bell's descriptor
//!  B: a waker that finds this passes a full fence, and loads the word again
//! ```
//!
//! Memory ordering. A sleeper *arms* (a new generation), passes the heavy barrier, and looks for what it waits for
//! once more. A waker publishes, passes the light barrier, and loads the armed word. The two barriers order each
//! side's store before its load, so at least one side sees the other's store: either the sleeper finds what was
//! published, or the waker finds a generation that it has not rung yet. That is all that a wake-up needs; the armed
//! word carries no other message, so its own accesses are `Relaxed`.
//!
//! A heavy barrier that interrupts all running wakers is dear, and who sleeps at every wait had better have fences on
//! both sides. So a lone sleeper may ask for them with B, for as long as it likes. With the first arm that has it, the
//! heavy barrier is as before. A waker whose first load came before that barrier had published before it, too, and the
//! sleeper's looks from there on find that; every later one finds B, so that behind the arms that keep it a full fence
//! is enough. An arm without it is followed by the heavy barrier again.
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

    /// The kinds that an armed word names.
    pub(crate) const fn of(armed: u64) -> Self {
        Self(armed & Self::MASK)
    }

    /// Whether `self` and `other` share a kind.
    pub(crate) const fn contains(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

/// Asks wakers for a full fence.
const FENCED: u64 = 0b100;
const GENERATION: u64 = 0b1000;

/// What a sleeper has to pass between arming and its last look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "without it, a wake-up can be missed"]
pub(crate) enum Pass {
    /// The heavy barrier, whichever was agreed on.
    Heavy,
    /// A full fence, since the wakers pass one too.
    Fence,
}

/// Arms for the only thread that ever sleeps on this word: the new kinds replace the old ones. `ask` asks wakers for a
/// full fence. What is returned is to be passed, without fail: if it was the heavy barrier and it was refused, nobody
/// may ask for fences any more.
pub(crate) fn arm(word: &AtomicU64, kinds: Kinds, ask: bool) -> Pass {
    // SYNC doorbell-arm: pairs with `Waker::due`, through the barriers on both sides.
    let armed = word.load(Ordering::Relaxed);
    let next = (armed | (GENERATION - 1)).wrapping_add(1) | kinds.0;
    word.store(if ask { next | FENCED } else { next }, Ordering::Relaxed);
    if ask && armed & FENCED != 0 { Pass::Fence } else { Pass::Heavy }
}

/// Asks wakers for no more fences, at any time, for the thread that arms this word. Generation and kinds stay, so that
/// whoever has not rung for them still does, and some may ring once more; the next arm is followed by the heavy
/// barrier.
pub(crate) fn unfence(word: &AtomicU64) {
    let armed = word.load(Ordering::Relaxed);
    if armed & FENCED != 0 {
        word.store(armed & !FENCED, Ordering::Relaxed);
    }
}

/// Arms where several threads sleep on one word: kinds once named stay named, since others may sleep that way.
pub(crate) fn arm_shared(word: &AtomicU64, kinds: Kinds) {
    let _ = word.fetch_or(kinds.0, Ordering::Relaxed);
    // SYNC doorbell-arm: pairs with `Waker::due`, through the barriers on both sides.
    // SYNC space-wanted: release pairs with `wanted_by_armed`. The position was stored before, in `arm_at`.
    let _ = word.fetch_add(GENERATION, Ordering::Release);
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

/// What a waker finds in a word that a lone sleeper arms, behind the light barrier: what `load` gives, or gives behind
/// `fence`, a full one, if the sleeper asks for it.
#[inline(always)]
pub(crate) fn find_armed(load: impl Fn() -> u64, fence: impl FnOnce()) -> u64 {
    let armed = load();
    if armed & FENCED == 0 {
        return armed;
    }
    fence();
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
    use std::cell::Cell;

    use super::*;

    #[test]
    fn arming_makes_a_ring_due_until_it_was_rung() {
        let (word, waker) = (AtomicU64::new(0), Waker::default());
        assert!(!waker.due(word.load(Ordering::Relaxed)));
        for fenced in [false, true] {
            let _ = arm(&word, Kinds::FUTEX, fenced);
            let armed = word.load(Ordering::Relaxed);
            assert!(waker.due(armed));
            waker.rang(armed);
            assert!(!waker.due(armed));
        }
        let _ = arm(&word, Kinds::FUTEX, true);
        assert!(waker.due(word.load(Ordering::Relaxed)));
    }

    #[test]
    fn a_fence_is_enough_behind_each_arm_that_asks_for_one_but_the_first() {
        let word = AtomicU64::new(0);
        let passes = [false, true, true, true, false, true, true].map(|fenced| arm(&word, Kinds::FUTEX, fenced));
        let (heavy, fence) = (Pass::Heavy, Pass::Fence);
        assert_eq!(passes, [heavy, heavy, fence, fence, heavy, heavy, fence]);
    }

    #[test]
    fn who_has_armed_can_take_the_request_back_and_keeps_what_else_it_said() {
        let (word, waker) = (AtomicU64::new(0), Waker::default());
        let _ = arm(&word, Kinds::DESCRIPTOR, true);
        let asked = word.load(Ordering::Relaxed);
        waker.rang(asked);
        unfence(&word);
        let taken_back = word.load(Ordering::Relaxed);
        assert_eq!((asked, taken_back), (0b1110, 0b1010));
        assert!(waker.due(taken_back), "it may be an arm");
        unfence(&word);
        assert_eq!(word.load(Ordering::Relaxed), taken_back);
        assert_eq!(arm(&word, Kinds::DESCRIPTOR, true), Pass::Heavy);
    }

    #[test]
    fn a_waker_loads_again_behind_a_fence_if_it_was_asked_to() {
        let word = AtomicU64::new(0);
        let fences = Cell::new(0);
        let find = || find_armed(|| word.load(Ordering::Relaxed), || fences.set(fences.get() + 1));
        let _ = arm(&word, Kinds::FUTEX, false);
        assert_eq!((find(), fences.get()), (0b1001, 0));
        let _ = arm(&word, Kinds::FUTEX, true);
        assert_eq!((find(), fences.get()), (0b1_0101, 1));
    }

    #[test]
    fn a_lone_sleeper_replaces_its_kinds_and_shared_sleepers_add_theirs() {
        let word = AtomicU64::new(0);
        let _ = arm(&word, Kinds::FUTEX, false);
        let _ = arm(&word, Kinds::DESCRIPTOR, false);
        let kinds = Kinds::of(word.load(Ordering::Relaxed));
        assert!(kinds.contains(Kinds::DESCRIPTOR) && !kinds.contains(Kinds::FUTEX));
        arm_shared(&word, Kinds::FUTEX);
        let kinds = Kinds::of(word.load(Ordering::Relaxed));
        assert!(kinds.contains(Kinds::DESCRIPTOR) && kinds.contains(Kinds::FUTEX));
    }

    #[test]
    fn the_generation_wraps_without_touching_the_bits_below() {
        for (fenced, left) in [(false, 0b001), (true, 0b101)] {
            let word = AtomicU64::new(u64::MAX);
            let _ = arm(&word, Kinds::FUTEX, fenced);
            assert_eq!(word.load(Ordering::Relaxed), left);
        }
        let word = AtomicU64::new(u64::MAX);
        arm_shared(&word, Kinds::DESCRIPTOR);
        assert_eq!(word.load(Ordering::Relaxed), 0b111);
    }
}
