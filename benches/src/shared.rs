//! Memory that a process shares with the child that it starts.
//!
//! Invariants of a [`Shared`]:
//! 1. `base` is the start of a live mapping of `len` bytes, readable and writable, until drop.
//! 2. Both processes reach it through atomics only, or through a ring's own copies.
#![allow(unsafe_code)]

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::{io, ptr};

use rustix::fs::{MemfdFlags, fstat, ftruncate, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// A mapping that two processes share.
#[derive(Debug)]
pub struct Shared {
    base: NonNull<u8>,
    len: usize,
    file: OwnedFd,
}

// SAFETY: the memory is reached through atomics only (2), which any thread may use.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    /// Makes `len` zeroed bytes, a multiple of 4096. The descriptor is inherited by children.
    pub fn create(len: usize) -> io::Result<Self> {
        let file = memfd_create("memit-bench", MemfdFlags::empty())?;
        ftruncate(&file, len as u64)?;
        Self::map(file, len)
    }

    /// Maps all of what the parent made, by the number of the inherited descriptor.
    pub fn inherit(descriptor: RawFd) -> io::Result<Self> {
        // SAFETY: the parent passed the number of a descriptor that this process inherited and that nothing else here
        // owns; mapping fails if it is none.
        let file = unsafe { OwnedFd::from_raw_fd(descriptor) };
        let len = usize::try_from(fstat(&file)?.st_size).map_err(io::Error::other)?;
        Self::map(file, len)
    }

    fn map(file: OwnedFd, len: usize) -> io::Result<Self> {
        let flags = MapFlags::SHARED | MapFlags::POPULATE;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let base = unsafe { mmap(ptr::null_mut(), len, ProtFlags::READ | ProtFlags::WRITE, flags, file.as_fd(), 0) }?;
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok(Self { base, len, file })
    }

    /// The descriptor's number, for the child.
    pub fn descriptor(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    /// The address of the byte at `offset`.
    ///
    /// # Panics
    /// If `offset` is not within the mapping.
    pub fn at(&self, offset: usize) -> NonNull<u8> {
        assert!(offset < self.len, "byte {offset} of a mapping of {} bytes", self.len);
        // SAFETY: within the mapping (1).
        unsafe { self.base.add(offset) }
    }

    /// The word at `offset`.
    ///
    /// # Panics
    /// If `offset` is not that of an aligned word within the mapping.
    pub fn word(&self, offset: usize) -> &AtomicU64 {
        assert!(offset.is_multiple_of(8) && offset + 8 <= self.len, "no word at {offset}");
        // SAFETY: within the mapping (1), aligned, and reached through atomics only (2).
        unsafe { AtomicU64::from_ptr(self.at(offset).cast().as_ptr()) }
    }

    /// The word at `offset` as one to sleep on.
    ///
    /// # Panics
    /// As [`word`](Self::word).
    pub fn futex(&self, offset: usize) -> &AtomicU32 {
        assert!(offset.is_multiple_of(8) && offset + 8 <= self.len, "no word at {offset}");
        // SAFETY: within the mapping (1), aligned, and reached through atomics only (2).
        unsafe { AtomicU32::from_ptr(self.at(offset).cast().as_ptr()) }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own, and no borrow of it is left.
        let _ = unsafe { munmap(self.base.as_ptr().cast(), self.len) };
    }
}
