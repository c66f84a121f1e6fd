//! SEQPACKET sockets: the handshake's, and the pairs that serve as descriptor bells.
//!
//! A descriptor that came from a peer shares its status flags with that peer, who may clear `O_NONBLOCK` at
//! any time. So every send and receive here carries `MSG_DONTWAIT`, and `MSG_NOSIGNAL` where it applies.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{
    self, AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, Shutdown, SocketAddrUnix, SocketFlags, SocketType, sockopt,
};

/// What a side sends before it closes a connection that worked.
pub(crate) const GOODBYE: [u8; 8] = *b"MEMITBYE";
/// As much as is read of a packet on the socket of an established connection: more than any that has a meaning.
const FAREWELL: usize = 512;

/// Descriptors that one packet may bring before the rest is cut off.
const MAX_DESCRIPTORS: usize = 4;

/// Rings that one [`drain_bell`] takes; more stay queued, and the bell stays readable.
const MAX_RINGS: usize = 64;

const SEND: SendFlags = SendFlags::DONTWAIT.union(SendFlags::NOSIGNAL);

/// What a receive brought.
#[derive(Debug)]
pub(crate) enum Received {
    /// One packet; its bytes are at the start of the buffer.
    Packet {
        /// Bytes received, no more than the buffer holds.
        len: usize,
        /// The descriptors that came with it, close-on-exec.
        descriptors: Vec<OwnedFd>,
        /// What the kernel had to leave out.
        cut: Cut,
    },
    /// Nothing there now.
    Nothing,
    /// The other end is closed.
    HangUp,
}

/// What the kernel left out of a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cut {
    /// The packet was longer than the buffer.
    pub(crate) bytes: bool,
    /// There were more descriptors than room for them, or than this process may open.
    pub(crate) descriptors: bool,
}

/// What a connected peer had to say on its socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Farewell {
    /// Nothing yet.
    Nothing,
    /// It leaves in order.
    Goodbye,
    /// It closed its socket, or died.
    HangUp,
    /// It sent this instead, as far as it is of interest.
    Other(Vec<u8>),
}

/// What was in a bell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Drained {
    /// It had been rung.
    pub(crate) rung: bool,
    /// The other end is gone.
    pub(crate) hung_up: bool,
}

/// A socket that is neither bound nor connected. `blocking` concerns [`connect`] alone.
pub(crate) fn seqpacket(blocking: bool) -> io::Result<OwnedFd> {
    let flags = if blocking { SocketFlags::CLOEXEC } else { SocketFlags::CLOEXEC | SocketFlags::NONBLOCK };
    Ok(net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?)
}

/// A connected pair; main makes one per connection as its descriptor bell.
pub(crate) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?)
}

/// Whether a descriptor from a peer is a socket of the kind that [`pair`] makes.
pub(crate) fn is_seqpacket(fd: BorrowedFd<'_>) -> bool {
    sockopt::socket_domain(fd) == Ok(AddressFamily::UNIX) && sockopt::socket_type(fd) == Ok(SocketType::SEQPACKET)
}

/// Connects a blocking socket; `EAGAIN` means that the listener's queue stayed full for `patience`.
pub(crate) fn connect(fd: BorrowedFd<'_>, address: &SocketAddrUnix, patience: Duration) -> Result<(), Errno> {
    // Zero would mean to wait for ever, and the kernel counts in microseconds.
    let patience = patience.max(Duration::from_micros(1));
    sockopt::set_socket_timeout(fd, sockopt::Timeout::Send, Some(patience))?;
    net::connect(fd, address)
}

/// Takes one connection from a listening socket.
pub(crate) fn accept(fd: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    net::accept_with(fd, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)
}

/// Sends one packet with its descriptors, all or nothing.
pub(crate) fn send(fd: BorrowedFd<'_>, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> Result<(), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(Errno::TOOMANYREFS);
    }
    net::sendmsg(fd, &[IoSlice::new(bytes)], &mut control, SEND).map(drop)
}

/// Receives at most one packet.
pub(crate) fn receive(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<Received, Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let message = match net::recvmsg(fd, &mut [IoSliceMut::new(buffer)], &mut control, flags) {
        Ok(message) => message,
        Err(Errno::AGAIN | Errno::INTR) => return Ok(Received::Nothing),
        Err(error) => return Err(error),
    };
    let descriptors: Vec<OwnedFd> = control
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
            _ => None,
        })
        .flatten()
        .collect();
    // An empty packet looks like the end of the stream, and nobody who keeps the protocol sends one.
    if message.bytes == 0 && descriptors.is_empty() {
        return Ok(Received::HangUp);
    }
    let cut = Cut {
        bytes: message.flags.contains(ReturnFlags::TRUNC),
        descriptors: message.flags.contains(ReturnFlags::CTRUNC),
    };
    Ok(Received::Packet { len: message.bytes.min(buffer.len()), descriptors, cut })
}

/// Rings a descriptor bell. A full queue is success: a ring waits there already.
pub(crate) fn ring_bell(fd: BorrowedFd<'_>) -> io::Result<()> {
    loop {
        return match net::send(fd, &[1], SEND) {
            Ok(_) | Err(Errno::AGAIN) => Ok(()),
            Err(Errno::INTR) => continue,
            Err(error) => Err(error.into()),
        };
    }
}

/// Takes what rings are queued, a bounded number of them. Descriptors that a peer hides there are dropped by
/// the kernel, since no room is offered for them.
pub(crate) fn drain_bell(fd: BorrowedFd<'_>) -> Drained {
    let mut drained = Drained::default();
    for _ in 0..MAX_RINGS {
        match net::recv(fd, &mut [0_u8; 8][..], RecvFlags::DONTWAIT) {
            Ok((0, _)) => {
                drained.hung_up = true;
                break;
            }
            Ok(_) => drained.rung = true,
            Err(Errno::AGAIN) => break,
            Err(Errno::INTR) => {}
            Err(_) => {
                drained.hung_up = true;
                break;
            }
        }
    }
    drained
}

/// Tells the peer that this side leaves in order. A peer that is gone, or whose queue is full of what it did not
/// read, finds out by the hang-up.
pub(crate) fn send_goodbye(fd: BorrowedFd<'_>) {
    let _ = send(fd, &GOODBYE, &[]);
}

/// Reads at most one packet from the socket of an established connection.
pub(crate) fn read_farewell(fd: BorrowedFd<'_>) -> Farewell {
    let mut bytes = [0_u8; FAREWELL];
    match net::recv(fd, &mut bytes[..], RecvFlags::DONTWAIT) {
        Ok((0, _)) => Farewell::HangUp,
        Ok((len, _)) if bytes.get(..len) == Some(&GOODBYE[..]) => Farewell::Goodbye,
        Ok((len, _)) => Farewell::Other(bytes.get(..len).unwrap_or(&bytes).to_vec()),
        Err(Errno::AGAIN | Errno::INTR) => Farewell::Nothing,
        Err(_) => Farewell::HangUp,
    }
}

/// Refuses everything that the peer has not sent yet; it can still read what was sent to it.
pub(crate) fn stop_receiving(fd: BorrowedFd<'_>) {
    // It fails only if the connection is over.
    let _ = net::shutdown(fd, Shutdown::Read);
}

/// Ends both directions, so that every copy of the peer's end sees a hang-up, wherever our own copies are.
pub(crate) fn hang_up(fd: BorrowedFd<'_>) {
    // It fails only if the connection is over, which is what is wanted.
    let _ = net::shutdown(fd, Shutdown::Both);
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use rustix::fs::{MemfdFlags, OFlags, fcntl_getfl, fcntl_setfl, memfd_create};
    use rustix::io::{FdFlags, fcntl_getfd};

    use super::*;

    fn descriptor() -> OwnedFd {
        memfd_create("test", MemfdFlags::CLOEXEC).unwrap()
    }

    #[test]
    fn a_packet_arrives_with_its_descriptors_close_on_exec() {
        let (a, b) = pair().unwrap();
        let (x, y) = (descriptor(), descriptor());
        send(a.as_fd(), b"hello", &[x.as_fd(), y.as_fd()]).unwrap();
        let mut buffer = [0; 16];
        let Received::Packet { len, descriptors, cut } = receive(b.as_fd(), &mut buffer).unwrap() else { panic!() };
        assert_eq!((&buffer[..len], descriptors.len(), cut), (&b"hello"[..], 2, Cut::default()));
        for fd in &descriptors {
            assert!(fcntl_getfd(fd).unwrap().contains(FdFlags::CLOEXEC));
        }
        assert!(matches!(receive(b.as_fd(), &mut buffer), Ok(Received::Nothing)));
        drop(a);
        assert!(matches!(receive(b.as_fd(), &mut buffer), Ok(Received::HangUp)));
    }

    #[test]
    fn what_does_not_fit_is_said_to_be_cut() {
        let (a, b) = pair().unwrap();
        let many: Vec<_> = (0..9).map(|_| descriptor()).collect();
        let many: Vec<_> = many.iter().map(AsFd::as_fd).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(9))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(control.push(SendAncillaryMessage::ScmRights(&many)));
        net::sendmsg(&a, &[IoSlice::new(b"0123456789")], &mut control, SEND).unwrap();
        let mut buffer = [0; 4];
        let Received::Packet { len, cut, .. } = receive(b.as_fd(), &mut buffer).unwrap() else { panic!() };
        assert_eq!((len, cut), (4, Cut { bytes: true, descriptors: true }));
    }

    #[test]
    fn no_call_waits_when_the_peer_makes_the_descriptor_blocking() {
        let (a, b) = pair().unwrap();
        for end in [&a, &b] {
            fcntl_setfl(end, fcntl_getfl(end).unwrap() & !OFlags::NONBLOCK).unwrap();
        }
        assert!(matches!(receive(a.as_fd(), &mut [0; 8]), Ok(Received::Nothing)));
        assert_eq!(drain_bell(a.as_fd()), Drained::default());
        assert_eq!(read_farewell(a.as_fd()), Farewell::Nothing);
        // Far more rings than any queue holds.
        for _ in 0..5_000 {
            ring_bell(b.as_fd()).unwrap();
        }
    }

    #[test]
    fn a_drained_bell_can_be_rung_again_and_tells_when_the_ringer_is_gone() {
        let (a, b) = pair().unwrap();
        for _ in 0..2 {
            ring_bell(a.as_fd()).unwrap();
            ring_bell(a.as_fd()).unwrap();
            assert_eq!(drain_bell(b.as_fd()), Drained { rung: true, hung_up: false });
            assert_eq!(drain_bell(b.as_fd()), Drained::default());
        }
        ring_bell(a.as_fd()).unwrap();
        drop(a);
        assert_eq!(drain_bell(b.as_fd()), Drained { rung: true, hung_up: true });
        assert!(ring_bell(b.as_fd()).is_err());
    }

    #[test]
    fn a_goodbye_is_told_from_a_hang_up_and_from_other_packets() {
        let (a, b) = pair().unwrap();
        send_goodbye(a.as_fd());
        send(a.as_fd(), b"MEMITBYE?", &[]).unwrap();
        send(a.as_fd(), b"MEMITBY", &[]).unwrap();
        drop(a);
        let said: Vec<_> = (0..4).map(|_| read_farewell(b.as_fd())).collect();
        let other = |bytes: &[u8]| Farewell::Other(bytes.to_vec());
        assert_eq!(said, [Farewell::Goodbye, other(b"MEMITBYE?"), other(b"MEMITBY"), Farewell::HangUp]);
    }

    #[test]
    fn only_a_seqpacket_unix_socket_passes_for_a_bell() {
        let (a, _b) = pair().unwrap();
        assert!(is_seqpacket(a.as_fd()));
        assert!(!is_seqpacket(descriptor().as_fd()));
        let (stream, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        assert!(!is_seqpacket(stream.as_fd()));
    }
}
