//! A bound name: the files that make it, and their end.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use rustix::fs::{AtFlags, Mode, chmodat};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::accept::{Acceptor, AdmitSink};
use super::lock::{LockError, NameLock};
use super::name::{Name, NameInvalid};
use super::path::{RuntimeDir, RuntimeDirError};
use crate::advice;
use crate::config::{Config, InvalidConfig};
use crate::outbox::{CreateError, OwnOutbox};
use crate::sys::fork::ForkFd;
use crate::sys::listener::Listener;
use crate::sys::socket;

/// Why a name was not bound.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// The name cannot be used.
    #[error(transparent)]
    NameInvalid(#[from] NameInvalid),
    /// A setting cannot work.
    #[error(transparent)]
    ConfigInvalid(#[from] InvalidConfig),
    /// The directory of the sockets cannot be used.
    #[error(transparent)]
    RuntimeDir(#[from] RuntimeDirError),
    /// Another endpoint has the name.
    #[error("the name {name} is taken{}; choose another, or end that process", by_whom(*.holder))]
    NameTaken {
        /// The name.
        name: String,
        /// The process that holds it, as its lock file tells.
        holder: Option<u32>,
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

fn by_whom(holder: Option<u32>) -> String {
    holder.map_or_else(String::new, |pid| format!(" by process {pid}"))
}

impl From<io::Error> for BindError {
    fn from(source: io::Error) -> Self {
        Self::Io { action: "make the endpoint", source }
    }
}

/// A bound name. When it is dropped the name is free again, and half-open handshakes are refused.
#[derive(Debug)]
pub(crate) struct Listening {
    acceptor: Arc<Acceptor>,
    dir: RuntimeDir,
    socket: SocketFile,
    // Last, so that the name is free when all else is gone.
    lock: NameLock,
}

#[derive(Debug)]
struct SocketFile {
    name: String,
    device_and_inode: (u64, u64),
}

impl Listening {
    /// Binds a name; `sink` gets its connections. `endpoint` is what renderers will see as `peer_endpoint`.
    pub(crate) fn bind(
        name: &str,
        config: &Config,
        endpoint: u64,
        sink: Weak<dyn AdmitSink>,
    ) -> Result<Self, BindError> {
        let name = Name::new(name)?;
        let geometry = config.check()?;
        raise_descriptor_limit();
        // Not for the first renderer to find out that this machine cannot seal memory.
        drop(OwnOutbox::create(geometry)?);
        let dir = RuntimeDir::open_or_create(config)?;
        let lock = NameLock::take(&dir, &name).map_err(|error| match error {
            LockError::Taken { holder } => BindError::NameTaken { name: name.to_string(), holder },
            LockError::Io(source) => dir.refuses("lock the name in", source).into(),
        })?;
        crash_point!("bind-leftovers-before");
        dir.remove_leftovers(&name).map_err(|source| dir.refuses("remove what earlier binders left in", source))?;
        let (listener, socket) =
            open_socket(&dir, &name).map_err(|source| dir.refuses("bind the socket in", source))?;
        let acceptor = Acceptor::new(&name, config, geometry, endpoint, listener, sink);
        let listening = Self { acceptor, dir, socket, lock };
        crash_point!("bind-before-accepting");
        listening.acceptor.begin().map_err(|source| BindError::Io { action: "watch the socket", source })?;
        Ok(listening)
    }
}

#[cfg(test)]
impl Listening {
    pub(super) fn is_short_of_descriptors(&self) -> bool {
        self.acceptor.is_short_of_descriptors()
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        // In a forked child nothing of this is its own.
        if !self.acceptor.is_current() {
            return;
        }
        let is_ours = self.lock.is_ours(&self.dir)
            && self
                .dir
                .stat(&self.socket.name)
                .is_ok_and(|stat| (stat.st_dev, stat.st_ino) == self.socket.device_and_inode);
        crash_point!("unlink-before");
        if is_ours && let Err(error) = self.dir.unlink(&self.socket.name) {
            tracing::warn!(%error, socket = self.socket.name, "cannot remove a socket; the next bind of the name will replace it");
        }
        crash_point!("unlink-after");
        self.acceptor.close();
        crash_point!("acceptor-closed");
    }
}

/// Binds and listens under a temporary name, then renames: whoever finds the name can connect to it. The caller
/// holds the name's lock.
fn open_socket(dir: &RuntimeDir, name: &Name) -> io::Result<(Listener, SocketFile)> {
    /// The kernel cuts it to net.core.somaxconn.
    const BACKLOG: i32 = 4096;
    let listener = Listener::new(ForkFd::new(socket::seqpacket(false)?));
    let temporary = name.temporary()?;
    rustix::net::bind(&listener, &dir.address(&temporary)?)?;
    crash_point!("bind-socket-bound");
    let finish = || -> Result<SocketFile, Errno> {
        // Connecting takes write permission, which the process's umask may have taken away.
        chmodat(dir, &temporary, Mode::RUSR | Mode::WUSR, AtFlags::empty())?;
        crash_point!("bind-mode-set");
        rustix::net::listen(&listener, BACKLOG)?;
        crash_point!("bind-listening");
        let stat = dir.stat(&temporary)?;
        dir.rename(&temporary, &name.socket())?;
        crash_point!("bind-renamed");
        Ok(SocketFile { name: name.socket(), device_and_inode: (stat.st_dev, stat.st_ino) })
    };
    match finish() {
        Ok(file) => Ok((listener, file)),
        Err(error) => {
            let _ = dir.unlink(&temporary);
            Err(error.into())
        }
    }
}

/// Lets this process open as many descriptors as it may: each connection takes a few.
fn raise_descriptor_limit() {
    static RAISED: AtomicBool = AtomicBool::new(false);
    if RAISED.swap(true, Ordering::Relaxed) {
        return;
    }
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
    {
        tracing::debug!(%error, ?current, ?maximum, "cannot raise the limit on open files");
    }
}
