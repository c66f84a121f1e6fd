//! Processes that are stopped for a while with SIGSTOP: they are not dead, and go on where they were.
//!
//! `MEMIT_STOP_SECONDS` says for how long; 1 by default.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use common::{DEADLINE, Process, role, say, within_deadline};
use memit::{Channel, Emitter, IpcMain, IpcRenderer};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

/// Numbers that count up.
const COUNT: Channel<u64> = Channel::new("count");
/// How far the other side has come in counting.
const COUNTED: Channel<(), u64> = Channel::new("counted");
const NEXT: Channel<u64, u64> = Channel::new("next");
const ENTRY: &str = "child_process";
/// Many times what a ring holds.
const MANY: u64 = 100_000;

/// What the other tests start as a child; nothing by itself.
#[test]
fn child_process() {
    let Some((role, dir)) = role() else { return };
    if role == "main" {
        let main = IpcMain::builder().runtime_dir(&dir).bind("app").unwrap();
        count_and_answer(&main);
        say("ready");
        main.run().unwrap();
    } else {
        let renderer = IpcRenderer::builder().runtime_dir(&dir).connect("app").unwrap();
        count_and_answer(&renderer);
        let sender = renderer.sender().clone();
        thread::spawn(move || (0..).try_for_each(|number| sender.send(COUNT, &number)));
        say("ready");
        let _ = renderer.run();
    }
}

/// How far each peer has counted.
#[derive(Default)]
struct Counts {
    next: Mutex<HashMap<i32, u64>>,
    counted: Condvar,
}

impl Counts {
    /// A number that is missing ends the process.
    fn count(&self, pid: i32, number: u64) {
        let mut counts = self.next.lock().unwrap();
        let next = counts.entry(pid).or_default();
        if *next != number {
            eprintln!("{number} came in place of {next}");
            std::process::abort();
        }
        *next += 1;
        self.counted.notify_all();
    }

    fn of(&self, pid: i32) -> u64 {
        self.next.lock().unwrap().get(&pid).copied().unwrap_or_default()
    }

    /// Waits until a peer has counted on.
    fn await_of(&self, pid: i32, least: u64) {
        let counts = self.next.lock().unwrap();
        let is_less = |counts: &mut HashMap<i32, u64>| counts.get(&pid).is_none_or(|count| *count < least);
        let (_counts, waited) = self.counted.wait_timeout_while(counts, DEADLINE, is_less).unwrap();
        assert!(!waited.timed_out(), "{pid} has not counted up to {least}");
    }
}

fn count_and_answer(emitter: &Emitter) -> Arc<Counts> {
    let counts = Arc::<Counts>::default();
    let at = Arc::clone(&counts);
    emitter.on(COUNT, move |event, number| at.count(event.peer().pid, number.to_native()));
    let at = Arc::clone(&counts);
    emitter.on(COUNTED, move |event, _| event.set_return_value(&at.of(event.peer().pid)));
    emitter.on(NEXT, |event, number| event.set_return_value(&(number.to_native() + 1)));
    counts
}

fn pid(process: &Process) -> i32 {
    process.id().cast_signed()
}

/// Stops a process, and returns when it is.
fn stop(process: &Process) {
    let pid = Pid::from_raw(pid(process)).unwrap();
    kill_process(pid, Signal::STOP).unwrap();
    let (_, status) = waitpid(Some(pid), WaitOptions::UNTRACED).unwrap().unwrap();
    assert!(status.stopped(), "the process ended in place of being stopped");
}

fn go_on(process: &Process) {
    kill_process(Pid::from_raw(pid(process)).unwrap(), Signal::CONT).unwrap();
}

fn hold() {
    let seconds = std::env::var("MEMIT_STOP_SECONDS").map_or(1, |text| text.parse().expect("a number of seconds"));
    thread::sleep(Duration::from_secs(seconds));
}

#[test]
fn a_stopped_renderer_stays_connected_holds_up_nobody_else_and_goes_on() {
    within_deadline(|| {
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path().join("run").to_string_lossy().into_owned();
        let main = IpcMain::builder().runtime_dir(&run).bind("app").unwrap();
        let counts = count_and_answer(&main);
        main.on_disconnect(|peer, reason| {
            if *reason != memit::Disconnect::ShutDown {
                eprintln!("{peer} was disconnected: {reason}");
                std::process::abort();
            }
        });
        let (stopped, other) = (Process::start(ENTRY, "renderer", &run), Process::start(ENTRY, "renderer", &run));
        thread::scope(|scope| {
            let dispatching = scope.spawn(|| main.run());
            [&stopped, &other].iter().for_each(|process| counts.await_of(pid(process), 1000));
            let sender = main.renderers().into_iter().find(|sender| sender.peer().pid == pid(&stopped)).unwrap();
            let (sending, calling) = (sender.clone(), sender.clone());
            stop(&stopped);
            let sends = scope.spawn(move || (0..MANY).try_for_each(|number| sending.send(COUNT, &number)));
            let call = scope.spawn(move || calling.send_sync(NEXT, &7).map(|reply| reply.to_native()));
            let others = counts.of(pid(&other));
            hold();
            let held = counts.of(pid(&stopped));
            counts.await_of(pid(&other), others + 1000);
            assert!(main.renderers().len() == 2 && sender.is_connected(), "a stop is not a death");
            assert!(!sends.is_finished() && !call.is_finished(), "nobody takes anything");
            go_on(&stopped);
            sends.join().unwrap().unwrap();
            assert_eq!(call.join().unwrap(), Ok(8));
            assert_eq!(sender.send_sync(COUNTED, &()).unwrap(), MANY);
            counts.await_of(pid(&stopped), held + 1000);
            main.shutdown();
            dispatching.join().unwrap().unwrap();
        });
    });
}

#[test]
fn a_stopped_main_stays_connected_and_goes_on() {
    within_deadline(|| {
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path().join("run").to_string_lossy().into_owned();
        let stopped = Process::start(ENTRY, "main", &run);
        assert_eq!(stopped.hear().as_deref(), Some("ready"));
        let renderer = IpcRenderer::builder().runtime_dir(&run).connect("app").unwrap();
        thread::scope(|scope| {
            let dispatching = scope.spawn(|| renderer.run());
            assert_eq!(renderer.send_sync(NEXT, &1).unwrap(), 2);
            stop(&stopped);
            let sends = scope.spawn(|| (0..MANY).try_for_each(|number| renderer.send(COUNT, &number)));
            let call = scope.spawn(|| renderer.send_sync(NEXT, &7).map(|reply| reply.to_native()));
            hold();
            assert!(renderer.sender().is_connected() && !dispatching.is_finished(), "a stop is not a death");
            assert!(!sends.is_finished() && !call.is_finished(), "nobody takes anything");
            go_on(&stopped);
            sends.join().unwrap().unwrap();
            assert_eq!(call.join().unwrap(), Ok(8));
            assert_eq!(renderer.send_sync(COUNTED, &()).unwrap(), MANY);
            renderer.shutdown();
            dispatching.join().unwrap().unwrap();
        });
    });
}
