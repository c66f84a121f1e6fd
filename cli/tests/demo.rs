//! `memit demo` as a user runs it: real processes, real files.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::{fs, io::Read, path::PathBuf, process::Output};

use serde_json::Value;

use self::common::{Place, Running, eventually, kill, text};

/// Lines, words and bytes, counted in the plainest way.
fn counted(content: &[u8]) -> (u64, u64, u64) {
    let lines = content.split_inclusive(|&byte| byte == b'\n').count();
    let is_space = |byte: &u8| b" \t\n\x0b\x0c\r".contains(byte);
    let words = content.split(is_space).filter(|word| !word.is_empty()).count();
    (lines as u64, words as u64, content.len() as u64)
}

fn object(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {:?} {:?}", text(&output.stdout), text(&output.stderr)))
}

fn row_counts(row: &Value) -> (u64, u64, u64) {
    let number = |name: &str| row[name].as_u64().unwrap();
    (number("lines"), number("words"), number("bytes"))
}

/// Runs the demo on `content`; every renderer must have sent all of it.
fn demo_on(content: &[u8], renderers: usize, more: &[&str]) -> Value {
    let place = Place::new();
    let file = place.runtime.path().join("-input file");
    fs::write(&file, content).unwrap();
    let mut command = place.command(["demo", "--json", "--renderers", &renderers.to_string()]);
    // A relative path that looks like an option.
    command.current_dir(place.runtime.path()).arg("--input=-input file").args(more);
    let output = command.output().unwrap();
    let object = object(&output);
    assert_eq!(object["ok"], true, "{object}");
    assert!(output.status.success());
    let rows = object["renderers"].as_array().unwrap();
    assert_eq!(rows.len(), renderers);
    for row in rows {
        assert_eq!(row_counts(row), counted(content));
        assert_eq!(
            row["progress_answers"].as_u64().unwrap() + row["progress_skipped"].as_u64().unwrap(),
            counted(content).0 / 1000
        );
        let (p50, p99) = (row["sync_p50_ns"].as_u64().unwrap(), row["sync_p99_ns"].as_u64().unwrap());
        assert!(50 < p50 && p50 <= p99, "no processor answers another in {p50} ns");
    }
    assert_eq!(place.leftovers(), 0);
    object
}

fn big_text(bytes: usize) -> Vec<u8> {
    let mut content = Vec::with_capacity(bytes + 100);
    let mut number = 0_u64;
    while content.len() < bytes {
        let line = format!("line {number} of a text, with {} words or so\n", number % 13);
        content.extend_from_slice(line.as_bytes());
        number += 1;
    }
    content
}

#[test]
fn demo_without_arguments_sends_the_readme_and_prints_a_table() {
    let place = Place::new();
    let output = place.run(["demo"]);
    let printed = text(&output.stdout);
    assert!(output.status.success(), "{printed}{}", text(&output.stderr));
    let lines: Vec<&str> = printed.lines().collect();
    assert_eq!(lines.len(), 4, "{printed}");
    assert!(lines[0].starts_with("renderer  lines"), "{printed}");
    assert_eq!(lines[3], "ok: each of 2 renderers sent README.md (compiled in) and the main received it unchanged");
    assert_eq!(place.leftovers(), 0);
}

#[test]
fn demo_prints_one_json_object() {
    let place = Place::new();
    let output = place.run(["demo", "--json", "--renderers", "1"]);
    assert_eq!(text(&output.stdout).lines().count(), 1);
    let object = object(&output);
    assert_eq!(object["ok"], true);
    assert_eq!(object["failures"], serde_json::json!([]));
    let readme = fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md")).unwrap();
    assert_eq!(row_counts(&object["renderers"][0]), counted(&readme));
}

#[test]
fn demo_sends_ten_megabytes_of_text_from_three_renderers() {
    let object = demo_on(&big_text(10_000_000), 3, &[]);
    for row in object["renderers"].as_array().unwrap() {
        assert_eq!(row["progress_skipped"], 0);
    }
}

#[test]
fn renderers_that_dispatch_nothing_before_their_end_hold_nobody_up() {
    let content = "x\n".repeat(100_000);
    let object = demo_on(content.as_bytes(), 2, &["--deaf"]);
    assert_eq!(object["deaf"], true);
}

#[test]
fn demo_sends_binary_files_with_lines_of_every_length() {
    let mut content: Vec<u8> = (0..=255).cycle().take(5000).collect();
    content.extend_from_slice(b"\n\n\r\n\0\n a \r\nb");
    for length in [1, 47, 48, 49, 4095, 16_383, 16_384, 16_385, 100_000] {
        content.push(b'\n');
        content.extend((0..length).map(|index| [b'w', b' ', 0xff, 0, b'w', b'w'][index % 6]));
    }
    let object = demo_on(&content, 2, &[]);
    let row = &object["renderers"][0];
    assert!(row["messages"].as_u64().unwrap() > row["lines"].as_u64().unwrap());
}

#[test]
fn demo_sends_a_file_that_is_one_long_line() {
    let content = vec![b'x'; 3_000_000];
    demo_on(&content, 2, &[]);
}

#[test]
fn demo_sends_an_empty_file() {
    let object = demo_on(b"", 2, &[]);
    assert_eq!(object["renderers"][0]["messages"], 0);
}

#[test]
fn demo_refuses_what_it_cannot_send() {
    let place = Place::new();
    for (path, told) in [
        ("no/such/file", "memit: cannot read no/such/file: No such file or directory"),
        ("/", "memit: / is a directory"),
        ("/dev/null", "memit: /dev/null is not a regular file"),
    ] {
        let output = place.run(["demo", "--input", path]);
        assert_eq!(output.status.code(), Some(1));
        assert!(text(&output.stderr).starts_with(told), "{}", text(&output.stderr));
        assert_eq!(text(&output.stdout), "");
    }
    for usage in [["--renderers", "0"], ["--renderers", "many"], ["--no-such", "option"]] {
        let output = place.run(["demo"].iter().chain(&usage));
        assert_eq!(output.status.code(), Some(2));
    }
}

/// A demo that has enough to do to be met in the middle of it.
struct Demo {
    child: Running,
    place: Place,
    content: Vec<u8>,
}

impl Demo {
    fn start(renderers: &str) -> Self {
        let place = Place::new();
        let line = format!("{}\n", "words ".repeat(170));
        let content = line.repeat(30_000).into_bytes();
        let file: PathBuf = place.runtime.path().join("input");
        fs::write(&file, &content).unwrap();
        let mut command = place.command(["demo", "--json", "--renderers", renderers, "--input"]);
        let child = Running::start(command.arg(file));
        Self { child, place, content }
    }

    /// Waits until `count` renderer processes are there, and returns their ids.
    fn renderers(&self, count: usize) -> Vec<u32> {
        let mut pids = Vec::new();
        eventually("renderers", || {
            pids = self.child.children();
            pids.len() == count
        });
        pids
    }

    /// Waits until the renderer `pid` has read so much that the main must have received some of it.
    fn wait_until_it_streams(&self, pid: u32) {
        let input = self.place.runtime.path().join("input");
        let position = |descriptor: fs::DirEntry| {
            let number = descriptor.file_name().into_string().ok()?;
            let is_input = fs::read_link(descriptor.path()).ok()? == input;
            let about = fs::read_to_string(format!("/proc/{pid}/fdinfo/{number}")).ok()?;
            about.lines().next()?.strip_prefix("pos:")?.trim().parse::<u64>().ok().filter(|_| is_input)
        };
        eventually("a renderer that streams", || {
            let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
            descriptors.flatten().filter_map(position).any(|position| position > 2_000_000)
        });
    }

    /// Everything that was printed, once the demo and all of its renderers have ended: they share standard error.
    fn end(mut self) -> (Output, Place, Vec<u8>) {
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        self.child.stdout.take().unwrap().read_to_end(&mut stdout).unwrap();
        self.child.stderr.take().unwrap().read_to_end(&mut stderr).unwrap();
        let status = self.child.wait().unwrap();
        (Output { status, stdout, stderr }, self.place, self.content)
    }
}

#[test]
fn a_renderer_that_is_killed_is_named_and_the_others_finish() {
    let demo = Demo::start("3");
    let pids = demo.renderers(3);
    demo.wait_until_it_streams(pids[1]);
    kill("KILL", pids[1]);
    let (output, place, content) = demo.end();
    assert_eq!(output.status.code(), Some(1));
    let object = object(&output);
    assert_eq!(object["ok"], false);
    let failures = object["failures"].to_string();
    assert!(failures.contains("renderer 2: its process was killed by signal 9"), "{failures}");
    assert!(text(&output.stderr).contains("renderer 2: its process was killed by signal 9"));
    let (lines, ..) = row_counts(&object["renderers"][1]);
    assert!(0 < lines && lines < counted(&content).0, "{object}");
    for index in [0, 2] {
        let row = &object["renderers"][index];
        assert_eq!(row_counts(row), counted(&content), "{object}");
        assert_ne!(row["sync_p50_ns"], Value::Null);
    }
    assert_eq!(place.leftovers(), 0);
}

#[test]
fn an_interrupted_demo_leaves_no_process_and_no_file() {
    let demo = Demo::start("2");
    demo.wait_until_it_streams(demo.renderers(2)[0]);
    kill("INT", demo.child.id());
    let (output, place, _) = demo.end();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("memit: interrupted by signal 2"), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), "");
    assert_eq!(place.leftovers(), 0);
}

#[test]
fn renderers_end_when_their_main_is_killed() {
    let demo = Demo::start("2");
    demo.wait_until_it_streams(demo.renderers(2)[0]);
    kill("KILL", demo.child.id());
    // Returns only when nobody holds standard error any more.
    let (output, ..) = demo.end();
    assert_eq!(output.status.code(), None);
}
