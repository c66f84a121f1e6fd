//! Hostile peers: a program that shakes hands rightly and then is wicked, against a main and against a renderer.
//!
//! Each attack runs in a process of its own, written from docs/PROTOCOL.md without the engine (`wire`), against a victim in
//! another one, while honest renderers in this process exchange checked messages with the victim. Whatever the attack: the
//! victim neither crashes nor hangs, nothing wrong is delivered to the honest ones, nothing is lost, and when it is over,
//! the victim holds no more descriptors, maps, threads and memory than before. Where the attack breaks a rule, the
//! application is told which; [`attacks::Verdict`] says of each what becomes of it.
//!
//! `MEMIT_HOSTILE=full` runs each with a random seed, too, and measures: all but one in a hundred of the honest round trips
//! take no more than three times as long as between the attacks, in the same run. Victim and honest renderers have one core
//! for themselves then, the attacker another: what is measured is what the attack makes memit do, not what a scheduler
//! makes of a process that never sleeps. `MEMIT_HOSTILE_SEED` replays a seed, `MEMIT_HOSTILE_ATTACK` chooses attacks.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::cast_possible_truncation, unreachable_pub)]

#[path = "../support/mod.rs"]
mod support;

mod attacks;
mod honest;
mod message;
mod seed;
mod snapshot;
mod supervise;
mod victim;
mod wire;

use std::sync::{Mutex, PoisonError};

use attacks::{FAMILIES, Order};
use support::common::role;

/// What the tests start as a child; nothing by itself.
#[test]
fn child_process() {
    let Some((role, argument)) = role() else { return };
    match role.as_str() {
        "victim" => victim::live(&argument),
        "attacker" => attacks::carry_out(&Order::parse(&argument)),
        unknown => panic!("unknown role {unknown}"),
    }
}

/// Held by each test: they share two cores, and what else runs there is measured, too.
static ALONE: Mutex<()> = Mutex::new(());

fn family(name: &str) {
    if role().is_some() {
        return;
    }
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let (_, attacks) = FAMILIES.iter().find(|(found, _)| *found == name).unwrap();
    supervise::family(attacks);
}

macro_rules! families {
    ($($name:ident),*) => {
        $(#[test] fn $name() { family(stringify!($name)); })*

        #[test]
        fn every_family_is_tested() {
            assert_eq!(FAMILIES.iter().map(|(name, _)| *name).collect::<Vec<_>>(), [$(stringify!($name)),*]);
        }
    };
}

families!(
    scribble, heads, bits, payloads, bells, space, calls, channels, handshakes, descriptors, memories, lengths, one_way
);
