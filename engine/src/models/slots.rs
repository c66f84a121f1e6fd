//! Threads that share the slots of a connection for their calls.

use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use loom::thread;

use super::explore::explore;
use crate::call::caller::Caller;
use crate::doorbell::sleep::change;

/// One slot, since the other is the dispatching thread's. Each thread leaves a call in it that it has given up; the next
/// must find it.
fn callers_share_a_slot(callers: usize, preemptions: usize) {
    explore(Some(preemptions), move || {
        let caller = Arc::new(Caller::new(2));
        let control = Arc::new(AtomicU32::new(0));
        let call = |caller: &Caller, control: &AtomicU32| {
            let slot = caller.acquire(None, control, || false).unwrap();
            let id = slot.next_id();
            let found = slot.abandoned();
            slot.set_abandoned(Some(id));
            (id, found)
        };
        let threads: Vec<_> = (1..callers)
            .map(|_| {
                let (caller, control) = (Arc::clone(&caller), Arc::clone(&control));
                thread::spawn(move || call(&caller, &control))
            })
            .collect();
        let mut calls = vec![call(&caller, &control)];
        calls.extend(threads.into_iter().map(|thread| thread.join().unwrap()));
        calls.sort_by_key(|(id, _)| id.get());
        let expected: Vec<_> = std::iter::once(None).chain(calls.iter().map(|(id, _)| Some(*id))).collect();
        let found: Vec<_> = calls.iter().map(|(_, found)| *found).collect();
        assert_eq!(found, expected[..callers]);
    });
}

#[test]
fn a_thread_that_waits_for_a_slot_gets_it_and_what_was_left_in_it() {
    callers_share_a_slot(2, 6);
}

#[test]
fn all_threads_that_wait_for_a_slot_get_it() {
    callers_share_a_slot(3, 3);
}

#[test]
fn the_end_of_a_connection_ends_the_wait_for_a_slot() {
    explore(None, || {
        let caller = Arc::new(Caller::new(2));
        let (control, over) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicBool::new(false)));
        let held = caller.acquire(None, &control, || false).unwrap();
        let waiter = {
            let (caller, control, over) = (Arc::clone(&caller), Arc::clone(&control), Arc::clone(&over));
            thread::spawn(move || caller.acquire(None, &control, || over.load(Ordering::Relaxed)).is_none())
        };
        over.store(true, Ordering::Release);
        change(&control);
        assert!(waiter.join().unwrap());
        drop(held);
    });
}
