//! The machine's own limit for payloads that are copied in and copied out: a stream of plain copies between two
//! processes, through memory that both have mapped, with two words to say how far each is.
#![allow(unsafe_code)]

use std::hint::{black_box, spin_loop};
use std::sync::atomic::Ordering;

use crate::board;
use crate::shared::Shared;

/// Messages on their way at once.
const PLACES: usize = 4;

/// Bytes of the shared memory, besides the board, for messages of `len` bytes, which are a multiple of 4096.
#[must_use]
pub const fn shared_len(len: usize) -> usize {
    PLACES * len
}

/// Copies `message` into the shared memory `count` times, each when there is a place, with [`take`] in the other
/// process. It returns when the last was taken, and calls `done` after each copy. `from` messages have gone before.
pub fn put(shared: &Shared, message: &[u8], from: u64, count: u64, mut done: impl FnMut()) {
    let (written, read) = (shared.word(board::WRITTEN), shared.word(board::READ));
    for number in from..from + count {
        while number - read.load(Ordering::Acquire) >= PLACES as u64 {
            spin_loop();
        }
        let place = place(shared, number, message.len());
        // SAFETY: the place is within the mapping, and the other process does not touch it before `written` says so.
        unsafe { place.copy_from_nonoverlapping(message.as_ptr(), message.len()) };
        written.store(number + 1, Ordering::Release);
        done();
    }
    while read.load(Ordering::Acquire) != from + count {
        spin_loop();
    }
}

/// The other side of [`put`]: copies each message out.
pub fn take(shared: &Shared, to: &mut [u8], from: u64, count: u64) {
    let (written, read) = (shared.word(board::WRITTEN), shared.word(board::READ));
    for number in from..from + count {
        while written.load(Ordering::Acquire) <= number {
            spin_loop();
        }
        let place = place(shared, number, to.len());
        // SAFETY: the place is within the mapping, and the other process does not touch it before `read` says so.
        unsafe { to.as_mut_ptr().copy_from_nonoverlapping(place, to.len()) };
        black_box(&mut *to);
        read.store(number + 1, Ordering::Release);
    }
}

fn place(shared: &Shared, number: u64, len: usize) -> *mut u8 {
    #[allow(clippy::cast_possible_truncation, reason = "less than PLACES")]
    let at = board::LEN + (number % PLACES as u64) as usize * len;
    shared.at(at).as_ptr()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_is_taken() {
        let shared = Shared::create(board::LEN + shared_len(4096)).unwrap();
        let mut to = vec![0; 4096];
        std::thread::scope(|scope| {
            scope.spawn(|| put(&shared, &[7; 4096], 0, 3 * PLACES as u64, || ()));
            take(&shared, &mut to, 0, 3 * PLACES as u64);
        });
        assert_eq!(to, [7; 4096]);
    }
}
