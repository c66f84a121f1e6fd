//! Memory to write a payload to, and payloads that are ready to be sent.
#![allow(unsafe_code)]

use std::fmt;
use std::mem;
use std::ops::{Deref, DerefMut};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::slice;
use std::sync::Arc;

use rustix::io::{Errno, pread};

use super::arena::{Arena, Borrowed, Lent, NoMemory};
use super::location::Location;
use crate::sys::fork::{Epoch, ForkFd};
use crate::sys::map::ReadWriteMap;
use crate::sys::memfd::{CreateError, Unsealed};
use crate::sys::socket::MemoryKind;

/// Memory that the peer will read where it is written: a message's bytes, until they are sent.
///
/// It holds zeros, or bytes of earlier messages to the same peer. Dropping it gives it back.
pub struct Loan {
    arena: Arc<Arena>,
    memory: Memory,
    len: usize,
    epoch: Epoch,
}

enum Memory {
    /// None is needed for no bytes.
    Empty,
    Block(Borrowed),
    Sealed {
        number: u64,
        file: Unsealed,
        map: ReadWriteMap,
    },
}

/// A payload that is written, in memory from which the peer will read it. Dropping it before it is sent takes the memory
/// back.
#[derive(Debug)]
pub(crate) struct Staged {
    arena: Arc<Arena>,
    payload: Payload,
    is_sent: bool,
    epoch: Epoch,
}

#[derive(Debug)]
enum Payload {
    Block { borrowed: Borrowed, len: usize },
    Sealed { number: u64, len: usize, fd: ForkFd },
}

impl Loan {
    /// Memory for a message of `len` bytes, which are within the limits.
    pub(crate) fn new(arena: &Arc<Arena>, len: usize) -> Result<Self, NoMemory> {
        let memory = if len == 0 {
            Memory::Empty
        } else if len <= arena.limits().extent_size {
            Memory::Block(arena.borrow(len)?)
        } else {
            let (number, (file, map)) = make_sealed(arena, len, || Unsealed::mapped(NAME, len))?;
            Memory::Sealed { number, file, map }
        };
        Ok(Self { arena: Arc::clone(arena), memory, len, epoch: Epoch::current() })
    }

    pub(crate) fn belongs_to(&self, arena: &Arc<Arena>) -> bool {
        Arc::ptr_eq(&self.arena, arena)
    }

    /// The bytes are written. `None` for no bytes.
    pub(crate) fn stage(mut self) -> Result<Option<Staged>, CreateError> {
        let (arena, len) = (&self.arena, self.len);
        let payload = match mem::replace(&mut self.memory, Memory::Empty) {
            Memory::Empty => return Ok(None),
            Memory::Block(borrowed) => Payload::Block { borrowed, len },
            Memory::Sealed { number, file, map } => {
                // Memory that can be written anywhere cannot be sealed.
                drop(map);
                sealed(arena, number, len, file.seal_patiently())?
            }
        };
        Ok(Some(Staged::new(arena, payload)))
    }

    /// Where its bytes are, for as long as `self` lives.
    fn address(&self) -> NonNull<u8> {
        assert!(self.epoch.is_current(), "a loan is its process's own and cannot be used in a fork of it");
        match &self.memory {
            Memory::Empty => NonNull::<u128>::dangling().cast(),
            Memory::Block(Borrowed { block, map, .. }) => map.region(block.offset, self.len),
            Memory::Sealed { map, .. } => map.region(0, self.len),
        }
    }
}

/// What the memory of sealed payloads is called in `/proc/*/maps`.
const NAME: &str = "memit-payload";

/// Makes `len` bytes of sealed memory. They are in the books before they are made, so that of many threads that want
/// some only those make it for whom there is room.
fn make_sealed<T>(
    arena: &Arc<Arena>,
    len: usize,
    make: impl FnOnce() -> Result<T, CreateError>,
) -> Result<(u64, T), NoMemory> {
    let number = arena.admit_sealed(len)?;
    match make() {
        Ok(made) => Ok((number, made)),
        Err(refused) => {
            arena.cancel_sealed(number);
            Err(NoMemory::Refused(refused))
        }
    }
}

/// What came of sealing `len` bytes, in the books or out of them.
fn sealed(
    arena: &Arc<Arena>,
    number: u64,
    len: usize,
    outcome: Result<OwnedFd, CreateError>,
) -> Result<Payload, CreateError> {
    match outcome {
        Ok(fd) => {
            crash_point!("payload-sealed");
            Ok(Payload::Sealed { number, len, fd: ForkFd::new(fd) })
        }
        Err(error) => {
            arena.cancel_sealed(number);
            Err(error)
        }
    }
}

/// Fills `bytes` from offset 0 on.
fn read_all(bytes: &mut [u8], mut read: impl FnMut(&mut [u8], u64) -> Result<usize, Errno>) -> Result<(), Errno> {
    let mut done = 0;
    while let Some(rest) = bytes.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match read(rest, done as u64) {
            Ok(0) => return Err(Errno::IO),
            Ok(more) => done += more,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

impl Deref for Loan {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: `address` gives that many mapped bytes, which stay mapped while `self` lives. They are this loan's
        // alone: the ledger has them held, so that no other loan overlaps them whatever the peer gives back, and
        // other processes cannot write them.
        unsafe { slice::from_raw_parts(self.address().as_ptr(), self.len) }
    }
}

impl DerefMut for Loan {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`. Nothing reads them before they are sent: the peer has not been told of them.
        unsafe { slice::from_raw_parts_mut(self.address().as_ptr(), self.len) }
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        if !self.epoch.is_current() {
            // A thread of the parent may hold the lock.
            return;
        }
        match mem::replace(&mut self.memory, Memory::Empty) {
            Memory::Empty => {}
            Memory::Block(borrowed) => self.arena.cancel(&borrowed.block),
            Memory::Sealed { number, file, map } => {
                drop((map, file));
                self.arena.cancel_sealed(number);
            }
        }
    }
}

impl fmt::Debug for Loan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loan").field("len", &self.len).finish_non_exhaustive()
    }
}

impl Staged {
    /// Copies a payload, which is not empty and within the limits, to where the peer will read it.
    pub(crate) fn copy_of(arena: &Arc<Arena>, bytes: &[u8]) -> Result<Self, NoMemory> {
        let (len, limits) = (bytes.len(), arena.limits());
        if len <= limits.extent_size && len < limits.sealed_from {
            let mut loan = Loan::new(arena, len)?;
            loan.copy_from_slice(bytes);
            return match loan.stage().map_err(NoMemory::Refused)? {
                Some(staged) => Ok(staged),
                None => unreachable!("no bytes lie in their frame"),
            };
        }
        Self::sealed_copy_of(arena, bytes)
    }

    /// As [`copy_of`](Self::copy_of), in memory of its own, however small.
    pub(crate) fn sealed_copy_of(arena: &Arc<Arena>, bytes: &[u8]) -> Result<Self, NoMemory> {
        let len = bytes.len();
        let (number, file) = make_sealed(arena, len, || Unsealed::with_bytes(NAME, bytes))?;
        match sealed(arena, number, len, file.seal()) {
            Ok(payload) => Ok(Self::new(arena, payload)),
            // Other memory may be had at once, and who waits for it has his own way to wait.
            Err(CreateError::InUse { .. }) => Err(NoMemory::Later),
            Err(refused) => Err(NoMemory::Refused(refused)),
        }
    }

    fn new(arena: &Arc<Arena>, payload: Payload) -> Self {
        Self { arena: Arc::clone(arena), payload, is_sent: false, epoch: Epoch::current() }
    }

    /// Has the peer get the extent that the payload is in, if it may lack it; before space is claimed for the frame, so
    /// that nobody who waits for the same extent holds up the ring. `send` sends a descriptor without waiting.
    pub(crate) fn pass_extent(
        &self,
        send: impl FnOnce(u64, MemoryKind, BorrowedFd<'_>) -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        match &self.payload {
            Payload::Block { borrowed: Borrowed { block, is_unpassed: true, .. }, .. } => {
                self.arena.pass_extent(block.memory, |fd| send(block.memory, MemoryKind::Extent, fd))
            }
            Payload::Block { .. } | Payload::Sealed { .. } => Ok(()),
        }
    }

    /// Has the peer get sealed memory; once space is claimed, so that none is passed that no frame names.
    pub(crate) fn pass_sealed(
        &self,
        send: impl FnOnce(u64, MemoryKind, BorrowedFd<'_>) -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        match &self.payload {
            Payload::Block { .. } => Ok(()),
            Payload::Sealed { number, fd, .. } => {
                send(*number, MemoryKind::Sealed, fd.as_fd())?;
                crash_point!("sealed-passed");
                Ok(())
            }
        }
    }

    /// The payload's length in bytes.
    pub(crate) fn len(&self) -> usize {
        match &self.payload {
            Payload::Block { len, .. } | Payload::Sealed { len, .. } => *len,
        }
    }

    /// Where the payload lies.
    pub(crate) fn location(&self) -> Location {
        match &self.payload {
            Payload::Block { borrowed: Borrowed { block, .. }, len } => Location::Block {
                memory: block.memory,
                generation: block.generation,
                offset: block.offset as u64,
                len: *len as u64,
            },
            Payload::Sealed { number, len, .. } => Location::Sealed { memory: *number, len: *len as u64 },
        }
    }

    /// The payload's bytes, in memory of this process's own, if there is any. It was not lent yet.
    pub(crate) fn copied_out(&self) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(self.len()).ok()?;
        match &self.payload {
            Payload::Block { borrowed: Borrowed { block, map, .. }, len } => {
                let start = map.region(block.offset, *len);
                // SAFETY: `region` gives that many mapped bytes, which stay mapped while `borrowed` is there. Nobody writes
                // them: the ledger has the block held for this payload until it is lent, whatever the peer gives back.
                bytes.extend_from_slice(unsafe { slice::from_raw_parts(start.as_ptr(), *len) });
            }
            Payload::Sealed { fd, len, .. } => {
                bytes.resize(*len, 0);
                read_all(&mut bytes, |rest, offset| pread(fd, rest, offset)).ok()?;
            }
        }
        Some(bytes)
    }

    /// Says that the peer may give it back from now on, and what it will give back. Once, right before the peer is told.
    pub(crate) fn lend(&self) -> Lent {
        let lent = match &self.payload {
            Payload::Block { borrowed, .. } => {
                self.arena.lend(&borrowed.block);
                Lent::Block(borrowed.block)
            }
            Payload::Sealed { number, .. } => {
                self.arena.lend_sealed(*number);
                Lent::Sealed(*number)
            }
        };
        crash_point!("payload-lent");
        lent
    }

    /// The peer has been told, or is just being: the memory is its to give back.
    pub(crate) fn sent(mut self) {
        self.is_sent = true;
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // In a forked child a thread of the parent may hold the lock.
        if self.is_sent || !self.epoch.is_current() {
            return;
        }
        match &self.payload {
            Payload::Block { borrowed, .. } => self.arena.cancel(&borrowed.block),
            Payload::Sealed { number, .. } => self.arena.cancel_sealed(*number),
        }
    }
}
