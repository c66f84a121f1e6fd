//! Two ports of the engine in one process, one of which a thread dispatches.

use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};

use memit_benches::machine::pin;
use memit_engine::{
    Announced, Config, Disconnect, Handler, Incoming, Link, Patience, Port, ReplyStatus, Violation, WaitStrategy,
    Wakeup,
};
use tempfile::TempDir;

use super::Pinned;

pub const CHANNEL: u16 = 1;

/// Notes the number in each message, and answers each call with its own bytes.
struct Echo {
    heard: Arc<AtomicU64>,
}

impl Handler for Echo {
    fn connected(&mut self, _: &Arc<Link>) {}

    fn announced(&mut self, _: &Arc<Link>, _: Announced<'_>) -> Result<(), Violation> {
        Ok(())
    }

    fn message(&mut self, message: Incoming<'_>) {
        match message.call {
            Some(call) => message.link.reply(call, ReplyStatus::Value, message.bytes).unwrap(),
            None => self.heard.store(u64::from_le_bytes(*message.bytes.first_chunk().unwrap()), Ordering::Release),
        }
    }

    fn disconnected(&mut self, _: &Arc<Link>, _: &Disconnect) {}
}

/// A renderer's port, and a main's that a pinned thread dispatches.
pub struct Ports {
    pub link: Arc<Link>,
    /// The number in the last message that was handled.
    pub heard: Arc<AtomicU64>,
    main: Port,
    /// The kernel's number of the dispatching thread.
    dispatcher: i32,
    dispatching: Option<JoinHandle<()>>,
    _renderer: Port,
    _directory: TempDir,
    _pinned: Pinned,
}

impl Ports {
    /// `None`, and it says so, if the machine has too few cores for two pinned threads. The calling thread is
    /// pinned until this is dropped.
    pub fn new(wait: WaitStrategy) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let config = || {
            let mut config = Config::default();
            config.runtime_dir = Some(directory.path().join("run"));
            config.wait = wait;
            config
        };
        let main = Port::bind("app", config()).unwrap();
        let heard = Arc::new(AtomicU64::new(0));
        let (ready, started) = mpsc::channel();
        let (port, mut echo) = (main.clone(), Echo { heard: Arc::clone(&heard) });
        let dispatching = thread::spawn(move || {
            ready.send(pin(1).map(|_| rustix::thread::gettid().as_raw_nonzero().get())).unwrap();
            let mut dispatch = port.dispatch().unwrap();
            while dispatch.poll(1024, &mut echo) > 0 || dispatch.wait(None) != Wakeup::ShutDown {}
        });
        let dispatcher = match started.recv().unwrap() {
            Ok(dispatcher) => dispatcher,
            Err(error) => {
                eprintln!("left out: {error}");
                main.shutdown();
                dispatching.join().unwrap();
                return None;
            }
        };
        let renderer = Port::connect("app", config()).unwrap();
        let link = Arc::clone(&renderer.links()[0]);
        let announced = Announced { channel: CHANNEL, name: "echo", message: b"", reply: b"", error: b"" };
        link.announce(&announced, Patience::ByPolicy).unwrap();
        let (dispatching, pinned) = (Some(dispatching), Pinned::here());
        Some(Self {
            link,
            heard,
            main,
            dispatcher,
            dispatching,
            _renderer: renderer,
            _directory: directory,
            _pinned: pinned,
        })
    }

    pub fn send(&self, number: u64) {
        self.link.send(CHANNEL, &number.to_le_bytes(), Patience::ByPolicy).unwrap();
    }

    pub fn await_heard(&self, number: u64) {
        while self.heard.load(Ordering::Acquire) != number {
            std::hint::spin_loop();
        }
    }

    /// Returns when the kernel says that the dispatching thread sleeps.
    pub fn await_sleep(&self) {
        let status = format!("/proc/self/task/{}/stat", self.dispatcher);
        loop {
            let line = fs::read_to_string(&status).unwrap();
            // The state stands behind the name, which is in brackets.
            if line.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('S')) {
                return;
            }
        }
    }
}

impl Drop for Ports {
    fn drop(&mut self) {
        self.main.shutdown();
        self.dispatching.take().map(JoinHandle::join);
    }
}
