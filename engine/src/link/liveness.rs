//! The peer's end, and ours.

use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};

use super::Link;
use crate::advice;
use crate::doorbell::sleep::change;
use crate::error::Disconnect;
use crate::rendezvous::{Admitted, Role, late_refusal};
use crate::sys::epoll::Epoll;
use crate::sys::socket::{self, Heard, Rung};
use crate::watcher::{self, Readiness, WatchId, Watched};

/// The descriptors of a connection. They are closed when it has ended, while the memory stays for those who hold the
/// link.
pub(super) struct Sockets {
    open: RwLock<Option<Admitted>>,
    watches: Mutex<Option<Watches>>,
    /// Held by whoever reads the socket.
    pub(super) hearing: Mutex<()>,
}

struct Watches {
    ids: Vec<WatchId>,
    _process: Arc<ProcessWatch>,
}

/// Tells the end of the peer's process: its socket may be kept open by a child that it forked.
struct ProcessWatch(Weak<Link>);

impl Watched for ProcessWatch {
    fn ready(&self, _: Readiness) {
        if let Some(link) = self.0.upgrade() {
            // A farewell that was sent before the process ended counts.
            link.hear();
            link.disconnect(Disconnect::Died);
        }
    }
}

impl Watched for Link {
    fn ready(&self, _: Readiness) {
        self.hear();
    }

    fn expired(&self, _: u64) {
        self.sweep();
    }
}

impl Sockets {
    pub(super) fn new(admitted: Admitted) -> Self {
        Self { open: RwLock::new(Some(admitted)), watches: Mutex::new(None), hearing: Mutex::new(()) }
    }

    pub(super) fn with<T>(&self, f: impl FnOnce(&Admitted) -> T) -> Option<T> {
        self.open.read().unwrap_or_else(PoisonError::into_inner).as_ref().map(f)
    }

    pub(super) fn watch(link: &Arc<Link>) {
        let process = Arc::new(ProcessWatch(Arc::downgrade(link)));
        let (on_socket, on_process) = (Arc::downgrade(link), Arc::downgrade(&process));
        let ids = link.sockets.with(|open| {
            [watcher::watch(open.socket.as_fd(), on_socket), watcher::watch(open.pidfd.as_fd(), on_process)]
        });
        let mut watching = Vec::new();
        let mut failed = None;
        for id in ids.into_iter().flatten() {
            match id {
                Ok(id) => watching.push(id),
                Err(error) => failed = Some(error),
            }
        }
        *link.sockets.watches.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(Watches { ids: watching, _process: process });
        if !link.is_connected() {
            // It ended before its watches could be found.
            link.sockets.unwatch();
        }
        if let Some(error) = failed {
            tracing::error!(link = link.id, %error, "cannot watch a peer, so its end would go unseen; disconnecting it");
            let advice = advice::about(&error);
            let text = format!("the peer cannot be watched, so that its end would go unseen: {error}{advice}");
            link.disconnect(Disconnect::NoResources(text.into()));
        }
    }

    fn unwatch(&self) {
        // Held to the end: of two threads that do this, the one that finds nothing left to do may close the descriptors.
        let mut watches = self.watches.lock().unwrap_or_else(PoisonError::into_inner);
        for id in watches.take().into_iter().flat_map(|watches| watches.ids) {
            watcher::unwatch(id);
        }
    }

    /// Rings the peer's bell; whether the ring will be heard, or nobody is left to hear it.
    pub(super) fn ring(&self) -> bool {
        match self.with(|open| socket::ring_bell(open.peer_bell.as_fd())) {
            None | Some(Ok(())) => true,
            // The next message rings again. Of a peer that is gone the watcher tells.
            Some(Err(_)) => false,
        }
    }
}

impl Link {
    /// Does as the peer says on the socket. Whether there may be more to hear.
    pub(super) fn heed(&self, heard: Heard) -> bool {
        let reason = match heard {
            Heard::Nothing => return false,
            Heard::Memory { number, kind, memory } => {
                crash_point!("descriptor-heard");
                match self.inbound.pass(number, kind, memory) {
                    Ok(()) => return true,
                    Err(text) => Disconnect::violation(text),
                }
            }
            Heard::Goodbye => Disconnect::Left,
            Heard::HangUp => Disconnect::Died,
            Heard::Cut => Disconnect::NoResources(
                "a descriptor that the peer passed could not be received; raise the limit on open files (ulimit -n)"
                    .into(),
            ),
            Heard::Other(packet) => {
                let refused = if self.role == Role::Renderer { late_refusal(&packet) } else { None };
                refused.unwrap_or_else(|| Disconnect::violation("it sent an unknown packet on the connection's socket"))
            }
        };
        self.disconnect(reason);
        false
    }

    /// Ends the connection. The first reason stands; every wait on this link ends.
    pub fn disconnect(&self, reason: Disconnect) {
        if !self.epoch.is_current() {
            return;
        }
        let farewell = reason == Disconnect::ShutDown;
        if !self.end.end(reason) {
            return;
        }
        change(&self.control);
        self.sockets.with(|open| {
            if farewell {
                socket::send_goodbye(open.socket.as_fd());
                crash_point!("goodbye-sent");
            }
            socket::hang_up(open.socket.as_fd());
        });
        // A socket that was hung up stays readable, and so does the descriptor of a process that ended.
        self.sockets.unwatch();
        if let Some(port) = self.port.upgrade() {
            port.news();
        }
    }

    /// Closes the connection's descriptors. Called once it has ended and nothing of it is to be dispatched any more.
    pub(crate) fn close_sockets(&self) {
        self.sockets.unwatch();
        let open = self.sockets.open.write().unwrap_or_else(PoisonError::into_inner).take();
        drop(open);
        self.backlog.lock().clear();
        self.unsent_answers.clear();
        self.arena.close();
        self.inbound.close();
    }

    /// Has our bell wake `epoll`, under `token`.
    pub(crate) fn add_bell_to(&self, epoll: &Epoll, token: u64) -> std::io::Result<()> {
        self.sockets.with(|open| epoll.add(open.bell.as_fd(), token)).unwrap_or(Ok(()))
    }

    /// Takes our bell out of `epoll`.
    pub(crate) fn remove_bell_from(&self, epoll: &Epoll) {
        let _ = self.sockets.with(|open| epoll.remove(open.bell.as_fd()));
    }

    /// Takes a ring out of our bell. `false` if no more will come: the end that rings it is gone, or the peer broke the
    /// protocol.
    pub(crate) fn hear_bell(&self) -> bool {
        match self.sockets.with(|open| socket::hear_bell(open.bell.as_fd())) {
            Some(Rung::Once | Rung::Not) => true,
            Some(Rung::WithDescriptors) => {
                self.disconnect(Disconnect::violation(
                    "it passed descriptors with a ring of the bell, which brings none",
                ));
                false
            }
            Some(Rung::HungUp) | None => false,
        }
    }

    /// The peer closed a socket that we share: it left, or died, or broke the protocol, which makes no difference.
    pub(crate) fn hung_up(&self) {
        self.hear();
        self.disconnect(Disconnect::Died);
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // In a forked child the connection is the parent's, and a lock may have been taken by a thread that is not
        // there any more. The descriptors were closed when it was forked.
        if self.epoch.is_current() {
            self.close_sockets();
        }
    }
}
