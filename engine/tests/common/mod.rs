//! What the engine's tests share: endpoints in a directory of their own, a handler that records, deadlines.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod exchange;
pub mod payload;

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use memit_engine::{
    AlignedBytes, Announced, CallError, CallToken, Config, Disconnect, Handler, Incoming, Link, Patience, Port,
    ReplyStatus, Violation, WaitStrategy, Wakeup,
};
use rustix::event::{PollFd, PollFlags, poll};
use tempfile::TempDir;

/// A test that takes longer than this hangs.
pub const DEADLINE: Duration = Duration::from_secs(60);
pub const CHANNEL: u16 = 3;
pub const ANNOUNCED: Announced<'static> =
    Announced { channel: CHANNEL, name: "test", message: b"bytes", reply: b"bytes", error: b"" };

/// Runs `test` on a thread of its own and fails when it does not end in time.
pub fn within_deadline(test: impl FnOnce() + Send + 'static) {
    let (done, ended) = mpsc::channel();
    let thread = thread::Builder::new()
        .name(thread::current().name().unwrap_or("test").to_owned())
        .spawn(move || {
            test();
            let _ = done.send(());
        })
        .unwrap();
    match ended.recv_timeout(DEADLINE) {
        Ok(()) => thread.join().unwrap(),
        Err(mpsc::RecvTimeoutError::Disconnected) => std::panic::resume_unwind(thread.join().unwrap_err()),
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("the test hangs: it did not end within {DEADLINE:?}"),
    }
}

pub fn config(dir: &TempDir, wait: WaitStrategy) -> Config {
    let mut config = Config::default();
    config.runtime_dir = Some(dir.path().join("run"));
    config.wait = wait;
    config.ring_capacity = 16 * 1024;
    config
}

pub fn pair(wait: WaitStrategy) -> (TempDir, Port, Port) {
    let dir = tempfile::tempdir().unwrap();
    let main = Port::bind("app", config(&dir, wait)).unwrap();
    let renderer = Port::connect("app", config(&dir, wait)).unwrap();
    (dir, main, renderer)
}

pub type Answer = Box<dyn FnMut(&Arc<Link>, CallToken, &[u8]) + Send>;

/// Records what arrives; answers calls with what it is given, or with their own bytes.
#[derive(Default)]
pub struct Recorder {
    pub connected: Vec<Arc<Link>>,
    pub announced: Vec<String>,
    pub messages: Vec<(u64, Vec<u8>)>,
    pub calls: usize,
    pub disconnected: Vec<(u64, Disconnect)>,
    pub answer: Option<Answer>,
}

impl Handler for Recorder {
    fn connected(&mut self, link: &Arc<Link>) {
        self.connected.push(Arc::clone(link));
    }

    fn announced(&mut self, _: &Arc<Link>, channel: Announced<'_>) -> Result<(), Violation> {
        self.announced.push(channel.name.to_owned());
        Ok(())
    }

    fn message(&mut self, message: Incoming<'_>) {
        assert_eq!(message.bytes.as_ptr().addr() % 16, 0, "payloads are aligned");
        match (message.call, &mut self.answer) {
            (None, _) => self.messages.push((message.link.id(), message.bytes.to_vec())),
            (Some(call), Some(answer)) => {
                self.calls += 1;
                answer(message.link, call, message.bytes);
            }
            (Some(call), None) => {
                self.calls += 1;
                let _ = message.link.reply(call, ReplyStatus::Value, message.bytes);
            }
        }
    }

    fn disconnected(&mut self, link: &Arc<Link>, reason: &Disconnect) {
        self.disconnected.push((link.id(), reason.clone()));
    }
}

/// Dispatches until `done` says so; fails at the deadline.
pub fn dispatch_until(port: &Port, recorder: &mut Recorder, mut done: impl FnMut(&Recorder) -> bool) {
    let deadline = Instant::now() + DEADLINE;
    let mut dispatch = port.dispatch().unwrap();
    loop {
        while dispatch.poll(64, recorder) != 0 {}
        if done(recorder) {
            return;
        }
        match dispatch.wait(Some(deadline)) {
            Wakeup::Work => {}
            ended => {
                let _ = dispatch.poll(64, recorder);
                assert!(done(recorder), "dispatching ended with {ended:?}");
                return;
            }
        }
    }
}

/// Dispatches until the port is shut down or its main is gone.
pub fn dispatch_to_the_end(port: &Port, recorder: &mut Recorder) {
    let mut dispatch = port.dispatch().unwrap();
    loop {
        while dispatch.poll(64, recorder) != 0 {}
        if dispatch.wait(None) == Wakeup::ShutDown {
            return;
        }
    }
}

/// Records what arrives and answers calls with their own bytes, on a thread of its own, until the port is shut down or
/// its main is gone.
pub fn record(port: &Port) -> JoinHandle<Recorder> {
    let port = port.clone();
    thread::spawn(move || {
        let mut seen = Recorder::default();
        dispatch_to_the_end(&port, &mut seen);
        seen
    })
}

/// The value of a call, wherever it lies.
pub fn value(link: &Link, payload: &[u8]) -> Result<Vec<u8>, CallError> {
    let mut reply = AlignedBytes::new();
    Ok(match link.call(CHANNEL, payload, None, &mut reply)? {
        Some(kept) => kept.to_vec(),
        None => reply.to_vec(),
    })
}

/// The one peer of a renderer, with the test's channel announced.
pub fn link_to_main(renderer: &Port) -> Arc<Link> {
    let link = Arc::clone(&renderer.links()[0]);
    link.announce(&ANNOUNCED, Patience::ByPolicy).unwrap();
    link
}

/// The peers of a main, once there are `count`, with the test's channel announced to each.
pub fn links_to_renderers(main: &Port, count: usize) -> Vec<Arc<Link>> {
    let mut recorder = Recorder::default();
    dispatch_until(main, &mut recorder, |seen| seen.connected.len() == count);
    for link in &recorder.connected {
        link.announce(&ANNOUNCED, Patience::ByPolicy).unwrap();
    }
    recorder.connected
}

/// Every way to wait.
pub const STRATEGIES: [WaitStrategy; 3] = [WaitStrategy::Spin, WaitStrategy::Park, WaitStrategy::Adaptive];

/// A message of `len` bytes that shows its number.
pub fn numbered(number: u32, len: usize) -> Vec<u8> {
    number.to_le_bytes().iter().copied().cycle().take(len).collect()
}

/// Whether the port's descriptor becomes readable within `timeout`.
pub fn is_readable(port: &Port, timeout: Duration) -> bool {
    let descriptor = port.as_fd();
    let mut polled = [PollFd::new(&descriptor, PollFlags::IN)];
    let timeout = rustix::event::Timespec::try_from(timeout).unwrap();
    poll(&mut polled, Some(&timeout)).unwrap() == 1
}
