//! Endpoints in one process: order, waiting, calls, ends.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use common::*;
use memit_engine::{
    AlignedBytes, Announced, Busy, CallError, CallToken, Disconnect, Link, Patience, Port, ReplyStatus, SendError,
    WaitStrategy, Wakeup,
};
use rustix::event::{PollFd, PollFlags, poll};

const STRATEGIES: [WaitStrategy; 3] = [WaitStrategy::Spin, WaitStrategy::Park, WaitStrategy::Adaptive];

fn numbered(number: u32, len: usize) -> Vec<u8> {
    number.to_le_bytes().iter().copied().cycle().take(len).collect()
}

#[test]
fn messages_of_all_sizes_arrive_whole_and_in_order_by_every_strategy() {
    for wait in STRATEGIES {
        within_deadline(move || {
            let (_dir, main, renderer) = pair(wait);
            let link = link_to_main(&renderer);
            let max = link.max_payload();
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
fn a_message_that_no_frame_holds_is_refused_with_both_sizes() {
    let (_dir, _main, renderer) = pair(WaitStrategy::Adaptive);
    let link = link_to_main(&renderer);
    let max = link.max_payload();
    let refused = link.send(CHANNEL, &vec![0; max + 1], Patience::Now);
    assert_eq!(refused, Err(SendError::TooLarge { len: max + 1, max }));
    assert_eq!(link.send(CHANNEL, &vec![0; max], Patience::Now), Ok(()));
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
fn several_threads_call_at_once_and_each_gets_its_own_answer() {
    for wait in STRATEGIES {
        within_deadline(move || {
            let (_dir, main, renderer) = pair(wait);
            let link = link_to_main(&renderer);
            let answering = main.clone();
            let dispatcher = thread::spawn(move || {
                let mut seen = Recorder::default();
                dispatch_to_the_end(&answering, &mut seen);
                seen.calls
            });
            // With spinning, more threads than cores only pass the time to each other.
            let (threads, calls) = if wait == WaitStrategy::Spin { (2, 200) } else { (12, 200) };
            thread::scope(|scope| {
                for thread in 0..threads {
                    let link = &link;
                    scope.spawn(move || {
                        let mut reply = AlignedBytes::new();
                        for call in 0..calls {
                            let bytes = numbered(thread * 1_000 + call, 40);
                            link.call(CHANNEL, &bytes, None, &mut reply).unwrap();
                            assert_eq!(reply.as_slice(), bytes);
                        }
                    });
                }
            });
            main.shutdown();
            assert_eq!(dispatcher.join().unwrap(), (threads * calls) as usize);
        });
    }
}

#[test]
fn main_calls_a_renderer() {
    within_deadline(|| {
        let (_dir, main, renderer) = pair(WaitStrategy::Adaptive);
        let links = links_to_renderers(&main, 1);
        let dispatcher = thread::spawn(move || dispatch_to_the_end(&renderer, &mut Recorder::default()));
        let mut reply = AlignedBytes::new();
        links[0].call(CHANNEL, b"main asks", None, &mut reply).unwrap();
        assert_eq!(reply.as_slice(), b"main asks");
        main.shutdown();
        dispatcher.join().unwrap();
    });
}

#[test]
fn a_call_that_nobody_answers_times_out_and_its_late_answer_is_dropped() {
    within_deadline(|| {
        let (_dir, main, renderer) = pair(WaitStrategy::Park);
        let link = link_to_main(&renderer);
        let mut reply = AlignedBytes::new();
        let soon = Instant::now() + Duration::from_millis(5);
        assert_eq!(link.call(CHANNEL, b"first", Some(soon), &mut reply), Err(CallError::Timeout));

        let (kept, tokens) = mpsc::channel::<(Arc<Link>, CallToken)>();
        let mut seen = Recorder {
            answer: Some(Box::new(move |link, call, _| kept.send((Arc::clone(link), call)).unwrap())),
            ..Recorder::default()
        };
        thread::scope(|scope| {
            let caller = scope.spawn(|| {
                let mut reply = AlignedBytes::new();
                link.call(CHANNEL, b"second", None, &mut reply).map(|()| reply.as_slice().to_vec())
            });
            dispatch_until(&main, &mut seen, |seen| seen.calls == 2);
            let (to, late) = tokens.recv().unwrap();
            let (_, current) = tokens.recv().unwrap();
            // Both calls went through the same slot: only the second owns it now.
            assert!(to.reply(late, ReplyStatus::Value, b"late").is_err());
            to.reply(current, ReplyStatus::Value, b"in time").unwrap();
            assert_eq!(caller.join().unwrap().unwrap(), b"in time");
            assert!(to.reply(current, ReplyStatus::Value, b"again").is_err());
        });
    });
}

#[test]
fn a_reply_that_no_slot_holds_fails_the_call_with_both_sizes() {
    within_deadline(|| {
        let (_dir, main, renderer) = pair(WaitStrategy::Adaptive);
        let link = link_to_main(&renderer);
        let dispatcher = thread::spawn(move || {
            let mut seen = Recorder {
                answer: Some(Box::new(|link, call, _| {
                    let refused = link.reply(call, ReplyStatus::Value, &vec![0; 1 << 20]).unwrap_err().to_string();
                    assert!(refused.contains("1048576"), "{refused}");
                })),
                ..Recorder::default()
            };
            dispatch_until(&main, &mut seen, |seen| seen.calls == 1);
        });
        let failed = link.call(CHANNEL, b"", None, &mut AlignedBytes::new());
        assert!(matches!(&failed, Err(CallError::ReplyFailed(text)) if text.contains("1048576")), "{failed:?}");
        dispatcher.join().unwrap();
    });
}

#[test]
fn the_dispatching_thread_never_waits_and_its_frames_keep_their_order() {
    within_deadline(|| {
        let (_dir, main, renderer) = pair(WaitStrategy::Adaptive);
        let link = link_to_main(&renderer);
        let links = links_to_renderers(&main, 1);
        let count = 200u32;
        // One message makes main's listener send far more than a ring holds, while the renderer reads nothing.
        link.send(CHANNEL, b"go", Patience::ByPolicy).unwrap();
        let to = Arc::clone(&links[0]);
        let mut talker = Talker { to, count, sent: 0 };
        let mut dispatch = main.dispatch().unwrap();
        while talker.sent == 0 {
            dispatch.poll(1, &mut talker);
        }
        assert_eq!(talker.sent, count);
        thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut seen = Recorder::default();
                dispatch_until(&renderer, &mut seen, |seen| seen.messages.len() == count as usize);
                seen
            });
            while !reader.is_finished() {
                dispatch.wait(Some(Instant::now() + Duration::from_millis(1)));
                dispatch.poll(16, &mut talker);
            }
            for (number, (_, bytes)) in (0..count).zip(&reader.join().unwrap().messages) {
                assert_eq!(bytes, &numbered(number, 700));
            }
        });
    });
}

struct Talker {
    to: Arc<Link>,
    count: u32,
    sent: u32,
}

impl memit_engine::Handler for Talker {
    fn connected(&mut self, _: &Arc<Link>) {}
    fn announced(&mut self, _: &Arc<Link>, _: Announced<'_>) -> Result<(), memit_engine::Violation> {
        Ok(())
    }
    fn message(&mut self, _: memit_engine::Incoming<'_>) {
        for number in 0..self.count {
            self.to.send(CHANNEL, &numbered(number, 700), Patience::ByPolicy).unwrap();
            self.sent += 1;
        }
    }
    fn disconnected(&mut self, _: &Arc<Link>, _: &Disconnect) {}
}

#[test]
fn the_dispatching_thread_announces_while_another_waits_to() {
    within_deadline(|| {
        let (_dir, main, renderer) = pair(WaitStrategy::Park);
        let link = links_to_renderers(&main, 1).remove(0);
        while link.send(CHANNEL, &[0; 500], Patience::Now).is_ok() {}
        let schema = vec![b'x'; 5_000];
        let first = Announced { channel: 10, name: "first", message: &schema, ..ANNOUNCED };
        let second = Announced { channel: 11, name: "second", ..ANNOUNCED };
        thread::scope(|scope| {
            let waiting = scope.spawn(|| link.announce(&first, Patience::ByPolicy));
            let dispatch = main.dispatch().unwrap();
            link.announce(&second, Patience::ByPolicy).unwrap();
            link.send(11, b"from the dispatching thread", Patience::ByPolicy).unwrap();
            drop(dispatch);
            let mut seen = Recorder::default();
            let reader = scope.spawn(move || {
                dispatch_until(&renderer, &mut seen, |seen| seen.announced.len() == 3);
                seen
            });
            let mut nothing = Recorder::default();
            while !reader.is_finished() {
                let mut dispatch = main.dispatch().unwrap();
                dispatch.wait(Some(Instant::now() + Duration::from_millis(1)));
                dispatch.poll(16, &mut nothing);
            }
            waiting.join().unwrap().unwrap();
            assert!(reader.join().unwrap().disconnected.is_empty());
        });
    });
}

/// Sends `count` messages to `to` when it is called with `go`.
struct Relay {
    to: u64,
    count: u32,
    links: Vec<Arc<Link>>,
}

impl memit_engine::Handler for Relay {
    fn connected(&mut self, _: &Arc<Link>) {}
    fn announced(&mut self, _: &Arc<Link>, _: Announced<'_>) -> Result<(), memit_engine::Violation> {
        Ok(())
    }
    fn message(&mut self, message: memit_engine::Incoming<'_>) {
        let to = self.links.iter().find(|link| link.id() == self.to).unwrap();
        if message.bytes == b"go" {
            for number in 0..self.count {
                to.send(CHANNEL, &numbered(number, 500), Patience::ByPolicy).unwrap();
            }
        }
        message.link.reply(message.call.unwrap(), ReplyStatus::Value, b"").unwrap();
    }
    fn disconnected(&mut self, _: &Arc<Link>, _: &Disconnect) {}
}

#[test]
fn the_backlog_of_a_peer_that_was_silent_for_long_goes_out_as_it_reads() {
    for wait in STRATEGIES {
        within_deadline(move || {
            let dir = tempfile::tempdir().unwrap();
            let main = Port::bind("app", config(&dir, wait)).unwrap();
            let talks = Port::connect("app", config(&dir, wait)).unwrap();
            let listens = Port::connect("app", config(&dir, wait)).unwrap();
            let count = 200;
            let to = listens.links()[0].id();
            let link = link_to_main(&talks);
            let links = links_to_renderers(&main, 2);
            let dispatcher = {
                let main = main.clone();
                thread::spawn(move || {
                    let mut relay = Relay { to, count, links };
                    let mut dispatch = main.dispatch().unwrap();
                    while dispatch.wait(None) != Wakeup::ShutDown {
                        dispatch.poll(64, &mut relay);
                    }
                })
            };
            // Meanwhile main has slept, and looks at the silent one no more until it rings.
            for asked in [b""; 50].iter().map(|nothing| &nothing[..]).chain([&b"go"[..]]) {
                link.call(CHANNEL, asked, None, &mut AlignedBytes::new()).unwrap();
            }
            let mut seen = Recorder::default();
            dispatch_until(&listens, &mut seen, |seen| seen.messages.len() == count as usize);
            main.shutdown();
            dispatcher.join().unwrap();
        });
    }
}

#[test]
fn under_full_trust_a_listener_may_call_the_sender_whatever_the_padding() {
    within_deadline(|| {
        let dir = tempfile::tempdir().unwrap();
        let mut trusting = config(&dir, WaitStrategy::Adaptive);
        trusting.ring_capacity = 4096;
        #[allow(unsafe_code)]
        // SAFETY: the peer is this test, which keeps the protocol.
        let full = unsafe { memit_engine::Trust::full() };
        trusting.trust = full;
        let main = Port::bind("app", trusting).unwrap();
        let mut small = config(&dir, WaitStrategy::Adaptive);
        small.ring_capacity = 4096;
        let renderer = Port::connect("app", small).unwrap();
        let link = link_to_main(&renderer);
        let calls = Arc::new(AtomicUsize::new(0));
        struct Calls(Arc<AtomicUsize>);
        impl memit_engine::Handler for Calls {
            fn connected(&mut self, link: &Arc<Link>) {
                link.announce(&ANNOUNCED, Patience::ByPolicy).unwrap();
            }
            fn announced(&mut self, _: &Arc<Link>, _: Announced<'_>) -> Result<(), memit_engine::Violation> {
                Ok(())
            }
            fn message(&mut self, message: memit_engine::Incoming<'_>) {
                if self.0.fetch_add(1, Ordering::Relaxed).is_multiple_of(3) {
                    message.link.call(CHANNEL, b"back", None, &mut AlignedBytes::new()).unwrap();
                }
            }
            fn disconnected(&mut self, _: &Arc<Link>, reason: &Disconnect) {
                panic!("{reason}");
            }
        }
        let count = 10_000_u32;
        thread::scope(|scope| {
            scope.spawn(|| dispatch_to_the_end(&renderer, &mut Recorder::default()));
            scope.spawn(|| {
                for number in 0..count {
                    let len = number.wrapping_mul(2_654_435_761) as usize % 490;
                    link.send(CHANNEL, &numbered(number, len), Patience::ByPolicy).unwrap();
                }
            });
            let mut dispatch = main.dispatch().unwrap();
            let mut handler = Calls(Arc::clone(&calls));
            loop {
                dispatch.poll(16, &mut handler);
                if calls.load(Ordering::Relaxed) == count as usize {
                    break;
                }
                dispatch.wait(None);
            }
            main.shutdown();
        });
    });
}

#[test]
fn a_handler_that_panics_at_an_arrival_or_an_end_loses_nobody_elses() {
    /// Panics at its first arrival and at its first end.
    #[derive(Default)]
    struct Panics {
        connected: usize,
        disconnected: usize,
    }
    impl memit_engine::Handler for Panics {
        fn connected(&mut self, _: &Arc<Link>) {
            self.connected += 1;
            assert_ne!(self.connected, 1, "as asked");
        }
        fn announced(&mut self, _: &Arc<Link>, _: Announced<'_>) -> Result<(), memit_engine::Violation> {
            Ok(())
        }
        fn message(&mut self, _: memit_engine::Incoming<'_>) {}
        fn disconnected(&mut self, _: &Arc<Link>, _: &Disconnect) {
            self.disconnected += 1;
            assert_ne!(self.disconnected, 1, "as asked");
        }
    }
    within_deadline(|| {
        let dir = tempfile::tempdir().unwrap();
        let main = Port::bind("app", config(&dir, WaitStrategy::Park)).unwrap();
        let renderers = [0; 3].map(|_| Port::connect("app", config(&dir, WaitStrategy::Park)).unwrap());
        // The library's thread has taken in all three when it has served one that came later.
        let later = Port::bind("later", config(&dir, WaitStrategy::Park)).unwrap();
        drop(Port::connect("later", config(&dir, WaitStrategy::Park)).unwrap());
        drop(later);
        let mut handler = Panics::default();
        let turn = |handler: &mut Panics| {
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                let mut dispatch = main.dispatch().unwrap();
                dispatch.wait(None);
                dispatch.poll(16, handler);
            }));
            outcome.is_err()
        };
        let mut panics = 0;
        while handler.connected < 3 {
            panics += usize::from(turn(&mut handler));
        }
        drop(renderers);
        while handler.disconnected < 3 {
            panics += usize::from(turn(&mut handler));
        }
        assert_eq!(panics, 2);
    });
}

#[test]
fn the_backlog_is_bounded() {
    within_deadline(|| {
        let dir = tempfile::tempdir().unwrap();
        let mut small = config(&dir, WaitStrategy::Adaptive);
        small.backlog_limit = 10_000;
        let main = Port::bind("app", small).unwrap();
        let renderer = Port::connect("app", config(&dir, WaitStrategy::Adaptive)).unwrap();
        let links = links_to_renderers(&main, 1);
        let _dispatch = main.dispatch().unwrap();
        let mut sent = 0;
        let refused = loop {
            match links[0].send(CHANNEL, &[1; 1000], Patience::ByPolicy) {
                Ok(()) => sent += 1,
                Err(refused) => break refused,
            }
        };
        assert_eq!(refused, SendError::Full { len: 1000 });
        assert!((16..40).contains(&sent), "{sent}");
        drop(renderer);
    });
}

/// Calls back from within a call.
struct Nested {
    outcome: Option<Result<(), CallError>>,
}

impl memit_engine::Handler for Nested {
    fn connected(&mut self, _: &Arc<Link>) {}
    fn announced(&mut self, _: &Arc<Link>, _: Announced<'_>) -> Result<(), memit_engine::Violation> {
        Ok(())
    }
    fn message(&mut self, message: memit_engine::Incoming<'_>) {
        self.outcome = Some(message.link.call(CHANNEL, b"back", None, &mut AlignedBytes::new()));
        if let Some(call) = message.call {
            message.link.reply(call, ReplyStatus::Value, b"done").unwrap();
        }
    }
    fn disconnected(&mut self, _: &Arc<Link>, _: &Disconnect) {}
}

#[test]
fn of_two_calls_that_cross_the_renderers_ends_and_mains_is_answered() {
    for wait in STRATEGIES {
        within_deadline(move || {
            let (_dir, main, renderer) = pair(wait);
            let _ = link_to_main(&renderer);
            let links = links_to_renderers(&main, 1);
            let dispatcher = thread::spawn(move || {
                let mut nested = Nested { outcome: None };
                let mut dispatch = renderer.dispatch().unwrap();
                loop {
                    dispatch.poll(1, &mut nested);
                    if nested.outcome.is_some() {
                        return nested.outcome;
                    }
                    dispatch.wait(None);
                }
            });
            // Main waits as a dispatching thread, so that the renderer's call back closes a cycle.
            let _dispatch = main.dispatch().unwrap();
            let mut reply = AlignedBytes::new();
            links[0].call(CHANNEL, b"there", None, &mut reply).unwrap();
            assert_eq!(reply.as_slice(), b"done");
            assert_eq!(dispatcher.join().unwrap(), Some(Err(CallError::WouldDeadlock)));
        });
    }
}

#[test]
fn calls_that_cross_at_any_moment_never_hang() {
    within_deadline(|| {
        let (_dir, main, renderer) = pair(WaitStrategy::Park);
        let to_main = link_to_main(&renderer);
        let to_renderer = links_to_renderers(&main, 1).remove(0);
        let rounds = 2_000;
        let yielded = AtomicUsize::new(0);
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut dispatch = renderer.dispatch().unwrap();
                for _ in 0..rounds {
                    match to_main.call(CHANNEL, b"a", None, &mut AlignedBytes::new()) {
                        Ok(()) => {}
                        Err(CallError::WouldDeadlock) => {
                            yielded.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(other) => panic!("{other}"),
                    }
                    dispatch.poll(16, &mut Recorder::default());
                }
                while !over.load(Ordering::Acquire) {
                    dispatch.poll(16, &mut Recorder::default());
                    dispatch.wait(Some(Instant::now() + Duration::from_millis(1)));
                }
            });
            let mut dispatch = main.dispatch().unwrap();
            for _ in 0..rounds {
                to_renderer.call(CHANNEL, b"b", None, &mut AlignedBytes::new()).unwrap();
                dispatch.poll(16, &mut Recorder::default());
            }
            over.store(true, Ordering::Release);
            // The renderer may still be calling.
            let deadline = Instant::now() + Duration::from_secs(5);
            while Instant::now() < deadline && !thread_is_done(&to_main, &mut dispatch) {}
            main.shutdown();
        });
    });
}

/// Dispatches once more; whether the renderer has ended.
fn thread_is_done(link: &Arc<Link>, dispatch: &mut memit_engine::Dispatch<'_>) -> bool {
    dispatch.poll(16, &mut Recorder::default());
    dispatch.wait(Some(Instant::now() + Duration::from_millis(1)));
    !link.is_connected() || Arc::strong_count(link) == 1
}

#[test]
fn a_thread_that_dispatches_the_peer_is_told_at_once() {
    within_deadline(|| {
        let (_dir, main, renderer) = pair(WaitStrategy::Adaptive);
        let link = link_to_main(&renderer);
        let _dispatch = main.dispatch().unwrap();
        let called = link.call(CHANNEL, b"", None, &mut AlignedBytes::new());
        assert_eq!(called, Err(CallError::WouldDeadlock));
        while link.send(CHANNEL, &[0; 500], Patience::Now).is_ok() {}
        assert_eq!(link.send(CHANNEL, &[0; 500], Patience::ByPolicy), Err(SendError::WouldDeadlock));
    });
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
fn the_end_of_the_peer_ends_every_wait() {
    for wait in STRATEGIES {
        within_deadline(move || {
            let (_dir, main, renderer) = pair(wait);
            let link = link_to_main(&renderer);
            while link.send(CHANNEL, &[0; 500], Patience::Now).is_ok() {}
            thread::scope(|scope| {
                let (ready, readies) = mpsc::channel();
                let (ready_too, link) = (ready.clone(), &link);
                let sender = scope.spawn(move || {
                    ready.send(()).unwrap();
                    link.send(CHANNEL, &[0; 500], Patience::ByPolicy)
                });
                let caller = scope.spawn(move || {
                    ready_too.send(()).unwrap();
                    link.call(CHANNEL, b"", None, &mut AlignedBytes::new())
                });
                let dispatcher = scope.spawn(|| dispatch_to_the_end(&renderer, &mut Recorder::default()));
                readies.recv().unwrap();
                readies.recv().unwrap();
                main.shutdown();
                assert_eq!(sender.join().unwrap(), Err(SendError::Disconnected(Disconnect::Left)));
                assert_eq!(caller.join().unwrap(), Err(CallError::Disconnected(Disconnect::Left)));
                dispatcher.join().unwrap();
            });
        });
    }
}

#[test]
fn what_was_published_before_the_end_is_still_delivered() {
    within_deadline(|| {
        let (_dir, main, renderer) = pair(WaitStrategy::Adaptive);
        let link = link_to_main(&renderer);
        for number in 0..10 {
            link.send(CHANNEL, &numbered(number, 40), Patience::Now).unwrap();
        }
        drop((link, renderer));
        let mut seen = Recorder::default();
        dispatch_until(&main, &mut seen, |seen| !seen.disconnected.is_empty());
        assert_eq!(seen.messages.len(), 10);
        assert_eq!(seen.disconnected[0].1, Disconnect::Left);
    });
}

#[test]
fn a_message_on_a_channel_that_was_not_announced_ends_the_connection() {
    within_deadline(|| {
        let (_dir, main, renderer) = pair(WaitStrategy::Adaptive);
        renderer.links()[0].send(77, b"", Patience::Now).unwrap();
        let mut seen = Recorder::default();
        dispatch_until(&main, &mut seen, |seen| !seen.disconnected.is_empty());
        assert!(matches!(&seen.disconnected[0].1, Disconnect::Violation(why) if why.contains("77")));
        assert!(seen.messages.is_empty());
    });
}

#[test]
fn a_listener_that_panics_leaves_the_port_sound() {
    struct Panics(usize);
    impl memit_engine::Handler for Panics {
        fn connected(&mut self, _: &Arc<Link>) {}
        fn announced(&mut self, _: &Arc<Link>, _: Announced<'_>) -> Result<(), memit_engine::Violation> {
            Ok(())
        }
        fn message(&mut self, message: memit_engine::Incoming<'_>) {
            self.0 += 1;
            assert_ne!(message.bytes, b"panic", "as asked");
        }
        fn disconnected(&mut self, _: &Arc<Link>, _: &Disconnect) {}
    }
    within_deadline(|| {
        let (_dir, main, renderer) = pair(WaitStrategy::Adaptive);
        let link = link_to_main(&renderer);
        for bytes in [&b"panic"[..], b"next"] {
            link.send(CHANNEL, bytes, Patience::Now).unwrap();
        }
        let mut handler = Panics(0);
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let mut dispatch = main.dispatch().unwrap();
            while handler.0 == 0 {
                dispatch.poll(16, &mut handler);
            }
        }));
        assert!(outcome.is_err());
        let mut dispatch = main.dispatch().unwrap();
        while handler.0 < 2 {
            dispatch.poll(16, &mut handler);
        }
        assert_eq!(handler.0, 2, "the frame that panicked is not delivered again");
    });
}

#[test]
fn the_descriptor_stays_readable_when_a_handler_panics_over_what_it_announced() {
    struct Panics(usize);
    impl memit_engine::Handler for Panics {
        fn connected(&mut self, _: &Arc<Link>) {}
        fn announced(&mut self, _: &Arc<Link>, _: Announced<'_>) -> Result<(), memit_engine::Violation> {
            Ok(())
        }
        fn message(&mut self, _: memit_engine::Incoming<'_>) {
            self.0 += 1;
            assert_ne!(self.0, 1, "as asked");
        }
        fn disconnected(&mut self, _: &Arc<Link>, _: &Disconnect) {}
    }
    within_deadline(|| {
        let (_dir, main, renderer) = pair(WaitStrategy::Adaptive);
        let link = link_to_main(&renderer);
        while is_readable(&main, Duration::ZERO) {
            main.dispatch().unwrap().poll(16, &mut Recorder::default());
        }
        for _ in 0..3 {
            link.send(CHANNEL, b"", Patience::Now).unwrap();
        }
        let mut handler = Panics(0);
        while handler.0 < 3 {
            assert!(is_readable(&main, DEADLINE), "{} of 3 were handled", handler.0);
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                main.dispatch().unwrap().poll(16, &mut handler);
            }));
        }
    });
}

fn is_readable(port: &Port, timeout: Duration) -> bool {
    let descriptor = port.as_fd();
    let mut polled = [PollFd::new(&descriptor, PollFlags::IN)];
    let timeout = rustix::event::Timespec::try_from(timeout).unwrap();
    poll(&mut polled, Some(&timeout)).unwrap() == 1
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
