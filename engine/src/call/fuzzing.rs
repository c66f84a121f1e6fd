//! Calls, answers, late answers and abandonments in any order: what a caller takes out of a slot is the answer to its own
//! call, and each call is answered once.
#![allow(clippy::unwrap_used, reason = "these are tests")]

use std::sync::atomic::{AtomicU32, Ordering, fence};
use std::time::Instant;

use arbitrary::{Arbitrary, Unstructured};

use super::CallId;
use super::answerer::{Answerer, Writing};
use super::caller::{Caller, Slot};
use crate::outbox::fuzzing::{Forged, GEOMETRY};

#[derive(Arbitrary, Debug)]
enum Operation {
    /// A thread that does not dispatch, or the one that does, begins a call. Its frame is taken later.
    Call { dispatching: bool },
    /// The answerer takes the next frame, if there is one, of a call or of an abandonment.
    TakeFrame,
    /// The answerer begins to answer a call: one of those that there ever were.
    Begin { call: u8 },
    /// It finishes one that it began, or puts it off.
    Finish { writing: u8, put_off: bool, len: u8 },
    /// A caller looks at its slot, and takes the answer.
    Look { call: u8 },
    /// A caller gives up.
    GiveUp { call: u8 },
    /// A frame of a peer that keeps no rule.
    Forge { counter: u16, slot: u8, abandon: bool },
}

enum Frame {
    Call(CallId),
    Abandon(CallId),
}

/// A call that waits for its answer.
struct Waiting<'a> {
    id: CallId,
    _slot: Slot<'a>,
}

/// As the answerer should see a slot.
#[derive(Clone, Copy, Default)]
struct Model {
    call: Option<CallId>,
    is_pending: bool,
}

/// An answer says whose it is.
fn answer(id: CallId, len: u8) -> Vec<u8> {
    id.get().to_le_bytes().into_iter().cycle().take(usize::from(len)).collect()
}

pub(crate) fn reply_slots(bytes: &[u8]) {
    let Ok(operations) = Vec::<Operation>::arbitrary_take_rest(Unstructured::new(bytes)) else { return };
    let (own, seen) = Forged::own();
    let slots = GEOMETRY.slot_count();
    let (caller, answers) = (Caller::new(slots), Answerer::new(slots));
    let (mut waiting, mut frames) = (Vec::<Waiting<'_>>::new(), Vec::new());
    // Ids of calls that were made, and those with what a peer made up.
    let (mut made, mut all) = (Vec::new(), Vec::new());
    let mut writing: Vec<(CallId, Writing<'_>)> = Vec::new();
    let mut model = vec![Model::default(); slots as usize];
    // The last answer that was published in each slot.
    let mut published: Vec<Option<(CallId, u8)>> = vec![None; slots as usize];
    for operation in operations {
        match operation {
            Operation::Call { dispatching } => {
                let is_taken = |slot: u32| waiting.iter().any(|call| call.id.slot() == slot);
                let slot = match dispatching {
                    // One thread dispatches, and it waits for one call at a time.
                    true if is_taken(0) => continue,
                    true => Some(caller.dispatcher()),
                    false => caller.acquire(Some(Instant::now()), &AtomicU32::new(0), || false),
                };
                let Some(slot) = slot else {
                    assert!((1..slots).all(is_taken), "a slot is free, and was not found");
                    continue;
                };
                let id = slot.next_id();
                assert!(!is_taken(id.slot()) && !made.contains(&id) && id.get() != 0);
                assert_eq!(id.slot() == 0, dispatching);
                made.push(id);
                all.push(id);
                frames.push(Frame::Call(id));
                waiting.push(Waiting { id, _slot: slot });
            }
            Operation::TakeFrame => {
                // It would wait for the answer that is being written.
                let is_held_up = |frame: &Frame| match frame {
                    Frame::Call(id) => writing.iter().any(|(other, _)| other.slot() == id.slot()),
                    Frame::Abandon(id) => writing.iter().any(|(other, _)| other == id),
                };
                if frames.first().is_none_or(is_held_up) {
                    continue;
                }
                take(&answers, &mut model, frames.remove(0));
            }
            Operation::Forge { counter, slot, abandon } => {
                let id = CallId::from_peer(u64::from(counter) << 6 | u64::from(slot & 63));
                if writing.iter().any(|(other, _)| other.slot() == id.slot()) {
                    continue;
                }
                if id.slot() < slots {
                    all.push(id);
                }
                take(&answers, &mut model, if abandon { Frame::Abandon(id) } else { Frame::Call(id) });
            }
            Operation::Begin { call } => {
                let Some(id) = pick(call, &all) else { continue };
                let slot = &mut model[id.slot() as usize];
                let is_due = slot.call == Some(id) && slot.is_pending;
                assert_eq!(answers.is_pending(id), is_due);
                let begun = answers.begin(id);
                assert_eq!(begun.is_some(), is_due, "call {id:?}");
                if let Some(begun) = begun {
                    slot.is_pending = false;
                    assert!(answers.begin(id).is_none(), "one thread answers");
                    writing.push((id, begun));
                }
            }
            Operation::Finish { writing: index, put_off, len } => {
                if writing.is_empty() {
                    continue;
                }
                let (id, begun) = writing.swap_remove(usize::from(index) % writing.len());
                if put_off {
                    begun.put_off();
                    model[id.slot() as usize].is_pending = true;
                    assert!(answers.is_pending(id) && !answers.has_answered(id));
                } else {
                    own.write_slot(id.slot(), &answer(id, len), id.get(), 1, 0);
                    published[id.slot() as usize] = Some((id, len));
                    drop(begun);
                    assert!(answers.has_answered(id) && !answers.is_pending(id));
                }
            }
            Operation::Look { call } => {
                if waiting.is_empty() {
                    continue;
                }
                let index = usize::from(call) % waiting.len();
                let id = waiting[index].id;
                let expected = published[id.slot() as usize].filter(|(answered, _)| *answered == id);
                assert_eq!(seen.slot_id(id.slot()) == id.get(), expected.is_some());
                if let Some((_, len)) = expected {
                    fence(Ordering::Acquire);
                    let header = seen.read_slot(id.slot()).unwrap();
                    let mut bytes = vec![0; header.len];
                    seen.copy_slot(id.slot(), &mut bytes);
                    assert_eq!(bytes, answer(id, len));
                    waiting.swap_remove(index);
                }
            }
            Operation::GiveUp { call } => {
                if !waiting.is_empty() {
                    let gone = waiting.swap_remove(usize::from(call) % waiting.len());
                    frames.push(Frame::Abandon(gone.id));
                }
            }
        }
    }
}

fn take(answers: &Answerer, model: &mut [Model], frame: Frame) {
    match frame {
        Frame::Call(id) => {
            let slot = model.get_mut(id.slot() as usize);
            assert_eq!(answers.take(id), slot.is_some());
            if let Some(slot) = slot {
                *slot = Model { call: Some(id), is_pending: true };
                assert!(answers.is_pending(id) && !answers.has_answered(id));
            }
        }
        Frame::Abandon(id) => {
            let slot = model.get_mut(id.slot() as usize);
            assert_eq!(answers.abandon(id), slot.is_some());
            if let Some(slot) = slot
                && slot.call == Some(id)
            {
                slot.is_pending = false;
                assert!(!answers.is_pending(id));
            }
        }
    }
}

fn pick(index: u8, all: &[CallId]) -> Option<CallId> {
    (!all.is_empty()).then(|| all[usize::from(index) % all.len()])
}
