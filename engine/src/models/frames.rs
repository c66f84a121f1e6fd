//! A queue between two threads, which stands for a ring: who takes a frame sees what was written before it was sent.
//! Unlike loom's own channels it does nothing when it is dropped, so that a model may end in a deadlock.

use std::collections::VecDeque;

use loom::sync::{Condvar, Mutex};

pub(super) struct Frames<T> {
    queue: Mutex<VecDeque<T>>,
    sent: Condvar,
}

impl<T> Frames<T> {
    pub(super) fn new() -> Self {
        Self { queue: Mutex::new(VecDeque::new()), sent: Condvar::new() }
    }

    pub(super) fn send(&self, frame: T) {
        self.queue.lock().unwrap().push_back(frame);
        self.sent.notify_all();
    }

    pub(super) fn take(&self) -> T {
        let mut queue = self.queue.lock().unwrap();
        loop {
            if let Some(frame) = queue.pop_front() {
                return frame;
            }
            queue = self.sent.wait(queue).unwrap();
        }
    }
}
