//! The thread that dispatches: turns over the peers that have something to say.

use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard};
use std::time::Instant;

use super::inbox::{Buffers, Inbox};
use super::sleep::LOOK_AFTER;
use super::{PortCore, lock};
use crate::advice;
use crate::call::CallToken;
use crate::channels::Announced;
use crate::error::{Disconnect, Violation};
use crate::link::Link;
use crate::payload::kept::{Kept, Origin};
use crate::rendezvous::Role;
use crate::sys::epoll::Readiness;
use crate::thread::Marked;

/// Frames of one peer per turn, so that none holds up the others.
const TURN: usize = 64;
/// A busy thread looks at the bells of the peers that it does not poll after this many messages.
const LOOK_EVERY: usize = 1024;

/// What a message is to its handler.
#[derive(Clone, Copy)]
pub struct Incoming<'a> {
    /// Whom it came from.
    pub link: &'a Arc<Link>,
    /// The number that the peer announced for the channel.
    pub channel: u16,
    /// For a synchronous call, what [`Link::reply`] takes to answer it.
    pub call: Option<CallToken>,
    /// The payload, aligned to 16 bytes.
    pub bytes: &'a [u8],
    pub(super) origin: &'a Origin<'a>,
}

impl Incoming<'_> {
    /// Keeps the payload beyond the handler. It is not copied, unless it is read in its frame, and the peer's ring goes
    /// on in any case.
    pub fn keep(&self) -> Kept {
        self.origin.keep()
    }
}

impl std::fmt::Debug for Incoming<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Incoming")
            .field("link", &self.link)
            .field("channel", &self.channel)
            .field("call", &self.call)
            .field("len", &self.bytes.len())
            .finish()
    }
}

/// Who is told what arrives. Panics pass through to whoever polls; the port stays sound.
pub trait Handler {
    /// A peer has connected.
    fn connected(&mut self, link: &Arc<Link>);
    /// A peer has announced a channel.
    ///
    /// # Errors
    /// A [`Violation`] disconnects the peer.
    fn announced(&mut self, link: &Arc<Link>, channel: Announced<'_>) -> Result<(), Violation>;
    /// A peer has sent a message or a call, on a channel that it announced. A call is to be answered.
    fn message(&mut self, message: Incoming<'_>);
    /// A connection has ended, and everything that the peer had published was handled.
    fn disconnected(&mut self, link: &Arc<Link>, reason: &Disconnect);
}

/// The right to dispatch a port, of one thread at a time.
pub struct Dispatch<'a> {
    pub(super) core: &'a Arc<PortCore>,
    pub(super) dispatcher: MutexGuard<'a, Dispatcher>,
    _here: Marked,
    /// Dropped behind the dispatcher, which is free by then.
    _last: LetGo<'a>,
}

/// What is left to be done by who has dispatched.
struct LetGo<'a>(&'a PortCore);

/// Unless it is disarmed, a handler has panicked in the middle of a poll: the bells that were heard so far are armed
/// no more, and other news may be forgotten, so everything is to be looked at again.
struct LookAgain<'a>(Option<&'a PortCore>);

impl Drop for LookAgain<'_> {
    fn drop(&mut self) {
        if let Some(core) = self.0 {
            core.news();
        }
    }
}

/// The inboxes, and how far round the dispatching thread is.
pub(crate) struct Dispatcher {
    pub(super) inboxes: Vec<Option<Inbox>>,
    /// How many inboxes there are.
    pub(super) connected: usize,
    /// Indices of the inboxes that are polled every turn: those that are marked so.
    pub(super) hot: Vec<usize>,
    /// Whether peers may have been asked for fences.
    pub(super) fenced: bool,
    buffers: Buffers,
    /// Messages of the poll that is under way.
    messages: usize,
    pub(super) events: Vec<Readiness>,
    since_look: usize,
    pub(super) last_look: Option<Instant>,
    turns: u32,
}

impl Default for Dispatcher {
    fn default() -> Self {
        Self {
            inboxes: Vec::new(),
            connected: 0,
            hot: Vec::new(),
            fenced: false,
            buffers: Buffers::new(),
            messages: 0,
            events: Vec::new(),
            since_look: 0,
            last_look: None,
            turns: 0,
        }
    }
}

impl<'a> Dispatch<'a> {
    pub(super) fn new(core: &'a Arc<PortCore>, dispatcher: MutexGuard<'a, Dispatcher>, here: Marked) -> Self {
        Self { core, dispatcher, _here: here, _last: LetGo(core) }
    }

    /// Hands messages to `handler` until there are none or `budget` frames were taken; how many messages there were.
    /// Never waits.
    pub fn poll<H: Handler>(&mut self, budget: usize, handler: &mut H) -> usize {
        if self.core.is_forked() {
            return 0;
        }
        let mut again = LookAgain(Some(self.core));
        if self.core.polled_outside.load(Ordering::Relaxed) {
            self.look_at_bells();
        }
        self.dispatcher.messages = 0;
        let mut frames = 0;
        let mut left_over = true;
        while frames < budget {
            if self.core.take_news() {
                self.hear_news(handler);
            }
            if self.core.is_shut() {
                break;
            }
            if self.is_look_due() {
                self.look_at_bells();
            }
            let turn = self.turn(budget - frames, handler);
            frames += turn;
            if turn == 0 && !self.core.news.load(Ordering::Relaxed) {
                left_over = false;
                break;
            }
        }
        again.0 = None;
        self.settle(left_over);
        self.dispatcher.messages
    }

    /// At the end of a poll.
    fn settle(&mut self, left_over: bool) {
        if self.core.is_forked() {
            return;
        }
        if self.core.is_shut() {
            self.dispatcher.clear();
        }
        if left_over {
            // It is far from sleeping.
            if self.dispatcher.fenced {
                self.unfence();
            }
            for inbox in self.dispatcher.inboxes.iter_mut().flatten().filter(|inbox| inbox.hot) {
                inbox.pause();
            }
        }
        if self.core.polled_outside.load(Ordering::Relaxed) {
            self.keep_descriptor_honest(left_over);
        }
    }

    /// One round over the peers that are polled.
    fn turn<H: Handler>(&mut self, budget: usize, handler: &mut H) -> usize {
        let Dispatcher { inboxes, hot, buffers, messages, since_look, turns, .. } = &mut *self.dispatcher;
        let mut handled = 0;
        let mut ended = None;
        *turns = turns.wrapping_add(1);
        let start = if hot.len() > 1 { *turns as usize % hot.len() } else { 0 };
        let (last, first) = hot.split_at(start);
        for &index in first.iter().chain(last) {
            let Some(inbox) = inboxes.get_mut(index).and_then(Option::as_mut) else { continue };
            let most = TURN.min(budget - handled);
            if most == 0 {
                break;
            }
            // Asked first: after the end, what the peer has published is all there, and a ring that is empty stays so.
            let is_over = inbox.link.is_over();
            let frames = inbox.drain(most, &self.core.config.trust, buffers, messages, handler);
            handled += frames;
            if frames != 0 {
                inbox.quiet = 0;
            }
            if inbox.link.has_backlog() {
                inbox.link.flush();
            }
            if frames == 0 && is_over {
                ended = Some(index);
            }
        }
        *since_look += handled;
        if let Some(index) = ended
            && !self.core.is_shut()
        {
            // Somebody else's end may have been passed over in this turn.
            self.core.look_again();
            self.finish(index, handler);
        }
        handled
    }

    /// A connection has ended and its ring is empty.
    fn finish<H: Handler>(&mut self, index: usize, handler: &mut H) {
        let Some(inbox) = self.dispatcher.inboxes.get_mut(index).and_then(Option::take) else { return };
        self.dispatcher.hot.retain(|hot| *hot != index);
        self.dispatcher.connected -= 1;
        let link = inbox.link;
        link.remove_bell_from(&self.core.epoll);
        self.core.edit_roster(|links| links.retain(|other| !Arc::ptr_eq(other, &link)));
        link.close_sockets();
        let reason = link.ended().unwrap_or(Disconnect::Died);
        handler.disconnected(&link, &reason);
    }

    /// Takes in who has come, and polls who has ended.
    fn hear_news<H: Handler>(&mut self, handler: &mut H) {
        self.dispatcher.heat(|inbox| !inbox.link.is_connected() || inbox.link.has_backlog());
        loop {
            // One at a time: a handler that panics does not lose the others.
            let link = {
                let mut arrivals = lock(&self.core.arrivals);
                if arrivals.is_empty() {
                    return;
                }
                arrivals.remove(0)
            };
            self.admit(&link);
            handler.connected(&link);
        }
    }

    fn admit(&mut self, link: &Arc<Link>) {
        let Dispatcher { inboxes, hot, .. } = &mut *self.dispatcher;
        let index = inboxes.iter().position(Option::is_none).unwrap_or_else(|| {
            inboxes.push(None);
            inboxes.len() - 1
        });
        if let Err(error) = link.add_bell_to(&self.core.epoll, index as u64 + 1) {
            tracing::error!(link = link.id(), %error, "cannot poll a peer's bell; disconnecting it");
            let text = format!("the peer's bell cannot be polled: {error}{}", advice::about(&error));
            link.disconnect(Disconnect::NoResources(text.into()));
        }
        inboxes[index] = Some(Inbox::new(Arc::clone(link), &self.core.config));
        hot.push(index);
        self.dispatcher.connected += 1;
        if self.core.role == Role::Main {
            self.core.edit_roster(|links| links.push(Arc::clone(link)));
        }
    }

    /// Whether a busy thread should look at the bells of those that it does not poll.
    fn is_look_due(&self) -> bool {
        let Dispatcher { connected, hot, since_look, turns, last_look, .. } = &*self.dispatcher;
        if *connected == 1 && hot.len() == 1 {
            return false;
        }
        if hot.is_empty() || *since_look >= LOOK_EVERY {
            return true;
        }
        // The clock is read every few turns only.
        turns.is_multiple_of(16) && last_look.is_none_or(|last| last.elapsed() >= LOOK_AFTER)
    }

    pub(super) fn looked(&mut self) {
        self.dispatcher.since_look = 0;
        self.dispatcher.last_look = Some(Instant::now());
    }
}

impl Dispatcher {
    /// Has the inboxes polled that `which` says.
    pub(super) fn heat(&mut self, which: impl Fn(&Inbox) -> bool) {
        for (index, inbox) in self.inboxes.iter_mut().enumerate() {
            if let Some(inbox) = inbox
                && !inbox.hot
                && which(inbox)
            {
                inbox.hot = true;
                self.hot.push(index);
            }
        }
    }

    /// Lets go of every peer: the port was shut down.
    pub(super) fn clear(&mut self) {
        self.hot.clear();
        self.connected = 0;
        for inbox in self.inboxes.drain(..).flatten() {
            inbox.link.disconnect(Disconnect::ShutDown);
            inbox.link.close_sockets();
        }
    }
}

impl Drop for LetGo<'_> {
    fn drop(&mut self) {
        self.0.let_go();
    }
}

impl std::fmt::Debug for Dispatch<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dispatch").finish_non_exhaustive()
    }
}
