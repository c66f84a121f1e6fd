//! What takes a process of its own: this test program starts itself again, to run one test that does nothing in the
//! program that was started by hand.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use rustix::event::Timespec;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::time::{ClockId, clock_gettime};

use super::super::path::RuntimeDirError;
use super::*;
use crate::sys::discard::testing::{Behind, wait_until_closed};
use crate::sys::fork::testing::exit_code_of;
use crate::watcher::{self, Readiness, Watched};

const DIR: &str = "MEMIT_TEST_CHILD_DIR";

/// Says this once it has done its part; then it waits for its end.
const DONE: &str = "child is done";

/// This program again, running one test of this file in `place`.
fn start(test: &str, place: &Place) -> (Child, BufReader<ChildStdout>) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([&format!("rendezvous::tests::processes::{test}"), "--exact", "--nocapture"])
        .env(DIR, &place.parent)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let said = BufReader::new(child.stdout.take().unwrap());
    (child, said)
}

fn wait_done(said: &mut BufReader<ChildStdout>) {
    let mut line = String::new();
    while said.read_line(&mut line).unwrap() != 0 {
        if line.contains(DONE) {
            return;
        }
        line.clear();
    }
    panic!("the child ended too soon");
}

/// In a child: the place that it was given.
fn place_of_child() -> Option<Place> {
    std::env::var_os(DIR).map(|parent| Place { parent: parent.into(), _temporary: None })
}

/// In a child: says that its part is done, and waits until it is killed or its parent has ended.
fn done() {
    println!("{DONE}");
    let _ = std::io::stdin().read(&mut [0]);
}

fn kill(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn child_binds() {
    let Some(place) = place_of_child() else { return };
    let _main = place.main(&place.config());
    done();
}

#[test]
fn a_killed_main_blocks_nobody_and_leaves_nothing_to_the_next() {
    let place = Place::new();
    let (child, mut said) = start("child_binds", &place);
    wait_done(&mut said);
    let error = place.try_main(&place.config()).map(drop).unwrap_err();
    assert!(matches!(error, BindError::NameTaken { holder: Some(pid), .. } if pid == child.id()), "{error}");
    let renderer = place.connect().unwrap();
    assert_eq!(renderer.credentials.pid.unsigned_abs(), child.id());
    let leftover = place.dir().join(".app.0123456789abcdef.tmp");
    let of_another = place.dir().join(".app2.0123456789abcdef.tmp");
    for file in [&leftover, &of_another] {
        fs::write(file, "").unwrap();
    }

    kill(child);
    wait_readable(renderer.pidfd.as_fd());
    assert!(matches!(socket::hear(renderer.socket.as_fd()), socket::Heard::HangUp));
    assert!(place.dir().join("app.sock").exists());
    assert!(matches!(place.connect().unwrap_err(), ConnectError::NotRunning { .. }));

    let main = place.main(&place.config());
    assert!(!leftover.exists() && of_another.exists());
    place.connect().unwrap();
    main.admitted.recv().unwrap();
}

/// A user that is not root.
const SOMEBODY: u32 = 1000;

#[test]
#[allow(unsafe_code)]
fn child_binds_as_somebody() {
    let Some(place) = place_of_child() else { return };
    // SAFETY: takes three numbers; changes the user of all threads of this process, which was started for that.
    let changed = unsafe { libc::setresuid(SOMEBODY, SOMEBODY, SOMEBODY) };
    assert_eq!(changed, 0);
    let main = place.main(&place.config());
    done();
    drop(main);
    let _main = place.main(&Config { authorize: Some(Arc::new(|peer| peer.uid == 0)), ..place.config() });
    done();
}

#[test]
fn another_user_is_admitted_only_if_both_sides_say_so() {
    if !rustix::process::geteuid().is_root() {
        // Only root can be two users.
        return;
    }
    let place = Place::new();
    std::os::unix::fs::chown(&place.parent, Some(SOMEBODY), None).unwrap();
    let (mut child, mut said) = start("child_binds_as_somebody", &place);
    wait_done(&mut said);
    let error = place.connect().unwrap_err();
    let ConnectError::RuntimeDir(RuntimeDirError::WrongOwner { found: SOMEBODY, expected: 0, .. }) = error else {
        panic!("{error}")
    };
    let trusting = Config { authorize: Some(Arc::new(|peer| peer.uid == SOMEBODY)), ..place.config() };
    let error = connect("app", &trusting, 1).unwrap_err();
    let ConnectError::Unauthorized { found: 0, expected, .. } = error else { panic!("{error}") };
    assert_eq!(expected, u64::from(SOMEBODY));

    child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    wait_done(&mut said);
    let renderer = connect("app", &trusting, 1).unwrap();
    assert_eq!((renderer.credentials.uid, renderer.credentials.pid.unsigned_abs()), (SOMEBODY, child.id()));
    kill(child);
}

#[test]
fn child_connects() {
    let Some(place) = place_of_child() else { return };
    let _renderer = place.connect().unwrap();
    done();
}

#[test]
fn the_end_of_a_renderers_process_shows_at_its_pidfd_and_at_its_socket() {
    let place = Place::new();
    let main = place.main(&place.config());
    let (child, mut said) = start("child_connects", &place);
    wait_done(&mut said);
    let at_main = main.admitted.recv().unwrap();
    assert_eq!(at_main.credentials.pid.unsigned_abs(), child.id());
    let mut ends = [PollFd::new(&at_main.pidfd, PollFlags::IN), PollFd::new(&at_main.socket, PollFlags::IN)];
    assert_eq!(poll(&mut ends, Some(&Timespec::default())).unwrap(), 0);
    kill(child);
    wait_readable(at_main.pidfd.as_fd());
    assert!(matches!(socket::hear(at_main.socket.as_fd()), socket::Heard::HangUp));
}

#[test]
fn child_runs_out_of_descriptors() {
    let Some(place) = place_of_child() else { return };
    let main = place.main(&place.config());
    let client = Hand(socket::seqpacket(true).unwrap());
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(64), maximum }).unwrap();
    let mut taken = Vec::new();
    while let Ok(fd) = rustix::io::fcntl_dupfd_cloexec(&client.0, 0) {
        taken.push(fd);
    }
    let address = SocketAddrUnix::new(place.dir().join("app.sock")).unwrap();
    socket::connect(client.0.as_fd(), &address, Duration::from_secs(60)).unwrap();

    // Main cannot accept, and its socket stays readable: it must rest meanwhile.
    let cpu_time = || {
        let now = clock_gettime(ClockId::ProcessCPUTime);
        Duration::try_from(now).unwrap()
    };
    let (before, pause) = (cpu_time(), Duration::from_millis(400));
    let mut end = [PollFd::new(&client.0, PollFlags::IN)];
    assert_eq!(poll(&mut end, Some(&pause.try_into().unwrap())).unwrap(), 0);
    let spent = cpu_time() - before;
    assert!(spent < pause / 4, "it spent {spent:?} of {pause:?}");
    assert!(main.listening.is_short_of_descriptors());

    drop(taken);
    client.say(b"nonsense", &[]);
    assert_eq!(client.hear_refusal().code, RefusalCode::BadMessage);
    place.connect().unwrap();
    done();
}

#[test]
fn a_main_without_descriptors_rests_and_goes_on_when_it_has_some() {
    let place = Place::new();
    let (child, mut said) = start("child_runs_out_of_descriptors", &place);
    wait_done(&mut said);
    kill(child);
}

#[test]
fn child_falls_behind() {
    let Some(place) = place_of_child() else { return };
    let _main = place.main(&place.config());
    let behind = Behind::new();
    let client = place.client();
    client.say(b"nonsense", &[]);
    let mut end = [PollFd::new(&client.0, PollFlags::IN)];
    let pause = Timespec { tv_sec: 0, tv_nsec: 300_000_000 };
    assert_eq!(poll(&mut end, Some(&pause)).unwrap(), 0, "a client was heard");
    drop(behind);
    assert_eq!(client.hear_refusal().code, RefusalCode::BadMessage);
    place.connect().unwrap();
    done();
}

#[test]
fn a_main_accepts_nobody_while_too_much_that_peers_have_sent_waits_to_be_closed() {
    let place = Place::new();
    let (child, mut said) = start("child_falls_behind", &place);
    wait_done(&mut said);
    kill(child);
}

#[test]
fn a_forked_child_that_drops_its_parents_main_does_it_no_harm() {
    let place = Place::new();
    let Main { listening, _sink, admitted } = place.main(&place.config());
    let mut listening = Some(listening);
    let code = exit_code_of(|| {
        drop(listening.take());
        0
    });
    assert_eq!(code, 0);
    place.connect().unwrap();
    admitted.recv().unwrap();
    assert!(matches!(place.try_main(&place.config()).map(drop), Err(BindError::NameTaken { .. })));
}

#[test]
fn child_forks() {
    let Some(place) = place_of_child() else { return };
    let main = place.main(&place.config());
    let renderer = place.connect().unwrap();
    let own = Place { parent: place.dir(), _temporary: None };
    let code = exit_code_of(|| {
        let works = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            // What it inherited is dead, and a main of its own is not.
            assert!(matches!(socket::hear(renderer.socket.as_fd()), socket::Heard::HangUp));
            let main = own.main(&own.config());
            own.connect().unwrap();
            main.admitted.recv().unwrap();
        }));
        i32::from(works.is_err())
    });
    assert_eq!(code, 0);
    let at_main = main.admitted.recv().unwrap();
    assert!(matches!(socket::hear(at_main.socket.as_fd()), socket::Heard::Nothing));
    done();
}

#[test]
fn a_forked_child_can_have_a_main_and_renderers_of_its_own() {
    let place = Place::new();
    let (child, mut said) = start("child_forks", &place);
    wait_done(&mut said);
    kill(child);
}

struct Turn(Mutex<mpsc::Sender<()>>);

impl Watched for Turn {
    fn ready(&self, _: Readiness) {}

    fn expired(&self, _: u64) {
        self.0.lock().unwrap().send(()).unwrap();
    }
}

/// How many descriptors this process has open, and how many outboxes mapped, when the library's threads have finished
/// what they were doing.
fn holdings() -> (usize, usize) {
    let (sender, turn) = mpsc::channel();
    let target = Arc::new(Turn(Mutex::new(sender)));
    let weak: Weak<dyn Watched> = Arc::<Turn>::downgrade(&target);
    watcher::set_timer(Instant::now(), weak, 0).unwrap();
    turn.recv().unwrap();
    wait_until_closed();
    let descriptors = fs::read_dir("/proc/self/fd").unwrap().count();
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    (descriptors, maps.lines().filter(|line| line.contains("memit")).count())
}

#[test]
fn child_connects_and_leaves_often() {
    let Some(place) = place_of_child() else { return };
    // Starts what stays: the library's thread.
    drop(place.main(&place.config()));
    let before = holdings();
    let main = place.main(&place.config());
    for _ in 0..20 {
        let renderer = place.connect().unwrap();
        let at_main = main.admitted.recv().unwrap();
        assert_eq!(holdings().1, before.1 + 4, "two outboxes, each mapped by both sides");
        drop((renderer, at_main));
        let (terms, handed) = place.hello();
        let client = place.client();
        client.say(&Message::Hello(terms).to_bytes(), &handed.descriptors());
        assert!(client.hear().is_some());
        client.say(b"nonsense", &[]);
        client.hear_refusal();
    }
    drop(main);
    assert_eq!(holdings(), before);
    done();
}

#[test]
fn connections_that_came_and_went_leave_no_descriptor_and_no_map() {
    let place = Place::new();
    let (child, mut said) = start("child_connects_and_leaves_often", &place);
    wait_done(&mut said);
    kill(child);
}
