//! Models: small programs of a few threads, of which loom runs every interleaving and every value that a load may
//! return. `ci/models.sh` runs them.
//!
//! They run the crate's own `doorbell`, `call`, `end`, `outbox` and `payload`, which `--cfg loom` builds on loom's atomics.
//! What lies under these is [`sys`] here, and what lies above them [`link`]: a few lines each, of what
//! `crate::link` does between their calls.
//!
//! | file       | what is modelled                                                                |
//! |------------|---------------------------------------------------------------------------------|
//! | `data`     | the dispatching thread sleeps for frames; both kinds of barrier, and none       |
//! | `space`    | several senders sleep for space; one gives up; the connection ends              |
//! | `replies`  | reply slots: late answers, calls given up, callers that sleep                   |
//! | `slots`    | callers that wait for a slot                                                    |
//! | `crossing` | the two dispatching threads call each other                                     |
//! | `guard`    | threads and a queue that wait until the guard of a ring is let go               |
//! | `blocks`   | payload memory: read, given back, written again; retired; threads that wait     |
//! | `end`      | two threads end a connection at once                                            |
//!
//! loom treats sequentially consistent accesses as weaker than they are, and fences exactly; so the modelled parts use
//! fences. It reports a lost wake-up as a deadlock.
#![allow(clippy::unwrap_used)]

pub(crate) mod link;
pub(crate) mod sys;

#[cfg(test)]
mod barrier;
#[cfg(test)]
mod blocks;
#[cfg(test)]
mod crossing;
#[cfg(test)]
mod data;
#[cfg(test)]
mod end;
#[cfg(test)]
#[path = "../../../ringbuf/tests/loom_support/explore.rs"]
mod explore;
#[cfg(test)]
mod frames;
#[cfg(test)]
mod guard;
#[cfg(test)]
mod replies;
#[cfg(test)]
mod slots;
#[cfg(test)]
mod space;
