//! `memit listen`, `send` and `call`, as a shell uses them.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::{
    fmt::Write,
    thread,
    time::{Duration, Instant},
};

use serde_json::json;

use self::common::{Listener, Place, text};

#[test]
fn arguments_are_json_where_they_parse_and_strings_elsewhere() {
    let place = Place::new();
    let mut listener = Listener::start(&place, "notes");
    let arguments = [
        "send",
        "notes",
        "all",
        "null",
        "true",
        "-1",
        "18446744073709551615",
        "1.5",
        "-0.0",
        "\"7\"",
        "seven",
        "",
        "[1, [2]]",
        r#"{"b": {"z": 1, "a": []}, "a": null}"#,
        r#"{"$bytes": "AP8="}"#,
        "1 2",
        "{",
        "Grüße",
        "-x",
    ];
    let sent = place.run(arguments);
    assert!(sent.status.success(), "{}", text(&sent.stderr));
    let line = listener.line();
    assert_eq!(line["channel"], "all");
    assert_eq!(line["call"], false);
    let expected = json!([
        null, true, -1, 18_446_744_073_709_551_615_u64, 1.5, -0.0, "7", "seven", "", [1, [2]],
        {"b": {"z": 1, "a": []}, "a": null}, {"$bytes": "AP8="}, "1 2", "{", "Grüße", "-x",
    ]);
    // As text, since that shows the order of the keys as well.
    assert_eq!(line["args"].to_string(), expected.to_string());
}

#[test]
fn messages_say_who_sent_them() {
    let place = Place::new();
    let mut listener = Listener::start(&place, "notes");
    let mut sender = place.command(["send", "notes", "hello"]).spawn().unwrap();
    let line = listener.line();
    assert_eq!(line["args"], json!([]));
    assert_eq!(line["from"]["pid"], sender.id());
    assert!(line["from"]["id"].is_u64());
    assert!(sender.wait().unwrap().success());
}

#[test]
fn a_call_is_answered_with_its_arguments() {
    let place = Place::new();
    let mut listener = Listener::start(&place, "notes");
    let called = place.run(["call", "notes", "echo", "1", "two", r#"{"three": 3.0}"#]);
    assert!(called.status.success(), "{}", text(&called.stderr));
    assert_eq!(text(&called.stdout), "[1,\"two\",{\"three\":3.0}]\n");
    assert_eq!(listener.line()["call"], true);
}

#[test]
fn every_line_of_standard_input_is_a_message() {
    let place = Place::new();
    let mut listener = Listener::start(&place, "notes");
    let mut lines = String::new();
    for number in 0..5000 {
        writeln!(lines, "[{number}, \"{}\"]", "x".repeat(number % 1000)).unwrap();
    }
    lines.push_str("\n  \r\n[\"the last has no newline\"]");
    // Beside the reading: the listener prints more than a pipe holds.
    let sender = thread::spawn(move || place.run_with_input(["send", "--jsonl", "notes", "rows"], lines.as_bytes()));
    for number in 0..5000 {
        assert_eq!(listener.line()["args"], json!([number, "x".repeat(number % 1000)]));
    }
    assert_eq!(listener.line()["args"], json!(["the last has no newline"]));
    let sent = sender.join().unwrap();
    assert!(sent.status.success(), "{}", text(&sent.stderr));
}

#[test]
fn a_line_that_is_no_array_is_named_and_those_before_it_are_sent() {
    let place = Place::new();
    let mut listener = Listener::start(&place, "notes");
    for (bad, told) in [
        ("{\"a\": 1}", "expected a JSON array of arguments, found an object"),
        ("[1", "expected a JSON array of arguments, found text that is not JSON"),
        ("\"x\"", "expected a JSON array of arguments, found a string"),
    ] {
        let input = format!("[1]\n\n[2]\n{bad}\n[3]\n");
        let sent = place.run_with_input(["send", "notes", "rows", "--jsonl"], input.as_bytes());
        assert_eq!(sent.status.code(), Some(1));
        let error = text(&sent.stderr);
        assert!(error.starts_with(&format!("memit: line 4 of standard input: {told}")), "{error}");
        assert!(error.ends_with("Messages that were sent before it: 2\n"), "{error}");
        assert_eq!(listener.line()["args"], json!([1]));
        assert_eq!(listener.line()["args"], json!([2]));
    }
}

#[test]
fn an_app_that_nobody_listens_as_is_named() {
    let place = Place::new();
    for command in [["send", "nobody", "x"], ["call", "nobody", "x"]] {
        let output = place.run(command);
        assert_eq!(output.status.code(), Some(1));
        let error = text(&output.stderr);
        assert!(error.starts_with("memit: ") && error.contains("nobody"), "{error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
}

#[test]
fn a_name_that_is_taken_or_no_name_is_refused() {
    let place = Place::new();
    let _listener = Listener::start(&place, "notes");
    for app in ["notes", "a/b", "", "..", "a b"] {
        let output = place.run(["listen", app]);
        assert_eq!(output.status.code(), Some(1), "{app:?}");
        let error = text(&output.stderr);
        assert!(error.starts_with("memit: ") && error.contains(app), "{error}");
    }
}

#[test]
fn a_payload_that_no_frame_holds_arrives_whole() {
    let place = Place::new();
    let mut listener = Listener::start(&place, "notes");
    let big = "x".repeat(100_000);
    assert!(place.run(["send", "notes", "big", &big]).status.success());
    assert!(place.run(["send", "notes", "small"]).status.success());
    assert_eq!(listener.line()["args"], json!([big]));
    assert_eq!(listener.line()["channel"], "small");
}

#[test]
fn listen_ends_well_at_a_signal() {
    for signal in ["INT", "TERM"] {
        let place = Place::new();
        let mut listener = Listener::start(&place, "notes");
        assert!(place.run(["send", "notes", "hello"]).status.success());
        listener.line();
        listener.signal(signal);
        assert_eq!(listener.end(), (Some(0), String::new(), String::new()));
        // The name is free again.
        drop(Listener::start(&place, "notes"));
    }
}

#[test]
fn listen_ends_well_when_its_reader_is_gone() {
    let place = Place::new();
    let mut listener = Listener::start(&place, "notes");
    assert!(place.run(["send", "notes", "hello"]).status.success());
    listener.line();
    drop(listener.stdout.take());
    assert!(place.run(["send", "notes", "hello"]).status.success());
    assert_eq!(listener.end(), (Some(0), String::new(), String::new()));
}

#[test]
fn wrong_usage_exits_with_two() {
    let place = Place::new();
    for arguments in
        [&[][..], &["listen"], &["send", "app"], &["call"], &["no-such-command"], &["send", "--jsonl", "a", "b", "c"]]
    {
        assert_eq!(place.run(arguments).status.code(), Some(2), "{arguments:?}");
    }
    assert!(place.run(["--help"]).status.success());
    assert!(place.run(["--version"]).status.success());
}

/// The connection is a part of what a call waits for.
#[test]
fn a_call_to_a_main_that_stands_still_ends_when_its_time_is_up() {
    let place = Place::new();
    let listener = Listener::start(&place, "still");
    listener.signal("STOP");
    let began = Instant::now();
    let called = place.run(["call", "--timeout", "1", "still", "sum", "1"]);
    let took = began.elapsed();
    listener.signal("CONT");
    let error = text(&called.stderr);
    assert_eq!(called.status.code(), Some(1), "{error}");
    assert!(error.contains("did not answer within 1s; it may be stopped"), "{error}");
    // A connection alone would have had five.
    assert!((Duration::from_secs(1)..Duration::from_secs(4)).contains(&took), "{took:?}");
}
