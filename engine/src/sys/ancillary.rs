//! Receiving a packet with every descriptor that the kernel installs for it.
//!
//! Those that the sender passed are not the only ones. A socket that came from a peer is one that the peer has, too, and
//! can set options on: with `SO_PASSPIDFD` each packet brings a new descriptor of its sender's process, which a receiver
//! that does not look for it would leave open (tried: a descriptor was lost with each ring of a bell). Credentials and
//! labels that are asked for like that come first, so there is room for them, too.
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

/// Descriptors that the kernel lets one packet carry (SCM_MAX_FD).
pub(crate) const MOST_RECEIVED: usize = 253;

/// The message that holds a descriptor of the sender's process; the same on every architecture that memit runs on.
const SCM_PIDFD: libc::c_int = 4;

/// Room for all descriptors, and for credentials, a label and a process's descriptor, with their headers.
const SPACE: usize = (MOST_RECEIVED * size_of::<RawFd>()) + 1024;

/// Room for credentials with their header.
const CREDENTIALS: usize = 32;

#[repr(C, align(16))]
struct Control([MaybeUninit<u8>; SPACE]);

/// What a receive brought.
pub(crate) struct Packet {
    /// Bytes received.
    pub(crate) len: usize,
    /// The descriptors, close-on-exec.
    pub(crate) descriptors: Vec<OwnedFd>,
    /// The packet was longer than the buffer.
    pub(crate) is_cut: bool,
    /// Some of what came with it could not be had.
    pub(crate) lacks_descriptors: bool,
}

/// Receives one packet, without waiting.
pub(crate) fn receive(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<Packet, Errno> {
    let mut control = Control([MaybeUninit::uninit(); SPACE]);
    let (len, message) = receive_message(fd, buffer, &mut control.0, 0)?;
    Ok(Packet {
        len,
        descriptors: descriptors(&message),
        is_cut: message.msg_flags & libc::MSG_TRUNC != 0,
        lacks_descriptors: message.msg_flags & libc::MSG_CTRUNC != 0,
    })
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
            // SAFETY: computes the length of a header; takes a number.
            let before = unsafe { libc::CMSG_LEN(0) } as usize;
            #[allow(clippy::unnecessary_cast, reason = "not a usize in every C library")]
            let count = (header.cmsg_len as usize).saturating_sub(before) / size_of::<RawFd>();
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
