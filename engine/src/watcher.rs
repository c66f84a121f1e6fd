//! The library's one thread: it watches sockets and processes, and keeps deadlines.
//!
//! Handshakes run on it, and the ends of peers are noticed on it, so that neither costs the thread that dispatches
//! anything. It is started when the first descriptor is watched, blocks the signals that others can send, and holds
//! nothing alive: targets are weak references, and a target that is gone is forgotten at its next event.
//!
//! Waiting is level-triggered: a target that leaves its descriptor ready, and neither reads it nor unwatches it, is
//! called again at once.
//!
//! Targets run one after the other and must not wait for anything, nor panic. They may watch, unwatch and set timers.
//!
//! A child made by fork has no such thread, and perhaps a lock that nobody will ever release; so it leaves its
//! parent's watcher alone and starts its own when it needs one.
//!
//! # Invariants
//!
//! 1. A watcher that was once published in `CURRENT` is never freed. There is one per process and fork.
#![allow(unsafe_code)]

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use rustix::event::{EventfdFlags, eventfd};

use crate::sys::epoll::Epoll;
use crate::sys::fork::{Epoch, ForkFd};
use crate::sys::thread;

pub(crate) use crate::sys::epoll::Readiness;

/// What wants to hear of descriptors and deadlines. Calls come on the library's thread.
pub(crate) trait Watched: Send + Sync {
    /// A watched descriptor is ready; `events.token` is the one given to [`watch_as`].
    fn ready(&self, events: Readiness);

    /// A timer is due; `token` is the one given to [`set_timer`].
    fn expired(&self, token: u64) {
        let _ = token;
    }
}

/// A watched descriptor. It is never given out twice, so a late [`unwatch`] hits nobody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WatchId {
    epoch: Epoch,
    id: u64,
}

/// A timer. It is never given out twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TimerId {
    epoch: Epoch,
    due: Instant,
    id: u64,
}

/// Has `target` hear of what happens to `fd`, with token 0. See [`watch_as`].
pub(crate) fn watch(fd: BorrowedFd<'_>, target: Weak<dyn Watched>) -> io::Result<WatchId> {
    watch_as(fd, target, 0)
}

/// Has `target` hear of what happens to `fd`. The descriptor belongs to the target, which stays alive while it is
/// being called; it is to be unwatched before it is closed.
pub(crate) fn watch_as(fd: BorrowedFd<'_>, target: Weak<dyn Watched>, token: u64) -> io::Result<WatchId> {
    Watcher::running()?.watch(fd, target, token)
}

/// Ends a watch. No call for it begins after this returns, though one that has begun may still be running.
pub(crate) fn unwatch(watch: WatchId) {
    if let Some(watcher) = Watcher::current().filter(|_| watch.epoch.is_current()) {
        watcher.unwatch(watch.id);
    }
}

/// Starts the library's thread, unless it runs: for whoever would rather fail now than halfway.
pub(crate) fn start() -> io::Result<()> {
    Watcher::running().map(drop)
}

/// Has `target` hear when `due` has come. The timer is gone then.
pub(crate) fn set_timer(due: Instant, target: Weak<dyn Watched>, token: u64) -> io::Result<TimerId> {
    Ok(Watcher::running()?.set_timer(due, target, token))
}

/// Forgets a timer. Its call does not begin after this returns, though it may still be running.
pub(crate) fn cancel_timer(timer: TimerId) {
    if let Some(watcher) = Watcher::current().filter(|_| timer.epoch.is_current()) {
        watcher.lock().timers.remove(&(timer.due, timer.id));
    }
}

/// The thread's stack, in bytes: as much as std gives by default, since the program's own code runs on it, too (who is
/// let in).
const STACK: usize = 2 << 20;

static CURRENT: AtomicPtr<Watcher> = AtomicPtr::new(ptr::null_mut());

/// Ids of watches and timers. Zero is the control descriptor's token.
static NEXT_ID: AtomicU64 = AtomicU64::new(CONTROL + 1);
const CONTROL: u64 = 0;

struct Watcher {
    epoch: Epoch,
    epoll: Epoll,
    /// Ours alone, so its status flags are as we made them.
    control: ForkFd,
    /// The thread is to end, since it lost the race to be the process's watcher; or it has.
    ended: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    watches: HashMap<u64, Watch>,
    /// The watch that a descriptor's number stands for now.
    numbers: HashMap<RawFd, u64>,
    timers: BTreeMap<(Instant, u64), Call>,
}

struct Watch {
    number: RawFd,
    call: Call,
}

/// Whom to call with which token.
#[derive(Clone)]
struct Call {
    target: Weak<dyn Watched>,
    token: u64,
}

struct EndedOnDrop<'a>(&'a AtomicBool);

impl Drop for EndedOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Watcher {
    /// This process's watcher, if it has one that works.
    fn current() -> Option<&'static Self> {
        // SYNC watcher-start: pairs with `Watcher::start`.
        let current = CURRENT.load(Ordering::Acquire);
        // SAFETY: null, or published and thus never freed (invariant 1).
        let current = unsafe { current.as_ref() }?;
        (current.epoch.is_current() && !current.ended.load(Ordering::Relaxed)).then_some(current)
    }

    fn running() -> io::Result<&'static Self> {
        loop {
            if let Some(current) = Self::current() {
                return Ok(current);
            }
            Self::start()?;
        }
    }

    /// Starts a watcher with its thread and publishes it, unless another thread was faster.
    fn start() -> io::Result<()> {
        let seen = CURRENT.load(Ordering::Acquire);
        if Self::current().is_some() {
            return Ok(());
        }
        let epoll = Epoll::new()?;
        let control = ForkFd::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        epoll.add(control.as_fd(), CONTROL)?;
        let watcher = Arc::new(Self {
            epoch: Epoch::current(),
            epoll,
            control,
            ended: AtomicBool::new(false),
            state: Mutex::default(),
        });
        let of_thread = Arc::clone(&watcher);
        thread::start(c"memit", STACK, move || of_thread.run())?;
        let published = Arc::into_raw(Arc::clone(&watcher)).cast_mut();
        // SYNC watcher-start: pairs with `Watcher::current`.
        if CURRENT.compare_exchange(seen, published, Ordering::Release, Ordering::Relaxed).is_err() {
            // SAFETY: from `into_raw` above, and not published.
            drop(unsafe { Arc::from_raw(published) });
            watcher.ended.store(true, Ordering::Relaxed);
            watcher.wake();
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the thread's current wait.
    fn wake(&self) {
        // It fails only when it was woken 2^64 times over, and then it is awake.
        let _ = rustix::io::write(&self.control, &1_u64.to_ne_bytes());
    }

    fn watch(&self, fd: BorrowedFd<'_>, target: Weak<dyn Watched>, token: u64) -> io::Result<WatchId> {
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        let number = fd.as_raw_fd();
        // The thread looks an event's id up under this lock, so it finds it.
        let mut state = self.lock();
        self.epoll.add(fd, id)?;
        if let Some(closed) = state.numbers.insert(number, id) {
            state.watches.remove(&closed);
        }
        state.watches.insert(id, Watch { number, call: Call { target, token } });
        Ok(WatchId { epoch: self.epoch, id })
    }

    fn unwatch(&self, id: u64) {
        let mut state = self.lock();
        let Some(watch) = state.watches.remove(&id) else { return };
        state.numbers.remove(&watch.number);
        self.epoll.remove_number(watch.number);
    }

    fn set_timer(&self, due: Instant, target: Weak<dyn Watched>, token: u64) -> TimerId {
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        let mut state = self.lock();
        state.timers.insert((due, id), Call { target, token });
        let is_first = state.timers.first_key_value().is_some_and(|(first, _)| *first == (due, id));
        drop(state);
        if is_first {
            self.wake();
        }
        TimerId { epoch: self.epoch, due, id }
    }

    fn run(&self) {
        // However it ends, by a panic of a target too, the next user starts another watcher.
        let _ended = EndedOnDrop(&self.ended);
        let mut events = Vec::new();
        while !self.ended.load(Ordering::Relaxed) {
            let next = self.lock().timers.first_key_value().map(|((due, _), _)| *due);
            let timeout = next.map(|due| due.saturating_duration_since(Instant::now()));
            if let Err(error) = self.epoll.wait(&mut events, timeout) {
                // Somebody closed a descriptor that is not theirs.
                tracing::error!(%error, "memit's thread cannot wait any more; its connections will not notice their ends");
                return;
            }
            for event in &events {
                self.deliver(*event);
            }
            self.expire(Instant::now());
        }
    }

    fn deliver(&self, event: Readiness) {
        if event.token == CONTROL {
            // Empty if another wake was read with the last one.
            let _ = rustix::io::read(&self.control, &mut [0_u8; 8][..]);
            return;
        }
        // Unwatched since the wait ended, if it is not there.
        let Some(call) = self.lock().watches.get(&event.token).map(|watch| watch.call.clone()) else { return };
        match call.target.upgrade() {
            Some(target) => target.ready(Readiness { token: call.token, ..event }),
            None => self.unwatch(event.token),
        }
    }

    fn expire(&self, now: Instant) {
        loop {
            let mut state = self.lock();
            let Some(first) = state.timers.first_entry().filter(|first| first.key().0 <= now) else { return };
            let call = first.remove();
            drop(state);
            if let Some(target) = call.target.upgrade() {
                target.expired(call.token);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;
    use std::sync::mpsc;
    use std::time::Duration;
    use std::{fs, thread};

    use super::*;
    use crate::sys::socket;

    /// Tells a channel what it heard, and reads what there was.
    struct Ear {
        fd: OwnedFd,
        heard: mpsc::Sender<Heard>,
    }

    #[derive(Debug, PartialEq, Eq)]
    enum Heard {
        Ready(u64, bool),
        Expired(u64),
    }

    impl Watched for Ear {
        fn ready(&self, events: Readiness) {
            assert_eq!(fs::read_to_string("/proc/thread-self/comm").unwrap(), "memit\n");
            let is_over = socket::hear_bell(self.fd.as_fd()) == socket::Rung::HungUp;
            let _ = self.heard.send(Heard::Ready(events.token, is_over));
        }

        fn expired(&self, token: u64) {
            let _ = self.heard.send(Heard::Expired(token));
        }
    }

    fn ear() -> (Arc<Ear>, OwnedFd, mpsc::Receiver<Heard>) {
        let (fd, other) = socket::pair().unwrap();
        let (heard, hears) = mpsc::channel();
        (Arc::new(Ear { fd, heard }), other, hears)
    }

    fn weak(ear: &Arc<Ear>) -> Weak<dyn Watched> {
        Arc::<Ear>::downgrade(ear)
    }

    /// Returns when the watcher's thread has dealt with everything that was ready before the call.
    fn settle() {
        for _ in 0..2 {
            let (ear, other, hears) = ear();
            let id = watch_as(ear.fd.as_fd(), weak(&ear), 0).unwrap();
            socket::ring_bell(other.as_fd()).unwrap();
            hears.recv().unwrap();
            unwatch(id);
        }
    }

    #[test]
    fn a_target_hears_of_its_descriptor_with_its_token() {
        let (ear, other, hears) = ear();
        let id = watch_as(ear.fd.as_fd(), weak(&ear), 42).unwrap();
        socket::ring_bell(other.as_fd()).unwrap();
        assert_eq!(hears.recv().unwrap(), Heard::Ready(42, false));
        drop(other);
        assert_eq!(hears.recv().unwrap(), Heard::Ready(42, true));
        unwatch(id);
    }

    #[test]
    fn an_unwatched_target_hears_nothing_more() {
        let (ear, other, hears) = ear();
        let id = watch(ear.fd.as_fd(), weak(&ear)).unwrap();
        unwatch(id);
        socket::ring_bell(other.as_fd()).unwrap();
        settle();
        assert_eq!(hears.try_recv(), Err(mpsc::TryRecvError::Empty));
    }

    #[test]
    fn a_late_unwatch_leaves_the_next_user_of_the_number_alone() {
        let (first, _other, _hears) = ear();
        let stale = watch(first.fd.as_fd(), weak(&first)).unwrap();
        let (second, other, hears) = ear();
        // Closes the first socket, and gives its number to the second.
        let number = first.fd.as_raw_fd();
        let mut first = Arc::into_inner(first).unwrap();
        rustix::io::dup3(&second.fd, &mut first.fd, rustix::io::DupFlags::CLOEXEC).unwrap();
        let id = watch_as(first.fd.as_fd(), weak(&second), 7).unwrap();
        unwatch(stale);
        assert_eq!(first.fd.as_raw_fd(), number);
        socket::ring_bell(other.as_fd()).unwrap();
        assert_eq!(hears.recv().unwrap(), Heard::Ready(7, false));
        unwatch(id);
    }

    #[test]
    fn a_target_that_is_gone_is_forgotten() {
        let (ear, other, hears) = ear();
        // Outlives the target, as its maker's clone of a descriptor could.
        let fd = rustix::io::fcntl_dupfd_cloexec(&ear.fd, 0).unwrap();
        let id = watch(fd.as_fd(), weak(&ear)).unwrap();
        drop(ear);
        socket::ring_bell(other.as_fd()).unwrap();
        settle();
        assert_eq!(hears.try_recv(), Err(mpsc::TryRecvError::Disconnected));
        assert!(!Watcher::current().unwrap().lock().watches.contains_key(&id.id));
    }

    #[test]
    fn timers_go_off_in_the_order_of_their_times_and_once() {
        let (ear, _other, hears) = ear();
        let now = Instant::now();
        let at = |ms| now + Duration::from_millis(ms);
        set_timer(at(3_600_000), weak(&ear), 9).unwrap();
        set_timer(at(30), weak(&ear), 3).unwrap();
        set_timer(at(10), weak(&ear), 1).unwrap();
        let cancelled = set_timer(at(15), weak(&ear), 8).unwrap();
        set_timer(at(20), weak(&ear), 2).unwrap();
        cancel_timer(cancelled);
        for token in 1..=3 {
            assert_eq!(hears.recv().unwrap(), Heard::Expired(token));
            assert!(Instant::now() >= at(10 * token));
        }
        assert_eq!(hears.try_recv(), Err(mpsc::TryRecvError::Empty));
    }

    #[test]
    fn a_process_has_one_watching_thread() {
        let threads: Vec<_> = (0..8)
            .map(|_| {
                thread::spawn(|| {
                    let (ear, _other, _hears) = ear();
                    let id = watch(ear.fd.as_fd(), weak(&ear)).unwrap();
                    unwatch(id);
                    ptr::from_ref(Watcher::current().unwrap()) as usize
                })
            })
            .collect();
        let watchers: std::collections::HashSet<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        assert_eq!(watchers.len(), 1);
    }
}
