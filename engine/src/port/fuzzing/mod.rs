//! One connection whose peer is played by hand, through its outbox and its sockets.
#![allow(clippy::unwrap_used, reason = "these are tests")]
#![allow(clippy::expect_used, clippy::cast_possible_truncation, reason = "see above")]

mod frames;
mod outbox;
mod payload_memory;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

pub(crate) use frames::frames;
#[cfg(test)]
pub(crate) use frames::seeds as frame_seeds;
pub(crate) use outbox::outbox;
pub(crate) use payload_memory::payload_memory;

use super::inbox::{Buffers, Inbox};
use super::{Handler, Incoming, PortCore};
use crate::call::CallToken;
use crate::channels::{Announced, UnderWay};
use crate::config::{Config, WaitStrategy};
use crate::error::{Disconnect, Violation};
use crate::frame::ANNOUNCE;
use crate::link::Link;
use crate::outbox::fuzzing::Forged;
use crate::outbox::{OutboxRejected, PeerOutbox};
use crate::payload::Kept;
use crate::rendezvous::{Role, fuzzing};
use crate::sys::epoll::Readiness;
use crate::sys::socket;
use crate::watcher::Watched;

const EXTENT: usize = 64 << 10;
const ARENA: usize = 3 * EXTENT;
const MESSAGE_LIMIT: usize = EXTENT + 10_000;
const MAX_CHANNELS: u16 = 8;
const MAX_SCHEMA: usize = 200;

/// A dispatching thread's view of one connection, and all that the peer has of it.
struct Rig {
    core: Arc<PortCore>,
    link: Arc<Link>,
    inbox: Inbox,
    buffers: Buffers,
    heard: Recorder,
    peer: Forged,
    /// Our outbox as the peer sees it.
    ours: Arc<PeerOutbox>,
    socket: OwnedFd,
    _bells: [OwnedFd; 2],
}

/// What was delivered.
#[derive(Default)]
struct Recorder {
    announced: Vec<Vec<u8>>,
    messages: Vec<Message>,
    /// Whether payloads are kept.
    keeps: bool,
    numbers: Vec<u16>,
}

struct Message {
    channel: u16,
    call: Option<CallToken>,
    bytes: Vec<u8>,
    kept: Option<Kept>,
}

impl Handler for Recorder {
    fn connected(&mut self, _: &Arc<Link>) {}

    fn announced(&mut self, _: &Arc<Link>, channel: Announced<'_>) -> Result<(), Violation> {
        assert!(channel.channel < MAX_CHANNELS && !self.numbers.contains(&channel.channel));
        assert!([channel.message, channel.reply, channel.error].iter().all(|schema| schema.len() <= MAX_SCHEMA));
        self.numbers.push(channel.channel);
        let whole = UnderWay::begin(&channel).unwrap();
        self.announced.push(whole.piece(usize::MAX).unwrap().0.to_vec());
        Ok(())
    }

    fn message(&mut self, message: Incoming<'_>) {
        let Incoming { channel, call, bytes, .. } = message;
        assert!(self.numbers.contains(&channel), "channel {channel} was not announced");
        assert!(bytes.len() <= MESSAGE_LIMIT && bytes.as_ptr().addr().is_multiple_of(16));
        let kept = self.keeps.then(|| message.keep());
        self.messages.push(Message { channel, call, bytes: bytes.to_vec(), kept });
    }

    fn disconnected(&mut self, _: &Arc<Link>, _: &Disconnect) {}
}

impl Rig {
    fn new(role: Role) -> Self {
        Self::with_header(role, &[]).unwrap()
    }

    /// A connection to a peer whose outbox has these words in its header.
    fn with_header(role: Role, header: &[(u8, u64)]) -> Result<Self, OutboxRejected> {
        let config = Config {
            ring_capacity: 4096,
            reply_slots: 2,
            extent_size: EXTENT,
            arena_limit: ARENA,
            message_limit: MESSAGE_LIMIT,
            backlog_limit: 4096,
            arena_idle: std::time::Duration::MAX,
            max_channels: MAX_CHANNELS,
            max_schema: MAX_SCHEMA,
            wait: WaitStrategy::Park,
            ..Config::default()
        };
        let (peer, theirs) = Forged::create(header);
        let (own, ours) = Forged::own();
        let (admitted, socket, bells) = fuzzing::admitted(role, own, theirs?, config.payload_terms());
        let core = Arc::new(PortCore::new(role, config).unwrap());
        let link = Link::new(admitted, &core, &core.config);
        let inbox = Inbox::new(Arc::clone(&link), &core.config);
        let (buffers, heard) = (Buffers::new(), Recorder::default());
        Ok(Self { core, link, inbox, buffers, heard, peer, ours, socket, _bells: bells })
    }

    /// Reads what is there, as the dispatching thread does in one turn.
    fn drain(&mut self, most: usize) -> usize {
        let (broken, heard) = (self.is_broken(), self.heard.messages.len());
        let mut messages = 0;
        let trust = self.core.trust();
        let frames = self.inbox.drain(most, trust, &mut self.buffers, &mut messages, &mut self.heard);
        assert!(frames <= most && messages <= frames);
        assert!(self.heard.messages.len() - heard <= messages);
        assert!(!broken || frames == 0, "a peer that broke the protocol is still heard");
        frames
    }

    /// Has our side read all that was said on the socket.
    fn hear(&self) {
        self.link.ready(Readiness { token: 0, readable: true, hung_up: false });
    }

    fn is_broken(&self) -> bool {
        matches!(self.link.ended(), Some(Disconnect::Violation(_)))
    }

    /// Announces a channel as an honest peer does.
    fn announce(&mut self, channel: u16) {
        let announced = Announced { channel, name: "fuzz", message: b"bytes", reply: b"bytes", error: b"" };
        let whole = UnderWay::begin(&announced).unwrap();
        self.peer.publish(channel, ANNOUNCE, 0, whole.piece(usize::MAX).unwrap().0);
    }

    fn say(&self, packet: &[u8], descriptors: &[BorrowedFd<'_>]) {
        // The socket may be full, or closed at the other end.
        let _ = socket::send(self.socket.as_fd(), packet, descriptors);
    }
}
