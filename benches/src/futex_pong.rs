//! The machine's own limit for processes that sleep while they wait: one futex that wakes the other side, and one that
//! is slept on.

use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::thread::futex::{self, Flags};

/// Bounces `rounds` times with [`answer`] in the other process; how long that took. Both words are at `from`.
pub fn ask(there: &AtomicU32, back: &AtomicU32, from: u32, rounds: u32) -> io::Result<Duration> {
    let began = Instant::now();
    for round in 1..=rounds {
        let number = from.wrapping_add(round);
        publish(there, number)?;
        until(back, number)?;
    }
    Ok(began.elapsed())
}

/// The other side of [`ask`].
pub fn answer(there: &AtomicU32, back: &AtomicU32, from: u32, rounds: u32) -> io::Result<()> {
    for round in 1..=rounds {
        let number = from.wrapping_add(round);
        until(there, number)?;
        publish(back, number)?;
    }
    Ok(())
}

fn publish(word: &AtomicU32, number: u32) -> io::Result<()> {
    word.store(number, Ordering::Release);
    futex::wake(word, Flags::empty(), 1)?;
    Ok(())
}

/// Sleeps until `word`, which goes up by one a round, is `number`.
fn until(word: &AtomicU32, number: u32) -> io::Result<()> {
    while word.load(Ordering::Acquire) != number {
        match futex::wait(word, Flags::empty(), number.wrapping_sub(1), None) {
            Ok(()) | Err(Errno::AGAIN | Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_do_all_rounds_across_the_largest_number() {
        let from = u32::MAX - 5;
        let (there, back) = (AtomicU32::new(from), AtomicU32::new(from));
        std::thread::scope(|scope| {
            scope.spawn(|| answer(&there, &back, from, 50).unwrap());
            ask(&there, &back, from, 50).unwrap();
        });
        assert_eq!((there.into_inner(), back.into_inner()), (44, 44));
    }
}
