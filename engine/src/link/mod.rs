//! One peer: the rings, bells, calls and sockets of one connection.
//!
//! A [`Link`] is what any thread may hold: it sends, calls and replies. What only the dispatching thread does with a
//! connection, reading the peer's ring, is its [`Inbox`](crate::port::inbox::Inbox).
//!
//! | file        | idea                                                        |
//! |-------------|-------------------------------------------------------------|
//! | `send`      | a frame onto the ring, at once, later, or into the backlog  |
//! | `exclusive` | the ring for one thread alone                               |
//! | `room`      | what a sender waits for                                     |
//! | `calls`     | a call out and its reply back; calls that cross             |
//! | `bells`     | ringing the peer, sleeping until it rings                   |
//! | `payloads`  | memory for large payloads, passed and given back            |
//! | `liveness`  | the peer's end, and ours                                    |

mod bells;
mod calls;
mod exclusive;
mod liveness;
mod payloads;
mod room;
mod send;

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use crossbeam_utils::CachePadded;
use memit_ringbuf::{MappedRingMut, Producer};

use crate::backlog::{Answers, Backlog};
use crate::call::CallId;
use crate::call::answerer::Answerer;
use crate::call::caller::Caller;
use crate::channels::OutgoingChannels;
use crate::config::{Config, Credentials, Trust};
use crate::doorbell::protocol::Waker;
use crate::doorbell::release::Releases;
use crate::doorbell::strategy::Spin;
use crate::end::End;
use crate::error::Disconnect;
use crate::outbox::{OwnOutbox, PeerHead, PeerOutbox};
use crate::payload::arena::{Arena, Lent};
use crate::payload::inbound::Inbound;
use crate::port::PortCore;
use crate::rendezvous::{Admitted, Role};
use crate::sys::barrier::Barrier;
use crate::sys::fork::Epoch;
use liveness::Sockets;

pub(crate) use bells::bounded;
pub use exclusive::Exclusive;
pub(crate) use room::Blocked;
pub use send::Patience;

/// A connection to one peer. Shared by all threads that send to it.
pub struct Link {
    id: u64,
    /// Unlike the id, no other link of this process has it.
    serial: u64,
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
    blocks_waker: Waker,
    reply_wakers: Box<[Waker]>,

    end: End<Disconnect>,
    /// The private word beside the peer's bell in every wait on this link: bumped when the connection ends.
    control: AtomicU32,
    /// How far the dispatching thread has consumed the peer's ring; at least what its `head` says.
    consumed: CachePadded<AtomicU64>,
    /// Whether the dispatching thread has published that itself, in a call. Written by that thread alone.
    consumed_published: AtomicBool,

    backlog: Backlog,
    unsent_answers: Answers,
    channels: OutgoingChannels,
    caller: Caller,
    answers: Answerer,

    /// Our memory for payloads to the peer, and the peer's for those to us.
    arena: Arc<Arena>,
    inbound: Inbound,
    /// The last large answer in each slot.
    lent_replies: Mutex<Box<[Option<LentReply>]>>,
    /// The longest payload of a message that lies in its frame.
    inline_limit: usize,
    arena_idle: Duration,

    /// Who waits until the guard of the ring is let go.
    releases: Releases,

    space_spin: Spin,
    reply_spin: Spin,
    /// Whether a word that somebody waits for a reply with may ask the peer for fences.
    replies_fenced: AtomicBool,
    guard_spin: Spin,

    sockets: Sockets,
    port: Weak<PortCore>,
    me: Weak<Self>,
}

impl Link {
    pub(crate) fn new(admitted: Admitted, port: &Arc<PortCore>, config: &Config) -> Arc<Self> {
        let Admitted { renderer_id, peer_endpoint, role, credentials, incoming, outgoing, .. } = admitted;
        let (ours, theirs) = (config.payload_terms(), admitted.payloads);
        let (sending, receiving) = (ours.toward(theirs), theirs.toward(ours));
        let is_trusted = matches!(config.trust, Trust::Full(_));
        let (own, peer) = (Arc::clone(&admitted.own), Arc::clone(&admitted.peer));
        // A call needs a bell that the caller arms in its outbox, and a slot in the other: as many as both have.
        let slots = own.geometry().slot_count().min(peer.geometry().slot_count());
        let producer = Producer::new(own.ring(), PeerHead::new(Arc::clone(&peer)), own.key());
        let link = Arc::new_cyclic(|me| Self {
            id: renderer_id,
            serial: LINKS.fetch_add(1, Ordering::Relaxed),
            role,
            credentials,
            epoch: Epoch::current(),
            port_token: port.token(),
            peer_token: peer_endpoint,
            inline_limit: producer.max_payload().min(sending.message_limit),
            producer,
            outgoing,
            incoming,
            data_waker: Waker::default(),
            space_waker: Waker::default(),
            blocks_waker: Waker::default(),
            reply_wakers: (0..slots).map(|_| Waker::default()).collect(),
            end: End::new(),
            control: AtomicU32::new(0),
            consumed: CachePadded::new(AtomicU64::new(0)),
            consumed_published: AtomicBool::new(false),
            backlog: Backlog::new(config.backlog_limit),
            unsent_answers: Answers::new(config.backlog_limit),
            channels: OutgoingChannels::new(),
            caller: Caller::new(slots),
            answers: Answerer::new(slots),
            arena: Arena::new(sending, is_trusted, Arc::clone(&peer), Weak::clone(me)),
            inbound: Inbound::new(receiving, Weak::clone(me)),
            lent_replies: Mutex::new((0..slots).map(|_| None).collect()),
            arena_idle: config.arena_idle.max(LEAST_IDLE),
            space_spin: Spin::new(config.wait),
            reply_spin: Spin::new(config.wait),
            replies_fenced: AtomicBool::new(false),
            guard_spin: Spin::new(config.wait),
            releases: Releases::new(),
            sockets: Sockets::new(admitted),
            port: Arc::downgrade(port),
            me: Weak::clone(me),
            own,
            peer,
        });
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
        self.end.is_open()
    }

    /// Whether the connection has ended. If so, what the peer did before is seen.
    #[inline(always)]
    pub(crate) fn is_over(&self) -> bool {
        self.end.is_over()
    }

    /// Whether this handle came through a fork: the connection is the parent's.
    pub fn is_forked(&self) -> bool {
        !self.epoch.is_current()
    }

    /// Why the connection ended; `None` while it lasts.
    pub fn ended(&self) -> Option<Disconnect> {
        self.end.reason()
    }

    /// The longest message that this connection carries, in bytes: the lower of both sides' limits.
    pub fn max_message(&self) -> usize {
        self.arena.limits().message_limit
    }

    /// The longest payload that lies in its frame, in bytes. A longer one takes memory of its own.
    pub fn max_inline(&self) -> usize {
        self.producer.max_payload()
    }

    /// The longest payload that is worth writing where the peer will read it, in bytes. A longer one is better copied from
    /// memory of the sender's own: filling a file costs less than mapping it.
    pub fn max_block(&self) -> usize {
        let limits = self.arena.limits();
        limits.extent_size.min(limits.sealed_from.saturating_sub(1)).min(limits.message_limit)
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

/// How many links this process has had.
static LINKS: AtomicU64 = AtomicU64::new(0);
/// Extents are looked after no more often than this.
const LEAST_IDLE: Duration = Duration::from_millis(10);

/// Memory that was lent with an answer.
#[derive(Debug)]
struct LentReply {
    call: CallId,
    lent: Lent,
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
refusal_into!(SendError, CallError, ReplyError, ExclusiveError);

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
