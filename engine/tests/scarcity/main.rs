//! What happens when the machine, a limit or a sandbox refuses something: a clear error, or a slower way that delivers
//! everything; never a hang, never a crash, and a main goes on serving the renderers that it has.
//!
//! Each test runs a process that is short of something, which is this program started once more: limits and filters hold
//! for a whole process and do not all go away again.
#![allow(unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/seccomp.rs"]
mod seccomp;

mod child;
mod descriptors;
mod memory;
mod names;
mod places;
mod refused;
mod runtime_dir;
mod seals;

use common::within_deadline;

/// What the tests start as children; nothing by itself.
#[test]
fn child_process() {
    let Some((role, dir)) = child::role() else { return };
    within_deadline(move || {
        let (topic, role) = role.split_once(' ').unwrap();
        match topic {
            "descriptors" => descriptors::play(role, &dir),
            "memory" => memory::play(role, &dir),
            "names" => names::play(role, &dir),
            "refused" => refused::play(role, &dir),
            "runtime-dir" => runtime_dir::play(role, &dir),
            "seals" => seals::play(role, &dir),
            unknown => panic!("unknown topic {unknown}"),
        }
    });
}
