//! memit and its rivals on the same work, between the same two pinned processes.
//!
//! Each rival is a [`Rival`]: how the host makes its [`End`] and how the guest makes the other. What the two do with
//! their ends, and how it is timed, is the same for all: [`session`]. What is compared with what, and in which turns, is
//! the [`contest`]'s.
//!
//! | rival | file |
//! |---|---|
//! | memit: `send`/`on`, the guard, calls, loans, the raw ring | [`memit`], [`memit::ring`] |
//! | iceoryx2: publish and subscribe, request and response | [`iceoryx2`], [`iceoryx2::request`] |
//! | servo's ipc-channel | [`ipc_channel`] |
//! | Unix sockets | [`unix_stream`], [`unix_seqpacket`] |
//! | pipes | [`pipe`] |
//! | raw_sync's events on shared_memory | [`raw_sync`] |
//! | a Unix socket that carries lines of JSON | [`unix_json`] |
//! | rtrb against memit's ring, between threads | [`threads`] |

pub mod contest;
pub mod iceoryx2;
pub mod ipc_channel;
pub mod lineup;
pub mod memit;
pub mod message;
pub mod patience;
pub mod pipe;
pub mod place;
pub mod player;
mod quantiles;
pub mod raw_sync;
pub mod session;
pub mod threads;
pub mod unix_json;
pub mod unix_seqpacket;
pub mod unix_stream;

pub use self::message::{Expected, Outgoing};
pub use self::place::{Place, Side, Wait, Work};
use self::session::{Guest, Host};
use crate::Result;

/// A way for two processes to exchange messages.
pub trait Rival {
    /// What the host makes before the guest is started.
    type Offer;
    /// The host's end.
    type Host: End;
    /// The guest's end.
    type Guest: End;

    /// Makes whatever the guest will look for.
    fn offer(place: &Place) -> Result<Self::Offer>;
    /// The guest is being started: waits for it.
    fn host(offer: Self::Offer, place: &Place) -> Result<Self::Host>;
    /// Meets the host, which has made its offer.
    fn guest(place: &Place) -> Result<Self::Guest>;
}

/// One end. A message is received before the next one is sent, but for streams, which go one way.
pub trait End: Sized {
    /// Sends a message, waiting for room.
    fn send(&mut self, message: &Outgoing) -> Result<()>;

    /// Waits for a message, and looks whether it is the one that is expected.
    fn receive(&mut self, expected: &Expected) -> Result<()>;

    /// Has a guest that is busy dispatching take part in the probe.
    fn summon(&mut self) -> Result<()> {
        Ok(())
    }

    /// Does what the host is told, to the end.
    fn live_as_host(mut self, place: &Place, mut host: Host) -> Result<()> {
        live_as_host(&mut self, place, &mut host)
    }

    /// Does what the guest is told, to the end.
    fn live_as_guest(mut self, place: &Place, mut guest: Guest) -> Result<()> {
        live_as_guest(&mut self, place, &mut guest)
    }
}

fn live_as_host(end: &mut impl End, place: &Place, host: &mut Host) -> Result<()> {
    let (mut out, mut expected) = (Outgoing::new(place.len, Side::Host), Expected::new(Side::Guest));
    while let Some(segment) = host.open()? {
        let began = host.laps.begin();
        for number in segment.numbers() {
            out.number(number, segment.whole);
            end.send(&out)?;
            if place.work == Work::Trip {
                expected.number(number, segment.whole);
                end.receive(&expected)?;
                host.laps.lap();
            }
        }
        if place.work == Work::Stream {
            expected.number(segment.last(), segment.whole);
            end.receive(&expected)?;
        }
        let took = began.elapsed();
        end.summon()?;
        host.done(took)?;
    }
    Ok(())
}

fn live_as_guest(end: &mut impl End, place: &Place, guest: &mut Guest) -> Result<()> {
    let (mut out, mut expected) = (Outgoing::new(place.len, Side::Guest), Expected::new(Side::Host));
    while let Some(segment) = guest.open()? {
        for number in segment.numbers() {
            expected.number(number, segment.whole);
            end.receive(&expected)?;
            if place.work == Work::Trip || number == segment.last() {
                out.number(number, segment.whole);
                end.send(&out)?;
            }
        }
        guest.close();
    }
    Ok(())
}
