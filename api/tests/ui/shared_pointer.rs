//! What is shared here is not shared with another process.
use std::{rc::Rc, sync::Arc};

#[memit::message]
struct Tick {
    seq: u64,
    symbol: Rc<String>,
    tags: Vec<std::sync::Arc<str>>,
}

#[memit::message]
enum Choice {
    One(Arc<u8>),
}

fn main() {}
