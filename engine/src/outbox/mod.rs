//! The memory that one side of a connection writes and the other reads.
//!
//! Each side owns one outbox: sealed memory that only its process can write, which the kernel enforces. In it lie the
//! ring of its outgoing frames, how far it has consumed the peer's ring, its doorbell words, the slots for its
//! replies, and what it gives back of the peer's payloads. So every shared word has one writer, and all that a hostile
//! peer can do is to write nonsense into its own outbox: whatever is read there is read once, checked, and then used.
//!
//! | file     | idea                                                       |
//! |----------|------------------------------------------------------------|
//! | `layout` | the drawing: where everything lies                         |
//! | `header` | what is checked before anything else is read               |
//! | `create` | [`OwnOutbox`]: make, seal, write                           |
//! | `accept` | [`PeerOutbox`]: take, distrust, read                       |

mod accept;
mod create;
#[cfg(any(test, fuzzing))]
#[cfg(not(loom))]
pub(crate) mod fuzzing;
mod header;
mod layout;

pub use accept::OutboxRejected;
pub(crate) use accept::{Limits, PeerHead, PeerOutbox};
pub(crate) use create::{OwnHead, OwnOutbox};
pub use header::{HeaderField, HeaderRefused};
#[cfg(loom)]
pub(crate) use layout::modelled_words;
pub(crate) use layout::{GIVE_BACKS, GiveBack};
pub(crate) use layout::{Geometry, LEAST_SLOTS, MOST_SLOTS};

pub use crate::sys::memfd::{CreateError, MemoryRefused};
