//! Main against clients of every kind.

use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::sync::Barrier;
use std::thread;

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::pipe::pipe;

use super::*;

#[test]
fn a_dropped_main_leaves_its_lock_file_and_nothing_else() {
    let place = Place::new();
    let main = place.main(&place.config());
    let socket = place.dir().join("app.sock");
    assert!(fs::symlink_metadata(&socket).unwrap().file_type().is_socket());
    drop(main);
    let left: Vec<_> = fs::read_dir(place.dir()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["app.lock"]);
    place.main(&place.config());
}

#[test]
fn a_name_that_is_live_is_taken_and_says_by_whom() {
    let place = Place::new();
    let _main = place.main(&place.config());
    let error = place.try_main(&place.config()).map(drop).unwrap_err();
    assert!(matches!(error, BindError::NameTaken { holder: Some(pid), .. } if pid == std::process::id()));
    let text = error.to_string();
    let pid = std::process::id();
    assert_eq!(text, format!("the name app is taken by process {pid}; choose another, or end that process"));
    // It went on serving.
    place.connect().unwrap();
}

#[test]
fn of_threads_that_bind_one_name_at_once_exactly_one_wins() {
    let place = Place::new();
    for _ in 0..20 {
        let start = Barrier::new(2);
        let outcomes: Vec<_> = thread::scope(|scope| {
            let bind = || {
                start.wait();
                place.try_main(&place.config())
            };
            let threads: Vec<_> = (0..2).map(|_| scope.spawn(bind)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let winners: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.as_ref().ok()).collect();
        assert_eq!(winners.len(), 1);
        assert!(outcomes.iter().all(|outcome| matches!(outcome, Ok(_) | Err(BindError::NameTaken { .. }))));
        place.connect().unwrap();
        winners[0].admitted.recv().unwrap();
    }
}

#[test]
fn a_main_whose_lock_file_was_removed_does_not_unlink_its_successors_socket() {
    let place = Place::new();
    let old = place.main(&place.config());
    fs::remove_file(place.dir().join("app.lock")).unwrap();
    let new = place.main(&place.config());
    drop(old);
    place.connect().unwrap();
    new.admitted.recv().unwrap();
}

#[test]
fn bad_names_are_refused_by_bind() {
    let place = Place::new();
    for name in ["", "a/b", "a\0b", ".a"] {
        let (sender, _receiver) = mpsc::channel();
        let sink: Arc<dyn AdmitSink> = Arc::new(Sink(Mutex::new(sender)));
        let error = Listening::bind(name, &place.config(), 1, Arc::downgrade(&sink)).unwrap_err();
        assert!(matches!(error, BindError::NameInvalid(_)), "{error}");
    }
    assert!(!place.dir().exists());
}

#[test]
fn a_silent_client_is_dropped_at_the_deadline_and_holds_up_nobody() {
    let place = Place::new();
    let patience = Duration::from_secs(1);
    let main = place.main(&Config { handshake_deadline: patience, ..place.config() });
    let start = Instant::now();
    let silent = place.client();
    let half_silent = place.client();
    let (terms, handed) = place.hello();
    half_silent.say(&Message::Hello(terms).to_bytes(), &handed.descriptors());
    assert!(matches!(half_silent.hear(), Some((Message::Welcome(_), _))));

    place.connect().unwrap();
    main.admitted.recv().unwrap();

    for (client, missing) in [(silent, "no Hello"), (half_silent, "no Ready")] {
        let refusal = client.hear_refusal();
        assert_eq!((refusal.code, refusal.expected), (RefusalCode::Deadline, 1000));
        assert!(refusal.text.starts_with(missing), "{refusal}");
        assert!(start.elapsed() >= patience);
    }
}

#[test]
fn silent_clients_on_every_place_give_way_to_one_that_speaks() {
    let place = Place::new();
    // They give way after a quarter of the deadline, which itself is far off.
    let config = Config { handshake_deadline: Duration::from_secs(6), max_half_open: 2, ..place.config() };
    let main = place.main(&config);
    let (eldest, second) = (place.client(), place.client());
    let start = Instant::now();
    place.connect().unwrap();
    main.admitted.recv().unwrap();
    assert!(start.elapsed() < config.handshake_deadline);
    assert_eq!(eldest.hear_refusal().code, RefusalCode::Deadline);
    assert!(second.hears_nothing_now(), "one place was enough");
}

#[test]
fn more_renderers_than_places_for_handshakes_all_get_in() {
    let place = Place::new();
    let main = place.main(&Config { max_half_open: 1, ..place.config() });
    let renderers: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..16).map(|_| scope.spawn(|| place.connect())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap().unwrap()).collect()
    });
    let mut ids: Vec<_> = renderers.iter().map(|renderer| renderer.renderer_id).collect();
    ids.sort_unstable();
    assert_eq!(ids, (1..=16).collect::<Vec<_>>());
    assert_eq!(main.admitted.iter().take(16).count(), 16);
}

#[test]
fn nonsense_is_refused_and_its_descriptors_are_closed() {
    let place = Place::new();
    let main = place.main(&place.config());
    let hello = Message::Hello(place.hello().0).to_bytes();
    let long = vec![b'x'; 4000];
    let cases: [(&[u8], usize); 7] =
        [(b"GET / HTTP/1.1", 0), (b"nonsense", 1), (&long, 2), (&hello, 0), (&hello, 3), (&hello[..40], 1), (b"x", 4)];
    for (bytes, count) in cases {
        let client = place.client();
        let (readers, writers): (Vec<_>, Vec<_>) = (0..count).map(|_| pipe().unwrap()).unzip();
        let descriptors: Vec<_> = writers.iter().map(AsFd::as_fd).collect();
        client.say(bytes, &descriptors);
        drop(writers);
        let refusal = client.hear_refusal();
        assert_eq!(refusal.code, RefusalCode::BadMessage, "{refusal}");
        for reader in readers {
            // Returns when nobody has the other end any more.
            wait_readable(reader.as_fd());
        }
    }
    place.connect().unwrap();
    main.admitted.recv().unwrap();
}

#[test]
fn another_version_is_told_ours() {
    let place = Place::new();
    let _main = place.main(&place.config());
    let mut hello = Message::Hello(place.hello().0).to_bytes();
    hello[8] = 9;
    hello.extend([1; 150]);
    let client = place.client();
    client.say(&hello, &[]);
    let refusal = client.hear_refusal();
    assert_eq!((refusal.code, refusal.found, refusal.expected), (RefusalCode::Version, 9, 4));
    assert_eq!(refusal.protocol, 4);
}

#[test]
fn an_outbox_that_fails_a_check_is_refused() {
    let place = Place::new();
    let main = place.main(&place.config());
    let (terms, good) = place.hello();
    let unsealed = memfd_create("unsealed", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
    rustix::fs::ftruncate(&unsealed, terms.outbox_size).unwrap();
    let file = tempfile::tempfile().unwrap();
    let (reader, _writer) = pipe().unwrap();
    let otherwise = Terms { ring_capacity: terms.ring_capacity * 2, ..terms };
    let cases = [
        (terms, unsealed.as_fd()),
        (terms, file.as_fd()),
        (terms, reader.as_fd()),
        (otherwise, good.outbox.as_fd()),
        (Terms { outbox_size: u64::MAX, ..terms }, good.outbox.as_fd()),
    ];
    for (terms, outbox) in cases {
        let client = place.client();
        client.say(&Message::Hello(terms).to_bytes(), &[outbox, good.rings_it.as_fd()]);
        let refusal = client.hear_refusal();
        assert_eq!(refusal.code, RefusalCode::BadOutbox, "{refusal}");
    }
    place.connect().unwrap();
    main.admitted.recv().unwrap();
}

#[test]
fn a_bell_of_a_renderer_that_is_no_seqpacket_socket_is_refused_and_closed() {
    let place = Place::new();
    let _main = place.main(&place.config());
    let (terms, handed) = place.hello();
    let client = place.client();
    let (reader, writer) = pipe().unwrap();
    client.say(&Message::Hello(terms).to_bytes(), &[handed.outbox.as_fd(), writer.as_fd()]);
    drop(writer);
    let refusal = client.hear_refusal();
    assert_eq!(refusal.code, RefusalCode::BadMessage);
    assert!(refusal.text.contains("bell"), "{refusal}");
    wait_readable(reader.as_fd());
}

#[test]
fn an_outbox_larger_than_allowed_is_refused_by_its_size() {
    let place = Place::new();
    let _main = place.main(&Config { max_peer_outbox: 8192, ..place.config() });
    let error = place.connect().unwrap_err();
    let ConnectError::Refused { code: RefusalCode::BadOutbox, text } = error else { panic!("{error}") };
    assert!(text.contains("at most 8192 are accepted"), "{text}");
}

#[test]
fn a_connection_too_many_is_refused_until_another_ends() {
    let place = Place::new();
    for config in
        [Config { max_connections: 1, ..place.config() }, Config { max_connections_per_uid: 1, ..place.config() }]
    {
        let main = place.main(&config);
        let first = place.connect().unwrap();
        let at_main = main.admitted.recv().unwrap();
        let error = place.connect().unwrap_err();
        assert!(matches!(error, ConnectError::TooMany { found: 1, limit: 1, .. }), "{error}");
        drop(first);
        drop(at_main);
        place.connect().unwrap();
    }
}

#[test]
fn a_handshake_that_failed_takes_no_place() {
    let place = Place::new();
    let _main = place.main(&Config { max_connections: 1, ..place.config() });
    let (terms, handed) = place.hello();
    for _ in 0..3 {
        let client = place.client();
        client.say(&Message::Hello(terms).to_bytes(), &handed.descriptors());
        assert!(matches!(client.hear(), Some((Message::Welcome(_), _))));
        client.say(b"nonsense", &[]);
        assert_eq!(client.hear_refusal().code, RefusalCode::BadMessage);
    }
    place.connect().unwrap();
}

#[test]
fn a_main_that_shuts_down_refuses_half_open_handshakes() {
    let place = Place::new();
    let main = place.main(&place.config());
    let client = place.client();
    let (terms, handed) = place.hello();
    client.say(&Message::Hello(terms).to_bytes(), &handed.descriptors());
    assert!(matches!(client.hear(), Some((Message::Welcome(_), _))));
    drop(main);
    assert_eq!(client.hear_refusal().code, RefusalCode::ShuttingDown);
}

#[test]
fn a_hook_is_asked_about_each_renderer() {
    let place = Place::new();
    let (asked, asks) = mpsc::channel();
    let asked = Mutex::new(asked);
    let hook = move |peer: &crate::config::Credentials| {
        asked.lock().unwrap().send(*peer).unwrap();
        false
    };
    let _main = place.main(&Config { authorize: Some(Arc::new(hook)), ..place.config() });
    let error = place.connect().unwrap_err();
    let us = rustix::process::geteuid().as_raw();
    assert!(matches!(error, ConnectError::Unauthorized { found, .. } if found == u64::from(us)), "{error}");
    let peer = asks.recv().unwrap();
    assert_eq!((peer.pid.unsigned_abs(), peer.uid), (std::process::id(), us));
}

#[test]
fn a_hook_that_panics_refuses_and_main_goes_on() {
    let place = Place::new();
    let first = std::sync::atomic::AtomicBool::new(true);
    let hook = move |_: &crate::config::Credentials| {
        assert!(!first.swap(false, std::sync::atomic::Ordering::Relaxed), "the hook's own panic");
        true
    };
    let main = place.main(&Config { authorize: Some(Arc::new(hook)), ..place.config() });
    assert!(matches!(place.connect().unwrap_err(), ConnectError::Unauthorized { .. }));
    place.connect().unwrap();
    main.admitted.recv().unwrap();
}

#[test]
fn a_socket_directory_that_others_may_enter_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new();
    fs::create_dir(place.dir()).unwrap();
    fs::set_permissions(place.dir(), fs::Permissions::from_mode(0o755)).unwrap();
    let error = place.try_main(&place.config()).map(drop).unwrap_err();
    assert!(matches!(error, BindError::RuntimeDir(_)), "{error}");
    let error = place.connect().unwrap_err();
    assert!(matches!(error, ConnectError::RuntimeDir(_)), "{error}");
}
