//! The value that answered a synchronous call.
#![allow(unsafe_code)]
//! Invariants:
//! 1. The bytes of a [`Reply<R>`] passed `R::view` when it was made.
//! 2. They do not change while it lives: they are private to this process and not written again, or in memory that the
//!    kernel has sealed, or, under full trust, promised not to change.

use std::{cell::RefCell, fmt, marker::PhantomData, mem, ops::Deref};

use memit_engine::{AlignedBytes, Disconnect, Kept, Link};

use crate::{CallError, Payload};

/// What a synchronous call returned. It derefs to the value's archived form, as a listener would see it.
///
/// It may be kept for any time, and holds up nothing at the peer. A large value stays where the peer wrote it until the
/// reply is dropped, and counts against [`arena_limit`](crate::Builder::arena_limit) meanwhile.
pub struct Reply<R: Payload + ?Sized> {
    bytes: Bytes,
    view: PhantomData<R::View>,
}

/// Where a value lies.
pub(crate) enum Bytes {
    Copied(Buffer),
    Kept(Kept),
}

impl Deref for Bytes {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match self {
            Self::Copied(buffer) => buffer.0.as_slice(),
            Self::Kept(kept) => kept,
        }
    }
}

impl<R: Payload + ?Sized> Reply<R> {
    /// Looks at the answer that `link` brought. One that is no valid `R` costs the peer the connection, unless it is
    /// merely more than is accepted.
    pub(crate) fn new(bytes: Bytes, link: &Link) -> Result<Self, CallError> {
        if let Err(invalid) = R::view(&bytes) {
            if invalid.is_limit() {
                return Err(CallError::ReplyFailed(format!("the value exceeds a limit: {invalid}")));
            }
            let reason = Disconnect::violation(format_args!("it answered a call with an invalid value: {invalid}"));
            link.disconnect(reason.clone());
            return Err(CallError::Disconnected(reason));
        }
        Ok(Self { bytes, view: PhantomData })
    }

    /// The value itself.
    pub fn into_owned(self) -> R::Owned {
        R::own(&self)
    }
}

impl<R: Payload + ?Sized> Deref for Reply<R> {
    type Target = R::View;

    #[inline]
    fn deref(&self) -> &R::View {
        // SAFETY: by 1 the bytes are valid, and by 2 they have not changed since.
        unsafe { R::view_unchecked(&self.bytes) }
    }
}

impl<R: Payload<View: fmt::Debug> + ?Sized> fmt::Debug for Reply<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<R: Payload<View: fmt::Display> + ?Sized> fmt::Display for Reply<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

/// A reply compares as its archived form does.
impl<R: Payload<View: PartialEq<T>> + ?Sized, T: ?Sized> PartialEq<T> for Reply<R> {
    fn eq(&self, other: &T) -> bool {
        **self == *other
    }
}

/// How many buffers a thread keeps for its next calls, and up to which size each.
const POOLED: usize = 8;
const POOLED_BYTES: usize = 256 << 10;

thread_local! {
    static POOL: RefCell<Vec<AlignedBytes>> = const { RefCell::new(Vec::new()) };
}

/// Bytes that go back to the pool of the thread that drops them.
pub(crate) struct Buffer(AlignedBytes);

impl Buffer {
    /// For an answer to come.
    pub(crate) fn take() -> Self {
        Self(POOL.try_with(|pool| pool.borrow_mut().pop()).ok().flatten().unwrap_or_default())
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut AlignedBytes {
        &mut self.0
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut bytes = mem::take(&mut self.0);
        // A thread that ends may have no pool any more.
        let _ = POOL.try_with(|pool| {
            let mut pool = pool.borrow_mut();
            if pool.len() < POOLED && bytes.capacity() <= POOLED_BYTES {
                bytes.clear();
                pool.push(bytes);
            }
        });
    }
}
