//! The dispatching threads of both sides call each other. Frames go through channels, which stand for the rings.

use std::mem::ManuallyDrop;
use std::sync::Arc;

use loom::sync::atomic::{AtomicU32, Ordering, fence};
use loom::thread;

use super::explore::explore;
use super::frames::Frames;
use super::link::outbox;
use crate::call::CallId;
use crate::call::answerer::Answerer;
use crate::call::crossing::{Shown, is_crossing, to_alert};
use crate::doorbell::protocol::{Kinds, Waker, arm};
use crate::doorbell::sleep::{ring_anyway, sleep_once};
use crate::outbox::{LEAST_SLOTS, OwnOutbox, PeerOutbox};

/// What is taken out.
#[derive(Clone, Copy, PartialEq)]
enum Without {
    Nothing,
    Fence,
    Alert,
}

struct Side {
    is_main: bool,
    without: Without,
    own: Arc<OwnOutbox>,
    peer: Arc<PeerOutbox>,
    answers: Answerer,
    control: AtomicU32,
    reply_waker: Waker,
    outgoing: Arc<Frames<CallId>>,
    incoming: Arc<Frames<CallId>>,
    calls: u64,
}

#[derive(Debug, PartialEq)]
struct WouldDeadlock;

/// Main and a renderer.
fn sides(without: Without) -> [Side; 2] {
    let [main, renderer] = [outbox(), outbox()];
    let [to_main, to_renderer] = [(); 2].map(|()| Arc::new(Frames::new()));
    let side = |is_main, own, peer, outgoing, incoming| Side {
        is_main,
        without,
        own,
        peer,
        answers: Answerer::new(LEAST_SLOTS),
        control: AtomicU32::new(0),
        reply_waker: Waker::default(),
        outgoing,
        incoming,
        calls: 0,
    };
    [
        side(true, main.0, renderer.1, Arc::clone(&to_renderer), Arc::clone(&to_main)),
        side(false, renderer.0, main.1, to_main, to_renderer),
    ]
}

impl Side {
    /// As `Link::call` of a dispatching thread.
    fn call(&mut self) -> Result<(), WouldDeadlock> {
        self.calls += 1;
        let id = CallId::new(self.calls, 0);
        let shown = match self.without {
            Without::Fence => {
                self.own.waiting().store(id.get(), Ordering::Relaxed);
                None
            }
            _ => Some(Shown::new(self.own.waiting(), id)),
        };
        // Not dropped when loom finds a deadlock: no word can be written then.
        let shown = ManuallyDrop::new(shown);
        if self.is_main
            && self.without != Without::Alert
            && let Some(slot) = to_alert(self.peer.load_waiting())
        {
            ring_anyway(self.own.space_bell());
            ring_anyway(self.own.reply_bell(slot));
        }
        self.outgoing.send(id);
        let answer = self.await_reply(id);
        drop(ManuallyDrop::into_inner(shown));
        answer
    }

    /// As `Link::await_reply`.
    fn await_reply(&self, id: CallId) -> Result<(), WouldDeadlock> {
        let slot = id.slot();
        let has_arrived = || self.peer.slot_id(slot) == id.get();
        let crossing = || !self.is_main && is_crossing(self.peer.load_waiting(), &self.answers);
        loop {
            if has_arrived() {
                return Ok(());
            }
            if crossing() {
                return Err(WouldDeadlock);
            }
            let arm = || arm(self.own.reply_armed(slot), Kinds::FUTEX, false);
            let barrier = |_| {
                fence(Ordering::SeqCst);
                None
            };
            sleep_once(self.peer.reply_bell(slot), &self.control, arm, barrier, || has_arrived() || crossing());
        }
    }

    /// Takes a call and answers it, as `Arrival` and `Link::answer` do.
    fn serve(&self) {
        let id = self.incoming.take();
        assert!(self.answers.take(id));
        let writing = self.answers.begin(id).unwrap();
        self.own.write_slot(id.slot(), &[], id.get(), 1, 0);
        drop(writing);
        fence(Ordering::SeqCst);
        let armed = self.peer.load_reply_armed(id.slot());
        if self.reply_waker.due(armed) {
            self.reply_waker.ring(armed, self.own.reply_bell(id.slot()), || unreachable!("nobody polls"));
        }
    }
}

/// Neither looks at its ring before it calls.
fn both_call(without: Without) {
    explore(Some(5), move || {
        let [mut main, mut renderer] = sides(without);
        let other = thread::spawn(move || {
            assert_eq!(renderer.call(), Err(WouldDeadlock));
            renderer.serve();
        });
        assert_eq!(main.call(), Ok(()));
        other.join().unwrap();
        // The renderer's frame is there still, and its answer would be late.
        main.serve();
    });
}

#[test]
fn of_two_calls_that_cross_the_renderers_ends_and_mains_is_answered() {
    both_call(Without::Nothing);
}

#[test]
#[should_panic(expected = "deadlock")]
fn without_the_fence_both_wait() {
    both_call(Without::Fence);
}

#[test]
#[should_panic(expected = "deadlock")]
fn without_the_alert_both_wait() {
    both_call(Without::Alert);
}

/// Main's word may still name the call when the renderer looks.
#[test]
fn a_call_behind_an_answer_crosses_nothing() {
    explore(Some(4), || {
        let [mut main, mut renderer] = sides(Without::Nothing);
        let other = thread::spawn(move || {
            renderer.serve();
            assert_eq!(renderer.call(), Ok(()));
        });
        assert_eq!(main.call(), Ok(()));
        main.serve();
        other.join().unwrap();
    });
}

/// Main calls again as soon as it is answered: the renderer may see the first call or the second.
#[test]
fn a_call_behind_an_answer_crosses_the_next() {
    explore(Some(3), || {
        let [mut main, mut renderer] = sides(Without::Nothing);
        let other = thread::spawn(move || {
            renderer.serve();
            assert_eq!(renderer.call(), Err(WouldDeadlock));
            renderer.serve();
        });
        assert_eq!([main.call(), main.call()], [Ok(()), Ok(())]);
        other.join().unwrap();
        main.serve();
    });
}
