//! Tells the reports which compiler and which commit they are of: those that the program was built with, not those that
//! are at hand where it runs. And where the lock file is, which has the versions of the rivals.

use std::env;
use std::path::PathBuf;
use std::process::Command;

fn main() {
    let compiler = env::var("RUSTC").map_or_else(|_| None, |rustc| said(&rustc, &["--version"]));
    // A published package has a lock file of its own. The commit of a repository around it would be a stranger's.
    let directory = env::var("CARGO_MANIFEST_DIR").map_or_else(|_| PathBuf::new(), PathBuf::from);
    let packaged = directory.join("Cargo.lock");
    let is_package = packaged.exists();
    let lock = if is_package { packaged } else { directory.join("../Cargo.lock") };
    println!("cargo::rustc-env=MEMIT_BENCH_LOCK={}", lock.display());
    let git = |arguments: &[&str]| if is_package { None } else { said("git", arguments) };
    let commit = git(&["rev-parse", "--short=12", "HEAD"]);
    for (name, said) in [("COMPILER", compiler), ("COMMIT", commit)] {
        println!("cargo::rustc-env=MEMIT_BENCH_{name}={}", said.as_deref().unwrap_or("unknown"));
    }
    println!("cargo::rerun-if-changed=build.rs");
    // It grows with each commit, and each time that another one is checked out.
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"]) {
        println!("cargo::rerun-if-changed={log}");
    }
}

/// The first line that a program prints, if all is well.
fn said(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok().filter(|output| output.status.success())?;
    String::from_utf8(output.stdout).ok()?.lines().next().map(ToOwned::to_owned)
}
