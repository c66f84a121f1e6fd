//! Ratios of a candidate to the machine's limit, segment by segment.

use std::time::Duration;

/// Segments whose two probes differ by more than this say nothing: the machine changed under them.
const MOST_DRIFT: f64 = 1.5;

/// The figures of one candidate.
#[derive(Debug, Default)]
pub struct Ratios {
    segments: Vec<(f64, f64)>,
    dropped: usize,
}

impl Ratios {
    /// Adds a segment: nanoseconds per round of the probe before, the candidate, and the probe after.
    pub fn add(&mut self, before: f64, candidate: f64, after: f64) {
        if before.max(after) > MOST_DRIFT * before.min(after) {
            self.dropped += 1;
        } else {
            self.segments.push((candidate, candidate / ((before + after) / 2.0)));
        }
    }

    /// Segments that counted, and those that were dropped because the probes around them disagreed.
    pub fn counts(&self) -> (usize, usize) {
        (self.segments.len(), self.dropped)
    }

    /// Medians of nanoseconds per round and of the ratio to the probe; `None` if no segment counted.
    pub fn medians(&self) -> Option<(f64, f64)> {
        let median = |mut values: Vec<f64>| {
            values.sort_by(f64::total_cmp);
            values.get(values.len() / 2).copied()
        };
        let nanos = median(self.segments.iter().map(|segment| segment.0).collect())?;
        let ratio = median(self.segments.iter().map(|segment| segment.1).collect())?;
        Some((nanos, ratio))
    }
}

/// Nanoseconds per round.
#[allow(clippy::cast_precision_loss, reason = "rounds are far below 2^52")]
pub fn per_round(took: Duration, rounds: u64) -> f64 {
    took.as_nanos() as f64 / rounds as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_whose_probes_disagree_are_dropped_and_the_median_counts() {
        let mut ratios = Ratios::default();
        for candidate in [150.0, 900.0, 160.0] {
            ratios.add(100.0, candidate, 100.0);
        }
        ratios.add(100.0, 5.0, 200.0);
        assert_eq!(ratios.counts(), (3, 1));
        assert_eq!(ratios.medians(), Some((160.0, 1.6)));
        assert_eq!(Ratios::default().medians(), None);
    }
}
