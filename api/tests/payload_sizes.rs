//! Payloads of every size, between two processes: the test is the main, its own binary started again is the renderer,
//! which sends back what it gets and returns what it is called with.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::cast_possible_truncation)]

mod support;

use std::{thread, time::Duration};

use memit::{Args, Channel, EncodeAs, IpcRenderer, Payload, Trust, Value, encode::with_encoded};
use support::{
    Log, Rig,
    common::{Process, role},
    within_deadline,
};

#[memit::message]
#[derive(Clone, PartialEq)]
struct Sheet {
    number: u64,
    parts: Vec<Part>,
    note: Option<Box<Part>>,
}

#[memit::message]
#[derive(Clone, PartialEq)]
struct Part {
    name: String,
    data: Vec<u8>,
}

/// The three channels of one type: to the renderer, back, and for calls.
struct Channels<T: Payload + ?Sized> {
    there: Channel<T>,
    back: Channel<T>,
    call: Channel<T, T>,
}

impl<T: Payload + ?Sized> Clone for Channels<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T: Payload + ?Sized> Copy for Channels<T> {}

macro_rules! channels {
    ($name:literal) => {
        Channels {
            there: Channel::new(concat!($name, " there")),
            back: Channel::new(concat!($name, " back")),
            call: Channel::new(concat!($name, " call")),
        }
    };
}

const BYTES: Channels<[u8]> = channels!("bytes");
const TEXT: Channels<String> = channels!("text");
const VECTOR: Channels<Vec<u8>> = channels!("vector");
const SHEET: Channels<Sheet> = channels!("sheet");
const ARGS: Channels<Args> = channels!("args");
/// The default.
const EXTENT: usize = 4 << 20;

/// What the other tests start as a child; nothing by itself.
#[test]
#[allow(unsafe_code)]
fn child_process() {
    let Some((role, directory)) = role() else { return };
    let trust = match role.as_str() {
        // SAFETY: the main is this very binary, which keeps the protocol.
        "trusting" => unsafe { Trust::full() },
        _ => Trust::None,
    };
    let renderer = IpcRenderer::builder().runtime_dir(directory).trust(trust).connect("app").unwrap();
    echo(&renderer, BYTES);
    echo(&renderer, TEXT);
    echo(&renderer, VECTOR);
    echo(&renderer, SHEET);
    echo(&renderer, ARGS);
    renderer.run().unwrap();
}

fn echo<T>(renderer: &IpcRenderer, channels: Channels<T>)
where
    T: Payload<Owned: EncodeAs<T>> + ?Sized + 'static,
{
    renderer.on(channels.there, move |event, message| event.reply(channels.back, &T::own(message)));
    renderer.on(channels.call, move |event, message| event.set_return_value(&T::own(message)));
}

/// A main, and the renderer that echoes.
struct Pair {
    rig: Rig,
    renderer: memit::Sender,
    _child: Process,
}

impl Pair {
    fn start(role: &str, trust: Trust) -> Self {
        let rig = Rig::with(|main| main.trust(trust));
        let child = Process::start("child_process", role, rig.directory.path().to_str().unwrap());
        rig.until(|| !rig.main.renderers().is_empty());
        let renderer = rig.main.renderers().remove(0);
        Self { rig, renderer, _child: child }
    }

    /// Has the value sent there and back, and returned by a call.
    fn round_trip<T>(&self, channels: Channels<T>, value: &T::Owned)
    where
        T: Payload<Owned: EncodeAs<T> + PartialEq + Send> + ?Sized + 'static,
    {
        let size = with_encoded::<T, _, _>(value, <[u8]>::len).unwrap();
        let back = Log::<T::Owned>::default();
        let came = back.clone();
        let id = self.rig.main.on(channels.back, move |_, message| came.push(T::own(message)));
        self.renderer.send(channels.there, value).unwrap();
        self.rig.until(|| back.len() == 1);
        assert!(back.take().iter().all(|came| came == value), "{size} bytes sent by send and reply");
        let returned = self.renderer.send_sync(channels.call, value).unwrap();
        assert!(T::own(&returned) == *value, "{size} bytes returned by a call");
        drop(returned);
        assert!(self.rig.main.remove_listener(channels.back, id));
    }
}

/// Bytes that show where they stand.
fn bytes(len: usize) -> Vec<u8> {
    let block: Vec<u8> = (0..65_521_u32).map(|at| at.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect();
    let mut bytes = Vec::with_capacity(len);
    while bytes.len() < len {
        bytes.extend_from_slice(&block[..block.len().min(len - bytes.len())]);
    }
    bytes
}

fn text(len: usize) -> String {
    bytes(len).into_iter().map(|byte| char::from(b'a' + byte % 26)).collect()
}

fn sizes() -> Vec<usize> {
    // Default rings: a frame holds an eighth of 256 KiB, but for its header.
    let frame = (256 << 10) / 8 - 16;
    let mut sizes = vec![0, 1, 47, 48, 49];
    // The frame of a call has 16 bytes less for the payload.
    sizes.extend([frame - 17, frame - 16, frame - 15, frame - 1, frame, frame + 1]);
    sizes.extend([65_535, 65_536, 65_537, (256 << 10) + 3, (3 << 20) + 1, EXTENT - 1, EXTENT, EXTENT + 1, 64 << 20]);
    sizes
}

#[allow(unsafe_code)]
fn trust(role: &str) -> Trust {
    // SAFETY: the peer is this very binary, which keeps the protocol.
    if role == "trusting" { unsafe { Trust::full() } } else { Trust::None }
}

fn all_sizes(role: &'static str, each: impl Fn(&Pair, usize) + Send + 'static) {
    within_deadline(move || {
        let pair = Pair::start(role, trust(role));
        for size in sizes() {
            each(&pair, size);
        }
    });
}

fn sheet(len: usize) -> Sheet {
    let part = |len| Part { name: format!("part of {len} bytes"), data: bytes(len) };
    Sheet { number: len as u64, parts: vec![part(len / 3), part(len - len / 3)], note: Some(Box::new(part(3))) }
}

fn args(len: usize) -> Args {
    vec![Value::from("before"), Value::from(text(len / 2)), Value::from(bytes(len - len / 2)), Value::from(7)].into()
}

#[test]
fn payloads_of_raw_bytes_of_every_size_come_back_whole() {
    all_sizes("plain", |pair, size| pair.round_trip(BYTES, &bytes(size)));
}

#[test]
fn payloads_of_raw_bytes_of_every_size_come_back_whole_between_peers_that_trust_each_other() {
    all_sizes("trusting", |pair, size| pair.round_trip(BYTES, &bytes(size)));
}

#[test]
fn payloads_that_are_strings_of_every_size_come_back_whole() {
    all_sizes("plain", |pair, size| pair.round_trip(TEXT, &text(size)));
}

#[test]
fn payloads_that_are_vectors_of_every_size_come_back_whole() {
    all_sizes("plain", |pair, size| pair.round_trip(VECTOR, &bytes(size)));
}

#[test]
fn payloads_that_are_nested_structs_of_every_size_come_back_whole() {
    all_sizes("plain", |pair, size| pair.round_trip(SHEET, &sheet(size)));
}

#[test]
fn payloads_that_are_nested_structs_of_every_size_come_back_whole_between_peers_that_trust_each_other() {
    all_sizes("trusting", |pair, size| pair.round_trip(SHEET, &sheet(size)));
}

#[test]
fn payloads_that_are_args_of_every_size_come_back_whole() {
    all_sizes("plain", |pair, size| pair.round_trip(ARGS, &args(size)));
}

#[test]
fn a_payload_of_one_gibibyte_comes_back_whole() {
    within_deadline(|| Pair::start("plain", Trust::None).round_trip(BYTES, &bytes(1 << 30)));
}

/// Xorshift; any seed but zero.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

#[test]
fn a_thousand_payloads_of_mixed_sizes_arrive_in_the_order_of_their_calls() {
    within_deadline(|| {
        let seed = 0x9e37_79b9_7f4a_7c15;
        println!("seed {seed:#x}");
        let pair = Pair::start("plain", Trust::None);
        let back = Log::<(u64, usize)>::default();
        let came = back.clone();
        pair.rig.main.on(SHEET.back, move |_, sheet| {
            came.push((sheet.number.to_native(), sheet.parts.iter().map(|part| part.data.len()).sum()));
        });
        // Another thread sends, and calls now and then: each answer comes behind what was sent before.
        let sender = pair.renderer.clone();
        let sending = thread::spawn(move || {
            let mut random = Random(seed);
            let mut sent = Vec::new();
            for number in 0..1000 {
                // As many small ones as large ones.
                let most = [1 << 6, 1 << 15, 1 << 17, 1 << 20][random.below(4) as usize];
                let len = random.below(most + 1) as usize;
                let mut sheet = sheet(len);
                sheet.number = number;
                if random.below(8) == 0 {
                    let timeout = Duration::from_secs(30);
                    let returned = sender.send_sync_timeout(SHEET.call, &sheet, timeout).unwrap();
                    assert!(returned.into_owned() == sheet, "call {number} with {len} bytes");
                } else {
                    sender.send(SHEET.there, &sheet).unwrap();
                    sent.push((number, len));
                }
            }
            sent
        });
        while !sending.is_finished() {
            pair.rig.main.run_once(Duration::from_millis(10)).unwrap();
        }
        let sent = sending.join().unwrap();
        pair.rig.until(|| back.len() == sent.len());
        assert_eq!(back.take(), sent);
    });
}
