//! One end of any number of connections: what main and renderer have in common.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError},
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
        let mut turn = self.turn()?;
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

    pub(crate) fn shutdown(&self) {
        self.port().shutdown();
        self.emitter.registry().close();
        // Whoever dispatches holds the peers, and clears them when it ends.
        match self.peers.try_lock() {
            Ok(mut peers) => peers.clear(),
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner().clear(),
            Err(TryLockError::WouldBlock) => {}
        }
    }

    fn turn(&self) -> Result<Turn<'_>, RunError> {
        let dispatch = self.port().dispatch()?;
        let peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        let table = self.emitter.registry().take().ok_or(memit_engine::Busy)?;
        Ok(Turn { table: Some(table), peers, dispatch, endpoint: self })
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.shutdown();
    }
}

/// The right to dispatch, and all that it takes. Declared in the order in which it is given up.
struct Turn<'t> {
    table: Option<Box<Table<Callback>>>,
    peers: MutexGuard<'t, Peers>,
    dispatch: Dispatch<'t>,
    endpoint: &'t Endpoint,
}

impl Turn<'_> {
    /// Dispatches what is there, without waiting. Returns how many messages, arrivals and departures that were.
    fn step(&mut self) -> usize {
        let Some(table) = &mut self.table else { return 0 };
        drop(self.endpoint.emitter.refresh(table));
        let mut dispatcher = Dispatcher {
            emitter: &self.endpoint.emitter,
            outgoing: &self.endpoint.outgoing,
            table,
            peers: &mut self.peers,
            handled: 0,
        };
        self.dispatch.poll(BATCH, &mut dispatcher);
        dispatcher.handled
    }

    /// Why nothing will ever arrive any more, if that is so.
    fn end(&self) -> Option<RunError> {
        let port = self.endpoint.port();
        if port.is_shut_down() {
            return Some(RunError::ShutDown);
        }
        match &self.peers.last_end {
            Some(reason) if port.role() == Role::Renderer => Some(RunError::Disconnected(reason.clone())),
            _ => None,
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if self.endpoint.port().is_shut_down() {
            self.peers.clear();
        }
        if let Some(table) = self.table.take() {
            self.endpoint.emitter.registry().give_back(table);
        }
    }
}
