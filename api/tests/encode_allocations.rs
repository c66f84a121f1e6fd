//! A thread that sends messages of similar size allocates nothing for encoding them.
//!
//! It is a program of its own, since it replaces the allocator.
#![allow(clippy::unwrap_used, unsafe_code)]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    hint::black_box,
};

use memit::{Payload, encode::with_encoded, rkyv::util::AlignedVec};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: all is left to the system's allocator; the counter is a thread-local without a destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller promises the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller promises the same.
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller promises the same.
        unsafe { System.realloc(ptr, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations_of(mut f: impl FnMut()) -> u64 {
    // The first rounds size the buffers.
    (0..8).for_each(|_| f());
    let before = ALLOCATIONS.get();
    (0..1_000).for_each(|_| f());
    ALLOCATIONS.get() - before
}

#[memit::message]
struct Tick {
    seq: u64,
    symbol: String,
    price: f64,
}

#[memit::message(as = Tick)]
struct TickRef<'a> {
    seq: u64,
    symbol: &'a str,
    price: f64,
}

fn tick() -> Tick {
    Tick { seq: 1, symbol: "a symbol of some length".into(), price: 2.5 }
}

#[test]
fn the_counter_counts() {
    assert_eq!(allocations_of(|| drop(black_box(Box::new(1)))), 1_000);
}

#[test]
fn structs_twins_texts_and_slices() {
    let (tick, floats) = (tick(), vec![1.0_f32; 5_000]);
    assert_eq!(
        allocations_of(|| with_encoded::<Tick, _, _>(&tick, |b| {
            black_box(b);
        })
        .unwrap()),
        0
    );
    let twin = TickRef { seq: 1, symbol: "a symbol of some length", price: 2.5 };
    assert_eq!(
        allocations_of(|| with_encoded::<Tick, _, _>(&twin, |b| {
            black_box(b);
        })
        .unwrap()),
        0
    );
    assert_eq!(
        allocations_of(|| with_encoded::<String, _, _>("text", |b| {
            black_box(b);
        })
        .unwrap()),
        0
    );
    assert_eq!(
        allocations_of(|| with_encoded::<[f32], _, _>(&floats, |b| {
            black_box(b);
        })
        .unwrap()),
        0
    );
}

#[test]
fn vectors_that_need_scratch_space() {
    let many: Vec<String> = (0..1_000).map(|n| format!("string number {n}")).collect();
    assert_eq!(
        allocations_of(|| with_encoded::<Vec<String>, _, _>(&many, |b| {
            black_box(b);
        })
        .unwrap()),
        0
    );
}

#[test]
fn messages_inside_of_messages() {
    let tick = tick();
    let nested = || {
        with_encoded::<Tick, _, _>(&tick, |_| {
            with_encoded::<Tick, _, _>(&tick, |b| {
                black_box(b);
            })
            .unwrap();
        })
        .unwrap();
    };
    assert_eq!(allocations_of(nested), 0);
}

#[test]
fn looking_at_a_message() {
    let mut bytes: AlignedVec<16> = AlignedVec::new();
    with_encoded(&tick(), |encoded| bytes.extend_from_slice(encoded)).unwrap();
    assert_eq!(
        allocations_of(|| {
            black_box(Tick::view(&bytes).unwrap());
        }),
        0
    );
}
