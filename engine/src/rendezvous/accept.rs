//! Main's side of every handshake, on the library's thread.
//!
//! Nothing here waits for a client: a half-open handshake is a socket that is watched, and a deadline. When as many
//! are open as may be, accepting pauses, and the queue of the listening socket holds the others back; should they find
//! all places held by clients that make no progress, the eldest of these gives way, well before its deadline.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};
use std::{fmt, io};

use rustix::io::Errno;

use super::gate::Gate;
use super::message::{MAX_PACKET, Message, Refusal, RefusalCode, Terms};
use super::name::Name;
use super::payloads::PayloadTerms;
use super::seats::{Seat, Seats};
use super::state::{Barriers, FromRenderer, MainSide, Packet, Step};
use super::{Admitted, Role, outbox_and_bell, same_outbox, terms};
use crate::config::{Config, Credentials};
use crate::outbox::{Geometry, Limits, OwnOutbox, PeerOutbox};
use crate::sys::discard::{self, discard};
use crate::sys::fork::{Epoch, ForkFd};
use crate::sys::listener::Listener;
use crate::sys::peer_socket::{Maker, PeerSocket};
use crate::sys::socket::{self, Received};
use crate::sys::{epoll, pidfd};
use crate::watcher::{self, Readiness, TimerId, WatchId, Watched};

/// Takes in connections whose handshakes are complete.
pub(crate) trait AdmitSink: Send + Sync {
    /// Called on the library's thread; must not wait.
    fn admitted(self: Arc<Self>, admitted: Admitted);
}

/// The token of the listening socket and of its pause; those of half-open handshakes follow.
const LISTENER: u64 = 0;

/// Connections taken from the queue before other sockets get their turn.
const BATCH: usize = 16;

/// How long accepting rests when the process is out of descriptors or memory.
const BACK_OFF: Duration = Duration::from_millis(100);

/// A listening socket, and the handshakes of those who came to it.
#[derive(Debug)]
pub(super) struct Acceptor {
    socket: Listener,
    me: Weak<Acceptor>,
    epoch: Epoch,
    name: Name,
    gate: Gate,
    terms: Terms,
    geometry: Geometry,
    max_peer_outbox: usize,
    max_half_open: usize,
    patience: Duration,
    seats: Arc<Seats>,
    sink: SinkHandle,
    state: Mutex<State>,
}

struct SinkHandle(Weak<dyn AdmitSink>);

impl fmt::Debug for SinkHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AdmitSink")
    }
}

#[derive(Debug, Default)]
struct State {
    closed: bool,
    /// `None` while accepting rests.
    watch: Option<WatchId>,
    /// When it goes on at the latest.
    resume: Option<TimerId>,
    half_open: HashMap<u64, HalfOpen>,
    last_token: u64,
    last_renderer: u64,
    /// The shortage that made accepting rest has been told to the log.
    shortage_is_known: bool,
}

/// A handshake that is going on.
#[derive(Debug)]
struct HalfOpen {
    attention: Attention,
    pidfd: ForkFd,
    credentials: Credentials,
    side: MainSide,
    offer: Option<Offer>,
    // Last: it is not watched any more when it is closed, and when the client sees the end, all else is gone.
    socket: PeerSocket,
}

/// What main has sent with its Welcome.
#[derive(Debug)]
struct Offer {
    own: Arc<OwnOutbox>,
    peer: Arc<PeerOutbox>,
    bell: PeerSocket,
    peer_bell: PeerSocket,
    seat: Seat,
    renderer_id: u64,
    peer_endpoint: u64,
    payloads: PayloadTerms,
    barriers: Barriers,
}

/// The watcher's interest in a handshake; ends when it is dropped.
#[derive(Debug)]
struct Attention {
    watch: WatchId,
    deadline: TimerId,
}

impl Drop for Attention {
    fn drop(&mut self) {
        watcher::unwatch(self.watch);
        watcher::cancel_timer(self.deadline);
    }
}

impl Acceptor {
    pub(super) fn new(
        name: &Name,
        config: &Config,
        geometry: Geometry,
        endpoint: u64,
        socket: Listener,
        sink: Weak<dyn AdmitSink>,
    ) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            socket,
            me: Weak::clone(me),
            epoch: Epoch::current(),
            name: name.clone(),
            gate: Gate::new(config),
            terms: terms(config, geometry, endpoint),
            geometry,
            max_peer_outbox: config.max_peer_outbox,
            max_half_open: config.max_half_open,
            patience: config.patience(),
            seats: Seats::new(config.max_connections, config.max_connections_per_uid),
            sink: SinkHandle(sink),
            state: Mutex::default(),
        })
    }

    /// Whether this is the process that made it, not a fork of it.
    pub(super) fn is_current(&self) -> bool {
        self.epoch.is_current()
    }

    #[cfg(test)]
    pub(super) fn is_short_of_descriptors(&self) -> bool {
        self.lock().shortage_is_known
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn target(&self) -> Weak<dyn Watched> {
        // Annotated, since the coercion has to come after the clone.
        let me: Weak<Self> = Weak::clone(&self.me);
        me
    }

    /// Starts accepting, or goes on.
    pub(super) fn begin(&self) -> io::Result<()> {
        // Under the lock, so that the first event finds the watch.
        let mut state = self.lock();
        if let Some(timer) = state.resume.take() {
            watcher::cancel_timer(timer);
        }
        if state.closed || state.watch.is_some() {
            return Ok(());
        }
        match watcher::watch_as(self.socket.as_fd(), self.target(), LISTENER) {
            Ok(watch) => {
                state.watch = Some(watch);
                Ok(())
            }
            Err(error) => {
                Self::rest_until(&mut state, self.target(), Instant::now() + BACK_OFF);
                Err(error)
            }
        }
    }

    fn go_on(&self) {
        if let Err(error) = self.begin() {
            tracing::warn!(%error, name = %self.name, "cannot accept connections now; trying again soon");
        }
    }

    /// Stops accepting for a while. The kernel queues who comes meanwhile.
    fn rest_until(state: &mut State, target: Weak<dyn Watched>, until: Instant) {
        if let Some(watch) = state.watch.take() {
            watcher::unwatch(watch);
        }
        if let Some(timer) = state.resume.take() {
            watcher::cancel_timer(timer);
        }
        // It fails only without a watcher, and then nothing is being accepted anyway.
        state.resume = watcher::set_timer(until, target, LISTENER).ok();
    }

    /// Refuses who is half-way, and accepts nobody more.
    pub(super) fn close(&self) {
        let half_open = {
            let mut state = self.lock();
            state.closed = true;
            if let Some(watch) = state.watch.take() {
                watcher::unwatch(watch);
            }
            if let Some(timer) = state.resume.take() {
                watcher::cancel_timer(timer);
            }
            std::mem::take(&mut state.half_open)
        };
        for handshake in half_open.into_values() {
            self.refuse(&handshake.socket, &Refusal::new(RefusalCode::ShuttingDown, 0, 0, "main is shutting down"));
        }
    }

    fn accept_some(&self) {
        for _ in 0..BATCH {
            if !self.has_room(Instant::now()) {
                return;
            }
            if discard::is_behind() {
                return self.back_off(
                    || tracing::warn!(name = %self.name, "accepting no connections until what peers have sent is closed"),
                );
            }
            match socket::accept(self.socket.as_fd()) {
                Ok(socket) => {
                    self.lock().shortage_is_known = false;
                    self.greet(socket);
                }
                Err(Errno::AGAIN) => return,
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(error) => {
                    return self.back_off(|| {
                        tracing::warn!(%error, name = %self.name, "cannot accept connections; raise the limit on open files (ulimit -n), or close some");
                    });
                }
            }
        }
    }

    /// Whether one more handshake may begin. If all places are held by clients that make no progress, the eldest
    /// gives way; else accepting rests until that could be.
    fn has_room(&self, now: Instant) -> bool {
        let mut state = self.lock();
        if state.closed {
            return false;
        }
        if state.half_open.len() < self.max_half_open {
            return true;
        }
        let eldest = state.half_open.iter().map(|(token, handshake)| (handshake.side.gives_way_from(), *token)).min();
        let Some((gives_way, token)) = eldest else { return true };
        if !epoll::is_readable(self.socket.as_fd()) {
            // Nobody waits for the place.
            return false;
        }
        if gives_way > now {
            Self::rest_until(&mut state, self.target(), gives_way);
            return false;
        }
        let evicted = state.half_open.remove(&token);
        drop(state);
        if let Some(evicted) = evicted {
            self.refuse(&evicted.socket, &evicted.side.expired(now));
        }
        true
    }

    /// Rests, and says why unless that is known.
    fn back_off(&self, say: impl FnOnce()) {
        let mut state = self.lock();
        let was_known = std::mem::replace(&mut state.shortage_is_known, true);
        if !state.closed {
            Self::rest_until(&mut state, self.target(), Instant::now() + BACK_OFF);
        }
        drop(state);
        if !was_known {
            say();
        }
    }

    /// Looks at who has come, and begins a handshake.
    fn greet(&self, socket: OwnedFd) {
        let socket = PeerSocket::new(socket, Maker::Us);
        crash_point!("accepted");
        let Ok(credentials) = pidfd::peer_credentials(socket.as_fd()) else { return };
        if let Err(stranger) = self.gate.admit(&credentials) {
            return self.refuse(&socket, &stranger.into());
        }
        let pidfd = match pidfd::peer_pidfd(socket.as_fd(), &credentials) {
            Ok(pidfd) => ForkFd::new(pidfd),
            // It has ended already.
            Err(Errno::SRCH) => return,
            Err(error) => return self.refuse(&socket, &no_resources("watch the renderer's process", &error)),
        };
        let side = MainSide::new(self.terms, self.max_peer_outbox as u64, Instant::now(), self.patience);
        let mut state = self.lock();
        if state.closed {
            return;
        }
        state.last_token += 1;
        let token = state.last_token;
        let begun =
            watcher::watch_as(socket.as_fd(), self.target(), token).and_then(|watch| {
                match watcher::set_timer(side.deadline(), self.target(), token) {
                    Ok(deadline) => Ok(Attention { watch, deadline }),
                    Err(error) => {
                        watcher::unwatch(watch);
                        Err(error)
                    }
                }
            });
        match begun {
            Ok(attention) => {
                let handshake = HalfOpen { attention, socket, pidfd, credentials, side, offer: None };
                state.half_open.insert(token, handshake);
            }
            Err(error) => {
                drop(state);
                self.refuse(&socket, &no_resources("watch the connection", &error));
            }
        }
    }

    /// Reads at most one packet of a handshake and acts on it. While it is dealt with here, the handshake is in
    /// nobody else's reach.
    fn converse(&self, token: u64) {
        let Some(mut handshake) = self.lock().half_open.remove(&token) else { return };
        let mut buffer = [0; MAX_PACKET];
        let (len, descriptors, cut) = match socket::receive(handshake.socket.as_fd(), &mut buffer) {
            Ok(Received::Packet { len, descriptors, cut }) => (len, descriptors, cut),
            Ok(Received::Nothing) => return self.put_back(token, handshake),
            Ok(Received::HangUp) | Err(_) => {
                tracing::debug!(name = %self.name, peer = ?handshake.credentials, "a client left during its handshake");
                drop(handshake);
                return self.go_on();
            }
        };
        let packet = Packet { bytes: &buffer[..len], descriptors: descriptors.len(), cut };
        let outcome = match handshake.side.receive(&packet, Instant::now()) {
            Step::Next(FromRenderer::Hello(terms)) => {
                crash_point!("hello-received");
                match self.offer(&mut handshake, terms, descriptors) {
                    Ok(()) => return self.put_back(token, handshake),
                    Err(refusal) => Err(Some(refusal)),
                }
            }
            step => {
                descriptors.into_iter().for_each(discard);
                match step {
                    Step::Next(_) => Ok(()),
                    Step::Refuse(refusal) => Err(Some(refusal)),
                    Step::Refused(refusal) => {
                        tracing::debug!(name = %self.name, peer = ?handshake.credentials, code = ?refusal.code, %refusal, "a renderer refused the connection");
                        Err(None)
                    }
                }
            }
        };
        match outcome {
            Ok(()) => {
                crash_point!("ready-received");
                self.admit(handshake);
            }
            Err(Some(refusal)) => self.refuse(&handshake.socket, &refusal),
            Err(None) => drop(handshake),
        }
        self.go_on();
    }

    fn put_back(&self, token: u64, handshake: HalfOpen) {
        let mut state = self.lock();
        if state.closed {
            drop(state);
            return self
                .refuse(&handshake.socket, &Refusal::new(RefusalCode::ShuttingDown, 0, 0, "main is shutting down"));
        }
        state.half_open.insert(token, handshake);
    }

    /// Answers a good Hello: takes the renderer's outbox and bell, and only then makes main's.
    fn offer(&self, handshake: &mut HalfOpen, theirs: Terms, descriptors: Vec<OwnedFd>) -> Result<(), Refusal> {
        let (outbox, peer_bell) = outbox_and_bell(descriptors)?;
        let seat = match self.seats.take(handshake.credentials.uid) {
            Ok(seat) => seat,
            Err(refusal) => {
                discard(outbox);
                return Err(refusal);
            }
        };
        let peer = PeerOutbox::accept(outbox, Limits { max_size: self.max_peer_outbox })
            .map_err(|error| Refusal::of_outbox(&error))?;
        same_outbox(&theirs, &peer)?;
        let (own, own_fd) = OwnOutbox::create(self.geometry).map_err(|error| no_resources("make an outbox", &error))?;
        let (bell, rings_it) = socket::pair().map_err(|error| no_resources("make a bell", &error))?;
        let renderer_id = {
            let mut state = self.lock();
            state.last_renderer += 1;
            state.last_renderer
        };
        let Some((welcome, barriers)) = handshake.side.welcome(renderer_id) else {
            return Err(Refusal::new(RefusalCode::BadMessage, 0, 0, "no Hello is to be answered"));
        };
        crash_point!("welcome-before");
        socket::send(handshake.socket.as_fd(), &welcome.to_bytes(), &[own_fd.as_fd(), rings_it.as_fd()])
            .map_err(|error| no_resources("send Welcome", &error))?;
        crash_point!("welcome-sent");
        let Terms { endpoint: peer_endpoint, payloads, .. } = theirs;
        let bell = PeerSocket::new(bell, Maker::Us);
        handshake.offer =
            Some(Offer { own, peer, bell, peer_bell, seat, renderer_id, peer_endpoint, payloads, barriers });
        Ok(())
    }

    fn admit(&self, handshake: HalfOpen) {
        let HalfOpen { attention, socket, pidfd, credentials, offer, .. } = handshake;
        // Before whoever gets the socket watches it.
        drop(attention);
        let Some(Offer { own, peer, bell, peer_bell, seat, renderer_id, peer_endpoint, payloads, barriers }) = offer
        else {
            return;
        };
        let Some(sink) = self.sink.0.upgrade() else { return };
        sink.admitted(Admitted {
            role: Role::Main,
            own,
            peer,
            socket,
            bell,
            peer_bell,
            pidfd,
            credentials,
            renderer_id,
            peer_endpoint,
            payloads,
            incoming: barriers.main_sleeps,
            outgoing: barriers.renderer_sleeps,
            _seat: Some(seat),
        });
    }

    /// Tells a client why it is not wanted.
    fn refuse(&self, socket: &PeerSocket, refusal: &Refusal) {
        tracing::debug!(name = %self.name, code = ?refusal.code, %refusal, "refused a connection");
        let _ = socket::send(socket.as_fd(), &Message::Refuse(refusal.clone()).to_bytes(), &[]);
    }
}

impl Watched for Acceptor {
    fn ready(&self, events: Readiness) {
        match events.token {
            LISTENER => self.accept_some(),
            token => self.converse(token),
        }
    }

    fn expired(&self, token: u64) {
        if token == LISTENER {
            self.lock().resume = None;
            return self.go_on();
        }
        let Some(handshake) = self.lock().half_open.remove(&token) else { return };
        self.refuse(&handshake.socket, &handshake.side.expired(Instant::now()));
        drop(handshake);
        self.go_on();
    }
}

fn no_resources(action: &str, error: &dyn std::error::Error) -> Refusal {
    Refusal::new(RefusalCode::NoResources, 0, 0, format!("main could not {action}: {error}"))
}
