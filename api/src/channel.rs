//! Names of channels, with what travels on them.

use std::{fmt, marker::PhantomData};

use crate::{
    failure::Failure,
    message::Message,
    payload::Payload,
    schema::hash,
    value::{Args, Value},
};

/// A channel: a name, the message it carries, what a listener may return for it, and how a handler may fail.
///
/// Both sides declare it alike; what they declare is compared when they meet.
///
/// ```
/// use memit::Channel;
///
/// const LINES: Channel<str> = Channel::new("lines");
/// const ADD: Channel<(i32, i32), i32> = Channel::new("add");
/// # let _ = (LINES, ADD);
/// ```
pub struct Channel<T: ?Sized, R: ?Sized = (), E = Failure> {
    name: &'static str,
    key: u64,
    types: Types<T, R, E>,
}

type Types<T, R, E> = PhantomData<fn() -> (*const T, *const R, *const E)>;

impl<T: ?Sized, R: ?Sized, E> Channel<T, R, E> {
    /// Names a channel.
    #[must_use]
    pub const fn new(name: &'static str) -> Self {
        Channel { name, key: hash(name.as_bytes()), types: PhantomData }
    }

    /// The name.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// The hash of the name, computed at compile time in a constant.
    #[must_use]
    pub const fn key(&self) -> u64 {
        self.key
    }
}

impl<T: ?Sized, R: ?Sized, E> Clone for Channel<T, R, E> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T: ?Sized, R: ?Sized, E> Copy for Channel<T, R, E> {}

impl<T: ?Sized, R: ?Sized, E> fmt::Debug for Channel<T, R, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Channel").field(&self.name).finish()
    }
}

/// What names a channel: a [`Channel`], or a `&str` for a channel of dynamic values, `Channel<Args, Value>`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not name a channel",
    label = "expected a `Channel` or a `&str`"
)]
pub trait IntoChannel: sealed::Sealed {
    /// What it carries.
    type Message: Payload + ?Sized;
    /// What a listener may return.
    type Return: Payload + ?Sized;
    /// How a handler may fail.
    type Error: Message;

    /// The name.
    fn name(&self) -> &str;

    /// The hash of the name.
    fn key(&self) -> u64 {
        hash(self.name().as_bytes())
    }
}

mod sealed {
    pub trait Sealed {}
    impl<T: ?Sized, R: ?Sized, E> Sealed for super::Channel<T, R, E> {}
    impl Sealed for &str {}
}

impl<T: Payload + ?Sized, R: Payload + ?Sized, E: Message> IntoChannel for Channel<T, R, E> {
    type Message = T;
    type Return = R;
    type Error = E;

    #[inline]
    fn name(&self) -> &str {
        self.name
    }

    #[inline]
    fn key(&self) -> u64 {
        self.key
    }
}

impl IntoChannel for &str {
    type Message = Args;
    type Return = Value;
    type Error = Failure;

    #[inline]
    fn name(&self) -> &str {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_str_channel_and_a_typed_channel_of_one_name_have_one_key() {
        const LOG: Channel<str> = Channel::new("log");
        assert_eq!(LOG.key(), IntoChannel::key(&"log"));
        assert_ne!(LOG.key(), IntoChannel::key(&"lag"));
    }

    #[test]
    fn a_channel_is_copy_send_and_sync_whatever_it_carries() {
        fn assert<T: Copy + Send + Sync>(_: T) {}
        assert(Channel::<str, [u8], std::rc::Rc<u8>>::new("x"));
    }
}
