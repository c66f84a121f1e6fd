//! A socket whose other end is a peer's.
//!
//! With the last close of a socket the kernel closes what is queued in it, in the thread that closes, and a peer can queue
//! files there whose close waits. So a socket with descriptors in its queue is closed on a throwaway thread, and only one
//! that was found empty where it is dropped.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::sockopt;

use crate::sys::ancillary::{self, Packet};
use crate::sys::discard::discard;
use crate::sys::fork::ForkFd;
use crate::sys::socket::hang_up;

/// Packets that are looked at. An honest peer leaves a ring or two.
const MOST_LOOKED_AT: usize = 64;

/// Owns the socket. Dropping it hangs up, and does not wait.
#[derive(Debug)]
pub(crate) struct PeerSocket(Option<ForkFd>);

impl PeerSocket {
    pub(crate) fn new(fd: OwnedFd) -> Self {
        Self(Some(ForkFd::new(fd)))
    }
}

impl AsFd for PeerSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_ref().map_or(rustix::fs::ABS, AsFd::as_fd)
    }
}

impl Drop for PeerSocket {
    fn drop(&mut self) {
        let Some(fd) = self.0.take().and_then(ForkFd::into_owned) else { return };
        // Nothing is queued behind this.
        hang_up(fd.as_fd());
        if !is_harmless(fd.as_fd()) {
            discard(fd);
        }
    }
}

/// Empties the queue of a socket that was hung up, as long as no descriptors are in it. Whether it is empty.
fn is_harmless(fd: BorrowedFd<'_>) -> bool {
    // An empty packet looks like the end of the queue, but for the credentials that come with every packet if they are
    // asked for.
    if sockopt::set_socket_passcred(fd, true).is_err() {
        return false;
    }
    for _ in 0..MOST_LOOKED_AT {
        match ancillary::receive(fd, &mut [0; 8]) {
            // Says once that the peer has closed its end.
            Err(Errno::CONNRESET | Errno::INTR) => {}
            Ok(Packet { descriptors, lacks_descriptors, .. }) if !descriptors.is_empty() || lacks_descriptors => {
                descriptors.into_iter().for_each(discard);
                return false;
            }
            Ok(Packet { is_accompanied: true, .. }) => {}
            Ok(_) | Err(_) => return true,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};
    use std::time::{Duration, Instant};

    use rustix::event::{PollFd, PollFlags, poll};

    use super::*;
    use crate::sys::socket::{pair, ring_bell, send};

    /// A socket whose last close waits for the other one to be read, and that other one.
    fn lingering(listener: &TcpListener) -> (OwnedFd, TcpStream) {
        let mut stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (other, _) = listener.accept().unwrap();
        stream.set_nonblocking(true).unwrap();
        while stream.write(&[0; 1 << 16]).is_ok() {}
        stream.set_nonblocking(false).unwrap();
        sockopt::set_socket_linger(&stream, Some(Duration::from_secs(5))).unwrap();
        (stream.into(), other)
    }

    #[test]
    fn what_a_peer_has_queued_does_not_hold_up_who_closes() {
        // A sandbox without a loopback interface has nothing that lingers.
        let Ok(listener) = TcpListener::bind("127.0.0.1:0") else { return };
        // Behind what is looked at, behind empty packets, and at once.
        for (plain, packet) in [(MOST_LOOKED_AT + 3, &b"x"[..]), (5, b""), (0, b"")] {
            let (ours, theirs) = pair().unwrap();
            for _ in 0..plain {
                send(theirs.as_fd(), packet, &[]).unwrap();
            }
            let (slow, _other) = lingering(&listener);
            for _ in 0..20 {
                send(theirs.as_fd(), b"", &[slow.as_fd()]).unwrap();
            }
            drop(slow);
            let begin = Instant::now();
            drop(PeerSocket::new(ours));
            assert!(begin.elapsed() < Duration::from_secs(2), "{plain}: {:?}", begin.elapsed());
        }
    }

    #[test]
    fn an_empty_queue_and_plain_packets_are_harmless() {
        for rings in [0, 3] {
            let (ours, theirs) = pair().unwrap();
            (0..rings).for_each(|_| ring_bell(theirs.as_fd()).unwrap());
            hang_up(ours.as_fd());
            assert!(is_harmless(ours.as_fd()), "{rings} rings");
        }
    }

    #[test]
    fn dropping_it_hangs_up_although_another_copy_is_open() {
        let (ours, theirs) = pair().unwrap();
        let _copy = ours.try_clone().unwrap();
        drop(PeerSocket::new(ours));
        let mut polled = [PollFd::new(&theirs, PollFlags::empty())];
        poll(&mut polled, None).unwrap();
        assert!(polled[0].revents().contains(PollFlags::HUP));
    }
}
