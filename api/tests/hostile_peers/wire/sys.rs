//! System calls that rustix does not offer in the form in which an attack wants them.
//!
//! Each takes numbers and addresses of words that live in a map of this process; none makes the kernel write to memory of
//! this program other than what is passed for that.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::AtomicU32;

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};

/// The most descriptors that the kernel lets a packet carry.
pub const MOST_DESCRIPTORS: usize = 253;

/// Bytes, and what came with them.
pub type Packet = (Vec<u8>, Vec<OwnedFd>);

/// Sends one packet without waiting.
pub fn send(socket: impl AsFd, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> Result<(), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        assert!(control.push(SendAncillaryMessage::ScmRights(descriptors)));
    }
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    sendmsg(socket, &[IoSlice::new(bytes)], &mut control, flags).map(drop)
}

/// Receives one packet without waiting; `None` at the end of the connection.
pub fn receive(socket: impl AsFd) -> Result<Option<Packet>, Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut bytes = vec![0; 512];
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let received = recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, flags)?;
    bytes.truncate(received.bytes);
    let descriptors: Vec<OwnedFd> = control
        .drain()
        .filter_map(|message| if let RecvAncillaryMessage::ScmRights(fds) = message { Some(fds) } else { None })
        .flatten()
        .collect();
    Ok((received.bytes != 0 || !descriptors.is_empty()).then_some((bytes, descriptors)))
}

/// Receives one packet into a page of `file`. That takes as long as the file takes to bring the page.
pub fn receive_into_page_of(file: impl AsFd, socket: impl AsFd) {
    const LEN: usize = 4096;
    let (protection, file) = (libc::PROT_READ | libc::PROT_WRITE, file.as_fd().as_raw_fd());
    // SAFETY: a new map where the kernel likes.
    let page = unsafe { libc::mmap(std::ptr::null_mut(), LEN, protection, libc::MAP_PRIVATE, file, 0) };
    assert_ne!(page, libc::MAP_FAILED);
    // SAFETY: has the kernel write to the map, which stays and of which nobody else knows.
    unsafe { libc::recv(socket.as_fd().as_raw_fd(), page, LEN, 0) };
}

/// Wakes everybody who waits on a word in shared memory.
pub fn futex_wake(word: &AtomicU32) {
    // SAFETY: looks at no memory but the word.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, i32::MAX) };
}

/// Moves everybody who waits on `from` to `to`, without waking anyone. How many the kernel says it were.
pub fn futex_requeue(from: &AtomicU32, to: &AtomicU32) -> i64 {
    // SAFETY: looks at no memory but the two words.
    unsafe { libc::syscall(libc::SYS_futex, from.as_ptr(), libc::FUTEX_REQUEUE, 0, i32::MAX as usize, to.as_ptr()) }
}

/// Sets a socket option that is an `int`.
pub fn set_socket_option(socket: impl AsFd, option: i32, value: i32) -> bool {
    let size = size_of::<i32>() as libc::socklen_t;
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: reads the one number.
    unsafe { libc::setsockopt(fd, libc::SOL_SOCKET, option, (&raw const value).cast(), size) == 0 }
}

/// Mounts a file system that whoever has `device` serves, for this thread alone. Whether that is allowed here.
pub fn mount_fuse(device: impl AsFd, place: &Path) -> bool {
    let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", device.as_fd().as_raw_fd());
    let [place, options] = [place.to_str().unwrap(), &options].map(|text| CString::new(text).unwrap());
    // SAFETY: this thread alone gets a mount namespace of its own.
    if unsafe { libc::unshare(libc::CLONE_NEWNS) } != 0 {
        return false;
    }
    let (nothing, private) = (std::ptr::null(), libc::MS_PRIVATE | libc::MS_REC);
    // SAFETY: reads the one text.
    if unsafe { libc::mount(nothing, c"/".as_ptr(), nothing, private, nothing.cast()) } != 0 {
        return false;
    }
    let kind = c"fuse".as_ptr();
    let flags = libc::MS_NOSUID | libc::MS_NODEV;
    // SAFETY: reads the texts, all of which end.
    unsafe { libc::mount(kind, place.as_ptr(), kind, flags, options.as_ptr().cast()) == 0 }
}

/// Leaves the processor to whoever else wants it.
pub fn stand_back() {
    // SAFETY: takes numbers only.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 10) };
}

/// Keeps the calling thread, and those that it starts from now on, on one of the cores that this process may use: the
/// `which`-th from the first, or the last there is.
pub fn pin(which: usize) {
    let Ok(allowed) = rustix::thread::sched_getaffinity(None) else { return };
    let cores: Vec<usize> = (0..rustix::thread::CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core)).collect();
    let mut set = rustix::thread::CpuSet::new();
    set.set(cores[which.min(cores.len() - 1)]);
    let _ = rustix::thread::sched_setaffinity(None, &set);
}
