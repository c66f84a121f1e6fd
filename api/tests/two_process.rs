//! The whole API between processes: the test is the main, its own binary started again is the renderer.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::collections::HashMap;

use memit::{Channel, Disconnect, IpcRenderer, Trust, WaitStrategy, args};
use support::{
    Log, PATIENCE, Rig,
    common::{Process, role, say},
    until, within_deadline,
};

#[memit::message]
struct Line {
    number: u64,
    text: String,
}

#[memit::message]
#[derive(Clone, Copy, Debug, PartialEq)]
struct Totals {
    lines: u64,
    bytes: u64,
}

const LINE: Channel<Line> = Channel::new("line");
const ACK: Channel<u64> = Channel::new("ack");
const TOTALS: Channel<u64, Totals> = Channel::new("totals");
const DONE: Channel<u64> = Channel::new("done");
const LINES: u64 = 10_000;
const ACK_EVERY: u64 = 1000;

/// What the other tests start as a child; nothing by itself.
#[test]
fn child_process() {
    let Some((role, argument)) = role() else { return };
    let (directory, wait) = argument.split_once(' ').unwrap();
    let wait = match wait {
        "spin" => WaitStrategy::Spin,
        "park" => WaitStrategy::Park,
        _ => WaitStrategy::Adaptive,
    };
    let renderer = IpcRenderer::builder().runtime_dir(directory).wait(wait).connect("app").unwrap();
    match role.as_str() {
        "counted" => counted(&renderer),
        "called" => called(&renderer),
        unknown => panic!("unknown role {unknown}"),
    }
}

/// Sends lines and compares its count with the main's.
fn counted(renderer: &IpcRenderer) {
    let acks = Log::<u64>::default();
    let acked = acks.clone();
    renderer.on(ACK, move |_, number| acked.push(number.to_native()));
    let mut own = Totals { lines: 0, bytes: 0 };
    for number in 0..LINES {
        let text = "word ".repeat((number % 50) as usize);
        own.lines += 1;
        own.bytes += text.len() as u64;
        renderer.send(LINE, &Line { number, text }).unwrap();
        if number % 7 == 0 {
            let totals = renderer.send_sync(TOTALS, &number).unwrap().into_owned();
            assert_eq!(totals, own, "a call comes behind the messages that were sent before it");
        }
    }
    until(|| renderer.run_once(PATIENCE), || acks.len() as u64 == LINES / ACK_EVERY);
    assert_eq!(acks.take(), (0..LINES).filter(|n| n % ACK_EVERY == 0).collect::<Vec<_>>());
    renderer.send(DONE, &own.lines).unwrap();
}

/// Answers the main's calls until the main is gone.
fn called(renderer: &IpcRenderer) {
    renderer.on("sum", |event, args| {
        let sum: i64 = args.iter().filter_map(|value| value.as_i64()).sum();
        event.set_return_value(&sum)
    });
    say("ready");
    renderer.run().unwrap();
}

fn count_lines(main: Rig, children: &[&str]) {
    let (totals, done, gone) = (Log::<(u64, u64)>::default(), Log::<u64>::default(), Log::<Disconnect>::default());
    let counts = std::sync::Arc::new(std::sync::Mutex::new(HashMap::<u64, Totals>::new()));
    let counting = counts.clone();
    main.main.on(LINE, move |event, line| {
        let mut counts = counting.lock().unwrap();
        let own = counts.entry(event.peer().id).or_insert(Totals { lines: 0, bytes: 0 });
        assert_eq!(line.number, own.lines);
        own.lines += 1;
        own.bytes += line.text.len() as u64;
        if line.number.to_native().is_multiple_of(ACK_EVERY) {
            event.sender().send(ACK, &line.number.to_native())?;
        }
        memit::ok()
    });
    main.main.on(TOTALS, move |event, _| event.set_return_value(&counts.lock().unwrap()[&event.peer().id]));
    let total = totals.clone();
    main.main.once(DONE, move |event, lines| total.push((event.peer().id, lines.to_native())));
    let finished = done.clone();
    let each = main.main.on(DONE, move |_, lines| finished.push(lines.to_native()));
    let ends = gone.clone();
    main.main.on_disconnect(move |_, reason| ends.push(reason.clone()));

    let directory = main.directory.path().to_str().unwrap();
    let mut children: Vec<_> = children
        .iter()
        .map(|wait| Process::start("child_process", "counted", &format!("{directory} {wait}")))
        .collect();
    main.until(|| gone.len() == children.len());
    assert!(children.iter_mut().all(Process::succeeds));
    assert_eq!(done.take(), vec![LINES; children.len()]);
    assert_eq!(totals.len(), 1, "once");
    assert!(gone.take().iter().all(|reason| *reason == Disconnect::Left));
    assert!(main.main.remove_listener(DONE, each));
    assert_eq!(main.main.event_names(), ["line", "totals"]);
}

#[test]
fn two_renderers_stream_lines_and_agree_with_the_main_on_their_count() {
    within_deadline(|| count_lines(Rig::new(), &["adaptive", "park"]));
}

#[test]
fn a_main_that_spins_or_parks_serves_the_same() {
    within_deadline(|| count_lines(Rig::with(|main| main.wait(WaitStrategy::Park)), &["park"]));
    within_deadline(|| count_lines(Rig::with(|main| main.wait(WaitStrategy::Spin)), &["adaptive"]));
}

#[test]
#[allow(unsafe_code)]
fn a_main_that_trusts_its_renderers_sees_the_same_messages_in_place() {
    within_deadline(|| {
        // SAFETY: the renderer is this very binary, which keeps the protocol.
        let trust = unsafe { Trust::full() };
        count_lines(Rig::with(|main| main.trust(trust)), &["adaptive", "adaptive"]);
    });
}

#[test]
fn main_calls_renderers_by_name() {
    within_deadline(|| {
        let rig = Rig::new();
        let directory = rig.directory.path().to_str().unwrap();
        let mut children: Vec<_> =
            (0..2).map(|_| Process::start("child_process", "called", &format!("{directory} adaptive"))).collect();
        for child in &children {
            assert_eq!(child.hear().as_deref(), Some("ready"));
        }
        rig.until(|| rig.main.renderers().len() == 2);
        for (number, renderer) in rig.main.renderers().iter().enumerate() {
            let sum = renderer.send_sync("sum", &args![number as u64, 20, 22]).unwrap();
            assert_eq!(sum.as_i64(), Some(42 + number as i64));
            assert!(children.iter().any(|child| renderer.peer().pid == i32::try_from(child.id()).unwrap()));
        }
        rig.main.shutdown();
        assert!(children.iter_mut().all(Process::succeeds), "a main that leaves ends their run without an error");
    });
}
