//! One message to many renderers, and an answer when all have it. They are connections of one process, which looks at
//! each in turn.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use memit::{IpcRenderer, RunError, WaitStrategy};

use super::Report;
use crate::Result;
use crate::course::{Course, Outcome};
use crate::message::{self, Sample, Tick};
use crate::peer::Peer;
use crate::row::Row;
use crate::setting::{Pace, Setting};
use crate::stage::{APP, Cast, Stage};

pub(super) const ROLE: &str = "broadcast";

const RENDERERS: &[usize] = &[1, 8, 64];

pub(super) fn peer(peer: &Peer) -> Result<()> {
    let (len, count) = (peer.number(0)?, peer.number(1)?);
    let mut renderers: Vec<IpcRenderer> = Vec::new();
    // How many have the message; its number is that of the round.
    let have = Arc::new(AtomicU64::new(0));
    for _ in 0..count {
        let renderer = peer.builder().connect(APP)?;
        let have = Arc::clone(&have);
        let first = renderers.first().map_or_else(|| renderer.sender().clone(), |first| first.sender().clone());
        let mut pong = Tick::new(len);
        renderer.on(Tick::PING, move |_, tick| {
            if have.fetch_add(1, Ordering::Relaxed) + 1 < count as u64 {
                return Ok(());
            }
            have.store(0, Ordering::Relaxed);
            pong.set(Tick::number(tick));
            first.send(Tick::PONG, &pong)
        });
        renderers.push(renderer);
    }
    peer.pin()?;
    peer.obey_common(renderers.first().ok_or("no connection is asked for")?);
    loop {
        for renderer in &renderers {
            match renderer.poll() {
                Ok(_) => {}
                Err(RunError::Disconnected(_)) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

pub(super) fn measure(setting: &Setting, report: &mut Report<'_>) -> Result<()> {
    let len = setting.payload_or(message::LEN);
    for &count in RENDERERS {
        // A message to each takes about as long as one that is so many times as long.
        let plan = setting.plan(Pace::Spin, len.max(4096) * count);
        let numbers = [len as u64, count as u64];
        let cast = Cast { numbers: &numbers, connections: [count, 0], ..Cast::new(ROLE, WaitStrategy::Spin) };
        let stage = Stage::set(setting, &cast)?;
        let outcome = rounds(&stage, stage.course(plan, stage.line(&plan))?, len)?;
        report(Row::empty(setting, "broadcast", WaitStrategy::Spin, len).with("bare line", &outcome).peers(count))?;
    }
    Ok(())
}

fn rounds(stage: &Stage, course: Course, len: usize) -> Result<Outcome> {
    let answered = Arc::new(AtomicU64::new(0));
    let heard = Arc::clone(&answered);
    stage.main.on(Tick::PONG, move |_, tick| heard.store(Tick::number(tick), Ordering::Relaxed));
    let (mut tick, mut number) = (Tick::new(len), 0);
    course.drive(|rounds, laps| {
        let began = laps.begin();
        for _ in 0..rounds {
            number += 1;
            tick.set(number);
            if let Some((renderer, error)) = stage.main.broadcast(Tick::PING, &tick).pop() {
                return Err(format!("{} did not get a message: {error}", renderer.peer()).into());
            }
            while answered.load(Ordering::Relaxed) != number {
                stage.main.run_once(Duration::MAX)?;
            }
            laps.lap();
        }
        Ok(began.elapsed())
    })
}
