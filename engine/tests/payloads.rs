//! Payloads of any size: whole, in order, by every way there is.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use common::payload::*;
use common::*;
use memit_engine::{
    AlignedBytes, Announced, CallError, CallToken, Config, Disconnect, Handler, Incoming, Link, Loan, Patience, Port,
    ReplyError, ReplyStatus, SendError, Violation, WaitStrategy,
};

/// Sends, calls and answers with payloads of each length, from both ends.
fn each_size(trusted: bool, change: fn(&mut Config)) {
    let (_dir, main, renderer) = pair_with(WaitStrategy::Adaptive, |config| {
        change(config);
        if trusted {
            config.trust = full_trust();
        }
    });
    let mut settings = Config::default();
    change(&mut settings);
    let (to_renderer, to_main) = linked(&main, &renderer);
    let (main_tells, at_main) = mpsc::channel();
    let (renderer_tells, at_renderer) = mpsc::channel();
    let dispatchers = [serve(&main, Echo(main_tells)), serve(&renderer, Echo(renderer_tells))];
    let (inline, extent) = (to_main.max_inline(), settings.extent_size);
    let mut sizes = vec![0, 1, inline - 1, inline, inline + 1, 65_535, 65_536, 65_537, (256 << 10) + 3];
    sizes.extend([inline - 17, inline - 16, inline - 15, 4096 * 7, extent - 1, extent, extent + 1, extent * 3 + 5]);
    for (link, arrived) in [(to_main, at_main), (to_renderer, at_renderer)] {
        for (seed, &len) in (1..).zip(&sizes) {
            let sent = content(seed, len);
            link.send(CHANNEL, &sent, patient()).unwrap();
            assert_content(&arrived.recv_timeout(DEADLINE).unwrap(), seed, len);
            let mut reply = AlignedBytes::new();
            let kept = link.call(CHANNEL, &sent, Some(Instant::now() + DEADLINE), &mut reply).unwrap();
            let is_in_place = len > extent || len > inline && (trusted || len >= settings.sealed_from);
            assert_eq!(kept.is_some(), is_in_place, "whether an answer of {len} bytes is copied");
            assert_content(kept.as_deref().unwrap_or(&reply), seed, len);
        }
    }
    main.shutdown();
    renderer.shutdown();
    for dispatcher in dispatchers {
        dispatcher.join().unwrap();
    }
}

#[test]
fn a_payload_of_each_size_arrives_whole_through_a_small_arena() {
    for trusted in [false, true] {
        within_deadline(move || each_size(trusted, small));
        within_deadline(move || {
            each_size(trusted, |config| {
                small(config);
                config.extent_size = 256 << 10;
                config.arena_limit = 4 * config.extent_size;
            });
        });
    }
}

#[test]
fn a_payload_of_each_size_arrives_whole_with_the_default_settings() {
    for trusted in [false, true] {
        within_deadline(move || each_size(trusted, |config| config.ring_capacity = Config::default().ring_capacity));
    }
}

#[test]
fn a_payload_of_each_size_arrives_whole_where_all_are_to_be_sealed() {
    within_deadline(|| {
        each_size(false, |config| {
            small(config);
            config.sealed_from = 0;
        });
    });
}

/// Expects contents in the order of their seeds and answers calls with theirs.
struct InOrder {
    sizes: Vec<usize>,
    seen: usize,
}

impl Handler for InOrder {
    fn connected(&mut self, _: &Arc<Link>) {}
    fn announced(&mut self, _: &Arc<Link>, _: Announced<'_>) -> Result<(), Violation> {
        Ok(())
    }
    fn message(&mut self, message: Incoming<'_>) {
        assert_content(message.bytes, self.seen as u64, self.sizes[self.seen]);
        self.seen += 1;
        if let Some(call) = message.call {
            message.link.reply(call, ReplyStatus::Value, message.bytes).unwrap();
        }
    }
    fn disconnected(&mut self, _: &Arc<Link>, reason: &Disconnect) {
        panic!("{reason}");
    }
}

/// Sends and calls with payloads of random sizes; they arrive in order.
fn random_sizes(seed: u64, count: usize, trusted: bool, change: fn(&mut Config)) {
    println!("seed {seed}");
    let (_dir, main, renderer) = pair_with(WaitStrategy::Adaptive, |config| {
        change(config);
        if trusted {
            config.trust = full_trust();
        }
    });
    let (_, to_main) = linked(&main, &renderer);
    let mut numbers = Numbers(seed);
    // Small ones and large ones alike, whatever the scale.
    let sizes: Vec<_> = (0..count)
        .map(|_| {
            let scale = 1 << numbers.below(21);
            numbers.below(scale + 1)
        })
        .collect();
    let mut handler = InOrder { sizes: sizes.clone(), seen: 0 };
    thread::scope(|scope| {
        let sender = scope.spawn(|| {
            for (number, &len) in sizes.iter().enumerate() {
                let bytes = content(number as u64, len);
                if numbers.below(4) == 0 {
                    assert_content(&value(&to_main, &bytes).unwrap(), number as u64, len);
                } else {
                    to_main.send(CHANNEL, &bytes, patient()).unwrap();
                }
            }
        });
        drive(&main, &mut handler, |handler| handler.seen == count);
        sender.join().unwrap();
    });
}

#[test]
fn payloads_of_random_sizes_arrive_in_order() {
    use std::hash::{BuildHasher, RandomState};
    let seed = || RandomState::new().hash_one(0);
    for trusted in [false, true] {
        within_deadline(move || {
            random_sizes(seed(), 500, trusted, |config| config.ring_capacity = 256 << 10);
            random_sizes(seed(), 500, trusted, small);
        });
    }
}

/// Expects each sender's payloads in that sender's order: the seed is the sender's number and the payload's.
struct BySender {
    next: Vec<u64>,
}

/// What the sender sends as its payload `number`.
fn length_of(sender: u64, number: u64) -> usize {
    Numbers(sender << 32 | number).below(180_000)
}

impl Handler for BySender {
    fn connected(&mut self, _: &Arc<Link>) {}
    fn announced(&mut self, _: &Arc<Link>, _: Announced<'_>) -> Result<(), Violation> {
        Ok(())
    }
    fn message(&mut self, message: Incoming<'_>) {
        let (&sender, bytes) = message.bytes.split_last().unwrap();
        let next = &mut self.next[usize::from(sender)];
        let sender = u64::from(sender);
        assert_content(bytes, sender << 32 | *next, length_of(sender, *next));
        *next += 1;
    }
    fn disconnected(&mut self, _: &Arc<Link>, reason: &Disconnect) {
        panic!("{reason}");
    }
}

#[test]
fn payloads_of_several_threads_arrive_whole_and_in_each_threads_order() {
    for trusted in [false, true] {
        within_deadline(move || {
            let (_dir, main, renderer) = small_pair(WaitStrategy::Adaptive, trusted);
            let (_, to_main) = linked(&main, &renderer);
            let (senders, count) = (5_u8, 80);
            thread::scope(|scope| {
                for sender in 0..senders {
                    let link = &to_main;
                    scope.spawn(move || {
                        for number in 0..count {
                            let (sender, seed) = (u64::from(sender), u64::from(sender) << 32 | number);
                            let mut bytes = content(seed, length_of(sender, number));
                            bytes.push(u8::try_from(sender).unwrap());
                            if number % 3 == 0 {
                                let mut loan = link.loan(bytes.len(), patient()).unwrap();
                                loan.copy_from_slice(&bytes);
                                link.send_loan(CHANNEL, loan, patient()).unwrap();
                            } else {
                                link.send(CHANNEL, &bytes, patient()).unwrap();
                            }
                        }
                    });
                }
                let mut handler = BySender { next: vec![0; usize::from(senders)] };
                drive(&main, &mut handler, |handler| handler.next.iter().all(|&next| next == count));
            });
        });
    }
}

#[test]
fn a_payload_in_a_loan_arrives_as_message_call_and_answer() {
    for trusted in [false, true] {
        within_deadline(move || {
            let (_dir, main, renderer) = small_pair(WaitStrategy::Adaptive, trusted);
            let (_, to_main) = linked(&main, &renderer);
            let (arrived, arrives) = mpsc::channel();
            /// Answers with loans.
            struct Loans(mpsc::Sender<Vec<u8>>);
            impl Handler for Loans {
                fn connected(&mut self, _: &Arc<Link>) {}
                fn announced(&mut self, _: &Arc<Link>, _: Announced<'_>) -> Result<(), Violation> {
                    Ok(())
                }
                fn message(&mut self, message: Incoming<'_>) {
                    let Some(call) = message.call else { return self.0.send(message.bytes.to_vec()).unwrap() };
                    let mut loan = message.link.loan(message.bytes.len(), Patience::ByPolicy).unwrap();
                    loan.copy_from_slice(message.bytes);
                    message.link.reply_loan(call, loan).unwrap();
                }
                fn disconnected(&mut self, _: &Arc<Link>, _: &Disconnect) {}
            }
            let dispatcher = serve(&main, Loans(arrived));
            for (seed, len) in (1..).zip([0, 1, 15, 4096, 5000, EXTENT - 1, EXTENT, EXTENT + 1, 3 * EXTENT + 5]) {
                let loan = || {
                    let mut loan: Loan = to_main.loan(len, patient()).unwrap();
                    assert_eq!((loan.len(), loan.as_ptr().addr() % 16), (len, 0));
                    loan.copy_from_slice(&content(seed, len));
                    loan
                };
                to_main.send_loan(CHANNEL, loan(), patient()).unwrap();
                assert_content(&arrives.recv_timeout(DEADLINE).unwrap(), seed, len);
                let mut reply = AlignedBytes::new();
                let deadline = Some(Instant::now() + DEADLINE);
                let kept = to_main.call_loan(CHANNEL, loan(), deadline, &mut reply).unwrap();
                assert_content(kept.as_deref().unwrap_or(&reply), seed, len);
            }
            main.shutdown();
            dispatcher.join().unwrap();
        });
    }
}

#[test]
fn a_payload_beyond_the_limit_is_refused_in_every_way() {
    within_deadline(|| {
        let (_dir, main, renderer) = pair_with(WaitStrategy::Adaptive, |config| {
            small(config);
            config.message_limit = 100_000;
        });
        let (_, to_main) = linked(&main, &renderer);
        let (len, max) = (100_001, 100_000);
        let bytes = content(1, len);
        assert_eq!(to_main.max_message(), max);
        assert_eq!(to_main.send(CHANNEL, &bytes, Patience::Now), Err(SendError::TooLarge { len, max }));
        assert_eq!(to_main.loan(len, Patience::Now).unwrap_err(), SendError::TooLarge { len, max });
        let mut reply = AlignedBytes::new();
        assert_eq!(to_main.call(CHANNEL, &bytes, None, &mut reply), Err(CallError::TooLarge { len, max }));
        to_main.send(CHANNEL, &bytes[..max], Patience::Now).unwrap();
        let mut seen = Recorder::default();
        dispatch_until(&main, &mut seen, |seen| seen.messages.len() == 1);
        assert_content(&seen.messages[0].1, 1, max);
    });
}

#[test]
#[should_panic(expected = "a loan is sent to the peer for which it was taken")]
fn a_payload_in_another_links_loan_is_refused_loudly() {
    within_deadline(|| {
        let (_dir, _main, renderer) = small_pair(WaitStrategy::Adaptive, false);
        let (_other_dir, _other_main, other) = small_pair(WaitStrategy::Adaptive, false);
        let loan = link_to_main(&renderer).loan(5000, Patience::Now).unwrap();
        let _ = link_to_main(&other).send_loan(CHANNEL, loan, Patience::Now);
    });
}

#[test]
fn a_dropped_payload_loan_makes_room_for_who_waits() {
    for wait in [WaitStrategy::Park, WaitStrategy::Adaptive] {
        for len in [EXTENT, EXTENT + 1] {
            within_deadline(move || {
                let (_dir, main, renderer) = small_pair(wait, false);
                let (_, to_main) = linked(&main, &renderer);
                let loans = || {
                    let mut loans = Vec::new();
                    while let Ok(loan) = to_main.loan(len, Patience::Now) {
                        loans.push(loan);
                    }
                    loans
                };
                let sends = content(7, len);
                let mut all = loans();
                assert_eq!(all.len(), if len > EXTENT { EXTENTS - 1 } else { EXTENTS });
                let refused = to_main.loan(len, Patience::Until(Instant::now() + Duration::from_millis(1)));
                assert_eq!(refused.unwrap_err(), SendError::Timeout { len });
                thread::scope(|scope| {
                    let waits = asleep(scope, || to_main.loan(len, Patience::ByPolicy).unwrap().len());
                    assert!(!waits.is_finished());
                    drop(all.pop());
                    assert_eq!(waits.join().unwrap(), len);
                    // What the other thread took it has dropped.
                    let again = to_main.loan(len, Patience::Now).unwrap();
                    let waits = asleep(scope, || to_main.send(CHANNEL, &sends, Patience::ByPolicy));
                    assert!(!waits.is_finished());
                    drop(again);
                    waits.join().unwrap().unwrap();
                });
                drop(all);
                let mut seen = Recorder::default();
                dispatch_until(&main, &mut seen, |seen| seen.messages.len() == 1);
                assert_content(&seen.messages[0].1, 7, len);
                assert_eq!(loans().len(), if len > EXTENT { EXTENTS - 1 } else { EXTENTS });
            });
        }
    }
}

#[test]
fn the_dispatching_thread_never_waits_for_a_payload_loan() {
    within_deadline(|| {
        let (_dir, main, renderer) = small_pair(WaitStrategy::Adaptive, false);
        let (to_renderer, _) = linked(&main, &renderer);
        let _dispatch = main.dispatch().unwrap();
        let loans = [(); EXTENTS].map(|()| to_renderer.loan(EXTENT, Patience::ByPolicy).unwrap());
        let refused = to_renderer.loan(EXTENT, Patience::ByPolicy);
        assert_eq!(refused.unwrap_err(), SendError::Full { len: EXTENT });
        drop(loans);
        to_renderer.loan(EXTENT, Patience::ByPolicy).unwrap();
    });
}

/// Sizes that take turns between frames, blocks and sealed memory.
fn mixed(number: usize) -> usize {
    [30_000, 10, EXTENT, 1_500, EXTENT + 40_000, 2_100][number % 6]
}

#[test]
fn payloads_of_the_dispatching_thread_queue_up_and_arrive_in_order() {
    // With one peer main sleeps on a futex, with two on an epoll.
    for (wait, peers) in STRATEGIES.into_iter().flat_map(|wait| [(wait, 1), (wait, 2)]) {
        within_deadline(move || {
            let dir = tempfile::tempdir().unwrap();
            let settings = || {
                let mut config = config(&dir, wait);
                small(&mut config);
                config
            };
            let main = Port::bind("app", settings()).unwrap();
            let renderers: Vec<_> = (0..peers).map(|_| Port::connect("app", settings()).unwrap()).collect();
            let links = links_to_renderers(&main, peers);
            let listens = &renderers[0];
            let to = links.iter().find(|link| link.id() == listens.links()[0].id()).unwrap();
            let count = 60;
            let mut dispatch = main.dispatch().unwrap();
            for number in 0..count {
                to.send(CHANNEL, &content(number as u64, mixed(number)), Patience::ByPolicy).unwrap();
            }
            let done = AtomicBool::new(false);
            thread::scope(|scope| {
                let reader = scope.spawn(|| {
                    let mut seen = Recorder::default();
                    dispatch_until(listens, &mut seen, |seen| seen.messages.len() == count);
                    done.store(true, Ordering::Release);
                    main.notify();
                    seen
                });
                while !done.load(Ordering::Acquire) {
                    dispatch.wait(Some(Instant::now() + DEADLINE));
                    dispatch.poll(16, &mut Recorder::default());
                }
                for (number, (_, bytes)) in reader.join().unwrap().messages.iter().enumerate() {
                    assert_content(bytes, number as u64, mixed(number));
                }
            });
        });
    }
}

#[test]
fn queued_payloads_go_out_when_what_was_kept_or_lent_makes_room() {
    for wait in [WaitStrategy::Park, WaitStrategy::Adaptive] {
        within_deadline(move || {
            let (_dir, main, renderer) = small_pair(wait, true);
            let (to_renderer, _) = linked(&main, &renderer);
            let mut keeper = Keeper::new(usize::MAX);
            let held = to_renderer.loan(EXTENT, Patience::Now).unwrap();
            let done = AtomicBool::new(false);
            thread::scope(|scope| {
                let dispatcher = asleep(scope, || {
                    let mut dispatch = main.dispatch().unwrap();
                    for number in 0..EXTENTS as u64 + 1 {
                        to_renderer.send(CHANNEL, &content(number, EXTENT), Patience::ByPolicy).unwrap();
                    }
                    while !done.load(Ordering::Acquire) {
                        dispatch.wait(Some(Instant::now() + DEADLINE));
                        dispatch.poll(16, &mut Recorder::default());
                    }
                });
                drive(&renderer, &mut keeper, |keeper| keeper.seen == EXTENTS - 1);
                assert!(!dispatcher.is_finished());
                drop(held);
                drive(&renderer, &mut keeper, |keeper| keeper.seen == EXTENTS);
                let first = keeper.kept.pop_front();
                scope.spawn(move || drop(first));
                drive(&renderer, &mut keeper, |keeper| keeper.seen == EXTENTS + 1);
                done.store(true, Ordering::Release);
                main.notify();
                dispatcher.join().unwrap();
            });
            for (seed, kept) in (1..).zip(&keeper.kept) {
                assert_content(kept, seed, EXTENT);
            }
        });
    }
}

#[test]
fn payloads_in_the_backlog_are_bounded() {
    within_deadline(|| {
        let (_dir, main, renderer) = pair_with(WaitStrategy::Adaptive, |config| {
            small(config);
            config.backlog_limit = 3 * EXTENT + EXTENT / 2;
        });
        let (to_renderer, _) = linked(&main, &renderer);
        let dispatch = main.dispatch().unwrap();
        let mut sent = 0;
        let refused = loop {
            match to_renderer.send(CHANNEL, &content(sent, EXTENT), Patience::ByPolicy) {
                Ok(()) => sent += 1,
                Err(refused) => break refused,
            }
        };
        assert_eq!(refused, SendError::Full { len: EXTENT });
        assert_eq!(sent, EXTENTS as u64 + 3, "an arena full of them, and a backlog");
        drop(dispatch);
        let dispatcher = record(&main);
        let mut seen = Recorder::default();
        dispatch_until(&renderer, &mut seen, |seen| seen.messages.len() as u64 == sent);
        for (seed, (_, bytes)) in (0..).zip(&seen.messages) {
            assert_content(bytes, seed, EXTENT);
        }
        main.shutdown();
        dispatcher.join().unwrap();
    });
}

/// Calls that time out at once, whose payloads of `len` come too late.
fn abandoned_answers(trusted: bool, len: usize) {
    let (_dir, main, renderer) = small_pair(WaitStrategy::Adaptive, trusted);
    let (_, to_main) = linked(&main, &renderer);
    let full = Arc::new(AtomicUsize::new(0));
    let mut seen = Recorder {
        answer: Some(Box::new({
            let full = Arc::clone(&full);
            move |link: &Arc<Link>, call: CallToken, _: &[u8]| match link.reply(
                call,
                ReplyStatus::Value,
                &content(3, len),
            ) {
                Ok(()) => {}
                // What the peer was told to forget is not back yet.
                Err(ReplyError::Full { .. }) if len > EXTENT => _ = full.fetch_add(1, Ordering::Relaxed),
                Err(error) => panic!("{error}"),
            }
        })),
        ..Recorder::default()
    };
    let mut reply = AlignedBytes::new();
    let rounds = 10 * EXTENTS;
    for round in 1..=rounds {
        let timed_out = to_main.call(CHANNEL, b"large", Some(Instant::now()), &mut reply);
        assert_eq!(timed_out.unwrap_err(), CallError::Timeout);
        drive(&main, &mut seen, |seen| seen.calls == round);
        drain(&renderer, &mut Recorder::default());
    }
    assert!(full.load(Ordering::Relaxed) <= rounds / 2, "{full:?} of {rounds} found no room");
    let before = full.load(Ordering::Relaxed);
    thread::scope(|scope| {
        let dispatcher = scope.spawn(|| dispatch_to_the_end(&main, &mut seen));
        let mut failed = 0;
        for _ in 0..rounds {
            match to_main.call(CHANNEL, b"large", Some(Instant::now() + DEADLINE), &mut reply) {
                Ok(kept) => assert_content(kept.as_deref().unwrap_or(&reply), 3, len),
                Err(CallError::ReplyFailed(_)) => failed += 1,
                Err(error) => panic!("{error}"),
            }
            drain(&renderer, &mut Recorder::default());
        }
        assert!(failed <= 1, "only the first may find the last abandoned answer there: {failed} did");
        main.shutdown();
        dispatcher.join().unwrap();
    });
    assert!(full.load(Ordering::Relaxed) <= before + 1);
}

#[test]
fn payloads_of_abandoned_answers_come_back() {
    for trusted in [false, true] {
        for len in [3000, EXTENT / 2, EXTENT, EXTENT + 1, 2 * EXTENT, 20 * EXTENT] {
            within_deadline(move || abandoned_answers(trusted, len));
        }
    }
}

#[test]
fn an_answer_without_room_for_its_payload_waits_for_some() {
    within_deadline(|| {
        let (_dir, main, renderer) = small_pair(WaitStrategy::Adaptive, true);
        let (to_renderer, to_main) = linked(&main, &renderer);
        let held = [(); EXTENTS].map(|()| to_renderer.loan(EXTENT, Patience::Now).unwrap());
        let mut seen = Recorder {
            answer: Some(Box::new(|link, call, bytes| {
                assert_eq!(link.reply(call, ReplyStatus::Value, bytes), Ok(()));
            })),
            ..Recorder::default()
        };
        thread::scope(|scope| {
            let caller = scope.spawn(|| value(&to_main, &content(1, EXTENT)));
            drive(&main, &mut seen, |seen| seen.calls == 1);
            drop(held);
            while !caller.is_finished() {
                let mut dispatch = main.dispatch().unwrap();
                dispatch.poll(64, &mut seen);
                dispatch.wait(Some(Instant::now() + Duration::from_millis(10)));
            }
            assert_content(&caller.join().unwrap().unwrap(), 1, EXTENT);
        });
    });
}

#[test]
fn an_answer_beyond_what_may_wait_for_room_for_its_payload_fails_the_call() {
    within_deadline(|| {
        let dir = tempfile::tempdir().unwrap();
        let [main, renderer] = [(); 2].map(|()| {
            let mut config = config(&dir, WaitStrategy::Adaptive);
            (config.extent_size, config.arena_limit, config.backlog_limit) = (EXTENT, EXTENT, EXTENT - 1);
            config
        });
        let main = Port::bind("app", main).unwrap();
        let renderer = Port::connect("app", renderer).unwrap();
        let (to_renderer, to_main) = linked(&main, &renderer);
        let held = to_renderer.loan(EXTENT, Patience::Now).unwrap();
        let mut seen = Recorder {
            answer: Some(Box::new(|link, call, _| {
                let refused = link.reply(call, ReplyStatus::Value, &content(1, EXTENT));
                assert_eq!(refused, Err(ReplyError::Full { len: EXTENT }));
            })),
            ..Recorder::default()
        };
        thread::scope(|scope| {
            let caller = scope.spawn(|| to_main.call(CHANNEL, &content(1, 100), None, &mut AlignedBytes::new()));
            drive(&main, &mut seen, |seen| seen.calls == 1);
            let failed = caller.join().unwrap().unwrap_err();
            assert!(matches!(&failed, CallError::ReplyFailed(text) if text.contains("arena_limit")), "{failed}");
        });
        drop(held);
    });
}
