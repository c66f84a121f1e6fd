//! The peer's outbox.
#![allow(unsafe_code)]

use std::os::fd::OwnedFd;
use std::sync::Arc;

#[cfg(not(loom))]
use memit_ringbuf::MappedRing;
use memit_ringbuf::{Key, PeerCursor};

use super::header::{self, HeaderRefused};
use super::layout::{
    BLOCKS_ARMED, CorruptGiveBack, CorruptSlot, DATA_ARMED, DATA_BELL, GIVEN, Geometry, GiveBack, HEAD, HEADER_WORDS,
    LEAST_SIZE, MOST_SIZE, SLOT_DESCRIPTOR, SLOT_ID, SLOT_PAYLOAD, SPACE_ARMED, SPACE_BELL, SPACE_WANTED, SlotHeader,
    WAITING,
};
use crate::sync::AtomicU32;
use crate::sys::map::ReadOnlyMap;
use crate::sys::memfd::{self, MemoryRefused};

/// Why a peer's outbox was not accepted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OutboxRejected {
    /// Its descriptor is not of sealed memory of an admissible size.
    #[error(transparent)]
    Memory(#[from] MemoryRefused),
    /// Its header is not that of an outbox.
    #[error(transparent)]
    Header(#[from] HeaderRefused),
}

impl OutboxRejected {
    /// Whether this process lacked what it takes, rather than the outbox what it should have.
    pub(crate) fn is_for_want_of_resources(&self) -> bool {
        matches!(self, Self::Memory(refused) if refused.is_for_want_of_resources())
    }
}

/// What a peer's outbox may cost us.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// The most bytes that it may have.
    pub(crate) max_size: usize,
}

/// Sealed memory that a peer writes and this process reads. Everything in it is input.
#[derive(Debug)]
pub(crate) struct PeerOutbox {
    map: ReadOnlyMap,
    geometry: Geometry,
    key: Key,
}

impl PeerOutbox {
    /// Checks and maps what a peer sent as its outbox. Does not wait, whatever the descriptor is, and closes it.
    pub(crate) fn accept(fd: OwnedFd, limits: Limits) -> Result<Arc<Self>, OutboxRejected> {
        let most = limits.max_size.min(MOST_SIZE);
        let (map, size) = memfd::take(fd, LEAST_SIZE as u64..=most as u64)?;
        let header: [u64; HEADER_WORDS] = std::array::from_fn(|i| map.load64(i * size_of::<u64>()));
        let (geometry, key) = header::parse(header, size)?;
        Ok(Arc::new(Self { map, geometry, key }))
    }

    pub(crate) fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// The key of this outbox's ring.
    pub(crate) fn key(&self) -> Key {
        self.key
    }

    /// The ring of the peer's outgoing frames.
    #[cfg(not(loom))]
    pub(crate) fn ring(self: &Arc<Self>) -> MappedRing<Arc<Self>> {
        let capacity = self.geometry.capacity();
        let base = self.map.region(self.geometry.ring_offset(), capacity.get());
        // SAFETY: `region` checked that the ring's bytes are within the map, which is page-aligned and lives as long
        // as the outbox, which the ring keeps alive. Its pages were found reserved, and the seals keep them so;
        // hence no read fails. This module reads the ring through nothing else: its own offsets lie before or
        // behind it.
        unsafe { MappedRing::new(base, capacity, Arc::clone(self)) }
    }

    /// How far the peer has consumed our ring, as it says.
    #[inline]
    pub(crate) fn load_head(&self) -> u64 {
        self.map.load64(HEAD)
    }

    /// Whether, and how, the peer's dispatcher sleeps for our frames.
    #[inline]
    pub(crate) fn load_data_armed(&self) -> u64 {
        self.map.load64(DATA_ARMED)
    }

    /// Whether, and how, the peer's producers sleep for space in its ring.
    #[inline]
    pub(crate) fn load_space_armed(&self) -> u64 {
        self.map.load64(SPACE_ARMED)
    }

    /// The position that our head must reach for them. Behind an acquire fence after `load_space_armed`.
    #[inline]
    pub(crate) fn load_space_wanted(&self) -> u64 {
        self.map.load64(SPACE_WANTED)
    }

    /// The id of the call for which the peer's dispatching thread waits; 0 for none.
    #[inline]
    pub(crate) fn load_waiting(&self) -> u64 {
        self.map.load64(WAITING)
    }

    /// Whether, and how, a thread of the peer sleeps for the reply in our slot `i`. Nobody does where the peer has
    /// no word to say so: it has fewer slots than we have, and may yet have named this one.
    #[inline]
    pub(crate) fn load_reply_armed(&self, i: u32) -> u64 {
        if self.geometry.has_slot(i) { self.map.load64(self.geometry.reply_armed(i)) } else { 0 }
    }

    /// What the peer rings when it has sent: to wait on, and to load with `Ordering::Relaxed`, no more. The memory
    /// is read-only.
    #[inline]
    pub(crate) fn data_bell(&self) -> &AtomicU32 {
        self.map.futex_word(DATA_BELL)
    }

    /// What the peer rings when it has consumed. As [`Self::data_bell`].
    #[inline]
    pub(crate) fn space_bell(&self) -> &AtomicU32 {
        self.map.futex_word(SPACE_BELL)
    }

    /// What the peer rings when it has written its slot `i`. As [`Self::data_bell`].
    ///
    /// # Panics
    ///
    /// Unless `i` is less than this outbox's slot count. So for all that follow.
    #[inline]
    pub(crate) fn reply_bell(&self, i: u32) -> &AtomicU32 {
        self.map.futex_word(self.geometry.reply_bell(i))
    }

    /// The id of the call that the peer's slot `i` answers. Who finds the one that it waits for passes
    /// `fence(Acquire)` before it looks further.
    #[inline]
    pub(crate) fn slot_id(&self, i: u32) -> u64 {
        // SYNC reply-publish: with the caller's fence, pairs with `OwnOutbox::write_slot`.
        self.map.load64(self.geometry.slot(i) + SLOT_ID)
    }

    /// The header of the reply in slot `i`, checked.
    pub(crate) fn read_slot(&self, i: u32) -> Result<SlotHeader, CorruptSlot> {
        SlotHeader::parse(self.map.load64(self.geometry.slot(i) + SLOT_DESCRIPTOR), self.geometry)
    }

    /// Copies the payload of slot `i` out, as much as `to` takes.
    ///
    /// # Panics
    ///
    /// If `to` is longer than [`Geometry::max_reply`], which no length from [`Self::read_slot`] is.
    pub(crate) fn copy_slot(&self, i: u32, to: &mut [u8]) {
        assert!(to.len() <= self.geometry.max_reply(), "more than a slot holds");
        self.map.read(self.geometry.slot(i) + SLOT_PAYLOAD, to);
    }
}

impl PeerOutbox {
    /// Whether, and how, senders of the peer sleep for blocks that we give back.
    #[inline]
    pub(crate) fn load_blocks_armed(&self) -> u64 {
        self.map.load64(BLOCKS_ARMED)
    }

    /// How many give-backs the peer has ever published, as it says. Who finds more than it has seen, but no more than
    /// [`GIVE_BACKS`](super::GIVE_BACKS), passes `fence(Acquire)` and reads them.
    #[inline]
    pub(crate) fn load_given(&self) -> u64 {
        // SYNC give-back: with the reader's fence, pairs with `OwnOutbox::write_give_back`.
        self.map.load64(GIVEN)
    }

    /// Give-back `n`, checked: its kind is known. Whether we ever sent what it names is for the caller to say.
    pub(crate) fn read_give_back(&self, n: u64) -> Result<GiveBack, CorruptGiveBack> {
        let at = self.geometry.give_back(n);
        GiveBack::parse(std::array::from_fn(|i| self.map.load64(at + i * size_of::<u64>())))
    }
}

/// How far the peer has consumed our ring, as our producer reads it.
#[derive(Debug)]
pub(crate) struct PeerHead(Arc<PeerOutbox>);

impl PeerHead {
    pub(crate) fn new(outbox: Arc<PeerOutbox>) -> Self {
        Self(outbox)
    }
}

impl PeerCursor for PeerHead {
    #[inline]
    fn load(&self) -> u64 {
        // SYNC head-release: with the fence of the ring's producer, pairs with `OwnHead::store`.
        self.0.load_head()
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use std::sync::atomic::{Ordering, fence};
    use std::thread;

    use memit_ringbuf::{Capacity, Consumer, Header, Producer};

    use super::super::layout::GIVE_BACKS;
    use super::super::{OwnHead, OwnOutbox};
    use super::*;
    use crate::sys::fork::testing::exit_code_of;
    use crate::sys::futex::{self, WaitOn};
    use crate::sys::memfd::testing::{sealed, unsealed};

    const LIMITS: Limits = Limits { max_size: 1 << 20 };

    fn geometry() -> Geometry {
        Geometry { capacity: Capacity::new(4096).unwrap(), slot_count: 3 }
    }

    fn pair() -> (Arc<OwnOutbox>, Arc<PeerOutbox>) {
        let (own, fd) = OwnOutbox::create(geometry()).unwrap();
        (own, PeerOutbox::accept(fd, LIMITS).unwrap())
    }

    fn header_bytes() -> Vec<u8> {
        let key = Key::new(1).unwrap();
        geometry().header(key).iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    #[test]
    fn the_peer_finds_the_owner_s_shape_and_key() {
        let (own, peer) = pair();
        assert_eq!((peer.geometry(), peer.key()), (own.geometry(), own.key()));
    }

    #[test]
    fn each_word_that_the_owner_writes_is_read_as_that_word() {
        let (own, peer) = pair();
        let mut next = 1..;
        let words = [
            own.head(),
            own.data_armed(),
            own.space_armed(),
            own.space_wanted(),
            own.waiting(),
            own.given(),
            own.blocks_armed(),
        ];
        let words = words.into_iter().chain((0..3).map(|i| own.reply_armed(i)));
        words.zip(&mut next).for_each(|(word, value)| word.store(value, Ordering::Relaxed));
        let read = [
            peer.load_head(),
            peer.load_data_armed(),
            peer.load_space_armed(),
            peer.load_space_wanted(),
            peer.load_waiting(),
            peer.load_given(),
            peer.load_blocks_armed(),
            peer.load_reply_armed(0),
            peer.load_reply_armed(1),
            peer.load_reply_armed(2),
        ];
        assert_eq!(read, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
        let bells = [own.data_bell(), own.space_bell()].into_iter().chain((0..3).map(|i| own.reply_bell(i)));
        bells.zip(101..).for_each(|(bell, value)| bell.store(value, Ordering::Relaxed));
        let bells = [peer.data_bell(), peer.space_bell()].into_iter().chain((0..3).map(|i| peer.reply_bell(i)));
        assert_eq!(bells.map(|bell| bell.load(Ordering::Relaxed)).collect::<Vec<_>>(), [101, 102, 103, 104, 105]);
    }

    #[test]
    fn nobody_sleeps_at_a_slot_that_the_peer_does_not_have() {
        let (_own, peer) = pair();
        assert_eq!(peer.load_reply_armed(3), 0);
        assert_eq!(peer.load_reply_armed(u32::MAX), 0);
    }

    #[test]
    fn frames_go_from_outbox_to_outbox() {
        let (ours, ours_there) = pair();
        let (theirs, theirs_here) = pair();
        let producer = Producer::new(ours.ring(), PeerHead::new(theirs_here), ours.key());
        let mut consumer = Consumer::new(ours_there.ring(), OwnHead::new(theirs), ours_there.key());
        for round in 0..100_u64 {
            for len in [0, 48, 49, 300, producer.max_payload()] {
                let sent = vec![u8::try_from(round).unwrap(); len];
                let mut claim = producer.try_claim(len).unwrap();
                claim.write(0, &sent);
                claim.commit(Header { channel: 9, kind: 1, flags: 0 });
                let frame = consumer.poll().unwrap().frame().unwrap();
                let mut received = vec![0; frame.len()];
                frame.copy_to(&mut received);
                frame.release();
                assert_eq!(received, sent);
            }
            consumer.publish_head();
        }
    }

    #[test]
    fn a_reply_is_there_when_its_id_is() {
        let (own, peer) = pair();
        let reply: Vec<u8> = (0..geometry().max_reply()).map(|i| u8::try_from(i % 256).unwrap()).collect();
        thread::scope(|scope| {
            scope.spawn(|| {
                for (id, len) in [0, 1, 15, 16, 300, reply.len()].into_iter().enumerate() {
                    own.write_slot(2, &reply[..len], id as u64 + 1, 7, 2);
                    while own.waiting().load(Ordering::Acquire) != id as u64 + 1 {
                        thread::yield_now();
                    }
                }
            });
            for (id, len) in [0, 1, 15, 16, 300, reply.len()].into_iter().enumerate() {
                while peer.slot_id(2) != id as u64 + 1 {
                    thread::yield_now();
                }
                fence(Ordering::Acquire);
                let header = peer.read_slot(2).unwrap();
                assert_eq!(header, SlotHeader { len, status: 7, place: 2 });
                let mut copy = vec![0; header.len];
                peer.copy_slot(2, &mut copy);
                assert_eq!(copy, reply[..len]);
                own.waiting().store(id as u64 + 1, Ordering::Release);
            }
        });
    }

    #[test]
    fn give_backs_are_read_in_order_across_the_wrap() {
        let entry = |n: u64| match n % 3 {
            0 => GiveBack::Memory { memory: n },
            _ => GiveBack::Block { memory: n, generation: n + 1, offset: n << 12 },
        };
        let (own, peer) = pair();
        let last = 5 * GIVE_BACKS / 2;
        thread::scope(|scope| {
            scope.spawn(|| {
                for n in 0..last {
                    // The peer tells through `waiting` how many it has read, as a sender's blocks that come back do.
                    while n - own.waiting().load(Ordering::Acquire) == GIVE_BACKS {
                        thread::yield_now();
                    }
                    own.write_give_back(n, entry(n));
                }
            });
            let mut seen = 0;
            while seen < last {
                let given = peer.load_given();
                assert!((seen..=seen + GIVE_BACKS).contains(&given), "{seen} seen, {given} given");
                fence(Ordering::Acquire);
                for n in seen..given {
                    assert_eq!(peer.read_give_back(n), Ok(entry(n)));
                }
                seen = given;
                own.waiting().store(seen, Ordering::Release);
                thread::yield_now();
            }
        });
        assert_eq!(peer.load_given(), last);
    }

    #[test]
    fn a_give_back_lies_where_the_layout_says_and_another_kind_there_is_corrupt() {
        let mut bytes = header_bytes();
        bytes.resize(geometry().give_back(0), 0);
        for words in [[1, 2, 4096, 1], [9, 0, 0, 2], [1, 2, 4096, 3], [9, 0, 4096, 2]] {
            bytes.extend(words.iter().flat_map(|word: &u64| word.to_le_bytes()));
        }
        let peer = PeerOutbox::accept(sealed(geometry().size(), &bytes), LIMITS).unwrap();
        let block = GiveBack::Block { memory: 1, generation: 2, offset: 4096 };
        assert_eq!(peer.read_give_back(0), Ok(block));
        assert_eq!(peer.read_give_back(1), Ok(GiveBack::Memory { memory: 9 }));
        assert_eq!(peer.read_give_back(2), Err(CorruptGiveBack::Kind { found: 3 }));
        assert_eq!(peer.read_give_back(3), Err(CorruptGiveBack::NotZero { generation: 0, offset: 4096 }));
        assert_eq!(peer.read_give_back(4), Err(CorruptGiveBack::Kind { found: 0 }));
        assert_eq!(peer.read_give_back(GIVE_BACKS), Ok(block));
        // No number leads out of the outbox.
        assert_eq!(peer.read_give_back(u64::MAX), Err(CorruptGiveBack::Kind { found: 0 }));
    }

    #[test]
    fn a_wait_through_the_read_only_map_is_ended_by_the_owner() {
        let (own, peer) = pair();
        let (control, waits) = (AtomicU32::new(0), AtomicU32::new(0));
        thread::scope(|scope| {
            let waiter = scope.spawn(|| {
                while peer.data_bell().load(Ordering::Relaxed) == 0 {
                    waits.fetch_add(1, Ordering::Release);
                    futex::wait_any(
                        &[
                            WaitOn { word: peer.data_bell(), expected: 0, shared: true },
                            WaitOn { word: &control, expected: 0, shared: false },
                        ],
                        None,
                    );
                }
            });
            while waits.load(Ordering::Acquire) == 0 {
                thread::yield_now();
            }
            own.data_bell().fetch_add(1, Ordering::Release);
            futex::wake_all_shared(own.data_bell());
            waiter.join().unwrap();
        });
    }

    #[test]
    fn memory_that_is_no_outbox_is_refused() {
        let size = geometry().size();
        let forged = PeerOutbox::accept(sealed(size, b"MEMITOB2"), LIMITS).unwrap_err();
        assert!(matches!(forged, OutboxRejected::Header(HeaderRefused::Magic { .. })), "{forged}");
        let honest = PeerOutbox::accept(sealed(size, &header_bytes()), LIMITS);
        assert!(honest.is_ok(), "{honest:?}");
    }

    #[test]
    fn an_outbox_that_is_not_sealed_is_refused() {
        let error = PeerOutbox::accept(unsealed(geometry().size(), &header_bytes()), LIMITS).unwrap_err();
        assert!(matches!(error, OutboxRejected::Memory(MemoryRefused::Unsealed { .. })), "{error}");
    }

    #[test]
    fn an_outbox_in_more_or_less_memory_than_it_says_is_refused() {
        let geometry = Geometry { capacity: Capacity::new(8192).unwrap(), ..geometry() };
        let header: Vec<u8> =
            geometry.header(Key::new(1).unwrap()).iter().flat_map(|word| word.to_le_bytes()).collect();
        for size in [geometry.size() + 1, geometry.size() + 4096, geometry.size() - 4096] {
            let error = PeerOutbox::accept(sealed(size, &header), LIMITS).unwrap_err();
            assert!(matches!(error, OutboxRejected::Header(HeaderRefused::Field { .. })), "{error}");
        }
    }

    #[test]
    fn an_outbox_larger_than_the_limit_is_refused() {
        let (_own, fd) = OwnOutbox::create(geometry()).unwrap();
        let limits = Limits { max_size: geometry().size() - 1 };
        let error = PeerOutbox::accept(fd, limits).unwrap_err();
        assert!(matches!(error, OutboxRejected::Memory(MemoryRefused::Size { .. })), "{error}");
    }

    #[test]
    fn a_forked_child_leaves_its_parent_s_outboxes_alone() {
        let (own, peer) = pair();
        own.head().store(5, Ordering::Relaxed);
        let (own_in_child, peer_in_child) = (Arc::clone(&own), Arc::clone(&peer));
        // The clones are not the last, so that dropping them in the child frees no memory, which would not be
        // async-signal-safe.
        assert_eq!(
            exit_code_of(move || {
                drop((own_in_child, peer_in_child));
                0
            }),
            0
        );
        assert_eq!(peer.load_head(), 5);
    }
}
