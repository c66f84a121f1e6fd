//! Frames that the dispatching thread sent while the ring was full.
//!
//! The thread that dispatches must not wait for space: the peer may be waiting for it. So its frames queue up here,
//! in order and bounded in bytes, and go out as space appears.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use memit_ringbuf::Header;

/// A frame that waits for space.
#[derive(Debug)]
pub(crate) struct Queued {
    pub(crate) header: Header,
    pub(crate) bytes: Box<[u8]>,
}

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
    frames: VecDeque<Queued>,
    bytes: usize,
}

/// What each queued frame counts beyond its payload, so that empty ones are bounded too.
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
        // SYNC backlog-drained: acquire pairs with `Locked::pop`, so that a thread that sees the queue empty claims
        // behind the frames that left it.
        self.frames.load(Ordering::Acquire) == 0
    }

    pub(crate) fn lock(&self) -> Locked<'_> {
        Locked { backlog: self, queue: self.queue.lock().unwrap_or_else(PoisonError::into_inner) }
    }
}

impl Locked<'_> {
    pub(crate) fn front(&self) -> Option<&Queued> {
        self.queue.frames.front()
    }

    /// Drops the front frame, which is in the ring now.
    pub(crate) fn pop(&mut self) {
        if let Some(gone) = self.queue.frames.pop_front() {
            self.queue.bytes -= gone.bytes.len() + OVERHEAD;
            // SYNC backlog-drained: release pairs with `Backlog::is_empty`.
            self.backlog.frames.store(self.queue.frames.len(), Ordering::Release);
        }
    }

    /// Queues a frame made of two parts; `false` if the backlog's bound would be passed.
    pub(crate) fn push(&mut self, header: Header, prefix: &[u8], payload: &[u8]) -> bool {
        let cost = prefix.len() + payload.len() + OVERHEAD;
        if self.queue.bytes + cost > self.backlog.limit {
            return false;
        }
        let mut bytes = Vec::with_capacity(prefix.len() + payload.len());
        bytes.extend_from_slice(prefix);
        bytes.extend_from_slice(payload);
        self.queue.bytes += cost;
        self.queue.frames.push_back(Queued { header, bytes: bytes.into_boxed_slice() });
        self.backlog.frames.store(self.queue.frames.len(), Ordering::Release);
        true
    }

    /// Forgets everything: the connection has ended.
    pub(crate) fn clear(&mut self) {
        *self.queue = Queue::default();
        self.backlog.frames.store(0, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: Header = Header { channel: 1, kind: 1, flags: 0 };

    #[test]
    fn frames_leave_in_the_order_they_came() {
        let backlog = Backlog::new(1 << 20);
        assert!(backlog.is_empty());
        assert!(backlog.lock().push(HEADER, b"a", b"b") && backlog.lock().push(HEADER, b"", b"c"));
        let mut queue = backlog.lock();
        assert_eq!(&*queue.front().unwrap().bytes, b"ab");
        queue.pop();
        assert!(!backlog.is_empty());
        assert_eq!(&*queue.front().unwrap().bytes, b"c");
        queue.pop();
        assert!(backlog.is_empty() && queue.front().is_none());
    }

    #[test]
    fn the_bound_counts_payload_and_overhead_and_frees_them_again() {
        let backlog = Backlog::new(2 * OVERHEAD + 10);
        let mut queue = backlog.lock();
        assert!(queue.push(HEADER, b"", &[0; 10]) && queue.push(HEADER, b"", b""));
        assert!(!queue.push(HEADER, b"", b""));
        queue.pop();
        assert!(queue.push(HEADER, b"", &[0; 10]));
    }
}
