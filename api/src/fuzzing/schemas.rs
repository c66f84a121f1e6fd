//! Channels that a peer announces with any schema, and any bytes as messages on them: listeners hear what is theirs, and
//! nothing else.

use std::{
    cell::RefCell,
    sync::{Arc, Mutex},
    time::Instant,
};

use arbitrary::{Arbitrary, Unstructured};
use memit_engine::{Announced, CallError, Link, Patience, Port};

use super::pair;
use crate::{
    Args, Channel, DispatchError, IntoChannel, IpcMain, Payload, args, emitter::table::Signature, encode::with_encoded,
    rkyv::util::AlignedVec,
};

#[memit::message]
struct Tick {
    seq: u64,
    symbol: String,
    #[allow(dead_code, reason = "it is there to be described")]
    rest: Vec<Option<Tick>>,
}

const NUMBER: Channel<u32> = Channel::new("number");
const TEXT_OF_NUMBER: Channel<u64, String> = Channel::new("number");
const TEXT: Channel<str> = Channel::new("text");
const TICK: Channel<Tick, u64> = Channel::new("tick");
const PLAIN: Channel<[u32], [u8]> = Channel::new("plain");
const DYNAMIC: &str = "dynamic";

const NAMES: [&str; 6] = ["number", "text", "tick", "plain", "dynamic", "nobody"];
/// As many as a peer may announce.
const MOST_CHANNELS: u16 = 4096;

#[derive(Arbitrary, Debug)]
enum Operation {
    Announce { name: u8, message: Text, reply: Text, error: Text },
    Send { channel: u8, payload: Bytes },
    Call { channel: u8, payload: Bytes },
}

#[derive(Arbitrary, Debug)]
enum Text {
    /// One of a listener's.
    Known(u8),
    /// The same with a byte that is another one.
    Changed {
        known: u8,
        at: u8,
        to: u8,
    },
    Any(Vec<u8>),
    /// The same byte so often.
    Long {
        byte: u8,
        len: u16,
    },
}

#[derive(Arbitrary, Debug)]
enum Bytes {
    /// A message of one of the listeners.
    Sent(u8),
    /// What may be right.
    Zeros(u8),
    Any(Vec<u8>),
}

/// A listener, and whether bytes are a message of its.
struct Listener {
    name: &'static str,
    signature: Signature,
    is_valid: fn(&[u8]) -> bool,
}

/// What is told of.
#[derive(Default)]
struct Told {
    heard: Vec<usize>,
    mismatches: usize,
    invalid: usize,
}

struct Rig {
    main: IpcMain,
    port: Port,
    link: Arc<Link>,
    told: Arc<Mutex<Told>>,
    listeners: Vec<Listener>,
    announced: Vec<(&'static str, [Vec<u8>; 3])>,
    /// How many of them were announced by former inputs.
    first: usize,
}

fn listener<C: IntoChannel>(channel: &C, name: &'static str) -> Listener {
    assert!(channel.name() == name || name.is_empty());
    Listener { name, signature: Signature::of::<C>(), is_valid: |bytes| C::Message::view(bytes).is_ok() }
}

/// A message for one of the listeners, as it is sent.
fn sent(which: u8) -> Vec<u8> {
    let tick = || Tick { seq: 1, symbol: "a symbol that lies elsewhere".into(), rest: vec![None] };
    let encoded = match which % 6 {
        0 => with_encoded::<u32, _, _>(&7, <[u8]>::to_vec),
        1 => with_encoded::<u64, _, _>(&7, <[u8]>::to_vec),
        2 => with_encoded::<str, _, _>("text", <[u8]>::to_vec),
        3 => with_encoded::<Tick, _, _>(&tick(), <[u8]>::to_vec),
        4 => with_encoded::<[u32], _, _>(&[1, 2, 3], <[u8]>::to_vec),
        _ => with_encoded::<Args, _, _>(&args![1, "text"], <[u8]>::to_vec),
    };
    encoded.unwrap()
}

impl Rig {
    fn new() -> Self {
        let (main, port) = pair::stranger();
        let told = Arc::<Mutex<Told>>::default();
        // Each says that it heard, under its place in the list below.
        macro_rules! hear {
            ($number:literal) => {{
                let told = Arc::clone(&told);
                move |_, _| told.lock().unwrap().heard.push($number)
            }};
        }
        main.on(NUMBER, hear!(0));
        main.on(TEXT_OF_NUMBER, hear!(1));
        main.on(TEXT, hear!(2));
        main.on(TICK, hear!(3));
        main.on(PLAIN, hear!(4));
        main.on(DYNAMIC, hear!(5));
        let any = Arc::clone(&told);
        main.on_any(move |_, _, _| any.lock().unwrap().heard.push(6));
        let errors = Arc::clone(&told);
        main.on_error(move |error| {
            assert!(error.to_string().len() < 8192, "{} bytes tell of an error", error.to_string().len());
            match error {
                DispatchError::SchemaMismatch { .. } => errors.lock().unwrap().mismatches += 1,
                DispatchError::InvalidMessage { .. } => errors.lock().unwrap().invalid += 1,
                other => panic!("{other}"),
            }
        });
        let listeners = vec![
            listener(&NUMBER, "number"),
            listener(&TEXT_OF_NUMBER, "number"),
            listener(&TEXT, "text"),
            listener(&TICK, "tick"),
            listener(&PLAIN, "plain"),
            listener(&DYNAMIC, "dynamic"),
            // Of any name.
            listener(&DYNAMIC, ""),
        ];
        let link = Arc::clone(&port.links()[0]);
        Self { main, port, link, told, listeners, announced: Vec::new(), first: 0 }
    }

    fn text(&self, text: Text) -> Vec<u8> {
        let known = |index: u8| {
            let texts = self.listeners.iter().flat_map(|Listener { signature, .. }| {
                [&signature.message, &signature.reply, &signature.error].map(|text| text.to_vec())
            });
            texts.cycle().nth(index.into()).unwrap_or_default()
        };
        match text {
            Text::Known(index) => known(index),
            Text::Changed { known: index, at, to } => {
                let mut text = known(index);
                let len = text.len();
                text[usize::from(at) % len] = to;
                text
            }
            Text::Any(bytes) => bytes,
            Text::Long { byte, len } => vec![byte; len.into()],
        }
    }

    /// Bytes of all schemas that were announced.
    fn texts(&self) -> usize {
        self.announced.iter().flat_map(|(_, schemas)| schemas).map(Vec::len).sum()
    }

    /// Does it; whether the connection still lasts.
    fn apply(&mut self, operation: Operation) -> bool {
        match operation {
            Operation::Announce { .. } if self.texts() > 2 << 20 => true,
            Operation::Announce { name, message, reply, error } => {
                let schemas = [message, reply, error].map(|text| self.text(text));
                let name = NAMES[usize::from(name) % NAMES.len()];
                let [message, reply, error] = &schemas;
                let channel = self.announced.len() as u16;
                // A peer has it sent in as many pieces as it takes.
                while self.link.announce(&Announced { channel, name, message, reply, error }, Patience::Now).is_err() {
                    assert!(self.link.is_connected());
                    self.main.poll().unwrap();
                }
                // All of it is read, so that there is space for what comes next.
                assert_eq!(self.main.poll().unwrap(), 0);
                self.announced.push((name, schemas));
                true
            }
            Operation::Send { channel, payload } => self.send(channel, payload, false),
            Operation::Call { channel, payload } => self.send(channel, payload, true),
        }
    }

    fn send(&mut self, channel: u8, payload: Bytes, call: bool) -> bool {
        // One of this input's own: what it finds must not depend on others.
        let own = self.announced.len() - self.first;
        let Some(channel) = usize::from(channel).checked_rem(own) else { return true };
        let channel = self.first + channel;
        // An empty one of no capacity is not aligned.
        let mut bytes: AlignedVec<16> = AlignedVec::with_capacity(16);
        match payload {
            Bytes::Sent(which) => bytes.extend_from_slice(&sent(which)),
            Bytes::Zeros(len) => bytes.resize(usize::from(len), 0),
            Bytes::Any(content) => bytes.extend_from_slice(&content[..content.len().min(1 << 10)]),
        }
        if call {
            let deadline = Some(Instant::now());
            let mut reply = memit_engine::AlignedBytes::new();
            let answer = self.link.call(channel as u16, &bytes, deadline, &mut reply);
            // Nobody dispatches meanwhile.
            assert!(matches!(answer, Err(CallError::Timeout)), "{answer:?}");
        } else {
            self.link.send(channel as u16, &bytes, Patience::Now).unwrap();
        }
        // A peer that was found out is gone with the same turn.
        let handled = self.main.poll();
        assert!(matches!(handled, Ok(1 | 2)), "{handled:?}, {:?}", self.link.ended());
        self.check(channel, &bytes, call)
    }

    fn check(&self, channel: usize, bytes: &[u8], call: bool) -> bool {
        let (name, schemas) = &self.announced[channel];
        let told = std::mem::take(&mut *self.told.lock().unwrap());
        let is_theirs = |listener: &Listener| {
            let Signature { message, reply, error } = &listener.signature;
            let theirs = [&**message, &**reply, &**error];
            theirs[0] == schemas[0] && (!call || theirs[1] == schemas[1] && theirs[2] == schemas[2])
        };
        let of = |named: &str| {
            let all = self.listeners.iter().enumerate().filter(|(_, listener)| listener.name == named);
            all.map(|(at, _)| at).collect::<Vec<_>>()
        };
        let mut hearing = [of(name), of("")].concat();
        hearing.retain(|at| is_theirs(&self.listeners[*at]));
        let is_mismatch = hearing.is_empty() && !of(name).is_empty();
        let is_valid = hearing.iter().all(|at| (self.listeners[*at].is_valid)(bytes));
        assert_eq!(told.heard, if is_valid { hearing } else { Vec::new() }, "{name} {schemas:?}");
        assert_eq!((told.mismatches, told.invalid), (usize::from(is_mismatch), usize::from(!is_valid)));
        is_valid
    }
}

thread_local! {
    static RIG: RefCell<Option<Rig>> = const { RefCell::new(None) };
}

pub fn schemas(bytes: &[u8]) {
    let Ok(operations) = Vec::<Operation>::arbitrary_take_rest(Unstructured::new(bytes)) else { return };
    let mut rig = RIG.take().unwrap_or_else(Rig::new);
    rig.first = rig.announced.len();
    let mut lasts = true;
    for operation in operations.into_iter().take(50) {
        lasts = rig.apply(operation);
        if !lasts {
            break;
        }
    }
    // A connection takes so many channels and no more, and so much text: 4 MiB.
    if lasts && rig.announced.len() < usize::from(MOST_CHANNELS) - 64 && rig.texts() < 1 << 20 {
        RIG.set(Some(rig));
    } else {
        rig.port.shutdown();
        rig.main.shutdown();
    }
}
