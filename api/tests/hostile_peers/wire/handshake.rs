//! Names, sockets and the handshake, from either end.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, FlockOperation, Mode, OFlags, chmodat, flock, open, renameat};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, connect, listen, socket_with, socketpair,
};

use super::map::Map;
use super::outbox::{self, Shape};
use super::peer::{Bells, Limits, Peer, Side};
use super::{Record, fingerprint, sys, u32_at, u64_at};

/// How long the victim may take for anything.
pub const PATIENCE: Duration = Duration::from_secs(20);

const HELLO: u32 = 1;
const WELCOME: u32 = 2;
const READY: u32 = 3;
pub const REFUSE: u32 = 4;

fn seqpacket() -> OwnedFd {
    socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap()
}

/// Connects to the main named `name`; the victim's queue may be full.
pub fn call_on(directory: &Path, name: &str) -> OwnedFd {
    let address = SocketAddrUnix::new(directory.join(format!("{name}.sock"))).unwrap();
    let socket = seqpacket();
    connect(&socket, &address).unwrap();
    socket
}

/// A name that is bound, with the lock that makes it live.
pub struct Bound {
    socket: OwnedFd,
    _lock: OwnedFd,
}

pub fn bind_as(directory: &Path, name: &str) -> Bound {
    let flags = OFlags::CREATE | OFlags::NOFOLLOW | OFlags::RDWR | OFlags::CLOEXEC;
    let lock = open(directory.join(format!("{name}.lock")), flags, Mode::RUSR | Mode::WUSR).unwrap();
    flock(&lock, FlockOperation::NonBlockingLockExclusive).unwrap();
    let temporary = directory.join(format!(".{name}.{:016x}.tmp", std::process::id()));
    let socket = seqpacket();
    bind(&socket, &SocketAddrUnix::new(&temporary).unwrap()).unwrap();
    chmodat(CWD, &temporary, Mode::RUSR | Mode::WUSR, rustix::fs::AtFlags::empty()).unwrap();
    listen(&socket, 16).unwrap();
    renameat(CWD, &temporary, CWD, directory.join(format!("{name}.sock"))).unwrap();
    Bound { socket, _lock: lock }
}

impl Bound {
    pub fn accept(&self) -> OwnedFd {
        accept_with(&self.socket, SocketFlags::CLOEXEC).unwrap()
    }
}

/// The next packet, for which it waits; `None` at the end of the connection.
pub fn next(socket: impl AsFd) -> Option<sys::Packet> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match sys::receive(&socket) {
            Ok(packet) => return packet,
            // Said once when the other end closed with something unread; a Refuse may be queued behind it.
            Err(Errno::CONNRESET) => {}
            Err(Errno::AGAIN) => {
                let left = deadline.saturating_duration_since(Instant::now());
                assert!(!left.is_zero(), "the victim says nothing");
                let left = Timespec::try_from(left).unwrap();
                let _ = poll(&mut [PollFd::new(&socket, PollFlags::IN)], Some(&left));
            }
            Err(_) => return None,
        }
    }
}

/// The code of the Refuse that comes, or that the victim hung up without one.
pub fn refusal(socket: impl AsFd) -> Option<u32> {
    while let Some((packet, _)) = next(&socket) {
        if packet.len() >= 40 && u32_at(&packet, 12) == REFUSE {
            return Some(u32_at(&packet, 16));
        }
    }
    None
}

/// What a side says in its handshake, and may say wrongly.
#[derive(Clone)]
pub struct Terms {
    pub capabilities: u32,
    pub shape: Shape,
    pub key: u64,
    pub limits: Limits,
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            capabilities: 0,
            shape: Shape { capacity: 64 << 10, slots: 4 },
            key: 0x0123_4567_89ab_cdef,
            limits: Limits { extent: 64 << 10, arena: 256 << 10, message: 1 << 20 },
        }
    }
}

fn prefix(kind: u32) -> Record {
    Record::default().bytes(b"MEMIT-HS").u32(4).u32(kind)
}

impl Terms {
    fn record(&self, kind: u32) -> Record {
        prefix(kind)
            .u32(2)
            .u32(self.capabilities)
            .u64(fingerprint())
            .u64(u64::from(std::process::id()) << 32 | 0x6576_696c)
            .u64(self.shape.size() as u64)
            .u64(self.shape.capacity as u64)
            .u32(self.shape.slots as u32)
            .u32(0)
            .u64(self.limits.extent as u64)
            .u64(self.limits.arena as u64)
            .u64(self.limits.message as u64)
            .u64(u64::MAX)
    }

    pub fn hello(&self) -> Vec<u8> {
        self.record(HELLO).0
    }

    pub fn welcome(&self, renderer: u64) -> Vec<u8> {
        self.record(WELCOME).u64(renderer).u32(0).u32(0).0
    }
}

pub fn ready(renderer: u64) -> Vec<u8> {
    prefix(READY).u64(renderer).0
}

/// What the other side said, as far as it is needed.
struct Theirs {
    shape: Shape,
    limits: Limits,
}

fn parse(packet: &[u8], kind: u32) -> Option<Theirs> {
    if packet.len() < 96 || u32_at(packet, 12) != kind {
        return None;
    }
    assert_eq!((&packet[..8], u32_at(packet, 8), u32_at(packet, 16)), (&b"MEMIT-HS"[..], 4, 2));
    assert_eq!((u64_at(packet, 24), u32_at(packet, 60)), (fingerprint(), 0));
    let shape = Shape { capacity: u64_at(packet, 48) as usize, slots: u32_at(packet, 56) as usize };
    assert_eq!(u64_at(packet, 40), shape.size() as u64);
    let [extent, arena, message] = [64, 72, 80].map(|at| u64_at(packet, at) as usize);
    Some(Theirs { shape, limits: Limits { extent, arena, message } })
}

/// Keeps the handshake's rules over a fresh `socket`. `None` if the victim hung up or refused.
pub fn shake(socket: OwnedFd, side: Side, terms: &Terms) -> Option<Peer> {
    let (fd, own) = outbox::create(terms.shape, terms.key);
    let (bell, rings_it) = bell_pair();
    let descriptors = [fd.as_fd(), rings_it.as_fd()];
    let (theirs, came) = match side {
        Side::Renderer => {
            sys::send(&socket, &terms.hello(), &descriptors).ok()?;
            let (packet, came) = next(&socket)?;
            let theirs = parse(&packet, WELCOME)?;
            sys::send(&socket, &ready(u64_at(&packet, 96)), &[]).ok()?;
            (theirs, came)
        }
        Side::Main => {
            let (packet, came) = next(&socket)?;
            let theirs = parse(&packet, HELLO)?;
            sys::send(&socket, &terms.welcome(1), &descriptors).ok()?;
            let (packet, _) = next(&socket)?;
            if packet != ready(1) {
                return None;
            }
            (theirs, came)
        }
    };
    let [their_outbox, their_bell] = <[OwnedFd; 2]>::try_from(came).unwrap();
    let bells = Bells { theirs: their_bell, ours: bell, rings_ours: rings_it };
    let header = theirs.shape.header(0);
    let map = Map::new(&their_outbox, theirs.shape.size(), false).unwrap();
    let found = map.read(0, header.len());
    let key = u64_at(&found, 0x28);
    assert_eq!(found, theirs.shape.header(key), "the victim's outbox has another header than the document says");
    let limits = terms.limits.lesser(theirs.limits);
    Some(Peer::new(socket, bells, own, terms, map, their_outbox, theirs.shape, key, limits))
}

pub fn bell_pair() -> (OwnedFd, OwnedFd) {
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap()
}

/// Borrows all of them.
pub fn borrowed(descriptors: &[OwnedFd]) -> Vec<BorrowedFd<'_>> {
    descriptors.iter().map(AsFd::as_fd).collect()
}
