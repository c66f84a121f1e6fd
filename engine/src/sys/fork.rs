//! What `fork` does to this library's handles.
//!
//! A child made by fork holds copies of its parent's descriptors and none of its threads. Were those descriptors
//! left open, the peers would not see the parent's end; were its handles used, two processes would write one outbox.
//! So one handler, which the C library runs in the child before `fork` returns there, makes every handle of the
//! parent *stale* (it begins a new [`Epoch`]) and closes every descriptor that a [`ForkFd`] holds. The maps are not
//! inherited at all (`MADV_DONTFORK`). Every operation and every `Drop` asks [`Epoch::is_current`] first.
//!
//! A descriptor that another thread is just opening or closing while the fork happens can stay open in the child
//! until it executes a program (all are close-on-exec) or ends. That costs memory, not correctness: a peer looks at
//! its peer's pidfd as well as at its socket.
//!
//! # Invariants
//!
//! 1. `OPEN` holds the descriptors of the live [`ForkFd`]s of this process and epoch, each once.
//! 2. The handler runs in a process that has one thread, and does nothing but atomic accesses and `close`, both of
//!    which are async-signal-safe.
#![allow(unsafe_code)]

use std::alloc::{Layout, handle_alloc_error};
use std::ffi::c_int;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::sys::discard;
use crate::sys::fdset::FdSet;

/// Written by the handler alone, in a process that has one thread then; so a relaxed load is exact everywhere.
static EPOCH: AtomicU64 = AtomicU64::new(1);

static HANDLER_IS_REGISTERED: AtomicBool = AtomicBool::new(false);

static OPEN: FdSet = FdSet::new();

/// The span of a process between two forks. A handle keeps the epoch in which it was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Epoch(u64);

impl Epoch {
    /// This process's epoch. From the first call on, forks are noticed.
    pub(crate) fn current() -> Self {
        register_handler();
        Self(EPOCH.load(Ordering::Relaxed))
    }

    /// Whether no fork lies between this epoch's process and the calling one.
    #[inline(always)]
    pub(crate) fn is_current(self) -> bool {
        EPOCH.load(Ordering::Relaxed) == self.0
    }

    /// Counts the epochs from 1 on; never the same for a parent and its child.
    pub(crate) const fn number(self) -> u64 {
        self.0
    }
}

/// A descriptor that a child made by fork does not keep.
#[derive(Debug)]
pub(crate) struct ForkFd {
    fd: Option<OwnedFd>,
    epoch: Epoch,
}

impl ForkFd {
    /// Takes charge of `fd`.
    pub(crate) fn new(fd: OwnedFd) -> Self {
        let epoch = Epoch::current();
        OPEN.insert(fd.as_raw_fd());
        Self { fd: Some(fd), epoch }
    }
}

impl ForkFd {
    /// The descriptor, whose care is the caller's from now on; `None` in a forked child, which has closed it.
    pub(crate) fn into_owned(mut self) -> Option<OwnedFd> {
        if !self.epoch.is_current() {
            return None;
        }
        let fd = self.fd.take()?;
        OPEN.remove(fd.as_raw_fd());
        Some(fd)
    }
}

impl AsFd for ForkFd {
    /// The descriptor; in a forked child, where its number may mean another file by now, one that no call accepts.
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.fd {
            Some(fd) if self.epoch.is_current() => fd.as_fd(),
            _ => rustix::fs::ABS,
        }
    }
}

impl Drop for ForkFd {
    fn drop(&mut self) {
        let Some(fd) = self.fd.take() else { return };
        if self.epoch.is_current() {
            // Before the number can be given to another file, so that no child closes a stranger's.
            OPEN.remove(fd.as_raw_fd());
            drop(fd);
        } else {
            // The handler has closed it, and the number may mean another file by now.
            let _ = fd.into_raw_fd();
        }
    }
}

/// Registers the handler, unless that has been done. Threads that race here may register it twice, which is
/// harmless: run a second time, it finds nothing left to close and begins one more epoch.
fn register_handler() {
    if HANDLER_IS_REGISTERED.load(Ordering::Relaxed) {
        return;
    }
    // SAFETY: the handler is async-signal-safe (invariant 2) and lives as long as the program.
    let failed = unsafe { pthread_atfork(None, None, Some(in_child)) };
    if failed != 0 {
        // The one way to fail is to be out of memory for a list node, and going on without the handler is unsound.
        handle_alloc_error(Layout::new::<[usize; 4]>());
    }
    HANDLER_IS_REGISTERED.store(true, Ordering::Relaxed);
}

extern "C" fn in_child() {
    EPOCH.fetch_add(1, Ordering::Relaxed);
    while let Some(fd) = OPEN.take() {
        // SAFETY: by invariant 1 a `ForkFd` owned it in the parent. Its copy here is stale since the epoch moved, and
        // gives the number to nobody. Not rustix's close, which asserts success: when another thread of the parent
        // was just opening this descriptor, the child may not have it.
        unsafe { libc::close(fd) };
    }
    discard::forget();
}

// Absent from the libc crate for Linux.
unsafe extern "C" {
    fn pthread_atfork(
        prepare: Option<extern "C" fn()>,
        parent: Option<extern "C" fn()>,
        child: Option<extern "C" fn()>,
    ) -> c_int;
}

#[cfg(test)]
pub(crate) mod testing {
    /// Runs `child` in a forked child and returns its exit code. The child does async-signal-safe work only, since
    /// this process has other threads.
    pub(crate) fn exit_code_of(child: impl FnOnce() -> i32) -> i32 {
        // SAFETY: the child calls `child`, which is async-signal-safe by this function's contract, and exits.
        let pid = unsafe { libc::fork() };
        assert!(pid >= 0, "fork: {}", std::io::Error::last_os_error());
        if pid == 0 {
            let code = child();
            // SAFETY: ends the child without running the parent's exit handlers.
            unsafe { libc::_exit(code) };
        }
        let mut status = 0;
        loop {
            // SAFETY: waits for the child made above, with a valid place for its status.
            let waited = unsafe { libc::waitpid(pid, &raw mut status, 0) };
            if waited == pid {
                break;
            }
            assert_eq!(std::io::Error::last_os_error().kind(), std::io::ErrorKind::Interrupted);
        }
        assert!(libc::WIFEXITED(status), "the child was ended by a signal: status {status:#x}");
        libc::WEXITSTATUS(status)
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::RawFd;

    use rustix::fs::fstat;
    use rustix::pipe::pipe;

    use super::testing::exit_code_of;
    use super::*;

    fn is_open(fd: RawFd) -> bool {
        // SAFETY: asks for a descriptor's flags, whatever the number means.
        unsafe { libc::fcntl(fd, libc::F_GETFD) != -1 }
    }

    #[test]
    fn a_forked_child_is_in_another_epoch() {
        let epoch = Epoch::current();
        assert!(epoch.is_current());
        assert_eq!(exit_code_of(|| i32::from(epoch.is_current())), 0);
        assert!(epoch.is_current());
    }

    #[test]
    fn a_forked_child_of_a_forked_child_is_in_a_third_epoch() {
        let epoch = Epoch::current();
        let code = exit_code_of(|| {
            let second = Epoch::current();
            let inner = exit_code_of(|| i32::from(second.is_current() || epoch.is_current()));
            i32::from(!second.is_current()) << 1 | inner
        });
        assert_eq!(code, 0);
    }

    #[test]
    fn a_forked_child_keeps_no_registered_descriptor() {
        let (reader, writer) = pipe().unwrap();
        let registered = ForkFd::new(reader);
        let numbers = (registered.as_fd().as_raw_fd(), writer.as_raw_fd());
        let code = exit_code_of(|| i32::from(is_open(numbers.0)) << 1 | i32::from(is_open(numbers.1)));
        assert_eq!(code, 0b01, "the registered end is closed in the child, the other is not");
        assert!(is_open(numbers.0), "the parent's own stays open");
    }

    #[test]
    fn more_descriptors_than_one_block_holds_are_closed_in_a_forked_child() {
        let registered: Vec<_> = (0..100).map(|_| ForkFd::new(rustix::io::dup(std::io::stdin()).unwrap())).collect();
        let numbers: Vec<_> = registered.iter().map(|fd| fd.as_fd().as_raw_fd()).collect();
        let code = exit_code_of(|| i32::from(numbers.iter().any(|&fd| is_open(fd))));
        assert_eq!(code, 0);
    }

    #[test]
    fn a_stale_descriptor_names_no_file_and_its_drop_closes_none() {
        let (reader, _writer) = pipe().unwrap();
        let registered = ForkFd::new(reader);
        let number = registered.as_fd().as_raw_fd();
        let code = exit_code_of(|| {
            let stale = registered.as_fd().as_raw_fd() < 0;
            // SAFETY: makes the number mean another file, as a child that opens files would.
            let reused = unsafe { libc::dup2(0, number) } == number;
            drop(registered);
            i32::from(!(stale && reused && is_open(number)))
        });
        assert_eq!(code, 0);
    }

    #[test]
    fn a_dropped_descriptor_is_closed_and_forgotten() {
        let (reader, _writer) = pipe().unwrap();
        let number = reader.as_raw_fd();
        let file = fstat(&reader).unwrap().st_ino;
        drop(ForkFd::new(reader));
        // SAFETY: only asks what the number means; another test may have been given it.
        let now = fstat(unsafe { BorrowedFd::borrow_raw(number) });
        assert!(now.is_err() || now.unwrap().st_ino != file);
    }
}
