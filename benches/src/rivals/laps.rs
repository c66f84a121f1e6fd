//! How long single rounds took.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::Result;
use crate::ratio::Ratios;

/// Times beyond this are counted as this.
const LONGEST: u64 = 10_000_000_000;

/// A stopwatch for rounds. Those of a segment count only if the probes around it agree.
#[derive(Debug)]
pub struct Laps {
    /// Whether rounds are timed: reading the clock costs as much as a fifth of the fastest rounds.
    timed: bool,
    last: Instant,
    segment: Histogram<u64>,
    all: Histogram<u64>,
}

impl Laps {
    pub(super) fn new() -> Result<Self> {
        let histogram = Histogram::new_with_bounds(1, LONGEST, 3)?;
        Ok(Self { timed: false, last: Instant::now(), segment: histogram.clone(), all: histogram })
    }

    pub(super) fn time(&mut self, timed: bool) {
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
            let nanoseconds = u64::try_from((now - self.last).as_nanos()).unwrap_or(u64::MAX);
            self.segment.saturating_record(nanoseconds);
            self.last = now;
        }
    }

    /// The segment is over, and the probes around it took that long.
    pub(super) fn end(&mut self, before: f64, after: f64) -> Result<()> {
        let mut alone = Ratios::default();
        alone.add(before, before, after);
        if alone.counts().0 == 1 {
            self.all.add(&self.segment)?;
        }
        self.segment.reset();
        Ok(())
    }

    /// The times that the `nines` tell, with what part of the rounds took at most as long: a thousandth of the rounds
    /// apart where most are, and closer toward the slowest.
    pub(super) fn quantiles(&self) -> Vec<(f64, u64)> {
        let common = (1..20).map(|twentieth| f64::from(twentieth) / 20.0);
        let rare = (1..=5).flat_map(|nines| [0.5, 0.3, 0.2, 0.1].map(|part| 1.0 - part * 0.1_f64.powi(nines)));
        let found = common.chain([0.9, 0.99, 0.999]).chain(rare);
        let mut quantiles: Vec<f64> =
            found.filter(|quantile| (1.0 - quantile) * self.all.len() as f64 >= 5.0).collect();
        quantiles.sort_by(f64::total_cmp);
        quantiles.dedup();
        quantiles.into_iter().map(|quantile| (quantile, self.all.value_at_quantile(quantile))).collect()
    }
}

/// Nanoseconds.
#[allow(clippy::cast_precision_loss, reason = "segments take less than 2^52 ns")]
pub(super) fn nanoseconds(took: Duration) -> f64 {
    took.as_nanos() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_of_segments_whose_probes_disagree_do_not_count() {
        let mut laps = Laps::new().unwrap();
        laps.time(true);
        for after in [100.0, 500.0] {
            laps.begin();
            for _ in 0..1000 {
                laps.lap();
            }
            laps.end(100.0, after).unwrap();
        }
        assert_eq!(laps.all.len(), 1000);
        let quantiles = laps.quantiles();
        assert!(quantiles.iter().any(|(quantile, _)| *quantile == 0.5), "{quantiles:?}");
        assert!(quantiles.iter().all(|(quantile, _)| *quantile < 0.996), "{quantiles:?}");
        assert!(quantiles.is_sorted_by(|one, other| one.0 < other.0 && one.1 <= other.1), "{quantiles:?}");
    }
}
