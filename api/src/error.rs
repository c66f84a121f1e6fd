//! What can go wrong, one enum per operation. The engine's enums are repeated here where an operation of this crate can
//! fail in more ways.

use std::{fmt, sync::Arc};

#[doc(inline)]
pub use memit_engine::{
    BindError, Busy, ConnectError, CreateError, Disconnect, ExclusiveError, HeaderField, HeaderRefused, InvalidConfig,
    MemoryRefused, NameInvalid, NameProblem, OutboxRejected, RefusalCode, RuntimeDirError,
};

use crate::{EncodeError, Failure, Peer};

/// Why a message was not sent. Nothing of it was, and nothing else was lost: the same message may be sent again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// No space now: in the ring or, for a large message, in the shared memory beside it for
    /// [`try_send`](crate::Sender::try_send) and [`broadcast`](crate::IpcMain::broadcast); in the queue behind the ring
    /// or in that memory for whoever sends from the dispatching thread. Or another thread has the
    /// way to the peer [to itself](crate::Sender::exclusive).
    #[error(
        "there is no way for {len} bytes now: the peer has not made space for more, or another thread holds the \
         exclusive guard; send again later, or send less"
    )]
    Full {
        /// The message's length in bytes.
        len: usize,
    },
    /// No space until the deadline, or another thread had the way to the peer to itself until then.
    #[error(
        "there was no way for {len} bytes in time: the peer made no space, being slow or stopped, or another thread held \
         the exclusive guard"
    )]
    Timeout {
        /// The message's length in bytes.
        len: usize,
    },
    /// The message is longer than the two ends agreed on when they connected.
    #[error(
        "a message of {len} bytes was to be sent and may have {max}; raise message_limit at both ends or send it in pieces"
    )]
    TooLarge {
        /// The message's length in bytes.
        len: usize,
        /// The most that one message may have, in bytes.
        max: usize,
    },
    /// The system has no memory, no descriptor or no mapping left for a large message. The text says which.
    #[error("no shared memory for the message: {0}")]
    NoMemory(Arc<str>),
    /// The sending thread is the one that would have to make space, or has the way to the peer
    /// [to itself](crate::Sender::exclusive) and sends past its guard.
    #[error(
        "this thread would wait for itself: it holds the exclusive guard of this connection, so send by the guard; or it \
         dispatches the peer, whose ring is full, so use try_send or another thread"
    )]
    WouldDeadlock,
    /// The connection has ended.
    #[error("not sent: {0}")]
    Disconnected(#[source] Disconnect),
    /// The handle came through a fork, and the connection belongs to the parent.
    #[error("this process is a fork of the one that owns the connection; connect again in the child")]
    Forked,
    /// The message could not be encoded.
    #[error("the message could not be encoded: {0}")]
    Encode(#[from] EncodeError),
    /// The channel cannot be announced to the peer.
    #[error(transparent)]
    Channel(#[from] ChannelError),
}

/// Why nothing can be sent on a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChannelError {
    /// The endpoint sends on too many channels already.
    #[error(
        "this endpoint already sends on {max} channels, the most there can be; put what varies into the message, \
         not into the name"
    )]
    TooMany {
        /// How many there may be.
        max: usize,
    },
    /// The name is too long.
    #[error("the channel's name has {len} bytes and may have {max}; shorten it")]
    NameTooLong {
        /// The name's length in bytes.
        len: usize,
        /// The most that it may have.
        max: usize,
    },
    /// The descriptions of all channels' types are too long together.
    #[error(
        "with this channel, the descriptions of the types that this endpoint sends have {len} bytes in all and may \
         have {max}; use fewer or smaller types, or another endpoint"
    )]
    SchemasTooLong {
        /// The length of all descriptions with this one, in bytes.
        len: usize,
        /// The most that they may have.
        max: usize,
    },
    /// A type's description is too long.
    #[error(
        "the description of the channel's types has {len} bytes and may have {max}; split the type over several \
         channels"
    )]
    SchemaTooLong {
        /// The description's length in bytes.
        len: usize,
        /// The most that it may have.
        max: usize,
    },
}

/// Why a synchronous call brought no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// Nobody listens on the channel at the other side.
    #[error("nobody listens on this channel at the other side; register a listener there, or check the channel's name")]
    NoListener,
    /// The listeners ran and none set a return value.
    #[error("the listeners ran and none set a return value; call event.set_return_value in one of them")]
    NoReply,
    /// A listener panicked, with this text.
    #[error("the listener panicked: {0}")]
    ListenerPanicked(String),
    /// The channel is listened to with other types only; the text shows both.
    #[error("the channel's types differ between the two sides: {0}")]
    SchemaMismatch(String),
    /// The listener failed, or its value could not be sent, or the message or the value exceeds a limit.
    #[error("the listener could not answer: {0}")]
    ReplyFailed(String),
    /// No answer until the deadline. A late one is dropped.
    #[error("no answer arrived in time; the peer may be slow, stopped, or not dispatching")]
    Timeout,
    /// The caller waits for the callee, which waits for the caller. Or the calling thread has the way to the peer
    /// [to itself](crate::Sender::exclusive).
    #[error(
        "the other side's dispatching thread waits for this one, so call from another thread, or send a message instead; \
         or this thread holds the exclusive guard of this connection, so drop that first"
    )]
    WouldDeadlock,
    /// No space for the message, in the queue of the dispatching thread or in the shared memory for large ones.
    #[error("the peer has not made space for {len} more bytes; call again later, or send less")]
    Full {
        /// The message's length in bytes.
        len: usize,
    },
    /// The message is longer than the two ends agreed on when they connected.
    #[error(
        "a message of {len} bytes was to be sent and may have {max}; raise message_limit at both ends or send it in pieces"
    )]
    TooLarge {
        /// The message's length in bytes.
        len: usize,
        /// The most that the message of a call may have, in bytes.
        max: usize,
    },
    /// The system has no memory, no descriptor or no mapping left for a large message. The text says which.
    #[error("no shared memory for the message: {0}")]
    NoMemory(Arc<str>),
    /// The connection ended before the answer came.
    #[error("no answer: {0}")]
    Disconnected(#[source] Disconnect),
    /// The handle came through a fork, and the connection belongs to the parent.
    #[error("this process is a fork of the one that owns the connection; connect again in the child")]
    Forked,
    /// The message could not be encoded.
    #[error("the message could not be encoded: {0}")]
    Encode(#[from] EncodeError),
    /// The channel cannot be announced to the peer.
    #[error(transparent)]
    Channel(#[from] ChannelError),
}

/// Why [`Event::set_return_value`](crate::Event::set_return_value) returned nothing. The caller was told so, unless the
/// value could not be encoded: then it still waits for one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReturnError {
    /// The value is longer than the two ends agreed on when they connected.
    #[error(
        "a value of {len} bytes was to be returned and may have {max}; raise message_limit at both ends or send it in pieces"
    )]
    TooLarge {
        /// The value's length in bytes.
        len: usize,
        /// The most that a returned value may have, in bytes.
        max: usize,
    },
    /// No space for a large value now: the peer keeps so many that no more may be on their way to it.
    #[error(
        "the peer has not given back the memory for a value of {len} bytes; it keeps payloads, so raise arena_limit at both \
         ends or have it drop some"
    )]
    Full {
        /// The value's length in bytes.
        len: usize,
    },
    /// The system has no memory, no descriptor or no mapping left for a large value. The text says which.
    #[error("no shared memory for the value: {0}")]
    NoMemory(Arc<str>),
    /// The value could not be encoded.
    #[error("the value could not be encoded: {0}")]
    Encode(#[from] EncodeError),
}

/// Why an endpoint does not dispatch.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// Another thread dispatches, or the listener that asks runs inside a dispatch.
    #[error(transparent)]
    Busy(#[from] Busy),
    /// The endpoint was shut down.
    #[error("this endpoint was shut down; make a new one to go on")]
    ShutDown,
    /// The handle came through a fork, and the endpoint belongs to the parent.
    #[error("this process is a fork of the one that owns the endpoint; make a new one in the child")]
    Forked,
    /// The renderer's main is gone, so nothing will ever arrive.
    #[error("nothing left to dispatch: {0}")]
    Disconnected(#[source] Disconnect),
}

/// What went wrong while dispatching, for the listeners of [`Emitter::on_error`](crate::Emitter::on_error).
#[derive(Debug)]
#[non_exhaustive]
pub enum DispatchError {
    /// A message or call came on a channel that is listened to with other types only.
    SchemaMismatch {
        /// The channel's name.
        channel: Arc<str>,
        /// Who sent it.
        peer: Peer,
        /// The sender's types.
        found: String,
        /// The listeners' types.
        expected: String,
    },
    /// A message was not a valid encoding of its type; its sender was disconnected.
    InvalidMessage {
        /// The channel's name.
        channel: Arc<str>,
        /// Who sent it.
        peer: Peer,
        /// What is wrong with it.
        reason: String,
    },
    /// A message nests deeper or holds more values than is accepted. No listener heard it; its sender stays connected.
    BeyondLimits {
        /// The channel's name.
        channel: Arc<str>,
        /// Who sent it.
        peer: Peer,
        /// Which limit it exceeds.
        reason: String,
    },
    /// A message's listener returned an error.
    Listener {
        /// The channel's name.
        channel: Arc<str>,
        /// Who sent the message.
        peer: Peer,
        /// What the listener returned.
        failure: Failure,
    },
    /// A listener of [`on_connect`](crate::Emitter::on_connect) or [`on_disconnect`](crate::Emitter::on_disconnect)
    /// returned an error.
    ConnectionListener {
        /// Who came or went.
        peer: Peer,
        /// What the listener returned.
        failure: Failure,
    },
}

impl DispatchError {
    /// The peer whose message, arrival or departure led here.
    pub fn peer(&self) -> Peer {
        match self {
            Self::SchemaMismatch { peer, .. }
            | Self::InvalidMessage { peer, .. }
            | Self::BeyondLimits { peer, .. }
            | Self::Listener { peer, .. }
            | Self::ConnectionListener { peer, .. } => *peer,
        }
    }

    /// The channel of the message that led here.
    pub fn channel(&self) -> Option<&str> {
        match self {
            Self::SchemaMismatch { channel, .. }
            | Self::InvalidMessage { channel, .. }
            | Self::BeyondLimits { channel, .. }
            | Self::Listener { channel, .. } => Some(channel),
            Self::ConnectionListener { .. } => None,
        }
    }
}

impl std::error::Error for DispatchError {}

impl fmt::Display for DispatchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SchemaMismatch { channel, peer, found, expected } => write!(
                f,
                "channel {channel:?}: {peer} sends {found} and the listeners here expect {expected}; \
                 make both sides use the same types"
            ),
            Self::InvalidMessage { channel, peer, reason } => {
                write!(
                    f,
                    "channel {channel:?}: {peer} sent bytes that are no valid message and was disconnected: {reason}"
                )
            }
            Self::BeyondLimits { channel, peer, reason } => write!(
                f,
                "channel {channel:?}: a message from {peer} was dropped, for it exceeds a limit: {reason}; \
                 have it send smaller ones"
            ),
            Self::Listener { channel, peer, failure } => {
                write!(f, "channel {channel:?}: the listener failed on a message from {peer}: {failure}")
            }
            Self::ConnectionListener { peer, failure } => {
                write!(f, "a connection listener failed on {peer}: {failure}")
            }
        }
    }
}

impl From<memit_engine::SendError> for SendError {
    fn from(error: memit_engine::SendError) -> Self {
        use memit_engine::SendError as Engine;
        match error {
            Engine::Full { len } => Self::Full { len },
            Engine::Timeout { len } => Self::Timeout { len },
            Engine::TooLarge { len, max } => Self::TooLarge { len, max },
            Engine::NoMemory(text) => Self::NoMemory(text),
            Engine::WouldDeadlock => Self::WouldDeadlock,
            Engine::Disconnected(reason) => Self::Disconnected(reason),
            Engine::Forked => Self::Forked,
            other => Self::Disconnected(Disconnect::violation(other)),
        }
    }
}

impl From<memit_engine::CallError> for CallError {
    fn from(error: memit_engine::CallError) -> Self {
        use memit_engine::CallError as Engine;
        match error {
            Engine::NoListener => Self::NoListener,
            Engine::NoReply => Self::NoReply,
            Engine::ListenerPanicked(text) => Self::ListenerPanicked(text),
            Engine::SchemaMismatch(text) => Self::SchemaMismatch(text),
            Engine::ReplyFailed(text) => Self::ReplyFailed(text),
            Engine::Timeout => Self::Timeout,
            Engine::NoMemory(text) => Self::NoMemory(text),
            Engine::WouldDeadlock => Self::WouldDeadlock,
            Engine::TooLarge { len, max } => Self::TooLarge { len, max },
            Engine::Disconnected(reason) => Self::Disconnected(reason),
            Engine::Forked => Self::Forked,
            other => Self::ReplyFailed(other.to_string()),
        }
    }
}

/// Before a call goes out its channel is announced, which is a send.
impl From<SendError> for CallError {
    fn from(error: SendError) -> Self {
        match error {
            SendError::Full { len } => Self::Full { len },
            SendError::Timeout { .. } => Self::Timeout,
            SendError::TooLarge { len, max } => Self::TooLarge { len, max },
            SendError::NoMemory(text) => Self::NoMemory(text),
            SendError::WouldDeadlock => Self::WouldDeadlock,
            SendError::Disconnected(reason) => Self::Disconnected(reason),
            SendError::Forked => Self::Forked,
            SendError::Encode(error) => Self::Encode(error),
            SendError::Channel(error) => Self::Channel(error),
        }
    }
}

impl ReturnError {
    /// Why a value was not returned; `None` where nobody waits for it any more.
    pub(crate) fn of(error: memit_engine::ReplyError) -> Option<Self> {
        use memit_engine::ReplyError as Engine;
        match error {
            Engine::TooLarge { len, max } => Some(Self::TooLarge { len, max }),
            Engine::Full { len } => Some(Self::Full { len }),
            Engine::NoMemory(text) => Some(Self::NoMemory(text)),
            _ => None,
        }
    }
}
