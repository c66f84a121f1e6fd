//! Seals that are refused, forgotten, or kept and not enforced, as some sandboxes do: a signal handler in the place of the
//! kernel keeps the books, and the kernel never hears of a seal.

use std::path::Path;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};

use memit_engine::{BindError, ConnectError, CreateError, Disconnect, Patience, Port, SendError};

use crate::child::{run, say};
use crate::common::exchange::call_often;
use crate::common::payload::EXTENT;
use crate::common::{CHANNEL, link_to_main, within_deadline};
use crate::places::{Main, Renderer, connect, settings};
use crate::seccomp::{Action, Whom, exactly, install};

const ADD_SEALS: u32 = 1033;
const GET_SEALS: u32 = 1034;

/// The seals that were asked for, of whatever memory: the sandbox simulated here need not tell one from another.
static KEPT: AtomicU32 = AtomicU32::new(0);
/// The last call that was answered in the kernel's place, so that a test knows that its simulation took place.
static ANSWERED: AtomicI32 = AtomicI32::new(0);

/// Answers `fcntl` for the kernel.
#[allow(unsafe_code)]
extern "C" fn keep_the_books(_: libc::c_int, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel gives a handler with SA_SIGINFO the context of the thread, which is this handler's alone.
    let registers = unsafe { &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
    let argument = |register: libc::c_int| registers[usize::try_from(register).unwrap_or(0)];
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "both arguments are ints")]
    let (command, seals) = (argument(libc::REG_RSI) as u32, argument(libc::REG_RDX) as u32);
    ANSWERED.store(command.cast_signed(), Ordering::Relaxed);
    let answer = if command == ADD_SEALS {
        KEPT.fetch_or(seals, Ordering::Relaxed);
        0
    } else {
        i64::from(KEPT.load(Ordering::Relaxed))
    };
    registers[usize::try_from(libc::REG_RAX).unwrap_or(0)] = answer;
}

/// Seals are kept from here on, and not enforced.
#[allow(unsafe_code)]
fn keep_without_enforcing() {
    let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) = keep_the_books;
    // SAFETY: all zeros is an action without flags and with an empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler as *const () as libc::sighandler_t;
    action.sa_flags = libc::SA_SIGINFO;
    // SAFETY: the handler uses atomics and the context that it is given.
    assert_eq!(unsafe { libc::sigaction(libc::SIGSYS, &raw const action, std::ptr::null_mut()) }, 0);
    let trapped = [ADD_SEALS, GET_SEALS].map(|command| exactly(libc::SYS_fcntl, 1, command, Action::Trap));
    install(Whom::EveryThread, &trapped, Action::Allow);
}

/// What a machine does with seals, and what memit finds missing.
const MACHINES: [(&str, &str); 4] = [
    ("not-enforced", "the seals of a memfd are kept, but not enforced"),
    ("not-kept", "the seals of a memfd are not kept"),
    ("unknown", "a seal is unknown (F_SEAL_FUTURE_WRITE, perhaps)"),
    ("no-memfd", "memfd_create, or fallocate on a memfd, is missing"),
];

fn enter(machine: &str) {
    let add = |errno| {
        install(Whom::EveryThread, &[exactly(libc::SYS_fcntl, 1, ADD_SEALS, Action::Fail(errno))], Action::Allow)
    };
    match machine {
        "not-enforced" => keep_without_enforcing(),
        "not-kept" => add(0),
        "unknown" => add(libc::EINVAL),
        "no-memfd" => {
            let missing = crate::seccomp::all(libc::SYS_memfd_create, Action::Fail(libc::ENOSYS));
            install(Whom::EveryThread, &[missing], Action::Allow);
        }
        unknown => panic!("unknown machine {unknown}"),
    }
}

fn expected(missing: &str) -> String {
    format!("{missing}; memit needs Linux 5.1 or newer, and a sandbox that enforces the seals of a memfd")
}

pub fn play(role: &str, dir: &Path) {
    let (part, machine) = role.split_once(' ').unwrap();
    let missing = MACHINES.iter().find(|(name, _)| *name == machine).unwrap().1;
    match part {
        "endpoints" => {
            enter(machine);
            let error = Port::bind("own", settings(dir)).unwrap_err();
            assert!(matches!(error, BindError::Memory(CreateError::Unsupported { .. })), "{error}");
            assert_eq!(error.to_string(), expected(missing));
            let error = connect(dir).unwrap_err();
            assert!(matches!(error, ConnectError::Memory(CreateError::Unsupported { .. })), "{error}");
            assert_eq!(error.to_string(), expected(missing));
        }
        "payloads" => payloads(dir, machine, missing),
        "receives" => receives(dir, machine, missing),
        unknown => panic!("unknown part {unknown}"),
    }
    let simulated = if machine == "not-enforced" { GET_SEALS.cast_signed() } else { 0 };
    assert_eq!(ANSWERED.load(Ordering::Relaxed), simulated);
}

/// A renderer that enters the machine when it is connected, and then needs memory for messages.
fn payloads(dir: &Path, machine: &str, missing: &str) {
    let renderer = connect(dir).unwrap();
    let link = link_to_main(&renderer);
    enter(machine);
    for len in [3000, EXTENT + 1] {
        let error = link.send(CHANNEL, &vec![1; len], Patience::ByPolicy).unwrap_err();
        assert!(matches!(error, SendError::NoMemory(_)), "{error}");
        assert_eq!(error.to_string(), format!("no memory to send the message in: {}", expected(missing)));
    }
    call_often(&link, 20, &[8, 500]);
}

/// A renderer that enters the machine when it is connected, and is then sent memory that it is to read in place.
fn receives(dir: &Path, machine: &str, missing: &str) {
    let renderer = connect(dir).unwrap();
    let link = link_to_main(&renderer);
    enter(machine);
    let mut reply = memit_engine::AlignedBytes::new();
    // Main answers with as much.
    let loan = link.loan(EXTENT / 2, Patience::ByPolicy);
    assert!(loan.is_err());
    let asked = link.call(CHANNEL, crate::common::exchange::LARGE, None, &mut reply).map(drop);
    let Err(memit_engine::CallError::Disconnected(Disconnect::NoResources(text))) = asked else { panic!("{asked:?}") };
    assert_eq!(*text, format!("whether seals are enforced could not be established: {}", expected(missing)));
    say("told");
}

#[test]
fn bind_and_connect_where_seals_do_not_count_are_refused_as_unsupported() {
    for (machine, _) in MACHINES {
        within_deadline(move || {
            let dir = tempfile::tempdir().unwrap();
            let _main = Main::bind(&dir);
            let mut staying = Renderer::connect(dir.path());
            run(&format!("seals endpoints {machine}"), dir.path());
            staying.is_served();
        });
    }
}

#[test]
fn a_message_that_would_need_seals_that_do_not_count_is_refused_and_the_others_go_on() {
    for (machine, _) in MACHINES {
        within_deadline(move || {
            let dir = tempfile::tempdir().unwrap();
            let _main = Main::bind(&dir);
            run(&format!("seals payloads {machine}"), dir.path());
        });
    }
}

#[test]
fn nothing_is_read_in_place_where_seals_do_not_count() {
    within_deadline(|| {
        let dir = tempfile::tempdir().unwrap();
        let main = Main::bind(&dir);
        let mut short = crate::child::Short::start("seals receives not-enforced", dir.path());
        short.expect("told");
        short.ends();
        assert_eq!(main.next_end(), Disconnect::Died);
    });
}
