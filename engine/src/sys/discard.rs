//! Closing descriptors that a peer sent and that are not what they should be.
//!
//! The last `close` of a file can wait: for a file system in user space to flush, for a socket to linger. A hostile
//! peer chooses the file, so no thread that serves others may close it; throwaway threads do. There are few at a
//! time, so that a peer whose files never close cannot fill this process with threads; what they have not got to
//! counts against the descriptor limit, which refuses further connections. Nothing here is locked, so a child that is
//! forked meanwhile can go on using it.
#![allow(unsafe_code)]

use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};

use crate::sys::fdset::FdSet;
use crate::sys::fork::Epoch;
use crate::sys::sigmask::with_signals_blocked;

const MOST_THREADS: u64 = 4;

/// Packets that are taken out of a socket before it is closed: more than a queue holds by default. A peer may go on
/// filling a socket that it chose.
const MOST_QUEUED: usize = 4096;

/// The descriptors to close. The set owns them.
static PENDING: FdSet = FdSet::new();

/// Closes `fd` on a throwaway thread. Does not wait.
pub(crate) fn discard(fd: OwnedFd) {
    PENDING.insert(fd.into_raw_fd());
    // SYNC discard: pairs with `close_all`, which gives up its place before it looks for the last time. Both are
    // sequentially consistent: either a place is found here, or the last look finds the descriptor.
    if let Some(place) = Place::take() {
        let builder = thread::Builder::new().name("memit-close".into()).stack_size(128 << 10);
        let spawned = with_signals_blocked(|| builder.spawn(|| close_all(place))).flatten();
        if let Err(error) = spawned {
            // The closure, dropped, has given its place back: the next descriptor to discard brings a thread.
            tracing::debug!(%error, "no thread to close a refused descriptor on");
        }
    }
}

fn close_all(place: Place) {
    let mut place = Some(place);
    while place.is_some() {
        while let Some(fd) = PENDING.take() {
            // SAFETY: `discard` put it in as its owner, and `take` gives it to one caller.
            close(unsafe { OwnedFd::from_raw_fd(fd) });
        }
        place = None;
        // SYNC discard: pairs with `discard`.
        if let Some(fd) = PENDING.take() {
            // Came after the last look, and perhaps found no place: put back, for whoever has one now.
            PENDING.insert(fd);
            place = Place::take();
        }
    }
}

/// Closes a descriptor. Of a socket what is queued goes first, or its other end would see a reset before it has read
/// what was sent to it.
fn close(fd: OwnedFd) {
    for _ in 0..MOST_QUEUED {
        // Without a control buffer the kernel closes the descriptors that came, here, where it may wait.
        match recv(&fd, &mut [0; 8], RecvFlags::DONTWAIT) {
            // Said once, and ahead of what is queued.
            Err(Errno::CONNRESET) => {}
            Ok((_, len)) if len > 0 => {}
            _ => break,
        }
    }
}

/// Forgets what is to be closed. Async-signal-safe. In a child that was just forked the numbers are the parent's, and may
/// soon mean other files here; the child's copies stay open until it executes a program or ends.
pub(crate) fn forget() {
    while PENDING.take().is_some() {}
}

/// One of the few threads that may run at a time.
#[derive(Debug)]
struct Place(Epoch);

/// The epoch's number above, and how many places are taken below: a forked child has none of its parent's threads.
static TAKEN: AtomicU64 = AtomicU64::new(0);
const COUNT_BITS: u32 = 8;
const COUNT: u64 = (1 << COUNT_BITS) - 1;

impl Place {
    fn take() -> Option<Self> {
        let epoch = Epoch::current();
        let counted = TAKEN.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |word| {
            let taken = if word >> COUNT_BITS == epoch.number() { word & COUNT } else { 0 };
            (taken < MOST_THREADS).then_some(epoch.number() << COUNT_BITS | (taken + 1))
        });
        counted.ok().map(|_| Self(epoch))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.0.is_current() {
            TAKEN.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::OwnedFd;
    use std::time::Duration;

    use rustix::net::sockopt::set_socket_linger;

    /// Makes sockets whose last close takes two seconds. `None` in a sandbox without a loopback interface.
    pub(crate) fn lingering() -> Option<impl Fn() -> OwnedFd> {
        let listener = TcpListener::bind("127.0.0.1:0").ok()?;
        Some(move || {
            let mut tcp = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            tcp.set_nonblocking(true).unwrap();
            while tcp.write(&[0; 1 << 16]).is_ok() {}
            tcp.set_nonblocking(false).unwrap();
            set_socket_linger(&tcp, Some(Duration::from_secs(2))).unwrap();
            OwnedFd::from(tcp)
        })
    }
}

#[cfg(test)]
mod tests {
    use rustix::event::{PollFd, PollFlags, poll};
    use rustix::pipe::pipe;

    use super::*;

    #[test]
    fn every_discarded_descriptor_is_closed() {
        let mut readers = Vec::new();
        for _ in 0..200 {
            let (reader, writer) = pipe().unwrap();
            discard(writer);
            readers.push(reader);
        }
        for reader in &readers {
            // Returns only once the writing end is closed everywhere.
            poll(&mut [PollFd::new(reader, PollFlags::IN)], None).unwrap();
        }
    }
}
