//! Sealed memory: made here and given away read-only, or taken from a peer and distrusted.
//!
//! The seals SHRINK, GROW, FUTURE_WRITE and SEAL, put on after the maker has mapped the memory, leave one process
//! that can write it: every later writable map, `write`, `mprotect`, truncation and punched hole is refused by the
//! kernel, through whatever descriptor. With F_SEAL_WRITE in place of FUTURE_WRITE nobody can write it at all: its
//! maker fills it first, and its taker may use it as it would its own memory.

mod create;
mod sealed;
mod take;

use rustix::fs::SealFlags;

pub use create::CreateError;
pub(crate) use create::create;
pub(crate) use sealed::Unsealed;
pub use take::MemoryRefused;
pub(crate) use take::{is_memory, take, take_sealed};

/// The seals of memory that one process writes. More may be there (F_SEAL_EXEC is).
pub(crate) const SEALS: SealFlags =
    SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::FUTURE_WRITE).union(SealFlags::SEAL);

/// The seals of memory that nobody writes any more.
pub(crate) const WRITE_SEALS: SealFlags =
    SealFlags::WRITE.union(SealFlags::SHRINK).union(SealFlags::GROW).union(SealFlags::SEAL);

#[cfg(test)]
pub(crate) mod testing {
    use std::os::fd::OwnedFd;

    use rustix::fs::{self, FallocateFlags};

    use super::create::open;
    use super::{SEALS, WRITE_SEALS};

    /// Memory of `size` bytes, reserved and not yet sealed, with `content` at its start.
    pub(crate) fn unsealed(size: usize, content: &[u8]) -> OwnedFd {
        let fd = open("memit-test").unwrap();
        fs::fallocate(&fd, FallocateFlags::empty(), 0, size as u64).unwrap();
        assert_eq!(rustix::io::pwrite(&fd, content, 0).unwrap(), content.len());
        fd
    }

    /// As [`unsealed`], and sealed.
    pub(crate) fn sealed(size: usize, content: &[u8]) -> OwnedFd {
        let fd = unsealed(size, content);
        fs::fcntl_add_seals(&fd, SEALS).unwrap();
        fd
    }

    /// As [`unsealed`], and sealed so that nobody can write it.
    pub(crate) fn write_sealed(size: usize, content: &[u8]) -> OwnedFd {
        let fd = unsealed(size, content);
        fs::fcntl_add_seals(&fd, WRITE_SEALS).unwrap();
        fd
    }
}
