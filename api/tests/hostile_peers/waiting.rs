//! How long threads have waited for a processor that somebody else had.
//!
//! Round trips are measured on machines where other programs run, and an attacker takes processor time like any other
//! program. What of a round trip's time the kernel says that its two threads stood in line for a processor is no doing of
//! theirs, and is left out; everything that they do themselves, or sleep for, stays in.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::Duration;

/// Threads that are looked at from time to time.
pub struct Waiting(Vec<File>);

impl Waiting {
    /// Of threads of this process and others, as `PID/task/TID`. Those of which the kernel does not tell never wait.
    pub fn of(threads: &[String]) -> Self {
        let open = |thread: &String| File::open(format!("/proc/{thread}/schedstat")).ok();
        Self(threads.iter().filter_map(open).collect())
    }

    /// Each of them, since it began.
    pub fn so_far(&self) -> Vec<Duration> {
        let nanoseconds = |file: &File| {
            let mut text = [0; 80];
            let len = file.read_at(&mut text, 0).unwrap_or(0);
            // Time on a processor, time in line for one, slices; all of them numbers.
            let text = std::str::from_utf8(&text[..len]).unwrap_or_default();
            text.split(' ').nth(1).and_then(|number| number.parse::<u64>().ok()).unwrap_or(0)
        };
        self.0.iter().map(nanoseconds).map(Duration::from_nanos).collect()
    }
}

/// The calling thread, as [`Waiting::of`] takes it.
pub fn this_thread() -> String {
    let path = std::fs::read_link("/proc/thread-self").unwrap();
    path.to_str().unwrap().to_owned()
}
