//! Fetching lines before they are written.
//!
//! A line that another core reads costs a store the time that a line takes between cores, and later stores wait behind
//! it. Asked for early, it comes while the thread does something else.

use crate::layout::LINE;
use crate::sync::real::AtomicU64;

/// More is not fetched. A round trip would gain by it, up to 1 KiB, but a stream by two threads would lose more.
const MOST: usize = 5 * LINE;

/// Calls `prefetch` with the offset of each line of `size` bytes that are about to be written, beginning at a line.
///
/// It is all of them or none. Who waits for the first takes it back as soon as it has come; fetched without the others,
/// it is with the reader again when these are written, and has to be fetched once more.
#[inline(always)]
pub fn each_line_to_prefetch(size: usize, mut prefetch: impl FnMut(usize)) {
    if size <= MOST {
        let mut line = 0;
        while line < size {
            prefetch(line);
            line += LINE;
        }
    }
}

/// Has the processor fetch the line of `word` to write it: a hint, by which no thread sees anything change. It is
/// `prefetchw`, which all but the very first processors of this architecture know, or pass over; elsewhere it is nothing.
#[inline(always)]
#[allow(unsafe_code)]
pub fn prefetch_to_write(word: &AtomicU64) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: it changes no register, no flag and no memory.
    unsafe {
        core::arch::asm!(
            "prefetchw [{word}]",
            word = in(reg) core::ptr::from_ref(word),
            options(nostack, preserves_flags, readonly)
        );
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = word;
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec::Vec;

    use super::*;

    #[test]
    fn all_lines_are_fetched_or_none() {
        let lines = |size| {
            let mut lines = Vec::new();
            each_line_to_prefetch(size, |line| lines.push(line));
            lines
        };
        assert_eq!(lines(64), [0]);
        assert_eq!(lines(65), [0, 64]);
        assert_eq!(lines(128), [0, 64]);
        assert_eq!(lines(MOST).len(), 5);
        assert!(lines(MOST + 1).is_empty());
    }
}
