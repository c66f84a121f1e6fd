//! Payloads that do not fit a frame, and payloads that are kept.
//!
//! | file       | idea                                                                         |
//! |------------|------------------------------------------------------------------------------|
//! | `location` | where a payload lies, byte for byte                                          |
//! | `runs`     | the free pages of an extent                                                  |
//! | `ledger`   | what a sender has lent out, and what its peer may give back: no memory in it |
//! | `arena`    | the sender's memory, as the ledger says                                      |
//! | `room`     | memory that the sender takes back itself, and who waits for it               |
//! | `loan`     | memory to write a payload to, and one that is ready to be sent               |
//! | `inbound`  | the peer's memory at the receiver                                            |
//! | `budget`   | how much of it there may be                                                  |
//! | `private`  | the receiver's own copy                                                      |
//! | `kept`     | payloads that outlive their listener                                         |
//!
//! A payload takes one of three ways. Up to an eighth of the ring it lies in its frame. A larger one lies in a block
//! of the sender's arena, a list of extents: one-way memory like an outbox, passed to the peer when it is first used.
//! One that is larger than an extent, or large enough for the receiver to be better off, has a memfd of its own, which
//! is sealed against all writing.
//!
//! Both kinds of memory are lent: the receiver gives them back through a ring in its own outbox, and no sooner is
//! either used again or forgotten by its owner.

pub(crate) mod arena;
mod budget;
#[cfg(test)]
#[cfg(not(loom))]
mod budget_model;
pub(crate) mod inbound;
#[cfg(not(loom))]
pub(crate) mod kept;
pub(crate) mod ledger;
#[cfg(any(test, fuzzing))]
#[cfg(not(loom))]
pub(crate) mod ledger_model;
#[cfg(not(loom))]
pub(crate) mod loan;
pub(crate) mod location;
#[cfg(not(loom))]
pub(crate) mod private;
mod room;
mod runs;

#[cfg(not(loom))]
pub use kept::Kept;
#[cfg(not(loom))]
pub use loan::Loan;

/// Blocks begin at multiples of this, whatever the machine's page size is.
pub(crate) const PAGE: usize = 4096;

/// What one sender has lent out at once: as much as its peer's ring of give-backs has room for.
pub(crate) const MOST_OUTSTANDING: usize = 1024;
const _: () = assert!(MOST_OUTSTANDING as u64 == crate::outbox::GIVE_BACKS);

/// Extents and sealed memories of one sender that its peer has not given back.
pub(crate) const MOST_MEMORIES: usize = 64;

/// What holds in one direction of a connection. All are bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PayloadLimits {
    /// Of each extent.
    pub(crate) extent_size: usize,
    /// Of all extents together: at least `extent_size`.
    pub(crate) arena_limit: usize,
    /// Of one payload.
    pub(crate) message_limit: usize,
    /// What does not fit a frame and is at least this long goes in sealed memory of its own.
    pub(crate) sealed_from: usize,
}
