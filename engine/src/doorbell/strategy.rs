//! How a thread passes the time until it is worth sleeping.

use std::hint;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::config::WaitStrategy;

/// Iterations between two looks at the clock, so that a spinning thread meets its deadline.
pub(crate) const CLOCK_STRIDE: u32 = 1024;

/// The bounds of `Adaptive`'s budget, in iterations. One is about 1 to 3 ns without its pauses, so the most is some
/// tens of microseconds: about what a park and its wake-up cost on a virtual machine.
const LEAST: u32 = 64;
const MOST: u32 = 1 << 15;
/// A wait shorter than this would have been met by spinning.
const WORTH_SPINNING: Duration = Duration::from_micros(60);
/// A stride of spinning that takes longer than this was interrupted: somebody else wants the core.
const DESCHEDULED: Duration = Duration::from_micros(500);

static CORES: LazyLock<usize> = LazyLock::new(|| thread::available_parallelism().map_or(1, Into::into));
/// Threads of this process that spin right now.
static SPINNING: AtomicUsize = AtomicUsize::new(0);

/// A strategy and what it has learned about one kind of wait.
#[derive(Debug)]
pub(crate) struct Spin {
    strategy: WaitStrategy,
    budget: AtomicU32,
}

struct Spinning;

impl Spinning {
    fn enter() -> Option<Self> {
        let others = SPINNING.fetch_add(1, Ordering::Relaxed);
        let spinning = Self;
        (others < *CORES && *CORES > 1).then_some(spinning)
    }
}

impl Drop for Spinning {
    fn drop(&mut self) {
        SPINNING.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Spin {
    pub(crate) fn new(strategy: WaitStrategy) -> Self {
        Self { strategy, budget: AtomicU32::new(MOST / 4) }
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
        if let Some(found) = done(0) {
            return Some(found);
        }
        let _spinning = Spinning::enter()?;
        let budget = self.budget.load(Ordering::Relaxed);
        let mut stride_began = None;
        for iteration in 1..budget {
            if let Some(found) = done(iteration) {
                // Twice what this wait took, approached slowly: one long wait does not make every thread a spinner.
                let aim = iteration.saturating_mul(2).clamp(LEAST, MOST);
                let learned = budget - budget / 8 + aim / 8;
                self.budget.store(learned.clamp(LEAST, MOST), Ordering::Relaxed);
                return Some(found);
            }
            pause(iteration);
            if iteration.is_multiple_of(CLOCK_STRIDE) {
                let now = Instant::now();
                if stride_began.is_some_and(|began| now - began > DESCHEDULED) {
                    self.budget.store((budget / 2).max(LEAST), Ordering::Relaxed);
                    return None;
                }
                stride_began = Some(now);
            }
        }
        None
    }

    /// Learns from a sleep: a short one would have been met by spinning, a long one was right.
    pub(crate) fn slept(&self, took: Duration) {
        if matches!(self.strategy, WaitStrategy::Adaptive) {
            let budget = self.budget.load(Ordering::Relaxed);
            let learned = if took < WORTH_SPINNING { budget.saturating_mul(2) } else { budget - budget / 8 };
            self.budget.store(learned.clamp(LEAST, MOST), Ordering::Relaxed);
        }
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
    fn adaptive_learns_from_short_waits_and_from_long_sleeps() {
        let spin = Spin::new(WaitStrategy::Adaptive);
        for _ in 0..200 {
            spin.slept(Duration::from_millis(10));
        }
        assert_eq!(spin.budget.load(Ordering::Relaxed), LEAST);
        for _ in 0..200 {
            spin.slept(Duration::from_micros(1));
        }
        assert_eq!(spin.budget.load(Ordering::Relaxed), MOST);
    }
}
