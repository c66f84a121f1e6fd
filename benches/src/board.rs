//! The words that the processes of a measurement share: the first page of their [`Shared`](crate::shared::Shared).
//!
//! Each has two cache lines to itself, for processors that fetch lines in pairs.

/// The bare cache line: the asking side writes the one, the answering side the other.
pub const LINE_THERE: usize = 0;
/// See [`LINE_THERE`].
pub const LINE_BACK: usize = 128;
/// The raw futex: the asking side writes the one, the answering side the other.
pub const FUTEX_THERE: usize = 256;
/// See [`FUTEX_THERE`].
pub const FUTEX_BACK: usize = 384;
/// The heads of the two raw rings: the first is written by who reads the main's ring, the second by the main.
pub const HEADS: [usize; 2] = [512, 640];
/// System calls of all traced threads; the tracer writes it.
pub const CALLS: usize = 768;
/// How far the tracer is: one of the `TRACER_` numbers. The tracer writes it.
pub const TRACER: usize = 896;
/// Allocations of the peer process, which writes it.
pub const ALLOCATIONS: usize = 1024;
/// Messages that were copied in by hand; the copying side writes it.
pub const WRITTEN: usize = 1152;
/// Messages that were copied out by hand; the other side writes it.
pub const READ: usize = 1280;
/// Where the board ends, and what a scenario shares besides may begin.
pub const LEN: usize = 4096;

/// The tracer has not said anything.
pub const TRACER_STARTS: u64 = 0;
/// Each system call is counted.
pub const TRACER_COUNTS: u64 = 1;
/// System calls cannot be counted here.
pub const TRACER_FAILED: u64 = 2;

const _: () = assert!(READ + 128 <= LEN);
