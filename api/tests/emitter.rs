//! The emitter's rules, over real connections.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::{
    sync::{Arc, Mutex, mpsc},
    thread,
};

use memit::{Channel, ListenerId, args};
use support::{Log, PATIENCE, Rig, Running, Tell, unexpected, within_deadline};

const NOTE: Channel<str> = Channel::new("note");
const OTHER: Channel<str> = Channel::new("other");
const NUMBER: Channel<u32> = Channel::new("number");

#[test]
fn listeners_run_in_registration_order_and_prepended_ones_before() {
    within_deadline(|| {
        let (rig, log) = (Rig::new(), Log::<String>::default());
        let entry = |name: &'static str| {
            let log = log.clone();
            move |_: &mut memit::Event<'_, str>, text: &str| log.push(format!("{name} {text}"))
        };
        rig.main.on(NOTE, entry("first"));
        rig.main.on(NOTE, entry("second"));
        rig.main.on(OTHER, entry("other"));
        rig.main.prepend_listener(NOTE, entry("before"));
        rig.main.prepend_once_listener(NOTE, entry("once before"));
        let renderer = rig.renderer();
        renderer.send(NOTE, "a").unwrap();
        renderer.send(NOTE, "b").unwrap();
        rig.until(|| log.len() == 7);
        assert_eq!(log.take(), ["once before a", "before a", "first a", "second a", "before b", "first b", "second b"]);
    });
}

#[test]
fn a_listener_added_by_a_listener_hears_from_the_next_message_on() {
    within_deadline(|| {
        let (rig, log) = (Rig::new(), Log::<String>::default());
        let outer = log.clone();
        rig.main.once(NOTE, move |event, text| {
            outer.push(format!("outer {text}"));
            let inner = outer.clone();
            event.emitter().on(NOTE, move |_, text| inner.push(format!("inner {text}")));
        });
        let renderer = rig.renderer();
        for text in ["a", "b", "c"] {
            renderer.send(NOTE, text).unwrap();
        }
        rig.until(|| log.len() == 3);
        assert_eq!(log.take(), ["outer a", "inner b", "inner c"]);
    });
}

#[test]
fn a_listener_removed_by_a_listener_still_runs_for_this_message() {
    within_deadline(|| {
        let (rig, log) = (Rig::new(), Log::<String>::default());
        let victim: Arc<Mutex<Option<ListenerId>>> = Arc::default();
        let (remover, id) = (log.clone(), Arc::clone(&victim));
        rig.main.on(NOTE, move |event, text| {
            remover.push(format!("remover {text}"));
            let id = id.lock().unwrap().take();
            if let Some(id) = id {
                assert!(event.emitter().off(id));
                assert!(!event.emitter().off(id), "it is gone already");
            }
        });
        let removed = log.clone();
        *victim.lock().unwrap() = Some(rig.main.on(NOTE, move |_, text| removed.push(format!("removed {text}"))));
        let renderer = rig.renderer();
        renderer.send(NOTE, "a").unwrap();
        renderer.send(NOTE, "b").unwrap();
        rig.until(|| log.len() == 3);
        assert_eq!(log.take(), ["remover a", "removed a", "remover b"]);
    });
}

#[test]
fn a_listener_may_remove_itself() {
    within_deadline(|| {
        let (rig, log) = (Rig::new(), Log::<String>::default());
        let own: Arc<Mutex<Option<ListenerId>>> = Arc::default();
        let (itself, id) = (log.clone(), Arc::clone(&own));
        let listener = rig.main.on(NOTE, move |event, text| {
            itself.push(text);
            let id = id.lock().unwrap().unwrap();
            assert!(event.emitter().remove_listener(NOTE, id));
            itself.push(format!("after {text}"));
        });
        *own.lock().unwrap() = Some(listener);
        let others = log.clone();
        rig.main.on(NOTE, move |_, text| others.push(format!("other {text}")));
        let renderer = rig.renderer();
        renderer.send(NOTE, "a").unwrap();
        renderer.send(NOTE, "b").unwrap();
        rig.until(|| log.len() == 4);
        assert_eq!(log.take(), ["a", "after a", "other a", "other b"]);
    });
}

#[test]
fn a_once_listener_is_gone_before_it_runs_and_runs_once() {
    within_deadline(|| {
        let (rig, log) = (Rig::new(), Log::<String>::default());
        let once = log.clone();
        let id = rig.main.once(NOTE, move |event, text| {
            assert_eq!(event.emitter().listener_count(NOTE), 1, "the one below");
            once.push(format!("once {text}"));
        });
        let each = log.clone();
        rig.main.on(NOTE, move |_, text| each.push(text));
        assert_eq!(rig.main.listener_count(NOTE), 2);
        let renderer = rig.renderer();
        renderer.send(NOTE, "a").unwrap();
        renderer.send(NOTE, "b").unwrap();
        rig.until(|| log.len() == 3);
        assert_eq!(log.take(), ["once a", "a", "b"]);
        assert!(!rig.main.off(id));
    });
}

#[test]
fn a_once_listener_may_register_another_and_be_removed_before_it_fires() {
    within_deadline(|| {
        let (rig, log) = (Rig::new(), Log::<String>::default());
        let removed = rig.main.once(NOTE, |_, _| unexpected("it was removed"));
        assert!(rig.main.off(removed));
        let (one, two) = (log.clone(), log.clone());
        rig.main.once(NOTE, move |event, text| {
            one.push(format!("one {text}"));
            event.emitter().once(NOTE, move |_, text| two.push(format!("two {text}")));
        });
        let each = log.clone();
        rig.main.on(NOTE, move |_, text| each.push(text));
        let renderer = rig.renderer();
        for text in ["a", "b", "c"] {
            renderer.send(NOTE, text).unwrap();
        }
        rig.until(|| log.len() == 5);
        assert_eq!(log.take(), ["one a", "a", "b", "two b", "c"]);
    });
}

#[test]
fn listeners_are_counted_and_named_by_channel() {
    within_deadline(|| {
        let rig = Rig::new();
        let main = &rig.main;
        assert!(main.event_names().is_empty());
        let number = main.on(NUMBER, |_, _| {});
        let note = main.on(NOTE, |_, _| {});
        main.on(NOTE, |_, _| {});
        main.on("other", |_, _| {});
        main.on_any(|_, _, _| {});
        main.on_error(|_| {});
        main.on_connect(|_| {});
        main.on_disconnect(|_, _| {});
        assert_eq!(main.event_names(), ["number", "note", "other"], "in order, and no internals");
        assert_eq!(main.listener_count(NOTE), 2);
        assert_eq!(main.listener_count("note"), 2, "whatever their types");
        assert!(!main.remove_listener(NUMBER, note), "it listens elsewhere");
        assert!(main.remove_listener(NOTE, note));
        assert!(!main.remove_listener(NOTE, note));
        main.remove_all_listeners(NOTE);
        assert_eq!(main.event_names(), ["number", "other"]);
        assert!(main.off(number));
        main.on(NUMBER, |_, _| {});
        assert_eq!(main.event_names(), ["other", "number"]);
        main.clear_listeners();
        assert!(main.event_names().is_empty());
    });
}

#[test]
fn removing_all_listeners_of_one_channel_leaves_the_others() {
    within_deadline(|| {
        let (rig, log) = (Rig::new(), Log::<String>::default());
        let other = log.clone();
        rig.main.on(NOTE, |_, _| unexpected("it was removed"));
        rig.main.on(NOTE, |_, _| unexpected("it was removed"));
        rig.main.on(OTHER, move |_, text| other.push(text));
        rig.main.remove_all_listeners(NOTE);
        let renderer = rig.renderer();
        renderer.send(NOTE, "a").unwrap();
        renderer.send(OTHER, "b").unwrap();
        rig.until(|| log.len() == 1);
        assert_eq!(log.take(), ["b"]);
    });
}

#[test]
fn a_message_that_nobody_listens_to_is_dropped_and_later_ones_are_heard() {
    within_deadline(|| {
        let (rig, log) = (Rig::new(), Log::<String>::default());
        let errors = log.clone();
        rig.main.on_error(move |error| errors.push(error.to_string()));
        let late = log.clone();
        rig.main.once(OTHER, move |event, _| {
            event.emitter().on(NOTE, move |_, text| late.push(text));
        });
        let renderer = rig.renderer();
        renderer.send(NOTE, "unheard").unwrap();
        renderer.send(OTHER, "now").unwrap();
        renderer.send(NOTE, "heard").unwrap();
        rig.until(|| log.len() == 1);
        assert_eq!(log.take(), ["heard"]);
    });
}

#[test]
fn on_any_hears_every_dynamic_channel_after_the_named_listeners() {
    within_deadline(|| {
        let (rig, log) = (Rig::new(), Log::<String>::default());
        let any = log.clone();
        rig.main.on_any(move |event, name, args| {
            assert_eq!(event.channel(), name);
            any.push(format!("any {name} {args}"));
            event.set_return_value("from any")
        });
        let named = log.clone();
        rig.main.on("b", move |_, args| named.push(format!("named {args}")));
        rig.main.on(NOTE, |_, _| {});
        let renderer = rig.renderer();
        renderer.send("a", &args![1, "x"]).unwrap();
        renderer.send(NOTE, "typed").unwrap();
        renderer.send("b", &args![]).unwrap();
        rig.until(|| log.len() == 3);
        assert_eq!(log.take(), [r#"any a [1,"x"]"#, "named []", "any b []"]);

        let _running = Running::start(&rig.main);
        let reply = renderer.send_sync("never named", &args![]).unwrap();
        assert_eq!(reply.as_str(), Some("from any"));
    });
}

#[test]
fn the_event_tells_who_sent_what_and_answers() {
    within_deadline(|| {
        let (rig, log, heard) = (Rig::new(), Log::<String>::default(), Log::<String>::default());
        let hears = heard.clone();
        rig.main.on(NOTE, move |event, text| {
            hears.push(text);
            assert_eq!(event.peer().pid, i32::try_from(std::process::id()).unwrap());
            assert_eq!(event.channel(), "note");
            assert!(!event.is_call());
            let elsewhere = event.sender().clone();
            let text = text.to_owned();
            thread::spawn(move || elsewhere.send(NOTE, &*format!("{text} from a thread"))).join().unwrap()?;
            event.reply(NUMBER, &7)?;
            memit::ok()
        });
        let renderer = rig.renderer();
        let (notes, numbers) = (log.clone(), log.clone());
        renderer.on(NOTE, move |_, text| notes.push(text));
        renderer.on(NUMBER, move |_, number| numbers.push(number.to_string()));
        renderer.send(NOTE, "hello").unwrap();
        rig.until(|| heard.len() == 1);
        support::until(|| renderer.run_once(PATIENCE), || log.len() == 2);
        assert_eq!(log.take(), ["hello from a thread", "7"]);
    });
}

#[test]
fn listeners_may_be_registered_and_removed_while_another_thread_dispatches() {
    within_deadline(|| {
        let rig = Rig::new();
        let _running = Running::start(&rig.main);
        let renderer = rig.renderer();
        for round in 0..200 {
            let (heard, hears) = mpsc::channel();
            let id = rig.main.on(NUMBER, move |_, number| heard.send(number.to_native()));
            renderer.send(NUMBER, &round).unwrap();
            assert_eq!(hears.recv_timeout(PATIENCE), Ok(round));
            assert!(rig.main.off(id));
            assert!(hears.recv_timeout(PATIENCE).is_err(), "the listener is dropped though nothing comes any more");
        }
        assert_eq!(rig.main.listener_count(NUMBER), 0);
    });
}

#[test]
fn a_removed_listener_is_dropped_at_once() {
    within_deadline(|| {
        let rig = Rig::new();
        let (told, tells) = mpsc::channel();
        let tell = Tell(told);
        let id = rig.main.on(NOTE, move |_, _| {
            let _ = &tell;
        });
        rig.main.off(id);
        tells.try_recv().unwrap();
    });
}

/// Registers a listener, and counts them, when it is dropped.
struct Registers(memit::IpcMain);

impl Drop for Registers {
    fn drop(&mut self) {
        assert_eq!(self.0.listener_count(NOTE), 0);
        self.0.on(OTHER, |_, _| {});
    }
}

#[test]
fn a_listener_that_is_dropped_may_use_the_endpoint() {
    within_deadline(|| {
        let rig = Rig::new();
        let registers = Registers(rig.main.clone());
        let id = rig.main.on(NOTE, move |_, _| {
            let _ = &registers;
        });
        rig.main.off(id);
        assert_eq!(rig.main.listener_count(OTHER), 1);

        let registers = Registers(rig.main.clone());
        rig.main.once(NOTE, move |_, _| drop(registers));
        rig.renderer().send(NOTE, "now").unwrap();
        rig.until(|| rig.main.listener_count(OTHER) == 2);
    });
}

#[test]
fn a_listener_that_returns_an_error_is_reported_and_the_others_run() {
    within_deadline(|| {
        let (rig, log) = (Rig::new(), Log::<String>::default());
        let errors = log.clone();
        rig.main.on_error(move |error| {
            assert_eq!(error.channel(), Some("note"));
            errors.push(error.to_string());
        });
        rig.main.on(NOTE, |_, text| {
            let _: u32 = text.parse()?;
            memit::ok()
        });
        let after = log.clone();
        rig.main.on(NOTE, move |_, text| after.push(text));
        let renderer = rig.renderer();
        renderer.send(NOTE, "seven").unwrap();
        renderer.send(NOTE, "7").unwrap();
        rig.until(|| log.len() == 3);
        let entries = log.take();
        assert!(entries[0].contains("invalid digit") && entries[0].contains("note"), "{}", entries[0]);
        assert_eq!(entries[1..], ["seven", "7"]);
    });
}
