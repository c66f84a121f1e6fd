//! Who is at the other end of a Unix socket, and a descriptor that tells when that process ends.
//!
//! # Invariants
//!
//! 1. Each option buffer is at least as long as the length that is passed with it, and lives across the call.
//! 2. A descriptor number that the kernel has just made for us is owned by nobody else.
#![allow(unsafe_code)]

use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::{fs, io};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::config::Credentials;

/// The user id that the kernel shows for a user without a mapping in our user namespace.
pub(crate) fn overflow_uid() -> u32 {
    const USUAL: u32 = 65_534;
    fs::read_to_string("/proc/sys/kernel/overflowuid").ok().and_then(|text| text.trim().parse().ok()).unwrap_or(USUAL)
}

/// The process that connected, or, asked by who connected, the one that listens.
pub(crate) fn peer_credentials(socket: BorrowedFd<'_>) -> io::Result<Credentials> {
    // Not rustix's: its process id cannot be zero, which is what a process outside our namespace has.
    let peer: libc::ucred = option(socket, libc::SO_PEERCRED)?;
    Ok(Credentials { pid: peer.pid, uid: peer.uid, gid: peer.gid })
}

/// A descriptor that becomes readable when the process at the other end of `socket` ends. Where the kernel or a
/// sandbox offers none, it is one that never does, and the socket's hang-up has to do.
///
/// # Errors
/// `ESRCH` if the process has ended already.
pub(crate) fn peer_pidfd(socket: BorrowedFd<'_>, peer: &Credentials) -> Result<OwnedFd, Errno> {
    match option::<RawFd>(socket, libc::SO_PEERPIDFD) {
        // SAFETY: invariant 2.
        Ok(fd) if fd >= 0 => return Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        Ok(_) => return Err(Errno::SRCH),
        Err(Errno::NOPROTOOPT) => {}
        Err(Errno::SRCH | Errno::INVAL | Errno::NODATA) => return Err(Errno::SRCH),
        Err(error) => return Err(error),
    }
    open_by_number(socket, peer)?.map_or_else(|| eventfd(0, EventfdFlags::CLOEXEC), Ok)
}

/// For kernels before 6.5. The number may have been given to another process since the connect; so the socket
/// must still be open at the far end once the descriptor is there.
fn open_by_number(socket: BorrowedFd<'_>, peer: &Credentials) -> Result<Option<OwnedFd>, Errno> {
    let Some(pid) = (peer.pid > 0).then(|| Pid::from_raw(peer.pid)).flatten() else { return Ok(None) };
    let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(pidfd) => pidfd,
        Err(Errno::NOSYS | Errno::PERM | Errno::ACCESS) => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut ends = [PollFd::from_borrowed_fd(socket, PollFlags::RDHUP)];
    poll(&mut ends, Some(&Timespec::default()))?;
    let gone = PollFlags::HUP | PollFlags::RDHUP | PollFlags::ERR;
    if ends.iter().any(|end| end.revents().intersects(gone)) { Err(Errno::SRCH) } else { Ok(Some(pidfd)) }
}

/// A value that the kernel writes in full, and of which every bit pattern is valid.
trait SocketOption: Copy {}
impl SocketOption for libc::ucred {}
impl SocketOption for RawFd {}

fn option<T: SocketOption>(socket: BorrowedFd<'_>, name: libc::c_int) -> Result<T, Errno> {
    let mut value = MaybeUninit::<T>::zeroed();
    #[allow(clippy::cast_possible_truncation)] // the two types above have 4 and 12 bytes
    let mut len = size_of::<T>() as libc::socklen_t;
    // SAFETY: invariant 1; the descriptor is open for as long as it is borrowed.
    let result = unsafe {
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, name, value.as_mut_ptr().cast(), &raw mut len)
    };
    if result != 0 {
        return Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::INVAL));
    }
    if len as usize != size_of::<T>() {
        return Err(Errno::INVAL);
    }
    // SAFETY: zeroed first, then written by the kernel; every bit pattern of a `SocketOption` is valid.
    Ok(unsafe { value.assume_init() })
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::sys::epoll::is_readable;
    use crate::sys::socket;

    #[test]
    fn a_peer_of_our_own_process_shows_our_credentials() {
        let (a, _b) = socket::pair().unwrap();
        let peer = peer_credentials(a.as_fd()).unwrap();
        assert_eq!(peer.pid.unsigned_abs(), std::process::id());
        assert_eq!(peer.uid, rustix::process::geteuid().as_raw());
    }

    #[test]
    fn the_pidfd_of_a_living_peer_is_not_readable() {
        let (a, _b) = socket::pair().unwrap();
        let peer = peer_credentials(a.as_fd()).unwrap();
        assert!(!is_readable(peer_pidfd(a.as_fd(), &peer).unwrap().as_fd()));
        assert!(!is_readable(open_by_number(a.as_fd(), &peer).unwrap().unwrap().as_fd()));
    }

    #[test]
    fn a_number_whose_socket_has_hung_up_is_not_trusted() {
        let (a, b) = socket::pair().unwrap();
        let peer = peer_credentials(a.as_fd()).unwrap();
        drop(b);
        assert_eq!(open_by_number(a.as_fd(), &peer).unwrap_err(), Errno::SRCH);
    }

    #[test]
    fn a_peer_outside_our_process_namespace_has_no_pidfd_by_number() {
        let (a, _b) = socket::pair().unwrap();
        let peer = Credentials { pid: 0, uid: 0, gid: 0 };
        assert!(open_by_number(a.as_fd(), &peer).unwrap().is_none());
    }
}
