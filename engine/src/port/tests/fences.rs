//! Who sleeps often asks its wakers for fences, and who does not asks them no longer.

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use super::*;
use crate::aligned::AlignedBytes;
use crate::doorbell::protocol::Kinds;
use crate::error::CallError;
use crate::sys::barrier::Barrier;

const MOST: usize = 1000;
const SHORTLY: Duration = Duration::from_millis(1);

/// Whether an armed word asks.
fn asks(word: &AtomicU64) -> bool {
    word.load(Ordering::Relaxed) & 0b100 != 0
}

/// Adaptive ports, or nothing where there is no membarrier, and so nothing to ask.
fn asymmetric_pair() -> Option<(TempDir, Port, Port, Arc<Link>)> {
    let pair = pair(WaitStrategy::Adaptive);
    (pair.3.sleeping_barrier() == Barrier::Asymmetric).then_some(pair)
}

#[test]
fn a_dispatching_thread_asks_for_fences_while_it_sleeps_often() {
    let Some((_dir, main, _renderer, link)) = asymmetric_pair() else { return };
    let own = Arc::clone(main.links()[0].own());
    let mut dispatch = main.dispatch().unwrap();
    let sleeps = (0..MOST).find(|_| {
        dispatch.wait(Some(Instant::now() + SHORTLY));
        asks(own.data_armed())
    });
    assert!(sleeps.is_some(), "{MOST} waits that nobody ended, and no request");
    if thread::available_parallelism().is_ok_and(|cores| cores.get() == 1) {
        // It parks.
        return;
    }
    let met = (0..MOST).find(|_| {
        link.send(CHANNEL, b"in time", Patience::ByPolicy).unwrap();
        assert_eq!(dispatch.wait(Some(Instant::now() + DEADLINE)), Wakeup::Work);
        dispatch.poll(64, &mut Heard::default());
        !asks(own.data_armed())
    });
    assert!(met.is_some(), "{MOST} waits that had nothing to wait for, and the request stays");
}

#[test]
fn a_burst_ends_the_request_for_fences() {
    let Some((_dir, main, _renderer, link)) = asymmetric_pair() else { return };
    let own = Arc::clone(main.links()[0].own());
    // Whoever polls the descriptor sleeps on it.
    let _ = main.as_fd();
    let mut dispatch = main.dispatch().unwrap();
    dispatch.poll(64, &mut Heard::default());
    assert!(asks(own.data_armed()));
    (0..3).for_each(|_| link.send(CHANNEL, b"burst", Patience::ByPolicy).unwrap());
    dispatch.poll(2, &mut Heard::default());
    assert!(!asks(own.data_armed()), "there is more, and it asks");
    dispatch.poll(64, &mut Heard::default());
    assert!(asks(own.data_armed()));
}

#[test]
fn who_waits_for_replies_asks_for_fences_when_it_sleeps_often() {
    let Some((_dir, _main, _renderer, link)) = asymmetric_pair() else { return };
    let own = link.own();
    let calls = (0..MOST).find(|_| {
        let called = link.call(CHANNEL, b"nobody answers", Some(Instant::now() + SHORTLY), &mut AlignedBytes::new());
        assert!(matches!(called, Err(CallError::Timeout)), "{called:?}");
        (0..own.geometry().slot_count()).any(|slot| asks(own.reply_armed(slot)))
    });
    assert!(calls.is_some(), "{MOST} calls that nobody answered, and no request");
}

#[test]
fn who_waits_for_room_as_well_passes_the_heavy_barrier() {
    let (_dir, main, _renderer, _link) = pair(WaitStrategy::Adaptive);
    let link = Arc::clone(&main.links()[0]);
    let _dispatch = main.dispatch().unwrap();
    let nothing = link.flush();
    assert_eq!(nothing.arm(&link, Kinds::FUTEX, Barrier::Fence), Barrier::Fence);
    link.announce(&CHANNEL_OF_TESTS, Patience::ByPolicy).unwrap();
    while !link.has_backlog() {
        link.send(CHANNEL, &[0; 1000], Patience::ByPolicy).unwrap();
    }
    let blocked = link.flush();
    assert!(!blocked.is_clear());
    assert_eq!(blocked.arm(&link, Kinds::FUTEX, Barrier::Fence), link.sleeping_barrier());
}
