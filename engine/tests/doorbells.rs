//! Doorbells at full speed: threads of one process, on ports that are connected as those of two processes would be, sleep
//! and wake each other as often as they can, for data, for space and for replies. A wake-up that is lost shows as a hang.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread;

use common::exchange::{Serve, call_often, count_at_peer, send_numbers};
use common::payload::serve;
use common::*;
use memit_engine::{Busy, Config, Link, Port, WaitStrategy};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Threads that send, and threads that call, on each link.
const SENDERS: u32 = 2;
const MESSAGES: u32 = 3_000;
const CALLS: u32 = 600;
/// Eight of these fill a ring.
const LENGTHS: [usize; 3] = [8, 400, 480];

/// With the smallest ring. Those that park sleep with fences, the others with membarrier.
fn tight(dir: &tempfile::TempDir, wait: WaitStrategy) -> Config {
    let mut config = config(dir, wait);
    config.ring_capacity = 4096;
    config
}

/// A main and renderers, and the links from each side to the other.
fn connected(dir: &tempfile::TempDir, wait: WaitStrategy, renderers: usize) -> (Port, Vec<Port>, Vec<Arc<Link>>) {
    let main = Port::bind("app", tight(dir, wait)).unwrap();
    let ports: Vec<_> = (0..renderers).map(|_| Port::connect("app", tight(dir, wait)).unwrap()).collect();
    let mut links = links_to_renderers(&main, renderers);
    links.extend(ports.iter().map(link_to_main));
    (main, ports, links)
}

/// Messages and calls over all links at once, and a look at whether all came.
fn traffic(links: &[Arc<Link>]) {
    thread::scope(|scope| {
        for link in links {
            for sender in 0..SENDERS {
                scope.spawn(move || send_numbers(link, sender, 0..MESSAGES, &LENGTHS));
                scope.spawn(move || call_often(link, CALLS, &LENGTHS));
            }
        }
    });
    for link in links {
        assert_eq!(count_at_peer(link), SENDERS * MESSAGES);
    }
}

/// Both sides sleep on futexes if there is one renderer, and main on descriptors if there are more.
fn no_wake_up_is_lost(wait: WaitStrategy, renderers: usize) {
    within_deadline(move || {
        let dir = tempfile::tempdir().unwrap();
        let (main, ports, links) = connected(&dir, wait, renderers);
        let serving: Vec<_> = ports.iter().chain([&main]).map(|port| serve(port, Serve::default())).collect();
        traffic(&links);
        main.shutdown();
        serving.into_iter().for_each(|serving| serving.join().unwrap());
    });
}

#[test]
fn no_wake_up_is_lost_on_futexes_with_fences() {
    no_wake_up_is_lost(WaitStrategy::Park, 1);
}

#[test]
fn no_wake_up_is_lost_on_futexes_with_membarrier() {
    no_wake_up_is_lost(WaitStrategy::Adaptive, 1);
}

#[test]
fn no_wake_up_is_lost_on_descriptors_with_fences() {
    no_wake_up_is_lost(WaitStrategy::Park, 3);
}

#[test]
fn no_wake_up_is_lost_on_descriptors_with_membarrier() {
    no_wake_up_is_lost(WaitStrategy::Adaptive, 3);
}

/// Dispatches whenever the port's descriptor is readable, and only then, until the port is shut down.
fn serve_when_readable(port: &Port) {
    let mut served = Serve::default();
    while !port.is_shut_down() {
        let descriptor = port.as_fd();
        let patience = Timespec::try_from(DEADLINE).unwrap();
        let ready = poll(&mut [PollFd::new(&descriptor, PollFlags::IN)], Some(&patience)).unwrap();
        assert_eq!(ready, 1, "the descriptor is not readable, and not all has come");
        match port.dispatch() {
            Ok(mut dispatch) => {
                dispatch.poll(64, &mut served);
            }
            Err(Busy) => assert!(port.is_shut_down(), "nobody else dispatches"),
        }
    }
}

#[test]
fn no_wake_up_is_lost_by_those_who_poll_the_descriptor() {
    for wait in [WaitStrategy::Park, WaitStrategy::Adaptive] {
        within_deadline(move || {
            let dir = tempfile::tempdir().unwrap();
            let (main, ports, links) = connected(&dir, wait, 1);
            let serving = serve(&ports[0], Serve::default());
            thread::scope(|scope| {
                let polling = scope.spawn(|| serve_when_readable(&main));
                traffic(&links);
                main.shutdown();
                polling.join().unwrap();
            });
            serving.join().unwrap();
        });
    }
}
