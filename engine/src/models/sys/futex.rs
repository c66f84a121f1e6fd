//! Futexes. As in the kernel, a wait compares its words under a lock which every wake takes, too, after the word was
//! changed; and only a wake of one of its own words, by the wake of the same kind, ends it. So a wake-up that the real
//! one would miss is missed here, and loom reports the sleeper as a deadlock.

use std::collections::BTreeMap;
use std::ptr;
use std::time::Instant;

use loom::sync::atomic::{AtomicU32, Ordering};
use loom::sync::{Condvar, Mutex};

/// The most words that one wait takes.
pub(crate) const MOST_WORDS: usize = 4;

/// A word to wait on, and the value that it has while there is nothing to wake for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WaitOn<'a> {
    pub(crate) word: &'a AtomicU32,
    pub(crate) expected: u32,
    pub(crate) shared: bool,
}

/// A word, and the kind of its wakes.
type Key = (usize, bool);

#[derive(Default)]
struct Queues {
    /// How often each word was woken.
    wakes: Mutex<BTreeMap<Key, u64>>,
    woken: Condvar,
}

loom::lazy_static! {
    static ref QUEUES: Queues = Queues::default();
}

fn key(word: &AtomicU32, shared: bool) -> Key {
    (ptr::from_ref(word).addr(), shared)
}

pub(crate) fn wake_all_shared(word: &AtomicU32) {
    wake_all(key(word, true));
}

pub(crate) fn wake_all_private(word: &AtomicU32) {
    wake_all(key(word, false));
}

fn wake_all(key: Key) {
    *QUEUES.wakes.lock().unwrap().entry(key).or_default() += 1;
    QUEUES.woken.notify_all();
}

/// A deadline is one that has passed: no time goes by in a model.
pub(crate) fn wait_any(words: &[WaitOn<'_>], deadline: Option<Instant>) {
    if deadline.is_some() {
        return;
    }
    let mut wakes = QUEUES.wakes.lock().unwrap();
    if words.iter().any(|on| on.word.load(Ordering::Relaxed) != on.expected) {
        return;
    }
    let woken = |wakes: &BTreeMap<Key, u64>| {
        words.iter().map(|on| wakes.get(&key(on.word, on.shared)).copied().unwrap_or(0)).sum::<u64>()
    };
    let before = woken(&wakes);
    while woken(&wakes) == before {
        wakes = QUEUES.woken.wait(wakes).unwrap();
    }
}
