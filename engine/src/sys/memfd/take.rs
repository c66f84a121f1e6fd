//! Memory that a peer sent.
//!
//! A descriptor that a peer sent may be anything. No call made on it here can wait: `F_GET_SEALS` fails at once on
//! everything but shmem and hugetlbfs, and what follows takes no lock that the peer could hold. (So not `lseek` with
//! `SEEK_HOLE`, which waits for the inode's lock: a peer's `write` from memory that it serves itself holds that.)
#![allow(unsafe_code)]

use std::ops::RangeInclusive;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{self, SealFlags, Stat};
use rustix::io::{self, Errno};

use super::create::CreateError;
use super::sealed::check_enforcement;
use super::{SEALS, WRITE_SEALS};
use crate::advice;
use crate::sys::discard::discard;
use crate::sys::map::{ReadOnlyMap, SealedMap};

/// From linux/magic.h.
const TMPFS_MAGIC: i64 = 0x0102_1994;

/// The unit of `st_blocks`.
const BLOCK: u64 = 512;

const FOR_READING: &str = "pass a memfd that is open for reading";

/// Why a peer's descriptor was not accepted as sealed memory.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MemoryRefused {
    /// Not memory at all.
    #[error(
        "the descriptor has no seals ({source}), so it is not shared memory; a sealed memfd \
         was expected"
    )]
    NotMemory {
        /// What the kernel said.
        source: std::io::Error,
    },
    /// Memory that can still change in size, or get further writers.
    #[error(
        "the memory has the seals {found:#x}, and {expected:#x} were expected; its owner must \
         add the others before it is passed"
    )]
    Unsealed {
        /// The seals that are there.
        found: u32,
        /// Those that must be.
        expected: u32,
    },
    /// Memory of another kind, such as huge pages.
    #[error(
        "the memory is on a file system of type {found:#x}, and tmpfs ({expected:#x}) was \
         expected; pass a plain memfd, without huge pages"
    )]
    NotTmpfs {
        /// The type found.
        found: i64,
        /// That of tmpfs.
        expected: i64,
    },
    /// Memory smaller than a header needs, or larger than this side admits.
    #[error(
        "the memory has {found} bytes, and {least} to {most} were expected; adjust the ring \
         sizes or the limit"
    )]
    Size {
        /// Its size.
        found: i64,
        /// The least that is accepted.
        least: u64,
        /// The most that is accepted.
        most: u64,
    },
    /// Memory with pages that would be charged to whoever reads them first.
    #[error(
        "only {reserved} of the memory's {size} bytes are reserved; its owner must reserve \
         all of them (fallocate)"
    )]
    Sparse {
        /// The bytes that have pages.
        reserved: u64,
        /// The memory's size.
        size: u64,
    },
    /// It could not be established that seals count for anything here, and what is read in place depends on it.
    #[error("whether seals are enforced could not be established: {source}")]
    Unverified {
        /// What memory of our own came to.
        source: CreateError,
    },
    /// Another call failed.
    #[error("{call} failed on the peer's memory: {source}{}", advice::about(source).or(FOR_READING))]
    Failed {
        /// The call.
        call: &'static str,
        /// What the kernel said.
        source: std::io::Error,
    },
}

impl MemoryRefused {
    /// Whether this process lacked what it takes, rather than the memory what it should have.
    pub(crate) fn is_for_want_of_resources(&self) -> bool {
        match self {
            Self::Unverified { .. } => true,
            Self::Failed { source, .. } => matches!(
                source.raw_os_error(),
                Some(libc::ENOMEM | libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::EAGAIN)
            ),
            _ => false,
        }
    }
}

/// Whether a descriptor is of shared memory at all, so that closing it does not wait. Does not wait, whatever it is.
pub(crate) fn is_memory(fd: BorrowedFd<'_>) -> bool {
    #[allow(clippy::useless_conversion, reason = "not an i64 on every architecture")]
    let on_tmpfs = || fs::fstatfs(fd).is_ok_and(|found| i64::from(found.f_type) == TMPFS_MAGIC);
    fs::fcntl_get_seals(fd).is_ok() && on_tmpfs()
}

/// Maps a peer's memory for reading, when it is sealed, plain, fully reserved, and of a size within `sizes`. Closes
/// the descriptor either way. Does not wait, whatever the descriptor is.
pub(crate) fn take(fd: OwnedFd, sizes: RangeInclusive<u64>) -> Result<(ReadOnlyMap, usize), MemoryRefused> {
    take_as(fd, SEALS, sizes, ReadOnlyMap::new)
}

/// Maps a peer's memory that nobody can write any more, when it is sealed so, plain, fully reserved, and of exactly
/// `len` bytes. Closes the descriptor either way. Does not wait, whatever the descriptor is.
pub(crate) fn take_sealed(fd: OwnedFd, len: u64) -> Result<SealedMap, MemoryRefused> {
    if let Err(source) = check_enforcement() {
        discard(fd);
        return Err(MemoryRefused::Unverified { source });
    }
    let map = |fd: BorrowedFd<'_>, len| {
        // SAFETY: `take_as` maps what it found to be shmem with WRITE_SEALS and of that size, and this kernel was
        // just found to enforce them.
        unsafe { SealedMap::new(fd, len) }
    };
    take_as(fd, WRITE_SEALS, len..=len, map).map(|(map, _)| map)
}

fn take_as<M>(
    fd: OwnedFd,
    seals: SealFlags,
    sizes: RangeInclusive<u64>,
    map: impl FnOnce(BorrowedFd<'_>, usize) -> io::Result<M>,
) -> Result<(M, usize), MemoryRefused> {
    let inspected = inspect(fd.as_fd(), seals, sizes);
    let taken = inspected.and_then(|inspected| map_inspected(fd.as_fd(), inspected, map));
    match taken {
        // Known to be shmem, whose close does not wait.
        Ok(_) => drop(fd),
        Err(_) => discard(fd),
    }
    taken
}

/// What was found about memory that passed.
struct Inspected {
    size: usize,
    reserved: u64,
}

fn inspect(fd: BorrowedFd<'_>, expected: SealFlags, sizes: RangeInclusive<u64>) -> Result<Inspected, MemoryRefused> {
    // First, since it alone is safe on any descriptor.
    let seals = fs::fcntl_get_seals(fd).map_err(|error| MemoryRefused::NotMemory { source: error.into() })?;
    if !seals.contains(expected) {
        return Err(MemoryRefused::Unsealed { found: seals.bits(), expected: expected.bits() });
    }
    #[allow(clippy::useless_conversion, reason = "not an i64 on every architecture")]
    let found = i64::from(fs::fstatfs(fd).map_err(take_failed("fstatfs"))?.f_type);
    if found != TMPFS_MAGIC {
        return Err(MemoryRefused::NotTmpfs { found, expected: TMPFS_MAGIC });
    }
    // From here on the size cannot change, and no page that is there can go.
    let stat = fs::fstat(fd).map_err(take_failed("fstat"))?;
    let refused = || MemoryRefused::Size { found: stat.st_size, least: *sizes.start(), most: *sizes.end() };
    let size = u64::try_from(stat.st_size).ok().filter(|size| sizes.contains(size)).ok_or_else(refused)?;
    let reserved = reserved(&stat);
    if reserved < size {
        return Err(MemoryRefused::Sparse { reserved, size });
    }
    // Blocks behind the end of the file count, too, and can hide holes before it.
    if let Some(present) = present(fd, size)?.filter(|&present| present < size) {
        return Err(MemoryRefused::Sparse { reserved: present, size });
    }
    Ok(Inspected { size: usize::try_from(size).map_err(|_| refused())?, reserved })
}

fn map_inspected<M>(
    fd: BorrowedFd<'_>,
    inspected: Inspected,
    map: impl FnOnce(BorrowedFd<'_>, usize) -> io::Result<M>,
) -> Result<(M, usize), MemoryRefused> {
    let Inspected { size, reserved: before } = inspected;
    let map = map(fd, size).map_err(take_failed("mmap"))?;
    // Where holes could not be looked for: pages that came with the map were charged to us. Unmapped, and with the
    // descriptor closed, they are the owner's to keep or to free.
    let after = reserved(&fs::fstat(fd).map_err(take_failed("fstat"))?);
    if after > before {
        let size = size as u64;
        return Err(MemoryRefused::Sparse { reserved: size.saturating_sub(after - before), size });
    }
    Ok((map, size))
}

fn take_failed(call: &'static str) -> impl Fn(Errno) -> MemoryRefused {
    move |error| MemoryRefused::Failed { call, source: error.into() }
}

#[allow(clippy::useless_conversion, clippy::unnecessary_fallible_conversions, reason = "signed on some architectures")]
fn reserved(stat: &Stat) -> u64 {
    u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(BLOCK)
}

/// How many of the first `size` bytes have a page, in memory or swapped out; `None` where the kernel (before 6.5) or
/// a sandbox cannot say.
fn present(fd: BorrowedFd<'_>, size: u64) -> Result<Option<u64>, MemoryRefused> {
    /// The same number on every architecture that memit runs on.
    const SYS_CACHESTAT: libc::c_long = 451;
    #[repr(C)]
    struct Range {
        offset: u64,
        len: u64,
    }
    #[repr(C)]
    #[derive(Default)]
    struct Counts {
        cached: u64,
        dirty: u64,
        writeback: u64,
        evicted: u64,
        recently_evicted: u64,
    }
    let range = Range { offset: 0, len: size };
    let mut counts = Counts::default();
    // SAFETY: cachestat(fd, range, counts, flags) reads the first struct and fills the second, both of the layout of
    // linux/mman.h and alive for the call. It takes no lock, so it cannot wait.
    let result = unsafe { libc::syscall(SYS_CACHESTAT, fd.as_raw_fd(), &raw const range, &raw mut counts, 0_u32) };
    if result == 0 {
        let pages = counts.cached.saturating_add(counts.evicted);
        return Ok(Some(pages.saturating_mul(rustix::param::page_size() as u64)));
    }
    match std::io::Error::last_os_error() {
        // Refused to all but those who could write the file, which a memfd's mode lets everybody; a peer that took
        // that away has something to hide.
        error if error.raw_os_error() == Some(libc::EPERM) && !is_writable_by_mode(fd)? => {
            Err(MemoryRefused::Failed { call: "cachestat", source: error })
        }
        _ => Ok(None),
    }
}

fn is_writable_by_mode(fd: BorrowedFd<'_>) -> Result<bool, MemoryRefused> {
    const EVERYBODY: u32 = 0o222;
    let stat = fs::fstat(fd).map_err(take_failed("fstat"))?;
    Ok(stat.st_mode & EVERYBODY == EVERYBODY)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use rustix::fs::{FallocateFlags, MemfdFlags, Mode, OFlags, SealFlags};
    use rustix::net::{AddressFamily, SocketType, socket};
    use rustix::pipe::pipe;

    use super::super::create::{create, open};
    use super::super::testing::{sealed, unsealed};
    use super::*;

    const SIZE: usize = 1 << 16;
    const SIZES: RangeInclusive<u64> = 4096..=1 << 20;

    #[test]
    fn the_maker_writes_and_the_taker_reads() {
        let (fd, ours) = create("memit-test", SIZE).unwrap();
        let (theirs, size) = take(fd, SIZES).unwrap();
        assert_eq!(size, SIZE);
        ours.word64(8).store(42, Ordering::Relaxed);
        assert_eq!(theirs.load64(8), 42);
    }

    #[test]
    fn what_is_not_memory_is_refused() {
        let (reader, writer) = pipe().unwrap();
        let socket = socket(AddressFamily::UNIX, SocketType::SEQPACKET, None).unwrap();
        let file = std::fs::File::open("/proc/self/exe").unwrap();
        let path = fs::open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
        for fd in [reader, writer, socket, file.into(), path] {
            let error = take(fd, SIZES).unwrap_err();
            assert!(matches!(error, MemoryRefused::NotMemory { .. }), "{error}");
        }
    }

    #[test]
    fn memory_that_lacks_any_seal_is_refused() {
        for missing in [SealFlags::SHRINK, SealFlags::GROW, SealFlags::FUTURE_WRITE, SealFlags::SEAL] {
            let fd = unsealed(SIZE, b"");
            fs::fcntl_add_seals(&fd, SEALS.difference(missing)).unwrap();
            let error = take(fd, SIZES).unwrap_err();
            let MemoryRefused::Unsealed { found, expected } = error else { panic!("{error}") };
            assert_eq!((found & missing.bits(), expected), (0, SEALS.bits()));
        }
    }

    #[test]
    fn seals_are_tested_by_mask() {
        let fd = unsealed(SIZE, b"");
        fs::fcntl_add_seals(&fd, SealFlags::WRITE).unwrap();
        fs::fcntl_add_seals(&fd, SEALS).unwrap();
        assert!(take(fd, SIZES).is_ok());
    }

    #[test]
    fn a_file_on_a_tmpfs_is_refused() {
        let Ok(directory) = tempfile::tempdir_in("/dev/shm") else {
            return;
        };
        let file = std::fs::File::create(directory.path().join("file")).unwrap();
        let error = take(file.into(), SIZES).unwrap_err();
        assert!(matches!(error, MemoryRefused::Unsealed { .. } | MemoryRefused::NotMemory { .. }), "{error}");
    }

    #[test]
    fn huge_pages_are_refused() {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING | MemfdFlags::HUGETLB;
        // Needs no huge pages to be configured, as long as none is touched; a kernel without hugetlbfs has nothing
        // to refuse.
        let Ok(fd) = fs::memfd_create("memit-test", flags) else {
            return;
        };
        fs::ftruncate(&fd, 2 << 20).unwrap();
        fs::fcntl_add_seals(&fd, SEALS).unwrap();
        let error = take(fd, 4096..=4 << 20).unwrap_err();
        assert!(matches!(error, MemoryRefused::NotTmpfs { .. }), "{error}");
    }

    #[test]
    fn a_size_outside_the_limits_is_refused() {
        for size in [4095, (1 << 20) + 1] {
            let error = take(sealed(size, b""), SIZES).unwrap_err();
            assert!(
                matches!(error, MemoryRefused::Size { found, least: 4096, most: 0x10_0000 } if found == size as i64),
                "{error}"
            );
        }
        assert!(take(sealed(4096, b""), SIZES).is_ok());
    }

    #[test]
    fn memory_with_holes_is_refused() {
        let fd = open("memit-test").unwrap();
        fs::ftruncate(&fd, SIZE as u64).unwrap();
        fs::fallocate(&fd, FallocateFlags::empty(), 0, SIZE as u64 - 4096).unwrap();
        fs::fcntl_add_seals(&fd, SEALS).unwrap();
        let error = take(fd, SIZES).unwrap_err();
        assert!(matches!(error, MemoryRefused::Sparse { reserved: 61_440, size: 65_536 }), "{error}");
    }

    /// Memory with `SIZE` bytes of holes, and as many bytes reserved behind its end.
    fn holes_hidden_behind_the_end() -> OwnedFd {
        let fd = open("memit-test").unwrap();
        fs::ftruncate(&fd, SIZE as u64).unwrap();
        fs::fallocate(&fd, FallocateFlags::KEEP_SIZE, SIZE as u64, SIZE as u64).unwrap();
        fs::fcntl_add_seals(&fd, SEALS).unwrap();
        fd
    }

    #[test]
    fn holes_are_found_though_blocks_behind_the_end_make_up_for_them() {
        let error = take(holes_hidden_behind_the_end(), SIZES).unwrap_err();
        assert!(matches!(error, MemoryRefused::Sparse { reserved: 0, size: 65_536 }), "{error}");
    }

    #[test]
    fn holes_that_could_not_be_looked_for_are_found_by_what_the_map_cost() {
        let fd = holes_hidden_behind_the_end();
        let unseen = Inspected { size: SIZE, reserved: reserved(&fs::fstat(&fd).unwrap()) };
        let error = map_inspected(fd.as_fd(), unseen, ReadOnlyMap::new).unwrap_err();
        assert!(matches!(error, MemoryRefused::Sparse { reserved: 0, size: 65_536 }), "{error}");
    }

    #[test]
    fn a_descriptor_that_cannot_be_read_is_refused() {
        let fd = sealed(SIZE, b"");
        let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
        let Ok(write_only) = fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()) else {
            return;
        };
        let error = take(write_only, SIZES).unwrap_err();
        assert!(matches!(error, MemoryRefused::Failed { call: "mmap", .. }), "{error}");
    }
}
