//! Sockets to a peer, and how they are closed.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::sys::ancillary;
use crate::sys::discard::discard;
use crate::sys::fork::ForkFd;
use crate::sys::socket;

/// A connected socket, to which the peer may have sent descriptors that nobody has received.
///
/// Dropping it does not wait. Who closes a socket also closes what is queued in it, and the last close of a file that a
/// hostile peer chose can take for as long as the peer likes. So a socket in which anything is left is closed on a
/// throwaway thread; and so is one that the peer has made, whose state the peer can change at any moment. In each case the
/// peer sees a hang-up at once, and before it what was sent to it.
#[derive(Debug)]
pub(crate) struct PeerSocket {
    /// There until the drop.
    fd: Option<ForkFd>,
    maker: Maker,
}

/// Who made a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Maker {
    /// This process, which alone has it.
    Us,
    /// The peer, which may have kept a copy.
    Peer,
}

impl PeerSocket {
    pub(crate) fn new(fd: OwnedFd, maker: Maker) -> Self {
        Self { fd: Some(ForkFd::new(fd)), maker }
    }
}

impl AsFd for PeerSocket {
    /// As for [`ForkFd`].
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_ref().map_or(rustix::fs::ABS, AsFd::as_fd)
    }
}

impl Drop for PeerSocket {
    fn drop(&mut self) {
        // In a forked child there is none.
        let Some(fd) = self.fd.take().and_then(ForkFd::into_owned) else { return };
        // Nothing more is queued from then on.
        socket::hang_up(fd.as_fd());
        if self.maker == Maker::Peer || ancillary::is_anything_queued(fd.as_fd()) {
            discard(fd);
        }
    }
}
