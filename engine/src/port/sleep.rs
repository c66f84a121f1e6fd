//! How the dispatching thread waits, on one peer or on many.
//!
//! One peer: a futex wait on the peer's bells and the control word. Many: one epoll over the bells' sockets and the
//! control descriptor. In both cases the thread arms, passes a barrier, and looks once more before it sleeps: one heavy
//! barrier for all, or a fence, if it has asked all of its wakers for one.

use std::sync::atomic::{Ordering, fence};
use std::time::{Duration, Instant};

use super::{CONTROL, Dispatch, PortCore};
use crate::doorbell::protocol::Kinds;
use crate::doorbell::sleep::Noted;
use crate::doorbell::strategy::CLOCK_STRIDE;
use crate::link::bounded;
use crate::port::dispatch::Dispatcher;
use crate::rendezvous::Role;
use crate::sys::barrier::{self, Barrier, Heavy};

/// A busy thread looks at the bells of the peers that it does not poll about this often.
pub(super) const LOOK_AFTER: Duration = Duration::from_micros(50);
/// A peer that was silent for this many looks is not polled any more until it rings.
const QUIET_LOOKS: u32 = 2;

/// Why a wait has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wakeup {
    /// There may be something to dispatch.
    Work,
    /// The deadline has passed.
    TimedOut,
    /// The port was shut down, or the main that a renderer was connected to is gone: nothing will ever come.
    ShutDown,
}

/// What came of arming the bells of quiet peers.
struct Armed {
    heavy: Heavy,
    /// Whether anything is there to be done.
    found: bool,
    /// When something is to be tried again that nobody rings for.
    retry: Option<Instant>,
}

impl Default for Armed {
    fn default() -> Self {
        Self { heavy: Heavy::Done, found: false, retry: None }
    }
}

impl Dispatch<'_> {
    /// Waits until there may be something to dispatch, by the port's strategy, and at most until `deadline`. Whatever
    /// it says, a poll is to follow: what it has heard of is not told a second time.
    // Not inlined, so that `ci/instructions.sh` can tell a dispatch from its wait.
    #[inline(never)]
    pub fn wait(&mut self, deadline: Option<Instant>) -> Wakeup {
        if self.is_over() {
            return Wakeup::ShutDown;
        }
        let spun = self.core.spin.until(|iteration| self.spin_once(iteration, deadline));
        if let Some(wakeup) = spun {
            if self.dispatcher.fenced && !self.core.spin.sleeps_often() {
                self.unfence();
            }
            return wakeup;
        }
        let began = Instant::now();
        self.park(deadline);
        let now = Instant::now();
        self.core.spin.slept(now - began);
        if self.is_over() {
            Wakeup::ShutDown
        } else if deadline.is_some_and(|deadline| now >= deadline) {
            Wakeup::TimedOut
        } else {
            Wakeup::Work
        }
    }

    /// Asks peers for no more fences.
    #[cold]
    pub(super) fn unfence(&mut self) {
        self.dispatcher.fenced = false;
        self.dispatcher.inboxes.iter().flatten().for_each(|inbox| inbox.link.unfence_data());
    }

    fn is_over(&self) -> bool {
        self.core.is_shut()
            || (self.core.role == Role::Renderer
                && self.dispatcher.connected == 0
                && !self.core.news.load(Ordering::Acquire))
    }

    #[inline(always)]
    fn spin_once(&self, iteration: u32, deadline: Option<Instant>) -> Option<Wakeup> {
        let Dispatcher { inboxes, hot, .. } = &*self.dispatcher;
        let is_ready = |index: &usize| inboxes.get(*index).and_then(Option::as_ref).is_some_and(|i| i.is_ready());
        if hot.iter().any(is_ready) || self.core.has_called() {
            return Some(Wakeup::Work);
        }
        // Not at once: a busy thread finds a message before, and makes no system call.
        if iteration != 0 && iteration.is_multiple_of(CLOCK_STRIDE) {
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Some(Wakeup::TimedOut);
            }
            if inboxes.iter().flatten().any(|inbox| inbox.link.has_backlog() && inbox.link.flush().is_clear()) {
                return Some(Wakeup::Work);
            }
            if !self.is_lone() && self.core.epoll.is_readable() {
                return Some(Wakeup::Work);
            }
        }
        None
    }

    /// Whether the thread waits on one peer's futex words rather than on descriptors.
    fn is_lone(&self) -> bool {
        self.dispatcher.connected == 1
            && self.dispatcher.hot.len() == 1
            && !self.core.polled_outside.load(Ordering::Relaxed)
    }

    fn park(&mut self, deadline: Option<Instant>) {
        if self.is_lone() { self.park_on_futex(deadline) } else { self.park_on_epoll(deadline) }
    }

    fn park_on_futex(&mut self, deadline: Option<Instant>) {
        let often = self.core.spin.sleeps_often();
        let Dispatcher { inboxes, hot, fenced, .. } = &mut *self.dispatcher;
        let Some(inbox) = hot.first().and_then(|index| inboxes.get(*index)?.as_ref()) else { return };
        let (link, peer) = (&inbox.link, inbox.link.peer());
        let noted = Noted::new([peer.data_bell(), peer.space_bell()], &self.core.control);
        if self.core.has_called() {
            return;
        }
        crash_point!("data-arm-before");
        *fenced |= often;
        let barrier = link.arm_data(Kinds::FUTEX, often);
        crash_point!("data-arm-after");
        let blocked = link.flush();
        let heavy = barrier::heavy(blocked.arm(link, Kinds::FUTEX, barrier));
        if inbox.is_ready() || !link.is_connected() || blocked.may_go_on(link) {
            return;
        }
        let bells = if blocked.is_clear() { 1 } else { 2 };
        crash_point!("data-sleep");
        noted.wait(bells, bounded(blocked.bounded(deadline), heavy));
    }

    fn park_on_epoll(&mut self, deadline: Option<Instant>) {
        let Armed { heavy, found, retry } = self.arm_quiet(0, self.core.spin.sleeps_often());
        if found || self.core.has_called() {
            return;
        }
        let deadline =
            bounded(retry.map_or(deadline, |at| Some(deadline.map_or(at, |deadline| deadline.min(at)))), heavy);
        let timeout = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        crash_point!("bells-sleep");
        self.take_events(timeout);
    }

    /// Looks which bells were rung, without waiting, and stops polling the peers that have been silent for long.
    pub(super) fn look_at_bells(&mut self) {
        self.take_events(Some(Duration::ZERO));
        for inbox in self.dispatcher.inboxes.iter_mut().flatten() {
            inbox.quiet = inbox.quiet.saturating_add(1);
        }
        let often = self.core.spin.sleeps_often();
        if self.dispatcher.hot.len() > 1 {
            self.arm_quiet(QUIET_LOOKS, often);
        }
        self.looked();
    }

    /// At the end of a poll, for whoever polls our descriptor: it is readable if anything is left, and every bell is
    /// armed if not.
    pub(super) fn keep_descriptor_honest(&mut self, left_over: bool) {
        // Whoever polls it sleeps there.
        let armed = if left_over { Armed { found: true, ..Armed::default() } } else { self.arm_quiet(0, true) };
        if armed.found || armed.retry.is_some() || armed.heavy == Heavy::Failed || self.core.has_called() {
            self.core.notify();
        }
    }

    /// Arms the bells of the hot peers that have been quiet for `looks` looks, and stops polling them, unless there
    /// is something in their rings, or the barrier was refused. `often`: this thread sleeps often.
    fn arm_quiet(&mut self, looks: u32, often: bool) -> Armed {
        let Dispatcher { inboxes, hot, fenced, .. } = &mut *self.dispatcher;
        let mut asymmetric = false;
        let mut armed = 0;
        for index in hot.iter() {
            let Some(inbox) = inboxes.get_mut(*index).and_then(Option::as_mut) else { continue };
            if inbox.quiet < looks {
                continue;
            }
            crash_point!("bells-arm-before");
            *fenced |= often;
            let barrier = inbox.link.arm_data(Kinds::DESCRIPTOR, often);
            crash_point!("bells-arm-after");
            inbox.blocked = inbox.link.flush();
            asymmetric |= inbox.blocked.arm(&inbox.link, Kinds::DESCRIPTOR, barrier) == Barrier::Asymmetric;
            armed += 1;
        }
        if armed == 0 {
            return Armed::default();
        }
        // For those whose wakers pass a full fence, agreed on or asked for: a membarrier, if there is one, does not
        // order this thread's own store before its load.
        fence(Ordering::SeqCst);
        let heavy = if asymmetric { barrier::heavy(Barrier::Asymmetric) } else { Heavy::Done };
        let (mut found, mut retry) = (false, None);
        hot.retain(|index| {
            let Some(inbox) = inboxes.get_mut(*index).and_then(Option::as_mut) else { return false };
            if inbox.quiet < looks {
                return true;
            }
            // What was armed for is what is looked for: to flush again could end at other room, for which nobody rings.
            let space = inbox.blocked.may_go_on(&inbox.link);
            let ended = !inbox.link.is_connected();
            let ready = inbox.is_ready() || space || ended;
            found |= ready;
            retry = inbox.blocked.bounded(retry);
            // Nobody rings for what is to be tried again later.
            inbox.hot = ready || inbox.blocked.bounded(None).is_some();
            inbox.hot
        });
        if heavy == Heavy::Failed {
            // Any of them may have published without ringing.
            self.dispatcher.heat(|_| true);
        }
        Armed { heavy, found, retry }
    }

    /// Waits on the epoll and heats who has rung.
    fn take_events(&mut self, timeout: Option<Duration>) {
        let Dispatcher { inboxes, hot, events, .. } = &mut *self.dispatcher;
        if self.core.epoll.wait(events, timeout).is_err() {
            return;
        }
        for event in events.drain(..) {
            if event.token == CONTROL {
                self.core.drain_control();
                continue;
            }
            let Ok(index) = usize::try_from(event.token - 1) else { continue };
            let Some(inbox) = inboxes.get_mut(index).and_then(Option::as_mut) else { continue };
            if !inbox.link.hear_bell() {
                // The end that rings it is gone, and so is the peer, or soon.
                inbox.link.remove_bell_from(&self.core.epoll);
                inbox.link.hung_up();
            }
            inbox.quiet = 0;
            if !inbox.hot {
                inbox.hot = true;
                hot.push(index);
            }
        }
    }
}

impl PortCore {
    /// Whether the dispatching thread is called to something else than messages.
    fn has_called(&self) -> bool {
        self.news.load(Ordering::Relaxed) || self.shut.load(Ordering::Relaxed)
    }

    fn drain_control(&self) {
        let mut count = [0; 8];
        let _ = rustix::io::read(&self.control_fd, &mut count);
    }
}
