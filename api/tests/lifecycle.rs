//! How endpoints begin and end, and who is told.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::{
    os::fd::AsFd,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use memit::{
    BindError, Busy, CallError, Channel, ConnectError, Disconnect, ExclusiveError, IpcMain, IpcRenderer, RunError,
    SendError, WaitStrategy,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use support::{
    Log, PATIENCE, Rig, Running, Tell,
    common::{Process, role},
    unexpected, until, within_deadline,
};

const NOTE: Channel<str> = Channel::new("note");
const ADD: Channel<(i32, i32), i32> = Channel::new("add");
const BYTES: Channel<[u8]> = Channel::new("bytes");

/// What another test starts as a child; nothing by itself.
#[test]
fn child_process() {
    match role() {
        Some((role, _)) if role == "forks" => fork_while_the_endpoint_is_busy(),
        Some((role, _)) if role == "forks-inside" => fork_inside_a_listener(),
        Some((unknown, _)) => unexpected(&unknown),
        None => {}
    }
}

/// Ends the process when it is dropped in another one than the one that made it.
struct Ours(u32);

impl Drop for Ours {
    fn drop(&mut self) {
        if std::process::id() != self.0 {
            std::process::abort();
        }
    }
}

/// Forks; returns 0 in the child, which ends with the thread that made it.
#[allow(unsafe_code)]
fn fork_here() -> i32 {
    // SAFETY: the C library makes allocation work in the child, and what the child uses of this one is under test.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        // SAFETY: takes numbers only.
        unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    }
    pid
}

/// Ends a forked child without running the parent's exit handlers.
#[allow(unsafe_code)]
fn leave(code: i32) -> ! {
    // SAFETY: takes a number and does not return.
    unsafe { libc::_exit(code) }
}

/// How the child ended, 0 if well.
#[allow(unsafe_code)]
fn ended(child: i32) -> i32 {
    let mut status = -1;
    // SAFETY: waits for a child of this process, with a valid place for its status.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    status
}

/// Runs `child` in a fork of this process; how that ended, 0 if well.
fn fork(child: impl FnOnce()) -> i32 {
    let pid = fork_here();
    if pid == 0 {
        leave(i32::from(catch_unwind(AssertUnwindSafe(child)).is_err()));
    }
    ended(pid)
}

/// Forks again and again while other threads change the endpoint. Each child drops its copy, and must end.
#[allow(unsafe_code)]
fn fork_while_the_endpoint_is_busy() {
    let Rig { main, directory } = Rig::new();
    let renderer = IpcRenderer::builder().runtime_dir(directory.path()).connect("app").unwrap();
    let listener = || {
        let ours = Ours(std::process::id());
        move |_: &mut memit::Event<'_, str>, _: &str| {
            let _ours = &ours;
        }
    };
    main.on(NOTE, listener());
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| main.run().unwrap());
        for name in ["one", "other"] {
            let (main, stop) = (&main, &stop);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    main.off(main.on(Channel::<str>::new(name), listener()));
                }
            });
        }
        let notes = renderer.to(NOTE).unwrap();
        for _ in 0..200 {
            let mut guard = renderer.exclusive().unwrap();
            let ended = fork(|| {
                assert_eq!(guard.send(NOTE, "from the child"), Err(SendError::Forked));
                assert_eq!(renderer.send(NOTE, "from the child"), Err(SendError::Forked));
                assert_eq!(notes.send("from the child"), Err(SendError::Forked));
                assert_eq!(renderer.to(NOTE).unwrap_err(), SendError::Forked);
                assert_eq!(renderer.exclusive().unwrap_err(), ExclusiveError::Forked);
                assert_eq!(renderer.send_sync(ADD, &(1, 2)).unwrap_err(), CallError::Forked);
                assert_eq!(main.run_once(PATIENCE), Err(RunError::Forked));
                assert!(!main.off(main.on(NOTE, |_, _| {})));
                assert_eq!(main.listener_count(NOTE), 0);
                assert!(main.renderers().is_empty());
                assert!(main.broadcast(NOTE, "from the child").is_empty());
                main.shutdown();
                // SAFETY: the child has one thread, which is here and never comes back to the originals.
                drop(unsafe { std::ptr::read(&raw const main) });
                // SAFETY: as above.
                drop(unsafe { std::ptr::read(&raw const guard) });
                // SAFETY: as above.
                drop(unsafe { std::ptr::read(&raw const notes) });
                // SAFETY: as above.
                drop(unsafe { std::ptr::read(&raw const renderer) });
            });
            assert_eq!(ended, 0);
            guard.send(NOTE, "from the parent").unwrap();
        }
        stop.store(true, Ordering::Relaxed);
        assert_eq!(main.event_names()[0], NOTE.name());
        main.shutdown();
    });
}

#[test]
fn children_forked_at_any_moment_let_go_of_the_endpoint() {
    within_deadline(|| assert!(Process::start("child_process", "forks", "").succeeds()));
}

#[test]
fn a_child_forked_inside_a_listener_leaves_the_dispatch() {
    within_deadline(|| assert!(Process::start("child_process", "forks-inside", "").succeeds()));
}

/// A listener forks; in the child it returns, and so does the dispatch, which tells.
fn fork_inside_a_listener() {
    let rig = Rig::new();
    let ours = Ours(std::process::id());
    let parent = std::process::id();
    let (weak, log) = (rig.main.downgrade(), Log::<String>::default());
    rig.main.on(NOTE, move |event, _| {
        let (_ours, main) = (&ours, weak.upgrade().unwrap());
        // The child goes on from here, with the parent's stack.
        let pid = fork_here();
        if pid == 0 {
            assert_eq!(main.poll(), Err(RunError::Forked));
        } else {
            assert_eq!(ended(pid), 0);
        }
        drop(event.emitter().event_names());
    });
    let heard = log.clone();
    rig.main.on(NOTE, move |_, text| heard.push(text));
    rig.renderer().send(NOTE, "a").unwrap();
    let outcome = loop {
        match rig.main.run_once(PATIENCE) {
            Ok(_) if log.len() == 0 => {}
            outcome => break outcome,
        }
    };
    if std::process::id() != parent {
        let next = rig.main.run_once(PATIENCE);
        drop(rig);
        leave(i32::from(next != Err(RunError::Forked)));
    }
    outcome.unwrap();
}

#[test]
fn main_and_renderer_may_live_in_one_thread() {
    within_deadline(|| {
        for wait in [WaitStrategy::Spin, WaitStrategy::Park, WaitStrategy::Adaptive] {
            let rig = Rig::with(|main| main.wait(wait));
            let renderer = rig.builder().wait(wait).connect("app").unwrap();
            rig.main.on(NOTE, |event, text| event.reply(NOTE, &*format!("{text}!")));
            let heard = Log::<String>::default();
            let hears = heard.clone();
            renderer.on(NOTE, move |_, text| hears.push(text));
            for round in 1..100 {
                renderer.send(NOTE, "hello").unwrap();
                rig.until({
                    let mut handled = 0;
                    move || {
                        handled += 1;
                        handled > 1
                    }
                });
                until(|| renderer.run_once(PATIENCE), || heard.len() == round);
            }
            assert!(heard.take().iter().all(|text| text == "hello!"));
        }
    });
}

#[test]
fn dispatching_from_a_listener_or_from_a_second_thread_is_busy() {
    within_deadline(|| {
        let (rig, log) = (Rig::new(), Log::<RunError>::default());
        let (inner, errors) = (rig.main.downgrade(), log.clone());
        let (entered, inside) = mpsc::channel();
        let (leave, left) = mpsc::channel::<()>();
        rig.main.on(NOTE, move |_, _| {
            let main = inner.upgrade().unwrap();
            errors.push(main.run().unwrap_err());
            errors.push(main.run_once(PATIENCE).unwrap_err());
            errors.push(main.poll().unwrap_err());
            entered.send(()).unwrap();
            left.recv().unwrap();
        });
        let renderer = rig.renderer();
        let running = Running::start(&rig.main);
        renderer.send(NOTE, "now").unwrap();
        inside.recv_timeout(PATIENCE).unwrap();
        assert_eq!(rig.main.poll().unwrap_err(), RunError::Busy(Busy));
        assert_eq!(rig.main.run().unwrap_err(), RunError::Busy(Busy));
        leave.send(()).unwrap();
        assert_eq!(log.take(), [RunError::Busy(Busy), RunError::Busy(Busy), RunError::Busy(Busy)]);
        drop(running);
    });
}

#[test]
fn a_renderer_may_be_dispatched_from_a_mains_listener() {
    within_deadline(|| {
        let (rig, log) = (Rig::new(), Log::<String>::default());
        let renderer = rig.renderer();
        let (heard, inner) = (log.clone(), renderer.clone());
        renderer.on(NOTE, move |_, text| heard.push(text));
        rig.main.on(NOTE, move |event, text| {
            event.reply(NOTE, text)?;
            until(|| inner.run_once(PATIENCE), || log.len() == 1);
            log.push("after");
            memit::ok()
        });
        renderer.send(NOTE, "nested").unwrap();
        rig.main.run_once(PATIENCE).unwrap();
        renderer.send(NOTE, "nested").unwrap();
    });
}

#[test]
fn who_comes_and_goes_is_told_with_the_reason() {
    within_deadline(|| {
        let (rig, log) = (Rig::new(), Log::<String>::default());
        let (comes, goes) = (log.clone(), log.clone());
        rig.main.on_connect(move |sender| {
            comes.push(format!("{} comes", sender.peer().id));
            sender.send(NOTE, "welcome")
        });
        rig.main.on_disconnect(move |peer, reason| goes.push(format!("{} goes: {reason}", peer.id)));
        let last_words = log.clone();
        rig.main.on(NOTE, move |event, text| last_words.push(format!("{} says {text}", event.peer().id)));

        let (first, second) = (rig.renderer(), rig.renderer());
        let (one, two) = (first.sender().peer().id, second.sender().peer().id);
        rig.until(|| log.len() == 2);
        let mut arrivals = log.take();
        arrivals.sort();
        assert_eq!(arrivals, [format!("{one} comes"), format!("{two} comes")]);
        assert_eq!(rig.main.renderers().len(), 2);

        let (welcomed, welcomes) = mpsc::channel();
        second.on(NOTE, move |_, text| welcomed.send(text.to_owned()));
        until(|| second.run_once(PATIENCE), || welcomes.try_recv().as_deref() == Ok("welcome"));

        first.send(NOTE, "bye").unwrap();
        drop(first);
        rig.until(|| log.len() == 2);
        assert_eq!(log.take(), [format!("{one} says bye"), format!("{one} goes: {}", Disconnect::Left)]);
        assert_eq!(rig.main.renderers().len(), 1);
        assert_eq!(rig.main.renderers()[0].peer().id, two);
    });
}

#[test]
fn a_renderer_is_told_of_its_main_too() {
    within_deadline(|| {
        let (rig, log) = (Rig::new(), Log::<String>::default());
        let renderer = rig.renderer();
        let (comes, goes) = (log.clone(), log.clone());
        renderer.on_connect(move |_| comes.push("comes"));
        renderer.on_disconnect(move |_, reason| goes.push(format!("goes: {reason}")));
        until(|| renderer.run_once(PATIENCE), || log.len() == 1);
        rig.main.shutdown();
        until(|| renderer.run_once(PATIENCE), || log.len() == 2);
        assert_eq!(log.take(), ["comes".to_owned(), format!("goes: {}", Disconnect::Left)]);
        assert_eq!(renderer.poll().unwrap_err(), RunError::Disconnected(Disconnect::Left));
        assert_eq!(renderer.run_once(PATIENCE).unwrap_err(), RunError::Disconnected(Disconnect::Left));
        assert_eq!(renderer.run(), Ok(()), "its main left in peace");
    });
}

#[test]
fn shutdown_ends_run_and_drops_the_listeners_and_later_dispatching_says_so() {
    within_deadline(|| {
        let rig = Rig::new();
        let (told, tells) = mpsc::channel();
        let tell = Tell(told);
        rig.main.on(NOTE, move |_, _| {
            let _ = &tell;
        });
        let main = rig.main.clone();
        let running = thread::spawn(move || main.run());
        rig.renderer().send(NOTE, "is it running").unwrap();
        rig.main.shutdown();
        assert_eq!(running.join().unwrap(), Ok(()));
        tells.recv_timeout(PATIENCE).unwrap();
        assert_eq!(rig.main.poll().unwrap_err(), RunError::ShutDown);
        assert_eq!(rig.main.run_once(PATIENCE).unwrap_err(), RunError::ShutDown);
        assert_eq!(rig.main.run(), Ok(()));
        assert!(rig.main.event_names().is_empty());
        rig.main.on(NOTE, |_, _| {});
        assert_eq!(rig.main.listener_count(NOTE), 0, "it takes no more");
    });
}

#[test]
fn who_dispatches_beside_a_shutdown_is_told_of_it() {
    within_deadline(|| {
        let rig = Rig::new();
        let ((inside, is_inside), (leave, leaves)) = (mpsc::channel(), mpsc::channel::<()>());
        rig.main.on(NOTE, move |_, _| {
            inside.send(()).unwrap();
            leaves.recv_timeout(PATIENCE).unwrap();
        });
        let main = rig.main.clone();
        let running = thread::spawn(move || main.run());
        rig.renderer().send(NOTE, "stay inside").unwrap();
        is_inside.recv_timeout(PATIENCE).unwrap();
        assert!(matches!(rig.main.poll(), Err(RunError::Busy(_))));
        rig.main.shutdown();
        assert_eq!(rig.main.poll().unwrap_err(), RunError::ShutDown);
        assert_eq!(rig.main.run(), Ok(()));
        leave.send(()).unwrap();
        assert_eq!(running.join().unwrap(), Ok(()));
    });
}

#[test]
fn a_listener_may_shut_its_endpoint_down() {
    within_deadline(|| {
        let rig = Rig::new();
        let (told, tells) = mpsc::channel();
        let (tell, weak) = (Tell(told), rig.main.downgrade());
        rig.main.on(NOTE, move |_, _| {
            weak.upgrade().unwrap().shutdown();
            assert!(tells.try_recv().is_err(), "not while it runs");
            let _ = &tell;
        });
        let renderer = rig.renderer();
        renderer.send(NOTE, "stop").unwrap();
        assert_eq!(rig.main.run(), Ok(()));
        assert_eq!(renderer.run(), Ok(()));
        assert!(matches!(renderer.send(NOTE, "x"), Err(SendError::Disconnected(Disconnect::Left))));
    });
}

#[test]
fn the_last_handle_ends_the_endpoint_and_weak_ones_do_not_keep_it() {
    within_deadline(|| {
        let Rig { main, directory } = Rig::new();
        let (told, tells) = mpsc::channel();
        let (tell, weak) = (Tell(told), main.downgrade());
        main.on(NOTE, {
            let weak = weak.clone();
            move |_, _| {
                let _ = (&tell, &weak);
            }
        });
        let second = weak.upgrade().unwrap();
        let renderer = IpcRenderer::builder().runtime_dir(directory.path()).connect("app").unwrap();
        let weak_renderer = renderer.downgrade();
        drop(main);
        assert!(renderer.sender().is_connected() && tells.try_recv().is_err(), "one handle is left");
        drop(second);
        tells.recv_timeout(PATIENCE).unwrap();
        assert!(weak.upgrade().is_none());
        assert_eq!(renderer.run(), Ok(()));

        let main = IpcMain::builder().runtime_dir(directory.path()).bind("app").expect("the name is free again");
        let renderer = IpcRenderer::builder().runtime_dir(directory.path()).connect("app").unwrap();
        let sender = weak_renderer.upgrade().unwrap().sender().clone();
        assert!(!sender.is_connected(), "that was the old one");
        let kept = renderer.sender().clone();
        drop(renderer);
        assert!(matches!(kept.send(NOTE, "x"), Err(SendError::Disconnected(Disconnect::ShutDown))));
        assert_eq!(kept.send_sync(ADD, &(1, 2)).unwrap_err(), CallError::Disconnected(Disconnect::ShutDown));
        drop(main);
    });
}

#[test]
fn a_name_is_bound_once_and_an_unknown_one_is_refused() {
    within_deadline(|| {
        let rig = Rig::new();
        let again = IpcMain::builder().runtime_dir(rig.directory.path()).bind("app");
        assert!(matches!(again.unwrap_err(), BindError::NameTaken { .. }));
        assert!(matches!(rig.builder().connect("nobody").unwrap_err(), ConnectError::NotRunning { .. }));
        assert!(matches!(rig.builder().connect("no/body").unwrap_err(), ConnectError::NameInvalid { .. }));
        assert!(matches!(IpcMain::bind("").unwrap_err(), BindError::NameInvalid { .. }));
    });
}

#[test]
fn a_main_may_refuse_whom_it_does_not_want() {
    within_deadline(|| {
        let rig = Rig::with(|main| main.authorize(|who| who.uid == u32::MAX - 1));
        assert!(matches!(rig.builder().connect("app").unwrap_err(), ConnectError::Unauthorized { .. }));
    });
}

#[test]
fn poll_and_run_once_return_without_a_message() {
    within_deadline(|| {
        let rig = Rig::new();
        assert_eq!(rig.main.poll(), Ok(0));
        let began = Instant::now();
        assert_eq!(rig.main.run_once(Duration::from_millis(20)), Ok(0));
        assert!(began.elapsed() >= Duration::from_millis(20));
        assert_eq!(rig.main.run_once(Duration::ZERO), Ok(0));
    });
}

#[test]
fn the_descriptor_is_readable_while_there_is_something_to_dispatch() {
    within_deadline(|| {
        let rig = Rig::new();
        let readable = |wait: Duration| {
            let mut fds = [PollFd::new(&rig.main, PollFlags::IN)];
            poll(&mut fds, Some(&Timespec::try_from(wait).unwrap())).unwrap() == 1
        };
        let settle = || {
            while readable(Duration::ZERO) {
                rig.main.poll().unwrap();
            }
        };
        let log = Log::<String>::default();
        let heard = log.clone();
        rig.main.on(NOTE, move |_, text| heard.push(text));
        let _ = rig.main.as_fd();
        let renderer = rig.renderer();
        assert!(readable(PATIENCE), "somebody came");
        settle();
        for round in 1..50 {
            assert!(!readable(Duration::ZERO));
            renderer.send(NOTE, "x").unwrap();
            while log.len() < round {
                assert!(readable(PATIENCE), "a message came");
                rig.main.poll().unwrap();
            }
            settle();
        }
        drop(renderer);
        assert!(readable(PATIENCE), "somebody went");
    });
}

#[test]
fn a_broadcast_reaches_everyone_and_returns_those_it_did_not_reach() {
    within_deadline(|| {
        let rig = Rig::new();
        let renderers: Vec<_> = (0..3).map(|_| rig.renderer()).collect();
        rig.until(|| rig.main.renderers().len() == 3);
        let logs: Vec<_> = renderers
            .iter()
            .map(|renderer| {
                let log = Log::<String>::default();
                let heard = log.clone();
                renderer.on(NOTE, move |_, text| heard.push(text));
                log
            })
            .collect();
        assert!(rig.main.broadcast(NOTE, "to all").is_empty());
        for (renderer, log) in renderers.iter().zip(&logs) {
            until(|| renderer.run_once(PATIENCE), || log.len() == 1);
            assert_eq!(log.take(), ["to all"]);
        }

        let stalled = renderers[1].sender().peer().id;
        let filler = vec![0; 16 << 10];
        let to_stalled = rig.main.renderers().into_iter().find(|sender| sender.peer().id == stalled).unwrap();
        while to_stalled.try_send(BYTES, &*filler).is_ok() {}
        let failed = rig.main.broadcast(BYTES, &*filler);
        assert_eq!(failed.len(), 1);
        assert_eq!(failed[0].0.peer().id, stalled);
        assert!(matches!(failed[0].1, SendError::Full { .. }));
        assert!(
            rig.main.broadcast(BYTES, &vec![0; 1 << 20]).iter().all(|(_, e)| matches!(e, SendError::TooLarge { .. }))
        );
    });
}

#[test]
fn a_try_send_that_is_refused_loses_nothing() {
    within_deadline(|| {
        let (rig, log) = (Rig::new(), Log::<u64>::default());
        const NUMBERED: Channel<[u64]> = Channel::new("numbered");
        let heard = log.clone();
        rig.main.on(NUMBERED, move |_, numbers| heard.push(numbers[0]));
        let renderer = rig.builder().ring_capacity(4096).connect("app").unwrap();
        let mut accepted = 0;
        for round in 0..50 {
            loop {
                match renderer.try_send(NUMBERED, &[accepted; 12]) {
                    Ok(()) => accepted += 1,
                    Err(SendError::Full { .. }) => break,
                    Err(error) => panic!("{error}"),
                }
            }
            assert!(matches!(
                renderer.send_timeout(NUMBERED, &[0; 12], Duration::from_millis(1)),
                Err(SendError::Timeout { .. })
            ));
            rig.until(|| log.len() as u64 == accepted);
            assert!(accepted > round);
        }
        assert_eq!(log.take(), (0..accepted).collect::<Vec<_>>());
    });
}

#[test]
fn the_dispatching_thread_never_waits_for_a_peer_that_does_not_read() {
    within_deadline(|| {
        let rig = Rig::with(|main| main.ring_capacity(4096).backlog_limit(256 << 10));
        let log = Log::<SendError>::default();
        let errors = log.clone();
        rig.main.on("flood", move |event, _| {
            for number in 0..10_000u64 {
                if let Err(error) = event.reply(BYTES, &number.to_le_bytes()) {
                    errors.push(error);
                    return;
                }
            }
        });
        let renderer = rig.renderer();
        renderer.send("flood", &memit::args![]).unwrap();
        rig.until(|| log.len() == 1);
        assert!(matches!(log.take()[..], [SendError::Full { .. }]));

        let numbers = Log::<u64>::default();
        let heard = numbers.clone();
        renderer.on(BYTES, move |_, bytes| heard.push(u64::from_le_bytes(bytes.try_into().unwrap())));
        let _running = Running::start(&rig.main);
        until(|| renderer.run_once(PATIENCE), || numbers.len() > 1000);
        let numbers = numbers.take();
        assert_eq!(numbers, (0..numbers.len() as u64).collect::<Vec<_>>(), "what was queued arrives, in order");
    });
}

#[test]
fn a_peer_cannot_imitate_what_is_not_a_message() {
    within_deadline(|| {
        let (rig, log) = (Rig::new(), Log::<String>::default());
        rig.main.on_error(|_| unexpected("no error"));
        rig.main.on_disconnect(|_, _| unexpected("nobody went"));
        let heard = log.clone();
        rig.main.on_any(move |_, name, _| heard.push(name));
        let renderer = rig.renderer();
        let names = ["error", "connect", "disconnect", "on_error", "newListener", ""];
        for name in names {
            renderer.send(name, &memit::args![]).unwrap();
        }
        rig.until(|| log.len() == names.len());
        assert_eq!(log.take(), names);
    });
}
