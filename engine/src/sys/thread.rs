//! The library's own threads: they take no signal away from the program's, and where the machine has nothing left for one
//! more, that is an error.
//!
//! They are not std's, which map a signal stack in the new thread, ahead of its closure, and panic where that is refused;
//! a panic that finds no memory to unwind with ends the process. And a peer decides when a thread is needed, to close what
//! it sent. A program at its limit on address space may well have room for its stack (the C library keeps those of threads
//! that ended), and for nothing more. What is lost is the report of a stack that overflows, which is a plain SIGSEGV here.
//! To std they are threads without a name; the kernel knows their names.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_int, c_void};
use std::mem::{self, MaybeUninit};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::{io, ptr};

/// Signals that a thread raises by what it does itself; blocked, they would kill the process without a report.
const OWN_FAULTS: [c_int; 6] = [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGTRAP, libc::SIGSYS];

/// Starts a thread that runs `work` on a stack of `stack` bytes, with all signals blocked that others can send. Nobody can
/// wait for its end. A panic of `work` ends the thread and nothing else.
pub(crate) fn start<W>(name: &'static CStr, stack: usize, work: W) -> io::Result<()>
where
    W: FnOnce() + Send + 'static,
{
    let start = Box::into_raw(Box::new(Start { name, work }));
    // SAFETY: from a box of this call's.
    let created = unsafe { create(Some(stack), start) }.or_else(|error| match error.raw_os_error() {
        // Less than the C library needs at least, which has the thread-local memory of all libraries in it.
        // SAFETY: as above; no thread has it yet.
        Some(libc::EINVAL) => unsafe { create(None, start) },
        _ => Err(error),
    });
    if created.is_err() {
        // SAFETY: from `into_raw` above. No thread has it, as none was made.
        drop(unsafe { Box::from_raw(start) });
    }
    created
}

struct Start<W> {
    name: &'static CStr,
    work: W,
}

/// Makes a thread that takes `start` over and runs it, on a stack of that many bytes or of the C library's choice. When it
/// fails, `start` is still the caller's.
///
/// # Safety
///
/// `start` is a box's, and the caller's alone.
unsafe fn create<W>(stack: Option<usize>, start: *mut Start<W>) -> io::Result<()>
where
    W: FnOnce() + Send + 'static,
{
    let mut attributes = MaybeUninit::uninit();
    // SAFETY: initializes what it points to, or fails.
    check(unsafe { libc::pthread_attr_init(attributes.as_mut_ptr()) })?;
    let attributes = Attributes(attributes.as_mut_ptr());
    // SAFETY: initialized just above.
    check(unsafe { libc::pthread_attr_setdetachstate(attributes.0, libc::PTHREAD_CREATE_DETACHED) })?;
    if let Some(stack) = stack {
        // SAFETY: as above.
        check(unsafe { libc::pthread_attr_setstacksize(attributes.0, stack) })?;
    }
    let _restored_on_drop = block_signals()?;
    let mut thread = MaybeUninit::uninit();
    // SAFETY: writes the thread's id, and reads initialized attributes. `run` gets a `Start<W>` of its own type, which is
    // the thread's alone from then on and may be sent to it.
    check(unsafe { libc::pthread_create(thread.as_mut_ptr(), attributes.0, run::<W>, start.cast()) })
}

extern "C" fn run<W>(start: *mut c_void) -> *mut c_void
where
    W: FnOnce() + Send + 'static,
{
    // SAFETY: a box's, which `create` has given to this thread alone.
    let start = unsafe { Box::from_raw(start.cast::<Start<W>>()) };
    let Start { name, work } = *start;
    // Only for who looks at the process from outside.
    let _ = rustix::thread::set_name(name);
    // The program's panic hook has reported it.
    if let Err(panic) = catch_unwind(AssertUnwindSafe(work))
        // What it carries may panic when it is dropped, too.
        && let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(panic)))
    {
        mem::forget(again);
    }
    ptr::null_mut()
}

/// Initialized attributes, which stay where they are.
struct Attributes(*mut libc::pthread_attr_t);

impl Drop for Attributes {
    fn drop(&mut self) {
        // SAFETY: initialized, and not used after this.
        unsafe { libc::pthread_attr_destroy(self.0) };
    }
}

/// What the calling thread blocked before.
struct Restore(libc::sigset_t);

impl Drop for Restore {
    fn drop(&mut self) {
        // SAFETY: the set was filled by `block_signals`. This cannot fail with a valid set and operation.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.0, ptr::null_mut()) };
    }
}

/// Blocks in the calling thread, and in those that it makes, what others can send.
fn block_signals() -> io::Result<Restore> {
    let mut all = MaybeUninit::<libc::sigset_t>::zeroed();
    let mut before = MaybeUninit::<libc::sigset_t>::zeroed();
    // SAFETY: points to a set of ours.
    unsafe { libc::sigfillset(all.as_mut_ptr()) };
    for fault in OWN_FAULTS {
        // SAFETY: the set was filled above.
        unsafe { libc::sigdelset(all.as_mut_ptr(), fault) };
    }
    // SAFETY: both point to sets of ours, the first of them filled.
    check(unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, all.as_ptr(), before.as_mut_ptr()) })?;
    // SAFETY: filled by the call above.
    Ok(Restore(unsafe { before.assume_init() }))
}

/// What a call of pthreads gave, as a result.
fn check(error: c_int) -> io::Result<()> {
    if error == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(error)) }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    /// The line `name` of what the kernel says about the calling thread.
    fn status(name: &str) -> String {
        let status = fs::read_to_string("/proc/thread-self/status").unwrap();
        status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim_matches([':', '\t']).to_owned()
    }

    fn blocked() -> u64 {
        u64::from_str_radix(&status("SigBlk"), 16).unwrap()
    }

    /// What `look` finds in a thread with such a stack.
    fn in_thread<T: Send + 'static>(stack: usize, look: impl FnOnce() -> T + Send + 'static) -> T {
        let (found, finds) = mpsc::channel();
        start(c"memit-test", stack, move || found.send(look()).unwrap()).unwrap();
        finds.recv().unwrap()
    }

    #[test]
    fn a_thread_blocks_signals_and_its_starter_does_not() {
        let before = blocked();
        let inside = in_thread(1 << 20, blocked);
        let bit = |signal: i32| 1_u64 << (signal - 1);
        for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGCHLD, libc::SIGUSR1, libc::SIGALRM, libc::SIGPROF] {
            assert_ne!(inside & bit(signal), 0, "{signal}");
        }
        for signal in OWN_FAULTS {
            assert_eq!(inside & bit(signal), 0, "{signal}");
        }
        assert_eq!(blocked(), before);
    }

    #[test]
    fn the_kernel_knows_its_name() {
        assert_eq!(in_thread(1 << 20, || status("Name")), "memit-test");
    }

    #[test]
    fn a_stack_that_is_too_small_for_the_c_library_is_one_of_its_choice() {
        let sum = in_thread(1, || {
            let bytes = std::hint::black_box([7_u8; 100_000]);
            bytes.iter().map(|&byte| u32::from(byte)).sum::<u32>()
        });
        assert_eq!(sum, 700_000);
    }

    #[test]
    fn what_it_runs_is_dropped_when_it_has_run_when_it_panicked_and_when_there_is_no_thread() {
        for panics in [false, true] {
            let (held, ended) = mpsc::channel::<()>();
            let work = move || {
                let _held = held;
                assert!(!panics, "on purpose");
            };
            start(c"memit-test", 1 << 20, work).unwrap();
            assert_eq!(ended.recv_timeout(Duration::from_secs(30)), Err(mpsc::RecvTimeoutError::Disconnected));
        }
        let (held, ended) = mpsc::channel::<()>();
        // More than there are addresses.
        let error = start(c"memit-test", 1 << 60, move || held.send(()).unwrap()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EAGAIN));
        assert_eq!(ended.try_recv(), Err(mpsc::TryRecvError::Disconnected));
    }
}
