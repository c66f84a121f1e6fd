//! rkyv's own attributes would change the archive behind the schema's back.
#[memit::message]
#[rkyv(archived = Other)]
struct Tick {
    #[rkyv(with = memit::rkyv::with::Inline)]
    seq: u64,
}

fn main() {}
