//! How a thread passes the time until it is worth sleeping.

use std::hint;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use super::contention;
use crate::config::WaitStrategy;

/// Iterations between two looks at the clock, so that a spinning thread meets its deadline.
pub(crate) const CLOCK_STRIDE: u32 = 1024;

/// The bounds of `Adaptive`'s budget, in iterations. One is about 1 to 3 ns without its pauses, so the most is some
/// tens of microseconds: about what a park and its wake-up cost on a virtual machine.
const LEAST: u32 = 64;
const MOST: u32 = 1 << 15;
/// What a busy thread spins at least: so long that its peer may be interrupted meanwhile without both going to sleep.
const BUSY: u32 = 4096;
/// The iteration at which the core is offered to others first, a power of two: before that an offer costs as much as it
/// could save them. From there on it is offered whenever the wait has become twice as long.
const OFFER: u32 = 1024;
/// A sleep shorter than this would have been met by spinning.
const WORTH_SPINNING: Duration = Duration::from_micros(60);

/// A sleep counts as much as so many waits that spinning has met; a balance of more than `OFTEN`, of `ALWAYS` at most,
/// is often. So whoever sleeps at more than one wait in five comes to sleep often.
const SLEEP: u32 = 4;
const OFTEN: u32 = 8;
const ALWAYS: u32 = 16;

static CORES: LazyLock<usize> = LazyLock::new(|| thread::available_parallelism().map_or(1, Into::into));

/// A strategy and what it has learned about one kind of wait.
#[derive(Debug)]
pub(crate) struct Spin {
    strategy: WaitStrategy,
    budget: AtomicU32,
    /// Sleeps against waits that spinning has met, from 0 to `ALWAYS`.
    sleeps: AtomicU32,
}

impl Spin {
    pub(crate) fn new(strategy: WaitStrategy) -> Self {
        // Whoever is waited for needs the only core.
        let is_futile = strategy == WaitStrategy::Adaptive && *CORES == 1;
        let strategy = if is_futile { WaitStrategy::Park } else { strategy };
        Self { strategy, budget: AtomicU32::new(MOST / 4), sleeps: AtomicU32::new(0) }
    }

    /// Calls `done` until it gives something or it is time to sleep (`None`). `done` is told the iteration, a
    /// multiple of [`CLOCK_STRIDE`] whenever it may look at a clock.
    #[inline]
    pub(crate) fn until<T>(&self, mut done: impl FnMut(u32) -> Option<T>) -> Option<T> {
        match self.strategy {
            WaitStrategy::Park => done(0),
            WaitStrategy::Spin => {
                let mut iteration = 0u32;
                loop {
                    if let Some(found) = done(iteration) {
                        return Some(found);
                    }
                    pause(iteration);
                    iteration = iteration.wrapping_add(1);
                }
            }
            WaitStrategy::Adaptive => self.adaptive(done),
        }
    }

    #[inline]
    fn adaptive<T>(&self, mut done: impl FnMut(u32) -> Option<T>) -> Option<T> {
        let rests = contention::rests();
        let budget = if rests { LEAST } else { self.budget.load(Ordering::Relaxed) };
        for iteration in 0..budget {
            if let Some(found) = done(iteration) {
                self.met(rests, budget, iteration);
                return Some(found);
            }
            pause(iteration);
            if iteration >= OFFER && iteration.is_power_of_two() && contention::offer() {
                return None;
            }
        }
        None
    }

    /// Learns from a wait that spinning has met.
    #[inline]
    fn met(&self, rests: bool, budget: u32, iterations: u32) {
        if !rests {
            // Twice what this wait took, approached slowly: one long wait does not make every thread a spinner.
            let aim = iterations.saturating_mul(2).max(BUSY);
            learn(&self.budget, budget, (budget - budget / 8 + aim / 8).clamp(LEAST, MOST));
            if iterations <= OFFER {
                contention::did_not_offer();
            }
        }
        let sleeps = self.sleeps.load(Ordering::Relaxed);
        learn(&self.sleeps, sleeps, sleeps.saturating_sub(1));
    }

    /// Learns from a sleep: a short one would have been met by spinning, a long one was right.
    pub(crate) fn slept(&self, took: Duration) {
        if self.strategy != WaitStrategy::Adaptive {
            return;
        }
        let sleeps = self.sleeps.load(Ordering::Relaxed);
        learn(&self.sleeps, sleeps, (sleeps + SLEEP).min(ALWAYS));
        if contention::slept() {
            return;
        }
        let budget = self.budget.load(Ordering::Relaxed);
        let learned = if took < WORTH_SPINNING { budget * 2 } else { budget - budget / 8 };
        learn(&self.budget, budget, learned.clamp(LEAST, MOST));
    }

    /// Whether waits of this kind end with a sleep so often that sleeping is to be cheap.
    pub(crate) fn sleeps_often(&self) -> bool {
        self.strategy == WaitStrategy::Park || self.sleeps.load(Ordering::Relaxed) > OFTEN
    }
}

/// Threads that learn nothing new leave each other the cache line.
#[inline]
fn learn(what: &AtomicU32, known: u32, learned: u32) {
    if learned != known {
        what.store(learned, Ordering::Relaxed);
    }
}

/// Leaves the core's other thread some room, yet stays close to the word that is awaited: most waits of a busy pair
/// end within the first iterations.
#[inline(always)]
fn pause(iteration: u32) {
    if iteration & 0xf == 0xf {
        hint::spin_loop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever the machine has.
    fn adaptive() -> Spin {
        Spin { strategy: WaitStrategy::Adaptive, ..Spin::new(WaitStrategy::Spin) }
    }

    #[test]
    fn park_looks_once_and_then_sleeps() {
        let mut looks = 0;
        let found: Option<()> = Spin::new(WaitStrategy::Park).until(|_| {
            looks += 1;
            None
        });
        assert_eq!((found, looks), (None, 1));
    }

    #[test]
    fn spin_never_asks_to_sleep() {
        let found = Spin::new(WaitStrategy::Spin).until(|iteration| (iteration == 100_000).then_some(iteration));
        assert_eq!(found, Some(100_000));
    }

    #[test]
    fn adaptive_offers_its_core_in_long_waits_and_counts_those_in_which_it_did_not() {
        let spin = adaptive();
        (0..3).for_each(|_| assert_eq!(spin.until(|_| Some(())), Some(())));
        assert_eq!(contention::unoffered(), 3);
        assert_eq!(spin.until(|iteration| (iteration == OFFER).then_some(())), Some(()));
        assert_eq!(contention::unoffered(), 4);
        assert_eq!(spin.until(|_| None::<()>), None);
        assert_eq!(contention::unoffered(), 0);
    }

    #[test]
    fn a_thread_that_rests_looks_a_little_and_learns_nothing_until_it_has_rested() {
        let spin = adaptive();
        contention::rest_for(2);
        for _ in 0..2 {
            let mut looks = 0;
            let found: Option<()> = spin.until(|_| {
                looks += 1;
                None
            });
            assert_eq!((found, looks), (None, LEAST));
            spin.slept(Duration::from_micros(1));
            assert_eq!(spin.budget.load(Ordering::Relaxed), MOST / 4);
        }
        assert!(!contention::rests());
        spin.slept(Duration::from_micros(1));
        assert_eq!(spin.budget.load(Ordering::Relaxed), MOST / 2);
    }

    #[test]
    fn adaptive_learns_from_short_waits_and_from_long_sleeps() {
        let spin = adaptive();
        for _ in 0..200 {
            spin.slept(Duration::from_millis(10));
        }
        assert_eq!(spin.budget.load(Ordering::Relaxed), LEAST);
        for _ in 0..200 {
            spin.slept(Duration::from_micros(1));
        }
        assert_eq!(spin.budget.load(Ordering::Relaxed), MOST);
    }

    #[test]
    fn adaptive_spins_for_about_twice_as_long_as_its_waits_take_and_for_an_interruption_of_its_peer() {
        for (wait, expected) in [(200, BUSY), (3000, 6000)] {
            let spin = adaptive();
            for _ in 0..200 {
                spin.met(false, spin.budget.load(Ordering::Relaxed), wait);
            }
            let budget = spin.budget.load(Ordering::Relaxed);
            assert!(budget.abs_diff(expected) < expected / 100, "{wait}: {budget}");
        }
    }

    #[test]
    fn who_sleeps_at_every_third_wait_sleeps_often_and_who_never_does_not() {
        let spin = adaptive();
        let slept = || spin.slept(Duration::from_micros(1));
        let met = || assert_eq!(spin.until(|_| Some(())), Some(()));
        assert!(!spin.sleeps_often());
        (0..2).for_each(|_| slept());
        assert!(!spin.sleeps_often(), "two sleeps are not often");
        slept();
        assert!(spin.sleeps_often());
        for _ in 0..100 {
            (0..2).for_each(|_| met());
            slept();
        }
        assert!(spin.sleeps_often());
        (0..ALWAYS).for_each(|_| met());
        assert!(!spin.sleeps_often());
        assert!(Spin::new(WaitStrategy::Park).sleeps_often());
        assert!(!Spin::new(WaitStrategy::Spin).sleeps_often());
    }
}
