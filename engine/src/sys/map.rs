//! Maps of shared memory: what this process may write, and what it may only read.
//!
//! # Invariants
//!
//! 1. From `base` on, `len` bytes are mapped, until `Drop`, in the process and epoch that made the map. The file
//!    behind them cannot shrink: a [`ReadWriteMap`] is of memory that its maker seals, a [`ReadOnlyMap`] and a
//!    [`SealedMap`] of memory that was found sealed.
//! 2. This module touches the bytes by atomic accesses and by the ring's copies alone; those of a read-only map by
//!    relaxed loads of at most eight bytes, which are the accesses that Rust defines for read-only memory. `region`
//!    hands out an address and touches nothing. Who makes a slice of it proves, for as long as the slice lives, that
//!    nothing else in this process reads or writes that range (or, of a shared slice, writes it), through this
//!    module either, and that no other process writes it: one that only reads, as all others do with a
//!    [`ReadWriteMap`]'s memory, takes no part in this process's rules. Of a [`ReadOnlyMap`] only full trust can
//!    promise it. A [`SealedMap`]'s bytes never change, so it hands out slices itself.
//! 3. A forked child inherits no map that it has a handle of (`MADV_DONTFORK`). Every operation of this crate asks
//!    for the epoch before it comes here; `Drop` in a child leaves the address alone, since something else may be
//!    mapped there.
//! 4. `base` is a multiple of the page size, and offsets are checked against `len` and for alignment.
#![allow(unsafe_code)]

use std::os::fd::BorrowedFd;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use memit_ringbuf::{copy_from_words, copy_to_words, prefetch_to_write};
use rustix::io::{self, Errno};
use rustix::mm::{self, Advice, MapFlags, ProtFlags};

use crate::sys::fork::Epoch;

/// Memory that this process writes and others may read.
#[derive(Debug)]
pub(crate) struct ReadWriteMap(Mapping);

/// Memory that another process writes.
#[derive(Debug)]
pub(crate) struct ReadOnlyMap(Mapping);

/// Memory that nobody writes.
#[derive(Debug)]
pub(crate) struct SealedMap(Mapping);

impl ReadWriteMap {
    /// Maps `len` bytes of memory that the caller made and is about to seal.
    pub(crate) fn new(fd: BorrowedFd<'_>, len: usize) -> io::Result<Self> {
        Mapping::new_populated(fd, len, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED).map(Self)
    }

    /// The word at `offset`.
    ///
    /// # Panics
    ///
    /// Unless `offset` is a multiple of eight and the word lies within the map. So for all that take an offset here.
    #[inline]
    pub(crate) fn word64(&self, offset: usize) -> &AtomicU64 {
        let word = self.0.at(offset, size_of::<u64>()).cast::<AtomicU64>();
        // SAFETY: `at` checked that the word is mapped and aligned (invariants 1 and 4); it is only ever accessed
        // atomically (invariant 2), and lives as long as `self`.
        unsafe { word.as_ref() }
    }

    /// The half word at `offset`, a multiple of eight.
    #[inline]
    pub(crate) fn word32(&self, offset: usize) -> &AtomicU32 {
        let word = self.0.at(offset, size_of::<u32>()).cast::<AtomicU32>();
        // SAFETY: as in `word64`.
        unsafe { word.as_ref() }
    }

    /// Says that the line at `offset`, a multiple of eight, is about to be written.
    #[inline]
    pub(crate) fn prefetch(&self, offset: usize) {
        prefetch_to_write(self.word64(offset));
    }

    /// Writes `from` at `offset`. The caller sees to it that no other thread writes there at the same time: a
    /// mixture is what a reader would find.
    pub(crate) fn write(&self, offset: usize, from: &[u8]) {
        copy_to_words(self.0.words(offset, from.len()), from);
    }

    /// The address of `len` bytes at `offset`. Invariant 2 says what to prove before a slice is made of it.
    pub(crate) fn region(&self, offset: usize, len: usize) -> NonNull<u8> {
        self.0.at(offset, len)
    }
}

impl ReadOnlyMap {
    /// Maps `len` bytes of memory that was found sealed at that size, and brings in every page. A page that the
    /// kernel cannot bring in is an error here rather than a signal later.
    pub(crate) fn new(fd: BorrowedFd<'_>, len: usize) -> io::Result<Self> {
        Mapping::new_populated(fd, len, ProtFlags::READ, MapFlags::SHARED).map(Self)
    }

    /// Reads the word at `offset` with a relaxed load. Who awaits something there passes `fence(Acquire)` once the
    /// word holds it.
    ///
    /// # Panics
    ///
    /// Unless `offset` is a multiple of eight and the word lies within the map. So for all that take an offset here.
    #[inline]
    pub(crate) fn load64(&self, offset: usize) -> u64 {
        let word = self.0.at(offset, size_of::<u64>()).cast::<AtomicU64>();
        // SAFETY: `at` checked that the word is mapped and aligned (invariants 1 and 4). The reference is used for
        // one relaxed load, which is defined for read-only memory (invariant 2).
        unsafe { word.as_ref() }.load(Ordering::Relaxed)
    }

    /// The half word at `offset`, a multiple of eight, as an address to wait on. It may be loaded with
    /// [`Ordering::Relaxed`] and given to a futex call; anything else is a fault, since the memory is read-only.
    #[inline]
    pub(crate) fn futex_word(&self, offset: usize) -> &AtomicU32 {
        let word = self.0.at(offset, size_of::<u32>()).cast::<AtomicU32>();
        // SAFETY: `at` checked that the word is mapped and aligned (invariants 1 and 4); it lives as long as `self`,
        // and its users keep to relaxed loads (invariant 2).
        unsafe { word.as_ref() }
    }

    /// Copies the bytes at `offset` out. The peer may change them meanwhile; the copy is what counts.
    pub(crate) fn read(&self, offset: usize, to: &mut [u8]) {
        copy_from_words(self.0.words(offset, to.len()), to);
    }

    /// The address of `len` bytes at `offset`, to be read only. Invariant 2 says what to prove before a slice is
    /// made of it.
    pub(crate) fn region(&self, offset: usize, len: usize) -> NonNull<u8> {
        self.0.at(offset, len)
    }
}

impl SealedMap {
    /// Maps `len` bytes of memory that was found write-sealed at that size, and brings in every page.
    ///
    /// # Safety
    ///
    /// `fd` is shmem of `len` bytes or more with the seals WRITE and SHRINK, and the kernel enforces them.
    pub(crate) unsafe fn new(fd: BorrowedFd<'_>, len: usize) -> io::Result<Self> {
        // Private, since Linux before 6.7 refuses every shared map of write-sealed memory, also for reading.
        Mapping::new_populated(fd, len, ProtFlags::READ, MapFlags::PRIVATE).map(Self)
    }

    /// The bytes. They stay as they are while the map lives, whatever its maker does.
    ///
    /// # Panics
    ///
    /// In a forked child, which has no map.
    #[inline]
    pub(crate) fn as_slice(&self) -> &[u8] {
        let Some(bytes) = self.bytes_of_this_process() else {
            panic!("a map is not to be used in a forked child");
        };
        bytes
    }

    #[inline]
    fn bytes_of_this_process(&self) -> Option<&[u8]> {
        if !self.0.epoch.is_current() {
            return None;
        }
        // SAFETY: `len` bytes from `base` on are mapped for reading until `Drop`, in this process and epoch
        // (invariant 1), and len is below isize::MAX, as is all that mmap maps. Nobody writes them meanwhile.
        // F_SEAL_WRITE is put on only when no writable shared map of the file is left and no page is pinned (else it
        // is EBUSY), and from then on the kernel refuses such maps, `write`, holes and, by F_SEAL_SHRINK,
        // truncation, to all, their maker included; a private map elsewhere writes to copies of the pages. Nor does
        // this process write them: the map is PROT_READ and nothing here changes that, so that no page of it is
        // copied either, and it shows the file's. (A page that was missing would be brought in as zeros, or end the
        // process for want of memory; `take_sealed` sees to it that none is.)
        Some(unsafe { std::slice::from_raw_parts(self.0.base.as_ptr(), self.0.len) })
    }
}

/// Whether the kernel refuses a writable shared map of `fd`. An error when it is refused for want of something else.
pub(crate) fn is_writable_map_refused(fd: BorrowedFd<'_>) -> io::Result<bool> {
    const LEN: usize = 1;
    // SAFETY: a new mapping, at an address that the kernel chooses.
    let mapped = unsafe { mm::mmap(ptr::null_mut(), LEN, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, fd, 0) };
    match mapped {
        Ok(address) => {
            // SAFETY: mapped just above, and nobody else has the address.
            unsafe { mm::munmap(address, LEN) }?;
            Ok(false)
        }
        Err(Errno::PERM | Errno::ACCESS) => Ok(true),
        Err(error) => Err(error),
    }
}

#[derive(Debug)]
struct Mapping {
    base: NonNull<u8>,
    len: usize,
    epoch: Epoch,
}

// SAFETY: a mapping belongs to the process, not to a thread; all accesses to its bytes are safe from several threads
// at once (invariant 2).
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// A map that has every page. They are brought in once the map is kept from forks, since that takes a while, and a
    /// child that inherits a writable map keeps the memory from being sealed.
    fn new_populated(fd: BorrowedFd<'_>, len: usize, protection: ProtFlags, sharing: MapFlags) -> io::Result<Self> {
        let mapping = Self::new(fd, len, protection, sharing)?;
        // SAFETY: the range is this mapping's own (invariant 1), and reading it in changes nothing.
        match unsafe { mm::madvise(mapping.base.as_ptr().cast(), len, Advice::LinuxPopulateRead) } {
            Ok(()) => Ok(mapping),
            // Before Linux 5.14 MAP_POPULATE must do, which tells of no error, and brings the pages in before the map is
            // kept from forks. Doing both always takes a third longer.
            Err(Errno::INVAL | Errno::NOSYS) => {
                drop(mapping);
                Self::new(fd, len, protection, sharing | MapFlags::POPULATE)
            }
            Err(error) => Err(error),
        }
    }

    fn new(fd: BorrowedFd<'_>, len: usize, protection: ProtFlags, flags: MapFlags) -> io::Result<Self> {
        let epoch = Epoch::current();
        // SAFETY: a new mapping, at an address that the kernel chooses.
        let address = unsafe { mm::mmap(ptr::null_mut(), len, protection, flags, fd, 0) }?;
        let Some(base) = NonNull::new(address.cast::<u8>()) else {
            return Err(Errno::FAULT);
        };
        let mapping = Self { base, len, epoch };
        for advice in [Advice::LinuxDontFork, Advice::LinuxDontDump] {
            // SAFETY: the range is this mapping's own; neither advice changes what this process sees there.
            unsafe { mm::madvise(mapping.base.as_ptr().cast(), len, advice) }?;
        }
        Ok(mapping)
    }

    /// The words that `len` bytes at `offset` fill, in part or whole.
    fn words(&self, offset: usize, len: usize) -> &[AtomicU64] {
        let words = len.div_ceil(size_of::<AtomicU64>());
        let first = self.at(offset, words * size_of::<AtomicU64>());
        // SAFETY: `at` checked that all of them are mapped and aligned (invariants 1 and 4); they are only accessed as
        // atomics or by opaque copies (invariant 2), and live as long as `self`.
        unsafe { std::slice::from_raw_parts(first.cast().as_ptr(), words) }
    }

    /// The address at `offset`, from which on `len` bytes are mapped.
    #[inline]
    fn at(&self, offset: usize, len: usize) -> NonNull<u8> {
        debug_assert!(self.epoch.is_current(), "a map is not to be used in a forked child");
        if !offset.is_multiple_of(8) || offset > self.len || len > self.len - offset {
            not_in_map(offset, len, self.len);
        }
        // SAFETY: `offset` is within the mapping (checked above; invariant 1).
        unsafe { self.base.add(offset) }
    }
}

/// Apart, since a panic's arguments would go through memory where nothing is wrong.
#[cold]
fn not_in_map(offset: usize, len: usize, map: usize) -> ! {
    panic!("{len} bytes at {offset} are not within a map of {map}, or not aligned");
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if self.epoch.is_current() {
            // SAFETY: the range is this mapping's own (invariant 1), and everything that points into it borrows it
            // or keeps it alive.
            let unmapped = unsafe { mm::munmap(self.base.as_ptr().cast(), self.len) };
            debug_assert!(unmapped.is_ok(), "munmap: {unmapped:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsFd, OwnedFd};

    use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

    use super::*;
    use crate::sys::fork::testing::exit_code_of;
    use crate::sys::memfd::testing::write_sealed;

    const LEN: usize = 8192;

    fn memory() -> OwnedFd {
        let fd = memfd_create("memit-test", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&fd, LEN as u64).unwrap();
        fd
    }

    #[test]
    fn a_reader_sees_what_the_writer_writes() {
        let fd = memory();
        let (writer, reader) =
            (ReadWriteMap::new(fd.as_fd(), LEN).unwrap(), ReadOnlyMap::new(fd.as_fd(), LEN).unwrap());
        writer.word64(64).store(7, Ordering::Relaxed);
        writer.word32(72).store(8, Ordering::Relaxed);
        writer.write(128, b"thirteen byte");
        let mut copy = [0; 13];
        reader.read(128, &mut copy);
        assert_eq!((reader.load64(64), &copy), (7, b"thirteen byte"));
        assert_eq!(reader.futex_word(72).load(Ordering::Relaxed), 8);
    }

    #[test]
    fn an_offset_outside_the_map_or_askew_panics() {
        let fd = memory();
        let map = ReadOnlyMap::new(fd.as_fd(), LEN).unwrap();
        for offset in [LEN, LEN - 4, 4, usize::MAX - 7] {
            let outcome = std::panic::catch_unwind(|| map.load64(offset));
            assert!(outcome.is_err(), "offset {offset}");
        }
        assert!(std::panic::catch_unwind(|| map.read(LEN - 8, &mut [0; 9])).is_err());
    }

    #[test]
    fn a_writable_map_is_not_refused_before_the_seals() {
        assert!(!is_writable_map_refused(memory().as_fd()).unwrap());
    }

    #[test]
    fn a_forked_child_has_no_map_and_the_parent_keeps_its_own() {
        let fd = memory();
        let map = ReadWriteMap::new(fd.as_fd(), LEN).unwrap();
        map.word64(0).store(1, Ordering::Relaxed);
        let address = map.region(0, LEN).as_ptr();
        let code = exit_code_of(|| {
            // SAFETY: msync of a range that is not mapped fails, and does nothing else.
            let mapped = unsafe { libc::msync(address.cast(), LEN, libc::MS_ASYNC) } == 0;
            i32::from(mapped)
        });
        assert_eq!(code, 0);
        assert_eq!(map.word64(0).load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_forked_child_gets_no_slice_of_a_sealed_map() {
        let fd = write_sealed(LEN, b"content");
        // SAFETY: shmem of that size, which was sealed so.
        let map = unsafe { SealedMap::new(fd.as_fd(), LEN) }.unwrap();
        assert_eq!(&map.as_slice()[..8], b"content\0");
        assert_eq!(exit_code_of(|| i32::from(map.bytes_of_this_process().is_some())), 0);
        assert_eq!(map.as_slice().len(), LEN);
    }

    #[test]
    fn dropping_a_map_in_a_forked_child_unmaps_nothing() {
        let fd = memory();
        let map = ReadWriteMap::new(fd.as_fd(), LEN).unwrap();
        let address = map.region(0, LEN).as_ptr();
        let code = exit_code_of(move || {
            let (protection, flags) = (libc::PROT_READ, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
            // SAFETY: takes the child's free address, which must still be free.
            let taken =
                unsafe { libc::mmap(address.cast(), LEN, protection, flags | libc::MAP_FIXED_NOREPLACE, -1, 0) };
            drop(map);
            // SAFETY: succeeds exactly when the range is mapped.
            let kept = unsafe { libc::msync(address.cast(), LEN, libc::MS_ASYNC) } == 0;
            i32::from(taken != address.cast() || !kept)
        });
        assert_eq!(code, 0);
    }
}
