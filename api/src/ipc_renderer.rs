//! The renderer side: a process that connects to a main.

use std::{
    ops::Deref,
    os::fd::{AsFd, BorrowedFd},
    sync::{Arc, Weak},
    time::Duration,
};

use memit_engine::Port;

use crate::{
    Builder, CallError, ChannelSender, ConnectError, Emitter, EncodeAs, Exclusive, IntoChannel, Reply, RunError,
    SendError, Sender, endpoint::Endpoint, error::ExclusiveError,
};

/// One renderer of an application, connected to its main.
///
/// It derefs to its [`Emitter`], so `renderer.on(...)`, `renderer.once(...)`, `renderer.off(...)` and the rest work on
/// it directly.
///
/// Clones are handles on one endpoint, and any thread may use them. The endpoint ends with [`shutdown`](Self::shutdown)
/// or with its last handle: the connection closes, calls end, listeners are dropped. A listener that owns a handle
/// keeps the endpoint alive; let it own a [weak](Self::downgrade) one, or use [`Event::emitter`](crate::Event::emitter)
/// and [`Event::sender`](crate::Event::sender).
///
/// A renderer that only sends and calls need not dispatch. To hear messages, one thread at a time calls
/// [`run`](Self::run), [`run_once`](Self::run_once) or [`poll`](Self::poll).
#[derive(Clone, Debug)]
pub struct IpcRenderer {
    endpoint: Arc<Endpoint>,
    main: Sender,
}

/// A handle that does not keep its [`IpcRenderer`] alive.
#[derive(Clone, Debug)]
pub struct WeakIpcRenderer {
    endpoint: Weak<Endpoint>,
    main: Sender,
}

impl IpcRenderer {
    /// Connects to the main named `app`, with the default settings.
    pub fn connect(app: &str) -> Result<Self, ConnectError> {
        Self::builder().connect(app)
    }

    /// The settings of a renderer to be.
    pub fn builder() -> Builder<Self> {
        Builder::new()
    }

    pub(crate) fn new(port: Port) -> Result<Self, ConnectError> {
        let main = port.links().first().cloned().ok_or(ConnectError::Closed)?;
        let endpoint = Endpoint::new(port);
        let main = Sender::new(main, Arc::clone(endpoint.outgoing()));
        Ok(Self { endpoint: Arc::new(endpoint), main })
    }

    /// The way to the main.
    pub fn sender(&self) -> &Sender {
        &self.main
    }

    /// Sends `message` to the main; see [`Sender::send`].
    pub fn send<C, M>(&self, channel: C, message: &M) -> Result<(), SendError>
    where
        C: IntoChannel,
        M: EncodeAs<C::Message> + ?Sized,
    {
        self.main.send(channel, message)
    }

    /// Sends `message` to the main if there is space now; see [`Sender::try_send`].
    pub fn try_send<C, M>(&self, channel: C, message: &M) -> Result<(), SendError>
    where
        C: IntoChannel,
        M: EncodeAs<C::Message> + ?Sized,
    {
        self.main.try_send(channel, message)
    }

    /// Sends `message` to the main as soon as there is space; see [`Sender::send_timeout`].
    pub fn send_timeout<C, M>(&self, channel: C, message: &M, timeout: Duration) -> Result<(), SendError>
    where
        C: IntoChannel,
        M: EncodeAs<C::Message> + ?Sized,
    {
        self.main.send_timeout(channel, message, timeout)
    }

    /// Calls the main and waits for the value that a listener sets; see [`Sender::send_sync`].
    pub fn send_sync<C, M>(&self, channel: C, message: &M) -> Result<Reply<C::Return>, CallError>
    where
        C: IntoChannel,
        M: EncodeAs<C::Message> + ?Sized,
    {
        self.main.send_sync(channel, message)
    }

    /// Calls the main and waits for the value, up to `timeout`; see [`Sender::send_sync_timeout`].
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
        self.main.send_sync_timeout(channel, message, timeout)
    }

    /// Looks `channel` up once, for many messages on it; see [`Sender::to`].
    pub fn to<C: IntoChannel>(&self, channel: C) -> Result<ChannelSender<C::Message>, SendError> {
        self.main.to(channel)
    }

    /// Takes the way to the main for this thread alone, to send a stream of messages; see [`Sender::exclusive`].
    pub fn exclusive(&self) -> Result<Exclusive<'_>, ExclusiveError> {
        self.main.exclusive()
    }

    /// Dispatches until [`shutdown`](Self::shutdown) or until the main has closed the connection, sleeping while there
    /// is nothing to do. If the main went otherwise, that is an error.
    pub fn run(&self) -> Result<(), RunError> {
        self.endpoint.run()
    }

    /// Waits up to `timeout` for something to dispatch and dispatches what is there. Returns how many messages,
    /// arrivals and departures that were, 0 if none came in time.
    pub fn run_once(&self, timeout: Duration) -> Result<usize, RunError> {
        self.endpoint.run_once(timeout)
    }

    /// Dispatches what is there, or a good part of it, without waiting. Returns how many messages, arrivals and
    /// departures that were.
    ///
    /// With [`AsFd`], for loops that wait elsewhere: the descriptor is readable while there is something to dispatch.
    pub fn poll(&self) -> Result<usize, RunError> {
        self.endpoint.poll()
    }

    /// Ends the endpoint: the connection closes, calls end, and listeners are dropped, as soon as the one that runs has
    /// returned.
    pub fn shutdown(&self) {
        self.endpoint.shutdown();
    }

    /// A handle that does not keep the endpoint alive.
    pub fn downgrade(&self) -> WeakIpcRenderer {
        WeakIpcRenderer { endpoint: Arc::downgrade(&self.endpoint), main: self.main.clone() }
    }
}

impl WeakIpcRenderer {
    /// The endpoint, unless its last handle is gone.
    pub fn upgrade(&self) -> Option<IpcRenderer> {
        Some(IpcRenderer { endpoint: self.endpoint.upgrade()?, main: self.main.clone() })
    }
}

impl Deref for IpcRenderer {
    type Target = Emitter;

    fn deref(&self) -> &Emitter {
        self.endpoint.emitter()
    }
}

impl AsFd for IpcRenderer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.endpoint.port().as_fd()
    }
}
