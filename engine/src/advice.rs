//! What to do about a call that the machine refused.

use std::{fmt, io};

/// Shows as what to do about an error, behind a semicolon, or as nothing where that is not known.
pub(crate) struct Advice(Option<&'static str>);

/// What to do about `error`.
pub(crate) fn about(error: &io::Error) -> Advice {
    Advice(error.raw_os_error().and_then(|number| {
        Some(match number {
            libc::EMFILE => "raise the limit on open files (ulimit -n), or close some",
            libc::ENFILE => "the whole system has no descriptor left: close some, or raise fs.file-max",
            libc::ENOMEM | libc::ENOBUFS => "free memory, or raise the limit on address space (ulimit -v)",
            // Of all that happens here only a thread's start gives it.
            libc::EAGAIN => "raise the limit on threads (ulimit -u), or end some",
            _ => return None,
        })
    }))
}

impl Advice {
    pub(crate) const fn none() -> Self {
        Self(None)
    }

    /// This one, or else another.
    pub(crate) fn or(self, other: &'static str) -> Self {
        Self(self.0.or(Some(other)))
    }
}

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |what| write!(f, "; {what}"))
    }
}
