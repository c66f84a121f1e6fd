//! The ring, and its rivals on the same payloads: `rtrb`, for one producer and one consumer, and crossbeam's `ArrayQueue`,
//! for many of both. Each payload is written from a buffer of the sender's, and copied to one of the receiver's.
//!
//! `alternate` is one thread that puts a payload and takes it; `stream` is two pinned threads that do nothing else, and
//! shows what one payload takes.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::hint::{black_box, spin_loop};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, Throughput};
use crossbeam_queue::ArrayQueue;
use memit_benches::machine::{cores, pin};
use memit_ringbuf::{Capacity, Consumer, Exclusive, Header, HeapCursor, HeapRing, Key, Producer};

/// Bytes of each candidate's memory, more or less.
const RING: usize = 64 << 10;
const HEADER: Header = Header { channel: 1, kind: 1, flags: 0 };

/// The side that writes. `false` if there is no room.
trait Put<const N: usize>: Send {
    fn put(&mut self, payload: &[u8; N]) -> bool;
}

/// The side that reads. `false` if there is nothing.
trait Take<const N: usize>: Send {
    fn take(&mut self, payload: &mut [u8; N]) -> bool;
}

type Shared = Producer<HeapRing, HeapCursor>;

impl<const N: usize> Put<N> for &Shared {
    fn put(&mut self, payload: &[u8; N]) -> bool {
        let Ok(mut claim) = self.try_claim(N) else { return false };
        claim.write(0, payload);
        claim.commit(HEADER);
        true
    }
}

impl<const N: usize> Put<N> for Exclusive<'_, HeapRing, HeapCursor> {
    fn put(&mut self, payload: &[u8; N]) -> bool {
        let Ok(mut claim) = self.try_claim(N) else { return false };
        claim.write(0, payload);
        claim.commit(HEADER);
        true
    }
}

impl<const N: usize> Take<N> for Consumer<HeapRing, HeapCursor> {
    fn take(&mut self, payload: &mut [u8; N]) -> bool {
        let Some(frame) = self.poll().unwrap().frame() else {
            self.publish_head();
            return false;
        };
        frame.copy_to(payload);
        frame.release();
        true
    }
}

impl<const N: usize> Put<N> for rtrb::Producer<[u8; N]> {
    fn put(&mut self, payload: &[u8; N]) -> bool {
        self.push(*payload).is_ok()
    }
}

impl<const N: usize> Take<N> for rtrb::Consumer<[u8; N]> {
    fn take(&mut self, payload: &mut [u8; N]) -> bool {
        self.pop().map(|taken| *payload = taken).is_ok()
    }
}

impl<const N: usize> Put<N> for Arc<ArrayQueue<[u8; N]>> {
    fn put(&mut self, payload: &[u8; N]) -> bool {
        self.push(*payload).is_ok()
    }
}

impl<const N: usize> Take<N> for Arc<ArrayQueue<[u8; N]>> {
    fn take(&mut self, payload: &mut [u8; N]) -> bool {
        self.pop().map(|taken| *payload = taken).is_some()
    }
}

/// A payload that begins with a number.
fn write<const N: usize>(payload: &mut [u8; N], number: u64) {
    *payload.first_chunk_mut().unwrap() = number.to_le_bytes();
}

fn read<const N: usize>(payload: &[u8; N]) -> u64 {
    u64::from_le_bytes(*payload.first_chunk().unwrap())
}

/// Puts and takes one payload after the other, in one thread.
struct Alternate<'g, 'c>(&'g mut BenchmarkGroup<'c, WallTime>);
/// Has two threads put and take.
struct Stream<'g, 'c>(&'g mut BenchmarkGroup<'c, WallTime>);

/// How a candidate is measured.
trait Measure<const N: usize> {
    fn measure(&mut self, name: &str, put: impl Put<N>, take: impl Take<N>);
}

impl<const N: usize> Measure<N> for Alternate<'_, '_> {
    fn measure(&mut self, name: &str, mut put: impl Put<N>, mut take: impl Take<N>) {
        let (mut number, mut sum) = (0u64, 0u64);
        let (mut sent, mut taken) = ([7; N], [0; N]);
        self.0.bench_function(BenchmarkId::new(name, N), |bencher| {
            bencher.iter(|| {
                number += 1;
                write(&mut sent, number);
                assert!(put.put(black_box(&sent)) && take.take(black_box(&mut taken)), "an empty ring takes a payload");
                sum = sum.wrapping_add(read(&taken));
            });
        });
        assert_eq!(sum, (1..=number).fold(0, u64::wrapping_add), "{name} changed a payload");
        assert!(taken[8..] == sent[8..], "{name} changed a payload");
    }
}

impl<const N: usize> Measure<N> for Stream<'_, '_> {
    fn measure(&mut self, name: &str, mut put: impl Put<N>, mut take: impl Take<N>) {
        self.0.bench_function(BenchmarkId::new(name, N), |bencher| {
            bencher.iter_custom(|payloads| stream(payloads, &mut put, &mut take));
        });
    }
}

/// How long it took until the last payload was taken.
fn stream<const N: usize>(payloads: u64, put: &mut impl Put<N>, take: &mut impl Take<N>) -> Duration {
    let begin = Barrier::new(2);
    thread::scope(|scope| {
        let begin = &begin;
        scope.spawn(move || {
            pin(0).unwrap();
            let mut payload = [7; N];
            begin.wait();
            for number in 0..payloads {
                write(&mut payload, number);
                while !put.put(black_box(&payload)) {
                    spin_loop();
                }
            }
        });
        let taking = scope.spawn(move || {
            pin(1).unwrap();
            let mut payload = [0; N];
            begin.wait();
            let began = Instant::now();
            for number in 0..payloads {
                while !take.take(black_box(&mut payload)) {
                    spin_loop();
                }
                assert!(read(&payload) == number && payload[N - 1] == 7, "a payload was lost or changed");
            }
            began.elapsed()
        });
        taking.join().unwrap()
    })
}

fn candidates<const N: usize>(measure: &mut impl Measure<N>) {
    let key = Key::new(0x9e37_79b9_7f4a_7c15).unwrap();
    let ends = || {
        let (ring, head) = (HeapRing::new(Capacity::new(RING).unwrap()), HeapCursor::new());
        (Producer::new(ring.clone(), head.clone(), key), Consumer::new(ring, head, key))
    };
    let (producer, consumer) = ends();
    measure.measure("memit-shared", &producer, consumer);
    let (producer, consumer) = ends();
    measure.measure("memit-exclusive", producer.exclusive().unwrap(), consumer);
    let (producer, consumer) = rtrb::RingBuffer::new(RING / N);
    measure.measure("rtrb", producer, consumer);
    let queue = Arc::new(ArrayQueue::new(RING / N));
    measure.measure("crossbeam-array-queue", Arc::clone(&queue), queue);
}

fn alternate(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ring/alternate");
    group.throughput(Throughput::Elements(1));
    candidates::<48>(&mut Alternate(&mut group));
    candidates::<1024>(&mut Alternate(&mut group));
    group.finish();
}

fn streaming(criterion: &mut Criterion) {
    if cores().unwrap().count() < 2 {
        eprintln!("ring/stream is left out: it needs two cores");
        return;
    }
    let mut group = criterion.benchmark_group("ring/stream");
    group.throughput(Throughput::Elements(1));
    candidates::<48>(&mut Stream(&mut group));
    candidates::<1024>(&mut Stream(&mut group));
    group.finish();
}

/// The parts of a payload's way, in batches: what a claim and a commit take, and what a poll and a release.
fn parts(criterion: &mut Criterion) {
    const BATCH: u64 = 512;
    let key = Key::new(0x9e37_79b9_7f4a_7c15).unwrap();
    let (ring, head) = (HeapRing::new(Capacity::new(RING).unwrap()), HeapCursor::new());
    let producer = Producer::new(ring.clone(), head.clone(), key);
    let mut consumer = Consumer::new(ring, head, key);
    let (sent, mut taken) = ([7u8; 48], [0u8; 48]);
    let mut group = criterion.benchmark_group("ring/parts");
    for is_claim_timed in [true, false] {
        let name = if is_claim_timed { "claim-write-commit" } else { "poll-copy-release" };
        group.bench_function(BenchmarkId::new(name, 48), |bencher| {
            bencher.iter_custom(|times| {
                let mut took = Duration::ZERO;
                let mut left = times;
                while left > 0 {
                    let batch = left.min(BATCH);
                    let began = Instant::now();
                    for _ in 0..batch {
                        assert!((&producer).put(black_box(&sent)), "an empty ring takes a batch");
                    }
                    let half = Instant::now();
                    for _ in 0..batch {
                        assert!(consumer.take(black_box(&mut taken)), "a frame is missing");
                    }
                    let end = Instant::now();
                    took += if is_claim_timed { half - began } else { end - half };
                    assert!(taken == sent && !consumer.take(&mut taken), "the ring gives back what it was given");
                    left -= batch;
                }
                took
            });
        });
    }
    group.finish();
}

fn main() {
    support::run(&[parts, alternate, streaming]);
}
