//! What a type needs to be a message, under one name.
#![allow(unsafe_code)]

use std::{alloc::Layout, ops::Range};

use rkyv::{
    Archive, Deserialize, Portable, Serialize,
    bytecheck::CheckBytes,
    rancor::{Error, Fallible, Panic, Source, Strategy},
    validation::{ArchiveContext, archive::ArchiveValidator},
};

use crate::{
    encode::Encoder,
    payload::MAX_DEPTH,
    schema::{Schema, hash},
    value::{MAX_NODES, VALUE_VERSION},
};

/// A type that travels as an rkyv archive. `#[memit::message]` makes one.
///
/// Numbers of fixed width, `bool`, `char`, `()`, `String`, `Duration`, and `Option`, `Vec`, `Box`, arrays, tuples,
/// `BTreeMap`s and `BTreeSet`s of messages are messages too. A message may be generic and may contain itself, through a
/// `Box` or a `Vec`; see [`MAX_DEPTH`] for how deep.
///
/// A `HashMap` or `HashSet` is refused: a peer could write an archive of one that passes rkyv's check, and whose
/// lookups then read outside of it or do not end. Send a `BTreeMap` or `BTreeSet`, or a `Vec` of pairs.
///
/// A `Vec` of what takes no bytes is refused: it would cost its sender nothing, and its receiver a look at each of up
/// to four billion elements.
///
/// ```compile_fail,E0080
/// use memit::Payload;
///
/// let _ = <Vec<()>>::view(&[0; 8]);
/// ```
///
/// There is nothing to implement: every type with the traits below is a message.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a memit message",
    label = "add `#[memit::message]` to this type"
)]
pub trait Message:
    Sized
    + 'static
    + Schema
    + Serialize<Encoder>
    + Archive<Archived: Portable + for<'a> CheckBytes<Checker<'a>> + Deserialize<Self, Decoder>>
{
}

#[diagnostic::do_not_recommend]
impl<T> Message for T where
    T: Sized
        + 'static
        + Schema
        + Serialize<Encoder>
        + Archive<Archived: Portable + for<'a> CheckBytes<Checker<'a>> + Deserialize<Self, Decoder>>
{
}

/// What archives are checked with.
pub type Checker<'a> = Strategy<Inspection<'a>, Error>;

/// What archives are turned into values with. A checked archive of a message cannot fail to become one.
pub type Decoder = Strategy<(), Panic>;

/// A check of one archive: rkyv's, with a limit on the number of dynamic values.
pub struct Inspection<'a> {
    archive: ArchiveValidator<'a>,
    nodes: u32,
    too_deep: bool,
}

impl<'a> Inspection<'a> {
    #[inline]
    pub(crate) fn new(archive: ArchiveValidator<'a>) -> Self {
        Inspection { archive, nodes: 0, too_deep: false }
    }

    /// Whether the check ended because there was too much, rather than at something wrong.
    pub(crate) fn reached_a_limit(&self) -> bool {
        self.too_deep || self.nodes > MAX_NODES
    }
}

#[derive(Debug, thiserror::Error)]
#[error("it nests deeper than {MAX_DEPTH} levels")]
struct TooDeep;

#[derive(Debug, thiserror::Error)]
#[error("it holds more than {MAX_NODES} dynamic values")]
struct TooManyNodes;

// SAFETY: all three methods are those of `ArchiveValidator`, which keeps the contract.
unsafe impl ArchiveContext<Error> for Inspection<'_> {
    #[inline]
    fn check_subtree_ptr(&mut self, ptr: *const u8, layout: &Layout) -> Result<(), Error> {
        self.archive.check_subtree_ptr(ptr, layout)
    }

    #[inline]
    unsafe fn push_subtree_range(&mut self, root: *const u8, end: *const u8) -> Result<Range<usize>, Error> {
        // SAFETY: the caller promises the same.
        let pushed: Result<_, Error> = unsafe { self.archive.push_subtree_range(root, end) };
        pushed.map_err(|_| {
            // It fails for no other reason.
            self.too_deep = true;
            Error::new(TooDeep)
        })
    }

    #[inline]
    unsafe fn pop_subtree_range(&mut self, range: Range<usize>) -> Result<(), Error> {
        // SAFETY: the caller promises the same.
        unsafe { self.archive.pop_subtree_range(range) }
    }
}

/// What the check of an archive needs of its context.
#[doc(hidden)]
pub trait Inspect: Fallible + ArchiveContext<<Self as Fallible>::Error> {
    /// Counts one dynamic value.
    fn count_node(&mut self) -> Result<(), Self::Error>;
}

impl Inspect for Checker<'_> {
    #[inline]
    fn count_node(&mut self) -> Result<(), Error> {
        self.nodes += 1;
        if self.nodes > MAX_NODES { Err(Error::new(TooManyNodes)) } else { Ok(()) }
    }
}

/// A number that two processes must agree on before one may read the other's archives: it stands for rkyv's format
/// (0.8, little-endian, aligned, 32-bit offsets) and for the form of dynamic values.
#[must_use]
pub const fn format_fingerprint() -> u64 {
    use rkyv::primitive::{ArchivedU64, ArchivedUsize};
    // The features that decide the format are the whole program's, so a dependency could change them.
    const { assert!(size_of::<ArchivedUsize>() == 4, "rkyv's pointer width is not 32: another crate changed it") };
    const { assert!(align_of::<ArchivedU64>() == 8, "rkyv's `unaligned` is on: another crate turned it on") };
    hash(b"rkyv 0.8 little-endian aligned pointer-32").wrapping_add(VALUE_VERSION)
}
