//! How often the kernel has taken the core from the calling thread.
#![allow(unsafe_code)]

use std::mem::MaybeUninit;

/// How many times so far this thread ran and somebody else got its core, after a yield as well as without one. `None`
/// if the kernel does not tell.
pub(crate) fn switches() -> Option<libc::c_long> {
    let mut usage = MaybeUninit::<libc::rusage>::uninit();
    // SAFETY: points to a structure of ours.
    if unsafe { libc::getrusage(libc::RUSAGE_THREAD, usage.as_mut_ptr()) } != 0 {
        return None;
    }
    // SAFETY: the call has succeeded, and so has written all of it.
    Some(unsafe { usage.assume_init() }.ru_nivcsw)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;

    use rustix::thread::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity};

    use super::*;

    #[test]
    fn a_yield_to_a_thread_that_wants_the_core_is_counted() {
        // Threads have the cores of who starts them.
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            let one = scope.spawn(|| {
                let mut only = CpuSet::new();
                only.set(sched_getcpu());
                sched_setaffinity(None, &only).unwrap();
                let before = switches().unwrap();
                scope.spawn(|| {
                    while !done.load(Ordering::Relaxed) {
                        thread::yield_now();
                    }
                });
                while switches().unwrap() == before {
                    thread::yield_now();
                }
                done.store(true, Ordering::Relaxed);
            });
            one.join().unwrap();
        });
        assert!(sched_getaffinity(None).is_ok());
    }
}
