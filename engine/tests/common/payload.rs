//! What the tests of large payloads share: endpoints with small arenas, contents that show a displaced byte, handlers
//! that echo and keep, and children of their own for tests that change what the process may do.

use std::collections::VecDeque;
use std::io::Read;
use std::process::{Command, Stdio};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use memit_engine::{
    Announced, Config, Disconnect, Handler, Incoming, Kept, Link, Patience, Port, ReplyStatus, Trust, Violation,
    WaitStrategy,
};
use tempfile::TempDir;

use super::{DEADLINE, config};

/// The smallest extent.
pub const EXTENT: usize = 64 << 10;
/// What a full arena holds of them, as the small settings say.
pub const EXTENTS: usize = 4;

/// A small ring and a small arena.
pub fn small(config: &mut Config) {
    config.ring_capacity = 16 << 10;
    config.extent_size = EXTENT;
    config.arena_limit = EXTENTS * EXTENT;
}

#[allow(unsafe_code)]
pub fn full_trust() -> Trust {
    // SAFETY: the peers are these tests, which keep the protocol.
    unsafe { Trust::full() }
}

/// Main and renderer with the same settings.
pub fn pair_with(wait: WaitStrategy, change: impl Fn(&mut Config)) -> (TempDir, Port, Port) {
    let dir = tempfile::tempdir().unwrap();
    let settings = || {
        let mut config = config(&dir, wait);
        change(&mut config);
        config
    };
    let main = Port::bind("app", settings()).unwrap();
    let renderer = Port::connect("app", settings()).unwrap();
    (dir, main, renderer)
}

/// Small settings, and full trust or none.
pub fn small_pair(wait: WaitStrategy, trusted: bool) -> (TempDir, Port, Port) {
    pair_with(wait, |config| {
        small(config);
        if trusted {
            config.trust = full_trust();
        }
    })
}

/// `len` bytes that differ from those of every other seed, and in which no shift by pages goes unseen.
pub fn content(seed: u64, len: usize) -> Vec<u8> {
    const PERIOD: usize = 4093;
    let mut numbers = Numbers(seed);
    let mut bytes: Vec<u8> = (0..PERIOD.min(len).div_ceil(8)).flat_map(|_| numbers.next().to_le_bytes()).collect();
    bytes.truncate(PERIOD.min(len));
    if len > PERIOD {
        bytes = bytes.repeat(len.div_ceil(PERIOD));
        bytes.truncate(len);
    }
    bytes
}

/// Whether these are the bytes of [`content`], without printing megabytes if not.
#[track_caller]
pub fn assert_content(bytes: &[u8], seed: u64, len: usize) {
    assert_eq!(bytes.len(), len, "the length of payload {seed}");
    let expected = content(seed, len);
    if bytes != expected {
        let at = bytes.iter().zip(&expected).position(|(found, expected)| found != expected);
        panic!("payload {seed} of {len} bytes differs from byte {at:?} on");
    }
}

/// A generator of numbers that look random (splitmix64).
pub struct Numbers(pub u64);

impl Numbers {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).unwrap()
    }
}

/// Answers calls with their own bytes and passes messages on.
pub struct Echo(pub mpsc::Sender<Vec<u8>>);

impl Handler for Echo {
    fn connected(&mut self, _: &Arc<Link>) {}
    fn announced(&mut self, _: &Arc<Link>, _: Announced<'_>) -> Result<(), Violation> {
        Ok(())
    }
    fn message(&mut self, message: Incoming<'_>) {
        assert_eq!(message.bytes.as_ptr().addr() % 16, 0, "payloads are aligned");
        match message.call {
            Some(call) => message.link.reply(call, ReplyStatus::Value, message.bytes).unwrap(),
            None => self.0.send(message.bytes.to_vec()).unwrap(),
        }
    }
    fn disconnected(&mut self, _: &Arc<Link>, _: &Disconnect) {}
}

/// Keeps every message, up to `most` of them: then the oldest goes.
pub struct Keeper {
    pub kept: VecDeque<Kept>,
    pub most: usize,
    pub seen: usize,
}

impl Keeper {
    pub fn new(most: usize) -> Self {
        Self { kept: VecDeque::new(), most, seen: 0 }
    }
}

impl Handler for Keeper {
    fn connected(&mut self, _: &Arc<Link>) {}
    fn announced(&mut self, _: &Arc<Link>, _: Announced<'_>) -> Result<(), Violation> {
        Ok(())
    }
    fn message(&mut self, message: Incoming<'_>) {
        let kept = message.keep();
        assert!(*kept == *message.bytes, "what is kept is the message");
        self.kept.push_back(kept);
        self.seen += 1;
        if self.kept.len() > self.most {
            self.kept.pop_front();
        }
    }
    fn disconnected(&mut self, _: &Arc<Link>, _: &Disconnect) {}
}

/// Dispatches with any handler until `done` says so; fails at the deadline.
pub fn drive<H: Handler>(port: &Port, handler: &mut H, mut done: impl FnMut(&mut H) -> bool) {
    let deadline = Instant::now() + DEADLINE;
    let mut dispatch = port.dispatch().unwrap();
    loop {
        while dispatch.poll(1, handler) != 0 {
            if done(handler) {
                return;
            }
        }
        if done(handler) {
            return;
        }
        assert!(Instant::now() < deadline, "nothing more comes");
        dispatch.wait(Some(deadline));
    }
}

/// Dispatches until nothing is left, without waiting.
pub fn drain<H: Handler>(port: &Port, handler: &mut H) {
    let mut dispatch = port.dispatch().unwrap();
    while dispatch.poll(64, handler) != 0 {}
}

/// Dispatches on a thread of its own until the port is shut down.
pub fn serve(port: &Port, mut handler: impl Handler + Send + 'static) -> JoinHandle<()> {
    let port = port.clone();
    thread::spawn(move || {
        let mut dispatch = port.dispatch().unwrap();
        loop {
            while dispatch.poll(64, &mut handler) != 0 {}
            if dispatch.wait(None) == memit_engine::Wakeup::ShutDown {
                return;
            }
        }
    })
}

/// Both ends, each with the other's link: main's to the renderer first. Main has announced the channel, and so has
/// the renderer.
pub fn linked(main: &Port, renderer: &Port) -> (Arc<Link>, Arc<Link>) {
    let to_main = super::link_to_main(renderer);
    let to_renderer = super::links_to_renderers(main, 1).remove(0);
    (to_renderer, to_main)
}

/// Runs `f` on a thread of its own, and returns once that thread sleeps in it or has ended.
pub fn asleep<'scope, T: Send + 'scope>(
    scope: &'scope thread::Scope<'scope, '_>,
    f: impl FnOnce() -> T + Send + 'scope,
) -> thread::ScopedJoinHandle<'scope, T> {
    let (tell, told) = mpsc::channel();
    let thread = scope.spawn(move || {
        tell.send(std::fs::read_link("/proc/thread-self").unwrap()).unwrap();
        f()
    });
    let stat = std::path::Path::new("/proc").join(told.recv().unwrap()).join("syscall");
    let deadline = Instant::now() + DEADLINE;
    // The file says "running", or the number of the system call in which the thread sleeps: a futex's of some kind.
    const FUTEX: [&str; 3] = ["202 ", "449 ", "98 "];
    while let Ok(call) = std::fs::read_to_string(&stat) {
        if thread.is_finished() || FUTEX.iter().any(|futex| call.starts_with(futex)) {
            break;
        }
        assert!(Instant::now() < deadline, "the thread does not sleep: {call}");
        thread::yield_now();
    }
    thread
}

const ROLE: &str = "MEMIT_ENGINE_TEST_ROLE";

/// What this process was started for by [`run_in_child`], if it was.
#[allow(unsafe_code)]
pub fn role() -> Option<String> {
    let role = std::env::var(ROLE).ok()?;
    // SAFETY: takes numbers only. The child does not outlive the thread that started it.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    Some(role)
}

/// The test `entry` of this binary as a process of its own, with `role`.
pub fn child(entry: &str, role: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", entry, "--nocapture", "--test-threads=1"]).env(ROLE, role);
    command
}

/// Runs the test `entry` of this binary in a process of its own, with `role`, and fails if it fails.
pub fn run_in_child(entry: &str, role: &str) {
    let mut child =
        child(entry, role).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (mut out, mut err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let (said, says) = mpsc::channel();
    let reader = thread::spawn(move || {
        let mut text = String::new();
        let _ = err.read_to_string(&mut text);
        let _ = out.read_to_string(&mut text);
        let _ = said.send(());
        text
    });
    let in_time = says.recv_timeout(DEADLINE - Duration::from_secs(5)).is_ok();
    if !in_time {
        child.kill().unwrap();
    }
    let status = child.wait().unwrap();
    let text = reader.join().unwrap();
    assert!(in_time && status.success(), "{role}: {status}, in time: {in_time}\n{text}");
}

/// A patience that ends at the test's deadline.
pub fn patient() -> Patience {
    Patience::Until(Instant::now() + DEADLINE)
}
