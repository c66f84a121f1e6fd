//! The memory of large payloads: kept, given back, retired, refused, and never more than was agreed.
//!
//! The tests count what the process has mapped, so they run one at a time.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use common::payload::*;
use common::*;
use memit_engine::{
    AlignedBytes, CallError, Disconnect, Kept, Loan, Patience, Port, ReplyError, ReplyStatus, SendError, WaitStrategy,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

static ALONE: Mutex<()> = Mutex::new(());

/// As `within_deadline`, with nothing else of this binary running.
fn alone(test: impl FnOnce() + Send + 'static) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    within_deadline(test);
}

/// What is mapped of a kind of memory, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mapped {
    /// By who writes it.
    writable: usize,
    /// By who reads it.
    readable: usize,
}

const NOTHING: Mapped = Mapped { writable: 0, readable: 0 };

fn mapped(name: &str) -> Mapped {
    let mut found = NOTHING;
    for line in std::fs::read_to_string("/proc/self/maps").unwrap().lines().filter(|line| line.contains(name)) {
        let (range, rest) = line.split_once(' ').unwrap();
        let (from, to) = range.split_once('-').unwrap();
        let len = usize::from_str_radix(to, 16).unwrap() - usize::from_str_radix(from, 16).unwrap();
        let side = if rest.starts_with("rw") { &mut found.writable } else { &mut found.readable };
        *side += len;
    }
    found
}

const EXTENTS_NAME: &str = "memit-extent";
const SEALED_NAME: &str = "memit-payload";

/// Something is kept until the arena is full; who waits for room goes on as soon as one is dropped, by another thread,
/// while nobody dispatches.
fn keeps_all(wait: WaitStrategy, trusted: bool, len: usize, fit: usize) {
    let (_dir, main, renderer) = small_pair(wait, trusted);
    let (_, to_main) = linked(&main, &renderer);
    let mut keeper = Keeper::new(usize::MAX);
    for seed in 0..fit as u64 {
        to_main.send(CHANNEL, &content(seed, len), Patience::Now).unwrap();
    }
    drive(&main, &mut keeper, |keeper| keeper.seen == fit);
    let late = content(9, len);
    assert_eq!(to_main.send(CHANNEL, &late, Patience::Now), Err(SendError::Full { len }));
    assert_eq!(to_main.loan(len, Patience::Now).unwrap_err(), SendError::Full { len });
    let soon = Patience::Until(Instant::now() + Duration::from_millis(2));
    assert_eq!(to_main.send(CHANNEL, &late, soon), Err(SendError::Timeout { len }));
    let soon = Some(Instant::now() + Duration::from_millis(2));
    let timed_out = to_main.call(CHANNEL, &late, soon, &mut AlignedBytes::new());
    assert_eq!(timed_out, Err(CallError::Timeout));
    to_main.send(CHANNEL, b"small", Patience::Now).unwrap();
    let before = keeper.seen + 1;
    drive(&main, &mut keeper, |keeper| keeper.seen == before);
    drop(keeper.kept.pop_back());
    for round in 0..6 {
        thread::scope(|scope| {
            let (late, to_main) = (&late, &to_main);
            let waiting: Vec<_> = (0..=round % 2)
                .map(|_| asleep(scope, move || to_main.send(CHANNEL, late, Patience::ByPolicy).unwrap()))
                .collect();
            assert!(waiting.iter().all(|waiting| !waiting.is_finished()));
            for waiting in waiting {
                let oldest: Kept = keeper.kept.pop_front().unwrap();
                let another = oldest.clone();
                drop(oldest);
                scope.spawn(move || drop(another));
                // Whichever of them goes on: the room is for one.
                let _ = waiting;
            }
        });
        let more = keeper.seen + 1 + round % 2;
        drive(&main, &mut keeper, |keeper| keeper.seen == more);
    }
    assert!(keeper.kept.iter().all(|kept| kept.len() == len));
    keeper.kept.iter().rev().take(6).for_each(|kept| assert_content(kept, 9, len));
}

#[test]
fn a_receiver_that_keeps_payloads_stops_the_sender_until_it_drops_one() {
    for wait in [WaitStrategy::Park, WaitStrategy::Adaptive] {
        alone(move || keeps_all(wait, true, EXTENT, EXTENTS));
        for trusted in [false, true] {
            // Sealed memory of their own: two fit, and a third has no room.
            alone(move || keeps_all(wait, trusted, EXTENT + EXTENT / 2, 2));
        }
    }
}

#[test]
fn a_payload_larger_than_the_arena_goes_alone() {
    for trusted in [false, true] {
        alone(move || {
            let (_dir, main, renderer) = small_pair(WaitStrategy::Adaptive, trusted);
            let (_, to_main) = linked(&main, &renderer);
            let len = 3 * EXTENTS * EXTENT;
            let mut keeper = Keeper::new(usize::MAX);
            for seed in 1..6 {
                to_main.send(CHANNEL, &content(seed, len), Patience::Now).unwrap();
                drive(&main, &mut keeper, |keeper| keeper.seen as u64 == seed);
                for len in [EXTENT + 1, len] {
                    let refused = to_main.send(CHANNEL, &content(seed, len), Patience::Now);
                    assert_eq!(
                        refused,
                        Err(SendError::Full { len }),
                        "nothing that has memory of its own goes beside it"
                    );
                }
                assert_content(&keeper.kept.pop_front().unwrap(), seed, len);
            }
            // A block does: there is always one extent.
            to_main.send(CHANNEL, &content(6, len), Patience::Now).unwrap();
            drive(&main, &mut keeper, |keeper| keeper.seen == 6);
            to_main.send(CHANNEL, &content(7, EXTENT), Patience::Now).unwrap();
            drive(&main, &mut keeper, |keeper| keeper.seen == 7);
            assert_content(&keeper.kept[0], 6, len);
            assert_content(&keeper.kept[1], 7, EXTENT);
        });
    }
}

#[test]
fn kept_payloads_outlive_handler_sender_and_port() {
    for trusted in [false, true] {
        alone(move || {
            let (_dir, main, renderer) = small_pair(WaitStrategy::Adaptive, trusted);
            let (_, to_main) = linked(&main, &renderer);
            let sizes = [0, 1, 700, to_main.max_inline(), 3000, EXTENT, EXTENT + 1];
            let mut keeper = Keeper::new(usize::MAX);
            for (seed, &len) in (1..).zip(&sizes) {
                to_main.send(CHANNEL, &content(seed, len), Patience::Now).unwrap();
            }
            drive(&main, &mut keeper, |keeper| keeper.seen == sizes.len());
            let is_whole = |kept: &[Kept]| {
                for ((seed, &len), kept) in (1..).zip(&sizes).zip(kept) {
                    assert_eq!(kept.as_ptr().addr() % 16, 0, "a kept payload is aligned");
                    assert_content(kept, seed, len);
                }
            };
            let mut kept: Vec<_> = keeper.kept.drain(..).collect();
            let clones = kept.clone();
            // More than ring and arena hold.
            let mut passing = Keeper::new(0);
            for seed in 100..400 {
                let len = if seed % 5 == 0 { 20_000 } else { 1000 };
                to_main.send(CHANNEL, &content(seed, len), patient()).unwrap();
                drain(&main, &mut passing);
            }
            drive(&main, &mut passing, |passing| passing.seen == 300);
            is_whole(&kept);
            kept.truncate(5);
            is_whole(&clones);
            renderer.shutdown();
            drop((renderer, to_main));
            drain(&main, &mut Recorder::default());
            is_whole(&clones);
            drop((main, kept));
            is_whole(&clones);
            thread::scope(|scope| {
                let is_whole = &is_whole;
                for _ in 0..3 {
                    let clones = clones.clone();
                    scope.spawn(move || is_whole(&clones));
                }
            });
            drop(clones);
            assert_eq!((mapped(EXTENTS_NAME), mapped(SEALED_NAME)), (NOTHING, NOTHING));
        });
    }
}

#[test]
fn kept_payloads_of_calls_answers_and_loans_outlive_the_connection() {
    alone(|| {
        let (_dir, main, renderer) = small_pair(WaitStrategy::Adaptive, true);
        let (to_renderer, to_main) = linked(&main, &renderer);
        let mut answers = Vec::new();
        let dispatcher = record(&main);
        for (seed, len) in [(1, 5000), (2, EXTENT + 1)] {
            let answer = to_main.call(CHANNEL, &content(seed, len), None, &mut AlignedBytes::new()).unwrap().unwrap();
            answers.push((seed, len, answer));
        }
        let mut loans: Vec<Loan> = [5000, EXTENT + 1].map(|len| to_main.loan(len, Patience::Now).unwrap()).into();
        main.shutdown();
        dispatcher.join().unwrap();
        drive(&renderer, &mut Recorder::default(), |_| !to_main.is_connected());
        drop((main, to_renderer));
        for (seed, len, answer) in &answers {
            assert_content(answer, *seed, *len);
        }
        let sent = to_main.send_loan(CHANNEL, loans.pop().unwrap(), Patience::ByPolicy);
        assert!(matches!(sent, Err(SendError::Disconnected(_))), "{sent:?}");
        assert!(matches!(to_main.loan(5000, Patience::ByPolicy), Err(SendError::Disconnected(_))));
        loans[0].fill(3);
        drop((renderer, to_main));
        assert_eq!(loans[0][4999], 3);
        drop((loans, answers));
        assert_eq!((mapped(EXTENTS_NAME), mapped(SEALED_NAME)), (NOTHING, NOTHING));
    });
}

/// Dispatches both ends until the mappings of extents are as `done` wants them.
fn settle(main: &Port, renderer: &Port, done: impl Fn(Mapped) -> bool) {
    let deadline = Instant::now() + DEADLINE / 2;
    let mut ports = [(main, Recorder::default()), (renderer, Recorder::default())];
    loop {
        for (port, recorder) in &mut ports {
            let mut dispatch = port.dispatch().unwrap();
            dispatch.wait(Some(Instant::now() + Duration::from_millis(1)));
            while dispatch.poll(64, recorder) != 0 {}
        }
        let now = mapped(EXTENTS_NAME);
        if done(now) {
            return;
        }
        assert!(Instant::now() < deadline, "the mappings stay as they are: {now:?}");
    }
}

#[test]
fn an_unused_payload_extent_is_unmapped_at_both_ends_and_the_next_payload_has_a_new_one() {
    for trusted in [false, true] {
        alone(move || {
            let (_dir, main, renderer) = pair_with(WaitStrategy::Park, |config| {
                small(config);
                config.arena_idle = Duration::from_millis(3);
                if trusted {
                    config.trust = full_trust();
                }
            });
            let (_, to_main) = linked(&main, &renderer);
            for round in 0..3 {
                let mut keeper = Keeper::new(usize::MAX);
                for seed in 0..EXTENTS as u64 {
                    to_main.send(CHANNEL, &content(round * 10 + seed, EXTENT), patient()).unwrap();
                }
                drive(&main, &mut keeper, |keeper| keeper.seen == EXTENTS);
                for (seed, kept) in (0..).zip(&keeper.kept) {
                    assert_content(kept, round * 10 + seed, EXTENT);
                }
                assert!(mapped(EXTENTS_NAME).writable > 0);
                drop(keeper);
                settle(&main, &renderer, |now| now == NOTHING);
            }
        });
    }
}

#[test]
fn an_extent_of_which_a_payload_is_kept_stays() {
    alone(|| {
        let (_dir, main, renderer) = pair_with(WaitStrategy::Park, |config| {
            small(config);
            config.arena_idle = Duration::from_millis(2);
            config.trust = full_trust();
        });
        let (_, to_main) = linked(&main, &renderer);
        let mut keeper = Keeper::new(usize::MAX);
        for seed in 0..EXTENTS as u64 {
            to_main.send(CHANNEL, &content(seed, EXTENT), patient()).unwrap();
        }
        drive(&main, &mut keeper, |keeper| keeper.seen == EXTENTS);
        keeper.kept.truncate(1);
        let one = Mapped { writable: EXTENT, readable: EXTENT };
        settle(&main, &renderer, |now| now == one);
        // Many periods later as well.
        let later = Instant::now() + Duration::from_millis(20);
        settle(&main, &renderer, |now| {
            assert_eq!(now, one);
            Instant::now() >= later
        });
        assert_content(&keeper.kept[0], 0, EXTENT);
        to_main.send(CHANNEL, &content(9, EXTENT), patient()).unwrap();
        let mut last = Keeper::new(usize::MAX);
        drive(&main, &mut last, |last| last.seen == 1);
        assert_content(&last.kept[0], 9, EXTENT);
        drop((keeper, last));
        settle(&main, &renderer, |now| now == NOTHING);
    });
}

#[test]
fn payloads_never_take_more_memory_than_agreed() {
    for trusted in [false, true] {
        alone(move || {
            let (extent, limit, len) = (4 << 20, 16 << 20, 1 << 20);
            let (_dir, main, renderer) = pair_with(WaitStrategy::Adaptive, |config| {
                config.ring_capacity = 64 << 10;
                config.extent_size = extent;
                config.arena_limit = limit;
                if trusted {
                    config.trust = full_trust();
                }
            });
            let (_, to_main) = linked(&main, &renderer);
            let count = 1000;
            let bytes = content(5, len);
            let mut most = NOTHING;
            thread::scope(|scope| {
                let sender = scope.spawn(|| {
                    for number in 0..count {
                        // Now and then one that has memory of its own.
                        let len = if number % 50 == 49 { extent + 1 } else { len };
                        if len == bytes.len() {
                            to_main.send(CHANNEL, &bytes, patient()).unwrap();
                        } else {
                            to_main.send(CHANNEL, &content(6, len), patient()).unwrap();
                        }
                    }
                });
                let mut keeper = Keeper::new(4);
                drive(&main, &mut keeper, |keeper| {
                    if keeper.seen % 16 == 0 {
                        let (extents, sealed) = (mapped(EXTENTS_NAME), mapped(SEALED_NAME));
                        let now = Mapped { writable: extents.writable, readable: extents.readable + sealed.readable };
                        // Pages are whole, and one sealed memory may stand alone.
                        assert!(extents.writable <= limit && extents.readable <= limit, "{extents:?}");
                        assert!(now.readable <= limit + 2 * extent, "{now:?}");
                        most.writable = most.writable.max(now.writable);
                        most.readable = most.readable.max(now.readable);
                    }
                    keeper.seen == count
                });
                sender.join().unwrap();
            });
            assert!(most.writable >= extent && most.readable >= extent, "something was looked at: {most:?}");
        });
    }
}

/// What the tests start as a child; nothing by itself.
#[test]
fn payload_child_process() {
    let Some(role) = role() else { return };
    within_deadline(move || match role.as_str() {
        "file-size" => refused_memory(Resource::Fsize, EXTENT as u64 / 2),
        "descriptors" => refused_memory(Resource::Nofile, 0),
        "extent-not-received" => not_received(EXTENT, Resource::Nofile),
        "sealed-not-received" => not_received(EXTENT + 1, Resource::Nofile),
        "answer-not-received" => answer_not_received(),
        "extent-not-mapped" => not_received(16 << 20, Resource::As),
        unknown => panic!("unknown role {unknown}"),
    });
}

/// Lowers a limit of this process while `f` runs.
fn limited<T>(resource: Resource, current: u64, f: impl FnOnce() -> T) -> T {
    let Rlimit { current: before, maximum } = getrlimit(resource);
    setrlimit(resource, Rlimit { current: Some(current), maximum }).unwrap();
    let outcome = f();
    setrlimit(resource, Rlimit { current: before, maximum }).unwrap();
    outcome
}

/// There is no memory for payloads while the limit holds, and all is as before once it is lifted.
fn refused_memory(resource: Resource, limit: u64) {
    let (_dir, main, renderer) = small_pair(WaitStrategy::Adaptive, false);
    let (to_renderer, to_main) = linked(&main, &renderer);
    let refused = |error: SendError| assert!(matches!(error, SendError::NoMemory(_)), "{error}");
    for round in 0..3 {
        limited(resource, limit, || {
            for len in [EXTENT, EXTENT + 1, 10 * EXTENT] {
                let bytes = content(1, len);
                // The first extent is there from the second round on.
                if len > EXTENT || round == 0 {
                    refused(to_main.send(CHANNEL, &bytes, Patience::ByPolicy).unwrap_err());
                    refused(to_main.loan(len, Patience::ByPolicy).unwrap_err());
                    let refused = to_main.call(CHANNEL, &bytes, None, &mut AlignedBytes::new());
                    assert!(matches!(refused, Err(CallError::NoMemory(_))), "{refused:?}");
                }
            }
            to_main.send(CHANNEL, b"small", Patience::Now).unwrap();
        });
        let mut seen = Recorder::default();
        dispatch_until(&main, &mut seen, |seen| seen.messages.len() == 1);
        assert_eq!(seen.messages[0].1, b"small");
        for (seed, len) in [(1, EXTENT), (2, EXTENT + 1), (3, 10 * EXTENT)] {
            to_main.send(CHANNEL, &content(seed, len), Patience::Now).unwrap();
            let mut seen = Recorder::default();
            dispatch_until(&main, &mut seen, |seen| seen.messages.len() == 1);
            assert_content(&seen.messages[0].1, seed, len);
        }
    }
    // An answer as well: the caller is told.
    let mut seen = Recorder {
        answer: Some(Box::new(move |link, call, _| {
            let outcome = limited(resource, limit, || link.reply(call, ReplyStatus::Value, &content(1, EXTENT + 1)));
            assert!(matches!(outcome, Err(ReplyError::NoMemory(_))), "{outcome:?}");
        })),
        ..Recorder::default()
    };
    thread::scope(|scope| {
        let caller = scope.spawn(|| value(&to_main, b"large"));
        drive(&main, &mut seen, |seen| seen.calls == 1);
        let failed = caller.join().unwrap();
        assert!(matches!(failed, Err(CallError::ReplyFailed(_))), "{failed:?}");
    });
    assert!(to_main.is_connected() && to_renderer.is_connected());
}

#[test]
fn payloads_without_memory_fail_at_once_and_the_connection_goes_on() {
    for role in ["file-size", "descriptors"] {
        run_in_child("payload_child_process", role);
    }
}

/// The address space that this process takes, in bytes.
fn address_space() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').next().unwrap().parse::<u64>().unwrap() * rustix::param::page_size() as u64
}

/// A payload comes that the receiver has no descriptor for, or no address space.
fn not_received(len: usize, resource: Resource) {
    let (_dir, main, renderer) = pair_with(WaitStrategy::Park, |config| {
        small(config);
        config.extent_size = len.min(16 << 20).next_multiple_of(EXTENT);
        if resource == Resource::Nofile {
            config.extent_size = EXTENT;
        }
        config.arena_limit = 4 * config.extent_size;
    });
    let (_, to_main) = linked(&main, &renderer);
    let mut loan = to_main.loan(len, Patience::Now).unwrap();
    loan.copy_from_slice(&content(1, len));
    let limit = if resource == Resource::Nofile { 0 } else { address_space() + (8 << 20) };
    let mut seen = Recorder::default();
    limited(resource, limit, || {
        to_main.send_loan(CHANNEL, loan, Patience::Now).unwrap();
        dispatch_until(&main, &mut seen, |seen| !seen.disconnected.is_empty());
    });
    assert!(matches!(&seen.disconnected[0].1, Disconnect::NoResources(_)), "{:?}", seen.disconnected);
    assert!(seen.messages.is_empty());
    let mut other = Recorder::default();
    dispatch_until(&renderer, &mut other, |seen| !seen.disconnected.is_empty());
    let sent = to_main.send(CHANNEL, &content(2, len), Patience::ByPolicy);
    assert!(matches!(sent, Err(SendError::Disconnected(_))), "{sent:?}");
}

/// The caller cannot receive the answer's descriptor, and does not wait for it.
fn answer_not_received() {
    let (_dir, main, renderer) = small_pair(WaitStrategy::Park, false);
    let (to_renderer, to_main) = linked(&main, &renderer);
    let mut loan = Some(to_renderer.loan(EXTENT + 1, Patience::Now).unwrap());
    let Rlimit { current: before, maximum } = getrlimit(Resource::Nofile);
    let mut seen = Recorder {
        answer: Some(Box::new(move |link, call, _| {
            // Until the process ends: the caller is another thread.
            let mut loan = loan.take().unwrap();
            // Sealing looks whether that works here, with memory of its own, which was done by the loan.
            loan.fill(1);
            setrlimit(Resource::Nofile, Rlimit { current: Some(0), maximum }).unwrap();
            link.reply_loan(call, loan).unwrap();
        })),
        ..Recorder::default()
    };
    thread::scope(|scope| {
        let caller = scope.spawn(|| value(&to_main, b"large"));
        drive(&main, &mut seen, |seen| seen.calls == 1);
        let failed = caller.join().unwrap();
        assert!(matches!(failed, Err(CallError::Disconnected(Disconnect::NoResources(_)))), "{failed:?}");
    });
    setrlimit(Resource::Nofile, Rlimit { current: before, maximum }).unwrap();
    dispatch_until(&main, &mut seen, |seen| !seen.disconnected.is_empty());
}

#[test]
fn a_payload_that_cannot_be_received_ends_the_connection() {
    for role in ["extent-not-received", "sealed-not-received", "answer-not-received", "extent-not-mapped"] {
        run_in_child("payload_child_process", role);
    }
}
