//! The data doorbell: one thread sleeps for frames, others publish them.

use loom::sync::Arc;
use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use loom::sync::{Condvar, Mutex};
use loom::thread;

use super::barrier::{Barriers, Kind, Without};
use super::explore::explore;
use crate::doorbell::protocol::{Kinds, Pass, Waker, arm, find_armed, unfence};
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
        let look = |fence: &dyn Fn()| find_armed(|| self.armed.load(Ordering::Relaxed), fence);
        let armed = self.barriers.publish(waker, store, look);
        if self.waker.due(armed) {
            self.waker.ring(armed, &self.bell, || self.socket.ring());
        }
    }

    fn has(&self, wanted: u64) -> bool {
        self.published.load(Ordering::Acquire) >= wanted
    }

    fn sleep_until(&self, wanted: u64, asks: bool) {
        while !self.has(wanted) {
            let arm = || arm(&self.armed, Kinds::FUTEX, asks);
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

/// A consumer that asks for fences, behind membarrier, or does not while it waits for each frame.
fn one_waker_that_is_asked(without: Without, asks: &'static [bool]) {
    explore(Some(4), move || {
        let bell = Doorbell::new(Kind::Membarrier, without, 1);
        let other = Arc::clone(&bell);
        let waker = thread::spawn(move || asks.iter().for_each(|_| other.publish(0)));
        for (seen, asks) in (1..).zip(asks) {
            bell.sleep_until(seen, *asks);
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

/// Not by arming, and while it waits on its descriptor for a ring.
fn unfenced_meanwhile(wakers: usize, frames: u64) {
    explore(Some(3), move || {
        let bell = Doorbell::new(Kind::Membarrier, Without::Nothing, wakers);
        let publishing: Vec<_> = (0..wakers)
            .map(|waker| {
                let bell = Arc::clone(&bell);
                thread::spawn(move || (0..frames).for_each(|_| bell.publish(waker)))
            })
            .collect();
        for wanted in 1..=frames * wakers as u64 {
            while !bell.has(wanted) {
                bell.barriers.heavy(arm(&bell.armed, Kinds::DESCRIPTOR, true));
                if !bell.has(wanted) {
                    unfence(&bell.armed);
                    bell.socket.wait_and_drain();
                }
            }
        }
        publishing.into_iter().for_each(|waker| waker.join().unwrap());
    });
}

#[test]
fn a_consumer_that_takes_its_request_back_while_it_sleeps_is_woken_by_one_waker() {
    unfenced_meanwhile(1, 2);
}

#[test]
fn a_consumer_that_takes_its_request_back_while_it_sleeps_is_woken_by_two_wakers() {
    unfenced_meanwhile(2, 1);
}

/// As a reply slot that is handed on.
#[test]
fn a_thread_that_takes_over_a_word_passes_fences_that_another_has_asked_for() {
    explore(Some(3), || {
        let bell = Doorbell::new(Kind::Membarrier, Without::Nothing, 1);
        let other = Arc::clone(&bell);
        let waker = thread::spawn(move || (0..2).for_each(|_| other.publish(0)));
        bell.sleep_until(1, true);
        let heir = Arc::clone(&bell);
        thread::spawn(move || heir.sleep_until(2, true)).join().unwrap();
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
