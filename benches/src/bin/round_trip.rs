//! Round trips of a 48-byte message between two pinned processes that spin, as ratios to a bare cache line.
//!
//! `cargo run --release -p memit-benches --bin round_trip`
//!
//! Three candidates: the raw ring (claim, commit, poll, release), `send`/`on` with a typed message that archives to
//! 48 bytes, and `send_sync` with the same message. Each segment is checked by content.

use std::env;
use std::error::Error;
use std::process::{Child, Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use memit::{Channel, IpcMain, IpcRenderer, Sender, WaitStrategy};
use memit_benches::machine::{describe, pin};
use memit_benches::ratio::{Medians, Ratios, per_round};
use memit_benches::shared::Shared;
use memit_benches::{ping_pong, ratio};
use memit_ringbuf::{Capacity, Consumer, Header, Key, MappedRing, MappedRingMut, OwnCursor, PeerCursor, Producer};

const RING: usize = 64 * 1024;
const LEN: usize = 4096 + 2 * RING;
/// Offsets of words in the first page: commands to the child, the bare line, and the two heads.
const COMMAND: usize = 0;
const THERE: usize = 512;
const BACK: usize = 1024;
const HEADS: [usize; 2] = [1536, 2048];
const RINGS: [usize; 2] = [4096, 4096 + RING];
const KEY: u64 = 0x9e37_79b9_7f4a_7c15;

const PROBE_ROUNDS: u64 = 20_000;
const ROUNDS: u64 = 20_000;
const SEGMENTS: u64 = 60;
const PAYLOAD: usize = 48;

/// What the child does next, in the low bits of the command word; the count is above.
const BARE: u64 = 1;
const RING_ECHO: u64 = 2;
const API_ECHO: u64 = 3;
const STOP: u64 = 4;

#[memit::message]
#[derive(Clone)]
struct Tick {
    seq: u64,
    symbol: String,
}

const PING: Channel<Tick> = Channel::new("ping");
const PONG: Channel<Tick> = Channel::new("pong");
const CALL: Channel<Tick, u64> = Channel::new("call");
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
        if let Some(frame) = input.poll()? {
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
    let handled = Arc::new(AtomicU64::new(0));
    let (pings, calls) = (Arc::clone(&handled), Arc::clone(&handled));
    let mut back = Tick { seq: 0, symbol: SYMBOL.to_owned() };
    renderer.on(PING, move |event, tick| {
        pings.fetch_add(1, Ordering::Relaxed);
        back.seq = tick.seq.to_native() + 1;
        event.reply(PONG, &back)
    });
    renderer.on(CALL, move |event, tick| {
        calls.fetch_add(1, Ordering::Relaxed);
        event.set_return_value(&(tick.seq.to_native() + 1))
    });
    let mut done = 0;
    loop {
        let command = shared.word(COMMAND).load(Ordering::Acquire);
        if command >> 8 == done {
            continue;
        }
        done = command >> 8;
        match command & 0xff {
            BARE => ping_pong::answer(shared.word(THERE), shared.word(BACK), 0, PROBE_ROUNDS),
            RING_ECHO => {
                for _ in 0..ROUNDS {
                    let bytes = take(&mut input)?;
                    put(&out, &bytes);
                }
            }
            API_ECHO => {
                let end = handled.load(Ordering::Relaxed) + ROUNDS;
                while handled.load(Ordering::Relaxed) < end {
                    renderer.run_once(Duration::MAX)?;
                }
            }
            _ => return Ok(()),
        }
    }
}

struct Parent {
    shared: Arc<Shared>,
    commands: u64,
    child: Child,
}

impl Drop for Parent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Parent {
    fn command(&mut self, what: u64) {
        self.commands += 1;
        self.shared.word(THERE).store(0, Ordering::Relaxed);
        self.shared.word(BACK).store(0, Ordering::Relaxed);
        self.shared.word(COMMAND).store(self.commands << 8 | what, Ordering::Release);
    }

    fn bare(&mut self) -> f64 {
        self.command(BARE);
        let took = ping_pong::ask(self.shared.word(THERE), self.shared.word(BACK), 0, PROBE_ROUNDS);
        per_round(took, PROBE_ROUNDS)
    }
}

fn parent() -> Result<(), Box<dyn Error>> {
    println!("{}", describe());
    let shared = Arc::new(Shared::create(LEN)?);
    let app = format!("round-trip-{}", std::process::id());
    let main = IpcMain::builder().wait(WaitStrategy::Spin).bind(&app)?;
    let child =
        Command::new(env::current_exe()?).env("MEMIT_BENCH_CHILD", format!("{} {app}", shared.descriptor())).spawn()?;
    let mut parent = Parent { shared: Arc::clone(&shared), commands: 0, child };
    let core = pin(0)?;
    println!("waiting    both sides spin, pinned; this one on core {core}\n");
    let (out, mut input) = ends(&shared, 0)?;

    let pongs = Arc::new(AtomicU64::new(0));
    let seen = Arc::clone(&pongs);
    main.on(PONG, move |_, tick| seen.store(tick.seq.to_native(), Ordering::Relaxed));
    let deadline = Instant::now() + Duration::from_secs(10);
    while main.renderers().is_empty() {
        if Instant::now() > deadline {
            return Err("the child did not connect within 10 s".into());
        }
        main.run_once(Duration::from_millis(10))?;
    }
    let renderer = main.renderers().remove(0);

    let mut figures = [("ring", Ratios::default()), ("send/on", Ratios::default()), ("send_sync", Ratios::default())];
    for segment in 0..SEGMENTS {
        for (at, (_, ratios)) in figures.iter_mut().enumerate() {
            let before = parent.bare();
            let took = match at {
                0 => ring_segment(&mut parent, &out, &mut input)?,
                1 => send_segment(&mut parent, &main, &renderer, &pongs)?,
                _ => call_segment(&mut parent, &renderer)?,
            };
            let after = parent.bare();
            ratios.add(before, ratio::per_round(took, ROUNDS), after);
        }
        if segment % 20 == 19 {
            eprintln!("{} of {SEGMENTS} segments", segment + 1);
        }
    }
    parent.command(STOP);
    println!("{:<10} {:>9} {:>9} {:>7}   segments (dropped)", "48 B", "ns/round", "bare", "x bare");
    for (name, ratios) in &figures {
        let (counted, dropped) = ratios.counts();
        let medians = ratios.medians().ok_or("every segment was dropped: the machine is too unsteady")?;
        let Medians { candidate, probe, ratio } = medians;
        println!("{name:<10} {candidate:>9.1} {probe:>9.1} {ratio:>7.2}   {counted} ({dropped})");
    }
    Ok(())
}

fn ring_segment(parent: &mut Parent, out: &Out, input: &mut In) -> Result<Duration, Box<dyn Error>> {
    parent.command(RING_ECHO);
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

fn send_segment(
    parent: &mut Parent,
    main: &IpcMain,
    renderer: &Sender,
    pongs: &AtomicU64,
) -> Result<Duration, Box<dyn Error>> {
    parent.command(API_ECHO);
    let mut tick = Tick { seq: 0, symbol: SYMBOL.to_owned() };
    let began = Instant::now();
    for round in 0..ROUNDS {
        tick.seq = 2 * round + 1_000;
        renderer.send(PING, &tick)?;
        while pongs.load(Ordering::Relaxed) != tick.seq + 1 {
            main.run_once(Duration::MAX)?;
        }
    }
    Ok(began.elapsed())
}

fn call_segment(parent: &mut Parent, renderer: &Sender) -> Result<Duration, Box<dyn Error>> {
    parent.command(API_ECHO);
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
