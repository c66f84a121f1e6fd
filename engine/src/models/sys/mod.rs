//! The system, as far as the modelled parts need one. It stands where `crate::sys` does.

pub(crate) mod futex;
pub(crate) mod map;
pub(crate) mod memfd;

pub(crate) mod discard {
    pub(crate) fn discard(fd: std::os::fd::OwnedFd) {
        drop(fd);
    }
}

pub(crate) mod fork {
    use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

    /// No model forks.
    #[derive(Debug)]
    pub(crate) struct ForkFd(OwnedFd);

    impl ForkFd {
        pub(crate) fn new(fd: OwnedFd) -> Self {
            Self(fd)
        }

        pub(crate) fn into_owned(self) -> Option<OwnedFd> {
            Some(self.0)
        }
    }

    impl AsFd for ForkFd {
        fn as_fd(&self) -> BorrowedFd<'_> {
            self.0.as_fd()
        }
    }
}

pub(crate) mod socket {
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) enum MemoryKind {
        Extent,
        Sealed,
    }
}
