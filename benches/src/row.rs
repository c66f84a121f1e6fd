//! What is told of a row.

use memit::WaitStrategy;

use crate::course::Outcome;
use crate::ratio::Ratios;
use crate::setting::Setting;
use crate::stage;
use crate::times::Times;

/// One row. Times are in nanoseconds, and a round trip counts as one message.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Its name, which begins with that of its scenario.
    pub scenario: String,
    /// Bytes of a message.
    pub payload: usize,
    /// Connections to the main that is measured.
    pub peers: usize,
    /// How both sides wait.
    pub wait: &'static str,
    /// The cores of the main's measured thread, and of the peer's.
    pub cores: [usize; 2],
    /// Messages that were measured.
    pub rounds: u64,
    /// What single ones took.
    pub times: Option<Times>,
    /// Median over the segments; `None` if all of them were dropped.
    pub ns_per_msg: Option<f64>,
    /// What it is compared with.
    pub limit: &'static str,
    /// Median of that, likewise.
    pub limit_ns: Option<f64>,
    /// Median of the segments' ratios, each to its own probes.
    pub ratio: Option<f64>,
    /// CPU time of both processes.
    pub cpu_ns_per_msg: Option<f64>,
    /// Whether system calls and allocations were to be counted.
    pub counts: bool,
    /// System calls of both processes; `None` where they cannot be counted.
    pub syscalls_per_msg: Option<f64>,
    /// Heap allocations of both processes; `None` where they cannot be counted.
    pub allocs_per_msg: Option<f64>,
    /// How much of a core the main's process takes, in percent, where that is what is measured.
    pub cpu_percent: Option<f64>,
    /// Segments that count.
    pub segments: usize,
    /// Segments that do not, for the probes around them disagreed.
    pub dropped: usize,
}

impl Row {
    /// A row without figures.
    pub fn empty(setting: &Setting, scenario: impl Into<String>, wait: WaitStrategy, payload: usize) -> Self {
        Self {
            scenario: scenario.into(),
            payload,
            peers: 1,
            wait: stage::wait_name(wait),
            cores: setting.cores,
            rounds: 0,
            times: None,
            ns_per_msg: None,
            limit: "-",
            limit_ns: None,
            ratio: None,
            cpu_ns_per_msg: None,
            counts: false,
            syscalls_per_msg: None,
            allocs_per_msg: None,
            cpu_percent: None,
            segments: 0,
            dropped: 0,
        }
    }

    /// The same row with what its course came to, in comparison with `limit`.
    #[must_use]
    pub fn with(self, limit: &'static str, outcome: &Outcome) -> Self {
        Self {
            rounds: outcome.rounds,
            times: Some(outcome.times),
            cpu_ns_per_msg: Some(outcome.cpu),
            counts: true,
            syscalls_per_msg: outcome.counts.calls,
            allocs_per_msg: outcome.counts.allocations,
            ..self.compared(limit, &outcome.ratios)
        }
    }

    /// The same row with its segments, in comparison with `limit`.
    #[must_use]
    pub fn compared(self, limit: &'static str, ratios: &Ratios) -> Self {
        let medians = ratios.medians();
        let (segments, dropped) = ratios.counts();
        Self {
            ns_per_msg: medians.map(|medians| medians.candidate),
            limit,
            limit_ns: medians.map(|medians| medians.probe),
            ratio: medians.map(|medians| medians.ratio),
            segments,
            dropped,
            ..self
        }
    }

    /// The same row with so many connections.
    #[must_use]
    pub fn peers(self, peers: usize) -> Self {
        Self { peers, ..self }
    }

    /// What the row is to reach, and whether it does; nothing where there is no figure.
    #[must_use]
    pub fn targets(&self) -> Vec<Target> {
        let targets = TARGETS.iter().filter(|(name, peers, ..)| *name == self.scenario && *peers <= self.peers);
        let targets = targets.filter_map(|&(_, _, figure, at_most)| {
            let found = figure.of(self)?;
            Some(Target { figure, at_most, met: found <= at_most })
        });
        targets.collect()
    }
}

/// A figure that has a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Figure {
    /// The ratio to the limit.
    Ratio,
    /// Nanoseconds a message.
    Time,
    /// Percent of a core.
    Cpu,
    /// System calls a message.
    Calls,
    /// Allocations a message.
    Allocations,
}

impl Figure {
    /// Its name in a row's object.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ratio => "ratio",
            Self::Time => "ns_per_msg",
            Self::Cpu => "cpu_percent",
            Self::Calls => "syscalls_per_msg",
            Self::Allocations => "allocs_per_msg",
        }
    }

    const fn of(self, row: &Row) -> Option<f64> {
        match self {
            Self::Ratio => row.ratio,
            Self::Time => row.ns_per_msg,
            Self::Cpu => row.cpu_percent,
            Self::Calls => row.syscalls_per_msg,
            Self::Allocations => row.allocs_per_msg,
        }
    }
}

/// A target, and whether it is met.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Target {
    /// The figure that has it.
    pub figure: Figure,
    /// What it may be.
    pub at_most: f64,
    /// Whether it is that.
    pub met: bool,
}

/// Row, connections from which on, figure, and what it may be.
const TARGETS: &[(&str, usize, Figure, f64)] = &[
    ("ring", 1, Figure::Ratio, 1.6),
    ("send", 1, Figure::Ratio, 2.0),
    ("send", 1, Figure::Calls, 0.0),
    ("send", 1, Figure::Allocations, 0.0),
    ("sync", 1, Figure::Ratio, 2.2),
    ("sync", 1, Figure::Calls, 0.0),
    ("sync", 1, Figure::Allocations, 0.0),
    ("sync-park", 1, Figure::Ratio, 1.15),
    ("send-park", 1, Figure::Ratio, 1.15),
    ("stream", 1, Figure::Time, 25.0),
    ("stream", 1, Figure::Calls, 0.0),
    ("stream", 1, Figure::Allocations, 0.0),
    ("idle", 1000, Figure::Ratio, 1.2),
    ("idle-cpu", 1000, Figure::Cpu, 0.1),
];

#[cfg(test)]
mod tests {
    use std::process::Command;

    use rustix::thread::CpuSet;

    use super::*;

    fn row(name: &str) -> Row {
        let setting = Setting::on(|| Command::new("true"), CpuSet::new(), [0, 1]);
        Row::empty(&setting, name, WaitStrategy::Park, 48)
    }

    fn met(row: &Row) -> Vec<(&'static str, bool)> {
        row.targets().iter().map(|target| (target.figure.name(), target.met)).collect()
    }

    #[test]
    fn a_target_is_met_up_to_its_figure_and_missed_beyond() {
        let send = Row { ratio: Some(2.0), allocs_per_msg: Some(0.001), ..row("send") };
        // System calls that could not be counted are neither.
        assert_eq!(met(&send), [("ratio", true), ("allocs_per_msg", false)]);
        assert_eq!(met(&Row { ratio: Some(2.01), ..row("send") }), [("ratio", false)]);
        assert_eq!(met(&Row { ratio: Some(2.01), ..row("send-plain") }), []);
    }

    #[test]
    fn a_target_for_many_renderers_is_none_for_few() {
        let idle = Row { ratio: Some(1.3), ..row("idle") };
        assert_eq!(met(&idle), []);
        assert_eq!(met(&idle.peers(1000)), [("ratio", false)]);
    }
}
