//! The end of a connection: once, for one reason, which whoever sees the end sees too.

use std::sync::OnceLock;

use crate::sync::{AtomicBool, Ordering};

/// Whether a connection lasts, and why not.
#[derive(Debug)]
pub(crate) struct End<R> {
    /// Cleared only when `reason` is there.
    open: AtomicBool,
    reason: OnceLock<R>,
}

impl<R: Clone> End<R> {
    pub(crate) fn new() -> Self {
        Self { open: AtomicBool::new(true), reason: OnceLock::new() }
    }

    /// Whether it has not come yet, as far as this thread has been told.
    #[inline(always)]
    pub(crate) fn is_open(&self) -> bool {
        self.open.load(Ordering::Relaxed)
    }

    /// Whether it has come. If so, what was done before is seen.
    #[inline(always)]
    pub(crate) fn is_over(&self) -> bool {
        // SYNC link-ended: acquire pairs with `end`.
        !self.open.load(Ordering::Acquire)
    }

    /// Why it has come; `None` while it has not.
    pub(crate) fn reason(&self) -> Option<R> {
        if self.is_over() { self.reason.get().cloned() } else { None }
    }

    /// Ends the connection, for this reason unless there is one. Whether there was none.
    pub(crate) fn end(&self, reason: R) -> bool {
        let is_first = self.reason.set(reason).is_ok();
        // Also by who comes second: the first may not have come to it, and neither goes on with a connection that lasts.
        // SYNC link-ended: release pairs with `is_over`.
        self.open.store(false, Ordering::Release);
        is_first
    }
}
