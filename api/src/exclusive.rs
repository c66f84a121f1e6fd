//! One thread's sole way to a peer.

use std::{fmt, marker::PhantomData, time::Duration};

use memit_engine::Patience;

use crate::{
    EncodeAs, IntoChannel, Payload, SendError,
    outgoing::Outgoing,
    sender::{outlet, until},
    way::{Way, send},
};

/// Sole use of the way to one peer, for a stream of messages: from [`Sender::exclusive`](crate::Sender::exclusive) until
/// it is dropped.
///
/// A message costs less than by the [`Sender`](crate::Sender), whose threads have to agree on each one's place, and no
/// other thread's message comes between. Everything else is the same: order, space, large messages, and what the peer
/// sees.
///
/// Meanwhile other threads that send to this peer, or call it, wait as they wait for space. What the thread that
/// dispatches sends is queued, and goes out before the guard's next message, or when the guard is dropped. So hold it for
/// a burst, and not while waiting for anybody. What this very thread sends to this peer past its guard, or calls, is
/// [`WouldDeadlock`](SendError::WouldDeadlock).
///
/// It stays on its thread. A guard that is leaked keeps everybody else out until the connection ends.
///
/// ```
/// use memit::{Channel, IpcMain, IpcRenderer};
///
/// const SAMPLE: Channel<u64> = Channel::new("sample");
/// const DONE: Channel<str> = Channel::new("done");
///
/// # let app = format!("exclusive-{}", std::process::id());
/// let main = IpcMain::bind(&app)?;
/// let (heard, samples) = std::sync::mpsc::channel();
/// main.on(SAMPLE, move |_, sample| heard.send(sample.to_native()));
/// let renderer = IpcRenderer::connect(&app)?;
///
/// let mut guard = renderer.exclusive()?;
/// for sample in 0..1000 {
///     guard.send(SAMPLE, &sample)?;
/// }
/// guard.send(DONE, "with the samples")?;
/// drop(guard); // the others' turn
/// # let mut all = Vec::new();
/// # while all.len() < 1000 {
/// #     main.run_once(std::time::Duration::from_secs(5))?;
/// #     all.extend(samples.try_iter());
/// # }
/// # assert!(all.iter().copied().eq(0..1000));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// It cannot go to another thread:
/// ```compile_fail,E0277
/// # fn check(guard: memit::Exclusive<'_>) {
/// std::thread::scope(|scope| scope.spawn(|| drop(guard)));
/// # }
/// ```
#[must_use = "dropping the guard lets the other threads in again"]
pub struct Exclusive<'s> {
    guard: memit_engine::Exclusive<'s>,
    outgoing: &'s Outgoing,
}

impl<'s> Exclusive<'s> {
    pub(crate) fn new(guard: memit_engine::Exclusive<'s>, outgoing: &'s Outgoing) -> Self {
        Self { guard, outgoing }
    }

    /// Sends `message` on `channel`; see [`Sender::send`](crate::Sender::send).
    #[inline]
    pub fn send<C, M>(&mut self, channel: C, message: &M) -> Result<(), SendError>
    where
        C: IntoChannel,
        M: EncodeAs<C::Message> + ?Sized,
    {
        self.send_by(channel, message, Patience::ByPolicy)
    }

    /// Sends `message` if there is space now; see [`Sender::try_send`](crate::Sender::try_send).
    #[inline]
    pub fn try_send<C, M>(&mut self, channel: C, message: &M) -> Result<(), SendError>
    where
        C: IntoChannel,
        M: EncodeAs<C::Message> + ?Sized,
    {
        self.send_by(channel, message, Patience::Now)
    }

    /// Sends `message` as soon as there is space, within `timeout`; see
    /// [`Sender::send_timeout`](crate::Sender::send_timeout).
    pub fn send_timeout<C, M>(&mut self, channel: C, message: &M, timeout: Duration) -> Result<(), SendError>
    where
        C: IntoChannel,
        M: EncodeAs<C::Message> + ?Sized,
    {
        self.send_by(channel, message, until(timeout).map_or(Patience::ByPolicy, Patience::Until))
    }

    #[inline]
    fn send_by<C, M>(&mut self, channel: C, message: &M, patience: Patience) -> Result<(), SendError>
    where
        C: IntoChannel,
        M: EncodeAs<C::Message> + ?Sized,
    {
        if self.guard.link().is_forked() {
            return Err(SendError::Forked);
        }
        let outgoing = self.outgoing;
        send::<C::Message, M, _>(&mut self.guard, message, patience, |guard| {
            let outlet = outlet(outgoing, &channel)?;
            Way::announce(guard, outlet, patience)?;
            Ok(outlet.id)
        })
    }
}

impl fmt::Debug for Exclusive<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exclusive").field("peer", &crate::Peer::of(self.guard.link())).finish_non_exhaustive()
    }
}

/// An [`Exclusive`] guard that sends on one channel, from
/// [`ChannelSender::exclusive`](crate::ChannelSender::exclusive): the cheapest way to send a stream of messages.
#[must_use = "dropping the guard lets the other threads in again"]
pub struct ChannelExclusive<'s, T: ?Sized> {
    guard: memit_engine::Exclusive<'s>,
    id: u16,
    message: PhantomData<fn(&T)>,
}

impl<'s, T: Payload + ?Sized> ChannelExclusive<'s, T> {
    pub(crate) fn new(guard: memit_engine::Exclusive<'s>, id: u16) -> Self {
        Self { guard, id, message: PhantomData }
    }

    /// Sends `message`; see [`Sender::send`](crate::Sender::send).
    #[inline]
    pub fn send<M: EncodeAs<T> + ?Sized>(&mut self, message: &M) -> Result<(), SendError> {
        self.send_by(message, Patience::ByPolicy)
    }

    /// Sends `message` if there is space now; see [`Sender::try_send`](crate::Sender::try_send).
    #[inline]
    pub fn try_send<M: EncodeAs<T> + ?Sized>(&mut self, message: &M) -> Result<(), SendError> {
        self.send_by(message, Patience::Now)
    }

    /// Sends `message` as soon as there is space, within `timeout`; see
    /// [`Sender::send_timeout`](crate::Sender::send_timeout).
    pub fn send_timeout<M: EncodeAs<T> + ?Sized>(&mut self, message: &M, timeout: Duration) -> Result<(), SendError> {
        self.send_by(message, until(timeout).map_or(Patience::ByPolicy, Patience::Until))
    }

    #[inline]
    fn send_by<M: EncodeAs<T> + ?Sized>(&mut self, message: &M, patience: Patience) -> Result<(), SendError> {
        let id = self.id;
        send::<T, M, _>(&mut self.guard, message, patience, |_| Ok(id))
    }
}

impl<T: ?Sized> fmt::Debug for ChannelExclusive<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let peer = crate::Peer::of(self.guard.link());
        f.debug_struct("ChannelExclusive").field("peer", &peer).finish_non_exhaustive()
    }
}
