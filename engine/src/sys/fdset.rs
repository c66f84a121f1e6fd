//! A set of descriptor numbers without locks, which a signal handler, or a child just forked from a process with
//! many threads, can empty.
//!
//! One bit for each number, in levels of which each holds twice as many as the one before and is made when the first
//! of its numbers is put in. So putting in and taking out cost the same however many there are.
//!
//! # Invariants
//!
//! 1. Levels are never freed, so a pointer to one, once published, is valid for ever.
//! 2. A published level `n` has `words_of(n)` words.
#![allow(unsafe_code)]

use std::os::fd::RawFd;
use std::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use std::{ptr, slice};

/// Words of the first level, which stands for the first 4,096 numbers.
const FIRST: usize = 64;
/// Enough for every number that is not negative.
const LEVELS: usize = 20;

const BITS: usize = u64::BITS as usize;
const _: () = assert!(BITS * FIRST * ((1 << LEVELS) - 1) > i32::MAX as usize);

/// A set of descriptors, each of which has one owner, so that no number is put in while it is there.
#[derive(Debug)]
pub(crate) struct FdSet {
    levels: [AtomicPtr<AtomicU64>; LEVELS],
    /// The word where one was found last, counted over all levels. A hint: where to look first.
    last: AtomicUsize,
}

const fn words_of(level: usize) -> usize {
    FIRST << level
}

/// The words of all levels below this one.
const fn words_below(level: usize) -> usize {
    FIRST * ((1 << level) - 1)
}

/// Where a number has its bit: the level, the word in it, the bit.
fn place_of(fd: RawFd) -> Option<(usize, usize, u64)> {
    let number = usize::try_from(fd).ok()?;
    let word = number / BITS;
    let level = (word / FIRST + 1).ilog2() as usize;
    Some((level, word - words_below(level), 1 << (number % BITS)))
}

impl FdSet {
    pub(crate) const fn new() -> Self {
        Self { levels: [const { AtomicPtr::new(ptr::null_mut()) }; LEVELS], last: AtomicUsize::new(0) }
    }

    /// Puts a descriptor in.
    pub(crate) fn insert(&'static self, fd: RawFd) {
        let Some((level, word, bit)) = place_of(fd) else { return };
        let words = self.level(level).unwrap_or_else(|| self.grow(level));
        if let Some(word) = words.get(word) {
            word.fetch_or(bit, Ordering::SeqCst);
        }
    }

    /// Takes this descriptor out, if it is there.
    pub(crate) fn remove(&'static self, fd: RawFd) {
        if let Some((level, word, bit)) = place_of(fd)
            && let Some(word) = self.level(level).and_then(|words| words.get(word))
        {
            word.fetch_and(!bit, Ordering::SeqCst);
        }
    }

    /// Takes any descriptor out; each goes to one caller. Async-signal-safe. Each word is looked at, once at least, in
    /// the course of a call that finds none.
    pub(crate) fn take(&'static self) -> Option<RawFd> {
        let start = self.last.load(Ordering::Relaxed);
        self.take_from(start, usize::MAX).or_else(|| self.take_from(0, start))
    }

    /// Takes one out that has its bit in a word from `start` on, before `end`.
    fn take_from(&'static self, start: usize, end: usize) -> Option<RawFd> {
        for level in 0..LEVELS {
            let below = words_below(level);
            let (from, to) = (start.saturating_sub(below), end.saturating_sub(below));
            let words = self.level(level).unwrap_or_default();
            let Some(words) = words.get(from..to.min(words.len())) else { continue };
            for (at, word) in (below + from..).zip(words) {
                // A bit that is found set may be another caller's before it is taken.
                while let Some(bit) = lowest(word.load(Ordering::SeqCst)) {
                    if word.fetch_and(!(1 << bit), Ordering::SeqCst) & (1 << bit) != 0 {
                        self.last.store(at, Ordering::Relaxed);
                        return RawFd::try_from(at * BITS + bit as usize).ok();
                    }
                }
            }
        }
        None
    }

    fn level(&self, level: usize) -> Option<&'static [AtomicU64]> {
        // SYNC fdset-level: acquire pairs with `FdSet::grow`. Sequentially consistent, like all accesses to the bits,
        // for `discard`: who looks after a put-in must not miss it because it does not see the level yet.
        let words = self.levels[level].load(Ordering::SeqCst);
        // SAFETY: not null, so a level that `grow` published: valid for ever (invariant 1), of that length
        // (invariant 2).
        (!words.is_null()).then(|| unsafe { slice::from_raw_parts(words, words_of(level)) })
    }

    /// Makes a level, or finds that another thread has.
    fn grow(&self, level: usize) -> &'static [AtomicU64] {
        let fresh: Box<[AtomicU64]> = (0..words_of(level)).map(|_| AtomicU64::new(0)).collect();
        let fresh = Box::into_raw(fresh);
        // SYNC fdset-level: release pairs with `FdSet::level`, and, where it fails, acquire with the first thread's.
        let grown =
            self.levels[level].compare_exchange(ptr::null_mut(), fresh.cast(), Ordering::SeqCst, Ordering::SeqCst);
        match grown {
            Ok(_) => {
                // SAFETY: made from a box above, and published: by invariant 1 it is never freed.
                unsafe { &*fresh }
            }
            Err(theirs) => {
                // SAFETY: made from a box above, and not published, so nobody else has it.
                drop(unsafe { Box::from_raw(fresh) });
                // SAFETY: not null, since the exchange failed: a level that another `grow` published (invariants 1, 2).
                unsafe { slice::from_raw_parts(theirs, words_of(level)) }
            }
        }
    }
}

fn lowest(word: u64) -> Option<u32> {
    (word != 0).then(|| word.trailing_zeros())
}

#[cfg(test)]
mod tests {
    use std::iter::from_fn;
    use std::thread;
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn what_is_put_in_is_taken_out_once() {
        static SET: FdSet = FdSet::new();
        assert_eq!(SET.take(), None);
        (0..200).for_each(|fd| SET.insert(fd));
        SET.remove(7);
        SET.remove(150);
        SET.remove(5_000);
        let mut taken: Vec<_> = from_fn(|| SET.take()).collect();
        taken.sort_unstable();
        assert_eq!(taken, (0..200).filter(|fd| ![7, 150].contains(fd)).collect::<Vec<_>>());
    }

    #[test]
    fn numbers_at_every_end_of_a_word_and_a_level_are_kept_apart() {
        static SET: FdSet = FdSet::new();
        let mut numbers = vec![0, 1, 63, 64, 65];
        // Not the largest: a level is as large as all below it.
        for level in 1..10 {
            let first = RawFd::try_from(BITS * words_below(level)).unwrap();
            numbers.extend([first - 1, first, first + 1]);
        }
        for fd in &numbers {
            SET.insert(*fd);
        }
        let mut taken: Vec<_> = from_fn(|| SET.take()).collect();
        taken.sort_unstable();
        assert_eq!(taken, numbers);
        assert_eq!(place_of(RawFd::MAX).map(|(level, _, bit)| (level, bit)), Some((LEVELS - 1, 1 << 63)));
        assert_eq!(place_of(-1), None);
    }

    #[test]
    fn what_lies_before_the_last_one_that_was_taken_is_found() {
        static SET: FdSet = FdSet::new();
        for fd in [100_000, 70, 3] {
            SET.insert(fd);
            assert_eq!(SET.take(), Some(fd));
        }
        assert_eq!(SET.take(), None);
    }

    #[test]
    fn threads_that_grow_and_empty_the_set_at_once_lose_nothing_and_share_nothing() {
        static SET: FdSet = FdSet::new();
        let mut taken = thread::scope(|scope| {
            let threads = [0, 1, 2, 3].map(|thread| {
                scope.spawn(move || {
                    let mut taken = Vec::new();
                    for fd in 0..5_000 {
                        SET.insert(thread * 5_000 + fd);
                        if fd % 2 == 0 {
                            taken.extend(SET.take());
                        }
                    }
                    taken
                })
            });
            threads.map(|thread| thread.join().unwrap()).concat()
        });
        taken.extend(from_fn(|| SET.take()));
        taken.sort_unstable();
        assert_eq!(taken, (0..20_000).collect::<Vec<_>>());
    }

    #[test]
    fn a_great_many_are_put_in_and_taken_out_without_looking_at_all_of_them_each_time() {
        static SET: FdSet = FdSet::new();
        const MANY: RawFd = 1_000_000;
        // Takes half a second when each costs a fixed time, and half an hour when each costs a look at all others.
        let start = Instant::now();
        let in_time = || assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
        for fd in 0..MANY {
            in_time();
            SET.insert(fd);
        }
        assert_eq!(from_fn(|| SET.take()).inspect(|_| in_time()).count(), MANY as usize);
    }
}
