//! The engine under memit: sealed shared memory, handshake, doorbells, synchronous calls.
//!
//! It moves bytes between one main process and its renderers, and knows no types. A [`Port`] is an endpoint, a
//! [`Link`] a connection to one peer; whoever dispatches a port is told through a [`Handler`] what arrives.
//!
//! What it guarantees, whatever a peer does:
//! - the peer can only read our memory, and nobody can truncate it: the kernel enforces that;
//! - every word read from a peer is read once, checked, and then used;
//! - a call always ends, and so does every wait on a peer that has died;
//! - when both processes are gone, so is all the memory: nothing that carries messages has a name.
//!
//! | module       | idea                                                                             |
//! |--------------|----------------------------------------------------------------------------------|
//! | `port`       | an endpoint: who is connected, whose turn it is, how the dispatching thread waits |
//! | `link`       | a connection: sends, calls, bells, the end                                       |
//! | `rendezvous` | names, handshake, admission                                                      |
//! | `outbox`     | the memory that one side writes and the other reads                              |
//! | `payload`    | payloads that do not fit a frame: where they lie, and whose they are             |
//! | `doorbell`   | when to ring, when to sleep                                                      |
//! | `call`       | ids and reply slots                                                              |
//! | `watcher`    | the library's one thread: handshakes and liveness                                |
//! | `sys`        | one file per family of system calls                                              |

#![warn(missing_docs)]
// The models use parts of what they are made of.
#![cfg_attr(loom, allow(dead_code, unreachable_pub, unused_imports))]

#[macro_use]
mod crash;

mod call;
mod doorbell;
mod end;
mod outbox;
mod payload;
mod sync;

#[cfg(loom)]
mod models;
#[cfg(loom)]
use models::{link, sys};

#[cfg(not(loom))]
mod advice;
#[cfg(not(loom))]
mod aligned;
#[cfg(not(loom))]
mod backlog;
#[cfg(not(loom))]
mod channels;
#[cfg(not(loom))]
mod config;
#[cfg(not(loom))]
mod error;
#[cfg(not(loom))]
mod frame;
#[cfg(all(fuzzing, not(loom)))]
#[doc(hidden)]
pub mod fuzzing;
#[cfg(all(test, not(any(fuzzing, loom))))]
mod fuzzing;
#[cfg(not(loom))]
mod link;
#[cfg(not(loom))]
mod port;
#[cfg(not(loom))]
mod rendezvous;
#[cfg(not(loom))]
mod sys;
#[cfg(not(loom))]
mod thread;
#[cfg(not(loom))]
mod watcher;

#[cfg(not(loom))]
pub use crate::{
    aligned::AlignedBytes,
    call::{CallToken, ReplyStatus},
    channels::{Announced, MAX_CHANNEL_NAME, MAX_CHANNELS},
    config::{Authorize, Config, Credentials, FullTrust, InvalidConfig, Trust, WaitStrategy},
    error::{Busy, CallError, Disconnect, ExclusiveError, ReplyError, SendError, Violation},
    link::{Exclusive, Link, Patience},
    outbox::{CreateError, HeaderField, HeaderRefused, MemoryRefused, OutboxRejected},
    payload::{Kept, Loan},
    port::{Dispatch, Handler, Incoming, Port, Wakeup, WeakPort},
    rendezvous::{BindError, ConnectError, NameInvalid, NameProblem, RefusalCode, Role, RuntimeDirError},
};
