//! How long single rounds took.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::Result;

/// Times beyond this are counted as this.
const LONGEST: u64 = 10_000_000_000;

/// A stopwatch for rounds.
#[derive(Debug)]
pub struct Laps {
    /// Whether rounds are timed: reading the clock costs as much as a fifth of the fastest rounds.
    timed: bool,
    last: Instant,
    times: Histogram<u64>,
}

impl Laps {
    pub(crate) fn new() -> Result<Self> {
        Ok(Self { timed: false, last: Instant::now(), times: histogram()? })
    }

    pub(crate) fn time(&mut self, timed: bool) {
        self.timed = timed;
    }

    /// The first round of a segment begins.
    #[inline]
    pub fn begin(&mut self) -> Instant {
        self.last = Instant::now();
        self.last
    }

    /// A round is over, and the next one begins.
    #[inline]
    pub fn lap(&mut self) {
        if self.timed {
            let now = Instant::now();
            self.times.saturating_record(nanoseconds(now - self.last));
            self.last = now;
        }
    }

    /// So many rounds are over, which were not told apart: each took an equal part of the time.
    #[inline]
    pub fn laps(&mut self, rounds: u64) {
        if self.timed && rounds > 0 {
            let now = Instant::now();
            self.times.saturating_record_n(nanoseconds(now - self.last) / rounds, rounds);
            self.last = now;
        }
    }

    /// What the rounds took that were timed since the stopwatch was made or reset.
    pub fn recorded(&self) -> &Histogram<u64> {
        &self.times
    }

    /// Forgets all rounds.
    pub fn reset(&mut self) {
        self.times.reset();
    }

    pub(crate) fn times(&self) -> Times {
        Times::of(&self.times)
    }
}

/// What the timed rounds took, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// How many were timed.
    pub rounds: u64,
    /// Half of them took at most as long.
    pub p50: u64,
    /// 99 of a hundred.
    pub p99: u64,
    /// 999 of a thousand.
    pub p999: u64,
    /// The longest.
    pub max: u64,
}

impl Times {
    pub(crate) fn of(times: &Histogram<u64>) -> Self {
        Self {
            rounds: times.len(),
            p50: times.value_at_quantile(0.5),
            p99: times.value_at_quantile(0.99),
            p999: times.value_at_quantile(0.999),
            max: times.max(),
        }
    }
}

/// An empty histogram of nanoseconds.
pub(crate) fn histogram() -> Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, LONGEST, 3)?)
}

pub(crate) fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_are_recorded_in_timed_segments_only() {
        let mut laps = Laps::new().unwrap();
        laps.begin();
        laps.lap();
        assert_eq!(laps.times().rounds, 0);
        laps.time(true);
        let began = laps.begin();
        while began.elapsed() < Duration::from_millis(2) {}
        laps.lap();
        laps.lap();
        let Times { rounds, p50, p99, p999, max } = laps.times();
        assert_eq!(rounds, 2);
        assert!(p50 < 2_000_000 && p99 >= 1_990_000, "{p50} {p99}");
        assert!(p50 <= p99 && p99 <= p999 && p999 <= max);
    }
}
