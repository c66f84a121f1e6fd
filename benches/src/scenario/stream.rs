//! One way, as fast as the peer takes it: by the guard of one thread, or by `send` of two.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;

use memit::{Channel, IpcRenderer, SendError, Sender, WaitStrategy};

use super::Report;
use crate::Result;
use crate::course::{Course, Outcome};
use crate::machine::{self, unpinned};
use crate::message::{self, PlainTick, Sample, Tick};
use crate::peer::Peer;
use crate::row::Row;
use crate::setting::{Pace, Setting};
use crate::stage::{APP, Cast, Stage};
use crate::times::Laps;

pub(super) const ROLE: &str = "stream";

/// Asks how many messages came since it was asked last, and what their numbers add up to.
const CAME: Channel<(), (u64, u64)> = Channel::new("came");

pub(super) fn peer(peer: &Peer) -> Result<()> {
    let renderer = peer.builder().connect(APP)?;
    peer.pin()?;
    let [count, sum] = [(); 2].map(|()| Arc::new(AtomicU64::new(0)));
    count_in::<Tick>(&renderer, &count, &sum);
    count_in::<PlainTick>(&renderer, &count, &sum);
    renderer.on(CAME, move |event, ()| {
        event.set_return_value(&(count.swap(0, Ordering::Relaxed), sum.swap(0, Ordering::Relaxed)))
    });
    peer.obey_common(&renderer);
    Ok(renderer.run()?)
}

/// Counts the messages of one kind. One thread dispatches, so nothing is lost between load and store.
fn count_in<T: Sample>(renderer: &IpcRenderer, count: &Arc<AtomicU64>, sum: &Arc<AtomicU64>) {
    let (count, sum) = (Arc::clone(count), Arc::clone(sum));
    renderer.on(T::PING, move |_, tick| {
        count.store(count.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        sum.store(sum.load(Ordering::Relaxed).wrapping_add(T::number(tick)), Ordering::Relaxed);
    });
}

pub(super) fn alone(setting: &Setting, report: &mut Report<'_>) -> Result<()> {
    rows(setting, report, "stream", alone_by::<Tick>, alone_by::<PlainTick>)
}

pub(super) fn shared(setting: &Setting, report: &mut Report<'_>) -> Result<()> {
    rows(setting, report, "stream-shared", shared_by::<Tick>, shared_by::<PlainTick>)
}

type Way = fn(&Stage, Course, usize) -> Result<Outcome>;

fn rows(setting: &Setting, report: &mut Report<'_>, name: &str, typed: Way, plain: Way) -> Result<()> {
    let len = setting.payload_or(message::LEN);
    let plan = setting.plan(Pace::Stream, len);
    let stage = Stage::set(setting, &Cast::new(ROLE, WaitStrategy::Spin))?;
    for (way, suffix) in [(typed, Tick::SUFFIX), (plain, PlainTick::SUFFIX)] {
        if suffix == PlainTick::SUFFIX && len != message::LEN {
            continue;
        }
        let outcome = way(&stage, stage.course(plan, stage.line(&plan))?, len)?;
        let row = Row::empty(setting, format!("{name}{suffix}"), WaitStrategy::Spin, len);
        report(row.with("bare line", &outcome))?;
    }
    Ok(())
}

/// Has the messages with these numbers sent.
fn push<T: Sample>(
    tick: &mut T,
    numbers: std::ops::Range<u64>,
    mut send: impl FnMut(&T) -> std::result::Result<(), SendError>,
) -> std::result::Result<(), SendError> {
    for number in numbers {
        tick.set(number);
        send(tick)?;
    }
    Ok(())
}

/// Waits until all messages with numbers below `count` have come.
fn all_came(peer: &Sender, count: u64) -> Result<()> {
    let came = peer.send_sync(CAME, &())?;
    let (found, sum) = (came.0.to_native(), came.1.to_native());
    let expected = count * count.saturating_sub(1) / 2;
    if (found, sum) != (count, expected) {
        return Err(format!("{count} messages were sent, and {found} came; their numbers add up to {sum}").into());
    }
    Ok(())
}

fn alone_by<T: Sample>(stage: &Stage, course: Course, len: usize) -> Result<Outcome> {
    let (channel, mut tick) = (stage.peer.to(T::PING)?, T::new(len));
    course.drive(|rounds, laps| {
        let began = laps.begin();
        let mut guard = channel.exclusive()?;
        push(&mut tick, 0..rounds, |tick| {
            guard.send(tick)?;
            laps.lap();
            Ok(())
        })?;
        drop(guard);
        all_came(&stage.peer, rounds)?;
        Ok(began.elapsed())
    })
}

/// The second thread has a core of its own, if there is a third one, and else shares that of the first.
fn shared_by<T: Sample>(stage: &Stage, course: Course, len: usize) -> Result<Outcome> {
    let (tell, told) = mpsc::channel();
    let (report, reported) = mpsc::channel();
    let (peer, mut tick) = (stage.peer.clone(), T::new(len));
    let core = if machine::numbers(&stage.setting.allowed).len() > 2 { 2 } else { 0 };
    let start = || {
        thread::Builder::new().name("bench-sender".into()).spawn(move || {
            let pinned = machine::pin(core);
            for numbers in told {
                let sent = push(&mut tick, numbers, |tick| peer.send(T::PING, tick));
                if pinned.is_err() || report.send(sent).is_err() {
                    return;
                }
            }
        })
    };
    let second = unpinned(&stage.setting.allowed, start)??;
    let mut tick = T::new(len);
    let outcome = course.drive(|rounds, laps: &mut Laps| {
        let began = laps.begin();
        tell.send(rounds / 2..rounds)?;
        push(&mut tick, 0..rounds / 2, |tick| {
            stage.peer.send(T::PING, tick)?;
            laps.lap();
            Ok(())
        })?;
        reported.recv()??;
        all_came(&stage.peer, rounds)?;
        Ok(began.elapsed())
    });
    drop(tell);
    second.join().map_err(|_| "the second sender panicked")?;
    outcome
}
