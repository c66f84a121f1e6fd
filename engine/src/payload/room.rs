//! Room that this side makes itself, by taking back memory that the peer has not got. The peer rings for what it gives
//! back; of this nobody tells but the one who makes it.

use crate::sync::{AtomicU32, AtomicU64, Ordering, fence};

/// How often such room was made, and how many threads wait for room.
///
/// Who waits says so and then looks; who makes room says so and then looks. With a full fence between the two on both
/// sides, at least one of them sees the other. Of the one who waits, that fence is its heavy barrier.
#[derive(Debug)]
pub(crate) struct OwnRoom {
    made: AtomicU64,
    waiting: AtomicU32,
}

impl OwnRoom {
    pub(crate) fn new() -> Self {
        Self { made: AtomicU64::new(0), waiting: AtomicU32::new(0) }
    }

    /// How often there was room: another number means that there may be some again.
    pub(crate) fn made(&self) -> u64 {
        self.made.load(Ordering::Relaxed)
    }

    /// Says that there is room. Whether somebody waits for it, and is to be woken; what else is looked at behind this
    /// call, to the same end, is as new.
    pub(crate) fn make(&self) -> bool {
        self.made.fetch_add(1, Ordering::Relaxed);
        // SYNC room-released: pairs with the heavy barrier in `sleep` of `wait`, and with that of a thread that queues
        // what it sends.
        fence(Ordering::SeqCst);
        self.waiting.load(Ordering::Relaxed) != 0
    }

    /// Has `sleep` wait, which passes the heavy barrier and looks for room before it does.
    pub(crate) fn wait(&self, sleep: impl FnOnce()) {
        // SYNC room-released: pairs with `make`, through the heavy barrier in `sleep`.
        self.waiting.fetch_add(1, Ordering::Relaxed);
        sleep();
        self.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}
