//! Memory that is filled here and then sealed against everybody, ourselves included.
//!
//! Whoever takes it may read it in place as it would its own memory, so its size is that of its content, and nothing
//! is left to trust but the kernel. That the kernel, or a sandbox in its place, enforces what it records is tried
//! once per process on memory of our own, and not on each: it is a trait of the kernel, which no descriptor changes,
//! and trying it on memory that a *peer* made would show nothing, since a map may be refused for other reasons (a
//! descriptor opened for reading alone). Both who makes such memory and who takes it ask.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{self, FallocateFlags};
use rustix::io::{Errno, pwrite};

use super::WRITE_SEALS;
use super::create::{CreateError, NOT_ENFORCED, create_failed, open_for, put_seals, reserve};
use crate::sys::map::{ReadWriteMap, is_writable_map_refused};

/// How long memory is waited for that is in use; the last try may take the kernel's 150 ms longer.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long between two tries. For a page the kernel has waited before it refuses; for a map it has not.
const PAUSE: Duration = Duration::from_millis(5);

/// Memory that is being filled.
#[derive(Debug)]
pub(crate) struct Unsealed {
    fd: OwnedFd,
    len: u64,
}

impl Unsealed {
    /// Memory that holds `bytes`, of which there are some, and nothing else.
    pub(crate) fn with_bytes(name: &str, bytes: &[u8]) -> Result<Self, CreateError> {
        check_enforcement()?;
        Self::filled(name, bytes)
    }

    /// Memory of `len` zeroed bytes, more than none, to be filled through the map. The map is dropped before
    /// [`seal`](Self::seal).
    pub(crate) fn mapped(name: &str, len: usize) -> Result<(Self, ReadWriteMap), CreateError> {
        debug_assert!(len > 0, "memory of no bytes cannot be mapped");
        check_enforcement()?;
        let (fd, map) = reserve(name, len)?;
        Ok((Self { fd, len: len as u64 }, map))
    }
}

impl Unsealed {
    fn filled(name: &str, bytes: &[u8]) -> Result<Self, CreateError> {
        debug_assert!(!bytes.is_empty(), "memory of no bytes cannot be mapped");
        let len = bytes.len() as u64;
        let fd = open_for(name, len)?;
        write_all(bytes, |rest, offset| pwrite(&fd, rest, offset)).map_err(|error| match error {
            // Asked for again, it would be for ever.
            None => CreateError::Failed { call: "pwrite", source: std::io::ErrorKind::WriteZero.into() },
            Some(error) => create_failed("pwrite", len)(error),
        })?;
        Ok(Self { fd, len })
    }

    /// Fixes size and content. It fails with [`CreateError::InUse`] while anybody has a map that can be written, and, when
    /// the kernel has waited 150 ms for it, while anybody in there uses a page.
    pub(crate) fn seal(self) -> Result<OwnedFd, CreateError> {
        self.seal_while(|| false)
    }

    /// As [`seal`](Self::seal), for content that cannot be made again: it waits for a while until nobody uses it.
    pub(crate) fn seal_patiently(self) -> Result<OwnedFd, CreateError> {
        let deadline = Instant::now() + PATIENCE;
        self.seal_while(|| {
            thread::sleep(PAUSE);
            Instant::now() < deadline
        })
    }

    /// As [`seal`](Self::seal), for as long as `goes_on` says so whenever the memory is in use.
    fn seal_while(self, mut goes_on: impl FnMut() -> bool) -> Result<OwnedFd, CreateError> {
        loop {
            match put_seals(self.fd.as_fd(), WRITE_SEALS, self.len) {
                Ok(()) => return Ok(self.fd),
                Err(CreateError::InUse { .. }) if goes_on() => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// Writes all of `bytes`, from offset 0 on. The error is `None` when nothing is written and nothing fails.
fn write_all(bytes: &[u8], mut write: impl FnMut(&[u8], u64) -> Result<usize, Errno>) -> Result<(), Option<Errno>> {
    let mut written = 0;
    while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
        match write(rest, written as u64) {
            Ok(0) => return Err(None),
            Ok(more) => written += more,
            Err(Errno::INTR) => {}
            Err(error) => return Err(Some(error)),
        }
    }
    Ok(())
}

/// Whether the seals of such memory hold here, whoever made it.
pub(super) fn check_enforcement() -> Result<(), CreateError> {
    /// Whether they were found to. Nothing else hangs on it, so relaxed will do; two threads may both find out.
    static ENFORCED: AtomicBool = AtomicBool::new(false);
    if !ENFORCED.load(Ordering::Relaxed) {
        try_to_change(Unsealed::filled("memit-probe", &[0])?.seal_patiently()?.as_fd())?;
        ENFORCED.store(true, Ordering::Relaxed);
    }
    Ok(())
}

/// Tries to change sealed memory of one byte in each way there is.
fn try_to_change(fd: BorrowedFd<'_>) -> Result<(), CreateError> {
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    let changes = [
        ("mmap", is_writable_map_refused(fd).and_then(|refused| if refused { Err(Errno::PERM) } else { Ok(()) })),
        ("pwrite", pwrite(fd, &[1], 0).map(drop)),
        ("fallocate", fs::fallocate(fd, punch, 0, 1)),
        ("ftruncate", fs::ftruncate(fd, 0)),
    ];
    for (call, changed) in changes {
        match changed {
            Ok(()) => return Err(NOT_ENFORCED),
            Err(Errno::PERM | Errno::ACCESS) => {}
            Err(error) => return Err(create_failed(call, 1)(error)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags};
    use rustix::pipe::{SpliceFlags, pipe, splice};
    use rustix::process::{Resource, Rlimit, setrlimit};

    use super::super::testing::{sealed, unsealed, write_sealed};
    use super::super::{MemoryRefused, SEALS, take_sealed};
    use super::*;
    use crate::sys::fork::testing::exit_code_of;

    const LEN: usize = 70_001;

    fn content() -> Vec<u8> {
        (0..=250).cycle().take(LEN).collect()
    }

    fn made(bytes: &[u8]) -> OwnedFd {
        Unsealed::with_bytes("memit-test", bytes).unwrap().seal().unwrap()
    }

    fn refused(fd: OwnedFd) -> MemoryRefused {
        take_sealed(fd, LEN as u64).unwrap_err()
    }

    #[test]
    fn what_was_filled_in_is_what_is_taken() {
        let written = take_sealed(made(&content()), LEN as u64).unwrap();
        let (memory, map) = Unsealed::mapped("memit-test", LEN).unwrap();
        // All but the last byte: `write` counts in words.
        map.write(0, &content()[..LEN - 1]);
        drop(map);
        let mapped = take_sealed(memory.seal().unwrap(), LEN as u64).unwrap();
        assert_eq!(written.as_slice(), content());
        assert_eq!((&mapped.as_slice()[..LEN - 1], mapped.as_slice()[LEN - 1]), (&content()[..LEN - 1], 0));
    }

    #[test]
    fn a_single_byte_has_a_page_of_its_own() {
        assert_eq!(take_sealed(made(b"x"), 1).unwrap().as_slice(), b"x");
    }

    #[test]
    fn nobody_changes_sealed_memory_through_a_reopened_descriptor_either() {
        let fd = made(&content());
        let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
        let reopened = fs::open(path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty());
        let taken = take_sealed(fd.try_clone().unwrap(), LEN as u64).unwrap();
        for fd in [Some(fd), reopened.ok()].into_iter().flatten() {
            try_to_change(fd.as_fd()).unwrap();
            assert_eq!(fs::ftruncate(&fd, 2 * LEN as u64).unwrap_err(), Errno::PERM);
            assert_eq!(fs::fcntl_add_seals(&fd, SealFlags::FUTURE_WRITE).unwrap_err(), Errno::PERM);
        }
        assert_eq!(taken.as_slice(), content());
    }

    #[test]
    fn each_way_to_change_memory_is_noticed() {
        let shrinkable = SealFlags::WRITE | SealFlags::GROW;
        for seals in [SealFlags::empty(), SealFlags::SHRINK | SealFlags::GROW, shrinkable] {
            let fd = unsealed(1, b"x");
            fs::fcntl_add_seals(&fd, seals).unwrap();
            let outcome = try_to_change(fd.as_fd());
            assert!(matches!(outcome, Err(CreateError::Unsupported { .. })), "{seals:?}: {outcome:?}");
        }
    }

    #[test]
    fn memory_that_is_mapped_for_writing_is_sealed_once_it_is_not() {
        let (memory, map) = Unsealed::mapped("memit-test", LEN).unwrap();
        let mut map = Some(map);
        let sealed = memory.seal_while(|| map.take().is_some()).unwrap();
        assert!(map.is_none(), "it was sealed under a map");
        assert!(take_sealed(sealed, LEN as u64).is_ok());
    }

    #[test]
    fn memory_that_stays_mapped_for_writing_is_an_error_in_the_end() {
        let (memory, map) = Unsealed::mapped("memit-test", LEN).unwrap();
        let begun = Instant::now();
        let error = memory.seal_patiently().unwrap_err();
        assert!(begun.elapsed() >= PATIENCE);
        assert!(matches!(error, CreateError::InUse { .. }), "{error}");
        drop(map);
    }

    #[test]
    fn memory_of_which_the_kernel_holds_a_page_is_sealed_once_it_lets_go() {
        let memory = Unsealed::with_bytes("memit-test", &content()).unwrap();
        let (reader, writer) = pipe().unwrap();
        // The pipe gets the page itself.
        assert_eq!(splice(&memory.fd, Some(&mut 0), &writer, None, 1, SpliceFlags::empty()), Ok(1));
        let mut times_in_use = 0;
        let sealed = memory.seal_while(|| {
            times_in_use += 1;
            rustix::io::read(&reader, &mut [0; 2]) == Ok(1)
        });
        assert!(take_sealed(sealed.unwrap(), LEN as u64).is_ok());
        assert_eq!(times_in_use, 1);
    }

    #[test]
    fn filling_goes_on_after_a_part_and_an_interruption_and_ends_when_nothing_is_taken() {
        let mut calls = 0;
        let mut copy = Vec::new();
        let outcome = write_all(&content(), |rest, offset| {
            calls += 1;
            assert_eq!(offset, copy.len() as u64);
            if calls % 2 == 0 {
                return Err(Errno::INTR);
            }
            let part = rest.len().min(30_000);
            copy.extend_from_slice(&rest[..part]);
            Ok(part)
        });
        assert_eq!((outcome, calls, copy), (Ok(()), 5, content()));
        assert_eq!(write_all(b"x", |_, _| Ok(0)), Err(None));
        assert_eq!(write_all(b"x", |_, _| Err(Errno::NOSPC)), Err(Some(Errno::NOSPC)));
    }

    #[test]
    fn a_file_size_limit_is_an_error_and_not_a_signal() {
        let bytes = content();
        let code = exit_code_of(|| {
            setrlimit(Resource::Fsize, Rlimit { current: Some(4096), maximum: Some(4096) }).unwrap();
            let is_told = |error: Option<CreateError>| {
                matches!(error, Some(CreateError::FileSizeLimit { needed: 70_001, limit: 4096 }))
            };
            let written = is_told(Unsealed::with_bytes("memit-test", &bytes).err());
            let mapped = is_told(Unsealed::mapped("memit-test", LEN).err());
            i32::from(!written) << 1 | i32::from(!mapped)
        });
        assert_eq!(code, 0);
    }

    #[test]
    fn memory_that_lacks_any_seal_is_refused() {
        for missing in [SealFlags::WRITE, SealFlags::SHRINK, SealFlags::GROW, SealFlags::SEAL] {
            let fd = unsealed(LEN, b"");
            fs::fcntl_add_seals(&fd, WRITE_SEALS.difference(missing)).unwrap();
            let error = refused(fd);
            let MemoryRefused::Unsealed { found, expected } = error else { panic!("{error}") };
            assert_eq!((found & missing.bits(), expected), (0, WRITE_SEALS.bits()));
        }
        assert!(matches!(refused(unsealed(LEN, b"")), MemoryRefused::Unsealed { .. }));
        assert!(matches!(refused(sealed(LEN, b"")), MemoryRefused::Unsealed { .. }), "its maker may write it");
    }

    #[test]
    fn further_seals_do_no_harm() {
        let fd = unsealed(LEN, b"x");
        fs::fcntl_add_seals(&fd, WRITE_SEALS | SEALS).unwrap();
        assert_eq!(take_sealed(fd, LEN as u64).unwrap().as_slice()[0], b'x');
    }

    #[test]
    fn another_size_than_was_said_is_refused() {
        for size in [LEN - 1, LEN + 1, 0, 2 * LEN] {
            let fd = unsealed(LEN, b"");
            fs::ftruncate(&fd, size as u64).unwrap();
            fs::fcntl_add_seals(&fd, WRITE_SEALS).unwrap();
            let error = refused(fd);
            assert!(matches!(error, MemoryRefused::Size { least: 70_001, most: 70_001, .. }), "{error}");
        }
        let error = take_sealed(write_sealed(LEN, b""), u64::MAX).unwrap_err();
        assert!(matches!(error, MemoryRefused::Size { found: 70_001, .. }), "{error}");
    }

    #[test]
    fn memory_of_no_bytes_is_refused() {
        let fd = super::super::create::open("memit-test").unwrap();
        fs::fcntl_add_seals(&fd, WRITE_SEALS).unwrap();
        let error = take_sealed(fd, 0).unwrap_err();
        assert!(matches!(error, MemoryRefused::Failed { call: "mmap", .. }), "{error}");
    }

    #[test]
    fn memory_with_holes_is_refused() {
        let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        let fd = unsealed(LEN, b"");
        fs::fallocate(&fd, punch, 4096, 4096).unwrap();
        fs::fcntl_add_seals(&fd, WRITE_SEALS).unwrap();
        let error = refused(fd);
        assert!(matches!(error, MemoryRefused::Sparse { .. }), "{error}");
        // And where blocks behind the end make up for them.
        let fd = unsealed(LEN, b"");
        fs::fallocate(&fd, punch, 4096, 4096).unwrap();
        fs::fallocate(&fd, FallocateFlags::KEEP_SIZE, 1 << 20, 8192).unwrap();
        fs::fcntl_add_seals(&fd, WRITE_SEALS).unwrap();
        let error = refused(fd);
        assert!(matches!(error, MemoryRefused::Sparse { .. }), "{error}");
    }

    #[test]
    fn huge_pages_and_pipes_are_refused() {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING | MemfdFlags::HUGETLB;
        // As in `take`: a kernel without hugetlbfs has nothing to refuse.
        if let Ok(fd) = fs::memfd_create("memit-test", flags) {
            fs::ftruncate(&fd, 2 << 20).unwrap();
            fs::fcntl_add_seals(&fd, WRITE_SEALS).unwrap();
            let error = take_sealed(fd, 2 << 20).unwrap_err();
            assert!(matches!(error, MemoryRefused::NotTmpfs { .. }), "{error}");
        }
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        for fd in [reader, writer] {
            let error = refused(fd);
            assert!(matches!(error, MemoryRefused::NotMemory { .. }), "{error}");
        }
    }
}
