//! Round trips of a message that archives to 48 bytes between two pinned processes that spin: `send` with `on` on both
//! sides, and `send_sync`. What they are beside the machine's own limit shows
//! `cargo run --release -p memit-benches --bin round_trip`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::env;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Instant;

use criterion::Criterion;
use memit::{Channel, IpcMain, IpcRenderer, Sender, WaitStrategy};
use memit_benches::machine::{cores, pin};
use support::{PATIENCE, Pinned};
use tempfile::TempDir;

/// In the environment of the other process: where to connect.
const DIRECTORY: &str = "MEMIT_BENCH_DIRECTORY";

#[memit::message]
#[derive(Clone)]
struct Tick {
    seq: u64,
    symbol: String,
}

const PING: Channel<Tick> = Channel::new("ping");
const PONG: Channel<Tick> = Channel::new("pong");
const CALL: Channel<Tick, u64> = Channel::new("call");

fn tick() -> Tick {
    Tick { seq: 0, symbol: "a name of thirty-two characters.".to_owned() }
}

/// The other process: answers for as long as there is a main.
fn answer(directory: &str) {
    pin(1).unwrap();
    let renderer = IpcRenderer::builder().runtime_dir(directory).wait(WaitStrategy::Spin).connect("app").unwrap();
    let mut back = tick();
    renderer.on(PING, move |event, tick| {
        back.seq = tick.seq.to_native();
        event.reply(PONG, &back)
    });
    renderer.on(CALL, |event, tick| event.set_return_value(&(tick.seq.to_native() + 1)));
    // A main that is gone is how it ends.
    let _ = renderer.run();
}

/// The other process, from here.
struct Peer {
    main: IpcMain,
    sender: Sender,
    child: Child,
    _directory: TempDir,
}

impl Peer {
    /// `None`, and it says so, if the machine has one core only.
    fn start() -> Option<Self> {
        if cores().unwrap().count() < 2 {
            eprintln!("round_trip is left out: it needs two cores");
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        let run = directory.path().join("run");
        let main = IpcMain::builder().runtime_dir(&run).wait(WaitStrategy::Spin).bind("app").unwrap();
        let child = Command::new(env::current_exe().unwrap()).env(DIRECTORY, &run).spawn().unwrap();
        let arrived = main.run_once(PATIENCE);
        let sender = main.renderers().pop();
        // From here on the child ends with this value.
        let (sender, arrived) = (sender.expect("the other process did not connect"), arrived.unwrap());
        assert_eq!(arrived, 1);
        Some(Self { main, sender, child, _directory: directory })
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.main.shutdown();
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The pings that are still to be sent.
struct Volley {
    tick: Tick,
    left: u64,
}

/// Main dispatches on a thread of its own, whose listener answers each pong with the next ping.
fn send_and_on(criterion: &mut Criterion) {
    let Some(peer) = Peer::start() else { return };
    let volley = Arc::new(Mutex::new(Volley { tick: tick(), left: 0 }));
    let (over, ended) = mpsc::channel();
    let listening = Arc::clone(&volley);
    peer.main.on(PONG, move |event, pong| {
        // Nobody else wants it during a volley.
        let mut volley = listening.lock().unwrap();
        assert_eq!(pong.seq, volley.tick.seq, "a pong is of the last ping");
        volley.left -= 1;
        if volley.left > 0 {
            volley.tick.seq += 1;
            event.reply(PING, &volley.tick).unwrap();
        } else {
            over.send(Instant::now()).unwrap();
        }
    });
    thread::scope(|scope| {
        let main = &peer.main;
        let dispatching = scope.spawn(move || {
            pin(0).unwrap();
            main.run().unwrap();
        });
        criterion.bench_function("round_trip/send-on/48", |bencher| {
            bencher.iter_custom(|rounds| {
                let mut volley = volley.lock().unwrap();
                volley.left = rounds;
                volley.tick.seq += 1;
                let began = Instant::now();
                peer.sender.send(PING, &volley.tick).unwrap();
                drop(volley);
                ended.recv_timeout(PATIENCE).unwrap() - began
            });
        });
        peer.main.shutdown();
        dispatching.join().unwrap();
    });
}

fn send_sync(criterion: &mut Criterion) {
    let Some(peer) = Peer::start() else { return };
    let _pinned = Pinned::here();
    let mut tick = tick();
    criterion.bench_function("round_trip/send_sync/48", |bencher| {
        bencher.iter_custom(|rounds| {
            let began = Instant::now();
            for _ in 0..rounds {
                tick.seq += 1;
                assert_eq!(peer.sender.send_sync(CALL, &tick).unwrap().to_native(), tick.seq + 1);
            }
            began.elapsed()
        });
    });
}

fn main() {
    match env::var(DIRECTORY) {
        Ok(directory) => answer(&directory),
        Err(_) => support::run(&[send_and_on, send_sync]),
    }
}
