//! memit and its rivals on the same work.
//!
//! `cargo run --release -p memit-benches --features rivals --bin compare`
//!
//! Between two pinned processes: round trips by payload, spinning against spinning and sleeping against sleeping, and
//! messages one way; between two threads: the raw ring against rtrb's. All candidates take turns, and each proves by
//! content that it delivers. The report goes to `docs/benchmarks`, progress to standard error.

use std::io::{IsTerminal, stderr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use memit_benches::Result;
use memit_benches::machine;
use memit_benches::report::{Report, SMALL};
use memit_benches::rivals::contest::{Contest, Heat, Plan};
use memit_benches::rivals::lineup::{self, Entry};
use memit_benches::rivals::{Wait, Work, player};

/// Compares memit with its rivals, and writes a page, pictures and figures.
#[derive(Debug, Parser)]
struct Arguments {
    /// Few and short segments: to see that it works, not to judge.
    #[arg(long)]
    quick: bool,
    /// Where the report goes.
    #[arg(long, value_name = "DIR", default_value = "docs/benchmarks")]
    out: PathBuf,
    /// Only these candidates.
    #[arg(long, value_name = "NAME", num_args = 1.., value_parser = names())]
    only: Vec<String>,
}

fn names() -> Vec<&'static str> {
    lineup::all().map(|entry| entry.name).collect()
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let outcome = player::play(&arguments).unwrap_or_else(|| compare(&Arguments::parse()));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("compare: {error}");
            ExitCode::FAILURE
        }
    }
}

const PAYLOADS: [usize; 7] = [SMALL, 64, 256, 1 << 10, 4 << 10, 64 << 10, 1 << 20];

/// All heats, each with whether it is one of threads.
fn heats() -> Vec<(Heat, bool)> {
    let mut heats = Vec::new();
    for wait in [Wait::Spin, Wait::Block] {
        heats.extend(PAYLOADS.map(|len| (Heat { work: Work::Trip, wait, len }, false)));
        heats.push((Heat { work: Work::Stream, wait, len: SMALL }, false));
    }
    heats.push((Heat { work: Work::Stream, wait: Wait::Spin, len: SMALL }, true));
    heats
}

fn compare(arguments: &Arguments) -> Result<()> {
    let cores = machine::numbers(&machine::cores()?).len();
    if cores < 2 {
        return Err(format!("comparing takes two cores, and this process may use only {cores}").into());
    }
    let chosen = |entries: &[Entry]| -> Vec<Entry> {
        let wanted = |entry: &&Entry| arguments.only.is_empty() || arguments.only.iter().any(|name| name == entry.name);
        entries.iter().filter(wanted).copied().collect()
    };
    let (processes, threads) = (chosen(&lineup::PROCESSES), chosen(&lineup::THREADS));
    let heats = heats();
    let mut contest = Contest::new()?;
    let mut rows = Vec::new();
    for (nth, (heat, is_threads)) in heats.iter().enumerate() {
        let entries = if *is_threads { &threads } else { &processes };
        let title = format!(
            "[{}/{}] {} {} {} B{}",
            nth + 1,
            heats.len(),
            heat.work.name(),
            heat.wait.name(),
            heat.len,
            if *is_threads { ", threads" } else { "" }
        );
        rows.extend(contest.hold(*heat, entries, plan(arguments.quick, *heat), &mut progress(&title))?);
        finish(&title);
    }
    for row in &rows {
        if let Err(why) = &row.outcome {
            let heat = row.heat;
            eprintln!("{} cannot do {} {} {} B: {why}", row.name, heat.work.name(), heat.wait.name(), heat.len);
        }
    }
    let written = Report::new(rows, arguments.quick).write(&arguments.out)?;
    for name in written {
        println!("{}", arguments.out.join(name).display());
    }
    Ok(())
}

/// Rounds are timed one by one where the distribution is told.
fn plan(quick: bool, heat: Heat) -> Plan {
    let (segments, segment) = if quick { (10, Duration::from_millis(2)) } else { (100, Duration::from_millis(5)) };
    let timed = if heat.work == Work::Trip && heat.len == SMALL { segments } else { 0 };
    Plan { compared: segments, timed, segment }
}

/// On a terminal one line that changes; elsewhere a line for each heat.
fn progress(title: &str) -> impl FnMut(&str) {
    let is_terminal = stderr().is_terminal();
    if !is_terminal {
        eprintln!("{title}");
    }
    move |how| {
        if is_terminal {
            eprint!("\r\x1b[K{title}: {how}");
        }
    }
}

fn finish(title: &str) {
    if stderr().is_terminal() {
        eprintln!("\r\x1b[K{title}");
    }
}
