//! A plain message is numbers, without a gap between them.
#[memit::message(plain)]
#[derive(Clone, Copy)]
struct Gap {
    small: u8,
    large: u64,
}

#[memit::message(plain)]
#[derive(Clone, Copy)]
struct Counted {
    count: Option<std::num::NonZeroU32>,
}

fn main() {}
