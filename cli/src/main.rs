//! The `memit` command: shows memit at work, and reaches its channels from a shell.

mod command;
mod interrupt;
mod json;
mod number;
mod output;

use std::process::ExitCode;

use clap::Parser;
use memit_benches::counting::allocations::Counting;

use crate::command::Command;

/// It counts for `memit bench`, when that asks it to.
#[global_allocator]
static ALLOCATOR: Counting = Counting;

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
