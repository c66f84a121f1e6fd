//! A renderer's side: one handshake, on the thread that connects.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::gate::Gate;
use super::message::{MAX_PACKET, Message, PROTOCOL_VERSION, Refusal, RefusalCode};
use super::name::{Name, NameInvalid};
use super::path::{Owner, RuntimeDir, RuntimeDirError};
use super::state::{Packet, RendererSide, Step, Welcomed};
use super::{Admitted, Role, outbox_and_bell, same_outbox, terms};
use crate::advice;
use crate::config::{Config, InvalidConfig};
use crate::error::Disconnect;
use crate::outbox::{CreateError, Limits, OutboxRejected, OwnOutbox, PeerOutbox};
use crate::sys::discard::discard;
use crate::sys::fork::ForkFd;
use crate::sys::peer_socket::{Maker, PeerSocket};
use crate::sys::pidfd;
use crate::sys::socket::{self, Cut, Received};

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The name cannot be used.
    #[error(transparent)]
    NameInvalid(#[from] NameInvalid),
    /// A setting cannot work.
    #[error(transparent)]
    ConfigInvalid(#[from] InvalidConfig),
    /// The directory of the sockets cannot be used.
    #[error(transparent)]
    RuntimeDir(#[from] RuntimeDirError),
    /// Nobody has bound the name.
    #[error("no main named {name} is running (nobody listens at {}); start it first, or check the name and the runtime directory", path.display())]
    NotRunning {
        /// The name.
        name: String,
        /// Where its socket would be.
        path: PathBuf,
    },
    /// Main did not answer in time.
    #[error(
        "main did not answer within {after:?}; it may be stopped, or have very many connections to make: continue or restart it, or try again"
    )]
    Timeout {
        /// The configured `handshake_deadline`.
        after: Duration,
    },
    /// Main closed the connection without a word.
    #[error(
        "main closed the connection during the handshake; it died, or was just shutting down: start it again, or try again"
    )]
    Closed,
    /// Main speaks another version of the protocol.
    #[error(
        "main speaks version {found} of the protocol, expected {expected}; use the same version of memit on both sides"
    )]
    VersionMismatch {
        /// Main's version.
        found: u32,
        /// Ours.
        expected: u32,
    },
    /// Main lays its outbox out in another version.
    #[error(
        "main's shared memory has layout version {found}, expected {expected}; use the same version of memit on both sides"
    )]
    LayoutMismatch {
        /// Main's version.
        found: u64,
        /// Ours.
        expected: u64,
    },
    /// Main encodes payloads in another format.
    #[error(
        "main's payload format has the fingerprint {found:#018x}, expected {expected:#018x}; build both sides with the same memit and rkyv"
    )]
    FormatMismatch {
        /// Main's fingerprint.
        found: u64,
        /// Ours.
        expected: u64,
    },
    /// Main does not admit our user.
    #[error("main does not admit this process: {text}")]
    Unauthorized {
        /// Our user id, as main sees it.
        found: u64,
        /// The user id that main would admit.
        expected: u64,
        /// Main's words.
        text: String,
    },
    /// The process that listens runs as a user that we do not trust.
    #[error("the process that listens under this name is not to be trusted: {text}")]
    UntrustedMain {
        /// Its user id.
        found: u32,
        /// The user id that was expected.
        expected: u32,
        /// What is wrong.
        text: String,
    },
    /// Main has as many connections as it may, in all or of our user.
    #[error("main takes no more connections ({found} of {limit}): {text}")]
    TooMany {
        /// How many there are.
        found: u64,
        /// How many there may be.
        limit: u64,
        /// Main's words.
        text: String,
    },
    /// Main refused for another reason.
    #[error("main refused the connection ({code:?}): {text}")]
    Refused {
        /// The kind of reason.
        code: RefusalCode,
        /// Main's words.
        text: String,
    },
    /// Main sent what the protocol does not allow.
    #[error("main broke the protocol during the handshake: {text}")]
    Protocol {
        /// What it did.
        text: String,
    },
    /// Main's outbox failed a check.
    #[error("main's shared memory cannot be accepted: {0}")]
    BadOutbox(#[from] OutboxRejected),
    /// Main's outbox is larger than we accept.
    #[error(
        "main's shared memory has {found} bytes, at most {limit} are accepted; lower its ring_capacity or raise max_peer_outbox"
    )]
    OutboxTooLarge {
        /// Its size.
        found: u64,
        /// Our `max_peer_outbox`.
        limit: u64,
    },
    /// The memory of a connection cannot be had here.
    #[error(transparent)]
    Memory(#[from] CreateError),
    /// The machine refused something else.
    #[error("cannot {action}: {source}{}", advice::about(source))]
    Io {
        /// What failed.
        action: &'static str,
        /// Why.
        source: io::Error,
    },
}

impl From<io::Error> for ConnectError {
    fn from(source: io::Error) -> Self {
        Self::Io { action: "make the endpoint", source }
    }
}

fn failed<E: Into<io::Error>>(action: &'static str) -> impl FnOnce(E) -> ConnectError {
    move |source| ConnectError::Io { action, source: source.into() }
}

/// Connects to the main of a name. `endpoint` is what main will see as `peer_endpoint`.
///
/// Waits at most for the configured deadline, and must not be called on the library's thread, on which a main of the
/// same process would have to answer.
pub(crate) fn connect(name: &str, config: &Config, endpoint: u64) -> Result<Admitted, ConnectError> {
    let deadline = Instant::now() + config.patience();
    let name = Name::new(name)?;
    let geometry = config.check()?;
    let gate = Gate::new(config);

    let socket = reach_main(&name, config, deadline)?;
    crash_point!("connected");
    let credentials = pidfd::peer_credentials(socket.as_fd()).map_err(failed("ask who listens"))?;
    gate.admit(&credentials).map_err(|stranger| ConnectError::UntrustedMain {
        found: stranger.found,
        expected: stranger.expected,
        text: stranger.to_string(),
    })?;
    let pidfd = match pidfd::peer_pidfd(socket.as_fd(), &credentials) {
        Ok(pidfd) => ForkFd::new(pidfd),
        Err(Errno::SRCH) => return Err(ConnectError::Closed),
        Err(error) => return Err(failed("watch main's process")(error)),
    };
    let line = Line { socket, pidfd, deadline, patience: config.patience() };

    let (own, own_fd) = OwnOutbox::create(geometry)?;
    let (bell, rings_it) = socket::pair().map_err(failed("make a bell"))?;
    let bell = PeerSocket::new(bell, Maker::Us);
    let ours = terms(config, geometry, endpoint);
    let side = RendererSide::new(ours, config.max_peer_outbox as u64);
    crash_point!("hello-before");
    line.send(&side.hello(), &[own_fd.as_fd(), rings_it.as_fd()])?;
    drop((own_fd, rings_it));
    crash_point!("hello-sent");
    let mut buffer = [0; MAX_PACKET];
    let (len, descriptors, cut) = line.receive(&mut buffer)?;
    crash_point!("welcome-received");
    let welcomed = match side.receive(&Packet { bytes: &buffer[..len], descriptors: descriptors.len(), cut }) {
        Step::Next(welcomed) => welcomed,
        Step::Refuse(refusal) => {
            descriptors.into_iter().for_each(discard);
            line.refuse(&refusal);
            return Err(of_our_refusal(refusal));
        }
        Step::Refused(refusal) => {
            descriptors.into_iter().for_each(discard);
            return Err(of_mains_refusal(refusal));
        }
    };
    let (peer, peer_bell) = line.take(&welcomed, descriptors, config)?;
    let Welcomed { main, renderer_id, barriers } = welcomed;
    let ready = Message::Ready { renderer_id }.to_bytes();
    crash_point!("ready-before");
    socket::send(line.socket.as_fd(), &ready, &[]).map_err(|error| match error {
        Errno::PIPE | Errno::CONNRESET => ConnectError::Closed,
        error => failed("send Ready")(error),
    })?;
    crash_point!("ready-sent");
    Ok(Admitted {
        role: Role::Renderer,
        own,
        peer,
        socket: line.socket,
        bell,
        peer_bell,
        pidfd: line.pidfd,
        credentials,
        renderer_id,
        peer_endpoint: main.endpoint,
        payloads: main.payloads,
        incoming: barriers.renderer_sleeps,
        outgoing: barriers.main_sleeps,
        _seat: None,
    })
}

/// A connected socket, before anything was said.
fn reach_main(name: &Name, config: &Config, deadline: Instant) -> Result<PeerSocket, ConnectError> {
    // With a hook, the listening process itself is judged by it. The directory is private to its owner then too, so
    // nobody but that user, and root, can have put a socket there.
    let owner = if config.authorize.is_some() { Owner::Anyone } else { Owner::Us };
    let not_running = |path| ConnectError::NotRunning { name: name.to_string(), path };
    let dir = RuntimeDir::open_existing(config, owner)?.map_err(|path| not_running(path.join(name.socket())))?;
    let address = dir.address(&name.socket()).map_err(failed("address the socket"))?;
    let socket = PeerSocket::new(socket::seqpacket(true).map_err(failed("make a socket"))?, Maker::Us);
    loop {
        let remaining = deadline.saturating_duration_since(Instant::now());
        match socket::connect(socket.as_fd(), &address, remaining) {
            Ok(()) => return Ok(socket),
            Err(Errno::INTR) if !remaining.is_zero() => {}
            Err(Errno::INTR | Errno::AGAIN) => return Err(ConnectError::Timeout { after: config.patience() }),
            Err(Errno::NOENT | Errno::CONNREFUSED) => return Err(not_running(dir.path_of(&name.socket()))),
            Err(error) => return Err(failed("connect to the socket")(error)),
        }
    }
}

/// The connection while it is being established.
struct Line {
    socket: PeerSocket,
    pidfd: ForkFd,
    deadline: Instant,
    patience: Duration,
}

impl Line {
    fn send(&self, message: &Message, descriptors: &[BorrowedFd<'_>]) -> Result<(), ConnectError> {
        match socket::send(self.socket.as_fd(), &message.to_bytes(), descriptors) {
            // Main may have refused already; what it said is there to be read.
            Ok(()) | Err(Errno::PIPE | Errno::CONNRESET) => Ok(()),
            Err(error) => Err(failed("send Hello")(error)),
        }
    }

    /// Waits for one packet.
    fn receive(&self, buffer: &mut [u8]) -> Result<(usize, Vec<OwnedFd>, Cut), ConnectError> {
        let mut was_reset = false;
        loop {
            let main_has_ended = self.main_has_ended()?;
            match socket::receive(self.socket.as_fd(), buffer) {
                Ok(Received::Packet { len, descriptors, cut }) => return Ok((len, descriptors, cut)),
                Ok(Received::HangUp) => return Err(ConnectError::Closed),
                // Our Hello was not read, and is reported first. A refusal may be queued behind it.
                Err(Errno::CONNRESET) if !was_reset => was_reset = true,
                Err(Errno::CONNRESET | Errno::PIPE) => return Err(ConnectError::Closed),
                Err(error) => return Err(failed("receive from main")(error)),
                // Its socket may be held open by a child that it forked.
                Ok(Received::Nothing) if main_has_ended => return Err(ConnectError::Closed),
                Ok(Received::Nothing) => self.wait()?,
            }
        }
    }

    fn wait(&self) -> Result<(), ConnectError> {
        let remaining = self.deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(remaining).unwrap_or_default();
        let mut ends = [PollFd::new(&self.socket, PollFlags::IN), PollFd::new(&self.pidfd, PollFlags::IN)];
        match poll(&mut ends, Some(&timeout)) {
            Ok(0) => Err(ConnectError::Timeout { after: self.patience }),
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(failed("wait for main")(error)),
        }
    }

    fn main_has_ended(&self) -> Result<bool, ConnectError> {
        let mut ends = [PollFd::new(&self.pidfd, PollFlags::IN)];
        match poll(&mut ends, Some(&Timespec::default())) {
            Ok(ready) => Ok(ready != 0),
            Err(Errno::INTR) => Ok(false),
            Err(error) => Err(failed("look at main's process")(error)),
        }
    }

    /// Checks what came with Welcome.
    fn take(
        &self,
        welcomed: &Welcomed,
        descriptors: Vec<OwnedFd>,
        config: &Config,
    ) -> Result<(Arc<PeerOutbox>, PeerSocket), ConnectError> {
        let broke_the_protocol = |refusal: Refusal| {
            let text = refusal.text.clone();
            (refusal, ConnectError::Protocol { text })
        };
        outbox_and_bell(descriptors)
            .map_err(broke_the_protocol)
            .and_then(|(outbox, bell)| {
                let peer = PeerOutbox::accept(outbox, Limits { max_size: config.max_peer_outbox })
                    .map_err(|error| (Refusal::of_outbox(&error), ConnectError::from(error)))?;
                same_outbox(&welcomed.main, &peer).map_err(broke_the_protocol)?;
                Ok((peer, bell))
            })
            .map_err(|(refusal, error)| {
                self.refuse(&refusal);
                error
            })
    }

    fn refuse(&self, refusal: &Refusal) {
        // Whether it arrives or not, closing tells main enough.
        let _ = socket::send(self.socket.as_fd(), &Message::Refuse(refusal.clone()).to_bytes(), &[]);
    }
}

/// Main refused: its `found` is what we have, and its `expected` what it has.
fn of_mains_refusal(refusal: Refusal) -> ConnectError {
    let Refusal { protocol, code, found, expected, .. } = refusal;
    let text = refusal.to_string();
    match code {
        RefusalCode::Version => ConnectError::VersionMismatch { found: protocol, expected: PROTOCOL_VERSION },
        RefusalCode::Layout => ConnectError::LayoutMismatch { found: expected, expected: found },
        RefusalCode::Format => ConnectError::FormatMismatch { found: expected, expected: found },
        RefusalCode::Unauthorized => ConnectError::Unauthorized { found, expected, text },
        RefusalCode::TooMany | RefusalCode::TooManyOfUser => ConnectError::TooMany { found, limit: expected, text },
        code => ConnectError::Refused { code, text },
    }
}

/// We refused main.
fn of_our_refusal(refusal: Refusal) -> ConnectError {
    let Refusal { code, found, expected, text, .. } = refusal;
    let version = |number: u64| number.try_into().unwrap_or(u32::MAX);
    match code {
        RefusalCode::Version => ConnectError::VersionMismatch { found: version(found), expected: version(expected) },
        RefusalCode::Layout => ConnectError::LayoutMismatch { found, expected },
        RefusalCode::Format => ConnectError::FormatMismatch { found, expected },
        RefusalCode::BadOutbox => ConnectError::OutboxTooLarge { found, limit: expected },
        RefusalCode::NoResources => failed("receive main's descriptors")(Errno::MFILE),
        _ => ConnectError::Protocol { text },
    }
}

/// What a packet says that came instead of a farewell, once this side had said that it is ready: main has ended the
/// handshake meanwhile. `None` if it says something else.
pub(crate) fn late_refusal(packet: &[u8]) -> Option<Disconnect> {
    match Message::parse(packet) {
        Ok(Message::Refuse(refusal)) if refusal.code == RefusalCode::ShuttingDown => Some(Disconnect::Left),
        Ok(Message::Refuse(refusal)) => Some(Disconnect::Refused(refusal.to_string().into())),
        _ => None,
    }
}
