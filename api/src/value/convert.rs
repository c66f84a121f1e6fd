//! From Rust's values to dynamic ones.

use super::{Args, Value};

macro_rules! small_numbers {
    ($($type:ty)+) => {$(
        impl From<$type> for Value {
            fn from(number: $type) -> Value {
                Value::I64(number.into())
            }
        }
    )+};
}

small_numbers! { i8 i16 i32 i64 u8 u16 u32 }

impl From<isize> for Value {
    fn from(number: isize) -> Value {
        Value::I64(number as i64)
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Value {
        i64::try_from(number).map_or(Value::U64(number), Value::I64)
    }
}

impl From<usize> for Value {
    fn from(number: usize) -> Value {
        Value::from(number as u64)
    }
}

macro_rules! variants {
    ($($type:ty => |$value:ident| $into:expr;)+) => {$(
        impl From<$type> for Value {
            fn from($value: $type) -> Value {
                $into
            }
        }
    )+};
}

variants! {
    () => |_nothing| Value::Null;
    bool => |truth| Value::Bool(truth);
    f32 => |number| Value::F64(number.into());
    f64 => |number| Value::F64(number);
    char => |letter| Value::String(letter.into());
    &str => |text| Value::String(text.into());
    &String => |text| Value::String(text.clone());
    String => |text| Value::String(text);
    std::borrow::Cow<'_, str> => |text| Value::String(text.into_owned());
    &[u8] => |bytes| Value::Bytes(bytes.into());
    Vec<u8> => |bytes| Value::Bytes(bytes);
    Vec<Value> => |elements| Value::Array(elements);
    Vec<(String, Value)> => |entries| Value::Map(entries);
    Args => |args| Value::Array(args.0);
    &Value => |value| value.clone();
}

impl<const N: usize> From<&[u8; N]> for Value {
    fn from(bytes: &[u8; N]) -> Value {
        Value::Bytes(bytes.to_vec())
    }
}

impl<const N: usize> From<[Value; N]> for Value {
    fn from(elements: [Value; N]) -> Value {
        Value::Array(elements.into())
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Value {
        value.map_or(Value::Null, Into::into)
    }
}

/// An array.
impl<T: Into<Value>> FromIterator<T> for Value {
    fn from_iter<I: IntoIterator<Item = T>>(elements: I) -> Value {
        Value::Array(elements.into_iter().map(Into::into).collect())
    }
}

impl<T: Into<Value>> FromIterator<T> for Args {
    fn from_iter<I: IntoIterator<Item = T>>(args: I) -> Args {
        Args(args.into_iter().map(Into::into).collect())
    }
}

impl<T: Into<Value>> Extend<T> for Args {
    fn extend<I: IntoIterator<Item = T>>(&mut self, args: I) {
        self.0.extend(args.into_iter().map(Into::into));
    }
}

impl From<Vec<Value>> for Args {
    fn from(values: Vec<Value>) -> Args {
        Args(values)
    }
}

impl<const N: usize> From<[Value; N]> for Args {
    fn from(values: [Value; N]) -> Args {
        Args(values.into())
    }
}
