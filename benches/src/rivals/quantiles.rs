//! How long the single rounds of the segments that count took.

use hdrhistogram::Histogram;

use crate::Result;
use crate::ratio::agree;
use crate::times::{self, Laps};

/// What the stopwatch recorded in the segments whose probes agree.
#[derive(Debug)]
pub(super) struct Quantiles {
    rounds: Histogram<u64>,
}

impl Quantiles {
    pub(super) fn new() -> Result<Self> {
        Ok(Self { rounds: times::histogram()? })
    }

    /// A segment is over, and the probes around it took that long. The stopwatch is empty then.
    pub(super) fn add(&mut self, segment: &mut Laps, before: f64, after: f64) -> Result<()> {
        if agree(before, after) {
            self.rounds.add(segment.recorded())?;
        }
        segment.reset();
        Ok(())
    }

    /// The times that the `nines` tell, with what part of the rounds took at most as long: a thousandth of the rounds
    /// apart where most are, and closer toward the slowest.
    pub(super) fn told(&self) -> Vec<(f64, u64)> {
        let common = (1..20).map(|twentieth| f64::from(twentieth) / 20.0);
        let rare = (1..=5).flat_map(|nines| [0.5, 0.3, 0.2, 0.1].map(|part| 1.0 - part * 0.1_f64.powi(nines)));
        let found = common.chain([0.9, 0.99, 0.999]).chain(rare);
        let mut quantiles: Vec<f64> =
            found.filter(|quantile| (1.0 - quantile) * self.rounds.len() as f64 >= 5.0).collect();
        quantiles.sort_by(f64::total_cmp);
        quantiles.dedup();
        quantiles.into_iter().map(|quantile| (quantile, self.rounds.value_at_quantile(quantile))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_of_segments_whose_probes_disagree_do_not_count() {
        let (mut laps, mut quantiles) = (Laps::new().unwrap(), Quantiles::new().unwrap());
        laps.time(true);
        for after in [100.0, 500.0] {
            laps.begin();
            for _ in 0..1000 {
                laps.lap();
            }
            quantiles.add(&mut laps, 100.0, after).unwrap();
        }
        assert_eq!(quantiles.rounds.len(), 1000);
        let told = quantiles.told();
        assert!(told.iter().any(|(quantile, _)| *quantile == 0.5), "{told:?}");
        assert!(told.iter().all(|(quantile, _)| *quantile < 0.996), "{told:?}");
        assert!(told.is_sorted_by(|one, other| one.0 < other.0 && one.1 <= other.1), "{told:?}");
    }
}
