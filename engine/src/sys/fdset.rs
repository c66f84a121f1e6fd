//! A set of descriptor numbers without locks, which a signal handler, or a child just forked from a process with
//! many threads, can empty.
//!
//! # Invariant
//!
//! 1. Blocks are never freed, so a pointer to one, once published, is valid for ever. The sets are statics.
#![allow(unsafe_code)]

use std::os::fd::RawFd;
use std::ptr;
use std::sync::atomic::{AtomicI32, AtomicPtr, Ordering};

/// What a slot holds when it holds no descriptor.
const FREE: RawFd = -1;

/// A part of a set, or a whole one: a list of blocks that only grows.
#[derive(Debug)]
pub(crate) struct FdSet {
    slots: [AtomicI32; 63],
    next: AtomicPtr<FdSet>,
}

/// Where a descriptor lies in a set.
#[derive(Debug)]
pub(crate) struct Slot(&'static AtomicI32);

impl Slot {
    /// Takes the descriptor out, unless it has been taken out already.
    pub(crate) fn clear(&self) {
        self.0.store(FREE, Ordering::SeqCst);
    }
}

impl FdSet {
    pub(crate) const fn new() -> Self {
        Self { slots: [const { AtomicI32::new(FREE) }; 63], next: AtomicPtr::new(ptr::null_mut()) }
    }

    /// Puts a descriptor in.
    pub(crate) fn insert(&'static self, fd: RawFd) -> Slot {
        let mut block = self;
        loop {
            for slot in &block.slots {
                if slot.load(Ordering::Relaxed) == FREE
                    && slot.compare_exchange(FREE, fd, Ordering::SeqCst, Ordering::Relaxed).is_ok()
                {
                    return Slot(slot);
                }
            }
            block = block.next().unwrap_or_else(|| block.grow());
        }
    }

    /// Takes any descriptor out; each goes to one caller. Async-signal-safe.
    pub(crate) fn take(&'static self) -> Option<RawFd> {
        let mut block = Some(self);
        while let Some(current) = block {
            for slot in &current.slots {
                if slot.load(Ordering::SeqCst) != FREE {
                    let fd = slot.swap(FREE, Ordering::SeqCst);
                    if fd != FREE {
                        return Some(fd);
                    }
                }
            }
            block = current.next();
        }
        None
    }

    fn next(&self) -> Option<&'static Self> {
        // SYNC fdset-block: pairs with `FdSet::grow`.
        let next = self.next.load(Ordering::Acquire);
        // SAFETY: null, or a block that `grow` published; by invariant 1 it is valid for ever.
        unsafe { next.as_ref() }
    }

    /// Appends a block, or finds that another thread has.
    fn grow(&self) -> &'static Self {
        let fresh = Box::into_raw(Box::new(Self::new()));
        // SYNC fdset-block: pairs with `FdSet::next`.
        match self.next.compare_exchange(ptr::null_mut(), fresh, Ordering::Release, Ordering::Acquire) {
            Ok(_) => {
                // SAFETY: made from a box above, and published: by invariant 1 it is never freed.
                unsafe { &*fresh }
            }
            Err(theirs) => {
                // SAFETY: made from a box above, and not published, so nobody else has it.
                drop(unsafe { Box::from_raw(fresh) });
                // SAFETY: not null, since the exchange failed; a block that another `grow` published (invariant 1).
                unsafe { &*theirs }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn what_is_put_in_is_taken_out_once() {
        static SET: FdSet = FdSet::new();
        assert_eq!(SET.take(), None);
        let slots: Vec<_> = (0..200).map(|fd| SET.insert(fd)).collect();
        slots[7].clear();
        slots[150].clear();
        let mut taken: Vec<_> = std::iter::from_fn(|| SET.take()).collect();
        taken.sort_unstable();
        assert_eq!(taken, (0..200).filter(|fd| ![7, 150].contains(fd)).collect::<Vec<_>>());
    }

    #[test]
    fn threads_that_grow_the_set_at_once_lose_nothing() {
        static SET: FdSet = FdSet::new();
        thread::scope(|scope| {
            for thread in 0..4 {
                scope.spawn(move || {
                    for fd in 0..500 {
                        let _ = SET.insert(thread * 500 + fd);
                    }
                });
            }
        });
        let mut taken: Vec<_> = std::iter::from_fn(|| SET.take()).collect();
        taken.sort_unstable();
        assert_eq!(taken, (0..2000).collect::<Vec<_>>());
    }
}
