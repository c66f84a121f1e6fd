//! Many renderers that send to one main. They are connections of one process, which sends on each in turn.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use memit::{Failure, IpcRenderer, WaitStrategy};

use super::Report;
use crate::Result;
use crate::course::{Course, Outcome};
use crate::message::{self, Sample, Tick};
use crate::peer::{CONTROL, Order, Peer};
use crate::row::Row;
use crate::setting::{Pace, Setting};
use crate::stage::{APP, Cast, Stage};

pub(super) const ROLE: &str = "fan-in";

const RENDERERS: &[usize] = &[1, 2, 4, 8, 16, 32, 64];
const QUICK_RENDERERS: &[usize] = &[1, 8, 64];

/// Sends so many messages, on each connection in turn.
const SEND: u64 = Order::OWN;

pub(super) fn peer(peer: &Peer) -> Result<()> {
    let (len, count) = (peer.number(0)?, peer.number(1)?);
    let mut renderers = Vec::new();
    for _ in 0..count {
        renderers.push(peer.builder().connect(APP)?);
    }
    peer.pin()?;
    let first: &IpcRenderer = renderers.first().ok_or("no connection is asked for")?;
    // It is sent outside of the listener, in which a send would not wait for space.
    let asked = Arc::new(AtomicU64::new(0));
    let heard = Arc::clone(&asked);
    peer.obey(first, move |order, messages| {
        if order != SEND {
            return Err(Failure::new(format_args!("there is no order {order} for many renderers")));
        }
        heard.store(messages, Ordering::Relaxed);
        Ok(())
    });
    let mut tick = Tick::new(len);
    loop {
        first.run_once(Duration::MAX)?;
        let messages = asked.swap(0, Ordering::Relaxed);
        for (number, renderer) in (0..messages).zip(renderers.iter().cycle()) {
            tick.set(number);
            renderer.send(Tick::PING, &tick)?;
        }
    }
}

pub(super) fn measure(setting: &Setting, report: &mut Report<'_>) -> Result<()> {
    let len = setting.payload_or(message::LEN);
    let plan = setting.plan(Pace::Stream, len);
    for &count in if setting.quick { QUICK_RENDERERS } else { RENDERERS } {
        let numbers = [len as u64, count as u64];
        let cast = Cast { numbers: &numbers, connections: [count, 0], ..Cast::new(ROLE, WaitStrategy::Spin) };
        let stage = Stage::set(setting, &cast)?;
        let outcome = receive(&stage, stage.course(plan, stage.line(&plan))?)?;
        report(Row::empty(setting, "fan-in", WaitStrategy::Spin, len).with("bare line", &outcome).peers(count))?;
    }
    Ok(())
}

fn receive(stage: &Stage, course: Course) -> Result<Outcome> {
    let [count, sum] = [(); 2].map(|()| Arc::new(AtomicU64::new(0)));
    let (counted, summed) = (Arc::clone(&count), Arc::clone(&sum));
    // One thread dispatches, so nothing is lost between load and store.
    stage.main.on(Tick::PING, move |_, tick| {
        counted.store(counted.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        summed.store(summed.load(Ordering::Relaxed).wrapping_add(Tick::number(tick)), Ordering::Relaxed);
    });
    course.drive(|rounds, laps| {
        count.store(0, Ordering::Relaxed);
        sum.store(0, Ordering::Relaxed);
        let began = laps.begin();
        stage.peer.send(CONTROL, &(SEND, rounds))?;
        let mut before = 0;
        while before < rounds {
            stage.main.run_once(Duration::MAX)?;
            let now = count.load(Ordering::Relaxed);
            laps.laps(now - before);
            before = now;
        }
        let took = began.elapsed();
        let (found, sum) = (count.load(Ordering::Relaxed), sum.load(Ordering::Relaxed));
        if (found, sum) != (rounds, rounds * (rounds - 1) / 2) {
            return Err(format!("{rounds} messages were sent, and {found} came; they add up to {sum}").into());
        }
        Ok(took)
    })
}
