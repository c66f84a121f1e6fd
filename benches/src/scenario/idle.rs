//! One renderer that is active among many that are not, and what a main costs when nobody is.
//!
//! There are two mains in the main's process. The first has one renderer, the second as many as the row says; a segment
//! of round trips through the second is compared with those through the first right before and right after.

use std::thread;
use std::time::{Duration, Instant};

use memit::WaitStrategy;
use rustix::process::{Resource, getrlimit};

use super::pair::Pair;
use super::{Report, answer};
use crate::Result;
use crate::counting::cpu::CpuClock;
use crate::machine::unpinned;
use crate::message::{self, Tick};
use crate::peer::Peer;
use crate::ratio::per_round;
use crate::row::Row;
use crate::setting::{Pace, Setting};
use crate::stage::{APP, Cast, SECOND_APP, Stage};
use crate::times::Laps;

pub(super) const ROLE: &str = "idle";

const RENDERERS: &[usize] = &[1, 10, 100, 1000];
const QUICK_RENDERERS: &[usize] = &[1, 1000];

/// Rings of idle renderers are as small as they can be.
const RING: usize = 4096;
/// Descriptors that a connection takes on one side, at most, and those that a process needs besides.
const DESCRIPTORS: u64 = 6;
const OTHER_DESCRIPTORS: u64 = 100;

/// How long an idle main is watched.
const WATCHED: Duration = Duration::from_secs(5);
const QUICKLY_WATCHED: Duration = Duration::from_secs(2);

pub(super) fn peer(peer: &Peer) -> Result<()> {
    let (len, count) = (peer.number(0)?, peer.number(1)?);
    let alone = peer.builder().connect(APP)?;
    let mut among = Vec::new();
    for _ in 0..count {
        among.push(peer.builder().ring_capacity(RING).connect(SECOND_APP)?);
    }
    peer.pin()?;
    answer::answer::<Tick>(&alone, len);
    peer.obey_common(&alone);
    let active = among.first().ok_or("no connection is asked for")?;
    answer::answer::<Tick>(active, len);
    // It has the core of the thread that starts it.
    thread::scope(|scope| {
        let one = scope.spawn(|| alone.run());
        active.run()?;
        Ok(one.join().map_err(|_| "the thread of the first connection panicked")??)
    })
}

pub(super) fn measure(setting: &Setting, report: &mut Report<'_>) -> Result<()> {
    let len = setting.payload_or(message::LEN);
    let counts = if setting.quick { QUICK_RENDERERS } else { RENDERERS };
    for &count in counts {
        let limit = getrlimit(Resource::Nofile).maximum;
        let needed = DESCRIPTORS * count as u64 + OTHER_DESCRIPTORS;
        if limit.is_some_and(|limit| limit < needed) {
            return Err(format!(
                "{count} renderers take up to {needed} descriptors in each process, and the hard limit is {}; raise \
                 it, for instance with ulimit -Hn",
                limit.unwrap_or_default()
            )
            .into());
        }
        let numbers = [len as u64, count as u64];
        let cast = Cast {
            numbers: &numbers,
            connections: [1, count],
            configure: |builder| builder.ring_capacity(RING),
            ..Cast::new(ROLE, WaitStrategy::Park)
        };
        let stage = Stage::set(setting, &cast)?;
        round_trips(&stage, report, len, count)?;
        if Some(&count) == counts.last() {
            nothing(&stage, report, len, count)?;
        }
    }
    Ok(())
}

fn round_trips(stage: &Stage, report: &mut Report<'_>, len: usize, count: usize) -> Result<()> {
    let plan = stage.setting.plan(Pace::Park, len);
    let mut alone = Pair::new(&stage.main, len)?;
    let mut among = Pair::new(stage.second.as_ref().ok_or("there is no second main")?, len)?;
    let with_one = move || {
        let began = Instant::now();
        for _ in 0..plan.probe {
            alone.round()?;
        }
        Ok(per_round(began.elapsed(), plan.probe))
    };
    let outcome = stage.course(plan, Box::new(with_one))?.drive(|rounds, laps: &mut Laps| {
        let began = laps.begin();
        for _ in 0..rounds {
            among.round()?;
            laps.lap();
        }
        Ok(began.elapsed())
    })?;
    report(Row::empty(&stage.setting, "idle", WaitStrategy::Park, len).with("with one", &outcome).peers(count))
}

/// The CPU time of this process while both mains wait and nobody sends anything.
fn nothing(stage: &Stage, report: &mut Report<'_>, len: usize, count: usize) -> Result<()> {
    let second = stage.second.as_ref().ok_or("there is no second main")?;
    let watched = if stage.setting.quick { QUICKLY_WATCHED } else { WATCHED };
    let clock = CpuClock::of(std::process::id())?;
    let (began, before) = (Instant::now(), clock.now()?);
    let first = stage.main.clone();
    // Its renderer says nothing either.
    let waiting = unpinned(&stage.setting.allowed, || thread::spawn(move || first.run_once(watched)))?;
    let handled = second.run_once(watched)?;
    let (used, took) = (clock.now()? - before, began.elapsed());
    let others = waiting.join().map_err(|_| "the thread of the first main panicked")??;
    if handled + others > 0 {
        return Err(format!("{} messages came where nobody sends any", handled + others).into());
    }
    let percent = 100.0 * used.as_secs_f64() / took.as_secs_f64();
    let row = Row::empty(&stage.setting, "idle-cpu", WaitStrategy::Park, len).peers(count);
    report(Row { cpu_percent: Some(percent), ..row })
}
