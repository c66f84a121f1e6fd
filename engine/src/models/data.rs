//! The data doorbell: one thread sleeps for frames, others publish them.

use loom::sync::Arc;
use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use loom::sync::{Condvar, Mutex};
use loom::thread;

use super::barrier::{Barriers, Kind, Without};
use super::explore::explore;
use crate::doorbell::protocol::{Kinds, Pass, Waker, arm, armed, unfence};
use crate::doorbell::sleep::sleep_once;

struct Doorbell {
    /// Stands for the ring: how many frames there are.
    published: Arc<AtomicU64>,
    armed: AtomicU64,
    bell: AtomicU32,
    control: AtomicU32,
    waker: Waker,
    socket: Socket,
    barriers: Barriers,
}

/// The descriptor bell.
#[derive(Default)]
struct Socket {
    rings: Mutex<u32>,
    rung: Condvar,
    /// How many rings will fail.
    failures: AtomicU32,
}

impl Socket {
    fn ring(&self) -> bool {
        let fails = |left: u32| left.checked_sub(1);
        if self.failures.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fails).is_ok() {
            return false;
        }
        *self.rings.lock().unwrap() += 1;
        self.rung.notify_all();
        true
    }

    fn wait_and_drain(&self) {
        let mut rings = self.rings.lock().unwrap();
        while *rings == 0 {
            rings = self.rung.wait(rings).unwrap();
        }
        *rings = 0;
    }
}

impl Doorbell {
    fn new(kind: Kind, without: Without, wakers: usize) -> Arc<Self> {
        Arc::new(Self {
            published: Arc::new(AtomicU64::new(0)),
            armed: AtomicU64::new(0),
            bell: AtomicU32::new(0),
            control: AtomicU32::new(0),
            waker: Waker::default(),
            socket: Socket::default(),
            barriers: Barriers::new(kind, without, wakers),
        })
    }

    /// As `Link::ring_data` does behind a publication.
    fn publish(&self, waker: usize) {
        let published = Arc::clone(&self.published);
        let store = move || {
            published.fetch_add(1, Ordering::Release);
        };
        let look = |fence: &dyn Fn()| armed(|| self.armed.load(Ordering::Relaxed), fence);
        let armed = self.barriers.publish(waker, store, look);
        if self.waker.due(armed) {
            self.waker.ring(armed, &self.bell, || self.socket.ring());
        }
    }

    fn has(&self, wanted: u64) -> bool {
        self.published.load(Ordering::Acquire) >= wanted
    }

    fn sleep_until(&self, wanted: u64, fenced: bool) {
        while !self.has(wanted) {
            let arm = || arm(&self.armed, Kinds::FUTEX, fenced);
            sleep_once(&self.bell, &self.control, arm, |pass| self.barrier(pass), || self.has(wanted));
        }
    }

    fn barrier(&self, pass: Pass) -> Option<std::time::Instant> {
        self.barriers.heavy(pass);
        None
    }

    /// As a thread with many peers does.
    fn poll_until(&self, wanted: u64) {
        while !self.has(wanted) {
            self.barriers.heavy(arm(&self.armed, Kinds::DESCRIPTOR, false));
            if !self.has(wanted) {
                self.socket.wait_and_drain();
            }
        }
    }
}

fn one_waker(kind: Kind, without: Without, frames: u64) {
    explore(Some(4), move || {
        let bell = Doorbell::new(kind, without, 1);
        let other = Arc::clone(&bell);
        let waker = thread::spawn(move || (0..frames).for_each(|_| other.publish(0)));
        (1..=frames).for_each(|seen| bell.sleep_until(seen, false));
        waker.join().unwrap();
    });
}

/// A consumer that asks for fences, behind membarrier, while it waits for the frames that `fenced` tells.
fn one_waker_that_is_asked(without: Without, fenced: &'static [bool]) {
    explore(Some(4), move || {
        let bell = Doorbell::new(Kind::Membarrier, without, 1);
        let other = Arc::clone(&bell);
        let waker = thread::spawn(move || fenced.iter().for_each(|_| other.publish(0)));
        for (seen, fenced) in (1..).zip(fenced) {
            bell.sleep_until(seen, *fenced);
        }
        waker.join().unwrap();
    });
}

fn two_wakers(kind: Kind) {
    explore(Some(3), move || {
        let bell = Doorbell::new(kind, Without::Nothing, 2);
        let wakers = [0, 1].map(|waker| {
            let bell = Arc::clone(&bell);
            thread::spawn(move || bell.publish(waker))
        });
        bell.sleep_until(2, false);
        wakers.into_iter().for_each(|waker| waker.join().unwrap());
    });
}

#[test]
fn fences_wake_a_consumer_for_each_message() {
    one_waker(Kind::Fences, Without::Nothing, 2);
}

#[test]
fn membarrier_wakes_a_consumer_for_each_message() {
    one_waker(Kind::Membarrier, Without::Nothing, 2);
}

#[test]
#[should_panic(expected = "deadlock")]
fn without_the_sleepers_fence_a_wake_up_is_lost() {
    one_waker(Kind::Fences, Without::Heavy, 1);
}

#[test]
#[should_panic(expected = "deadlock")]
fn without_the_wakers_fence_a_wake_up_is_lost() {
    one_waker(Kind::Fences, Without::Light, 1);
}

#[test]
#[should_panic(expected = "deadlock")]
fn without_the_sleepers_membarrier_a_wake_up_is_lost() {
    one_waker(Kind::Membarrier, Without::Heavy, 1);
}

#[test]
#[should_panic(expected = "deadlock")]
fn without_the_wakers_compiler_fence_a_wake_up_is_lost() {
    one_waker(Kind::Membarrier, Without::Light, 1);
}

#[test]
fn fences_that_are_asked_for_behind_membarrier_wake_a_consumer_for_each_message() {
    one_waker_that_is_asked(Without::Nothing, &[true, true]);
}

#[test]
fn a_consumer_that_asks_for_no_more_fences_is_woken_for_each_message() {
    one_waker_that_is_asked(Without::Nothing, &[true, false]);
}

/// Not by arming, but while it does not sleep.
#[test]
fn a_consumer_that_has_renounced_fences_asks_for_them_anew() {
    explore(Some(3), || {
        let bell = Doorbell::new(Kind::Membarrier, Without::Nothing, 1);
        let other = Arc::clone(&bell);
        let waker = thread::spawn(move || (0..2).for_each(|_| other.publish(0)));
        bell.sleep_until(1, true);
        unfence(&bell.armed);
        bell.sleep_until(2, true);
        waker.join().unwrap();
    });
}

#[test]
#[should_panic(expected = "deadlock")]
fn without_the_membarrier_behind_the_first_request_a_wake_up_is_lost() {
    one_waker_that_is_asked(Without::Heavy, &[true]);
}

#[test]
#[should_panic(expected = "deadlock")]
fn without_the_fence_that_was_asked_for_a_wake_up_is_lost() {
    explore(Some(4), || {
        let bell = Doorbell::new(Kind::Membarrier, Without::Asked, 1);
        // It asked when it slept before, and was woken then.
        bell.barriers.heavy(arm(&bell.armed, Kinds::FUTEX, true));
        bell.waker.rang(bell.armed.load(Ordering::Relaxed));
        let other = Arc::clone(&bell);
        let waker = thread::spawn(move || other.publish(0));
        bell.sleep_until(1, true);
        waker.join().unwrap();
    });
}

#[test]
fn two_producers_with_fences_wake_one_consumer() {
    two_wakers(Kind::Fences);
}

#[test]
fn two_producers_with_membarrier_wake_one_consumer() {
    two_wakers(Kind::Membarrier);
}

#[test]
fn a_consumer_that_polls_the_descriptor_is_woken_for_each_message() {
    explore(None, || {
        let bell = Doorbell::new(Kind::Fences, Without::Nothing, 1);
        let other = Arc::clone(&bell);
        let waker = thread::spawn(move || (0..2).for_each(|_| other.publish(0)));
        (1..=2).for_each(|seen| bell.poll_until(seen));
        waker.join().unwrap();
    });
}

/// The first ring fails, as it does where the kernel is short of memory: the next message rings again.
#[test]
fn a_ring_that_failed_is_not_remembered() {
    explore(None, || {
        let bell = Doorbell::new(Kind::Fences, Without::Nothing, 1);
        bell.socket.failures.store(1, Ordering::Relaxed);
        let other = Arc::clone(&bell);
        let waker = thread::spawn(move || (0..2).for_each(|_| other.publish(0)));
        bell.poll_until(1);
        waker.join().unwrap();
    });
}

/// Whoever ends the wait of the dispatching thread, a shutdown or an arrival, sets a flag and changes the control word.
#[test]
fn a_consumer_that_sleeps_is_called_to_something_else() {
    explore(None, || {
        let bell = Doorbell::new(Kind::Fences, Without::Nothing, 1);
        let news = Arc::new(AtomicU32::new(0));
        let (other, flag) = (Arc::clone(&bell), Arc::clone(&news));
        let caller = thread::spawn(move || {
            flag.store(1, Ordering::Relaxed);
            crate::doorbell::sleep::change(&other.control);
        });
        while news.load(Ordering::Relaxed) == 0 {
            let arm = || arm(&bell.armed, Kinds::FUTEX, false);
            let ready = || news.load(Ordering::Relaxed) != 0;
            sleep_once(&bell.bell, &bell.control, arm, |pass| bell.barrier(pass), ready);
        }
        caller.join().unwrap();
    });
}
