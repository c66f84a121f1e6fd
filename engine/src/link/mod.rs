//! One peer: the rings, bells, calls and sockets of one connection.
//!
//! A [`Link`] is what any thread may hold: it sends, calls and replies. What only the dispatching thread does with a
//! connection, reading the peer's ring, is its [`Inbox`](crate::port::inbox::Inbox).
//!
//! | file       | idea                                                        |
//! |------------|-------------------------------------------------------------|
//! | `send`     | a frame onto the ring, at once, later, or into the backlog  |
//! | `calls`    | a call out and its reply back; calls that cross             |
//! | `bells`    | ringing the peer, sleeping until it rings                   |
//! | `liveness` | the peer's end, and ours                                    |

mod bells;
mod calls;
mod liveness;
mod send;

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use crossbeam_utils::CachePadded;
use memit_ringbuf::{MappedRingMut, Producer};

use crate::backlog::Backlog;
use crate::call::answerer::Answerer;
use crate::call::caller::Caller;
use crate::channels::OutgoingChannels;
use crate::config::{Config, Credentials};
use crate::doorbell::protocol::Waker;
use crate::doorbell::strategy::Spin;
use crate::error::Disconnect;
use crate::outbox::{OwnOutbox, PeerHead, PeerOutbox};
use crate::port::PortCore;
use crate::rendezvous::{Admitted, Role};
use crate::sys::barrier::Barrier;
use crate::sys::fork::Epoch;
use liveness::Sockets;

pub(crate) use bells::bounded;
pub use send::Patience;

/// A connection to one peer. Shared by all threads that send to it.
pub struct Link {
    id: u64,
    role: Role,
    credentials: Credentials,
    epoch: Epoch,
    /// The token of the port that this link belongs to, and of the peer's.
    port_token: u64,
    peer_token: u64,

    own: Arc<OwnOutbox>,
    peer: Arc<PeerOutbox>,
    producer: Producer<MappedRingMut<Arc<OwnOutbox>>, PeerHead>,
    /// How the peer sleeps, so our light barrier; and how we do, so our heavy one.
    outgoing: Barrier,
    incoming: Barrier,

    data_waker: Waker,
    space_waker: Waker,
    reply_wakers: Box<[Waker]>,

    /// Cleared when the connection ends, after `reason` is set.
    open: AtomicBool,
    reason: OnceLock<Disconnect>,
    /// The private word beside the peer's bell in every wait on this link: bumped when the connection ends.
    control: AtomicU32,
    /// How far the dispatching thread has consumed the peer's ring; at least what its `head` says.
    consumed: CachePadded<AtomicU64>,
    /// Whether the dispatching thread has published that itself, in a call. Written by that thread alone.
    consumed_published: AtomicBool,

    backlog: Backlog,
    channels: OutgoingChannels,
    caller: Caller,
    answers: Answerer,
    space_spin: Spin,
    reply_spin: Spin,

    sockets: Sockets,
    port: Weak<PortCore>,
}

impl Link {
    pub(crate) fn new(admitted: Admitted, port: &Arc<PortCore>, config: &Config) -> Arc<Self> {
        let Admitted { own, peer, credentials, renderer_id, peer_endpoint, incoming, outgoing, role, .. } = &admitted;
        let (own, peer) = (Arc::clone(own), Arc::clone(peer));
        // A call needs a bell that the caller arms in its outbox, and a slot in the other: as many as both have.
        let slots = own.geometry().slot_count().min(peer.geometry().slot_count());
        let link = Self {
            id: *renderer_id,
            role: *role,
            credentials: *credentials,
            epoch: Epoch::current(),
            port_token: port.token(),
            peer_token: *peer_endpoint,
            producer: Producer::new(own.ring(), PeerHead::new(Arc::clone(&peer)), own.key()),
            outgoing: *outgoing,
            incoming: *incoming,
            data_waker: Waker::default(),
            space_waker: Waker::default(),
            reply_wakers: (0..slots).map(|_| Waker::default()).collect(),
            open: AtomicBool::new(true),
            reason: OnceLock::new(),
            control: AtomicU32::new(0),
            consumed: CachePadded::new(AtomicU64::new(0)),
            consumed_published: AtomicBool::new(false),
            backlog: Backlog::new(config.backlog_limit),
            channels: OutgoingChannels::new(),
            caller: Caller::new(slots),
            answers: Answerer::new(slots),
            space_spin: Spin::new(config.wait),
            reply_spin: Spin::new(config.wait),
            sockets: Sockets::new(admitted),
            port: Arc::downgrade(port),
            own,
            peer,
        };
        let link = Arc::new(link);
        Sockets::watch(&link);
        link
    }

    /// The renderer's number, given by main: unique among all that one main ever had. The same on both sides.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Which side of the connection this process is.
    pub fn role(&self) -> Role {
        self.role
    }

    /// Who the peer's process was when it connected, as the kernel told.
    pub fn credentials(&self) -> Credentials {
        self.credentials
    }

    /// Whether the connection has not ended. It may end at any moment after.
    #[inline(always)]
    pub fn is_connected(&self) -> bool {
        self.open.load(Ordering::Relaxed)
    }

    /// Whether this handle came through a fork: the connection is the parent's.
    pub fn is_forked(&self) -> bool {
        !self.epoch.is_current()
    }

    /// Why the connection ended; `None` while it lasts.
    pub fn ended(&self) -> Option<Disconnect> {
        // SYNC link-ended: acquire pairs with `disconnect`, so that the reason is there.
        if self.open.load(Ordering::Acquire) { None } else { self.reason.get().cloned() }
    }

    /// The longest message that this connection's ring can carry, in bytes.
    pub fn max_payload(&self) -> usize {
        self.producer.max_payload()
    }

    /// Whether `channel` has been announced to the peer.
    #[inline]
    pub fn is_announced(&self, channel: u16) -> bool {
        self.channels.contains(channel)
    }

    pub(crate) fn peer(&self) -> &Arc<PeerOutbox> {
        &self.peer
    }

    pub(crate) fn own(&self) -> &Arc<OwnOutbox> {
        &self.own
    }

    pub(crate) fn answers(&self) -> &Answerer {
        &self.answers
    }

    /// Why nothing can be done here, if so.
    fn refusal(&self) -> Option<Refusal> {
        if !self.epoch.is_current() {
            return Some(Refusal::Forked);
        }
        self.ended().map(Refusal::Disconnected)
    }
}

/// What stands in the way of every operation.
enum Refusal {
    Forked,
    Disconnected(Disconnect),
}

macro_rules! refusal_into {
    ($($error:ident),*) => {$(
        impl From<Refusal> for crate::error::$error {
            fn from(refusal: Refusal) -> Self {
                match refusal {
                    Refusal::Forked => Self::Forked,
                    Refusal::Disconnected(reason) => Self::Disconnected(reason),
                }
            }
        }
    )*};
}
refusal_into!(SendError, CallError, ReplyError);

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link")
            .field("id", &self.id)
            .field("role", &self.role)
            .field("credentials", &self.credentials)
            .field("ended", &self.ended())
            .finish_non_exhaustive()
    }
}
