//! Sending to one peer.

use std::{
    any::TypeId,
    fmt,
    marker::PhantomData,
    mem,
    sync::Arc,
    time::{Duration, Instant},
};

use memit_engine::{Announced, Link, Patience};

use crate::{
    CallError, ChannelError, EncodeAs, IntoChannel, Peer, Reply, SendError,
    emitter::table::Signature,
    encode,
    outgoing::{Outgoing, Outlet},
    reply::Buffer,
};

/// Sends messages and calls to one peer.
///
/// Clones are cheap and any thread may use one. A sender does not keep its endpoint alive: when the endpoint or the
/// peer ends, every operation reports [`SendError::Disconnected`]. So a listener may own senders freely.
///
/// Messages that one thread sends arrive in the order in which it sent them, calls among them.
///
/// In a child that this process made by `fork`, every operation reports [`SendError::Forked`].
#[derive(Clone)]
pub struct Sender {
    link: Arc<Link>,
    outgoing: Arc<Outgoing>,
}

impl Sender {
    pub(crate) fn new(link: Arc<Link>, outgoing: Arc<Outgoing>) -> Self {
        Self { link, outgoing }
    }

    /// Sends `message` on `channel`. It does not wait for the peer to have read it.
    ///
    /// Without space in the ring it waits until the peer has made some; the thread that dispatches this endpoint never
    /// waits: its messages go to a queue whose bound is [`backlog_limit`](crate::Builder::backlog_limit), and past that
    /// the send is [`SendError::Full`].
    pub fn send<C, M>(&self, channel: C, message: &M) -> Result<(), SendError>
    where
        C: IntoChannel,
        M: EncodeAs<C::Message> + ?Sized,
    {
        self.send_by(channel, message, Patience::ByPolicy)
    }

    /// Sends `message` if there is space now, and reports [`SendError::Full`] otherwise.
    ///
    /// On the thread that dispatches this endpoint it is [`send`](Self::send): without space in the ring the message
    /// goes to the queue, and only without space there it is `Full`.
    pub fn try_send<C, M>(&self, channel: C, message: &M) -> Result<(), SendError>
    where
        C: IntoChannel,
        M: EncodeAs<C::Message> + ?Sized,
    {
        self.send_by(channel, message, Patience::Now)
    }

    /// Sends `message` as soon as there is space, and reports [`SendError::Timeout`] if there is none within `timeout`.
    ///
    /// On the thread that dispatches this endpoint it is [`send`](Self::send), which does not wait there.
    pub fn send_timeout<C, M>(&self, channel: C, message: &M, timeout: Duration) -> Result<(), SendError>
    where
        C: IntoChannel,
        M: EncodeAs<C::Message> + ?Sized,
    {
        self.send_by(channel, message, until(timeout).map_or(Patience::ByPolicy, Patience::Until))
    }

    /// Calls the listeners on `channel` at the peer and waits for the value that one of them sets.
    ///
    /// The call always ends: with the value, or with the [`CallError`] that says why there is none. A peer that neither
    /// dispatches nor ends makes it wait; see [`send_sync_timeout`](Self::send_sync_timeout).
    pub fn send_sync<C, M>(&self, channel: C, message: &M) -> Result<Reply<C::Return>, CallError>
    where
        C: IntoChannel,
        M: EncodeAs<C::Message> + ?Sized,
    {
        self.call_by(channel, message, None)
    }

    /// Calls like [`send_sync`](Self::send_sync), and reports [`CallError::Timeout`] if no answer came within
    /// `timeout`.
    pub fn send_sync_timeout<C, M>(
        &self,
        channel: C,
        message: &M,
        timeout: Duration,
    ) -> Result<Reply<C::Return>, CallError>
    where
        C: IntoChannel,
        M: EncodeAs<C::Message> + ?Sized,
    {
        self.call_by(channel, message, until(timeout))
    }

    /// Who is at the other end.
    pub fn peer(&self) -> Peer {
        Peer::of(&self.link)
    }

    /// Whether the connection still stands. It may end at any moment, so this is for information.
    pub fn is_connected(&self) -> bool {
        self.link.is_connected()
    }

    /// The longest encoding, in bytes, that a message to this peer may have.
    pub fn max_message(&self) -> usize {
        self.link.max_payload()
    }

    pub(crate) fn link(&self) -> &Arc<Link> {
        &self.link
    }

    fn send_by<C, M>(&self, channel: C, message: &M, patience: Patience) -> Result<(), SendError>
    where
        C: IntoChannel,
        M: EncodeAs<C::Message> + ?Sized,
    {
        if self.link.is_forked() {
            return Err(SendError::Forked);
        }
        encode::with_encoded::<C::Message, M, _>(message, |bytes| {
            let outlet = outlet(&self.outgoing, &channel)?;
            deliver(&self.link, outlet, bytes, patience)
        })?
    }

    fn call_by<C, M>(&self, channel: C, message: &M, deadline: Option<Instant>) -> Result<Reply<C::Return>, CallError>
    where
        C: IntoChannel,
        M: EncodeAs<C::Message> + ?Sized,
    {
        if self.link.is_forked() {
            return Err(CallError::Forked);
        }
        let mut reply = Buffer::take();
        encode::with_encoded::<C::Message, M, _>(message, |bytes| {
            let outlet = outlet(&self.outgoing, &channel)?;
            announce(&self.link, outlet, deadline.map_or(Patience::ByPolicy, Patience::Until))?;
            self.link.call(outlet.id, bytes, deadline, reply.bytes_mut())?;
            Ok::<_, CallError>(())
        })??;
        Reply::new(reply, &self.link)
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        if self.link.is_forked() {
            // Threads of the parent may have left anything behind these half done.
            mem::forget((Arc::clone(&self.link), Arc::clone(&self.outgoing)));
        }
    }
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").field("peer", &self.peer()).field("connected", &self.is_connected()).finish()
    }
}

/// What `channel` is sent as: its number and schemas.
#[inline]
pub(crate) fn outlet<'o, C: IntoChannel>(outgoing: &'o Outgoing, channel: &C) -> Result<&'o Outlet, ChannelError> {
    outgoing.outlet(channel.key(), channel.name(), types::<C>(), Signature::of::<C>)
}

/// Sends an encoded message, its announcement before it if the peer has not had it yet.
#[inline]
pub(crate) fn deliver(link: &Link, outlet: &Outlet, bytes: &[u8], patience: Patience) -> Result<(), SendError> {
    announce(link, outlet, patience)?;
    Ok(link.send(outlet.id, bytes, patience)?)
}

#[inline]
fn announce(link: &Link, outlet: &Outlet, patience: Patience) -> Result<(), SendError> {
    if link.is_announced(outlet.id) {
        return Ok(());
    }
    let Outlet { id, name, signature, .. } = outlet;
    let announced =
        Announced { channel: *id, name, message: &signature.message, reply: &signature.reply, error: &signature.error };
    Ok(link.announce(&announced, patience)?)
}

/// One id for the three types of a channel, whatever its name.
#[inline]
fn types<C: IntoChannel>() -> TypeId {
    TypeId::of::<(PhantomData<C::Message>, PhantomData<C::Return>, PhantomData<C::Error>)>()
}

/// The end of a wait that begins now; `None` if that is beyond what the clock can show.
fn until(timeout: Duration) -> Option<Instant> {
    Instant::now().checked_add(timeout)
}
