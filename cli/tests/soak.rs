//! `memit soak` as a user runs it: its verdict, and that nothing of it is left, whatever ends it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
};

use serde_json::Value;

use self::common::{DEADLINE, Place, Running, eventually, kill, lives, text};

fn object(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{line:?}: {error}"))
}

/// A soak that runs until something ends it, before its place is removed.
struct Soak {
    child: Running,
    place: Place,
    lines: Receiver<String>,
}

impl Soak {
    fn start(more: &[&str]) -> Self {
        let place = Place::new();
        let mut command = place.command(["soak", "--json", "--duration", "1h", "--renderers", "2"]);
        let mut child = Running::start(command.args(more));
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (read, lines) = mpsc::channel();
        // It ends with the soak.
        thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| read.send(line)));
        Self { child, place, lines }
    }

    /// The next line; `None` when there is none any more. Lines come once a second.
    fn next_line(&self) -> Option<String> {
        match self.lines.recv_timeout(DEADLINE) {
            Ok(line) => Some(line),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("the soak prints nothing for {DEADLINE:?}"),
        }
    }

    fn line(&self) -> Value {
        object(&self.next_line().unwrap())
    }

    /// Reads to the end.
    fn verdict(&self) -> Value {
        object(&std::iter::from_fn(|| self.next_line()).last().unwrap())
    }

    /// Reads until so much has happened that there is something to end.
    fn until_it_runs(&self) {
        while self.line()["messages"].as_u64().unwrap() < 100 {}
    }
}

#[test]
fn a_soak_says_that_all_went_well_and_leaves_nothing() {
    let place = Place::new();
    let output = place.run(["soak", "--duration", "4s", "--renderers", "2", "--seed", "7"]);
    let printed = text(&output.stdout);
    assert!(output.status.success(), "{printed}{}", text(&output.stderr));
    let lines: Vec<&str> = printed.lines().collect();
    assert_eq!(lines[0], "seed 7, 2 renderers, 4 s");
    assert!(lines.len() >= 4, "a line a second: {printed}");
    assert!(lines[1].contains(" messages ") && lines[1].contains("/s "), "{printed}");
    let verdict = lines.last().unwrap();
    assert!(
        verdict.starts_with("ok: nothing lost, doubled, out of order, garbled, stuck or leaked; seed 7, "),
        "{verdict}"
    );
    assert_eq!(place.leftovers(), 0);
    assert_eq!(fs::read_dir(place.runtime.path()).unwrap().count(), 0, "it has a directory of its own");
}

#[test]
fn a_soak_counts_what_it_did_in_its_last_object() {
    let place = Place::new();
    let output = place.run(["soak", "--json", "--duration", "6s", "--renderers", "3", "--seed", "9"]);
    let printed = text(&output.stdout);
    assert!(output.status.success(), "{printed}{}", text(&output.stderr));
    let objects: Vec<Value> = printed.lines().map(object).collect();
    let (verdict, seconds) = objects.split_last().unwrap();
    assert_eq!(
        (&verdict["ok"], &verdict["seed"], &verdict["faults"]),
        (&true.into(), &9.into(), &Value::Array(vec![]))
    );
    for count in ["messages", "bytes", "calls", "kills", "stops", "restarts", "retained", "connections"] {
        assert!(verdict[count].as_u64().unwrap() > 0, "{count}: {verdict}");
    }
    assert!(seconds.iter().is_sorted_by_key(|second| second["messages"].as_u64()));
    assert_eq!(place.leftovers(), 0);
}

#[test]
fn an_interrupted_soak_gives_its_verdict_so_far_and_leaves_nothing() {
    let mut soak = Soak::start(&[]);
    soak.until_it_runs();
    let children = soak.child.children();
    kill("INT", soak.child.id());
    let verdict = soak.verdict();
    assert_eq!((&verdict["ok"], &verdict["signal"]), (&true.into(), &2.into()), "{verdict}");
    assert!(soak.child.wait().unwrap().success());
    assert!(!children.into_iter().any(lives));
    assert_eq!(soak.place.leftovers(), 0);
}

#[test]
fn a_soak_that_is_killed_takes_its_processes_with_it_and_leaves_no_file() {
    let mut soak = Soak::start(&[]);
    soak.until_it_runs();
    let children = soak.child.children();
    assert!(children.len() >= 3, "the janitor, the main and a renderer: {children:?}");
    assert!(children.iter().copied().any(lives), "{children:?}");
    assert_eq!(soak.place.leftovers(), 1);
    soak.child.kill().unwrap();
    soak.child.wait().unwrap();
    eventually("the end of its processes", || !children.iter().copied().any(lives));
    eventually("the end of its files", || soak.place.leftovers() == 0);
}

/// The board of a stream whose renderer is at work.
fn board_of_a_renderer(boards: &Path) -> Option<PathBuf> {
    let paths = fs::read_dir(boards).ok()?.flatten().map(|entry| entry.path());
    paths.filter(|path| path.extension().is_some_and(|end| end == "up")).last()
}

#[test]
fn a_message_that_was_sent_and_did_not_come_makes_the_soak_fail() {
    let mut soak = Soak::start(&[]);
    soak.until_it_runs();
    // Every renderer claims to have sent a million messages more, from then on until its end.
    let directory = fs::read_dir(soak.place.temporary.path()).unwrap().next().unwrap().unwrap().path();
    let boards = directory.join("boards");
    let forger = thread::spawn(move || {
        while boards.exists() {
            if let Some(path) = board_of_a_renderer(&boards) {
                forge(&path);
            }
            thread::yield_now();
        }
    });
    let verdict = soak.verdict();
    forger.join().unwrap();
    assert_eq!(verdict["ok"], false, "{verdict}");
    let faults = verdict["faults"].to_string();
    assert!(faults.contains("lost: 1000000 messages of lane 1 were sent before the end"), "{faults}");
    assert_eq!(soak.child.wait().unwrap().code(), Some(1));
    assert_eq!(soak.place.leftovers(), 0);
}

/// Overwrites what the thread of lane 1 has sent.
fn forge(board: &Path) {
    use std::os::unix::fs::FileExt;
    const SENT_ON_LANE_1: u64 = 14 * 8;
    if let Ok(file) = fs::File::options().write(true).open(board) {
        let _ = file.write_all_at(&1_000_000_u64.to_ne_bytes(), SENT_ON_LANE_1);
    }
}

#[test]
fn a_stopped_process_that_nobody_wakes_is_told_as_a_hang() {
    let mut soak = Soak::start(&["--calm"]);
    soak.until_it_runs();
    let is_renderer =
        |pid: &u32| fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default().contains("soak-renderer");
    let pid = soak.child.children().into_iter().find(is_renderer).unwrap();
    // Not by the soak, which therefore does not know.
    kill("STOP", pid);
    let verdict = soak.verdict();
    assert_eq!(verdict["ok"], false, "{verdict}");
    let faults = verdict["faults"].to_string();
    assert!(faults.contains("no step for 10 looks") && faults.contains(&format!("(process {pid})")), "{faults}");
    assert_eq!(soak.child.wait().unwrap().code(), Some(1));
    assert!(!lives(pid));
    assert_eq!(soak.place.leftovers(), 0);
}

#[test]
fn a_soak_refuses_what_it_does_not_understand() {
    let place = Place::new();
    for usage in [["--duration", "10"], ["--duration", "0s"], ["--renderers", "0"], ["--seed", "x"]] {
        let output = place.run(["soak"].iter().chain(&usage));
        assert_eq!(output.status.code(), Some(2));
    }
}
