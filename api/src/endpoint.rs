//! One end of any number of connections: what main and renderer have in common.

use std::{
    mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, TryLockError,
        atomic::{Ordering, fence},
    },
    time::{Duration, Instant},
};

use memit_engine::{Disconnect, Dispatch, Port, Role, Wakeup};

use crate::{
    Emitter, RunError,
    emitter::{
        Callback,
        dispatch::{Dispatcher, Peers},
        table::Table,
    },
    outgoing::Outgoing,
};

/// How many messages are dispatched between two looks at whether to go on.
const BATCH: usize = 1024;

/// An endpoint. The handles share it; with the last of them it ends.
#[derive(Debug)]
pub(crate) struct Endpoint {
    emitter: Emitter,
    outgoing: Arc<Outgoing>,
    /// Locked by whoever dispatches, for as long.
    peers: Mutex<Peers>,
}

impl Endpoint {
    pub(crate) fn new(port: Port) -> Self {
        Self { emitter: Emitter::new(port), outgoing: Arc::default(), peers: Mutex::default() }
    }

    pub(crate) fn emitter(&self) -> &Emitter {
        &self.emitter
    }

    pub(crate) fn port(&self) -> &Port {
        self.emitter.port()
    }

    pub(crate) fn outgoing(&self) -> &Arc<Outgoing> {
        &self.outgoing
    }

    pub(crate) fn run(&self) -> Result<(), RunError> {
        let mut turn = match self.turn() {
            Err(RunError::ShutDown) => return Ok(()),
            turn => turn?,
        };
        loop {
            if turn.step() > 0 {
                continue;
            }
            match turn.end() {
                None => {}
                Some(RunError::ShutDown | RunError::Disconnected(Disconnect::Left)) => return Ok(()),
                Some(error) => return Err(error),
            }
            turn.dispatch.wait(None);
        }
    }

    pub(crate) fn run_once(&self, timeout: Duration) -> Result<usize, RunError> {
        let mut turn = self.turn()?;
        // The clock is read only by who waits. A deadline that no clock can show is none.
        let mut deadline = None;
        loop {
            let handled = turn.step();
            if handled > 0 {
                return Ok(handled);
            }
            if let Some(error) = turn.end() {
                return Err(error);
            }
            let deadline = *deadline.get_or_insert_with(|| Instant::now().checked_add(timeout));
            if turn.dispatch.wait(deadline) == Wakeup::TimedOut {
                return Ok(turn.step());
            }
        }
    }

    pub(crate) fn poll(&self) -> Result<usize, RunError> {
        let mut turn = self.turn()?;
        match turn.step() {
            0 => turn.end().map_or(Ok(0), Err),
            handled => Ok(handled),
        }
    }

    /// Ends the endpoint; does nothing in a forked child, whose endpoint it is not.
    pub(crate) fn shutdown(&self) {
        let Some(registry) = self.emitter.ours() else { return };
        self.port().shutdown();
        self.forget_peers();
        // Last, for it drops listeners, which may panic.
        registry.close();
    }

    /// Drops what is known of the peers after a shutdown, unless somebody dispatches, who then does it on leaving.
    fn forget_peers(&self) {
        // SYNC endpoint-end: pairs with itself. One sets the mark and then tries the lock, the other gives the lock up
        // and then looks at the mark; with a fence between, one of them at least sees what the other did.
        fence(Ordering::SeqCst);
        if !self.port().is_shut_down() {
            return;
        }
        match self.peers.try_lock() {
            Ok(mut peers) => peers.clear(),
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner().clear(),
            Err(TryLockError::WouldBlock) => {}
        }
    }

    fn turn(&self) -> Result<Turn<'_>, RunError> {
        let registry = self.emitter.ours().ok_or(RunError::Forked)?;
        let busy = |busy| if self.port().is_shut_down() { RunError::ShutDown } else { RunError::Busy(busy) };
        let dispatch = self.port().dispatch().map_err(busy)?;
        let peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        let table = registry.take().ok_or(memit_engine::Busy).map_err(busy)?;
        Ok(Turn { held: Some((table, peers)), dispatch, endpoint: self })
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        if self.port().is_forked() {
            // Threads of the parent may have left anything here half done, and the listeners' drops are theirs.
            self.emitter.leak();
            mem::forget(Arc::clone(&self.outgoing));
            mem::forget(mem::take(self.peers.get_mut().unwrap_or_else(PoisonError::into_inner)));
            return;
        }
        self.shutdown();
    }
}

/// The right to dispatch, and all that it takes.
struct Turn<'t> {
    /// Until the turn is given up.
    held: Option<(Box<Table<Callback>>, MutexGuard<'t, Peers>)>,
    dispatch: Dispatch<'t>,
    endpoint: &'t Endpoint,
}

impl Turn<'_> {
    /// Dispatches what is there, without waiting. Returns how many messages, arrivals and departures that were.
    fn step(&mut self) -> usize {
        let Some((table, peers)) = &mut self.held else { return 0 };
        drop(self.endpoint.emitter.refresh(table));
        let mut dispatcher =
            Dispatcher { emitter: &self.endpoint.emitter, outgoing: &self.endpoint.outgoing, table, peers, handled: 0 };
        self.dispatch.poll(BATCH, &mut dispatcher);
        dispatcher.handled
    }

    /// Why nothing will ever arrive any more, if that is so.
    fn end(&self) -> Option<RunError> {
        let port = self.endpoint.port();
        if port.is_forked() {
            return Some(RunError::Forked);
        }
        if port.is_shut_down() {
            return Some(RunError::ShutDown);
        }
        match self.held.as_ref().and_then(|(_, peers)| peers.last_end.as_ref()) {
            Some(reason) if port.role() == Role::Renderer => Some(RunError::Disconnected(reason.clone())),
            _ => None,
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let Some((table, peers)) = self.held.take() else { return };
        let Some(registry) = self.endpoint.emitter.ours() else {
            // A listener forked, and this is the child.
            mem::forget(table);
            return;
        };
        let removed = registry.give_back(table);
        drop(peers);
        self.endpoint.forget_peers();
        // Last: listeners that go may panic, or shut the endpoint down.
        drop(removed);
    }
}

#[cfg(test)]
mod tests {
    use std::{fs::Permissions, os::unix::fs::PermissionsExt};

    use super::*;
    use crate::{Channel, IpcRenderer};

    const NOTE: Channel<str> = Channel::new("note");

    /// Shuts the endpoint down when it is dropped.
    struct Ends(std::sync::Weak<Endpoint>);

    impl Drop for Ends {
        fn drop(&mut self) {
            if let Some(endpoint) = self.0.upgrade() {
                endpoint.shutdown();
            }
        }
    }

    #[test]
    fn a_shutdown_while_a_turn_is_given_up_leaves_nothing_of_the_peers() {
        let directory = tempfile::Builder::new().permissions(Permissions::from_mode(0o700)).tempdir().unwrap();
        let config = |mut config: memit_engine::Config| {
            config.format_fingerprint = crate::message::format_fingerprint();
            config.runtime_dir = Some(directory.path().to_owned());
            config
        };
        let main = Arc::new(Endpoint::new(Port::bind("app", config(memit_engine::Config::default())).unwrap()));
        let ends = Ends(Arc::downgrade(&main));
        let ending = main.emitter().on(NOTE, move |_, _| {
            let _ends = &ends;
        });
        main.emitter().on(NOTE, move |event, _| {
            event.emitter().off(ending);
        });
        let renderer = IpcRenderer::builder().runtime_dir(directory.path()).connect("app").unwrap();
        renderer.send(NOTE, "last").unwrap();
        while !main.port().is_shut_down() {
            assert_ne!(main.run_once(Duration::from_secs(30)), Ok(0), "nothing came");
        }
        assert!(main.peers.lock().unwrap().is_empty());
        assert!(main.emitter().event_names().is_empty());
    }
}
