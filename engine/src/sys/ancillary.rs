//! Receiving a packet without closing any file that came with it.
//!
//! Where the kernel finds no number for a descriptor, or no room in the control buffer, it closes it in the thread that
//! receives. The last close of a file that a hostile peer chose can wait for as long as the peer likes, and a peer can
//! bring this process to its limit on open files with files whose close waits (tried). So a packet is looked at first,
//! with room for a few descriptors: that makes new references to its files, and those that find no number are let go
//! while the packet keeps its own. Only if all were received is the packet taken out, without a control buffer: then it
//! is the packet's references that go, and ours that stay. A packet that brought more stays where it is, for whoever
//! closes the socket.
//!
//! The sockets are this process's own: no peer has a copy of an end that is read here, so nobody can set an option on it
//! by which the kernel would add descriptors of its own making to each packet, and nobody receives meanwhile. Two threads
//! must not receive from a socket at once.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, recv, recvmsg, sockopt};

use crate::sys::discard::discard;

/// Descriptors for which there is room at least: more than any packet that has a meaning brings, so that too many are
/// told from a want of numbers.
pub(crate) const ROOM: usize = 4;

/// What a receive brought.
pub(crate) struct Packet {
    /// Bytes received.
    pub(crate) len: usize,
    /// The descriptors, close-on-exec. Of more than `ROOM` there are `ROOM` at least.
    pub(crate) descriptors: Vec<OwnedFd>,
    /// The packet was longer than the buffer.
    pub(crate) is_cut: bool,
    /// For some of its descriptors, of which there were fewer, this process has no number.
    pub(crate) lacks_descriptors: bool,
}

/// Receives one packet, without waiting and without closing anything. One with descriptors of which some were not
/// received stays queued; so does an empty one, which looks like the end.
pub(crate) fn receive(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<Packet, Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(ROOM))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let (len, flags) = look(fd, buffer, &mut control)?;
    let rights = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    let descriptors: Vec<OwnedFd> = rights.flatten().collect();
    let has_all = !flags.contains(ReturnFlags::CTRUNC);
    if has_all
        && (len > 0 || !descriptors.is_empty())
        && let Err(error) = take_out(fd)
    {
        descriptors.into_iter().for_each(discard);
        return Err(error);
    }
    Ok(Packet {
        len,
        lacks_descriptors: !has_all && descriptors.len() < ROOM,
        descriptors,
        is_cut: flags.contains(ReturnFlags::TRUNC),
    })
}

/// What the first packet in the queue is, which stays there.
fn look(
    fd: BorrowedFd<'_>,
    buffer: &mut [u8],
    control: &mut RecvAncillaryBuffer<'_>,
) -> Result<(usize, ReturnFlags), Errno> {
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let received = recvmsg(fd, &mut [IoSliceMut::new(buffer)], control, flags)?;
    Ok((received.bytes, received.flags))
}

/// Takes the first packet out of the queue.
fn take_out(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    loop {
        match recv(fd, &mut [0; 0], RecvFlags::DONTWAIT) {
            // The peer has closed its end since the packet was looked at; said once, and ahead of the packet.
            Err(Errno::CONNRESET | Errno::INTR) => {}
            outcome => return outcome.map(drop),
        }
    }
}

/// Whether a packet is queued, also an empty one. Takes nothing out.
pub(crate) fn is_anything_queued(fd: BorrowedFd<'_>) -> bool {
    // With it each packet brings its sender's credentials, and the end of the stream does not.
    if sockopt::set_socket_passcred(fd, true).is_err() {
        return true;
    }
    match is_packet_queued(fd) {
        // Said once, and ahead of what the peer sent before it closed its end.
        Err(Errno::CONNRESET) => is_packet_queued(fd),
        outcome => outcome,
    }
    .unwrap_or_else(|error| error != Errno::AGAIN)
}

/// Whether what a receive would bring is a packet, once credentials come with each.
fn is_packet_queued(fd: BorrowedFd<'_>) -> Result<bool, Errno> {
    // For credentials alone: copies of descriptors that find no room are let go, and the packet keeps its own.
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmCredentials(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let (len, flags) = look(fd, &mut [], &mut control)?;
    Ok(len > 0 || flags.contains(ReturnFlags::CTRUNC) || control.drain().next().is_some())
}
