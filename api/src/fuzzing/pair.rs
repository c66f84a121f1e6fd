//! Two endpoints in one thread, and what they are connected by: nothing of it has a name once it is there.

use std::{fs::Permissions, os::unix::fs::PermissionsExt, path::Path, time::Duration};

use memit_engine::{Config, Port};

use crate::{IpcMain, IpcRenderer, message::format_fingerprint};

/// Longer than anything takes that comes.
const PATIENCE: Duration = Duration::from_secs(30);

/// A main, and whatever `connect` makes in a directory that is gone when this returns.
fn connected<T>(connect: impl FnOnce(&Path) -> T) -> (IpcMain, T) {
    let directory = tempfile::Builder::new().permissions(Permissions::from_mode(0o700)).tempdir().unwrap();
    let main = IpcMain::builder().runtime_dir(directory.path()).ring_capacity(16 << 10).bind("app").unwrap();
    let peer = connect(directory.path());
    assert_eq!(main.run_once(PATIENCE).unwrap(), 1, "the peer arrives");
    (main, peer)
}

pub(super) fn renderer() -> (IpcMain, IpcRenderer) {
    connected(|directory| IpcRenderer::builder().runtime_dir(directory).ring_capacity(16 << 10).connect("app").unwrap())
}

/// A renderer that is none of this crate's, but speaks the engine's protocol and says of its channels what it likes.
pub(super) fn stranger() -> (IpcMain, Port) {
    connected(|directory| {
        let mut config = Config::default();
        config.runtime_dir = Some(directory.to_owned());
        config.format_fingerprint = format_fingerprint();
        config.ring_capacity = 16 << 10;
        Port::connect("app", config).unwrap()
    })
}
