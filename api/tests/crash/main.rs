//! Processes that are killed with SIGKILL, at named points of the library's code and at random times.
//!
//! Built with `--cfg crash_points` alone; `ci/crash.sh` does it. The test's own process is a survivor, and so are some
//! of its children; the others are victims. All of them note in a shared [`ledger`] what they are about to send, have
//! sent and have received.
//!
//! | file        | idea                                                                |
//! |-------------|---------------------------------------------------------------------|
//! | `ledger`    | counts that outlive a killed process                                |
//! | `letters`   | messages that say which they are and whether they are whole         |
//! | `traffic`   | what every endpoint does: send, call, answer, count                 |
//! | `roles`     | what the children do                                                |
//! | `victim`    | a child that is killed                                              |
//! | `leftovers` | descriptors, maps, shared memory and files, before and after        |
//! | `survivors` | endpoints of the test's own process, and what must hold of them     |
//! | `points`    | the list of all crash points, each reached                          |
//! | `random`    | kills at random times                                               |
#![cfg(crash_points)]
#![allow(unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::cast_possible_truncation)]

#[path = "../common/mod.rs"]
mod common;
mod ledger;
mod leftovers;
mod letters;
#[path = "../common/map.rs"]
mod map;
mod points;
mod random;
mod roles;
mod survivors;
mod traffic;
mod victim;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Within this time of a death everything that it ends has ended. Every timer of the library that could end it instead
/// is set to [`NEVER`].
const AT_ONCE: Duration = Duration::from_secs(10);
const NEVER: Duration = Duration::from_secs(24 * 3600);

/// The name that all mains bind.
const APP: &str = "app";

/// Held by each test: they look at what the process has open.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the other tests start as a child; nothing by itself.
#[test]
fn child_process() {
    if let Some((role, argument)) = common::role() {
        roles::play(&role, &argument);
    }
}
