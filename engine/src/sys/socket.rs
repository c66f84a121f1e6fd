//! SEQPACKET sockets: the handshake's, which later carry descriptors of memory, and the pairs that serve as
//! descriptor bells, one for each side. A side keeps one end of its bell, which it alone can read, and gives the peer the
//! other. For who receives holds the socket's lock, and a peer with a copy of the end that is read here could receive
//! into a page that it serves itself, and so hold up a receive that asks not to wait (tried).
//!
//! On the socket of an established connection two packets have a meaning:
//!
//! ```text
//! goodbye   8 bytes, no descriptor      memory   24 bytes, exactly one descriptor
//!  +-------------+                       +-------------+
//!  | "MEMITBYE"  |                       | "MEMITMEM"  |
//!  +-------------+                       | number  u64 |  from 1 up, never reused on a connection
//!                                        | kind    u32 |  1 extent, 2 sealed
//!                                        | zero    u32 |  all little-endian
//!                                        +-------------+
//! ```
//!
//! A descriptor that came from a peer shares its status flags with that peer, who may clear `O_NONBLOCK` at
//! any time. So every send and receive here carries `MSG_DONTWAIT`, and `MSG_NOSIGNAL` where it applies.
//!
//! The last close of a file that a peer chose can wait (a TCP socket lingers: tried). So no receive closes one, see
//! [`ancillary`], and whoever does not want what came passes it to [`discard`].

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::io::{Errno, retry_on_intr};
use rustix::net::{
    self, AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, Shutdown, SocketAddrUnix, SocketFlags,
    SocketType, sockopt,
};

use crate::sys::ancillary::{self, Packet};
use crate::sys::discard::discard;

/// What a side sends before it closes a connection that worked.
pub(crate) const GOODBYE: [u8; 8] = *b"MEMITBYE";
/// As much as is read of a packet on the socket of an established connection: more than any that has a meaning.
const MOST_HEARD: usize = 512;

/// Begins a packet that brings memory.
const MEMORY: [u8; 8] = *b"MEMITMEM";
const MEMORY_LEN: usize = 24;

/// Descriptors that one packet of ours takes along.
const MOST_SENT: usize = 4;

const SEND: SendFlags = SendFlags::DONTWAIT.union(SendFlags::NOSIGNAL);

/// What a receive brought.
#[derive(Debug)]
pub(crate) enum Received {
    /// One packet; its bytes are at the start of the buffer.
    Packet {
        /// Bytes received, no more than the buffer holds.
        len: usize,
        /// The descriptors that came with it, close-on-exec; of more than [`ancillary::ROOM`], that many at least.
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
    /// There were more descriptors than this process may open. The packet stays queued, with those that it brought.
    pub(crate) descriptors: bool,
}

/// What a connected peer had to say on its socket.
#[derive(Debug)]
pub(crate) enum Heard {
    /// Nothing now.
    Nothing,
    /// It leaves in order.
    Goodbye,
    /// It closed its socket, or died.
    HangUp,
    /// It passes memory, which it says is of this kind; `memory` may be anything.
    Memory {
        /// What the peer calls it; not 0.
        number: u64,
        /// What it is to be taken as.
        kind: MemoryKind,
        /// The one descriptor that came.
        memory: OwnedFd,
    },
    /// A packet came without some of its descriptors: this process may open no more.
    Cut,
    /// It sent this instead, as far as it is of interest.
    Other(Vec<u8>),
}

/// What memory that is passed is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MemoryKind {
    /// Blocks, which its owner writes again and again.
    Extent,
    /// One payload, which nobody writes any more.
    Sealed,
}

impl MemoryKind {
    const fn on_the_wire(self) -> u32 {
        match self {
            Self::Extent => 1,
            Self::Sealed => 2,
        }
    }

    fn from_wire(kind: u32) -> Option<Self> {
        [Self::Extent, Self::Sealed].into_iter().find(|known| known.on_the_wire() == kind)
    }
}

/// What was in a bell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rung {
    /// No ring.
    Not,
    /// A ring.
    Once,
    /// A ring with descriptors, which none brings. They are closed, at the latest with the bell.
    WithDescriptors,
    /// The other end is gone.
    HungUp,
}

/// A socket that is neither bound nor connected. `blocking` concerns [`connect`] alone.
pub(crate) fn seqpacket(blocking: bool) -> io::Result<OwnedFd> {
    let flags = if blocking { SocketFlags::CLOEXEC } else { SocketFlags::CLOEXEC | SocketFlags::NONBLOCK };
    Ok(net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?)
}

/// A connected pair; each side makes one per connection as its descriptor bell.
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
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_SENT))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(Errno::TOOMANYREFS);
    }
    net::sendmsg(fd, &[IoSlice::new(bytes)], &mut control, SEND).map(drop)
}

/// Receives at most one packet, and closes nothing. After one that was cut of descriptors, or brought
/// [`ancillary::ROOM`] of them or more, the connection is to be ended: it may be met again.
pub(crate) fn receive(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<Received, Errno> {
    let packet = match ancillary::receive(fd, buffer) {
        // The peer closed its end without having read all that was sent to it. This is said once, and ahead of what
        // the peer sent before it closed.
        Err(Errno::CONNRESET) => ancillary::receive(fd, buffer),
        outcome => outcome,
    };
    let Packet { len, descriptors, is_cut, lacks_descriptors } = match packet {
        Ok(packet) => packet,
        Err(Errno::AGAIN | Errno::INTR) => return Ok(Received::Nothing),
        Err(error) => return Err(error),
    };
    let cut = Cut { bytes: is_cut, descriptors: lacks_descriptors };
    // An empty packet looks like the end of the stream, and nobody who keeps the protocol sends one.
    if len == 0 && descriptors.is_empty() && !cut.descriptors {
        return Ok(Received::HangUp);
    }
    Ok(Received::Packet { len: len.min(buffer.len()), descriptors, cut })
}

/// Rings the peer's descriptor bell. A full queue is success: a ring waits there already.
pub(crate) fn ring_bell(fd: BorrowedFd<'_>) -> io::Result<()> {
    loop {
        return match net::send(fd, &[1], SEND) {
            Ok(_) | Err(Errno::AGAIN) => Ok(()),
            Err(Errno::INTR) => continue,
            Err(error) => Err(error.into()),
        };
    }
}

/// Takes one ring out of our bell. As long as more are queued it stays readable: an honest peer leaves one or two, and one
/// that fills the queue gets no more of the dispatching thread's time than one in each turn.
pub(crate) fn hear_bell(fd: BorrowedFd<'_>) -> Rung {
    match receive(fd, &mut [0; 8]) {
        Ok(Received::Packet { descriptors, cut, .. }) if descriptors.is_empty() && !cut.descriptors => Rung::Once,
        Ok(Received::Packet { descriptors, .. }) => {
            descriptors.into_iter().for_each(discard);
            Rung::WithDescriptors
        }
        // If a signal came in between, the bell stays readable.
        Ok(Received::Nothing) => Rung::Not,
        Ok(Received::HangUp) | Err(_) => Rung::HungUp,
    }
}

/// Tells the peer that this side leaves in order. A peer that is gone, or whose queue is full of what it did not
/// read, finds out by the hang-up.
pub(crate) fn send_goodbye(fd: BorrowedFd<'_>) {
    let _ = send(fd, &GOODBYE, &[]);
}

/// Passes memory to the peer, under a number that is not 0. The peer may not have read enough of what it was sent
/// (`EAGAIN`), and this process may have too many descriptors on their way (`ETOOMANYREFS`); nothing is sent then.
pub(crate) fn send_memory(
    fd: BorrowedFd<'_>,
    number: u64,
    kind: MemoryKind,
    memory: BorrowedFd<'_>,
) -> Result<(), Errno> {
    debug_assert!(number > 0, "memory is numbered from 1 on");
    let packet = memory_packet(number, kind);
    retry_on_intr(|| send(fd, &packet, &[memory]))
}

fn memory_packet(number: u64, kind: MemoryKind) -> [u8; MEMORY_LEN] {
    let mut packet = [0; MEMORY_LEN];
    packet[..8].copy_from_slice(&MEMORY);
    packet[8..16].copy_from_slice(&number.to_le_bytes());
    packet[16..20].copy_from_slice(&kind.on_the_wire().to_le_bytes());
    packet
}

/// The number and kind that a packet of memory gives; `None` of any other.
fn parse_memory(packet: &[u8]) -> Option<(u64, MemoryKind)> {
    let (number, kind) = packet.strip_prefix(&MEMORY)?.split_first_chunk()?;
    let (kind, zero) = kind.split_first_chunk()?;
    let number = u64::from_le_bytes(*number);
    let kind = MemoryKind::from_wire(u32::from_le_bytes(*kind))?;
    (number > 0 && zero == [0; 4]).then_some((number, kind))
}

/// Reads at most one packet from the socket of an established connection. Packets that came before the end of the
/// connection are heard before it, also when this side hung up. Does not wait, whatever descriptors came.
pub(crate) fn hear(fd: BorrowedFd<'_>) -> Heard {
    let mut buffer = [0_u8; MOST_HEARD];
    let (len, descriptors, cut) = match receive(fd, &mut buffer) {
        Ok(Received::Packet { len, descriptors, cut }) => (len, descriptors, cut),
        Ok(Received::Nothing) => return Heard::Nothing,
        Ok(Received::HangUp) | Err(_) => return Heard::HangUp,
    };
    let packet = buffer.get(..len).unwrap_or_default();
    if cut.descriptors {
        descriptors.into_iter().for_each(discard);
        return Heard::Cut;
    }
    let descriptors = match (parse_memory(packet), <[OwnedFd; 1]>::try_from(descriptors)) {
        (Some((number, kind)), Ok([memory])) => return Heard::Memory { number, kind, memory },
        (None, Ok([memory])) => vec![memory],
        (_, Err(descriptors)) => descriptors,
    };
    descriptors.into_iter().for_each(discard);
    if packet == GOODBYE { Heard::Goodbye } else { Heard::Other(packet.to_vec()) }
}

/// Ends both directions, so that every copy of the peer's end sees a hang-up, wherever our own copies are.
pub(crate) fn hang_up(fd: BorrowedFd<'_>) {
    // It fails only if the connection is over, which is what is wanted.
    let _ = net::shutdown(fd, Shutdown::Both);
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use rustix::event::{PollFd, PollFlags, poll};
    use rustix::fs::{MemfdFlags, OFlags, fcntl_getfl, fcntl_setfl, fstat, memfd_create};
    use rustix::io::{FdFlags, fcntl_getfd};
    use rustix::process::{Resource, Rlimit, setrlimit};

    use super::*;
    use crate::sys::ancillary::ROOM;
    use crate::sys::discard::testing::lingering;
    use crate::sys::fork::testing::exit_code_of;
    use crate::sys::peer_socket::{Maker, PeerSocket};

    /// Descriptors that the kernel lets one packet carry (SCM_MAX_FD).
    const MOST_CARRIED: usize = 253;

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

    /// Sends `bytes` with as many descriptors of one file as are wanted.
    fn send_copies(to: &OwnedFd, bytes: &[u8], of: &OwnedFd, copies: usize) {
        send_any(to, bytes, &vec![of.as_fd(); copies]);
    }

    /// Sends `bytes` with as many descriptors as a packet can carry, or fewer.
    fn send_any(to: &OwnedFd, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_CARRIED))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(descriptors.is_empty() || control.push(SendAncillaryMessage::ScmRights(descriptors)));
        net::sendmsg(to, &[IoSlice::new(bytes)], &mut control, SEND).unwrap();
    }

    /// Runs `f` where no descriptor can be opened.
    fn exit_code_without_descriptors(f: impl FnOnce() -> i32) -> i32 {
        exit_code_of(|| {
            setrlimit(Resource::Nofile, Rlimit { current: Some(0), maximum: Some(0) }).unwrap();
            f()
        })
    }

    #[test]
    fn bytes_that_do_not_fit_are_said_to_be_cut() {
        let (a, b) = pair().unwrap();
        send(a.as_fd(), b"0123456789", &[]).unwrap();
        let Received::Packet { len, cut, .. } = receive(b.as_fd(), &mut [0; 4]).unwrap() else { panic!() };
        assert_eq!((len, cut), (4, Cut { bytes: true, descriptors: false }));
    }

    #[test]
    fn of_more_descriptors_than_any_packet_has_only_some_are_received_and_the_packet_stays() {
        let (a, b) = pair().unwrap();
        send_copies(&a, b"few", &descriptor(), ROOM);
        send_copies(&a, b"many", &descriptor(), MOST_CARRIED);
        for expected in [b"few ", b"many", b"many"] {
            let mut bytes = *b"    ";
            let Received::Packet { descriptors, cut, .. } = receive(b.as_fd(), &mut bytes).unwrap() else { panic!() };
            assert_eq!((&bytes, cut), (expected, Cut::default()));
            assert!((ROOM..2 * ROOM).contains(&descriptors.len()), "{}", descriptors.len());
        }
    }

    #[test]
    fn descriptors_that_cannot_be_opened_are_said_to_be_cut() {
        let (a, b) = pair().unwrap();
        let memory = descriptor();
        send_memory(a.as_fd(), 1, MemoryKind::Extent, memory.as_fd()).unwrap();
        send_copies(&a, b"", &memory, 1);
        send_copies(&a, b"MEMITBYE", &memory, 2);
        let code = exit_code_without_descriptors(|| i32::from(!(0..3).all(|_| matches!(hear(b.as_fd()), Heard::Cut))));
        assert_eq!(code, 0);
    }

    #[test]
    fn the_packet_of_memory_is_made_of_these_bytes() {
        let golden = *b"MEMITMEM\x08\x07\x06\x05\x04\x03\x02\x01\x02\0\0\0\0\0\0\0";
        assert_eq!(memory_packet(0x0102_0304_0506_0708, MemoryKind::Sealed), golden);
        assert_eq!(memory_packet(1, MemoryKind::Extent), *b"MEMITMEM\x01\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0");
        assert_eq!(parse_memory(&golden), Some((0x0102_0304_0506_0708, MemoryKind::Sealed)));
    }

    #[test]
    fn memory_arrives_under_its_number_and_in_order() {
        let (a, b) = pair().unwrap();
        let files = [descriptor(), descriptor()];
        send_memory(a.as_fd(), 7, MemoryKind::Extent, files[0].as_fd()).unwrap();
        send_memory(a.as_fd(), u64::MAX, MemoryKind::Sealed, files[1].as_fd()).unwrap();
        for (file, sent) in files.iter().zip([(7, MemoryKind::Extent), (u64::MAX, MemoryKind::Sealed)]) {
            let Heard::Memory { number, kind, memory } = hear(b.as_fd()) else { panic!() };
            assert_eq!((number, kind), sent);
            assert_eq!(fstat(&memory).unwrap().st_ino, fstat(file).unwrap().st_ino);
            assert!(fcntl_getfd(&memory).unwrap().contains(FdFlags::CLOEXEC));
        }
        assert!(matches!(hear(b.as_fd()), Heard::Nothing));
    }

    #[test]
    fn a_full_queue_takes_no_memory_and_does_not_wait() {
        let (a, b) = pair().unwrap();
        let memory = descriptor();
        let mut sent = 0;
        let error = loop {
            match send_memory(a.as_fd(), sent + 1, MemoryKind::Sealed, memory.as_fd()) {
                Ok(()) => sent += 1,
                Err(error) => break error,
            }
        };
        assert_eq!(error, Errno::AGAIN);
        for n in 1..=sent {
            assert!(matches!(hear(b.as_fd()), Heard::Memory { number, .. } if number == n));
        }
        assert!(matches!(hear(b.as_fd()), Heard::Nothing));
    }

    #[test]
    fn what_is_no_proper_packet_of_memory_is_other_and_its_descriptors_are_closed() {
        let good = memory_packet(1, MemoryKind::Extent);
        let changed = |at: usize, to: u8| {
            let mut packet = good;
            packet[at] = to;
            packet.to_vec()
        };
        let cases = [
            (good.to_vec(), 0),
            (good.to_vec(), 2),
            (good.to_vec(), ROOM),
            (good.to_vec(), MOST_CARRIED),
            (changed(0, b'm'), 1),
            (changed(8, 0), 1),
            (changed(16, 0), 1),
            (changed(16, 3), 1),
            (changed(19, 1), 1),
            (changed(20, 1), 1),
            (changed(23, 0x80), 1),
            (good[..23].to_vec(), 1),
            ([&good[..], &[0]].concat(), 1),
            (MEMORY.to_vec(), 1),
            (vec![], 1),
        ];
        for (packet, copies) in cases {
            let (a, b) = pair().unwrap();
            let (reader, writer) = rustix::pipe::pipe().unwrap();
            send_copies(&a, &packet, &writer, copies);
            drop(writer);
            let heard = hear(b.as_fd());
            assert!(matches!(&heard, Heard::Other(bytes) if *bytes == packet), "{packet:?}, {copies}: {heard:?}");
            drop(PeerSocket::new(b, Maker::Us));
            // Returns only once the writing end is closed everywhere.
            poll(&mut [PollFd::new(&reader, PollFlags::IN)], None).unwrap();
        }
    }

    #[test]
    fn descriptors_that_come_with_a_goodbye_or_a_ring_are_closed() {
        let (a, b) = pair().unwrap();
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        send_copies(&a, &GOODBYE, &writer, 1);
        send_copies(&a, &[1], &writer, 9);
        drop(writer);
        assert!(matches!(hear(b.as_fd()), Heard::Goodbye));
        assert_eq!(hear_bell(b.as_fd()), Rung::WithDescriptors);
        drop(PeerSocket::new(b, Maker::Us));
        poll(&mut [PollFd::new(&reader, PollFlags::IN)], None).unwrap();
    }

    #[test]
    fn packets_sent_before_this_side_hung_up_are_still_heard() {
        let (a, b) = pair().unwrap();
        let memory = descriptor();
        for number in 1..=3 {
            send_memory(a.as_fd(), number, MemoryKind::Extent, memory.as_fd()).unwrap();
        }
        send_goodbye(a.as_fd());
        hang_up(b.as_fd());
        assert_eq!(send_memory(a.as_fd(), 4, MemoryKind::Extent, memory.as_fd()), Err(Errno::PIPE));
        for n in 1..=3 {
            assert!(matches!(hear(b.as_fd()), Heard::Memory { number, .. } if number == n));
        }
        assert!(matches!(hear(b.as_fd()), Heard::Goodbye));
        assert!(matches!(hear(b.as_fd()), Heard::HangUp));
    }

    #[test]
    fn packets_of_a_peer_that_closed_without_reading_are_heard_before_its_end() {
        let (a, b) = pair().unwrap();
        let memory = descriptor();
        send_memory(b.as_fd(), 1, MemoryKind::Extent, memory.as_fd()).unwrap();
        send_memory(a.as_fd(), 2, MemoryKind::Extent, memory.as_fd()).unwrap();
        send_goodbye(a.as_fd());
        drop(a);
        assert!(matches!(hear(b.as_fd()), Heard::Memory { number: 2, .. }));
        assert!(matches!(hear(b.as_fd()), Heard::Goodbye));
        assert!(matches!(hear(b.as_fd()), Heard::HangUp));
    }

    #[test]
    fn a_descriptor_whose_close_lingers_holds_up_nobody() {
        let Some(lingering) = lingering() else { return };
        let (a, b) = pair().unwrap();
        send_copies(&a, b"other", &lingering(), 1);
        send_copies(&a, &[1], &lingering(), 1);
        let start = std::time::Instant::now();
        assert!(matches!(hear(b.as_fd()), Heard::Other(_)));
        assert_eq!(hear_bell(b.as_fd()), Rung::WithDescriptors);
        // Behind an empty packet, which looks like the end of the stream.
        send_copies(&a, b"", &descriptor(), 0);
        send_copies(&a, b"unheard", &lingering(), 2);
        drop(PeerSocket::new(b, Maker::Us));
        assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    }

    #[test]
    fn a_descriptor_that_finds_no_number_or_no_room_is_not_closed_by_who_receives() {
        let Some(lingering) = lingering() else { return };
        let (a, b) = pair().unwrap();
        let (ringer, bell) = pair().unwrap();
        send_any(&a, &memory_packet(1, MemoryKind::Extent), &[lingering().as_fd()]);
        send_any(&ringer, &[1], &[lingering().as_fd()]);
        let (c, d) = pair().unwrap();
        let many = [(); ROOM + 1].map(|()| lingering());
        send_any(&c, b"many", &many.each_ref().map(AsFd::as_fd));
        // The packet's own references are the last.
        drop(many);
        let start = std::time::Instant::now();
        let code = exit_code_without_descriptors(|| {
            let is_cut = matches!(hear(b.as_fd()), Heard::Cut);
            i32::from(!(is_cut && hear_bell(bell.as_fd()) == Rung::WithDescriptors))
        });
        assert_eq!(code, 0);
        assert!(matches!(hear(d.as_fd()), Heard::Other(_)));
        for socket in [b, bell, d] {
            drop(PeerSocket::new(socket, Maker::Us));
        }
        assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    }

    #[test]
    fn no_call_waits_when_the_peer_makes_the_descriptor_blocking() {
        let (a, b) = pair().unwrap();
        for end in [&a, &b] {
            fcntl_setfl(end, fcntl_getfl(end).unwrap() & !OFlags::NONBLOCK).unwrap();
        }
        assert!(matches!(receive(a.as_fd(), &mut [0; 8]), Ok(Received::Nothing)));
        assert_eq!(hear_bell(a.as_fd()), Rung::Not);
        assert!(matches!(hear(a.as_fd()), Heard::Nothing));
        // Far more rings than any queue holds.
        for _ in 0..5_000 {
            ring_bell(b.as_fd()).unwrap();
        }
    }

    #[test]
    fn a_bell_that_was_heard_can_be_rung_again_and_tells_when_the_ringer_is_gone() {
        let (a, b) = pair().unwrap();
        for _ in 0..2 {
            ring_bell(a.as_fd()).unwrap();
            ring_bell(a.as_fd()).unwrap();
            assert_eq!([(); 3].map(|()| hear_bell(b.as_fd())), [Rung::Once, Rung::Once, Rung::Not]);
        }
        ring_bell(a.as_fd()).unwrap();
        drop(a);
        assert_eq!([(); 2].map(|()| hear_bell(b.as_fd())), [Rung::Once, Rung::HungUp]);
        assert!(ring_bell(b.as_fd()).is_err());
    }

    #[test]
    fn a_goodbye_is_told_from_a_hang_up_and_from_other_packets() {
        let (a, b) = pair().unwrap();
        send_goodbye(a.as_fd());
        send(a.as_fd(), b"MEMITBYE?", &[]).unwrap();
        send(a.as_fd(), b"MEMITBY", &[]).unwrap();
        drop(a);
        assert!(matches!(hear(b.as_fd()), Heard::Goodbye));
        for other in [&b"MEMITBYE?"[..], b"MEMITBY"] {
            assert!(matches!(hear(b.as_fd()), Heard::Other(bytes) if bytes == other));
        }
        assert!(matches!(hear(b.as_fd()), Heard::HangUp));
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
