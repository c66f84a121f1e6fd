use std::time::Duration;

use memit::{Channel, IpcRenderer, args};

#[memit::message]
struct Tick {
    seq: u64,
    symbol: String,
    price: f64,
}

const TICK: Channel<Tick> = Channel::new("tick");
const ACK: Channel<u64> = Channel::new("ack");
const ADD: Channel<(i32, i32), i32> = Channel::new("add");

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let renderer = IpcRenderer::connect("prices")?;
    renderer.on(ACK, |_, seq| println!("the main has tick {seq}"));
    renderer.send("note", &args!["any", "arguments", 42, true])?;
    renderer.send(TICK, &Tick { seq: 1, symbol: "MEM".into(), price: 9.75 })?;
    println!("1 + 2 = {}", renderer.send_sync(ADD, &(1, 2))?);
    renderer.run_once(Duration::from_secs(5))?; // dispatches the answer to the tick
    Ok(())
}
