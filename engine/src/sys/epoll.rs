//! Waiting for many descriptors at once, level-triggered.
#![allow(unsafe_code)]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::ptr;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, epoll, poll};
use rustix::io::Errno;

use super::fork::ForkFd;

/// What a descriptor is ready for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Readiness {
    /// What the descriptor was added under.
    pub(crate) token: u64,
    /// A read, receive or accept will not find it empty.
    pub(crate) readable: bool,
    /// The other end is gone, or the descriptor is in error. There may still be something to read.
    pub(crate) hung_up: bool,
}

/// An epoll instance. It waits for readability and hang-ups.
#[derive(Debug)]
pub(crate) struct Epoll(ForkFd);

/// Descriptors that one wait reports at most; the others are reported by the next.
const ROOM: usize = 64;

impl Epoll {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self(ForkFd::new(epoll::create(epoll::CreateFlags::CLOEXEC)?)))
    }

    /// Starts waiting for `fd`; each event will carry `token`.
    pub(crate) fn add(&self, fd: BorrowedFd<'_>, token: u64) -> io::Result<()> {
        let interest = epoll::EventFlags::IN | epoll::EventFlags::RDHUP;
        Ok(epoll::add(&self.0, fd, epoll::EventData::new_u64(token), interest)?)
    }

    /// Ends the wait for `fd`, which must not have been closed since [`Epoll::add`].
    pub(crate) fn remove(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        Ok(epoll::delete(&self.0, fd)?)
    }

    /// Ends the wait for a descriptor of which only the number is known. If it was closed since [`Epoll::add`], the
    /// wait for it had ended already, and nothing happens unless its number was added anew.
    pub(crate) fn remove_number(&self, fd: RawFd) {
        let epoll = self.0.as_fd().as_raw_fd();
        // SAFETY: takes two numbers, whatever they mean, and no event for this operation.
        unsafe { libc::epoll_ctl(epoll, libc::EPOLL_CTL_DEL, fd, ptr::null_mut()) };
    }

    /// Waits until something is ready or `timeout` is over, which is rounded up to whole milliseconds, and replaces
    /// what is in `ready`. A signal ends the wait early, with nothing ready.
    pub(crate) fn wait(&self, ready: &mut Vec<Readiness>, timeout: Option<Duration>) -> io::Result<()> {
        ready.clear();
        // A timeout that does not fit waits as long as the call can; the caller looks at its clock anyway.
        let longest = Duration::from_millis(i32::MAX.unsigned_abs().into());
        let timeout = timeout.map(|t| Timespec::try_from(t.min(longest)).unwrap_or_default());
        let mut room = [MaybeUninit::uninit(); ROOM];
        let found = match epoll::wait(&self.0, &mut room[..], timeout.as_ref()) {
            Ok((found, _)) => found,
            Err(Errno::INTR) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let gone = epoll::EventFlags::HUP | epoll::EventFlags::RDHUP | epoll::EventFlags::ERR;
        ready.extend(found.iter().map(|event| {
            let (flags, data) = (event.flags, event.data);
            Readiness {
                token: data.u64(),
                readable: flags.contains(epoll::EventFlags::IN),
                hung_up: flags.intersects(gone),
            }
        }));
        Ok(())
    }

    /// Whether a wait would find something now.
    pub(crate) fn is_readable(&self) -> bool {
        is_readable(self.0.as_fd())
    }
}

/// Whether a read, receive or accept would not find a descriptor empty now.
pub(crate) fn is_readable(fd: BorrowedFd<'_>) -> bool {
    let mut ends = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
    poll(&mut ends, Some(&Timespec::default())).is_ok_and(|ready| ready != 0)
}

impl AsFd for Epoll {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::socket;

    fn found(epoll: &Epoll, timeout: Option<Duration>) -> Vec<Readiness> {
        let mut ready = vec![Readiness { token: 99, readable: true, hung_up: true }];
        epoll.wait(&mut ready, timeout).unwrap();
        assert_eq!(epoll.is_readable(), !ready.is_empty());
        ready
    }

    #[test]
    fn a_ready_descriptor_is_reported_until_it_is_read() {
        let (a, b) = socket::pair().unwrap();
        let epoll = Epoll::new().unwrap();
        epoll.add(a.as_fd(), 7).unwrap();
        assert_eq!(found(&epoll, Some(Duration::ZERO)), []);

        socket::ring_bell(b.as_fd()).unwrap();
        for _ in 0..2 {
            assert_eq!(found(&epoll, None), [Readiness { token: 7, readable: true, hung_up: false }]);
        }
        assert_eq!(socket::hear_bell(a.as_fd()), socket::Rung::Once);
        assert_eq!(found(&epoll, Some(Duration::ZERO)), []);
    }

    #[test]
    fn a_closed_peer_is_reported_as_hung_up() {
        let (a, b) = socket::pair().unwrap();
        let epoll = Epoll::new().unwrap();
        epoll.add(a.as_fd(), 1).unwrap();
        drop(b);
        assert!(found(&epoll, None).iter().any(|event| event.token == 1 && event.hung_up));
    }

    #[test]
    fn a_removed_descriptor_is_silent() {
        let (a, b) = socket::pair().unwrap();
        let (c, d) = socket::pair().unwrap();
        let epoll = Epoll::new().unwrap();
        epoll.add(a.as_fd(), 1).unwrap();
        epoll.add(c.as_fd(), 2).unwrap();
        epoll.remove(a.as_fd()).unwrap();
        epoll.remove_number(c.as_raw_fd());
        socket::ring_bell(b.as_fd()).unwrap();
        socket::ring_bell(d.as_fd()).unwrap();
        assert_eq!(found(&epoll, Some(Duration::ZERO)), []);
    }

    #[test]
    fn more_ready_descriptors_than_one_wait_reports_are_reported_in_turn() {
        let pairs: Vec<_> = (0..ROOM + 10).map(|_| socket::pair().unwrap()).collect();
        let epoll = Epoll::new().unwrap();
        for (token, (a, b)) in (0..).zip(&pairs) {
            epoll.add(a.as_fd(), token).unwrap();
            socket::ring_bell(b.as_fd()).unwrap();
        }
        let mut tokens: Vec<_> = (0..2).flat_map(|_| found(&epoll, None)).map(|event| event.token).collect();
        tokens.sort_unstable();
        tokens.dedup();
        assert_eq!(tokens.len(), pairs.len());
    }
}
