//! The process that is attacked: a main with a well-behaved renderer, and, when it is told to, a renderer of a hostile
//! main.
//!
//! It does as the test says on its standard input, and answers on its standard output. Meanwhile it sends, and calls,
//! everybody who is connected.

use std::collections::HashMap;
use std::io::{BufRead, stdin};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use memit::{CallError, Channel, Disconnect, Emitter, IpcMain, IpcRenderer, RunError, SendError, Sender, WaitStrategy};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::attacks::EVIL;
use crate::message;
use crate::snapshot::Snapshot;
use crate::support::{Log, common::say};
use crate::waiting;
use crate::wire::sys;

pub const PING: Channel<[u8]> = Channel::new("ping");
pub const PONG: Channel<[u8]> = Channel::new("pong");
pub const ASK: Channel<[u8], [u8]> = Channel::new("ask");
pub const NEWS: Channel<[u8]> = Channel::new("news");
pub const NAMES: Channel<Vec<String>> = Channel::new("names");

/// More than an honest peer announces here.
pub const CHANNELS: u16 = 64;
/// Between two rounds of sending and calling.
const PACE: Duration = Duration::from_millis(2);
/// For the answer to a call, which a hostile peer does not give.
const ANSWER: Duration = Duration::from_millis(4);
/// The time that a peer has for its handshake.
pub const HANDSHAKE: Duration = Duration::from_millis(600);

/// The settings with which limits are met soon.
macro_rules! small {
    ($builder:expr, $directory:expr) => {
        $builder
            .runtime_dir($directory)
            .wait(WaitStrategy::Park)
            .ring_capacity(16 << 10)
            .reply_slots(4)
            .backlog_limit(256 << 10)
            .extent_size(64 << 10)
            .arena_limit(4 << 20)
            .message_limit(1 << 20)
            .arena_idle(Duration::from_millis(50))
            .handshake_deadline($crate::victim::HANDSHAKE)
            .max_channels($crate::victim::CHANNELS)
    };
}
pub(crate) use small;

/// What was found wrong, and why peers were let go.
#[derive(Clone, Default)]
struct Findings {
    faults: Log<String>,
    ends: Log<String>,
}

impl Findings {
    /// Listens as every endpoint of this process does.
    fn listen(&self, emitter: &Emitter) {
        let friend = rustix::process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get());
        let (faults, mut heard) = (self.faults.clone(), HashMap::<u64, u64>::new());
        emitter.on(PING, move |event, bytes| {
            let peer = event.peer();
            if peer.pid == friend {
                let next = heard.entry(peer.id).or_default();
                if message::number(bytes) != Some(*next) {
                    faults.push(format!("ping {next} of {peer} came as {:?}", message::number(bytes)));
                }
                *next += 1;
            }
            // A peer that does not read may have no space; an honest one finds its pong missing.
            let _ = event.reply(PONG, bytes);
        });
        emitter.on(ASK, |event, bytes| event.set_return_value(bytes));
        let faults = self.faults.clone();
        emitter.on(NAMES, move |_, names| {
            let walk = || names.iter().map(|name| name.chars().count()).sum::<usize>();
            if walk() != walk() {
                faults.push("a message changed while it was looked at");
            }
        });
        // What is wrong with messages is told here, and then as the reason of the end.
        emitter.on_error(|_| ());
        let (faults, ends) = (self.faults.clone(), self.ends.clone());
        emitter.on_disconnect(move |peer, reason| {
            if peer.pid != friend {
                ends.push(reason.to_string());
            } else if *reason != Disconnect::Left {
                faults.push(format!("an honest {peer} was let go: {reason}"));
            }
        });
    }
}

/// Sends and calls one peer after the other, and looks at what comes back.
struct Errands {
    findings: Findings,
    news: HashMap<u64, u64>,
    friend: i32,
}

impl Errands {
    fn run(&mut self, to: &Sender) {
        let (peer, friend) = (to.peer(), to.peer().pid == self.friend);
        let next = self.news.entry(peer.id).or_default();
        for _ in 0..8 {
            // Mostly in the ring, at times in a block, seldom in memory of its own.
            let len = match *next % 256 {
                255 => 100_000,
                63 | 127 | 191 => 20_000,
                _ => 300,
            };
            match to.try_send(NEWS, &message::numbered(*next, len)[..]) {
                Ok(()) => *next += 1,
                Err(SendError::Full { .. }) => break,
                // A visitor has gone.
                Err(SendError::Disconnected(Disconnect::Left)) => return,
                Err(error) if friend => self.findings.faults.push(format!("no news could be sent to {peer}: {error}")),
                Err(_) => return,
            }
        }
        let question = message::numbered(*next, 40);
        // An honest peer may be busy for longer, too, on a machine that is.
        match to.send_sync_timeout(ASK, &question[..], ANSWER) {
            Ok(answer) if friend && *answer != question[..] => {
                self.findings.faults.push(format!("{peer} was asked {question:?} and answered {:?}", &*answer));
            }
            Err(CallError::Timeout | CallError::Disconnected(Disconnect::Left)) => {}
            Err(error) if friend => {
                self.findings.faults.push(format!("{peer} could not be asked: {error}"));
            }
            _ => {}
        }
    }
}

/// A renderer that connects to the hostile main again and again.
struct Prey {
    stop: Arc<AtomicBool>,
    current: Arc<Mutex<Option<IpcRenderer>>>,
    thread: JoinHandle<()>,
}

impl Prey {
    fn start(directory: PathBuf, findings: Findings) -> Self {
        let (stop, current) = (Arc::<AtomicBool>::default(), Arc::<Mutex<Option<IpcRenderer>>>::default());
        let (stopped, shown) = (Arc::clone(&stop), Arc::clone(&current));
        let thread = thread::spawn(move || {
            let mut by_descriptor = false;
            while !stopped.load(Ordering::Relaxed) {
                let renderer = match small!(IpcRenderer::builder(), directory.clone()).connect(EVIL) {
                    Ok(renderer) => renderer,
                    Err(error) => {
                        findings.ends.push(format!("not connected: {error}"));
                        // Who was refused tries again, but not at once.
                        thread::park_timeout(Duration::from_millis(1));
                        continue;
                    }
                };
                findings.listen(&renderer);
                *shown.lock().unwrap() = Some(renderer.clone());
                if stopped.load(Ordering::Relaxed) {
                    // Who stops this may have looked before there was anybody to shut down.
                    renderer.shutdown();
                }
                // Both ways to wait: on the peer's words, and on a descriptor.
                by_descriptor = !by_descriptor;
                let ended = if by_descriptor { dispatch_by_descriptor(&renderer) } else { renderer.run() };
                let is_over = matches!(ended, Ok(()) | Err(RunError::Disconnected(_) | RunError::ShutDown));
                assert!(is_over, "{ended:?}");
                *shown.lock().unwrap() = None;
            }
        });
        Self { stop, current, thread }
    }

    fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        // One whose connection has ended is about to hear why, and ends by that.
        if let Some(renderer) = self.current.lock().unwrap().as_ref().filter(|one| one.sender().is_connected()) {
            renderer.shutdown();
        }
        self.thread.join().unwrap();
    }
}

fn dispatch_by_descriptor(renderer: &IpcRenderer) -> Result<(), RunError> {
    let slice = Timespec::try_from(Duration::from_millis(100)).unwrap();
    loop {
        // The slice ends the wait for the end of this process alone.
        let _ = poll(&mut [PollFd::new(renderer, PollFlags::IN)], Some(&slice));
        renderer.poll()?;
        if !renderer.sender().is_connected() {
            return Ok(());
        }
    }
}

/// The whole of the victim's life.
pub fn live(directory: &str) {
    sys::pin(1);
    let directory = PathBuf::from(directory);
    let findings = Findings::default();
    let main = small!(IpcMain::builder(), directory.clone()).bind("app").unwrap();
    findings.listen(&main);
    let dispatched = main.clone();
    let running = thread::spawn(move || {
        // Alone there, see the crate's documentation.
        sys::pin(0);
        say(&format!("bound {}", waiting::this_thread()));
        dispatched.run().unwrap();
    });
    let (order, orders) = mpsc::channel();
    thread::spawn(move || {
        for line in stdin().lock().lines().map_while(Result::ok) {
            if order.send(line).is_err() {
                return;
            }
        }
    });

    let friend = rustix::process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get());
    let mut errands = Errands { findings: findings.clone(), news: HashMap::new(), friend };
    let mut of_prey = Errands { findings: findings.clone(), news: HashMap::new(), friend };
    let (mut is_busy, mut prey) = (false, None::<Prey>);
    loop {
        let order = match orders.recv_timeout(PACE) {
            Ok(order) => order,
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                if is_busy {
                    main.renderers().iter().for_each(|peer| errands.run(peer));
                    let renderer = prey.as_ref().and_then(|prey| prey.current.lock().unwrap().clone());
                    renderer.iter().for_each(|renderer| of_prey.run(renderer.sender()));
                }
                continue;
            }
        };
        match order.as_str() {
            "busy" => is_busy = true,
            "rest" => is_busy = false,
            "snapshot" => say(&Snapshot::take(main.renderers().len()).to_line()),
            "maps" => say(&Snapshot::maps().join(", ")),
            "faults" => say(&findings.faults.take().join("; ")),
            "ends" => say(&findings.ends.take().join("\u{1f}")),
            "connect" => prey = Some(Prey::start(directory.clone(), findings.clone())),
            "disconnect" => {
                if let Some(prey) = prey.take() {
                    prey.stop();
                }
                say("disconnected");
            }
            other => panic!("unknown order {other}"),
        }
    }
    main.shutdown();
    running.join().unwrap();
}
