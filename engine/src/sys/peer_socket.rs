//! Sockets to a peer, and how they are closed.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::sys::discard::discard;
use crate::sys::fork::ForkFd;
use crate::sys::socket::{self, Received};

/// A connected socket, to which the peer may have sent descriptors that nobody has received.
///
/// Dropping it does not wait. The kernel would close those descriptors in the thread that closes the socket, and the
/// last close of a file that a hostile peer chose can take for ever; so they are received first, and discarded. The
/// peer sees a hang-up, and what was sent to it before: a socket that is closed with something unread in it would show
/// as a reset.
#[derive(Debug)]
pub(crate) struct PeerSocket(ForkFd);

impl PeerSocket {
    pub(crate) fn new(fd: OwnedFd) -> Self {
        Self(ForkFd::new(fd))
    }
}

impl AsFd for PeerSocket {
    /// As for [`ForkFd`].
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Drop for PeerSocket {
    fn drop(&mut self) {
        // Nothing more is queued from then on. In a forked child, which has closed its copy, all of this fails.
        socket::hang_up(self.0.as_fd());
        while let Ok(Received::Packet { descriptors, .. }) = socket::receive(self.0.as_fd(), &mut [0; 8]) {
            descriptors.into_iter().for_each(discard);
        }
    }
}
