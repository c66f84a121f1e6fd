//! The guard of a connection's ring: who is kept out, who waits, who is told, and what goes first.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use common::*;
use memit_engine::{
    AlignedBytes, Announced, CallError, Disconnect, Exclusive, ExclusiveError, Handler, Incoming, Link, Patience, Port,
    SendError, Violation, WaitStrategy, Wakeup,
};

/// What arrives at `port`, until there are `count`.
fn receive(port: &Port, count: usize) -> Vec<Vec<u8>> {
    let mut seen = Recorder::default();
    dispatch_until(port, &mut seen, |seen| seen.messages.len() >= count);
    seen.messages.into_iter().map(|(_, bytes)| bytes).collect()
}

/// Has a thread send `bytes` by policy, once it has found that the guard keeps it out, and returns when it has.
fn send_when_let_in<'scope>(
    scope: &'scope thread::Scope<'scope, '_>,
    link: &'scope Arc<Link>,
    bytes: &'static [u8],
) -> thread::ScopedJoinHandle<'scope, Result<(), SendError>> {
    let (kept_out, is_kept_out) = mpsc::channel();
    let sender = scope.spawn(move || {
        let refused = link.send(CHANNEL, bytes, Patience::Now);
        assert_eq!(refused, Err(SendError::Full { len: bytes.len() }));
        kept_out.send(()).unwrap();
        link.send(CHANNEL, bytes, Patience::ByPolicy)
    });
    is_kept_out.recv_timeout(DEADLINE).unwrap();
    sender
}

#[test]
fn another_thread_waits_until_the_guard_is_let_go_and_comes_behind_its_messages() {
    for wait in STRATEGIES {
        within_deadline(move || {
            let (_dir, main, renderer) = pair(wait);
            let link = link_to_main(&renderer);
            thread::scope(|scope| {
                let mut guard = link.exclusive().unwrap();
                guard.send(CHANNEL, b"first", Patience::ByPolicy).unwrap();
                let other = send_when_let_in(scope, &link, b"other");
                guard.send(CHANNEL, b"second", Patience::ByPolicy).unwrap();
                assert!(!other.is_finished());
                drop(guard);
                assert_eq!(other.join().unwrap(), Ok(()));
            });
            assert_eq!(receive(&main, 3), [&b"first"[..], b"second", b"other"]);
        });
    }
}

#[test]
fn a_second_guard_is_taken_when_the_first_is_let_go() {
    for wait in STRATEGIES {
        within_deadline(move || {
            let (_dir, main, renderer) = pair(wait);
            let link = link_to_main(&renderer);
            thread::scope(|scope| {
                let mut guard = link.exclusive().unwrap();
                let link = &link;
                let second = scope.spawn(move || link.exclusive().unwrap().send(CHANNEL, b"2", Patience::ByPolicy));
                guard.send(CHANNEL, b"1", Patience::ByPolicy).unwrap();
                drop(guard);
                assert_eq!(second.join().unwrap(), Ok(()));
            });
            assert_eq!(receive(&main, 2), [b"1", b"2"]);
        });
    }
}

#[test]
fn the_holder_is_told_at_once_that_it_would_wait_for_itself() {
    within_deadline(|| {
        let (_dir, main, renderer) = pair(WaitStrategy::Adaptive);
        let link = link_to_main(&renderer);
        let guard = link.exclusive().unwrap();
        for patience in [Patience::ByPolicy, Patience::Now, Patience::Until(Instant::now() + DEADLINE)] {
            assert_eq!(link.send(CHANNEL, b"past it", patience), Err(SendError::WouldDeadlock));
            assert_eq!(link.send(CHANNEL, &[0; 8192], patience), Err(SendError::WouldDeadlock), "large");
            assert_eq!(link.announce(&Announced { channel: 9, ..ANNOUNCED }, patience), Err(SendError::WouldDeadlock));
        }
        let loan = link.loan(8192, Patience::ByPolicy).unwrap();
        assert_eq!(link.send_loan(CHANNEL, loan, Patience::ByPolicy), Err(SendError::WouldDeadlock));
        let called = link.call(CHANNEL, b"", None, &mut AlignedBytes::new());
        assert_eq!(called, Err(CallError::WouldDeadlock));
        assert_eq!(link.exclusive().unwrap_err(), ExclusiveError::WouldDeadlock);
        drop(guard);
        link.send(CHANNEL, b"later", Patience::ByPolicy).unwrap();
        assert_eq!(receive(&main, 1), [b"later"], "nothing else was sent");
    });
}

/// Another main's renderer in the same thread has a guard of its own.
#[test]
fn the_holder_of_one_connection_sends_on_another() {
    within_deadline(|| {
        let (_one, _main, renderer) = pair(WaitStrategy::Adaptive);
        let (_two, other_main, other_renderer) = pair(WaitStrategy::Adaptive);
        let (link, other) = (link_to_main(&renderer), link_to_main(&other_renderer));
        let _guard = link.exclusive().unwrap();
        let back = links_to_renderers(&other_main, 1).remove(0);
        let _other_guard = back.exclusive().unwrap();
        other.send(CHANNEL, b"here", Patience::ByPolicy).unwrap();
        assert_eq!(receive(&other_main, 1), [b"here"]);
    });
}

#[test]
fn who_waits_for_the_guard_gives_up_at_its_deadline() {
    for wait in STRATEGIES {
        within_deadline(move || {
            let (_dir, _main, renderer) = pair(wait);
            let link = link_to_main(&renderer);
            let _guard = link.exclusive().unwrap();
            thread::scope(|scope| {
                scope.spawn(|| {
                    let soon = || Instant::now() + Duration::from_millis(20);
                    let sent = link.send(CHANNEL, b"late", Patience::Until(soon()));
                    assert_eq!(sent, Err(SendError::Timeout { len: 4 }));
                    let called = link.call(CHANNEL, b"late", Some(soon()), &mut AlignedBytes::new());
                    assert_eq!(called, Err(CallError::Timeout));
                });
            });
        });
    }
}

#[test]
fn a_call_waits_for_the_guard_and_is_answered() {
    for wait in STRATEGIES {
        within_deadline(move || {
            let (_dir, main, renderer) = pair(wait);
            let link = link_to_main(&renderer);
            let dispatcher = record(&main);
            thread::scope(|scope| {
                let mut guard = link.exclusive().unwrap();
                let link = &link;
                let caller = scope.spawn(move || value(link, b"echo"));
                for _ in 0..1000 {
                    guard.send(CHANNEL, &[0; 100], Patience::ByPolicy).unwrap();
                }
                drop(guard);
                assert_eq!(caller.join().unwrap(), Ok(b"echo".to_vec()));
            });
            main.shutdown();
            assert_eq!(dispatcher.join().unwrap().messages.len(), 1000);
        });
    }
}

/// A call that was made before the guard was taken is given up while it is held: the peer is told when it is let go.
#[test]
fn a_call_that_is_given_up_meanwhile_leaves_its_slot_usable() {
    within_deadline(|| {
        let (_dir, main, renderer) = pair(WaitStrategy::Park);
        let link = link_to_main(&renderer);
        thread::scope(|scope| {
            let link = &link;
            let caller = scope.spawn(move || {
                let soon = Instant::now() + Duration::from_millis(300);
                link.call(CHANNEL, b"", Some(soon), &mut AlignedBytes::new())
            });
            while receive_calls(&main) == 0 {
                thread::yield_now();
            }
            let mut guard = link.exclusive().unwrap();
            assert_eq!(caller.join().unwrap(), Err(CallError::Timeout));
            guard.send(CHANNEL, b"by the guard", Patience::ByPolicy).unwrap();
            drop(guard);
            let caller = scope.spawn(move || value(link, b"again"));
            let mut seen = Recorder::default();
            dispatch_until(&main, &mut seen, |seen| seen.calls == 1);
            assert_eq!(seen.messages[0].1, b"by the guard");
            assert_eq!(caller.join().unwrap(), Ok(b"again".to_vec()));
        });
    });
}

/// Calls that are there by now, which are not answered.
fn receive_calls(port: &Port) -> usize {
    let mut seen = Recorder { answer: Some(Box::new(|_, _, _| {})), ..Recorder::default() };
    port.dispatch().unwrap().poll(64, &mut seen);
    seen.calls
}

/// Sends something back for each message that it hears.
struct Answering;

impl Handler for Answering {
    fn connected(&mut self, _: &Arc<Link>) {}
    fn announced(&mut self, _: &Arc<Link>, _: Announced<'_>) -> Result<(), Violation> {
        Ok(())
    }
    fn message(&mut self, message: Incoming<'_>) {
        message.link.send(CHANNEL, b"from the dispatching thread", Patience::ByPolicy).unwrap();
        assert_eq!(message.link.exclusive().unwrap_err(), ExclusiveError::Held);
    }
    fn disconnected(&mut self, _: &Arc<Link>, _: &Disconnect) {}
}

/// Has the renderer's dispatching thread send while `hold` has the guard; what main hears until there are `count`.
fn with_a_backlog(wait: WaitStrategy, count: usize, hold: impl FnOnce(Exclusive<'_>) + Send) -> Vec<Vec<u8>> {
    let (_dir, main, renderer) = pair(wait);
    let link = link_to_main(&renderer);
    let to_renderer = links_to_renderers(&main, 1).remove(0);
    thread::scope(|scope| {
        let guard = link.exclusive().unwrap();
        to_renderer.send(CHANNEL, b"heard?", Patience::ByPolicy).unwrap();
        let (handled, is_handled) = mpsc::channel();
        let renderer = &renderer;
        scope.spawn(move || {
            let mut dispatch = renderer.dispatch().unwrap();
            while dispatch.poll(64, &mut Answering) == 0 {
                assert_ne!(dispatch.wait(Some(Instant::now() + DEADLINE)), Wakeup::TimedOut);
            }
            handled.send(()).unwrap();
            // It sleeps with its backlog, most likely, when the guard is let go.
            while dispatch.wait(None) != Wakeup::ShutDown {
                dispatch.poll(64, &mut Answering);
            }
        });
        is_handled.recv_timeout(DEADLINE).unwrap();
        hold(guard);
        let heard = receive(&main, count);
        main.shutdown();
        heard
    })
}

#[test]
fn what_the_dispatching_thread_sends_meanwhile_goes_out_when_the_guard_is_let_go() {
    for wait in STRATEGIES {
        within_deadline(move || {
            let heard = with_a_backlog(wait, 1, |guard| drop(guard));
            assert_eq!(heard, [b"from the dispatching thread"]);
        });
    }
}

#[test]
fn what_the_dispatching_thread_sends_meanwhile_goes_before_the_guards_next_message() {
    for wait in STRATEGIES {
        within_deadline(move || {
            let heard = with_a_backlog(wait, 2, |mut guard| {
                guard.send(CHANNEL, b"by the guard", Patience::Now).unwrap();
                // Held on: its message took the others along.
                std::mem::forget(guard);
            });
            assert_eq!(heard, [&b"from the dispatching thread"[..], b"by the guard"]);
        });
    }
}

/// Streams by a guard in the dispatching thread, more than the ring has room for.
struct Streaming;

impl Handler for Streaming {
    fn connected(&mut self, _: &Arc<Link>) {}
    fn announced(&mut self, _: &Arc<Link>, _: Announced<'_>) -> Result<(), Violation> {
        Ok(())
    }
    fn message(&mut self, message: Incoming<'_>) {
        let mut guard = message.link.exclusive().unwrap();
        for number in 0..500 {
            guard.send(CHANNEL, &numbered(number, 100), Patience::ByPolicy).unwrap();
        }
        assert_eq!(message.link.send(CHANNEL, b"past it", Patience::Now), Err(SendError::WouldDeadlock));
        drop(guard);
        message.link.send(CHANNEL, &numbered(500, 100), Patience::ByPolicy).unwrap();
    }
    fn disconnected(&mut self, _: &Arc<Link>, _: &Disconnect) {}
}

#[test]
fn the_dispatching_threads_guard_queues_what_has_no_space_and_keeps_the_order() {
    for wait in STRATEGIES {
        within_deadline(move || {
            let (_dir, main, renderer) = pair(wait);
            let _link = link_to_main(&renderer);
            let to_renderer = links_to_renderers(&main, 1).remove(0);
            to_renderer.send(CHANNEL, b"go", Patience::ByPolicy).unwrap();
            let mut dispatch = renderer.dispatch().unwrap();
            while dispatch.poll(64, &mut Streaming) == 0 {}
            thread::scope(|scope| {
                let dispatcher = scope.spawn(|| receive(&main, 501));
                while !dispatcher.is_finished() {
                    dispatch.wait(Some(Instant::now() + Duration::from_millis(5)));
                    dispatch.poll(64, &mut Streaming);
                }
                let expected: Vec<_> = (0..=500).map(|number| numbered(number, 100)).collect();
                assert!(dispatcher.join().unwrap() == expected);
            });
        });
    }
}

#[test]
fn messages_of_every_size_and_an_announcement_keep_their_order_in_a_guard() {
    within_deadline(|| {
        let (_dir, main, renderer) = pair(WaitStrategy::Adaptive);
        let link = Arc::clone(&renderer.links()[0]);
        let lens = [0, 48, 100, 2032, 2033, 50_000, 7, 3 << 20, 1];
        let receiver = thread::spawn(move || receive(&main, lens.len() + 1));
        let mut guard = link.exclusive().unwrap();
        guard.announce(&ANNOUNCED, Patience::ByPolicy).unwrap();
        for (number, len) in (0..).zip(lens) {
            guard.send(CHANNEL, &numbered(number, len), Patience::ByPolicy).unwrap();
        }
        let mut loan = link.loan(9000, Patience::ByPolicy).unwrap();
        loan.copy_from_slice(&numbered(99, 9000));
        guard.send_loan(CHANNEL, loan, Patience::ByPolicy).unwrap();
        let mut expected: Vec<_> = (0..).zip(lens).map(|(number, len)| numbered(number, len)).collect();
        expected.push(numbered(99, 9000));
        assert!(receiver.join().unwrap() == expected);
    });
}

#[test]
fn a_full_ring_is_full_for_the_guard_too_and_loses_nothing() {
    within_deadline(|| {
        let (_dir, main, renderer) = pair(WaitStrategy::Adaptive);
        let link = link_to_main(&renderer);
        let mut guard = link.exclusive().unwrap();
        let mut sent = 0;
        while guard.send(CHANNEL, &numbered(sent, 100), Patience::Now).is_ok() {
            sent += 1;
        }
        assert_eq!(guard.send(CHANNEL, &[0; 100], Patience::Now), Err(SendError::Full { len: 100 }));
        assert_eq!(guard.send(CHANNEL, &[0; 5000], Patience::Now), Err(SendError::Full { len: 5000 }));
        let soon = Instant::now() + Duration::from_millis(20);
        assert_eq!(guard.send(CHANNEL, &[0; 100], Patience::Until(soon)), Err(SendError::Timeout { len: 100 }));
        let count = sent as usize + 1;
        let receiver = thread::spawn(move || receive(&main, count));
        guard.send(CHANNEL, &numbered(sent, 100), Patience::ByPolicy).unwrap();
        let expected: Vec<_> = (0..=sent).map(|number| numbered(number, 100)).collect();
        assert!(receiver.join().unwrap() == expected);
    });
}

#[test]
fn the_end_of_the_connection_ends_the_guards_sends_and_every_wait_for_it() {
    for wait in STRATEGIES {
        within_deadline(move || {
            let (_dir, main, renderer) = pair(wait);
            let link = link_to_main(&renderer);
            thread::scope(|scope| {
                let mut guard = link.exclusive().unwrap();
                let sender = send_when_let_in(scope, &link, b"never");
                let (link, main) = (&link, main);
                let second = scope.spawn(move || link.exclusive().map(drop));
                let caller = scope.spawn(move || link.call(CHANNEL, b"", None, &mut AlignedBytes::new()));
                main.shutdown();
                let ended = Disconnect::Left;
                assert_eq!(sender.join().unwrap(), Err(SendError::Disconnected(ended.clone())));
                assert_eq!(second.join().unwrap(), Err(ExclusiveError::Disconnected(ended.clone())));
                assert_eq!(caller.join().unwrap(), Err(CallError::Disconnected(ended.clone())));
                let sent = guard.send(CHANNEL, b"never", Patience::ByPolicy);
                assert_eq!(sent, Err(SendError::Disconnected(ended.clone())));
                assert_eq!(link.send(CHANNEL, b"", Patience::Now), Err(SendError::Disconnected(ended)), "past it, too");
            });
        });
    }
}

#[test]
fn a_guard_that_was_leaked_keeps_the_others_out_until_the_connection_ends() {
    within_deadline(|| {
        let (_dir, main, renderer) = pair(WaitStrategy::Park);
        let link = link_to_main(&renderer);
        std::mem::forget(link.exclusive().unwrap());
        assert_eq!(link.send(CHANNEL, b"", Patience::ByPolicy), Err(SendError::WouldDeadlock));
        thread::scope(|scope| {
            let sender = send_when_let_in(scope, &link, b"never");
            main.shutdown();
            assert!(matches!(sender.join().unwrap(), Err(SendError::Disconnected(_))));
        });
    });
}

/// Bursts by guards and single messages by several threads: each thread's come in order, and no other's within a burst.
#[test]
fn bursts_of_several_threads_stay_whole() {
    const THREADS: u8 = 3;
    const BURSTS: u32 = 300;
    const BURST: u32 = 5;
    for wait in [WaitStrategy::Park, WaitStrategy::Adaptive] {
        within_deadline(move || {
            let (_dir, main, renderer) = pair(wait);
            let link = link_to_main(&renderer);
            thread::scope(|scope| {
                for thread in 0..THREADS {
                    let link = &link;
                    scope.spawn(move || {
                        let message = |number: u32, left: u32| {
                            [&[thread][..], &number.to_le_bytes(), &left.to_le_bytes()].concat()
                        };
                        for number in 0..BURSTS {
                            link.send(CHANNEL, &message(number, 0), Patience::ByPolicy).unwrap();
                            let mut guard = link.exclusive().unwrap();
                            for left in (0..BURST).rev() {
                                guard.send(CHANNEL, &message(number, left), Patience::ByPolicy).unwrap();
                            }
                        }
                    });
                }
                let heard = receive(&main, usize::from(THREADS) * (BURSTS * (BURST + 1)) as usize);
                let word = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().unwrap());
                let mut next = [0; THREADS as usize];
                let mut burst: Option<(u8, u32)> = None;
                for bytes in heard {
                    let (thread, number, left) = (bytes[0], word(&bytes[1..5]), word(&bytes[5..]));
                    if let Some((of, more)) = burst {
                        assert_eq!((thread, left), (of, more - 1), "within a burst");
                    }
                    burst = (left != 0).then_some((thread, left));
                    let step = &mut next[usize::from(thread)];
                    assert_eq!(number, *step / (BURST + 1));
                    *step += 1;
                }
            });
        });
    }
}
