//! Round trips of a 48-byte message between two pinned processes that spin, as ratios to a bare cache line.
//!
//! `cargo run --release -p memit-benches --bin round_trip`
//!
//! Three candidates: the raw ring (claim, commit, poll, release), `send`/`on` with a typed message that archives to
//! 48 bytes, both sides inside `run`, and `send_sync` with the same message. Each round is checked by content.

use std::env;
use std::error::Error;
use std::process::{Command, ExitCode};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use memit::{Channel, Failure, IpcMain, IpcRenderer, SendError, Sender, WaitStrategy};
use memit_benches::machine::{describe, pin};
use memit_benches::ping_pong;
use memit_benches::ratio::{Medians, Ratios, per_round};
use memit_benches::shared::Shared;
use memit_ringbuf::{Capacity, Consumer, Header, Key, MappedRing, MappedRingMut, OwnCursor, PeerCursor, Producer};

const RING: usize = 64 * 1024;
const LEN: usize = 4096 + 2 * RING;
/// Offsets of words in the first page: the bare line, and the two heads.
const THERE: usize = 512;
const BACK: usize = 1024;
const HEADS: [usize; 2] = [1536, 2048];
const RINGS: [usize; 2] = [4096, 4096 + RING];
const KEY: u64 = 0x9e37_79b9_7f4a_7c15;

const PROBE_ROUNDS: u64 = 20_000;
const ROUNDS: u64 = 20_000;
const SEGMENTS: u64 = 60;
const PAYLOAD: usize = 48;

/// What the child is to answer next.
const BARE: u64 = 1;
const RING_ECHO: u64 = 2;

#[memit::message]
#[derive(Clone)]
struct Tick {
    seq: u64,
    symbol: String,
}

const PING: Channel<Tick> = Channel::new("ping");
const PONG: Channel<Tick> = Channel::new("pong");
const CALL: Channel<Tick, u64> = Channel::new("call");
const ECHO: Channel<u64> = Channel::new("echo");
const SYMBOL: &str = "a name of thirty-two characters.";

struct Head(Arc<Shared>, usize);

impl PeerCursor for Head {
    fn load(&self) -> u64 {
        self.0.word(self.1).load(Ordering::Relaxed)
    }
}

impl OwnCursor for Head {
    fn store(&self, position: u64) {
        self.0.word(self.1).store(position, Ordering::Release);
    }
}

type Out = Producer<MappedRingMut<Arc<Shared>>, Head>;
type In = Consumer<MappedRing<Arc<Shared>>, Head>;

/// The two ends of a side: it writes ring `own` and reads the other.
#[allow(unsafe_code)]
fn ends(shared: &Arc<Shared>, own: usize) -> Result<(Out, In), Box<dyn Error>> {
    let capacity = Capacity::new(RING)?;
    let key = Key::new(KEY).ok_or("the key's low bits are zero")?;
    let other = 1 - own;
    // SAFETY: the ring's bytes lie within the mapping, which the Arc keeps alive, and only this side writes them.
    let out = unsafe { MappedRingMut::new(shared.at(RINGS[own]), capacity, Arc::clone(shared)) };
    // SAFETY: as above; this side only reads them.
    let input = unsafe { MappedRing::new(shared.at(RINGS[other]), capacity, Arc::clone(shared)) };
    let producer = Producer::new(out, Head(Arc::clone(shared), HEADS[own]), key);
    let consumer = Consumer::new(input, Head(Arc::clone(shared), HEADS[other]), key);
    Ok((producer, consumer))
}

fn put(out: &Out, bytes: &[u8; PAYLOAD]) {
    let mut claim = loop {
        if let Ok(claim) = out.try_claim(PAYLOAD) {
            break claim;
        }
    };
    claim.write(0, bytes);
    claim.commit(Header { channel: 1, kind: 1, flags: 0 });
}

fn take(input: &mut In) -> Result<[u8; PAYLOAD], Box<dyn Error>> {
    let mut bytes = [0; PAYLOAD];
    loop {
        if let Some(frame) = input.poll()?.frame() {
            frame.copy_to(&mut bytes);
            frame.release();
            return Ok(bytes);
        }
    }
}

fn main() -> ExitCode {
    let outcome = match env::var("MEMIT_BENCH_CHILD") {
        Ok(told) => child(&told),
        Err(_) => parent(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("round_trip: {error}");
            ExitCode::FAILURE
        }
    }
}

fn child(told: &str) -> Result<(), Box<dyn Error>> {
    let (descriptor, app) = told.split_once(' ').ok_or("the parent told no application")?;
    let shared = Arc::new(Shared::inherit(descriptor.parse()?, LEN)?);
    pin(1)?;
    let (out, mut input) = ends(&shared, 1)?;
    let renderer = IpcRenderer::builder().wait(WaitStrategy::Spin).connect(app)?;
    let mut back = Tick { seq: 0, symbol: SYMBOL.to_owned() };
    renderer.on(PING, move |event, tick| {
        back.seq = tick.seq.to_native();
        event.reply(PONG, &back)
    });
    renderer.on(CALL, |event, tick| event.set_return_value(&(tick.seq.to_native() + 1)));
    renderer.on(ECHO, move |_, what| {
        if *what == BARE {
            ping_pong::answer(shared.word(THERE), shared.word(BACK), 0, PROBE_ROUNDS);
        } else {
            for _ in 0..ROUNDS {
                match take(&mut input) {
                    Ok(bytes) => put(&out, &bytes),
                    Err(error) => return Err(Failure::new(error)),
                }
            }
        }
        memit::ok()
    });
    Ok(renderer.run()?)
}

struct Child(std::process::Child);

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The probe, as the parent runs it: the child answers from within a listener.
struct Probe {
    shared: Arc<Shared>,
    renderer: Sender,
}

impl Probe {
    fn bare(&self) -> Result<f64, SendError> {
        self.shared.word(THERE).store(0, Ordering::Relaxed);
        self.shared.word(BACK).store(0, Ordering::Relaxed);
        self.renderer.send(ECHO, &BARE)?;
        let took = ping_pong::ask(self.shared.word(THERE), self.shared.word(BACK), 0, PROBE_ROUNDS);
        Ok(per_round(took, PROBE_ROUNDS))
    }
}

fn parent() -> Result<(), Box<dyn Error>> {
    println!("{}", describe());
    let shared = Arc::new(Shared::create(LEN)?);
    let app = format!("round-trip-{}", std::process::id());
    let main = IpcMain::builder().wait(WaitStrategy::Spin).bind(&app)?;
    let child =
        Command::new(env::current_exe()?).env("MEMIT_BENCH_CHILD", format!("{} {app}", shared.descriptor())).spawn()?;
    let _child = Child(child);
    let core = pin(0)?;
    println!("waiting    both sides spin, pinned; this one on core {core}\n");
    let (out, mut input) = ends(&shared, 0)?;

    let deadline = Instant::now() + Duration::from_secs(10);
    while main.renderers().is_empty() {
        if Instant::now() > deadline {
            return Err("the child did not connect within 10 s".into());
        }
        main.run_once(Duration::from_millis(10))?;
    }
    let renderer = main.renderers().remove(0);
    let probe = Probe { shared, renderer: renderer.clone() };
    let (mut ring, mut calls) = (Ratios::default(), Ratios::default());
    for _ in 0..SEGMENTS {
        let before = probe.bare()?;
        renderer.send(ECHO, &RING_ECHO)?;
        let took = ring_segment(&out, &mut input)?;
        let between = probe.bare()?;
        ring.add(before, per_round(took, ROUNDS), between);
        let took = call_segment(&renderer)?;
        calls.add(between, per_round(took, ROUNDS), probe.bare()?);
    }
    let sends = send_segments(&main, probe)?;

    println!("{:<10} {:>9} {:>9} {:>7}   segments (dropped)", "48 B", "ns/round", "bare", "x bare");
    for (name, ratios) in [("ring", &ring), ("send/on", &sends), ("send_sync", &calls)] {
        let (counted, dropped) = ratios.counts();
        let medians = ratios.medians().ok_or("every segment was dropped: the machine is too unsteady")?;
        let Medians { candidate, probe, ratio } = medians;
        println!("{name:<10} {candidate:>9.1} {probe:>9.1} {ratio:>7.2}   {counted} ({dropped})");
    }
    Ok(())
}

/// The segments of `send`/`on`: both sides are inside `run`, and each pong's listener sends the next ping.
struct Volley {
    probe: Probe,
    tick: Tick,
    left: u64,
    before: f64,
    began: Instant,
    ratios: Ratios,
}

impl Volley {
    /// Takes a pong; `false` when all segments are done.
    fn pong(&mut self, seq: u64) -> Result<bool, Failure> {
        if self.left > 0 {
            if seq != self.tick.seq {
                return Err(Failure::new(format_args!("the pong is {seq}, and {} was sent", self.tick.seq)));
            }
            self.left -= 1;
            if self.left > 0 {
                return self.ping();
            }
            let took = self.began.elapsed();
            self.ratios.add(self.before, per_round(took, ROUNDS), self.probe.bare()?);
            let (counted, dropped) = self.ratios.counts();
            if (counted + dropped) as u64 == SEGMENTS {
                return Ok(false);
            }
        }
        self.before = self.probe.bare()?;
        self.left = ROUNDS;
        self.began = Instant::now();
        self.ping()
    }

    fn ping(&mut self) -> Result<bool, Failure> {
        self.tick.seq += 1;
        self.probe.renderer.send(PING, &self.tick)?;
        Ok(true)
    }
}

fn send_segments(main: &IpcMain, probe: Probe) -> Result<Ratios, Box<dyn Error>> {
    let tick = Tick { seq: 0, symbol: SYMBOL.to_owned() };
    // Its pong begins the first segment.
    probe.renderer.send(PING, &tick)?;
    // The listener owns it: nothing is locked in the rounds that are measured.
    let mut volley = Volley { probe, tick, left: 0, before: 0.0, began: Instant::now(), ratios: Ratios::default() };
    let outcome = Arc::new(Mutex::new(None));
    let (ended, stop) = (Arc::clone(&outcome), main.downgrade());
    main.on(PONG, move |_, tick| {
        let end = match volley.pong(tick.seq.to_native()) {
            Ok(true) => return,
            Ok(false) => Ok(std::mem::take(&mut volley.ratios)),
            Err(error) => Err(error.to_string()),
        };
        *lock(&ended) = Some(end);
        if let Some(main) = stop.upgrade() {
            main.shutdown();
        }
    });
    main.run()?;
    let ended = lock(&outcome).take();
    Ok(ended.ok_or("the child left before the last segment")??)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn ring_segment(out: &Out, input: &mut In) -> Result<Duration, Box<dyn Error>> {
    let began = Instant::now();
    for round in 0..ROUNDS {
        let mut bytes = [7; PAYLOAD];
        bytes[..8].copy_from_slice(&round.to_le_bytes());
        put(out, &bytes);
        if take(input)? != bytes {
            return Err("the ring changed a message".into());
        }
    }
    Ok(began.elapsed())
}

fn call_segment(renderer: &Sender) -> Result<Duration, Box<dyn Error>> {
    let mut tick = Tick { seq: 0, symbol: SYMBOL.to_owned() };
    let began = Instant::now();
    for round in 0..ROUNDS {
        tick.seq = round;
        if renderer.send_sync(CALL, &tick)?.to_native() != round + 1 {
            return Err("a call brought the wrong value".into());
        }
    }
    Ok(began.elapsed())
}
