//! What was sent while there was no room: frames of the dispatching thread, and answers.
//!
//! The thread that dispatches must not wait for space: the peer may be waiting for it. So its frames queue up here,
//! in order and bounded in bytes, and go out as space appears.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::call::CallToken;
use crate::frame::{Content, Parcel};
use crate::outbox::MOST_SLOTS;

/// The queue of one connection.
#[derive(Debug)]
pub(crate) struct Backlog {
    /// Frames in the queue. Read without the lock by every send.
    frames: AtomicUsize,
    queue: Mutex<Queue>,
    limit: usize,
}

#[derive(Debug, Default)]
struct Queue {
    parcels: VecDeque<Queued>,
    bytes: usize,
}

/// What waits for space.
#[derive(Debug)]
struct Queued {
    parcel: Parcel<'static>,
    /// What it counts in the backlog's bound.
    cost: usize,
}

/// What each queued frame counts beyond its bytes, so that empty ones are bounded too.
const OVERHEAD: usize = size_of::<Queued>() + 16;

/// The backlog, locked.
#[derive(Debug)]
pub(crate) struct Locked<'a> {
    backlog: &'a Backlog,
    queue: MutexGuard<'a, Queue>,
}

impl Backlog {
    pub(crate) fn new(limit: usize) -> Self {
        Self { frames: AtomicUsize::new(0), queue: Mutex::default(), limit }
    }

    /// Whether nothing waits. A thread that queued a frame itself sees it until that frame is in the ring.
    #[inline(always)]
    pub(crate) fn is_empty(&self) -> bool {
        // SYNC backlog-drained: acquire pairs with `Locked::pop` and `clear`, so that a thread that sees the queue empty
        // claims behind the frames that left it.
        self.frames.load(Ordering::Acquire) == 0
    }

    pub(crate) fn lock(&self) -> Locked<'_> {
        Locked { backlog: self, queue: self.queue.lock().unwrap_or_else(PoisonError::into_inner) }
    }
}

impl Locked<'_> {
    /// What is to be sent next.
    pub(crate) fn front(&mut self) -> Option<&mut Parcel<'static>> {
        self.queue.parcels.front_mut().map(|queued| &mut queued.parcel)
    }

    /// Drops the front frame, which is in the ring now.
    pub(crate) fn pop(&mut self) {
        if let Some(gone) = self.queue.parcels.pop_front() {
            self.queue.bytes -= gone.cost;
            // SYNC backlog-drained: release pairs with `Backlog::is_empty`.
            self.backlog.frames.store(self.queue.parcels.len(), Ordering::Release);
        }
    }

    /// Queues what `parcel` brings; `false` if the backlog's bound would be passed. Payloads that lie in shared memory
    /// already count for nothing there, being bounded otherwise.
    pub(crate) fn push(&mut self, parcel: &mut Parcel<'_>) -> bool {
        let bytes = if let Content::Bytes(bytes) = &parcel.content { bytes.len() } else { 0 };
        let cost = parcel.prefix().len() + bytes + OVERHEAD;
        if self.queue.bytes.saturating_add(cost) > self.backlog.limit {
            return false;
        }
        self.queue.bytes += cost;
        self.queue.parcels.push_back(Queued { parcel: parcel.defer(), cost });
        // Who finds that something waits takes the lock. That it does is told by `port-news`, or `room-released`.
        self.backlog.frames.store(self.queue.parcels.len(), Ordering::Relaxed);
        true
    }

    /// Has the frames behind the first give up the memory that they hold; whether any did. They count in the backlog's bound
    /// from then on, even if that is passed: it admits no more of them, then.
    pub(crate) fn unstage_behind(&mut self) -> bool {
        let mut gave_up = false;
        let Queue { parcels, bytes } = &mut *self.queue;
        for Queued { parcel, cost } in parcels.iter_mut().skip(1) {
            if matches!(parcel.content, Content::Staged(_)) {
                parcel.content.unstage();
                if let Content::Bytes(copied) = &parcel.content {
                    *cost += copied.len();
                    *bytes += copied.len();
                    gave_up = true;
                }
            }
        }
        gave_up
    }

    /// Forgets everything: the connection has ended.
    pub(crate) fn clear(&mut self) {
        *self.queue = Queue::default();
        // SYNC backlog-drained: as in `pop`. Frames may have left before the others were forgotten.
        self.backlog.frames.store(0, Ordering::Release);
    }
}

/// Values that wait for room in the arena, no more than there can be reply slots.
#[derive(Debug)]
pub(crate) struct Answers {
    /// How many there are. Read without the lock in every turn: who finds some takes the lock, who finds none does
    /// nothing, and that there are some is told by `port-news`, or `room-released`; so all accesses are relaxed.
    waiting: AtomicUsize,
    queue: Mutex<VecDeque<(CallToken, Content<'static>)>>,
    limit: usize,
}

impl Answers {
    pub(crate) fn new(limit: usize) -> Self {
        Self { waiting: AtomicUsize::new(0), queue: Mutex::default(), limit }
    }

    #[inline(always)]
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) == 0
    }

    /// Queues an answer; `false` if the bound would be passed.
    pub(crate) fn push(&self, call: CallToken, content: Content<'_>) -> bool {
        let heap = |content: &Content<'_>| if let Content::Bytes(bytes) = content { bytes.len() } else { 0 };
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes: usize = queue.iter().map(|(_, content)| heap(content)).sum();
        if bytes + heap(&content) > self.limit || queue.len() >= MOST_SLOTS as usize {
            return false;
        }
        queue.push_back((call, content.into_owned()));
        self.waiting.store(queue.len(), Ordering::Relaxed);
        true
    }

    /// Offers each answer in turn and keeps those of which `waits` says that they have to wait.
    pub(crate) fn retain(&self, mut waits: impl FnMut(CallToken, &mut Content<'static>) -> bool) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.retain_mut(|(call, content)| waits(*call, content));
        self.waiting.store(queue.len(), Ordering::Relaxed);
    }

    /// Forgets everything: the connection has ended.
    pub(crate) fn clear(&self) {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.waiting.store(0, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parcel(bytes: &[u8]) -> Parcel<'_> {
        Parcel::message(1, bytes)
    }

    fn front<'a>(queue: &'a mut Locked<'_>) -> Option<&'a [u8]> {
        match &queue.front()?.content {
            Content::Bytes(bytes) => Some(bytes),
            Content::Staged(_) => None,
        }
    }

    #[test]
    fn frames_leave_in_the_order_they_came() {
        let backlog = Backlog::new(1 << 20);
        assert!(backlog.is_empty());
        assert!(backlog.lock().push(&mut parcel(b"ab")) && backlog.lock().push(&mut parcel(b"c")));
        let mut queue = backlog.lock();
        assert_eq!(front(&mut queue), Some(&b"ab"[..]));
        queue.pop();
        assert!(!backlog.is_empty());
        assert_eq!(front(&mut queue), Some(&b"c"[..]));
        queue.pop();
        assert!(backlog.is_empty() && queue.front().is_none());
    }

    #[test]
    fn the_bound_counts_payload_and_overhead_and_frees_them_again() {
        let backlog = Backlog::new(2 * OVERHEAD + 10);
        let mut queue = backlog.lock();
        assert!(queue.push(&mut parcel(&[0; 10])) && queue.push(&mut parcel(b"")));
        assert!(!queue.push(&mut parcel(b"")));
        queue.pop();
        assert!(queue.push(&mut parcel(&[0; 10])));
    }
}
