//! The end of a connection, which two threads find at once.

use loom::thread;

use super::explore::explore;
use crate::end::End;
use crate::sync::{Arc, AtomicU64, Ordering};

const LEFT: u32 = 1;
const DIED: u32 = 2;

#[test]
fn whoever_ends_a_connection_finds_it_ended_for_the_one_reason() {
    explore(None, || {
        let end = Arc::new(End::new());
        let other = Arc::clone(&end);
        let died = thread::spawn(move || (other.end(DIED), other.reason()));
        let (left_first, seen) = (end.end(LEFT), end.reason());
        let (died_first, also_seen) = died.join().unwrap();
        assert!(left_first != died_first);
        let reason = if left_first { LEFT } else { DIED };
        assert_eq!((seen, also_seen), (Some(reason), Some(reason)));
    });
}

#[test]
fn whoever_sees_the_end_sees_the_reason_and_what_came_before() {
    explore(None, || {
        let (end, before) = (Arc::new(End::new()), Arc::new(AtomicU64::new(0)));
        let (other, done) = (Arc::clone(&end), Arc::clone(&before));
        let died = thread::spawn(move || {
            done.store(1, Ordering::Relaxed);
            other.end(DIED);
        });
        if end.is_over() {
            assert_eq!(end.reason(), Some(DIED));
            assert_eq!(before.load(Ordering::Relaxed), 1);
        }
        died.join().unwrap();
    });
}
