//! Schemas: the form of a message's archive as text.
//!
//! Two processes that name one channel compare texts, so a message is only ever read as what it is. The text is
//! structural: it names fields and variants but no Rust type, is the same in every build, and says enough to decode an
//! archive without the program that wrote it.
//!
//! ```
//! #[memit::message]
//! struct Tree {
//!     label: String,
//!     children: Vec<Tree>,
//! }
//!
//! assert_eq!(memit::schema::text::<Tree>(), "{label:string,children:vec<#0>}@16/4");
//! ```
//!
//! # Grammar
//!
//! | text | archive | bytes / alignment |
//! |---|---|---|
//! | `u8` `u16` .. `u128`, `i8` .. `i128`, `f32`, `f64` | the number, little-endian | its width / its width |
//! | `bool` | 0 or 1 | 1 / 1 |
//! | `char` | a `u32` that is a scalar value | 4 / 4 |
//! | `()` | nothing | 0 / 1 |
//! | `string` | rkyv's: up to 8 bytes in place, filled up with 0xff; else length and offset | 8 / 4 |
//! | `duration` | seconds `u64`, nanoseconds `u32`, below 10^9 | 16 / 8 |
//! | `nonzero<N>` | `N`, not 0 | as `N` |
//! | `option<T>` | a tag byte, 0 or 1, then `T` at its alignment | |
//! | `vec<T>` | offset `i32` from itself to the first element, then the length `u32` | 8 / 4 |
//! | `box<T>` | offset `i32` from itself | 4 / 4 |
//! | `boxed<T>`, `boxed<str>` | a boxed slice or string: offset `i32`, length `u32` | 8 / 4 |
//! | `[T;n]` | `n` of `T` | `n` times `T`'s / as `T` |
//! | `(A,B,..)` | `A`, `B`, .. each at its alignment, as in a C struct | |
//! | `btreemap<K,V>` `btreeset<K>` | rkyv's B-tree | 8 / 4 |
//! | `{a:A,b:B,..}@s/l` | a struct: the fields in this order, as in a C struct of `s` bytes aligned to `l` | s / l |
//! | `<0=A,1=B{x:X,..},..>@s/l` | an enum: a tag byte, then the fields of the variant, as in a C struct that begins with the byte | s / l |
//! | `#n` | the `n`th struct or enum of this text, counted from 0 by where it begins: a repetition, or recursion | |
//! | `value`, `args` | dynamic values, see [`Value`](crate::Value) | 16 / 8, 8 / 4 |
//! | `str`, `slice<P>` | not an archive: UTF-8 text; numbers one behind the other | |
//!
//! An archive's root ends it, and offsets count from the field that holds them.

mod describe;
mod types;

use std::marker::PhantomData;

pub use self::describe::Describe;
pub(crate) use self::types::text_fits;

/// What has a [schema](self).
///
/// `#[memit::message]` implements it. The text must be true to the archive: it is all that two peers compare before
/// each reads the other's messages. (They are checked when they arrive, whatever the trust; but bytes of another form
/// may pass the check, and would be misread.)
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be part of a memit message",
    label = "not a message",
    note = "a message is made of numbers of fixed width (`u64` rather than `usize`), bool, char, String, Duration, \
            Option, Vec, Box, arrays, tuples, BTreeMap, BTreeSet, and types with `#[memit::message]`",
    note = "a HashMap or HashSet cannot travel, since its archive cannot be checked whole: use BTreeMap or BTreeSet, \
            or a Vec of pairs",
    note = "what is shared or borrowed (`Rc`, `Arc`, references) has to be owned to travel"
)]
pub trait Schema: 'static {
    /// Tells `d` what the archive is made of.
    fn describe(d: &mut Describe);

    /// Whether no value of the type has a part elsewhere in its archive.
    #[doc(hidden)]
    const FLAT: bool = false;

    /// Whether no more than `levels` parts of the archive lead from one to the next. It is asked before a message is
    /// written, so that none is sent that nests deeper than its receiver's check goes. Where no such part is missing
    /// in the type, the compiler sees it, and nothing is left of the question.
    ///
    /// A type whose schema was written by hand need not answer: its receiver does.
    #[doc(hidden)]
    #[inline]
    fn fits(&self, levels: usize) -> bool {
        let _ = levels;
        true
    }
}

/// A part of a message, for the attribute's code to name.
#[doc(hidden)]
pub struct Part<T: Schema>(PhantomData<fn() -> T>);

/// The schema of `T`.
#[must_use]
pub fn text<T: Schema + ?Sized>() -> String {
    let mut d = Describe::new();
    T::describe(&mut d);
    d.finish()
}

/// The hash of the schema's text: equal schemas, equal fingerprints.
#[must_use]
pub fn fingerprint<T: Schema + ?Sized>() -> u64 {
    hash(text::<T>().as_bytes())
}

/// FNV-1a, 64 bits.
#[must_use]
pub(crate) const fn hash(bytes: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325;
    let mut index = 0;
    while index < bytes.len() {
        hash = (hash ^ bytes[index] as u64).wrapping_mul(0x0100_0000_01b3);
        index += 1;
    }
    hash
}
