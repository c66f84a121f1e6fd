//! A port: one endpoint, with one peer (a renderer's) or many (main's).
//!
//! Any thread may hold a [`Port`]; one thread at a time dispatches it, through a [`Dispatch`]. New connections and
//! ends are handed to that thread by the library's own: it sets `news`, and wakes it.

mod dispatch;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
pub(crate) mod inbox;
mod sleep;
#[cfg(test)]
mod tests;

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, TryLockError, Weak};

use rustix::event::EventfdFlags;

pub use dispatch::{Dispatch, Handler, Incoming};
pub use sleep::Wakeup;

use crate::config::{Config, Trust};
use crate::doorbell::sleep::change;
use crate::doorbell::strategy::Spin;
use crate::error::{Busy, Disconnect};
use crate::link::Link;
use crate::rendezvous::{self, AdmitSink, Admitted, BindError, ConnectError, Listening, Role};
use crate::sys::epoll::Epoll;
use crate::sys::fork::{Epoch, ForkFd};
use crate::thread::{self, Marked};
use crate::watcher;
use dispatch::Dispatcher;

/// The epoll token of the control descriptor; a peer's is the index of its inbox plus one.
const CONTROL: u64 = 0;

/// One endpoint. Cheap to clone; when the last clone goes, the endpoint shuts down.
#[derive(Clone)]
pub struct Port {
    owner: Arc<Owner>,
}

/// A port that keeps nothing alive.
#[derive(Clone)]
pub struct WeakPort {
    owner: Weak<Owner>,
}

/// Shuts the port down when the last handle goes. The library's thread holds the core only, and only weakly.
struct Owner {
    core: Arc<PortCore>,
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.core.shutdown();
    }
}

/// What the handles, the dispatching thread and the library's thread share.
pub(crate) struct PortCore {
    role: Role,
    config: Config,
    token: u64,
    epoch: Epoch,
    /// Set when `arrivals` or a link's end are to be looked at.
    news: AtomicBool,
    shut: AtomicBool,
    /// The private word beside the bell in the dispatcher's wait on a futex, and the descriptor in its wait on epoll.
    control: AtomicU32,
    control_fd: ForkFd,
    epoll: Epoll,
    /// Somebody else polls our descriptor.
    polled_outside: AtomicBool,
    spin: Spin,
    arrivals: Mutex<Vec<Arc<Link>>>,
    roster: RwLock<Arc<[Arc<Link>]>>,
    dispatcher: Mutex<Dispatcher>,
    listening: Mutex<Option<Listening>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn random_token() -> std::io::Result<u64> {
    let mut token = [0; 8];
    rustix::rand::getrandom(&mut token, rustix::rand::GetRandomFlags::empty())?;
    Ok(u64::from_ne_bytes(token))
}

impl Port {
    /// Makes this process the main of `name`.
    ///
    /// # Errors
    /// If the name is not valid, is taken, or the machine refuses what is needed.
    pub fn bind(name: &str, config: Config) -> Result<Self, BindError> {
        let core = Arc::new(PortCore::new(Role::Main, config)?);
        let sink: Weak<dyn AdmitSink> = Arc::downgrade(&core) as Weak<dyn AdmitSink>;
        let listening = Listening::bind(name, &core.config, core.token, sink)?;
        *lock(&core.listening) = Some(listening);
        Ok(Self { owner: Arc::new(Owner { core }) })
    }

    /// Connects to the main of `name`, as a renderer.
    ///
    /// # Errors
    /// If nobody has bound the name, main refuses, or the machine does.
    pub fn connect(name: &str, config: Config) -> Result<Self, ConnectError> {
        let core = Arc::new(PortCore::new(Role::Renderer, config)?);
        watcher::start().map_err(|source| ConnectError::Io { action: "start the library's thread", source })?;
        let admitted = rendezvous::connect(name, &core.config, core.token)?;
        Arc::clone(&core).admitted(admitted);
        let links: Arc<[Arc<Link>]> = lock(&core.arrivals).clone().into();
        *core.roster.write().unwrap_or_else(PoisonError::into_inner) = links;
        Ok(Self { owner: Arc::new(Owner { core }) })
    }

    /// Whether this is a main or a renderer.
    pub fn role(&self) -> Role {
        self.owner.core.role
    }

    /// The longest message that this endpoint sends, in bytes. A peer may take less.
    pub fn max_message(&self) -> usize {
        self.owner.core.config.message_limit
    }

    /// Becomes the one that dispatches. In a forked child there is nothing to dispatch, as after a shutdown.
    ///
    /// # Errors
    /// [`Busy`] while another thread dispatches, or this one does further up its stack; and for a moment while another
    /// thread shuts the port down.
    pub fn dispatch(&self) -> Result<Dispatch<'_>, Busy> {
        let core = &self.owner.core;
        let dispatcher = match core.dispatcher.try_lock() {
            Ok(dispatcher) => dispatcher,
            // A listener panicked; the dispatcher is sound at every point where it calls one.
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return Err(Busy),
        };
        Ok(Dispatch::new(core, dispatcher, Marked::dispatching(core.token)))
    }

    /// Whether the current thread is the one that dispatches, here or further up its stack.
    pub fn is_dispatching_here(&self) -> bool {
        thread::dispatches(self.owner.core.token)
    }

    /// The peers that are connected now, in the order in which they came; none in a forked child, where a lost thread
    /// may hold the list.
    pub fn links(&self) -> Arc<[Arc<Link>]> {
        if self.is_forked() {
            return Arc::new([]);
        }
        Arc::clone(&self.owner.core.roster.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Has the dispatching thread return from its wait, now or the next time.
    pub fn notify(&self) {
        self.owner.core.news();
    }

    /// Ends every connection and frees the name. Waits in progress end.
    pub fn shutdown(&self) {
        self.owner.core.shutdown();
    }

    /// Whether this handle came through a fork: the endpoint is the parent's.
    pub fn is_forked(&self) -> bool {
        self.owner.core.is_forked()
    }

    /// Whether the port was shut down.
    pub fn is_shut_down(&self) -> bool {
        self.owner.core.is_shut()
    }

    /// A handle that keeps nothing alive.
    pub fn downgrade(&self) -> WeakPort {
        WeakPort { owner: Arc::downgrade(&self.owner) }
    }
}

impl WeakPort {
    /// The port, unless its last handle is gone.
    pub fn upgrade(&self) -> Option<Port> {
        self.owner.upgrade().map(|owner| Port { owner })
    }
}

/// Readable when there is something to dispatch. From the first use on, each poll that leaves nothing asks to be
/// woken through the descriptor, which costs the peers a system call per wake-up.
impl AsFd for Port {
    fn as_fd(&self) -> BorrowedFd<'_> {
        let core = &self.owner.core;
        // Nothing but the mark is told, and the notification carries it: who takes that back from the descriptor has
        // made a system call behind the one that wrote it, and who reads the changed control word acquires it
        // (`control`).
        if !core.polled_outside.swap(true, Ordering::Relaxed) {
            core.notify();
        }
        core.epoll.as_fd()
    }
}

impl fmt::Debug for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Port").field("role", &self.role()).field("links", &self.links()).finish_non_exhaustive()
    }
}

impl fmt::Debug for WeakPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WeakPort").finish_non_exhaustive()
    }
}

impl PortCore {
    fn new(role: Role, config: Config) -> std::io::Result<Self> {
        #[cfg(crash_points)]
        crate::crash::arm();
        let control_fd = ForkFd::new(rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let epoll = Epoll::new()?;
        epoll.add(control_fd.as_fd(), CONTROL)?;
        Ok(Self {
            role,
            token: random_token()?,
            epoch: Epoch::current(),
            news: AtomicBool::new(false),
            shut: AtomicBool::new(false),
            control: AtomicU32::new(0),
            control_fd,
            epoll,
            polled_outside: AtomicBool::new(false),
            spin: Spin::new(config.wait),
            arrivals: Mutex::default(),
            roster: RwLock::new(Arc::new([])),
            dispatcher: Mutex::default(),
            listening: Mutex::default(),
            config,
        })
    }

    pub(crate) fn trust(&self) -> &Trust {
        &self.config.trust
    }

    pub(crate) fn token(&self) -> u64 {
        self.token
    }

    /// Whether nothing will ever come here: it was shut down, or this process is a fork of the one it belongs to.
    fn is_shut(&self) -> bool {
        // Nothing but the mark is told; what is taken out at a shutdown lies under locks, and the end of a link tells
        // its own (`link-ended`).
        self.shut.load(Ordering::Relaxed) || self.is_forked()
    }

    fn is_forked(&self) -> bool {
        !self.epoch.is_current()
    }

    /// Has the dispatching thread, which is the one that asks, look at everything before it sleeps.
    pub(crate) fn look_again(&self) {
        self.news.store(true, Ordering::Relaxed);
    }

    /// Something is to be looked at by the dispatching thread.
    pub(crate) fn news(&self) {
        // SYNC port-news: release pairs with `take_news`.
        self.news.store(true, Ordering::Release);
        self.notify();
    }

    /// Whether there is news, which is forgotten: whoever is told looks at everything.
    fn take_news(&self) -> bool {
        // SYNC port-news: acquire pairs with `news`.
        self.news.load(Ordering::Relaxed) && self.news.swap(false, Ordering::Acquire)
    }

    fn notify(&self) {
        if self.is_forked() {
            return;
        }
        change(&self.control);
        // The counter cannot overflow in practice, and a full one is readable anyway.
        let _ = rustix::io::write(&self.control_fd, &1u64.to_ne_bytes());
    }

    fn shutdown(&self) {
        if self.is_forked() || self.shut.swap(true, Ordering::Relaxed) {
            return;
        }
        drop(lock(&self.listening).take());
        let arrivals = std::mem::take(&mut *lock(&self.arrivals));
        let roster = std::mem::replace(&mut *self.roster.write().unwrap_or_else(PoisonError::into_inner), Arc::new([]));
        for link in arrivals.iter().chain(roster.iter()) {
            // What the dispatching thread has sent goes out as far as there is space.
            link.flush();
            crash_point!("goodbye-before");
            link.disconnect(Disconnect::ShutDown);
            crash_point!("hung-up");
            link.close_sockets();
        }
        self.notify();
        self.let_go();
    }

    /// Lets go of every peer if the port was shut down, unless somebody dispatches, who then does it on leaving.
    fn let_go(&self) {
        // SYNC port-end: pairs with itself. One sets the mark and then tries the lock, the other gives the lock up and
        // then looks at the mark; with a fence between, one of them at least sees what the other did.
        fence(Ordering::SeqCst);
        if !self.shut.load(Ordering::Relaxed) || self.is_forked() {
            return;
        }
        match self.dispatcher.try_lock() {
            Ok(mut dispatcher) => dispatcher.clear(),
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner().clear(),
            Err(TryLockError::WouldBlock) => {}
        }
    }

    fn edit_roster(&self, edit: impl FnOnce(&mut Vec<Arc<Link>>)) {
        let mut roster = self.roster.write().unwrap_or_else(PoisonError::into_inner);
        let mut links = roster.to_vec();
        edit(&mut links);
        *roster = links.into();
    }
}

impl AdmitSink for PortCore {
    fn admitted(self: Arc<Self>, admitted: Admitted) {
        let link = Link::new(admitted, &self, &self.config);
        crash_point!("link-made");
        lock(&self.arrivals).push(link);
        // A shutdown that has emptied the arrivals before is seen here, by their lock, and one after finds this one
        // there.
        if self.is_shut() {
            // Not under the lock.
            let arrivals = std::mem::take(&mut *lock(&self.arrivals));
            arrivals.iter().for_each(|link| link.disconnect(Disconnect::ShutDown));
            return;
        }
        self.news();
    }
}
