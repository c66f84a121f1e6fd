//! The renderers that keep the rules, in the test's own process: one that exchanges checked messages with the victim and
//! says how long each took, one that listens, and some that come and go.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use memit::{IpcRenderer, WaitStrategy};
use tempfile::TempDir;

use crate::message;
use crate::support::Log;
use crate::victim::{ASK, NEWS, PING, PONG, small};
use crate::waiting::{self, Waiting};
use crate::wire::sys;

/// Longer than anything takes on a busy machine, and a hang if it takes longer.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long a round trip took.
#[derive(Clone, Copy)]
pub struct Time {
    whole: Duration,
    /// What its two threads stood in line for a processor meanwhile.
    in_line: Duration,
    /// What the victim's stood in line for the core that nobody else of this program has.
    displaced: Duration,
}

/// Longer than it takes to wake a thread on a core that is free.
const DISPLACED: Duration = Duration::from_micros(250);

impl Time {
    pub fn whole(&self) -> Duration {
        self.whole
    }

    /// Without the time in line.
    pub fn own(&self) -> Duration {
        self.whole.saturating_sub(self.in_line)
    }
}

/// Times of round trips.
#[derive(Clone, Default)]
pub struct Times(Vec<Time>);

impl Times {
    /// Whether programs that have nothing to do with this one took the victim's core so often that what these times say
    /// about their last hundredth is theirs.
    pub fn are_disturbed(&self) -> bool {
        let displaced = self.0.iter().filter(|time| time.displaced > DISPLACED).count();
        displaced * 500 > self.0.len()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The time that all but one in a hundred do not pass.
    pub fn p99(&self, of: fn(&Time) -> Duration) -> Duration {
        let mut times: Vec<Duration> = self.0.iter().map(of).collect();
        times.sort_unstable();
        times.get(times.len() * 99 / 100).copied().unwrap_or_default()
    }
}

/// What listens on an honest renderer: news must come whole and in order.
fn listen(renderer: &IpcRenderer, faults: &Log<String>) {
    let (faults, mut next) = (faults.clone(), 0);
    renderer.on(NEWS, move |_, bytes| {
        if message::number(bytes) != Some(next) {
            faults.push(format!("news {next} came as {:?}, with {} bytes", message::number(bytes), bytes.len()));
        }
        next += 1;
    });
    renderer.on(ASK, |event, bytes| event.set_return_value(bytes));
}

fn connect(directory: &TempDir) -> IpcRenderer {
    let builder = small!(IpcRenderer::builder(), directory.path());
    builder.handshake_deadline(PATIENCE).connect("app").unwrap()
}

enum Order {
    /// Measures for so long.
    Measure(Duration, mpsc::Sender<Times>),
    /// Reads and answers until the other end of the channel is gone.
    Rest(mpsc::Receiver<()>),
}

pub struct Honest {
    orders: Option<mpsc::Sender<Order>>,
    threads: Vec<JoinHandle<()>>,
    listener: IpcRenderer,
    faults: Log<String>,
}

impl Honest {
    /// Exchanges messages with the main in `directory`, whose dispatching thread is `dispatcher`.
    pub fn start(directory: &TempDir, dispatcher: &str) -> Self {
        let faults = Log::default();
        let (orders, ordered) = mpsc::channel();
        let (renderer, listener) = (connect(directory), connect(directory));
        listen(&renderer, &faults);
        listen(&listener, &faults);
        let (fault, listening, dispatcher) = (faults.clone(), listener.clone(), dispatcher.to_owned());
        let threads = vec![
            thread::spawn(move || Pinger::new(renderer, fault, dispatcher).obey(&ordered)),
            // It makes the victim wait as one with several peers does, before an attack and during it.
            thread::spawn(move || listening.run().unwrap()),
        ];
        Self { orders: Some(orders), threads, listener, faults }
    }

    /// Exchanges messages for so long, one after the other.
    pub fn measure(&self, time: Duration) -> Times {
        let (tell, told) = mpsc::channel();
        self.orders.as_ref().unwrap().send(Order::Measure(time, tell)).unwrap();
        told.recv_timeout(time + PATIENCE).expect("an honest renderer hangs")
    }

    /// Serves the victim for as long as `f` takes.
    pub fn resting<T>(&self, f: impl FnOnce() -> T) -> T {
        let (_until, end) = mpsc::channel();
        self.orders.as_ref().unwrap().send(Order::Rest(end)).unwrap();
        f()
    }

    /// Somebody new comes, is served, and goes.
    pub fn visit(directory: &TempDir) {
        let visitor = connect(directory);
        let question = message::numbered(7, 3000);
        let answer = visitor.send_sync_timeout(ASK, &question[..], PATIENCE).expect("a visitor is not served");
        assert_eq!(*answer, question[..]);
    }

    pub fn faults(&self) -> Vec<String> {
        self.faults.take()
    }
}

impl Drop for Honest {
    fn drop(&mut self) {
        self.orders = None;
        self.listener.shutdown();
        for thread in self.threads.drain(..) {
            let ended = thread.join();
            if !thread::panicking() {
                ended.unwrap();
            }
        }
    }
}

struct Pinger {
    renderer: IpcRenderer,
    faults: Log<String>,
    next: u64,
    /// How many pongs have come.
    ponged: Arc<AtomicU64>,
    /// Its own thread and the victim's.
    threads: Waiting,
}

impl Pinger {
    fn new(renderer: IpcRenderer, faults: Log<String>, dispatcher: String) -> Self {
        let ponged = Arc::<AtomicU64>::default();
        let (count, fault) = (Arc::clone(&ponged), faults.clone());
        renderer.on(PONG, move |_, bytes| {
            let next = count.load(Ordering::Relaxed);
            if message::number(bytes) != Some(next) {
                fault.push(format!("pong {next} came as {:?}, with {} bytes", message::number(bytes), bytes.len()));
            }
            count.store(next + 1, Ordering::Relaxed);
        });
        Self { renderer, faults, next: 0, ponged, threads: Waiting::of(&[waiting::this_thread(), dispatcher]) }
    }

    fn obey(mut self, orders: &mpsc::Receiver<Order>) {
        sys::pin(1);
        while let Ok(order) = orders.recv() {
            match order {
                Order::Measure(time, tell) => {
                    let end = Instant::now() + time;
                    let mut times = Times::default();
                    while Instant::now() < end {
                        self.round_trip(&mut times);
                    }
                    let _ = tell.send(times);
                }
                Order::Rest(end) => {
                    while end.try_recv() == Err(mpsc::TryRecvError::Empty) {
                        self.renderer.run_once(Duration::from_millis(1)).unwrap();
                    }
                }
            }
        }
    }

    fn round_trip(&mut self, times: &mut Times) {
        // One in 256 is larger than a frame, one in 16 is a call.
        let len = if self.next % 256 == 128 { 20_000 } else { 16 + (self.next * 37 % 500) as usize };
        let bytes = message::numbered(self.next, len);
        if self.next % 16 == 5 {
            let start = self.start();
            let answer = self.renderer.send_sync_timeout(ASK, &bytes[..], PATIENCE).expect("a call is not answered");
            times.0.push(self.time(start));
            if *answer != bytes[..] {
                self.faults.push(format!("the answer to {} has {} bytes", self.next, answer.len()));
            }
        }
        let start = self.start();
        self.renderer.send_timeout(PING, &bytes[..], PATIENCE).expect("a ping cannot be sent");
        self.next += 1;
        while self.ponged.load(Ordering::Relaxed) < self.next {
            assert!(start.0.elapsed() < PATIENCE, "pong {} does not come", self.next - 1);
            self.renderer.run_once(PATIENCE).expect("the connection to the victim has ended");
        }
        times.0.push(self.time(start));
    }

    fn start(&self) -> (Instant, Vec<Duration>) {
        let waited = self.threads.so_far();
        (Instant::now(), waited)
    }

    fn time(&self, (began, before): (Instant, Vec<Duration>)) -> Time {
        let whole = began.elapsed();
        let waited: Vec<Duration> =
            self.threads.so_far().iter().zip(before).map(|(now, before)| now.saturating_sub(before)).collect();
        Time { whole, in_line: waited.iter().sum(), displaced: waited.last().copied().unwrap_or_default() }
    }
}
