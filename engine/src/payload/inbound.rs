//! The peer's memory as this side holds it: what was passed, what is mapped, what is still to be given back.
//!
//! Everything that comes in here is input. The table is bounded by the limits that both sides agreed on, whatever the
//! peer sends; what lies in the memory is looked at elsewhere.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{PoisonError, Weak};

use super::PayloadLimits;
use super::budget::{Budget, Overdrawn};
use super::location::Location;
use crate::link::Link;
use crate::outbox::{GiveBack, OwnOutbox};
use crate::sync::{Arc, AtomicBool, Mutex, MutexGuard, Ordering};
use crate::sys::discard::discard;
use crate::sys::fork::ForkFd;
use crate::sys::map::{ReadOnlyMap, SealedMap};
use crate::sys::memfd::{self, MemoryRefused};
use crate::sys::socket::MemoryKind;

/// The receiving end of one connection's payload memory.
pub(crate) struct Inbound {
    limits: PayloadLimits,
    link: Weak<Link>,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    /// Passed, and not used yet.
    passed: Vec<Passed>,
    /// Being mapped by the thread that met them first, or refused.
    mappings: Vec<Arc<Mapping>>,
    extents: Vec<Arc<Extent>>,
    budget: Budget,
    /// How many give-backs were published.
    given: u64,
    closed: bool,
}

struct Passed {
    number: u64,
    kind: MemoryKind,
    /// Found to be shared memory, of any size.
    memory: ForkFd,
}

impl Passed {
    /// The last close of a very large memory takes a while.
    fn discard(self) {
        if let Some(memory) = self.memory.into_owned() {
            discard(memory);
        }
    }
}

/// An extent while it is mapped, which takes a while, so that it is done without the table's lock. The thread that does
/// it has `outcome` locked before anybody else finds this, until it has filled it in; whoever else meets the extent
/// waits there. It never holds the table's lock while it waits for `outcome`; the other way round it may.
struct Mapping {
    number: u64,
    outcome: Mutex<Option<Result<Arc<Extent>, NotTaken>>>,
}

/// A mapped extent of the peer's arena.
pub(crate) struct Extent {
    number: u64,
    /// There until the last owner is gone.
    map: Option<ReadOnlyMap>,
    /// The peer does not use it any more and waits for it to be unmapped.
    is_retired: AtomicBool,
    link: Weak<Link>,
}

/// A payload in the peer's memory. Dropping it gives the memory back.
#[derive(Debug)]
pub(crate) enum Held {
    Block(Block),
    Sealed(Sealed),
}

/// A block of the peer's arena, which the peer could still write.
#[derive(Debug)]
pub(crate) struct Block {
    extent: Arc<Extent>,
    generation: u64,
    offset: usize,
    len: usize,
}

/// Memory that nobody can write.
#[derive(Debug)]
pub(crate) struct Sealed {
    number: u64,
    len: u64,
    /// There until the drop.
    map: Option<SealedMap>,
    link: Weak<Link>,
}

/// Why a payload was not found where its location says.
#[derive(Clone, Debug)]
pub(crate) enum NotTaken {
    /// No such memory has been read from the socket yet.
    Missing { memory: u64 },
    /// The location cannot be right.
    Wrong(String),
    /// This process lacks what it takes.
    NoResources(String),
}

impl From<Overdrawn> for NotTaken {
    fn from(overdrawn: Overdrawn) -> Self {
        Self::Wrong(overdrawn.to_string())
    }
}

impl Inbound {
    pub(crate) fn new(limits: PayloadLimits, link: Weak<Link>) -> Self {
        Self { limits, link, table: Mutex::default() }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in a descriptor that came over the socket. Says what is wrong with it, if anything.
    pub(crate) fn pass(&self, number: u64, kind: MemoryKind, memory: OwnedFd) -> Result<(), String> {
        let mut table = self.table();
        let wrong = if table.closed {
            // Too late to be of use to anybody.
            Ok(())
        } else if !memfd::is_memory(memory.as_fd()) {
            Err(format!("it passed a descriptor as memory number {number} that is of none"))
        } else if table.knows(number) {
            Err(format!("it passed memory number {number} a second time"))
        } else if let Err(overdrawn) = table.budget.pass() {
            Err(overdrawn.to_string())
        } else {
            table.passed.push(Passed { number, kind, memory: ForkFd::new(memory) });
            return Ok(());
        };
        drop(table);
        discard(memory);
        wrong
    }

    /// Finds the payload at `location`.
    pub(crate) fn take(&self, location: Location) -> Result<Held, NotTaken> {
        match location {
            Location::Block { memory, generation, offset, len } => {
                let extent = self.extent(memory)?;
                let size = self.limits.extent_size as u64;
                let is_within = offset.checked_add(len).is_some_and(|end| end <= size);
                let (Ok(start), Ok(bytes)) = (usize::try_from(offset), usize::try_from(len)) else {
                    return Err(outside(offset, len, size));
                };
                if !is_within || !start.is_multiple_of(super::PAGE) || bytes == 0 {
                    return Err(outside(offset, len, size));
                }
                self.check_len(len)?;
                Ok(Held::Block(Block { extent, generation, offset: start, len: bytes }))
            }
            Location::Sealed { memory, len } => self.sealed(memory, len).map(Held::Sealed),
        }
    }

    fn check_len(&self, len: u64) -> Result<(), NotTaken> {
        let most = self.limits.message_limit as u64;
        if len <= most {
            return Ok(());
        }
        Err(NotTaken::Wrong(format!("a message has {len} bytes, and both sides agreed on at most {most}")))
    }

    fn extent(&self, number: u64) -> Result<Arc<Extent>, NotTaken> {
        let mut table = self.table();
        if let Some(extent) = table.extents.iter().find(|extent| extent.number == number) {
            return Ok(Arc::clone(extent));
        }
        if let Some(mapping) = table.mappings.iter().find(|mapping| mapping.number == number) {
            let mapping = Arc::clone(mapping);
            drop(table);
            let outcome = mapping.outcome.lock().unwrap_or_else(PoisonError::into_inner);
            return outcome.clone().unwrap_or(Err(NotTaken::Missing { memory: number }));
        }
        let memory = table.claim(number, MemoryKind::Extent, |budget| budget.admit_extent(&self.limits))?;
        let mapping = Arc::new(Mapping { number, outcome: Mutex::new(None) });
        let mut outcome = mapping.outcome.lock().unwrap_or_else(PoisonError::into_inner);
        table.mappings.push(Arc::clone(&mapping));
        drop(table);
        let mapped = self.map_extent(number, memory);
        if let Ok(extent) = &mapped {
            self.settle(&mapping, extent);
        }
        // One that was refused stays where it is: the connection ends, and whoever else meets it says the same of it.
        *outcome = Some(mapped.clone());
        mapped
    }

    fn map_extent(&self, number: u64, memory: OwnedFd) -> Result<Arc<Extent>, NotTaken> {
        let size = self.limits.extent_size;
        let (map, _) = memfd::take(memory, size as u64..=size as u64).map_err(refused)?;
        crash_point!("extent-mapped");
        Ok(Arc::new(Extent {
            number,
            map: Some(map),
            is_retired: AtomicBool::new(false),
            link: Weak::clone(&self.link),
        }))
    }

    /// Has an extent found among those that are mapped from now on.
    fn settle(&self, mapping: &Arc<Mapping>, extent: &Arc<Extent>) {
        let mut table = self.table();
        // Not by number: a peer may retire it meanwhile and pass another under the same one.
        if let Some(at) = table.mappings.iter().position(|found| Arc::ptr_eq(found, mapping)) {
            table.mappings.swap_remove(at);
            table.extents.push(Arc::clone(extent));
        } else if !table.closed {
            extent.is_retired.store(true, Ordering::Relaxed);
        }
    }

    fn sealed(&self, number: u64, len: u64) -> Result<Sealed, NotTaken> {
        self.check_len(len)?;
        let mut table = self.table();
        let memory = table.claim(number, MemoryKind::Sealed, |budget| budget.admit_sealed(len, &self.limits))?;
        drop(table);
        // Made before the map: if there is none the memory counts as given back.
        let mut sealed = Sealed { number, len, map: None, link: Weak::clone(&self.link) };
        sealed.map = Some(memfd::take_sealed(memory, len).map_err(refused)?);
        crash_point!("sealed-mapped");
        Ok(sealed)
    }

    /// The peer does not use a memory any more: it is forgotten, and given back once nothing of it is kept.
    pub(crate) fn retire(&self, number: u64, own: &OwnOutbox) -> Result<(), NotTaken> {
        let mut table = self.table();
        if let Some(at) = table.extents.iter().position(|extent| extent.number == number) {
            let extent = table.extents.swap_remove(at);
            drop(table);
            // Before this owner is gone, so that the last one finds it set.
            extent.is_retired.store(true, Ordering::Relaxed);
            return Ok(());
        }
        if let Some(at) = table.mappings.iter().position(|mapping| mapping.number == number) {
            // Whoever maps it finds it gone.
            table.mappings.swap_remove(at);
            return Ok(());
        }
        let Some(at) = table.passed.iter().position(|passed| passed.number == number) else {
            return Err(NotTaken::Missing { memory: number });
        };
        let unused = table.passed.swap_remove(at);
        table.budget.forget();
        table.publish(own, GiveBack::Memory { memory: number });
        drop(table);
        unused.discard();
        Ok(())
    }

    /// Publishes that this side holds a block or a memory no longer.
    pub(crate) fn give_back(&self, given: Given, own: &OwnOutbox) {
        let mut table = self.table();
        let entry = match given {
            Given::Block { memory, generation, offset } => {
                GiveBack::Block { memory, generation, offset: offset as u64 }
            }
            Given::Extent { memory } => {
                table.budget.end_extent();
                GiveBack::Memory { memory }
            }
            Given::Sealed { memory, len } => {
                table.budget.end_sealed(len);
                GiveBack::Memory { memory }
            }
        };
        table.publish(own, entry);
    }

    /// Lets go of everything that nobody keeps: the connection has ended.
    pub(crate) fn close(&self) {
        let mut table = self.table();
        table.closed = true;
        let (passed, extents) = (std::mem::take(&mut table.passed), std::mem::take(&mut table.extents));
        let mappings = std::mem::take(&mut table.mappings);
        drop(table);
        passed.into_iter().for_each(Passed::discard);
        drop((mappings, extents));
    }
}

impl Table {
    fn knows(&self, number: u64) -> bool {
        self.passed.iter().any(|passed| passed.number == number)
            || self.mappings.iter().any(|mapping| mapping.number == number)
            || self.extents.iter().any(|extent| extent.number == number)
    }

    /// The descriptor of a memory that is used for the first time, and that the budget admits.
    fn claim(
        &mut self,
        number: u64,
        kind: MemoryKind,
        admit: impl FnOnce(&mut Budget) -> Result<(), Overdrawn>,
    ) -> Result<OwnedFd, NotTaken> {
        let Some(at) = self.passed.iter().position(|passed| passed.number == number) else {
            return Err(NotTaken::Missing { memory: number });
        };
        let found = self.passed[at].kind;
        if found != kind {
            return Err(NotTaken::Wrong(format!(
                "memory number {number} was passed as {found:?} and used as {kind:?}"
            )));
        }
        admit(&mut self.budget)?;
        let gone = NotTaken::Missing { memory: number };
        self.passed.swap_remove(at).memory.into_owned().ok_or(gone)
    }

    fn publish(&mut self, own: &OwnOutbox, entry: GiveBack) {
        own.write_give_back(self.given, entry);
        self.given += 1;
    }
}

fn outside(offset: u64, len: u64, size: u64) -> NotTaken {
    NotTaken::Wrong(format!("a block has {len} bytes at {offset}, which no extent of {size} bytes holds"))
}

fn refused(error: MemoryRefused) -> NotTaken {
    if error.is_for_want_of_resources() {
        NotTaken::NoResources(error.to_string())
    } else {
        NotTaken::Wrong(format!("it passed memory that was refused: {error}"))
    }
}

/// What is given back.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Given {
    Block { memory: u64, generation: u64, offset: usize },
    Extent { memory: u64 },
    Sealed { memory: u64, len: u64 },
}

impl Extent {
    fn map(&self) -> &ReadOnlyMap {
        match &self.map {
            Some(map) => map,
            None => unreachable!("the map goes with the extent"),
        }
    }
}

impl Drop for Extent {
    fn drop(&mut self) {
        // Unmapped first: that is what the peer is told.
        self.map = None;
        if self.is_retired.load(Ordering::Relaxed) {
            crash_point!("extent-unmapped");
            give_back(&self.link, Given::Extent { memory: self.number });
        }
    }
}

impl Block {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Copies the block out. The peer may change it meanwhile; the copy is what counts.
    pub(crate) fn copy_to(&self, to: &mut [u8]) {
        self.extent.map().read(self.offset, to);
    }

    /// Where its bytes are, for as long as `self` lives.
    pub(super) fn address(&self) -> *const u8 {
        self.extent.map().region(self.offset, self.len).as_ptr()
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        let Self { generation, offset, .. } = *self;
        give_back(&self.extent.link, Given::Block { memory: self.extent.number, generation, offset });
    }
}

impl Sealed {
    pub(crate) fn as_slice(&self) -> &[u8] {
        self.map.as_ref().map(SealedMap::as_slice).unwrap_or_default()
    }
}

impl Drop for Sealed {
    fn drop(&mut self) {
        self.map = None;
        crash_point!("sealed-unmapped");
        give_back(&self.link, Given::Sealed { memory: self.number, len: self.len });
    }
}

/// Without a connection there is nobody to give anything back to.
fn give_back(link: &Weak<Link>, given: Given) {
    if let Some(link) = link.upgrade() {
        link.give_back(given);
    }
}

impl std::fmt::Debug for Extent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Extent").field("number", &self.number).finish_non_exhaustive()
    }
}
