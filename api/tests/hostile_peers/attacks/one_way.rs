//! Tries to write to the victim's own memory, and to take it away.

use std::os::fd::AsRawFd;

use rustix::fs::{CWD, FallocateFlags, Mode, OFlags, SealFlags, fallocate, fchmod, fcntl_add_seals, ftruncate, openat};

use super::{Attack, Turn, Verdict, attack};
use crate::wire::map::Map;
use crate::wire::peer::{MESSAGE, PING, Peer};

pub const ATTACKS: &[Attack] = &[attack("writes_to_the_victim_s_outbox", Verdict::Ignored, writes)];

/// By every way there is. It asserts itself that the kernel lets it by none.
fn writes(peer: &mut Peer, turn: &mut Turn) {
    turn.until_over(peer, |peer, random| {
        let (fd, size) = (&peer.their_outbox, peer.their_shape.size());
        let at = random.below(size - 64) as u64;
        assert!(rustix::io::pwrite(fd, &random.bytes(64), at).is_err(), "pwrite");
        assert!(rustix::io::write(fd, &[0]).is_err(), "write");
        assert!(ftruncate(fd, 4096).is_err() && ftruncate(fd, 2 * size as u64).is_err(), "ftruncate");
        let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        assert!(fallocate(fd, punch, at & !4095, 4096).is_err(), "punching a hole");
        assert!(fallocate(fd, FallocateFlags::ZERO_RANGE, at & !4095, 4096).is_err(), "zeroing");
        assert!(fcntl_add_seals(fd, SealFlags::WRITE).is_err(), "sealing");
        assert!(Map::new(fd, size, true).is_err(), "mapping for writing");
        assert!(!peer.theirs.make_writable(), "mprotect");
        assert!(!peer.theirs.remove_pages(), "MADV_REMOVE");
        let _ = fchmod(fd, Mode::from_raw_mode(0o777));
        let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
        if let Ok(again) = openat(CWD, path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()) {
            assert!(Map::new(&again, size, true).is_err(), "mapping the reopened file for writing");
            assert!(rustix::io::pwrite(&again, &[0], at).is_err(), "pwrite to the reopened file");
        }
        peer.publish(MESSAGE, PING, 0, b"as if nothing was");
        peer.keep_up();
    });
}
