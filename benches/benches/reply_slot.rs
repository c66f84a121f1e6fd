//! What a call takes until its answer is there, in the engine: two pinned threads of one process, the one of which answers
//! with what it was sent. By the length of that, where both spin and where both sleep at once.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use criterion::{BenchmarkId, Criterion};
use memit_engine::{AlignedBytes, WaitStrategy};
use support::ports::{CHANNEL, Ports};

fn calls(criterion: &mut Criterion) {
    for (name, wait) in [("reply_slot/spin", WaitStrategy::Spin), ("reply_slot/park", WaitStrategy::Park)] {
        let Some(ports) = Ports::new(wait) else { return };
        let mut group = criterion.benchmark_group(name);
        let (mut number, mut reply) = (0u64, AlignedBytes::new());
        for len in [8, 48, 1024] {
            let mut payload = vec![7; len];
            group.bench_function(BenchmarkId::from_parameter(len), |bencher| {
                bencher.iter(|| {
                    number += 1;
                    payload[..8].copy_from_slice(&number.to_le_bytes());
                    let kept = ports.link.call(CHANNEL, &payload, None, &mut reply).unwrap();
                    // Longer ones than a slot holds come elsewhere.
                    assert!(kept.is_none() && reply.as_slice().first_chunk() == Some(&number.to_le_bytes()));
                });
            });
            assert!(reply.is_empty() || reply.as_slice() == payload, "the answer is not what was sent");
        }
        group.finish();
    }
}

fn main() {
    support::run(&[calls]);
}
