//! Mains and renderers over real sockets. Each side is also played by hand, packet by packet.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::mpsc;
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::SocketAddrUnix;

use super::message::{MAX_PACKET, Message, Refusal, RefusalCode, Terms};
use super::{AdmitSink, Admitted, BindError, ConnectError, Listening, Role, connect, terms};
use crate::config::Config;
use crate::outbox::OwnOutbox;
use crate::sys::socket::{self, Received};

mod main_side;
mod processes;
mod renderer_side;

const MAIN_ENDPOINT: u64 = 0x1111;
const RENDERER_ENDPOINT: u64 = 0x2222;

/// A runtime directory, and settings that name it and cost little.
struct Place {
    parent: PathBuf,
    /// Removes the directory in the end, in the process that made it.
    _temporary: Option<tempfile::TempDir>,
}

impl Place {
    fn new() -> Self {
        let temporary = tempfile::tempdir().unwrap();
        Self { parent: temporary.path().into(), _temporary: Some(temporary) }
    }

    fn dir(&self) -> PathBuf {
        self.parent.join("memit")
    }

    fn config(&self) -> Config {
        Config {
            runtime_dir: Some(self.dir()),
            ring_capacity: 4096,
            reply_slots: 2,
            format_fingerprint: 77,
            handshake_deadline: Duration::from_secs(60),
            ..Config::default()
        }
    }

    fn main(&self, config: &Config) -> Main {
        self.try_main(config).unwrap()
    }

    fn try_main(&self, config: &Config) -> Result<Main, BindError> {
        let (sender, admitted) = mpsc::channel();
        let sink = Arc::new(Sink(Mutex::new(sender)));
        let weak: Weak<dyn AdmitSink> = Arc::<Sink>::downgrade(&sink);
        let listening = Listening::bind("app", config, MAIN_ENDPOINT, weak)?;
        Ok(Main { listening, _sink: sink, admitted })
    }

    fn connect(&self) -> Result<Admitted, ConnectError> {
        connect("app", &self.config(), RENDERER_ENDPOINT)
    }

    /// A client that is played by hand.
    fn client(&self) -> Hand {
        let socket = socket::seqpacket(true).unwrap();
        let address = SocketAddrUnix::new(self.dir().join("app.sock")).unwrap();
        socket::connect(socket.as_fd(), &address, Duration::from_secs(60)).unwrap();
        Hand(socket)
    }

    /// What a renderer with our settings would say, and what goes with it.
    fn hello(&self) -> (Terms, Handed) {
        let config = self.config();
        let geometry = config.check().unwrap();
        let (mapped, outbox) = OwnOutbox::create(geometry).unwrap();
        let (bell, rings_it) = socket::pair().unwrap();
        let handed = Handed { outbox, rings_it, _kept: (mapped, bell) };
        (terms(&config, geometry, RENDERER_ENDPOINT), handed)
    }
}

/// What a side gives the other with its first packet.
struct Handed {
    outbox: OwnedFd,
    rings_it: OwnedFd,
    _kept: (Arc<OwnOutbox>, OwnedFd),
}

impl Handed {
    fn descriptors(&self) -> [BorrowedFd<'_>; 2] {
        [self.outbox.as_fd(), self.rings_it.as_fd()]
    }
}

struct Main {
    listening: Listening,
    _sink: Arc<Sink>,
    admitted: mpsc::Receiver<Admitted>,
}

struct Sink(Mutex<mpsc::Sender<Admitted>>);

impl AdmitSink for Sink {
    fn admitted(self: Arc<Self>, admitted: Admitted) {
        let _ = self.0.lock().unwrap().send(admitted);
    }
}

/// One side of a handshake, played by hand.
struct Hand(OwnedFd);

impl Hand {
    fn say(&self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) {
        socket::send(self.0.as_fd(), bytes, descriptors).unwrap();
    }

    /// Waits for one packet; `None` is the end.
    fn hear(&self) -> Option<(Message, Vec<OwnedFd>)> {
        let mut buffer = [0; MAX_PACKET];
        loop {
            match socket::receive(self.0.as_fd(), &mut buffer) {
                Ok(Received::Packet { len, descriptors, .. }) => {
                    return Some((Message::parse(&buffer[..len]).unwrap(), descriptors));
                }
                Ok(Received::HangUp) => return None,
                Ok(Received::Nothing) => wait_readable(self.0.as_fd()),
                // What we said last was not read. What we were told before is still there.
                Err(Errno::CONNRESET) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Waits for a refusal, and for the end after it.
    fn hear_refusal(&self) -> Refusal {
        let Some((Message::Refuse(refusal), descriptors)) = self.hear() else { panic!("no refusal") };
        assert!(descriptors.is_empty());
        assert!(self.hear().is_none(), "the connection stays open after a refusal");
        refusal
    }

    fn hears_nothing_now(&self) -> bool {
        matches!(socket::receive(self.0.as_fd(), &mut [0; 8]), Ok(Received::Nothing))
    }
}

fn wait_readable(fd: BorrowedFd<'_>) {
    poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::IN)], None).unwrap();
}

#[test]
fn both_sides_of_a_connection_agree() {
    let place = Place::new();
    let of_main = Config { extent_size: 64 << 10, message_limit: 5, sealed_from: 6, ..place.config() };
    let main = place.main(&of_main);
    for renderer_id in 1..=3 {
        let renderer = place.connect().unwrap();
        let at_main = main.admitted.recv().unwrap();
        assert_eq!((renderer.role, at_main.role), (Role::Renderer, Role::Main));
        assert_eq!((renderer.renderer_id, at_main.renderer_id), (renderer_id, renderer_id));
        assert_eq!((renderer.peer_endpoint, at_main.peer_endpoint), (MAIN_ENDPOINT, RENDERER_ENDPOINT));
        assert_eq!((renderer.incoming, renderer.outgoing), (at_main.outgoing, at_main.incoming));
        assert_eq!((renderer.own.key(), at_main.own.key()), (at_main.peer.key(), renderer.peer.key()));
        assert_eq!(renderer.own.geometry(), at_main.peer.geometry());
        assert_eq!((renderer.payloads, at_main.payloads), (of_main.payload_terms(), place.config().payload_terms()));
        assert_eq!(renderer.credentials, at_main.credentials);
        assert_eq!(renderer.credentials.pid.unsigned_abs(), std::process::id());

        for (ringer, rung) in [(&renderer, &at_main), (&at_main, &renderer)] {
            socket::ring_bell(ringer.peer_bell.as_fd()).unwrap();
            wait_readable(rung.bell.as_fd());
            // Who rings cannot read, and so cannot hold up who does.
            assert!(matches!(socket::receive(ringer.peer_bell.as_fd(), &mut [0; 8]), Ok(Received::Nothing)));
            assert_eq!(socket::hear_bell(rung.bell.as_fd()), socket::Rung::Once);
            socket::send_goodbye(ringer.socket.as_fd());
            assert!(matches!(socket::hear(rung.socket.as_fd()), socket::Heard::Goodbye));
        }
        drop(renderer);
        wait_readable(at_main.socket.as_fd());
        assert!(matches!(socket::hear(at_main.socket.as_fd()), socket::Heard::HangUp));
    }
}

#[test]
fn a_main_and_its_renderer_may_live_in_one_thread() {
    let place = Place::new();
    let main = place.main(&place.config());
    let renderers: Vec<_> = (0..20).map(|_| place.connect().unwrap()).collect();
    assert_eq!(main.admitted.iter().take(20).map(|admitted| admitted.renderer_id).max(), Some(20));
    drop(renderers);
}

#[test]
fn a_directory_too_deep_for_a_socket_address_serves_too() {
    let place = Place::new();
    let deep = place.parent.join("d".repeat(150));
    let config = || Config { runtime_dir: Some(deep.clone()), ..place.config() };
    let main = place.main(&config());
    connect("app", &config(), 1).unwrap();
    main.admitted.recv().unwrap();
}

#[test]
fn the_layout_version_in_the_handshake_is_that_of_the_outbox() {
    let (terms, handed) = Place::new().hello();
    let mut version = [0; 4];
    rustix::io::pread(&handed.outbox, &mut version, 8).unwrap();
    assert_eq!(u32::from_le_bytes(version), terms.layout);
}

#[test]
fn a_setting_that_cannot_work_is_refused_by_both_sides() {
    let place = Place::new();
    let changes: [fn(&mut Config); 10] = [
        |config| config.ring_capacity = 5000,
        |config| config.ring_capacity = 2 << 30,
        |config| config.reply_slots = 1,
        |config| config.reply_slots = 65,
        |config| config.max_half_open = 0,
        |config| config.max_connections = 0,
        |config| config.handshake_deadline = Duration::ZERO,
        |config| config.extent_size = 5 << 10,
        |config| config.arena_limit = 1 << 20,
        |config| config.message_limit = 0,
    ];
    for change in changes {
        let mut config = place.config();
        change(&mut config);
        let error = connect("app", &config, 1).unwrap_err();
        assert!(matches!(error, ConnectError::ConfigInvalid(_)), "{error}");
        let error = place.try_main(&config).map(drop).unwrap_err();
        assert!(matches!(error, BindError::ConfigInvalid(_)), "{error}");
    }
}

#[test]
fn a_deadline_of_all_time_is_a_deadline() {
    let place = Place::new();
    let main = place.main(&Config { handshake_deadline: Duration::MAX, ..place.config() });
    connect("app", &Config { handshake_deadline: Duration::MAX, ..place.config() }, 1).unwrap();
    main.admitted.recv().unwrap();
}
