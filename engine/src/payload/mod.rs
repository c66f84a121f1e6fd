//! Payloads that do not fit a frame, and payloads that are kept.
//!
//! | file       | idea                                                                         |
//! |------------|------------------------------------------------------------------------------|
//! | `location` | where a payload lies, byte for byte                                          |
//! | `runs`     | the free pages of an extent                                                  |
//! | `ledger`   | what a sender has lent out, and what its peer may give back: no memory in it |
//! | `arena`    | the sender's memory, as the ledger says                                      |
//! | `loan`     | memory to write a payload to, and one that is ready to be sent               |
//! | `inbound`  | the peer's memory at the receiver                                            |
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
pub(crate) mod inbound;
pub(crate) mod kept;
pub(crate) mod ledger;
#[cfg(any(test, fuzzing))]
pub(crate) mod ledger_model;
pub(crate) mod loan;
pub(crate) mod location;
pub(crate) mod private;
mod runs;

pub use kept::Kept;
pub use loan::Loan;

/// Blocks begin at multiples of this, whatever the machine's page size is.
pub(crate) const PAGE: usize = 4096;

/// What one sender has lent out at once: as much as its peer's ring of give-backs has room for.
pub(crate) const MOST_OUTSTANDING: usize = 1024;
const _: () = assert!(MOST_OUTSTANDING as u64 == crate::outbox::GIVE_BACKS);

/// Extents and sealed memories of one sender that its peer has not given back.
pub(crate) const MOST_MEMORIES: usize = 64;
