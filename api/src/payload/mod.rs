//! What a channel carries, and the three roads from bytes to a view.
//!
//! The only unsafe code is the third road, a view without a check: its caller promises that the check would succeed.
#![allow(unsafe_code)]

#[doc(hidden)]
pub mod plain;

use std::{any::type_name, num::NonZeroUsize};

use rkyv::{
    api::{access_with_context, deserialize_using},
    rancor::{Error, Panic, ResultExt},
    validation::archive::ArchiveValidator,
};
use zerocopy::{FromBytes, IntoBytes};

pub use self::plain::Plain;
use crate::{
    encode::{EncodeError, Encoder},
    message::{Inspection, Message},
    schema::{Describe, Schema},
};

#[cfg(not(target_endian = "little"))]
compile_error!("memit's payloads are little-endian on the wire and are read in place; this target is big-endian");

/// How many levels a message may have, counting itself and its innermost part, where each vector, box, map and long
/// string is one: 126 of them may stand one within the other. A deeper message is refused when it is sent, and when it
/// arrives, before its depth could exhaust the stack.
///
/// A map or set of more than 5 entries is a tree, and counts as many levels as the tree is high: 2 up to 35 entries, 3
/// up to 215, and so on.
pub const MAX_DEPTH: usize = 128;

/// The alignment that memit gives to the bytes of a message, and so the most that a message may need.
pub const MAX_ALIGN: usize = 16;

/// What a channel can carry: any [`Message`], `str`, or a slice of plain numbers.
///
/// | payload | a listener sees | as bytes |
/// |---|---|---|
/// | a [`Message`] `T` | `&T::Archived`, read in place | its archive, the root at the end |
/// | `str` | `&str` | UTF-8 |
/// | `[P]`, `P` a number or plain message ([`Plain`]) | `&[P]` | one behind the other, little-endian |
///
/// The trait is sealed: add `#[memit::message]` to a type to make it a message.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a memit message",
    label = "a channel cannot carry `{Self}`",
    note = "add `#[memit::message]` to the type; `str` and slices of plain numbers are payloads as they are",
    note = "a HashMap or HashSet is none: use BTreeMap or BTreeSet, or a Vec of pairs"
)]
pub trait Payload: Schema + sealed::Sealed {
    /// What a listener sees: a view into the message's bytes.
    type View: ?Sized;
    /// What outlives the bytes.
    type Owned: 'static;

    /// Writes `self` as bytes.
    ///
    /// # Errors
    ///
    /// See [`EncodeError`].
    fn encode(&self, out: &mut Encoder) -> Result<(), EncodeError>;

    /// The encoded bytes, where `self` already is what would be written.
    #[doc(hidden)]
    #[inline]
    fn encoded(&self) -> Option<&[u8]> {
        None
    }

    /// Checks `bytes` and returns the view into them. The bytes start at a multiple of [`MAX_ALIGN`].
    ///
    /// # Errors
    ///
    /// When they are not what [`encode`](Payload::encode) could have written, nest deeper than [`MAX_DEPTH`], or hold
    /// more dynamic values than [`MAX_NODES`](crate::value::MAX_NODES). Whatever the bytes are, the check ends, does
    /// not panic, and takes time in proportion to their number.
    fn view(bytes: &[u8]) -> Result<&Self::View, InvalidPayload>;

    /// Returns the view without a check.
    ///
    /// # Safety
    ///
    /// `view(bytes)` would be `Ok`, and the bytes do not change while the view is in use.
    unsafe fn view_unchecked(bytes: &[u8]) -> &Self::View;

    /// Copies a view into a value of its own.
    fn own(view: &Self::View) -> Self::Owned;
}

mod sealed {
    pub trait Sealed {}
    impl<T: super::Message> Sealed for T {}
    impl Sealed for str {}
    impl<P: super::Plain> Sealed for [P] {}
}

/// Received bytes that are not what the channel carries.
// In a box, so that whoever checks bytes gets the view in a register.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct InvalidPayload(Box<Invalid>);

#[derive(Debug, thiserror::Error)]
#[error("the {found} bytes received are not a valid `{expected}`: {cause}; the sender is faulty, or hostile")]
struct Invalid {
    expected: &'static str,
    found: usize,
    cause: String,
    is_limit: bool,
}

impl InvalidPayload {
    #[cold]
    fn new<T: ?Sized>(bytes: &[u8], cause: impl std::fmt::Display) -> Self {
        // rancor puts each trace on a line of its own.
        let cause = cause.to_string().lines().map(str::trim).collect::<Vec<_>>().join("; ");
        Self(Box::new(Invalid { expected: type_name::<T>(), found: bytes.len(), cause, is_limit: false }))
    }

    /// As found by a check that ended at a limit, if `is_limit`.
    fn at_limit(mut self, is_limit: bool) -> Self {
        self.0.is_limit = is_limit;
        self
    }

    /// Whether the check ended at a limit, [`MAX_DEPTH`] or [`MAX_NODES`](crate::value::MAX_NODES), before it found
    /// anything wrong.
    ///
    /// memit's own senders refuse such a message with an [`EncodeError`], but for one whose encoding was written by
    /// hand: its sender may mean no harm.
    #[must_use]
    pub fn is_limit(&self) -> bool {
        self.0.is_limit
    }
}

#[diagnostic::do_not_recommend]
impl<T: Message> Payload for T {
    type View = T::Archived;
    type Owned = T;

    #[inline]
    fn encode(&self, out: &mut Encoder) -> Result<(), EncodeError> {
        const { assert!(align_of::<T::Archived>() <= MAX_ALIGN, "a message's alignment is at most 16") };
        out.message(self)
    }

    #[inline]
    fn view(bytes: &[u8]) -> Result<&T::Archived, InvalidPayload> {
        // Naming it is enough to have its assertions about `T` checked.
        let _: fn(&mut Describe) = T::describe;
        const { assert!(align_of::<T::Archived>() <= MAX_ALIGN, "a message's alignment is at most 16") };
        let archive = ArchiveValidator::with_max_depth(bytes, NonZeroUsize::new(MAX_DEPTH));
        let mut inspection = Inspection::new(archive);
        access_with_context::<T::Archived, _, Error>(bytes, &mut inspection)
            .map_err(|cause| InvalidPayload::new::<T>(bytes, cause).at_limit(inspection.reached_a_limit()))
    }

    #[inline]
    unsafe fn view_unchecked(bytes: &[u8]) -> &T::Archived {
        // SAFETY: the caller says that `view(bytes)`, which checks for a valid root at the same place, would be `Ok`.
        unsafe { rkyv::access_unchecked(bytes) }
    }

    fn own(view: &T::Archived) -> T {
        deserialize_using::<T, (), Panic>(view, &mut ()).always_ok()
    }
}

impl Payload for str {
    type View = str;
    type Owned = String;

    #[inline]
    fn encode(&self, out: &mut Encoder) -> Result<(), EncodeError> {
        out.bytes(self.as_bytes())
    }

    #[inline]
    fn encoded(&self) -> Option<&[u8]> {
        Some(self.as_bytes())
    }

    #[inline]
    fn view(bytes: &[u8]) -> Result<&str, InvalidPayload> {
        std::str::from_utf8(bytes).map_err(|cause| InvalidPayload::new::<str>(bytes, cause))
    }

    #[inline]
    unsafe fn view_unchecked(bytes: &[u8]) -> &str {
        // SAFETY: the caller says that `view(bytes)` would be `Ok`, so the bytes are UTF-8.
        unsafe { std::str::from_utf8_unchecked(bytes) }
    }

    fn own(view: &str) -> String {
        view.to_owned()
    }
}

#[diagnostic::do_not_recommend]
impl<P: Plain> Payload for [P] {
    type View = [P];
    type Owned = Vec<P>;

    #[inline]
    fn encode(&self, out: &mut Encoder) -> Result<(), EncodeError> {
        plain::assert_aligned::<P>();
        out.bytes(self.as_bytes())
    }

    #[inline]
    fn encoded(&self) -> Option<&[u8]> {
        plain::assert_aligned::<P>();
        Some(self.as_bytes())
    }

    #[inline]
    fn view(bytes: &[u8]) -> Result<&[P], InvalidPayload> {
        plain::assert_aligned::<P>();
        <[P]>::ref_from_bytes(bytes).map_err(|cause| match cause {
            zerocopy::CastError::Alignment(_) => {
                InvalidPayload::new::<[P]>(bytes, format_args!("they are not aligned to {}", align_of::<P>()))
            }
            _ => InvalidPayload::new::<[P]>(bytes, format_args!("not a multiple of {} bytes", size_of::<P>())),
        })
    }

    #[inline]
    unsafe fn view_unchecked(bytes: &[u8]) -> &[P] {
        // The check costs next to nothing, so it is made all the same.
        <[P]>::ref_from_bytes(bytes).unwrap_or_default()
    }

    fn own(view: &[P]) -> Vec<P> {
        view.to_vec()
    }
}
