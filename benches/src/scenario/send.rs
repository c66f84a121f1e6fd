//! `send`/`on`, there and back.

use memit::WaitStrategy;

use super::{Report, answer};
use crate::Result;
use crate::course::{Outcome, Volley};
use crate::message::{self, PlainTick, Sample, Tick};
use crate::row::Row;
use crate::setting::{Pace, Setting};
use crate::stage::{Cast, Stage};

pub(super) fn spinning(setting: &Setting, report: &mut Report<'_>) -> Result<()> {
    rows(setting, report, "send", WaitStrategy::Spin)
}

pub(super) fn parked(setting: &Setting, report: &mut Report<'_>) -> Result<()> {
    rows(setting, report, "send-park", WaitStrategy::Park)
}

fn rows(setting: &Setting, report: &mut Report<'_>, name: &str, wait: WaitStrategy) -> Result<()> {
    let len = setting.payload_or(message::LEN);
    row::<Tick>(setting, report, name, wait, len)?;
    if len == message::LEN {
        row::<PlainTick>(setting, report, name, wait, len)?;
    }
    Ok(())
}

fn row<T: Sample>(
    setting: &Setting,
    report: &mut Report<'_>,
    name: &str,
    wait: WaitStrategy,
    len: usize,
) -> Result<()> {
    let stage = Stage::set(setting, &Cast { numbers: &[len as u64], ..Cast::new(answer::ROLE, wait) })?;
    let (outcome, limit) = match wait {
        WaitStrategy::Park => {
            let plan = setting.plan(Pace::Park, len);
            (volley::<T>(&stage, stage.course(plan, stage.futex(&plan))?, len)?, "raw futex")
        }
        _ => {
            let plan = setting.plan(Pace::Spin, len);
            (volley::<T>(&stage, stage.course(plan, stage.line(&plan))?, len)?, "bare line")
        }
    };
    report(Row::empty(setting, format!("{name}{}", T::SUFFIX), wait, len).with(limit, &outcome))
}

fn volley<T: Sample>(stage: &Stage, course: crate::course::Course, len: usize) -> Result<Outcome> {
    let (mut volley, ended) = Volley::new(course, &stage.main);
    let (peer, mut tick) = (stage.peer.clone(), T::new(len));
    tick.set(1);
    peer.send(T::PING, &tick)?;
    // The listener owns all of it: nothing is locked in the rounds that are measured.
    stage.main.on(T::PONG, move |_, pong| {
        volley.answered(T::number(pong), |number| {
            tick.set(number);
            Ok(peer.send(T::PING, &tick)?)
        })
    });
    ended.wait(&stage.main)
}
