//! Sending to one peer.

use std::{
    any::TypeId,
    fmt,
    marker::PhantomData,
    mem,
    sync::Arc,
    time::{Duration, Instant},
};

use memit_engine::{AlignedBytes, Kept, Link, Patience};

use crate::{
    CallError, ChannelError, ChannelSender, EncodeAs, IntoChannel, Loan, Peer, Plain, Reply, SendError,
    emitter::table::Signature,
    encode::{self, Encoded},
    error::ExclusiveError,
    exclusive::Exclusive,
    outgoing::{Outgoing, Outlet},
    reply::{Buffer, Bytes},
    way::{self, COPIED, Way, lend},
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
    /// Without space in the ring it waits until the peer has made some, and while another thread has the way to the peer
    /// [to itself](Self::exclusive), until it lets go. The thread that dispatches this endpoint never waits: its messages
    /// go to a queue whose bound is [`backlog_limit`](crate::Builder::backlog_limit), and past that the send is
    /// [`SendError::Full`].
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

    /// Looks `channel` up once, and announces it to the peer, for many messages on it.
    ///
    /// Without space for the announcement it waits, or not, as [`send`](Self::send) does.
    pub fn to<C: IntoChannel>(&self, channel: C) -> Result<ChannelSender<C::Message>, SendError> {
        if self.link.is_forked() {
            return Err(SendError::Forked);
        }
        let outlet = self.outlet(&channel)?;
        Way::announce(&mut &*self.link, outlet, Patience::ByPolicy)?;
        Ok(ChannelSender::new(self.clone(), outlet.id))
    }

    /// Takes the way to the peer for this thread alone, to send a stream of messages; see [`Exclusive`].
    ///
    /// While another thread has it, this waits; the thread that dispatches this endpoint never waits, and gets
    /// [`Held`](ExclusiveError::Held).
    pub fn exclusive(&self) -> Result<Exclusive<'_>, ExclusiveError> {
        Ok(Exclusive::new(self.link.exclusive()?, &self.outgoing))
    }

    /// Who is at the other end.
    pub fn peer(&self) -> Peer {
        Peer::of(&self.link)
    }

    /// Whether the connection still stands. It may end at any moment, so this is for information.
    pub fn is_connected(&self) -> bool {
        self.link.is_connected()
    }

    /// Lends memory for a message of `len` numbers, to be filled in and sent without a copy. Short ones, up to some
    /// 3 KiB, are sent faster with [`send`](Self::send), which copies them.
    ///
    /// The memory is where the peer will read it. It holds zeros, or what earlier messages to this same peer left
    /// there. It waits for memory as [`send`](Self::send) does for space; on the thread that dispatches this endpoint
    /// it is [`Full`](SendError::Full) instead.
    ///
    /// ```
    /// use memit::{Channel, IpcMain, IpcRenderer};
    ///
    /// const FRAME: Channel<[f32]> = Channel::new("frame");
    ///
    /// # let app = format!("loan-{}", std::process::id());
    /// let main = IpcMain::bind(&app)?;
    /// let (seen, frames) = std::sync::mpsc::channel();
    /// main.on(FRAME, move |_, frame| seen.send((frame.len(), frame[999_999])));
    /// let renderer = IpcRenderer::connect(&app)?;
    ///
    /// let mut frame = renderer.sender().loan(FRAME, 1_000_000)?;
    /// for (at, pixel) in frame.iter_mut().enumerate() {
    ///     *pixel = at as f32; // every number is written: what was there may be anything
    /// }
    /// frame.commit()?;
    /// # let mut heard = None;
    /// # while heard.is_none() {
    /// #     main.run_once(std::time::Duration::from_secs(5))?;
    /// #     heard = frames.try_recv().ok();
    /// # }
    /// # assert_eq!(heard, Some((1_000_000, 999_999.0)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn loan<C, P>(&self, channel: C, len: usize) -> Result<Loan<'_, P>, SendError>
    where
        C: IntoChannel<Message = [P]>,
        P: Plain,
    {
        self.loan_by(&channel, len, Patience::ByPolicy)
    }

    /// Lends memory as [`loan`](Self::loan) does if there is some now, and reports [`SendError::Full`] otherwise.
    pub fn try_loan<C, P>(&self, channel: C, len: usize) -> Result<Loan<'_, P>, SendError>
    where
        C: IntoChannel<Message = [P]>,
        P: Plain,
    {
        self.loan_by(&channel, len, Patience::Now)
    }

    /// The longest encoding, in bytes, that a message to this peer may have: the lesser of the two ends'
    /// [`message_limit`](crate::Builder::message_limit).
    pub fn max_message(&self) -> usize {
        self.link.max_message()
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
        let mut way = &*self.link;
        way::send::<C::Message, M, _>(&mut way, message, patience, |way| {
            let outlet = outlet(&self.outgoing, &channel)?;
            way.announce(outlet, patience)?;
            Ok(outlet.id)
        })
    }

    /// What `channel` is sent as, for what is rare.
    #[cold]
    #[inline(never)]
    fn outlet<C: IntoChannel>(&self, channel: &C) -> Result<&Outlet, ChannelError> {
        outlet(&self.outgoing, channel)
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
        let answered = encode::with_encoded_or_sized::<C::Message, M, _>(message, COPIED, |bytes| {
            self.call_with(&channel, bytes, deadline, reply.bytes_mut())
        })?;
        let kept = match answered {
            Encoded::Whole(answered) => answered?,
            Encoded::Sized(len) => self.call_large(&channel, message, len, deadline, reply.bytes_mut())?,
        };
        Reply::new(kept.map_or(Bytes::Copied(reply), Bytes::Kept), &self.link)
    }

    /// Calls with an encoded message. Where the value was not copied to `reply`, it is what is returned.
    #[inline]
    fn call_with<C: IntoChannel>(
        &self,
        channel: &C,
        bytes: &[u8],
        deadline: Option<Instant>,
        reply: &mut AlignedBytes,
    ) -> Result<Option<Kept>, CallError> {
        let outlet = outlet(&self.outgoing, channel)?;
        Way::announce(&mut &*self.link, outlet, before(deadline))?;
        Ok(self.link.call(outlet.id, bytes, deadline, reply)?)
    }

    /// Calls with a message whose encoding takes `len` bytes.
    #[cold]
    #[inline(never)]
    fn call_large<C, M>(
        &self,
        channel: &C,
        message: &M,
        len: usize,
        deadline: Option<Instant>,
        reply: &mut AlignedBytes,
    ) -> Result<Option<Kept>, CallError>
    where
        C: IntoChannel,
        M: EncodeAs<C::Message> + ?Sized,
    {
        let outlet = self.outlet(channel)?;
        Way::announce(&mut &*self.link, outlet, before(deadline))?;
        if let Some(loan) = lend(&self.link, message, len)? {
            return Ok(self.link.call_loan(outlet.id, loan, deadline, reply)?);
        }
        encode::with_encoded(message, |bytes| Ok(self.link.call(outlet.id, bytes, deadline, reply)?))?
    }

    fn loan_by<C, P>(&self, channel: &C, len: usize, patience: Patience) -> Result<Loan<'_, P>, SendError>
    where
        C: IntoChannel<Message = [P]>,
        P: Plain,
    {
        if self.link.is_forked() {
            return Err(SendError::Forked);
        }
        let max = self.max_message();
        let Some(len) = len.checked_mul(size_of::<P>()) else {
            return Err(SendError::TooLarge { len: usize::MAX, max });
        };
        let outlet = self.outlet(channel)?;
        Ok(Loan::new(&self.link, outlet, self.link.loan(len, patience)?))
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
#[inline(always)]
pub(crate) fn outlet<'o, C: IntoChannel>(outgoing: &'o Outgoing, channel: &C) -> Result<&'o Outlet, ChannelError> {
    outgoing.outlet(channel.key(), channel.name(), types::<C>(), Signature::of::<C>)
}

/// One id for the three types of a channel, whatever its name.
#[inline]
fn types<C: IntoChannel>() -> TypeId {
    TypeId::of::<(PhantomData<C::Message>, PhantomData<C::Return>, PhantomData<C::Error>)>()
}

fn before(deadline: Option<Instant>) -> Patience {
    deadline.map_or(Patience::ByPolicy, Patience::Until)
}

/// The end of a wait that begins now; `None` if that is beyond what the clock can show.
pub(crate) fn until(timeout: Duration) -> Option<Instant> {
    Instant::now().checked_add(timeout)
}
