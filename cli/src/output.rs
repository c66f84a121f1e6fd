//! Standard output, whose reader may go away at any time.

use std::io::{self, ErrorKind, Write};

/// Why something could not be printed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OutputError {
    /// Whoever read it has seen enough; that is no failure of ours.
    #[error("standard output was closed")]
    Closed,
    #[error("cannot write to standard output: {0}")]
    Failed(io::Error),
}

/// Prints `line` and a newline, and sees to it that a reader gets them now.
pub(crate) fn line(line: &str) -> Result<(), OutputError> {
    text(&format!("{line}\n"))
}

/// Prints `text`, and sees to it that a reader gets it now.
pub(crate) fn text(text: &str) -> Result<(), OutputError> {
    let mut stdout = io::stdout().lock();
    stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
        .map_err(|error| match error.kind() {
            ErrorKind::BrokenPipe => OutputError::Closed,
            _ => OutputError::Failed(error),
        })
}
