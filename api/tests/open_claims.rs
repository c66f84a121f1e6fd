//! A process that is killed while one of its threads is inside of a claim: what its other threads had sent is heard.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::{
    fs::File,
    os::unix::{fs::FileExt, thread::JoinHandleExt},
    path::Path,
    sync::{
        Barrier,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use memit::{Channel, IpcRenderer};
use support::{
    Log, Rig,
    common::{Process, role, say},
    within_deadline,
};

/// Words: the thread, its message's number, and any more.
const WORDS: Channel<[u64]> = Channel::new("words");
/// As many as fit a frame, so that the first thread spends a good part of its time in claims.
const LONG: usize = 4_000;
/// Large, so that the other threads can go on though nobody gets past the open claim.
const RING: usize = 16 << 20;
/// From one message of a thread to its next, so that the ring does not fill up.
const PAUSE: Duration = Duration::from_micros(300);
const SHORT_PAUSE: Duration = Duration::from_micros(20);
/// Threads that go on.
const OTHERS: u64 = 2;
/// What they send after the first thread was frozen.
const AFTER: u64 = 40;
/// Each freezes the thread at some other instruction; about every tenth time that is inside of a claim.
const KILLS: usize = 30;

static FROZEN: AtomicBool = AtomicBool::new(false);

/// Keeps the thread where it was interrupted, for ever.
#[allow(unsafe_code)]
extern "C" fn freeze(_: libc::c_int) {
    FROZEN.store(true, Ordering::SeqCst);
    loop {
        // SAFETY: takes nothing, and may be called in a signal handler.
        unsafe { libc::pause() };
    }
}

/// What the test starts as a child; nothing by itself.
#[test]
#[allow(unsafe_code)]
fn child_process() {
    let Some((_, directory)) = role() else { return };
    let handler: extern "C" fn(libc::c_int) = freeze;
    // SAFETY: the handler does only what a handler may.
    unsafe { libc::signal(libc::SIGUSR1, handler as libc::sighandler_t) };
    let renderer = IpcRenderer::builder().ring_capacity(RING).runtime_dir(&*directory).connect("app").unwrap();
    let sent = File::options().write(true).open(Path::new(&directory).join("sent")).unwrap();
    let send = |at: u64, number: u64| {
        renderer.send(WORDS, &[at, number][..]).unwrap();
        sent.write_all_at(&(number + 1).to_ne_bytes(), at * 8).unwrap();
    };
    let done = Barrier::new(usize::try_from(OTHERS).unwrap() + 1);
    let (renderer, file) = (renderer.clone(), sent.try_clone().unwrap());
    let first = thread::spawn(move || {
        let mut words = vec![0; LONG];
        for number in 0.. {
            words[1] = number;
            renderer.send(WORDS, &words[..]).unwrap();
            file.write_all_at(&(number + 1).to_ne_bytes(), 0).unwrap();
            let begin = Instant::now();
            while begin.elapsed() < SHORT_PAUSE {}
        }
    });
    thread::scope(|scope| {
        for at in 1..=OTHERS {
            let (send, done) = (&send, &done);
            scope.spawn(move || {
                let (mut number, mut more) = (0, AFTER);
                while more > 0 {
                    more -= u64::from(FROZEN.load(Ordering::SeqCst));
                    send(at, number);
                    number += 1;
                    thread::sleep(PAUSE);
                }
                done.wait();
                loop {
                    thread::park();
                }
            });
        }
        say("sends");
        // The parent answers by creating a file, once it has heard something.
        while !Path::new(&directory).join("freeze").exists() {
            thread::yield_now();
        }
        // SAFETY: the thread has not ended: it never does.
        assert_eq!(unsafe { libc::pthread_kill(first.as_pthread_t(), libc::SIGUSR1) }, 0);
        done.wait();
        File::create(Path::new(&directory).join("frozen")).unwrap();
    });
}

#[test]
fn what_a_killed_process_had_sent_is_heard_though_a_thread_of_it_was_inside_of_a_claim() {
    within_deadline(|| {
        for kill in 0..KILLS {
            let (rig, heard, ended) = (Rig::new(), Log::<(u64, u64)>::default(), Log::<u64>::default());
            let path = rig.directory.path().join("sent");
            std::fs::write(&path, vec![0; 8 * usize::try_from(OTHERS + 1).unwrap()]).unwrap();
            let (words, ends) = (heard.clone(), ended.clone());
            rig.main.on(WORDS, move |_, found| words.push((found[0], found[1])));
            rig.main.on_disconnect(move |peer, _| ends.push(peer.id));
            let mut child = Process::start("child_process", "sender", rig.directory.path().to_str().unwrap());
            assert_eq!(child.hear().as_deref(), Some("sends"));
            let some = 50 + 7 * kill;
            rig.until(|| heard.len() > some);
            File::create(rig.directory.path().join("freeze")).unwrap();
            // Until the first thread is frozen the others need space.
            while !rig.directory.path().join("frozen").exists() {
                rig.main.poll().unwrap();
            }
            child.kill();
            rig.until(|| ended.len() == 1);
            let sent = std::fs::read(&path).unwrap();
            let heard = heard.take();
            for (at, sent) in (0..=OTHERS).zip(sent.as_chunks().0) {
                let sent = u64::from_ne_bytes(*sent);
                let numbers: Vec<_> =
                    heard.iter().filter(|(thread, _)| *thread == at).map(|(_, number)| *number).collect();
                let count = numbers.len() as u64;
                assert!(numbers.into_iter().eq(0..count), "thread {at}: a gap in what came");
                // The last one may have been sent and not been written down.
                assert!(count == sent || count == sent + 1, "thread {at} had sent {sent} messages, and {count} came");
            }
        }
    });
}
