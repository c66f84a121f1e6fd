//! Counting heap allocations. A binary that wants them counted has a [`Counting`] as its global allocator.
//!
//! Invariants:
//! 1. `TARGET` is null or came from a `&'static AtomicU64`.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

/// Where allocations are counted, of all threads; null while they are not.
static TARGET: AtomicPtr<AtomicU64> = AtomicPtr::new(ptr::null_mut());

/// Those of this process, if it is the one that measures.
static HERE: AtomicU64 = AtomicU64::new(0);

/// The system's allocator, which counts while it is asked to and otherwise looks at one word more than it would.
#[derive(Debug)]
pub struct Counting;

fn count() {
    // SAFETY: null, which gives `None`, or static (1).
    if let Some(target) = unsafe { TARGET.load(Ordering::Relaxed).as_ref() } {
        target.fetch_add(1, Ordering::Relaxed);
    }
}

// SAFETY: forwards to the system's allocator; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller's promise is passed on.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// The allocations of this process.
#[derive(Debug)]
pub struct Allocations;

impl Allocations {
    /// Counts them in `target` from now on.
    pub fn count_in(target: &'static AtomicU64) {
        TARGET.store(ptr::from_ref(target).cast_mut(), Ordering::Relaxed);
    }

    /// Counts them no more.
    pub fn end_here() {
        TARGET.store(ptr::null_mut(), Ordering::Relaxed);
    }

    /// Counts them in this process's own memory.
    pub fn begin_here() {
        Self::count_in(&HERE);
    }

    /// How many there were in this process's own memory; `None` if this program's allocator does not count.
    pub fn here() -> Option<u64> {
        let before = HERE.load(Ordering::Relaxed);
        drop(black_box(Box::new(black_box(0_u8))));
        let after = HERE.load(Ordering::Relaxed);
        // Reading adds one each time, which is no allocation of what is measured.
        (after != before).then(|| HERE.fetch_sub(1, Ordering::Relaxed).wrapping_sub(1))
    }
}
