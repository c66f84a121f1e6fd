//! What a listener is told besides the message, and what it can do with it.

use std::{
    any::TypeId,
    cell::{Cell, OnceCell},
    fmt,
    marker::PhantomData,
    sync::Arc,
};

use memit_engine::{CallToken, Incoming, Kept, Link, ReplyStatus};

use crate::{
    Emitter, EncodeAs, EncodeError, Failure, IntoChannel, InvalidPayload, Payload, Peer, Retained, ReturnError,
    SendError, Sender,
    emitter::dispatch::Logged,
    encode::{self, Encoded},
    way::{COPIED, lend},
};

/// One message on its way through the listeners.
///
/// `T` is the channel's message, `R` its return value, `E` its error.
pub struct Event<'e, T: ?Sized, R: ?Sized = (), E = Failure> {
    delivery: &'e Delivery<'e>,
    types: PhantomData<Types<T, R, E>>,
}

type Types<T, R, E> = fn() -> (*const T, *const R, *const E);

impl<'e, T, R, E> Event<'e, T, R, E>
where
    T: Payload + ?Sized,
    R: Payload + ?Sized,
{
    /// # Safety
    ///
    /// `delivery.view::<T>()` was `Ok`.
    #[allow(unsafe_code)]
    pub(crate) unsafe fn new(delivery: &'e Delivery<'e>) -> Self {
        Self { delivery, types: PhantomData }
    }

    /// The way back to the peer that sent this message. Clone it to keep it.
    pub fn sender(&self) -> &'e Sender {
        self.delivery.sender
    }

    /// Sends `message` to the peer that sent this one: short for `event.sender().send(channel, message)`.
    pub fn reply<C, M>(&self, channel: C, message: &M) -> Result<(), SendError>
    where
        C: IntoChannel,
        M: EncodeAs<C::Message> + ?Sized,
    {
        self.sender().send(channel, message)
    }

    /// Answers the peer's `send_sync` at once. The first value that a listener sets is the answer; later ones do
    /// nothing.
    ///
    /// It does nothing either for a message that was merely sent, and for a caller that no longer waits, so a listener
    /// need not tell them apart.
    pub fn set_return_value<M>(&mut self, value: &M) -> Result<(), ReturnError>
    where
        M: EncodeAs<R> + ?Sized,
    {
        let Some(call) = self.delivery.call else { return Ok(()) };
        if call.answered.get() {
            return Ok(());
        }
        let link = self.delivery.sender.link();
        link.prefetch_reply(call.token);
        let returned = encode::with_encoded_or_sized::<R, M, _>(value, COPIED, |bytes| {
            link.reply(call.token, ReplyStatus::Value, bytes).map_err(ReturnError::of)
        })?;
        let returned = match returned {
            Encoded::Whole(returned) => returned,
            Encoded::Sized(len) => return_large::<R, M>(link, call.token, value, len)?,
        };
        // Whatever came of it, the caller knows, or waits no more.
        call.answered.set(true);
        returned.or_else(|error| error.map_or(Ok(()), Err))
    }

    /// Keeps the message beyond the listener, without copying it where it lies in shared memory.
    ///
    /// What is kept holds up no other message. A large one stays where its sender wrote it until the last [`Retained`]
    /// of it is dropped, and counts against [`arena_limit`](crate::Builder::arena_limit) meanwhile. Listeners that
    /// retain one message share it.
    #[allow(unsafe_code)]
    pub fn retain(&self) -> Retained<T> {
        let kept = self.delivery.kept.get_or_init(|| self.delivery.message.keep());
        // SAFETY: an event of a `T` is made in one place, for a listener whose message `Delivery::view` has just
        // accepted as a `T`. What is kept are the same bytes, aligned as they were.
        unsafe { Retained::new(kept.clone()) }
    }

    /// Whether the peer waits for a return value.
    pub fn is_call(&self) -> bool {
        self.delivery.call.is_some()
    }

    /// Who sent the message.
    pub fn peer(&self) -> Peer {
        self.delivery.sender.peer()
    }

    /// The name of the channel on which the message came.
    pub fn channel(&self) -> &'e str {
        self.delivery.channel
    }

    /// The endpoint's listeners, to add or remove some. Changes count from the next message on.
    pub fn emitter(&self) -> &'e Emitter {
        self.delivery.emitter
    }
}

impl<T: ?Sized, R: ?Sized, E> fmt::Debug for Event<'_, T, R, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Event")
            .field("channel", &self.delivery.channel)
            .field("sender", &self.delivery.sender)
            .field("call", &self.delivery.call.is_some())
            .finish()
    }
}

/// Answers with a value whose encoding takes `len` bytes. The error within, if it is one to the listener, is one that the
/// caller was told.
#[cold]
#[inline(never)]
fn return_large<R, M>(
    link: &Link,
    call: CallToken,
    value: &M,
    len: usize,
) -> Result<Result<(), Option<ReturnError>>, EncodeError>
where
    R: Payload + ?Sized,
    M: EncodeAs<R> + ?Sized,
{
    if let Some(loan) = lend(link, value, len)? {
        return Ok(link.reply_loan(call, loan).map_err(ReturnError::of));
    }
    encode::with_encoded(value, |bytes| link.reply(call, ReplyStatus::Value, bytes).map_err(ReturnError::of))
}

/// One message, whatever its types: what all its listeners share.
pub(crate) struct Delivery<'d> {
    pub(crate) sender: &'d Sender,
    pub(crate) emitter: &'d Emitter,
    pub(crate) channel: &'d Arc<str>,
    pub(crate) message: &'d Incoming<'d>,
    /// What listeners retain.
    pub(crate) kept: OnceCell<Kept>,
    pub(crate) call: Option<&'d Call>,
    pub(crate) logged: &'d Logged,
    /// The type as which the bytes have been validated.
    pub(crate) valid_as: Cell<Option<TypeId>>,
}

/// A peer that waits for a return value.
pub(crate) struct Call {
    pub(crate) token: CallToken,
    pub(crate) answered: Cell<bool>,
    /// What the first listener that failed says.
    pub(crate) failure: OnceCell<String>,
}

impl Call {
    pub(crate) fn new(token: CallToken) -> Self {
        Self { token, answered: Cell::new(false), failure: OnceCell::new() }
    }
}

impl Delivery<'_> {
    /// The message as a `T`; validated for the first of the listeners that share that type.
    #[allow(unsafe_code)]
    #[inline]
    pub(crate) fn view<T: Payload + ?Sized>(&self) -> Result<&T::View, InvalidPayload> {
        let id = TypeId::of::<T>();
        if self.valid_as.get() == Some(id) {
            // SAFETY: `valid_as` is set below only, after `T::view` accepted these very bytes as this very type. They
            // are either private to this process, borrowed for as long as this delivery lives, or, under full trust,
            // promised not to change for as long.
            return Ok(unsafe { T::view_unchecked(self.message.bytes) });
        }
        let view = T::view(self.message.bytes)?;
        self.valid_as.set(Some(id));
        Ok(view)
    }
}
