//! Rows as a table. They are printed as they come, so the columns' widths are fixed.

use std::fmt::Write as _;

use memit_benches::row::{Figure, Row, Target};

use crate::command::demo::report::grouped;

/// Titles, and the widths of their columns.
const COLUMNS: [(&str, usize); 15] = [
    ("scenario", 19),
    ("bytes", 9),
    ("peers", 5),
    ("p50 ns", 11),
    ("p99 ns", 11),
    ("p99.9 ns", 11),
    ("max ns", 13),
    ("messages/s", 11),
    ("ns/message", 13),
    ("limit ns", 12),
    ("x limit", 8),
    ("cpu ns", 12),
    ("calls", 7),
    ("allocs", 7),
    ("of", 13),
];

/// The first line.
pub(super) fn titles() -> String {
    format!("{}  segments (dropped)  targets", cells(COLUMNS.map(|(title, _)| title.to_owned())))
}

/// The line of a row.
pub(super) fn line(row: &Row) -> String {
    let time = |select: fn(&memit_benches::times::Times) -> u64| {
        row.times.as_ref().map_or_else(nothing, |times| grouped(select(times)))
    };
    let rate = row.ns_per_msg.map_or_else(nothing, |each| grouped(whole(1e9 / each)));
    let line = cells([
        row.scenario.clone(),
        grouped(row.payload as u64),
        row.peers.to_string(),
        time(|times| times.p50),
        time(|times| times.p99),
        time(|times| times.p999),
        time(|times| times.max),
        rate,
        number(row.ns_per_msg, 1),
        number(row.limit_ns, 1),
        number(row.ratio, 2),
        number(row.cpu_ns_per_msg, 1),
        number(row.syscalls_per_msg, 2),
        number(row.allocs_per_msg, 2),
        row.limit.to_owned(),
    ]);
    let mut line = format!("{line}  {} ({})", row.segments, row.dropped);
    if let Some(percent) = row.cpu_percent {
        // Writing to a string cannot fail.
        let _ = write!(line, "  {percent:.3} % of a core");
    }
    let mut separator = "  ";
    for target in row.targets() {
        let _ = write!(line, "{separator}{}", told(target));
        separator = ", ";
    }
    line
}

fn told(Target { figure, at_most, met }: Target) -> String {
    let what = match figure {
        Figure::Ratio => format!("<= {at_most} x limit"),
        Figure::Time => format!("<= {at_most} ns"),
        Figure::Cpu => format!("<= {at_most} % of a core"),
        Figure::Calls => format!("{at_most} calls"),
        Figure::Allocations => format!("{at_most} allocs"),
    };
    format!("{what}: {}", if met { "met" } else { "MISSED" })
}

fn cells(cells: [String; COLUMNS.len()]) -> String {
    let mut line = String::new();
    for (index, (cell, (_, width))) in cells.into_iter().zip(COLUMNS).enumerate() {
        // Writing to a string cannot fail.
        let _ = match index {
            0 => write!(line, "{cell:<width$}"),
            _ => write!(line, " {cell:>width$}"),
        };
    }
    line
}

fn nothing() -> String {
    "-".to_owned()
}

fn number(number: Option<f64>, decimals: usize) -> String {
    number.map_or_else(nothing, |number| format!("{number:.decimals$}"))
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate, for people")]
fn whole(rate: f64) -> u64 {
    rate as u64
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use memit::WaitStrategy;
    use memit_benches::{setting::Setting, times::Times};
    use rustix::thread::CpuSet;

    use super::*;

    fn row() -> Row {
        let setting = Setting::on(|| Command::new("true"), CpuSet::new(), [0, 1]);
        Row {
            times: Some(Times { rounds: 9, p50: 1_234, p99: 2_000, p999: 3_000, max: 4_000_000 }),
            ns_per_msg: Some(250.0),
            limit: "bare line",
            limit_ns: Some(100.0),
            ratio: Some(2.5),
            segments: 7,
            dropped: 2,
            ..Row::empty(&setting, "send", WaitStrategy::Spin, 48)
        }
    }

    #[test]
    fn cells_stand_under_their_titles() {
        let (titles, line) = (titles(), line(&row()));
        for (title, cell) in [("p50 ns", "1,234"), ("messages/s", "4,000,000"), ("x limit", "2.50"), ("calls", "-")] {
            let end = titles.find(title).unwrap() + title.len();
            assert!(line[..end].ends_with(&format!(" {cell}")), "{title}:\n{titles}\n{line}");
        }
    }

    #[test]
    fn a_miss_is_told() {
        assert!(line(&row()).ends_with(" bare line  7 (2)  <= 2 x limit: MISSED"), "{}", line(&row()));
        let met = Row { ratio: Some(1.5), allocs_per_msg: Some(0.0), ..row() };
        assert!(line(&met).ends_with("  <= 2 x limit: met, 0 allocs: met"), "{}", line(&met));
    }
}
