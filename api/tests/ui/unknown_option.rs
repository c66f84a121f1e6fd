//! An argument that the attribute does not have.
#[memit::message(plan)]
struct Tick {
    seq: u64,
}

fn main() {}
