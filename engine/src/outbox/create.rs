//! The outbox of this process.
#![allow(unsafe_code)]

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

#[cfg(not(loom))]
use memit_ringbuf::MappedRingMut;
use memit_ringbuf::{Key, OwnCursor, each_line_to_prefetch};
use rustix::io::retry_on_intr;
use rustix::rand::{GetRandomFlags, getrandom};

use super::layout::{
    BLOCKS_ARMED, DATA_ARMED, DATA_BELL, GIVEN, Geometry, GiveBack, HEAD, SLOT_DESCRIPTOR, SLOT_ID, SLOT_PAYLOAD,
    SPACE_ARMED, SPACE_BELL, SPACE_WANTED, SlotHeader, WAITING,
};
use crate::sync::{AtomicU32, AtomicU64, Ordering};
use crate::sys::map::ReadWriteMap;
use crate::sys::memfd::{self, CreateError};

/// Sealed memory that this process writes and its peer reads.
#[derive(Debug)]
pub(crate) struct OwnOutbox {
    map: ReadWriteMap,
    geometry: Geometry,
    key: Key,
    /// The length of the last reply, as a guess at the next one's. Nothing else hangs on it, so no model needs it.
    last_reply: AtomicUsize,
}

impl OwnOutbox {
    /// Makes an outbox, and the descriptor for the peer, to be closed once it was sent.
    pub(crate) fn create(geometry: Geometry) -> Result<(Arc<Self>, OwnedFd), CreateError> {
        let key = random_key()?;
        let (fd, map) = memfd::create("memit-outbox", geometry.size())?;
        for (i, word) in geometry.header(key).into_iter().enumerate() {
            // Relaxed: whoever reads the header got the descriptor after this.
            map.word64(i * size_of::<u64>()).store(word, Ordering::Relaxed);
        }
        Ok((Arc::new(Self { map, geometry, key, last_reply: AtomicUsize::new(0) }), fd))
    }

    pub(crate) fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// The key of this outbox's ring.
    pub(crate) fn key(&self) -> Key {
        self.key
    }

    /// The ring of outgoing frames. One producer may use it.
    #[cfg(not(loom))]
    pub(crate) fn ring(self: &Arc<Self>) -> MappedRingMut<Arc<Self>> {
        let capacity = self.geometry.capacity();
        let base = self.map.region(self.geometry.ring_offset(), capacity.get());
        // SAFETY: `region` checked that the ring's bytes are within the map, which is page-aligned, writable, and
        // lives as long as the outbox, which the ring keeps alive. Its pages are reserved, so no access fails. This
        // module reaches into the ring through nothing else: its own offsets lie before or behind it.
        unsafe { MappedRingMut::new(base, capacity, Arc::clone(self)) }
    }

    /// How far this side has consumed the peer's ring.
    #[inline]
    pub(crate) fn head(&self) -> &AtomicU64 {
        self.map.word64(HEAD)
    }

    /// Says that this side's dispatcher sleeps for frames.
    #[inline]
    pub(crate) fn data_armed(&self) -> &AtomicU64 {
        self.map.word64(DATA_ARMED)
    }

    /// Says that producers of this side sleep for space in this outbox's ring.
    #[inline]
    pub(crate) fn space_armed(&self) -> &AtomicU64 {
        self.map.word64(SPACE_ARMED)
    }

    /// The head position that would let them go on.
    #[inline]
    pub(crate) fn space_wanted(&self) -> &AtomicU64 {
        self.map.word64(SPACE_WANTED)
    }

    /// What this side rings when it has sent.
    #[inline]
    pub(crate) fn data_bell(&self) -> &AtomicU32 {
        self.map.word32(DATA_BELL)
    }

    /// What this side rings when it has consumed.
    #[inline]
    pub(crate) fn space_bell(&self) -> &AtomicU32 {
        self.map.word32(SPACE_BELL)
    }

    /// The id of the call for which this side's dispatching thread waits; 0 for none.
    #[inline]
    pub(crate) fn waiting(&self) -> &AtomicU64 {
        self.map.word64(WAITING)
    }

    /// Says that a thread of this side sleeps for the reply in the peer's slot `i`.
    ///
    /// # Panics
    ///
    /// Unless `i` is less than this outbox's slot count. So for all that take an index here.
    #[inline]
    pub(crate) fn reply_armed(&self, i: u32) -> &AtomicU64 {
        self.map.word64(self.geometry.reply_armed(i))
    }

    /// What this side rings when it has written slot `i`.
    #[inline]
    pub(crate) fn reply_bell(&self, i: u32) -> &AtomicU32 {
        self.map.word32(self.geometry.reply_bell(i))
    }

    /// Says that slot `i` is about to be written, by a reply that may be as long as the last one.
    #[inline]
    pub(crate) fn prefetch_slot(&self, i: u32) {
        let slot = self.geometry.slot(i);
        let size = SLOT_PAYLOAD + self.last_reply.load(Relaxed);
        each_line_to_prefetch(size, |line| self.map.prefetch(slot + line));
    }

    /// Writes a reply into slot `i` and publishes it for the call `id`. One thread at a time may write a slot.
    ///
    /// # Panics
    ///
    /// If the payload is longer than [`Geometry::max_reply`].
    pub(crate) fn write_slot(&self, i: u32, payload: &[u8], id: u64, status: u8, place: u8) {
        assert!(payload.len() <= self.geometry.max_reply(), "the reply is longer than its slot");
        let slot = self.geometry.slot(i);
        let header = SlotHeader { len: payload.len(), status, place };
        crash_point!("reply-half-written", after self.map.write(slot + SLOT_PAYLOAD, &payload[..payload.len() / 2]));
        self.map.write(slot + SLOT_PAYLOAD, payload);
        self.map.word64(slot + SLOT_DESCRIPTOR).store(header.to_word(), Ordering::Relaxed);
        crash_point!("reply-before-id");
        // SYNC reply-publish: pairs with the acquire fence of whoever finds the id by `PeerOutbox::slot_id`.
        self.map.word64(slot + SLOT_ID).store(id, Ordering::Release);
        crash_point!("reply-after-id");
        // Written when it changes only: all threads read what is on this line.
        if self.last_reply.load(Relaxed) != payload.len() {
            self.last_reply.store(payload.len(), Relaxed);
        }
    }
}

impl OwnOutbox {
    /// Says that senders of this side sleep for blocks to be given back.
    #[inline]
    pub(crate) fn blocks_armed(&self) -> &AtomicU64 {
        self.map.word64(BLOCKS_ARMED)
    }

    /// How many give-backs this side has ever published.
    #[inline]
    pub(crate) fn given(&self) -> &AtomicU64 {
        self.map.word64(GIVEN)
    }

    /// Writes give-back `n`, counted from 0 without a gap, and publishes it. One thread at a time may.
    ///
    /// The entry that it writes over, `n - GIVE_BACKS`, was read: the peer has no more than that many things out, so
    /// it cannot have sent what `n` gives back before it took in that one.
    pub(crate) fn write_give_back(&self, n: u64, entry: GiveBack) {
        let at = self.geometry.give_back(n);
        for (i, word) in entry.to_words().into_iter().enumerate() {
            crash_point!("give-back-mid-entry");
            self.map.word64(at + i * size_of::<u64>()).store(word, Ordering::Relaxed);
        }
        crash_point!("give-back-not-counted");
        // SYNC give-back: pairs with the acquire fence of whoever finds it by `PeerOutbox::load_given`.
        self.given().store(n.wrapping_add(1), Ordering::Release);
        crash_point!("give-back-counted");
    }
}

/// A key that nobody can guess, drawn again until it can be one: its low six bits must not all be zero.
fn random_key() -> Result<Key, CreateError> {
    loop {
        let mut bytes = [0; size_of::<u64>()];
        let drawn = retry_on_intr(|| getrandom(&mut bytes, GetRandomFlags::empty()))
            .map_err(|error| CreateError::Failed { call: "getrandom", source: error.into() })?;
        if let Some(key) = Key::new(u64::from_ne_bytes(bytes)).filter(|_| drawn == bytes.len()) {
            return Ok(key);
        }
    }
}

/// This side's `head`, as its consumer of the peer's ring publishes it.
#[derive(Debug)]
pub(crate) struct OwnHead(Arc<OwnOutbox>);

impl OwnHead {
    pub(crate) fn new(outbox: Arc<OwnOutbox>) -> Self {
        Self(outbox)
    }
}

impl OwnCursor for OwnHead {
    #[inline]
    fn store(&self, position: u64) {
        // SYNC head-release: pairs with the ring's producer, behind `PeerHead::load`.
        self.0.head().store(position, Ordering::Release);
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use memit_ringbuf::Capacity;

    use super::*;

    pub(super) fn geometry() -> Geometry {
        Geometry { capacity: Capacity::new(4096).unwrap(), slot_count: 3 }
    }

    #[test]
    fn two_outboxes_have_different_keys() {
        let (one, _fd) = OwnOutbox::create(geometry()).unwrap();
        let (two, _fd) = OwnOutbox::create(geometry()).unwrap();
        assert_ne!(one.key().get(), two.key().get());
    }

    #[test]
    fn all_words_begin_at_zero() {
        let (own, _fd) = OwnOutbox::create(geometry()).unwrap();
        for word in [
            own.head(),
            own.data_armed(),
            own.space_armed(),
            own.space_wanted(),
            own.waiting(),
            own.given(),
            own.blocks_armed(),
        ] {
            assert_eq!(word.load(Ordering::Relaxed), 0);
        }
        for i in 0..3 {
            assert_eq!(own.reply_armed(i).load(Ordering::Relaxed), 0);
            assert_eq!(own.reply_bell(i).load(Ordering::Relaxed), 0);
        }
    }

    #[test]
    #[should_panic(expected = "longer than its slot")]
    fn a_reply_that_does_not_fit_is_not_written() {
        let (own, _fd) = OwnOutbox::create(geometry()).unwrap();
        own.write_slot(0, &vec![0; geometry().max_reply() + 1], 1, 1, 0);
    }
}
