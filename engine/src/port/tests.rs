//! Padding, of which one look at a ring passes only a little: no poll takes it for the end of what is there.
#![allow(clippy::unwrap_used, reason = "these are tests")]

use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tempfile::TempDir;

use super::{Handler, Incoming, Port, Wakeup};
use crate::channels::Announced;
use crate::config::{Config, WaitStrategy};
use crate::error::{Disconnect, Violation};
use crate::link::{Link, Patience};

const CHANNEL: u16 = 3;
/// More than one look passes, and so many that a poll is not over by chance.
const PADDING: usize = 200;
const DEADLINE: Duration = Duration::from_secs(60);
const STRATEGIES: [WaitStrategy; 3] = [WaitStrategy::Spin, WaitStrategy::Park, WaitStrategy::Adaptive];

#[derive(Default)]
struct Heard {
    messages: Vec<Vec<u8>>,
    /// How many messages had come before each end.
    ends: Vec<usize>,
}

impl Handler for Heard {
    fn connected(&mut self, _: &Arc<Link>) {}

    fn announced(&mut self, _: &Arc<Link>, _: Announced<'_>) -> Result<(), Violation> {
        Ok(())
    }

    fn message(&mut self, message: Incoming<'_>) {
        self.messages.push(message.bytes.to_vec());
    }

    fn disconnected(&mut self, _: &Arc<Link>, _: &Disconnect) {
        self.ends.push(self.messages.len());
    }
}

/// A main that has heard of the renderer's channel, and nothing else is in the ring.
fn pair(wait: WaitStrategy) -> (TempDir, Port, Port, Arc<Link>) {
    let dir = tempfile::tempdir().unwrap();
    let config =
        || Config { runtime_dir: Some(dir.path().join("run")), ring_capacity: 32 << 10, wait, ..Config::default() };
    let main = Port::bind("app", config()).unwrap();
    let renderer = Port::connect("app", config()).unwrap();
    let link = Arc::clone(&renderer.links()[0]);
    let announced = Announced { channel: CHANNEL, name: "test", message: b"bytes", reply: b"bytes", error: b"" };
    link.announce(&announced, Patience::ByPolicy).unwrap();
    link.send(CHANNEL, b"first", Patience::ByPolicy).unwrap();
    let mut heard = Heard::default();
    let mut dispatch = main.dispatch().unwrap();
    while dispatch.poll(64, &mut heard) == 0 {
        assert_eq!(dispatch.wait(Some(Instant::now() + DEADLINE)), Wakeup::Work);
    }
    drop(dispatch);
    (dir, main, renderer, link)
}

fn send_behind_padding(link: &Link) {
    link.pad(PADDING);
    link.send(CHANNEL, b"behind", Patience::ByPolicy).unwrap();
}

#[test]
fn a_poll_goes_on_over_padding_to_the_message_behind_it() {
    let (_dir, main, _renderer, link) = pair(WaitStrategy::Park);
    send_behind_padding(&link);
    let mut heard = Heard::default();
    assert_eq!(main.dispatch().unwrap().poll(usize::MAX, &mut heard), 1);
    assert_eq!(heard.messages, [b"behind"]);
}

#[test]
fn padding_counts_against_the_budget_of_a_poll() {
    let (_dir, main, _renderer, link) = pair(WaitStrategy::Park);
    send_behind_padding(&link);
    let mut heard = Heard::default();
    let mut dispatch = main.dispatch().unwrap();
    let polls = (1..).find(|_| dispatch.poll(1, &mut heard) == 1).unwrap();
    assert!((PADDING / 8..=PADDING).contains(&polls), "{polls} polls of one frame passed {PADDING} of padding");
}

#[test]
fn nobody_sleeps_over_padding_that_is_left() {
    for wait in STRATEGIES {
        let (_dir, main, _renderer, link) = pair(wait);
        link.pad(PADDING);
        let mut heard = Heard::default();
        let mut dispatch = main.dispatch().unwrap();
        assert_eq!(dispatch.poll(1, &mut heard), 0);
        link.send(CHANNEL, b"behind", Patience::ByPolicy).unwrap();
        while heard.messages.is_empty() {
            assert_eq!(dispatch.wait(Some(Instant::now() + DEADLINE)), Wakeup::Work, "{wait:?}");
            dispatch.poll(1, &mut heard);
        }
    }
}

#[test]
fn the_descriptor_says_that_padding_is_left() {
    let (_dir, main, _renderer, link) = pair(WaitStrategy::Park);
    let descriptor = main.as_fd();
    let is_readable = || poll(&mut [PollFd::new(&descriptor, PollFlags::IN)], Some(&Timespec::default())).unwrap() == 1;
    let mut heard = Heard::default();
    link.pad(PADDING);
    let mut dispatch = main.dispatch().unwrap();
    dispatch.poll(1, &mut heard);
    assert!(is_readable());
    dispatch.poll(usize::MAX, &mut heard);
    assert!(!is_readable());
}

#[test]
fn what_a_peer_published_behind_padding_before_its_end_is_heard_first() {
    let (_dir, main, renderer, link) = pair(WaitStrategy::Park);
    send_behind_padding(&link);
    renderer.shutdown();
    let mut heard = Heard::default();
    let mut dispatch = main.dispatch().unwrap();
    let deadline = Instant::now() + DEADLINE;
    // Not a frame is taken before the end is known.
    while main.links().iter().any(|link| link.is_connected()) {
        assert!(Instant::now() < deadline, "the end is not heard of");
        thread::yield_now();
    }
    while heard.ends.is_empty() {
        assert!(Instant::now() < deadline, "the end is not told");
        dispatch.poll(1, &mut heard);
    }
    assert_eq!((heard.messages, heard.ends), (vec![b"behind".to_vec()], vec![1]));
}
