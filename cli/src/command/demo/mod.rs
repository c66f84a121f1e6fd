//! `memit demo`: this process is the main, and starts renderer processes that send it every line of a file.

pub(crate) mod renderer;

mod channel;
mod children;
mod count;
mod input;
mod lines;
mod listeners;
mod progress;
pub(crate) mod report;
mod tally;

use std::{
    ffi::OsString,
    fs::Permissions,
    hash::{BuildHasher, RandomState},
    io,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process,
    sync::{
        Arc,
        atomic::{AtomicI32, Ordering},
    },
};

use memit::IpcMain;

use self::{
    children::Children,
    input::{Input, InputError},
    listeners::{Runs, Shared},
    progress::Progress,
    tally::Tally,
};
use crate::{
    interrupt,
    number::whole,
    output::{self, OutputError},
};

/// Streams a file from renderer processes to this one and checks that all of it arrives.
///
/// Every renderer sends every line of the file, as bytes with a number. This process counts lines, words and bytes,
/// tells the renderer how far it is every thousand lines, and each renderer compares the totals with its own. Then it
/// measures the round trip of synchronous calls.
#[derive(Debug, clap::Args)]
pub(crate) struct Demo {
    /// The file to send, text or not [default: the README of memit, which is compiled in].
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// How many renderer processes to start.
    #[arg(long, value_name = "N", default_value_t = 2, allow_negative_numbers = true,
        value_parser = whole::<u32, 1, 256>)]
    renderers: u32,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    json: bool,
    /// Let the renderers dispatch nothing before they have sent everything. What the main has to tell them waits in
    /// its memory; what does not fit there is counted as skipped.
    #[arg(long)]
    deaf: bool,
}

/// Why the demo failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DemoError {
    #[error(transparent)]
    Input(#[from] InputError),
    #[error("cannot make a directory for the demo's socket in {path}: {source}. Set TMPDIR to a directory that you may write to", path = std::env::temp_dir().display())]
    Directory { source: io::Error },
    #[error(transparent)]
    Bind(#[from] memit::BindError),
    #[error("cannot start the renderer processes: {source}")]
    Start { source: io::Error },
    #[error("cannot wait for signals: {source}")]
    Signals { source: io::Error },
    #[error("dispatching failed: {source}")]
    Dispatch { source: memit::RunError },
    #[error("interrupted by signal {signal}")]
    Interrupted { signal: i32 },
    #[error("the demo failed:\n  {}", failures.join("\n  "))]
    Failed { failures: Vec<String> },
    #[error(transparent)]
    Output(#[from] OutputError),
}

impl Demo {
    pub(crate) fn run(self) -> Result<(), DemoError> {
        let input = Input::new(self.input.clone());
        let length = input.check()?;

        // A directory of its own, so that nothing of this run stays in the one that all apps share.
        let directory = tempfile::Builder::new()
            .prefix("memit-demo-")
            .permissions(Permissions::from_mode(0o700))
            .tempdir()
            .map_err(|source| DemoError::Directory { source })?;
        let app = format!("demo-{}-{:016x}", process::id(), RandomState::new().hash_one(()));
        let main = IpcMain::builder().runtime_dir(directory.path()).bind(&app)?;

        let tally = Shared::default();
        let mut progress = Progress::new(length.saturating_mul(u64::from(self.renderers)));
        let runs = listeners::listen(&main, &tally, move |lines, bytes| progress.show(lines, bytes));

        let signalled = Arc::new(AtomicI32::new(0));
        let (handle, signal) = (main.clone(), Arc::clone(&signalled));
        interrupt::on_interrupt(move |number| {
            signal.store(number, Ordering::Relaxed);
            handle.shutdown();
        })
        .map_err(|source| DemoError::Signals { source })?;

        let (on_start, on_end, handle) = (tally.clone(), tally.clone(), main.clone());
        let children = Children::start(
            self.renderers,
            directory.path(),
            |number| self.renderer_arguments(&app, number, &input),
            move |number, pid| on_start.lock().started(number, pid),
            move |number, fault| {
                let mut tally = on_end.lock();
                tally.ended(number, fault);
                if tally.is_over() {
                    handle.shutdown();
                }
            },
        )
        .map_err(|source| DemoError::Start { source })?;

        main.run().map_err(|source| DemoError::Dispatch { source })?;
        main.shutdown();
        children.wait();
        match signalled.load(Ordering::Relaxed) {
            0 => self.conclude(&mut tally.lock(), &runs, &input),
            signal => Err(DemoError::Interrupted { signal }),
        }
    }

    fn renderer_arguments(&self, app: &str, number: u32, input: &Input) -> Vec<OsString> {
        let mut arguments: Vec<OsString> =
            vec!["demo-renderer".into(), "--app".into(), app.into(), "--number".into(), number.to_string().into()];
        if let Some(path) = input.path() {
            // In one argument, so that a file whose name begins with a dash is not taken for an option.
            let mut argument = OsString::from("--input=");
            argument.push(path);
            arguments.push(argument);
        }
        if self.deaf {
            arguments.push("--deaf".into());
        }
        arguments
    }

    /// Prints what came of it.
    fn conclude(&self, tally: &mut Tally, runs: &Runs, input: &Input) -> Result<(), DemoError> {
        for failure in runs.failures() {
            tally.fail(failure);
        }
        let failures = tally.failures();
        if self.json {
            output::line(&report::json(tally, &input.name(), self.deaf))?;
        } else {
            output::text(&report::table(tally))?;
            if failures.is_empty() {
                let who = match self.renderers {
                    1 => "the renderer".into(),
                    count => format!("each of {count} renderers"),
                };
                output::line(&format!("ok: {who} sent {} and the main received it unchanged", input.name()))?;
            }
        }
        if failures.is_empty() { Ok(()) } else { Err(DemoError::Failed { failures }) }
    }
}
