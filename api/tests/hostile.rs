//! A peer that keeps the engine's rules and breaks this crate's.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "common/nested.rs"]
mod nested;
mod support;

use std::{sync::Arc, time::Instant};

use memit::{CallError, Channel, Disconnect, DispatchError, IpcMain, Value, schema};
use memit_engine::{AlignedBytes, Announced, Config, Link, Patience, Port};
use nested::arrays;
use support::{Log, PATIENCE, Rig, Running, unexpected, until, within_deadline};

const TEXT: Channel<str> = Channel::new("text");
const NAMES: Channel<Vec<String>> = Channel::new("names");

/// A renderer that writes what it likes.
fn forger(rig: &Rig) -> (Port, Arc<Link>) {
    let mut config = Config::default();
    config.format_fingerprint = memit::message::format_fingerprint();
    config.runtime_dir = Some(rig.directory.path().to_owned());
    let port = Port::connect("app", config).unwrap();
    let link = Arc::clone(&port.links()[0]);
    (port, link)
}

fn announce(link: &Link, channel: u16, name: &str, message: &str) {
    let failure = schema::text::<memit::Failure>();
    let announced = Announced { channel, name, message: message.as_bytes(), reply: b"()", error: failure.as_bytes() };
    link.announce(&announced, Patience::ByPolicy).unwrap();
}

fn watch(main: &IpcMain) -> (Log, Log) {
    let (errors, ends) = (Log::<String>::default(), Log::<String>::default());
    let (error, end) = (errors.clone(), ends.clone());
    main.on_error(move |found| {
        assert!(matches!(found, DispatchError::InvalidMessage { .. }));
        error.push(found.to_string());
    });
    main.on_disconnect(move |_, reason| {
        assert!(matches!(reason, Disconnect::Violation(_)));
        end.push(reason.to_string());
    });
    (errors, ends)
}

#[test]
fn bytes_that_are_no_message_cost_their_sender_the_connection_and_no_listener_hears_them() {
    within_deadline(|| {
        let rig = Rig::new();
        let (errors, ends) = watch(&rig.main);
        rig.main.once(TEXT, |_, _| unexpected("it is no text"));
        rig.main.on(NAMES, |_, _| unexpected("they are no names"));
        let honest = rig.renderer();
        for (name, schema, bytes) in [
            ("text", "str", &b"\xff\xfe"[..]),
            ("names", "vec<string>", b""),
            ("names", "vec<string>", &[0xff; 64]),
            ("names", "vec<string>", &[1, 0, 0, 0, 0xff, 0xff, 0xff, 0x7f]),
        ] {
            let (_port, link) = forger(&rig);
            announce(&link, 0, name, schema);
            link.send(0, bytes, Patience::ByPolicy).unwrap();
            rig.until(|| ends.len() == 1);
            assert!(errors.take()[0].contains(name));
            assert!(ends.take()[0].contains(name));
        }
        assert_eq!(rig.main.listener_count(TEXT), 1, "the message that was none has not used it up");
        rig.main.remove_all_listeners(TEXT);
        let heard = Log::<String>::default();
        let hears = heard.clone();
        rig.main.on(TEXT, move |_, text| hears.push(text));
        honest.send(TEXT, "I am still here").unwrap();
        until(|| rig.main.run_once(PATIENCE), || heard.len() == 1);
        assert_eq!(rig.main.renderers().len(), 1);
    });
}

/// Answers one call with these bytes.
struct Liar {
    answer: Vec<u8>,
    lied: bool,
}

impl memit_engine::Handler for Liar {
    fn connected(&mut self, _: &Arc<Link>) {}

    fn announced(&mut self, _: &Arc<Link>, _: Announced<'_>) -> Result<(), memit_engine::Violation> {
        Ok(())
    }

    fn message(&mut self, message: memit_engine::Incoming<'_>) {
        let call = message.call.unwrap();
        message.link.reply(call, memit_engine::ReplyStatus::Value, &self.answer).unwrap();
        self.lied = true;
    }

    fn disconnected(&mut self, _: &Arc<Link>, _: &Disconnect) {}
}

/// What main gets when it calls a peer that answers with `answer`, and whether that peer is connected then.
fn call_a_liar<R: memit::Payload + ?Sized>(channel: Channel<u32, R>, answer: Vec<u8>) -> (CallError, bool) {
    let rig = Rig::new();
    let (port, _link) = forger(&rig);
    let _running = Running::start(&rig.main);
    let lying = std::thread::spawn(move || {
        let mut liar = Liar { answer, lied: false };
        let mut dispatch = port.dispatch().unwrap();
        while !liar.lied {
            dispatch.wait(Some(Instant::now() + PATIENCE));
            dispatch.poll(64, &mut liar);
        }
        drop(dispatch);
        port
    });
    let to_liar = loop {
        if let Some(sender) = rig.main.renderers().pop() {
            break sender;
        }
        std::thread::yield_now();
    };
    let error = to_liar.send_sync(channel, &1).map(|_| ()).unwrap_err();
    let _port = lying.join().unwrap();
    (error, to_liar.is_connected())
}

#[test]
fn an_answer_that_is_no_value_costs_the_answerer_the_connection() {
    within_deadline(|| {
        let (error, is_connected) = call_a_liar(Channel::<u32, bool>::new("number"), vec![2]);
        assert!(
            matches!(&error, CallError::Disconnected(Disconnect::Violation(text)) if text.contains("bool")),
            "{error}"
        );
        assert!(!is_connected);
    });
}

#[test]
fn an_answer_beyond_a_limit_fails_the_call_and_no_more() {
    within_deadline(|| {
        let (error, is_connected) = call_a_liar(Channel::<u32, Value>::new("value"), arrays(1000));
        assert!(matches!(&error, CallError::ReplyFailed(text) if text.contains("128 levels")), "{error}");
        assert!(is_connected);
    });
}

#[test]
fn a_message_beyond_a_limit_is_reported_and_its_sender_stays() {
    const VALUE: Channel<Value> = Channel::new("value");
    within_deadline(|| {
        let (rig, errors, heard) = (Rig::new(), Log::<String>::default(), Log::<String>::default());
        let (error, hears) = (errors.clone(), heard.clone());
        rig.main.on_error(move |found| {
            assert!(matches!(found, DispatchError::BeyondLimits { .. }));
            error.push(found.to_string());
        });
        rig.main.on(VALUE, move |_, value| hears.push(value.to_string()));
        let (_port, link) = forger(&rig);
        announce(&link, 0, "value", "value");
        link.send(0, &arrays(1000), Patience::ByPolicy).unwrap();
        link.send(0, &arrays(2), Patience::ByPolicy).unwrap();
        rig.until(|| heard.len() == 1);
        assert_eq!(heard.take(), ["[[null]]"]);
        let reports = errors.take();
        assert!(reports.len() == 1 && reports[0].contains("128 levels"), "{reports:?}");

        let running = Running::start(&rig.main);
        let failed = link.call(0, &arrays(1000), None, &mut AlignedBytes::new()).unwrap_err();
        assert!(
            matches!(&failed, memit_engine::CallError::ReplyFailed(text) if text.contains("128 levels")),
            "{failed}"
        );
        drop(running);
        assert_eq!(errors.len(), 1, "the caller is told first, and the error listeners then");
    });
}

#[test]
fn schemas_without_end_are_refused() {
    within_deadline(|| {
        let rig = Rig::new();
        let ends = Log::<String>::default();
        let end = ends.clone();
        rig.main.on_disconnect(move |_, reason| end.push(reason.to_string()));
        let (_port, link) = forger(&rig);
        let _running = Running::start(&rig.main);
        let schema = "x".repeat(60 << 10);
        for channel in 0..100 {
            let announced = Announced { channel, name: "a", message: schema.as_bytes(), reply: b"()", error: b"" };
            if link.announce(&announced, Patience::ByPolicy).is_err() {
                break;
            }
        }
        while ends.len() == 0 {
            std::thread::yield_now();
        }
        assert!(ends.take()[0].contains("schemas"));
    });
}

#[test]
fn a_long_schema_is_shown_in_part() {
    within_deadline(|| {
        let rig = Rig::new();
        let errors = Log::<String>::default();
        let error = errors.clone();
        rig.main.on_error(move |found| error.push(found.to_string()));
        rig.main.on(TEXT, |_, _| unexpected("it has another schema"));
        let (_port, link) = forger(&rig);
        let schema = "x".repeat(60 << 10);
        for (channel, reply) in [(0, &b"()"[..]), (1, schema.as_bytes())] {
            let announced = Announced { channel, name: "text", message: schema.as_bytes(), reply, error: b"" };
            link.announce(&announced, Patience::ByPolicy).unwrap();
            link.send(channel, b"x", Patience::ByPolicy).unwrap();
        }
        rig.until(|| errors.len() == 2);
        for error in errors.take() {
            assert!(error.len() < 2000 && error.contains("(61440 bytes)"), "{error}");
        }
        let _running = Running::start(&rig.main);
        let mut reply = AlignedBytes::new();
        let error = link.call(1, b"x", None, &mut reply).unwrap_err().to_string();
        assert!(error.len() < 2200 && error.contains("(61440 bytes)") && error.contains("str"), "{error}");
    });
}

/// Counts what is logged in the thread that has it as its default.
#[derive(Clone, Default)]
struct Lines(Log<String>);

impl tracing::Subscriber for Lines {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        struct Text<'l>(&'l Log<String>);
        impl tracing::field::Visit for Text<'_> {
            fn record_debug(&mut self, _: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                self.0.push(format!("{value:?}"));
            }
        }
        if event.metadata().target().starts_with("memit") {
            event.record(&mut Text(&self.0));
        }
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

#[test]
fn a_peer_does_not_fill_the_log() {
    within_deadline(|| {
        let (rig, lines) = (Rig::new(), Lines::default());
        let _log = tracing::subscriber::set_default(lines.clone());
        rig.main.on(TEXT, |_, _| unexpected("it has another schema"));
        rig.main.on(NAMES, |_, _| unexpected("it has another schema"));
        let (_port, link) = forger(&rig);
        for channel in 0..200 {
            let name = if channel % 2 == 0 { "text" } else { "names" };
            announce(&link, channel, name, &format!("schema{channel}"));
            link.send(channel, b"x", Patience::ByPolicy).unwrap();
            // What one listener more or less changes is no news about the peer.
            rig.main.off(rig.main.on("other", |_, _| unexpected("nobody sends here")));
        }
        rig.main.on(Channel::<Value>::new("value"), |_, _| unexpected("it is too deep"));
        announce(&link, 200, "value", "value");
        for _ in 0..10 {
            link.send(200, &arrays(1000), Patience::ByPolicy).unwrap();
        }
        let mut handled = 0;
        while handled < 211 {
            handled += rig.main.run_once(PATIENCE).unwrap();
        }
        let lines = lines.0.take();
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert!(lines[0].contains("schema0") && lines[1].contains("schema1"), "{lines:?}");
        assert!(lines[2].contains("128 levels"), "{lines:?}");
    });
}

#[test]
fn a_schema_that_is_not_text_is_shown_and_harms_nobody() {
    within_deadline(|| {
        let rig = Rig::new();
        let errors = Log::<String>::default();
        let error = errors.clone();
        rig.main.on_error(move |found| error.push(found.to_string()));
        rig.main.on(TEXT, |_, _| unexpected("it has another schema"));
        let (_port, link) = forger(&rig);
        let announced = Announced { channel: 3, name: "text", message: b"\xffstr", reply: b"()", error: b"" };
        link.announce(&announced, Patience::ByPolicy).unwrap();
        link.send(3, b"x", Patience::ByPolicy).unwrap();
        rig.until(|| errors.len() == 1);
        assert!(errors.take()[0].contains("\u{fffd}str"));
        assert!(link.is_connected());
    });
}
