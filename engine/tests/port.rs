//! Endpoints in one process: order, waiting, many peers, the descriptor.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use common::*;
use memit_engine::{AlignedBytes, Busy, Disconnect, Patience, Port, SendError, WaitStrategy, Wakeup};

#[test]
fn messages_of_all_sizes_arrive_whole_and_in_order_by_every_strategy() {
    for wait in STRATEGIES {
        within_deadline(move || {
            let (_dir, main, renderer) = pair(wait);
            let link = link_to_main(&renderer);
            let max = link.max_inline();
            let sizes: Vec<usize> = (0..300).chain([max - 1, max]).collect();
            thread::scope(|scope| {
                scope.spawn(|| {
                    for (number, len) in (0..).zip(&sizes) {
                        link.send(CHANNEL, &numbered(number, *len), Patience::ByPolicy).unwrap();
                    }
                });
                let mut seen = Recorder::default();
                dispatch_until(&main, &mut seen, |seen| seen.messages.len() == sizes.len());
                for ((number, len), (_, bytes)) in (0..).zip(&sizes).zip(&seen.messages) {
                    assert_eq!(bytes, &numbered(number, *len));
                }
                assert_eq!(seen.announced, ["test"]);
            });
        });
    }
}

#[test]
fn a_full_ring_refuses_times_out_or_waits_as_the_sender_asks() {
    for wait in STRATEGIES {
        within_deadline(move || {
            let (_dir, main, renderer) = pair(wait);
            let link = link_to_main(&renderer);
            let mut sent = 0u32;
            while link.send(CHANNEL, &numbered(sent, 500), Patience::Now).is_ok() {
                sent += 1;
            }
            assert!(matches!(link.send(CHANNEL, &[0; 500], Patience::Now), Err(SendError::Full { len: 500 })));
            let soon = Instant::now() + Duration::from_millis(20);
            let late = link.send(CHANNEL, &[0; 500], Patience::Until(soon));
            assert_eq!(late, Err(SendError::Timeout { len: 500 }));
            assert!(Instant::now() >= soon);
            thread::scope(|scope| {
                let waiters: Vec<_> = (0..3)
                    .map(|_| scope.spawn(|| link.send(CHANNEL, &numbered(u32::MAX, 500), Patience::ByPolicy)))
                    .collect();
                let mut seen = Recorder::default();
                dispatch_until(&main, &mut seen, |seen| seen.messages.len() == sent as usize + 3);
                for waiter in waiters {
                    waiter.join().unwrap().unwrap();
                }
                for (number, (_, bytes)) in (0..sent).zip(&seen.messages) {
                    assert_eq!(bytes, &numbered(number, 500));
                }
            });
        });
    }
}

#[test]
fn main_and_renderer_live_in_one_thread() {
    within_deadline(|| {
        let (_dir, main, renderer) = pair(WaitStrategy::Adaptive);
        let link = link_to_main(&renderer);
        let back = links_to_renderers(&main, 1).remove(0);
        let (mut at_main, mut at_renderer) = (Recorder::default(), Recorder::default());
        for number in 0..1_000 {
            link.send(CHANNEL, &numbered(number, 100), Patience::Now).unwrap();
            main.dispatch().unwrap().poll(8, &mut at_main);
            back.send(CHANNEL, &numbered(number, 50), Patience::Now).unwrap();
            renderer.dispatch().unwrap().poll(8, &mut at_renderer);
        }
        assert_eq!((at_main.messages.len(), at_renderer.messages.len()), (1_000, 1_000));
    });
}

#[test]
fn one_thread_dispatches_at_a_time() {
    let (_dir, main, _renderer) = pair(WaitStrategy::Adaptive);
    let dispatch = main.dispatch().unwrap();
    assert_eq!(main.dispatch().err(), Some(Busy));
    assert!(thread::scope(|scope| scope.spawn(|| main.dispatch().is_err()).join().unwrap()));
    assert!(main.is_dispatching_here());
    drop(dispatch);
    assert!(!main.is_dispatching_here() && main.dispatch().is_ok());
}

#[test]
fn a_main_serves_many_renderers_and_forgets_those_that_leave() {
    for wait in STRATEGIES {
        within_deadline(move || {
            let dir = tempfile::tempdir().unwrap();
            let main = Port::bind("app", config(&dir, wait)).unwrap();
            let count = 9;
            let mut renderers: Vec<_> = (0..count).map(|_| Port::connect("app", config(&dir, wait)).unwrap()).collect();
            let mut seen = Recorder::default();
            dispatch_until(&main, &mut seen, |seen| seen.connected.len() == count);
            let dispatcher = {
                let main = main.clone();
                thread::spawn(move || {
                    dispatch_until(&main, &mut seen, |seen| seen.disconnected.len() == count);
                    seen
                })
            };
            let mut reply = AlignedBytes::new();
            for round in 0..20 {
                for renderer in &renderers {
                    let link = link_to_main(renderer);
                    link.send(CHANNEL, &numbered(round, 60), Patience::ByPolicy).unwrap();
                    link.call(CHANNEL, b"each", None, &mut reply).unwrap();
                }
            }
            while let Some(leaver) = renderers.pop() {
                drop(leaver);
                if let Some(next) = renderers.last() {
                    link_to_main(next).call(CHANNEL, b"still", None, &mut reply).unwrap();
                }
            }
            let seen = dispatcher.join().unwrap();
            assert_eq!(seen.messages.len(), 20 * count);
            assert!(seen.disconnected.iter().all(|(_, reason)| *reason == Disconnect::Left));
            assert!(main.links().is_empty());
        });
    }
}

#[test]
fn a_dispatching_thread_sleeps_until_its_deadline_or_until_it_is_notified() {
    for wait in STRATEGIES {
        within_deadline(move || {
            let (_dir, main, _renderer) = pair(wait);
            let _ = links_to_renderers(&main, 1);
            let mut dispatch = main.dispatch().unwrap();
            let soon = Instant::now() + Duration::from_millis(5);
            while dispatch.wait(Some(soon)) != Wakeup::TimedOut {}
            assert!(Instant::now() >= soon);
            drop(dispatch);
            thread::scope(|scope| {
                let (started, starts) = mpsc::channel();
                let main = &main;
                let waiter = scope.spawn(move || {
                    let mut dispatch = main.dispatch().unwrap();
                    started.send(()).unwrap();
                    while dispatch.wait(None) != Wakeup::ShutDown {}
                });
                starts.recv().unwrap();
                main.shutdown();
                waiter.join().unwrap();
            });
        });
    }
}

#[test]
fn a_main_whose_renderers_have_left_sleeps() {
    for wait in [WaitStrategy::Park, WaitStrategy::Adaptive] {
        within_deadline(move || {
            let dir = tempfile::tempdir().unwrap();
            let main = Port::bind("app", config(&dir, wait)).unwrap();
            let mut seen = Recorder::default();
            for left in 1..=2 {
                let renderer = Port::connect("app", config(&dir, wait)).unwrap();
                link_to_main(&renderer).send(CHANNEL, b"hello", Patience::Now).unwrap();
                drop(renderer);
                dispatch_until(&main, &mut seen, |seen| seen.disconnected.len() == left);
            }
            let mut dispatch = main.dispatch().unwrap();
            let soon = Instant::now() + Duration::from_millis(50);
            let mut woken = 0;
            while dispatch.wait(Some(soon)) != Wakeup::TimedOut {
                dispatch.poll(64, &mut seen);
                woken += 1;
            }
            assert!(woken < 50, "woken {woken} times with nothing to do");
        });
    }
}

#[test]
fn the_descriptor_is_readable_exactly_while_there_is_something_to_dispatch() {
    within_deadline(|| {
        let (_dir, main, renderer) = pair(WaitStrategy::Adaptive);
        let link = link_to_main(&renderer);
        let mut seen = Recorder::default();
        assert!(is_readable(&main, DEADLINE), "it is to be dispatched once first");
        while main.dispatch().unwrap().poll(16, &mut seen) != 0 {}
        while is_readable(&main, Duration::ZERO) {
            main.dispatch().unwrap().poll(16, &mut seen);
        }
        for round in 1..=50 {
            link.send(CHANNEL, b"one", Patience::Now).unwrap();
            link.send(CHANNEL, b"two", Patience::Now).unwrap();
            assert!(is_readable(&main, DEADLINE));
            main.dispatch().unwrap().poll(1, &mut seen);
            assert!(is_readable(&main, Duration::ZERO), "a poll that leaves a frame keeps it readable");
            while is_readable(&main, Duration::ZERO) {
                main.dispatch().unwrap().poll(16, &mut seen);
            }
            assert_eq!(seen.messages.len(), 2 * round);
        }
        drop((link, renderer));
        while seen.disconnected.is_empty() {
            assert!(is_readable(&main, DEADLINE), "an end is something to dispatch");
            main.dispatch().unwrap().poll(16, &mut seen);
        }
    });
}
