//! The calling side's slots: which are free, and the ids that are never reused.

use std::time::Instant;

use super::CallId;
use crate::doorbell::sleep::change;
use crate::sync::{AtomicU32, AtomicU64, Ordering};
use crate::sys::futex::{self, WaitOn};

/// The slot that only the dispatching thread calls through. It never waits for a slot, so it cannot wait for calls
/// of other threads that themselves wait for a peer which waits for it.
const DISPATCHER_SLOT: u32 = 0;
/// In place of that slot, which is never free, `free` says that somebody sleeps until one is.
const WANTED: u64 = 1 << DISPATCHER_SLOT;

/// Hands out the peer's reply slots to the threads of this process.
#[derive(Debug)]
pub(crate) struct Caller {
    /// A bit for each slot that nobody has, and [`WANTED`]. In one word, so that whoever frees a slot and whoever is
    /// about to sleep cannot miss each other.
    free: AtomicU64,
    /// What the sleepers wait on: changed when a slot was freed that was wanted.
    freed: AtomicU32,
    counter: AtomicU64,
    /// For each slot, the call that was given up and that the peer could not be told of yet; 0 for none. Accessed by
    /// whoever has the slot.
    abandoned: Box<[AtomicU64]>,
}

/// A slot while one call uses it.
#[derive(Debug)]
pub(crate) struct Slot<'a> {
    caller: &'a Caller,
    index: u32,
}

impl Caller {
    /// `slots` is 2..=64.
    pub(crate) fn new(slots: u32) -> Self {
        let all = u64::MAX >> (u64::BITS - slots);
        Self {
            free: AtomicU64::new(all & !WANTED),
            freed: AtomicU32::new(0),
            counter: AtomicU64::new(1),
            abandoned: (0..slots).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// The slot of the thread that dispatches.
    pub(crate) fn dispatcher(&self) -> Slot<'_> {
        Slot { caller: self, index: DISPATCHER_SLOT }
    }

    /// A free slot, or `None` and, if one is `wanted`, the mark that says so.
    fn try_acquire(&self, wanted: bool) -> Option<Slot<'_>> {
        let mut found = self.free.load(Ordering::Relaxed);
        loop {
            let slots = found & !WANTED;
            let index = slots.trailing_zeros();
            let next = match slots {
                0 if wanted => found | WANTED,
                0 => return None,
                _ => found & !(1 << index),
            };
            // SYNC slot-free: acquire pairs with `Slot::drop`, so that what its last owner has left in it is seen.
            match self.free.compare_exchange_weak(found, next, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return (slots != 0).then(|| Slot { caller: self, index }),
                Err(now) => found = now,
            }
        }
    }

    /// Waits for a free slot until `deadline`, or until `over` says that the connection has ended; `control` is
    /// bumped when it does. `None` in both cases.
    pub(crate) fn acquire(
        &self,
        deadline: Option<Instant>,
        control: &AtomicU32,
        over: impl Fn() -> bool,
    ) -> Option<Slot<'_>> {
        if let Some(slot) = self.try_acquire(false) {
            return Some(slot);
        }
        loop {
            let note = |word| WaitOn { word, expected: AtomicU32::load(word, Ordering::Acquire), shared: false };
            // SYNC control: pairs with `change`. Read before the slots and the connection are looked at.
            let noted = [note(&self.freed), note(control)];
            if let Some(slot) = self.try_acquire(true) {
                return Some(slot);
            }
            if over() || deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return None;
            }
            futex::wait_any(&noted, deadline);
        }
    }
}

impl Slot<'_> {
    /// A fresh id for a call through this slot.
    pub(crate) fn next_id(&self) -> CallId {
        CallId::new(self.caller.counter.fetch_add(1, Ordering::Relaxed), self.index)
    }

    /// The call through this slot that was given up, if the peer is still to be told.
    pub(crate) fn abandoned(&self) -> Option<CallId> {
        let id = self.caller.abandoned[self.index as usize].load(Ordering::Relaxed);
        (id != 0).then(|| CallId::from_peer(id))
    }

    /// Remembers it for whoever has the slot next, or forgets it.
    pub(crate) fn set_abandoned(&self, call: Option<CallId>) {
        self.caller.abandoned[self.index as usize].store(call.map_or(0, CallId::get), Ordering::Relaxed);
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        if self.index == DISPATCHER_SLOT {
            return;
        }
        let free = |found: u64| Some(found & !WANTED | 1 << self.index);
        // SYNC slot-free: release pairs with `try_acquire`.
        let found = self.caller.free.fetch_update(Ordering::Release, Ordering::Relaxed, free);
        if found.is_ok_and(|found| found & WANTED != 0) {
            change(&self.caller.freed);
        }
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn slots_run_out_and_a_freed_one_wakes_a_waiter() {
        let caller = Caller::new(3);
        let control = AtomicU32::new(0);
        let (a, _b) = (caller.try_acquire(false).unwrap(), caller.try_acquire(false).unwrap());
        assert!(caller.try_acquire(false).is_none());
        thread::scope(|scope| {
            let waiter = scope.spawn(|| caller.acquire(None, &control, || false).map(|slot| slot.index));
            let freed = a.index;
            drop(a);
            assert_eq!(waiter.join().unwrap(), Some(freed));
        });
    }

    #[test]
    fn waiting_for_a_slot_ends_at_the_deadline_and_when_the_connection_ends() {
        let caller = Caller::new(2);
        let control = AtomicU32::new(0);
        let _all = caller.try_acquire(false).unwrap();
        assert!(caller.acquire(Some(Instant::now()), &control, || false).is_none());
        assert!(caller.acquire(None, &control, || true).is_none());
    }

    #[test]
    fn the_dispatching_thread_never_waits_for_a_slot() {
        let caller = Caller::new(2);
        let _all = caller.try_acquire(false).unwrap();
        let slot = caller.dispatcher();
        assert_eq!(slot.next_id().slot(), DISPATCHER_SLOT);
        drop(slot);
        assert!(caller.try_acquire(false).is_none(), "the dispatcher's slot is not for others");
    }

    #[test]
    fn ids_are_never_reused() {
        let caller = Caller::new(2);
        let first = caller.try_acquire(false).unwrap().next_id();
        let second = caller.try_acquire(false).unwrap().next_id();
        assert_eq!(first.slot(), second.slot());
        assert_ne!(first, second);
    }
}
