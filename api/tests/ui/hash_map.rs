//! rkyv's check of a hash table is not one to rely on.
use std::collections::{HashMap, HashSet};

#[memit::message]
struct Prices {
    by_symbol: HashMap<String, f64>,
    halted: Option<HashSet<u32>>,
}

fn main() {}
