//! No descriptor is left, at each step of bind, connect and accept.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use memit_engine::{ConnectError, Disconnect, Port, RefusalCode};
use rustix::process::{Resource, Rlimit, setrlimit};

use crate::child::{Short, say};
use crate::common::{DEADLINE, within_deadline};
use crate::places::{Main, Renderer, connect, main_that_obeys, settings};

/// More than any of the three takes.
const ENOUGH: usize = 24;
const ADVICE: &str = "(ulimit -n)";

/// All descriptors of this process are taken but a few.
struct Taken(Vec<OwnedFd>);

impl Taken {
    /// For good: bind raises the limit as far as it may.
    fn all() -> Self {
        let limit = 256;
        setrlimit(Resource::Nofile, Rlimit { current: Some(limit), maximum: Some(limit) }).unwrap();
        let mut taken = Self(Vec::new());
        taken.take_the_rest();
        taken
    }

    fn take_the_rest(&mut self) -> usize {
        let before = self.0.len();
        while let Ok(fd) = rustix::io::fcntl_dupfd_cloexec(std::io::stdin(), 0) {
            self.0.push(fd);
        }
        self.0.len() - before
    }

    fn leave(&mut self, free: usize) {
        let kept = self.0.len() - free;
        self.0.truncate(kept);
    }
}

pub fn play(role: &str, dir: &Path) {
    match role {
        "binds" => every_shortage(|| Port::bind("own", settings(dir)).map_err(|error| error.to_string())),
        "connects" => every_shortage(|| connect(dir).map_err(|error| error.to_string())),
        "main" => {
            let mut taken = None;
            main_that_obeys(dir, |what| match what {
                "all" => taken = Some(Taken::all()),
                free => {
                    let taken = taken.as_mut().unwrap();
                    taken.take_the_rest();
                    taken.leave(free.parse().unwrap());
                }
            });
        }
        unknown => panic!("unknown role {unknown}"),
    }
}

/// Tries `make` with no descriptor, then with one, and so on until it works.
fn every_shortage(make: impl Fn() -> Result<Port, String>) {
    let mut taken = Taken::all();
    for free in 0..ENOUGH {
        taken.take_the_rest();
        taken.leave(free);
        match make() {
            Ok(port) => {
                drop(port);
                say(&format!("works after {}", u8::from(free > 4)));
                return;
            }
            Err(text) => {
                assert!(text.contains(ADVICE) && text.contains("os error 24"), "with {free} descriptors: {text}");
                // The library's thread keeps its two, once it runs. What main sent in vain is closed by another one.
                let deadline = Instant::now() + DEADLINE / 2;
                let mut left = 0;
                while left != free && left + 2 != free {
                    left += taken.take_the_rest();
                    assert!(Instant::now() < deadline, "with {free} descriptors {left} are left: {text}");
                    thread::yield_now();
                }
            }
        }
    }
    panic!("{ENOUGH} descriptors are not enough");
}

#[test]
fn bind_and_connect_without_descriptors_fail_with_what_to_do_at_each_step_and_keep_none() {
    within_deadline(|| {
        let dir = tempfile::tempdir().unwrap();
        let main = Main::bind(&dir);
        let mut staying = Renderer::connect(dir.path());
        for role in ["descriptors binds", "descriptors connects"] {
            let mut short = Short::start(role, dir.path());
            short.expect("works after 1");
            short.ends();
            staying.is_served();
        }
        drop(main);
    });
}

#[test]
fn a_main_without_descriptors_refuses_or_defers_at_each_step_and_serves_whom_it_has() {
    within_deadline(|| {
        let dir = tempfile::tempdir().unwrap();
        let mut main = Short::start("descriptors main", dir.path());
        main.expect("bound");
        let mut staying = Renderer::connect(dir.path());
        main.order("all");
        staying.is_served();
        let (mut deferred, mut refused) = (0, 0);
        for free in 0..ENOUGH {
            main.order(&free.to_string());
            let mut config = settings(dir.path());
            config.handshake_deadline = Duration::from_millis(500);
            match Port::connect("app", config) {
                // Main rests while it cannot accept anybody.
                Err(ConnectError::Timeout { .. }) => deferred += 1,
                Err(ConnectError::Refused { code: RefusalCode::NoResources, text }) => {
                    assert!(text.contains("os error 24") || text.contains(ADVICE), "{text}");
                    refused += 1;
                }
                Ok(_) => break,
                Err(error) => panic!("with {free} descriptors: {error}"),
            }
            staying.is_served();
        }
        assert!(deferred > 0 && refused > 2, "{deferred} were deferred, {refused} refused");
        main.order(&ENOUGH.to_string());
        let mut last = Renderer::connect(dir.path());
        last.is_served();
        staying.is_served();
        main.end();
    });
}

#[test]
fn a_main_that_cannot_receive_a_descriptor_parts_with_its_sender_alone() {
    within_deadline(|| {
        let dir = tempfile::tempdir().unwrap();
        let mut main = Short::start("descriptors main", dir.path());
        main.expect("bound");
        let mut staying = Renderer::connect(dir.path());
        let mut sender = Renderer::connect(dir.path());
        main.order("all");
        sender.send_large();
        assert_eq!(sender.ends(), Disconnect::Died);
        staying.is_served();
        main.order(&ENOUGH.to_string());
        let mut another = Renderer::connect(dir.path());
        another.send_large();
        staying.is_served();
        main.end();
        assert_eq!(another.ends(), Disconnect::Left);
    });
}
