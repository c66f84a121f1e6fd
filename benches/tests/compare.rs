//! The comparison as its users run it, on a few candidates.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// Names of what is in a directory.
fn names(directory: impl AsRef<Path>) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn a_comparison_reports_each_candidate_and_leaves_nothing_else() {
    let (out, temporary) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let chosen = ["memit-ring", "memit-send", "memit-guard", "iceoryx2-copy", "raw-sync", "pipe", "thread-rtrb"];
    let mut command = Command::new(env!("CARGO_BIN_EXE_compare"));
    command.arg("--quick").arg("--out").arg(out.path()).arg("--only").args(chosen).env("TMPDIR", temporary.path());
    let child = command.stdout(std::process::Stdio::null()).spawn().unwrap();
    let pid = child.id();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", output.status);

    let page = fs::read_to_string(out.path().join("rivals.md")).unwrap();
    let figures = fs::read_to_string(out.path().join("figures.jsonl")).unwrap();
    let rows: Vec<Value> = figures.lines().skip(1).map(|line| serde_json::from_str(line).unwrap()).collect();
    for name in chosen {
        assert!(page.contains(&format!("\n| {name} |")), "{name} is not on the page:\n{page}");
        assert!(rows.iter().any(|row| row["name"] == name && row["ns"].as_f64() > Some(0.0)), "{name} has no figures");
    }
    for row in rows.iter().filter(|row| !row["cannot"].is_null()) {
        // The ring's frames are no longer than that; and a machine may be too busy for any segment to count.
        let is_too_long = row["name"] == "memit-ring" && row["payload"].as_u64() > Some(8176);
        assert!(is_too_long || row["cannot"].as_str().unwrap().contains("unsteady"), "{row}");
        assert!(page.contains(row["cannot"].as_str().unwrap()), "the page does not say why: {row}");
    }
    assert_eq!(names(temporary.path()), [""; 0]);
    let of_this_run = format!("memit_cmp_{pid}_");
    assert_eq!(names("/dev/shm").iter().filter(|name| name.starts_with(&of_this_run)).count(), 0);
}

#[test]
fn what_a_killed_comparison_left_is_removed_by_the_next() {
    let (out, temporary) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    // The number of a process that is no more.
    let mut ended = Command::new("true").spawn().unwrap();
    let pid = ended.id();
    ended.wait().unwrap();
    let left = temporary.path().join(format!("memit-compare-{pid}-left"));
    fs::create_dir(&left).unwrap();
    let named = Path::new("/dev/shm").join(format!("memit_cmp_{pid}_left"));
    fs::write(&named, "").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_compare"));
    command.arg("--quick").arg("--out").arg(out.path()).arg("--only").arg("thread-ring");
    let status = command.env("TMPDIR", temporary.path()).stdout(std::process::Stdio::null()).status().unwrap();
    assert!(status.success());
    assert!(!left.exists() && !named.exists());
}
