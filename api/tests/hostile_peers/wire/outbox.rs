//! The layout of an outbox, version 2, and the memory that one is made of.

use std::os::fd::OwnedFd;

use rustix::fs::{FallocateFlags, MemfdFlags, SealFlags, fallocate, fcntl_add_seals, ftruncate, memfd_create};

use super::Record;
use super::map::Map;

pub const HEAD: usize = 0x080;
pub const DATA_ARMED: usize = 0x100;
pub const SPACE_ARMED: usize = 0x180;
pub const SPACE_WANTED: usize = 0x188;
pub const DATA_BELL: usize = 0x200;
pub const SPACE_BELL: usize = 0x280;
pub const WAITING: usize = 0x300;
pub const GIVEN: usize = 0x380;
pub const BLOCKS_ARMED: usize = 0x400;
const REPLIES: usize = 0x480;
const LINE: usize = 64;
const PAGE: usize = 4096;
pub const GIVE_BACK: usize = 32;
pub const GIVE_BACKS: usize = 1024;

/// Every seal that memory needs which its owner goes on writing.
pub const SEALS: SealFlags =
    SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::FUTURE_WRITE).union(SealFlags::SEAL);

/// What follows from a ring's capacity and the number of slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    pub capacity: usize,
    pub slots: usize,
}

impl Shape {
    pub fn ring(self) -> usize {
        (REPLIES + 2 * LINE * self.slots).next_multiple_of(PAGE)
    }

    pub fn stride(self) -> usize {
        self.capacity / 8
    }

    pub fn slot(self, index: usize) -> usize {
        self.ring() + self.capacity + index * self.stride()
    }

    pub fn give_backs(self) -> usize {
        self.slot(self.slots).next_multiple_of(PAGE)
    }

    pub fn size(self) -> usize {
        self.give_backs() + GIVE_BACK * GIVE_BACKS
    }

    pub fn reply_armed(self, slot: usize) -> usize {
        REPLIES + LINE * slot
    }

    pub fn reply_bell(self, slot: usize) -> usize {
        REPLIES + LINE * (self.slots + slot)
    }

    /// The longest payload of a frame or slot.
    pub fn most(self) -> usize {
        self.stride() - 16
    }

    pub fn header(self, key: u64) -> Vec<u8> {
        Record::default()
            .bytes(b"MEMITOB1")
            .u32(2)
            .u32(self.ring() as u32)
            .u64(self.size() as u64)
            .u64(self.ring() as u64)
            .u64(self.capacity as u64)
            .u64(key)
            .u64(self.slot(0) as u64)
            .u32(self.stride() as u32)
            .u32(self.slots as u32)
            .u64(self.give_backs() as u64)
            .0
    }
}

/// An empty memfd without seals.
pub fn memfd() -> OwnedFd {
    memfd_create("hostile", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap()
}

/// Memory of `size` bytes as the protocol wants it, mapped here, then sealed.
pub fn sealed(size: usize) -> (OwnedFd, Map) {
    let fd = memfd();
    fallocate(&fd, FallocateFlags::empty(), 0, size as u64).unwrap();
    let map = Map::new(&fd, size, true).unwrap();
    fcntl_add_seals(&fd, SEALS).unwrap();
    (fd, map)
}

/// Memory that holds `bytes` for good.
pub fn write_sealed(bytes: &[u8]) -> OwnedFd {
    let fd = memfd();
    ftruncate(&fd, bytes.len() as u64).unwrap();
    rustix::io::write(&fd, bytes).unwrap();
    fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL).unwrap();
    fd
}

/// An outbox with its header written.
pub fn create(shape: Shape, key: u64) -> (OwnedFd, Map) {
    let (fd, map) = sealed(shape.size());
    map.write(0, &shape.header(key));
    (fd, map)
}
