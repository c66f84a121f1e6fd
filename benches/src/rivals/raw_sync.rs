//! raw_sync's events, which say that there is a message in a named segment of shared_memory: `BusyEvent` for who spins,
//! `Event`, a mutex and a condition variable, for who sleeps. One message at a time lies in each direction's place.
//!
//! Invariants:
//! 1. The segment has `len(place)` bytes from its start, which is page-aligned, and is mapped until the end is dropped.
//! 2. A direction's place is written by its sender only, before it signals that direction's event, and read by its
//!    receiver only, after the event was signalled and before the next message the other way. Messages alternate.
#![allow(unsafe_code)]

use std::sync::atomic::{Ordering, fence};
use std::{ptr, slice};

use ::raw_sync::Timeout;
use ::raw_sync::events::{BusyEvent, Event, EventImpl, EventInit, EventState};
use shared_memory::{Shmem, ShmemConf};

use super::{End, Expected, Outgoing, Place, Rival, Side, Wait};
use crate::Result;

/// Bytes for an event.
const EVENT: usize = 256;

/// The rival.
#[derive(Debug)]
pub struct Events;

/// The events and places of a side. They go before the segment.
pub struct Ends {
    to: Box<dyn EventImpl>,
    from: Box<dyn EventImpl>,
    /// Where messages are put, and where they come, from the segment's start.
    places: [usize; 2],
    len: usize,
    segment: Shmem,
}

fn len(place: &Place) -> usize {
    2 * (EVENT + place.len.next_multiple_of(EVENT))
}

fn name(place: &Place) -> String {
    format!("/{}raw_sync", place.prefix)
}

impl Rival for Events {
    type Offer = Ends;
    type Host = Ends;
    type Guest = Ends;

    fn offer(place: &Place) -> Result<Ends> {
        let segment = ShmemConf::new().os_id(name(place)).size(len(place)).create()?;
        Ends::new(segment, place, Side::Host)
    }

    fn host(offer: Ends, _: &Place) -> Result<Ends> {
        Ok(offer)
    }

    fn guest(place: &Place) -> Result<Ends> {
        let segment = ShmemConf::new().os_id(name(place)).open()?;
        if segment.len() < len(place) {
            return Err(format!("the segment has {} bytes, and {} were expected", segment.len(), len(place)).into());
        }
        Ends::new(segment, place, Side::Guest)
    }
}

impl Ends {
    fn new(segment: Shmem, place: &Place, side: Side) -> Result<Self> {
        let event = |nth: usize| -> Result<Box<dyn EventImpl>> {
            // SAFETY: within the segment (1).
            let at = unsafe { segment.as_ptr().add(nth * EVENT) };
            let made = match (side, place.wait) {
                // SAFETY: the memory is mapped for as long as the event is used, and nobody else uses it yet (1).
                (Side::Host, Wait::Spin) => unsafe { BusyEvent::new(at, true) },
                // SAFETY: as above.
                (Side::Host, Wait::Block) => unsafe { Event::new(at, true) },
                // SAFETY: the host has made an event there before this process was started.
                (Side::Guest, Wait::Spin) => unsafe { BusyEvent::from_existing(at) },
                // SAFETY: as above.
                (Side::Guest, Wait::Block) => unsafe { Event::from_existing(at) },
            };
            Ok(made.map_err(|error| error.to_string())?.0)
        };
        let (there, back) = (event(0)?, event(1)?);
        let places = [2 * EVENT, 2 * EVENT + place.len.next_multiple_of(EVENT)];
        let len = place.len;
        Ok(match side {
            Side::Host => Self { to: there, from: back, places, len, segment },
            Side::Guest => Self { to: back, from: there, places: [places[1], places[0]], len, segment },
        })
    }
}

impl End for Ends {
    #[inline]
    fn send(&mut self, message: &Outgoing) -> Result<()> {
        let bytes = &message.bytes()[..self.len];
        // SAFETY: within the segment (1).
        let place = unsafe { self.segment.as_ptr().add(self.places[0]) };
        // SAFETY: this side's place, which nobody reads now (2), has room for `len` bytes.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), place, self.len) };
        // SYNC raw-sync-message: pairs with the fence in `receive`. A BusyEvent is signalled without an ordering.
        fence(Ordering::Release);
        Ok(self.to.set(EventState::Signaled).map_err(|error| error.to_string())?)
    }

    #[inline]
    fn receive(&mut self, expected: &Expected) -> Result<()> {
        self.from.wait(Timeout::Infinite).map_err(|error| error.to_string())?;
        // SYNC raw-sync-message: pairs with the fence in `send`.
        fence(Ordering::Acquire);
        // SAFETY: within the segment (1).
        let place = unsafe { self.segment.as_ptr().add(self.places[1]) };
        // SAFETY: the other side's place holds a message of `len` bytes, which is not written until it is answered (2).
        expected.check(unsafe { slice::from_raw_parts(place, self.len) })
    }
}
