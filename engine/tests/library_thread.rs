//! What the library's own thread costs. Alone in this file: the thread serves the whole process.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::fs;
use std::sync::mpsc;
use std::time::Duration;

use common::{config, link_to_main, within_deadline};
use memit_engine::{Port, WaitStrategy};

/// What the library's thread has run so far.
fn ran() -> Duration {
    let threads = fs::read_dir("/proc/self/task").unwrap().flatten();
    let library = threads
        .map(|thread| thread.path())
        .find(|thread| fs::read_to_string(thread.join("comm")).is_ok_and(|name| name.trim() == "memit"));
    let schedule = fs::read_to_string(library.expect("the library's thread").join("schedstat")).unwrap();
    Duration::from_nanos(schedule.split(' ').next().unwrap().parse().unwrap())
}

#[test]
fn it_sleeps_though_nobody_dispatches_the_end_of_a_peer() {
    within_deadline(|| {
        let dir = tempfile::tempdir().unwrap();
        let main = Port::bind("app", config(&dir, WaitStrategy::Park)).unwrap();
        let renderer = Port::connect("app", config(&dir, WaitStrategy::Park)).unwrap();
        let link = link_to_main(&renderer);
        let staying = Port::connect("app", config(&dir, WaitStrategy::Park)).unwrap();
        drop(renderer);
        assert!(!link.is_connected());
        // A while of the wall clock is what is measured.
        let (_never, nothing) = mpsc::channel::<()>();
        let _ = nothing.recv_timeout(Duration::from_millis(50));
        let before = ran();
        let _ = nothing.recv_timeout(Duration::from_millis(200));
        let spent = ran() - before;
        assert!(spent < Duration::from_millis(20), "it ran for {spent:?} of 200 ms");
        drop((main, staying));
    });
}
