//! The settings of an endpoint to be.

use std::{fmt, marker::PhantomData, path::PathBuf, sync::Arc, time::Duration};

use memit_engine::{Config, Credentials, Port, Trust, WaitStrategy};

use crate::{BindError, ConnectError, IpcMain, IpcRenderer, message::format_fingerprint};

/// Settings for an [`IpcMain`] or [`IpcRenderer`], each with a default that suits most programs.
///
/// ```no_run
/// use memit::{IpcMain, WaitStrategy};
///
/// let main = IpcMain::builder().wait(WaitStrategy::Spin).ring_capacity(64 * 1024).bind("app")?;
/// # Ok::<(), memit::BindError>(())
/// ```
pub struct Builder<Side> {
    config: Config,
    side: PhantomData<fn() -> Side>,
}

impl<Side> Builder<Side> {
    pub(crate) fn new() -> Self {
        let mut config = Config::default();
        config.format_fingerprint = format_fingerprint();
        Self { config, side: PhantomData }
    }

    fn with(mut self, set: impl FnOnce(&mut Config)) -> Self {
        set(&mut self.config);
        self
    }

    /// How to wait while there is nothing to do. Default: [`WaitStrategy::Adaptive`].
    #[must_use]
    pub fn wait(self, strategy: WaitStrategy) -> Self {
        self.with(|config| config.wait = strategy)
    }

    /// Whether payloads are copied before they are looked at. Default: [`Trust::None`], they are.
    #[must_use]
    pub fn trust(self, trust: Trust) -> Self {
        self.with(|config| config.trust = trust)
    }

    /// Bytes of the ring to each peer: a power of two from 4 KiB to 1 GiB. What is longer than an eighth of it goes
    /// outside of the ring, see [`extent_size`](Self::extent_size). Default 256 KiB.
    #[must_use]
    pub fn ring_capacity(self, bytes: usize) -> Self {
        self.with(|config| config.ring_capacity = bytes)
    }

    /// How many calls of one peer may have an answer that the peer has not taken yet, 2 to 64. Default 8.
    #[must_use]
    pub fn reply_slots(self, slots: u32) -> Self {
        self.with(|config| config.reply_slots = slots)
    }

    /// Bytes that the dispatching thread may queue for one peer whose ring is full. Default 8 MiB.
    #[must_use]
    pub fn backlog_limit(self, bytes: usize) -> Self {
        self.with(|config| config.backlog_limit = bytes)
    }

    /// Bytes of one message, or of one answer to a call: what is longer is not sent. At least 1. Of the two ends of a
    /// connection the lower setting holds. Default 1 GiB.
    ///
    /// Whatever is set, a message of a type with `#[memit::message]` has at most 2 GiB - 1: its offsets are 32 bits wide.
    #[must_use]
    pub fn message_limit(self, bytes: usize) -> Self {
        self.with(|config| config.message_limit = bytes)
    }

    /// Bytes of one piece of the arena, the shared memory for messages that do not fit the ring. A message that is
    /// longer than a piece goes in memory that is made for it.
    ///
    /// A multiple of 4,096 from 64 KiB to 1 GiB. Of the two ends of a connection the lower setting holds. Default 4 MiB.
    #[must_use]
    pub fn extent_size(self, bytes: usize) -> Self {
        self.with(|config| config.extent_size = bytes)
    }

    /// Bytes of one arena: how much shared memory the messages take that are on their way or kept by their receiver, for
    /// each connection and direction. A sender that would need more waits, or is told.
    ///
    /// At least [`extent_size`](Self::extent_size). Of the two ends of a connection the lower setting holds. Default
    /// 64 MiB.
    #[must_use]
    pub fn arena_limit(self, bytes: usize) -> Self {
        self.with(|config| config.arena_limit = bytes)
    }

    /// Bytes from which on messages to this endpoint come in memory of their own, which their sender seals. They are
    /// looked at where they lie and not copied first, but to seal
    /// them and to map them costs more than the copy, at every size. Default `usize::MAX`: none that fits a piece of the
    /// arena.
    ///
    /// It bears only upon messages that do not fit the ring, and those that are longer than a piece of the arena come
    /// like that anyway. Under [full trust](Trust::full) only the latter do, whatever is set here.
    #[must_use]
    pub fn sealed_from(self, bytes: usize) -> Self {
        self.with(|config| config.sealed_from = bytes)
    }

    /// Time for which a piece of the arena lies unused before it is given back to the system; [`Duration::MAX`] for
    /// never. Default 5 s.
    #[must_use]
    pub fn arena_idle(self, time: Duration) -> Self {
        self.with(|config| config.arena_idle = time)
    }

    /// Time for a whole handshake; a peer that takes longer is dropped. Default 5 s.
    #[must_use]
    pub fn handshake_deadline(self, time: Duration) -> Self {
        self.with(|config| config.handshake_deadline = time)
    }

    /// Decides on each peer, in place of the rule that it must run as our own user.
    ///
    /// In a main it runs on the library's thread, which std takes for one without a name, and delays other handshakes while
    /// it does. A panic in it is a refusal.
    #[must_use]
    pub fn authorize(self, decide: impl Fn(&Credentials) -> bool + Send + Sync + 'static) -> Self {
        self.with(|config| config.authorize = Some(Arc::new(decide)))
    }

    /// The directory of the sockets. Default: `$MEMIT_RUNTIME_DIR`, else `$XDG_RUNTIME_DIR/memit`, else
    /// `/tmp/memit-<uid>`.
    #[must_use]
    pub fn runtime_dir(self, path: impl Into<PathBuf>) -> Self {
        self.with(|config| config.runtime_dir = Some(path.into()))
    }

    /// Bytes of shared memory that a peer may ask us to map. Default 64 MiB.
    #[must_use]
    pub fn max_peer_outbox(self, bytes: usize) -> Self {
        self.with(|config| config.max_peer_outbox = bytes)
    }

    /// Channels that one peer may send on. Default 4,096, which is also the most that a peer can use.
    ///
    /// Peers are not told of this limit: one that sends on more channels is disconnected as one that breaks the
    /// protocol. So set it no lower than what the programs at the other side use.
    #[must_use]
    pub fn max_channels(self, channels: u16) -> Self {
        self.with(|config| config.max_channels = channels)
    }
}

impl Builder<IpcMain> {
    /// Renderers that may be connected at once. Default 1,024.
    #[must_use]
    pub fn max_connections(self, connections: usize) -> Self {
        self.with(|config| config.max_connections = connections)
    }

    /// Renderers of one user that may be connected at once. Default 1,024.
    #[must_use]
    pub fn max_connections_per_uid(self, connections: usize) -> Self {
        self.with(|config| config.max_connections_per_uid = connections)
    }

    /// Handshakes that may be under way at once. Default 64.
    #[must_use]
    pub fn max_half_open(self, handshakes: usize) -> Self {
        self.with(|config| config.max_half_open = handshakes)
    }

    /// Takes the name `app` and waits for renderers.
    pub fn bind(self, app: &str) -> Result<IpcMain, BindError> {
        Port::bind(app, self.config).map(IpcMain::new)
    }
}

impl Builder<IpcRenderer> {
    /// Connects to the main named `app`.
    pub fn connect(self, app: &str) -> Result<IpcRenderer, ConnectError> {
        IpcRenderer::new(Port::connect(app, self.config)?)
    }
}

impl<Side> fmt::Debug for Builder<Side> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Builder").field(&self.config).finish()
    }
}
