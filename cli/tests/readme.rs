//! The README's example is compiled here, runs as two processes, and stands in the README word for word.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    env,
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};

const README: &str = include_str!("../../README.md");
const EXAMPLES: [&str; 2] =
    [include_str!("../../api/examples/readme_main.rs"), include_str!("../../api/examples/readme_renderer.rs")];

mod common;

mod readme_main {
    include!("../../api/examples/readme_main.rs");

    pub(crate) fn run() {
        main().unwrap();
    }
}

mod readme_renderer {
    include!("../../api/examples/readme_renderer.rs");

    pub(crate) fn run() {
        main().unwrap();
    }
}

/// Which of the two sides this process is to be; without it, it is the test.
const SIDE: &str = "MEMIT_README_SIDE";

fn main() {
    match env::var(SIDE).as_deref() {
        Ok("main") => readme_main::run(),
        Ok("renderer") => readme_renderer::run(),
        _ if env::args().any(|argument| argument == "--list") => {}
        _ => {
            the_readme_shows_the_examples();
            println!("test the_readme_shows_the_examples ... ok");
            the_readmes_example_runs();
            println!("test the_readmes_example_runs ... ok");
        }
    }
}

fn the_readme_shows_the_examples() {
    let shown: Vec<&str> = README.split("```rust\n").skip(1).map(|block| block.split("```").next().unwrap()).collect();
    assert_eq!(shown, EXAMPLES);
}

fn the_readmes_example_runs() {
    let directory = common::directory();
    let side = |side: &str| {
        let mut command = Command::new(env::current_exe().unwrap());
        command.env(SIDE, side).env("MEMIT_RUNTIME_DIR", directory.path());
        command
    };
    let mut main = side("main").stdout(Stdio::piped()).spawn().unwrap();
    let mut printed = BufReader::new(main.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert_eq!(printed.next().as_deref(), Some("waiting for renderers"));

    let renderer = side("renderer").output().unwrap();
    assert_eq!(str::from_utf8(&renderer.stdout).unwrap(), "1 + 2 = 3\nthe main has tick 1\n");
    assert!(renderer.status.success());

    let note = printed.next().unwrap();
    assert!(note.starts_with("a note: ") && note.contains("arguments") && note.contains("42"), "{note}");
    assert_eq!(printed.next().as_deref(), Some("MEM is at 9.75"));
    main.kill().unwrap();
    main.wait().unwrap();
}
