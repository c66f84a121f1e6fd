//! Hostile peers: a program that shakes hands rightly and then is wicked, against a main and against a renderer.
//!
//! Each attack runs in a process of its own, written from docs/PROTOCOL.md without the engine (`wire`), against a victim in
//! another one, while honest renderers in this process exchange checked messages with the victim. Whatever the attack: the
//! victim neither crashes nor hangs, nothing wrong is delivered to the honest ones, nothing is lost, and when it is over,
//! the victim holds no more descriptors, maps, threads and memory than before. Where the attack breaks a rule, the
//! application is told which; [`attacks::Verdict`] says of each what becomes of it.
//!
//! `MEMIT_HOSTILE=full` runs each with a random seed, too, and measures: all but one in a hundred of the honest round trips
//! take no more than three times as long as between the attacks, in the same run. The victim's dispatching thread has a core
//! for itself, as far as this program goes; everybody else has another, and the attacker yields to them there. What the two
//! threads of a round trip waited for a processor is left out (see [`waiting`]): what is measured is what the attack makes
//! memit do, not what a scheduler makes of programs that never sleep. Where programs other than these take the core of the
//! dispatching thread, the last hundredth is theirs; such windows are left out, and a run without another says that it was
//! not measured. `MEMIT_HOSTILE_SEED` replays a seed, `MEMIT_HOSTILE_ATTACK` chooses attacks.
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
mod waiting;
mod wire;

use std::sync::{Mutex, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use attacks::{FAMILIES, Order};
use support::common::role;

/// What the tests start as a child; nothing by itself.
#[test]
fn child_process() {
    let Some((role, argument)) = role() else { return };
    match role.as_str() {
        "victim" => victim::live(&argument),
        "fuse" => attacks::fuse::serve(&argument),
        "attacker" => attacks::carry_out(&Order::parse(&argument)),
        unknown => panic!("unknown role {unknown}"),
    }
}

const DEADLINE: Duration = Duration::from_secs(300);

/// Held by each test: they share two cores, and what else runs there is measured, too.
static ALONE: Mutex<()> = Mutex::new(());

fn family(name: &str) {
    if role().is_some() {
        return;
    }
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let (_, attacks) = FAMILIES.iter().find(|(found, _)| *found == name).unwrap();
    let (done, ended) = mpsc::channel();
    let test = thread::spawn(move || {
        supervise::family(attacks);
        let _ = done.send(());
    });
    // Each wait has a deadline of its own; this is for those that nobody has thought of.
    match ended.recv_timeout(DEADLINE) {
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("{name} hangs: it did not end within {DEADLINE:?}"),
        _ => test.join().unwrap_or_else(|panicked| std::panic::resume_unwind(panicked)),
    }
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
    scribble,
    heads,
    bits,
    payloads,
    bells,
    space,
    calls,
    channels,
    handshakes,
    descriptors,
    memories,
    lengths,
    one_way
);
