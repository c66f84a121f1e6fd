//! What a peer says in a handshake, to either side; and connections that are made without one.
#![allow(clippy::unwrap_used, reason = "these are tests")]

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

#[cfg(test)]
use super::message::Welcome;
use super::message::{MAX_PACKET, Message, Refusal, Terms, capability};
use super::payloads::{PayloadTerms, is_extent_size};
use super::state::{FromRenderer, MainSide, Packet, RendererSide, Step};
use super::{Admitted, Role, late_refusal};
use crate::config::Credentials;
use crate::outbox::{OwnOutbox, PeerOutbox};
use crate::sys::barrier::Barrier;
use crate::sys::fork::ForkFd;
use crate::sys::peer_socket::{Maker, PeerSocket};
use crate::sys::socket::{self, Cut};

/// One connection without a handshake, and the peer's ends of its socket and of the two bells.
pub(crate) fn admitted(
    role: Role,
    own: Arc<OwnOutbox>,
    peer: Arc<PeerOutbox>,
    payloads: PayloadTerms,
) -> (Admitted, OwnedFd, [OwnedFd; 2]) {
    let (socket, theirs) = socket::pair().unwrap();
    let (bell, rings_it) = socket::pair().unwrap();
    let (their_bell, peer_bell) = socket::pair().unwrap();
    // Never readable, as where there is no such descriptor to be had.
    let pidfd = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC).unwrap();
    let admitted = Admitted {
        role,
        own,
        peer,
        socket: PeerSocket::new(socket, Maker::Us),
        bell: PeerSocket::new(bell, Maker::Us),
        peer_bell: PeerSocket::new(peer_bell, Maker::Peer),
        pidfd: ForkFd::new(pidfd),
        credentials: Credentials { pid: 1, uid: 1, gid: 1 },
        renderer_id: 1,
        peer_endpoint: 2,
        payloads,
        incoming: Barrier::Fence,
        outgoing: Barrier::Fence,
        _seat: None,
    };
    (admitted, theirs, [rings_it, their_bell])
}

const PAYLOADS: PayloadTerms =
    PayloadTerms { extent_size: 4 << 20, arena_limit: 64 << 20, message_limit: 1 << 30, sealed_from: 4 << 20 };
const MAX_OUTBOX: u64 = 1 << 20;
const RENDERER_ID: u64 = 5;

fn terms(capabilities: u32) -> Terms {
    Terms {
        layout: 2,
        capabilities,
        fingerprint: 77,
        endpoint: 1,
        outbox_size: 1 << 19,
        ring_capacity: 1 << 18,
        slot_count: 8,
        payloads: PAYLOADS,
    }
}

/// A list of packets, each to be heard by one of the sides: a byte that says by which, how many descriptors came and
/// what was cut off, the length, the bytes.
pub(crate) fn handshake(mut bytes: &[u8]) {
    let now = Instant::now();
    let both = capability::REGISTERED | capability::ASYMMETRIC_SLEEP;
    let mut main = MainSide::new(terms(both), MAX_OUTBOX, now, Duration::from_secs(4));
    let renderer = RendererSide::new(terms(both), MAX_OUTBOX);
    // What main has let happen so far.
    let (mut was_greeted, mut is_over) = (false, false);
    while let Some(([how, len], rest)) = bytes.split_first_chunk::<2>() {
        let (content, rest) = rest.split_at(rest.len().min(usize::from(*len).min(MAX_PACKET)));
        bytes = rest;
        understand(content);
        let cut = Cut { bytes: how & 0x10 != 0, descriptors: how & 0x20 != 0 };
        let packet = Packet { bytes: content, descriptors: usize::from(how & 7), cut };
        if how & 0x80 != 0 {
            match renderer.receive(&packet) {
                Step::Next(welcomed) => {
                    assert!(packet.descriptors == 2 && cut == Cut::default());
                    check_terms(&welcomed.main);
                }
                Step::Refuse(refusal) => check_refusal(&refusal),
                Step::Refused(_) => {}
            }
            continue;
        }
        match main.receive(&packet, now) {
            Step::Next(FromRenderer::Hello(theirs)) => {
                assert!(!was_greeted && !is_over && packet.descriptors == 2 && cut == Cut::default());
                was_greeted = true;
                check_terms(&theirs);
                let (welcome, barriers) = main.welcome(RENDERER_ID).unwrap();
                assert!(main.welcome(RENDERER_ID).is_none(), "it is said once");
                // Whatever the renderer is, it takes what is granted to it.
                let to = RendererSide::new(Terms { fingerprint: 77, ..theirs }, MAX_OUTBOX);
                let welcome = welcome.to_bytes();
                let packet = Packet { bytes: &welcome, descriptors: 2, cut: Cut::default() };
                let Step::Next(welcomed) = to.receive(&packet) else { panic!("its welcome is refused: {theirs:?}") };
                assert_eq!((welcomed.barriers, welcomed.renderer_id), (barriers, RENDERER_ID));
            }
            Step::Next(FromRenderer::Ready) => {
                assert!(was_greeted && !is_over && packet.descriptors == 0 && cut == Cut::default());
                is_over = true;
            }
            Step::Refuse(refusal) => {
                check_refusal(&refusal);
                is_over = true;
            }
            Step::Refused(_) => is_over = true,
        }
        check_refusal(&main.expired(now + Duration::from_secs(9)));
    }
}

/// What was understood is what was meant.
fn understand(bytes: &[u8]) {
    let _ = late_refusal(bytes);
    match Message::parse(bytes) {
        Ok(Message::Refuse(refusal)) => {
            assert!(!refusal.to_string().contains(char::is_control));
            check_refusal(&refusal);
        }
        Ok(message) => assert_eq!(message.to_bytes(), bytes),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// It fits a packet, and is understood at the other end.
fn check_refusal(refusal: &Refusal) {
    let bytes = Message::Refuse(refusal.clone()).to_bytes();
    assert!(bytes.len() <= MAX_PACKET);
    let Ok(Message::Refuse(read)) = Message::parse(&bytes) else { panic!("{refusal:?} is not understood") };
    assert_eq!((read.code, read.found, read.expected), (refusal.code, refusal.found, refusal.expected));
    assert!(refusal.text.starts_with(&read.text));
}

fn check_terms(theirs: &Terms) {
    assert!(theirs.layout == 2 && theirs.fingerprint == 77 && theirs.outbox_size <= MAX_OUTBOX);
    let limits = PAYLOADS.toward(theirs.payloads);
    assert!(is_extent_size(limits.extent_size) && limits.extent_size <= limits.arena_limit);
    assert!(limits.arena_limit <= 64 << 20 && (1..=1 << 30).contains(&limits.message_limit));
}

/// Handshakes that go well, each packet with what is said before it, and some that do not.
#[cfg(test)]
pub(crate) fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let say = |how: u8, message: &Message| {
        let bytes = message.to_bytes();
        [&[how, u8::try_from(bytes.len()).unwrap()], &bytes[..]].concat()
    };
    let hello_with = |how: u8, terms: Terms| say(how, &Message::Hello(terms));
    let hello = |terms: Terms| hello_with(2, terms);
    let ready = say(0, &Message::Ready { renderer_id: RENDERER_ID });
    let welcome =
        |granted| say(0x82, &Message::Welcome(Welcome { terms: terms(3), renderer_id: RENDERER_ID, granted }));
    let refuse = |how, text: &str| say(how, &Message::Refuse(Refusal::new(super::Code::Deadline, 1, 2, text)));
    vec![
        ("hello_ready", [hello(terms(3)), ready.clone()].concat()),
        ("hello_without_barriers", [hello(terms(0)), ready.clone()].concat()),
        ("ready_first", ready),
        ("hello_twice", [hello(terms(3)), hello(terms(3))].concat()),
        ("welcome", [welcome(0), welcome(3), welcome(4)].concat()),
        ("refuse", [refuse(0x80, "a \u{1b}[2Jtext"), refuse(0, "too late, \u{20ac}")].concat()),
        ("hello_without_descriptors", hello_with(0, terms(3))),
        ("hello_without_bell", hello_with(1, terms(3))),
        ("hello_cut_short", [hello_with(0x12, terms(3)), hello_with(0x22, terms(3))].concat()),
        ("welcome_without_bell", say(0x81, &Message::Welcome(Welcome { terms: terms(3), renderer_id: 1, granted: 0 }))),
        ("ready_with_a_descriptor", [hello(terms(3)), say(1, &Message::Ready { renderer_id: RENDERER_ID })].concat()),
        ("ready_of_another", [hello(terms(3)), say(0, &Message::Ready { renderer_id: 6 })].concat()),
        ("hello_of_another_layout", hello(Terms { layout: 3, ..terms(3) })),
        ("hello_of_small_extents", {
            hello(Terms { payloads: PayloadTerms { extent_size: 4096, ..PAYLOADS }, ..terms(3) })
        }),
    ]
}
