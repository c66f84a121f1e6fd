//! What is sent at the very end of a connection.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use memit::{Channel, Sender};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use support::{Rig, within_deadline};

const LAST: Channel<u64> = Channel::new("last");

/// Has this thread and all that it starts share one core, so that each is interrupted by the others at any instruction.
fn share_one_core() {
    let allowed = sched_getaffinity(None).unwrap();
    let first = (0..CpuSet::MAX_CPU).find(|core| allowed.is_set(*core)).unwrap();
    let mut one = CpuSet::new();
    one.set(first);
    sched_setaffinity(None, &one).unwrap();
}

#[test]
fn a_message_sent_right_before_the_end_is_delivered_wherever_the_dispatching_thread_is_interrupted() {
    const RENDERERS: u64 = 800;
    within_deadline(|| {
        share_one_core();
        let rig = Rig::new();
        let counter = || Arc::new(AtomicU64::new(0));
        let (came, told, went) = (counter(), counter(), counter());
        let counting = |of: &Arc<AtomicU64>| {
            let of = Arc::clone(of);
            move || _ = of.fetch_add(1, Ordering::Relaxed)
        };
        let (arrival, message, end) = (counting(&came), counting(&told), counting(&went));
        rig.main.on_connect(move |_: &Sender| arrival());
        rig.main.on(LAST, move |_, _| message());
        rig.main.on_disconnect(move |_, _| end());
        let count = |of: &AtomicU64| of.load(Ordering::Relaxed);
        thread::scope(|scope| {
            scope.spawn(|| {
                for number in 0..RENDERERS {
                    rig.renderer().send(LAST, &number).unwrap();
                }
            });
            while count(&went) < RENDERERS {
                rig.main.poll().unwrap();
                if count(&came) == count(&went) {
                    // Nobody is there: the next one comes the sooner.
                    thread::yield_now();
                }
            }
        });
        assert_eq!(count(&told), RENDERERS);
    });
}
