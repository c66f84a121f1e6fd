//! The machine's own limit: one cache line that two processes bounce.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Bounces `rounds` times with [`answer`] in the other process; how long that took. The line starts at `from`.
pub fn ask(there: &AtomicU64, back: &AtomicU64, from: u64, rounds: u64) -> Duration {
    let began = Instant::now();
    for round in from + 1..=from + rounds {
        there.store(round, Ordering::Release);
        while back.load(Ordering::Acquire) != round {}
    }
    began.elapsed()
}

/// The other side of [`ask`].
pub fn answer(there: &AtomicU64, back: &AtomicU64, from: u64, rounds: u64) {
    for round in from + 1..=from + rounds {
        while there.load(Ordering::Acquire) != round {}
        back.store(round, Ordering::Release);
    }
}
