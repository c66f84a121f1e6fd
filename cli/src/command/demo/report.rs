//! What the demo prints at its end: a table, or one JSON object.

use std::{fmt::Write as _, time::Duration};

use serde_json::{Value, json};

use super::tally::{Renderer, Tally};

const TITLES: [&str; 9] =
    ["renderer", "lines", "words", "bytes", "messages", "messages/s", "sync p50", "sync p99", "answers"];

/// The table.
pub(crate) fn table(tally: &Tally) -> String {
    let mut rows = vec![TITLES.map(String::from)];
    rows.extend(tally.renderers().map(|(number, renderer)| row(number, renderer)));
    let mut widths = [0; TITLES.len()];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut text = String::new();
    for row in rows {
        for (index, (cell, width)) in row.iter().zip(widths).enumerate() {
            let gap = if index == 0 { "" } else { "  " };
            // Writing to a string cannot fail.
            let _ = write!(text, "{gap}{cell:>width$}");
        }
        text.push('\n');
    }
    text
}

fn row(number: u32, renderer: &Renderer) -> [String; TITLES.len()] {
    let Renderer { counts, messages, answers, skipped, report, .. } = renderer;
    let measured = |show: &dyn Fn(&super::channel::Report) -> String| report.as_ref().map_or("-".into(), show);
    [
        number.to_string(),
        grouped(counts.lines),
        grouped(counts.words),
        grouped(counts.bytes),
        grouped(*messages),
        measured(&|report| grouped(rate(*messages, Duration::from_nanos(report.nanoseconds)))),
        measured(&|report| microseconds(report.sync_p50_nanoseconds)),
        measured(&|report| microseconds(report.sync_p99_nanoseconds)),
        if *skipped == 0 {
            grouped(*answers)
        } else {
            format!("{} ({} skipped)", grouped(*answers), grouped(*skipped))
        },
    ]
}

/// The JSON object, on one line.
pub(crate) fn json(tally: &Tally, input: &str, deaf: bool) -> String {
    let failures = tally.failures();
    let renderers: Vec<Value> = tally.renderers().map(|(number, renderer)| object(number, renderer)).collect();
    json!({
        "ok": failures.is_empty(),
        "input": input,
        "deaf": deaf,
        "renderers": renderers,
        "failures": failures,
    })
    .to_string()
}

fn object(number: u32, renderer: &Renderer) -> Value {
    let Renderer { pid, counts, messages, answers, skipped, report, .. } = renderer;
    let report = report.as_ref();
    json!({
        "renderer": number,
        "pid": pid,
        "lines": counts.lines,
        "words": counts.words,
        "bytes": counts.bytes,
        "messages": messages,
        "messages_per_second": report.map(|report| rate(*messages, Duration::from_nanos(report.nanoseconds))),
        "sync_p50_ns": report.map(|report| report.sync_p50_nanoseconds),
        "sync_p99_ns": report.map(|report| report.sync_p99_nanoseconds),
        "progress_answers": answers,
        "progress_skipped": skipped,
    })
}

/// How many a second, 0 when there was no time to tell.
pub(crate) fn rate(count: u64, elapsed: Duration) -> u64 {
    let per_second = u128::from(count) * 1_000_000_000 / elapsed.as_nanos().max(1);
    if elapsed.is_zero() { 0 } else { u64::try_from(per_second).unwrap_or(u64::MAX) }
}

/// With a comma between thousands.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn microseconds(nanoseconds: u64) -> String {
    format!("{}.{} µs", grouped(nanoseconds / 1000), nanoseconds % 1000 / 100)
}

#[cfg(test)]
mod tests {
    use super::{super::channel::Report, *};

    fn tally() -> Tally {
        let mut tally = Tally::default();
        for (peer, number) in [(7, 1), (8, 2)] {
            tally.started(number, 100 + number);
            tally.connected();
            tally.hello(peer, number);
        }
        for number in 1..=1200 {
            tally.line(7, number, 0, true, b"two words\n");
        }
        tally.report(
            7,
            Report {
                nanoseconds: 1_000_000,
                sync_p50_nanoseconds: 12_345,
                sync_p99_nanoseconds: 1_234_567,
                failures: Vec::new(),
            },
        );
        tally.answered(8, false);
        tally
    }

    #[test]
    fn the_table_lines_its_columns_up() {
        assert_eq!(
            table(&tally()),
            "renderer  lines  words   bytes  messages  messages/s  sync p50    sync p99        answers\n       \
                    1  1,200  2,400  12,000     1,200   1,200,000   12.3 µs  1,234.5 µs              0\n       \
                    2      0      0       0         0           -         -           -  0 (1 skipped)\n"
        );
    }

    #[test]
    fn the_json_object_says_what_failed() {
        let object: Value = serde_json::from_str(&json(&tally(), "README.md", true)).unwrap();
        assert_eq!(object["ok"], false);
        assert_eq!(object["deaf"], true);
        assert_eq!(object["failures"], json!(["renderer 2: it ended without a report"]));
        assert_eq!(object["renderers"][0]["messages_per_second"], 1_200_000);
        assert_eq!(object["renderers"][0]["sync_p50_ns"], 12_345);
        assert_eq!(object["renderers"][1]["sync_p50_ns"], Value::Null);
        assert_eq!(object["renderers"][1]["progress_skipped"], 1);
    }

    #[test]
    fn numbers_are_grouped_and_rates_never_divide_by_zero() {
        assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!(rate(5, Duration::ZERO), 0);
        assert_eq!(rate(u64::MAX, Duration::from_nanos(1)), u64::MAX);
        assert_eq!(rate(10, Duration::from_secs(2)), 5);
    }
}
