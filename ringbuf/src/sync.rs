//! The only place that names a source of atomics: `core`, or loom in a model.
//!
//! Mapped bytes cannot become loom atomics, so the raw-pointer memory always uses [`real`].

#[cfg(not(loom))]
pub(crate) use core::sync::atomic::{AtomicU64, Ordering, fence};
#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicU64, Ordering, fence};

/// The hardware's atomics, whatever the rest of the crate runs on.
pub(crate) mod real {
    pub(crate) use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
}
