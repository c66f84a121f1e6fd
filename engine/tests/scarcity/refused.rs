//! System calls that an old kernel lacks, or that a sandbox refuses.

use std::path::Path;
use std::time::{Duration, Instant};

use memit_engine::{ConnectError, Disconnect, Patience, Port, RefusalCode, SendError, WaitStrategy, Wakeup};

use crate::child::{Short, run, say};
use crate::common::exchange::{LENGTHS, Serve, call_often, exchange};
use crate::common::payload::{linked, pair_with, serve, small};
use crate::common::{CHANNEL, DEADLINE, Recorder, config, dispatch_until, link_to_main, within_deadline};
use crate::places::{Main, Renderer, bind, connect, main_that_obeys, settings};
use crate::seccomp::{Action, Rule, Whom, all, exactly, install, only};

const CACHESTAT: libc::c_long = 451;
const SO_PEERPIDFD: u32 = 77;
const MFD_NOEXEC_SEAL: u32 = 8;
const POPULATE_READ: u32 = 22;

/// What memit can do without.
const DISPENSABLE: [&str; 5] = ["membarrier", "futex_waitv", "cachestat", "pidfd", "flags"];

fn refusals(what: &str, errno: i32) -> Vec<Rule> {
    match what {
        "membarrier" => vec![all(libc::SYS_membarrier, Action::Fail(errno))],
        "futex_waitv" => vec![all(libc::SYS_futex_waitv, Action::Fail(errno))],
        "both" => [refusals("membarrier", errno), refusals("futex_waitv", errno)].concat(),
        "cachestat" => vec![all(CACHESTAT, Action::Fail(errno))],
        "pidfd" => vec![
            all(libc::SYS_pidfd_open, Action::Fail(errno)),
            exactly(libc::SYS_getsockopt, 2, SO_PEERPIDFD, Action::Fail(libc::ENOPROTOOPT)),
        ],
        // What is not a call of its own: the kernel knows no such flag.
        "flags" => vec![
            only(libc::SYS_memfd_create, 1, MFD_NOEXEC_SEAL, MFD_NOEXEC_SEAL, Action::Fail(libc::EINVAL)),
            exactly(libc::SYS_madvise, 2, POPULATE_READ, Action::Fail(libc::EINVAL)),
        ],
        "all" => DISPENSABLE.into_iter().flat_map(|one| refusals(one, errno)).collect(),
        unknown => panic!("unknown refusal {unknown}"),
    }
}

/// Installs the refusals of `what`, and looks whether they hold.
#[allow(unsafe_code)]
fn refuse(what: &str, errno: i32) {
    install(Whom::EveryThread, &refusals(what, errno), Action::Allow);
    let (number, arguments, expected) = match what {
        "membarrier" | "both" | "all" => (libc::SYS_membarrier, [0, 0], errno),
        "futex_waitv" => (libc::SYS_futex_waitv, [0, 0], errno),
        "cachestat" => (CACHESTAT, [0, 0], errno),
        "pidfd" => (libc::SYS_pidfd_open, [i64::from(std::process::id()), 0], errno),
        _ => (libc::SYS_memfd_create, [c"".as_ptr() as i64, i64::from(MFD_NOEXEC_SEAL)], libc::EINVAL),
    };
    // SAFETY: none of them does anything with these arguments, beyond opening a descriptor if it is not refused.
    let outcome = unsafe { libc::syscall(number, arguments[0], arguments[1], 0, 0, 0) };
    assert_eq!((outcome, std::io::Error::last_os_error().raw_os_error()), (-1, Some(expected)), "{what}");
}

fn errno(name: &str) -> i32 {
    match name {
        "ENOSYS" => libc::ENOSYS,
        "EPERM" => libc::EPERM,
        unknown => panic!("unknown error {unknown}"),
    }
}

pub fn play(role: &str, dir: &Path) {
    let words: Vec<_> = role.split(' ').collect();
    match *words {
        ["from-the-start", what, error] => {
            refuse(what, errno(error));
            for wait in [WaitStrategy::Adaptive, WaitStrategy::Park] {
                let (_dir, main, renderer) = pair_with(wait, small);
                exchange(&main, &renderer, 60, &LENGTHS);
            }
        }
        ["later", what, error] => {
            let (_dir, main, renderer) = pair_with(WaitStrategy::Adaptive, small);
            refuse(what, errno(error));
            exchange(&main, &renderer, 60, &LENGTHS);
        }
        ["main-later", what, error] => main_that_obeys(dir, |_| refuse(what, errno(error))),
        ["watches-without-pidfds"] => {
            refuse("pidfd", libc::EPERM);
            let main = bind(dir);
            let (ended, ends) = std::sync::mpsc::channel();
            let serving = serve(&main, Serve::telling(ended));
            say("bound");
            say(&ends.recv().unwrap().to_string());
            main.shutdown();
            serving.join().unwrap();
        }
        ["renderer"] => {
            let renderer = connect(dir).unwrap();
            call_often(&link_to_main(&renderer), 3, &[8]);
            say("served");
            std::thread::park();
        }
        ["sleeps", what] => sleeps_in_slices(what),
        ["no-thread"] => no_thread(dir),
        ["no-watch"] => no_watch(dir),
        ["main-no-watch"] => main_that_obeys(dir, |_| {
            install(
                Whom::EveryThread,
                &[exactly(libc::SYS_epoll_ctl, 1, 1, Action::Fail(libc::ENOSPC))],
                Action::Allow,
            );
        }),
        ["too-many-in-flight"] => too_many_in_flight(),
        ref unknown => panic!("unknown role {unknown:?}"),
    }
}

/// Who may miss a wake-up sleeps for a while only: on a futex, and, where several may call, on descriptors.
fn sleeps_in_slices(what: &str) {
    let (dir, main, renderer) = pair_with(WaitStrategy::Adaptive, small);
    linked(&main, &renderer);
    let mut ports = vec![renderer];
    let another = Port::connect("app", config(&dir, WaitStrategy::Adaptive)).unwrap();
    if what == "membarrier" {
        dispatch_until(&main, &mut Recorder::default(), |seen| !seen.connected.is_empty());
        ports.push(main);
    }
    refuse(what, libc::EPERM);
    for port in ports {
        for _ in 0..10 {
            let mut dispatch = port.dispatch().unwrap();
            while dispatch.poll(64, &mut Recorder::default()) != 0 {}
            assert_eq!(dispatch.wait(Some(Instant::now() + DEADLINE / 4)), Wakeup::Work);
        }
    }
    drop(another);
}

/// The library's thread cannot be started.
fn no_thread(dir: &Path) {
    let refused = [all(libc::SYS_clone3, Action::Fail(libc::ENOSYS)), all(libc::SYS_clone, Action::Fail(libc::EAGAIN))];
    install(Whom::EveryThread, &refused, Action::Allow);
    let texts = [Port::bind("own", settings(dir)).unwrap_err().to_string(), connect(dir).unwrap_err().to_string()];
    for (text, action) in texts.iter().zip(["watch the socket", "start the library's thread"]) {
        let end = "Resource temporarily unavailable (os error 11); raise the limit on threads (ulimit -u), or end some";
        assert_eq!(*text, format!("cannot {action}: {end}"));
    }
}

/// The library's thread runs, and cannot watch more than it does.
fn no_watch(dir: &Path) {
    let own = Port::bind("own", settings(dir)).unwrap();
    // Of the endpoint and the thread, which was started later.
    let descriptors = std::fs::read_dir("/proc/self/fd").unwrap().map(|entry| entry.unwrap().path());
    let of_thread = descriptors
        .filter(|path| std::fs::read_link(path).is_ok_and(|link| link.as_os_str() == "anon_inode:[eventpoll]"))
        .filter_map(|path| path.file_name()?.to_str()?.parse::<u32>().ok())
        .max();
    let refused = exactly(libc::SYS_epoll_ctl, 0, of_thread.unwrap(), Action::Fail(libc::ENOSPC));
    install(Whom::EveryThread, &[refused], Action::Allow);
    let renderer = connect(dir).unwrap();
    let link = &renderer.links()[0];
    let Some(reason @ Disconnect::NoResources(_)) = link.ended() else { panic!("{:?}", link.ended()) };
    let expected = "this process lacks what the connection takes: the peer cannot be watched, so that its end would \
                    go unseen: No space left on device (os error 28)";
    assert_eq!(reason.to_string(), expected);
    let refused = link.send(CHANNEL, b"", Patience::ByPolicy);
    assert_eq!(refused, Err(SendError::Disconnected(reason)));
    drop(own);
}

/// The user has more descriptors under way to other processes than it may.
fn too_many_in_flight() {
    let (_dir, main, renderer) = pair_with(WaitStrategy::Adaptive, small);
    let (_, to_main) = linked(&main, &renderer);
    install(Whom::EveryThread, &[all(libc::SYS_sendmsg, Action::Fail(libc::ETOOMANYREFS))], Action::Allow);
    let serving = serve(&main, Serve::default());
    for len in [3000, crate::common::payload::EXTENT + 1] {
        assert_eq!(to_main.send(CHANNEL, &vec![1; len], Patience::Now), Err(SendError::Full { len }));
        let soon = Instant::now() + Duration::from_millis(30);
        assert_eq!(to_main.send(CHANNEL, &vec![1; len], Patience::Until(soon)), Err(SendError::Timeout { len }));
        call_often(&to_main, 10, &[8, 500]);
    }
    main.shutdown();
    serving.join().unwrap();
}

#[test]
fn everything_is_delivered_where_calls_are_missing_or_refused_from_the_start() {
    for what in DISPENSABLE.into_iter().chain(["both", "all"]) {
        for error in ["ENOSYS", "EPERM"] {
            within_deadline(move || run(&format!("refused from-the-start {what} {error}"), Path::new("/")));
        }
    }
}

#[test]
fn everything_is_delivered_where_calls_are_refused_once_the_connection_is_there() {
    for what in ["membarrier", "futex_waitv", "both", "all"] {
        for error in ["ENOSYS", "EPERM"] {
            within_deadline(move || run(&format!("refused later {what} {error}"), Path::new("/")));
        }
    }
}

#[test]
fn a_sleep_that_could_be_missed_is_not_for_ever() {
    for what in ["membarrier", "futex_waitv"] {
        within_deadline(move || run(&format!("refused sleeps {what}"), Path::new("/")));
    }
}

#[test]
fn a_main_that_enters_a_sandbox_serves_whom_it_has_and_admits_others() {
    within_deadline(|| {
        let dir = tempfile::tempdir().unwrap();
        let mut main = Short::start("refused main-later all EPERM", dir.path());
        main.expect("bound");
        let mut staying = Renderer::connect(dir.path());
        main.order("refuse");
        staying.is_served();
        Renderer::connect(dir.path()).is_served();
        staying.is_served();
        main.end();
    });
}

#[test]
fn a_renderer_that_is_killed_is_noticed_without_pidfds_too() {
    within_deadline(|| {
        let dir = tempfile::tempdir().unwrap();
        let mut main = Short::start("refused watches-without-pidfds", dir.path());
        main.expect("bound");
        let mut renderer = Short::start("refused renderer", dir.path());
        renderer.expect("served");
        drop(renderer);
        main.expect(&Disconnect::Died.to_string());
        main.ends();
    });
}

#[test]
fn bind_and_connect_without_a_thread_say_so_and_leave_nothing() {
    within_deadline(|| {
        let dir = tempfile::tempdir().unwrap();
        let _main = Main::bind(&dir);
        run("refused no-thread", dir.path());
        let mut left: Vec<_> =
            std::fs::read_dir(dir.path().join("run")).unwrap().map(|file| file.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["app.lock", "app.sock", "own.lock"]);
    });
}

#[test]
fn a_connection_that_cannot_be_watched_ends_with_that_reason() {
    within_deadline(|| {
        let dir = tempfile::tempdir().unwrap();
        let main = Main::bind(&dir);
        run("refused no-watch", dir.path());
        assert_eq!(main.next_end(), Disconnect::Died);
    });
}

#[test]
fn a_main_that_cannot_watch_more_refuses_newcomers_and_serves_whom_it_has() {
    within_deadline(|| {
        let dir = tempfile::tempdir().unwrap();
        let mut main = Short::start("refused main-no-watch", dir.path());
        main.expect("bound");
        let mut staying = Renderer::connect(dir.path());
        main.order("refuse");
        let error = connect(dir.path()).unwrap_err();
        let ConnectError::Refused { code: RefusalCode::NoResources, text } = error else { panic!("{error}") };
        assert!(text.contains("main could not watch the connection: No space left on device"), "{text}");
        staying.is_served();
        main.end();
    });
}

#[test]
fn a_descriptor_that_cannot_be_passed_now_holds_up_its_message_alone() {
    within_deadline(|| run("refused too-many-in-flight", Path::new("/")));
}
