//! Electron-style IPC for Rust programs, over lock-free shared memory.
//!
//! One **main** process and any number of **renderer** processes talk through named, typed channels. What the listeners
//! see are the message's own bytes, in place: nothing is parsed.
//!
//! ```
//! use memit::{Channel, IpcMain, IpcRenderer};
//!
//! #[memit::message]
//! struct Tick {
//!     seq: u64,
//!     symbol: String,
//!     price: f64,
//! }
//!
//! const TICK: Channel<Tick> = Channel::new("tick");
//! const ACK: Channel<u64> = Channel::new("ack");
//! const TOTAL: Channel<String, f64> = Channel::new("total"); // a message, and what answers a call
//!
//! let app = format!("tour-{}", std::process::id());
//!
//! // The main side, in a thread here and usually in a process of its own.
//! let main = IpcMain::bind(&app)?;
//! let total = std::sync::Arc::new(std::sync::Mutex::new(0.0));
//! let sum = total.clone();
//! main.on(TICK, move |event, tick| {
//!     *sum.lock().unwrap() += tick.price.to_native();
//!     event.reply(ACK, &tick.seq.to_native())
//! });
//! main.on(TOTAL, move |event, _symbol| event.set_return_value(&*total.lock().unwrap()));
//! let running = std::thread::spawn({
//!     let main = main.clone();
//!     move || main.run()
//! });
//!
//! // A renderer.
//! let renderer = IpcRenderer::connect(&app)?;
//! let (acked, acks) = std::sync::mpsc::channel();
//! renderer.on(ACK, move |_, seq| acked.send(seq.to_native()));
//! renderer.send(TICK, &Tick { seq: 7, symbol: "MMT".into(), price: 1.25 })?;
//! let total = renderer.send_sync(TOTAL, "MMT")?;
//! assert_eq!(total, 1.25);
//! while acks.try_recv() != Ok(7) {
//!     renderer.run_once(std::time::Duration::from_secs(5))?;
//! }
//!
//! main.shutdown();
//! running.join().unwrap()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What it guarantees
//!
//! - **Order.** What one thread sends to one peer arrives in the order in which it was sent, calls among the messages.
//!   A message is delivered once or, if the connection ends first, not at all.
//! - **Ends.** Every wait ends: a peer that dies, at whatever instruction, ends each call to it at once, and what it
//!   had sent before is still delivered. [`CallError`] says why a call brought no value; [`SendError`], why a message
//!   was not sent, and then nothing is lost.
//! - **Safety.** Whatever bytes a peer writes, safe code here stays sound: they are copied and checked before a
//!   listener sees them. A peer that breaks the protocol is disconnected, and the others go on. Peers cannot write our
//!   memory, nor truncate it.
//! - **Types.** Both sides' types are compared by structure when a channel is first used. What does not fit is an error
//!   on both sides, never a misread message.
//! - **Nothing left behind.** Messages lie in memory without a name, which the kernel frees with its last process.
//! - **Speed.** A busy pair makes no system call and no heap allocation per message, and takes no lock.
//!
//! # Where things are
//!
//! | to do | see |
//! |---|---|
//! | make the two ends | [`IpcMain`], [`IpcRenderer`], [`Builder`] |
//! | declare what travels | [`#[memit::message]`](macro@message), [`Channel`], [`Payload`], [`args!`], [`Value`] |
//! | listen | [`Emitter`], [`Event`], [`Retained`], [`ListenerId`] |
//! | send and call | [`Sender`], [`EncodeAs`], [`Loan`], [`Reply`] |
//! | send many messages | [`ChannelSender`], [`Exclusive`] |
//! | know who and why | [`Peer`], [`Disconnect`], [`DispatchError`], and what can go wrong in [`error`] |
//! | set how to wait and whom to trust | [`WaitStrategy`], [`Trust`] |
//!
//! Linux 5.1 or newer, 64 bits.

#![warn(missing_docs)]

extern crate self as memit;

mod builder;
mod channel;
mod channel_sender;
mod emitter;
pub mod encode;
mod endpoint;
pub mod error;
mod event;
mod exclusive;
mod failure;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
#[cfg(all(test, not(fuzzing)))]
mod fuzzing;
mod ipc_main;
mod ipc_renderer;
mod loan;
pub mod message;
mod outgoing;
pub mod payload;
mod peer;
mod reply;
mod retained;
pub mod schema;
mod sender;
mod trust;
pub mod value;
mod way;

#[doc(inline)]
pub use memit_engine::{Credentials, WaitStrategy};
#[doc = include_str!("message.md")]
pub use memit_macros::message;
#[doc(hidden)]
pub use rkyv;

pub use crate::{
    builder::Builder,
    channel::{Channel, IntoChannel},
    channel_sender::ChannelSender,
    emitter::{Emitter, ListenerId},
    encode::{EncodeAs, EncodeError},
    error::{
        BindError, Busy, CallError, ChannelError, ConnectError, Disconnect, DispatchError, ExclusiveError, ReturnError,
        RunError, SendError,
    },
    event::Event,
    exclusive::{ChannelExclusive, Exclusive},
    failure::{Failure, Outcome, ok},
    ipc_main::{IpcMain, WeakIpcMain},
    ipc_renderer::{IpcRenderer, WeakIpcRenderer},
    loan::Loan,
    message::Message,
    payload::{InvalidPayload, Payload, Plain},
    peer::Peer,
    reply::Reply,
    retained::Retained,
    schema::Schema,
    sender::Sender,
    trust::{FullTrust, Trust},
    value::{Args, Value},
};

// What the attribute's code needs, and the archived forms that listeners see.
#[doc(hidden)]
pub use zerocopy;

pub use crate::{
    failure::ArchivedFailure,
    message::format_fingerprint,
    payload::{MAX_ALIGN, MAX_DEPTH},
    value::{ArchivedArgs, ArchivedValue},
};

#[doc(hidden)]
pub mod __private {
    pub use crate::{
        encode::{
            Sink,
            twin::{Borrowed, BorrowedAs, FieldNames, Wrapped, resolve_field, same_names, serialize_field},
        },
        message::Inspect,
        schema::Part,
    };
}
