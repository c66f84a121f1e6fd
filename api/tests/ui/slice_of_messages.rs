//! A slice is sent as it lies in memory, which an archived message is not.
use memit::{Channel, IpcRenderer};

#[memit::message]
struct Tick {
    symbol: String,
}

const TICKS: Channel<[Tick]> = Channel::new("ticks");

fn main() {
    let renderer = IpcRenderer::connect("app").unwrap();
    let ticks: &[Tick] = &[];
    let _ = renderer.send(TICKS, ticks);
}
