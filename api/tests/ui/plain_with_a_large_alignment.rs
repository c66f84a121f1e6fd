//! The bytes of a message begin at a multiple of 16, and of no more.
#[memit::message(plain)]
#[derive(Clone, Copy)]
#[repr(C, align(32))]
struct Wide([u8; 32]);

#[memit::message(plain)]
#[derive(Clone, Copy)]
struct Wider {
    all: [Wide; 2],
}

fn main() {}
