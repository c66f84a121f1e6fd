//! The space doorbell: several senders sleep until the ring's consumer has come to where each wants it.

use std::time::Instant;

use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use loom::thread;
use memit_ringbuf::reached;

use super::barrier::{Barriers, Kind, Without};
use super::explore::explore;
use crate::doorbell::protocol::{Kinds, Pass, Waker, arm_at, wanted_by_armed};
use crate::doorbell::sleep::{change, sleep_once};

struct Space {
    head: Arc<AtomicU64>,
    armed: AtomicU64,
    wanted: AtomicU64,
    bell: AtomicU32,
    control: AtomicU32,
    open: AtomicBool,
    waker: Waker,
    barriers: Barriers,
}

impl Space {
    fn new(kind: Kind) -> Arc<Self> {
        Arc::new(Self {
            head: Arc::new(AtomicU64::new(0)),
            armed: AtomicU64::new(0),
            wanted: AtomicU64::new(0),
            bell: AtomicU32::new(0),
            control: AtomicU32::new(0),
            open: AtomicBool::new(true),
            waker: Waker::default(),
            barriers: Barriers::new(kind, Without::Nothing, 1),
        })
    }

    fn has(&self, wanted: u64) -> bool {
        reached(self.head.load(Ordering::Acquire), wanted)
    }

    /// As `Link::wait_for_room` does, once: with a deadline that has passed it gives up when it would sleep.
    fn sleep(&self, wanted: u64, deadline: Option<Instant>) {
        let arm = || arm_at(&self.armed, &self.wanted, wanted, Kinds::FUTEX);
        let barrier = |()| {
            self.barriers.heavy(Pass::Heavy);
            deadline
        };
        let ready = || self.has(wanted) || !self.open.load(Ordering::Relaxed);
        sleep_once(&self.bell, &self.control, arm, barrier, ready);
    }

    fn sleep_until(&self, wanted: u64) {
        while !self.has(wanted) && self.open.load(Ordering::Relaxed) {
            self.sleep(wanted, None);
        }
    }

    /// As `Inbox::head_moved` does when the consumer has published its head, and nothing is left if `idle`.
    fn consume(&self, head: u64, idle: bool) {
        let word = Arc::clone(&self.head);
        let store = move || word.store(head, Ordering::Release);
        let armed = self.barriers.publish(0, store, |_| self.armed.load(Ordering::Relaxed));
        if self.waker.due(armed) && (idle || reached(head, wanted_by_armed(|| self.wanted.load(Ordering::Relaxed)))) {
            self.waker.ring(armed, &self.bell, || unreachable!("nobody polls"));
        }
    }
}

fn senders<const N: usize>(space: &Arc<Space>, wanted: [u64; N]) -> [thread::JoinHandle<()>; N] {
    wanted.map(|wanted| {
        let space = Arc::clone(space);
        thread::spawn(move || space.sleep_until(wanted))
    })
}

fn both_are_woken(kind: Kind) {
    explore(Some(3), move || {
        let space = Space::new(kind);
        let senders = senders(&space, [64, 128]);
        space.consume(64, false);
        space.consume(128, true);
        senders.into_iter().for_each(|sender| sender.join().unwrap());
    });
}

#[test]
fn two_senders_that_want_different_positions_are_both_woken_with_fences() {
    both_are_woken(Kind::Fences);
}

#[test]
fn two_senders_that_want_different_positions_are_both_woken_with_membarrier() {
    both_are_woken(Kind::Membarrier);
}

/// Until something is idle nobody else rings: a sleeper alone is woken when its position is reached.
#[test]
fn a_lone_sender_is_woken_at_its_position() {
    explore(Some(5), || {
        let space = Space::new(Kind::Fences);
        let [sender] = senders(&space, [128]);
        space.consume(64, false);
        space.consume(128, false);
        sender.join().unwrap();
    });
}

/// It has armed, and is gone when the bell is rung for it.
#[test]
fn a_sender_that_gives_up_takes_no_others_wake_up_away() {
    explore(Some(4), || {
        let space = Space::new(Kind::Fences);
        let [sender] = senders(&space, [64]);
        let other = Arc::clone(&space);
        let hasty = thread::spawn(move || other.sleep(64, Some(Instant::now())));
        space.consume(64, false);
        sender.join().unwrap();
        hasty.join().unwrap();
    });
}

/// Who finds it armed for the second time must not read the position of the first.
#[test]
fn a_sender_that_wants_less_than_before_is_woken() {
    explore(None, || {
        let space = Space::new(Kind::Fences);
        let other = Arc::clone(&space);
        let sender = thread::spawn(move || {
            other.sleep(192, Some(Instant::now()));
            other.sleep_until(64);
        });
        space.consume(64, false);
        sender.join().unwrap();
    });
}

fn end_of_connection(space: &Arc<Space>) -> thread::JoinHandle<()> {
    let space = Arc::clone(space);
    thread::spawn(move || {
        space.open.store(false, Ordering::Release);
        change(&space.control);
    })
}

#[test]
fn the_end_of_a_connection_ends_every_sleep() {
    explore(Some(2), || {
        let space = Space::new(Kind::Fences);
        let senders = senders(&space, [128, 128]);
        end_of_connection(&space).join().unwrap();
        senders.into_iter().for_each(|sender| sender.join().unwrap());
    });
}

/// The consumer goes on meanwhile, and rings.
#[test]
fn the_end_of_a_connection_and_a_ring_do_not_hide_each_other() {
    explore(Some(3), || {
        let space = Space::new(Kind::Fences);
        let [sender] = senders(&space, [128]);
        let ender = end_of_connection(&space);
        space.consume(64, true);
        ender.join().unwrap();
        sender.join().unwrap();
    });
}
