//! Memory that is made here.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{self, FallocateFlags, MemfdFlags, SealFlags};
use rustix::io::{Errno, retry_on_intr};
use rustix::process::{Resource, getrlimit};

use super::SEALS;
use crate::sys::map::{ReadWriteMap, is_writable_map_refused};

/// Why memory could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CreateError {
    /// The kernel, or a sandbox around this process, lacks what one-way memory needs.
    #[error(
        "{missing}; memit needs Linux 5.1 or newer, and a sandbox that enforces the seals of \
         a memfd"
    )]
    Unsupported {
        /// What was found missing.
        missing: &'static str,
    },
    /// There is not enough memory to reserve.
    #[error(
        "could not reserve {needed} bytes of shared memory ({source}); free memory, or use \
         smaller rings and messages"
    )]
    OutOfMemory {
        /// How many bytes were asked for.
        needed: u64,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// The process may not make files of that size, which memory files are, too.
    #[error(
        "the file size limit of this process is {limit} bytes, and {needed} are needed; raise \
         it (ulimit -f), or use smaller rings and messages"
    )]
    FileSizeLimit {
        /// How many bytes were asked for.
        needed: u64,
        /// The process's limit.
        limit: u64,
    },
    /// The process has no descriptor left.
    #[error("no file descriptor is left ({source}); raise the limit (ulimit -n), or close some")]
    NoDescriptors {
        /// What the kernel said.
        source: std::io::Error,
    },
    /// The kernel does not let memory become read-only while something else still uses it.
    #[error(
        "new shared memory is still used by something else ({source}), so that it cannot be made \
         read-only; try again, and look for what reads the memory of this process (a debugger, \
         a checkpoint)"
    )]
    InUse {
        /// What the kernel said.
        source: std::io::Error,
    },
    /// Another call failed.
    #[error("{call} failed on new shared memory: {source}; this is not expected of Linux")]
    Failed {
        /// The call.
        call: &'static str,
        /// What the kernel said.
        source: std::io::Error,
    },
}

/// Makes `size` bytes of zeroed memory that this process can write and whoever gets the descriptor can only read.
pub(crate) fn create(name: &str, size: usize) -> Result<(OwnedFd, ReadWriteMap), CreateError> {
    let needed = size as u64;
    let (fd, map) = reserve(name, size)?;
    put_seals(fd.as_fd(), SEALS, needed)?;
    if !is_writable_map_refused(fd.as_fd()).map_err(create_failed("mmap", needed))? {
        return Err(NOT_ENFORCED);
    }
    Ok((fd, map))
}

/// A sandbox's memfd, when it takes seals and does not keep to them.
pub(super) const NOT_ENFORCED: CreateError =
    CreateError::Unsupported { missing: "the seals of a memfd are kept, but not enforced" };

/// Makes `size` zeroed bytes, reserved and mapped for writing, and not sealed.
pub(super) fn reserve(name: &str, size: usize) -> Result<(OwnedFd, ReadWriteMap), CreateError> {
    let needed = size as u64;
    let fd = open_for(name, needed)?;
    retry_on_intr(|| fs::fallocate(&fd, FallocateFlags::empty(), 0, needed))
        .map_err(create_failed("fallocate", needed))?;
    let map = ReadWriteMap::new(fd.as_fd(), size).map_err(create_failed("mmap", needed))?;
    Ok((fd, map))
}

/// Opens an empty memfd that may grow to `needed` bytes.
pub(super) fn open_for(name: &str, needed: u64) -> Result<OwnedFd, CreateError> {
    if let Some(limit) = getrlimit(Resource::Fsize).current.filter(|&limit| limit < needed) {
        // Going on would not fail, but raise SIGXFSZ.
        return Err(CreateError::FileSizeLimit { needed, limit });
    }
    open(name).map_err(create_failed("memfd_create", needed))
}

/// Adds `seals`, and looks whether they are there.
pub(super) fn put_seals(fd: BorrowedFd<'_>, seals: SealFlags, needed: u64) -> Result<(), CreateError> {
    fs::fcntl_add_seals(fd, seals).map_err(|error| match error {
        Errno::INVAL => CreateError::Unsupported { missing: "a seal is unknown (F_SEAL_FUTURE_WRITE, perhaps)" },
        Errno::BUSY => CreateError::InUse { source: error.into() },
        error => create_failed("F_ADD_SEALS", needed)(error),
    })?;
    if !fs::fcntl_get_seals(fd).map_err(create_failed("F_GET_SEALS", needed))?.contains(seals) {
        return Err(CreateError::Unsupported { missing: "the seals of a memfd are not kept" });
    }
    Ok(())
}

/// Opens a memfd that cannot be executed, where the kernel knows that (Linux 6.3).
pub(super) fn open(name: &str) -> Result<OwnedFd, Errno> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    match fs::memfd_create(name, flags | MemfdFlags::NOEXEC_SEAL) {
        Err(Errno::INVAL) => fs::memfd_create(name, flags),
        outcome => outcome,
    }
}

/// What it means that `call` failed on new memory of `needed` bytes.
pub(super) fn create_failed(call: &'static str, needed: u64) -> impl Fn(Errno) -> CreateError {
    move |error| {
        let source = error.into();
        match error {
            Errno::NOSPC | Errno::NOMEM | Errno::FBIG => CreateError::OutOfMemory { needed, source },
            Errno::MFILE | Errno::NFILE => CreateError::NoDescriptors { source },
            Errno::NOSYS => CreateError::Unsupported { missing: "memfd_create, or fallocate on a memfd, is missing" },
            Errno::OPNOTSUPP => CreateError::Unsupported { missing: "memory of a memfd cannot be reserved" },
            _ => CreateError::Failed { call, source },
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(unsafe_code)]

    use std::ffi::c_void;
    use std::os::fd::AsRawFd;
    use std::ptr;
    use std::sync::atomic::Ordering;

    use rustix::fs::{Mode, OFlags};
    use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap, mprotect, munmap};
    use rustix::process::{Rlimit, setrlimit};

    use super::*;
    use crate::sys::fork::testing::exit_code_of;

    const SIZE: usize = 1 << 16;

    fn try_map(fd: impl AsFd, protection: ProtFlags) -> Result<*mut c_void, Errno> {
        // SAFETY: a new mapping, at an address that the kernel chooses.
        unsafe { mmap(ptr::null_mut(), SIZE, protection, MapFlags::SHARED, fd, 0) }
    }

    #[test]
    fn created_memory_is_reserved_writable_and_zeroed() {
        let (fd, map) = create("memit-test", SIZE).unwrap();
        let stat = fs::fstat(&fd).unwrap();
        assert!(u64::try_from(stat.st_blocks).unwrap() * 512 >= SIZE as u64);
        assert_eq!(stat.st_size, SIZE as i64);
        assert_eq!(map.word64(SIZE - 8).swap(5, Ordering::Relaxed), 0);
    }

    #[test]
    fn a_second_writable_map_is_refused_through_a_reopened_descriptor_too() {
        let (fd, _map) = create("memit-test", SIZE).unwrap();
        let read_write = ProtFlags::READ | ProtFlags::WRITE;
        assert_eq!(try_map(&fd, read_write).unwrap_err(), Errno::PERM);
        let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
        if let Ok(reopened) = fs::open(path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()) {
            assert_eq!(try_map(&reopened, read_write).unwrap_err(), Errno::PERM);
        }
    }

    #[test]
    fn a_read_only_map_cannot_be_made_writable() {
        let (fd, _map) = create("memit-test", SIZE).unwrap();
        let address = try_map(&fd, ProtFlags::READ).unwrap();
        // SAFETY: the mapping made above, which nothing else uses.
        let changed = unsafe { mprotect(address, SIZE, MprotectFlags::READ | MprotectFlags::WRITE) };
        assert_eq!(changed.unwrap_err(), Errno::ACCESS);
        // SAFETY: as above.
        unsafe { munmap(address, SIZE) }.unwrap();
    }

    #[test]
    fn size_and_content_and_seals_are_fixed() {
        let (fd, _map) = create("memit-test", SIZE).unwrap();
        assert_eq!(fs::ftruncate(&fd, 0).unwrap_err(), Errno::PERM);
        assert_eq!(fs::ftruncate(&fd, 2 * SIZE as u64).unwrap_err(), Errno::PERM);
        assert_eq!(rustix::io::pwrite(&fd, b"x", 0).unwrap_err(), Errno::PERM);
        let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        assert_eq!(fs::fallocate(&fd, punch, 0, 4096).unwrap_err(), Errno::PERM);
        assert_eq!(fs::fcntl_add_seals(&fd, SealFlags::WRITE).unwrap_err(), Errno::PERM);
    }

    #[test]
    fn a_file_size_limit_is_an_error_and_not_a_signal() {
        let code = exit_code_of(|| {
            setrlimit(Resource::Fsize, Rlimit { current: Some(4096), maximum: Some(4096) }).unwrap();
            let outcome = create("memit-test", SIZE);
            i32::from(!matches!(outcome, Err(CreateError::FileSizeLimit { needed: 65_536, limit: 4096 })))
        });
        assert_eq!(code, 0);
    }

    #[test]
    fn each_want_is_told_apart() {
        let error = create_failed("fallocate", 7);
        assert!(matches!(error(Errno::NOSPC), CreateError::OutOfMemory { needed: 7, .. }));
        assert!(matches!(error(Errno::MFILE), CreateError::NoDescriptors { .. }));
        assert!(matches!(error(Errno::OPNOTSUPP), CreateError::Unsupported { .. }));
        assert!(matches!(error(Errno::IO), CreateError::Failed { call: "fallocate", .. }));
    }
}
