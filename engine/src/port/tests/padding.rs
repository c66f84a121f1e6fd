//! Padding, of which one look at a ring passes only a little: no poll takes it for the end of what is there.

use std::os::fd::AsFd;
use std::thread;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::*;

/// More than one look passes, and so many that a poll is not over by chance.
const PADDING: usize = 200;
const STRATEGIES: [WaitStrategy; 3] = [WaitStrategy::Spin, WaitStrategy::Park, WaitStrategy::Adaptive];

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
