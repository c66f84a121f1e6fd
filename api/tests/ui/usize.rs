//! A number whose width the machine decides.
#[memit::message]
struct Page {
    index: usize,
    offsets: Vec<Option<isize>>,
}

fn main() {}
