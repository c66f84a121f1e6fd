//! One name, other types.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use memit::{CallError, Channel, DispatchError, args};
use support::{Log, Rig, Running, unexpected, within_deadline};

const NUMBER: Channel<u32, u64> = Channel::new("value");
const TEXT: Channel<str, u64> = Channel::new("value");
const NUMBER_TO_TEXT: Channel<u32, str> = Channel::new("value");
const NUMBER_OR_CODE: Channel<u32, u64, i32> = Channel::new("value");
const NEXT: Channel<u32> = Channel::new("next");

fn mismatches(rig: &Rig) -> Log<(String, String, String)> {
    let log = Log::default();
    let seen = log.clone();
    rig.main.on_error(move |error| match error {
        DispatchError::SchemaMismatch { channel, found, expected, .. } => {
            seen.push((channel.to_string(), found.clone(), expected.clone()));
        }
        other => panic!("{other}"),
    });
    log
}

#[test]
fn a_message_whose_name_is_heard_with_other_types_only_is_an_error_that_shows_both() {
    within_deadline(|| {
        let rig = Rig::new();
        let log = mismatches(&rig);
        rig.main.on(TEXT, |_, _| unexpected("a number is no text"));
        let renderer = rig.renderer();
        renderer.send(NUMBER, &7).unwrap();
        rig.until(|| log.len() == 1);
        assert_eq!(log.take(), [("value".into(), "u32".into(), "str".into())]);
        assert!(renderer.sender().is_connected(), "it broke no rule");
    });
}

#[test]
fn each_listener_hears_its_own_types_only() {
    within_deadline(|| {
        let (rig, heard) = (Rig::new(), Log::<String>::default());
        let log = mismatches(&rig);
        let (texts, numbers, dynamic) = (heard.clone(), heard.clone(), heard.clone());
        rig.main.on(TEXT, move |_, text| texts.push(text));
        rig.main.on(NUMBER, move |_, number| numbers.push(number.to_string()));
        rig.main.on("value", move |_, args| dynamic.push(args.to_string()));
        let renderer = rig.renderer();
        renderer.send(NUMBER, &7).unwrap();
        renderer.send("value", &args![true]).unwrap();
        renderer.send(TEXT, "seven").unwrap();
        rig.until(|| heard.len() == 3);
        assert_eq!(heard.take(), ["7", "[true]", "seven"]);
        assert_eq!(log.len(), 0);
    });
}

#[test]
fn the_return_value_and_the_error_count_for_calls_and_not_for_messages() {
    within_deadline(|| {
        let (rig, heard) = (Rig::new(), Log::<u32>::default());
        let log = mismatches(&rig);
        let numbers = heard.clone();
        rig.main.on(NUMBER, move |event, number| {
            numbers.push(number.to_native());
            event.set_return_value(&1)
        });
        let running = Running::start(&rig.main);
        let renderer = rig.renderer();
        renderer.send(NUMBER_TO_TEXT, &7).unwrap();
        renderer.send(NUMBER_OR_CODE, &8).unwrap();
        assert_eq!(renderer.send_sync(NUMBER, &9).unwrap(), 1);
        assert_eq!(heard.take(), [7, 8, 9]);
        assert_eq!(log.len(), 0);

        for error in [
            renderer.send_sync(NUMBER_TO_TEXT, &7).unwrap_err(),
            renderer.send_sync(NUMBER_OR_CODE, &7).map(|_| ()).unwrap_err(),
            renderer.send_sync(TEXT, "7").map(|_| ()).unwrap_err(),
        ] {
            assert!(
                matches!(&error, CallError::SchemaMismatch(text) if text.contains("u32") && text.contains("u64")),
                "{error}"
            );
        }
        // The caller is told first, and the error listeners then.
        drop(running);
        assert_eq!(heard.len(), 0);
        let seen = log.take();
        assert_eq!(seen.len(), 3);
        assert!(seen[0].1.contains("str") && seen[0].2.contains("u64"), "{:?}", seen[0]);
        assert!(seen[1].1.contains("i32") && seen[1].2.contains("text:string"), "{:?}", seen[1]);
    });
}

#[test]
fn a_listener_of_the_right_types_that_comes_later_hears_what_follows() {
    within_deadline(|| {
        let (rig, heard) = (Rig::new(), Log::<String>::default());
        let log = mismatches(&rig);
        rig.main.on(TEXT, |_, _| {});
        let late = heard.clone();
        rig.main.on(NEXT, move |event, _| {
            let late = late.clone();
            event.emitter().on(NUMBER, move |_, number| late.push(number.to_string()));
        });
        let renderer = rig.renderer();
        renderer.send(NUMBER, &1).unwrap();
        renderer.send(NEXT, &0).unwrap();
        renderer.send(NUMBER, &2).unwrap();
        rig.until(|| heard.len() == 1);
        assert_eq!(heard.take(), ["2"]);
        assert_eq!(log.len(), 1);
    });
}

#[test]
fn types_of_one_structure_are_one_type() {
    #[memit::message]
    struct Ours {
        label: String,
        weight: f64,
    }
    mod theirs {
        #[memit::message]
        pub struct Theirs {
            pub label: String,
            pub weight: f64,
        }
    }
    const OURS: Channel<Ours> = Channel::new("parcel");
    const THEIRS: Channel<theirs::Theirs> = Channel::new("parcel");
    within_deadline(|| {
        let (rig, heard) = (Rig::new(), Log::<String>::default());
        let (ours, theirs) = (heard.clone(), heard.clone());
        rig.main.on(THEIRS, move |_, parcel| theirs.push(format!("theirs {} {}", parcel.label, parcel.weight)));
        rig.main.on(OURS, move |_, parcel| ours.push(format!("ours {} {}", parcel.label, parcel.weight)));
        rig.renderer().send(OURS, &Ours { label: "books".into(), weight: 2.5 }).unwrap();
        rig.until(|| heard.len() == 2);
        assert_eq!(heard.take(), ["theirs books 2.5", "ours books 2.5"]);
    });
}
