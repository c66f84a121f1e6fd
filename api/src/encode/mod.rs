//! Encoding: what can be sent on a channel, and the reused buffers it is written to.
//!
//! A message is encoded into a buffer of the sending thread, which [`with_encoded`] lends out. Buffers are kept, so a
//! thread that sends messages of similar size allocates nothing. Encoding runs user code (a hand-written `Serialize`
//! may itself send); each nested message gets a buffer of its own.
//!
//! A large message with long pieces is encoded twice: once to count its bytes, without writing those that are many, and
//! then to where they go. That takes half the time that copying them takes; for one of small pieces, twice the time.

mod encoder;
mod impls;
mod output;
mod scratch;
pub(crate) mod twin;

use std::{cell::Cell, fmt};

use rkyv::rancor::{Source, Trace};

pub use self::encoder::{Encoder, MAX_ARCHIVE};
#[doc(hidden)]
pub use self::{encoder::Sink, output::Bound};
use crate::payload::Payload;

/// What can be sent on a channel that carries `T`: `T` itself, and whatever encodes to the same bytes.
///
/// | channel carries | can be sent |
/// |---|---|
/// | any payload `T` | `T` |
/// | `String` | `str` |
/// | `Vec<T>` | `[T]`, `[T; N]` |
/// | `str` | `String` |
/// | `[P]` | `Vec<P>`, `[P; N]` |
/// | [`Args`](crate::Args) | `[Value]`, `Vec<Value>`, `[Value; N]` |
/// | [`Value`](crate::Value) | `bool`, numbers, `str`, `String`, byte slices |
/// | a message `Tick` | a twin declared with `#[memit::message(as = Tick)]` |
#[diagnostic::on_unimplemented(
    message = "this channel carries `{T}`, not `{Self}`",
    label = "`{Self}` cannot be sent as `{T}`",
    note = "where the two are one type, it is not a message yet: add `#[memit::message]` to it"
)]
pub trait EncodeAs<T: Payload + ?Sized> {
    /// Writes the bytes that a `T` of the same content would give.
    ///
    /// # Errors
    ///
    /// See [`EncodeError`].
    fn encode_as(&self, out: &mut Encoder) -> Result<(), EncodeError>;

    /// The encoded bytes, where `self` already is what would be written.
    #[doc(hidden)]
    #[inline]
    fn encoded(&self) -> Option<&[u8]> {
        None
    }
}

#[diagnostic::do_not_recommend]
impl<T: Payload + ?Sized> EncodeAs<T> for T {
    #[inline]
    fn encode_as(&self, out: &mut Encoder) -> Result<(), EncodeError> {
        self.encode(out)
    }

    #[inline]
    fn encoded(&self) -> Option<&[u8]> {
        Payload::encoded(self)
    }
}

/// Encodes `message` as `T` and hands the bytes to `f`.
///
/// The bytes are one whole payload. They are valid only inside of `f`, and not aligned in any particular way where the
/// message was bytes to begin with.
///
/// ```
/// use memit::encode::with_encoded;
///
/// let length = with_encoded::<String, _, _>("hello, renderer", |bytes| bytes.len())?;
/// assert_eq!(length, 24);
/// # Ok::<(), memit::encode::EncodeError>(())
/// ```
///
/// # Errors
///
/// See [`EncodeError`]; `f` is not called then.
#[inline]
pub fn with_encoded<T, M, O>(message: &M, f: impl FnOnce(&[u8]) -> O) -> Result<O, EncodeError>
where
    T: Payload + ?Sized,
    M: EncodeAs<T> + ?Sized,
{
    if let Some(bytes) = message.encoded() {
        return Ok(f(bytes));
    }
    let mut encoder = take();
    encoder.clear(Bound::NONE);
    if let Err(error) = message.encode_as(&mut encoder) {
        return Err(failed(encoder, error));
    }
    let Some(bytes) = encoder.written() else {
        return Err(failed(encoder, EncodeError::TooLarge { limit: MAX_ARCHIVE }));
    };
    let output = f(bytes);
    // After a panic the encoder is dropped instead: it holds nothing that is missed.
    give_back(encoder);
    Ok(output)
}

#[cold]
fn failed(encoder: Box<Encoder>, error: EncodeError) -> EncodeError {
    give_back(encoder);
    error
}

/// What became of a message that is encoded if it is within a bound.
#[doc(hidden)]
#[derive(Debug, PartialEq, Eq)]
pub enum Encoded<O> {
    /// It is, and this was made of its bytes.
    Whole(O),
    /// It takes so many bytes.
    Sized(usize),
}

/// Encodes `message` as [`with_encoded`] does if it is within `bound`, or bytes to begin with. Otherwise it only finds
/// out how many bytes it takes, for [`encode_to`].
///
/// # Errors
///
/// See [`EncodeError`]; `f` is not called then.
#[doc(hidden)]
#[inline]
pub fn with_encoded_or_sized<T, M, O>(
    message: &M,
    bound: Bound,
    f: impl FnOnce(&[u8]) -> O,
) -> Result<Encoded<O>, EncodeError>
where
    T: Payload + ?Sized,
    M: EncodeAs<T> + ?Sized,
{
    if let Some(bytes) = message.encoded() {
        return Ok(Encoded::Whole(f(bytes)));
    }
    let mut encoder = take();
    encoder.clear(bound);
    if let Err(error) = message.encode_as(&mut encoder) {
        return Err(failed(encoder, error));
    }
    let Some(bytes) = encoder.written() else {
        return Ok(Encoded::Sized(measured(encoder)));
    };
    let output = f(bytes);
    give_back(encoder);
    Ok(Encoded::Whole(output))
}

/// Encodes `message` to `target`, which has the length of its encoding and begins at a multiple of
/// [`MAX_ALIGN`](crate::MAX_ALIGN).
///
/// # Errors
///
/// See [`EncodeError`]. Among them, that it did not take as many bytes as there are: its `Serialize` was written by
/// hand, and does something else each time. The contents of `target` are of no use then.
///
/// # Panics
///
/// If `target` begins elsewhere.
#[doc(hidden)]
pub fn encode_to<T, M>(message: &M, target: &mut [u8]) -> Result<(), EncodeError>
where
    T: Payload + ?Sized,
    M: EncodeAs<T> + ?Sized,
{
    let mut encoder = take();
    let room = target.len();
    let written = encoder.write_to(target, |encoder| message.encode_as(encoder));
    give_back(encoder);
    match written? {
        written if written == room => Ok(()),
        written => Err(unsteady(room, written)),
    }
}

#[cold]
fn measured(encoder: Box<Encoder>) -> usize {
    let len = encoder.len();
    give_back(encoder);
    len
}

#[cold]
fn unsteady(first: usize, then: usize) -> EncodeError {
    EncodeError::Other(format!(
        "it took {first} bytes when it was measured and {then} when it was written; a hand-written Serialize must \
         write the same each time"
    ))
}

thread_local! {
    /// The thread's idle encoders. One in use is taken out, so that nobody meets a message half written.
    static IDLE: Cell<Option<Box<Encoder>>> = const { Cell::new(None) };
}

#[inline]
fn take() -> Box<Encoder> {
    // In a thread that is ending the thread-local may be gone: such a message gets a buffer of its own.
    let taken = IDLE.try_with(|idle| {
        let mut encoder = idle.take()?;
        idle.set(encoder.next.take());
        Some(encoder)
    });
    taken.ok().flatten().unwrap_or_else(new_encoder)
}

#[cold]
#[inline(never)]
fn new_encoder() -> Box<Encoder> {
    Box::new(Encoder::new())
}

#[inline]
fn give_back(mut encoder: Box<Encoder>) {
    encoder.settle();
    // Without a thread-local the closure is dropped, and the encoder with it.
    let _ = IDLE.try_with(|idle| {
        encoder.next = idle.take();
        idle.set(Some(encoder));
    });
}

/// Why a message could not be encoded. Nothing was sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// The archive would be longer than its 32-bit offsets reach.
    #[error("the message takes more than the {limit} bytes that an archive may have; send it in pieces")]
    TooLarge {
        /// [`MAX_ARCHIVE`].
        limit: usize,
    },
    /// The message nests too deep; the receiver would refuse it.
    #[error("the message nests deeper than the {limit} levels that its receiver takes; send it flatter")]
    TooDeep {
        /// [`MAX_DEPTH`](crate::MAX_DEPTH), or for a dynamic value [`MAX_NESTING`](crate::value::MAX_NESTING).
        limit: u32,
    },
    /// The dynamic values of the message are too many; the receiver would refuse it.
    #[error("the message holds more than {limit} dynamic values; use a typed channel, or send it in pieces")]
    TooManyNodes {
        /// [`MAX_NODES`](crate::value::MAX_NODES).
        limit: u32,
    },
    /// No memory for the scratch space.
    #[error("no memory for {bytes} bytes of scratch space while encoding the message")]
    OutOfMemory {
        /// Size of the failed allocation.
        bytes: usize,
    },
    /// A hand-written `Serialize` failed.
    #[error("the message could not be encoded: {0}")]
    Other(String),
}

impl Trace for EncodeError {
    fn trace<R>(self, _: R) -> Self
    where
        R: fmt::Debug + fmt::Display + Send + Sync + 'static,
    {
        self
    }
}

impl Source for EncodeError {
    fn new<T: std::error::Error + Send + Sync + 'static>(source: T) -> Self {
        EncodeError::Other(source.to_string())
    }
}
