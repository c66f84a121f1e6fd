//! Models of the doorbell: no wake-up is lost, whatever the order of arming, publishing and ringing.
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p memit-engine --release --test loom_doorbell`
//!
//! The futex is a mutex and a condition variable: a wait returns at once if the word has changed. Both barriers are
//! full fences, as where membarrier is not used. loom reports a lost wake-up as a deadlock. Preemptions are not
//! bounded, except where a model says so.
#![cfg(loom)]

use loom::sync::atomic::{AtomicU64, Ordering, fence};
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;
use memit_engine::protocol::{Kinds, Waker, arm, arm_shared};

#[derive(Default)]
struct Futex {
    word: Mutex<u32>,
    changed: Condvar,
}

impl Futex {
    fn load(&self) -> u32 {
        *self.word.lock().unwrap()
    }

    fn bump(&self) {
        *self.word.lock().unwrap() += 1;
        self.changed.notify_all();
    }

    fn wait(&self, expected: u32) {
        let mut word = self.word.lock().unwrap();
        while *word == expected {
            word = self.changed.wait(word).unwrap();
        }
    }
}

struct Doorbell {
    published: AtomicU64,
    armed: AtomicU64,
    bell: Futex,
    waker: Waker,
    barriers: Barriers,
}

#[derive(Clone, Copy, PartialEq)]
enum Barriers {
    Both,
    SleeperOnly,
    WakerOnly,
}

impl Doorbell {
    fn new(barriers: Barriers) -> Arc<Self> {
        Arc::new(Self {
            published: AtomicU64::new(0),
            armed: AtomicU64::new(0),
            bell: Futex::default(),
            waker: Waker::default(),
            barriers,
        })
    }

    fn publish(&self) {
        self.published.fetch_add(1, Ordering::Release);
        self.ring_if_due();
    }

    fn ring_if_due(&self) {
        if self.barriers != Barriers::SleeperOnly {
            fence(Ordering::SeqCst);
        }
        let armed = self.armed.load(Ordering::Relaxed);
        if self.waker.due(armed) {
            self.bell.bump();
            self.waker.rang(armed);
        }
    }

    fn sleep_until(&self, wanted: u64, arm: impl Fn(&AtomicU64)) {
        while self.published.load(Ordering::Acquire) < wanted {
            let rung = self.bell.load();
            arm(&self.armed);
            if self.barriers != Barriers::WakerOnly {
                fence(Ordering::SeqCst);
            }
            if self.published.load(Ordering::Acquire) < wanted {
                self.bell.wait(rung);
            }
        }
    }
}

fn one_sleeper_one_waker(barriers: Barriers, messages: u64) {
    loom::model(move || {
        let bell = Doorbell::new(barriers);
        let waker = {
            let bell = Arc::clone(&bell);
            thread::spawn(move || (0..messages).for_each(|_| bell.publish()))
        };
        for seen in 1..=messages {
            bell.sleep_until(seen, |armed| arm(armed, Kinds::FUTEX));
        }
        waker.join().unwrap();
    });
}

#[test]
fn a_consumer_that_sleeps_is_woken_for_each_message() {
    one_sleeper_one_waker(Barriers::Both, 2);
}

#[test]
#[should_panic(expected = "deadlock")]
fn a_wake_up_is_lost_without_the_wakers_barrier() {
    one_sleeper_one_waker(Barriers::SleeperOnly, 1);
}

#[test]
#[should_panic(expected = "deadlock")]
fn a_wake_up_is_lost_without_the_sleepers_barrier() {
    one_sleeper_one_waker(Barriers::WakerOnly, 1);
}

#[test]
fn two_producers_wake_one_consumer() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(|| {
        let bell = Doorbell::new(Barriers::Both);
        let wakers = [0; 2].map(|_| {
            let bell = Arc::clone(&bell);
            thread::spawn(move || bell.publish())
        });
        bell.sleep_until(2, |armed| arm(armed, Kinds::FUTEX));
        for waker in wakers {
            waker.join().unwrap();
        }
    });
}

#[test]
fn two_producers_that_wait_for_space_are_both_woken() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(|| {
        let bell = Doorbell::new(Barriers::Both);
        let sleepers = [0; 2].map(|_| {
            let bell = Arc::clone(&bell);
            thread::spawn(move || bell.sleep_until(1, |armed| arm_shared(armed, Kinds::FUTEX)))
        });
        bell.publish();
        for sleeper in sleepers {
            sleeper.join().unwrap();
        }
    });
}
