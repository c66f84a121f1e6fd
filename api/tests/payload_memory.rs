//! What large payloads cost in memory, between processes: bounded while they stream, and all of it back when one side is
//! killed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::cast_possible_truncation)]

mod support;

use std::{
    collections::VecDeque,
    fs,
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use memit::{Channel, Disconnect, IpcMain, IpcRenderer, Retained, SendError, Trust};
use support::{
    Log, PATIENCE, Rig,
    common::{Process, role, say},
    until, within_deadline,
};

const CHUNK: Channel<[u8]> = Channel::new("chunk");
const KEEP: Channel<[u8]> = Channel::new("keep");

const DROP: Channel<(), u64> = Channel::new("drop");
const COUNTED: Channel<(), (u64, u64)> = Channel::new("counted");
const READY: Channel<u64> = Channel::new("ready");

const MIB: usize = 1 << 20;
const LIMIT: usize = 64 * MIB;
const EXTENT: usize = 4 * MIB;
/// Beyond payloads a connection has two outboxes in shared memory.
const OUTBOXES: usize = 4 * MIB;

/// Held by each test: they look at the process's memory.
static ALONE: Mutex<()> = Mutex::new(());

/// What the other tests start as a child; nothing by itself.
#[test]
fn child_process() {
    let Some((role, directory)) = role() else { return };
    if role == "main" {
        return lead(&directory);
    }
    let trust = if role == "trusting-keeper" { full_trust() } else { Trust::None };
    let renderer = IpcRenderer::builder().runtime_dir(directory).trust(trust).connect("app").unwrap();
    match role.as_str() {
        "receiver" => receive(&renderer),
        "keeper" | "trusting-keeper" => keep(&renderer),
        "source" => source(&renderer),
        unknown => panic!("unknown role {unknown}"),
    }
}

#[allow(unsafe_code)]
fn full_trust() -> Trust {
    // SAFETY: every process of these tests is this very binary, which keeps the protocol.
    unsafe { Trust::full() }
}

/// Counts what it gets, and keeps the last few of it.
fn receive(renderer: &IpcRenderer) {
    let mut window = VecDeque::new();
    let counted = Log::<(u64, u64)>::default();
    let (counting, mut total) = (counted.clone(), (0, 0));
    renderer.on(CHUNK, move |event, chunk| {
        let (first, last) = (chunk[0], chunk[chunk.len() - 1]);
        assert!(chunk.len() < 2 || first == last, "the ends of a chunk of {} bytes", chunk.len());
        total = (total.0 + 1, total.1 + chunk.len() as u64);
        counting.take();
        counting.push(total);
        window.push_back(event.retain());
        if window.len() > 4 {
            let oldest = window.pop_front().unwrap();
            assert_eq!(oldest.first(), oldest.last(), "a kept chunk has not changed");
        }
    });
    renderer.on(COUNTED, move |event, ()| event.set_return_value(&counted.take().pop().unwrap_or((0, 0))));
    renderer.send(READY, &0).unwrap();
    renderer.run().unwrap();
}

/// Keeps everything until it is told to drop it.
fn keep(renderer: &IpcRenderer) {
    let kept = Log::<Retained<[u8]>>::default();
    let keeping = kept.clone();
    renderer.on(KEEP, move |event, _| keeping.push(event.retain()));
    renderer.on(DROP, move |event, ()| {
        let dropped = kept.take();
        assert!(dropped.iter().all(is_whole), "a kept chunk changed");
        event.set_return_value(&(dropped.len() as u64))
    });
    renderer.send(READY, &0).unwrap();
    renderer.run().unwrap();
}

/// Sends chunks of its own as soon as it can, and for ever.
fn source(renderer: &IpcRenderer) {
    renderer.send(READY, &0).unwrap();
    for number in 0_u64.. {
        let len = [MIB, EXTENT + MIB, 3 * MIB][(number % 3) as usize];
        if renderer.send(CHUNK, &vec![(number % 251) as u8; len][..]).is_err() {
            return;
        }
    }
}

/// A main that sends chunks to the first renderer, for ever.
fn lead(directory: &str) {
    let main = IpcMain::builder().runtime_dir(directory).bind("app").unwrap();
    say("bound");
    while main.renderers().is_empty() {
        main.run_once(PATIENCE).unwrap();
    }
    let renderer = main.renderers().remove(0);
    for number in 0_u64.. {
        let len = [MIB, EXTENT + MIB, 3 * MIB][(number % 3) as usize];
        renderer.send(CHUNK, &vec![(number % 251) as u8; len][..]).unwrap();
    }
}

/// What the process has resident, in bytes: shared memory, and all.
fn resident(pid: u32) -> (usize, usize) {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().trim_end_matches(" kB").trim().parse::<usize>().unwrap() * 1024
    };
    (field("RssShmem:"), field("VmRSS:"))
}

/// Bytes of memit's shared memory that are mapped, of that kind.
fn mapped(kind: &str) -> usize {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let ours = maps.lines().filter(|line| line.contains(&format!("memfd:memit-{kind}")));
    ours.map(|line| {
        let (from, to) = line.split_once(' ').unwrap().0.split_once('-').unwrap();
        usize::from_str_radix(to, 16).unwrap() - usize::from_str_radix(from, 16).unwrap()
    })
    .sum()
}

fn descriptors() -> usize {
    let open = fs::read_dir("/proc/self/fd").unwrap().flatten();
    open.filter(|entry| fs::read_link(entry.path()).is_ok_and(|to| to.to_string_lossy().contains("memfd"))).count()
}

fn rig(trust: Trust) -> Rig {
    Rig::with(|main| main.arena_limit(LIMIT).extent_size(EXTENT).trust(trust))
}

fn start(rig: &Rig, role: &str) -> (Process, memit::Sender) {
    let ready = Log::<u64>::default();
    let seen = ready.clone();
    let id = rig.main.on(READY, move |event, _| seen.push(event.peer().id));
    let child = Process::start("child_process", role, rig.directory.path().to_str().unwrap());
    rig.until(|| ready.len() == 1);
    rig.main.remove_listener(READY, id);
    let id = ready.take()[0];
    (child, rig.main.renderers().into_iter().find(|renderer| renderer.peer().id == id).unwrap())
}

#[test]
fn ten_gigabytes_of_payloads_go_through_the_limit_and_neither_side_grows() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    within_deadline(|| {
        let rig = rig(Trust::None);
        let (child, renderer) = start(&rig, "receiver");
        let largest = EXTENT + MIB;
        let mut chunk = vec![0; largest];
        let before = [resident(std::process::id()), resident(child.id())];
        let (mut count, mut bytes) = (0_u64, 0_u64);
        while bytes < 10_000_000_000 {
            // Blocks of many sizes, and every now and then one that has memory of its own.
            let len = if count.is_multiple_of(64) { largest } else { (count as usize * 7919 * 64) % EXTENT + 1 };
            let mark = (count % 251) as u8;
            (chunk[0], chunk[len - 1]) = (mark, mark);
            renderer.send(CHUNK, &chunk[..len]).unwrap();
            count += 1;
            bytes += len as u64;
            if count.is_multiple_of(100) {
                for (pid, before) in [std::process::id(), child.id()].into_iter().zip(before) {
                    let (shared, all) = resident(pid);
                    // One message that is larger than an extent may pass the limit; the receiver keeps copies of five.
                    assert!(shared <= LIMIT + largest + OUTBOXES, "{shared} bytes of shared memory after {bytes}");
                    let private = (all - shared).saturating_sub(before.1 - before.0);
                    assert!(private <= 8 * largest, "{private} bytes more of private memory after {bytes}");
                }
            }
        }
        let counted = renderer.send_sync_timeout(COUNTED, &(), PATIENCE).unwrap().into_owned();
        assert_eq!(counted, (count, bytes));
    });
}

/// Sends messages of `len` bytes until no more go; how many went.
fn fill(renderer: &memit::Sender, len: usize) -> usize {
    let chunk = vec![7; len];
    for sent in 0.. {
        match renderer.send_timeout(KEEP, &chunk[..], Duration::from_millis(100)) {
            Ok(()) => assert!((sent + 1) * len <= LIMIT + len, "{sent} messages of {len} bytes are kept"),
            Err(SendError::Timeout { len: said }) => {
                assert_eq!(said, len);
                return sent;
            }
            Err(other) => panic!("{other}"),
        }
    }
    unreachable!()
}

fn sender_of_a_receiver_that_keeps_everything(keeper: &'static str, lens: &'static [usize]) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    within_deadline(move || {
        let rig = rig(Trust::None);
        let (child, renderer) = start(&rig, keeper);
        for &len in lens {
            let sent = fill(&renderer, len);
            assert!((sent + 1) * len + EXTENT >= LIMIT, "only {sent} messages of {len} bytes went");
            assert!(matches!(renderer.try_send(KEEP, &vec![7; len][..]), Err(SendError::Full { .. })));
            for pid in [std::process::id(), child.id()] {
                let (shared, _) = resident(pid);
                assert!(shared <= LIMIT + len + OUTBOXES, "{shared} bytes of shared memory");
            }
            let waiting = renderer.clone();
            let waiter = thread::spawn(move || waiting.send(KEEP, &vec![7; len][..]));
            let dropped = renderer.send_sync_timeout(DROP, &(), PATIENCE).unwrap().to_native();
            assert!((sent..=sent + 1).contains(&(dropped as usize)), "a small call passes what is kept");
            waiter.join().unwrap().unwrap();
            let dropped = dropped + renderer.send_sync_timeout(DROP, &(), PATIENCE).unwrap().to_native();
            assert_eq!(dropped as usize, sent + 1);
        }
    });
}

#[test]
fn a_receiver_that_keeps_every_sealed_payload_makes_its_sender_fail_or_wait_and_not_grow() {
    sender_of_a_receiver_that_keeps_everything("keeper", &[EXTENT + 1, 3 * EXTENT]);
}

#[test]
fn a_trusting_receiver_that_keeps_every_payload_makes_its_sender_fail_or_wait_and_not_grow() {
    sender_of_a_receiver_that_keeps_everything("trusting-keeper", &[MIB, EXTENT]);
}

fn sender_killed(trust: fn() -> Trust) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    within_deadline(move || {
        let rig = rig(trust());
        let (_survivor, survivor) = start(&rig, "receiver");
        let before = memory();
        let (kept, gone) = (Log::<Retained<[u8]>>::default(), Log::<Disconnect>::default());
        let (keeping, ended) = (kept.clone(), gone.clone());
        rig.main.on(CHUNK, move |event, _| keeping.push(event.retain()));
        rig.main.on_disconnect(move |_, reason| ended.push(reason.clone()));
        let (mut victim, _) = start(&rig, "source");
        rig.until(|| kept.len() >= 6);
        victim.kill();
        rig.until(|| gone.len() == 1);
        assert_eq!(gone.take(), [Disconnect::Died]);
        let held = kept.take();
        assert!(mapped("payload") > EXTENT, "sealed payloads are kept where they are");
        assert!(held.iter().all(is_whole), "what was kept is whole after the sender's death");
        drop(held);
        comes_down_to(before);
        survivor.send(CHUNK, &vec![1; 2 * MIB][..]).unwrap();
        assert_eq!(survivor.send_sync_timeout(COUNTED, &(), PATIENCE).unwrap().into_owned(), (1, 2 * MIB as u64));
    });
}

fn is_whole(chunk: &Retained<[u8]>) -> bool {
    // As one comparison of memory: byte by byte a debug build takes many seconds for all that is kept.
    let bytes: &[u8] = chunk;
    bytes[1..] == bytes[..bytes.len() - 1]
}

/// What memit has mapped of each kind, and its open descriptors.
fn memory() -> ([usize; 3], usize) {
    (["extent", "payload", "outbox"].map(mapped), descriptors())
}

/// Waits until this is all that is left. The library's thread may look at a connection that has just ended, and then is
/// the last to let go of it.
#[track_caller]
fn comes_down_to(expected: ([usize; 3], usize)) {
    let deadline = Instant::now() + PATIENCE;
    while memory() != expected {
        assert!(Instant::now() < deadline, "{:?} stay, {expected:?} were expected", memory());
        thread::yield_now();
    }
}

#[test]
fn a_sender_killed_while_its_payloads_are_held_leaves_them_whole_and_then_no_memory() {
    sender_killed(|| Trust::None);
}

#[test]
fn a_trusted_sender_killed_while_its_payloads_are_held_leaves_them_whole_and_then_no_memory() {
    sender_killed(full_trust);
}

#[test]
fn a_receiver_killed_while_it_holds_payloads_leaves_its_sender_without_their_memory() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    within_deadline(|| {
        let rig = rig(Trust::None);
        let (_survivor, survivor) = start(&rig, "receiver");
        let gone = Log::<Disconnect>::default();
        let ended = gone.clone();
        rig.main.on_disconnect(move |_, reason| ended.push(reason.clone()));
        let before = memory();
        for len in [MIB, EXTENT + MIB] {
            let (mut victim, renderer) = start(&rig, "trusting-keeper");
            for _ in 0..8 {
                renderer.send(KEEP, &vec![9; len][..]).unwrap();
            }
            victim.kill();
            rig.until(|| gone.len() == 1);
            assert_eq!(gone.take(), [Disconnect::Died]);
            assert!(matches!(renderer.send(KEEP, &[1; MIB][..]), Err(SendError::Disconnected(_))));
            drop(renderer);
            comes_down_to(before);
            survivor.send(CHUNK, &vec![1; 100][..]).unwrap();
        }
        assert_eq!(survivor.send_sync_timeout(COUNTED, &(), PATIENCE).unwrap().into_owned().0, 2);
    });
}

#[test]
fn a_main_killed_while_its_payloads_are_held_leaves_them_whole_and_then_no_memory() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    within_deadline(|| {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path().join("run");
        let directory = directory.to_str().unwrap();
        let mut victim = Process::start("child_process", "main", directory);
        assert_eq!(victim.hear().as_deref(), Some("bound"));
        let renderer = IpcRenderer::builder().runtime_dir(directory).connect("app").unwrap();
        let kept = Log::<Retained<[u8]>>::default();
        let keeping = kept.clone();
        renderer.on(CHUNK, move |event, _| keeping.push(event.retain()));
        until(|| renderer.run_once(PATIENCE), || kept.len() >= 6);
        victim.kill();
        assert!(matches!(renderer.run(), Err(memit::RunError::Disconnected(Disconnect::Died))));
        let kept = kept.take();
        assert!(mapped("payload") > EXTENT, "sealed payloads are kept where they are");
        assert!(kept.iter().all(is_whole), "they are whole");
        drop((kept, renderer));
        comes_down_to(([0; 3], 0));
    });
}
