//! Processes that are killed with SIGKILL in the middle of their work.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::collections::HashMap;
use std::fs;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use common::{DEADLINE, Process, role, say, within_deadline};
use memit::{CallError, Channel, Disconnect, IpcMain, IpcRenderer, SendError};
use tempfile::TempDir;

const COUNT: Channel<u64> = Channel::new("count");
const HELLO: Channel<u64> = Channel::new("hello");
const ASK: Channel<u64, u64> = Channel::new("ask");
const ENTRY: &str = "child_process";

/// What the other tests start as a child; nothing by itself.
#[test]
fn child_process() {
    let Some((role, dir)) = role() else { return };
    match role.as_str() {
        "stream" => stream(&dir, None),
        "stream-then-leave" => stream(&dir, Some(100_000)),
        "fork-and-stream" => {
            fork_a_child_that_stays();
            stream(&dir, None);
        }
        "fork-while-connected" => {
            let renderer = IpcRenderer::builder().runtime_dir(&*dir).connect("app").unwrap();
            renderer.send(HELLO, &u64::from(std::process::id())).unwrap();
            fork_a_child_that_stays();
            stream_on(&renderer, None);
        }
        "main" => {
            let main = IpcMain::builder().runtime_dir(&*dir).bind("app").unwrap();
            main.on(ASK, |_, _| {
                say("asked");
                // This process is killed before it could answer.
                while std::env::var_os(ENTRY).is_none() {
                    std::thread::park();
                }
            });
            say("bound");
            main.run().unwrap();
        }
        "fork-in-listener" => fork_in_listener(&dir),
        unknown => panic!("unknown role {unknown}"),
    }
}

/// Held by each test: they count what the process has open.
static ALONE: Mutex<()> = Mutex::new(());

/// Counts up as fast as it can, for ever or up to `end`.
fn stream(dir: &str, end: Option<u64>) {
    let renderer = IpcRenderer::builder().runtime_dir(dir).connect("app").unwrap();
    renderer.send(HELLO, &u64::from(std::process::id())).unwrap();
    stream_on(&renderer, end);
}

fn stream_on(renderer: &IpcRenderer, end: Option<u64>) {
    let mut count = 0;
    while end.is_none_or(|end| count < end) {
        renderer.send(COUNT, &count).unwrap();
        count += 1;
    }
}

/// Forks a grandchild that outlives this process, with all descriptors it inherits, until the test ends it.
#[allow(unsafe_code)]
fn fork_a_child_that_stays() {
    // SAFETY: the child makes one system call, again and again, which is async-signal-safe.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        loop {
            // SAFETY: as above.
            unsafe { libc::pause() };
        }
    }
    say(&pid.to_string());
}

/// A main whose listener forks. The child goes on where it is, cannot dispatch any more, and drops it.
#[allow(unsafe_code)]
fn fork_in_listener(dir: &str) {
    let main = IpcMain::builder().runtime_dir(dir).bind("app").unwrap();
    let child = Arc::new(AtomicI32::new(-1));
    let forked = Arc::clone(&child);
    main.on(HELLO, move |_, _| {
        // SAFETY: of this process's threads only this one goes on in the child, and it takes no lock of the others:
        // it returns to the dispatching loop, drops the endpoint and ends.
        forked.store(unsafe { libc::fork() }, Ordering::Relaxed);
    });
    say("bound");
    loop {
        let turn = main.run_once(Duration::MAX);
        match child.load(Ordering::Relaxed) {
            -1 => _ = turn.unwrap(),
            0 => {
                let ended = turn.is_ok() && main.run_once(Duration::MAX).is_err();
                let refused = main.renderers().is_empty();
                drop(main);
                // SAFETY: ends the child at once.
                unsafe { libc::_exit(if ended && refused { 0 } else { 1 }) };
            }
            pid => {
                turn.unwrap();
                let mut status = -1;
                // SAFETY: waits for the child; `status` is a place for what it says.
                unsafe { libc::waitpid(pid, &raw mut status, 0) };
                say(&format!("the child ended with {status}"));
                // The parent's connection is as before.
                main.run().unwrap();
                return;
            }
        }
    }
}

/// Ends a grandchild when the test ends, however it does.
struct Grandchild(i32);

impl Drop for Grandchild {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        // SAFETY: sends a signal to a process that the test started.
        unsafe { libc::kill(self.0, libc::SIGKILL) };
    }
}

#[derive(Default)]
struct Seen {
    /// What each renderer counted up to, and whether a number was missing.
    counts: HashMap<u64, u64>,
    gaps: usize,
    hello: HashMap<u64, u64>,
    left: HashMap<u64, Disconnect>,
}

fn bind(dir: &TempDir) -> (IpcMain, Arc<Mutex<Seen>>) {
    let main = IpcMain::builder().runtime_dir(dir.path().join("run")).bind("app").unwrap();
    let seen = Arc::new(Mutex::new(Seen::default()));
    let at = Arc::clone(&seen);
    main.on(COUNT, move |event, count| {
        let mut seen = at.lock().unwrap();
        let next = seen.counts.entry(event.peer().id).or_default();
        let gap = *next != count.to_native();
        *next = count.to_native() + 1;
        seen.gaps += usize::from(gap);
    });
    let at = Arc::clone(&seen);
    main.on(HELLO, move |event, pid| {
        at.lock().unwrap().hello.insert(pid.to_native(), event.peer().id);
    });
    let at = Arc::clone(&seen);
    main.on_disconnect(move |peer, reason| {
        at.lock().unwrap().left.insert(peer.id, reason.clone());
    });
    (main, seen)
}

fn run_until(main: &IpcMain, seen: &Mutex<Seen>, what: &str, done: impl Fn(&Seen) -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !done(&seen.lock().unwrap()) {
        assert!(Instant::now() < deadline, "{what} did not happen within {DEADLINE:?}");
        main.run_once(Duration::from_millis(100)).unwrap();
    }
}

/// Open descriptors, but for the pipes through which the test hears its children.
fn descriptors() -> usize {
    let open = fs::read_dir("/proc/self/fd").unwrap().flatten();
    open.filter(|entry| fs::read_link(entry.path()).is_ok_and(|to| !to.to_string_lossy().starts_with("pipe:"))).count()
}

fn outbox_maps() -> usize {
    fs::read_to_string("/proc/self/maps").unwrap().lines().filter(|line| line.contains("memfd:memit")).count()
}

fn shared_memory_files() -> Vec<String> {
    let files = fs::read_dir("/dev/shm").map(|dir| dir.flatten().map(|entry| entry.file_name()).collect());
    let mut files: Vec<_> = files.unwrap_or_else(|_| Vec::new());
    files.sort();
    files.into_iter().map(|name| name.to_string_lossy().into_owned()).collect()
}

/// A renderer is killed while it streams; main goes on with the other, and keeps nothing of the dead.
fn killed_while_streaming(killed_role: &'static str) {
    within_deadline(move || {
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path().join("run").to_string_lossy().into_owned();
        let files_before = shared_memory_files();
        let (main, seen) = bind(&dir);
        let survivor = Process::start(ENTRY, "stream", &run);
        let survivor_id = {
            run_until(&main, &seen, "the survivor's greeting", |seen| {
                seen.hello.contains_key(&u64::from(survivor.id()))
            });
            seen.lock().unwrap().hello[&u64::from(survivor.id())]
        };
        let (descriptors_before, maps_before) = (descriptors(), outbox_maps());

        let mut victim = Process::start(ENTRY, killed_role, &run);
        let pid = u64::from(victim.id());
        run_until(&main, &seen, "the victim's stream", |seen| {
            seen.hello.get(&pid).is_some_and(|id| seen.counts.get(id).is_some_and(|count| *count > 10_000))
        });
        let _grandchild = killed_role
            .starts_with("fork")
            .then(|| Grandchild(victim.hear().expect("the victim tells its child's number").parse().unwrap()));
        let victim_id = seen.lock().unwrap().hello[&pid];
        victim.kill();
        run_until(&main, &seen, "the victim's end", |seen| seen.left.contains_key(&victim_id));
        assert_eq!(seen.lock().unwrap().left[&victim_id], Disconnect::Died);

        let so_far = seen.lock().unwrap().counts[&survivor_id];
        run_until(&main, &seen, "more from the survivor", |seen| seen.counts[&survivor_id] > so_far + 10_000);
        assert_eq!(seen.lock().unwrap().gaps, 0, "every message came once and in order");
        assert_eq!(main.renderers().len(), 1);
        assert_eq!((descriptors(), outbox_maps()), (descriptors_before, maps_before), "nothing of it is left open");
        assert_eq!(shared_memory_files(), files_before);
    });
}

#[test]
fn a_renderer_killed_while_it_streams_leaves_nothing_behind() {
    killed_while_streaming("stream");
}

#[test]
fn a_renderer_killed_while_it_streams_is_gone_though_a_child_it_forked_before_connecting_lives() {
    killed_while_streaming("fork-and-stream");
}

#[test]
fn a_renderer_killed_while_it_streams_is_gone_though_a_child_it_forked_while_connected_lives() {
    killed_while_streaming("fork-while-connected");
}

#[test]
fn what_a_renderer_sent_before_its_end_is_delivered_though_nobody_dispatched_then() {
    within_deadline(|| {
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path().join("run").to_string_lossy().into_owned();
        let (main, seen) = bind(&dir);
        let mut renderer = Process::start(ENTRY, "stream-then-leave", &run);
        run_until(&main, &seen, "the renderer's end", |seen| !seen.left.is_empty());
        assert!(renderer.succeeds());
        let seen = seen.lock().unwrap();
        assert_eq!(seen.counts.values().copied().collect::<Vec<_>>(), [100_000]);
        assert_eq!(seen.gaps, 0);
        assert!(seen.left.values().all(|reason| *reason == Disconnect::Left));
    });
}

#[test]
fn a_main_killed_inside_a_call_ends_it_at_once_and_its_name_is_free() {
    within_deadline(|| {
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path().join("run").to_string_lossy().into_owned();
        let mut killed = Process::start(ENTRY, "main", &run);
        assert_eq!(killed.hear().as_deref(), Some("bound"));
        let renderer = IpcRenderer::builder().runtime_dir(&run).connect("app").unwrap();
        std::thread::scope(|scope| {
            let caller = scope.spawn(|| renderer.send_sync(ASK, &1).map(|reply| reply.to_native()));
            assert_eq!(killed.hear().as_deref(), Some("asked"));
            let full = scope.spawn(|| {
                loop {
                    if let Err(error) = renderer.send(COUNT, &0) {
                        return error;
                    }
                }
            });
            killed.kill();
            assert!(matches!(caller.join().unwrap(), Err(CallError::Disconnected(_))));
            assert!(matches!(full.join().unwrap(), SendError::Disconnected(_)));
        });
        let _next = IpcMain::builder().runtime_dir(&run).bind("app").unwrap();
    });
}

#[test]
fn a_child_forked_inside_a_listener_cannot_dispatch_and_does_the_parent_no_harm() {
    within_deadline(|| {
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path().join("run").to_string_lossy().into_owned();
        let forking = Process::start(ENTRY, "fork-in-listener", &run);
        assert_eq!(forking.hear().as_deref(), Some("bound"));
        let renderer = IpcRenderer::builder().runtime_dir(&run).connect("app").unwrap();
        renderer.send(HELLO, &1).unwrap();
        assert_eq!(forking.hear().as_deref(), Some("the child ended with 0"));
        assert!(matches!(renderer.send_sync(ASK, &1), Err(CallError::NoListener)), "the parent dispatches");
    });
}
