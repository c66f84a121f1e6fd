//! What it takes main to get a message to its listeners: off the ring, checked, and through all of them. By the number of
//! listeners on one channel, and by the number of channels that the messages come on in turn.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput};
use memit::{Channel, Payload, WaitStrategy};
use support::Pair;

/// Messages on their way at once; they fit the ring.
const BATCH: u64 = 1000;
const NUMBERS: [usize; 3] = [1, 10, 100];

/// Messages on `channels` channels in turn, each with `listeners` listeners that add up the numbers they are sent.
struct Crowd {
    pair: Pair,
    channels: Vec<Channel<u64>>,
    listeners: u64,
    heard: Arc<AtomicU64>,
}

impl Crowd {
    fn new(channels: usize, listeners: usize) -> Self {
        let pair = Pair::new(WaitStrategy::Spin);
        let heard = Arc::new(AtomicU64::new(0));
        // A channel's name lives for ever.
        let channels = (0..channels).map(|n| Channel::new(format!("channel-{n}").leak())).collect::<Vec<_>>();
        for channel in channels.iter().flat_map(|channel| std::iter::repeat_n(channel, listeners)) {
            let heard = Arc::clone(&heard);
            pair.main.on(*channel, move |_, number: &<u64 as Payload>::View| {
                heard.store(heard.load(Ordering::Relaxed) + number.to_native(), Ordering::Relaxed);
            });
        }
        Self { pair, channels, listeners: listeners as u64, heard }
    }

    /// How long main takes for `messages` messages.
    fn dispatch(&self, messages: u64) -> Duration {
        let mut took = Duration::ZERO;
        let mut left = messages;
        while left > 0 {
            let batch = left.min(BATCH);
            for (number, channel) in (1..=batch).zip(self.channels.iter().cycle()) {
                self.pair.renderer.send(*channel, &number).unwrap();
            }
            let began = Instant::now();
            self.pair.receive(batch);
            took += began.elapsed();
            let heard = self.heard.swap(0, Ordering::Relaxed);
            assert_eq!(heard, self.listeners * batch * (batch + 1) / 2, "each listener hears each message once");
            left -= batch;
        }
        took
    }
}

fn listeners(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("emitter/listeners");
    for listeners in NUMBERS {
        let crowd = Crowd::new(1, listeners);
        group.throughput(Throughput::Elements(listeners as u64));
        group.bench_function(BenchmarkId::from_parameter(listeners), |bencher| {
            bencher.iter_custom(|messages| crowd.dispatch(messages));
        });
    }
    group.finish();
}

fn channels(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("emitter/channels");
    group.throughput(Throughput::Elements(1));
    for channels in NUMBERS {
        let crowd = Crowd::new(channels, 1);
        group.bench_function(BenchmarkId::from_parameter(channels), |bencher| {
            bencher.iter_custom(|messages| crowd.dispatch(messages));
        });
    }
    group.finish();
}

fn main() {
    support::run(&[listeners, channels]);
}
