//! What a send takes by whether the other side sleeps, in the engine: two pinned threads of one process.
//!
//! `nobody-sleeps` is a send to a thread that spins, `somebody-sleeps` one that wakes a thread, and `wake-up` goes on
//! until that thread has handled the message.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::time::{Duration, Instant};

use criterion::Criterion;
use memit_engine::WaitStrategy;
use support::ports::Ports;

/// Sends in a row; they fit the ring.
const BATCH: u64 = 1000;

fn nobody_sleeps(criterion: &mut Criterion) {
    let Some(ports) = Ports::new(WaitStrategy::Spin) else { return };
    let mut number = 0;
    criterion.bench_function("doorbell/nobody-sleeps", |bencher| {
        bencher.iter_custom(|sends| {
            let mut took = Duration::ZERO;
            let mut left = sends;
            while left > 0 {
                let batch = left.min(BATCH);
                let began = Instant::now();
                for _ in 0..batch {
                    number += 1;
                    ports.send(number);
                }
                took += began.elapsed();
                ports.await_heard(number);
                left -= batch;
            }
            took
        });
    });
}

fn somebody_sleeps(criterion: &mut Criterion) {
    let Some(ports) = Ports::new(WaitStrategy::Park) else { return };
    let mut number = 0;
    let mut timed = |until_heard: bool, sends: u64| {
        let mut took = Duration::ZERO;
        for _ in 0..sends {
            ports.await_sleep();
            number += 1;
            let began = Instant::now();
            ports.send(number);
            let sent = began.elapsed();
            ports.await_heard(number);
            took += if until_heard { began.elapsed() } else { sent };
        }
        took
    };
    for (name, until_heard) in [("doorbell/somebody-sleeps", false), ("doorbell/wake-up", true)] {
        criterion.bench_function(name, |bencher| bencher.iter_custom(|sends| timed(until_heard, sends)));
    }
}

fn main() {
    support::run(&[nobody_sleeps, somebody_sleeps]);
}
