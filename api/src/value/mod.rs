//! Dynamic values: what travels on a channel that is named by a `&str`.
//!
//! The arguments of such a message are [`Args`], a list of [`Value`]s; [`args!`](crate::args) writes them down.
//! Listeners see [`ArchivedArgs`] and [`ArchivedValue`], in place.
//!
//! ```
//! use memit::{Payload, args, encode::with_encoded, rkyv::util::AlignedVec};
//!
//! let sent = args!["volume", 0.5, {"muted": false, "channels": [1, 2]}];
//! with_encoded::<memit::Args, _, _>(&sent, |bytes| {
//!     let mut received: AlignedVec<16> = AlignedVec::new();
//!     received.extend_from_slice(bytes);
//!     let args = memit::Args::view(&received)?;
//!
//!     assert_eq!(args.get(0).and_then(|name| name.as_str()), Some("volume"));
//!     assert_eq!(args.get(2).and_then(|map| map.get("muted")?.as_bool()), Some(false));
//!     assert_eq!(args.to_string(), r#"["volume",0.5,{"muted":false,"channels":[1,2]}]"#);
//!     Ok::<(), memit::InvalidPayload>(())
//! })??;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![allow(unsafe_code)]

mod archived;
mod convert;
mod json;
mod literal;
mod nested;

use rkyv::{
    Archive, Deserialize, Serialize,
    bytecheck::Verify,
    rancor::{Fallible, Source},
    with::SerializeWith,
};

pub use self::archived::MapView;
use self::nested::Nested;
use crate::{
    encode::Sink,
    message::Inspect,
    schema::{Describe, Schema},
};

/// How deep arrays and maps may nest in a message. It leaves room below [`MAX_DEPTH`](crate::payload::MAX_DEPTH),
/// which holds for what arrives, for whatever the values are part of.
pub const MAX_NESTING: u32 = 120;

/// How many values a message may hold in all. More is refused when it is sent and when it arrives.
pub const MAX_NODES: u32 = 1_000_000;

/// The version of the form in which values are archived.
pub(crate) const VALUE_VERSION: u64 = 1;

/// A value whose type is known only when the program runs.
///
/// It is archived in 16 bytes, aligned to 8: a tag byte, then, at the offset given, the content.
///
/// | tag | content |
/// |---|---|
/// | 0 `Null` | |
/// | 1 `Bool` | a byte, 0 or 1, at 1 |
/// | 2 `I64`, 3 `U64`, 4 `F64` | the number at 8 |
/// | 5 `String` | a `string` at 4 |
/// | 6 `Bytes` | a `vec<u8>` at 4 |
/// | 7 `Array` | a `vec<value>` at 4 |
/// | 8 `Map` | a `vec<(string,value)>` at 4 |
///
/// (The words are those of the [schema grammar](crate::schema).)
///
/// `Display` writes JSON on one line. Numbers that JSON does not have (NaN and the infinities) become `null`, and bytes
/// become `{"$bytes":"..."}` in base64.
#[derive(Archive, Deserialize, Clone, Debug, Default)]
#[rkyv(
    deserialize_bounds(__D: Fallible, __D::Error: Source),
    bytecheck(verify, bounds(__C: Inspect, __C::Error: Source)),
)]
pub enum Value {
    /// Nothing.
    #[default]
    Null,
    /// True or false.
    Bool(bool),
    /// A whole number; whatever fits into it is one.
    I64(i64),
    /// A whole number above `i64::MAX`. Made by hand it may also hold a smaller one, which is equal to that `I64`.
    U64(u64),
    /// A number with a fraction.
    F64(f64),
    /// Text.
    String(String),
    /// Bytes.
    Bytes(Vec<u8>),
    /// A list.
    Array(#[rkyv(omit_bounds, with = Nested)] Vec<Value>),
    /// Names and values, in order. Where a name stands twice, it is the first that counts.
    Map(#[rkyv(omit_bounds, with = Nested)] Vec<(String, Value)>),
}

// Derived it would be the same, but for the count.
impl<S: Sink + ?Sized> Serialize<S> for Value
where
    S::Error: Source,
{
    fn serialize(&self, out: &mut S) -> Result<ValueResolver, S::Error> {
        out.count_node()?;
        Ok(match self {
            Value::Null => ValueResolver::Null,
            Value::Bool(truth) => ValueResolver::Bool(truth.serialize(out)?),
            Value::I64(number) => ValueResolver::I64(number.serialize(out)?),
            Value::U64(number) => ValueResolver::U64(number.serialize(out)?),
            Value::F64(number) => ValueResolver::F64(number.serialize(out)?),
            Value::String(text) => ValueResolver::String(text.serialize(out)?),
            Value::Bytes(bytes) => ValueResolver::Bytes(bytes.serialize(out)?),
            Value::Array(elements) => ValueResolver::Array(Nested::serialize_with(elements, out)?),
            Value::Map(entries) => ValueResolver::Map(Nested::serialize_with(entries, out)?),
        })
    }
}

// SAFETY: a value has no invariant beyond those of its parts; this only counts.
unsafe impl<C: Inspect + ?Sized> Verify<C> for ArchivedValue {
    #[inline]
    fn verify(&self, context: &mut C) -> Result<(), C::Error> {
        context.count_node()
    }
}

impl Schema for Value {
    fn describe(d: &mut Describe) {
        d.word("value");
    }

    #[inline]
    fn fits(&self, levels: usize) -> bool {
        fits_whatever_it_is(levels) || self.fits_as_it_is(levels)
    }
}

/// Arrays and maps that nest too deep are refused while they are written, so there are [`MAX_NESTING`] levels of them
/// at most; a text is one more.
#[inline]
fn fits_whatever_it_is(levels: usize) -> bool {
    levels > MAX_NESTING as usize
}

/// The arguments of a dynamic message: an ordered list of [`Value`]s, archived as a `vec<value>`.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[rkyv(
    serialize_bounds(__S: Sink, __S::Error: Source),
    deserialize_bounds(__D: Fallible, __D::Error: Source),
    bytecheck(bounds(__C: Inspect, __C::Error: Source)),
)]
pub struct Args(
    /// The values.
    #[rkyv(omit_bounds, with = Nested)]
    pub Vec<Value>,
);

impl Schema for Args {
    fn describe(d: &mut Describe) {
        d.word("args");
    }

    #[inline]
    fn fits(&self, levels: usize) -> bool {
        fits_whatever_it_is(levels) || self.0.fits(levels)
    }
}

impl Args {
    /// No arguments.
    #[must_use]
    pub const fn new() -> Self {
        Args(Vec::new())
    }

    /// Adds one at the end.
    pub fn push(&mut self, value: impl Into<Value>) {
        self.0.push(value.into());
    }
}

impl std::ops::Deref for Args {
    type Target = Vec<Value>;

    fn deref(&self) -> &Vec<Value> {
        &self.0
    }
}

impl std::ops::DerefMut for Args {
    fn deref_mut(&mut self) -> &mut Vec<Value> {
        &mut self.0
    }
}

impl IntoIterator for Args {
    type Item = Value;
    type IntoIter = std::vec::IntoIter<Value>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a> IntoIterator for &'a Args {
    type Item = &'a Value;
    type IntoIter = std::slice::Iter<'a, Value>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl Value {
    fn fits_as_it_is(&self, levels: usize) -> bool {
        match self {
            Value::Null | Value::Bool(_) | Value::I64(_) | Value::U64(_) | Value::F64(_) => true,
            Value::String(text) => text.fits(levels),
            Value::Bytes(bytes) => bytes.fits(levels),
            Value::Array(elements) => elements.fits(levels),
            Value::Map(entries) => entries.fits(levels),
        }
    }

    /// The value of a key, if this is a map that has it.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Value> {
        match self {
            Value::Map(entries) => entries.iter().find(|(name, _)| name == key).map(|(_, value)| value),
            _ => None,
        }
    }

    /// The text, if this is a string.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    /// The number, if this is a whole one that fits.
    #[must_use]
    pub fn as_i64(&self) -> Option<i64> {
        match *self {
            Value::I64(number) => Some(number),
            Value::U64(number) => number.try_into().ok(),
            _ => None,
        }
    }

    /// The number, if this is a whole one that fits.
    #[must_use]
    pub fn as_u64(&self) -> Option<u64> {
        match *self {
            Value::I64(number) => number.try_into().ok(),
            Value::U64(number) => Some(number),
            _ => None,
        }
    }

    /// The number, if this is one. A large whole number is rounded.
    #[must_use]
    pub fn as_f64(&self) -> Option<f64> {
        match *self {
            Value::I64(number) => Some(number as f64),
            Value::U64(number) => Some(number as f64),
            Value::F64(number) => Some(number),
            _ => None,
        }
    }

    /// The truth, if this is a boolean.
    #[must_use]
    pub fn as_bool(&self) -> Option<bool> {
        match *self {
            Value::Bool(truth) => Some(truth),
            _ => None,
        }
    }

    /// The bytes, if this is bytes.
    #[must_use]
    pub fn as_bytes(&self) -> Option<&[u8]> {
        match self {
            Value::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// The elements, if this is an array.
    #[must_use]
    pub fn as_array(&self) -> Option<&[Value]> {
        match self {
            Value::Array(elements) => Some(elements),
            _ => None,
        }
    }

    /// The entries, if this is a map.
    #[must_use]
    pub fn as_map(&self) -> Option<&[(String, Value)]> {
        match self {
            Value::Map(entries) => Some(entries),
            _ => None,
        }
    }

    /// Whether this is null.
    #[must_use]
    pub fn is_null(&self) -> bool {
        matches!(self, Value::Null)
    }
}

/// Whole numbers are compared by what they are, whichever variant holds them; a float equals only a float.
impl PartialEq for Value {
    fn eq(&self, other: &Value) -> bool {
        json::same(self, other)
    }
}
