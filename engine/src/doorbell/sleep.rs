//! Sleeping until a bell rings, and ringing it, so that no wake-up falls in between.
//!
//! A sleeper **notes** the words that it is going to wait on, arms, passes the heavy barrier (or a fence, where it has
//! asked its wakers for one), looks for what it wants once more, and waits until one of the words is not as it was
//! noted. Behind its light barrier a waker that finds it armed changes the bell's word, and wakes. That leaves two
//! cases. If the bell was changed after it was noted, the wait ends, or does not begin. If it was changed before, what
//! the waker had published before that is seen by the look, through **doorbell-bell**. The same holds for the control
//! word, by which this process ends waits of its own.

use std::time::Instant;

use super::protocol::{Kinds, Waker};
use crate::sync::{AtomicU32, Ordering, fence};
use crate::sys::futex::{self, MOST_WORDS, WaitOn};

/// Words to wait on, as they were before anything was armed.
pub(crate) struct Noted<'a, const BELLS: usize> {
    control: WaitOn<'a>,
    bells: [WaitOn<'a>; BELLS],
}

impl<'a, const BELLS: usize> Noted<'a, BELLS> {
    /// Notes `bells`, which the peer rings, and `control`, which this process changes to end the wait.
    pub(crate) fn new(bells: [&'a AtomicU32; BELLS], control: &'a AtomicU32) -> Self {
        const { assert!(BELLS < MOST_WORDS) };
        let note = |word: &'a AtomicU32, shared| WaitOn { word, expected: word.load(Ordering::Relaxed), shared };
        let noted = Self { bells: bells.map(|bell| note(bell, true)), control: note(control, false) };
        // Here rather than with the heavy barrier, which no look before it must wait for, and which may fail.
        // SYNC doorbell-bell: pairs with `ring_anyway`.
        // SYNC control: pairs with `change`.
        fence(Ordering::Acquire);
        noted
    }

    /// Waits until one of the first `bells` bells or the control word has changed, or until the deadline.
    pub(crate) fn wait(&self, bells: usize, deadline: Option<Instant>) {
        let mut words = [self.control; MOST_WORDS];
        let count = bells.min(BELLS);
        words[1..=count].copy_from_slice(&self.bells[..count]);
        futex::wait_any(&words[..=count], deadline);
    }
}

/// Sleeps once on `bell`, unless `ready`: until it rings, or `control` is changed. `arm` says in our outbox that
/// somebody sleeps, and which barrier has to be passed then; `barrier` passes that, and says how long to sleep at most.
pub(crate) fn sleep_once<B>(
    bell: &AtomicU32,
    control: &AtomicU32,
    arm: impl FnOnce() -> B,
    barrier: impl FnOnce(B) -> Option<Instant>,
    ready: impl FnOnce() -> bool,
) {
    let noted = Noted::new([bell], control);
    crash_point!("waiter-arm-before");
    let behind = arm();
    crash_point!("waiter-arm-after");
    let deadline = barrier(behind);
    if !ready() {
        crash_point!("waiter-sleep");
        noted.wait(1, deadline);
    }
}

impl Waker {
    /// Rings for sleepers that are armed with `armed`, in each kind that it names: `bell` for those who wait on it, and
    /// for one that polls its descriptor `descriptor`, which says whether it will be heard.
    pub(crate) fn ring(&self, armed: u64, bell: &AtomicU32, descriptor: impl FnOnce() -> bool) {
        let kinds = Kinds::of(armed);
        if kinds.contains(Kinds::FUTEX) {
            ring_anyway(bell);
        }
        crash_point!("ring-woken");
        if !kinds.contains(Kinds::DESCRIPTOR) || descriptor() {
            self.rang(armed);
        }
    }
}

/// Changes a bell's word and wakes all who wait on it, whoever they are.
pub(crate) fn ring_anyway(bell: &AtomicU32) {
    // SYNC doorbell-bell: pairs with `Noted::new`.
    bell.fetch_add(1, Ordering::Release);
    crash_point!("bell-bumped");
    futex::wake_all_shared(bell);
}

/// Changes a control word and wakes all who wait on it.
pub(crate) fn change(control: &AtomicU32) {
    // SYNC control: pairs with `Noted::new`.
    control.fetch_add(1, Ordering::Release);
    futex::wake_all_private(control);
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::doorbell::protocol::arm;
    use crate::sync::AtomicU64;

    #[test]
    fn a_ring_serves_the_kinds_that_are_armed_and_no_other() {
        for (kinds, is_bumped, is_told) in [(Kinds::FUTEX, true, false), (Kinds::DESCRIPTOR, false, true)] {
            let (word, bell, waker) = (AtomicU64::new(0), AtomicU32::new(7), Waker::default());
            let _ = arm(&word, kinds, false);
            let armed = word.load(Ordering::Relaxed);
            let told = Cell::new(false);
            waker.ring(armed, &bell, || {
                told.set(true);
                true
            });
            assert_eq!((bell.load(Ordering::Relaxed) != 7, told.get()), (is_bumped, is_told), "{kinds:?}");
            assert!(!waker.due(armed));
        }
    }

    #[test]
    fn a_ring_that_will_not_be_heard_is_due_again() {
        let (word, waker) = (AtomicU64::new(0), Waker::default());
        let _ = arm(&word, Kinds::DESCRIPTOR, false);
        let armed = word.load(Ordering::Relaxed);
        waker.ring(armed, &AtomicU32::new(0), || false);
        assert!(waker.due(armed));
    }
}
