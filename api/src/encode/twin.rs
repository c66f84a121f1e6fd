//! Borrowed twins: values that write the archive of another type.
//!
//! [`BorrowedAs<T>`] is what a part of a twin can do: `&str` writes the archive of a `String`, a slice that of a
//! `Vec`. rkyv's traits know no such relation, so [`Wrapped`] turns a reference to a part into something that rkyv can
//! serialize.

use std::{
    collections::{BTreeMap, BTreeSet},
    marker::PhantomData,
    time::Duration,
};

use rkyv::{
    Archive, Place, Serialize,
    string::{ArchivedString, StringResolver},
    vec::{ArchivedVec, VecResolver},
};

use super::{EncodeError, Encoder};
use crate::{
    schema::{Schema, text_fits},
    value::{Args, Value},
};

/// A part of a twin.
pub trait Borrowed {
    /// What serializing leaves for resolving, whatever the part is written as.
    type Resolver;

    /// As [`Schema::FLAT`].
    const FLAT: bool;

    /// As [`Schema::fits`].
    fn fits(&self, levels: usize) -> bool;
}

/// A part of a twin that writes the archive of a `T`.
#[diagnostic::on_unimplemented(
    message = "a twin cannot send `{Self}` where the message has `{T}`",
    label = "not a borrowed form of `{T}`",
    note = "a twin's field has the type of the message's field, or `&str` for `String`, a slice for `Vec`, a twin for \
            a message"
)]
pub trait BorrowedAs<T: Archive>: Borrowed {
    /// Writes what `self` owns.
    fn serialize_as(&self, out: &mut Encoder) -> Result<Self::Resolver, EncodeError>;

    /// Fills in `self`'s own place.
    fn resolve_as(&self, resolver: Self::Resolver, place: Place<T::Archived>);

    /// Writes many at once.
    fn serialize_slice_as(slice: &[Self], out: &mut Encoder) -> Result<VecResolver, EncodeError>
    where
        Self: Sized,
    {
        ArchivedVec::serialize_from_iter::<Wrapped<'_, Self, T>, _, _>(slice.iter().map(Wrapped::new), out)
    }
}

/// A reference that archives as a `T`.
pub struct Wrapped<'a, U: ?Sized, T>(&'a U, PhantomData<fn() -> T>);

impl<'a, U: ?Sized, T> Wrapped<'a, U, T> {
    /// Wraps a part.
    #[inline]
    pub fn new(part: &'a U) -> Self {
        Wrapped(part, PhantomData)
    }
}

impl<U: BorrowedAs<T> + ?Sized, T: Archive> Archive for Wrapped<'_, U, T> {
    type Archived = T::Archived;
    type Resolver = U::Resolver;

    #[inline]
    fn resolve(&self, resolver: U::Resolver, place: Place<T::Archived>) {
        self.0.resolve_as(resolver, place);
    }
}

impl<U: BorrowedAs<T> + ?Sized, T: Archive> Serialize<Encoder> for Wrapped<'_, U, T> {
    #[inline]
    fn serialize(&self, out: &mut Encoder) -> Result<U::Resolver, EncodeError> {
        self.0.serialize_as(out)
    }
}

/// A type that is a part of a twin as what it is.
macro_rules! as_itself {
    ($([$($generics:tt)*] $type:ty $(where $($bounds:tt)+)?;)+) => {$(
        impl<$($generics)*> Borrowed for $type where $type: Archive + Schema, {
            type Resolver = <$type as Archive>::Resolver;

            const FLAT: bool = <$type as Schema>::FLAT;

            #[inline]
            fn fits(&self, levels: usize) -> bool {
                Schema::fits(self, levels)
            }
        }

        impl<$($generics)*> BorrowedAs<$type> for $type where $type: Serialize<Encoder> + Schema, {
            #[inline]
            fn serialize_as(&self, out: &mut Encoder) -> Result<Self::Resolver, EncodeError> {
                self.serialize(out)
            }

            #[inline]
            fn resolve_as(&self, resolver: Self::Resolver, place: Place<<$type as Archive>::Archived>) {
                self.resolve(resolver, place);
            }

            fn serialize_slice_as(slice: &[Self], out: &mut Encoder) -> Result<VecResolver, EncodeError> {
                ArchivedVec::serialize_from_slice(slice, out)
            }
        }
    )+};
}

as_itself! {
    [] (); [] bool; [] char; [] Duration; [] String;
    [] u8; [] u16; [] u32; [] u64; [] u128; [] i8; [] i16; [] i32; [] i64; [] i128; [] f32; [] f64;
    [K, V] BTreeMap<K, V>; [K] BTreeSet<K>; [T] Box<T>; [] Value; [] Args;
}

impl<U: Borrowed + ?Sized> Borrowed for &U {
    type Resolver = U::Resolver;

    const FLAT: bool = U::FLAT;

    #[inline]
    fn fits(&self, levels: usize) -> bool {
        U::fits(self, levels)
    }
}

impl<U: BorrowedAs<T> + ?Sized, T: Archive> BorrowedAs<T> for &U {
    #[inline]
    fn serialize_as(&self, out: &mut Encoder) -> Result<Self::Resolver, EncodeError> {
        U::serialize_as(self, out)
    }

    #[inline]
    fn resolve_as(&self, resolver: Self::Resolver, place: Place<T::Archived>) {
        U::resolve_as(self, resolver, place);
    }
}

impl Borrowed for str {
    type Resolver = StringResolver;

    const FLAT: bool = false;

    #[inline]
    fn fits(&self, levels: usize) -> bool {
        text_fits(self, levels)
    }
}

impl BorrowedAs<String> for str {
    #[inline]
    fn serialize_as(&self, out: &mut Encoder) -> Result<StringResolver, EncodeError> {
        ArchivedString::serialize_from_str(self, out)
    }

    #[inline]
    fn resolve_as(&self, resolver: StringResolver, place: Place<ArchivedString>) {
        ArchivedString::resolve_from_str(self, resolver, place);
    }
}

impl<U: Borrowed> Borrowed for [U] {
    type Resolver = VecResolver;

    const FLAT: bool = false;

    #[inline]
    fn fits(&self, levels: usize) -> bool {
        levels > 0 && (U::FLAT || self.iter().all(|element| element.fits(levels - 1)))
    }
}

impl<U: BorrowedAs<T>, T: Archive> BorrowedAs<Vec<T>> for [U] {
    #[inline]
    fn serialize_as(&self, out: &mut Encoder) -> Result<VecResolver, EncodeError> {
        U::serialize_slice_as(self, out)
    }

    #[inline]
    fn resolve_as(&self, resolver: VecResolver, place: Place<ArchivedVec<T::Archived>>) {
        ArchivedVec::resolve_from_len(self.len(), resolver, place);
    }
}

impl<U: Borrowed> Borrowed for Vec<U> {
    type Resolver = VecResolver;

    const FLAT: bool = false;

    #[inline]
    fn fits(&self, levels: usize) -> bool {
        self.as_slice().fits(levels)
    }
}

impl<U: BorrowedAs<T>, T: Archive> BorrowedAs<Vec<T>> for Vec<U> {
    #[inline]
    fn serialize_as(&self, out: &mut Encoder) -> Result<VecResolver, EncodeError> {
        self.as_slice().serialize_as(out)
    }

    #[inline]
    fn resolve_as(&self, resolver: VecResolver, place: Place<ArchivedVec<T::Archived>>) {
        self.as_slice().resolve_as(resolver, place);
    }
}

impl<U: Borrowed> Borrowed for Option<U> {
    type Resolver = Option<U::Resolver>;

    const FLAT: bool = U::FLAT;

    #[inline]
    fn fits(&self, levels: usize) -> bool {
        self.as_ref().is_none_or(|part| part.fits(levels))
    }
}

impl<U: BorrowedAs<T>, T: Archive> BorrowedAs<Option<T>> for Option<U> {
    #[inline]
    fn serialize_as(&self, out: &mut Encoder) -> Result<Self::Resolver, EncodeError> {
        self.as_ref().map(Wrapped::<U, T>::new).serialize(out)
    }

    #[inline]
    fn resolve_as(&self, resolver: Self::Resolver, place: Place<<Option<T> as Archive>::Archived>) {
        self.as_ref().map(Wrapped::<U, T>::new).resolve(resolver, place);
    }
}

impl<U: Borrowed, const N: usize> Borrowed for [U; N] {
    type Resolver = [U::Resolver; N];

    const FLAT: bool = U::FLAT;

    #[inline]
    fn fits(&self, levels: usize) -> bool {
        U::FLAT || self.iter().all(|part| part.fits(levels))
    }
}

impl<U: BorrowedAs<T>, T: Archive, const N: usize> BorrowedAs<[T; N]> for [U; N] {
    #[inline]
    fn serialize_as(&self, out: &mut Encoder) -> Result<Self::Resolver, EncodeError> {
        self.each_ref().map(Wrapped::<U, T>::new).serialize(out)
    }

    #[inline]
    fn resolve_as(&self, resolver: Self::Resolver, place: Place<[T::Archived; N]>) {
        self.each_ref().map(Wrapped::<U, T>::new).resolve(resolver, place);
    }
}

macro_rules! tuples {
    ($(($($part:ident $target:ident $index:tt),+))+) => {$(
        impl<$($part: Borrowed),+> Borrowed for ($($part,)+) {
            type Resolver = ($($part::Resolver,)+);

            const FLAT: bool = true $(&& $part::FLAT)+;

            #[inline]
            fn fits(&self, levels: usize) -> bool {
                true $(&& self.$index.fits(levels))+
            }
        }

        impl<$($part: BorrowedAs<$target>, $target: Archive),+> BorrowedAs<($($target,)+)> for ($($part,)+) {
            #[inline]
            fn serialize_as(&self, out: &mut Encoder) -> Result<Self::Resolver, EncodeError> {
                ($(Wrapped::<$part, $target>::new(&self.$index),)+).serialize(out)
            }

            #[inline]
            fn resolve_as(&self, resolver: Self::Resolver, place: Place<<($($target,)+) as Archive>::Archived>) {
                ($(Wrapped::<$part, $target>::new(&self.$index),)+).resolve(resolver, place);
            }
        }
    )+};
}

tuples! {
    (A T 0)
    (A T 0, B U 1)
    (A T 0, B U 1, C V 2)
    (A T 0, B U 1, C V 2, D W 3)
    (A T 0, B U 1, C V 2, D W 3, E X 4)
    (A T 0, B U 1, C V 2, D W 3, E X 4, F Y 5)
}

/// The field names of a message that is a struct, in order.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot have a twin",
    label = "not a struct with `#[memit::message]`"
)]
pub trait FieldNames {
    /// `0`, `1`, .. where they have none.
    const NAMES: &'static [&'static str];
}

/// Whether a twin has the fields of its message.
#[must_use]
pub const fn same_names(message: &[&str], twin: &[&str]) -> bool {
    if message.len() != twin.len() {
        return false;
    }
    let mut index = 0;
    while index < message.len() {
        let (a, b) = (message[index].as_bytes(), twin[index].as_bytes());
        if a.len() != b.len() {
            return false;
        }
        let mut at = 0;
        while at < a.len() {
            if a[at] != b[at] {
                return false;
            }
            at += 1;
        }
        index += 1;
    }
    true
}

/// Serializes a twin's field as the message's field of that name, which `_field` picks.
#[inline]
pub fn serialize_field<M, F: Archive, U: BorrowedAs<F> + ?Sized>(
    _field: fn(&M) -> &F,
    part: &U,
    out: &mut Encoder,
) -> Result<U::Resolver, EncodeError> {
    part.serialize_as(out)
}

/// Resolves a twin's field as the message's field of that name, which `_field` picks.
#[inline]
pub fn resolve_field<M, F: Archive, U: BorrowedAs<F> + ?Sized>(
    _field: fn(&M) -> &F,
    part: &U,
    resolver: U::Resolver,
    place: Place<F::Archived>,
) {
    part.resolve_as(resolver, place);
}
