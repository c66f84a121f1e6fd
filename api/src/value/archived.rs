//! What listeners see of dynamic values.

use rkyv::{string::ArchivedString, tuple::ArchivedTuple2, vec::ArchivedVec};

use super::{ArchivedArgs, ArchivedValue, Args, Value, json};
use crate::payload::Payload;

type Entry = ArchivedTuple2<ArchivedString, ArchivedValue>;

impl ArchivedArgs {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The argument at `index`, counted from 0, if there are that many.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<&ArchivedValue> {
        self.0.get(index)
    }

    /// The arguments, in order.
    pub fn iter(&self) -> std::slice::Iter<'_, ArchivedValue> {
        self.0.iter()
    }

    /// The arguments, in order.
    #[must_use]
    pub fn as_slice(&self) -> &[ArchivedValue] {
        &self.0
    }

    /// A copy that outlives the message.
    #[must_use]
    pub fn to_owned(&self) -> Args {
        Args::own(self)
    }
}

impl<'a> IntoIterator for &'a ArchivedArgs {
    type Item = &'a ArchivedValue;
    type IntoIter = std::slice::Iter<'a, ArchivedValue>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl PartialEq<Args> for ArchivedArgs {
    fn eq(&self, other: &Args) -> bool {
        self.len() == other.len() && self.iter().zip(other).all(|(ours, theirs)| ours == theirs)
    }
}

impl ArchivedValue {
    /// The value of a key, if this is a map that has it.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&ArchivedValue> {
        self.as_map()?.get(key)
    }

    /// The text, if this is a string.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        match self {
            ArchivedValue::String(text) => Some(text),
            _ => None,
        }
    }

    /// The number, if this is a whole one that fits.
    #[must_use]
    pub fn as_i64(&self) -> Option<i64> {
        match self {
            ArchivedValue::I64(number) => Some(number.to_native()),
            ArchivedValue::U64(number) => number.to_native().try_into().ok(),
            _ => None,
        }
    }

    /// The number, if this is a whole one that fits.
    #[must_use]
    pub fn as_u64(&self) -> Option<u64> {
        match self {
            ArchivedValue::I64(number) => number.to_native().try_into().ok(),
            ArchivedValue::U64(number) => Some(number.to_native()),
            _ => None,
        }
    }

    /// The number, if this is one. A large whole number is rounded.
    #[must_use]
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            ArchivedValue::I64(number) => Some(number.to_native() as f64),
            ArchivedValue::U64(number) => Some(number.to_native() as f64),
            ArchivedValue::F64(number) => Some(number.to_native()),
            _ => None,
        }
    }

    /// The truth, if this is a boolean.
    #[must_use]
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            ArchivedValue::Bool(truth) => Some(*truth),
            _ => None,
        }
    }

    /// The bytes, if this is bytes.
    #[must_use]
    pub fn as_bytes(&self) -> Option<&[u8]> {
        match self {
            ArchivedValue::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// The elements, if this is an array.
    #[must_use]
    pub fn as_array(&self) -> Option<&[ArchivedValue]> {
        match self {
            ArchivedValue::Array(elements) => Some(elements),
            _ => None,
        }
    }

    /// The entries, if this is a map.
    #[must_use]
    pub fn as_map(&self) -> Option<MapView<'_>> {
        match self {
            ArchivedValue::Map(entries) => Some(MapView(entries)),
            _ => None,
        }
    }

    /// Whether this is null.
    #[must_use]
    pub fn is_null(&self) -> bool {
        matches!(self, ArchivedValue::Null)
    }

    /// A copy that outlives the message.
    #[must_use]
    pub fn to_owned(&self) -> Value {
        Value::own(self)
    }
}

impl PartialEq<Value> for ArchivedValue {
    fn eq(&self, other: &Value) -> bool {
        json::same(self, other)
    }
}

impl PartialEq for ArchivedValue {
    fn eq(&self, other: &ArchivedValue) -> bool {
        json::same(self, other)
    }
}

impl PartialEq<str> for ArchivedValue {
    fn eq(&self, other: &str) -> bool {
        self.as_str() == Some(other)
    }
}

impl PartialEq<&str> for ArchivedValue {
    fn eq(&self, other: &&str) -> bool {
        self == *other
    }
}

impl From<&ArchivedValue> for Value {
    fn from(value: &ArchivedValue) -> Value {
        value.to_owned()
    }
}

impl From<&ArchivedArgs> for Args {
    fn from(args: &ArchivedArgs) -> Args {
        args.to_owned()
    }
}

/// The entries of a map in a received message, in the order in which they were sent.
#[derive(Clone, Copy)]
pub struct MapView<'a>(&'a ArchivedVec<Entry>);

impl<'a> MapView<'a> {
    /// How many there are.
    #[must_use]
    pub fn len(self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// The value of the first entry of that name. The search goes from entry to entry.
    #[must_use]
    pub fn get(self, key: &str) -> Option<&'a ArchivedValue> {
        self.iter().find(|(name, _)| *name == key).map(|(_, value)| value)
    }

    /// The names and values.
    pub fn iter(self) -> impl ExactSizeIterator<Item = (&'a str, &'a ArchivedValue)> {
        self.0.iter().map(|entry| (entry.0.as_str(), &entry.1))
    }
}
