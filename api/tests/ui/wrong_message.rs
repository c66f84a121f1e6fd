//! A message of another type than the channel's.
use memit::{Channel, IpcRenderer};

#[memit::message]
struct Tick {
    seq: u64,
}

#[memit::message]
struct Tock {
    seq: u64,
}

const TICK: Channel<Tick> = Channel::new("tick");
const TEXT: Channel<str> = Channel::new("text");

fn main() {
    let renderer = IpcRenderer::connect("app").unwrap();
    let _ = renderer.send(TICK, &Tock { seq: 1 });
    let _ = renderer.send(TEXT, &5);
    let _ = renderer.send("note", &5);
}
