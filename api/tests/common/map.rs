//! Shared memory as words and bytes.
//!
//! # Invariants
//!
//! 1. `base` is a shared map of `len` bytes that lives as long as the value. Its file was not made smaller: a test's own
//!    is made by the test, and memit's are sealed.
//! 2. Every access is checked to lie within it. What others write meanwhile is read as atomics, or byte by byte as
//!    volatile.
#![allow(unsafe_code, dead_code, reason = "a module of several test files, each of which uses a part of it")]

use std::os::fd::{AsFd, AsRawFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

pub struct Map {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: all access is atomic or volatile (invariant 2), from any thread.
unsafe impl Send for Map {}
// SAFETY: as above.
unsafe impl Sync for Map {}

impl Map {
    pub fn new(fd: impl AsFd, len: usize, writable: bool) -> std::io::Result<Self> {
        let protection = if writable { libc::PROT_READ | libc::PROT_WRITE } else { libc::PROT_READ };
        let fd = fd.as_fd().as_raw_fd();
        // SAFETY: a new map where the kernel likes.
        let base = unsafe { libc::mmap(ptr::null_mut(), len, protection, libc::MAP_SHARED, fd, 0) };
        if base == libc::MAP_FAILED {
            return Err(std::io::Error::last_os_error());
        }
        Ok(Self { base: NonNull::new(base.cast()).unwrap(), len })
    }

    pub fn len(&self) -> usize {
        self.len
    }

    fn at(&self, offset: usize, len: usize) -> *mut u8 {
        assert!(offset.checked_add(len).is_some_and(|end| end <= self.len), "{offset} + {len} of {}", self.len);
        // SAFETY: within the map (invariant 2).
        unsafe { self.base.as_ptr().add(offset) }
    }

    pub fn word64(&self, offset: usize) -> &AtomicU64 {
        assert!(offset.is_multiple_of(8));
        // SAFETY: within the map, aligned, and read and written as atomics by both sides.
        unsafe { AtomicU64::from_ptr(self.at(offset, 8).cast()) }
    }

    pub fn word32(&self, offset: usize) -> &AtomicU32 {
        assert!(offset.is_multiple_of(4));
        // SAFETY: as above.
        unsafe { AtomicU32::from_ptr(self.at(offset, 4).cast()) }
    }

    pub fn load(&self, offset: usize) -> u64 {
        self.word64(offset).load(Ordering::Relaxed)
    }

    pub fn store(&self, offset: usize, value: u64) {
        self.word64(offset).store(value, Ordering::Release);
    }

    pub fn write(&self, offset: usize, bytes: &[u8]) {
        let at = self.at(offset, bytes.len());
        for (index, byte) in bytes.iter().enumerate() {
            // SAFETY: within the range that was checked.
            let place = unsafe { at.add(index) };
            // SAFETY: as above, and writable: who asks has made the map so.
            unsafe { place.write_volatile(*byte) };
        }
    }

    pub fn read(&self, offset: usize, len: usize) -> Vec<u8> {
        let at = self.at(offset, len);
        let byte = |index| {
            // SAFETY: within the range that was checked.
            let place = unsafe { at.add(index) };
            // SAFETY: as above.
            unsafe { place.read_volatile() }
        };
        (0..len).map(byte).collect()
    }

    /// Asks to be let write here after all.
    pub fn make_writable(&self) -> bool {
        // SAFETY: the map is ours; more rights on it change nothing else.
        unsafe { libc::mprotect(self.base.as_ptr().cast(), self.len, libc::PROT_READ | libc::PROT_WRITE) == 0 }
    }

    /// Asks for its pages to be dropped from the file.
    pub fn remove_pages(&self) -> bool {
        // SAFETY: concerns the file behind our own map.
        unsafe { libc::madvise(self.base.as_ptr().cast(), self.len, libc::MADV_REMOVE) == 0 }
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: the map is this value's (invariant 1).
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}
