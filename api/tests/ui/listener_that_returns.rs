//! What a listener returns goes nowhere.
use memit::{Channel, IpcRenderer};

const TICK: Channel<u64> = Channel::new("tick");

fn main() {
    let renderer = IpcRenderer::connect("app").unwrap();
    renderer.on(TICK, |_, tick| tick.to_native());
}
