//! What the fuzzers of this crate run; `fuzz/` at the root has the targets, and the tests here replay their corpora.
//!
//! | target | input |
//! |---|---|
//! | `ring_operations` | what an honest producer and consumer do, compared with a plain queue |
//! | `ring_hostile` | what a producer writes, or a consumer says, that keeps no rule |
#![allow(unreachable_pub, reason = "public to the fuzzers alone")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::cast_possible_truncation, reason = "these are tests")]

mod hostile;
mod operations;

pub use hostile::ring_hostile;
pub use operations::ring_operations;

#[cfg(test)]
#[path = "../../../fuzz/replay.rs"]
mod replay;

#[cfg(test)]
mod tests {
    use super::replay::replay;

    #[test]
    fn corpus_of_ring_operations() {
        replay("ring_operations", &[], super::ring_operations);
    }

    #[test]
    fn corpus_of_ring_hostile() {
        replay("ring_hostile", &[], super::ring_hostile);
    }
}
