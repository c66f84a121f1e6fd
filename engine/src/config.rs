//! What an endpoint is told when it is made.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use memit_ringbuf::Capacity;

use crate::outbox::{Geometry, LEAST_SLOTS, MOST_SLOTS};

/// Decides whether a process may connect; see [`Config::authorize`].
pub type Authorize = Arc<dyn Fn(&Credentials) -> bool + Send + Sync>;

/// Settings of one endpoint: start from [`Config::default`] and change fields.
///
/// ```
/// let mut config = memit_engine::Config::default();
/// config.ring_capacity = 64 * 1024;
/// config.wait = memit_engine::WaitStrategy::Park;
/// ```
#[non_exhaustive]
pub struct Config {
    /// Bytes of the ring that this endpoint writes, one ring per connection: a power of two from 4 KiB to
    /// 1 GiB. A message is at most an eighth of it. Small rings stay in the caches. Default 256 KiB.
    pub ring_capacity: usize,
    /// Synchronous calls from one peer that this endpoint can have answered and not yet taken, 2 to 64: one for the peer's
    /// dispatching thread, the others for its other threads. Default 8.
    pub reply_slots: u32,
    /// Bytes that the dispatching thread may queue for one peer whose ring is full. Default 8 MiB.
    pub backlog_limit: usize,
    /// How this endpoint waits.
    pub wait: WaitStrategy,
    /// Whether payloads are copied before they are looked at.
    pub trust: Trust,
    /// Time for a whole handshake, at most a day; at its end a silent peer is dropped. Default 5 s.
    pub handshake_deadline: Duration,
    /// Renderers that a main holds at once. Default 1,024.
    pub max_connections: usize,
    /// Renderers of one user that a main holds at once. Default 1,024.
    pub max_connections_per_uid: usize,
    /// Handshakes that a main carries on at once. Default 64.
    pub max_half_open: usize,
    /// Bytes of the outbox that a peer may ask this endpoint to map. Default 64 MiB.
    pub max_peer_outbox: usize,
    /// Channels that one peer may announce, and no more than [`MAX_CHANNELS`](crate::MAX_CHANNELS), the default. A peer
    /// that announces more is disconnected; it is not told of a lower limit before.
    pub max_channels: u16,
    /// Bytes of schema text that one announced channel may bring. Default 64 KiB.
    pub max_schema: usize,
    /// Says in which format payloads are encoded. Two endpoints connect only if it is the same for both.
    pub format_fingerprint: u64,
    /// Decides on each peer, in place of the rule that its effective user must be our own: it may narrow
    /// that rule or widen it. A main asks it about each renderer, a renderer about its main.
    ///
    /// In a main it runs on the library's thread, so that a slow answer delays other handshakes. A panic in
    /// it counts as a refusal. Processes of users without a mapping in our user namespace never get here.
    pub authorize: Option<Authorize>,
    /// The directory of the sockets, private to our user. Default: `$MEMIT_RUNTIME_DIR`, else `memit` in
    /// `$XDG_RUNTIME_DIR` if that is ours, else `/tmp/memit-<uid>`. It is made if it is not there.
    pub runtime_dir: Option<PathBuf>,
}

/// What to do while there is nothing to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum WaitStrategy {
    /// Never sleep: lowest latency, one core each.
    Spin,
    /// Sleep at once: the least processor time.
    Park,
    /// Spin for about as long as recent waits took, then sleep.
    #[default]
    Adaptive,
}

/// Whether the peers of an endpoint are believed to keep the protocol.
///
/// Safe code can only make [`Trust::None`], and cannot reuse a promise made for another endpoint:
///
/// ```compile_fail,E0599
/// let full = unsafe { memit_engine::Trust::full() };
/// let again = full.clone();
/// ```
#[derive(Debug, Default)]
#[non_exhaustive]
pub enum Trust {
    /// Each payload is copied once to private memory before anyone looks at it. Safe whatever a peer does.
    #[default]
    None,
    /// Payloads are read where they lie; made by [`Trust::full`] only.
    Full(FullTrust),
}

/// The promise behind [`Trust::full`].
#[derive(Debug)]
pub struct FullTrust(());

impl Trust {
    /// Payloads will be read where the peer wrote them, without a copy.
    ///
    /// # Safety
    /// Every peer that this endpoint admits keeps the protocol for as long as it is connected: above all, it
    /// does not change the bytes of a published message before they are given back.
    #[allow(unsafe_code)]
    pub const unsafe fn full() -> Self {
        Self::Full(FullTrust(()))
    }
}

/// Who a peer was when it connected, as the kernel tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Credentials {
    /// Process id in our namespace; 0 if the process is not visible there.
    pub pid: i32,
    /// Effective user id.
    pub uid: u32,
    /// Effective group id.
    pub gid: u32,
}

/// A setting that cannot work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidConfig {
    /// `ring_capacity` is not a power of two, or too small or too large.
    #[error("ring_capacity is {found}; set it to a power of two from 4 KiB to 1 GiB")]
    RingCapacity {
        /// The setting.
        found: usize,
    },
    /// `reply_slots` is out of range.
    #[error("reply_slots is {found}; set it to a number from 2 to {max}")]
    ReplySlots {
        /// The setting.
        found: u32,
        /// The most that an outbox can hold.
        max: u32,
    },
    /// A setting that must not be zero is zero.
    #[error("{setting} is 0, which would refuse every connection; set it to 1 or more")]
    Zero {
        /// The name of the setting.
        setting: &'static str,
    },
}

impl Default for Config {
    fn default() -> Self {
        Self {
            ring_capacity: 256 << 10,
            reply_slots: 8,
            backlog_limit: 8 << 20,
            wait: WaitStrategy::default(),
            trust: Trust::default(),
            handshake_deadline: Duration::from_secs(5),
            max_connections: 1024,
            max_connections_per_uid: 1024,
            max_half_open: 64,
            max_peer_outbox: 64 << 20,
            max_channels: 4096,
            max_schema: 64 << 10,
            format_fingerprint: 0,
            authorize: None,
            runtime_dir: None,
        }
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("ring_capacity", &self.ring_capacity)
            .field("reply_slots", &self.reply_slots)
            .field("backlog_limit", &self.backlog_limit)
            .field("wait", &self.wait)
            .field("trust", &self.trust)
            .field("handshake_deadline", &self.handshake_deadline)
            .field("max_connections", &self.max_connections)
            .field("max_connections_per_uid", &self.max_connections_per_uid)
            .field("max_half_open", &self.max_half_open)
            .field("max_peer_outbox", &self.max_peer_outbox)
            .field("max_channels", &self.max_channels)
            .field("max_schema", &self.max_schema)
            .field("format_fingerprint", &self.format_fingerprint)
            .field("authorize", &self.authorize.as_ref().map(|_| ".."))
            .field("runtime_dir", &self.runtime_dir)
            .finish()
    }
}

impl Config {
    /// The time for a handshake, short enough to be added to any time of the clock.
    pub(crate) fn patience(&self) -> Duration {
        const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);
        self.handshake_deadline.min(LONGEST)
    }

    /// The shape of this endpoint's outboxes, once every setting has been looked at.
    pub(crate) fn geometry(&self) -> Result<Geometry, InvalidConfig> {
        for (setting, is_zero) in [
            ("handshake_deadline", self.handshake_deadline.is_zero()),
            ("max_connections", self.max_connections == 0),
            ("max_connections_per_uid", self.max_connections_per_uid == 0),
            ("max_half_open", self.max_half_open == 0),
            ("max_peer_outbox", self.max_peer_outbox == 0),
        ] {
            if is_zero {
                return Err(InvalidConfig::Zero { setting });
            }
        }
        let capacity =
            Capacity::new(self.ring_capacity).map_err(|_| InvalidConfig::RingCapacity { found: self.ring_capacity })?;
        if !(LEAST_SLOTS..=MOST_SLOTS).contains(&self.reply_slots) {
            return Err(InvalidConfig::ReplySlots { found: self.reply_slots, max: MOST_SLOTS });
        }
        Ok(Geometry { capacity, slot_count: self.reply_slots })
    }
}
