//! A type that nobody declared a message.
use memit::{Channel, IpcRenderer};

struct Tick {
    seq: u64,
}

const TICK: Channel<Tick> = Channel::new("tick");

fn main() {
    let renderer = IpcRenderer::connect("app").unwrap();
    let _ = renderer.send(TICK, &Tick { seq: 1 });
}
