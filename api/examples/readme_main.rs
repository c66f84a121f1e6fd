use memit::{Channel, IpcMain};

#[memit::message]
struct Tick {
    seq: u64,
    symbol: String,
    price: f64,
}

const TICK: Channel<Tick> = Channel::new("tick");
const ACK: Channel<u64> = Channel::new("ack");
const ADD: Channel<(i32, i32), i32> = Channel::new("add"); // message, return value

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let main = IpcMain::bind("prices")?;
    main.on(TICK, |event, tick| {
        println!("{} is at {}", tick.symbol, tick.price);
        event.reply(ACK, &tick.seq.to_native())
    });
    main.on(ADD, |event, pair| event.set_return_value(&(pair.0 + pair.1)));
    main.once("note", |_, args| println!("a note: {args:?}"));
    println!("waiting for renderers");
    Ok(main.run()?)
}
