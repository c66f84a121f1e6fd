//! Payloads that outlive their listener.
#![allow(unsafe_code)]

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use super::inbound::{Block, Sealed};
use super::private::{PrivateBuffer, Shared};
use crate::config::FullTrust;
use crate::sys::fork::Epoch;

/// The bytes of a message, kept for as long as somebody wants them. Clones share them.
///
/// They lie where they lay when the message was handled: in this process's own copy, or in the peer's memory, which is
/// given back when the last clone is dropped. That may be on any thread, and after the connection has ended.
#[derive(Clone)]
pub struct Kept {
    bytes: Arc<Bytes>,
    /// Where the message begins.
    start: usize,
    epoch: Epoch,
}

enum Bytes {
    Own(Arc<Shared>),
    Sealed(Sealed),
    /// Made by [`Kept::trusted`] only.
    Trusted(Block),
}

impl Kept {
    pub(crate) fn copy_of(bytes: &[u8]) -> Self {
        Self::new(Bytes::Own(Shared::copy_of(bytes)), 0)
    }

    fn own(buffer: &PrivateBuffer, start: usize) -> Self {
        Self::new(Bytes::Own(buffer.keep()), start)
    }

    pub(crate) fn sealed(sealed: Sealed) -> Self {
        Self::new(Bytes::Sealed(sealed), 0)
    }

    /// A block is read where it lies. The promise is that of [`Trust::full`](crate::Trust::full).
    pub(crate) fn trusted(_promise: &FullTrust, block: Block) -> Self {
        Self::new(Bytes::Trusted(block), 0)
    }

    fn new(bytes: Bytes, start: usize) -> Self {
        Self { bytes: Arc::new(bytes), start, epoch: Epoch::current() }
    }
}

impl Deref for Kept {
    type Target = [u8];

    /// # Panics
    ///
    /// In a process that was forked from the one that kept it, if the bytes lie in the peer's memory, which it has not.
    #[inline]
    fn deref(&self) -> &[u8] {
        let is_here = matches!(&*self.bytes, Bytes::Own(_)) || self.epoch.is_current();
        assert!(is_here, "a payload in shared memory was kept, and this process is a fork of the one that kept it");
        let bytes = match &*self.bytes {
            Bytes::Own(bytes) => bytes.as_slice(),
            Bytes::Sealed(sealed) => sealed.as_slice(),
            // SAFETY: the bytes are mapped while the block lives, which `self` owns. A block is here only if a
            // `FullTrust` was shown, so the peer does not change its bytes before it was given back, which is when
            // the block is dropped; this process cannot write them.
            Bytes::Trusted(block) => unsafe { std::slice::from_raw_parts(block.address(), block.len()) },
        };
        &bytes[self.start..]
    }
}

impl PartialEq for Kept {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Kept {}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kept").field("len", &self.len()).finish_non_exhaustive()
    }
}

/// Where the bytes of a message that is being handled come from.
pub(crate) enum Origin<'a> {
    /// A buffer, in which they begin at `start`.
    Private { buffer: &'a PrivateBuffer, start: usize },
    /// A frame that is read in place, of which only a copy can be kept.
    Frame(&'a [u8]),
    /// Memory of the peer's.
    Elsewhere(Kept),
}

impl Origin<'_> {
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Self::Private { buffer, start } => &buffer.as_slice()[*start..],
            Self::Frame(bytes) => bytes,
            Self::Elsewhere(kept) => kept,
        }
    }

    pub(crate) fn keep(&self) -> Kept {
        match self {
            Self::Private { buffer, start } => Kept::own(buffer, *start),
            Self::Frame(bytes) => Kept::copy_of(bytes),
            Self::Elsewhere(kept) => kept.clone(),
        }
    }
}
