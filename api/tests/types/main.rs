//! Messages, schemas and dynamic values, without a connection.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod borrowed;
mod depth;
mod dynamic;
mod hostile;
#[path = "../common/nested.rs"]
mod nested;
mod plain;
mod random;
mod round_trip;
mod schemas;
mod support;
