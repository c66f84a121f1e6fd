//! The same, where only the type checker sees it.
type Index = usize;

#[memit::message]
struct Page {
    index: Index,
}

fn main() {}
