//! The page: tables of all heats, how it was measured, and what could not be.

use std::fmt::Write;

use super::{FIGURES, Report, SMALL, heat};
use crate::rivals::contest::{Figures, Row};
use crate::rivals::{Wait, Work, lineup};

/// The lock file tells the versions that were built.
const LOCK: &str = include_str!(env!("MEMIT_BENCH_LOCK"));
const CRATES: [&str; 6] = ["iceoryx2", "ipc-channel", "raw_sync", "shared_memory", "rtrb", "serde_json"];

/// The page, with the pictures that were made.
#[must_use]
pub fn page(report: &Report, pictures: &[String]) -> String {
    let mut page = String::from("# memit and its rivals\n\n");
    introduction(&mut page, report);
    for (wait, title) in [(Wait::Spin, "Both sides spin"), (Wait::Block, "Both sides sleep")] {
        let parts = [round_trips(report, wait), by_payload(report, wait), streams(report, wait, false)];
        if parts.iter().all(String::is_empty) {
            continue;
        }
        page.push_str(&format!("## {title}\n\n"));
        for (part, picture) in parts.iter().zip(["distribution", "latency", "stream"]) {
            page.push_str(part);
            let picture = format!("{picture}-{}.svg", wait.name());
            if pictures.contains(&picture) {
                page.push_str(&format!("![{title}: {}]({picture})\n\n", picture.replace(".svg", "")));
            }
        }
    }
    threads(&mut page, report);
    candidates(&mut page, report);
    refusals(&mut page, report);
    page.truncate(page.trim_end().len());
    page + "\n"
}

fn introduction(page: &mut String, report: &Report) {
    page.push_str(
        "Two processes, one core each. In each turn each candidate gets a short segment, and right before and right \
         after it the same two processes bounce a bare cache line, the machine's own limit. A segment whose two probes \
         differ by more than 1.5x is dropped. The tables show medians over the segments that counted: of the time, and \
         of its ratio to the probes around it. Percentiles are of rounds that were timed one by one, in segments of \
         their own; reading the clock adds some 20 ns to each.\n\n\
         Each message carries its number and its sender's mark, which are looked at in every round; so is one byte of \
         each cache line between them. Before anything is timed, each candidate exchanges messages of which every byte \
         is looked at: 200, or 16 of 1 MiB. *Edges only* means that a message is made and read where it lies: only its \
         first and last words are written and looked at in the rounds that are timed, as for a program that makes its \
         messages in place.\n\n",
    );
    page.push_str("| | |\n|---|---|\n");
    for line in report.machine.lines() {
        let (name, value) = line.split_once(' ').unwrap_or((line, ""));
        page.push_str(&format!("| {name} | {} |\n", value.trim()));
    }
    let quick = if report.quick { ", with `--quick`: few and short segments, not for judging" } else { "" };
    page.push_str(&format!("| date | {}{quick} |\n", report.date));
    let versions: Vec<_> = CRATES.iter().filter_map(|name| Some(format!("{name} {}", version(name)?))).collect();
    page.push_str(&format!("| rivals | {} |\n\n", versions.join(", ")));
    page.push_str(&format!(
        "`cargo run --release -p memit-benches --features rivals --bin compare` writes this page, its pictures, and \
         [all figures]({FIGURES}) as lines of JSON.\n\n"
    ));
}

fn version(name: &str) -> Option<&'static str> {
    let package = LOCK.split("[[package]]").find(|package| package.contains(&format!("\nname = \"{name}\"\n")))?;
    package.split("version = \"").nth(1)?.split('"').next()
}

fn figures(row: &Row) -> Option<(&str, &Figures)> {
    Some((&row.name, row.outcome.as_ref().ok()?))
}

fn round_trips(report: &Report, wait: Wait) -> String {
    let rows = heat(&report.rows, Work::Trip, wait, SMALL, false);
    let rows: Vec<_> = rows.filter_map(figures).collect();
    if rows.is_empty() {
        return String::new();
    }
    let mut part = format!(
        "### A round trip of {SMALL} bytes\n\n\
         | | ns | x bare line | p50 | p99 | p99.9 | rounds | segments (dropped) |\n|---|--:|--:|--:|--:|--:|--:|--:|\n"
    );
    for (name, figures) in rows {
        let at = |quantile: f64| {
            let found = figures.times.iter().find(|(at, _)| (at - quantile).abs() < 1e-9);
            found.map_or_else(|| "-".to_owned(), |(_, took)| took.to_string())
        };
        let medians = figures.medians;
        // Writing to a string does not fail.
        let _ = writeln!(
            part,
            "| {name} | {:.0} | {:.2} | {} | {} | {} | {} | {} ({}) |",
            medians.candidate,
            medians.ratio,
            at(0.5),
            at(0.99),
            at(0.999),
            figures.rounds,
            figures.counted,
            figures.dropped,
        );
    }
    part.push('\n');
    part
}

fn by_payload(report: &Report, wait: Wait) -> String {
    let trips = report.rows.iter().filter(|row| row.heat.work == Work::Trip && row.heat.wait == wait);
    let mut sizes: Vec<_> = trips.map(|row| row.heat.len).filter(|len| *len != SMALL).collect();
    sizes.sort_unstable();
    sizes.dedup();
    if sizes.is_empty() {
        return String::new();
    }
    let mut part = "### A round trip by payload, in nanoseconds\n\n|".to_owned();
    for len in &sizes {
        let _ = write!(part, " | {}", bytes(*len));
    }
    part.push_str(" |\n|---|");
    part.push_str(&"--:|".repeat(sizes.len()));
    part.push('\n');
    for entry in lineup::PROCESSES {
        let row = |len| heat(&report.rows, Work::Trip, wait, len, false).find(|row| row.name == entry.name);
        let cells: Vec<_> = sizes.iter().map(|len| row(*len).and_then(figures)).collect();
        if cells.iter().all(Option::is_none) {
            continue;
        }
        let _ = write!(part, "| {}", entry.name);
        for cell in cells {
            match cell {
                Some((_, figures)) => drop(write!(part, " | {:.0}", figures.medians.candidate)),
                None => part.push_str(" | -"),
            }
        }
        part.push_str(" |\n");
    }
    part.push('\n');
    part
}

fn bytes(len: usize) -> String {
    match len {
        0..1024 => format!("{len} B"),
        1024..1_048_576 => format!("{} KiB", len >> 10),
        _ => format!("{} MiB", len >> 20),
    }
}

fn streams(report: &Report, wait: Wait, threads: bool) -> String {
    let rows = heat(&report.rows, Work::Stream, wait, SMALL, threads);
    let rows: Vec<_> = rows.filter_map(figures).collect();
    if rows.is_empty() {
        return String::new();
    }
    let mut part = format!(
        "### One way, {SMALL} bytes a message\n\n\
         | | messages/s | ns a message | x bare line | messages | segments (dropped) |\n|---|--:|--:|--:|--:|--:|\n"
    );
    for (name, figures) in rows {
        let medians = figures.medians;
        let _ = writeln!(
            part,
            "| {name} | {:.2} M | {:.1} | {:.3} | {} | {} ({}) |",
            1e3 / medians.candidate,
            medians.candidate,
            medians.ratio,
            figures.rounds,
            figures.counted,
            figures.dropped,
        );
    }
    part.push('\n');
    part
}

fn threads(page: &mut String, report: &Report) {
    let part = streams(report, Wait::Spin, true);
    if part.is_empty() {
        return;
    }
    page.push_str("## Between two threads of one process\n\n");
    page.push_str(&part);
    let ratio = |name: &str| {
        let row = heat(&report.rows, Work::Stream, Wait::Spin, SMALL, true).find(|row| row.name == name)?;
        figures(row).map(|(_, figures)| figures.medians.ratio)
    };
    if let Some(rtrb) = ratio("thread-rtrb") {
        for name in ["thread-ring", "thread-exclusive"] {
            if let Some(own) = ratio(name) {
                page.push_str(&format!("A message through {name} takes {:.2}x as long as through rtrb.\n", own / rtrb));
            }
        }
        page.push('\n');
    }
}

fn candidates(page: &mut String, report: &Report) {
    page.push_str("## The candidates, and how they wait\n\n| | what | spinning | sleeping |\n|---|---|---|---|\n");
    for entry in lineup::all().filter(|entry| report.rows.iter().any(|row| row.name == entry.name)) {
        let how = |how: Option<&'static str>| how.unwrap_or("-");
        page.push_str(&format!("| {} | {} | {} | {} |\n", entry.name, entry.what, how(entry.spins), how(entry.sleeps)));
    }
    page.push('\n');
}

fn refusals(page: &mut String, report: &Report) {
    let refused = report.rows.iter().filter_map(|row| Some((row, row.outcome.as_ref().err()?)));
    let mut lines = String::new();
    for (row, why) in refused {
        let heat = row.heat;
        let (name, len) = (&row.name, bytes(heat.len));
        lines.push_str(&format!("| {name} | {} {} {len} | {why} |\n", heat.work.name(), heat.wait.name()));
    }
    if !lines.is_empty() {
        page.push_str("## What could not be measured\n\n| | heat | why |\n|---|---|---|\n");
        page.push_str(&lines);
        page.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_versions_of_all_rivals_are_known() {
        for name in CRATES {
            assert!(version(name).is_some_and(|version| version.contains('.')), "{name}");
        }
        assert_eq!(version("no such crate"), None);
    }
}
