//! Waiting for words to change, in this process's memory and in a peer's.
//!
//! A park on a peer's word always waits for a private word too, with futex_waitv: a wait on the peer's word alone
//! could not be cancelled from this side, and a hostile peer can requeue such a waiter to where nobody wakes it. A
//! waiter of futex_waitv cannot be requeued. Where the kernel (before 5.16) or a sandbox has no futex_waitv, the wait
//! is cut into slices, so that the caller looks at its own flags in between.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::thread::futex::{self, Flags, Wait, WaitFlags, WaitPtr, WaitvFlags};
use rustix::time::{ClockId, Timespec, clock_gettime};

/// The most words that one wait takes.
pub(crate) const MOST_WORDS: usize = 4;

/// How long a wait lasts at most where futex_waitv is missing.
const SLICE: Duration = Duration::from_millis(50);

/// A word to wait on, and the value that it has while there is nothing to wake for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WaitOn<'a> {
    pub(crate) word: &'a AtomicU32,
    pub(crate) expected: u32,
    /// Whether the word lies in shared memory. Whoever wakes it must use the wake of the same kind.
    pub(crate) shared: bool,
}

/// Why a wait ended. Wake-ups can be spurious, so the caller looks at what it waits for in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Woken {
    /// A word was changed or woken.
    Changed,
    /// The deadline has passed.
    TimedOut,
    /// Neither is known: a signal came, or a slice is over. The caller looks, and waits again.
    Recheck,
}

/// Wakes every waiter on a word in shared memory, in whatever process it waits.
pub(crate) fn wake_all_shared(word: &AtomicU32) {
    wake_all(word, Flags::empty());
}

/// Wakes every waiter on a word of this process's own memory.
pub(crate) fn wake_all_private(word: &AtomicU32) {
    wake_all(word, Flags::PRIVATE);
}

fn wake_all(word: &AtomicU32, flags: Flags) {
    const EVERYONE: u32 = i32::MAX.cast_unsigned();
    // It fails for a bad address only, which a reference is not.
    let woken = futex::wake(word, flags, EVERYONE);
    debug_assert!(woken.is_ok(), "futex wake: {woken:?}");
}

/// Sleeps while every word has its expected value, until one of them is woken or `deadline`, a time of
/// `CLOCK_MONOTONIC`, has passed. Takes one to [`MOST_WORDS`] words; of more, or of none, it waits for nothing.
pub(crate) fn wait_any(words: &[WaitOn<'_>], deadline: Option<Instant>) -> Woken {
    /// Set when the kernel or a sandbox has refused futex_waitv: asking again would cost a call each time.
    static WAITV_IS_MISSING: AtomicBool = AtomicBool::new(false);

    debug_assert!((1..=MOST_WORDS).contains(&words.len()), "{} words", words.len());
    if WAITV_IS_MISSING.load(Ordering::Relaxed) || fallback_is_forced() {
        return wait_in_slices(words, deadline);
    }
    let mut waits = [Wait::new(); MOST_WORDS];
    for (wait, on) in waits.iter_mut().zip(words) {
        wait.val = u64::from(on.expected);
        wait.uaddr = WaitPtr::new(on.word.as_ptr().cast());
        wait.flags = if on.shared { WaitFlags::SIZE_U32 } else { WaitFlags::SIZE_U32 | WaitFlags::PRIVATE };
    }
    let Some(waits) = waits.get(..words.len()) else {
        return Woken::Recheck;
    };
    let until = deadline.map(monotonic);
    match futex::waitv(waits, WaitvFlags::empty(), until.as_ref(), ClockId::Monotonic) {
        Ok(_) | Err(Errno::AGAIN) => Woken::Changed,
        Err(Errno::TIMEDOUT) => Woken::TimedOut,
        Err(Errno::INTR) => Woken::Recheck,
        Err(Errno::NOSYS | Errno::PERM | Errno::ACCESS) => {
            WAITV_IS_MISSING.store(true, Ordering::Relaxed);
            wait_in_slices(words, deadline)
        }
        // The kernel is short of memory for the list of waits.
        Err(_) => wait_in_slices(words, deadline),
    }
}

/// Waits on one word alone, the first shared one, and not for long, since the other words wake nobody here.
fn wait_in_slices(words: &[WaitOn<'_>], deadline: Option<Instant>) -> Woken {
    if words.iter().any(|on| on.word.load(Ordering::Relaxed) != on.expected) {
        return Woken::Changed;
    }
    let Some(on) = words.iter().find(|on| on.shared).or(words.first()) else {
        return Woken::Recheck;
    };
    let slice = Instant::now() + SLICE;
    let until = match deadline {
        // A private word that is waited for alone misses nothing.
        _ if words.len() == 1 && !on.shared => deadline,
        Some(deadline) => Some(deadline.min(slice)),
        None => Some(slice),
    };
    let flags = if on.shared { Flags::empty() } else { Flags::PRIVATE };
    let timeout = until.map(monotonic);
    match futex::wait_bitset(on.word, flags, on.expected, timeout.as_ref(), ANY_BIT) {
        Ok(()) | Err(Errno::AGAIN) => Woken::Changed,
        Err(Errno::TIMEDOUT) if until == deadline => Woken::TimedOut,
        Err(_) => Woken::Recheck,
    }
}

/// `FUTEX_BITSET_MATCH_ANY`. The bitset form of a wait is the one that takes an absolute `CLOCK_MONOTONIC` time.
const ANY_BIT: std::num::NonZeroU32 = std::num::NonZeroU32::MAX;

/// An instant as a time of `CLOCK_MONOTONIC`, which is what it counts, though it does not show it.
fn monotonic(instant: Instant) -> Timespec {
    const FOR_EVER: Timespec = Timespec { tv_sec: i64::MAX, tv_nsec: 0 };
    let now = clock_gettime(ClockId::Monotonic);
    let left = instant.saturating_duration_since(Instant::now());
    Timespec::try_from(left).ok().and_then(|left| now.checked_add(left)).unwrap_or(FOR_EVER)
}

#[cfg(not(test))]
fn fallback_is_forced() -> bool {
    false
}

#[cfg(test)]
use testing::fallback_is_forced;

#[cfg(test)]
pub(crate) mod testing {
    use std::cell::Cell;

    thread_local! {
        static FORCED: Cell<bool> = const { Cell::new(false) };
    }

    pub(super) fn fallback_is_forced() -> bool {
        FORCED.get()
    }

    /// Runs `test` with this thread's waits made as if futex_waitv were missing.
    pub(crate) fn without_waitv<R>(test: impl FnOnce() -> R) -> R {
        FORCED.set(true);
        let outcome = test();
        FORCED.set(false);
        outcome
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::testing::without_waitv;
    use super::*;

    fn private(word: &AtomicU32, expected: u32) -> WaitOn<'_> {
        WaitOn { word, expected, shared: false }
    }

    fn shared(word: &AtomicU32, expected: u32) -> WaitOn<'_> {
        WaitOn { word, expected, shared: true }
    }

    /// Waits until the first word is 1, whatever wakes the thread in between; returns what ended the last wait.
    fn wait_until_set(word: &AtomicU32, others: &[WaitOn<'_>]) -> Woken {
        let mut last = Woken::Recheck;
        while word.load(Ordering::Acquire) == 0 {
            let mut words = vec![shared(word, 0)];
            words.extend_from_slice(others);
            last = wait_any(&words, None);
        }
        last
    }

    #[test]
    fn a_word_that_has_changed_before_is_not_waited_for() {
        let (bell, control) = (AtomicU32::new(0), AtomicU32::new(5));
        let words = [shared(&bell, 0), private(&control, 4)];
        assert_eq!(wait_any(&words, None), Woken::Changed);
        assert_eq!(without_waitv(|| wait_any(&words, None)), Woken::Changed);
    }

    #[test]
    fn a_deadline_ends_the_wait_and_not_before_its_time() {
        let (bell, control) = (AtomicU32::new(0), AtomicU32::new(0));
        for words in [&[shared(&bell, 0), private(&control, 0)][..], &[private(&control, 0)][..]] {
            let deadline = Instant::now() + Duration::from_millis(20);
            while wait_any(words, Some(deadline)) == Woken::Recheck {}
            assert!(Instant::now() >= deadline);
            let deadline = Instant::now() + Duration::from_millis(20);
            without_waitv(|| while wait_any(words, Some(deadline)) == Woken::Recheck {});
            assert!(Instant::now() >= deadline);
        }
    }

    #[test]
    fn a_deadline_in_the_past_does_not_wait() {
        let bell = AtomicU32::new(0);
        let past = Some(Instant::now());
        assert_eq!(wait_any(&[shared(&bell, 0)], past), Woken::TimedOut);
        assert_eq!(without_waitv(|| wait_any(&[shared(&bell, 0)], past)), Woken::TimedOut);
    }

    #[test]
    fn the_other_words_end_a_wait_too() {
        let (bell, control) = (AtomicU32::new(0), AtomicU32::new(0));
        let (armed, words) = (AtomicU32::new(0), [shared(&bell, 0), private(&control, 0)]);
        thread::scope(|scope| {
            let waiter = scope.spawn(|| {
                armed.store(1, Ordering::Release);
                while control.load(Ordering::Acquire) == 0 {
                    assert_ne!(wait_any(&words, None), Woken::TimedOut);
                }
            });
            while armed.load(Ordering::Acquire) == 0 {
                thread::yield_now();
            }
            control.store(1, Ordering::Release);
            wake_all_private(&control);
            waiter.join().unwrap();
        });
    }

    #[test]
    fn every_waiter_is_woken_at_once() {
        let (bell, control) = (AtomicU32::new(0), AtomicU32::new(0));
        thread::scope(|scope| {
            let waiters: Vec<_> =
                (0..6).map(|_| scope.spawn(|| wait_until_set(&bell, &[private(&control, 0)]))).collect();
            bell.store(1, Ordering::Release);
            wake_all_shared(&bell);
            for waiter in waiters {
                let _ = waiter.join().unwrap();
            }
        });
    }

    #[test]
    fn without_waitv_a_slice_ends_with_a_recheck() {
        let (bell, control) = (AtomicU32::new(0), AtomicU32::new(0));
        let before = Instant::now();
        let words = [private(&control, 0), shared(&bell, 0)];
        assert_eq!(without_waitv(|| wait_any(&words, None)), Woken::Recheck);
        assert!(before.elapsed() >= SLICE);
        let far = Some(Instant::now() + Duration::from_secs(3600));
        assert_eq!(without_waitv(|| wait_any(&words, far)), Woken::Recheck);
    }

    #[test]
    fn without_waitv_the_shared_word_still_wakes() {
        let (bell, control) = (AtomicU32::new(0), AtomicU32::new(0));
        thread::scope(|scope| {
            let waiter = scope.spawn(|| without_waitv(|| wait_until_set(&bell, &[private(&control, 0)])));
            bell.store(1, Ordering::Release);
            wake_all_shared(&bell);
            let _ = waiter.join().unwrap();
        });
    }

    #[test]
    fn an_instant_beyond_what_the_clock_can_say_is_for_ever() {
        let near = monotonic(Instant::now());
        assert!(near.tv_sec < i64::MAX / 2);
        let far = monotonic(Instant::now() + Duration::from_secs(1 << 62));
        assert!(far.tv_sec >= 1 << 62);
    }
}
