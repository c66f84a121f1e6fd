//! Two processes bind one name at once, again and again.

use std::fs::{File, OpenOptions};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Instant;

use memit_engine::{BindError, Port};
use rustix::mm::{MapFlags, ProtFlags, mmap};

use crate::child::{Short, say};
use crate::common::{DEADLINE, within_deadline};
use crate::places::settings;

/// Each time that the two are started, which is a few times, so that each has its deadline.
const ROUNDS: u32 = 250;
const STARTS: u32 = 4;

/// What the two processes share: where each of them is, and what it found there.
#[repr(C)]
struct Page {
    at: [AtomicU32; 2],
    found: [AtomicU32; 2],
}

/// What a process found: it has won, or the process with this id has.
const WON: u32 = u32::MAX;

#[allow(unsafe_code)]
fn page(dir: &Path) -> &'static Page {
    let file = OpenOptions::new().read(true).write(true).open(dir.join("page")).unwrap();
    let protection = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a new mapping, at an address that the kernel chooses.
    let address = unsafe { mmap(std::ptr::null_mut(), 4096, protection, MapFlags::SHARED, &file, 0) }.unwrap();
    // SAFETY: a page of zeros, which nobody makes shorter or unmaps, and which is all atomics.
    unsafe { &*address.cast::<Page>() }
}

impl Page {
    /// Waits, without sleeping, until both processes are at `step`.
    fn meet(&self, me: usize, step: u32) {
        self.at[me].store(step, Ordering::SeqCst);
        let deadline = Instant::now() + DEADLINE / 4;
        for turn in 0_u32.. {
            if self.at[1 - me].load(Ordering::SeqCst) >= step {
                return;
            }
            // Long enough to begin together, if both have a core.
            if turn < 1 << 12 {
                std::hint::spin_loop();
                continue;
            }
            assert!(Instant::now() < deadline, "the other process is not coming");
            thread::yield_now();
        }
    }
}

pub fn play(role: &str, dir: &Path) {
    let me: usize = role.parse().unwrap();
    let page = page(dir);
    let mut won = 0;
    for round in 0..ROUNDS {
        page.meet(me, 3 * round + 1);
        let outcome = Port::bind("app", settings(dir));
        let found = match &outcome {
            Ok(_) => WON,
            Err(error @ BindError::NameTaken { holder, .. }) => {
                let by = holder.map_or_else(String::new, |pid| format!(" by process {pid}"));
                let expected = format!("the name app is taken{by}; choose another, or end that process");
                assert_eq!(error.to_string(), expected);
                holder.unwrap_or(0)
            }
            Err(error) => panic!("round {round}: {error}"),
        };
        page.found[me].store(found, Ordering::SeqCst);
        page.meet(me, 3 * round + 2);
        let other = page.found[1 - me].load(Ordering::SeqCst);
        assert_eq!(u32::from(found == WON) + u32::from(other == WON), 1, "round {round}: {found} and {other}");
        if let Ok(main) = outcome {
            won += 1;
            // The winner is a main like any other, and says of itself what the loser was told, if it was told.
            drop(Port::connect("app", settings(dir)).unwrap());
            let me = std::process::id();
            assert!(other == me || other == 0, "round {round}: process {other} was named, {me} has won");
            drop(main);
        }
        page.meet(me, 3 * round + 3);
    }
    say(&won.to_string());
}

#[test]
fn of_two_processes_that_bind_a_name_at_once_a_thousand_times_exactly_one_wins_and_frees_it_again() {
    for _ in 0..STARTS {
        within_deadline(one_start);
    }
}

fn one_start() {
    let dir = tempfile::tempdir().unwrap();
    File::create(dir.path().join("page")).unwrap().set_len(4096).unwrap();
    let mut both = ["0", "1"].map(|me| Short::start(&format!("names {me}"), dir.path()));
    let wins = both.each_mut().map(|one| one.hear().parse::<u32>().unwrap());
    assert_eq!(wins[0] + wins[1], ROUNDS);
    assert!(wins.iter().all(|wins| *wins > 0), "they never met: {wins:?}");
    both.into_iter().for_each(Short::ends);
    let left: Vec<_> =
        std::fs::read_dir(dir.path().join("run")).unwrap().map(|file| file.unwrap().file_name()).collect();
    assert_eq!(left, ["app.lock"]);
}
