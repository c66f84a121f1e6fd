//! Rows as JSON.

use memit_benches::row::Row;
use serde_json::{Value, json};

/// The row as an object, on one line. What was not measured, or cannot be, is `null`.
pub(super) fn line(row: &Row) -> String {
    let Row { scenario, payload, peers, wait, cores, rounds, times, limit, segments, dropped, .. } = row;
    let targets: Vec<Value> = row
        .targets()
        .iter()
        .map(|target| json!({ "figure": target.figure.name(), "at_most": target.at_most, "met": target.met }))
        .collect();
    json!({
        "scenario": scenario,
        "payload": payload,
        "peers": peers,
        "wait": wait,
        "cores": cores,
        "rounds": rounds,
        "p50_ns": times.map(|times| times.p50),
        "p99_ns": times.map(|times| times.p99),
        "p999_ns": times.map(|times| times.p999),
        "max_ns": times.map(|times| times.max),
        "ns_per_msg": row.ns_per_msg,
        "limit": limit,
        "limit_ns": row.limit_ns,
        "ratio": row.ratio,
        "cpu_ns_per_msg": row.cpu_ns_per_msg,
        "syscalls_per_msg": row.syscalls_per_msg,
        "allocs_per_msg": row.allocs_per_msg,
        "cpu_percent": row.cpu_percent,
        "segments": segments,
        "dropped": dropped,
        "targets": targets,
    })
    .to_string()
}
