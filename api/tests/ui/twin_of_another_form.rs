//! A twin with other fields, in another order, or of other types.
#[memit::message]
struct Tick {
    seq: u64,
    symbol: String,
}

#[memit::message(as = Tick)]
struct Reordered<'a> {
    symbol: &'a str,
    seq: u64,
}

#[memit::message(as = Tick)]
struct OtherType<'a> {
    seq: u32,
    symbol: &'a str,
}

#[memit::message(as = Tick)]
enum Choice {
    A,
}

fn main() {}
