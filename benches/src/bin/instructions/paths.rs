//! The paths that are counted.

use std::error::Error;
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use memit::encode::with_encoded;
use memit::{Channel, IpcMain, IpcRenderer, Payload, WaitStrategy};
use memit_engine::AlignedBytes;
use memit_ringbuf::{Capacity, Consumer, Header, HeapCursor, HeapRing, Key, Polled, Producer};

use crate::callgrind::{
    MULTIPLES, Passes, callgrind_begins_here, callgrind_collects_here, callgrind_ends_here, run, say,
};

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

const RING: usize = 256 << 10;
const PAYLOAD: usize = 48;
/// A third of what fits the ring, in frames of one line, and as many as an endpoint takes in one poll.
const ONCE: u64 = 1024;
/// Calls need a switch of threads each.
const CALLS: u64 = 128;
const PATIENCE: Duration = Duration::from_secs(60);

/// Archives to 48 bytes.
#[memit::message]
struct Tick {
    seq: u64,
    symbol: String,
}

const SYMBOL: &str = "a name of thirty-two characters.";
const TICK: Channel<Tick> = Channel::new("tick");
const NUMBERS: Channel<[u64]> = Channel::new("numbers");
const CALL: Channel<Tick, u64> = Channel::new("call");
/// That calls are about to come, or that so many have come, or that no more will.
const PHASE: Channel<Phase> = Channel::new("phase");

#[memit::message]
enum Phase {
    Begin,
    End(u64),
    Stop,
}

fn tick() -> Tick {
    Tick { seq: 7, symbol: SYMBOL.to_owned() }
}

fn expect(what: &str, found: u64, expected: u64) -> Outcome {
    if found == expected { Ok(()) } else { Err(format!("{what}: found {found}, expected {expected}").into()) }
}

/// What one thread does alone.
pub(crate) fn local(directory: &Path) -> Outcome {
    run("ring-claim-commit", ONCE, &mut Claims { ring: Ring::new()?, exclusive: false })?;
    run("ring-exclusive-commit", ONCE, &mut Claims { ring: Ring::new()?, exclusive: true })?;
    run("ring-poll-release", ONCE, &mut Polls { ring: Ring::new()?, sum: 0 })?;
    run("encode", ONCE, &mut Encodes { tick: tick(), sum: 0 })?;
    run("validate", ONCE, &mut Validates::new()?)?;
    run("send", ONCE, &mut Sends { pair: Pair::new(directory, 1)?, tick: tick(), refused: 0 })?;
    run("receive", ONCE, &mut Receives { pair: Pair::new(directory, 1)?, send: Pair::send_tick })?;
    run("dispatch-1-listener", ONCE, &mut Receives { pair: Pair::new(directory, 1)?, send: Pair::send_numbers })?;
    run("dispatch-10-listeners", ONCE, &mut Receives { pair: Pair::new(directory, 10)?, send: Pair::send_numbers })
}

/// A ring with both ends in one thread.
struct Ring {
    producer: Producer<HeapRing, HeapCursor>,
    consumer: Consumer<HeapRing, HeapCursor>,
}

impl Ring {
    fn new() -> Outcome<Self> {
        let ring = HeapRing::new(Capacity::new(RING)?);
        let (head, key) = (HeapCursor::new(), Key::new(0x9e37_79b9_7f4a_7c15).ok_or("no key")?);
        Ok(Self { producer: Producer::new(ring.clone(), head.clone(), key), consumer: Consumer::new(ring, head, key) })
    }

    fn drain(&mut self) -> Outcome<u64> {
        let mut sum = 0;
        while let Some(frame) = self.consumer.poll()?.frame() {
            let mut bytes = [0; PAYLOAD];
            frame.copy_to(&mut bytes);
            sum += u64::from(bytes[PAYLOAD - 1]);
            frame.release();
        }
        self.consumer.publish_head();
        Ok(sum)
    }
}

const HEADER: Header = Header { channel: 1, kind: 1, flags: 0 };

/// Claim, write and commit; the last byte of each payload is 1, so that the sum over them counts.
struct Claims {
    ring: Ring,
    exclusive: bool,
}

impl Passes for Claims {
    fn pass(&mut self, times: u64) {
        let bytes = black_box([1; PAYLOAD]);
        if self.exclusive {
            let Ok(mut guard) = self.ring.producer.exclusive() else { return };
            for _ in 0..times {
                let Ok(mut claim) = guard.try_claim(PAYLOAD) else { return };
                claim.write(0, &bytes);
                claim.commit(HEADER);
            }
        } else {
            for _ in 0..times {
                let Ok(mut claim) = self.ring.producer.try_claim(PAYLOAD) else { return };
                claim.write(0, &bytes);
                claim.commit(HEADER);
            }
        }
    }

    fn check(&mut self, times: u64) -> Outcome {
        expect("frames in the ring", self.ring.drain()?, times)
    }
}

/// Poll, copy and release.
struct Polls {
    ring: Ring,
    sum: u64,
}

impl Passes for Polls {
    fn prepare(&mut self, times: u64) -> Outcome {
        for _ in 0..times {
            let mut claim = self.ring.producer.try_claim(PAYLOAD)?;
            claim.write(0, &[1; PAYLOAD]);
            claim.commit(HEADER);
        }
        Ok(())
    }

    fn pass(&mut self, times: u64) {
        let mut bytes = [0; PAYLOAD];
        for _ in 0..times {
            let Ok(Polled::Frame(frame)) = self.ring.consumer.poll() else { return };
            if frame.len() != PAYLOAD {
                return;
            }
            frame.copy_to(&mut bytes);
            frame.release();
            self.sum += u64::from(black_box(&bytes)[PAYLOAD - 1]);
        }
    }

    fn check(&mut self, times: u64) -> Outcome {
        expect("frames left over", self.ring.drain()?, 0)?;
        expect("frames taken", std::mem::take(&mut self.sum), times)
    }
}

struct Encodes {
    tick: Tick,
    sum: u64,
}

impl Passes for Encodes {
    fn pass(&mut self, times: u64) {
        for _ in 0..times {
            let len = with_encoded::<Tick, _, _>(black_box(&self.tick), |bytes| black_box(bytes).len());
            self.sum += len.map_or(0, |len| len as u64);
        }
    }

    fn check(&mut self, times: u64) -> Outcome {
        expect("bytes encoded", std::mem::take(&mut self.sum), times * PAYLOAD as u64)
    }
}

struct Validates {
    bytes: AlignedBytes,
    sum: u64,
}

impl Validates {
    fn new() -> Outcome<Self> {
        let mut bytes = AlignedBytes::new();
        with_encoded::<Tick, _, _>(&tick(), |encoded| bytes.extend_from_slice(encoded))?;
        Ok(Self { bytes, sum: 0 })
    }
}

impl Passes for Validates {
    fn pass(&mut self, times: u64) {
        for _ in 0..times {
            let Ok(tick) = Tick::view(black_box(self.bytes.as_slice())) else { return };
            self.sum += tick.seq.to_native();
        }
    }

    fn check(&mut self, times: u64) -> Outcome {
        expect("sum of the numbers", std::mem::take(&mut self.sum), times * tick().seq)
    }
}

/// A main and a renderer of this process, which is both of them.
struct Pair {
    main: IpcMain,
    renderer: IpcRenderer,
    heard: Arc<AtomicU64>,
}

impl Pair {
    fn new(directory: &Path, listeners: usize) -> Outcome<Self> {
        let builder = IpcMain::builder().runtime_dir(directory.join("run"));
        let main = builder.ring_capacity(RING).wait(WaitStrategy::Spin).bind("app")?;
        let builder = IpcRenderer::builder().runtime_dir(directory.join("run"));
        let renderer = builder.ring_capacity(RING).wait(WaitStrategy::Spin).connect("app")?;
        let heard = Arc::new(AtomicU64::new(0));
        for _ in 0..listeners {
            let (ticks, numbers) = (Arc::clone(&heard), Arc::clone(&heard));
            main.on(TICK, move |_, tick| ticks.store(ticks.load(RELAXED) + tick.seq.to_native(), RELAXED));
            main.on(NUMBERS, move |_, found| numbers.store(numbers.load(RELAXED) + found[0], RELAXED));
        }
        main.on(CALL, |event, tick| event.set_return_value(&(tick.seq.to_native() + 1)));
        expect("arrivals", main.run_once(PATIENCE)? as u64, 1)?;
        Ok(Self { main, renderer, heard })
    }

    fn send_tick(&self) -> Outcome {
        Ok(self.renderer.send(TICK, &tick())?)
    }

    fn send_numbers(&self) -> Outcome {
        Ok(self.renderer.send(NUMBERS, &[tick().seq; PAYLOAD / 8])?)
    }

    /// Has main take in what was sent; `times` messages.
    fn receive(&self, times: u64) -> Outcome {
        let mut taken = 0;
        while taken < times {
            taken += self.main.poll()? as u64;
        }
        Ok(())
    }
}

const RELAXED: Ordering = Ordering::Relaxed;

/// A typed message onto the ring: encoded, copied, published.
struct Sends {
    pair: Pair,
    tick: Tick,
    refused: u64,
}

impl Passes for Sends {
    fn pass(&mut self, times: u64) {
        for _ in 0..times {
            self.refused += u64::from(self.pair.renderer.send(TICK, black_box(&self.tick)).is_err());
        }
    }

    fn check(&mut self, times: u64) -> Outcome {
        expect("refused sends", self.refused, 0)?;
        self.pair.receive(times)?;
        expect("sum of the numbers heard", self.pair.heard.swap(0, RELAXED), times * self.tick.seq)
    }
}

/// A message off the ring: copied, validated, handed to its listeners.
struct Receives {
    pair: Pair,
    send: fn(&Pair) -> Outcome,
}

impl Passes for Receives {
    fn prepare(&mut self, times: u64) -> Outcome {
        (0..times).try_for_each(|_| (self.send)(&self.pair))
    }

    fn pass(&mut self, times: u64) {
        let _ = black_box(self.pair.receive(times));
    }

    fn check(&mut self, times: u64) -> Outcome {
        let listeners = (self.pair.main.listener_count(NUMBERS)) as u64;
        expect("sum of the numbers heard", self.pair.heard.swap(0, RELAXED), listeners * times * tick().seq)
    }
}

struct Calls<'p> {
    renderer: &'p IpcRenderer,
    tick: Tick,
    sum: u64,
}

impl Passes for Calls<'_> {
    fn pass(&mut self, times: u64) {
        for _ in 0..times {
            self.sum += self.renderer.send_sync(CALL, black_box(&self.tick)).map_or(0, |value| value.to_native());
        }
    }

    fn check(&mut self, times: u64) -> Outcome {
        expect("sum of the values", std::mem::take(&mut self.sum), times * (self.tick.seq + 1))
    }
}

/// What a caller does, whose calls another thread answers. Its wait is not counted.
pub(crate) fn caller(directory: &Path) -> Outcome {
    let Pair { main, renderer, .. } = Pair::new(directory, 1)?;
    thread::scope(|scope| {
        let answering = scope.spawn(|| main.run().map_err(|error| error.to_string()));
        let counted = run("call", CALLS, &mut Calls { renderer: &renderer, tick: tick(), sum: 0 });
        main.shutdown();
        answering.join().map_err(|_| "the answering thread panicked")??;
        counted
    })
}

/// What the dispatching thread does, which answers another thread's calls. Its wait is not counted. It dispatches all the
/// time, as a main does, so the calling thread tells it when to begin and to end.
pub(crate) fn answerer(directory: &Path) -> Outcome {
    let Pair { main, renderer, .. } = Pair::new(directory, 1)?;
    let stop = main.downgrade();
    main.on(PHASE, move |_, phase| match phase {
        ArchivedPhase::Begin => callgrind_begins_here(),
        ArchivedPhase::End(calls) => {
            callgrind_ends_here();
            say("answer", calls.to_native());
        }
        ArchivedPhase::Stop => stop.upgrade().iter().for_each(IpcMain::shutdown),
    });
    let call = || {
        let mut calls = Calls { renderer: &renderer, tick: tick(), sum: 0 };
        calls.pass(CALLS);
        calls.check(CALLS)?;
        for times in MULTIPLES.map(|multiple| multiple * CALLS) {
            renderer.send(PHASE, &Phase::Begin)?;
            calls.pass(times);
            renderer.send(PHASE, &Phase::End(times))?;
            calls.check(times)?;
        }
        Ok::<_, Box<dyn Error>>(())
    };
    thread::scope(|scope| {
        let calling = scope.spawn(|| {
            let outcome = call().map_err(|error| error.to_string());
            renderer.send(PHASE, &Phase::Stop).map_err(|error| error.to_string()).and(outcome)
        });
        let mut ended = Ok(());
        callgrind_collects_here(&mut || ended = main.run());
        calling.join().map_err(|_| "the calling thread panicked")??;
        Ok(ended?)
    })
}
