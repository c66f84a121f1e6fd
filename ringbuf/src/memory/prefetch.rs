//! Fetching lines before they are written.

use crate::sync::real::AtomicU64;

/// Has the processor fetch the line of `word` to write it: a hint, by which no thread sees anything change.
///
/// A line that another core reads costs a store the time that a line takes between cores, and later stores wait behind
/// it. Asked for early, it comes while the thread does something else. (`prefetchw`, which all processors of this
/// architecture know since 2004 or treat as nothing.)
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
