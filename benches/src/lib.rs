//! What the benchmarks of memit share: pinned processes, the machine's own limits, and the scenarios of `memit bench`.
//!
//! Machines drift, virtual ones most of all. So a figure is always a ratio: right before and right after each short
//! segment of a candidate, the same two pinned processes run the probe that it is compared with, and the segment counts
//! only if the two probes agree. Medians over the segments are what is told.
//!
//! | to do | see |
//! |---|---|
//! | run a scenario | [`scenario`]; a binary that does calls [`helper::run`] when it is started as a helper |
//! | start and end the peer process | [`stage`], [`process`], [`peer`] |
//! | go through the segments of a row | [`course`], [`ratio`], [`times`] |
//! | count CPU time, system calls and allocations | [`counting`] |
//! | compare with rivals | `rivals` and `report`, with the feature `rivals` |
//! | probe the machine | [`ping_pong`], [`futex_pong`], [`transfer`], [`probe`] |

#![warn(missing_docs)]

pub mod board;
pub mod counting;
pub mod course;
pub mod futex_pong;
pub mod helper;
pub mod machine;
pub mod message;
pub mod peer;
pub mod ping_pong;
pub mod probe;
pub mod process;
pub mod ratio;
#[cfg(feature = "rivals")]
pub mod report;
#[cfg(feature = "rivals")]
pub mod rivals;
pub mod row;
pub mod scenario;
pub mod sealed;
pub mod setting;
pub mod shared;
pub mod stage;
pub mod times;
pub mod transfer;

use std::error::Error;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What ends a measurement; the texts are for people.
pub type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Locks it, whatever a thread that panicked has left there.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
