//! Sending to one peer on one channel.

use std::{fmt, marker::PhantomData, time::Duration};

use memit_engine::Patience;

use crate::{
    EncodeAs, Payload, SendError, Sender, error::ExclusiveError, exclusive::ChannelExclusive, sender::until, way::send,
};

/// Sends to one peer on one channel, which was looked up and announced to the peer by [`Sender::to`].
///
/// Like the [`Sender`] that it came from: clones are cheap, any thread may use one, and it does not keep its endpoint
/// alive.
///
/// ```
/// use memit::{Channel, IpcMain, IpcRenderer};
///
/// const SAMPLE: Channel<u64> = Channel::new("sample");
///
/// # let app = format!("channel-sender-{}", std::process::id());
/// let main = IpcMain::bind(&app)?;
/// let (heard, samples) = std::sync::mpsc::channel();
/// main.on(SAMPLE, move |_, sample| heard.send(sample.to_native()));
/// let renderer = IpcRenderer::connect(&app)?;
///
/// let sampled = renderer.to(SAMPLE)?;
/// sampled.send(&1)?;
/// let mut burst = sampled.exclusive()?; // other threads' messages come before the burst, or behind it
/// for sample in 2..=100 {
///     burst.send(&sample)?;
/// }
/// # drop(burst);
/// # let mut all = Vec::new();
/// # while all.len() < 100 {
/// #     main.run_once(std::time::Duration::from_secs(5))?;
/// #     all.extend(samples.try_iter());
/// # }
/// # assert!(all.iter().copied().eq(1..=100));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct ChannelSender<T: ?Sized> {
    sender: Sender,
    id: u16,
    message: PhantomData<fn(&T)>,
}

impl<T: Payload + ?Sized> ChannelSender<T> {
    /// `id` is the number of a channel that carries `T` and was announced to the peer.
    pub(crate) fn new(sender: Sender, id: u16) -> Self {
        Self { sender, id, message: PhantomData }
    }

    /// Sends `message`; see [`Sender::send`].
    #[inline]
    pub fn send<M: EncodeAs<T> + ?Sized>(&self, message: &M) -> Result<(), SendError> {
        self.send_by(message, Patience::ByPolicy)
    }

    /// Sends `message` if there is space now; see [`Sender::try_send`].
    #[inline]
    pub fn try_send<M: EncodeAs<T> + ?Sized>(&self, message: &M) -> Result<(), SendError> {
        self.send_by(message, Patience::Now)
    }

    /// Sends `message` as soon as there is space, within `timeout`; see [`Sender::send_timeout`].
    pub fn send_timeout<M: EncodeAs<T> + ?Sized>(&self, message: &M, timeout: Duration) -> Result<(), SendError> {
        self.send_by(message, until(timeout).map_or(Patience::ByPolicy, Patience::Until))
    }

    /// Takes the way to the peer for this thread alone, to send on this channel; see [`Sender::exclusive`].
    pub fn exclusive(&self) -> Result<ChannelExclusive<'_, T>, ExclusiveError> {
        Ok(ChannelExclusive::new(self.sender.link().exclusive()?, self.id))
    }

    /// The way to the same peer on all channels.
    pub fn sender(&self) -> &Sender {
        &self.sender
    }

    #[inline]
    fn send_by<M: EncodeAs<T> + ?Sized>(&self, message: &M, patience: Patience) -> Result<(), SendError> {
        send::<T, M, _>(&mut &**self.sender.link(), message, patience, |_| Ok(self.id))
    }
}

impl<T: ?Sized> Clone for ChannelSender<T> {
    fn clone(&self) -> Self {
        Self { sender: self.sender.clone(), id: self.id, message: PhantomData }
    }
}

impl<T: ?Sized> fmt::Debug for ChannelSender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChannelSender").field("sender", &self.sender).finish_non_exhaustive()
    }
}
