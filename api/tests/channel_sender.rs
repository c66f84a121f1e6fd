//! A channel that is looked up once.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::thread;

use memit::{Channel, ChannelError, DispatchError, SendError};
use support::{Log, PATIENCE, Rig, until, within_deadline};

#[memit::message]
struct Tick {
    seq: u64,
    symbol: String,
}

#[memit::message(as = Tick)]
struct TickRef<'a> {
    seq: u64,
    symbol: &'a str,
}

const TICK: Channel<Tick> = Channel::new("tick");
const NOTE: Channel<str> = Channel::new("note");
const BYTES: Channel<[u8]> = Channel::new("bytes");

#[test]
fn it_sends_what_the_channel_carries_and_borrowed_forms_of_it() {
    within_deadline(|| {
        let rig = Rig::new();
        let log = Log::<(u64, String)>::default();
        let ticks = log.clone();
        rig.main.on(TICK, move |_, tick| ticks.push((tick.seq.to_native(), tick.symbol.to_string())));
        let renderer = rig.renderer();
        let ticks = renderer.to(TICK).unwrap();
        ticks.send(&Tick { seq: 1, symbol: "owned".to_owned() }).unwrap();
        ticks.try_send(&TickRef { seq: 2, symbol: "borrowed" }).unwrap();
        ticks.send_timeout(&TickRef { seq: 3, symbol: &"long".repeat(20_000) }, PATIENCE).unwrap();
        let mut burst = ticks.exclusive().unwrap();
        burst.send(&TickRef { seq: 4, symbol: "in a burst" }).unwrap();
        burst.try_send(&TickRef { seq: 5, symbol: &"x".repeat(200_000) }).unwrap();
        burst.send_timeout(&Tick { seq: 6, symbol: String::new() }, PATIENCE).unwrap();
        drop(burst);
        rig.until(|| log.len() == 6);
        let heard = log.take();
        assert!(heard.iter().map(|(seq, _)| *seq).eq(1..=6));
        assert_eq!((&*heard[1].1, heard[2].1.len(), heard[4].1.len()), ("borrowed", 80_000, 200_000));
    });
}

#[test]
fn it_keeps_its_order_with_other_sends_and_goes_to_other_threads() {
    within_deadline(|| {
        let rig = Rig::new();
        let log = Log::<String>::default();
        let notes = log.clone();
        rig.main.on(NOTE, move |_, note| notes.push(note.to_owned()));
        let renderer = rig.renderer();
        let notes = renderer.to(NOTE).unwrap();
        notes.send("a").unwrap();
        renderer.send(NOTE, "b").unwrap();
        notes.sender().send(NOTE, "c").unwrap();
        let clone = notes.clone();
        thread::spawn(move || clone.send("d").unwrap()).join().unwrap();
        notes.send("e").unwrap();
        rig.until(|| log.len() == 5);
        assert_eq!(log.take(), ["a", "b", "c", "d", "e"]);
    });
}

#[test]
fn a_dynamic_channel_is_looked_up_once_too() {
    within_deadline(|| {
        let rig = Rig::new();
        let log = Log::<usize>::default();
        let lens = log.clone();
        rig.main.on("anything", move |_, args| lens.push(args.len()));
        let renderer = rig.renderer();
        let anything = renderer.to(&*String::from("anything")).unwrap();
        anything.send(&memit::args!["hello", 42, true]).unwrap();
        rig.until(|| log.len() == 1);
        assert_eq!(log.take(), [3]);
    });
}

/// The announcement is queued like the messages behind it, and another thread's message does not come before it.
#[test]
fn a_listener_resolves_a_channel_while_the_ring_is_full() {
    within_deadline(|| {
        let rig = Rig::with(|builder| builder.ring_capacity(4096));
        let renderer = rig.renderer();
        let log = Log::<String>::default();
        let notes = log.clone();
        renderer.on(NOTE, move |_, note| notes.push(note.to_owned()));
        renderer.on(BYTES, |_, _| {});
        rig.main.on(BYTES, |event, _| {
            for _ in 0..20 {
                event.reply(BYTES, &[0; 400]).unwrap();
            }
            let notes = event.sender().to(NOTE)?;
            notes.send("by the listener")?;
            let other = notes.clone();
            // Without space for it there: nobody reads the ring meanwhile.
            let sent = thread::spawn(move || other.try_send("by a thread")).join().unwrap();
            assert!(matches!(sent, Err(SendError::Full { .. })));
            Ok::<_, SendError>(())
        });
        let errors = Log::<String>::default();
        let failed = errors.clone();
        rig.main.on_error(move |error: &DispatchError| failed.push(error.to_string()));
        renderer.send(BYTES, &[0; 8]).unwrap();
        rig.until(|| rig.main.renderers().len() == 1);
        rig.main.poll().unwrap();
        let reading = thread::spawn(move || {
            until(|| renderer.run_once(PATIENCE), || log.len() == 1);
            log.take()
        });
        while !reading.is_finished() {
            rig.main.run_once(std::time::Duration::from_millis(5)).unwrap();
        }
        assert_eq!(reading.join().unwrap(), ["by the listener"]);
        assert_eq!(errors.take(), Vec::<String>::new());
    });
}

#[test]
fn a_channel_that_cannot_be_announced_is_refused_when_it_is_resolved() {
    within_deadline(|| {
        let rig = Rig::new();
        let renderer = rig.renderer();
        let long = "n".repeat(1025);
        let refused = renderer.to(&*long).unwrap_err();
        assert_eq!(refused, SendError::Channel(ChannelError::NameTooLong { len: 1025, max: 1024 }));
        renderer.to(NOTE).unwrap().send("the others stay good").unwrap();
    });
}
