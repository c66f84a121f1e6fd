//! What the tests of the whole API share: endpoints in a directory of their own, and deadlines, so that a hang is a
//! failure.
#![allow(
    dead_code,
    unused_imports,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "a module of each test file, which uses a part of it"
)]

#[path = "../common/mod.rs"]
pub mod common;

use std::{
    fs::Permissions,
    os::unix::fs::PermissionsExt,
    sync::{Arc, Mutex, mpsc},
    thread::{self, JoinHandle},
    time::Duration,
};

pub use common::within_deadline;
use memit::{IpcMain, IpcRenderer, RunError};
use tempfile::TempDir;

/// Longer than any wait that succeeds, and shorter than a test may take.
pub const PATIENCE: Duration = common::DEADLINE.checked_div(2).expect("two is not zero");

/// A main in a directory of its own.
pub struct Rig {
    pub main: IpcMain,
    pub directory: TempDir,
}

impl Rig {
    pub fn new() -> Self {
        Self::with(|builder| builder)
    }

    pub fn with(set: impl FnOnce(memit::Builder<IpcMain>) -> memit::Builder<IpcMain>) -> Self {
        let directory = tempfile::Builder::new().permissions(Permissions::from_mode(0o700)).tempdir().unwrap();
        let main = set(IpcMain::builder().runtime_dir(directory.path())).bind("app").unwrap();
        Self { main, directory }
    }

    pub fn builder(&self) -> memit::Builder<IpcRenderer> {
        IpcRenderer::builder().runtime_dir(self.directory.path())
    }

    pub fn renderer(&self) -> IpcRenderer {
        self.builder().connect("app").unwrap()
    }

    /// Dispatches main in this thread until `done`.
    pub fn until(&self, done: impl FnMut() -> bool) {
        until(|| self.main.run_once(PATIENCE), done);
    }
}

/// Dispatches by `once` until `done`; it is a failure if nothing comes.
pub fn until(mut once: impl FnMut() -> Result<usize, RunError>, mut done: impl FnMut() -> bool) {
    while !done() {
        assert_ne!(once().unwrap(), 0, "nothing came");
    }
}

/// An endpoint that another thread dispatches, until this is dropped.
pub struct Running<E: Dispatches> {
    endpoint: E,
    thread: Option<JoinHandle<Result<(), RunError>>>,
}

pub trait Dispatches: Clone + Send + 'static {
    fn run(&self) -> Result<(), RunError>;
    fn shutdown(&self);
}

impl Dispatches for IpcMain {
    fn run(&self) -> Result<(), RunError> {
        IpcMain::run(self)
    }

    fn shutdown(&self) {
        IpcMain::shutdown(self);
    }
}

impl Dispatches for IpcRenderer {
    fn run(&self) -> Result<(), RunError> {
        IpcRenderer::run(self)
    }

    fn shutdown(&self) {
        IpcRenderer::shutdown(self);
    }
}

impl<E: Dispatches> Running<E> {
    pub fn start(endpoint: &E) -> Self {
        let endpoint = endpoint.clone();
        let dispatched = endpoint.clone();
        Self { endpoint, thread: Some(thread::spawn(move || dispatched.run())) }
    }

    /// Waits for `run` to return by itself.
    pub fn join(mut self) -> Result<(), RunError> {
        self.thread.take().unwrap().join().unwrap()
    }
}

impl<E: Dispatches> Drop for Running<E> {
    fn drop(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        self.endpoint.shutdown();
        let ended = thread.join();
        if !thread::panicking() {
            ended.unwrap().unwrap();
        }
    }
}

/// What listeners write down, in order.
#[derive(Debug)]
pub struct Log<T = String>(Arc<Mutex<Vec<T>>>);

impl<T> Clone for Log<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Default for Log<T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<T> Log<T> {
    pub fn push(&self, entry: impl Into<T>) {
        self.0.lock().unwrap().push(entry.into());
    }

    pub fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    pub fn take(&self) -> Vec<T> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

/// Says when it is dropped.
pub struct Tell(pub mpsc::Sender<()>);

impl Drop for Tell {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

/// For a listener that must not run. (A closure that ends in `panic!` has no type of its own to be an `Outcome`.)
pub fn unexpected(why: &str) {
    panic!("{why}");
}
