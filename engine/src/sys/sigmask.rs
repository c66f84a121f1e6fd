//! Threads that take no signal away from the program's own.
#![allow(unsafe_code)]

use std::mem::MaybeUninit;
use std::{io, ptr};

/// Signals that a thread raises by what it does itself; blocked, they would kill the process without a report.
const OWN_FAULTS: [libc::c_int; 6] =
    [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGTRAP, libc::SIGSYS];

/// Runs `start`, which starts a thread, so that the thread is born with all signals blocked that others can send.
pub(crate) fn with_signals_blocked<T>(start: impl FnOnce() -> T) -> io::Result<T> {
    let before = Restore(block()?);
    let started = start();
    drop(before);
    Ok(started)
}

struct Restore(libc::sigset_t);

impl Drop for Restore {
    fn drop(&mut self) {
        // SAFETY: the set was filled by `block`. This cannot fail with a valid set and operation.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.0, ptr::null_mut()) };
    }
}

/// Blocks them in the calling thread; returns what was blocked before.
fn block() -> io::Result<libc::sigset_t> {
    let mut all = MaybeUninit::<libc::sigset_t>::zeroed();
    let mut before = MaybeUninit::<libc::sigset_t>::zeroed();
    // SAFETY: points to a set of ours.
    unsafe { libc::sigfillset(all.as_mut_ptr()) };
    for fault in OWN_FAULTS {
        // SAFETY: the set was filled above.
        unsafe { libc::sigdelset(all.as_mut_ptr(), fault) };
    }
    // SAFETY: both point to sets of ours, the first of them filled.
    let error = unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, all.as_ptr(), before.as_mut_ptr()) };
    if error != 0 {
        return Err(io::Error::from_raw_os_error(error));
    }
    // SAFETY: filled by the call above.
    Ok(unsafe { before.assume_init() })
}

#[cfg(test)]
mod tests {
    use std::{fs, thread};

    use super::*;

    fn blocked() -> u64 {
        let status = fs::read_to_string("/proc/thread-self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("SigBlk:")).unwrap();
        u64::from_str_radix(line.trim(), 16).unwrap()
    }

    #[test]
    fn a_thread_started_inside_blocks_signals_and_its_starter_does_not() {
        let before = blocked();
        let inside = with_signals_blocked(|| thread::spawn(blocked)).unwrap().join().unwrap();
        let bit = |signal: i32| 1_u64 << (signal - 1);
        for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGCHLD, libc::SIGUSR1, libc::SIGALRM, libc::SIGPROF] {
            assert_ne!(inside & bit(signal), 0, "{signal}");
        }
        for signal in OWN_FAULTS {
            assert_eq!(inside & bit(signal), 0, "{signal}");
        }
        assert_eq!(blocked(), before);
    }
}
