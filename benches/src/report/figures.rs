//! The figures as lines of JSON: the first says where and when, each other one is a row.

use serde_json::{Map, Value, json};

use super::Report;
use crate::Result;
use crate::rivals::contest::Row;

/// All lines.
pub fn lines(report: &Report) -> Result<String> {
    let mut first = Map::new();
    for line in report.machine.lines() {
        if let Some((name, value)) = line.split_once(' ') {
            first.insert(name.to_owned(), value.trim().into());
        }
    }
    first.insert("date".to_owned(), report.date.clone().into());
    first.insert("quick".to_owned(), report.quick.into());
    let mut lines = serde_json::to_string(&Value::Object(first))? + "\n";
    for row in &report.rows {
        lines.push_str(&serde_json::to_string(&line(row))?);
        lines.push('\n');
    }
    Ok(lines)
}

fn line(row: &Row) -> Value {
    let (name, heat) = (&row.name, row.heat);
    let (work, wait, payload) = (heat.work.name(), heat.wait.name(), heat.len);
    match &row.outcome {
        Ok(figures) => json!({
            "name": name,
            "work": work,
            "wait": wait,
            "payload": payload,
            "rounds": figures.rounds,
            "segments": figures.counted,
            "dropped": figures.dropped,
            "ns": figures.medians.candidate,
            "bare_ns": figures.medians.probe,
            "ratio": figures.medians.ratio,
            "quantiles": figures.times,
        }),
        Err(why) => json!({ "name": name, "work": work, "wait": wait, "payload": payload, "cannot": why }),
    }
}
