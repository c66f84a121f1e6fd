//! Whether somebody else wants the core that a thread spins on.
//!
//! The kernel does not tell, but it shows when the core is offered: a yield that nobody takes is over within a
//! microsecond, one that somebody takes is not. Once it was taken, the thread *rests*: for a number of waits it goes to
//! sleep at once, as it would if it parked always, and offers nothing, since the kernel makes who yields wait for longer
//! than who sleeps. If the first offers behind a rest are taken as well, the next rest is twice as long.

use std::cell::Cell;
use std::thread;
use std::time::{Duration, Instant};

/// A yield that takes longer than this was taken. On the machine of `docs/BENCHMARKS.md` one that was not takes 0.4 us,
/// and in one of a thousand cases 0.8 us; one that was, 2.4 us or more.
const TAKEN: Duration = Duration::from_micros(2);
/// Waits of the shortest rest, and how often it is doubled at most. A wait that sleeps takes some tens of microseconds,
/// so the longest rest is a fraction of a second.
const REST: u32 = 16;
const DOUBLED: u32 = 10;
/// An offer that is taken so soon behind a rest tells that the rest was too short.
const SOON: Duration = Duration::from_millis(10);
/// A thread that never waits for long offers its core once in so many waits.
const UNOFFERED: u32 = 4096;

/// What one thread knows.
struct Thread {
    /// Waits that are left of its rest.
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

/// Whether this thread is to sleep at once.
#[inline]
pub(crate) fn rests() -> bool {
    THREAD.with(Thread::rests)
}

/// Offers the core to whoever waits for it, and says whether this thread is to sleep now.
#[cold]
pub(crate) fn offer() -> bool {
    THREAD.with(|thread| {
        let began = Instant::now();
        thread::yield_now();
        thread.offered(began, Instant::now());
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

/// A wait of a thread that rests ended with a sleep.
pub(crate) fn slept() {
    THREAD.with(|thread| thread.slept(Instant::now));
}

impl Thread {
    fn rests(&self) -> bool {
        self.rest.get() > 0
    }

    fn offered(&self, began: Instant, ended: Instant) {
        self.unoffered.set(0);
        if ended - began > TAKEN {
            let is_soon = self.rested.get().is_some_and(|rested| began - rested < SOON);
            let doubled = if is_soon { (self.doubled.get() + 1).min(DOUBLED) } else { 0 };
            self.doubled.set(doubled);
            self.rest.set(REST << doubled);
        }
    }

    fn slept(&self, now: impl FnOnce() -> Instant) {
        match self.rest.get() {
            0 => {}
            1 => {
                self.rest.set(0);
                self.rested.set(Some(now()));
            }
            rest => self.rest.set(rest - 1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn thread() -> Thread {
        Thread { rest: Cell::new(0), doubled: Cell::new(0), rested: Cell::new(None), unoffered: Cell::new(0) }
    }

    /// Waits of a rest that ends at `end`.
    fn rest(thread: &Thread, end: Instant) -> u32 {
        let mut waits = 0;
        while thread.rests() {
            thread.slept(|| end);
            waits += 1;
        }
        waits
    }

    #[test]
    fn an_offer_that_nobody_takes_brings_no_rest() {
        let (thread, now) = (thread(), Instant::now());
        thread.offered(now, now + TAKEN);
        assert!(!thread.rests());
    }

    #[test]
    fn rests_double_while_offers_are_taken_soon_and_begin_anew_when_none_was() {
        let (thread, mut now) = (thread(), Instant::now());
        let mut take = |later: Duration| {
            now += later;
            thread.offered(now, now + 2 * TAKEN);
            now += 2 * TAKEN;
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
        // On a thread of its own, whose offers nobody else has made.
        let unoffered = || THREAD.with(|thread| thread.unoffered.get());
        let waits = thread::spawn(move || {
            let mut waits = 0;
            while waits == 0 || unoffered() != 0 {
                did_not_offer();
                waits += 1;
            }
            waits
        });
        assert_eq!(waits.join().unwrap(), UNOFFERED);
    }
}
