//! Memory that a peer passes, names in messages and retires, in any order; compared with a plain table of it.

use std::collections::BTreeMap;
use std::os::fd::AsFd;

use arbitrary::{Arbitrary, Unstructured};

use super::{ARENA, EXTENT, MESSAGE_LIMIT, Message, Rig};
use crate::frame::{MESSAGE, RETIRE};
use crate::outbox::GiveBack;
use crate::outbox::fuzzing::given;
use crate::payload::location::Location;
use crate::payload::{MOST_MEMORIES, PAGE};
use crate::rendezvous::Role;
use crate::sys::memfd;
use crate::sys::socket::{self, MemoryKind};

#[derive(Arbitrary, Debug)]
enum Operation {
    Pass {
        number: u8,
        memory: Memory,
        as_sealed: bool,
    },
    /// A message in an extent, which begins at a page or a little behind.
    Block {
        number: u8,
        generation: u8,
        pages: u8,
        extra: Option<u8>,
        len: Option<u32>,
    },
    /// A message in sealed memory, of its length or of another.
    Sealed {
        number: u8,
        len: Option<u32>,
    },
    /// What was heard so far is not kept any more, in part or whole.
    Drop {
        message: Option<u8>,
    },
    Retire {
        number: u8,
    },
    /// Messages that are heard from now on are kept, or not.
    Keep(bool),
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Memory {
    Extent,
    Sealed { len: u16 },
    SmallExtent,
    Unsealed,
    Socket,
}

/// What the receiver has of one memory.
#[derive(Clone, Copy)]
enum Entry {
    /// Passed and not used: what it is, and what it was passed as.
    Passed(Memory, bool),
    Mapped,
}

struct Model {
    table: BTreeMap<u64, Entry>,
    /// Sealed payloads that are kept, and their lengths.
    kept: Vec<(u64, u64)>,
    given: Vec<GiveBack>,
    keeps: bool,
}

/// What stands at `len` bytes from `offset` of memory `number`.
fn content(number: u64, offset: usize, len: usize) -> Vec<u8> {
    (offset..offset + len).map(|at| ((at as u64 / 16) ^ number) as u8).collect()
}

/// What is delivered is what was named, everything is given back once and in time, and what no honest peer does ends the
/// connection.
pub(crate) fn payload_memory(bytes: &[u8]) {
    let Ok(operations) = Vec::<Operation>::arbitrary_take_rest(Unstructured::new(bytes)) else { return };
    let mut rig = Rig::new(Role::Renderer);
    rig.announce(0);
    rig.drain(1);
    let mut model = Model { table: BTreeMap::new(), kept: Vec::new(), given: Vec::new(), keeps: false };
    for operation in operations.into_iter().take(200) {
        let is_right = model.apply(&mut rig, operation);
        assert_eq!(is_right, rig.link.is_connected(), "{:?}", rig.link.ended());
        model.check_given(&rig);
        if !is_right {
            assert!(rig.is_broken());
            return;
        }
    }
    // Everything comes back.
    model.drop_messages(&mut rig, None);
    for number in model.table.keys().copied().collect::<Vec<_>>() {
        assert!(model.retire(&mut rig, number));
    }
    model.check_given(&rig);
}

impl Model {
    /// Does it; whether an honest peer could.
    fn apply(&mut self, rig: &mut Rig, operation: Operation) -> bool {
        match operation {
            Operation::Pass { number, memory, as_sealed } => self.pass(rig, number, memory, as_sealed),
            Operation::Block { number, generation, pages, extra, len } => {
                let offset = usize::from(pages) % 18 * PAGE + extra.map_or(0, usize::from);
                let len = len.map_or(EXTENT.saturating_sub(offset).max(1) as u64, u64::from);
                self.block(rig, number.into(), generation.into(), offset, len)
            }
            Operation::Sealed { number, len } => self.sealed(rig, number.into(), len.map(u64::from)),
            Operation::Drop { message } => {
                self.drop_messages(rig, message);
                true
            }
            Operation::Retire { number } => self.retire(rig, number.into()),
            Operation::Keep(keeps) => {
                (self.keeps, rig.heard.keeps) = (keeps, keeps);
                true
            }
        }
    }

    fn pass(&mut self, rig: &Rig, number: u8, memory: Memory, as_sealed: bool) -> bool {
        // A number of 0 is the sender's own mistake, which its packet would not be made for.
        let number = u64::from(number.max(1));
        let kind = if as_sealed { MemoryKind::Sealed } else { MemoryKind::Extent };
        let fd = match memory {
            Memory::Extent | Memory::SmallExtent => {
                let size = if matches!(memory, Memory::Extent) { EXTENT } else { EXTENT - PAGE };
                let (fd, map) = memfd::create("memit-fuzz", size).unwrap();
                map.write(0, &content(number, 0, size));
                fd
            }
            Memory::Sealed { len } => {
                let bytes = content(number, 0, usize::from(len).max(1));
                memfd::Unsealed::with_bytes("memit-fuzz", &bytes).unwrap().seal().unwrap()
            }
            Memory::Unsealed => {
                let fd = rustix::fs::memfd_create("memit-fuzz", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
                rustix::fs::ftruncate(&fd, EXTENT as u64).unwrap();
                fd
            }
            Memory::Socket => socket::pair().unwrap().0,
        };
        socket::send_memory(rig.socket.as_fd(), number, kind, fd.as_fd()).unwrap();
        rig.hear();
        let is_full = self.table.len() + self.kept.len() >= MOST_MEMORIES;
        if matches!(memory, Memory::Socket) || self.table.contains_key(&number) || is_full {
            return false;
        }
        self.table.insert(number, Entry::Passed(memory, as_sealed));
        true
    }

    fn mapped(&self) -> usize {
        self.table.values().filter(|entry| matches!(entry, Entry::Mapped)).count()
    }

    fn block(&mut self, rig: &mut Rig, number: u64, generation: u64, offset: usize, len: u64) -> bool {
        let is_there = match self.table.get(&number) {
            Some(Entry::Mapped) => true,
            Some(Entry::Passed(Memory::Extent, false)) => (self.mapped() + 1) * EXTENT <= ARENA,
            _ => false,
        };
        let location = Location::Block { memory: number, generation, offset: offset as u64, len };
        let heard = name(rig, location);
        let is_within = offset.is_multiple_of(PAGE) && len > 0 && offset as u64 + len <= EXTENT as u64;
        if !is_there || !is_within || len > MESSAGE_LIMIT as u64 {
            assert!(heard.is_none());
            return false;
        }
        assert!(heard == Some(content(number, offset, len as usize)), "something else was heard");
        self.table.insert(number, Entry::Mapped);
        // Blocks are copied, so they are given back whether or not the message is kept.
        self.given.push(GiveBack::Block { memory: number, generation, offset: offset as u64 });
        true
    }

    fn sealed(&mut self, rig: &mut Rig, number: u64, len: Option<u64>) -> bool {
        let passed = match self.table.get(&number) {
            Some(Entry::Passed(memory, true)) => Some(*memory),
            _ => None,
        };
        let size = if let Some(Memory::Sealed { len }) = passed { u64::from(len).max(1) } else { 1 };
        let len = len.unwrap_or(size);
        let heard = name(rig, Location::Sealed { memory: number, len });
        let charged = self.mapped().saturating_sub(1) * EXTENT;
        let kept: u64 = self.kept.iter().map(|(_, len)| len).sum();
        let fits = self.kept.is_empty() || charged as u64 + kept + len <= ARENA as u64;
        if passed.is_none() || !fits || len > MESSAGE_LIMIT as u64 {
            assert!(heard.is_none());
            return false;
        }
        self.table.remove(&number);
        let is_right = matches!(passed, Some(Memory::Sealed { .. })) && len == size;
        if is_right && self.keeps {
            self.kept.push((number, len));
        } else {
            self.given.push(GiveBack::Memory { memory: number });
        }
        assert!(heard == is_right.then(|| content(number, 0, len as usize)));
        is_right
    }

    fn drop_messages(&mut self, rig: &mut Rig, message: Option<u8>) {
        let dropped: Vec<Message> = match message {
            None => std::mem::take(&mut rig.heard.messages),
            Some(_) if rig.heard.messages.is_empty() => return,
            Some(index) => vec![rig.heard.messages.remove(usize::from(index) % rig.heard.messages.len())],
        };
        for Message { bytes, kept, .. } in dropped {
            let Some(kept) = kept else { continue };
            assert!(*kept == *bytes, "what was kept has changed");
            let before = rig.ours.load_given();
            drop(kept);
            if let Some(GiveBack::Memory { memory }) = given(&rig.ours, before) {
                let at = self.kept.iter().position(|(number, len)| (*number, *len) == (memory, bytes.len() as u64));
                self.kept.swap_remove(at.expect("it was kept"));
                self.given.push(GiveBack::Memory { memory });
            }
        }
        if message.is_none() {
            assert!(self.kept.is_empty(), "sealed memory was not given back");
        }
    }

    fn retire(&mut self, rig: &mut Rig, number: u64) -> bool {
        rig.peer.publish(0, RETIRE, 0, &number.to_le_bytes());
        rig.drain(8);
        let is_known = self.table.remove(&number).is_some();
        if is_known {
            self.given.push(GiveBack::Memory { memory: number });
        }
        is_known
    }

    fn check_given(&self, rig: &Rig) {
        assert_eq!(rig.ours.load_given(), self.given.len() as u64);
        for (n, expected) in self.given.iter().enumerate().rev().take(4) {
            assert_eq!(given(&rig.ours, n as u64), Some(*expected));
        }
    }
}

/// Sends a message that lies elsewhere; what was heard.
fn name(rig: &mut Rig, location: Location) -> Option<Vec<u8>> {
    let heard = rig.heard.messages.len();
    rig.peer.publish(0, MESSAGE, location.place(), location.encode().as_slice());
    rig.drain(8);
    rig.heard.messages.get(heard).map(|message| message.bytes.clone())
}
