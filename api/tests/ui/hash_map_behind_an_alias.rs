//! The same, where only the type checker sees it.
use memit::{Channel, IpcRenderer};
use std::collections::HashMap;

type Table = HashMap<String, f64>;

#[memit::message]
struct Prices {
    by_symbol: Table,
}

const PRICES: Channel<HashMap<String, f64>> = Channel::new("prices");

fn main() {
    let renderer = IpcRenderer::connect("app").unwrap();
    let _ = renderer.send(PRICES, &HashMap::new());
}
