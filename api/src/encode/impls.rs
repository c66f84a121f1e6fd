//! Borrowed and converted sends.

use rkyv::Archive;

use super::{EncodeAs, EncodeError, Encoder, Sink, twin::BorrowedAs};
use crate::{
    payload::{Payload, Plain},
    value::{Args, Value},
};

impl EncodeAs<String> for str {
    #[inline]
    fn encode_as(&self, out: &mut Encoder) -> Result<(), EncodeError> {
        out.archive_as::<String, str>(self)
    }
}

impl EncodeAs<str> for String {
    #[inline]
    fn encode_as(&self, out: &mut Encoder) -> Result<(), EncodeError> {
        out.bytes(self.as_bytes())
    }

    #[inline]
    fn encoded(&self) -> Option<&[u8]> {
        Some(self.as_bytes())
    }
}

impl<U: BorrowedAs<T>, T: Archive> EncodeAs<Vec<T>> for [U]
where
    Vec<T>: Payload,
{
    #[inline]
    fn encode_as(&self, out: &mut Encoder) -> Result<(), EncodeError> {
        out.archive_as::<Vec<T>, [U]>(self)
    }
}

impl<U: BorrowedAs<T>, T: Archive, const N: usize> EncodeAs<Vec<T>> for [U; N]
where
    Vec<T>: Payload,
{
    #[inline]
    fn encode_as(&self, out: &mut Encoder) -> Result<(), EncodeError> {
        self.as_slice().encode_as(out)
    }
}

impl<P: Plain> EncodeAs<[P]> for Vec<P> {
    #[inline]
    fn encode_as(&self, out: &mut Encoder) -> Result<(), EncodeError> {
        self.as_slice().encode(out)
    }

    #[inline]
    fn encoded(&self) -> Option<&[u8]> {
        Payload::encoded(self.as_slice())
    }
}

impl<P: Plain, const N: usize> EncodeAs<[P]> for [P; N] {
    #[inline]
    fn encode_as(&self, out: &mut Encoder) -> Result<(), EncodeError> {
        self.as_slice().encode(out)
    }

    #[inline]
    fn encoded(&self) -> Option<&[u8]> {
        Payload::encoded(self.as_slice())
    }
}

impl EncodeAs<Args> for [Value] {
    fn encode_as(&self, out: &mut Encoder) -> Result<(), EncodeError> {
        // An `Args` archives as the one vector in it.
        out.enter(self.len())?;
        out.archive_as::<Vec<Value>, [Value]>(self)?;
        out.leave();
        Ok(())
    }
}

impl EncodeAs<Args> for Vec<Value> {
    fn encode_as(&self, out: &mut Encoder) -> Result<(), EncodeError> {
        EncodeAs::<Args>::encode_as(self.as_slice(), out)
    }
}

impl<const N: usize> EncodeAs<Args> for [Value; N] {
    fn encode_as(&self, out: &mut Encoder) -> Result<(), EncodeError> {
        EncodeAs::<Args>::encode_as(self.as_slice(), out)
    }
}

macro_rules! into_value {
    ($($type:ty)+) => {$(
        impl EncodeAs<Value> for $type {
            fn encode_as(&self, out: &mut Encoder) -> Result<(), EncodeError> {
                Value::from(self.clone()).encode(out)
            }
        }
    )+};
}

into_value! { () bool u8 u16 u32 u64 usize i8 i16 i32 i64 isize f32 f64 String Vec<u8> Vec<Value> Args }

impl EncodeAs<Value> for str {
    fn encode_as(&self, out: &mut Encoder) -> Result<(), EncodeError> {
        Value::from(self).encode(out)
    }
}

impl EncodeAs<Value> for [u8] {
    fn encode_as(&self, out: &mut Encoder) -> Result<(), EncodeError> {
        Value::from(self).encode(out)
    }
}

impl EncodeAs<Value> for [Value] {
    fn encode_as(&self, out: &mut Encoder) -> Result<(), EncodeError> {
        Value::Array(self.to_vec()).encode(out)
    }
}
