//! A listening socket, and how it is closed.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::io::Errno;

use crate::sys::discard::discard;
use crate::sys::fork::ForkFd;
use crate::sys::peer_socket::{Maker, PeerSocket};
use crate::sys::socket;

/// A listening socket, in which connections may wait that nobody has accepted.
///
/// Dropping it does not wait. Who closes it also closes those connections, and the descriptors that were sent on them.
/// So they are accepted first, to be closed one by one as [`PeerSocket`] does; each client sees a hang-up at once.
#[derive(Debug)]
pub(crate) struct Listener {
    /// There until the drop.
    fd: Option<ForkFd>,
}

impl Listener {
    pub(crate) fn new(fd: ForkFd) -> Self {
        Self { fd: Some(fd) }
    }
}

impl AsFd for Listener {
    /// As for [`ForkFd`].
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_ref().map_or(rustix::fs::ABS, AsFd::as_fd)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // In a forked child there is none.
        let Some(fd) = self.fd.take().and_then(ForkFd::into_owned) else { return };
        // Nobody more connects from then on.
        socket::hang_up(fd.as_fd());
        loop {
            match socket::accept(fd.as_fd()) {
                Ok(waiting) => drop(PeerSocket::new(waiting, Maker::Us)),
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                // Nobody is left.
                Err(Errno::INVAL | Errno::AGAIN) => return,
                // For want of a descriptor, perhaps with connections in it.
                Err(_) => return discard(fd),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::IoSlice;
    use std::mem::MaybeUninit;
    use std::os::fd::OwnedFd;
    use std::time::{Duration, Instant};

    use rustix::net::{
        RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, bind, listen, recv, sendmsg,
    };

    use super::*;
    use crate::sys::discard::testing::lingering;

    fn listener() -> (Listener, SocketAddrUnix, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let address = SocketAddrUnix::new(dir.path().join("socket")).unwrap();
        let fd = socket::seqpacket(false).unwrap();
        bind(&fd, &address).unwrap();
        listen(&fd, 8).unwrap();
        (Listener::new(ForkFd::new(fd)), address, dir)
    }

    fn client(address: &SocketAddrUnix) -> OwnedFd {
        let client = socket::seqpacket(true).unwrap();
        socket::connect(client.as_fd(), address, Duration::from_secs(10)).unwrap();
        client
    }

    #[test]
    fn a_client_that_was_not_accepted_holds_up_nobody_by_what_it_sent() {
        let Some(lingering) = lingering() else { return };
        let (listener, address, _dir) = listener();
        let client = client(&address);
        let sent = lingering();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let descriptors = [sent.as_fd()];
        assert!(control.push(SendAncillaryMessage::ScmRights(&descriptors)));
        sendmsg(&client, &[IoSlice::new(b"unheard")], &mut control, SendFlags::DONTWAIT).unwrap();
        drop(sent);
        let start = Instant::now();
        drop(listener);
        assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    }

    #[test]
    fn clients_that_were_not_accepted_see_a_hang_up() {
        let (listener, address, _dir) = listener();
        let clients = [client(&address), client(&address)];
        drop(listener);
        for client in clients {
            assert!(matches!(recv(&client, &mut [0; 8], RecvFlags::empty()), Ok((_, 0)) | Err(Errno::CONNRESET)));
        }
        let late = socket::seqpacket(true).unwrap();
        assert_eq!(socket::connect(late.as_fd(), &address, Duration::from_secs(1)), Err(Errno::CONNREFUSED));
    }
}
