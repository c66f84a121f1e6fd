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
//! Two threads must not receive from a socket at once, and no other process from one of ours.
//!
//! # Invariants
//!
//! 1. What the kernel has written to the control buffer begins on a header, and each header's length says where its content
//!    ends; `CMSG_FIRSTHDR` and `CMSG_NXTHDR` go from one to the next, within `msg_controllen`.
//! 2. The numbers in a message of `SCM_RIGHTS` or `SCM_PIDFD` that are not negative are of descriptors that were made for
//!    this process by this receive, and that nobody else knows of.
#![allow(unsafe_code)]

use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use rustix::io::Errno;
use rustix::net::RecvFlags;

use crate::sys::discard::discard;

/// Descriptors that are received with one packet: more than any that has a meaning brings, so that too many are told
/// from enough.
pub(crate) const MOST_RECEIVED: usize = 5;

/// The message that holds a descriptor of the sender's process; the same on every architecture that memit runs on.
const SCM_PIDFD: libc::c_int = 4;

/// Room for the descriptors with their header, and not for one more.
const SPACE: usize = HEADER + MOST_RECEIVED * size_of::<RawFd>();

/// A header of the control buffer.
// SAFETY: computes a length.
const HEADER: usize = unsafe { libc::CMSG_LEN(0) } as usize;

/// Room for credentials with their header.
const CREDENTIALS: usize = 32;

#[repr(C, align(16))]
struct Control([MaybeUninit<u8>; SPACE]);

/// What a receive brought.
pub(crate) struct Packet {
    /// Bytes received.
    pub(crate) len: usize,
    /// The descriptors, close-on-exec. Of `MOST_RECEIVED` or more there are that many.
    pub(crate) descriptors: Vec<OwnedFd>,
    /// The packet was longer than the buffer.
    pub(crate) is_cut: bool,
    /// For some of its descriptors, of which there were fewer, this process has no number.
    pub(crate) lacks_descriptors: bool,
}

/// Receives one packet, without waiting and without closing anything. One with descriptors of which some were not
/// received stays queued; so does an empty one, which looks like the end.
pub(crate) fn receive(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<Packet, Errno> {
    let mut control = Control([MaybeUninit::uninit(); SPACE]);
    let (len, message) = receive_message(fd, buffer, &mut control.0, libc::MSG_PEEK)?;
    let descriptors = descriptors(&message);
    let has_all = message.msg_flags & libc::MSG_CTRUNC == 0;
    if has_all
        && (len > 0 || !descriptors.is_empty())
        && let Err(error) = take_out(fd)
    {
        descriptors.into_iter().for_each(discard);
        return Err(error);
    }
    Ok(Packet {
        len,
        lacks_descriptors: !has_all && descriptors.len() < MOST_RECEIVED,
        descriptors,
        is_cut: message.msg_flags & libc::MSG_TRUNC != 0,
    })
}

/// Takes the first packet out of the queue.
fn take_out(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    loop {
        match rustix::net::recv(fd, &mut [0; 0], RecvFlags::DONTWAIT) {
            // The peer has closed its end since the packet was looked at; said once, and ahead of the packet.
            Err(Errno::CONNRESET | Errno::INTR) => {}
            outcome => return outcome.map(drop),
        }
    }
}

/// What came, without waiting: bytes to `buffer`, and to `control` what came with them, as the message says.
fn receive_message(
    fd: BorrowedFd<'_>,
    buffer: &mut [u8],
    control: &mut [MaybeUninit<u8>],
    flags: libc::c_int,
) -> Result<(usize, libc::msghdr), Errno> {
    let mut bytes = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: all its fields are numbers and pointers, for which zero is a value.
    let mut message: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    message.msg_iov = &raw mut bytes;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    #[allow(clippy::useless_conversion, reason = "not a usize in every C library")]
    {
        message.msg_controllen = control.len().try_into().map_err(|_| Errno::INVAL)?;
    }
    let flags = flags | libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
    // SAFETY: the message names buffers of the lengths that it says, which live on and which nobody else uses.
    let received = unsafe { libc::recvmsg(fd.as_raw_fd(), &raw mut message, flags) };
    let Ok(len) = usize::try_from(received) else {
        return Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO));
    };
    Ok((len, message))
}

/// Whether a packet is queued on a socket of this process's own, also an empty one. Takes nothing out.
pub(crate) fn is_anything_queued(fd: BorrowedFd<'_>) -> bool {
    // With it each packet brings its sender's credentials, and the end of the stream does not.
    if rustix::net::sockopt::set_socket_passcred(fd, true).is_err() {
        return true;
    }
    match peek(fd) {
        // Said once, and ahead of what the peer sent before it closed its end.
        Err(Errno::CONNRESET) => peek(fd),
        outcome => outcome,
    }
    .unwrap_or_else(|error| error != Errno::AGAIN)
}

/// Whether what a receive would bring is a packet.
fn peek(fd: BorrowedFd<'_>) -> Result<bool, Errno> {
    let mut control = Control([MaybeUninit::uninit(); SPACE]);
    // For credentials alone: copies of descriptors that find no room are let go, and the packet keeps its own.
    let (len, message) = receive_message(fd, &mut [], &mut control.0[..CREDENTIALS], libc::MSG_PEEK)?;
    Ok(len > 0 || message.msg_controllen != 0 || message.msg_flags & libc::MSG_CTRUNC != 0)
}

/// Takes all descriptors out of what came with a packet.
fn descriptors(message: &libc::msghdr) -> Vec<OwnedFd> {
    let mut descriptors = Vec::new();
    // SAFETY: the kernel has filled it in (invariant 1).
    let mut next = unsafe { libc::CMSG_FIRSTHDR(message) };
    // SAFETY: null, or a header within the control buffer (invariant 1), which is aligned for it.
    while let Some(header) = unsafe { next.as_ref() } {
        if header.cmsg_level == libc::SOL_SOCKET && matches!(header.cmsg_type, libc::SCM_RIGHTS | SCM_PIDFD) {
            #[allow(clippy::unnecessary_cast, reason = "not a usize in every C library")]
            let count = (header.cmsg_len as usize).saturating_sub(HEADER) / size_of::<RawFd>();
            // SAFETY: the content begins behind the header (invariant 1).
            let content: *const RawFd = unsafe { libc::CMSG_DATA(next) }.cast();
            for index in 0..count {
                // SAFETY: within the content, whose length the header says (invariant 1).
                let place = unsafe { content.add(index) };
                // SAFETY: as above; the content need not be aligned.
                let number = unsafe { ptr::read_unaligned(place) };
                // In place of a process's descriptor that could not be made there is an error's number.
                if number >= 0 {
                    // SAFETY: made for us, and taken by nobody else (invariant 2).
                    descriptors.push(unsafe { OwnedFd::from_raw_fd(number) });
                }
            }
        }
        // SAFETY: `next` is a header of this message (invariant 1).
        next = unsafe { libc::CMSG_NXTHDR(message, next) };
    }
    descriptors
}
