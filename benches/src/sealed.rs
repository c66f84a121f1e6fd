//! The two ways for a receiver to get at a large payload safely: to map memory that is sealed against all writing, or
//! to copy out of memory that its writer could still change.
#![allow(unsafe_code)]

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::{io, ptr};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// A cache line, of which one byte is looked at.
const LINE: usize = 64;

/// A payload in sealed memory.
#[derive(Debug)]
pub struct Sealed {
    file: OwnedFd,
    len: usize,
}

impl Sealed {
    /// `len` bytes, sealed.
    pub fn new(len: usize) -> io::Result<Self> {
        let file = memfd_create("memit-bench", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        let content = vec![1; len];
        let mut written = 0;
        while written < len {
            written += rustix::io::write(&file, &content[written..])?;
        }
        fcntl_add_seals(&file, SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        Ok(Self { file, len })
    }

    /// Maps it, reads it and unmaps it, as a receiver does.
    pub fn read(&self) -> io::Result<u64> {
        let map = Map::new(self.file.as_fd(), self.len, ProtFlags::READ, MapFlags::PRIVATE)?;
        // SAFETY: mapped for as long as the slice is used, and sealed, so that nobody writes it.
        Ok(look(unsafe { std::slice::from_raw_parts(map.base.as_ptr(), self.len) }))
    }
}

/// A payload in memory that is mapped already.
#[derive(Debug)]
pub struct Copied {
    map: Map,
}

impl Copied {
    /// `len` bytes, mapped and brought in.
    pub fn new(len: usize) -> io::Result<Self> {
        let file = memfd_create("memit-bench", MemfdFlags::CLOEXEC)?;
        rustix::fs::ftruncate(&file, len as u64)?;
        Ok(Self { map: Map::new(file.as_fd(), len, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED)? })
    }

    /// Copies it out and reads the copy, as a receiver does.
    pub fn read(&self, private: &mut [u8]) -> u64 {
        // SAFETY: mapped for as long as the slice is used, and nobody writes it.
        private.copy_from_slice(unsafe { std::slice::from_raw_parts(self.map.base.as_ptr(), self.map.len) });
        look(private)
    }
}

/// Reads a byte of each line.
fn look(bytes: &[u8]) -> u64 {
    bytes.iter().step_by(LINE).map(|byte| u64::from(*byte)).sum()
}

#[derive(Debug)]
struct Map {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping is this value's own, wherever it is.
unsafe impl Send for Map {}

impl Map {
    fn new(file: BorrowedFd<'_>, len: usize, protection: ProtFlags, flags: MapFlags) -> io::Result<Self> {
        // SAFETY: a new mapping at an address of the kernel's choice.
        let base = unsafe { mmap(ptr::null_mut(), len, protection, flags | MapFlags::POPULATE, file, 0) }?;
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok(Self { base, len })
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own, and no borrow of it is left.
        let _ = unsafe { munmap(self.base.as_ptr().cast(), self.len) };
    }
}
