//! The `memit` command: shows memit at work, and reaches its channels from a shell.

mod command;
mod interrupt;
mod json;
mod output;

use std::process::ExitCode;

use clap::Parser;

use crate::command::Command;

/// Electron-style IPC between Rust processes, over shared memory.
#[derive(Debug, Parser)]
#[command(name = "memit", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

fn main() -> ExitCode {
    match Cli::parse().command.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("memit: {error}");
            ExitCode::FAILURE
        }
    }
}
