//! The two barriers of a doorbell: a heavy one for who goes to sleep, a light one for who may have to wake.
//!
//! With [`Barrier::Asymmetric`] the sleeper pays for both: `membarrier(GLOBAL_EXPEDITED)` makes every running thread of
//! every process that registered for it pass a full fence, so the waker's side needs to hold back the compiler only.
//! With [`Barrier::Fence`] both sides execute a full fence; a sleeper may also ask for that, one word at a time (see
//! `crate::doorbell::protocol`). Either way, of two threads that each store, pass their barrier and load, at least one
//! sees the other's store.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, compiler_fence, fence};

use rustix::thread::{MembarrierCommand, MembarrierQuery, membarrier, membarrier_query};

use crate::sys::fork::Epoch;

/// How a sleeper and its waker order their stores before their loads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Barrier {
    /// membarrier where one sleeps, a compiler fence where one wakes. Needs a waker that is [`registered`].
    Asymmetric,
    /// A full fence on both sides.
    Fence,
}

/// Whether a heavy barrier took place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "after a barrier that failed, a wake-up can be missed"]
pub(crate) enum Heavy {
    Done,
    /// The kernel refused it, though it had granted it before (a seccomp filter came in between). A wake-up can be
    /// missed then, so the caller sleeps in slices of a millisecond.
    Failed,
}

/// Whether this process takes part in membarrier: it receives the heavy barriers of others, and may issue its own.
/// Registers it at the first call, and at the first after a fork.
pub(crate) fn registered() -> bool {
    /// The epoch's number above, then whether registering worked. Threads that race here register twice, and find
    /// the same.
    static OUTCOME: AtomicU64 = AtomicU64::new(0);

    let epoch = Epoch::current().number();
    let known = OUTCOME.load(Ordering::Relaxed);
    if known >> 1 == epoch {
        return known & 1 == 1;
    }
    let works = register();
    OUTCOME.store(epoch << 1 | u64::from(works), Ordering::Relaxed);
    works
}

fn register() -> bool {
    let needed = MembarrierQuery::GLOBAL_EXPEDITED | MembarrierQuery::REGISTER_GLOBAL_EXPEDITED;
    membarrier_query().contains(needed)
        && membarrier(MembarrierCommand::RegisterGlobalExpedited).is_ok()
        && membarrier(MembarrierCommand::GlobalExpedited).is_ok()
}

/// Whether a heavy barrier has failed.
static REFUSED: AtomicBool = AtomicBool::new(false);

/// Whether a heavy barrier of this process has ever failed, so that a sleeper cannot know what its wakers have seen.
pub(crate) fn was_refused() -> bool {
    REFUSED.load(Ordering::Relaxed)
}

/// The sleeper's barrier, between saying that it sleeps and looking once more.
pub(crate) fn heavy(barrier: Barrier) -> Heavy {
    match barrier {
        Barrier::Fence => {
            // SYNC doorbell-barrier: pairs with `light`.
            fence(Ordering::SeqCst);
            Heavy::Done
        }
        Barrier::Asymmetric => {
            // SYNC doorbell-barrier: pairs with `light`; the kernel makes its compiler fence a full one.
            compiler_fence(Ordering::SeqCst);
            let outcome = membarrier(MembarrierCommand::GlobalExpedited);
            compiler_fence(Ordering::SeqCst);
            match outcome {
                Ok(()) => Heavy::Done,
                Err(_) => {
                    REFUSED.store(true, Ordering::Relaxed);
                    Heavy::Failed
                }
            }
        }
    }
}

/// The waker's barrier, between publishing and looking whether somebody sleeps.
#[inline(always)]
pub(crate) fn light(barrier: Barrier) {
    // SYNC doorbell-barrier: pairs with `heavy`.
    match barrier {
        Barrier::Asymmetric => compiler_fence(Ordering::SeqCst),
        Barrier::Fence => fence(Ordering::SeqCst),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;
    use std::thread;

    use super::*;
    use crate::sys::fork::testing::exit_code_of;

    /// Store buffering: both threads store, pass their barrier and load. Without barriers both can miss the
    /// other's store.
    fn neither_store_is_missed(barrier: Barrier) {
        const ROUNDS: u32 = 20_000;
        let (sleeper, waker) = (AtomicU32::new(0), AtomicU32::new(0));
        let (slept, woke) = (AtomicU32::new(0), AtomicU32::new(0));
        let missed = thread::scope(|scope| {
            scope.spawn(|| {
                for round in 1..=ROUNDS {
                    waker.store(round, Ordering::Relaxed);
                    light(barrier);
                    woke.store(round << 1 | u32::from(sleeper.load(Ordering::Relaxed) == round), Ordering::Release);
                    while slept.load(Ordering::Acquire) != round {
                        thread::yield_now();
                    }
                }
            });
            let mut missed = 0;
            for round in 1..=ROUNDS {
                sleeper.store(round, Ordering::Relaxed);
                assert_eq!(heavy(barrier), Heavy::Done);
                let saw = waker.load(Ordering::Relaxed) == round;
                let other = loop {
                    let word = woke.load(Ordering::Acquire);
                    if word >> 1 == round {
                        break word & 1 == 1;
                    }
                    thread::yield_now();
                };
                missed += u32::from(!saw && !other);
                slept.store(round, Ordering::Release);
            }
            missed
        });
        assert_eq!(missed, 0);
    }

    #[test]
    fn fences_on_both_sides_miss_no_store() {
        neither_store_is_missed(Barrier::Fence);
    }

    #[test]
    fn a_heavy_barrier_makes_the_light_one_a_full_fence() {
        if registered() {
            neither_store_is_missed(Barrier::Asymmetric);
        } else {
            assert!(!membarrier_query().contains(MembarrierQuery::GLOBAL_EXPEDITED), "offered, but not granted");
        }
    }

    #[test]
    fn a_forked_child_registers_anew() {
        let here = registered();
        assert_eq!(exit_code_of(|| i32::from(registered() != here)), 0);
    }
}
