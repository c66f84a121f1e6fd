//! `memit bench` as a user runs it: what it prints, what it refuses, and that nothing of it is left, whatever ends it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::{
    process::{Command, Output},
    thread,
};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde_json::Value;

use self::common::{Place, Running, eventually, kill, lives, text};

/// What each row has, and whether it is a number in all rows that these tests look at. The others are numbers only if
/// the machine was steady for at least one segment.
const FIELDS: [(&str, bool); 12] = [
    ("scenario", false),
    ("payload", true),
    ("rounds", true),
    ("p50_ns", true),
    ("p99_ns", true),
    ("p999_ns", true),
    ("ns_per_msg", false),
    ("limit_ns", false),
    ("ratio", false),
    ("cpu_ns_per_msg", true),
    ("syscalls_per_msg", false),
    ("allocs_per_msg", false),
];

/// The rows that it printed.
#[track_caller]
fn rows(output: &Output) -> Vec<Value> {
    let printed = text(&output.stdout);
    assert!(output.status.success(), "{printed}{}", text(&output.stderr));
    let object = |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line:?}: {error}"));
    printed.lines().map(object).collect()
}

fn number(row: &Value, field: &str) -> f64 {
    row[field].as_f64().unwrap_or_else(|| panic!("{field} is no number: {row}"))
}

/// System calls a message, unless it said that it cannot count them here.
fn calls(row: &Value, output: &Output) -> Option<f64> {
    let said = text(&output.stderr).contains("system calls could not be counted");
    assert_eq!(row["syscalls_per_msg"].is_null(), said, "{row}");
    row["syscalls_per_msg"].as_f64()
}

#[test]
fn each_row_is_an_object_with_figures_that_fit_together() {
    let place = Place::new();
    let output = place.run(["bench", "--quick", "--json", "ring", "send"]);
    let rows = rows(&output);
    let names: Vec<&str> = rows.iter().map(|row| row["scenario"].as_str().unwrap()).collect();
    assert_eq!(names, ["ring", "send", "send-plain"]);
    for row in &rows {
        for (field, is_number) in FIELDS {
            assert!(row.get(field).is_some(), "{field}: {row}");
            assert!(!is_number || number(row, field) > 0.0, "{field}: {row}");
        }
        let times = ["p50_ns", "p99_ns", "p999_ns", "max_ns"].map(|field| number(row, field));
        assert!(times.is_sorted(), "{row}");
        assert_eq!(row["payload"], 48);
        assert_eq!(row["wait"], "spin");
        assert_ne!(row["cores"][0], row["cores"][1]);
        if row["segments"] != 0 {
            for field in ["ns_per_msg", "limit_ns", "ratio"] {
                assert!(number(row, field) > 0.0, "{field}: {row}");
            }
        }
        assert_eq!(row["allocs_per_msg"], 0.0, "{row}");
        assert!(matches!(calls(row, &output), None | Some(0.0)), "{row}");
    }
    assert_eq!(place.leftovers(), 0);
}

#[test]
fn who_sleeps_makes_system_calls_and_they_are_counted() {
    let place = Place::new();
    let output = place.run(["bench", "--quick", "--json", "--rounds", "500", "sync-park"]);
    for row in rows(&output) {
        assert_eq!((&row["wait"], &row["limit"]), (&"park".into(), &"raw futex".into()));
        // Two sides that sleep and wake each other; a side that comes in time need not sleep.
        assert!(calls(&row, &output).is_none_or(|calls| (0.5..10.0).contains(&calls)), "{row}");
    }
}

#[test]
fn allocations_are_counted() {
    let place = Place::new();
    let output = place.run(["bench", "--quick", "--json", "--rounds", "100", "--payload", "4096", "large"]);
    let rows = rows(&output);
    let of = |name: &str| rows.iter().find(|row| row["scenario"] == name).unwrap_or_else(|| panic!("{name}: {rows:?}"));
    // Who lends memory there and back allocates for it, which is no target.
    assert!(number(of("large-trusted"), "allocs_per_msg") > 0.0, "{rows:?}");
    assert_eq!(of("large-bare")["allocs_per_msg"], 0.0, "{rows:?}");
}

#[test]
fn pairs_are_measured_by_each_way_of_waiting() {
    let place = Place::new();
    let output = place.run(["bench", "--quick", "--json", "--rounds", "1", "pairs"]);
    let rows = rows(&output);
    assert!(!text(&output.stderr).contains("could not be counted"), "{}", text(&output.stderr));
    let names: Vec<_> = rows.iter().map(|row| (row["scenario"].as_str().unwrap(), row["peers"].as_u64())).collect();
    let of = |kind, pairs| ["spin", "park", "adaptive"].map(|wait| (format!("{kind}-{wait}"), Some(pairs)));
    let expected = [of("pairs", 1), of("pairs", 8), of("paced", 1)].concat();
    assert!(names.iter().zip(&expected).all(|(found, (name, pairs))| found == &(name.as_str(), *pairs)), "{names:?}");
    assert_eq!(names.len(), expected.len());
    for row in &rows {
        let name = row["scenario"].as_str().unwrap();
        assert!(name.ends_with(row["wait"].as_str().unwrap()), "{row}");
        assert!(number(row, "p50_ns") > 0.0 && number(row, "cpu_ns_per_msg") > 0.0, "{row}");
        // One round of each pair in each of three segments.
        assert_eq!(number(row, "rounds"), 3.0 * number(row, "peers"), "{row}");
        if name.starts_with("pairs") {
            assert!(number(row, "ratio") > 0.0, "{row}");
        } else {
            assert!(row["ratio"].is_null(), "{row}");
        }
    }
    assert_eq!(place.leftovers(), 0);
}

#[test]
fn a_payload_of_another_size_is_measured_where_it_can_be() {
    let place = Place::new();
    let output = place.run(["bench", "--quick", "--json", "--rounds", "500", "--payload", "64", "sync"]);
    let rows = rows(&output);
    let [row] = &rows[..] else { panic!("one row is expected, without the plain message: {rows:?}") };
    assert_eq!((&row["scenario"], &row["payload"]), (&"sync".into(), &64.into()));
}

#[test]
fn the_table_says_how_it_was_measured() {
    let place = Place::new();
    let output = place.run(["bench", "--quick", "--rounds", "500", "sync"]);
    let printed = text(&output.stdout);
    assert!(output.status.success(), "{printed}{}", text(&output.stderr));
    for part in ["\nkernel ", "\ncores      main ", "\nwaiting ", "\nscenario ", "\nsync ", "\nsync-plain "] {
        assert!(printed.contains(part), "{part:?}: {printed}");
    }
    let row = printed.lines().find(|line| line.starts_with("sync ")).unwrap();
    assert!(row.contains(" bare line ") && row.contains("0 allocs: met"), "{row}");
}

#[test]
fn what_cannot_be_measured_is_refused_with_a_reason() {
    let place = Place::new();
    for (arguments, code, said) in [
        (&["nonsense"][..], 2, "possible values: ring, send"),
        (&["--rounds", "0", "ring"], 2, "expected a whole number from 1 to 1000000000"),
        (&["--payload", "0", "ring"], 2, "expected a whole number from 1 to 4294967295"),
        (
            &["--payload", "50", "send"],
            1,
            "a message of send has a multiple of 8 from 32 to 1048576 bytes, found 50; choose another --payload",
        ),
        (
            &["--payload", "9000", "ring"],
            1,
            "a message of ring has 1 to 8176 bytes, found 9000; choose another --payload",
        ),
        (&["--payload", "48", "large"], 1, "a message of large has a multiple of 4096"),
        (&["--payload", "100000001"], 1, "no scenario has messages of 100000001 bytes"),
    ] {
        let output = place.run(["bench"].iter().chain(arguments));
        let errors = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {errors}");
        assert!(errors.contains(said), "{arguments:?}: {errors}");
        assert_eq!(text(&output.stdout), "", "{arguments:?}");
    }
}

#[test]
fn one_core_is_too_few() {
    let place = Place::new();
    // Children have the cores of the thread that starts them.
    let pinned = thread::spawn(move || {
        let allowed = sched_getaffinity(None).unwrap();
        let mut one = CpuSet::new();
        one.set((0..CpuSet::MAX_CPU).find(|core| allowed.is_set(*core)).unwrap());
        sched_setaffinity(None, &one).unwrap();
        place.run(["bench", "--quick", "ring"])
    });
    let output = pinned.join().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let errors = text(&output.stderr);
    assert!(errors.contains("measuring takes two cores") && errors.contains("may use only core "), "{errors}");
}

#[test]
fn what_fails_does_not_keep_the_rest_from_being_measured() {
    let place = Place::new();
    let memit = place.command(["bench", "--quick", "--json", "--rounds", "100", "idle", "sync-park"]);
    // Too few for a thousand renderers.
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -n 1000 && exec \"$0\" \"$@\""]).arg(memit.get_program()).args(memit.get_args());
    limited.env("TMPDIR", place.temporary.path());
    let output = limited.output().unwrap();
    let errors = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(errors.contains("memit: idle: 1000 renderers take up to "), "{errors}");
    assert!(errors.contains("could not be measured: idle\n"), "{errors}");
    let printed = text(&output.stdout);
    for name in ["\"sync-park\"", "\"sync-park-plain\"", "\"idle\""] {
        assert!(printed.contains(name), "{name}: {printed}");
    }
    assert_eq!(place.leftovers(), 0);
}

/// A benchmark that runs until something ends it, before its place is removed.
struct Bench {
    child: Running,
    place: Place,
}

impl Bench {
    fn start() -> Self {
        let place = Place::new();
        let child = Running::start(&mut place.command(["bench", "--json"]));
        Self { child, place }
    }

    /// Its peer process, as soon as there is one.
    fn peer(&self) -> u32 {
        let mut peer = None;
        eventually("a peer process", || {
            peer = self.child.children().into_iter().find(|pid| lives(*pid));
            peer.is_some()
        });
        peer.unwrap()
    }

    fn end(&mut self) -> (Option<i32>, String) {
        let mut status = None;
        eventually("its end", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        let code = status.unwrap().code();
        let mut errors = String::new();
        std::io::Read::read_to_string(self.child.stderr.as_mut().unwrap(), &mut errors).unwrap();
        (code, errors)
    }
}

#[test]
fn a_benchmark_whose_peer_dies_ends_and_says_so() {
    let mut bench = Bench::start();
    let peer = bench.peer();
    kill("KILL", peer);
    let (code, errors) = bench.end();
    assert_eq!(code, Some(1), "{errors}");
    assert!(errors.contains(&format!("peer process {peer} ended before its time: signal: 9")), "{errors}");
    assert_eq!(bench.place.leftovers(), 0);
}

#[test]
fn a_benchmark_that_is_killed_takes_its_peer_with_it() {
    let mut bench = Bench::start();
    let peer = bench.peer();
    bench.child.kill().unwrap();
    bench.child.wait().unwrap();
    eventually("the end of the peer", || !lives(peer));
}

#[test]
fn an_interrupted_benchmark_leaves_nothing() {
    let mut bench = Bench::start();
    let peer = bench.peer();
    kill("INT", bench.child.id());
    let (code, errors) = bench.end();
    assert_eq!(code, Some(130), "{errors}");
    eventually("the end of the peer", || !lives(peer));
    assert_eq!(bench.place.leftovers(), 0);
}
