//! Large payloads between two pinned processes: what a loan costs by size, how fast copies are, and what sealed memory
//! costs its receiver. Everything that is compared is measured in turns, in one run.
//!
//! `cargo run --release -p memit-benches --bin payloads`
//!
//! - `loan`: both sides trust each other fully and lend one another blocks of 4 KiB to 64 MiB. The listener looks at one
//!   byte and lends a block of the same size back; half a round trip is one way. The yardstick is the block of 4 KiB.
//! - `copy`: a stream of messages of 1 MiB, which the receiver copies before it looks at them (`Trust::None`). The
//!   yardsticks are one `memcpy` of as many bytes, into memory that is not in the copying core's cache, as the message's
//!   is not; for the record, one that stays in the cache; and the machine's own limit, the same two processes copying in
//!   and out through bare shared memory. That one tells how fast the two cores pass lines to each other, which differs
//!   fivefold between cores that share a cache and cores that do not.
//! - `sealed`: what a receiver pays to map a sealed payload, read it and unmap it, against what it pays to copy one out
//!   of a block and read that. One process, no memit: the two ways as the kernel offers them.

use std::env;
use std::error::Error;
use std::hint::black_box;
use std::process::{Command, ExitCode};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use memit::{Channel, Failure, IpcMain, IpcRenderer, SendError, Sender, Trust, WaitStrategy};
use memit_benches::machine::{cores, describe, pin, unpinned};
use memit_benches::sealed::{Copied, Sealed};
use memit_benches::shared::Shared;
use memit_benches::transfer;
use rustix::thread::CpuSet;

const LOAN_SIZES: [usize; 4] = [4 << 10, 64 << 10, 1 << 20, 64 << 20];
const LOAN_ROUNDS: u64 = 2_000;
const LOAN_SEGMENTS: usize = 40;

const MIB: usize = 1 << 20;
const COPY_MESSAGES: usize = 500;
const COPY_SEGMENTS: usize = 20;

const SEALED_SIZES: [usize; 6] = [64 << 10, 256 << 10, 1 << 20, 4 << 20, 16 << 20, 64 << 20];
const SEALED_ROUNDS: usize = 15;

const LOAN: Channel<[u8]> = Channel::new("loan");
const BACK: Channel<[u8]> = Channel::new("back");
const STREAM: Channel<[u8]> = Channel::new("stream");
/// Has the renderer take part in a bare stream of as many messages.
const BARE: Channel<u64> = Channel::new("bare");
/// Asks how many bytes of the stream have come since it was asked last.
const STREAMED: Channel<(), u64> = Channel::new("streamed");

fn main() -> ExitCode {
    let outcome = match env::var("MEMIT_BENCH_CHILD") {
        Ok(told) => child(&told),
        Err(_) => parent(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("payloads: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Both ends of the trusting connection are this program, which keeps the protocol.
#[allow(unsafe_code)]
fn trust(app: &str) -> Trust {
    if app.ends_with("trusted") && !app.ends_with("untrusted") {
        // SAFETY: the only process that connects to, or binds, this name is the other half of this benchmark.
        unsafe { Trust::full() }
    } else {
        Trust::None
    }
}

/// Extents that hold the largest loan, and an arena for one on its way in each direction.
const EXTENT: usize = 64 << 20;
const ARENA: usize = 256 << 20;

fn child(told: &str) -> Result<(), Box<dyn Error>> {
    let (descriptor, app) = told.split_once(' ').ok_or("the parent told no application")?;
    let shared = Shared::inherit(descriptor.parse()?, transfer::shared_len(MIB))?;
    pin(1)?;
    let mut builder = IpcRenderer::builder().wait(WaitStrategy::Spin).trust(trust(app));
    if matches!(trust(app), Trust::Full(_)) {
        builder = builder.extent_size(EXTENT).arena_limit(ARENA);
    }
    let renderer = builder.connect(app)?;
    renderer.on(LOAN, |event, block| {
        let mut back = event.sender().loan(BACK, block.len())?;
        back[0] = block[0].wrapping_add(1);
        back.commit()
    });
    let mut streamed = 0;
    let total = Arc::new(Mutex::new(0));
    let counted = Arc::clone(&total);
    renderer.on(STREAM, move |_, bytes| {
        streamed += u64::from(bytes[0] == 7) * bytes.len() as u64;
        *counted.lock().unwrap_or_else(PoisonError::into_inner) = streamed;
    });
    renderer
        .on(STREAMED, move |event, ()| event.set_return_value(&*total.lock().unwrap_or_else(PoisonError::into_inner)));
    let (mut to, mut taken) = (vec![0; MIB], 0);
    renderer.on(BARE, move |_, count| {
        transfer::take(&shared, &mut to, taken, count.to_native());
        taken += count.to_native();
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

/// A main, and the renderer that is this program again.
fn start(name: &str, cores: &CpuSet, shared: &Shared) -> Result<(IpcMain, Sender, Child), Box<dyn Error>> {
    let app = format!("payloads-{}-{name}", std::process::id());
    let mut builder = IpcMain::builder().wait(WaitStrategy::Spin).trust(trust(&app));
    if matches!(trust(&app), Trust::Full(_)) {
        builder = builder.extent_size(EXTENT).arena_limit(ARENA);
    }
    let main = builder.bind(&app)?;
    let told = format!("{} {app}", shared.descriptor());
    let mut command = Command::new(env::current_exe()?);
    let child = Child(unpinned(cores, || command.env("MEMIT_BENCH_CHILD", &told).spawn())??);
    let deadline = Instant::now() + Duration::from_secs(10);
    while main.renderers().is_empty() {
        if Instant::now() > deadline {
            return Err("the child did not connect within 10 s".into());
        }
        main.run_once(Duration::from_millis(10))?;
    }
    let renderer = main.renderers().remove(0);
    Ok((main, renderer, child))
}

fn parent() -> Result<(), Box<dyn Error>> {
    println!("{}", describe());
    let cores = cores()?;
    let core = pin(0)?;
    println!("waiting    both sides spin, pinned; this one on core {core}\n");
    let shared = Shared::create(transfer::shared_len(MIB))?;
    loans(&cores, &shared)?;
    copies(&cores, &shared)?;
    sealed()
}

fn loans(cores: &CpuSet, shared: &Shared) -> Result<(), Box<dyn Error>> {
    let (main, renderer, _child) = start("trusted", cores, shared)?;
    let mut segments = LOAN_SIZES.map(|_| Vec::new());
    for segment in 0..=LOAN_SEGMENTS {
        for (size, taken) in LOAN_SIZES.into_iter().zip(&mut segments) {
            let took = volley(&main, &renderer, size)?;
            // The first segment brings in the memory.
            if segment > 0 {
                taken.push(nanos(took) / (2 * LOAN_ROUNDS) as f64);
            }
        }
    }
    println!("loan       {:>10} {:>12} {:>10}", "ns one way", "x 4 KiB", "worst x");
    let ratios =
        segments.each_ref().map(|taken| taken.iter().zip(&segments[0]).map(|(a, b)| a / b).collect::<Vec<_>>());
    for ((size, taken), ratios) in LOAN_SIZES.into_iter().zip(segments).zip(ratios) {
        let worst = ratios.iter().copied().fold(0.0, f64::max);
        println!("{:<10} {:>10.1} {:>12.2} {worst:>10.2}", human(size), median(taken), median(ratios));
    }
    println!();
    Ok(())
}

/// Lends blocks to and fro, each side looking at one byte.
fn volley(main: &IpcMain, renderer: &Sender, size: usize) -> Result<Duration, Box<dyn Error>> {
    let outcome = Arc::new(Mutex::new(None));
    let (ended, sender) = (Arc::clone(&outcome), renderer.clone());
    let mut round = 0_u64;
    let began = Instant::now();
    let id = main.on(BACK, move |_, block| {
        #[allow(clippy::cast_possible_truncation, reason = "as the block has it")]
        let expected = (round as u8).wrapping_add(1);
        if block.len() != size || block[0] != expected {
            return Err(Failure::new(format_args!("{} bytes with {} came back", block.len(), block[0])));
        }
        round += 1;
        if round == LOAN_ROUNDS {
            *ended.lock().unwrap_or_else(PoisonError::into_inner) = Some(began.elapsed());
            return Ok(());
        }
        Ok(lend(&sender, size, round)?)
    });
    lend(renderer, size, 0)?;
    let took = loop {
        main.poll()?;
        if let Some(took) = outcome.try_lock().ok().and_then(|mut outcome| outcome.take()) {
            break took;
        }
    };
    main.remove_listener(BACK, id);
    Ok(took)
}

#[allow(clippy::cast_possible_truncation, reason = "a mark, not a number")]
fn lend(sender: &Sender, size: usize, round: u64) -> Result<(), SendError> {
    let mut block = sender.loan(LOAN, size)?;
    block[0] = round as u8;
    block.commit()
}

fn copies(cores: &CpuSet, shared: &Shared) -> Result<(), Box<dyn Error>> {
    let (_main, renderer, _child) = start("untrusted", cores, shared)?;
    let message = vec![7_u8; MIB];
    let mut cold = vec![0_u8; 128 * MIB];
    let (mut stream, mut memcpy, mut cached, mut bare) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut streamed = 0;
    for segment in 0..=COPY_SEGMENTS {
        let count = COPY_MESSAGES as u64;
        renderer.send(BARE, &count)?;
        let through_bare =
            gigabytes(COPY_MESSAGES * MIB, transfer::put(shared, &message, segment as u64 * count, count));
        let began = Instant::now();
        for _ in 0..COPY_MESSAGES {
            renderer.send(STREAM, &message[..])?;
        }
        let total = renderer.send_sync(STREAMED, &())?.to_native();
        let took = gigabytes(COPY_MESSAGES * MIB, began.elapsed());
        if total - std::mem::replace(&mut streamed, total) != (COPY_MESSAGES * MIB) as u64 {
            return Err("the stream lost or changed a message".into());
        }
        let began = Instant::now();
        for at in 0..cold.len() / MIB {
            black_box(&mut cold[at * MIB..][..MIB]).copy_from_slice(black_box(&message));
        }
        let into_cold = gigabytes(cold.len(), began.elapsed());
        let began = Instant::now();
        for _ in 0..COPY_MESSAGES {
            black_box(&mut cold[..MIB]).copy_from_slice(black_box(&message));
        }
        let into_cached = gigabytes(COPY_MESSAGES * MIB, began.elapsed());
        if segment > 0 {
            stream.push(took);
            memcpy.push(into_cold);
            cached.push(into_cached);
            bare.push(through_bare);
        }
    }
    let over = |by: &[f64]| median(stream.iter().zip(by).map(|(a, b)| a / b).collect());
    println!("copy       {:>10} {:>12}", "GB/s", "stream is");
    println!("{:<10} {:>10.2}", "stream", median(stream.clone()));
    println!("{:<10} {:>10.2} {:>10.2} x", "memcpy", median(memcpy.clone()), over(&memcpy));
    println!("{:<10} {:>10.2} {:>10.2} x", "cached", median(cached.clone()), over(&cached));
    println!("{:<10} {:>10.2} {:>10.2} x\n", "bare", median(bare.clone()), over(&bare));
    Ok(())
}

fn sealed() -> Result<(), Box<dyn Error>> {
    println!("sealed     {:>10} {:>12} {:>10}", "us sealed", "us copied", "x copied");
    for size in SEALED_SIZES {
        let (memory, block) = (Sealed::new(size)?, Copied::new(size)?);
        let mut private = vec![0; size];
        let (mut mapped, mut copied) = (Vec::new(), Vec::new());
        for _ in 0..SEALED_ROUNDS {
            let began = Instant::now();
            black_box(memory.read()?);
            mapped.push(nanos(began.elapsed()) / 1e3);
            let began = Instant::now();
            black_box(block.read(&mut private));
            copied.push(nanos(began.elapsed()) / 1e3);
        }
        let ratio = median(mapped.iter().zip(&copied).map(|(a, b)| a / b).collect());
        println!("{:<10} {:>10.1} {:>12.1} {ratio:>10.2}", human(size), median(mapped), median(copied));
    }
    Ok(())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

#[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
fn nanos(took: Duration) -> f64 {
    took.as_nanos() as f64
}

#[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
fn gigabytes(bytes: usize, took: Duration) -> f64 {
    bytes as f64 / nanos(took)
}

fn human(bytes: usize) -> String {
    if bytes < MIB { format!("{} KiB", bytes >> 10) } else { format!("{} MiB", bytes >> 20) }
}
