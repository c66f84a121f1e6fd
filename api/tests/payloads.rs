//! Payloads of all sizes and kinds, there and back.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use memit::{CallError, Channel, SendError, Value, args};
use support::{Log, PATIENCE, Rig, Running, until, within_deadline};

#[memit::message]
#[derive(Clone, Debug, PartialEq)]
struct Record {
    id: u64,
    name: String,
    samples: Vec<f32>,
    nested: Option<Box<Record>>,
}

const TEXT: Channel<str, str> = Channel::new("text");
const BYTES: Channel<[u8], [u8]> = Channel::new("bytes");
const NUMBERS: Channel<[f64], [f64]> = Channel::new("numbers");
const RECORD: Channel<Record, Record> = Channel::new("record");

/// An eighth of the default ring, less a header.
const MOST_IN_A_FRAME: usize = (32 << 10) - 16;

/// Around every boundary that framing has: lines, frames, words.
fn sizes(max: usize) -> Vec<usize> {
    let mut sizes: Vec<_> = (0..200).collect();
    sizes.extend((8..=15).flat_map(|power| [(1 << power) - 1, 1 << power, (1 << power) + 1]));
    sizes.extend((max.saturating_sub(70)..=max).rev());
    sizes.retain(|size| *size <= max);
    sizes
}

fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|at| u8::try_from((at * 31 + len) % 251).unwrap()).collect()
}

fn record(size: usize) -> Record {
    Record {
        id: size as u64,
        name: "x".repeat(size % 100),
        samples: (0..u16::try_from(size / 4).unwrap()).map(f32::from).collect(),
        nested: size
            .is_multiple_of(2)
            .then(|| Box::new(Record { id: 1, name: "inner".into(), samples: vec![0.5; size % 7], nested: None })),
    }
}

/// What the listener sees is what was sent, and what it returns is what arrives.
#[test]
fn calls_carry_payloads_of_all_sizes_both_ways() {
    within_deadline(|| {
        let rig = Rig::new();
        rig.main.on(TEXT, |event, text| event.set_return_value(text));
        rig.main.on(BYTES, |event, bytes| event.set_return_value(bytes));
        rig.main.on(NUMBERS, |event, numbers| event.set_return_value(numbers));
        rig.main.on(RECORD, |event, record| event.set_return_value(&<Record as memit::Payload>::own(record)));
        rig.main.on("args", |event, args| {
            event.set_return_value(&Value::Array(<memit::Args as memit::Payload>::own(args).0))
        });
        let _running = Running::start(&rig.main);
        let renderer = rig.renderer();
        // A call's header takes 16 bytes of its frame.
        let max = MOST_IN_A_FRAME - 16;
        for size in sizes(max) {
            let sent = bytes(size);
            assert_eq!(*renderer.send_sync(BYTES, &*sent).unwrap(), *sent);
            let text = "µ".repeat(size / 2) + &"m".repeat(size % 2);
            assert_eq!(*renderer.send_sync(TEXT, &*text).unwrap(), *text);
            let numbers: Vec<_> = (0..u32::try_from(size / 8).unwrap()).map(f64::from).collect();
            assert_eq!(*renderer.send_sync(NUMBERS, &*numbers).unwrap(), *numbers);
            if size < max - 200 {
                let sent = record(size);
                assert_eq!(renderer.send_sync(RECORD, &sent).unwrap().into_owned(), sent);
                let sent = args![size as u64, text, {"list": [1, -1, 0.5, null, true]}, [[], {}]];
                let Value::Array(returned) = renderer.send_sync("args", &sent).unwrap().into_owned() else {
                    panic!("not an array")
                };
                assert_eq!(returned, sent.0);
            }
        }
    });
}

#[test]
fn messages_carry_payloads_of_all_sizes() {
    within_deadline(|| {
        let (rig, log) = (Rig::new(), Log::<Vec<u8>>::default());
        let renderer = rig.renderer();
        let heard = log.clone();
        rig.main.on(BYTES, move |_, bytes| heard.push(bytes));
        for size in sizes(MOST_IN_A_FRAME) {
            let sent = bytes(size);
            renderer.send(BYTES, &*sent).unwrap();
            rig.until(|| log.len() == 1);
            assert_eq!(log.take(), [sent]);
        }
    });
}

#[test]
fn borrowed_forms_are_sent_without_a_copy_of_ones_own() {
    const NAME: Channel<String> = Channel::new("name");
    const LIST: Channel<Vec<u32>> = Channel::new("list");
    within_deadline(|| {
        let (rig, log) = (Rig::new(), Log::<String>::default());
        let (names, lists) = (log.clone(), log.clone());
        rig.main.on(NAME, move |_, name| names.push(name.as_str()));
        rig.main.on(LIST, move |_, list| {
            lists.push(format!("{:?}", list.iter().map(|n| n.to_native()).collect::<Vec<_>>()))
        });
        let renderer = rig.renderer();
        renderer.send(NAME, "borrowed").unwrap();
        renderer.send(NAME, &"owned".to_owned()).unwrap();
        renderer.send(LIST, &[1, 2, 3][..]).unwrap();
        renderer.send(LIST, &vec![4]).unwrap();
        rig.until(|| log.len() == 4);
        assert_eq!(log.take(), ["borrowed", "owned", "[1, 2, 3]", "[4]"]);
    });
}

#[test]
fn what_is_too_large_is_refused_with_both_sizes() {
    within_deadline(|| {
        let rig = Rig::new();
        let renderer = rig.builder().ring_capacity(8192).message_limit(100_000).connect("app").unwrap();
        let max = renderer.sender().max_message();
        assert_eq!(max, 100_000);
        let error = renderer.send(BYTES, &*bytes(max + 1)).unwrap_err();
        assert_eq!(error, SendError::TooLarge { len: max + 1, max });
        let text = error.to_string();
        assert!(text.contains(&(max + 1).to_string()) && text.contains(&max.to_string()), "{text}");
        let error = renderer.send_sync(BYTES, &*bytes(max + 1)).unwrap_err();
        assert_eq!(error, CallError::TooLarge { len: max + 1, max });
    });
}

#[test]
fn a_value_that_is_too_large_to_return_is_an_error_on_both_sides() {
    within_deadline(|| {
        let rig = Rig::with(|main| main.message_limit(100_000));
        let errors = Log::<String>::default();
        let reported = errors.clone();
        rig.main.on_error(move |error| reported.push(error.to_string()));
        rig.main.on(BYTES, |event, bytes| event.set_return_value(&*bytes.repeat(2)));
        let running = Running::start(&rig.main);
        let renderer = rig.builder().message_limit(100_000).connect("app").unwrap();
        assert_eq!(*renderer.send_sync(BYTES, &*bytes(100)).unwrap(), *bytes(100).repeat(2));
        let error = renderer.send_sync(BYTES, &*bytes(60_000)).unwrap_err();
        assert!(
            matches!(&error, CallError::ReplyFailed(text) if text.contains("120000") && text.contains("100000")),
            "{error}"
        );
        let error = renderer.send_sync(BYTES, &*bytes(100_001)).unwrap_err();
        assert_eq!(error, CallError::TooLarge { len: 100_001, max: 100_000 });
        // The caller is told first, and the error listeners then.
        drop(running);
        let reported = errors.take();
        assert_eq!(reported.len(), 1);
        assert!(reported[0].contains("120000") && reported[0].contains("100000"), "{}", reported[0]);
    });
}

#[test]
fn many_threads_send_at_once_and_each_keeps_its_order() {
    const NUMBERED: Channel<[u32]> = Channel::new("numbered");
    const THREADS: u32 = 4;
    const EACH: u32 = 5000;
    within_deadline(|| {
        let (rig, log) = (Rig::new(), Log::<[u32; 2]>::default());
        let heard = log.clone();
        rig.main.on(NUMBERED, move |_, numbers| {
            assert!(numbers[2..].iter().all(|number| *number == numbers[1]));
            heard.push([numbers[0], numbers[1]]);
        });
        let renderer = rig.builder().ring_capacity(16 << 10).connect("app").unwrap();
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let renderer = &renderer;
                scope.spawn(move || {
                    for number in 0..EACH {
                        let mut message = vec![number; 2 + (number % 90) as usize];
                        message[0] = thread;
                        renderer.send(NUMBERED, &*message).unwrap();
                    }
                });
            }
            until(|| rig.main.run_once(PATIENCE), || log.len() == (THREADS * EACH) as usize);
        });
        let mut next = [0; THREADS as usize];
        for [thread, number] in log.take() {
            assert_eq!(number, next[thread as usize]);
            next[thread as usize] += 1;
        }
    });
}
