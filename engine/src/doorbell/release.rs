//! Waiting until another thread of this process lets the guard of a ring go.
//!
//! Who waits says so, passes a full fence, and looks at the ring's tail once more. Who lets go stores the tail, passes a
//! full fence, and looks whether anybody waits. Each side stores and then loads, so at least one sees the other: the one
//! who waits finds the guard gone, or the one who let it go changes the word that is waited on, and wakes. If that was
//! done before the word was noted, the tail's store is seen by the look, through `control`. Letting go makes no system
//! call while nobody waits.

use std::time::Instant;

use super::sleep::change;
use crate::sync::{AtomicU32, Ordering, fence};
use crate::sys::futex::{self, WaitOn};

/// Who waits for the guard of one ring.
#[derive(Debug)]
pub(crate) struct Releases {
    /// How many threads do.
    waiting: AtomicU32,
    /// What they sleep on: changed when the guard was let go and somebody waited.
    released: AtomicU32,
}

impl Releases {
    pub(crate) fn new() -> Self {
        Self { waiting: AtomicU32::new(0), released: AtomicU32::new(0) }
    }

    /// Says that the guard was let go, which the tail shows already. What else is looked at behind this call, for those
    /// who wait in other ways, is as new.
    pub(crate) fn tell(&self) {
        // SYNC guard-released: pairs with the same fence in `sleep`, and with the heavy barrier that the dispatching
        // thread passes between queueing and sleeping.
        self.tell_behind(|| fence(Ordering::SeqCst));
    }

    /// Sleeps once, unless `ready`: until the guard is let go, `control` is changed, or the peer rings `bell`.
    pub(crate) fn sleep(
        &self,
        bell: Option<&AtomicU32>,
        control: &AtomicU32,
        deadline: Option<Instant>,
        ready: impl FnOnce() -> bool,
    ) {
        // SYNC guard-released: pairs with the same fence in `tell`.
        self.sleep_behind(|| fence(Ordering::SeqCst), bell, control, deadline, ready);
    }

    pub(crate) fn tell_behind(&self, barrier: impl FnOnce()) {
        barrier();
        if self.waiting.load(Ordering::Relaxed) != 0 {
            change(&self.released);
        }
    }

    pub(crate) fn sleep_behind(
        &self,
        barrier: impl FnOnce(),
        bell: Option<&AtomicU32>,
        control: &AtomicU32,
        deadline: Option<Instant>,
        ready: impl FnOnce() -> bool,
    ) {
        let note = |word, shared| WaitOn { word, expected: AtomicU32::load(word, Ordering::Relaxed), shared };
        let own = [note(&self.released, false), note(control, false)];
        let with_bell = bell.map(|bell| [own[0], own[1], note(bell, true)]);
        // SYNC control: pairs with `change`.
        // SYNC doorbell-bell: pairs with `ring_anyway`.
        fence(Ordering::Acquire);
        self.waiting.fetch_add(1, Ordering::Relaxed);
        barrier();
        if !ready() {
            futex::wait_any(with_bell.as_ref().map_or(&own[..], |words| &words[..]), deadline);
        }
        self.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}
