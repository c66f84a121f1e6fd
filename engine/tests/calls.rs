//! Synchronous calls: answers, late ones, calls that cross.
#![allow(clippy::unwrap_used, clippy::expect_used, unsafe_code, clippy::panic)]

mod common;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use common::*;
use memit_engine::{
    AlignedBytes, Announced, CallError, CallToken, Disconnect, Handler, Incoming, Link, Patience, Port, ReplyStatus,
    SendError, Trust, Violation, WaitStrategy,
};

#[test]
fn several_threads_call_at_once_and_each_gets_its_own_answer() {
    for wait in STRATEGIES {
        within_deadline(move || {
            let (_dir, main, renderer) = pair(wait);
            let link = link_to_main(&renderer);
            let dispatcher = record(&main);
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
            assert_eq!(dispatcher.join().unwrap().calls, (threads * calls) as usize);
        });
    }
}

#[test]
fn main_calls_a_renderer() {
    within_deadline(|| {
        let (_dir, main, renderer) = pair(WaitStrategy::Adaptive);
        let links = links_to_renderers(&main, 1);
        let dispatcher = record(&renderer);
        assert_eq!(value(&links[0], b"main asks").unwrap(), b"main asks");
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
            let caller = scope.spawn(|| value(&link, b"second"));
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
fn a_reply_beyond_the_limit_fails_the_call_with_both_sizes() {
    within_deadline(|| {
        let dir = tempfile::tempdir().unwrap();
        let [main, renderer] = [1 << 30, 1 << 16].map(|message_limit| {
            let mut config = config(&dir, WaitStrategy::Adaptive);
            config.message_limit = message_limit;
            config
        });
        let main = Port::bind("app", main).unwrap();
        let renderer = Port::connect("app", renderer).unwrap();
        let link = link_to_main(&renderer);
        let dispatcher = thread::spawn(move || {
            let mut seen = Recorder {
                answer: Some(Box::new(|link, call, _| {
                    let refused = link.reply(call, ReplyStatus::Value, &vec![0; 1 << 20]).unwrap_err().to_string();
                    assert!(refused.contains("1048576") && refused.contains("65536"), "{refused}");
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
fn under_full_trust_a_listener_may_call_the_sender_whatever_the_padding() {
    within_deadline(|| {
        let dir = tempfile::tempdir().unwrap();
        let mut trusting = config(&dir, WaitStrategy::Adaptive);
        trusting.ring_capacity = 4096;
        // SAFETY: the peer is this test, which keeps the protocol.
        let full = unsafe { Trust::full() };
        trusting.trust = full;
        let main = Port::bind("app", trusting).unwrap();
        let mut small = config(&dir, WaitStrategy::Adaptive);
        small.ring_capacity = 4096;
        let renderer = Port::connect("app", small).unwrap();
        let link = link_to_main(&renderer);
        let calls = Arc::new(AtomicUsize::new(0));
        struct Calls(Arc<AtomicUsize>);
        impl Handler for Calls {
            fn connected(&mut self, link: &Arc<Link>) {
                link.announce(&ANNOUNCED, Patience::ByPolicy).unwrap();
            }
            fn announced(&mut self, _: &Arc<Link>, _: Announced<'_>) -> Result<(), Violation> {
                Ok(())
            }
            fn message(&mut self, message: Incoming<'_>) {
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

/// Calls back from within a call.
struct Nested {
    outcome: Option<Result<(), CallError>>,
}

impl Handler for Nested {
    fn connected(&mut self, _: &Arc<Link>) {}
    fn announced(&mut self, _: &Arc<Link>, _: Announced<'_>) -> Result<(), Violation> {
        Ok(())
    }
    fn message(&mut self, message: Incoming<'_>) {
        self.outcome = Some(message.link.call(CHANNEL, b"back", None, &mut AlignedBytes::new()).map(drop));
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
            assert_eq!(value(&links[0], b"there").unwrap(), b"done");
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
        let (main_is_done, renderer_is_done) = (AtomicBool::new(false), AtomicBool::new(false));
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut dispatch = renderer.dispatch().unwrap();
                for _ in 0..rounds {
                    match to_main.call(CHANNEL, b"a", None, &mut AlignedBytes::new()) {
                        Ok(_) | Err(CallError::WouldDeadlock) => {}
                        Err(other) => panic!("{other}"),
                    }
                    dispatch.poll(16, &mut Recorder::default());
                }
                renderer_is_done.store(true, Ordering::Release);
                while !main_is_done.load(Ordering::Acquire) {
                    dispatch.poll(16, &mut Recorder::default());
                    dispatch.wait(Some(Instant::now() + Duration::from_millis(1)));
                }
            });
            let mut dispatch = main.dispatch().unwrap();
            for _ in 0..rounds {
                to_renderer.call(CHANNEL, b"b", None, &mut AlignedBytes::new()).unwrap();
                dispatch.poll(16, &mut Recorder::default());
            }
            main_is_done.store(true, Ordering::Release);
            // The renderer may still be calling.
            while !renderer_is_done.load(Ordering::Acquire) {
                dispatch.poll(16, &mut Recorder::default());
                dispatch.wait(Some(Instant::now() + Duration::from_millis(1)));
            }
        });
    });
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
