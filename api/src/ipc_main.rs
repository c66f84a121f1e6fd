//! The main side: one process that any number of renderers connect to.

use std::{
    ops::Deref,
    os::fd::{AsFd, BorrowedFd},
    sync::{Arc, Weak},
    time::Duration,
};

use memit_engine::{Patience, Port};

use crate::{
    BindError, Builder, Emitter, EncodeAs, IntoChannel, RunError, SendError, Sender, encode, endpoint::Endpoint,
    sender::outlet, way::Way,
};

/// The main end of an application: renderers connect to it by its name.
///
/// It derefs to its [`Emitter`], so `main.on(...)`, `main.once(...)`, `main.off(...)` and the rest work on it directly.
///
/// Clones are handles on one endpoint, and any thread may use them. The endpoint ends with [`shutdown`](Self::shutdown)
/// or with its last handle: connections close, calls end, listeners are dropped. A listener that owns a handle keeps
/// the endpoint alive; let it own a [weak](Self::downgrade) one, or use [`Event::emitter`](crate::Event::emitter) and
/// [`Event::sender`](crate::Event::sender).
///
/// Connecting is answered by a thread of the library, whether anyone dispatches or not; messages are taken by whoever
/// calls [`run`](Self::run), [`run_once`](Self::run_once) or [`poll`](Self::poll), one thread at a time.
#[derive(Clone, Debug)]
pub struct IpcMain {
    endpoint: Arc<Endpoint>,
}

/// A handle that does not keep its [`IpcMain`] alive.
#[derive(Clone, Debug)]
pub struct WeakIpcMain {
    endpoint: Weak<Endpoint>,
}

impl IpcMain {
    /// Takes the name `app` and waits for renderers, with the default settings.
    ///
    /// A name has 1 to 64 letters, digits, `_`, `-` or `.`, and does not begin with `.`.
    pub fn bind(app: &str) -> Result<Self, BindError> {
        Self::builder().bind(app)
    }

    /// The settings of a main to be.
    pub fn builder() -> Builder<Self> {
        Builder::new()
    }

    pub(crate) fn new(port: Port) -> Self {
        Self { endpoint: Arc::new(Endpoint::new(port)) }
    }

    /// The way to each renderer that is connected now. There are none in a forked child, whose endpoint this is not.
    pub fn renderers(&self) -> Vec<Sender> {
        let links = self.endpoint.port().links();
        links.iter().map(|link| Sender::new(Arc::clone(link), Arc::clone(self.endpoint.outgoing()))).collect()
    }

    /// Sends `message` to every renderer, encoding it once. Returns those that it did not reach, and why.
    ///
    /// It never waits: a renderer without space, or to which another thread has the way [to itself](Sender::exclusive), is
    /// among those returned, [`Full`](SendError::Full), and the others have the message already. On the thread that dispatches this endpoint, a renderer's space includes that renderer's
    /// queue, whose bound is [`backlog_limit`](Builder::backlog_limit).
    #[must_use = "the renderers that the message did not reach are returned"]
    pub fn broadcast<C, M>(&self, channel: C, message: &M) -> Vec<(Sender, SendError)>
    where
        C: IntoChannel,
        M: EncodeAs<C::Message> + ?Sized,
    {
        let (links, outgoing) = (self.endpoint.port().links(), self.endpoint.outgoing());
        if links.is_empty() {
            return Vec::new();
        }
        let sender = |link| Sender::new(Arc::clone(link), Arc::clone(outgoing));
        let encoded = encode::with_encoded::<C::Message, M, _>(message, |bytes| {
            let outlet = outlet(outgoing, &channel)?;
            let failed = links.iter().filter_map(|link| {
                let mut way = &**link;
                let sent = Way::announce(&mut way, outlet, Patience::Now)
                    .and_then(|()| Way::send(&mut way, outlet.id, bytes, Patience::Now));
                let error = sent.err()?;
                Some((sender(link), error))
            });
            Ok::<_, SendError>(failed.collect())
        });
        let all = |error: SendError| links.iter().map(|link| (sender(link), error.clone())).collect();
        match encoded {
            Ok(Ok(failed)) => failed,
            Ok(Err(error)) => all(error),
            Err(error) => all(error.into()),
        }
    }

    /// Dispatches until [`shutdown`](Self::shutdown), sleeping while there is nothing to do.
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

    /// Ends the endpoint: the name is free, connections close, calls end, and listeners are dropped, as soon as the one
    /// that runs has returned.
    pub fn shutdown(&self) {
        self.endpoint.shutdown();
    }

    /// A handle that does not keep the endpoint alive.
    pub fn downgrade(&self) -> WeakIpcMain {
        WeakIpcMain { endpoint: Arc::downgrade(&self.endpoint) }
    }
}

impl WeakIpcMain {
    /// The endpoint, unless its last handle is gone.
    pub fn upgrade(&self) -> Option<IpcMain> {
        Some(IpcMain { endpoint: self.endpoint.upgrade()? })
    }
}

impl Deref for IpcMain {
    type Target = Emitter;

    fn deref(&self) -> &Emitter {
        self.endpoint.emitter()
    }
}

impl AsFd for IpcMain {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.endpoint.port().as_fd()
    }
}
