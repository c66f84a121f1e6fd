//! Closing descriptors that a peer sent and that are not what they should be.
//!
//! The last `close` of a file can wait: for a file system in user space to flush, for a socket to linger. A hostile
//! peer chooses the file, so no thread that serves others may close it; throwaway threads do. There are few at a
//! time, so that a peer whose files never close cannot fill this process with threads. What they have not got to counts
//! against the descriptor limit, so a main that has much of it accepts nobody more: each connection brings a few
//! descriptors at most. Nothing here is locked, so a child that is forked meanwhile can go on using it.
#![allow(unsafe_code)]

use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};

use crate::sys::fdset::FdSet;
use crate::sys::fork::Epoch;
use crate::sys::thread;

const MOST_THREADS: u64 = 4;

/// Packets that are taken out of a socket before it is closed: more than a queue holds by default. A peer may go on
/// filling a socket that it chose.
const MOST_QUEUED: usize = 4096;

/// The descriptors to close. The set owns them.
static PENDING: FdSet = FdSet::new();

/// How many descriptors are not closed yet, those that a thread is closing included. Tells nothing but itself.
static UNCLOSED: AtomicUsize = AtomicUsize::new(0);

/// More of them than are there for a moment when many peers leave at once.
const MANY_UNCLOSED: usize = 256;

/// Whether so much waits to be closed that nobody who could bring more should be let in.
pub(crate) fn is_behind() -> bool {
    UNCLOSED.load(Ordering::Relaxed) > MANY_UNCLOSED
}

/// Closes `fd` on a throwaway thread. Does not wait.
pub(crate) fn discard(fd: OwnedFd) {
    UNCLOSED.fetch_add(1, Ordering::Relaxed);
    PENDING.insert(fd.into_raw_fd());
    // SYNC discard: pairs with `close_all`, which gives up its place before it looks for the last time. Both are
    // sequentially consistent: either a place is found here, or the last look finds the descriptor.
    let Some(place) = Place::take() else { return };
    if let Err(error) = thread::start(c"memit-close", 128 << 10, || close_all(place)) {
        // The closure, dropped, has given its place back: the next descriptor to discard brings a thread.
        tracing::debug!(%error, "no thread to close a refused descriptor on");
    }
}

fn close_all(place: Place) {
    let mut place = Some(place);
    while place.is_some() {
        while let Some(fd) = PENDING.take() {
            // SAFETY: `discard` put it in as its owner, and `take` gives it to one caller.
            close(unsafe { OwnedFd::from_raw_fd(fd) });
            UNCLOSED.fetch_sub(1, Ordering::Relaxed);
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
    UNCLOSED.store(0, Ordering::Relaxed);
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
    use std::time::{Duration, Instant};

    use rustix::net::sockopt::set_socket_linger;

    use super::{MANY_UNCLOSED, Ordering, Place, UNCLOSED, discard};

    /// Waits until all that was discarded is closed.
    pub(crate) fn wait_until_closed() {
        let deadline = Instant::now() + Duration::from_secs(30);
        while UNCLOSED.load(Ordering::Relaxed) != 0 {
            assert!(Instant::now() < deadline, "discarded descriptors stay open");
            std::thread::yield_now();
        }
    }

    /// As many descriptors as put this process behind, of which none is closed before this is dropped.
    pub(crate) struct Behind(Vec<Place>);

    impl Behind {
        pub(crate) fn new() -> Self {
            let places = std::iter::from_fn(Place::take).collect();
            for _ in 0..=MANY_UNCLOSED {
                discard(rustix::io::dup(std::io::stderr()).unwrap());
            }
            Self(places)
        }
    }

    impl Drop for Behind {
        fn drop(&mut self) {
            self.0.clear();
            discard(rustix::io::dup(std::io::stderr()).unwrap());
        }
    }

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
