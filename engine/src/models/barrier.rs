//! The two barriers of a doorbell, of both kinds, and what is left when one is taken out.
//!
//! With fences both sides execute a full fence. With membarrier the waker executes none, so its processor may keep what
//! it published in a buffer while the load behind it is already done: here each waker has a [`Processor`], which keeps
//! it for as long as it may. The sleeper's membarrier empties the buffers of all, under the lock that a waker takes to
//! put something in; so it happens, as the kernel's does, before the store, between the store and the load, or behind
//! both. The light barrier holds back the compiler alone: without it, the load comes first. A waker that is asked for a
//! fence empties its buffer by itself.

use loom::sync::Mutex;
use loom::sync::atomic::{Ordering, fence};

use crate::doorbell::protocol::Pass;

/// Which barriers the two sides agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Fences,
    Membarrier,
}

/// What is taken out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Without {
    Nothing,
    Heavy,
    Light,
    /// The fence that a sleeper asks its wakers for.
    Asked,
}

/// A store that no other processor has seen.
type Kept = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct Processor(Mutex<Option<Kept>>);

impl Processor {
    fn keep(&self, store: Kept) {
        *self.0.lock().unwrap() = Some(store);
    }

    fn empty(&self) {
        let mut kept = self.0.lock().unwrap();
        if let Some(store) = kept.take() {
            store();
        }
    }
}

pub(super) struct Barriers {
    kind: Kind,
    without: Without,
    wakers: Vec<Processor>,
}

impl Barriers {
    pub(super) fn new(kind: Kind, without: Without, wakers: usize) -> Self {
        Self { kind, without, wakers: (0..wakers).map(|_| Processor::default()).collect() }
    }

    /// What a sleeper passes.
    pub(super) fn heavy(&self, pass: Pass) {
        if self.without == Without::Heavy && pass == Pass::Heavy {
            return;
        }
        fence(Ordering::SeqCst);
        if self.kind == Kind::Membarrier && pass == Pass::Heavy {
            self.wakers.iter().for_each(Processor::empty);
        }
    }

    /// Has a waker publish with `store`, pass the light barrier, and `look` whom to ring; what it has found. `look` is
    /// given the fence to pass if it is asked for one. The waker's next store comes behind the one that publishes, in
    /// any case.
    pub(super) fn publish<R>(
        &self,
        waker: usize,
        store: impl FnOnce() + Send + 'static,
        look: impl FnOnce(&dyn Fn()) -> R,
    ) -> R {
        let own = &self.wakers[waker];
        let asked = || {
            if self.without != Without::Asked {
                own.empty();
                fence(Ordering::SeqCst);
            }
        };
        let found = match (self.kind, self.without) {
            (Kind::Fences, Without::Light) => {
                store();
                look(&asked)
            }
            (Kind::Fences, _) => {
                store();
                fence(Ordering::SeqCst);
                look(&asked)
            }
            (Kind::Membarrier, Without::Light) => {
                let found = look(&asked);
                own.keep(Box::new(store));
                found
            }
            (Kind::Membarrier, _) => {
                own.keep(Box::new(store));
                look(&asked)
            }
        };
        own.empty();
        found
    }
}
