//! Standard output, whose reader may go away at any time.

use std::io::{self, ErrorKind, Write};

/// Whether anybody reads standard output. That nobody does is no failure: they have seen enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reader {
    Here,
    Gone,
}

/// Something could not be printed, and not because its reader is gone.
#[derive(Debug, thiserror::Error)]
#[error("cannot write to standard output: {0}")]
pub(crate) struct OutputError(io::Error);

/// Prints `line` and a newline, and sees to it that a reader gets them now.
pub(crate) fn line(line: &str) -> Result<Reader, OutputError> {
    text(&format!("{line}\n"))
}

/// Prints `text`, and sees to it that a reader gets it now.
pub(crate) fn text(text: &str) -> Result<Reader, OutputError> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(Reader::Here),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(Reader::Gone),
        Err(error) => Err(OutputError(error)),
    }
}
