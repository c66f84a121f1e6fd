//! What can go wrong on a connection, one enum per operation.

use std::sync::Arc;

/// Why a connection ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Disconnect {
    /// The peer shut its endpoint down.
    #[error("the peer closed its end of the connection")]
    Left,
    /// The peer's process ended, or its socket did, without a farewell.
    #[error("the peer's process or its socket is gone")]
    Died,
    /// Main ended the handshake after this side had taken the connection for made.
    #[error("main refused the connection: {0}")]
    Refused(Arc<str>),
    /// This process lacks what it takes to go on with the connection, or to receive what the peer sent.
    #[error("this process lacks what the connection takes: {0}")]
    NoResources(Arc<str>),
    /// The peer wrote something that the protocol does not allow.
    #[error("the peer broke the protocol and was disconnected: {0}")]
    Violation(Arc<str>),
    /// This side's own endpoint was shut down.
    #[error("this endpoint was shut down")]
    ShutDown,
}

impl Disconnect {
    /// A violation, in words.
    pub fn violation(text: impl std::fmt::Display) -> Self {
        Self::Violation(text.to_string().into())
    }
}

/// A message or a handler's refusal of it: the peer is disconnected with this text as the reason.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Violation(pub String);

/// Why a frame was not sent. Nothing of it was, and nothing else was lost.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// No space now: in the ring for those who do not wait, in the backlog for the dispatching thread. Or another thread
    /// has the guard of the ring.
    #[error(
        "there is no way for {len} bytes now: the peer has not made space for more, or another thread holds the \
         exclusive guard; send again later, or send less"
    )]
    Full {
        /// The message's length in bytes.
        len: usize,
    },
    /// No space until the deadline, or another thread had the guard of the ring until then.
    #[error(
        "there was no way for {len} bytes in time: the peer made no space, being slow or stopped, or another thread held \
         the exclusive guard"
    )]
    Timeout {
        /// The message's length in bytes.
        len: usize,
    },
    /// The message is longer than the two sides agreed on.
    #[error(
        "a message of {len} bytes was to be sent and at most {max} may be; raise message_limit at both ends or send it \
         in pieces"
    )]
    TooLarge {
        /// The message's length in bytes.
        len: usize,
        /// The lower of both sides' limits, in bytes.
        max: usize,
    },
    /// The machine refused memory for it, or a descriptor.
    #[error("no memory to send the message in: {0}")]
    NoMemory(Arc<str>),
    /// The sending thread is the one that would have to make space, or has the guard of the ring.
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
}

/// Why a connection's [guard](crate::Exclusive) was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ExclusiveError {
    /// Another thread has it, and the dispatching thread, which asks, does not wait.
    #[error(
        "another thread holds the exclusive guard of this connection, and the thread that dispatches does not wait for \
         it; use send, which queues, or another thread"
    )]
    Held,
    /// This thread has it already, or another has it and may wait for this one, which dispatches the peer.
    #[error(
        "this thread would wait for itself: it holds the exclusive guard of this connection already, or dispatches the \
         peer; drop the first guard, or use another thread"
    )]
    WouldDeadlock,
    /// The connection has ended.
    #[error("no guard: {0}")]
    Disconnected(#[source] Disconnect),
    /// The handle came through a fork, and the connection belongs to the parent.
    #[error("this process is a fork of the one that owns the connection; connect again in the child")]
    Forked,
}

/// Why a call brought no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// Nobody listens on the channel at the other side.
    #[error("nobody listens on this channel at the other side; register a listener there, or check the channel's name")]
    NoListener,
    /// The listeners ran and none set a return value.
    #[error("the listeners ran and none set a return value; call event.set_return_value in one of them")]
    NoReply,
    /// A listener panicked.
    #[error("the listener panicked: {0}")]
    ListenerPanicked(String),
    /// The channel is listened to with other types.
    #[error("the channel's types differ between the two sides: {0}")]
    SchemaMismatch(String),
    /// The listener failed, or its value could not be sent.
    #[error("the listener could not answer: {0}")]
    ReplyFailed(String),
    /// No answer until the deadline. A late one is dropped.
    #[error("no answer arrived in time; the peer may be slow, stopped, or not dispatching")]
    Timeout,
    /// The caller waits for the callee, which waits for the caller. Or the caller has the guard of the ring.
    #[error(
        "the other side's dispatching thread waits for this one, so call from another thread, or send a message instead; \
         or this thread holds the exclusive guard of this connection, so drop that first"
    )]
    WouldDeadlock,
    /// The message is longer than the two sides agreed on.
    #[error(
        "a message of {len} bytes was to be sent and at most {max} may be; raise message_limit at both ends or send it \
         in pieces"
    )]
    TooLarge {
        /// The message's length in bytes.
        len: usize,
        /// The lower of both sides' limits, in bytes.
        max: usize,
    },
    /// The machine refused memory for it, or a descriptor.
    #[error("no memory to send the call in: {0}")]
    NoMemory(Arc<str>),
    /// The connection ended before the answer came.
    #[error("no answer: {0}")]
    Disconnected(#[source] Disconnect),
    /// The handle came through a fork, and the connection belongs to the parent.
    #[error("this process is a fork of the one that owns the connection; connect again in the child")]
    Forked,
}

/// Why a reply was not delivered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReplyError {
    /// The call was answered before, or its caller gave up.
    #[error("the call was answered already, or its caller no longer waits")]
    Late,
    /// The value is longer than the two sides agreed on; the caller was told `ReplyFailed`.
    #[error(
        "a value of {len} bytes was to be returned and at most {max} may be; raise message_limit at both ends or \
         return it in pieces"
    )]
    TooLarge {
        /// The value's length in bytes.
        len: usize,
        /// The lower of both sides' limits, in bytes.
        max: usize,
    },
    /// There is no room for the value, nor in the queue of those that wait for some; the caller was told `ReplyFailed`.
    #[error(
        "the peer has not given back the memory for {len} bytes more, and what may wait for it is bounded; raise \
         arena_limit at both ends, or backlog_limit"
    )]
    Full {
        /// The value's length in bytes.
        len: usize,
    },
    /// The machine refused memory for it, or a descriptor; the caller was told `ReplyFailed`.
    #[error("no memory to return the value in: {0}")]
    NoMemory(Arc<str>),
    /// The connection has ended.
    #[error("not returned: {0}")]
    Disconnected(#[source] Disconnect),
    /// The handle came through a fork, and the connection belongs to the parent.
    #[error("this process is a fork of the one that owns the connection; connect again in the child")]
    Forked,
}

/// Somebody dispatches already: another thread, or this one further up its stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "this endpoint is being dispatched already, by another thread or by the listener that asks; one thread dispatches at a time"
)]
pub struct Busy;
