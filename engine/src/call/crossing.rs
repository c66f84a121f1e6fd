//! Calls that cross.
//!
//! Only a dispatching thread that waits for a reply can close a cycle: the peer's call waits in the ring that nobody
//! reads. So each side shows in its outbox, in `waiting`, for which call its dispatching thread waits. Who is about
//! to wait stores that, passes a full fence and looks at the peer's word. Of two that do, at least one sees the
//! other. If it is the renderer, its call ends; if it is main, it rings the renderer, which looks again and ends its
//! call.
//!
//! The peer's word may be a little old: it may still name a call that we have answered. That is no cycle, and our
//! own slots tell.

use super::CallId;
use super::answerer::Answerer;
use crate::sync::{AtomicU64, Ordering, fence};

/// Shows the peer, while it lives, for which call our dispatching thread waits.
pub(crate) struct Shown<'a>(&'a AtomicU64);

impl<'a> Shown<'a> {
    pub(crate) fn new(word: &'a AtomicU64, id: CallId) -> Self {
        word.store(id.get(), Ordering::Relaxed);
        // SYNC crossing-calls: pairs with the same fence in the peer's process, behind which `is_crossing` and
        // `to_alert` look.
        fence(Ordering::SeqCst);
        crash_point!("waiting-shown");
        Self(word)
    }
}

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        // Relaxed: nothing is looked for behind it, and one that is seen late names a call that was answered.
        self.0.store(0, Ordering::Relaxed);
    }
}

/// Whether the peer's dispatching thread waits for us, who show that ours waits for it: the peer's word is `theirs`.
pub(crate) fn is_crossing(theirs: u64, answers: &Answerer) -> bool {
    theirs != 0 && !answers.has_answered(CallId::from_peer(theirs))
}

/// Main shows that its dispatching thread waits. The slot at which the renderer's waits already, if it does: it is to
/// look again. `theirs` is the renderer's word.
pub(crate) fn to_alert(theirs: u64) -> Option<u32> {
    (theirs != 0).then(|| CallId::from_peer(theirs).slot())
}
