//! A renderer against mains of every kind.

use std::fs;
use std::thread;

use rustix::pipe::pipe;

use super::super::message::Welcome;
use super::super::payloads::PayloadTerms;
use super::*;

/// A main that is played by hand, for one client.
struct FakeMain(OwnedFd);

impl FakeMain {
    fn new(place: &Place, backlog: i32) -> Self {
        use std::os::unix::fs::DirBuilderExt;
        fs::DirBuilder::new().mode(0o700).create(place.dir()).unwrap();
        let listener = socket::seqpacket(true).unwrap();
        rustix::net::bind(&listener, &SocketAddrUnix::new(place.dir().join("app.sock")).unwrap()).unwrap();
        rustix::net::listen(&listener, backlog).unwrap();
        Self(listener)
    }

    /// Takes a client and its Hello.
    fn meet(&self) -> (Hand, Terms) {
        let client = Hand(socket::accept(self.0.as_fd()).unwrap());
        let Some((Message::Hello(terms), handed)) = client.hear() else { panic!("no Hello") };
        assert_eq!(handed.len(), 2);
        (client, terms)
    }
}

/// What a renderer makes of a main that answers its Hello like this; and what it tells that main.
fn after(answer: impl FnOnce(&Hand, Terms) + Send) -> (ConnectError, Option<Message>) {
    let place = Place::new();
    let main = FakeMain::new(&place, 8);
    thread::scope(|scope| {
        let told = scope.spawn(move || {
            let (client, terms) = main.meet();
            answer(&client, terms);
            client.hear().map(|(message, _)| message)
        });
        let error = place.connect().unwrap_err();
        (error, told.join().unwrap())
    })
}

fn welcome(terms: Terms) -> Welcome {
    Welcome { terms: Terms { endpoint: 9, capabilities: 0, ..terms }, renderer_id: 1, granted: 0 }
}

/// Sends a Welcome with a good outbox and bell, but for what `change` does to its bytes.
fn welcome_with(client: &Hand, welcome: Welcome, change: impl FnOnce(&mut Vec<u8>)) {
    let (_, handed) = Place::new().hello();
    let mut bytes = Message::Welcome(welcome).to_bytes();
    change(&mut bytes);
    client.say(&bytes, &handed.descriptors());
}

fn refused_as(told: Option<Message>, code: RefusalCode) {
    let Some(Message::Refuse(refusal)) = told else { panic!("main was told {told:?}") };
    assert_eq!(refusal.code, code, "{refusal}");
}

#[test]
fn without_a_main_the_error_says_what_to_do() {
    let place = Place::new();
    let nobody = || {
        let error = place.connect().unwrap_err();
        let ConnectError::NotRunning { name, path } = &error else { panic!("{error}") };
        assert_eq!((name.as_str(), path), ("app", &place.dir().join("app.sock")));
        assert!(error.to_string().ends_with("start it first, or check the name and the runtime directory"));
    };
    // No directory; no socket in it; a socket that nobody listens at any more.
    nobody();
    assert!(!place.dir().exists());
    let main = FakeMain::new(&place, 1);
    fs::rename(place.dir().join("app.sock"), place.dir().join("other")).unwrap();
    nobody();
    fs::rename(place.dir().join("other"), place.dir().join("app.sock")).unwrap();
    drop(main);
    nobody();
}

#[test]
fn bad_names_are_refused_by_connect() {
    let place = Place::new();
    for name in ["", "a/b", "../app", "a\0b"] {
        let error = connect(name, &place.config(), 1).unwrap_err();
        assert!(matches!(error, ConnectError::NameInvalid(_)), "{error}");
    }
}

#[test]
fn a_main_that_does_not_answer_is_given_up_at_the_deadline() {
    let place = Place::new();
    // Room for one client in the queue; the next does not even get that far.
    let _main = FakeMain::new(&place, 0);
    let patience = Duration::from_millis(50);
    let config = Config { handshake_deadline: patience, ..place.config() };
    for _ in 0..2 {
        let start = Instant::now();
        let error = connect("app", &config, 1).unwrap_err();
        assert!(matches!(error, ConnectError::Timeout { after } if after == patience), "{error}");
        assert!(start.elapsed() >= patience);
    }
}

#[test]
fn a_main_that_closes_without_a_word_is_told_from_one_that_is_not_there() {
    let place = Place::new();
    let main = FakeMain::new(&place, 8);
    thread::scope(|scope| {
        scope.spawn(|| drop(main.meet()));
        assert!(matches!(place.connect().unwrap_err(), ConnectError::Closed));
    });
}

#[test]
fn a_refusal_is_heard_though_hello_was_never_read() {
    let place = Place::new();
    let main = FakeMain::new(&place, 8);
    thread::scope(|scope| {
        scope.spawn(|| {
            let client = Hand(socket::accept(main.0.as_fd()).unwrap());
            // Hello lies there, and closing the socket with it resets the connection.
            wait_readable(client.0.as_fd());
            client.say(&Message::Refuse(Refusal::new(RefusalCode::TooMany, 5, 5, "full")).to_bytes(), &[]);
        });
        let error = place.connect().unwrap_err();
        assert!(matches!(&error, ConnectError::TooMany { found: 5, limit: 5, text } if text == "full"), "{error}");
    });
}

#[test]
fn a_main_of_another_version_is_told_ours() {
    let (error, told) = after(|client, terms| welcome_with(client, welcome(terms), |bytes| bytes[8] = 9));
    assert!(matches!(error, ConnectError::VersionMismatch { found: 9, expected: 4 }), "{error}");
    refused_as(told, RefusalCode::Version);
}

#[test]
fn a_refusal_for_the_version_shows_both() {
    let (error, _) = after(|client, _| {
        let refusal = Refusal { protocol: 7, ..Refusal::new(RefusalCode::Version, 4, 7, "too old") };
        client.say(&Message::Refuse(refusal).to_bytes(), &[]);
    });
    assert!(matches!(error, ConnectError::VersionMismatch { found: 7, expected: 4 }), "{error}");
    assert_eq!(
        error.to_string(),
        "main speaks version 7 of the protocol, expected 4; use the same version of memit on both sides"
    );
}

#[test]
fn another_payload_format_is_refused_by_main() {
    let place = Place::new();
    let _main = place.main(&Config { format_fingerprint: 0xabc, ..place.config() });
    let error = place.connect().unwrap_err();
    assert!(matches!(error, ConnectError::FormatMismatch { found: 0xabc, expected: 77 }), "{error}");
}

#[test]
fn another_payload_format_or_layout_is_refused_by_a_renderer() {
    let (error, told) = after(|client, terms| {
        welcome_with(client, welcome(Terms { fingerprint: 0xabc, ..terms }), |_| {});
    });
    assert!(matches!(error, ConnectError::FormatMismatch { found: 0xabc, expected: 77 }), "{error}");
    refused_as(told, RefusalCode::Format);
    let (error, told) = after(|client, terms| welcome_with(client, welcome(Terms { layout: 3, ..terms }), |_| {}));
    assert!(matches!(error, ConnectError::LayoutMismatch { found: 3, expected: 2 }), "{error}");
    refused_as(told, RefusalCode::Layout);
}

#[test]
fn terms_for_payloads_that_cannot_be_are_refused_by_a_renderer() {
    let (error, told) = after(|client, terms| {
        let payloads = PayloadTerms { extent_size: 5000, ..terms.payloads };
        welcome_with(client, welcome(Terms { payloads, ..terms }), |_| {});
    });
    let ConnectError::Protocol { text } = &error else { panic!("{error}") };
    assert!(text.contains("extents have 5000 bytes"), "{text}");
    refused_as(told, RefusalCode::BadMessage);
}

#[test]
fn a_main_that_says_nonsense_is_refused_and_its_descriptors_are_closed() {
    let (reader, writer) = pipe().unwrap();
    let (error, told) = after(move |client, _| client.say(b"nonsense", &[writer.as_fd()]));
    assert!(matches!(error, ConnectError::Protocol { .. }), "{error}");
    refused_as(told, RefusalCode::BadMessage);
    wait_readable(reader.as_fd());
}

#[test]
fn a_bell_that_is_no_seqpacket_socket_is_refused() {
    let (reader, writer) = pipe().unwrap();
    let (error, told) = after(move |client, terms| {
        let (_, handed) = Place::new().hello();
        client.say(&Message::Welcome(welcome(terms)).to_bytes(), &[handed.outbox.as_fd(), writer.as_fd()]);
    });
    assert!(matches!(&error, ConnectError::Protocol { text } if text.contains("bell")), "{error}");
    refused_as(told, RefusalCode::BadMessage);
    wait_readable(reader.as_fd());
}

#[test]
fn an_outbox_of_main_that_fails_a_check_is_refused() {
    let (error, told) = after(|client, terms| {
        let (_ours, bell) = socket::pair().unwrap();
        let file = tempfile::tempfile().unwrap();
        client.say(&Message::Welcome(welcome(terms)).to_bytes(), &[file.as_fd(), bell.as_fd()]);
    });
    assert!(matches!(error, ConnectError::BadOutbox(_)), "{error}");
    refused_as(told, RefusalCode::BadOutbox);

    let (error, told) = after(|client, terms| {
        welcome_with(client, welcome(Terms { outbox_size: 1 << 40, ..terms }), |_| {});
    });
    assert!(matches!(error, ConnectError::OutboxTooLarge { found, .. } if found == 1 << 40), "{error}");
    refused_as(told, RefusalCode::BadOutbox);
}

#[test]
fn a_renderer_asks_its_own_hook_about_main() {
    let place = Place::new();
    let main = place.main(&place.config());
    let config = |admit| Config { authorize: Some(Arc::new(move |_| admit)), ..place.config() };
    let error = connect("app", &config(false), 1).unwrap_err();
    assert!(matches!(error, ConnectError::UntrustedMain { .. }), "{error}");
    connect("app", &config(true), 1).unwrap();
    main.admitted.recv().unwrap();
}
