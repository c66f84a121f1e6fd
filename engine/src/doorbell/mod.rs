//! Doorbells: how one process wakes another that sleeps, without a system call while nobody sleeps.
//!
//! The sleeper says that it sleeps in a word of its own outbox (`armed`), the waker rings a word of its own outbox
//! (`bell`) that the sleeper waits on. [`protocol`] decides when to ring, [`sleep`] is how to sleep and to ring without a
//! wake-up lost, `strategy` decides when to sleep; the barriers between them are `sys::barrier`, the waits `sys::futex`.
//!
//! [`release`] is for the threads of one process, which wait for each other.

#[cfg(not(loom))]
pub(crate) mod contention;
pub(crate) mod protocol;
pub(crate) mod release;
pub(crate) mod sleep;
#[cfg(not(loom))]
pub(crate) mod strategy;
