//! A message owns what it carries.
#[memit::message]
struct Tick {
    seq: u64,
    symbol: &'static str,
}

#[memit::message]
struct Borrowing<'a> {
    symbol: &'a str,
}

fn main() {}
