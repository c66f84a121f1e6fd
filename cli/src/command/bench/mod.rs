//! `memit bench`: what messages cost, each figure as a ratio to what the machine can do at that moment.

pub(crate) mod helper;

mod json;
mod table;

use std::{error::Error, io, os::unix::process::CommandExt, process};

use clap::builder::{PossibleValue, PossibleValuesParser};
use memit_benches::{
    Result as BenchResult, machine,
    process::give_up,
    row::Row,
    scenario::{self, Scenario},
    setting::Setting,
};

use crate::{
    interrupt,
    number::whole,
    output::{self, OutputError, Reader},
};

/// Measures what messages cost between two pinned processes.
///
/// Right before and right after each short segment of rounds, the same two processes run a probe: the bare round trip
/// of one cache line, of one futex, or a memcpy. The ratio is the median over the segments of their ratios to these
/// probes; a segment whose two probes differ by more than half is dropped. Other segments time single rounds, for the
/// percentiles, which therefore include a reading of the clock each, some 20 ns; and a last one, which nobody times,
/// counts system calls and allocations. A round trip counts as one message. CPU time, system calls and allocations are
/// those of both processes.
#[derive(Debug, clap::Args)]
pub(crate) struct Bench {
    /// What to measure [default: everything].
    #[arg(value_name = "SCENARIO", value_parser = PossibleValuesParser::new(names()))]
    scenarios: Vec<String>,
    /// Print one JSON object for each row instead of a table.
    #[arg(long)]
    json: bool,
    /// Bytes of a message. What cannot have messages of that size is left out. Plain messages have one size, and their
    /// rows are left out with any other [default: 48, and several for `large`].
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = whole::<usize, 1, { u32::MAX as u64 }>)]
    payload: Option<usize>,
    /// Rounds to measure for each row, fewer where they take too long [default: as many as are steady].
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = whole::<u64, 1, 1_000_000_000>)]
    rounds: Option<u64>,
    /// Measure with few and short segments, all in less than a minute.
    #[arg(long)]
    quick: bool,
}

fn names() -> Vec<PossibleValue> {
    scenario::ALL.iter().map(|scenario| PossibleValue::new(scenario.name).help(scenario.about)).collect()
}

/// Why the benchmark failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BenchError {
    #[error("cannot measure here: {0}")]
    Cores(io::Error),
    #[error("cannot wait for signals: {0}")]
    Signals(io::Error),
    #[error("{0}")]
    Payload(String),
    #[error("could not be measured: {}", .0.join(", "))]
    Measure(Vec<&'static str>),
    #[error("the benchmark's helper failed: {0}")]
    Helper(Box<dyn Error + Send + Sync>),
    #[error(transparent)]
    Output(#[from] OutputError),
}

impl Bench {
    pub(crate) fn run(self) -> Result<(), BenchError> {
        // Its thread is started before this one is pinned.
        interrupt::on_interrupt(|signal| give_up(128 + signal)).map_err(BenchError::Signals)?;
        let mut setting = Setting::new(launch).map_err(BenchError::Cores)?;
        setting.payload = self.payload;
        setting.rounds = self.rounds;
        setting.quick = self.quick;
        let scenarios = self.scenarios(&setting)?;

        if cfg!(debug_assertions) {
            eprintln!("memit: this is a debug build, whose figures say nothing; build with --release");
        }
        if !self.json {
            output::text(&head(&setting))?;
        }
        let (mut gone, mut uncounted, mut failed) = (false, false, Vec::new());
        for scenario in scenarios {
            let mut report = |row: Row| -> BenchResult<()> {
                uncounted |= row.counts && row.syscalls_per_msg.is_none();
                let line = if self.json { json::line(&row) } else { table::line(&row) };
                gone = output::line(&line)? == Reader::Gone;
                if gone { Err("nobody reads the rows".into()) } else { Ok(()) }
            };
            let measured = scenario.measure(&setting, &mut report);
            if gone {
                return Ok(());
            }
            // The others are measured all the same.
            if let Err(error) = measured {
                eprintln!("memit: {error}");
                failed.push(scenario.name);
            }
        }
        if uncounted {
            eprintln!("memit: system calls could not be counted: this process may not trace others here");
        }
        if failed.is_empty() { Ok(()) } else { Err(BenchError::Measure(failed)) }
    }

    /// What to measure, in the order in which it is measured.
    fn scenarios(&self, setting: &Setting) -> Result<Vec<&'static Scenario>, BenchError> {
        let mut chosen = Vec::new();
        for scenario in scenario::ALL {
            if !self.scenarios.is_empty() && !self.scenarios.iter().any(|name| name == scenario.name) {
                continue;
            }
            match setting.payload.map_or(Ok(()), |len| scenario.permits(len)) {
                Ok(()) => chosen.push(scenario),
                Err(reason) if self.scenarios.is_empty() => eprintln!("memit: left out: {reason}"),
                Err(reason) => return Err(BenchError::Payload(reason)),
            }
        }
        if chosen.is_empty() {
            let len = setting.payload.unwrap_or_default();
            return Err(BenchError::Payload(format!(
                "no scenario has messages of {len} bytes; choose another --payload"
            )));
        }
        Ok(chosen)
    }
}

/// This binary once more, with a hidden command. Ctrl-C at a terminal does not reach it: it ends with this process.
fn launch() -> process::Command {
    // Not the path of the binary, which may have been replaced since this process began.
    let mut command = process::Command::new("/proc/self/exe");
    command.arg0("memit").arg("bench-helper").process_group(0);
    command
}

fn head(setting: &Setting) -> String {
    let [main, peer] = setting.cores;
    format!(
        "{}\n\
         cores      main {main}, peer {peer}; both processes are pinned, those of pairs and paced to both cores\n\
         waiting    sync-park, send-park and idle: both sides sleep at once; pairs and paced: as the name says; all\n\
         \x20          others: both sides spin\n\
         renderers  where there are several, they are connections of the one peer process; the soft limit of\n\
         \x20          descriptors is raised to the hard one\n\n{}\n",
        machine::describe(),
        table::titles(),
    )
}
