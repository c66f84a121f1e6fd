//! The sender's memory for payloads: extents, and what the ledger says of them.
//!
//! A sender takes a lock of its own process twice for a large payload. Nobody holds that lock while bytes are copied or
//! memory is made. Whoever asks for memory first reads what the peer has given back since.

use std::ops::{Deref, DerefMut};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, PoisonError, Weak};

use rustix::io::Errno;

use super::ledger::{Block, Ledger, Limits, Room};
use super::room::OwnRoom;
use super::{MOST_MEMORIES, MOST_OUTSTANDING, PayloadLimits};
use crate::link::Link;
use crate::outbox::{GIVE_BACKS, PeerOutbox};
use crate::sync::{Mutex, MutexGuard, Ordering, fence};
use crate::sys::fork::ForkFd;
use crate::sys::map::ReadWriteMap;
use crate::sys::memfd::{self, CreateError};

/// What was ever retired toward a peer that is not trusted is at most this many times what the arena may hold: it may
/// keep what it says it has unmapped.
const MOST_RETIRED: u64 = 16;

/// The payload memory of one connection, in one direction.
pub(crate) struct Arena {
    limits: PayloadLimits,
    peer: Arc<PeerOutbox>,
    link: Weak<Link>,
    state: Mutex<State>,
    own_room: OwnRoom,
}

struct State {
    ledger: Ledger,
    extents: Vec<Extent>,
    /// How many give-backs of the peer were read.
    given: u64,
    /// A sweep is to come.
    is_swept: bool,
    /// Memories that the peer is to forget and could not be told of yet.
    to_retire: Vec<u64>,
    closed: bool,
}

struct Extent {
    number: u64,
    map: Arc<ReadWriteMap>,
    /// The descriptor, until the peer has got it.
    unpassed: Option<ForkFd>,
}

/// The state, locked, and the extents that went when it was brought up to date: they are unmapped, which takes a while,
/// when the lock is free again. The order of the fields is that of their drops.
struct Current<'a> {
    state: MutexGuard<'a, State>,
    gone: Vec<Extent>,
}

/// A block that its borrower alone may write.
#[derive(Debug)]
pub(crate) struct Borrowed {
    pub(crate) block: Block,
    pub(crate) map: Arc<ReadWriteMap>,
    /// Whether the peer may lack the extent.
    pub(crate) is_unpassed: bool,
}

/// How things were when there was no room: who waits for some waits for a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    given: u64,
    made: u64,
}

/// Why there is no memory for a payload.
#[derive(Debug)]
pub(crate) enum NoMemory {
    /// Not before something is given back.
    Full(Seen),
    /// Not before it is tried again.
    Later,
    /// The machine has none.
    Refused(CreateError),
    /// The peer gave back what it does not have.
    Violation(String),
    /// The connection has ended.
    Ended,
}

/// What was lent with the answer to a call, should its caller not take it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Lent {
    Block(Block),
    Sealed(u64),
}

impl Arena {
    pub(crate) fn new(limits: PayloadLimits, is_trusted: bool, peer: Arc<PeerOutbox>, link: Weak<Link>) -> Arc<Self> {
        let most_retired = if is_trusted { u64::MAX } else { (limits.arena_limit as u64).saturating_mul(MOST_RETIRED) };
        let ledger = Ledger::new(Limits {
            extent_size: limits.extent_size,
            arena_limit: limits.arena_limit,
            most_outstanding: MOST_OUTSTANDING,
            most_memories: MOST_MEMORIES,
            most_retired,
        });
        let state =
            State { ledger, extents: Vec::new(), given: 0, is_swept: false, to_retire: Vec::new(), closed: false };
        Arc::new(Self { limits, peer, link, state: Mutex::new(state), own_room: OwnRoom::new() })
    }

    pub(crate) fn limits(&self) -> &PayloadLimits {
        &self.limits
    }

    pub(crate) fn own_room(&self) -> &OwnRoom {
        &self.own_room
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Locks the state, brought up to what the peer has given back.
    fn current(&self) -> Result<Current<'_>, NoMemory> {
        let mut current = Current { state: self.lock(), gone: Vec::new() };
        if current.closed {
            return Err(NoMemory::Ended);
        }
        let given = self.peer.load_given();
        if given != current.given {
            // SYNC give-back: pairs with the release store of the count. What the peer read of a block it has read
            // before the block is written again.
            fence(Ordering::Acquire);
            current.collect(given, &self.peer)?;
        }
        Ok(current)
    }

    /// A block of `len` bytes, which are no more than an extent has.
    pub(crate) fn borrow(&self, len: usize) -> Result<Borrowed, NoMemory> {
        self.borrow_with(len, || memfd::create("memit-extent", self.limits.extent_size))
    }

    /// `make` makes an extent, if one is needed.
    fn borrow_with(
        &self,
        len: usize,
        make: impl FnOnce() -> Result<(OwnedFd, ReadWriteMap), CreateError>,
    ) -> Result<Borrowed, NoMemory> {
        let mut state = self.current()?;
        match state.ledger.allocate(len) {
            Ok(block) => return Ok(state.borrowed(block)),
            Err(Room::Wait) => return Err(self.full(&state)),
            Err(Room::Extent) => drop(state),
        }
        // It takes a while, so that others are let in: they may be giving back, or passing descriptors.
        let mut made = Some(make().map_err(NoMemory::Refused)?);
        let mut state = self.current()?;
        // Also if a block has become free meanwhile: a sender that always asks a moment before its peer gives back would
        // make an extent each time, and throw it away.
        if state.ledger.may_add_extent()
            && let Some((fd, map)) = made.take()
        {
            self.add_extent(&mut state, fd, map);
        }
        match state.ledger.allocate(len) {
            Ok(block) => Ok(state.borrowed(block)),
            Err(Room::Wait | Room::Extent) => Err(self.full(&state)),
        }
    }

    fn full(&self, state: &State) -> NoMemory {
        NoMemory::Full(Seen { given: state.given, made: self.own_room.made() })
    }

    fn add_extent(&self, state: &mut State, fd: OwnedFd, map: ReadWriteMap) {
        let number = state.ledger.add_extent();
        crash_point!("extent-made");
        state.extents.push(Extent { number, map: Arc::new(map), unpassed: Some(ForkFd::new(fd)) });
        self.sweep_later(state);
    }

    /// Has the library's thread look after the extents, and what is to be retired, in a while.
    fn sweep_later(&self, state: &mut State) {
        if !state.is_swept
            && let Some(link) = self.link.upgrade()
        {
            state.is_swept = link.sweep_later();
        }
    }

    /// Says that the peer may give the block back from now on.
    pub(crate) fn lend(&self, block: &Block) {
        self.lock().ledger.lend(block);
    }

    /// Takes back a block that the peer has not got.
    pub(crate) fn cancel(&self, block: &Block) {
        if self.lock().ledger.cancel(block) {
            self.release();
        }
    }

    /// Enters `len` bytes of sealed memory that are to be made now; their number. If there is no room for want of
    /// extents that lie unused, these are retired, and there may be soon.
    pub(super) fn admit_sealed(&self, len: usize) -> Result<u64, NoMemory> {
        let mut state = self.current()?;
        if let Ok(number) = state.ledger.admit_sealed(len) {
            return Ok(number);
        }
        let unused = state.ledger.retire_free_for(len);
        let Some(link) = self.link.upgrade() else { return Err(NoMemory::Ended) };
        let told = self.retire(&mut state, unused, &|number| link.publish_retirement(number));
        match state.ledger.admit_sealed(len) {
            Ok(number) => Ok(number),
            Err(_) if told => Err(self.full(&state)),
            // Without space in the ring nobody will give them back, nor say when there is some.
            Err(_) => Err(NoMemory::Later),
        }
    }

    pub(super) fn lend_sealed(&self, number: u64) {
        self.lock().ledger.lend_sealed(number);
    }

    pub(super) fn cancel_sealed(&self, number: u64) {
        if self.lock().ledger.cancel_sealed(number) {
            self.release();
        }
    }

    /// Takes back what the peer has got with an answer that it does not take. Sealed memory stays lent until the peer
    /// has forgotten it, which `retire` has it do.
    pub(crate) fn abandon(&self, lent: Lent, retire: impl Fn(u64) -> bool) {
        match lent {
            Lent::Block(block) => self.cancel(&block),
            Lent::Sealed(number) if retire(number) => {}
            Lent::Sealed(number) => {
                let mut state = self.lock();
                state.to_retire.push(number);
                self.sweep_later(&mut state);
            }
        }
    }

    /// There is room that the peer has not made.
    fn release(&self) {
        let is_wanted = self.own_room.make();
        if let Some(link) = self.link.upgrade() {
            link.room_was_made(is_wanted);
        }
    }

    /// Whether there may be room where there was none.
    pub(crate) fn has_changed(&self, seen: Seen) -> bool {
        self.peer.load_given() != seen.given || self.own_room.made() != seen.made
    }

    /// Passes an extent, unless that has been done. Of several threads that want it one does; the others wait for it.
    pub(crate) fn pass_extent(
        &self,
        number: u64,
        send: impl FnOnce(BorrowedFd<'_>) -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        let mut state = self.lock();
        if let Some(extent) = state.extents.iter_mut().find(|extent| extent.number == number)
            && let Some(fd) = &extent.unpassed
        {
            send(fd.as_fd())?;
            crash_point!("extent-passed");
            extent.unpassed = None;
        }
        Ok(())
    }

    /// Retires the extents that were not used since the last sweep, and what could not be before, by having `tell` tell
    /// the peer, if that works out. Whether to come again.
    pub(crate) fn sweep(&self, tell: impl Fn(u64) -> bool) -> Result<bool, NoMemory> {
        let mut state = self.current()?;
        state.to_retire.retain(|number| !tell(*number));
        let idle = state.ledger.sweep();
        self.retire(&mut state, idle, &tell);
        // Those that retire are unmapped by who reads that they were given back, which may be nobody else.
        state.is_swept = state.ledger.wants_sweep() || state.ledger.awaits_extents() || !state.to_retire.is_empty();
        Ok(state.is_swept)
    }

    /// No sweep comes.
    pub(crate) fn sweep_failed(&self) {
        self.lock().is_swept = false;
    }

    /// Whether the peer has been told of all of them.
    fn retire(&self, state: &mut Current<'_>, extents: Vec<u64>, tell: &impl Fn(u64) -> bool) -> bool {
        let mut told = true;
        for number in extents {
            if state.extent(number).unpassed.is_some() {
                // The peer has never heard of it.
                state.ledger.discard(number);
                let unused = state.remove(number);
                state.gone.extend(unused);
                self.release();
            } else if !tell(number) {
                state.ledger.unretire(number);
                told = false;
            }
        }
        told
    }

    /// Lets go of everything that nobody writes to: the connection has ended.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        let extents = std::mem::take(&mut state.extents);
        drop(state);
        drop(extents);
    }
}

impl Current<'_> {
    fn collect(&mut self, given: u64, peer: &PeerOutbox) -> Result<(), NoMemory> {
        let Self { state, gone } = self;
        let new = given.wrapping_sub(state.given);
        if new > GIVE_BACKS {
            let text = format!("it has given back {new} times at once, and {GIVE_BACKS} is the most that it was lent");
            return Err(NoMemory::Violation(text));
        }
        while state.given != given {
            let entry = peer.read_give_back(state.given).map_err(|wrong| NoMemory::Violation(wrong.to_string()))?;
            state.given = state.given.wrapping_add(1);
            let retired = state.ledger.give_back(entry).map_err(|wrong| NoMemory::Violation(wrong.to_string()))?;
            crash_point!("give-back-read");
            gone.extend(retired.and_then(|number| state.remove(number)));
        }
        Ok(())
    }
}

impl Deref for Current<'_> {
    type Target = State;

    fn deref(&self) -> &State {
        &self.state
    }
}

impl DerefMut for Current<'_> {
    fn deref_mut(&mut self) -> &mut State {
        &mut self.state
    }
}

impl State {
    fn remove(&mut self, number: u64) -> Option<Extent> {
        let at = self.extents.iter().position(|extent| extent.number == number)?;
        Some(self.extents.swap_remove(at))
    }

    fn borrowed(&self, block: Block) -> Borrowed {
        let extent = self.extent(block.memory);
        Borrowed { block, map: Arc::clone(&extent.map), is_unpassed: extent.unpassed.is_some() }
    }

    fn extent(&self, number: u64) -> &Extent {
        match self.extents.iter().find(|extent| extent.number == number) {
            Some(extent) => extent,
            None => unreachable!("the ledger names the extents that there are"),
        }
    }
}

impl std::fmt::Debug for Arena {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Arena").field("limits", &self.limits).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use memit_ringbuf::Capacity;

    use super::*;
    use crate::outbox::{self, Geometry, GiveBack, OwnOutbox};

    const EXTENT: usize = 64 << 10;

    /// An arena without a link, and the outbox in which its peer gives back.
    fn arena() -> (Arc<Arena>, Arc<OwnOutbox>) {
        let geometry = Geometry { capacity: Capacity::new(4096).unwrap(), slot_count: 2 };
        let (theirs, fd) = OwnOutbox::create(geometry).unwrap();
        let peer = PeerOutbox::accept(fd, outbox::Limits { max_size: 1 << 20 }).unwrap();
        let limits = PayloadLimits {
            extent_size: EXTENT,
            arena_limit: 4 * EXTENT,
            message_limit: EXTENT,
            sealed_from: usize::MAX,
        };
        (Arena::new(limits, false, peer, Weak::new()), theirs)
    }

    fn give_back(theirs: &OwnOutbox, n: u64, block: &Block) {
        let (memory, generation, offset) = (block.memory, block.generation, block.offset as u64);
        theirs.write_give_back(n, GiveBack::Block { memory, generation, offset });
    }

    /// The receiver of a whole extent gives it back a moment after the next one is asked for, each time.
    #[test]
    fn a_payload_that_is_asked_for_a_moment_too_early_makes_an_extent_once() {
        let (arena, theirs) = arena();
        let mut last = arena.borrow(EXTENT).unwrap().block;
        arena.lend(&last);
        let mut made = 0;
        for n in 0..10 {
            let mut is_given = false;
            let next = arena
                .borrow_with(EXTENT, || {
                    (made, is_given) = (made + 1, true);
                    give_back(&theirs, n, &last);
                    memfd::create("memit-extent", EXTENT)
                })
                .unwrap();
            if !is_given {
                give_back(&theirs, n, &last);
            }
            arena.lend(&next.block);
            last = next.block;
        }
        assert_eq!((made, arena.lock().ledger.bytes()), (1, 2 * EXTENT));
    }
}
