//! Passes descriptors that are not what they should be: in the handshake as an outbox, and later as an extent.

use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    CWD, FallocateFlags, MemfdFlags, Mode, OFlags, SealFlags, fallocate, fcntl_add_seals, ftruncate, memfd_create,
    openat,
};

use super::fuse;
use super::handshakes::{BAD_MESSAGE, BAD_OUTBOX, First, expect_refusal};
use super::{Act, Attack, BOTH, Turn, Verdict, attack};
use crate::wire::handshake::{Terms, bell_pair, borrowed};
use crate::wire::outbox::{SEALS, memfd};
use crate::wire::peer::{EXTENT, MESSAGE, PING, Peer, Side, block};
use crate::wire::sys;

const NOT_MEMORY: Verdict = Verdict::Punished(&["memory", "descriptor"]);

const fn greeting(name: &'static str, act: fn(&OwnedFd, Side, &mut Turn)) -> Attack {
    Attack { name, sides: BOTH, verdict: Verdict::Refused, act: Act::Greeting(act), forms: 1 }
}

pub const ATTACKS: &[Attack] = &[
    greeting("passes_a_wrong_outbox", wrong_outbox).in_forms(FILES),
    greeting("passes_too_many_or_too_few_descriptors", wrong_number).in_forms(5),
    greeting("passes_files_whose_close_waits", slow_outbox).in_forms(2),
    greeting("queues_files_whose_close_waits", queued_files),
    attack("passes_a_wrong_extent", NOT_MEMORY, wrong_extent).in_forms(FILES),
    attack("passes_a_file_whose_close_waits_as_an_extent", NOT_MEMORY, slow_extent).in_forms(2),
];

/// At least as many as there are [`wrong_files`].
const FILES: usize = 24;

/// Every kind of file that is not a sealed memory of `size` bytes with all its pages.
fn wrong_files(size: usize) -> Vec<(&'static str, OwnedFd)> {
    let open = |path: &str, flags| openat(CWD, path, flags | OFlags::CLOEXEC, Mode::empty());
    let size = size as u64;
    let mut files = Vec::new();
    let (reader, writer) = rustix::pipe::pipe().unwrap();
    files.push(("a pipe to read", reader));
    files.push(("a pipe to write", writer));
    files.push(("a socket", bell_pair().0));
    files.push(("an eventfd", rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC).unwrap()));
    files.push(("an epoll", rustix::event::epoll::create(rustix::event::epoll::CreateFlags::CLOEXEC).unwrap()));
    for (what, path, flags) in [
        ("a directory", "/", OFlags::RDONLY),
        ("a path", "/", OFlags::PATH),
        ("zeros", "/dev/zero", OFlags::RDONLY),
        ("a program", "/proc/self/exe", OFlags::RDONLY),
        ("a file of procfs", "/proc/self/mem", OFlags::RDWR),
    ] {
        files.extend(open(path, flags).ok().map(|fd| (what, fd)));
    }
    let whole = |size: u64| {
        let fd = memfd();
        fallocate(&fd, FallocateFlags::empty(), 0, size).unwrap();
        fd
    };
    files.push(("unsealed memory", whole(size)));
    for missing in [SealFlags::SHRINK, SealFlags::GROW, SealFlags::FUTURE_WRITE, SealFlags::SEAL] {
        let fd = whole(size);
        fcntl_add_seals(&fd, SEALS.difference(missing)).unwrap();
        files.push(("memory without one of the seals", fd));
    }
    let sealed = |what, fd: OwnedFd| {
        fcntl_add_seals(&fd, SEALS).unwrap();
        (what, fd)
    };
    files.push(sealed("empty memory", memfd()));
    files.push(sealed("truncated memory", whole(size - 4096)));
    files.push(sealed("memory that is too long", whole(size + 4096)));
    let sparse = |size: u64| {
        let fd = memfd();
        ftruncate(&fd, size).unwrap();
        fd
    };
    files.push(sealed("memory without pages", sparse(size)));
    files.push(sealed("huge memory", sparse(1 << 40)));
    let holed = sparse(size);
    fallocate(&holed, FallocateFlags::empty(), 0, size - 4096).unwrap();
    files.push(sealed("memory with a hole", holed));
    let hidden = sparse(size);
    fallocate(&hidden, FallocateFlags::KEEP_SIZE, size, size).unwrap();
    files.push(sealed("memory whose pages lie behind its end", hidden));
    let huge = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING | MemfdFlags::HUGETLB;
    if let Ok(fd) = memfd_create("hostile", huge) {
        ftruncate(&fd, 2 << 20).unwrap();
        files.push(sealed("memory of huge pages", fd));
    }
    files
}

fn wrong_outbox(socket: &OwnedFd, side: Side, turn: &mut Turn) {
    let terms = Terms::default();
    let Some(mut first) = First::new(socket, side, &terms) else { return };
    let mut files = wrong_files(terms.shape.size());
    let (what, file) = files.swap_remove(turn.number % files.len());
    first.outbox = file;
    if sys::send(socket, &first.bytes, &first.descriptors()).is_ok() {
        let code = crate::wire::handshake::refusal(socket);
        assert!(matches!(code, Some(BAD_OUTBOX | BAD_MESSAGE)), "{what}: {code:?}");
        turn.struck();
    }
}

fn wrong_number(socket: &OwnedFd, side: Side, turn: &mut Turn) {
    let Some(first) = First::new(socket, side, &Terms::default()) else { return };
    let right = first.descriptors().len();
    let number = [0, right + 1, right + 2, 16, sys::MOST_DESCRIPTORS][turn.number % 5];
    let files: Vec<OwnedFd> = (0..number).map(|_| memfd()).collect();
    if sys::send(socket, &first.bytes, &borrowed(&files)).is_ok() {
        expect_refusal(socket, &[BAD_MESSAGE], turn);
    }
}

/// A TCP socket that lingers: its last close waits for the other end to take what it never takes.
fn lingering() -> (OwnedFd, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (other, _) = listener.accept().unwrap();
    rustix::net::sockopt::set_socket_linger(&stream, Some(std::time::Duration::from_secs(60))).unwrap();
    stream.set_nonblocking(true).unwrap();
    let chunk = [0; 1 << 16];
    while rustix::io::write(&stream, &chunk).is_ok() {}
    (stream.into(), other)
}

/// A file whose last close waits, and what makes it wait.
fn slow_file(turn: &Turn) -> (OwnedFd, Box<dyn Send>) {
    if turn.number % 2 == 1
        && let Some(file) = fuse::file_that_never_answers()
    {
        return (file, Box::new(()));
    }
    let (file, other) = lingering();
    (file, Box::new(other))
}

/// Closes our copy. It may be the last one already.
fn close_aside(file: OwnedFd) {
    std::thread::spawn(move || drop(file));
}

fn slow_outbox(socket: &OwnedFd, side: Side, turn: &mut Turn) {
    let Some(mut first) = First::new(socket, side, &Terms::default()) else { return };
    let (file, waits) = slow_file(turn);
    first.outbox = file;
    if sys::send(socket, &first.bytes, &first.descriptors()).is_err() {
        return;
    }
    close_aside(first.outbox);
    expect_refusal(socket, &[BAD_OUTBOX], turn);
    drop(waits);
}

/// More packets than a victim reads before it refuses, and behind them a file that whoever closes the socket closes last.
fn queued_files(socket: &OwnedFd, _: Side, turn: &mut Turn) {
    let (file, waits) = slow_file(turn);
    for packet in 0..20 {
        let file = [file.as_fd()];
        let files = if packet < 15 { &[] } else { &file[..] };
        if sys::send(socket, b"no hello", files).is_err() {
            break;
        }
    }
    close_aside(file);
    expect_refusal(socket, &[BAD_MESSAGE], turn);
    // The file goes on waiting for as long as this process lives.
    std::mem::forget(waits);
}

fn slow_extent(peer: &mut Peer, turn: &mut Turn) {
    let (file, waits) = slow_file(turn);
    peer.pass(1, EXTENT, &file).unwrap();
    close_aside(file);
    assert!(peer.is_punished(), "a descriptor of no memory went unpunished");
    drop(waits);
}

fn wrong_extent(peer: &mut Peer, turn: &mut Turn) {
    let mut files = wrong_files(peer.limits.extent);
    let (_, file) = files.swap_remove(turn.number % files.len());
    if peer.pass(1, EXTENT, as_fd(&file)).is_ok() {
        peer.publish(MESSAGE, PING, 1, &block(1, 1, 0, 100));
    }
}

fn as_fd(file: &OwnedFd) -> BorrowedFd<'_> {
    file.as_fd()
}
