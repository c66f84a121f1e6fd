//! What the benchmarks of memit share: pinned processes, and the machine's own limit to compare with.
//!
//! Machines drift, virtual ones most of all. So a figure is always a ratio: right before and right after each short
//! segment of a candidate, the same two pinned processes bounce a bare cache line, and the segment counts only if the
//! two probes agree.

#![warn(missing_docs)]

pub mod machine;
pub mod ping_pong;
pub mod ratio;
pub mod sealed;
pub mod shared;
pub mod transfer;
