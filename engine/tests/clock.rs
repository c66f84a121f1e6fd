//! Clocks that jump, and clocks that differ between the two sides: neither shortens nor lengthens a wait, and the clock of
//! the day is not asked at all.
#![allow(unsafe_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;
#[path = "common/seccomp.rs"]
mod seccomp;

use std::os::unix::process::CommandExt;
use std::process::Stdio;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use common::exchange::{LENGTHS, Serve, call_often, count_at_peer, exchange, send_numbers};
use common::payload::{linked, pair_with, run_in_child, serve, small};
use common::*;
use memit_engine::{
    AlignedBytes, CallError, Config, ConnectError, Link, Patience, Port, SendError, WaitStrategy, Wakeup,
};
use rustix::fs::{Mode, OFlags};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, bind, listen, socket};
use rustix::thread::{UnshareFlags, unshare_unsafe};
use rustix::time::ClockId;
use seccomp::{Action, Whom, all, exactly, install, only};

static ASKED_FOR_THE_DAY: AtomicU64 = AtomicU64::new(0);
static JUMP: AtomicI64 = AtomicI64::new(0);

/// In the place of the C library's for this whole program: the day's clock jumps back and forth by years, each time that
/// it is asked.
///
/// # Safety
/// `time` points to a place for a time, as for the C library's.
#[unsafe(no_mangle)]
unsafe extern "C" fn clock_gettime(clock: libc::clockid_t, time: *mut libc::timespec) -> libc::c_int {
    const YEARS: i64 = 10 * 365 * 24 * 3600;
    // SAFETY: the caller's promise is passed on.
    let outcome = unsafe { libc::syscall(libc::SYS_clock_gettime, clock, time) };
    if clock == libc::CLOCK_REALTIME && outcome == 0 {
        ASKED_FOR_THE_DAY.fetch_add(1, Ordering::Relaxed);
        let jump = JUMP.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |jump| Some(YEARS - jump)).unwrap_or(0);
        // SAFETY: the kernel has just written there.
        unsafe { (*time).tv_sec += jump - YEARS / 2 };
    }
    i32::from(outcome != 0)
}

/// From here on whoever waits by the clock of the day, or asks the kernel for it, ends this process.
fn forbid_the_clock_of_the_day() {
    const FUTEX_CLOCK_REALTIME: u32 = 256;
    let day = libc::CLOCK_REALTIME.unsigned_abs();
    let absolute = libc::TIMER_ABSTIME.unsigned_abs();
    let rules = [
        // Without a time to wait until (by this argument) the clock does not matter.
        exactly(libc::SYS_futex, 3, 0, Action::Allow),
        only(libc::SYS_futex, 1, FUTEX_CLOCK_REALTIME, FUTEX_CLOCK_REALTIME, Action::Kill),
        exactly(libc::SYS_futex_waitv, 4, libc::CLOCK_MONOTONIC.unsigned_abs(), Action::Allow),
        all(libc::SYS_futex_waitv, Action::Kill),
        only(libc::SYS_clock_nanosleep, 1, absolute, absolute, Action::Kill),
        exactly(libc::SYS_timerfd_create, 0, day, Action::Kill),
        exactly(libc::SYS_clock_gettime, 0, day, Action::Kill),
        all(libc::SYS_gettimeofday, Action::Kill),
        all(libc::SYS_time, Action::Kill),
    ];
    install(Whom::EveryThread, &rules, Action::Allow);
}

/// What the tests start as a child; nothing by itself.
#[test]
fn payload_child_process() {
    match common::payload::role().as_deref() {
        Some("jumps") => within_deadline(jumps),
        Some("asks") => {
            forbid_the_clock_of_the_day();
            let _ = SystemTime::now();
        }
        Some(elsewhere) => {
            let elsewhere = elsewhere.to_owned();
            within_deadline(move || days_ahead(&elsewhere));
        }
        None => {}
    }
}

/// Every way to wait, each until its time and no longer, and traffic of every kind.
fn jumps() {
    let before = [(); 3].map(|()| SystemTime::now());
    assert!(before[0] > before[1] || before[1] > before[2], "the clock does not jump");
    forbid_the_clock_of_the_day();
    let asked = ASKED_FOR_THE_DAY.load(Ordering::Relaxed);
    for wait in [WaitStrategy::Park, WaitStrategy::Adaptive] {
        let (dir, main, renderer) = pair_with(wait, small);
        let (_, to_main) = linked(&main, &renderer);
        every_deadline(&main, &to_main);
        let mut config = config(&dir, wait);
        config.handshake_deadline = AWAY;
        // Nobody answers there.
        std::fs::remove_file(dir.path().join("run/app.sock")).unwrap();
        let listener = socket(AddressFamily::UNIX, SocketType::SEQPACKET, None).unwrap();
        bind(&listener, &SocketAddrUnix::new(dir.path().join("run/app.sock")).unwrap()).unwrap();
        listen(&listener, 4).unwrap();
        takes(AWAY, || {
            let error = Port::connect("app", config).unwrap_err();
            assert!(matches!(error, ConnectError::Timeout { .. }), "{error}");
        });
        let (_dir, main, renderer) = pair_with(wait, small);
        exchange(&main, &renderer, 60, &LENGTHS);
    }
    assert_eq!(ASKED_FOR_THE_DAY.load(Ordering::Relaxed), asked, "somebody asked for the clock of the day");
}

/// How far away the deadlines are.
const AWAY: Duration = Duration::from_millis(100);

/// Whether `wait` takes as long as it should, and not years, or what is left of the test.
fn takes<T>(expected: Duration, wait: impl FnOnce() -> T) -> T {
    let began = Instant::now();
    let outcome = wait();
    let took = began.elapsed();
    assert!(took >= expected && took < expected + DEADLINE / 4, "it took {took:?}, expected {expected:?}");
    outcome
}

/// Those of the dispatching thread, of a sender, and of a caller.
fn every_deadline(main: &Port, to_main: &Link) {
    drain_all(main);
    let soon = || Instant::now() + AWAY;
    takes(AWAY, || {
        let deadline = soon();
        let mut dispatch = main.dispatch().unwrap();
        while dispatch.wait(Some(deadline)) != Wakeup::TimedOut {
            dispatch.poll(64, &mut Recorder::default());
        }
    });
    while to_main.send(CHANNEL, &[0; 500], Patience::Now).is_ok() {}
    let late = takes(AWAY, || to_main.send(CHANNEL, &[0; 500], Patience::Until(soon())));
    assert_eq!(late, Err(SendError::Timeout { len: 500 }));
    drain_all(main);
    let late = takes(AWAY, || to_main.call(CHANNEL, b"", Some(soon()), &mut AlignedBytes::new()));
    assert_eq!(late.map(drop), Err(CallError::Timeout));
}

fn drain_all(port: &Port) {
    let mut dispatch = port.dispatch().unwrap();
    while dispatch.poll(64, &mut Recorder::default()) != 0 {}
}

#[test]
fn a_clock_of_the_day_that_jumps_is_neither_asked_nor_waited_by() {
    within_deadline(|| run_in_child("payload_child_process", "jumps"));
}

#[test]
fn who_asks_for_the_clock_of_the_day_is_found_out() {
    let outcome = std::panic::catch_unwind(|| run_in_child("payload_child_process", "asks"));
    let text = outcome.unwrap_err().downcast::<String>().unwrap();
    assert!(text.contains("SIGSYS"), "{text}");
}

/// How far the clock of the other process is ahead.
const AHEAD: i64 = 90 * 24 * 3600;
const DIR: &str = "MEMIT_CLOCK_DIR";

fn monotonic_seconds() -> i64 {
    rustix::time::clock_gettime(ClockId::Monotonic).tv_sec
}

/// A renderer whose monotonic clock is ahead of its mains'. `here` is what theirs said.
fn days_ahead(here: &str) {
    let here: i64 = here.parse().unwrap();
    assert!(monotonic_seconds() >= here + AHEAD, "the clocks do not differ");
    let renderer = |name| {
        let mut config = Config::default();
        small(&mut config);
        config.runtime_dir = Some(std::env::var_os(DIR).unwrap().into());
        let port = Port::connect(name, config).unwrap();
        let link = link_to_main(&port);
        (port, link)
    };
    let (_port, serving) = renderer("serving");
    send_numbers(&serving, 0, 0..100, &LENGTHS);
    call_often(&serving, 50, &LENGTHS);
    assert_eq!(count_at_peer(&serving), 100);
    let (_port, silent) = renderer("silent");
    let soon = || Instant::now() + AWAY;
    let late = takes(AWAY, || silent.call(CHANNEL, b"", Some(soon()), &mut AlignedBytes::new()));
    assert_eq!(late.map(drop), Err(CallError::Timeout));
    while silent.send(CHANNEL, &[0; 500], Patience::Now).is_ok() {}
    let late = takes(AWAY, || silent.send(CHANNEL, &[0; 500], Patience::Until(soon())));
    assert_eq!(late, Err(SendError::Timeout { len: 500 }));
}

#[test]
fn two_sides_whose_monotonic_clocks_differ_by_months_serve_each_other() {
    within_deadline(|| {
        let dir = tempfile::tempdir().unwrap();
        let [serving, _silent] = ["serving", "silent"].map(|name| {
            let mut config = config(&dir, WaitStrategy::Adaptive);
            small(&mut config);
            Port::bind(name, config).unwrap()
        });
        let dispatching = serve(&serving, Serve::default());
        let mut command = common::payload::child("payload_child_process", &monotonic_seconds().to_string());
        command.env(DIR, dir.path().join("run"));
        // SAFETY: makes system calls only, with what was prepared before.
        unsafe { command.pre_exec(enter_another_time()) };
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        match child {
            Ok(mut child) => assert!(child.wait().unwrap().success()),
            Err(error) => println!("not run: this machine grants no time of our own ({error})"),
        }
        serving.shutdown();
        dispatching.join().unwrap();
    });
}

/// Has the program that is executed next live months ahead, in a user namespace of its own unless this is root.
fn enter_another_time() -> impl FnMut() -> std::io::Result<()> + Send + Sync + 'static {
    let user = rustix::process::geteuid();
    let (mut namespaces, mut files) = (UnshareFlags::NEWTIME, Vec::new());
    if !user.is_root() {
        namespaces |= UnshareFlags::NEWUSER;
        files.push((c"/proc/self/setgroups", "deny".to_owned()));
        files.push((c"/proc/self/uid_map", format!("{0} {0} 1", user.as_raw())));
    }
    files.push((c"/proc/self/timens_offsets", format!("monotonic {AHEAD} 0\nboottime {AHEAD} 0\n")));
    move || {
        // SAFETY: a forked child is one thread, and shares no files with anybody whom that could surprise.
        unsafe { unshare_unsafe(namespaces) }?;
        for (path, text) in &files {
            let file = rustix::fs::open(*path, OFlags::WRONLY, Mode::empty())?;
            rustix::io::write(&file, text.as_bytes())?;
        }
        Ok(())
    }
}
