//! Linux, one file for each family of calls.

pub(crate) mod ancillary;
pub(crate) mod barrier;
pub(crate) mod discard;
pub(crate) mod epoll;
pub(crate) mod fdset;
pub(crate) mod fork;
pub(crate) mod futex;
pub(crate) mod listener;
pub(crate) mod map;
pub(crate) mod memfd;
pub(crate) mod peer_socket;
pub(crate) mod pidfd;
pub(crate) mod preemption;
pub(crate) mod socket;
pub(crate) mod thread;
