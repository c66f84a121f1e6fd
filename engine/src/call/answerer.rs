//! The answering side's private view of its reply slots.
//!
//! One word per slot: the counter of the call that the slot belongs to, and a state.
//!
//! | state   | meaning                                            | who leaves it                         |
//! |---------|----------------------------------------------------|---------------------------------------|
//! | idle    | nothing is owed (the call was answered, or none was) | the dispatcher, with the next call  |
//! | pending | the call was taken and is not answered             | the answerer, or the next call        |
//! | writing | a thread writes the answer into the shared slot    | that thread alone                     |
//!
//! A reply must move its own call from pending to writing; a late one finds another call there and is dropped. So a
//! caller may reuse a slot as soon as it gave up, and no two threads ever write one slot at once.

use super::CallId;
use crate::sync::{AtomicU64, Ordering, yield_now};

const IDLE: u64 = 0;
const PENDING: u64 = 1;
const WRITING: u64 = 2;
const STATE: u64 = 0b11;

/// The state of every reply slot that this side answers into.
#[derive(Debug)]
pub(crate) struct Answerer {
    slots: Box<[AtomicU64]>,
}

/// The right to write one slot. Dropping it makes the slot idle, unless the answer is [put off](Self::put_off).
#[derive(Debug)]
pub(crate) struct Writing<'a> {
    word: &'a AtomicU64,
    call: u64,
}

const fn word(id: CallId, state: u64) -> u64 {
    id.counter() << 2 | state
}

impl Answerer {
    pub(crate) fn new(slots: u32) -> Self {
        Self { slots: (0..slots).map(|_| AtomicU64::new(IDLE)).collect() }
    }

    fn slot(&self, id: CallId) -> Option<&AtomicU64> {
        self.slots.get(id.slot() as usize)
    }

    /// Takes a call that a frame announced. `false`: the frame names a slot that does not exist.
    pub(crate) fn take(&self, id: CallId) -> bool {
        let Some(slot) = self.slot(id) else { return false };
        let mut found = slot.load(Ordering::Relaxed);
        loop {
            if found & STATE == WRITING {
                // A thread of this process writes a late answer to the slot's former call; it takes a memcpy, or two
                // system calls that do not wait.
                yield_now();
                found = slot.load(Ordering::Relaxed);
                continue;
            }
            // SYNC slot-writing: acquire pairs with `Writing::drop`, so that the former answer is whole.
            match slot.compare_exchange_weak(found, word(id, PENDING), Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(now) => found = now,
            }
        }
    }

    /// Gives `id` up if it was not answered: its caller does not wait any more. An answer that is just being written is
    /// waited for. `false`: there is no such slot.
    pub(crate) fn abandon(&self, id: CallId) -> bool {
        let Some(slot) = self.slot(id) else { return false };
        // SYNC slot-writing: acquire pairs with `Writing::drop`, so that what was lent with an answer is known. It
        // fails for good if the call was answered, or the slot is another call's.
        while slot.compare_exchange(word(id, PENDING), word(id, IDLE), Ordering::Acquire, Ordering::Acquire)
            == Err(word(id, WRITING))
        {
            yield_now();
        }
        true
    }

    /// Whether `id` is still to be answered. It may cease to be at any moment.
    pub(crate) fn is_pending(&self, id: CallId) -> bool {
        self.slot(id).is_some_and(|slot| slot.load(Ordering::Relaxed) == word(id, PENDING))
    }

    /// Begins to answer `id`; `None` if it was answered before, or its caller gave up and reused the slot.
    pub(crate) fn begin(&self, id: CallId) -> Option<Writing<'_>> {
        let slot = self.slot(id)?;
        // SYNC slot-writing: acquire pairs with `Writing::drop`.
        slot.compare_exchange(word(id, PENDING), word(id, WRITING), Ordering::Acquire, Ordering::Relaxed)
            .ok()
            .map(|_| Writing { word: slot, call: word(id, IDLE) })
    }

    /// Whether this side has answered `id`, as far as its slot still tells.
    pub(crate) fn has_answered(&self, id: CallId) -> bool {
        self.slot(id).is_some_and(|slot| slot.load(Ordering::Relaxed) == word(id, IDLE))
    }
}

impl Writing<'_> {
    /// Nothing was written: the call is still to be answered.
    pub(crate) fn put_off(mut self) {
        self.call = self.call & !STATE | PENDING;
    }
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        // SYNC slot-writing: release pairs with the acquire in `take`, `abandon` and `begin`.
        self.word.store(self.call, Ordering::Release);
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn a_call_is_answered_once() {
        let answers = Answerer::new(2);
        let id = CallId::new(5, 1);
        assert!(answers.begin(id).is_none());
        assert!(answers.take(id) && !answers.has_answered(id));
        drop(answers.begin(id).unwrap());
        assert!(answers.has_answered(id) && answers.begin(id).is_none());
    }

    #[test]
    fn a_late_answer_is_dropped_once_the_slot_serves_another_call() {
        let answers = Answerer::new(1);
        let (late, next) = (CallId::new(1, 0), CallId::new(2, 0));
        assert!(answers.take(late) && answers.take(next));
        assert!(answers.begin(late).is_none());
        assert!(answers.begin(next).is_some());
    }

    #[test]
    fn a_slot_that_does_not_exist_is_refused() {
        assert!(!Answerer::new(2).take(CallId::new(1, 2)));
    }

    #[test]
    fn an_abandoned_call_is_not_answered_and_an_answered_one_not_abandoned() {
        let answers = Answerer::new(1);
        let (given_up, answered) = (CallId::new(1, 0), CallId::new(2, 0));
        assert!(answers.take(given_up) && answers.abandon(given_up));
        assert!(answers.begin(given_up).is_none());
        assert!(answers.take(answered));
        assert!(answers.abandon(given_up), "which is another call by now");
        answers.begin(answered).unwrap().put_off();
        assert!(!answers.has_answered(answered));
        drop(answers.begin(answered).unwrap());
        assert!(answers.abandon(answered) && answers.has_answered(answered));
        assert!(!answers.abandon(CallId::new(3, 1)));
    }

    #[test]
    fn a_call_waits_until_a_late_answer_is_written() {
        let answers = Answerer::new(1);
        let (late, next) = (CallId::new(1, 0), CallId::new(2, 0));
        assert!(answers.take(late));
        let writing = answers.begin(late).unwrap();
        thread::scope(|scope| {
            let taker = scope.spawn(|| answers.take(next));
            drop(writing);
            assert!(taker.join().unwrap());
        });
        assert!(answers.begin(next).is_some());
    }
}
