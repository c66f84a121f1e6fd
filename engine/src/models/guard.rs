//! The guard of a ring: threads that wait until another lets it go, and a queue that does.

use std::sync::Arc;

use loom::sync::atomic::{AtomicBool, AtomicU32, Ordering, fence};
use loom::thread;
use memit_ringbuf::{Capacity, ClaimError, Header, HeapCursor, HeapRing, Key, Producer};

use super::explore::explore;
use crate::doorbell::release::Releases;
use crate::doorbell::sleep::{change, sleep_once};

/// Which fence is taken out.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Without {
    Nothing,
    HoldersFence,
    WaitersFence,
}

struct Side {
    producer: Producer<HeapRing, HeapCursor>,
    releases: Releases,
    /// Of the link: changed at the connection's end.
    control: AtomicU32,
    open: AtomicBool,
    /// Of the port, and whether its thread has queued a frame, and who rings it for data, who is silent here.
    port_control: AtomicU32,
    is_queued: AtomicBool,
    bell: AtomicU32,
    without: Without,
}

impl Side {
    fn new(without: Without) -> Arc<Self> {
        let ring = HeapRing::new(Capacity::new(512).unwrap());
        Arc::new(Self {
            producer: Producer::new(ring, HeapCursor::new(), Key::new(1).unwrap()),
            releases: Releases::new(),
            control: AtomicU32::new(0),
            open: AtomicBool::new(true),
            port_control: AtomicU32::new(0),
            is_queued: AtomicBool::new(false),
            bell: AtomicU32::new(0),
            without,
        })
    }

    fn fence(&self, taken_out: Without) {
        if self.without != taken_out {
            fence(Ordering::SeqCst);
        }
    }

    /// As `Exclusive` is taken, by who finds it free, and dropped, and as `Link::guard_released` tells.
    fn hold(&self) -> bool {
        let Ok(mut guard) = self.producer.exclusive() else { return false };
        guard.try_claim(8).unwrap().commit(Header::default());
        drop(guard);
        self.releases.tell_behind(|| self.fence(Without::HoldersFence));
        if self.is_queued.load(Ordering::Acquire) {
            change(&self.port_control);
        }
        true
    }

    /// As `Link::wait_for_guard` does.
    fn wait(&self) {
        let ready = || !self.producer.is_held() || !self.open.load(Ordering::Relaxed);
        self.releases.sleep_behind(|| self.fence(Without::WaitersFence), None, &self.control, None, ready);
    }

    /// As `Link::transmit` does by a thread that does not dispatch.
    fn send(&self) {
        while self.open.load(Ordering::Relaxed) {
            match self.producer.try_claim(8) {
                Ok(claim) => return claim.commit(Header::default()),
                Err(ClaimError::Held) => self.wait(),
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// As the dispatching thread does with a frame that is in its way: it queues it, and sleeps until it can go out.
    fn queue(&self) {
        let mut claimed = self.producer.try_claim(8);
        if claimed.is_err() {
            self.is_queued.store(true, Ordering::Release);
        }
        while let Err(error) = claimed {
            assert_eq!(error, ClaimError::Held);
            let barrier = |()| {
                self.fence(Without::WaitersFence);
                None
            };
            sleep_once(&self.bell, &self.port_control, || (), barrier, || !self.producer.is_held());
            claimed = self.producer.try_claim(8);
        }
        claimed.unwrap().commit(Header::default());
    }
}

fn on(side: &Arc<Side>, run: impl Fn(&Side) + Send + 'static) -> thread::JoinHandle<()> {
    let side = Arc::clone(side);
    thread::spawn(move || run(&side))
}

fn a_waiter_is_woken(without: Without) {
    explore(None, move || {
        let side = Side::new(without);
        let sender = on(&side, Side::send);
        assert!(side.hold());
        sender.join().unwrap();
    });
}

#[test]
fn who_waits_for_the_guard_is_woken_when_it_is_let_go() {
    a_waiter_is_woken(Without::Nothing);
}

#[test]
#[should_panic(expected = "deadlock")]
fn without_the_holders_fence_a_waiter_sleeps_on() {
    a_waiter_is_woken(Without::HoldersFence);
}

#[test]
#[should_panic(expected = "deadlock")]
fn without_the_waiters_fence_it_sleeps_on() {
    a_waiter_is_woken(Without::WaitersFence);
}

/// The guard goes from one holder to the next while both others wait for it.
#[test]
fn who_finds_the_guard_taken_again_is_woken_by_the_next_holder() {
    explore(Some(3), || {
        let side = Side::new(Without::Nothing);
        let senders = [
            on(&side, Side::send),
            on(&side, |side| {
                while !side.hold() {
                    side.wait()
                }
            }),
        ];
        side.hold();
        senders.into_iter().for_each(|sender| sender.join().unwrap());
    });
}

fn a_queue_goes_out(without: Without) {
    explore(None, move || {
        let side = Side::new(without);
        let dispatcher = on(&side, Side::queue);
        assert!(side.hold());
        dispatcher.join().unwrap();
    });
}

#[test]
fn what_is_queued_while_the_guard_is_held_goes_out_when_it_is_let_go() {
    a_queue_goes_out(Without::Nothing);
}

#[test]
#[should_panic(expected = "deadlock")]
fn without_the_holders_fence_a_queue_stays() {
    a_queue_goes_out(Without::HoldersFence);
}

/// The guard was leaked.
#[test]
fn the_end_of_the_connection_ends_the_wait_for_the_guard() {
    explore(None, || {
        let side = Side::new(Without::Nothing);
        std::mem::forget(side.producer.exclusive().unwrap());
        let sender = on(&side, Side::send);
        side.open.store(false, Ordering::Release);
        change(&side.control);
        sender.join().unwrap();
    });
}
