//! What waits for room for a payload, in whatever way there is none, goes when there is some.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use common::payload::*;
use common::*;
use memit_engine::{AlignedBytes, CallError, Link, Loan, Patience, Port, ReplyStatus, SendError, WaitStrategy};

/// Small messages until none goes any more; how many went.
fn fill_ring(link: &Link) -> usize {
    (0..).take_while(|_| link.send(CHANNEL, b"small", Patience::Now).is_ok()).count()
}

/// Reads what comes, and lets go of what it keeps when told.
fn read(port: &Port, keeper: &mut Keeper, count: usize) {
    let enough = keeper.seen + count;
    drive(port, keeper, |keeper| keeper.seen == enough);
}

#[test]
fn sealed_payloads_that_fill_the_arena_arrive_behind_a_payload_of_the_first_extent() {
    within_deadline(|| {
        let (_dir, main, renderer) = small_pair(WaitStrategy::Adaptive, false);
        let (_, to_main) = linked(&main, &renderer);
        let sealed = [1, 2].map(|_| to_main.loan(EXTENTS / 2 * EXTENT, Patience::Now).unwrap());
        assert_eq!(to_main.loan(EXTENT + 1, Patience::Now).unwrap_err(), SendError::Full { len: EXTENT + 1 });
        // There may always be one extent. It was asked for last, and comes first.
        to_main.send(CHANNEL, &content(1, EXTENT), Patience::Now).unwrap();
        for loan in sealed {
            to_main.send_loan(CHANNEL, loan, Patience::Now).unwrap();
        }
        let mut keeper = Keeper::new(usize::MAX);
        read(&main, &mut keeper, 3);
        assert_content(&keeper.kept[0], 1, EXTENT);
        assert!(to_main.is_connected());
    });
}

#[test]
fn a_payload_that_is_tried_while_the_ring_is_full_is_not_copied() {
    run_in_child("payload_room_child_process", "tried");
}

/// Started by the test above: the memory of a whole process is looked at.
#[test]
fn payload_room_child_process() {
    if role().is_none() {
        return;
    }
    within_deadline(|| {
        let (_dir, main, renderer) = small_pair(WaitStrategy::Adaptive, false);
        let (_, to_main) = linked(&main, &renderer);
        let small = fill_ring(&to_main);
        for len in [5000, EXTENT, EXTENT + 1] {
            assert_eq!(to_main.send(CHANNEL, &content(1, len), Patience::Now), Err(SendError::Full { len }));
        }
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        assert!(!maps.contains("memit-extent") && !maps.contains("memit-payload"), "{maps}");
        let mut keeper = Keeper::new(0);
        read(&main, &mut keeper, small);
        to_main.send(CHANNEL, &content(1, EXTENT), Patience::Now).unwrap();
        read(&main, &mut keeper, 1);
    });
}

/// The extents lie unused. They have to be retired before there is room, and the ring has no space to say so.
#[test]
fn a_sealed_payload_that_needs_the_room_of_unused_extents_goes_when_the_ring_has_space() {
    for wait in [WaitStrategy::Park, WaitStrategy::Adaptive] {
        within_deadline(move || {
            let (_dir, main, renderer) = small_pair(wait, false);
            let (_, to_main) = linked(&main, &renderer);
            // A sealed payload that is kept, and two extents, of which both have to go before there is room for another.
            let mut keeper = Keeper::new(1);
            to_main.send(CHANNEL, &content(0, EXTENT + 1), Patience::Now).unwrap();
            read(&main, &mut keeper, 1);
            let sealed = keeper.kept.pop_back();
            for block in [1, 2].map(|_| to_main.loan(EXTENT, Patience::Now).unwrap()) {
                to_main.send_loan(CHANNEL, block, Patience::Now).unwrap();
            }
            read(&main, &mut keeper, 2);
            keeper.kept.clear();
            let (small, len) = (fill_ring(&to_main), 2 * EXTENT);
            thread::scope(|scope| {
                let waiting = asleep(scope, || to_main.send(CHANNEL, &content(9, len), Patience::ByPolicy));
                assert!(!waiting.is_finished());
                read(&main, &mut keeper, small + 1);
                waiting.join().unwrap().unwrap();
            });
            assert_content(keeper.kept.back().unwrap(), 9, len);
            assert_content(&sealed.unwrap(), 0, EXTENT + 1);
        });
    }
}

/// The first answer waits for what the caller keeps, the second for space in the ring, of which nobody tells.
#[test]
fn answers_that_wait_for_different_room_for_their_payloads_each_go_when_there_is_theirs() {
    within_deadline(|| {
        let (_dir, main, renderer) = pair_with(WaitStrategy::Park, |config| {
            small(config);
            config.sealed_from = EXTENT / 2;
        });
        let (to_renderer, to_main) = linked(&main, &renderer);
        let mut keeper = Keeper::new(usize::MAX);
        // Three extents, of which one lies unused, and a sealed payload, beside which no other has more than the rest.
        let loan = || to_renderer.loan(EXTENT, Patience::Now).unwrap();
        for block in [loan(), loan(), loan()] {
            to_renderer.send_loan(CHANNEL, block, Patience::Now).unwrap();
        }
        read(&renderer, &mut keeper, 3);
        let _held = [loan(), loan()];
        to_renderer.send(CHANNEL, &content(9, EXTENT), Patience::Now).unwrap();
        read(&renderer, &mut keeper, 1);
        let small = fill_ring(&to_renderer);
        let (needs_two_extents, needs_one) = (EXTENT + 1, EXTENT);
        let answered = Arc::new(AtomicUsize::new(0));
        let mut seen = Recorder {
            answer: Some(Box::new({
                let answered = Arc::clone(&answered);
                move |link, call, bytes| {
                    let len = usize::from_le_bytes(bytes.try_into().unwrap());
                    assert_eq!(link.reply(call, ReplyStatus::Value, &content(len as u64, len)), Ok(()));
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            })),
            ..Recorder::default()
        };
        let ended = AtomicUsize::new(0);
        let (to_main, renderer, ended) = (&to_main, &renderer, &ended);
        thread::scope(|scope| {
            let dispatcher = scope.spawn(|| dispatch_to_the_end(&main, &mut seen));
            let call = |len: usize| {
                scope.spawn(move || {
                    let answer = value(to_main, &len.to_le_bytes());
                    ended.fetch_add(1, Ordering::Release);
                    renderer.notify();
                    answer
                })
            };
            let first = call(needs_two_extents);
            while answered.load(Ordering::Relaxed) < 1 {
                thread::yield_now();
            }
            let second = call(needs_one);
            while answered.load(Ordering::Relaxed) < 2 {
                thread::yield_now();
            }
            assert_eq!(ended.load(Ordering::Acquire), 0);
            // Nothing is given back but the unused extent.
            let enough = keeper.seen + small;
            drive(renderer, &mut keeper, |keeper| keeper.seen == enough && ended.load(Ordering::Acquire) == 1);
            assert_content(&second.join().unwrap().unwrap(), needs_one as u64, needs_one);
            assert_eq!(ended.load(Ordering::Acquire), 1);
            keeper.kept.clear();
            drive(renderer, &mut keeper, |_| ended.load(Ordering::Acquire) == 2);
            assert_content(&first.join().unwrap().unwrap(), needs_two_extents as u64, needs_two_extents);
            main.shutdown();
            dispatcher.join().unwrap();
        });
    });
}

/// The arena is full of what lies in the ring of the thread that calls.
#[test]
fn an_answer_with_a_payload_to_a_thread_that_does_not_read_meanwhile_goes_beyond_the_arena_or_fails() {
    for trusted in [false, true] {
        within_deadline(move || {
            let (_dir, main, renderer) = small_pair(WaitStrategy::Park, trusted);
            let (to_renderer, to_main) = linked(&main, &renderer);
            for seed in 0..EXTENTS as u64 {
                to_renderer.send(CHANNEL, &content(seed, EXTENT), Patience::Now).unwrap();
            }
            let server = main.clone();
            let dispatcher = thread::spawn(move || {
                let answer: Answer = Box::new(|link, call, _| {
                    let _ = link.reply(call, ReplyStatus::Value, &content(9, EXTENT));
                });
                dispatch_to_the_end(&server, &mut Recorder { answer: Some(answer), ..Recorder::default() });
            });
            let dispatch = renderer.dispatch().unwrap();
            let call = || to_main.call(CHANNEL, b"large", None, &mut AlignedBytes::new());
            let answer = call().unwrap().unwrap();
            assert_content(&answer, 9, EXTENT);
            // While this one is kept there is no second.
            let failed = call().unwrap_err();
            assert!(matches!(&failed, CallError::ReplyFailed(text) if text.contains("arena_limit")), "{failed}");
            drop(answer);
            assert_content(&call().unwrap().unwrap(), 9, EXTENT);
            drop(dispatch);
            let mut keeper = Keeper::new(0);
            read(&renderer, &mut keeper, EXTENTS);
            main.shutdown();
            dispatcher.join().unwrap();
        });
    }
}

/// The caller gives up while its ring is full, so that it cannot say so before the ring has space.
#[test]
fn a_payload_of_an_answer_comes_back_when_its_abandonment_had_to_wait_for_space() {
    // How many small frames there is space for, and one of them is the call.
    let count = {
        let (_dir, main, renderer) = small_pair(WaitStrategy::Adaptive, false);
        let (_, to_main) = linked(&main, &renderer);
        fill_ring(&to_main)
    };
    for wait in [WaitStrategy::Park, WaitStrategy::Adaptive] {
        within_deadline(move || {
            let (_dir, main, renderer) = small_pair(wait, false);
            let (to_renderer, to_main) = linked(&main, &renderer);
            for _ in 1..count {
                to_main.send(CHANNEL, b"small", Patience::Now).unwrap();
            }
            let given_up = to_main.call(CHANNEL, b"large", Some(Instant::now()), &mut AlignedBytes::new());
            assert_eq!(given_up, Err(CallError::Timeout));
            assert_eq!(fill_ring(&to_main), 0, "the abandonment found no space");
            let mut seen = Recorder {
                answer: Some(Box::new(|link, call, _| {
                    assert_eq!(link.reply(call, ReplyStatus::Value, &content(1, EXTENT)), Ok(()));
                })),
                ..Recorder::default()
            };
            drive(&main, &mut seen, |seen| seen.calls == 1);
            let lent = || {
                let loans = (0..EXTENTS).map_while(|_| to_renderer.loan(EXTENT, Patience::Now).ok());
                EXTENTS - loans.collect::<Vec<_>>().len()
            };
            assert_eq!(lent(), 1, "the answer that nobody takes");
            let done = AtomicBool::new(false);
            thread::scope(|scope| {
                let dispatcher = scope.spawn(|| {
                    let mut dispatch = renderer.dispatch().unwrap();
                    while !done.load(Ordering::Acquire) {
                        dispatch.wait(Some(Instant::now() + DEADLINE));
                        dispatch.poll(16, &mut Recorder::default());
                    }
                });
                drive(&main, &mut seen, |_| lent() == 0);
                done.store(true, Ordering::Release);
                renderer.notify();
                dispatcher.join().unwrap();
            });
        });
    }
}

/// All the memory is in loans of the thread that dispatches. What it sends before it commits them needs some of that, and
/// waits for it, or for space in the ring first.
#[test]
fn loans_that_are_committed_behind_a_queued_payload_do_not_keep_it_waiting() {
    for is_ring_full in [false, true] {
        within_deadline(move || {
            let (_dir, main, renderer) = small_pair(WaitStrategy::Park, false);
            let (_, to_main) = linked(&main, &renderer);
            let loans = filled_loans(&to_main);
            let small = if is_ring_full { fill_ring(&to_main) } else { 0 };
            let dispatch = renderer.dispatch().unwrap();
            to_main.send(CHANNEL, b"small", Patience::Now).unwrap();
            to_main.send(CHANNEL, &content(0, EXTENT), Patience::Now).unwrap();
            for loan in loans {
                to_main.send_loan(CHANNEL, loan, Patience::Now).unwrap();
            }
            drop(dispatch);
            assert_all_arrive(&main, &renderer, small + 1);
        });
    }
}

/// All the memory is in loans of another thread, which waits behind what the dispatching thread has queued.
#[test]
fn a_loan_that_another_thread_commits_does_not_keep_a_queued_payload_waiting() {
    within_deadline(|| {
        let (_dir, main, renderer) = small_pair(WaitStrategy::Park, false);
        let (_, to_main) = linked(&main, &renderer);
        let loans = filled_loans(&to_main);
        let dispatch = renderer.dispatch().unwrap();
        to_main.send(CHANNEL, &content(0, EXTENT), Patience::Now).unwrap();
        drop(dispatch);
        thread::scope(|scope| {
            let sender = scope.spawn(|| {
                for loan in loans {
                    to_main.send_loan(CHANNEL, loan, Patience::ByPolicy).unwrap();
                }
            });
            assert_all_arrive(&main, &renderer, 0);
            sender.join().unwrap();
        });
    });
}

/// A payload that has all the memory waits for space in the ring; before it has some, the dispatching thread queues
/// another, which is to go first.
#[test]
fn a_payload_that_waits_for_the_ring_does_not_keep_a_queued_one_waiting_for_its_memory() {
    within_deadline(|| {
        let (_dir, main, renderer) = small_pair(WaitStrategy::Park, false);
        let (_, to_main) = linked(&main, &renderer);
        let small = fill_ring(&to_main);
        let len = EXTENTS * EXTENT;
        thread::scope(|scope| {
            let waiting = asleep(scope, || to_main.send(CHANNEL, &content(9, len), Patience::ByPolicy));
            let dispatch = renderer.dispatch().unwrap();
            to_main.send(CHANNEL, &content(1, len), Patience::Now).unwrap();
            drop(dispatch);
            let mut keeper = Keeper::new(2);
            let dispatcher = scope.spawn(|| dispatch_to_the_end(&renderer, &mut Recorder::default()));
            read(&main, &mut keeper, small);
            for seed in [1, 9] {
                read(&main, &mut keeper, 1);
                assert_content(&keeper.kept.pop_back().unwrap(), seed, len);
            }
            waiting.join().unwrap().unwrap();
            renderer.shutdown();
            dispatcher.join().unwrap();
        });
    });
}

/// As many as there is memory for, with the contents of the seeds from 1 on.
fn filled_loans(link: &Link) -> Vec<Loan> {
    let loans: Vec<_> = (1..=EXTENTS as u64)
        .map(|seed| {
            let mut loan = link.loan(EXTENT, Patience::Now).unwrap();
            loan.copy_from_slice(&content(seed, EXTENT));
            loan
        })
        .collect();
    assert!(link.loan(EXTENT, Patience::Now).is_err());
    loans
}

/// So many small messages, a payload, and what [`filled_loans`] gave, in this order, while both sides dispatch.
fn assert_all_arrive(main: &Port, renderer: &Port, small: usize) {
    thread::scope(|scope| {
        let dispatcher = scope.spawn(|| dispatch_to_the_end(renderer, &mut Recorder::default()));
        let mut heard = Recorder::default();
        dispatch_until(main, &mut heard, |heard| heard.messages.len() > small + EXTENTS);
        for (seed, (_, bytes)) in heard.messages[small..].iter().enumerate() {
            assert_content(bytes, seed as u64, EXTENT);
        }
        renderer.shutdown();
        dispatcher.join().unwrap();
    });
}
