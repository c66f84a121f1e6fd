//! Three ways to get a large archive to where the peer reads it: encoded to a buffer and copied from there; measured and
//! then encoded right there; and the one or the other, by whether it has long pieces.
//!
//! `cargo run --release -p memit-benches --bin encode_paths`
//!
//! No ring and no peer: it times encoding and copying alone, into a page-aligned shared mapping. The ways take turns;
//! each line shows the medians, in microseconds, and how the others compare with the first. Whether the mapping's pages
//! are in the processor's cache matters, so it is done twice: always to the same place, as an arena that is given back
//! at once has it, and through 64 MiB of places in turn, as one whose receiver keeps messages has it.
#![allow(unsafe_code)]

use std::error::Error;
use std::hint::black_box;
use std::slice;
use std::time::{Duration, Instant};

use memit::encode::{Bound, Encoded, encode_to, with_encoded, with_encoded_or_sized};
use memit::{Args, EncodeAs, Payload, Value};
use memit_benches::machine::{describe, pin};
use memit_benches::shared::Shared;

/// Where messages go: at least as long as the longest of them, and a multiple of the page.
const PLACES: usize = 64 << 20;
const PAGE: usize = 4096;
/// As the API has them.
const MOST_COPIED: usize = 32 << 10;
const BULK: usize = 1 << 10;
/// Rounds of each way, and for how long at most.
const ROUNDS: usize = 400;
const PATIENCE: Duration = Duration::from_secs(4);
const WARM_UP: usize = 8;

#[memit::message]
struct Table {
    id: u64,
    names: Vec<String>,
}

/// Writes a message; how long it is.
type Way<M> = fn(&M, &mut Places) -> usize;

/// The memory, and where the next message goes.
struct Places {
    memory: &'static mut [u8],
    at: usize,
    takes_turns: bool,
}

impl Places {
    fn next(&mut self, len: usize) -> &mut [u8] {
        if !self.takes_turns || self.at + len > self.memory.len() {
            self.at = 0;
        }
        let at = self.at;
        self.at = (at + len).next_multiple_of(PAGE);
        &mut self.memory[at..at + len]
    }
}

/// Encoded to the thread's buffer, then copied.
fn copied<T: Payload + ?Sized, M: EncodeAs<T> + ?Sized>(message: &M, places: &mut Places) -> usize {
    let encoded = with_encoded::<T, M, _>(message, |bytes| {
        places.next(bytes.len()).copy_from_slice(bytes);
        bytes.len()
    });
    encoded.unwrap_or(0)
}

/// Measured, then encoded in place.
fn in_place<T: Payload + ?Sized, M: EncodeAs<T> + ?Sized>(message: &M, places: &mut Places) -> usize {
    by::<T, M>(message, Bound::new(MOST_COPIED, 0), places)
}

/// The one or the other.
fn by_piece<T: Payload + ?Sized, M: EncodeAs<T> + ?Sized>(message: &M, places: &mut Places) -> usize {
    by::<T, M>(message, Bound::new(MOST_COPIED, BULK), places)
}

fn by<T: Payload + ?Sized, M: EncodeAs<T> + ?Sized>(message: &M, bound: Bound, places: &mut Places) -> usize {
    let encoded = with_encoded_or_sized::<T, M, _>(message, bound, |bytes| {
        places.next(bytes.len()).copy_from_slice(bytes);
        bytes.len()
    });
    match encoded {
        Ok(Encoded::Whole(len)) => len,
        Ok(Encoded::Sized(len)) if encode_to::<T, M>(message, places.next(len)).is_ok() => len,
        _ => 0,
    }
}

/// All ways write the same, in full.
fn check<T: Payload + ?Sized, M: EncodeAs<T> + ?Sized>(
    message: &M,
    places: &mut Places,
) -> Result<usize, Box<dyn Error>> {
    let mut written = Vec::new();
    for way in [copied::<T, M>, in_place::<T, M>, by_piece::<T, M>] {
        places.memory.fill(0xee);
        places.at = 0;
        let len = way(message, places);
        T::view(&places.memory[..len])?;
        written.push(places.memory[..len].to_vec());
    }
    match &written[..] {
        [one, others @ ..] if others.iter().all(|other| other == one) && !one.is_empty() => Ok(one.len()),
        _ => Err("the ways differ".into()),
    }
}

fn median(times: &mut [Duration]) -> f64 {
    times.sort_unstable();
    times.get(times.len() / 2).map_or(0.0, |time| time.as_secs_f64() * 1e6)
}

fn compare<T: Payload + ?Sized, M: EncodeAs<T> + ?Sized>(
    name: &str,
    message: &M,
    places: &mut Places,
) -> Result<(), Box<dyn Error>> {
    let len = check::<T, M>(message, places)?;
    let mut times = [(); 3].map(|()| Vec::with_capacity(ROUNDS));
    let began = Instant::now();
    for round in 0..WARM_UP + ROUNDS {
        // In changing order, so that none always finds what another left in the cache.
        let mut ways: [(usize, Way<M>); 3] = [(0, copied::<T, M>), (1, in_place::<T, M>), (2, by_piece::<T, M>)];
        ways.rotate_left(round % 3);
        for (which, way) in ways {
            let start = Instant::now();
            black_box(way(black_box(message), places));
            let time = start.elapsed();
            if round >= WARM_UP {
                times[which].push(time);
            }
        }
        if began.elapsed() > PATIENCE {
            break;
        }
    }
    let [copied, in_place, by_piece] = times.each_mut().map(|times| median(times));
    let ratios = [in_place / copied, by_piece / copied];
    println!(
        "{name:<30} {len:>9} {copied:>11.2} {in_place:>11.2} {by_piece:>11.2} {:>8.3} {:>8.3}",
        ratios[0], ratios[1]
    );
    Ok(())
}

fn text(len: usize) -> String {
    "0123456789abcdef".repeat(len.div_ceil(16))
}

fn names(count: usize) -> Vec<String> {
    (0..count).map(|at| format!("a short string, number {at}")).collect()
}

fn main() -> Result<(), Box<dyn Error>> {
    pin(0)?;
    println!("{}", describe());
    let memory = Shared::create(PLACES)?;
    // SAFETY: it is all of the mapping, which nothing else in this process or another one reaches, and which is unmapped
    // at the end of `main`, after the last use.
    let memory = unsafe { slice::from_raw_parts_mut(memory.at(0).as_ptr(), PLACES) };
    let mut places = Places { memory, at: 0, takes_turns: false };
    for (takes_turns, title) in [(false, "always to the same place"), (true, "through 64 MiB of places in turn")] {
        places.takes_turns = takes_turns;
        println!(
            "\n{title}\n{:40} {:>11} {:>11} {:>11} {:>17}",
            "", "copied us", "in place us", "by piece us", "ratios"
        );
        for len in [64 << 10, 1 << 20, 4 << 20] {
            let kib = len >> 10;
            compare::<String, _>(&format!("String, {kib} KiB"), &text(len), &mut places)?;
            compare::<Vec<u8>, _>(&format!("Vec<u8>, {kib} KiB"), &text(len).into_bytes(), &mut places)?;
            compare::<Vec<f64>, _>(&format!("Vec<f64>, {kib} KiB"), &vec![0.5; len / 8], &mut places)?;
        }
        for count in [1000, 10_000] {
            let table = Table { id: 7, names: names(count) };
            compare::<Table, _>(&format!("Vec<String>, {count}"), &table, &mut places)?;
            let rows = names(count).into_iter().map(Value::from);
            compare::<Args, _>(&format!("Args, {count} strings"), &Args(rows.collect()), &mut places)?;
        }
        let numbers: Vec<_> = (0..10_000u32).map(|n| Value::Array(vec![n.into(), f64::from(n).into()])).collect();
        compare::<Args, _>("Args, 10000 pairs of numbers", &Args(numbers), &mut places)?;
    }
    Ok(())
}
