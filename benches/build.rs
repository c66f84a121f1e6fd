//! Tells the reports which compiler and which commit they are of: those that the program was built with, not those that
//! are at hand where it runs.

use std::env;
use std::process::Command;

fn main() {
    let compiler = env::var("RUSTC").map_or_else(|_| None, |rustc| said(&rustc, &["--version"]));
    let commit = said("git", &["rev-parse", "--short=12", "HEAD"]);
    for (name, said) in [("COMPILER", compiler), ("COMMIT", commit)] {
        println!("cargo::rustc-env=MEMIT_BENCH_{name}={}", said.as_deref().unwrap_or("unknown"));
    }
    println!("cargo::rerun-if-changed=build.rs");
    // It grows with each commit, and each time that another one is checked out.
    if let Some(log) = said("git", &["rev-parse", "--git-path", "logs/HEAD"]) {
        println!("cargo::rerun-if-changed={log}");
    }
}

/// The first line that a program prints, if all is well.
fn said(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok().filter(|output| output.status.success())?;
    String::from_utf8(output.stdout).ok()?.lines().next().map(ToOwned::to_owned)
}
