//! Endpoints of the test's own process that survive, and what must hold of them.

use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use memit::{ConnectError, Disconnect, IpcMain, IpcRenderer, RunError, WaitStrategy};

use crate::ledger::{Ledger, Stream};
use crate::leftovers::files;
use crate::traffic::{PING, Traffic, settings};
use crate::{APP, AT_ONCE, NEVER};

/// A main that a thread of its own dispatches.
pub struct Main {
    pub main: IpcMain,
    pub traffic: Arc<Traffic>,
    dir: String,
    ran: Receiver<Result<(), RunError>>,
}

impl Main {
    pub fn bind(dir: &str, ledger: &Arc<Ledger>, wait: WaitStrategy) -> Self {
        let main = settings(IpcMain::builder(), dir, wait).bind(APP).expect("nothing hinders the next bind");
        let traffic = Traffic::on(&main, ledger);
        let (run, ran) = mpsc::channel();
        let dispatched = main.clone();
        thread::spawn(move || {
            let outcome = dispatched.run();
            drop(dispatched);
            let _ = run.send(outcome);
        });
        Self { main, traffic, dir: dir.to_owned(), ran }
    }

    /// A renderer of this process comes, calls, and leaves.
    pub fn assert_serves(&self) {
        let renderer = settings(IpcRenderer::builder(), &self.dir, WaitStrategy::Park).connect(APP).unwrap();
        assert_eq!(renderer.send_sync_timeout(PING, &7, AT_ONCE).unwrap(), 7);
    }

    /// Shuts down, and looks at what is left in the directory.
    pub fn end(self) {
        let Self { main, traffic, dir, ran } = self;
        main.shutdown();
        ran.recv_timeout(AT_ONCE).expect("run returns after a shutdown").unwrap();
        assert!(traffic.is_silent(AT_ONCE), "the threads that send end with a shutdown");
        drop((main, traffic));
        assert_eq!(files(&dir), [format!("{APP}.lock")]);
    }
}

/// A renderer that a thread of its own dispatches, until its main is gone.
pub struct Renderer {
    traffic: Arc<Traffic>,
    ran: Receiver<Result<(), RunError>>,
}

impl Renderer {
    /// `None` if the main is gone already.
    pub fn connect(dir: &str, ledger: &Arc<Ledger>, wait: WaitStrategy) -> Option<Self> {
        let renderer = match settings(IpcRenderer::builder(), dir, wait).connect(APP) {
            Ok(renderer) => renderer,
            Err(ConnectError::Closed | ConnectError::NotRunning { .. }) => return None,
            Err(error) => panic!("not connected: {error}"),
        };
        let traffic = Traffic::on(&renderer, ledger);
        let (run, ran) = mpsc::channel();
        thread::spawn(move || {
            // Either way to wait ends with main.
            let outcome = match wait {
                WaitStrategy::Park => loop {
                    if let Err(end) = renderer.run_once(NEVER) {
                        break Err(end);
                    }
                },
                _ => renderer.run(),
            };
            drop(renderer);
            let _ = run.send(outcome);
        });
        Some(Self { traffic, ran })
    }

    /// Waits for the end of its main, `pid`. Its `run` returns at once, and so do the threads that wait.
    pub fn end(self, pid: i32, within: Duration) {
        match self.ran.recv_timeout(within).expect("run returns when main is gone") {
            // `run` returns `Ok` when main has left: it was killed when it had said goodbye.
            Ok(()) | Err(RunError::Disconnected(Disconnect::Died | Disconnect::Left)) => {}
            other => panic!("main was killed, and run returned {other:?}"),
        }
        self.traffic.is_over_with(pid, AT_ONCE).expect("the threads that send to main end");
    }
}

/// Waits until nothing is left of the process `pid`, which was killed a moment ago; how long that took.
pub fn assert_over(traffic: &Traffic, pid: i32) -> Duration {
    let began = Instant::now();
    let dealings = traffic.is_over_with(pid, AT_ONCE).unwrap_or_else(|left| {
        panic!("{AT_ONCE:?} after the death of {pid} there is left of it: {left:?}");
    });
    let is_an_end = |reason: &Disconnect| matches!(reason, Disconnect::Died | Disconnect::Left);
    assert!(dealings.reasons.iter().all(is_an_end), "a killed process is not {:?}", dealings.reasons);
    began.elapsed()
}

/// What a killed process had published was delivered once, in order and whole, and nothing else was; how many
/// messages that were. What was sent to it came once and in order, too, as far as it came.
pub fn assert_delivered(ledger: &Ledger, killed: i32) -> u64 {
    assert_eq!(ledger.faults(), 0, "see above for what was wrong");
    let of_it = |stream: &Stream| stream.from == killed || stream.to == killed;
    let mut delivered = 0;
    for (at, stream) in ledger.streams().into_iter().enumerate().filter(|(_, stream)| of_it(stream)) {
        let Stream { from, begun, done, received, .. } = stream;
        let least = if from == killed { done } else { 0 };
        assert!((least..=begun).contains(&received), "stream {} after the death of {killed}: {stream:?}", at + 1);
        delivered += received;
    }
    delivered
}
