//! What a message costs while both sides are busy: no system call and no heap allocation, on either side.
//!
//! Both sides count both. Allocations by a global allocator, system calls by a filter on the measured thread that
//! turns each one into a signal, whose handler counts it and lets it fail.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::cast_possible_truncation, unsafe_code)]

mod common;
#[path = "../../engine/tests/common/seccomp.rs"]
mod seccomp;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::{DEADLINE, Process, role, say, within_deadline};
use memit::{Channel, IpcMain, IpcRenderer, WaitStrategy};
use seccomp::{Action, Whom, all, install};

/// Messages of each kind, there and back; the first ones warm up.
const WARM_UP: u64 = 200;
const ROUNDS: u64 = 2_000;
const ENTRY: &str = "child_process";

#[memit::message]
struct Tick {
    seq: u64,
    symbol: String,
}

const TICK: Channel<Tick> = Channel::new("tick");
const TOCK: Channel<Tick> = Channel::new("tock");
const BYTES: Channel<[u8]> = Channel::new("bytes");
const BACK: Channel<[u8]> = Channel::new("back");
const ADD: Channel<(u64, u64), u64> = Channel::new("add");
const SYMBOL: &str = "a symbol that is out of line";

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

thread_local! {
    /// What this thread has allocated. Constant and without a destructor, so that counting allocates nothing.
    static ALLOCATIONS: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

static SYSTEM_CALLS: AtomicU64 = AtomicU64::new(0);

// SAFETY: forwards to the system's allocator and counts.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promise is passed on.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

extern "C" fn count_system_call(_: libc::c_int) {
    SYSTEM_CALLS.fetch_add(1, Ordering::Relaxed);
}

/// From here on each system call of this thread is counted and fails, but for writing, ending, and returning from
/// the handler. There is no way back, so the thread ends soon after.
fn count_system_calls() {
    // SAFETY: the handler only adds to an atomic.
    let installed = unsafe {
        let handler: extern "C" fn(libc::c_int) = count_system_call;
        libc::signal(libc::SIGSYS, handler as *const () as libc::sighandler_t)
    };
    assert_ne!(installed, libc::SIG_ERR);
    let allowed = [libc::SYS_write, libc::SYS_exit, libc::SYS_exit_group, libc::SYS_rt_sigreturn];
    install(Whom::ThisThread, &allowed.map(|number| all(number, Action::Allow)), Action::Trap);
}

/// Says how many allocations and system calls there were, and ends the process, of which one thread can do nothing
/// else any more.
fn report(allocations_before: u64) -> ! {
    let allocations = ALLOCATIONS.get() - allocations_before;
    let calls = SYSTEM_CALLS.load(Ordering::Relaxed);
    say(&format!("{allocations} allocations, {calls} system calls"));
    // SAFETY: ends the process at once.
    unsafe { libc::_exit(0) }
}

/// What the tests start as children; nothing by itself.
#[test]
fn child_process() {
    let Some((role, dir)) = role() else { return };
    match role.as_str() {
        "main" => main_side(&dir),
        "renderer" => renderer_side(&dir),
        "hearing" => hearing_side(&dir),
        "streaming" => streaming_side(&dir),
        "allocating" => {
            count_system_calls();
            let before = ALLOCATIONS.get();
            std::hint::black_box(vec![1_u8; 100]);
            // SAFETY: has no effect but to be counted.
            unsafe { libc::getppid() };
            report(before);
        }
        unknown => panic!("unknown role {unknown}"),
    }
}

/// Answers everything, and counts what that costs the dispatching thread.
fn main_side(dir: &str) {
    let main = IpcMain::builder().runtime_dir(dir).wait(WaitStrategy::Spin).bind("app").unwrap();
    let handled = Arc::new(AtomicU64::new(0));
    let count = [(); 3].map(|()| Arc::clone(&handled));
    let [ticks, bytes, sums] = count.map(|count| move || count.fetch_add(1, Ordering::Relaxed));
    let mut tock = Tick { seq: 0, symbol: SYMBOL.to_owned() };
    main.on(TICK, move |event, tick| {
        ticks();
        tock.seq = tick.seq.to_native();
        event.reply(TOCK, &tock)
    });
    main.on(BYTES, move |event, message| {
        bytes();
        event.reply(BACK, message)
    });
    main.on(ADD, move |event, sum| {
        sums();
        event.set_return_value(&(sum.0.to_native() + sum.1.to_native()))
    });
    say("bound");
    let turn = |until: u64| {
        while handled.load(Ordering::Relaxed) < until {
            main.run_once(Duration::MAX).unwrap();
        }
    };
    turn(3 * WARM_UP);
    count_system_calls();
    let before = ALLOCATIONS.get();
    turn(3 * (WARM_UP + ROUNDS));
    report(before);
}

fn renderer_side(dir: &str) {
    let renderer = IpcRenderer::builder().runtime_dir(dir).wait(WaitStrategy::Spin).connect("app").unwrap();
    let answered = Arc::new(AtomicU64::new(0));
    let at = Arc::clone(&answered);
    renderer.on(TOCK, move |_, tick| at.store(tick.seq.to_native(), Ordering::Relaxed));
    let at = Arc::clone(&answered);
    renderer.on(BACK, move |_, bytes| at.store(u64::from(bytes[0]) << 32 | bytes.len() as u64, Ordering::Relaxed));
    let mut tick = Tick { seq: 0, symbol: SYMBOL.to_owned() };
    let mut bytes = [0_u8; 200];
    let mut rounds = |count: u64| {
        for _ in 0..count {
            tick.seq += 1;
            renderer.send(TICK, &tick).unwrap();
            while answered.load(Ordering::Relaxed) != tick.seq {
                renderer.run_once(Duration::MAX).unwrap();
            }
            bytes[0] = bytes[0].wrapping_add(1);
            renderer.send(BYTES, &bytes[..]).unwrap();
            while answered.load(Ordering::Relaxed) != u64::from(bytes[0]) << 32 | bytes.len() as u64 {
                renderer.run_once(Duration::MAX).unwrap();
            }
            assert_eq!(renderer.send_sync(ADD, &(tick.seq, 1)).unwrap().to_native(), tick.seq + 1);
        }
    };
    rounds(WARM_UP);
    count_system_calls();
    let before = ALLOCATIONS.get();
    rounds(ROUNDS);
    report(before);
}

/// Messages of one burst.
const BURST: u64 = 10;

/// Hears what the other side streams.
fn hearing_side(dir: &str) {
    let main = IpcMain::builder().runtime_dir(dir).wait(WaitStrategy::Spin).bind("app").unwrap();
    let heard = Arc::new(AtomicU64::new(0));
    for channel in [TICK, TOCK] {
        let seen = Arc::clone(&heard);
        main.on(channel, move |_, tick| {
            let before = seen.swap(tick.seq.to_native(), Ordering::Relaxed);
            assert_eq!(tick.seq, before + 1);
        });
    }
    // A call ends each part: the other side stays until everything was heard.
    let parts = Arc::new(AtomicU64::new(0));
    let ended = Arc::clone(&parts);
    main.on(ADD, move |event, sum| {
        ended.fetch_add(1, Ordering::Relaxed);
        event.set_return_value(&(sum.0.to_native() + sum.1.to_native()))
    });
    say("bound");
    let hear = |until: u64| {
        while parts.load(Ordering::Relaxed) < until {
            main.run_once(Duration::MAX).unwrap();
        }
    };
    hear(1);
    count_system_calls();
    let before = ALLOCATIONS.get();
    hear(2);
    assert_eq!(heard.load(Ordering::Relaxed), 3 * BURST * (WARM_UP + ROUNDS));
    report(before);
}

/// Sends bursts in each way that there is, and waits for space by spinning.
fn streaming_side(dir: &str) {
    let renderer = IpcRenderer::builder().runtime_dir(dir).wait(WaitStrategy::Spin).connect("app").unwrap();
    let ticks = renderer.to(TICK).unwrap();
    let mut tick = Tick { seq: 0, symbol: SYMBOL.to_owned() };
    let mut rounds = |count: u64| {
        for _ in 0..count {
            let mut guard = renderer.exclusive().unwrap();
            for _ in 0..BURST {
                tick.seq += 1;
                guard.send(TOCK, &tick).unwrap();
            }
            drop(guard);
            let mut guard = ticks.exclusive().unwrap();
            for _ in 0..BURST {
                tick.seq += 1;
                guard.send(&tick).unwrap();
            }
            drop(guard);
            for _ in 0..BURST {
                tick.seq += 1;
                ticks.send(&tick).unwrap();
            }
        }
        assert_eq!(renderer.send_sync(ADD, &(1, 2)).unwrap(), 3);
    };
    rounds(WARM_UP);
    count_system_calls();
    let before = ALLOCATIONS.get();
    rounds(ROUNDS);
    report(before);
}

#[test]
fn a_busy_stream_makes_no_system_call_and_no_allocation_per_message_nor_per_guard() {
    within_deadline(|| {
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path().join("run").to_string_lossy().into_owned();
        let main = Process::start(ENTRY, "hearing", &run);
        assert_eq!(main.hear().as_deref(), Some("bound"));
        let renderer = Process::start(ENTRY, "streaming", &run);
        for side in [renderer, main] {
            assert_eq!(side.hear().as_deref(), Some("0 allocations, 0 system calls"));
        }
    });
}

#[test]
fn a_busy_pair_makes_no_system_call_and_no_allocation_per_message_on_either_side() {
    within_deadline(|| {
        let began = Instant::now();
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path().join("run").to_string_lossy().into_owned();
        let main = Process::start(ENTRY, "main", &run);
        assert_eq!(main.hear().as_deref(), Some("bound"));
        let renderer = Process::start(ENTRY, "renderer", &run);
        for side in [renderer, main] {
            assert_eq!(side.hear().as_deref(), Some("0 allocations, 0 system calls"));
        }
        assert!(began.elapsed() < DEADLINE);
    });
}

#[test]
fn the_counters_count() {
    within_deadline(|| {
        let child = Process::start(ENTRY, "allocating", "");
        assert_eq!(child.hear().as_deref(), Some("1 allocations, 1 system calls"));
    });
}
