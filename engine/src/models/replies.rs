//! Reply slots: one side answers, several of its threads at once, and the other side's threads wait.

use std::sync::Arc;

use loom::sync::Mutex;
use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
use loom::thread;

use super::barrier::{Barriers, Kind, Without};
use super::explore::explore;
use super::link::outbox;
use crate::call::CallId;
use crate::call::answerer::Answerer;
use crate::doorbell::protocol::{Kinds, Waker, arm};
use crate::doorbell::sleep::sleep_once;
use crate::outbox::{LEAST_SLOTS, OwnOutbox, PeerOutbox};

const VALUE: u8 = 1;
const INLINE: u8 = 0;

struct Answering {
    own: Arc<OwnOutbox>,
    peer: Arc<PeerOutbox>,
    answers: Answerer,
    wakers: [Waker; LEAST_SLOTS as usize],
    barriers: Arc<Barriers>,
}

struct Calling {
    own: Arc<OwnOutbox>,
    peer: Arc<PeerOutbox>,
    control: AtomicU32,
    barriers: Arc<Barriers>,
}

/// What is answered to a call: its length and its bytes tell whose it is.
fn answer_to(id: CallId) -> Vec<u8> {
    let len = 8 + usize::try_from(id.counter()).unwrap();
    id.get().to_le_bytes().into_iter().chain([0; 8]).take(len).collect()
}

fn sides(kind: Kind, answerers: usize) -> (Arc<Answering>, Arc<Calling>) {
    let (ours, theirs) = (outbox(), outbox());
    let barriers = Arc::new(Barriers::new(kind, Without::Nothing, answerers));
    let answering = Answering {
        own: ours.0,
        peer: theirs.1,
        answers: Answerer::new(LEAST_SLOTS),
        wakers: Default::default(),
        barriers: Arc::clone(&barriers),
    };
    let calling = Calling { own: theirs.0, peer: ours.1, control: AtomicU32::new(0), barriers };
    (Arc::new(answering), Arc::new(calling))
}

impl Answering {
    /// As `Link::answer`. Whether it was not late.
    fn answer(&self, id: CallId, waker: usize) -> bool {
        let Some(writing) = self.answers.begin(id) else { return false };
        let (own, slot) = (Arc::clone(&self.own), id.slot());
        let store = move || own.write_slot(slot, &answer_to(id), id.get(), VALUE, INLINE);
        let armed = self.barriers.publish(waker, store, |_| self.peer.load_reply_armed(slot));
        drop(writing);
        let bell = &self.wakers[slot as usize];
        if bell.due(armed) {
            bell.ring(armed, self.own.reply_bell(slot), || unreachable!("nobody polls"));
        }
        true
    }
}

impl Calling {
    /// As `Link::await_reply` and `Link::take_reply`: waits for the answer to `id`, and finds it whole.
    fn await_reply(&self, id: CallId) {
        let slot = id.slot();
        let has_arrived = || self.peer.slot_id(slot) == id.get();
        while !has_arrived() {
            let arm = || arm(self.own.reply_armed(slot), Kinds::FUTEX, false);
            let barrier = |pass| {
                self.barriers.heavy(pass);
                None
            };
            sleep_once(self.peer.reply_bell(slot), &self.control, arm, barrier, has_arrived);
        }
        fence(Ordering::Acquire);
        let header = self.peer.read_slot(slot).unwrap();
        let mut bytes = vec![0; header.len];
        self.peer.copy_slot(slot, &mut bytes);
        assert_eq!((header.status, header.place, bytes), (VALUE, INLINE, answer_to(id)));
    }
}

/// Two threads answer a call that was given up, while the slot serves the next one. The order in which the dispatching
/// thread takes the second call and they answer the first is open.
#[test]
fn two_late_answers_spoil_no_answer_in_a_slot_that_is_used_again() {
    explore(Some(3), || {
        let (answering, calling) = sides(Kind::Fences, 3);
        let (first, second) = (CallId::new(1, 1), CallId::new(2, 1));
        assert!(answering.answers.take(first));
        let late = [0, 1].map(|waker| {
            let answering = Arc::clone(&answering);
            thread::spawn(move || answering.answer(first, waker))
        });
        let caller = {
            let calling = Arc::clone(&calling);
            thread::spawn(move || calling.await_reply(second))
        };
        assert!(answering.answers.take(second));
        assert!(answering.answer(second, 2));
        caller.join().unwrap();
        let answered = late.map(|late| late.join().unwrap());
        assert_ne!(answered, [true; 2], "a call was answered twice");
    });
}

fn several_callers_sleep(kind: Kind) {
    explore(Some(3), move || {
        let (answering, calling) = sides(kind, 1);
        let ids = [CallId::new(1, 0), CallId::new(2, 1)];
        let callers = ids.map(|id| {
            assert!(answering.answers.take(id));
            let calling = Arc::clone(&calling);
            thread::spawn(move || calling.await_reply(id))
        });
        assert!(ids.into_iter().all(|id| answering.answer(id, 0)));
        callers.into_iter().for_each(|caller| caller.join().unwrap());
    });
}

#[test]
fn each_of_two_callers_is_woken_for_its_reply_with_fences() {
    several_callers_sleep(Kind::Fences);
}

#[test]
fn each_of_two_callers_is_woken_for_its_reply_with_membarrier() {
    several_callers_sleep(Kind::Membarrier);
}

/// What was lent with an answer is noted before the answer is there. Who hears that its call was given up takes it back:
/// so it finds the note, or no answer will be made.
#[test]
fn a_call_that_is_given_up_was_answered_before_or_never_is() {
    explore(None, || {
        let (answering, _calling) = sides(Kind::Fences, 1);
        let id = CallId::new(1, 1);
        assert!(answering.answers.take(id));
        let lent = Arc::new(AtomicU64::new(0));
        let answerer = {
            let (answering, lent) = (Arc::clone(&answering), Arc::clone(&lent));
            thread::spawn(move || {
                let writing = answering.answers.begin(id)?;
                lent.store(1, Ordering::Relaxed);
                drop(writing);
                Some(())
            })
        };
        assert!(answering.answers.abandon(id));
        let found = lent.load(Ordering::Relaxed);
        let answered = answerer.join().unwrap().is_some();
        assert_eq!(found, u64::from(answered));
    });
}

/// An answer for which there is no descriptor is put off, and goes out later, by whichever thread comes first.
#[test]
fn an_answer_that_is_put_off_is_given_once() {
    explore(None, || {
        let answers = Arc::new(Answerer::new(LEAST_SLOTS));
        let id = CallId::new(1, 1);
        assert!(answers.take(id));
        let given = Arc::new(Mutex::new(0));
        let other = {
            let (answers, given) = (Arc::clone(&answers), Arc::clone(&given));
            thread::spawn(move || answers.begin(id).map(|_writing| *given.lock().unwrap() += 1))
        };
        if let Some(writing) = answers.begin(id) {
            writing.put_off();
        }
        if let Some(_writing) = answers.begin(id) {
            *given.lock().unwrap() += 1;
        }
        other.join().unwrap();
        assert_eq!(*given.lock().unwrap(), 1);
    });
}
