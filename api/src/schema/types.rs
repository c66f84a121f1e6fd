//! Schemas of what the language and its library offer.

use std::{
    collections::{BTreeMap, BTreeSet},
    num,
    time::Duration,
};

use rkyv::{Archive, string::ArchivedString};

use super::{Describe, Schema};
use crate::payload::{MAX_ALIGN, Plain};

macro_rules! words {
    ($($type:ty = $word:literal)+) => {$(
        impl Schema for $type {
            const FLAT: bool = true;

            fn describe(d: &mut Describe) {
                d.word($word);
            }
        }
    )+};
}

words! {
    () = "()"  bool = "bool"  char = "char"  str = "str"  Duration = "duration"
    u8 = "u8"  u16 = "u16"  u32 = "u32"  u64 = "u64"  u128 = "u128"
    i8 = "i8"  i16 = "i16"  i32 = "i32"  i64 = "i64"  i128 = "i128"
    f32 = "f32"  f64 = "f64"
    num::NonZeroU8 = "nonzero<u8>"  num::NonZeroU16 = "nonzero<u16>"  num::NonZeroU32 = "nonzero<u32>"
    num::NonZeroU64 = "nonzero<u64>"  num::NonZeroU128 = "nonzero<u128>"
    num::NonZeroI8 = "nonzero<i8>"  num::NonZeroI16 = "nonzero<i16>"  num::NonZeroI32 = "nonzero<i32>"
    num::NonZeroI64 = "nonzero<i64>"  num::NonZeroI128 = "nonzero<i128>"
}

impl Schema for String {
    fn describe(d: &mut Describe) {
        d.word("string");
    }

    #[inline]
    fn fits(&self, levels: usize) -> bool {
        text_fits(self, levels)
    }
}

/// Whether a string does: a short one is written in place.
#[inline]
pub(crate) fn text_fits(text: &str, levels: usize) -> bool {
    const IN_PLACE: usize = size_of::<ArchivedString>();
    levels > 0 || text.len() <= IN_PLACE
}

impl Schema for Box<str> {
    fn describe(d: &mut Describe) {
        d.word("boxed<str>");
    }

    #[inline]
    fn fits(&self, levels: usize) -> bool {
        levels > 0
    }
}

impl<P: Plain> Schema for [P] {
    const FLAT: bool = true;

    fn describe(d: &mut Describe) {
        d.word("slice<");
        P::describe(d);
        d.word(">");
    }
}

/// Elements without bytes cost a sender nothing, and a receiver that checks four billion of them much. For elements
/// of a large alignment, the bytes of a message are not aligned.
macro_rules! check_elements {
    ($element:ty) => {
        const {
            assert!(
                align_of::<<$element as Archive>::Archived>() <= MAX_ALIGN,
                "the alignment of a message's parts is at most 16"
            );
            assert!(
                size_of::<<$element as Archive>::Archived>() != 0,
                "a message cannot hold a Vec or boxed slice of elements without bytes; send their number instead"
            );
        }
    };
}

impl<T: Schema + Archive> Schema for Vec<T> {
    fn describe(d: &mut Describe) {
        check_elements!(T);
        d.word("vec<");
        T::describe(d);
        d.word(">");
    }

    #[inline]
    fn fits(&self, levels: usize) -> bool {
        elements_fit(self, levels)
    }
}

impl<T: Schema + Archive> Schema for Box<[T]> {
    fn describe(d: &mut Describe) {
        check_elements!(T);
        d.word("boxed<");
        T::describe(d);
        d.word(">");
    }

    #[inline]
    fn fits(&self, levels: usize) -> bool {
        elements_fit(self, levels)
    }
}

#[inline]
fn elements_fit<T: Schema>(elements: &[T], levels: usize) -> bool {
    levels > 0 && (T::FLAT || elements.iter().all(|element| element.fits(levels - 1)))
}

impl<T: Schema> Schema for Box<T> {
    fn describe(d: &mut Describe) {
        d.word("box<");
        T::describe(d);
        d.word(">");
    }

    #[inline]
    fn fits(&self, levels: usize) -> bool {
        levels > 0 && T::fits(self, levels - 1)
    }
}

impl<T: Schema> Schema for Option<T> {
    const FLAT: bool = T::FLAT;

    fn describe(d: &mut Describe) {
        d.word("option<");
        T::describe(d);
        d.word(">");
    }

    #[inline]
    fn fits(&self, levels: usize) -> bool {
        self.as_ref().is_none_or(|value| value.fits(levels))
    }
}

impl<T: Schema, const N: usize> Schema for [T; N] {
    const FLAT: bool = T::FLAT;

    fn describe(d: &mut Describe) {
        d.word("[");
        T::describe(d);
        d.word(&format!(";{N}]"));
    }

    #[inline]
    fn fits(&self, levels: usize) -> bool {
        T::FLAT || self.iter().all(|element| element.fits(levels))
    }
}

// No hash maps and sets: rkyv's check of them lets archives through that may not be read.
impl<K: Schema, V: Schema> Schema for BTreeMap<K, V> {
    fn describe(d: &mut Describe) {
        d.word("btreemap<");
        K::describe(d);
        d.word(",");
        V::describe(d);
        d.word(">");
    }

    #[inline]
    fn fits(&self, levels: usize) -> bool {
        below_a_tree(self.len(), levels).is_some_and(|levels| {
            (K::FLAT && V::FLAT) || self.iter().all(|(key, value)| key.fits(levels) && value.fits(levels))
        })
    }
}

impl<K: Schema> Schema for BTreeSet<K> {
    fn describe(d: &mut Describe) {
        d.word("btreeset<");
        K::describe(d);
        d.word(">");
    }

    #[inline]
    fn fits(&self, levels: usize) -> bool {
        below_a_tree(self.len(), levels).is_some_and(|levels| K::FLAT || self.iter().all(|key| key.fits(levels)))
    }
}

/// What is left of the levels below a tree of so many entries, if it fits. rkyv's nodes have five entries and six
/// children; those entries that stand higher in the tree have more levels left, which is not made use of.
#[inline]
fn below_a_tree(entries: usize, levels: usize) -> Option<usize> {
    let height = entries.checked_ilog(6).map_or(0, |below_the_root| below_the_root as usize + 1);
    levels.checked_sub(height)
}

macro_rules! tuples {
    ($(($first:ident $($rest:ident)*))+) => {$(
        impl<$first: Schema, $($rest: Schema),*> Schema for ($first, $($rest,)*) {
            const FLAT: bool = $first::FLAT $(&& $rest::FLAT)*;

            fn describe(d: &mut Describe) {
                d.word("(");
                $first::describe(d);
                $(
                    d.word(",");
                    $rest::describe(d);
                )*
                d.word(")");
            }

            #[inline]
            #[allow(non_snake_case)]
            fn fits(&self, levels: usize) -> bool {
                let ($first, $($rest,)*) = self;
                $first.fits(levels) $(&& $rest.fits(levels))*
            }
        }
    )+};
}

tuples! {
    (A) (A B) (A B C) (A B C D) (A B C D E) (A B C D E F) (A B C D E F G) (A B C D E F G H) (A B C D E F G H I)
    (A B C D E F G H I J) (A B C D E F G H I J K) (A B C D E F G H I J K L)
}
