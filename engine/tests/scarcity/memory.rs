//! Memory is short: by the kernel's word, by a limit on address space, on file sizes, or on locked memory.

use std::path::Path;
use std::time::Instant;

use memit_engine::{
    AlignedBytes, BindError, CallError, ConnectError, CreateError, Patience, Port, RefusalCode, SendError, WaitStrategy,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::child::{Short, run};
use crate::common::exchange::{LENGTHS, exchange};
use crate::common::payload::{EXTENT, pair_with, small};
use crate::common::{CHANNEL, DEADLINE, within_deadline};
use crate::places::{Main, Renderer, connect, main_that_obeys, settings};
use crate::seccomp::{Action, Rule, Whom, all, exactly, install, only};

/// What the kernel can refuse of new memory, and what becomes of a peer's.
const CALLS: [&str; 4] = ["memfd_create", "fallocate", "fallocate-space", "mmap"];
const OF_A_PEER: &str = "populate";

fn refusal_of(call: &str) -> Rule {
    const POPULATE_READ: u32 = 22;
    match call {
        "memfd_create" => all(libc::SYS_memfd_create, Action::Fail(libc::ENOMEM)),
        "fallocate" => all(libc::SYS_fallocate, Action::Fail(libc::ENOMEM)),
        "fallocate-space" => all(libc::SYS_fallocate, Action::Fail(libc::ENOSPC)),
        "mmap" => only(libc::SYS_mmap, 3, 0b11, libc::MAP_SHARED.unsigned_abs(), Action::Fail(libc::ENOMEM)),
        OF_A_PEER => exactly(libc::SYS_madvise, 2, POPULATE_READ, Action::Fail(libc::ENOMEM)),
        unknown => panic!("unknown call {unknown}"),
    }
}

fn refuse(call: &str) {
    install(Whom::EveryThread, &[refusal_of(call)], Action::Allow);
}

pub fn play(role: &str, dir: &Path) {
    match role.split_once(' ').unwrap_or((role, "")) {
        ("binds", call) => {
            refuse(call);
            let error = Port::bind("own", settings(dir)).unwrap_err();
            assert!(matches!(error, BindError::Memory(CreateError::OutOfMemory { .. })), "{error}");
            is_clear(&error.to_string());
        }
        ("connects", call) => {
            refuse(call);
            let error = connect(dir).unwrap_err();
            assert!(matches!(error, ConnectError::Memory(_) | ConnectError::BadOutbox(_)), "{error}");
            is_clear(&error.to_string());
        }
        ("stacks", _) => closes_without_maps(dir),
        ("main", call) => main_that_obeys(dir, |_| refuse(call)),
        ("sends", call) => sends(call, dir),
        ("limited-main", _) => main_that_obeys(dir, |what| match what {
            "address-space" => limit(Resource::As, address_space() + (8 << 20)),
            "file-size" => limit(Resource::Fsize, 4096),
            _ => [Resource::As, Resource::Fsize].into_iter().for_each(lift),
        }),
        ("limited", _) => limited(dir),
        ("locked", _) => {
            nothing_may_be_locked();
            for wait in [WaitStrategy::Park, WaitStrategy::Adaptive] {
                let (_dir, main, renderer) = pair_with(wait, small);
                exchange(&main, &renderer, 60, &LENGTHS);
            }
        }
        unknown => panic!("unknown role {unknown:?}"),
    }
}

/// It says what was asked for, what the kernel said, and what to do.
#[track_caller]
fn is_clear(text: &str) {
    let found = text.contains("os error 12") || text.contains("os error 28");
    assert!(found && text.contains("free memory"), "{text}");
}

fn limit(resource: Resource, current: u64) {
    setrlimit(resource, Rlimit { current: Some(current), ..getrlimit(resource) }).unwrap();
}

fn lift(resource: Resource) {
    let maximum = getrlimit(resource).maximum;
    setrlimit(resource, Rlimit { current: maximum, maximum }).unwrap();
}

/// What this process takes, in bytes.
fn address_space() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').next().unwrap().parse::<u64>().unwrap() * rustix::param::page_size() as u64
}

/// A renderer for whose large messages there is no memory.
fn sends(call: &str, dir: &Path) {
    let renderer = connect(dir).unwrap();
    let link = crate::common::link_to_main(&renderer);
    refuse(call);
    let bytes = vec![7; 3000];
    let error = link.send(CHANNEL, &bytes, Patience::ByPolicy).unwrap_err();
    assert!(matches!(error, SendError::NoMemory(_)), "{error}");
    is_clear(&error.to_string());
    let error = link.loan(EXTENT + 1, Patience::ByPolicy).map(drop).unwrap_err();
    assert!(matches!(error, SendError::NoMemory(_)), "{error}");
    is_clear(&error.to_string());
    let error = link.call(CHANNEL, &bytes, None, &mut AlignedBytes::new()).unwrap_err();
    assert!(matches!(error, CallError::NoMemory(_)), "{error}");
    is_clear(&error.to_string());
    crate::common::exchange::call_often(&link, 20, &[8, 500]);
}

/// Binds and connects beyond limits, which hold for as long as they hold.
fn limited(dir: &Path) {
    let large = || {
        let mut config = settings(dir);
        config.ring_capacity = 8 << 20;
        config
    };
    let tries: [&dyn Fn() -> Result<Port, String>; 2] =
        [&|| Port::bind("own", large()).map_err(|error| error.to_string()), &|| {
            Port::connect("app", large()).map_err(|error| error.to_string())
        }];
    // The library's thread maps memory for its heap when it begins, which is not to be while the use of memory is looked at.
    let _staying = Renderer::connect(dir);
    for attempt in tries {
        limit(Resource::As, address_space() + (8 << 20));
        let text = attempt().unwrap_err();
        assert!(text.starts_with("could not reserve 1"), "{text}");
        is_clear(&text);
        lift(Resource::As);
        limit(Resource::Fsize, 4096);
        let text = attempt().unwrap_err();
        let expected = "the file size limit of this process is 4096 bytes, and 1";
        assert!(text.starts_with(expected) && text.contains("raise it (ulimit -f)"), "{text}");
        lift(Resource::Fsize);
        drop(attempt().unwrap());
    }
}

/// Leaves connections while nothing can be mapped but what the C library needs for new threads.
fn closes_without_maps(dir: &Path) {
    let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    // From the first on the library's thread runs, and keeps its descriptors.
    drop(Renderer::connect(dir));
    let before = open();
    let ports: Vec<_> = (0..10).map(|_| connect(dir).unwrap()).collect();
    assert!(open() > before);
    // Of a stack, and of memory for its heap, the C library reserves the addresses first.
    let writable = (libc::PROT_READ | libc::PROT_WRITE).unsigned_abs();
    install(Whom::EveryThread, &[exactly(libc::SYS_mmap, 2, writable, Action::Fail(libc::ENOMEM))], Action::Allow);
    drop(ports);
    let deadline = Instant::now() + DEADLINE;
    while open() > before {
        assert!(Instant::now() < deadline, "descriptors stay open");
        std::thread::yield_now();
    }
}

/// Takes the right to lock memory from this thread, and from those that it starts.
#[allow(unsafe_code)]
fn nothing_may_be_locked() {
    const VERSION_3: u32 = 0x2008_0522;
    const IPC_LOCK: u32 = 14;
    setrlimit(Resource::Memlock, Rlimit { current: Some(0), maximum: Some(0) }).unwrap();
    let header = [VERSION_3, 0];
    let mut sets = [0_u32; 6];
    // SAFETY: reads the header and fills the sets, both of the layout of linux/capability.h and alive for the call.
    let got = unsafe { libc::syscall(libc::SYS_capget, header.as_ptr(), sets.as_mut_ptr()) };
    assert_eq!(got, 0);
    sets[0] &= !(1 << IPC_LOCK);
    // SAFETY: reads both, as above.
    let set = unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), sets.as_ptr()) };
    assert_eq!(set, 0);
    let page = vec![0_u8; 4096];
    // SAFETY: the bytes are there for the call, which changes nothing about them. (The C library's is a sanitizer's, if
    // there is one, and does nothing.)
    let locked = unsafe { libc::syscall(libc::SYS_mlock, page.as_ptr(), page.len()) };
    assert_eq!(locked, -1, "the limit does not hold");
}

#[test]
fn bind_and_connect_without_memory_say_how_much_and_what_to_do() {
    within_deadline(|| {
        let dir = tempfile::tempdir().unwrap();
        let main = Main::bind(&dir);
        let mut staying = Renderer::connect(dir.path());
        for call in CALLS {
            run(&format!("memory binds {call}"), dir.path());
            run(&format!("memory connects {call}"), dir.path());
        }
        run(&format!("memory connects {OF_A_PEER}"), dir.path());
        staying.is_served();
        drop(main);
    });
}

#[test]
fn a_main_without_memory_refuses_newcomers_and_serves_whom_it_has() {
    within_deadline(|| {
        for call in CALLS.into_iter().chain([OF_A_PEER]) {
            let dir = tempfile::tempdir().unwrap();
            let mut main = Short::start(&format!("memory main {call}"), dir.path());
            main.expect("bound");
            let mut staying = Renderer::connect(dir.path());
            main.order("refuse");
            for _ in 0..3 {
                let error = connect(dir.path()).unwrap_err();
                let ConnectError::Refused { code: RefusalCode::NoResources, text } = error else {
                    panic!("{call}: {error}")
                };
                is_clear(&text);
                staying.is_served();
            }
            main.end();
        }
    });
}

#[test]
fn a_message_for_which_there_is_no_memory_is_refused_and_the_small_ones_go_on() {
    within_deadline(|| {
        let dir = tempfile::tempdir().unwrap();
        let _main = Main::bind(&dir);
        for call in CALLS {
            run(&format!("memory sends {call}"), dir.path());
        }
    });
}

#[test]
fn bind_and_connect_name_the_limit_that_they_meet_and_work_once_it_is_lifted() {
    within_deadline(|| {
        let dir = tempfile::tempdir().unwrap();
        let _main = Main::bind(&dir);
        run("memory limited", dir.path());
    });
}

#[test]
fn a_main_at_a_limit_refuses_newcomers_until_it_is_lifted_and_serves_whom_it_has() {
    within_deadline(|| {
        let dir = tempfile::tempdir().unwrap();
        let mut main = Short::start("memory limited-main", dir.path());
        main.expect("bound");
        let mut staying = Renderer::connect(dir.path());
        for (limit, expected) in [("address-space", "free memory"), ("file-size", "raise it (ulimit -f)")] {
            main.order(limit);
            let mut config = settings(dir.path());
            config.ring_capacity = 8 << 20;
            let error = Port::connect("app", config).unwrap_err();
            let ConnectError::Refused { code: RefusalCode::NoResources, text } = error else { panic!("{error}") };
            assert!(text.contains(expected), "{text}");
            staying.is_served();
            main.order("lift");
            Renderer::connect(dir.path()).is_served();
        }
        staying.is_served();
        main.end();
    });
}

#[test]
fn sockets_are_closed_where_nothing_more_can_be_mapped() {
    within_deadline(|| {
        let dir = tempfile::tempdir().unwrap();
        let _main = Main::bind(&dir);
        run("memory stacks", dir.path());
    });
}

#[test]
fn nothing_needs_locked_memory() {
    within_deadline(|| {
        let dir = tempfile::tempdir().unwrap();
        run("memory locked", dir.path());
    });
}
