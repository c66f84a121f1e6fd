//! Ratios of a candidate to the machine's limit, segment by segment.

use std::time::Duration;

/// Segments whose two probes differ by more than this say nothing: the machine changed under them.
const MOST_DRIFT: f64 = 1.5;

/// Whether a segment counts between two such probes.
pub(crate) fn agree(before: f64, after: f64) -> bool {
    before.max(after) <= MOST_DRIFT * before.min(after)
}

/// The figures of one candidate.
#[derive(Debug, Default)]
pub struct Ratios {
    /// Nanoseconds per round of the candidate, and of the probes around it.
    segments: Vec<(f64, f64)>,
    dropped: usize,
}

impl Ratios {
    /// Adds a segment: nanoseconds per round of the probe before, the candidate, and the probe after.
    pub fn add(&mut self, before: f64, candidate: f64, after: f64) {
        if agree(before, after) {
            self.segments.push((candidate, f64::midpoint(before, after)));
        } else {
            self.dropped += 1;
        }
    }

    /// Segments that counted, and those that were dropped because the probes around them disagreed.
    pub fn counts(&self) -> (usize, usize) {
        (self.segments.len(), self.dropped)
    }

    /// Medians over the segments; `None` if none counted.
    pub fn medians(&self) -> Option<Medians> {
        let median = |mut values: Vec<f64>| {
            values.sort_by(f64::total_cmp);
            values.get(values.len() / 2).copied()
        };
        Some(Medians {
            candidate: median(self.segments.iter().map(|(candidate, _)| *candidate).collect())?,
            probe: median(self.segments.iter().map(|(_, probe)| *probe).collect())?,
            ratio: median(self.segments.iter().map(|(candidate, probe)| candidate / probe).collect())?,
        })
    }
}

/// What a candidate took and what the machine's limit took, in nanoseconds per round; and the ratio, each segment's to
/// its own probes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Medians {
    /// The candidate.
    pub candidate: f64,
    /// The bare cache line.
    pub probe: f64,
    /// The candidate's time in units of the probe's.
    pub ratio: f64,
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
        assert_eq!(ratios.medians(), Some(Medians { candidate: 160.0, probe: 100.0, ratio: 1.6 }));
        assert_eq!(Ratios::default().medians(), None);
    }
}
