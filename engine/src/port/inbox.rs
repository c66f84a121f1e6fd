//! One peer as the dispatching thread sees it: the ring that it reads.

use std::sync::Arc;

use memit_ringbuf::{Consumer, Frame, Header, MappedRing, Polled, RingRead, reached};

use crate::call::{CallHeader, CallId, CallToken};
use crate::channels::IncomingChannels;
use crate::config::{Config, FullTrust, Trust};
use crate::error::{Disconnect, Violation};
use crate::frame::{ABANDON, ANNOUNCE, CALL, MESSAGE, MORE, PLACE, RETIRE};
use crate::link::{Blocked, Link};
use crate::outbox::{OwnHead, PeerOutbox};
use crate::payload::inbound::Held;
use crate::payload::kept::{Kept, Origin};
use crate::payload::location::{INLINE, Location};
use crate::payload::private::PrivateBuffer;
use crate::port::{Handler, Incoming};

/// What lies outside of the ring of one peer per turn, so that none holds up the others. More comes with the last
/// frame.
const TURN_BYTES: usize = 4 << 20;

type PeerRing = MappedRing<Arc<PeerOutbox>>;

/// The reading end of one connection.
pub(crate) struct Inbox {
    pub(crate) link: Arc<Link>,
    consumer: Consumer<PeerRing, OwnHead>,
    published: u64,
    /// After the peer's end: up to where its ring is still read. It had published no more than a ring holds.
    last: Option<u64>,
    /// The peer broke the protocol, so that nothing more is read.
    broken: bool,
    channels: IncomingChannels,
    /// Whether it is polled every turn; else its bell is armed.
    pub(crate) hot: bool,
    /// What its backlog waited for when its bell was armed.
    pub(crate) blocked: Blocked,
    /// How many looks at the bells it has seen without a frame.
    pub(crate) quiet: u32,
}

/// Where payloads are copied to. They are used again for each message, unless somebody keeps what is in them.
#[derive(Debug)]
pub(crate) struct Buffers {
    /// For frames, and for the blocks that are much larger.
    frame: PrivateBuffer,
    block: PrivateBuffer,
}

impl Buffers {
    pub(crate) fn new() -> Self {
        Self { frame: PrivateBuffer::new(), block: PrivateBuffer::new() }
    }
}

/// Gives a frame back even when a listener panics over it.
struct Release<'a>(Option<Frame<'a, PeerRing, OwnHead>>);

impl Drop for Release<'_> {
    fn drop(&mut self) {
        if let Some(frame) = self.0.take() {
            frame.release();
        }
    }
}

impl Inbox {
    pub(crate) fn new(link: Arc<Link>, config: &Config) -> Self {
        let peer = link.peer();
        let consumer = Consumer::new(peer.ring(), OwnHead::new(Arc::clone(link.own())), peer.key());
        Self {
            consumer,
            published: 0,
            last: None,
            broken: false,
            channels: IncomingChannels::new(config.max_channels, config.max_schema),
            link,
            hot: true,
            blocked: Blocked::default(),
            quiet: 0,
        }
    }

    /// Whether a frame is there. Reads one word.
    #[inline(always)]
    pub(crate) fn is_ready(&self) -> bool {
        self.consumer.is_ready()
    }

    /// Hands what is in at most `most` frames to `handler`; how many there were. Those that were messages are added to
    /// `messages`. As much padding as one look passes counts as a frame: what lies behind is yet to be looked at.
    #[inline]
    pub(crate) fn drain<H: Handler>(
        &mut self,
        most: usize,
        trust: &Trust,
        buffers: &mut Buffers,
        messages: &mut usize,
        handler: &mut H,
    ) -> usize {
        let (mut frames, mut bytes) = (0, 0);
        while frames < most && bytes < TURN_BYTES && (self.link.is_usable() || self.may_go_on()) {
            let frame = match self.consumer.poll() {
                Ok(Polled::Frame(frame)) => frame,
                Ok(Polled::Padding) => {
                    frames += 1;
                    self.head_moved(false);
                    continue;
                }
                Ok(Polled::Empty) => {
                    if !self.link.is_usable() && self.skip_gap() {
                        continue;
                    }
                    self.idle();
                    break;
                }
                Err(corrupt) => {
                    self.break_off(Disconnect::violation(corrupt));
                    break;
                }
            };
            frames += 1;
            let header = frame.header();
            *messages += usize::from(matches!(header.kind, MESSAGE | CALL));
            let outcome = match trust {
                Trust::Full(promise) if is_read_in_place(header) => {
                    // Padding before the frame may be published already, and a call from the listener publishes this.
                    self.link.note_consumed(frame.position());
                    let release = Release(Some(frame));
                    let outcome = match &release.0 {
                        Some(frame) => {
                            let bytes = view_trusted(promise, frame);
                            Arrival { link: &self.link, channels: &mut self.channels, trust, header }
                                .deliver_in_place(bytes, handler)
                        }
                        None => Ok(0),
                    };
                    if self.link.is_forked() {
                        // Giving the frame back would touch memory that this process does not have.
                        std::mem::forget(release);
                        return frames;
                    }
                    drop(release);
                    self.head_moved(false);
                    outcome
                }
                _ => {
                    buffers.frame.fill(frame.len(), |to| frame.copy_to(to));
                    crash_point!("frame-copied");
                    frame.release();
                    crash_point!("frame-released");
                    self.head_moved(false);
                    Arrival { link: &self.link, channels: &mut self.channels, trust, header }.deliver(buffers, handler)
                }
            };
            if self.link.is_forked() {
                return frames;
            }
            if self.link.take_published() {
                // The consumer learns that the peer knows of its head.
                self.pause();
            }
            match outcome {
                Ok(taken) => bytes += taken,
                Err(reason) => {
                    self.break_off(reason);
                    break;
                }
            }
        }
        frames
    }

    /// Whether frames are still handed out though the connection has ended: what the peer had published before its
    /// end is, but not what one writes that only pretends to have ended.
    #[cold]
    fn may_go_on(&mut self) -> bool {
        if self.link.is_forked() || self.broken {
            return false;
        }
        match self.link.ended() {
            None => true,
            Some(Disconnect::Violation(_) | Disconnect::ShutDown) => false,
            Some(_) => {
                let head = self.consumer.head();
                let ring = self.consumer.memory().capacity().get() as u64;
                !reached(head, *self.last.get_or_insert(head.wrapping_add(ring)))
            }
        }
    }

    /// What other threads of the peer published behind a claim that its end left open is published, too.
    #[cold]
    fn skip_gap(&mut self) -> bool {
        self.may_go_on() && self.consumer.skip_gap()
    }

    #[cold]
    fn break_off(&mut self, reason: Disconnect) {
        self.broken = true;
        self.link.disconnect(reason);
    }

    /// Nothing is left: everything that was consumed is given back, and whoever waits for it is told.
    #[inline(always)]
    fn idle(&mut self) {
        self.consumer.publish_head();
        self.head_moved(true);
    }

    /// The head has moved, and may have been published. Wakes the peer's producers that sleep for space, if it is far
    /// enough for them or, when `idle`, in any case: nothing is left that would move it further.
    #[inline(always)]
    fn head_moved(&mut self, idle: bool) {
        self.link.note_consumed(self.consumer.head());
        // The consumer publishes by itself now and then, also over padding.
        let published = self.consumer.published_head();
        if published != self.published {
            self.published = published;
            self.link.light_barrier();
        }
        if let Some(armed) = self.link.space_armed() {
            self.wake_producers(armed, idle);
        }
    }

    #[cold]
    fn wake_producers(&mut self, armed: u64, idle: bool) {
        if idle || self.link.satisfies_space(self.consumer.head()) {
            self.consumer.publish_head();
            self.published = self.consumer.head();
            self.link.ring_space(armed);
        }
    }

    /// Tells the peer how far it was read, though more is there: the thread is about to do something else.
    pub(crate) fn pause(&mut self) {
        if self.consumer.publish_head() {
            self.head_moved(false);
        }
    }
}

/// The payload where it lies. The promise is that of [`Trust::full`].
#[allow(unsafe_code)]
fn view_trusted<'a>(_promise: &FullTrust, frame: &'a Frame<'_, PeerRing, OwnHead>) -> &'a [u8] {
    // SAFETY: a `FullTrust` exists only because the caller of `Trust::full` promised that every peer keeps the
    // protocol, so the payload does not change before the frame is released; releasing it ends the returned borrow.
    unsafe { frame.view() }
}

/// Whether a trusted peer's frame is a message that lies in it.
#[inline(always)]
fn is_read_in_place(header: Header) -> bool {
    matches!(header.kind, MESSAGE | CALL) && header.flags & PLACE == INLINE
}

/// A frame, on its way to the handler.
struct Arrival<'a> {
    link: &'a Arc<Link>,
    channels: &'a mut IncomingChannels,
    trust: &'a Trust,
    header: Header,
}

impl Arrival<'_> {
    /// A message whose frame is read where it lies.
    #[inline]
    fn deliver_in_place<H: Handler>(self, bytes: &[u8], handler: &mut H) -> Result<usize, Disconnect> {
        if self.is_plain() {
            return self.hand_over(None, &Origin::Frame(bytes), handler);
        }
        let (call, start) = self.open(bytes)?;
        self.hand_over(call, &Origin::Frame(&bytes[start..]), handler)
    }

    /// A frame that was copied to the buffer for frames. How many bytes there were outside of the ring.
    #[inline]
    fn deliver<H: Handler>(mut self, buffers: &mut Buffers, handler: &mut H) -> Result<usize, Disconnect> {
        if self.is_plain() {
            return self.hand_over(None, &Origin::Private { buffer: &buffers.frame, start: 0 }, handler);
        }
        match self.header.kind {
            MESSAGE | CALL => {}
            ANNOUNCE => return self.announce(buffers.frame.as_slice(), handler).map(|()| 0),
            RETIRE => return self.link.retire(number(buffers.frame.as_slice())?).map(|()| 0),
            ABANDON => return self.abandon(buffers.frame.as_slice()).map(|()| 0),
            unknown => return Err(Disconnect::violation(format_args!("a frame has the unknown kind {unknown}"))),
        }
        let (call, start) = self.open(buffers.frame.as_slice())?;
        if self.header.flags & PLACE == INLINE {
            return self.hand_over(call, &Origin::Private { buffer: &buffers.frame, start }, handler);
        }
        let origin = self.take_in(buffers, start)?;
        let taken = origin.bytes().len();
        self.hand_over(call, &origin, handler).map(|_| taken)
    }

    /// Whether it is a message in its frame, which begins with the payload, as most are: nothing else has to be looked
    /// at.
    #[inline(always)]
    fn is_plain(&self) -> bool {
        let Header { kind, flags, channel } = self.header;
        kind == MESSAGE && flags == INLINE && self.channels.contains(channel)
    }

    /// Looks at what stands before the payload: a call's header. Where the payload begins.
    fn open(&self, bytes: &[u8]) -> Result<(Option<CallToken>, usize), Disconnect> {
        let Header { kind, flags, channel } = self.header;
        if flags & !PLACE != 0 {
            return Err(Disconnect::violation(format_args!("a frame of kind {kind} has the unknown flags {flags:#x}")));
        }
        if !self.channels.contains(channel) {
            return Err(Disconnect::violation(format_args!(
                "a frame came on channel number {channel}, which was not announced"
            )));
        }
        if kind != CALL {
            return Ok((None, 0));
        }
        let (header, _) = CallHeader::split(bytes).ok_or_else(|| {
            Disconnect::violation(format_args!(
                "a call frame has {} bytes, its header alone has {}",
                bytes.len(),
                CallHeader::LEN
            ))
        })?;
        if !self.link.answers().take(header.id) {
            return Err(no_slot(header.id));
        }
        crash_point!("call-taken");
        Ok((Some(CallToken::new(header)), CallHeader::LEN))
    }

    /// Finds a payload that lies elsewhere. It is read there if it cannot change any more, and copied else.
    #[cold]
    fn take_in<'b>(&self, buffers: &'b mut Buffers, start: usize) -> Result<Origin<'b>, Disconnect> {
        let location = Location::parse(self.header.flags & PLACE, &buffers.frame.as_slice()[start..])
            .map_err(Disconnect::violation)?;
        let block = match self.link.take_in(location)? {
            Held::Sealed(sealed) => return Ok(Origin::Elsewhere(Kept::sealed(sealed))),
            Held::Block(block) => block,
        };
        crash_point!("block-found");
        if let Trust::Full(promise) = self.trust {
            return Ok(Origin::Elsewhere(Kept::trusted(promise, block)));
        }
        buffers.block.fill(block.len(), |to| block.copy_to(to));
        Ok(Origin::Private { buffer: &buffers.block, start: 0 })
    }

    #[inline(always)]
    fn hand_over<H: Handler>(
        self,
        call: Option<CallToken>,
        origin: &Origin<'_>,
        handler: &mut H,
    ) -> Result<usize, Disconnect> {
        handler.message(Incoming {
            link: self.link,
            channel: self.header.channel,
            call,
            bytes: origin.bytes(),
            origin,
        });
        Ok(0)
    }

    #[cold]
    fn announce<H: Handler>(&mut self, bytes: &[u8], handler: &mut H) -> Result<(), Disconnect> {
        let Self { link, header: Header { channel, flags, .. }, .. } = *self;
        match self.channels.piece(channel, bytes, flags & MORE != 0, |announced| handler.announced(link, announced))? {
            Some(Err(Violation(text))) => Err(Disconnect::violation(text)),
            Some(Ok(())) | None => Ok(()),
        }
    }

    #[cold]
    fn abandon(&self, bytes: &[u8]) -> Result<(), Disconnect> {
        let call = CallId::from_peer(number(bytes)?);
        if self.link.abandon(call) { Ok(()) } else { Err(no_slot(call)) }
    }
}

/// The one number of a frame that has nothing else.
fn number(bytes: &[u8]) -> Result<u64, Disconnect> {
    bytes.try_into().map(u64::from_le_bytes).map_err(|_| {
        Disconnect::violation(format_args!("a frame has {} bytes, and a number of 8 was expected", bytes.len()))
    })
}

#[cold]
fn no_slot(call: CallId) -> Disconnect {
    Disconnect::violation(format_args!("a call names reply slot {}, which does not exist", call.slot()))
}
