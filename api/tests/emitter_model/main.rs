//! Whatever programs do with an emitter, inside of listeners and outside, it does what Node's `EventEmitter` would.
//!
//! A random program runs twice: over a real connection, and by a plain model of Node's rules. Both write down what ran
//! and what was answered, in order, and the two accounts must be the same.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod endpoint;
mod model;
mod program;
#[path = "../support/mod.rs"]
mod support;

use proptest::prelude::*;

use self::program::programs;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(250))]

    #[test]
    fn an_endpoint_treats_its_listeners_as_node_would(program in programs()) {
        let expected = model::run(&program);
        let found = endpoint::run(program);
        prop_assert_eq!(found, expected);
    }
}
