//! One peer as the dispatching thread sees it: the ring that it reads.

use std::sync::Arc;

use memit_ringbuf::{Consumer, Frame, MappedRing, RingRead, reached};

use crate::aligned::AlignedBytes;
use crate::call::{CallHeader, CallToken};
use crate::channels::IncomingChannels;
use crate::config::{Config, FullTrust, Trust};
use crate::error::{Disconnect, Violation};
use crate::frame::{ANNOUNCE, CALL, MESSAGE, MORE};
use crate::link::Link;
use crate::outbox::{OwnHead, PeerOutbox};
use crate::port::{Handler, Incoming};

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
    /// How many looks at the bells it has seen without a frame.
    pub(crate) quiet: u32,
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
            quiet: 0,
        }
    }

    /// Whether a frame is there. Reads one word.
    #[inline(always)]
    pub(crate) fn is_ready(&self) -> bool {
        self.consumer.is_ready()
    }

    /// Hands what is in at most `most` frames to `handler`; how many there were. Those that were messages are added to
    /// `messages`.
    #[inline]
    pub(crate) fn drain<H: Handler>(
        &mut self,
        most: usize,
        trust: &Trust,
        buffer: &mut AlignedBytes,
        messages: &mut usize,
        handler: &mut H,
    ) -> usize {
        let mut frames = 0;
        while frames < most && (self.link.is_usable() || self.may_go_on()) {
            let frame = match self.consumer.poll() {
                Ok(Some(frame)) => frame,
                Ok(None) => {
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
            *messages += usize::from(header.kind != ANNOUNCE);
            let outcome = match trust {
                Trust::None => {
                    buffer.resize(frame.len());
                    frame.copy_to(buffer.as_mut_slice());
                    frame.release();
                    self.head_moved(false);
                    deliver(&self.link, &mut self.channels, header, buffer.as_slice(), handler)
                }
                Trust::Full(promise) => {
                    // Padding before the frame may be published already, and a call from the listener publishes this.
                    self.link.note_consumed(frame.position());
                    let release = Release(Some(frame));
                    let outcome = match &release.0 {
                        Some(frame) => {
                            deliver(&self.link, &mut self.channels, header, view_trusted(promise, frame), handler)
                        }
                        None => Ok(()),
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
            };
            if self.link.is_forked() {
                return frames;
            }
            if self.link.take_published() {
                // The consumer learns that the peer knows of its head.
                self.pause();
            }
            if let Err(reason) = outcome {
                self.break_off(reason);
                break;
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

#[inline]
fn deliver<H: Handler>(
    link: &Arc<Link>,
    channels: &mut IncomingChannels,
    header: memit_ringbuf::Header,
    bytes: &[u8],
    handler: &mut H,
) -> Result<(), Disconnect> {
    let channel = header.channel;
    let (call, bytes) = match header.kind {
        MESSAGE => (None, bytes),
        CALL => {
            let (header, payload) = CallHeader::split(bytes).ok_or_else(|| {
                Disconnect::violation(format_args!(
                    "a call frame has {} bytes, its header alone has {}",
                    bytes.len(),
                    CallHeader::LEN
                ))
            })?;
            if !link.answers().take(header.id) {
                return Err(Disconnect::violation(format_args!(
                    "a call names reply slot {}, which does not exist",
                    header.id.slot()
                )));
            }
            (Some(CallToken::new(header)), payload)
        }
        ANNOUNCE => {
            return match channels
                .piece(channel, bytes, header.flags & MORE != 0, |announced| handler.announced(link, announced))?
            {
                Some(Err(Violation(text))) => Err(Disconnect::violation(text)),
                Some(Ok(())) | None => Ok(()),
            };
        }
        unknown => return Err(Disconnect::violation(format_args!("a frame has the unknown kind {unknown}"))),
    };
    if !channels.contains(channel) {
        return Err(Disconnect::violation(format_args!(
            "a frame came on channel number {channel}, which was not announced"
        )));
    }
    handler.message(Incoming { link, channel, call, bytes });
    Ok(())
}
