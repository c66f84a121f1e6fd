//! Carries frames of bytes from one process to another through memory that only the sender can
//! write, at the cost of the cache lines that the bytes fill.
//!
//! # What it guarantees
//! - **Order and wholeness.** Frames arrive in the order in which they were claimed, each exactly
//!   once and whole, whatever bytes they carry: a payload that looks like a frame is never taken
//!   for one.
//! - **Lock-free sending.** Threads share a [`Producer`]; a claim is one compare-exchange on a
//!   word that no other process sees. An [`Exclusive`] guard streams without any.
//! - **One line for a small message.** No tail index is shared: a consumer polls the very word
//!   that heads the next frame, and a payload of up to 48 bytes shares its cache line.
//! - **A hostile peer gains nothing.** Each side only reads what the other wrote, reads every word
//!   once, and checks it. Whatever the peer writes, no call here panics, loops without bound or
//!   leaves the ring's memory; what an honest peer cannot have written is a [`CorruptFrame`] or a
//!   [`CorruptHead`] that says what was wrong.
//!
//! It makes no system call, never waits and never allocates (but for [`HeapRing`]); how to wait is
//! its user's business: [`Consumer::is_ready`], [`ClaimError::Full`] and [`reached`] are what that
//! needs.
//!
//! # Example
//! ```
//! use memit_ringbuf::{Capacity, Consumer, Header, HeapCursor, HeapRing, Key, Polled, Producer};
//!
//! let ring = HeapRing::new(Capacity::new(64 * 1024)?);
//! let head = HeapCursor::new();
//! let key = Key::new(0x9E37_79B9_7F4A_7C15).expect("the low six bits are not all zero");
//!
//! let producer = Producer::new(ring.clone(), head.clone(), key);
//! let mut consumer = Consumer::new(ring, head, key);
//!
//! let mut claim = producer.try_claim(5)?;
//! claim.write(0, b"hello");
//! claim.commit(Header { channel: 7, kind: 1, flags: 0 });
//!
//! let frame = consumer.poll()?.frame().expect("one frame was committed");
//! let mut payload = [0; 5];
//! frame.copy_to(&mut payload);
//! assert_eq!((frame.header().channel, &payload), (7, b"hello"));
//! frame.release();
//! assert!(matches!(consumer.poll()?, Polled::Empty));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Map
//! | module | holds |
//! |---|---|
//! | `layout` | the frame's drawing, [`Capacity`], [`Header`] |
//! | `stamp` | [`Key`]: how positions become stamps |
//! | `cursor` | arithmetic on positions that wrap |
//! | `memory` | everything that touches the ring's bytes: the traits, mapped memory, the heap |
//! | `producer` | [`Producer`], and the essay on memory ordering |
//! | `claim` | [`Claim`]: write, commit, abort |
//! | `exclusive` | [`Exclusive`]: claims without a read-modify-write |
//! | `consumer` | [`Consumer`], [`Polled`], [`Frame`] |
//! | `error` | one small enum per operation |

#![warn(missing_docs)]
#![cfg_attr(not(any(loom, test, fuzzing, crash_points)), no_std)]

extern crate alloc;

#[macro_use]
mod crash;

mod claim;
mod consumer;
mod cursor;
mod error;
mod exclusive;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
#[cfg(all(test, not(any(fuzzing, loom))))]
mod fuzzing;
mod layout;
mod memory;
mod producer;
mod stamp;
mod sync;

pub use claim::Claim;
pub use consumer::{Consumer, Frame, Polled};
#[cfg(crash_points)]
#[doc(hidden)]
pub use crash::on_crash_point;
pub use cursor::reached;
pub use error::{ClaimError, CorruptFrame, CorruptHead, Held, InvalidCapacity};
pub use exclusive::Exclusive;
pub use layout::{Capacity, HEADER, Header, LINE, kind};
pub use memory::{
    HeapCursor, HeapRing, MappedRing, MappedRingMut, OwnCursor, PeerCursor, RingRead, RingView, RingWrite,
    copy_from_words, copy_to_words, each_line_to_prefetch, prefetch_to_write,
};
pub use producer::Producer;
pub use stamp::Key;
