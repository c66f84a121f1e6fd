//! Who is at the other end.

use std::fmt;

use memit_engine::Link;

/// A process at the other end of a connection, as the kernel described it when it connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Peer {
    /// The connection's number at the main, which it never gives twice.
    pub id: u64,
    /// Process id in our namespace; 0 if the process is not visible there.
    pub pid: i32,
    /// Effective user id.
    pub uid: u32,
    /// Effective group id.
    pub gid: u32,
}

impl Peer {
    pub(crate) fn of(link: &Link) -> Self {
        let credentials = link.credentials();
        Self { id: link.id(), pid: credentials.pid, uid: credentials.uid, gid: credentials.gid }
    }
}

/// `peer 3 (process 4711)`.
impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "peer {} (process {})", self.id, self.pid)
    }
}
