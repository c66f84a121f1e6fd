//! The two sides of a handshake as state machines: packets go in, what to do comes out. No I/O, no clock.
//!
//! ```text
//! renderer                                   main
//!    | --- Hello, its outbox and bell ---------> |  AwaitHello
//!    |                                           |  checks the terms, the outbox, the bell; makes its own
//!    | <-- Welcome, main's outbox and bell ----- |  AwaitReady
//!    |  checks the terms, the outbox, the bell   |
//!    | --- Ready ------------------------------> |  Done
//! ```
//! Either side may send Refuse instead of its next packet, and close.

use std::time::{Duration, Instant};

use super::message::{DESCRIPTORS, MAX_PACKET, Malformed, Message, PROTOCOL_VERSION};
use super::message::{Refusal, RefusalCode, Terms, Welcome, capability, grant};
use crate::sys::barrier::Barrier;
use crate::sys::socket::Cut;

/// One received packet, as far as its meaning goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Packet<'a> {
    pub(super) bytes: &'a [u8],
    /// How many descriptors came with it.
    pub(super) descriptors: usize,
    pub(super) cut: Cut,
}

/// How the two sides order their stores and loads when they sleep and wake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Barriers {
    /// When the renderer sleeps and main wakes it.
    pub(super) renderer_sleeps: Barrier,
    /// When main sleeps and the renderer wakes it.
    pub(super) main_sleeps: Barrier,
}

impl Barriers {
    /// A sleeper gets the asymmetric kind if it asked for it and its waker is within a heavy barrier's reach.
    fn choose(main: &Terms, renderer: &Terms) -> Self {
        let kind = |sleeper: &Terms, waker: &Terms| {
            let asked = sleeper.capabilities & capability::ASYMMETRIC_SLEEP != 0;
            let reached = waker.capabilities & capability::REGISTERED != 0;
            if asked && reached { Barrier::Asymmetric } else { Barrier::Fence }
        };
        Self { renderer_sleeps: kind(renderer, main), main_sleeps: kind(main, renderer) }
    }

    fn granted(self) -> u32 {
        let bit = |barrier, bit| if barrier == Barrier::Asymmetric { bit } else { 0 };
        bit(self.renderer_sleeps, grant::RENDERER_SLEEPS_ASYMMETRICALLY)
            | bit(self.main_sleeps, grant::MAIN_SLEEPS_ASYMMETRICALLY)
    }
}

/// What a side does about a packet.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step<T> {
    /// The packet was good.
    Next(T),
    /// Send this and close.
    Refuse(Refusal),
    /// The peer refused: close.
    Refused(Refusal),
}

/// A renderer's Hello, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FromRenderer {
    /// Check the outbox and the bell that came with it, then send [`MainSide::welcome`].
    Hello(Terms),
    /// The connection is established.
    Ready,
}

/// Main's side of one handshake.
#[derive(Debug)]
pub(super) struct MainSide {
    terms: Terms,
    max_peer_outbox: u64,
    opened: Instant,
    patience: Duration,
    /// When the renderer last did what it should.
    progress: Instant,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    AwaitHello,
    Welcoming(Terms),
    AwaitReady { renderer_id: u64 },
    Over,
}

impl MainSide {
    pub(super) fn new(terms: Terms, max_peer_outbox: u64, now: Instant, patience: Duration) -> Self {
        Self { terms, max_peer_outbox, opened: now, patience, progress: now, stage: Stage::AwaitHello }
    }

    /// When the renderer is dropped if it is not ready by then.
    pub(super) fn deadline(&self) -> Instant {
        self.opened + self.patience
    }

    /// From when on this handshake gives way to another renderer that waits for a place.
    pub(super) fn gives_way_from(&self) -> Instant {
        self.progress + self.patience / 4
    }

    /// What to tell a renderer whose time is over.
    pub(super) fn expired(&self, now: Instant) -> Refusal {
        let waiting_for = if self.stage == Stage::AwaitHello { "Hello" } else { "Ready" };
        let (took, patience) = (millis(now.saturating_duration_since(self.opened)), millis(self.patience));
        let text =
            format!("no {waiting_for} came within {took} ms, {patience} ms being allowed; is the renderer stopped?");
        Refusal::new(RefusalCode::Deadline, took, patience, text)
    }

    pub(super) fn receive(&mut self, packet: &Packet<'_>, now: Instant) -> Step<FromRenderer> {
        let step = self.judge(packet);
        self.stage = match (&step, self.stage) {
            (Step::Next(FromRenderer::Hello(terms)), _) => Stage::Welcoming(*terms),
            _ => Stage::Over,
        };
        self.progress = now;
        step
    }

    fn judge(&self, packet: &Packet<'_>) -> Step<FromRenderer> {
        let descriptors = if self.stage == Stage::AwaitHello { DESCRIPTORS } else { 0 };
        let message = match open(packet, descriptors) {
            Step::Next(message) => message,
            Step::Refuse(refusal) => return Step::Refuse(refusal),
            Step::Refused(refusal) => return Step::Refused(refusal),
        };
        match (self.stage, message) {
            (Stage::AwaitHello, Message::Hello(renderer)) => {
                match check(&self.terms, &renderer, self.max_peer_outbox) {
                    Ok(()) => Step::Next(FromRenderer::Hello(renderer)),
                    Err(refusal) => Step::Refuse(refusal),
                }
            }
            (Stage::AwaitReady { renderer_id }, Message::Ready { renderer_id: found }) => {
                if found == renderer_id {
                    Step::Next(FromRenderer::Ready)
                } else {
                    let text = format!("Ready names renderer {found}, expected {renderer_id}");
                    Step::Refuse(Refusal::new(RefusalCode::BadMessage, found, renderer_id, text))
                }
            }
            (stage, message) => {
                let expected = if stage == Stage::AwaitHello { "Hello" } else { "Ready" };
                Step::Refuse(unexpected(&message, expected))
            }
        }
    }

    /// The answer to the Hello that came last, and the barriers that it grants.
    pub(super) fn welcome(&mut self, renderer_id: u64) -> Option<(Message, Barriers)> {
        let Stage::Welcoming(renderer) = self.stage else { return None };
        self.stage = Stage::AwaitReady { renderer_id };
        let barriers = Barriers::choose(&self.terms, &renderer);
        let welcome = Welcome { terms: self.terms, renderer_id, granted: barriers.granted() };
        Some((Message::Welcome(welcome), barriers))
    }
}

/// A Welcome, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Welcomed {
    pub(super) main: Terms,
    pub(super) renderer_id: u64,
    pub(super) barriers: Barriers,
}

/// A renderer's side of a handshake.
#[derive(Debug)]
pub(super) struct RendererSide {
    terms: Terms,
    max_peer_outbox: u64,
}

impl RendererSide {
    pub(super) fn new(terms: Terms, max_peer_outbox: u64) -> Self {
        Self { terms, max_peer_outbox }
    }

    /// The first packet; the renderer's outbox and bell go with it.
    pub(super) fn hello(&self) -> Message {
        Message::Hello(self.terms)
    }

    /// Main's answer. After the outbox and the bell that came with it were checked, Ready is due.
    pub(super) fn receive(&self, packet: &Packet<'_>) -> Step<Welcomed> {
        let welcome = match open(packet, DESCRIPTORS) {
            Step::Next(Message::Welcome(welcome)) => welcome,
            Step::Next(message) => return Step::Refuse(unexpected(&message, "Welcome")),
            Step::Refuse(refusal) => return Step::Refuse(refusal),
            Step::Refused(refusal) => return Step::Refused(refusal),
        };
        if let Err(refusal) = check(&self.terms, &welcome.terms, self.max_peer_outbox) {
            return Step::Refuse(refusal);
        }
        // Main may grant less than could be, as fences always work, but not more.
        let possible = Barriers::choose(&welcome.terms, &self.terms).granted();
        if welcome.granted & !possible != 0 {
            let text = format!("main grants the barriers {:#x}, possible are {possible:#x}", welcome.granted);
            return Step::Refuse(Refusal::new(RefusalCode::BadMessage, welcome.granted.into(), possible.into(), text));
        }
        let kind = |bit| if welcome.granted & bit != 0 { Barrier::Asymmetric } else { Barrier::Fence };
        let barriers = Barriers {
            renderer_sleeps: kind(grant::RENDERER_SLEEPS_ASYMMETRICALLY),
            main_sleeps: kind(grant::MAIN_SLEEPS_ASYMMETRICALLY),
        };
        Step::Next(Welcomed { main: welcome.terms, renderer_id: welcome.renderer_id, barriers })
    }
}

/// Parses a packet and checks what every packet must keep. The version comes first: a peer of another one may
/// send more bytes and other descriptors.
fn open(packet: &Packet<'_>, descriptors: usize) -> Step<Message> {
    let bad = |found: usize, expected: usize, text: String| {
        let number = |n: usize| n.try_into().unwrap_or(u64::MAX);
        Step::Refuse(Refusal::new(RefusalCode::BadMessage, number(found), number(expected), text))
    };
    let parsed = Message::parse(packet.bytes);
    if let Err(Malformed::Version { found }) = parsed {
        let error = Malformed::Version { found };
        return Step::Refuse(Refusal::new(RefusalCode::Version, found.into(), PROTOCOL_VERSION.into(), error));
    }
    if packet.cut.bytes {
        let text = format!("a packet of more than {MAX_PACKET} bytes");
        return bad(packet.bytes.len(), MAX_PACKET, text);
    }
    match parsed {
        Err(malformed) => bad(packet.bytes.len(), 0, malformed.to_string()),
        Ok(Message::Refuse(refusal)) => Step::Refused(refusal),
        // There is room for all that the kernel lets a packet carry.
        Ok(_) if packet.cut.descriptors => Step::Refuse(Refusal::new(
            RefusalCode::NoResources,
            0,
            0,
            "a descriptor that was passed could not be received; raise the receiver's limit on open files (ulimit -n)",
        )),
        Ok(_) if packet.descriptors != descriptors => bad(
            packet.descriptors,
            descriptors,
            format!("{} descriptors came, expected {descriptors}", packet.descriptors),
        ),
        Ok(message) => Step::Next(message),
    }
}

/// Whether our terms and the peer's go together.
fn check(ours: &Terms, theirs: &Terms, max_peer_outbox: u64) -> Result<(), Refusal> {
    if theirs.layout != ours.layout {
        let text = format!(
            "the peer lays its outbox out in version {}, expected {}; use the same version of memit on both sides",
            theirs.layout, ours.layout
        );
        return Err(Refusal::new(RefusalCode::Layout, theirs.layout.into(), ours.layout.into(), text));
    }
    if theirs.fingerprint != ours.fingerprint {
        let text = format!(
            "the peer's payload format has the fingerprint {:#018x}, expected {:#018x}; build both sides with the same memit and rkyv",
            theirs.fingerprint, ours.fingerprint
        );
        return Err(Refusal::new(RefusalCode::Format, theirs.fingerprint, ours.fingerprint, text));
    }
    if theirs.outbox_size > max_peer_outbox {
        let text = format!(
            "the peer's outbox has {} bytes, at most {max_peer_outbox} are accepted; lower its ring_capacity or raise max_peer_outbox",
            theirs.outbox_size
        );
        return Err(Refusal::new(RefusalCode::BadOutbox, theirs.outbox_size, max_peer_outbox, text));
    }
    theirs.payloads.check()
}

fn unexpected(message: &Message, expected: &str) -> Refusal {
    let found = match message {
        Message::Hello(_) => "Hello",
        Message::Welcome(_) => "Welcome",
        Message::Ready { .. } => "Ready",
        Message::Refuse(_) => "Refuse",
    };
    Refusal::new(RefusalCode::BadMessage, 0, 0, format!("{found} came, expected {expected}"))
}

fn millis(duration: Duration) -> u64 {
    duration.as_millis().try_into().unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::payloads::PayloadTerms;
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(4);
    const MAX_OUTBOX: u64 = 1 << 20;
    const PAYLOADS: PayloadTerms =
        PayloadTerms { extent_size: 4 << 20, arena_limit: 64 << 20, message_limit: 1 << 30, sealed_from: 4 << 20 };

    /// Ways to say what no peer may say of payloads; the number that shows it, and what was expected instead.
    const BAD_PAYLOADS: [(PayloadTerms, u64, u64); 4] = [
        (PayloadTerms { extent_size: 4096, ..PAYLOADS }, 4096, 64 << 10),
        (PayloadTerms { extent_size: (4 << 20) + 1, ..PAYLOADS }, (4 << 20) + 1, 64 << 10),
        (PayloadTerms { arena_limit: 1 << 20, ..PAYLOADS }, 1 << 20, 4 << 20),
        (PayloadTerms { message_limit: 0, ..PAYLOADS }, 0, 1),
    ];

    fn terms(capabilities: u32, endpoint: u64) -> Terms {
        Terms {
            layout: 2,
            capabilities,
            fingerprint: 77,
            endpoint,
            outbox_size: 1 << 19,
            ring_capacity: 1 << 18,
            slot_count: 8,
            payloads: PAYLOADS,
        }
    }

    fn main_side(now: Instant) -> MainSide {
        MainSide::new(terms(0, 1), MAX_OUTBOX, now, PATIENCE)
    }

    fn renderer_side() -> RendererSide {
        RendererSide::new(terms(0, 2), MAX_OUTBOX)
    }

    fn packet(bytes: &[u8], descriptors: usize) -> Packet<'_> {
        Packet { bytes, descriptors, cut: Cut::default() }
    }

    fn refused_by_main(bytes: &[u8], descriptors: usize) -> Refusal {
        let now = Instant::now();
        let mut main = main_side(now);
        let Step::Refuse(refusal) = main.receive(&packet(bytes, descriptors), now) else { panic!("not refused") };
        // Whatever comes after it is refused too.
        assert!(!matches!(main.receive(&packet(&renderer_side().hello().to_bytes(), 2), now), Step::Next(_)));
        assert!(main.welcome(1).is_none());
        refusal
    }

    fn welcome(change: impl FnOnce(&mut Welcome)) -> Vec<u8> {
        let mut welcome = Welcome { terms: terms(0, 1), renderer_id: 5, granted: 0 };
        change(&mut welcome);
        Message::Welcome(welcome).to_bytes()
    }

    fn refused_by_renderer(bytes: &[u8], descriptors: usize) -> Refusal {
        let Step::Refuse(refusal) = renderer_side().receive(&packet(bytes, descriptors)) else { panic!("not refused") };
        refusal
    }

    #[test]
    fn a_handshake_of_three_packets_establishes_a_connection() {
        let now = Instant::now();
        let (mut main, renderer) = (main_side(now), renderer_side());
        let hello = renderer.hello().to_bytes();
        let Step::Next(FromRenderer::Hello(theirs)) = main.receive(&packet(&hello, 2), now) else { panic!() };
        assert_eq!(theirs, terms(0, 2));
        let (welcome, of_main) = main.welcome(5).unwrap();
        let Step::Next(welcomed) = renderer.receive(&packet(&welcome.to_bytes(), 2)) else { panic!() };
        assert_eq!(welcomed, Welcomed { main: terms(0, 1), renderer_id: 5, barriers: of_main });
        let ready = Message::Ready { renderer_id: 5 }.to_bytes();
        assert_eq!(main.receive(&packet(&ready, 0), now), Step::Next(FromRenderer::Ready));
    }

    #[test]
    fn a_sleeper_gets_the_asymmetric_barrier_if_it_asks_and_its_waker_is_registered() {
        use capability::{ASYMMETRIC_SLEEP, REGISTERED};
        let both = REGISTERED | ASYMMETRIC_SLEEP;
        let (yes, no) = (Barrier::Asymmetric, Barrier::Fence);
        // (main, renderer) -> (main sleeps, renderer sleeps)
        let cases = [
            (0, 0, no, no),
            (both, both, yes, yes),
            (both, 0, no, no),
            (0, both, no, no),
            (both, REGISTERED, yes, no),
            (REGISTERED, both, no, yes),
            (ASYMMETRIC_SLEEP, REGISTERED, yes, no),
            (ASYMMETRIC_SLEEP, ASYMMETRIC_SLEEP, no, no),
        ];
        for (of_main, of_renderer, main_sleeps, renderer_sleeps) in cases {
            let now = Instant::now();
            let mut main = MainSide::new(terms(of_main, 1), MAX_OUTBOX, now, PATIENCE);
            let renderer = RendererSide::new(terms(of_renderer, 2), MAX_OUTBOX);
            main.receive(&packet(&renderer.hello().to_bytes(), 2), now);
            let (welcome, barriers) = main.welcome(1).unwrap();
            assert_eq!(barriers, Barriers { renderer_sleeps, main_sleeps }, "{of_main} {of_renderer}");
            let Step::Next(welcomed) = renderer.receive(&packet(&welcome.to_bytes(), 2)) else { panic!() };
            assert_eq!(welcomed.barriers, barriers);
        }
    }

    #[test]
    fn main_refuses_another_version_whatever_else_is_wrong() {
        let mut hello = renderer_side().hello().to_bytes();
        hello[8..12].copy_from_slice(&9_u32.to_le_bytes());
        hello.extend([0; 100]);
        for descriptors in [0, 2, 3] {
            let refusal = refused_by_main(&hello, descriptors);
            assert_eq!((refusal.code, refusal.found, refusal.expected), (RefusalCode::Version, 9, 4));
        }
        let now = Instant::now();
        let cut = Packet { bytes: &hello, descriptors: 2, cut: Cut { bytes: true, descriptors: true } };
        let Step::Refuse(refusal) = main_side(now).receive(&cut, now) else { panic!() };
        assert_eq!(refusal.code, RefusalCode::Version);
    }

    #[test]
    fn main_refuses_a_hello_whose_terms_do_not_go_with_its_own() {
        let hello = |change: fn(&mut Terms)| {
            let mut terms = terms(0, 2);
            change(&mut terms);
            Message::Hello(terms).to_bytes()
        };
        let layout = refused_by_main(&hello(|terms| terms.layout = 1), 2);
        assert_eq!((layout.code, layout.found, layout.expected), (RefusalCode::Layout, 1, 2));
        let format = refused_by_main(&hello(|terms| terms.fingerprint = 78), 2);
        assert_eq!((format.code, format.found, format.expected), (RefusalCode::Format, 78, 77));
        let size = refused_by_main(&hello(|terms| terms.outbox_size = MAX_OUTBOX + 1), 2);
        assert_eq!((size.code, size.found, size.expected), (RefusalCode::BadOutbox, MAX_OUTBOX + 1, MAX_OUTBOX));
    }

    #[test]
    fn each_side_refuses_terms_for_payloads_that_cannot_be() {
        for (payloads, found, expected) in BAD_PAYLOADS {
            let hello = Message::Hello(Terms { payloads, ..terms(0, 2) }).to_bytes();
            let welcome = welcome(|welcome| welcome.terms.payloads = payloads);
            for refusal in [refused_by_main(&hello, 2), refused_by_renderer(&welcome, 2)] {
                let numbers = (refusal.code, refusal.found, refusal.expected);
                assert_eq!(numbers, (RefusalCode::BadMessage, found, expected), "{refusal}");
            }
        }
    }

    #[test]
    fn main_refuses_a_hello_with_the_wrong_descriptors() {
        let hello = renderer_side().hello().to_bytes();
        for descriptors in [0, 1, 3] {
            let refusal = refused_by_main(&hello, descriptors);
            assert_eq!(
                (refusal.code, refusal.found, refusal.expected),
                (RefusalCode::BadMessage, descriptors as u64, 2)
            );
        }
        let now = Instant::now();
        let cut = Packet { bytes: &hello, descriptors: 2, cut: Cut { bytes: false, descriptors: true } };
        let Step::Refuse(refusal) = main_side(now).receive(&cut, now) else { panic!() };
        assert_eq!(refusal.code, RefusalCode::NoResources, "whoever receives lacks descriptors");
    }

    #[test]
    fn main_refuses_what_is_not_the_packet_it_waits_for() {
        let hello = renderer_side().hello().to_bytes();
        let ready = Message::Ready { renderer_id: 5 }.to_bytes();
        for (bytes, descriptors) in [
            (&b"GET / HTTP/1.1"[..], 0),
            (&[0; 96], 2),
            (&hello[..95], 2),
            // As much as the former version says.
            (&hello[..64], 2),
            (&[&hello[..], &[0]].concat(), 2),
            (&ready, 0),
            (&ready, 2),
            (&welcome(|_| {}), 2),
        ] {
            assert_eq!(refused_by_main(bytes, descriptors).code, RefusalCode::BadMessage);
        }

        for (bytes, descriptors) in [
            (&hello, 0),
            (&hello, 2),
            (&Message::Ready { renderer_id: 6 }.to_bytes(), 0),
            (&ready, 1),
            (&vec![7; 24], 0),
        ] {
            let now = Instant::now();
            let mut main = main_side(now);
            main.receive(&packet(&hello, 2), now);
            main.welcome(5).unwrap();
            let Step::Refuse(refusal) = main.receive(&packet(bytes, descriptors), now) else { panic!() };
            assert_eq!(refusal.code, RefusalCode::BadMessage);
        }
    }

    #[test]
    fn main_takes_a_refusal_at_either_stage() {
        let now = Instant::now();
        let refusal = Refusal { protocol: 4, ..Refusal::new(RefusalCode::Version, 1, 4, "no") };
        let bytes = Message::Refuse(refusal.clone()).to_bytes();
        assert_eq!(main_side(now).receive(&packet(&bytes, 0), now), Step::Refused(refusal.clone()));
        let mut main = main_side(now);
        main.receive(&packet(&renderer_side().hello().to_bytes(), 2), now);
        main.welcome(5).unwrap();
        assert_eq!(main.receive(&packet(&bytes, 0), now), Step::Refused(refusal));
    }

    #[test]
    fn a_renderer_refuses_another_version_and_terms_that_do_not_go_with_its_own() {
        let mut other = welcome(|_| {});
        other[8] = 1;
        let version = refused_by_renderer(&other, 0);
        assert_eq!((version.code, version.found, version.expected), (RefusalCode::Version, 1, 4));
        let layout = refused_by_renderer(&welcome(|w| w.terms.layout = 3), 2);
        assert_eq!((layout.code, layout.found, layout.expected), (RefusalCode::Layout, 3, 2));
        let format = refused_by_renderer(&welcome(|w| w.terms.fingerprint = 1), 2);
        assert_eq!((format.code, format.found, format.expected), (RefusalCode::Format, 1, 77));
        let size = refused_by_renderer(&welcome(|w| w.terms.outbox_size = u64::MAX), 2);
        assert_eq!((size.code, size.found), (RefusalCode::BadOutbox, u64::MAX));
    }

    #[test]
    fn a_renderer_refuses_what_is_not_a_welcome() {
        let good = welcome(|_| {});
        for (bytes, descriptors) in [
            (&good[..], 0),
            (&good, 1),
            (&good, 3),
            (&good[..111], 2),
            (&welcome(|w| w.granted = 1), 2),
            (&welcome(|w| w.granted = 4), 2),
            (&renderer_side().hello().to_bytes(), 2),
            (b"nonsense", 2),
        ] {
            assert_eq!(refused_by_renderer(bytes, descriptors).code, RefusalCode::BadMessage);
        }
    }

    #[test]
    fn a_renderer_accepts_fewer_asymmetric_barriers_than_could_be() {
        let both = capability::REGISTERED | capability::ASYMMETRIC_SLEEP;
        let renderer = RendererSide::new(terms(both, 2), MAX_OUTBOX);
        let bytes = welcome(|w| w.terms.capabilities = both);
        let Step::Next(welcomed) = renderer.receive(&packet(&bytes, 2)) else { panic!() };
        let fences = Barriers { renderer_sleeps: Barrier::Fence, main_sleeps: Barrier::Fence };
        assert_eq!(welcomed.barriers, fences);
    }

    #[test]
    fn the_deadline_stands_and_progress_delays_giving_way() {
        let start = Instant::now();
        let mut main = main_side(start);
        assert_eq!(main.deadline(), start + PATIENCE);
        assert_eq!(main.gives_way_from(), start + PATIENCE / 4);
        let refusal = main.expired(start + PATIENCE);
        assert_eq!((refusal.code, refusal.found, refusal.expected), (RefusalCode::Deadline, 4000, 4000));
        assert!(refusal.text.starts_with("no Hello came"), "{}", refusal.text);

        let later = start + Duration::from_millis(100);
        main.receive(&packet(&renderer_side().hello().to_bytes(), 2), later);
        main.welcome(1).unwrap();
        assert_eq!(main.deadline(), start + PATIENCE);
        assert_eq!(main.gives_way_from(), later + PATIENCE / 4);
        assert!(main.expired(start + PATIENCE).text.starts_with("no Ready came"));
    }
}
