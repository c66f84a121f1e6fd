//! What is its own archive: numbers, and structs of numbers without padding.

use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::MAX_ALIGN;
use crate::schema::Schema;

/// What a slice payload can hold: a number, or a message declared with `#[memit::message(plain)]`.
///
/// Any bytes are one, and it has the same bytes everywhere. Such a slice travels as it lies in memory: it is neither
/// encoded, nor looked at when it arrives.
#[diagnostic::on_unimplemented(
    message = "a slice of `{Self}` cannot be sent as it is",
    label = "only slices of plain numbers and plain messages can",
    note = "plain numbers are u8 to u64, i8 to i64, f32 and f64, a plain message is a `Copy` struct with \
            `#[memit::message(plain)]`; send a `Vec` of anything else"
)]
pub trait Plain: FromBytes + IntoBytes + Immutable + Copy + Schema + Part {}

/// What a plain message is made of, whose form in memory is that of its archive.
#[doc(hidden)]
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be part of a plain message",
    label = "not a plain number",
    note = "a plain message is made of u8 to u128, i8 to i128, f32, f64, arrays of them and other plain messages"
)]
pub trait Part {}

/// Stops the compiler at a plain type that the bytes of a message are not aligned for.
///
/// The attribute does the same where such a type is declared; this is for one that was made by hand.
///
/// ```compile_fail,E0080
/// use memit::{Plain, Payload, Schema, payload::plain::Part, schema::Describe, zerocopy};
///
/// #[derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, Clone, Copy)]
/// #[zerocopy(crate = "memit::zerocopy")]
/// #[repr(C, align(32))]
/// struct Wide([u8; 32]);
///
/// impl Schema for Wide {
///     fn describe(d: &mut Describe) {
///         <[u8; 32]>::describe(d);
///     }
/// }
/// impl Part for Wide {}
/// impl Plain for Wide {}
///
/// let _ = <[Wide]>::view(&[0; 64]);
/// ```
#[inline(always)]
pub(crate) const fn assert_aligned<P>() {
    const { assert!(align_of::<P>() <= MAX_ALIGN, "a plain message's alignment is at most 16") };
}

macro_rules! numbers {
    ($($number:ty)+) => {$(
        impl Part for $number {}
        impl Plain for $number {}
    )+};
}

numbers! { u8 u16 u32 u64 i8 i16 i32 i64 f32 f64 }

impl Part for u128 {}
impl Part for i128 {}
impl<T: Part, const N: usize> Part for [T; N] {}

/// Makes a struct its own archive. Its derived `FromBytes` says that any bytes are one, `IntoBytes` that it has no
/// padding, `Immutable` that nothing in it changes behind a reference, and its parts are [`Part`]s.
#[doc(hidden)]
#[macro_export]
macro_rules! __plain_message {
    ($memit:path, $message:ident, [$($part:ty),* $(,)?]) => {
        const _: () = {
            use $memit as __memit;
            use __memit::rkyv as __rkyv;

            const fn is_a_part<T: __memit::payload::plain::Part>() {}
            $(is_a_part::<$part>();)*

            assert!(
                ::core::mem::align_of::<$message>() <= __memit::MAX_ALIGN,
                "a plain message's alignment is at most 16, which is what the bytes of a message have"
            );

            impl __memit::payload::plain::Part for $message {}
            impl __memit::Plain for $message {}

            // SAFETY: `IntoBytes` asks for a layout that the language fixes, and its parts are numbers whose bytes
            // are the same on every target that memit supports.
            unsafe impl __rkyv::Portable for $message {}

            // SAFETY: `IntoBytes` rules out padding.
            unsafe impl __rkyv::traits::NoUndef for $message {}

            impl __rkyv::Archive for $message {
                type Archived = Self;
                type Resolver = ();

                // SAFETY: `IntoBytes` rules out padding.
                const COPY_OPTIMIZATION: __rkyv::traits::CopyOptimization<Self> =
                    unsafe { __rkyv::traits::CopyOptimization::enable() };

                #[inline]
                fn resolve(&self, (): (), place: __rkyv::Place<Self>) {
                    place.write(*self);
                }
            }

            impl<S: __rkyv::rancor::Fallible + ?Sized> __rkyv::Serialize<S> for $message {
                #[inline]
                fn serialize(&self, _: &mut S) -> ::core::result::Result<(), S::Error> {
                    ::core::result::Result::Ok(())
                }
            }

            impl<D: __rkyv::rancor::Fallible + ?Sized> __rkyv::Deserialize<Self, D> for $message {
                #[inline]
                fn deserialize(&self, _: &mut D) -> ::core::result::Result<Self, D::Error> {
                    ::core::result::Result::Ok(*self)
                }
            }

            // SAFETY: by `FromBytes`, any bytes are valid.
            unsafe impl<C: __rkyv::rancor::Fallible + ?Sized> __rkyv::bytecheck::CheckBytes<C> for $message {
                #[inline]
                unsafe fn check_bytes(_: *const Self, _: &mut C) -> ::core::result::Result<(), C::Error> {
                    ::core::result::Result::Ok(())
                }
            }
        };
    };
}
