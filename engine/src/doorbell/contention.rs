//! Whether somebody else wants the core that a thread spins on.
//!
//! The kernel does not say so until the core is offered. A yield that nobody takes is over within a microsecond and
//! counts as no switch, one that somebody takes does. Once it was taken, the thread *rests*: for a number of sleeps it
//! spins next to nothing, as one that parks always, and offers nothing, since the kernel makes who yields wait for
//! longer than who sleeps. If the first offers behind a rest are taken as well, the next rest is twice as long. Where
//! the kernel does not count switches, there are no rests.

use std::cell::Cell;
use std::thread;
use std::time::{Duration, Instant};

use crate::sys::preemption;

/// Sleeps of the shortest rest, and how often it is doubled at most. In a busy thread a sleep takes some tens of
/// microseconds, so that its longest rest is a fraction of a second.
const REST: u32 = 16;
const DOUBLED: u32 = 10;
/// An offer that is taken so soon behind a rest tells that the rest was too short.
const SOON: Duration = Duration::from_millis(10);
/// A thread that never waits for long offers its core once in so many waits.
const UNOFFERED: u32 = 4096;

/// What one thread knows.
struct Thread {
    /// Sleeps that are left of its rest.
    rest: Cell<u32>,
    doubled: Cell<u32>,
    rested: Cell<Option<Instant>>,
    /// Waits since the last offer.
    unoffered: Cell<u32>,
}

thread_local! {
    static THREAD: Thread = const {
        Thread { rest: Cell::new(0), doubled: Cell::new(0), rested: Cell::new(None), unoffered: Cell::new(0) }
    };
}

/// Whether this thread rests.
#[inline]
pub(crate) fn rests() -> bool {
    THREAD.with(Thread::rests)
}

/// Offers the core to whoever waits for it, and says whether this thread rests now.
#[cold]
pub(crate) fn offer() -> bool {
    THREAD.with(|thread| {
        let before = preemption::switches();
        thread::yield_now();
        thread.offered(preemption::switches() != before, Instant::now);
        thread.rests()
    })
}

/// A wait ended before it was worth an offer.
#[inline]
pub(crate) fn did_not_offer() {
    THREAD.with(|thread| {
        let waits = thread.unoffered.get() + 1;
        thread.unoffered.set(waits);
        if waits == UNOFFERED {
            offer();
        }
    });
}

/// This thread has slept. Whether that was part of its rest.
pub(crate) fn slept() -> bool {
    THREAD.with(|thread| thread.slept(Instant::now))
}

impl Thread {
    fn rests(&self) -> bool {
        self.rest.get() > 0
    }

    fn offered(&self, is_taken: bool, now: impl FnOnce() -> Instant) {
        self.unoffered.set(0);
        if is_taken {
            let now = now();
            let is_soon = self.rested.get().is_some_and(|rested| now - rested < SOON);
            let doubled = if is_soon { (self.doubled.get() + 1).min(DOUBLED) } else { 0 };
            self.doubled.set(doubled);
            self.rest.set(REST << doubled);
        }
    }

    fn slept(&self, now: impl FnOnce() -> Instant) -> bool {
        let Some(left) = self.rest.get().checked_sub(1) else { return false };
        self.rest.set(left);
        if left == 0 {
            self.rested.set(Some(now()));
        }
        true
    }
}

/// Has this thread rest for so many sleeps.
#[cfg(test)]
pub(super) fn rest_for(sleeps: u32) {
    THREAD.with(|thread| thread.rest.set(sleeps));
}

/// Waits since this thread's last offer.
#[cfg(test)]
pub(super) fn unoffered() -> u32 {
    THREAD.with(|thread| thread.unoffered.get())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn thread() -> Thread {
        Thread { rest: Cell::new(0), doubled: Cell::new(0), rested: Cell::new(None), unoffered: Cell::new(0) }
    }

    /// Sleeps of a rest that ends at `end`.
    fn rest(thread: &Thread, end: Instant) -> u32 {
        let mut sleeps = 0;
        while thread.slept(|| end) {
            sleeps += 1;
        }
        sleeps
    }

    #[test]
    fn an_offer_that_nobody_takes_brings_no_rest() {
        let thread = thread();
        thread.offered(false, Instant::now);
        assert!(!thread.rests());
        assert_eq!(rest(&thread, Instant::now()), 0);
    }

    #[test]
    fn rests_double_while_offers_are_taken_soon_and_begin_anew_when_none_was() {
        let (thread, mut now) = (thread(), Instant::now());
        let mut take = |later: Duration| {
            now += later;
            thread.offered(true, || now);
            rest(&thread, now)
        };
        let mut rests = vec![take(Duration::ZERO)];
        rests.extend((0..12).map(|_| take(SOON / 2)));
        let doubled = (0..=DOUBLED).chain([DOUBLED; 2]).map(|doubled| REST << doubled);
        assert_eq!(rests, doubled.collect::<Vec<_>>());
        assert_eq!(take(SOON), REST);
    }

    #[test]
    fn a_thread_that_never_waits_for_long_offers_its_core_all_the_same() {
        let mut waits = 0;
        while waits == 0 || unoffered() != 0 {
            did_not_offer();
            waits += 1;
        }
        assert_eq!(waits, UNOFFERED);
    }
}
