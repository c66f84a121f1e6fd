//! How a main and its renderers find each other, and agree to talk.
//!
//! | file       | idea                                                     |
//! |------------|----------------------------------------------------------|
//! | `name`     | names, and the files of each                             |
//! | `path`     | the directory of these files                             |
//! | `lock`     | which process a name belongs to                          |
//! | `message`  | the packets, byte for byte                               |
//! | `state`    | both sides of a handshake, without I/O                   |
//! | `payloads` | what is agreed about payloads outside of the ring        |
//! | `gate`     | which users may connect                                  |
//! | `seats`    | how many may                                             |
//! | `listen`   | main: binds a name                                       |
//! | `accept`   | main: handshakes, on the library's thread                |
//! | `connect`  | a renderer: one handshake, on the caller's thread        |

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use crate::config::{Config, Credentials, WaitStrategy};
use crate::outbox::{Geometry, OwnOutbox, PeerOutbox};
use crate::sys::barrier::{self, Barrier};
use crate::sys::discard::discard;
use crate::sys::fork::ForkFd;
use crate::sys::peer_socket::{Maker, PeerSocket};
use crate::sys::socket;

mod accept;
mod connect;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod gate;
mod listen;
mod lock;
mod message;
mod name;
mod path;
mod payloads;
mod seats;
mod state;
#[cfg(test)]
mod tests;

pub(crate) use accept::AdmitSink;
pub use connect::ConnectError;
pub(crate) use connect::{connect, late_refusal};
pub use listen::BindError;
pub(crate) use listen::Listening;
pub use message::RefusalCode;
pub use name::{NameInvalid, NameProblem};
pub use path::RuntimeDirError;
pub(crate) use payloads::{LEAST_EXTENT, MOST_EXTENT, PayloadTerms, is_extent_size};

use message::{DESCRIPTORS, LAYOUT_VERSION, Refusal, RefusalCode as Code, Terms, capability};
use seats::Seat;

/// Which side of a connection an endpoint is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// It bound the name; it may have many connections.
    Main,
    /// It connected to the name; it has one.
    Renderer,
}

/// A connection whose handshake is complete.
#[derive(Debug)]
pub(crate) struct Admitted {
    pub(crate) role: Role,
    pub(crate) own: Arc<OwnOutbox>,
    pub(crate) peer: Arc<PeerOutbox>,
    /// For farewells, and for the hang-up.
    pub(crate) socket: PeerSocket,
    /// Our descriptor bell: the end of it that this side alone can read.
    pub(crate) bell: PeerSocket,
    /// The end of the peer's bell that rings it.
    pub(crate) peer_bell: PeerSocket,
    /// Readable when the peer's process has ended; never, where there is no such descriptor to be had.
    pub(crate) pidfd: ForkFd,
    /// Who the peer was when it connected, or, of a main, when it bound.
    pub(crate) credentials: Credentials,
    /// Given by main; on both sides the same.
    pub(crate) renderer_id: u64,
    /// The token of the peer's endpoint.
    pub(crate) peer_endpoint: u64,
    /// What the peer says about payloads, checked.
    pub(crate) payloads: PayloadTerms,
    /// How this side sleeps: its heavy barrier.
    pub(crate) incoming: Barrier,
    /// How the peer sleeps: this side's light barrier.
    pub(crate) outgoing: Barrier,
    /// In a main, what counts this connection.
    _seat: Option<Seat>,
}

/// What an endpoint says of itself in a handshake.
fn terms(config: &Config, geometry: Geometry, endpoint: u64) -> Terms {
    let registered = barrier::registered();
    let mut capabilities = 0;
    if registered {
        capabilities |= capability::REGISTERED;
        // Who parks at every wait would pay for a heavy barrier at every wait.
        if config.wait != WaitStrategy::Park {
            capabilities |= capability::ASYMMETRIC_SLEEP;
        }
    }
    Terms {
        layout: LAYOUT_VERSION,
        capabilities,
        fingerprint: config.format_fingerprint,
        endpoint,
        outbox_size: geometry.size() as u64,
        ring_capacity: geometry.capacity().get() as u64,
        slot_count: geometry.slot_count(),
        payloads: config.payload_terms(),
    }
}

/// What came with a Hello or a Welcome: an outbox, still to be checked, and the end of the peer's bell that rings it.
fn outbox_and_bell(descriptors: Vec<OwnedFd>) -> Result<(OwnedFd, PeerSocket), Refusal> {
    let refused = |descriptors: Vec<OwnedFd>, found: usize, expected: usize, text: &str| {
        descriptors.into_iter().for_each(discard);
        Err(Refusal::new(Code::BadMessage, found as u64, expected as u64, text))
    };
    match <[OwnedFd; DESCRIPTORS]>::try_from(descriptors) {
        Ok([outbox, bell]) if socket::is_seqpacket(bell.as_fd()) => Ok((outbox, PeerSocket::new(bell, Maker::Peer))),
        Ok(others) => refused(others.into(), 0, 0, "the bell is not a SEQPACKET Unix socket"),
        Err(others) => {
            let found = others.len();
            refused(others, found, DESCRIPTORS, "not an outbox and a bell came")
        }
    }
}

/// Whether the outbox that came is the one that was announced.
fn same_outbox(announced: &Terms, outbox: &PeerOutbox) -> Result<(), Refusal> {
    let found = outbox.geometry();
    let announces = (announced.outbox_size, announced.ring_capacity, announced.slot_count);
    let has = (found.size() as u64, found.capacity().get() as u64, found.slot_count());
    if announces == has {
        return Ok(());
    }
    let text = format!("the outbox has (size, ring, slots) {has:?}, announced were {announces:?}");
    Err(Refusal::new(Code::BadOutbox, has.0, announces.0, text))
}
