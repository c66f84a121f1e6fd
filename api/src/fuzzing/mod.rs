//! What the fuzzers of this crate run; `fuzz/` at the root has the targets, and the tests here replay their corpora.
//!
//! | target | input |
//! |---|---|
//! | `dynamic_values` | bytes that are taken for dynamic values |
//! | `typed_archives` | bytes that are taken for messages of several types |
//! | `schemas` | channels that a peer announces with any schema, and what it sends on them |
//! | `emitter` | what listeners do, among it to each other, compared with a plain model of Node's rules |
#![allow(unreachable_pub, missing_docs, reason = "public to the fuzzers alone, and told above")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::cast_possible_truncation, reason = "these are tests")]

mod archives;
#[cfg(test)]
mod damage;
mod emitter;
mod pair;
mod schemas;

pub use archives::{dynamic_values, typed_archives};
pub use emitter::emitter;
pub use schemas::schemas;

#[cfg(test)]
#[path = "../../../fuzz/replay.rs"]
mod replay;

#[cfg(test)]
mod tests {
    use super::{archives::seeds, replay::replay};

    #[test]
    fn corpus_of_dynamic_values() {
        replay("dynamic_values", &seeds::dynamic(), super::dynamic_values);
    }

    #[test]
    fn corpus_of_typed_archives() {
        replay("typed_archives", &seeds::typed(), super::typed_archives);
    }

    #[test]
    fn corpus_of_schemas() {
        replay("schemas", &[], super::schemas);
    }

    #[test]
    fn corpus_of_emitter() {
        replay("emitter", &[], super::emitter);
    }
}
