//! `send_sync`: the main calls the peer, from a thread that does not dispatch.

use memit::WaitStrategy;

use super::{Report, answer};
use crate::Result;
use crate::course::Course;
use crate::message::{self, PlainTick, Sample, Tick};
use crate::row::Row;
use crate::setting::{Pace, Setting};
use crate::stage::{Cast, Stage};

pub(super) fn spinning(setting: &Setting, report: &mut Report<'_>) -> Result<()> {
    rows(setting, report, "sync", WaitStrategy::Spin)
}

pub(super) fn parked(setting: &Setting, report: &mut Report<'_>) -> Result<()> {
    rows(setting, report, "sync-park", WaitStrategy::Park)
}

fn rows(setting: &Setting, report: &mut Report<'_>, name: &str, wait: WaitStrategy) -> Result<()> {
    let len = setting.payload_or(message::LEN);
    let stage = Stage::set(setting, &Cast { numbers: &[len as u64], ..Cast::new(answer::ROLE, wait) })?;
    row::<Tick>(&stage, report, name, wait, len)?;
    if len == message::LEN {
        row::<PlainTick>(&stage, report, name, wait, len)?;
    }
    Ok(())
}

fn row<T: Sample>(stage: &Stage, report: &mut Report<'_>, name: &str, wait: WaitStrategy, len: usize) -> Result<()> {
    let (course, limit) = if wait == WaitStrategy::Park {
        let plan = stage.setting.plan(Pace::Park, len);
        (stage.course(plan, stage.futex(&plan))?, "raw futex")
    } else {
        let plan = stage.setting.plan(Pace::Spin, len);
        (stage.course(plan, stage.line(&plan))?, "bare line")
    };
    let outcome = calls::<T>(stage, course, len)?;
    report(Row::empty(&stage.setting, format!("{name}{}", T::SUFFIX), wait, len).with(limit, &outcome))
}

fn calls<T: Sample>(stage: &Stage, course: Course, len: usize) -> Result<crate::course::Outcome> {
    let mut tick = T::new(len);
    course.drive(|rounds, laps| {
        let began = laps.begin();
        for number in 0..rounds {
            tick.set(number);
            let answer = stage.peer.send_sync(T::CALL, &tick)?.to_native();
            if answer != number {
                return Err(format!("the answer to call {number} is {answer}").into());
            }
            laps.lap();
        }
        Ok(began.elapsed())
    })
}
