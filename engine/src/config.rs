//! What an endpoint is told when it is made.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use memit_ringbuf::Capacity;

use crate::outbox::{Geometry, LEAST_SLOTS, MOST_SLOTS};
use crate::rendezvous::{LEAST_EXTENT, MOST_EXTENT, PayloadTerms, is_extent_size};

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
    /// 1 GiB. What is longer than an eighth of it goes outside of the ring. Small rings stay in the caches. Default
    /// 256 KiB.
    pub ring_capacity: usize,
    /// Synchronous calls from one peer that this endpoint can have answered and not yet taken, 2 to 64: one for the peer's
    /// dispatching thread, the others for its other threads. Default 8.
    pub reply_slots: u32,
    /// Bytes that the dispatching thread may queue for one peer whose ring is full. Default 8 MiB.
    pub backlog_limit: usize,
    /// Bytes of one piece of the arena, the shared memory for messages that do not fit the ring; each connection and
    /// direction has one of its own, which grows by such pieces. A message that is longer than a piece goes in memory
    /// that is made for it. A multiple of 4,096 from 64 KiB to 1 GiB; of the two ends of a connection, the lower
    /// setting holds. Default 4 MiB.
    pub extent_size: usize,
    /// Bytes of one arena: how much shared memory the messages take that are on their way or kept by their receiver, for
    /// each connection and direction. A sender that would need more waits, or is told. At least `extent_size`; of the
    /// two ends, the lower setting holds. Default 64 MiB.
    pub arena_limit: usize,
    /// Bytes of one message, or of one answer to a call, however it travels: what is longer is not sent, and a peer that
    /// sends it is disconnected. At least 1; of the two ends, the lower setting holds. Default 1 GiB.
    pub message_limit: usize,
    /// Bytes from which on messages to this endpoint come in memory of their own, which their sender seals: they are
    /// looked at where they lie and not copied first, but each costs its sender system calls. It bears only upon
    /// messages that do not fit the ring, and those that are longer than a piece of the arena come like that anyway.
    /// Under full trust only the latter do, whatever this says. Default `usize::MAX`: to map such memory, read it and
    /// unmap it costs the receiver more than a copy at every size (`payloads` of the benchmarks shows both), so it is for
    /// receivers that want no memory of their own for copies.
    pub sealed_from: usize,
    /// Time for which a piece of the arena lies unused before it is given back to the system;
    /// [`Duration::MAX`] for never. Default 5 s.
    pub arena_idle: Duration,
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
    /// Spin for about as long as recent waits took, then sleep; and sleep at once for a while if somebody else turns out to
    /// want the core.
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
    /// `extent_size` is not a multiple of 4,096, or too small or too large.
    #[error(
        "extent_size is {found}; set it to a multiple of 4096 from {LEAST_EXTENT} (64 KiB) to {MOST_EXTENT} (1 GiB)"
    )]
    ExtentSize {
        /// The setting.
        found: usize,
    },
    /// `arena_limit` leaves no room for one extent.
    #[error(
        "arena_limit is {found}, less than one extent of {extent_size}; raise it to extent_size or more, or lower extent_size"
    )]
    ArenaLimit {
        /// The setting.
        found: usize,
        /// The setting that it must not be less than.
        extent_size: usize,
    },
    /// `message_limit` is zero.
    #[error("message_limit is 0, which would refuse every message; set it to the bytes of the longest one")]
    MessageLimit,
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
            extent_size: 4 << 20,
            arena_limit: 64 << 20,
            message_limit: 1 << 30,
            sealed_from: usize::MAX,
            arena_idle: Duration::from_secs(5),
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
            .field("extent_size", &self.extent_size)
            .field("arena_limit", &self.arena_limit)
            .field("message_limit", &self.message_limit)
            .field("sealed_from", &self.sealed_from)
            .field("arena_idle", &self.arena_idle)
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

    /// Looks at every setting that could not work; what comes of it is the shape of this endpoint's outboxes.
    pub(crate) fn check(&self) -> Result<Geometry, InvalidConfig> {
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
        if !is_extent_size(self.extent_size) {
            return Err(InvalidConfig::ExtentSize { found: self.extent_size });
        }
        if self.arena_limit < self.extent_size {
            return Err(InvalidConfig::ArenaLimit { found: self.arena_limit, extent_size: self.extent_size });
        }
        if self.message_limit == 0 {
            return Err(InvalidConfig::MessageLimit);
        }
        Ok(Geometry { capacity, slot_count: self.reply_slots })
    }

    /// What this endpoint says about payloads outside of the ring, once its settings were checked.
    pub(crate) fn payload_terms(&self) -> PayloadTerms {
        PayloadTerms {
            extent_size: self.extent_size as u64,
            arena_limit: self.arena_limit as u64,
            message_limit: self.message_limit as u64,
            sealed_from: match self.trust {
                Trust::None => self.sealed_from as u64,
                // Blocks are read where they lie as well, and cost their sender less.
                Trust::Full(_) => u64::MAX,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is wrong with the default settings after this change.
    fn refused(change: impl FnOnce(&mut Config)) -> InvalidConfig {
        let mut config = Config::default();
        change(&mut config);
        config.check().unwrap_err()
    }

    #[test]
    fn settings_for_payloads_are_bounded_and_each_refusal_says_what_to_set() {
        for found in [0, 60 << 10, (64 << 10) + 1, (1 << 30) + 4096, usize::MAX] {
            assert_eq!(refused(|config| config.extent_size = found), InvalidConfig::ExtentSize { found });
        }
        let arena = refused(|config| config.arena_limit = (4 << 20) - 1);
        assert_eq!(arena, InvalidConfig::ArenaLimit { found: (4 << 20) - 1, extent_size: 4 << 20 });
        assert_eq!(refused(|config| config.message_limit = 0), InvalidConfig::MessageLimit);
        let texts = [
            (InvalidConfig::ExtentSize { found: 5 }, "to a multiple of 4096 from 65536 (64 KiB) to 1073741824 (1 GiB)"),
            (arena, "; raise it to extent_size or more, or lower extent_size"),
            (InvalidConfig::MessageLimit, "; set it to the bytes of the longest one"),
        ];
        for (refusal, end) in texts {
            assert!(refusal.to_string().ends_with(end), "{refusal}");
        }
    }

    #[test]
    fn settings_for_payloads_may_be_at_their_bounds() {
        for extent_size in [64 << 10, 1 << 30] {
            let config =
                Config { extent_size, arena_limit: extent_size, message_limit: 1, sealed_from: 0, ..Config::default() };
            assert!(config.check().is_ok(), "{config:?}");
        }
    }

    #[test]
    #[allow(unsafe_code)]
    fn the_terms_are_the_settings_but_under_full_trust_nothing_is_to_be_sealed() {
        let mut config = Config {
            extent_size: 64 << 10,
            arena_limit: 70 << 10,
            message_limit: 3,
            sealed_from: 4,
            ..Config::default()
        };
        let terms = PayloadTerms { extent_size: 64 << 10, arena_limit: 70 << 10, message_limit: 3, sealed_from: 4 };
        assert_eq!(config.payload_terms(), terms);
        // SAFETY: nobody connects to this endpoint, which is none.
        config.trust = unsafe { Trust::full() };
        assert_eq!(config.payload_terms(), PayloadTerms { sealed_from: u64::MAX, ..terms });
    }
}
