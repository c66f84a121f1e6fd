//! Memory that can be passed. Its descriptors are real ones, so that they can be passed and closed like any; what they
//! stand for is found by their inode.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Mutex;

use rustix::fs::{MemfdFlags, fstat, memfd_create};

use super::map::{ReadOnlyMap, ReadWriteMap, SealedMap};
use crate::outbox::modelled_words;
use crate::payload::PAGE;

#[derive(Debug, thiserror::Error)]
#[error("a model has no memory to refuse")]
pub enum CreateError {
    /// Of the product's errors the one that is made outside of the system.
    Failed {
        /// What failed.
        call: &'static str,
        /// What the kernel said.
        source: std::io::Error,
    },
}

#[derive(Debug, thiserror::Error)]
#[error("a model refuses no memory")]
pub struct MemoryRefused;

impl MemoryRefused {
    pub(crate) fn is_for_want_of_resources(&self) -> bool {
        false
    }
}

/// By inode, with what is taken from it: once it is, the entry goes.
static PASSED: Mutex<BTreeMap<u64, (ReadOnlyMap, usize)>> = Mutex::new(BTreeMap::new());

fn inode(fd: BorrowedFd<'_>) -> u64 {
    fstat(fd).unwrap().st_ino
}

/// An outbox of the one geometry that the models have, or an extent of which every page has a word.
pub(crate) fn create(name: &str, size: usize) -> Result<(OwnedFd, ReadWriteMap), CreateError> {
    let map = match name {
        "memit-outbox" => {
            let (words, bells) = modelled_words();
            ReadWriteMap::new(&words, &bells)
        }
        _ => ReadWriteMap::new(&(0..size).step_by(PAGE).collect::<Vec<_>>(), &[]),
    };
    let fd = memfd_create(name, MemfdFlags::CLOEXEC).unwrap();
    PASSED.lock().unwrap().insert(inode(fd.as_fd()), (map.to_read(), size));
    Ok((fd, map))
}

pub(crate) fn is_memory(_: BorrowedFd<'_>) -> bool {
    true
}

pub(crate) fn take(fd: OwnedFd, sizes: RangeInclusive<u64>) -> Result<(ReadOnlyMap, usize), MemoryRefused> {
    let (map, size) = PASSED.lock().unwrap().remove(&inode(fd.as_fd())).unwrap();
    assert!(sizes.contains(&(size as u64)));
    Ok((map, size))
}

pub(crate) fn take_sealed(_: OwnedFd, _: u64) -> Result<SealedMap, MemoryRefused> {
    unreachable!("no model has sealed memory")
}
